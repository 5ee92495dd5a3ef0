"""`kill -9` during a comparison, and `--resume`: the leaderboard of an uninterrupted one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.slow

WORDS = [
    "compare", "forecasting", "--data", "builtin:waves", "--lookback", "48", "--horizon", "12",
    "--architectures", "linear,gru", "--parameters", "4000", "--epochs", "3", "--batch-size", "32",
    "--steps-per-epoch", "100", "--deterministic", "--export", "none",
]  # fmt: skip
TIMES = ("seconds", "latency_ms")


# A shell without job control hands on that Ctrl-C is to be ignored: the child heeds it again.
MAIN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from keras_seq.__main__ import main
main(sys.argv[1:])
"""


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAIN, *WORDS, "--out", str(out), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def board(out: Path) -> pd.DataFrame:
    frame = pd.read_csv(out / "leaderboard.csv")
    return frame[[c for c in frame.columns if not any(word in c for word in TIMES)]]


def test_killed_comparison_ends_as_if_nothing_had_happened(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(whole))
    process = start(killed)
    # The first architecture is finished, the second in the middle of its training.
    until = time.monotonic() + 300
    while not (killed / "gru" / "0" / "checkpoint.npz").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert not (killed / "gru" / "0" / "metrics.json").exists()
    before = (killed / "linear" / "0" / "model.keras").stat().st_mtime_ns
    said = finish(start(killed, "--resume"))
    assert "linear seed 0: read from" in said
    assert (killed / "linear" / "0" / "model.keras").stat().st_mtime_ns == before
    pd.testing.assert_frame_equal(board(whole), board(killed), check_exact=True)
    weights = [pd.read_csv(out / "gru" / "0" / "history.csv") for out in (whole, killed)]
    pd.testing.assert_frame_equal(
        weights[0].drop(columns="seconds"), weights[1].drop(columns="seconds"), check_exact=True
    )


def test_ctrl_c_keeps_what_is_there_and_says_how_to_go_on(tmp_path):
    out = tmp_path / "stopped"
    process = start(out)
    until = time.monotonic() + 300
    while not (out / "linear" / "0" / "checkpoint.npz").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume goes on" in said
    assert "Traceback" not in said
    assert (out / "leaderboard.csv").exists()
    assert "done" in finish(start(out, "--resume"))
