"""The temporal block: numbers, causality, reach, masks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from keras_seq.layers import TemporalBlock, receptive_field


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3)


def test_equals_loops():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 7, 3)).astype("float32")
    layer = TemporalBlock(4, kernel_size=2, dilation=2, activation="tanh")
    layer(x)
    layer.set_weights([rng.normal(size=w.shape).astype("float32") for w in layer.get_weights()])
    h = x[0]
    for convolution, norm in zip(layer.convolutions, layer.norms, strict=True):
        kernel, bias = convolution.get_weights()
        gamma, beta = norm.get_weights()
        y = np.zeros((7, 4))
        for t in range(7):
            y[t] = bias + h[t] @ kernel[1] + (h[t - 2] @ kernel[0] if t >= 2 else 0)
        h = np.tanh(layer_norm(y) * gamma + beta)
    kernel, bias = layer.shortcut.get_weights()
    assert_allclose(layer(x)[0], np.tanh(h + x[0] @ kernel + bias), atol=1e-5)


def test_no_shortcut_where_the_width_fits():
    layer = TemporalBlock(3)
    layer(np.zeros((1, 4, 3), "float32"))
    assert layer.shortcut is None


@pytest.mark.parametrize(("kernel_size", "dilation"), [(2, 1), (3, 2), (3, 4), (1, 1)])
def test_reach_of_one_block(kernel_size, dilation):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 24, 3)).astype("float32")
    layer = TemporalBlock(8, kernel_size, dilation=dilation, activation="tanh")
    changed = x.copy()
    changed[0, 5] += 1
    moved = np.abs(layer(changed) - layer(x)).max(-1)[0] > 1e-6
    steps = sorted({5 + dilation * i for i in range(2 * kernel_size - 1)})
    assert np.flatnonzero(moved).tolist() == steps


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [2, 3])
def test_receptive_field_is_what_a_stack_sees(depth, kernel_size):
    rng = np.random.default_rng(1)
    field = receptive_field(depth=depth, kernel_size=kernel_size)
    steps = field + 5
    blocks = [TemporalBlock(8, kernel_size, dilation=2**i, activation="tanh") for i in range(depth)]

    def last(x):
        for block in blocks:
            x = block(x)
        return np.asarray(x)[:, -1]

    # Row b is the same series with step b changed.
    series = np.repeat(rng.normal(size=(1, steps, 2)).astype("float32"), steps + 1, 0)
    series[np.arange(steps), np.arange(steps)] += 3
    y = last(series)
    seen = np.abs(y[:-1] - y[-1]).max(-1) > 1e-6
    assert seen.sum() == field
    assert seen[-field:].all()


@pytest.mark.parametrize("value", [100.0, np.nan])
def test_masked_steps_leave_no_trace(value):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 6, 3)).astype("float32")
    layer = TemporalBlock(4, dilation=2)
    expected = layer(x)
    padding = np.full((1, 3, 3), value, "float32")
    behind = layer(np.concatenate([x, padding], 1), mask=np.arange(9)[None] < 6)
    before = layer(np.concatenate([padding, x], 1), mask=np.arange(9)[None] >= 3)
    assert_allclose(behind[:, :6], expected, atol=1e-6)
    assert_allclose(before[:, 3:], expected, atol=1e-6)


@pytest.mark.parametrize("what", ["width", "kernel_size", "dilation"])
def test_sizes_are_checked(what):
    with pytest.raises(ValueError, match=f"{what} is 0: give at least 1"):
        TemporalBlock(**{"width": 4, what: 0})
