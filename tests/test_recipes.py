"""Every recipe runs from top to bottom on small data, and stays short enough to be read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "recipes"


def run(name: str, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_recipe_is_short(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.slow
def test_time_series(tmp_path: Path):
    said = run(
        "time_series.py",
        *("--data", "builtin:el_nino", "--architectures", "linear,mlp"),
        *("--epochs", "1", "--out", "runs/small"),
        folder=tmp_path,
    )
    assert "seasonal_naive" in said
    assert (tmp_path / "runs/small/forecast.csv").exists()


@pytest.mark.slow
def test_sentiment(tmp_path: Path):
    from keras_seq.data import make_reviews

    reviews = make_reviews(400, seed=3)
    data = tmp_path / "reviews.tsv"
    pd.DataFrame({"label": reviews.labels, "text": reviews.texts}).to_csv(
        data, sep="\t", index=False
    )
    said = run(
        "sentiment.py",
        *("--data", str(data), "--architectures", "text_cnn,gru"),
        *("--epochs", "1", "--out", "runs/small"),
        folder=tmp_path,
    )
    assert "naive_bayes" in said
    labels = pd.read_csv(tmp_path / "runs/small/labels.csv")
    assert len(labels) == 2
    assert (tmp_path / "runs/small/explanation.html").exists()
