"""The decoder block against NumPy and TensorFlow, step by step, and under masks."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose

from keras_seq.layers import DecoderBlock, MultiHeadAttention, rotary_table

B, T, S, W, H = 3, 6, 5, 16, 4
SIZE = W // H
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 1, 1, 0, 1]], bool)
TARGET = np.arange(T) < np.array([[4], [6], [2]])

EVERYTHING: dict[str, Any] = {
    "norm": "post",
    "norm_kind": "rms",
    "glu": True,
    "rotary": True,
    "bias": "relative",
    "kv_heads": 2,
    "qk_norm": True,
    "hidden": 12,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "pre": {},
    "post": {"norm": "post"},
    "glu": {"glu": True},
    "relu": {"activation": "relu", "hidden": 10},
    "rms": {"norm_kind": "rms"},
    "rotary": {"rotary": True},
    "alibi": {"bias": "alibi"},
    "relative": {"bias": "relative"},
    "grouped": {"kv_heads": 2},
    "one_head": {"kv_heads": 1, "rotary": True},
    "qk_norm": {"qk_norm": True},
    "everything": EVERYTHING,
}


def make(seed=0, memory_heads=H, **options):
    """A block with random weights, and what it is called with."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(B, T, W)).astype("float32")
    key, value = (rng.normal(size=(B, memory_heads, S, SIZE)).astype("float32") for _ in "kv")
    layer = DecoderBlock(W, H, **options)
    layer(x, key, value)
    layer.set_weights([rng.normal(0, 0.3, w.shape).astype("float32") for w in layer.get_weights()])
    return layer, x, key, value


# ------------------------------------------------------------------------ in NumPy, head by head


def numpy_norm(x, layer):
    if isinstance(layer, keras.layers.RMSNormalization):
        (scale,) = layer.get_weights()
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale
    gamma, beta = layer.get_weights()
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * gamma + beta


def dense(x, layer):
    kernel, bias = (w.astype("float64") for w in layer.get_weights())
    return x @ kernel + bias


def numpy_feed_forward(x, layer, options):
    h = dense(x, layer.expand)
    if options.get("glu"):
        value, gate = np.split(h, 2, -1)
        h = value * gate / (1 + np.exp(-gate))
    elif options.get("activation") == "relu":
        h = np.maximum(h, 0)
    else:
        h = 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    return dense(h, layer.contract)


def turned(x, positions):
    """(T, SIZE) of one head; each pair (i, i + half) as a complex number."""
    half = SIZE // 2
    turn = np.exp(1j * rotary_table(100, SIZE)[positions].astype("float64"))
    y = (x[:, :half] + 1j * x[:, half:]) * turn
    return np.concatenate([y.real, y.imag], -1)


def numpy_bias(layer, options, head, t, s):
    """Of a past step: all distances here are below 16, so each has a bucket of its own."""
    if options.get("bias") == "alibi":
        return -(t - s) * [1 / 4, 1 / 16, 1 / 64, 1 / 256][head]
    if options.get("bias") == "relative":
        return layer.distance_bias.get_weights()[0][t - s, head]
    return 0.0


def numpy_softmax(scores, seen):
    e = np.where(seen, np.exp(scores - scores.max()), 0)
    return e / e.sum() if e.any() else e


def numpy_self_attention(x, layer, options, target_mask):
    """One row: (T, W), already zero where the mask hides it."""
    groups = options.get("kv_heads", H)
    if groups == H:
        q, k, v = np.split(dense(x, layer.fused_projection), 3, -1)
    else:
        q = dense(x, layer.query_projection)
        k, v = np.split(dense(x, layer.fused_projection), 2, -1)
    mixed = np.zeros((len(x), W))
    for h in range(H):
        g = h * groups // H
        qh, kh, vh = (part[:, i * SIZE : (i + 1) * SIZE] for part, i in ((q, h), (k, g), (v, g)))
        if options.get("qk_norm"):
            qh, kh = numpy_norm(qh, layer.query_norm), numpy_norm(kh, layer.key_norm)
        if options.get("rotary"):
            qh, kh = (turned(part, np.arange(len(x))) for part in (qh, kh))
        for t in range(len(x)):
            scores = np.array(
                [
                    qh[t] @ kh[s] / np.sqrt(SIZE) + numpy_bias(layer, options, h, t, s)
                    for s in range(t + 1)
                ]
            )
            weights = numpy_softmax(scores, target_mask[: t + 1])
            mixed[t, h * SIZE : (h + 1) * SIZE] = weights @ vh[: t + 1]
    return dense(mixed, layer.output_projection)


def numpy_cross_attention(x, layer, key, value, mask):
    """One row: (T, W), (groups, S, SIZE)."""
    q = dense(x, layer.query_projection)
    mixed, weights = np.zeros((len(x), W)), np.zeros((H, len(x), key.shape[1]))
    for h in range(H):
        g, part = h * len(key) // H, slice(h * SIZE, (h + 1) * SIZE)
        for t in range(len(x)):
            weights[h, t] = numpy_softmax(key[g] @ q[t, part] / np.sqrt(SIZE), mask)
            mixed[t, part] = weights[h, t] @ value[g]
    return dense(mixed, layer.output_projection), weights


def numpy_decoder(layer, options, x, key, value, mask, target_mask):
    block, pre = layer.block, options.get("norm", "pre") == "pre"
    outputs, alignments = [], []
    for row in range(len(x)):
        y = x[row].astype("float64")

        def add(y, part, norm):
            if pre:
                return y + part(numpy_norm(y, norm))
            return numpy_norm(y + part(y), norm)

        def attend(h, row=row):
            clean = np.where(target_mask[row, :, None], h, 0)
            return numpy_self_attention(clean, block.attention, options, target_mask[row])

        def look(h, row=row):
            found, weights = numpy_cross_attention(
                h, layer.cross_attention, key[row], value[row], mask[row]
            )
            alignments.append(weights)
            return found

        def transform(h):
            return numpy_feed_forward(h, block.feed_forward, options)

        y = add(y, attend, block.attention_norm)
        y = add(y, look, layer.cross_attention_norm)
        outputs.append(add(y, transform, block.feed_forward_norm))
    return np.stack(outputs), np.stack(alignments)


@pytest.mark.parametrize("case", OPTIONS)
def test_equals_numpy(case):
    options = OPTIONS[case]
    layer, x, key, value = make(memory_heads=2 if case == "everything" else H, **options)
    y, weights = layer(x, key, value, mask=MASK, target_mask=TARGET)
    expected, alignment = numpy_decoder(layer, options, x, key, value, MASK, TARGET)
    assert_allclose(weights, alignment, atol=1e-5)
    assert_allclose(np.asarray(y)[TARGET], expected[TARGET], atol=1e-5, rtol=1e-5)


# ---------------------------------------------------- in TensorFlow, for the gradients, in float64


def tf_decoder(w, options, x, key, value):
    """The whole block with `w` from path to weight; source and target without padding."""
    groups, pre = options.get("kv_heads", H), options.get("norm", "pre") == "pre"

    def linear(x, name):
        return tf.einsum("...i,ij->...j", x, w[f"{name}/kernel"]) + w[f"{name}/bias"]

    def norm(x, name):
        if f"{name}/scale" in w:
            size = tf.reduce_mean(x * x, -1, keepdims=True)
            return x / tf.sqrt(size + 1e-6) * w[f"{name}/scale"]
        mean, variance = tf.nn.moments(x, [-1], keepdims=True)
        return (x - mean) / tf.sqrt(variance + 1e-3) * w[f"{name}/gamma"] + w[f"{name}/beta"]

    def heads(x, count):
        return tf.reshape(x, (B, -1, count, SIZE))  # (B, T, H, SIZE)

    def turn(x):
        angle = tf.constant(rotary_table(T, SIZE), "float64")[:, None]
        a, b = x[..., : SIZE // 2], x[..., SIZE // 2 :]
        c, s = tf.cos(angle), tf.sin(angle)
        return tf.concat([a * c - b * s, b * c + a * s], -1)

    def mix(q, k, v, bias, seen):
        """Every head has keys of its own: shared ones are repeated."""
        k, v = (tf.repeat(part, H // part.shape[2], axis=2) for part in (k, v))
        scores = tf.einsum("bthd,bshd->bhts", q, k) / math.sqrt(SIZE) + bias
        weights = tf.nn.softmax(tf.where(seen, scores, tf.constant(-1e300, "float64")), -1)
        return tf.reshape(tf.einsum("bhts,bshd->bthd", weights, v), (B, -1, W)), weights

    def attend(h):
        name = "block/attention"
        if groups == H:
            q, k, v = tf.split(linear(h, f"{name}/query_key_value"), 3, -1)
        else:
            q = linear(h, f"{name}/query")
            k, v = tf.split(linear(h, f"{name}/key_value"), 2, -1)
        q, k, v = heads(q, H), heads(k, groups), heads(v, groups)
        if options.get("qk_norm"):
            q, k = norm(q, f"{name}/query_norm"), norm(k, f"{name}/key_norm")
        if options.get("rotary"):
            q, k = turn(q), turn(k)
        bias = tf.zeros((H, T, T), "float64")
        distance = np.arange(T)[:, None] - np.arange(T)
        if options.get("bias") == "relative":
            table = w[f"{name}/distance_bias/table"]
            bias = tf.transpose(tf.gather(table, np.maximum(distance, 0)), (2, 0, 1))
        mixed, _ = mix(q, k, v, bias, distance >= 0)
        return linear(mixed, f"{name}/combine")

    alignment = []

    def look(h):
        q = heads(linear(h, "cross_attention/query"), H)
        k, v = (tf.transpose(part, (0, 2, 1, 3)) for part in (key, value))
        mixed, weights = mix(q, k, v, tf.zeros((), "float64"), True)
        alignment.append(weights)
        return linear(mixed, "cross_attention/combine")

    def transform(h):
        h = linear(h, "block/feed_forward/expand")
        if options.get("glu"):
            value, gate = tf.split(h, 2, -1)
            h = value * tf.nn.silu(gate)
        else:
            h = tf.nn.gelu(h, approximate=True)
        return linear(h, "block/feed_forward/contract")

    for part, name in (
        (attend, "block/attention_norm"),
        (look, "cross_attention_norm"),
        (transform, "block/feed_forward_norm"),
    ):
        x = x + part(norm(x, name)) if pre else norm(x + part(x), name)
    return x, alignment[0]


@pytest.mark.parametrize("case", ["pre", "post", "rotary", "everything"])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_equal_those_of_another_graph(case, training):
    options = OPTIONS[case]
    layer, x, key, value = make(memory_heads=2 if case == "everything" else H, **options)
    rng = np.random.default_rng(1)
    by_y, by_weights = rng.normal(size=(B, T, W)), rng.normal(size=(B, H, T, S))
    inputs = [tf.constant(part) for part in (x, key, value)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y, weights = layer(*inputs, training=training)
        loss = tf.reduce_sum(y * by_y.astype("float32"))
        loss += tf.reduce_sum(weights * by_weights.astype("float32"))
    variables = layer.trainable_variables
    found = tape.gradient(loss, [*inputs, *(v.value for v in variables)])

    names = [v.path.removeprefix(f"{layer.name}/") for v in variables]
    w = {n: tf.constant(v.numpy(), "float64") for n, v in zip(names, variables, strict=True)}
    inputs = [tf.cast(part, "float64") for part in inputs]
    with tf.GradientTape() as tape:
        tape.watch([inputs, w])
        y, weights = tf_decoder(w, options, *inputs)
        loss = tf.reduce_sum(y * by_y) + tf.reduce_sum(weights * by_weights)
    expected = tape.gradient(loss, [*inputs, *(w[name] for name in names)])
    for name, ours, theirs in zip(["x", "key", "value", *names], found, expected, strict=True):
        ours, theirs = (tf.convert_to_tensor(part).numpy() for part in (ours, theirs))
        assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4, err_msg=name)


# ------------------------------------------------------------------------------------ step by step


def start(layer, length, beams=1):
    shapes = layer.step_shapes(length, beams)
    return {name: np.zeros((B, *shape), "float32") for name, shape in shapes.items()}


@pytest.mark.parametrize("case", OPTIONS)
def test_steps_equal_the_whole(case):
    layer, x, key, value = make(**OPTIONS[case])
    whole, alignment = layer(x, key, value, mask=MASK)
    states = start(layer, T + 2)
    for t in range(T):
        here = x[:, t : t + 1]
        (y, weights), states = layer.step(
            here, states, np.full(B, t, "int32"), key, value, mask=MASK
        )
        assert_allclose(y[:, 0], whole[:, t], atol=2e-6, rtol=1e-6)
        assert_allclose(weights[:, :, 0], alignment[:, :, t], atol=1e-6)


def test_what_is_remembered_of_shared_keys_is_smaller():
    plain, grouped = make()[0], make(kv_heads=1)[0]
    assert plain.step_shapes(9) == {"key": (H, 9, SIZE), "value": (H, 9, SIZE)}
    assert grouped.step_shapes(9) == {"key": (1, 9, SIZE), "value": (1, 9, SIZE)}


@pytest.mark.parametrize("case", ["pre", "alibi", "everything"])
def test_hypotheses_equal_their_own_histories(case):
    """K hypotheses that are dropped and doubled at random: each is what its history gives."""
    beams, rng = 3, np.random.default_rng(2)
    layer, _, key, value = make(**OPTIONS[case])
    states = start(layer, T, beams)
    histories = np.zeros((B, beams, 0, W), "float32")
    ancestry = np.zeros((B, beams, T), "int32")
    for t in range(T):
        parents = rng.integers(beams, size=(B, beams)) if t else np.tile(np.arange(beams), (B, 1))
        rows = np.arange(B)[:, None]
        ancestry, histories = ancestry[rows, parents], histories[rows, parents]
        ancestry[:, :, t] = np.arange(beams)
        x = rng.normal(size=(B, beams, W)).astype("float32")
        histories = np.concatenate([histories, x[:, :, None]], 2)
        (y, weights), states = layer.step(
            x, states, np.full(B, t, "int32"), key, value, mask=MASK, ancestry=ancestry
        )
    for k in range(beams):
        whole, alignment = layer(histories[:, k], key, value, mask=MASK)
        assert_allclose(y[:, k], whole[:, -1], atol=2e-6, rtol=1e-6)
        assert_allclose(weights[:, :, k], alignment[:, :, -1], atol=1e-6)


# --------------------------------------------------------------------------------- under the masks


@pytest.mark.parametrize("case", OPTIONS)
def test_padding_changes_nothing(case):
    layer, x, key, value = make(**OPTIONS[case])
    alone, weights = layer(x, key, value)
    rng = np.random.default_rng(1)
    behind = [rng.normal(size=shape) for shape in ((B, 2, W), (B, H, 3, SIZE), (B, H, 3, SIZE))]
    longer = [
        np.concatenate([part, more.astype("float32")], axis)
        for part, more, axis in zip((x, key, value), behind, (1, 2, 2), strict=True)
    ]
    mask, target_mask = (np.tile(np.arange(n + k) < n, (B, 1)) for n, k in ((S, 3), (T, 2)))
    y, padded = layer(*longer, mask=mask, target_mask=target_mask)
    assert_allclose(y[:, :T], alone, atol=2e-6, rtol=1e-6)
    assert_allclose(padded[:, :, :T, :S], weights, atol=1e-6)
    assert_allclose(padded[:, :, :T, S:], np.zeros((B, H, T, 3)))


def test_nothing_looks_ahead():
    layer, x, key, value = make(**EVERYTHING)
    before, weights = layer(x, key, value)
    other = x.copy()
    other[:, 4:] += 1
    after, moved = layer(other, key, value)
    assert_allclose(after[:, :4], before[:, :4], atol=1e-6)
    assert_allclose(moved[:, :, :4], weights[:, :, :4], atol=1e-6)
    assert np.abs(after[:, 4:] - before[:, 4:]).max() > 1e-2


def test_a_source_without_a_real_step():
    layer, x, key, value = make()
    y, weights = layer(x, key, value, mask=np.zeros((B, S), bool))
    assert_allclose(weights, np.zeros((B, H, T, S)))
    # What the source adds is then the bias of the output projection.
    without, _ = layer(x, key, np.zeros_like(value))
    assert_allclose(y, without, atol=1e-6)


# ----------------------------------------------------------------------------------- grouped query


def test_as_many_shared_heads_as_heads_is_plain_attention():
    plain, grouped = make()[0], make(kv_heads=H)[0]
    _, x, key, value = make()
    grouped.set_weights(plain.get_weights())
    for a, b in zip(grouped(x, key, value), plain(x, key, value), strict=True):
        assert_allclose(a, b, atol=0)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bias", [None, "alibi"])
def test_shared_keys_equal_repeated_ones(groups, causal, bias):
    """Plain attention whose key and value kernels are repeated for the heads that share them."""
    x = np.random.default_rng(0).normal(size=(B, T, W)).astype("float32")
    grouped, plain = (
        MultiHeadAttention(H, causal=causal, bias=bias, kv_heads=n) for n in (groups, None)
    )
    for layer in (grouped, plain):
        layer(x)

    def repeated(w):
        parts = np.split(w, 2 * groups, -1)
        return [parts[g] for g in range(2 * groups) for _ in range(H // groups)]

    (qk, qb), (kvk, kvb) = (
        layer.get_weights() for layer in (grouped.query_projection, grouped.fused_projection)
    )
    kernel, offset = (np.concatenate([q, *repeated(w)], -1) for q, w in ((qk, kvk), (qb, kvb)))
    plain.fused_projection.set_weights([kernel, offset])
    plain.output_projection.set_weights(grouped.output_projection.get_weights())
    for a, b in zip(grouped(x, mask=TARGET), plain(x, mask=TARGET), strict=True):
        assert_allclose(a, b, atol=1e-6)


# ----------------------------------------------------------------------------------------- the rest


def test_dropout_is_for_training():
    layer, x, key, value = make(dropout=0.5)
    assert_allclose(layer(x, key, value)[0], layer(x, key, value)[0])
    assert np.abs(layer(x, key, value, training=True)[0] - layer(x, key, value)[0]).max() > 1e-3


def test_saved_and_loaded(tmp_path):
    dropouts = {"dropout": 0.1, "attention_dropout": 0.2, "hidden_dropout": 0.3}
    layer, x, key, value = make(**EVERYTHING, **dropouts, activation="relu", max_length=50)
    assert layer.cross_attention.dropout == 0.2
    names = ("x", "key", "value")
    inputs = [
        keras.Input(part.shape[1:], name=name)
        for part, name in zip((x, key, value), names, strict=True)
    ]
    model = keras.Model(inputs, layer(*inputs))
    model.save(tmp_path / "block.keras")
    again = keras.saving.load_model(tmp_path / "block.keras")
    for a, b in zip(again([x, key, value]), layer(x, key, value), strict=True):
        assert_allclose(a, b, atol=1e-6)
    config = next(part for part in again.layers if isinstance(part, DecoderBlock)).get_config()
    assert config == layer.get_config()
    assert {name: config[name] for name in EVERYTHING | dropouts} == EVERYTHING | dropouts


def test_symbolic_shapes_with_open_lengths():
    key = keras.Input((2, None, SIZE))
    y, weights = DecoderBlock(W, H)(keras.Input((None, W)), key, key)
    assert y.shape == (None, None, W)
    assert weights.shape == (None, H, None, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"norm": "both"}, "norm is 'both': give 'pre' or 'post'"),
        ({"norm_kind": "batch"}, "norm_kind is 'batch': give 'layer' or 'rms'"),
        ({"bias": "t5"}, "bias is 't5': give 'relative', 'alibi' or None"),
        ({"kv_heads": 3}, "give kv_heads 1, 2 or 4"),
        ({"heads": 3}, "width 16 is not divisible by 3 heads"),
    ],
)
def test_errors_say_what_to_do(options, words):
    with pytest.raises(ValueError, match=words):
        DecoderBlock(W, **options)


def test_a_source_of_another_width():
    x, key = np.zeros((B, T, W), "float32"), np.zeros((B, H, S, 3), "float32")
    with pytest.raises(ValueError, match=r"heads of width 4 and got keys with 4 heads of width 3"):
        DecoderBlock(W, H)(x, key, key)
