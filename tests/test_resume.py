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
    "--track", "none",
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


def wait_for(process: subprocess.Popen[str], path: Path) -> None:
    until = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.02)


def test_stopped_and_killed_comparison_ends_as_if_nothing_had_happened(tmp_path):
    """Ctrl-C keeps what is there and says how to go on; then `kill -9`, and on again."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert "done" in finish(start(whole))
    # In the middle of the first architecture.
    process = start(killed)
    wait_for(process, killed / "linear" / "0" / "checkpoint.npz")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume goes on" in said
    assert "Traceback" not in said
    assert (killed / "leaderboard.csv").exists()
    # The first architecture is finished, the second in the middle of its training.
    process = start(killed, "--resume")
    wait_for(process, killed / "gru" / "0" / "checkpoint.npz")
    process.kill()
    process.communicate()
    assert not (killed / "gru" / "0" / "metrics.json").exists()
    before = (killed / "linear" / "0" / "model.keras").stat().st_mtime_ns
    said = finish(start(killed, "--resume"))
    assert "linear seed 0: read from" in said
    assert "done" in said
    assert (killed / "linear" / "0" / "model.keras").stat().st_mtime_ns == before
    pd.testing.assert_frame_equal(board(whole), board(killed), check_exact=True)
    for name in ("linear", "gru"):
        rows = [pd.read_csv(out / name / "0" / "history.csv") for out in (whole, killed)]
        pd.testing.assert_frame_equal(
            rows[0].drop(columns="seconds"), rows[1].drop(columns="seconds"), check_exact=True
        )
