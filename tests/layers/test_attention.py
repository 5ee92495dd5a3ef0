"""Attention against NumPy, against Keras's layer, and under masks."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose

from keras_seq.layers import (
    AdditiveAttention,
    MultiHeadAttention,
    causal_mask,
    masked_softmax,
    rotary_table,
)

B, T, S, D, M, H, W = 2, 5, 4, 6, 3, 2, 8


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def randomise(layer, rng):
    layer.set_weights([rng.normal(0, 0.5, w.shape).astype("float32") for w in layer.get_weights()])


def numpy_softmax(scores, valid):
    """exp over the valid ones only, and zeros where there are none."""
    e = np.where(valid, np.exp(scores - scores.max(-1, keepdims=True)), 0)
    total = e.sum(-1, keepdims=True)
    return np.divide(e, total, out=np.zeros_like(e), where=total > 0)


def numpy_heads(q, k, v, heads, valid=None, angle=None, bias=None):
    """(B, T, W) each -> mixed values (B, T, W) and weights (B, H, T, S), one head at a time."""
    head_width = q.shape[-1] // heads
    mixed, weights = [], []
    for h in range(heads):
        part = slice(h * head_width, (h + 1) * head_width)
        qh, kh, vh = q[..., part], k[..., part], v[..., part]
        if angle is not None:
            qh, kh = (turn_one_by_one(x, angle) for x in (qh, kh))
        scores = np.einsum("btd,bsd->bts", qh, kh) / np.sqrt(head_width)
        if bias is not None:
            scores = scores + bias[h]
        w = numpy_softmax(scores, np.ones_like(scores, bool) if valid is None else valid)
        weights.append(w)
        mixed.append(w @ vh)
    return np.concatenate(mixed, -1), np.stack(weights, 1)


def turn_one_by_one(x, angle):
    """Rotates the pair (i, i + half) of every step by a 2 x 2 matrix."""
    half, y = x.shape[-1] // 2, x.copy()
    for t in range(x.shape[1]):
        for i in range(half):
            c, s = np.cos(angle[t, i]), np.sin(angle[t, i])
            y[:, t, [i, i + half]] = x[:, t, [i, i + half]] @ np.array([[c, s], [-s, c]])
    return y


def test_masked_softmax_by_hand():
    scores = np.log([[1.0, 2.0, 5.0], [1.0, 1.0, 1.0]]).astype("float32")
    valid = np.array([[True, True, False], [False, False, False]])
    got = masked_softmax(scores, valid)
    assert_allclose(got, [[1 / 3, 2 / 3, 0], [0, 0, 0]], atol=1e-7)


@pytest.mark.parametrize(
    ("size", "training"), [(1e4, False), (1e30, False), (1e4, True), (1e8, True)]
)
def test_masked_softmax_of_extreme_scores(size, training):
    scores = np.array([[-size, -size, size], [size, -size, -size]], "float32")
    valid = np.array([[True, True, False], [True, True, True]])
    found = masked_softmax(scores, valid, training=training)
    assert_allclose(found, [[0.5, 0.5, 0], [1, 0, 0]], atol=1e-7)


@pytest.mark.parametrize("training", [False, True])
def test_masked_softmax_gradient_is_finite_without_a_valid_entry(training):
    x = tf.constant([[0.3, -2.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(masked_softmax(x, np.zeros((1, 2), bool), training=training))
    assert_allclose(tape.gradient(y, x), [[0, 0]])


@pytest.mark.parametrize("training", [False, True])
def test_masked_softmax_gradient_against_differences(training):
    valid = np.array([[True, False, True, True]])
    x0, weight = np.array([[0.3, 9.0, -1.2, 0.5]]), np.array([[1.0, 2.0, 3.0, -1.0]])
    x = tf.constant(x0, "float32")
    with tf.GradientTape() as tape:
        tape.watch(x)
        found = masked_softmax(x, valid, training=training)
        y = tf.reduce_sum(found * tf.constant(weight, "float32"))
    step, expected = 1e-5, np.zeros(4)
    for i in range(4):
        up, down = x0.copy(), x0.copy()
        up[0, i] += step
        down[0, i] -= step
        change = numpy_softmax(up, valid) - numpy_softmax(down, valid)
        expected[i] = (change * weight).sum() / (2 * step)
    assert_allclose(tape.gradient(y, x)[0], expected, atol=1e-5)


def test_causal_mask_of_a_longer_memory():
    assert np.asarray(causal_mask(2, 3)).tolist() == [[True, False, False], [True, True, False]]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_additive_attention_is_bahdanaus(rng, masked, causal):
    steps = S if causal else T
    query = rng.normal(size=(B, steps, D)).astype("float32")
    memory = rng.normal(size=(B, S, M)).astype("float32")
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool) if masked else None
    layer = AdditiveAttention(7, causal=causal)
    layer.build(query.shape, memory.shape)
    randomise(layer, rng)
    output, weights = layer(query, memory, mask=mask)
    wq, (um, b), v = (
        layer.query_projection.get_weights()[0],
        layer.memory_projection.get_weights(),
        layer.score.get_weights()[0],
    )
    expected = np.zeros((B, steps, S))
    for i in range(B):
        for t in range(steps):
            seen = [s for s in range(S) if (mask is None or mask[i, s]) and (not causal or s <= t)]
            scores = [np.tanh(query[i, t] @ wq + memory[i, s] @ um + b) @ v[:, 0] for s in seen]
            expected[i, t, seen] = softmax(np.array(scores))
    assert_allclose(weights, expected, atol=1e-5)
    assert_allclose(output, expected @ memory, atol=1e-5)


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_self_attention_equals_numpy(rng, masked, causal, rotary):
    x = rng.normal(size=(B, T, D)).astype("float32")
    mask = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]], bool) if masked else None
    layer = MultiHeadAttention(H, width=W, causal=causal, rotary=rotary)
    layer.build(x.shape)
    randomise(layer, rng)
    output, weights = layer(x, mask=mask)
    (kernel, bias), (ok, ob) = (
        layer.fused_projection.get_weights(),
        layer.output_projection.get_weights(),
    )
    # Masked steps are zeroed first, so that nothing in them (NaN) can spread.
    clean = x if mask is None else np.where(mask[..., None], x, 0)
    q, k, v = np.split(clean @ kernel + bias, 3, -1)
    valid = np.ones((B, T, T), bool) if mask is None else np.repeat(mask[:, None], T, 1)
    if causal:
        valid = valid & np.tril(np.ones((T, T), bool))
    angle = rotary_table(T, W // H).astype("float64") if rotary else None
    mixed, expected = numpy_heads(q, k, v, H, valid, angle)
    assert_allclose(weights, expected, atol=1e-5)
    assert_allclose(output, mixed @ ok + ob, atol=1e-5)


@pytest.mark.parametrize("bias", ["relative", "alibi"])
@pytest.mark.parametrize("memory", [False, True])
def test_shared_normalised_keys_and_a_bias_equal_numpy(rng, memory, bias):
    """In both directions; the causal forms are tested with the decoder's block."""
    x = rng.normal(size=(B, T, D)).astype("float32")
    source = rng.normal(size=(B, S, M)).astype("float32") if memory else x
    mask = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]], bool)[:, : source.shape[1]]
    layer = MultiHeadAttention(H, width=W, kv_heads=1, bias=bias, qk_norm=True)
    layer.build(x.shape, source.shape if memory else None)
    randomise(layer, rng)
    arguments = (x, source) if memory else (x,)
    output, weights = layer(*arguments, mask=mask)

    (qk, qb), (kvk, kvb), (ok, ob) = (
        part.get_weights()
        for part in (layer.query_projection, layer.fused_projection, layer.output_projection)
    )

    def normalised(heads, norm):
        heads = heads.reshape(*heads.shape[:2], -1, W // H)
        size = np.sqrt((heads**2).mean(-1, keepdims=True) + 1e-6)
        return (heads / size * norm.get_weights()[0]).reshape(*heads.shape[:2], -1)

    clean = np.where(mask[..., None], source, 0)
    q = normalised((x if memory else clean) @ qk + qb, layer.query_norm)
    k, v = np.split(clean @ kvk + kvb, 2, -1)
    k = normalised(k, layer.key_norm)
    k, v = np.concatenate([k] * H, -1), np.concatenate([v] * H, -1)
    after = np.arange(source.shape[1]) - np.arange(T)[:, None]
    if bias == "alibi":
        added = -np.abs(after) * np.array([1 / 16, 1 / 256])[:, None, None]
    else:  # distances this small have buckets of their own, the future's are the second half
        table = layer.distance_bias.get_weights()[0]
        added = table[np.abs(after) + 16 * (after > 0)].transpose(2, 0, 1)
    valid = np.repeat(mask[:, None], T, 1)
    mixed, expected = numpy_heads(q, k, v, H, valid, bias=added)
    assert_allclose(weights, expected, atol=1e-5)
    assert_allclose(output, mixed @ ok + ob, atol=1e-5)


def test_rotary_attention_sees_distances_only(rng):
    """The same steps later in the sequence, the earlier ones masked: the same result."""
    x = rng.normal(size=(B, T, W)).astype("float32")
    layer = MultiHeadAttention(H, rotary=True)
    late = np.concatenate([rng.normal(size=(B, 3, W)).astype("float32"), x], 1)
    mask = np.arange(T + 3)[None].repeat(B, 0) >= 3
    assert_allclose(layer(late, mask=mask)[0][:, 3:], layer(x)[0], atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_cross_attention_equals_keras_with_the_same_weights(rng, causal):
    query = rng.normal(size=(B, S if causal else T, D)).astype("float32")
    memory = rng.normal(size=(B, S, M)).astype("float32")
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
    ours = MultiHeadAttention(H, width=W, causal=causal)
    ours.build(query.shape, memory.shape)
    randomise(ours, rng)
    theirs = keras.layers.MultiHeadAttention(H, W // H, output_shape=W)
    theirs.build(query.shape, memory.shape)
    (qk, qb), (kvk, kvb), (ok, ob) = (
        layer.get_weights()
        for layer in (ours.query_projection, ours.fused_projection, ours.output_projection)
    )
    (kk, vk), (kb, vb) = np.split(kvk, 2, -1), np.split(kvb, 2)
    shape = (H, W // H)
    theirs.set_weights(
        [
            *(qk.reshape(D, *shape), qb.reshape(shape)),
            *(kk.reshape(M, *shape), kb.reshape(shape)),
            *(vk.reshape(M, *shape), vb.reshape(shape)),
            *(ok.reshape(*shape, W), ob),
        ]
    )
    with tf.GradientTape() as tape:
        output, weights = ours(query, memory, mask=mask)
        loss = tf.reduce_sum(output**2)
    gradient = tape.gradient(loss, ours.fused_projection.kernel)
    with tf.GradientTape() as tape:
        expected, scores = theirs(
            query,
            memory,
            attention_mask=mask[:, None],
            use_causal_mask=causal,
            return_attention_scores=True,
        )
        loss = tf.reduce_sum(expected**2)
    kg, vg = tape.gradient(loss, [theirs._key_dense.kernel, theirs._value_dense.kernel])
    assert_allclose(output, expected, atol=1e-5)
    assert_allclose(weights, scores, atol=1e-5)
    expected_gradient = np.concatenate([np.reshape(kg, (M, W)), np.reshape(vg, (M, W))], -1)
    assert_allclose(gradient, expected_gradient, atol=1e-4)


def test_fused_kernel_starts_with_the_spread_of_separate_ones():
    layer = MultiHeadAttention(4)
    layer.build((None, None, 256))
    expected = np.sqrt(2 / (256 + 256))  # Glorot, one projection
    assert np.std(layer.fused_projection.get_weights()[0]) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("value", [1e6, np.nan, np.inf])
def test_values_under_the_mask_change_nothing(rng, value):
    x = rng.normal(size=(B, T, W)).astype("float32")
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    dirty = np.where(mask[..., None], x, value).astype("float32")
    layer, additive = MultiHeadAttention(H), AdditiveAttention(4)
    assert_allclose(layer(dirty, mask=mask)[0], layer(x, mask=mask)[0], atol=1e-6)
    query = x[:, :2]
    for a, b in zip(additive(query, dirty, mask=mask), additive(query, x, mask=mask), strict=True):
        assert_allclose(a, b, atol=1e-6)


def test_a_sequence_without_a_real_step_gives_zeros(rng):
    x = rng.normal(size=(B, T, W)).astype("float32")
    mask = np.array([[0] * T, [1] * T], bool)
    for dropout in (0.0, 0.5):
        layer = MultiHeadAttention(H, dropout=dropout)
        output, weights = layer(x, mask=mask)
        assert_allclose(weights[0], np.zeros((H, T, T)))
        assert_allclose(output[0], np.zeros((T, W)))  # the bias starts at zero
    output, weights = AdditiveAttention(3)(x, x, mask=mask)
    assert_allclose(weights[0], np.zeros((T, T)))
    assert_allclose(output[0], np.zeros((T, W)))


def test_a_mask_for_each_query_step(rng):
    x = rng.normal(size=(B, T, W)).astype("float32")
    band = np.abs(np.arange(T)[:, None] - np.arange(T)) <= 1
    _, weights = MultiHeadAttention(H)(x, mask=np.repeat(band[None], B, 0))
    assert (np.asarray(weights)[:, :, ~band] == 0).all()
    assert_allclose(np.sum(weights, -1), np.ones((B, H, T)), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "mixed_float16", "bfloat16", "mixed_bfloat16"])
def test_low_precision_stays_close(rng, dtype):
    x = rng.normal(size=(B, T, W)).astype("float32")
    mask = np.array([[1, 1, 1, 0, 0], [0] * T], bool)
    tolerance = 0.1 if "bfloat" in dtype else 0.02
    for cls, call in (
        (lambda **k: MultiHeadAttention(H, causal=True, rotary=True, **k), (x,)),
        (lambda **k: AdditiveAttention(W, causal=True, **k), (x, x)),
    ):
        full, low = cls(), cls(dtype=dtype)
        expected = full(*call, mask=mask)
        low(*call, mask=mask)
        low.set_weights([w.astype(low.variable_dtype) for w in full.get_weights()])
        for got, want in zip(low(*call, mask=mask), expected, strict=True):
            assert got.dtype == low.compute_dtype
            assert_allclose(np.asarray(got, "float32"), want, atol=tolerance)


def test_float16_does_not_overflow_in_the_product():
    layer = MultiHeadAttention(1, dtype="float16")
    x = np.full((1, 3, 64), 100.0, "float16")
    layer(x)
    eye, zeros = np.eye(64), np.zeros(64)
    start = np.concatenate([0.4 * eye] * 3, -1)
    layer.set_weights([start, np.zeros(192), eye, zeros])
    # q . k is 64 * 40 * 40 = 102,400 before the scale of 1/8: more than float16 holds.
    output, weights = layer(x)
    assert_allclose(np.asarray(weights, "float32"), np.full((1, 1, 3, 3), 1 / 3), atol=1e-3)
    assert_allclose(np.asarray(output, "float32"), np.full((1, 3, 64), 40.0), rtol=1e-2)


def test_dropout_works_in_training_only(rng):
    x = rng.normal(size=(B, T, W)).astype("float32")
    layer = MultiHeadAttention(H, dropout=0.5)
    assert_allclose(layer(x)[0], layer(x, training=False)[0])
    assert np.abs(layer(x, training=True)[0] - layer(x)[0]).max() > 1e-3
    # The weights that come back are those before dropout.
    assert_allclose(layer(x, training=True)[1], layer(x)[1], atol=1e-6)


def test_symbolic_shapes_with_open_lengths():
    query, memory = keras.Input((None, D)), keras.Input((None, M))
    output, weights = MultiHeadAttention(H, width=W)(query, memory)
    assert output.shape == (None, None, W)
    assert weights.shape == (None, H, None, None)
    output, weights = AdditiveAttention(3)(keras.Input((T, D)), keras.Input((S, M)))
    assert output.shape == (None, T, M)
    assert weights.shape == (None, T, S)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 3}, "width 8 is not divisible by 3 heads: take width 6 or 9"),
        ({"heads": 8, "rotary": True}, "8 heads of even width: take width 16"),
        ({"heads": 0}, "heads is 0"),
        ({"heads": 4, "kv_heads": 3}, "4 heads cannot share 3 .* give kv_heads 1, 2 or 4"),
        ({"heads": 1, "kv_heads": 2}, "1 heads cannot share 2 .* give kv_heads 1"),
        ({"heads": 2, "bias": "t5"}, "bias is 't5': give 'relative', 'alibi' or None"),
    ],
)
def test_bad_heads_say_what_to_do(options, words):
    with pytest.raises(ValueError, match=words):
        MultiHeadAttention(**options)(np.zeros((1, 2, 8), "float32"))
