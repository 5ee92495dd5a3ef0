"""The block and its feed-forward layer against NumPy."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose

from keras_seq.layers import FeedForward, TransformerBlock

W, T = 8, 5


def layer_norm(x, layer):
    gamma, beta = layer.get_weights()
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * gamma + beta


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1 + np.exp(-x))


def dense(x, layer):
    kernel, bias = layer.get_weights()
    return x @ kernel + bias


def feed_forward(x, layer):
    h = dense(x, layer.expand)
    if layer.glu:
        value, gate = np.split(h, 2, -1)
        return dense(value * silu(gate), layer.contract)
    return dense(gelu(h), layer.contract)


def randomise(layer, rng):
    layer.set_weights([rng.normal(0, 0.4, w.shape).astype("float32") for w in layer.get_weights()])


@pytest.mark.parametrize("glu", [False, True])
def test_feed_forward_equals_numpy(glu):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, T, W)).astype("float32")
    layer = FeedForward(12, glu=glu)
    layer(x)
    randomise(layer, rng)
    assert_allclose(layer(x), feed_forward(x, layer), atol=1e-5)


def test_feed_forward_sizes():
    plain, gated = FeedForward(), FeedForward(glu=True)
    for layer in (plain, gated):
        layer.build((None, None, 48))
    assert plain.expand.units == 192
    assert gated.expand.units == 2 * 128
    assert abs(plain.count_params() / gated.count_params() - 1) < 0.01


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("glu", [False, True])
def test_block_equals_numpy(norm, glu):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, T, W)).astype("float32")
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    layer = TransformerBlock(W, 2, norm=norm, glu=glu, causal=True)
    layer(x)
    randomise(layer, rng)
    y, weights = layer(x, mask=mask)

    def attend(h):
        # The attention layer has its own test against NumPy.
        return np.asarray(layer.attention(h.astype("float32"), mask=mask)[0])

    if norm == "pre":
        h = x + attend(layer_norm(x, layer.attention_norm))
        expected = h + feed_forward(layer_norm(h, layer.feed_forward_norm), layer.feed_forward)
    else:
        h = layer_norm(x + attend(x), layer.attention_norm)
        expected = layer_norm(h + feed_forward(h, layer.feed_forward), layer.feed_forward_norm)
    assert_allclose(y, expected, atol=2e-5)
    assert weights.shape == (2, 2, T, T)
    assert (np.asarray(weights)[0, :, :, 3:] == 0).all()


def test_gradient_against_differences():
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(1, 3, 4)), "float32")
    layer = TransformerBlock(4, 2, glu=True, rotary=True, causal=True)
    layer(x)
    randomise(layer, rng)
    weight = rng.normal(size=(1, 3, 4)).astype("float32")

    def loss(value):
        return tf.reduce_sum(layer(value)[0] * weight)

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = loss(x)
    gradient = np.asarray(tape.gradient(y, x)).ravel()
    step = 1e-2
    for i in range(12):
        move = np.zeros(12, "float32")
        move[i] = step
        move = move.reshape(1, 3, 4)
        slope = (loss(x + move) - loss(x - move)) / (2 * step)
        assert float(slope) == pytest.approx(gradient[i], abs=2e-2, rel=2e-2)


def test_dropout_is_for_training():
    x = np.random.default_rng(0).normal(size=(2, T, W)).astype("float32")
    layer = TransformerBlock(W, 2, dropout=0.5)
    assert_allclose(layer(x)[0], layer(x)[0])
    assert np.abs(layer(x, training=True)[0] - layer(x)[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "attention", "feed_forward"),
    [
        ({"dropout": 0.5, "attention_dropout": 0.0, "hidden_dropout": 0.0}, True, True),
        ({"attention_dropout": 0.5}, True, False),
        ({"hidden_dropout": 0.5}, False, True),
    ],
)
def test_each_dropout_has_its_place(options, attention, feed_forward):
    x = np.random.default_rng(0).normal(size=(2, T, W)).astype("float32")
    for part, there in (("attention", attention), ("feed_forward", feed_forward)):
        layer = TransformerBlock(W, 2, **options)
        layer(x)
        # Without what the other half gives, only this half's dropout can be seen.
        other = layer.feed_forward.contract if part == "attention" else layer.attention
        for weight in other.weights:
            weight.assign(np.zeros(weight.shape))
        moved = np.abs(layer(x, training=True)[0] - layer(x)[0]).max()
        assert (moved > 1e-3) == there


@pytest.mark.parametrize("activation", ["relu", keras.activations.tanh, None])
def test_config_round_trip(activation):
    layer = TransformerBlock(W, 2, norm="post", glu=True, activation=activation, hidden=24)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.get_config() == layer.get_config()
    x = np.random.default_rng(0).normal(size=(2, T, W)).astype("float32")
    expected = layer(x)[0]
    copy(x)
    copy.set_weights(layer.get_weights())
    assert_allclose(copy(x)[0], expected, atol=1e-6)


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="norm is 'sandwich': give 'pre' or 'post'"):
        TransformerBlock(W, norm="sandwich")
    with pytest.raises(ValueError, match="width 8 is not divisible by 3 heads"):
        TransformerBlock(W, 3)
    with pytest.raises(ValueError, match=r"width 8 and got 6 features: project them with Dense"):
        TransformerBlock(W, 2)(np.zeros((1, 2, 6), "float32"))
