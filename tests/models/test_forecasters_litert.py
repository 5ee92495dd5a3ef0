"""Each forecaster, with its normalisation, computes the same on an edge runtime."""

from __future__ import annotations

import importlib
import inspect

import keras
import numpy as np
import pytest

from keras_seq.layers.reversible_normalization import (
    ReverseNormalization,
    ReversibleNormalization,
)

# TensorFlow's own converter, on its way out, says so.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

LOOKBACK, HORIZON, CHANNELS, PERIOD = 48, 20, 3, 6
CASES = [
    ("linear", {}),
    ("linear", {"form": "dlinear"}),
    ("cycle", {"width": 16}),
    ("segment_rnn", {"width": 16, "segment_length": 10}),
    ("nhits", {"width": 16, "depth": 1}),
    ("tsmixer", {"width": 16, "depth": 1}),
    ("patch_transformer", {"width": 16, "depth": 1}),
    ("inverted_transformer", {"width": 16, "depth": 1}),
]


@pytest.mark.parametrize(("name", "options"), CASES, ids=[n + str(len(o)) for n, o in CASES])
def test_litert_equals_keras(name, options, tmp_path):
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    function = getattr(importlib.import_module(f"keras_seq.models.{name}"), name)
    series = keras.Input((LOOKBACK, CHANNELS), name="series")
    mask = keras.Input((LOOKBACK,), name="mask", dtype="bool")
    inputs, context = {"series": series, "mask": mask}, {}
    signature = {
        "series": tf.TensorSpec((1, LOOKBACK, CHANNELS), tf.float32, name="series"),
        "mask": tf.TensorSpec((1, LOOKBACK), tf.bool, name="mask"),
    }
    if "time_index" in inspect.signature(function).parameters:
        inputs["time_index"] = keras.Input((), name="time_index", dtype="int32")
        signature["time_index"] = tf.TensorSpec((1,), tf.int32, name="time_index")
        context = {"period": PERIOD, "time_index": inputs["time_index"]}
    x, location, scale = ReversibleNormalization(affine=True)(series, mask=mask)
    y = function(x, horizon=HORIZON, outputs=2, mask=mask, **options, **context)
    model = keras.Model(inputs, {"forecast": ReverseNormalization()(y, location, scale)})
    model.set_weights([0.2 * np.random.normal(size=w.shape) for w in model.get_weights()])

    path = tmp_path / "model.tflite"
    model.export(
        path,
        format="litert",
        verbose=False,
        input_signature=[signature],
        target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
    )
    runner = Interpreter(str(path)).get_signature_runner()
    for spread in (1.0, 0.0):  # an ordinary window and a constant one
        values = {
            "series": (5 + spread * np.random.normal(size=(1, LOOKBACK, CHANNELS))).astype("f4"),
            "mask": np.arange(LOOKBACK)[None] >= 5,
            "time_index": np.array([1234], "int32"),
        }
        values = {key: values[key] for key in inputs}
        wanted = np.asarray(model(values)["forecast"])
        got = runner(**values)["forecast"]
        scale_of_output = max(1.0, float(np.abs(wanted).max()))
        assert np.abs(got - wanted).max() <= 1e-5 * scale_of_output
