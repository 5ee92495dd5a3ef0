"""What an installed wheel needs is in it."""

from __future__ import annotations

import tomllib


def test_every_file_of_the_package_is_packaged(repository):
    """A template that is missing from package-data fails only in an installed wheel."""
    package = repository / "keras_seq"
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["keras_seq"]
    packaged = {path for pattern in patterns for path in package.glob(pattern)}
    others = {
        path
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts
    }
    assert others, "the leaderboard's template has gone"
    assert others <= packaged, sorted(str(path) for path in others - packaged)
