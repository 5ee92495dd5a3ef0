"""One tiny model in two versions, whose answers are worked out by hand, and a server over it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROWS = np.arange(48, dtype="float32").reshape(4, 6, 2) / 7


def forecast(series: np.ndarray, version: int) -> np.ndarray:
    """What version 1 or 2 answers: the sum over time, times the version, for three steps."""
    return series.sum(axis=1)[:, None, :] * np.arange(1, 4)[:, None] * version


def write_version(folder: Path, number: int, scale: int) -> Path:
    """Writes a version of the toy: a forecast, a signature of texts, and one that takes long."""
    import keras
    import tensorflow as tf

    from keras_seq.export import Endpoint, saved_model

    series = keras.Input((None, 2), name="series")
    kind = keras.Input((), dtype="int32", name="kind")
    total = keras.ops.sum(series, axis=1)[:, None, :]
    steps = np.arange(1, 4, dtype="float32")[None, :, None] * scale
    outputs = {"forecast": total * steps, "twice": kind * 2}
    model = keras.Model({"series": series, "kind": kind}, outputs, name="toy")

    def texts(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        text = inputs["text"]
        return {
            "upper": tf.strings.upper(text),
            "text_bytes": text,
            "letters": tf.strings.length(text),
        }

    def slow(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        # Each round costs about the same, and none can be folded away.
        square = tf.ones((64, 64)) / 64.0
        _, product = tf.while_loop(
            lambda i, _: i < inputs["rounds"],
            lambda i, x: (i + 1, tf.matmul(x, square)),
            (0, square),
        )
        return {"mean": tf.reduce_mean(product) * 64.0 * float(scale)}

    words = np.array([b"one", b"two"], dtype=object)
    endpoints = [
        Endpoint(
            name="serving_text",
            call=texts,
            inputs={"text": ((None,), "string")},
            samples={"text": words},
            expected={},
        ),
        Endpoint(
            name="slow",
            call=slow,
            inputs={"rounds": ((), "int32")},
            samples={"rounds": np.int32(1)},
            expected={},
        ),
    ]
    samples = {"series": ROWS, "kind": np.arange(4, dtype="int32")}
    hidden = folder / f".{number}"
    saved_model.write(model, hidden, samples, endpoints=endpoints)
    hidden.rename(folder / str(number))
    return folder / str(number)


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Path:
    """A folder with the versions 1 and 2. Do not change it: copy it."""
    folder = tmp_path_factory.mktemp("served") / "toy"
    folder.mkdir()
    for number in (1, 2):
        write_version(folder, number, scale=number)
    return folder


@pytest.fixture()
def copied(toy: Path, tmp_path: Path) -> Path:
    """A folder with version 1 only, to be changed at will."""
    folder = tmp_path / "toy"
    shutil.copytree(toy / "1", folder / "1")
    return folder


@pytest.fixture(scope="session")
def server(toy: Path) -> Iterator:
    """A server over both versions, with labels and small limits."""
    from keras_seq.serving import Options, serving

    options = Options(
        port=0,
        grpc_port=0,
        versions="all",
        labels={"toy": {"stable": 1, "canary": 2}},
        max_body_bytes=2**20,
        max_connections=24,
        client_timeout=1.0,
    )
    with serving([toy], options) as running:
        yield running
