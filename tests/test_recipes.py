"""Every recipe runs from top to bottom on small data, and stays short enough to be read."""

from __future__ import annotations

import functools
import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest

import keras_seq

FOLDER = Path(__file__).resolve().parent.parent / "recipes"


@pytest.fixture()
def run(tmp_path, monkeypatch, capsys):
    """Runs a recipe as a script, in this process: it has TensorFlow already."""

    def run(name: str, *arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        # TensorBoard is tested by comparisons of the same tasks.
        monkeypatch.setattr(keras_seq, "compare", functools.partial(keras_seq.compare, track=()))
        runpy.run_path(str(FOLDER / name), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_recipe_is_short(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.slow
def test_time_series(run, tmp_path: Path):
    said = run(
        "time_series.py",
        *("--data", "builtin:el_nino", "--architectures", "linear,mlp"),
        *("--epochs", "1", "--out", str(tmp_path / "runs/small")),
    )
    assert "seasonal_naive" in said
    assert (tmp_path / "runs/small/forecast.csv").exists()


@pytest.mark.slow
def test_sentiment(run, tmp_path: Path):
    from keras_seq.data import make_reviews

    reviews = make_reviews(400, seed=3)
    data = tmp_path / "reviews.tsv"
    pd.DataFrame({"label": reviews.labels, "text": reviews.texts}).to_csv(
        data, sep="\t", index=False
    )
    said = run(
        "sentiment.py",
        *("--data", str(data), "--architectures", "text_cnn,gru"),
        *("--epochs", "1", "--out", str(tmp_path / "runs/small")),
    )
    assert "naive_bayes" in said
    labels = pd.read_csv(tmp_path / "runs/small/labels.csv")
    assert len(labels) == 2
    assert (tmp_path / "runs/small/explanation.html").exists()
