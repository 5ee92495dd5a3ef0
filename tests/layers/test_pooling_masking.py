"""Pooling and masking by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose

from keras_seq.layers import ApplyMask, Pooling, zero_masked

X = np.array(
    [
        [[1, -10], [2, -20], [3, -30], [4, -40]],  # padded behind
        [[5, 50], [6, 60], [7, 70], [8, 80]],  # padded in front
        [[9, 9], [9, 9], [9, 9], [9, 9]],  # nothing real
    ],
    "float32",
)
MASK = np.array([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]], bool)


@pytest.mark.parametrize(
    ("method", "masked", "expected"),
    [
        ("last", True, [[2, -20], [8, 80], [0, 0]]),
        ("last", False, [[4, -40], [8, 80], [9, 9]]),
        ("mean", True, [[1.5, -15], [7, 70], [0, 0]]),
        ("mean", False, [[2.5, -25], [6.5, 65], [9, 9]]),
        ("max", True, [[2, -10], [8, 80], [0, 0]]),
        ("max", False, [[4, -10], [8, 80], [9, 9]]),
    ],
)
def test_by_hand(method, masked, expected):
    assert_allclose(Pooling(method)(X, mask=MASK if masked else None), expected, atol=1e-6)


def test_max_of_negative_steps_is_not_the_padding():
    x = np.array([[[-3.0], [-5.0], [7.0]]], "float32")
    assert_allclose(Pooling("max")(x, mask=np.array([[True, True, False]])), [[-3.0]])


@pytest.mark.parametrize("masked", [False, True])
def test_attention_pooling_equals_numpy(masked):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 2)).astype("float32")
    layer = Pooling("attention")
    layer(x)
    layer.set_weights([rng.normal(size=w.shape).astype("float32") for w in layer.get_weights()])
    (kernel, bias), (v,) = layer.hidden.get_weights(), layer.score.get_weights()
    scores = (np.tanh(x @ kernel + bias) @ v)[..., 0]
    expected = np.zeros((3, 2))
    for b in range(3):
        real = MASK[b] if masked else np.ones(4, bool)
        if real.any():
            e = np.exp(scores[b, real])
            expected[b] = (e / e.sum()) @ x[b, real]
    assert_allclose(layer(x, mask=MASK if masked else None), expected, atol=1e-5)


@pytest.mark.parametrize("method", ["last", "mean", "max", "attention"])
@pytest.mark.parametrize("value", [1e9, np.nan])
def test_values_under_the_mask_reach_neither_output_nor_gradient(method, value):
    layer = Pooling(method)
    layer(X)
    dirty = tf.constant(np.where(MASK[..., None], X, value).astype("float32"))
    assert_allclose(layer(dirty, mask=MASK), layer(X, mask=MASK))
    with tf.GradientTape() as tape:
        tape.watch(dirty)
        y = tf.reduce_sum(layer(dirty, mask=MASK) ** 2)
    gradient = np.asarray(tape.gradient(y, dirty))
    assert np.isfinite(gradient).all()
    assert (gradient[~MASK] == 0).all()


def test_float16_mean_of_many_steps_does_not_overflow():
    x = np.full((1, 3000, 1), 100.0, "float16")
    layer = Pooling("mean", dtype="float16")
    assert float(layer(x)[0, 0]) == 100.0
    assert float(layer(x, mask=np.ones((1, 3000), bool))[0, 0]) == 100.0


@pytest.mark.parametrize("method", ["last", "mean", "max", "attention"])
def test_open_length_in_a_model(method):
    x, mask = keras.Input((None, 2), name="x"), keras.Input((None,), dtype="bool", name="mask")
    model = keras.Model({"x": x, "mask": mask}, Pooling(method)(x, mask=mask))
    assert model.output.shape == (None, 2)
    long = model({"x": X, "mask": MASK})
    short = model({"x": X[:1, :2], "mask": MASK[:1, :2]})
    assert_allclose(short[0], long[0], atol=1e-6)


def test_unknown_method():
    with pytest.raises(ValueError, match="pooling is 'sum': give one of last, first, mean"):
        Pooling("sum")


def test_apply_mask_gradient_is_zero_where_masked():
    x = tf.constant([[[1.0], [np.nan]]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(ApplyMask()(x, mask=np.array([[True, False]])) ** 2)
    assert_allclose(tape.gradient(y, x), [[[2.0], [0.0]]])


def test_zero_masked_of_other_ranks():
    mask = np.array([[True, False]])
    assert_allclose(zero_masked(np.ones((1, 2)), mask), [[1, 0]])
    assert_allclose(zero_masked(np.ones((1, 2, 1, 2)), mask)[0, :, 0], [[1, 1], [0, 0]])
    assert zero_masked(X, None) is X


def test_implicit_masks_end_here():
    x = keras.layers.Embedding(5, 2, mask_zero=True)(np.array([[1, 2, 0]]))
    pooled = Pooling("last")(x)  # takes the mask that Keras attached
    assert_allclose(pooled, x[:, 1])
    assert getattr(pooled, "_keras_mask", None) is None
