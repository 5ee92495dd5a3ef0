"""The cheap GELU against Keras's, values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from numpy.testing import assert_allclose

from keras_seq.layers import FeedForward
from keras_seq.layers.activations import gelu
from keras_seq.layers.attention_weights import masked_softmax


def slope(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x)


def test_gelu_is_keras_gelu():
    x = tf.constant(np.linspace(-12, 12, 2001), tf.float32)

    def theirs(x):
        return ops.gelu(x, approximate=True)

    assert_allclose(gelu(x), theirs(x), atol=1e-5)
    assert_allclose(slope(gelu, x), slope(theirs, x), atol=1e-5)


def test_gelu_gradient_by_differences():
    x = tf.constant([-3.0, -0.7, 0.0, 0.4, 2.5], tf.float64)
    step = 1e-5
    wanted = (gelu(x + step) - gelu(x - step)) / (2 * step)
    assert_allclose(slope(gelu, x), wanted, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gelu_of_large_numbers_in_narrow_types(dtype):
    x = tf.constant([-300.0, -20.0, 0.0, 20.0, 300.0], dtype)
    assert tf.cast(gelu(x), tf.float32).numpy().tolist() == [0, 0, 0, 20, 300]
    assert tf.cast(slope(gelu, x), tf.float32).numpy().tolist() == [0, 0, 0.5, 1, 1]


def test_feed_forward_trains_on_what_it_infers():
    layer = FeedForward(12)
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype("float32")
    assert_allclose(layer(x, training=True), layer(x, training=False), atol=1e-6)


def test_softmax_in_training_is_the_one_of_inference():
    rng = np.random.default_rng(0)
    scores = tf.constant(rng.normal(size=(3, 4, 5)) * 20, tf.float32)
    valid = rng.random((3, 4, 5)) < 0.6
    valid[0, 0] = False  # sees nothing
    for training in (True, False):
        found = masked_softmax(scores, valid, training=training)
        powers = np.where(valid, np.exp(scores - np.max(scores, -1, keepdims=True)), 0)
        total = powers.sum(-1, keepdims=True)
        assert_allclose(found, powers / np.where(total > 0, total, 1), atol=1e-6)
    assert_allclose(
        slope(lambda s: masked_softmax(s, valid, training=True) ** 2, scores),
        slope(lambda s: masked_softmax(s, valid) ** 2, scores),
        atol=1e-5,
    )
