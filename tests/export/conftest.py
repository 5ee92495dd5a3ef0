"""One small model with everything that is hard to export, exported once for many tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def workers():
    """Both worker processes live as long as the session: TensorFlow is imported once."""
    from keras_seq.export import close_workers

    yield
    close_workers()


def samples_for(rows: int = 10) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(3)
    return {
        "series": generator.normal(50, 20, size=(rows, 9, 3)).astype("float32"),
        "time_index": (np.arange(rows) % 5).astype("int32"),
    }


def mixed_model():
    """LSTM, GRU, BiLSTM, attention and convolution; two inputs (one int32), two outputs."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(7)
    series = keras.Input((9, 3), name="series")
    index = keras.Input((), dtype="int32", name="time_index")
    scaled = layers.Normalization(mean=[50.0] * 3, variance=[400.0] * 3, name="scale")(series)
    x = layers.Conv1D(6, 3, padding="causal", activation="relu")(scaled)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
    x = layers.LSTM(6, return_sequences=True, name="lstm")(x)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.GRU(6, name="gru")(x)
    x = layers.Add()([x, layers.Embedding(5, 6)(index)])
    forecast = layers.Reshape((4, 2))(layers.Dense(8)(x))
    outputs = {"forecast": forecast * 20.0 + 50.0, "quantiles": layers.Dense(3)(x)}
    return keras.Model({"series": series, "time_index": index}, outputs, name="mixed")


@pytest.fixture()
def mixed():
    return mixed_model(), samples_for()


def dense_model(scale: float = 1.0):
    import keras

    keras.utils.set_random_seed(1)
    x = keras.Input((4, 2), name="series")
    y = keras.layers.Dense(3, name="out")(keras.layers.Flatten()(x))
    model = keras.Model({"series": x}, {"forecast": y}, name="dense")
    for weight in model.weights:
        weight.assign(weight * scale)
    return model


@pytest.fixture()
def dense():
    return dense_model()


@pytest.fixture()
def rows() -> dict[str, np.ndarray]:
    return {"series": np.random.default_rng(0).normal(size=(5, 4, 2)).astype("float32")}


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> tuple[Path, dict, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The mixed model in every format: folder, report, samples, and what Keras answers."""
    from keras_seq.export import export

    folder = tmp_path_factory.mktemp("exported") / "deep" / "mixed"
    model, samples = mixed_model(), samples_for()
    report = export(
        model,
        folder,
        formats=("saved_model", "litert:all", "keras"),
        samples=samples,
        card={"data": "noise", "scores": {"mse": 1.25}, "command": "pytest", "licence": "none"},
    )
    answers = {k: np.asarray(v) for k, v in model(samples, training=False).items()}
    return folder, report, samples, answers
