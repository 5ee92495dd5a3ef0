"""Dropout from bytes: shares, means, independence, gradients, and Keras's way elsewhere."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from keras_seq.layers import Dropout

N = 200_000


def ones(*shape):
    return np.ones(shape, "float32")


@pytest.mark.parametrize(
    ("rate", "share"),
    [(0.1, 26 / 256), (0.3, 77 / 256), (0.5, 0.5), (0.01, 655 / 65536), (0.02, 1311 / 65536)],
)
def test_the_share_that_is_dropped_and_the_mean(rate, share):
    y = np.asarray(Dropout(rate, seed=1)(ones(N), training=True))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / (1 - share))}
    spread = (share * (1 - share) / N) ** 0.5
    assert abs((y == 0).mean() - share) < 4.5 * spread
    assert abs(share / rate - 1) <= 0.02


def test_elements_of_one_random_number_are_independent():
    y = np.asarray(Dropout(0.5, seed=2)(ones(N // 4, 4), training=True)) == 0
    # 4 elements come from one number: all 16 patterns must be alike. 37.7: 99.9 % of chi-square.
    counts = np.bincount(y @ [1, 2, 4, 8], minlength=16)
    assert ((counts - N / 64) ** 2 / (N / 64)).sum() < 37.7


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=4))
def test_any_shape(shape):
    layer = Dropout(0.25, seed=3)
    y = layer(np.full(shape, 3.0, "float32"), training=True)
    assert y.shape == tuple(shape)
    assert set(np.unique(y)) <= {0.0, 4.0}


def test_a_seed_gives_the_same_and_each_call_others():
    a, b = Dropout(0.4, seed=5), Dropout(0.4, seed=5)
    first = a(ones(500), training=True)
    assert_array_equal(first, b(ones(500), training=True))
    assert np.any(np.asarray(first) != np.asarray(a(ones(500), training=True)))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_gradient_is_what_was_kept(jit_compile):
    layer = Dropout(0.3, seed=6)
    layer.build((None, 7))

    @tf.function(jit_compile=jit_compile, input_signature=[tf.TensorSpec((None, 7))])
    def both(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        assert y.shape.as_list() == [None, 7]
        return y, tape.gradient(y, x)

    x = np.random.default_rng(0).normal(size=(31, 7)).astype("float32")
    y, gradient = both(x)
    assert_array_equal(y, x * gradient)
    assert 0.15 < float(np.mean(np.asarray(y) == 0)) < 0.45


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_types(dtype):
    y = Dropout(0.5, seed=7, dtype=dtype)(ones(100), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    assert set(np.asarray(y, "float32").tolist()) == {0.0, 2.0}


def test_elsewhere_it_is_that_of_keras():
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    assert_array_equal(Dropout(0.5)(x), x)
    assert_array_equal(Dropout(0.0)(x, training=True), x)
    options = {"noise_shape": (6, 1), "seed": 8}
    ours = Dropout(0.5, **options)(x, training=True)
    assert_array_equal(ours, keras.layers.Dropout(0.5, **options)(x, training=True))
    with pytest.raises(ValueError, match="rate"):
        Dropout(1.5)


def test_saved_and_loaded(tmp_path):
    x = keras.Input((3,))
    keras.Model(x, Dropout(0.2, seed=9, name="drop")(x)).save(tmp_path / "a.keras")
    layer = keras.saving.load_model(tmp_path / "a.keras").get_layer("drop")
    assert type(layer) is Dropout
    assert layer.get_config() == Dropout(0.2, seed=9, name="drop").get_config()
