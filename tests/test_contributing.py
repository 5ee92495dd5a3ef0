"""The code in CONTRIBUTING.md works as it stands there."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

import keras_seq

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    found = re.search(rf"<!-- test: {name} -->\n```\w+\n(.*?)\n```", TEXT, re.DOTALL)
    assert found, f"no block named {name}"
    return found.group(1)


@pytest.fixture()
def moving_average(tmp_path, monkeypatch):
    (tmp_path / "moving_average_example.py").write_text(block("architecture"))
    monkeypatch.syspath_prepend(str(tmp_path))
    target = "moving_average_example:moving_average"
    keras_seq.architectures.add("moving_average", target, origin="CONTRIBUTING.md")
    yield "moving_average"
    keras_seq.architectures.remove("moving_average")
    sys.modules.pop("moving_average_example", None)


def test_the_example_architecture_passes_every_check(moving_average):
    from keras_seq.testing import check_architecture

    report = check_architecture(moving_average, fresh_process=False, export=False)
    assert {"causal", "mask_padding", "learns", "depth"} <= {r.check for r in report.results}


def test_the_example_in_its_docstring(moving_average):
    import doctest

    import moving_average_example

    assert doctest.testmod(moving_average_example).failed == 0


def test_the_example_plugin_says_what_the_registry_reads():
    project = tomllib.loads(block("plugin"))
    assert project["project"]["entry-points"]["keras_seq.architectures"] == {
        "moving_average": "my_sequence_models:moving_average"
    }
    demo = tomllib.loads((ROOT / "tests/plugin_demo/pyproject.toml").read_text())
    assert demo["project"]["entry-points"].keys() == {"keras_seq.architectures"}
    for name in re.findall(r"`keras_seq\.(architectures|tasks|exporters|trackers)`", TEXT):
        assert getattr(keras_seq.registry, name).group == f"keras_seq.{name}"


def test_the_map_of_the_house_is_complete():
    rooms = {p.name for p in (ROOT / "keras_seq").iterdir() if p.suffix == ".py"} | {
        f"{p.parent.name}/" for p in (ROOT / "keras_seq").glob("*/__init__.py")
    }
    named = set(re.findall(r"`([\w/]+(?:\.py)?)`", TEXT.split("## The house")[1].split("##")[0]))
    assert rooms - {"__init__.py", "callable_module.py"} <= named


def test_a_file_stays_on_one_worker(request):
    """Where pytest-xdist cannot group tests, each worker makes every fixture: twice the time."""
    if request.config.getoption("loadgroup", False):
        assert request.node.nodeid.endswith("@tests/test_contributing.py")
