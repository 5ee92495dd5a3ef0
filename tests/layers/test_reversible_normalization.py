from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_seq.layers.reversible_normalization import (
    LastObserved,
    ReverseNormalization,
    ReversibleNormalization,
)


def series(batch=3, steps=20, channels=2):
    return np.random.normal(5.0, 2.0, (batch, steps, channels)).astype("float32")


@pytest.mark.parametrize("center", ["mean", "last"])
def test_equals_numpy(center):
    x = series()
    y, location, scale = ReversibleNormalization(center=center)(x)
    wanted = x.mean(1, keepdims=True) if center == "mean" else x[:, -1:]
    np.testing.assert_allclose(location, wanted, rtol=1e-6)
    np.testing.assert_allclose(scale, x.std(1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(y, (x - wanted) / x.std(1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("center", ["mean", "last"])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_reverse_is_the_inverse(center, scale, affine, masked):
    x = series()
    mask = np.ones(x.shape[:2], bool)
    mask[0, :4] = mask[1, 9] = mask[2, -3:] = not masked
    layer = ReversibleNormalization(center=center, scale=scale, affine=affine)
    layer.build(x.shape)
    if affine:
        layer.set_weights([np.array([-3.0, 2.0]), np.array([0.5, -4.0])])
    y, location, spread = layer(x, mask=mask if masked else None)
    assert np.all(np.asarray(spread) > 0)
    back = np.asarray(ReverseNormalization()(y, location, spread))
    np.testing.assert_allclose(back[mask], x[mask], rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(np.asarray(y)[~mask], 0.0)


def test_quantiles_are_taken_back_and_keep_their_order():
    x = series()
    layer = ReversibleNormalization(affine=True)
    layer.build(x.shape)
    layer.set_weights([np.array([-3.0, 2.0]), np.array([0.5, -4.0])])
    _, location, scale = layer(x)
    quantiles = np.sort(np.random.normal(size=(3, 4, 2, 5)).astype("float32"), axis=-1)
    back = np.asarray(ReverseNormalization()(quantiles, location, scale))
    wanted = quantiles * np.asarray(scale)[..., None] + np.asarray(location)[..., None]
    np.testing.assert_allclose(back, wanted, rtol=1e-6)
    assert np.all(np.diff(back, axis=-1) > 0)


@pytest.mark.parametrize("value", [0.0, 0.1, 1234.5, -1e6])
def test_constant_window_stays_small(value):
    x = np.full((1, 336, 1), value, "float32")
    y, location, scale = ReversibleNormalization()(x)
    # The mean may be off by rounding; in units of the spread that is 1 at the very most.
    assert np.abs(y).max() <= 1.0
    np.testing.assert_allclose(ReverseNormalization()(y, location, scale), x, rtol=1e-6)


def test_gradient_of_a_constant_window_is_finite():
    import tensorflow as tf

    x = tf.ones((1, 8, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, location, scale = ReversibleNormalization()(x)
        loss = tf.reduce_sum(y) + tf.reduce_sum(location * scale)
    assert np.all(np.isfinite(tape.gradient(loss, x)))


@pytest.mark.parametrize("center", ["mean", "last"])
def test_masked_values_do_not_enter(center):
    x = series()
    mask = np.ones(x.shape[:2], bool)
    mask[:, -5:] = False
    broken = x.copy()
    broken[:, -5:] = np.nan
    layer = ReversibleNormalization(center=center)
    y, location, scale = layer(broken, mask=mask)
    short = layer(x[:, :-5])
    np.testing.assert_allclose(np.asarray(y)[:, :-5], short[0], atol=1e-5)
    np.testing.assert_allclose(location, short[1], rtol=1e-5)
    np.testing.assert_allclose(scale, short[2], rtol=1e-5)


def test_mask_for_each_channel_and_nothing_real():
    x = series(batch=1)
    mask = np.ones(x.shape, bool)
    mask[0, :10, 0] = False
    mask[0, :, 1] = False
    y, location, scale = ReversibleNormalization()(x, mask=mask)
    assert float(location[0, 0, 0]) == pytest.approx(x[0, 10:, 0].mean(), rel=1e-5)
    assert float(scale[0, 0, 0]) == pytest.approx(x[0, 10:, 0].std(), rel=1e-5)
    assert np.all(np.isfinite(y)) and np.all(np.asarray(y)[..., 1] == 0)


def test_float32_statistics_under_mixed_precision():
    x = 10_000 + series()
    layer = ReversibleNormalization(dtype="mixed_float16")
    y, location, scale = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    assert keras.backend.standardize_dtype(location.dtype) == "float32"
    back = ReverseNormalization(dtype="mixed_float16")(y, location, scale)
    assert keras.backend.standardize_dtype(back.dtype) == "float32"
    np.testing.assert_allclose(back, x, atol=0.02)  # float16 has 3 digits, of a spread of 2


def test_last_observed_by_hand():
    x = np.arange(8, dtype="float32").reshape(2, 4, 1)
    mask = np.array([[True, False, True, False], [False, False, False, False]])
    np.testing.assert_array_equal(np.ravel(LastObserved()(x, mask=mask)), [2.0, 0.0])
    np.testing.assert_array_equal(np.ravel(LastObserved()(x)), [3.0, 7.0])


def test_configuration_and_file(tmp_path):
    x = keras.Input((20, 2), name="series")
    mask = keras.Input((20,), dtype="bool", name="mask")
    y, location, scale = ReversibleNormalization(center="last", affine=True)(x, mask=mask)
    last = LastObserved()(y, mask=mask)
    model = keras.Model([x, mask], ReverseNormalization()(y + last, location, scale))
    assert model.output.shape == (None, 20, 2)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    values = [series(), np.random.rand(3, 20) > 0.3]
    np.testing.assert_array_equal(again(values), model(values))
    layer = ReversibleNormalization(center="last", scale=False, affine=True, epsilon=0.01)
    copy = ReversibleNormalization.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()


def test_wrong_options():
    with pytest.raises(ValueError, match="center is 'median'"):
        ReversibleNormalization(center="median")
    with pytest.raises(ValueError, match="epsilon is 0"):
        ReversibleNormalization(epsilon=0)
