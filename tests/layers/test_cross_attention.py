"""Attention to a source against NumPy, against the attention in one piece, and under masks."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose

from keras_seq.layers import CrossAttention, MemoryProjection, MultiHeadAttention

B, T, S, D, M, H, W = 3, 4, 5, 6, 7, 4, 8
MASK = np.array([[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]], bool)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def randomise(layer, rng):
    layer.set_weights([rng.normal(0, 0.5, w.shape).astype("float32") for w in layer.get_weights()])


def make(rng, memory_heads=H):
    """Both layers with random weights, and what they are called with."""
    query = rng.normal(size=(B, T, D)).astype("float32")
    memory = rng.normal(size=(B, S, M)).astype("float32")
    project = MemoryProjection(memory_heads, memory_heads * W // H)
    attend = CrossAttention(H, W)
    attend(query, *project(memory))
    randomise(project, rng)
    randomise(attend, rng)
    return project, attend, query, memory


@pytest.mark.parametrize("memory_heads", [1, 2, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_numpy(rng, memory_heads, masked):
    project, attend, query, memory = make(rng, memory_heads)
    mask = MASK if masked else None
    key, value = project(memory, mask=mask)
    output, weights = attend(query, key, value, mask=mask)

    seen = MASK if masked else np.ones((B, S), bool)
    clean = np.where(seen[..., None], memory, 0)
    kernel, bias = project.projection.get_weights()
    k, v = np.split(clean @ kernel + bias, 2, -1)
    qk, qb = attend.query_projection.get_weights()
    ok, ob = attend.output_projection.get_weights()
    q, size = query @ qk + qb, W // H
    mixed, expected = np.zeros((B, T, W)), np.zeros((B, H, T, S))
    for b in range(B):
        for h in range(H):
            group = h * memory_heads // H
            kh, vh = (x[b, :, group * size : (group + 1) * size] for x in (k, v))
            for t in range(T):
                scores = kh @ q[b, t, h * size : (h + 1) * size] / np.sqrt(size)
                e = np.exp(scores) * seen[b]
                expected[b, h, t] = e / e.sum() if e.any() else 0
                mixed[b, t, h * size : (h + 1) * size] = expected[b, h, t] @ vh
    assert_allclose(weights, expected, atol=1e-5)
    assert_allclose(output, mixed @ ok + ob, atol=1e-5)
    assert key.shape == value.shape == (B, memory_heads, S, size)


def test_equals_attention_in_one_piece(rng):
    """Values and gradients: what is split in two computes what `MultiHeadAttention` does."""
    project, attend, query, memory = make(rng)
    whole = MultiHeadAttention(H, width=W)
    whole.build(query.shape, memory.shape)
    pairs = (
        (whole.query_projection, attend.query_projection),
        (whole.fused_projection, project.projection),
        (whole.output_projection, attend.output_projection),
    )
    for ours, theirs in pairs:
        ours.set_weights(theirs.get_weights())
    with tf.GradientTape(persistent=True) as tape:
        key, value = project(memory, mask=MASK)
        output, weights = attend(query, key, value, mask=MASK)
        expected, expected_weights = whole(query, memory, mask=MASK)
        loss, expected_loss = tf.reduce_sum(output**2), tf.reduce_sum(expected**2)
    assert_allclose(output, expected, atol=1e-6)
    assert_allclose(weights, expected_weights, atol=1e-6)
    for ours, theirs in pairs:
        for a, b in zip(ours.trainable_variables, theirs.trainable_variables, strict=True):
            wanted = tape.gradient(expected_loss, a.value)
            assert_allclose(tape.gradient(loss, b.value), wanted, rtol=1e-4, atol=1e-4)


def test_steps_and_hypotheses_are_one_call(rng):
    project, attend, query, memory = make(rng)
    key, value = project(memory, mask=MASK)
    whole, weights = attend(query, key, value, mask=MASK)
    for t in range(T):
        output, part = attend(query[:, t : t + 1], key, value, mask=MASK)
        assert_allclose(output[:, 0], whole[:, t], atol=1e-6)
        assert_allclose(part[:, :, 0], weights[:, :, t], atol=1e-6)


@pytest.mark.parametrize("value", [1e6, np.nan, np.inf])
def test_padding_and_what_stands_in_it_change_nothing(rng, value):
    project, attend, query, memory = make(rng)
    alone, weights = attend(query, *project(memory))
    padding = np.full((B, 3, M), value, "float32")
    mask = np.arange(S + 3)[None].repeat(B, 0) < S
    key, values = project(np.concatenate([memory, padding], 1), mask=mask)
    output, padded = attend(query, key, values, mask=mask)
    assert_allclose(output, alone, atol=1e-6)
    assert_allclose(padded[..., :S], weights, atol=1e-6)
    assert_allclose(padded[..., S:], np.zeros((B, H, T, 3)))


def test_a_source_without_a_real_step_gives_zeros(rng):
    project, attend, query, memory = make(rng)
    mask = np.zeros((B, S), bool)
    with tf.GradientTape() as tape:
        output, weights = attend(query, *project(memory, mask=mask), mask=mask)
        loss = tf.reduce_sum(output**2)
    _, bias = attend.output_projection.get_weights()
    assert_allclose(weights, np.zeros((B, H, T, S)))
    assert_allclose(output, np.broadcast_to(bias, (B, T, W)))
    gradients = tape.gradient(loss, [v.value for v in attend.trainable_variables])
    assert all(np.isfinite(g).all() for g in gradients)


def test_float16_does_not_overflow_in_the_product():
    project, attend = (cls(1, 64, dtype="float16") for cls in (MemoryProjection, CrossAttention))
    x = np.full((1, 3, 64), 100.0, "float16")
    attend(x, *project(x))
    eye, zeros = np.eye(64), np.zeros(64)
    project.set_weights([np.concatenate([0.4 * eye] * 2, -1), np.zeros(128)])
    attend.set_weights([0.4 * eye, zeros, eye, zeros])
    # q . k is 64 * 40 * 40 = 102,400 before the scale of 1/8: more than float16 holds.
    output, weights = attend(x, *project(x))
    assert weights.dtype == "float16"
    assert_allclose(np.asarray(weights, "float32"), np.full((1, 1, 3, 3), 1 / 3), atol=1e-3)
    assert_allclose(np.asarray(output, "float32"), np.full((1, 3, 64), 40.0), rtol=1e-2)


def test_dropout_is_for_training_and_not_in_the_weights(rng):
    project, _, query, memory = make(rng)
    attend = CrossAttention(H, W, dropout=0.5)
    key, value = project(memory)
    output, weights = attend(query, key, value)
    dropped, same = attend(query, key, value, training=True)
    assert np.abs(dropped - output).max() > 1e-3
    assert_allclose(same, weights, atol=1e-6)


def test_symbolic_shapes_with_open_lengths():
    project = MemoryProjection(2, 6)
    key, value = project(keras.Input((None, M)), mask=keras.Input((None,), dtype="bool"))
    assert key.shape == value.shape == (None, 2, None, 3)
    output, weights = CrossAttention(4, 12)(keras.Input((None, D)), key, value)
    assert output.shape == (None, None, 12)
    assert weights.shape == (None, 4, None, None)
    # What is computed once for a source is found by this.
    assert project.once


def test_errors_say_what_to_do(rng):
    with pytest.raises(ValueError, match="width 8 is not divisible by 3 heads"):
        MemoryProjection(3, 8)
    with pytest.raises(ValueError, match="width 8 is not divisible by 3 heads"):
        CrossAttention(3, 8)
    query, memory = np.zeros((1, 2, D), "float32"), np.zeros((1, 3, M), "float32")
    for heads, width in ((3, 6), (4, 16)):
        with pytest.raises(ValueError, match=r"MemoryProjection\(heads=4, width=8\)"):
            CrossAttention(4, 8)(query, *MemoryProjection(heads, width)(memory))
