"""Every tutorial runs from its first cell to its last, on settings that take seconds."""

from __future__ import annotations

import functools
import runpy
from pathlib import Path

import pytest

import keras_seq
from keras_seq.data import parallel

FOLDER = Path(__file__).resolve().parent.parent / "tutorials"
TUTORIALS = sorted(FOLDER.glob("*.py"))
# TensorBoard under forecasting and translation is tested by their own comparisons.
TRACKED = ("02_sentiment_from_words_to_transformers", "03_language_model_that_writes")


def test_there_are_tutorials():
    assert TUTORIALS


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    # They share nothing: each may run on any worker.
    [pytest.param(path, marks=pytest.mark.xdist_group(path.stem)) for path in TUTORIALS],
    ids=lambda path: path.stem,
)
def test_tutorial_runs(path: Path, tmp_path: Path, monkeypatch):
    """In this process: it has TensorFlow already, and what converts and runs the exports."""
    # Less than the tutorials say, where that is not what they are about.
    monkeypatch.setitem(parallel._BUILTIN, "dates", 400)
    if path.stem not in TRACKED:
        monkeypatch.setattr(keras_seq, "compare", functools.partial(keras_seq.compare, track=()))
    monkeypatch.setenv("KERAS_SEQ_FAST", "1")
    monkeypatch.setenv("KERAS_SEQ_OUT", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")


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
