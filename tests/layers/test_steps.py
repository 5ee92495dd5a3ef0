"""One step after another gives what the whole sequence gives."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose

from keras_seq.layers import (
    LearnedPositions,
    MultiHeadAttention,
    RotaryPositions,
    SinusoidalPositions,
    TransformerBlock,
)
from keras_seq.layers.steps import Step, step_shapes

B, T, D = 3, 7, 8


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(B, T, D)).astype("float32")


def randomise(layer):
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(0, 0.5, w.shape).astype("float32") for w in layer.get_weights()])


def step_by_step(layer, x, length=T):
    """The outputs of every step, one after the other; of several outputs the first."""
    step = Step(layer)
    states = {
        key: np.zeros((len(x), *shape), "float32")
        for key, shape in step_shapes(layer, length).items()
    }
    outputs = []
    for t in range(x.shape[1]):
        output, states = step(x[:, t : t + 1], states, np.full(len(x), t, "int32"))
        outputs.append(output[0] if isinstance(output, tuple) else output)
    return np.concatenate(outputs, axis=1)


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("length", [T, T + 5])
def test_attention(x, rotary, length):
    layer = MultiHeadAttention(2, causal=True, rotary=rotary)
    whole, _ = layer(x)
    randomise(layer)
    whole, _ = layer(x)
    assert_allclose(step_by_step(layer, x, length), whole, atol=1e-5)


def test_attention_weights_of_a_step(x):
    layer = MultiHeadAttention(2, causal=True)
    _, whole = layer(x)
    states = {k: np.zeros((B, *s), "float32") for k, s in layer.step_shapes(T).items()}
    for t in range(T):
        (_, weights), states = layer.step(x[:, t : t + 1], states, np.full(B, t, "int32"))
    assert weights.shape == (B, 2, 1, T)
    assert_allclose(weights[:, :, 0], whole[:, :, -1], atol=1e-6)


def test_rows_may_stand_at_different_positions(x):
    """Row 0 is at step 5 while row 1 is at step 2: each sees its own past."""
    layer = MultiHeadAttention(2, causal=True, rotary=True)
    whole, _ = layer(x)
    states = {k: np.zeros((B, *s), "float32") for k, s in layer.step_shapes(T).items()}
    ends = np.array([5, 2, 0])
    for t in range(6):
        place = np.minimum(t, ends)
        (output, _), states = layer.step(
            np.stack([x[b, p] for b, p in enumerate(place)])[:, None], states, place.astype("int32")
        )
    assert_allclose(output[:, 0], np.stack([whole[b, p] for b, p in enumerate(ends)]), atol=1e-5)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("glu", [False, True])
def test_transformer_block(x, norm, glu):
    layer = TransformerBlock(D, 2, norm=norm, glu=glu, causal=True, rotary=True)
    layer(x)
    randomise(layer)
    whole, _ = layer(x)
    assert_allclose(step_by_step(layer, x), whole, atol=1e-5, rtol=1e-5)


def test_sinusoidal_positions_of_a_very_long_sequence():
    layer = SinusoidalPositions(max_length=5000)
    whole = layer(np.zeros((1, 5000, D), "float32"))
    places = np.array([0, 255, 256, 4999], "int32")
    found, _ = layer.step(np.zeros((4, 1, D), "float32"), {}, places)
    assert_allclose(found[:, 0], np.asarray(whole)[0, places], atol=1e-6)


@pytest.mark.parametrize("kind", [SinusoidalPositions, LearnedPositions])
def test_positions(x, kind):
    layer = kind(max_length=T)
    layer(x)
    assert_allclose(step_by_step(layer, x), layer(x), atol=1e-6)
    with pytest.raises(ValueError, match="knows 7 positions"):
        step_shapes(layer, T + 1)


def test_rotary_positions(x):
    layer, heads = RotaryPositions(max_length=T), x[:, None]
    whole = layer(heads)
    for t in range(T):
        turned, _ = layer.step(heads[:, :, t : t + 1], {}, np.full(B, t, "int32"))
        assert_allclose(turned[:, :, 0], whole[:, :, t], atol=1e-6)


@pytest.mark.parametrize("cell", ["SimpleRNN", "LSTM", "GRU"])
def test_recurrent(x, cell):
    layer = getattr(keras.layers, cell)(5, return_sequences=True)
    whole = layer(x)
    assert_allclose(step_by_step(layer, x), whole, atol=1e-5)


def test_recurrent_that_returns_the_last_state(x):
    layer = keras.layers.GRU(5)
    whole = layer(x)
    states = {"hidden": np.zeros((B, 5), "float32")}
    for t in range(T):
        output, states = Step(layer)(x[:, t : t + 1], states, np.full(B, t, "int32"))
    assert_allclose(output, whole, atol=1e-5)


def test_who_sees_the_end_has_no_step(x):
    for layer in (
        MultiHeadAttention(2),
        keras.layers.Bidirectional(keras.layers.GRU(2)),
        keras.layers.LSTM(2, go_backwards=True),
    ):
        layer(x)
        with pytest.raises(ValueError, match="no step of its own"):
            step_shapes(layer, T)


def test_a_layer_for_each_step_alone_remembers_nothing():
    assert step_shapes(keras.layers.Dense(2), 4) is None


def test_a_step_is_saved_and_loaded(x, tmp_path):
    layer = keras.layers.LSTM(4, return_sequences=True)
    whole = layer(x)
    inputs = {
        "x": keras.Input((1, D), name="x"),
        "position": keras.Input((), name="position", dtype="int32"),
        "hidden": keras.Input((4,), name="hidden"),
        "cell": keras.Input((4,), name="cell"),
    }
    states = {"hidden": inputs["hidden"], "cell": inputs["cell"]}
    output, after = Step(layer, length=9)(inputs["x"], states, inputs["position"])
    model = keras.Model(inputs, {"y": output, **after})
    model.save(tmp_path / "step.keras")
    again = keras.saving.load_model(tmp_path / "step.keras")
    zero = np.zeros((B, 4), "float32")
    given = {"x": x[:, :1], "position": np.zeros(B, "int32"), "hidden": zero, "cell": zero}
    assert_allclose(again(given)["y"][:, 0], whole[:, 0], atol=1e-6)
    assert next(layer for layer in again.layers if isinstance(layer, Step)).length == 9
