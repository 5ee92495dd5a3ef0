"""Fixtures that every test may use. Kept small: a helper that one file needs lives in that file."""

from __future__ import annotations

import os

# Before anything imports TensorFlow: its C++ log would drown pytest's report, and two threads
# are all that a small machine has. The tests themselves never need a GPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--dist loadgroup` a file stays on one worker, so that its fixtures are made once.

    A test with a mark of its own keeps it: the conformance grid spreads over all workers.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Start every test from the same random state, and leave no Keras names or graphs behind.

    Keras is touched only when something else has imported it already, so that the tests of the
    plain-Python parts stay instant.
    """
    random.seed(0)
    np.random.seed(0)
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "utils"):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
    yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def data_path() -> Path:
    """The folder that KERAS_SEQ_DATA names: real data sets too large for the repository."""
    folder = os.environ.get("KERAS_SEQ_DATA", "")
    if not folder:
        pytest.skip("KERAS_SEQ_DATA is not set: this test reads real data from that folder")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"KERAS_SEQ_DATA is set to {folder!r}, which is not a folder")
    return path


@pytest.fixture()
def series_frame():
    """240 hours of two waves with a little noise: columns ``time``, ``load`` and ``heat``."""
    import pandas as pd

    generator = np.random.default_rng(0)
    step = np.arange(240)
    return pd.DataFrame(
        {
            "time": pd.date_range("2024-01-01", periods=len(step), freq="h"),
            "load": 10 + 3 * np.sin(2 * np.pi * step / 24) + 0.1 * generator.normal(size=len(step)),
            "heat": 5 + 2 * np.cos(2 * np.pi * step / 12) + 0.1 * generator.normal(size=len(step)),
        }
    )


@pytest.fixture()
def series_csv(tmp_path: Path, series_frame) -> Path:
    """The same frame as a file."""
    path = tmp_path / "series.csv"
    series_frame.to_csv(path, index=False)
    return path
