"""Gated convolutions and the attention of convolutional decoders, against NumPy and themselves."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from keras_seq.layers import GatedConvolution, MultiStepAttention, Step, search_shapes, step_shapes

B, T, S, D, W = 2, 6, 4, 3, 4


def layer_of(**options):
    """A layer with weights that hide nothing, and features."""
    rng = np.random.default_rng(1)
    layer = GatedConvolution(W, **options)
    layer.build((None, None, D))
    for weight in layer.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return layer, rng.normal(size=(B, T, D)).astype("float32")


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4])
def test_a_gated_convolution_by_hand(kernel_size, causal):
    layer, x = layer_of(kernel_size=kernel_size, causal=causal)
    kernel, bias = (np.asarray(w, "float64") for w in layer.weights)
    mask = np.arange(T) < np.array([[6], [4]])
    y = np.asarray(layer(np.where(mask[..., None], x, np.nan).astype("float32"), mask=mask))
    before = kernel_size - 1 if causal else (kernel_size - 1) // 2
    for row in range(B):
        for t in range(int(mask[row].sum())):
            h = bias.copy()
            for k in range(kernel_size):
                place = t + k - before
                if 0 <= place < mask[row].sum():
                    h += x[row, place] @ kernel[k]
            assert_allclose(y[row, t], h[:W] / (1 + np.exp(-h[W:])), atol=1e-5)


@pytest.mark.parametrize("kernel_size", [1, 2, 4])
def test_steps_of_several_hypotheses_are_the_whole(kernel_size):
    """K sequences side by side, each by its own past; then one takes the past of another."""
    layer, x = layer_of(kernel_size=kernel_size, causal=True)
    k = 3
    x = np.random.default_rng(2).normal(size=(B, k, T, D)).astype("float32")
    shapes = search_shapes(layer, 9, hypotheses=k)
    assert shapes == ({"past": ((k, kernel_size - 1, D), True)} if kernel_size > 1 else {})
    step = Step(layer, search=True)
    states = {name: np.zeros((B, *shape), "float32") for name, (shape, _) in shapes.items()}
    for t in range(T):
        y, states = step(x[:, :, t], states, np.full(B, t, "int32"))
        for i in range(k):
            whole = layer(x[:, i, : t + 1])[:, -1]
            assert_allclose(np.asarray(y)[:, i], whole, atol=1e-5)
    order = [2, 2, 0]
    moved = {name: np.asarray(state)[:, order] for name, state in states.items()}
    y, _ = step(x[:, :, 0], moved, np.full(B, T, "int32"))
    for i, parent in enumerate(order):
        whole = layer(np.concatenate([x[:, parent], x[:, i, :1]], axis=1))[:, -1]
        assert_allclose(np.asarray(y)[:, i], whole, atol=1e-5)


def test_what_sees_the_future_has_no_step():
    layer, _ = layer_of()
    with pytest.raises(ValueError, match="sees what comes after"):
        step_shapes(layer, 4)
    with pytest.raises(ValueError, match="kernel_size is 0"):
        GatedConvolution(4, 0)


def test_the_gate_keeps_the_variance_at_the_start():
    """Inputs of spread 0.1 come out with a spread near 0.1, with dropout in training too."""
    x = np.random.default_rng(0).normal(0, 0.1, size=(8, 50, 64)).astype("float32")
    for dropout in (0.0, 0.4):
        layer = GatedConvolution(64, dropout=dropout)
        assert np.std(layer(x, training=True)) == pytest.approx(0.1, rel=0.1)


def test_multi_step_attention_by_hand():
    rng = np.random.default_rng(0)
    states, embedding = (rng.normal(size=(B, T, n)).astype("float32") for n in (D, W))
    key, value = (rng.normal(size=(B, S, n)).astype("float32") for n in (W, D))
    mask = np.array([[1, 1, 1, 1], [1, 0, 1, 0]], bool)
    layer = MultiStepAttention(W)
    output, weights = layer(states, embedding, key, value, mask=mask)
    wq, bq, wo, bo = (np.asarray(w, "float64") for w in layer.weights)
    for row in range(B):
        real = mask[row]
        d = (states[row] @ wq + bq + embedding[row]) / np.sqrt(2)
        scores = d @ key[row, real].T
        a = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        m = real.sum()
        wanted = (a @ value[row, real] * m * np.sqrt(1 / m)) @ wo + bo
        assert_allclose(output[row], wanted, atol=1e-5)
        assert_allclose(np.asarray(weights)[row][:, real], a, atol=1e-5)
        assert not np.asarray(weights)[row][:, ~real].any()
    everything, _ = layer(states[:1], embedding[:1], key[:1], value[:1])
    assert_allclose(everything, output[:1], atol=1e-5)
    nothing, weights = layer(states, embedding, key, value, mask=np.zeros((B, S), bool))
    assert_allclose(nothing, np.zeros((B, T, W)), atol=1e-6)
    assert not np.asarray(weights).any()


def test_other_widths_are_refused():
    x = np.ones((1, 2, 3), "float32")
    with pytest.raises(ValueError, match="has width 4 and got embeddings of 3 features"):
        MultiStepAttention(4)(x, x, x, x)
    with pytest.raises(ValueError, match="width is 0"):
        MultiStepAttention(0)
