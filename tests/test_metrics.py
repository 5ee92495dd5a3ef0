"""The pinball loss against numbers by hand, scikit-learn, and a model that trains on it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_seq.metrics import PinballLoss, WeightedCrossentropy


def test_by_hand():
    # truth 10; quantiles 8, 9, 14 cost 0.1*2, 0.5*1, (1-0.9)*4
    y_true = np.array([[[10.0]]])
    y_pred = np.array([[[[8.0, 9.0, 14.0]]]])
    assert float(PinballLoss([0.1, 0.5, 0.9])(y_true, y_pred)) == pytest.approx(1.1 / 3, abs=1e-6)


def test_median_is_half_the_absolute_error():
    y_true, y_pred = np.random.normal(size=(5, 4, 3)), np.random.normal(size=(5, 4, 3, 1))
    got = float(PinballLoss([0.5])(y_true, y_pred))
    assert got == pytest.approx(np.abs(y_true - y_pred[..., 0]).mean() / 2, rel=1e-5)


def test_like_sklearn():
    mean_pinball_loss = pytest.importorskip("sklearn.metrics").mean_pinball_loss
    levels = [0.05, 0.3, 0.5, 0.95]
    y_true, y_pred = np.random.normal(size=(6, 5, 2)), np.random.normal(size=(6, 5, 2, 4))
    each = [
        mean_pinball_loss(y_true.ravel(), y_pred[..., i].ravel(), alpha=level)
        for i, level in enumerate(levels)
    ]
    assert float(PinballLoss(levels)(y_true, y_pred)) == pytest.approx(np.mean(each), rel=1e-5)
    weights = [1.0, 0.0, 2.0, 5.0]
    got = float(PinballLoss(levels, weights=weights)(y_true, y_pred))
    assert got == pytest.approx(np.average(each, weights=weights), rel=1e-5)


def test_sample_weight_of_every_rank():
    loss = PinballLoss([0.2, 0.7])
    each = PinballLoss([0.2, 0.7], reduction=None)
    y_true, y_pred = np.random.normal(size=(4, 3, 2)), np.random.normal(size=(4, 3, 2, 2))
    values = keras.ops.convert_to_numpy(each(y_true, y_pred))
    assert values.shape == (4, 3, 2)
    for shape in ((4, 1, 1), (4, 3, 1), (4, 3, 2)):
        weight = np.random.uniform(0, 2, size=shape)
        full = np.broadcast_to(weight, (4, 3, 2))
        got = float(loss(y_true, y_pred, sample_weight=weight))
        assert got == pytest.approx((values * full).mean(), rel=1e-5)


def test_config_round_trip():
    loss = PinballLoss([0.1, 0.9], weights=[1, 3], reduction="sum", name="mine", dtype="float64")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert isinstance(again, PinballLoss)
    assert again.get_config() == loss.get_config()
    assert again.dtype == "float64"
    y_true, y_pred = np.random.normal(size=(4, 3, 2)), np.random.normal(size=(4, 3, 2, 2))
    assert float(again(y_true, y_pred)) == float(loss(y_true, y_pred))


def test_gradient_finds_the_quantiles():
    # One free number per level, trained on 0..100: it must end at the empirical quantiles.
    levels = (0.1, 0.5, 0.9)
    series = keras.Input((1,), name="series")
    layer = keras.layers.Dense(3, use_bias=False, kernel_initializer="zeros")
    outputs = keras.layers.Reshape((1, 1, 3))(layer(series))
    model = keras.Model(series, outputs)
    model.compile(
        optimizer=keras.optimizers.SGD(300.0), loss=PinballLoss(levels), jit_compile=False
    )
    x, y = np.ones((101 * 40, 1)), np.tile(np.arange(101.0), 40).reshape(-1, 1, 1)
    model.fit(x, y, batch_size=101, shuffle=False, verbose=0)  # 40 steps
    found = keras.ops.convert_to_numpy(layer.kernel)[0]
    np.testing.assert_allclose(found, [10, 50, 90], atol=3)
    # A weight of 0 takes the upper half out.
    weight = (y <= 50).astype(np.float32)
    model.fit(x, y, sample_weight=weight, batch_size=101, shuffle=False, verbose=0)
    found = keras.ops.convert_to_numpy(layer.kernel)[0]
    np.testing.assert_allclose(found, [5, 25, 45], atol=3)


def test_saved_inside_a_compiled_model(tmp_path):
    series = keras.Input((4,), name="series")
    outputs = keras.layers.Reshape((2, 1, 2))(keras.layers.Dense(4)(series))
    model = keras.Model(series, outputs)
    model.compile(optimizer="sgd", loss=PinballLoss([0.25, 0.75]), jit_compile=False)
    x, y = np.random.normal(size=(8, 4)), np.random.normal(size=(8, 2, 1))
    model.fit(x, y, verbose=0)
    before = model.evaluate(x, y, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.evaluate(x, y, verbose=0) == pytest.approx(before, rel=1e-6)
    assert again.loss.quantiles == (0.25, 0.75)


@pytest.mark.parametrize("levels", [[], [0.0, 0.5], [0.5, 1.0], [float("nan")]])
def test_refuses_levels(levels):
    with pytest.raises(ValueError, match="between 0 and 1"):
        PinballLoss(levels)


@pytest.mark.parametrize("weights", [[1.0], [-1.0, 2.0], [0.0, 0.0], [float("nan"), 1.0]])
def test_refuses_weights(weights):
    with pytest.raises(ValueError, match="weights"):
        PinballLoss([0.1, 0.9], weights=weights)


@pytest.mark.parametrize("shape", [(4, 3, 2), (4, 3, 2, 3), (4, 1, 2, 2), (4, 3, 2, 2, 1)])
def test_refuses_shapes_that_would_broadcast(shape):
    with pytest.raises(ValueError, match="y_pred has shape"):
        PinballLoss([0.1, 0.9])(np.zeros((4, 3, 2)), np.zeros(shape))


def test_weighted_crossentropy_is_that_of_keras_with_sample_weights():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(9, 3)).astype("float32")
    truth = np.array([0, 1, 1, 2, 2, 2, 1, 2, 2])
    weights = WeightedCrossentropy.balanced(np.bincount(truth, minlength=3).tolist())
    theirs = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    expected = float(theirs(truth, scores, sample_weight=np.array(weights)[truth]))
    loss = WeightedCrossentropy(weights)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    for each in (loss, again):
        assert float(each(truth, scores)) == pytest.approx(expected, rel=1e-5)
    # Every class has the same share of the sum of weights.
    assert np.bincount(truth, np.array(weights)[truth]) == pytest.approx([3.0, 3.0, 3.0])


def test_weighted_crossentropy_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="must not be negative"):
        WeightedCrossentropy([1.0, -1.0])
    with pytest.raises(ValueError, match="3 scores and there are 2 weights"):
        WeightedCrossentropy([1.0, 2.0])(np.array([0]), np.zeros((1, 3), "float32"))
