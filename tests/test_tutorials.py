"""Every tutorial runs from its first cell to its last, on settings that take seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "tutorials"
TUTORIALS = sorted(FOLDER.glob("*.py"))


def test_there_are_tutorials():
    assert TUTORIALS


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    # They share nothing: each may run on any worker.
    [pytest.param(path, marks=pytest.mark.xdist_group(path.stem)) for path in TUTORIALS],
    ids=lambda path: path.stem,
)
def test_tutorial_runs(path: Path, tmp_path: Path):
    environment = {
        **os.environ,
        "KERAS_SEQ_FAST": "1",
        "KERAS_SEQ_OUT": str(tmp_path / "runs"),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_is_a_notebook(path: Path):
    """jupytext reads it as cells: text first, code after, none empty."""
    jupytext = pytest.importorskip("jupytext")
    notebook = jupytext.read(path)
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0] == "markdown"
    assert "code" in kinds
    assert all(cell.source.strip() for cell in notebook.cells)
    assert notebook.cells[0].source.startswith("# ")
