"""Bad input: one line, exit code 2, nothing left behind. Good input: what a user sees."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from keras_seq.__main__ import main


def run(capsys, *words: str) -> tuple[int, str, str]:
    """Runs the command line in this process."""
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    printed = capsys.readouterr()
    return int(stopped.value.code or 0), printed.out, printed.err


def compare(path: Path | str, out: Path, *more: str) -> list[str]:
    return [
        "compare", "forecasting", "--data", str(path), "--lookback", "24", "--horizon", "6",
        "--architectures", "linear", "--epochs", "1", "--out", str(out), *more,
    ]  # fmt: skip


def refused(capsys, words: list[str], *fragments: str, out: Path | None = None) -> None:
    """Exit code 2, one line that holds the fragments, no traceback, nothing written."""
    before = sorted(out.parent.rglob("*")) if out else []
    code, _, err = run(capsys, *words)
    assert code == 2, err
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("keras-seq: error: ")
    assert "Traceback" not in err
    for fragment in fragments:
        assert fragment in lines[0], lines[0]
    if out:
        assert sorted(out.parent.rglob("*")) == before


def hours(rows: int = 200) -> pd.DataFrame:
    step = np.arange(rows)
    return pd.DataFrame(
        {
            "time": pd.date_range("2024-01-01", periods=rows, freq="h").astype(str),
            "load": 10 + np.sin(2 * np.pi * step / 24),
        }
    )


def write(frame: pd.DataFrame, folder: Path) -> Path:
    path = folder / "data.csv"
    frame.to_csv(path, index=False)
    return path


def test_missing_file(capsys, tmp_path):
    refused(capsys, compare(tmp_path / "no.csv", tmp_path / "out"), "no.csv", out=tmp_path / "out")


def test_empty_file(capsys, tmp_path):
    path = tmp_path / "empty.csv"
    path.write_text("")
    refused(capsys, compare(path, tmp_path / "out"), "empty", out=tmp_path / "out")


def test_no_such_column(capsys, tmp_path):
    path = write(hours(), tmp_path)
    words = compare(path, tmp_path / "out", "--target", "laod")
    refused(capsys, words, "'laod'", "load", out=tmp_path / "out")


def test_non_numeric_target(capsys, tmp_path):
    frame = hours().astype({"load": object})
    frame.loc[3, "load"] = "much"
    path = write(frame, tmp_path)
    words = compare(path, tmp_path / "out", "--target", "load")
    refused(capsys, words, "much", "4", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        ("unsorted", ("row",)),
        ("duplicate", ("row",)),
        ("nan", ("row", "interpolate")),
        ("inf", ("row",)),
        ("short", ("36",)),
    ],
)
def test_bad_rows(capsys, tmp_path, change, fragments):
    frame = hours()
    if change == "unsorted":
        frame.loc[[10, 20], "time"] = frame.loc[[20, 10], "time"].to_numpy()
    elif change == "duplicate":
        frame.loc[11, "time"] = frame.loc[10, "time"]
    elif change == "nan":
        frame.loc[7, "load"] = np.nan
    elif change == "inf":
        frame.loc[7, "load"] = np.inf
    elif change == "short":
        frame = frame.iloc[:36]
    path = write(frame, tmp_path)
    refused(capsys, compare(path, tmp_path / "out"), *fragments, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("more", "fragments"),
    [
        (("--horizon", "0"), ("--horizon", "at least 1")),
        (("--lookback", "-3"), ("--lookback",)),
        (("--architectures", "lstn"), ("'lstn'", "'lstm'")),
        (("--architectures", "linear,linear"), ("twice",)),
        (("--set", "linear.widht=3"), ("widht", "linear")),
        (("--set", "gru.width=3"), ("gru",)),
        (("--set", "linear"), ("lstm.depth=2",)),
        (("--quantiles", "0.1,much"), ("--quantiles",)),
        (("--quantiles", "0.1,1.5"), ("between 0 and 1",)),
        (("--split", "0.9,0.9,0.9"), ("split",)),
        (("--split", "today"), ("split",)),
        (("--gaps", "close"), ("interpolate",)),
        (("--seeds", "0"), ("--seeds",)),
        (("--learning-rates", "99"), ("--learning-rates",)),
        (("--track", "nobody"), ("nobody", "tensorboard")),
        (("--recipe", "none.toml"), ("none.toml",)),
        (("--export", "tflite"), ("tflite", "litert")),
    ],
)
def test_bad_options(capsys, tmp_path, more, fragments):
    path = write(hours(), tmp_path)
    refused(capsys, compare(path, tmp_path / "out", *more), *fragments, out=tmp_path / "out")


def test_folder_of_something_else(capsys, tmp_path):
    path = write(hours(), tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    refused(capsys, compare(path, out), "no comparison of ours", out=out)
    assert (out / "mine.txt").read_text() == "mine"


def test_folder_of_another_comparison(capsys, tmp_path):
    path = write(hours(), tmp_path)
    out = tmp_path / "out"
    code, text, _ = run(capsys, *compare(path, out, "--export", "none", "--track", "none"))
    assert code == 0
    assert "Leaderboard" in text
    refused(capsys, compare(path, out, "--epochs", "2"), "another comparison", "epochs", out=out)
    refused(capsys, compare(path, out), "--resume", out=out)
    refused(capsys, compare(path, out, "--epochs", "2", "--resume"), "another comparison", out=out)


def test_full_disk_leaves_one_line(capsys, tmp_path, monkeypatch):
    import keras_seq.training

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(keras_seq.training, "write_atomically", full)
    path = write(hours(), tmp_path)
    code, _, err = run(capsys, *compare(path, tmp_path / "out", "--track", "none"))
    assert code == 2
    assert "No space left on device" in err
    assert "Traceback" not in err
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_runs_that_are_none(capsys, tmp_path):
    refused(capsys, ["evaluate", str(tmp_path)], "no finished run")
    refused(capsys, ["export", str(tmp_path)], "no finished run")
    refused(
        capsys,
        ["predict", str(tmp_path), "--data", "x.csv", "--out", str(tmp_path / "y.csv")],
        "holds no model",
    )
    refused(capsys, ["tensorboard", str(tmp_path / "nothing")], "no folder")


def test_truncated_model_file(capsys, tmp_path):
    import keras

    from keras_seq import save

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    path = save(model, tmp_path / "model.keras")
    path.write_bytes(path.read_bytes()[:200])
    words = ["predict", str(path), "--data", "x.csv", "--out", str(tmp_path / "y.csv")]
    refused(capsys, words, "model.keras")


def test_list_names_every_architecture_and_filters_by_tag(capsys):
    from keras_seq import architectures

    code, text, _ = run(capsys, "list")
    assert code == 0
    assert all(name in text for name in architectures.names())
    _, causal, _ = run(capsys, "list", "--tag", "causal")
    assert "lstm" in causal
    assert "nhits" not in causal


def test_help_is_instant_and_loads_no_tensorflow():
    began = time.monotonic()
    code = (
        "import sys; from keras_seq.__main__ import main\n"
        "try: main(['compare', 'forecasting', '--help'])\n"
        "except SystemExit: pass\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--lookback" in done.stdout
    # Under a second on an idle machine; the suite may share it with other tests.
    assert time.monotonic() - began < 10


def test_help_shows_the_defaults_that_are_used(capsys):
    """The command line writes the recipe's defaults out, so that help need not import training."""
    from dataclasses import fields

    from keras_seq.__main__ import _USUAL
    from keras_seq.recipe import Recipe
    from keras_seq.registry import tasks

    usual = {field.name: field.default for field in fields(Recipe)}
    assert {name: usual[name] for name in _USUAL} == _USUAL
    for name in tasks.names():
        code, out, _ = run(capsys, "compare", name, "--help")
        assert code == 0
        for option, value in tasks.get(name).defaults.items():
            assert option in usual
            if option in _USUAL:
                assert f"(default {value})" in " ".join(out.replace("│", " ").split())
