"""The small layers that forecasters are made of."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_seq.layers.cycle import LearnedCycle
from keras_seq.layers.decomposition import SeriesDecomposition
from keras_seq.layers.interpolation import LinearInterpolation
from keras_seq.layers.patches import LearnedOffset, Patches, SegmentQueries


@pytest.mark.parametrize("window", [1, 2, 3, 7, 50])
def test_moving_average_equals_numpy(window):
    x = np.random.normal(size=(2, 12, 3)).astype("float32")
    seasonal, trend = SeriesDecomposition(window)(x)
    padded = np.pad(x, ((0, 0), ((window - 1) // 2, window // 2), (0, 0)), mode="edge")
    wanted = np.stack([padded[:, i : i + window].mean(1) for i in range(12)], axis=1)
    np.testing.assert_allclose(trend, wanted, atol=1e-5)
    np.testing.assert_allclose(seasonal, x - wanted, atol=1e-5)


def test_cycle_by_hand():
    layer = LearnedCycle(period=4, channels=2)
    layer.build((None,))
    table = np.array([[0, 10], [1, 11], [2, 12], [3, 13]], "float32")
    layer.set_weights([table])
    start = np.array([3, 1_000_002, -1], "int32")
    got = np.asarray(layer(start, offset=2, length=6))
    assert got.shape == (3, 6, 2)
    np.testing.assert_array_equal(got[0, :, 0], [1, 2, 3, 0, 1, 2])
    np.testing.assert_array_equal(got[1, :, 1], [10, 11, 12, 13, 10, 11])
    np.testing.assert_array_equal(got[2], got[0])  # -1 is 3, one cycle earlier


def test_cycle_positions_survive_half_precision():
    layer = LearnedCycle(period=7, channels=1, dtype="mixed_float16")
    layer.build((None,))
    layer.set_weights([np.arange(7, dtype="float32")[:, None]])
    assert float(layer(np.array([70_003], "int32"))[0, 0, 0]) == 70_003 % 7


@pytest.mark.parametrize("knots", [1, 2, 5, 12])
def test_interpolation_equals_numpy(knots):
    values = np.random.normal(size=(3, knots)).astype("float32")
    at = np.linspace(0, knots - 1, 12)
    wanted = np.stack([np.interp(at, np.arange(knots), row) for row in values])
    np.testing.assert_allclose(LinearInterpolation(12)(values), wanted, atol=1e-6)


@pytest.mark.parametrize("steps", [3, 16, 17, 40])
@pytest.mark.parametrize(("length", "stride"), [(4, 4), (4, 2), (5, 2), (3, 1)])
@pytest.mark.parametrize("padding", ["start", "end"])
def test_patches_equal_numpy(steps, length, stride, padding):
    x = np.random.normal(size=(2, steps)).astype("float32")
    layer = Patches(length, stride, padding=padding)
    got = np.asarray(layer(x))
    count = layer.count(steps)
    assert got.shape == (2, count, length)
    missing = (count - 1) * stride + length - steps
    pad = (max(missing, 0), 0) if padding == "start" else (0, max(missing, 0))
    padded = np.pad(x, ((0, 0), pad), mode="edge")
    wanted = np.stack([padded[:, i * stride : i * stride + length] for i in range(count)], axis=1)
    np.testing.assert_array_equal(got, wanted)
    assert got[0, -1, -1] == x[0, -1]  # the newest step is always there


def test_queries_by_hand():
    layer = SegmentQueries(segments=2, channels=3)
    state = np.arange(24, dtype="float32").reshape(6, 4)  # 2 windows of 3 channels
    queries, states = (np.asarray(t) for t in layer(state))
    position, channel = (np.asarray(w) for w in layer.get_weights())
    for row in range(12):
        b, c, m = row // 6, row // 2 % 3, row % 2
        np.testing.assert_array_equal(queries[row, 0], [*position[m], *channel[c]])
        np.testing.assert_array_equal(states[row], state[b * 3 + c])


def test_offset_is_added():
    layer = LearnedOffset()
    x = np.ones((2, 3, 4), "float32")
    got = layer(x)
    np.testing.assert_allclose(got, x + layer.get_weights()[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape", "call"),
    [
        (SeriesDecomposition(4), (12, 3), {}),
        (LinearInterpolation(9), (3, 4), {}),
        (Patches(5, 3), (12,), {}),
        (Patches(4, 4, padding="end"), (12,), {}),
        (LearnedOffset(), (3, 4), {}),
        (LearnedCycle(5, 2), (), {"offset": 3, "length": 4}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.Layer) else None,
)
def test_configuration_symbolic_shape_and_file(layer, shape, call, tmp_path):
    copy = type(layer).from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    x = keras.Input(shape)
    model = keras.Model(x, copy(x, **call))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    values = np.random.normal(3, 1, size=(2, *shape)).astype("float32")
    wanted, got = model(values), again(values)
    for a, b, spec in zip(*map(keras.tree.flatten, (wanted, got, model.output)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.shape[1:] == spec.shape[1:]


def test_wrong_options():
    with pytest.raises(ValueError, match="window is 0"):
        SeriesDecomposition(0)
    with pytest.raises(ValueError, match="stride 5"):
        Patches(4, 5)
    with pytest.raises(ValueError, match="padding is 'both'"):
        Patches(4, 2, padding="both")
    with pytest.raises(ValueError, match="period is 0"):
        LearnedCycle(0, 1)
    with pytest.raises(ValueError, match="length is 0"):
        LinearInterpolation(0)
