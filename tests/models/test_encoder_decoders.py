"""Whole encoder-decoders against NumPy, written from the papers, in float64."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose

from keras_seq.errors import UserError
from keras_seq.models.conv_seq2seq import conv_seq2seq
from keras_seq.models.t5 import t5

B, S, T, D = 3, 6, 5, 3
MASK = np.arange(S) < np.array([[6], [4], [1]])


def made(function, **options):
    """A model with weights that hide nothing, its inputs, and layer -> weights in float64."""
    source, target = keras.Input((None, D)), keras.Input((None, D))
    mask = keras.Input((None,), dtype="bool")
    output = function(source, target=target, mask=mask, dropout=0.0, **options)
    model = keras.Model([source, target, mask], output)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(0.1, 0.4, weight.shape))
    x = [rng.normal(size=(B, steps, D)).astype("float32") for steps in (S, T)]
    named = {w.path: np.asarray(w).astype("float64") for w in model.weights}
    return model, x, named


def dense(x, named, name):
    return x @ named[f"{name}/kernel"] + named.get(f"{name}/bias", 0.0)


def softmax(scores):
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def alignments(model, x, names):
    """The second outputs of layers."""
    probe = keras.Model(model.input, [model.get_layer(name).output[1] for name in names])
    return [np.asarray(w) for w in probe([*x, MASK])]


# ---------------------------------------------------------------------------------- conv_seq2seq


def gated_convolution(x, named, name, before):
    """Of one row (T, W): step t sees `before` steps before it and the rest after it."""
    kernel, bias = named[f"{name}/convolution/kernel"], named[f"{name}/convolution/bias"]
    found = np.zeros((len(x), kernel.shape[2] // 2))
    for t in range(len(x)):
        h = bias.copy()
        for k in range(len(kernel)):
            if 0 <= t + k - before < len(x):
                h += x[t + k - before] @ kernel[k]
        value, gate = np.split(h, 2)
        found[t] = value / (1 + np.exp(-gate))
    return found


def numpy_conv_seq2seq(source, target, named, width, depth, kernel_size):
    """One row without padding: (T, width), and the weights of each layer."""

    def begin(x, name):
        if x.shape[-1] != width:
            x = dense(x, named, f"{name}_project")
        return 0.1 * x + named[f"{name}_positions/table"][: len(x)]

    e, g = begin(source, "source"), begin(target, "target")
    x = dense(e, named, "encoder_start")
    for i in range(depth):
        h = gated_convolution(x, named, f"encoder_{i}", (kernel_size - 1) // 2)
        x = (x + h) * np.sqrt(0.5)
    z = dense(x, named, "encoder_end")
    y, weights = dense(g, named, "decoder_start"), []
    for i in range(depth):
        h = gated_convolution(y, named, f"decoder_{i}", kernel_size - 1)
        d = (dense(h, named, f"alignment_{i}/query") + g) * np.sqrt(0.5)
        a = softmax(d @ z.T)
        c = a @ ((z + e) * np.sqrt(0.5)) * len(z) * np.sqrt(1 / len(z))
        h = (h + dense(c, named, f"alignment_{i}/combine")) * np.sqrt(0.5)
        y = (y + h) * np.sqrt(0.5)
        weights.append(a)
    return dense(y, named, "decoder_end"), weights


@pytest.mark.parametrize(("width", "kernel_size"), [(4, 3), (D, 2), (4, 1)])
def test_conv_seq2seq(width, kernel_size):
    depth = 2
    options = {"width": width, "depth": depth, "kernel_size": kernel_size, "max_length": 16}
    model, x, named = made(conv_seq2seq, **options)
    y = model([*x, MASK])
    found = alignments(model, x, [f"alignment_{i}" for i in range(depth)])
    for row in range(B):
        count = int(MASK[row].sum())
        wanted, weights = numpy_conv_seq2seq(
            x[0][row, :count].astype("float64"), x[1][row], named, width, depth, kernel_size
        )
        assert_allclose(y[row], wanted, atol=1e-5)
        for i in range(depth):
            assert_allclose(found[i][row, :, :count], weights[i], atol=1e-5)
            assert not found[i][row, :, count:].any()


def test_the_variance_stays_through_many_layers_of_conv_seq2seq():
    """Features of spread 1, scaled by 0.1, give an output of that size, by 2 layers as by 12."""
    rng = np.random.default_rng(0)
    for depth in (2, 12):
        keras.utils.set_random_seed(1)
        source, target = keras.Input((None, 64)), keras.Input((None, 64))
        y = conv_seq2seq(source, target=target, width=64, depth=depth, dropout=0.0)
        model = keras.Model([source, target], y)
        x = [rng.normal(size=(4, 20, 64)).astype("float32") for _ in range(2)]
        found = float(np.std(model(x)))
        assert 0.05 < found < 0.2, f"{depth} layers: {found}"


# -------------------------------------------------------------------------------------------- t5


def rms(x, named, name):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * named[f"{name}/scale"]


def t5_bucket(after, causal, buckets, far):
    """The paper's code, for one distance."""
    bucket, side = 0, buckets
    if causal:
        distance = max(-after, 0)
    else:
        side //= 2
        bucket = side if after > 0 else 0
        distance = abs(after)
    single = side // 2
    if distance < single:
        return bucket + distance
    grown = np.log(distance / single) / np.log(far / single) * (side - single)
    return bucket + min(single + int(grown + 1e-9), side - 1)


def attend(q, k, v, bias, seen, heads):
    """(T, W), (S, W) -> (T, W), (heads, T, S)."""
    size = q.shape[-1] // heads
    mixed, weights = [], []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        scores = q[:, part] @ k[:, part].T / np.sqrt(size) + bias[..., h]
        weights.append(softmax(np.where(seen, scores, -np.inf)))
        mixed.append(weights[-1] @ v[:, part])
    return np.concatenate(mixed, -1), np.stack(weights)


def numpy_t5(source, target, named, width, depth, heads, glu, buckets, far):
    """One row without padding."""

    def bias_of(name, steps, causal):
        table = named[f"{name}/table"]
        each = [
            [t5_bucket(s - t, causal, buckets, far) for s in range(steps)] for t in range(steps)
        ]
        return table[np.array(each)]  # (T, T, heads)

    def look_at_itself(x, block, bias, seen):
        q, k, v = np.split(dense(x, named, f"{block}/attention/query_key_value"), 3, -1)
        return dense(attend(q, k, v, bias, seen, heads)[0], named, f"{block}/attention/combine")

    def transform(x, block):
        h = dense(x, named, f"{block}/feed_forward/expand")
        if glu:
            value, gate = np.split(h, 2, -1)
            inner = np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)
            h = value * gate * 0.5 * (1 + np.tanh(inner))
        else:
            h = np.maximum(h, 0)
        return dense(h, named, f"{block}/feed_forward/contract")

    x = dense(source, named, "source_project")
    everything = np.ones((len(x), len(x)), bool)
    for i in range(depth):
        block = f"attention_block_{i}"
        bias = bias_of("encoder_bias", len(x), False)
        x = x + look_at_itself(rms(x, named, f"{block}/attention_norm"), block, bias, everything)
        x = x + transform(rms(x, named, f"{block}/feed_forward_norm"), block)
    x = rms(x, named, "encoder_norm")
    y, weights = dense(target, named, "target_project"), []
    past = np.tril(np.ones((len(y), len(y)), bool))
    for i in range(depth):
        block, cross = f"alignment_{i}/block", f"alignment_{i}/cross_attention"
        bias = bias_of("decoder_bias", len(y), True)
        y = y + look_at_itself(rms(y, named, f"{block}/attention_norm"), block, bias, past)
        k, v = np.split(dense(x, named, f"memory_{i}/key_value"), 2, -1)
        q = dense(rms(y, named, f"alignment_{i}/cross_attention_norm"), named, f"{cross}/query")
        nothing = np.zeros((1, 1, heads))
        found, a = attend(q, k, v, nothing, np.ones((len(y), len(x)), bool), heads)
        y = y + dense(found, named, f"{cross}/combine")
        y = y + transform(rms(y, named, f"{block}/feed_forward_norm"), block)
        weights.append(a)
    return rms(y, named, "decoder_norm"), weights


@pytest.mark.parametrize("glu", [False, True])
def test_t5(glu):
    options = {"width": 4, "depth": 2, "heads": 2, "glu": glu, "buckets": 8, "max_distance": 5}
    model, x, named = made(t5, **options)
    # No learned vectors but the scales of the norms and the biases of the distances.
    assert {name.rpartition("/")[2] for name in named} == {"kernel", "scale", "table"}
    assert sorted(n for n in named if n.endswith("table")) == [
        "decoder_bias/table",
        "encoder_bias/table",
    ]
    y = model([*x, MASK])
    found = alignments(model, x, ["alignment_0", "alignment_1"])
    for row in range(B):
        count = int(MASK[row].sum())
        wanted, weights = numpy_t5(
            x[0][row, :count].astype("float64"), x[1][row], named, 4, 2, 2, glu, 8, 5
        )
        assert_allclose(y[row], wanted, atol=1e-5)
        for i in range(2):
            assert_allclose(found[i][row, :, :, :count], weights[i], atol=1e-5)
            assert not found[i][row, :, :, count:].any()


def test_options_out_of_range_are_refused():
    source, target = keras.Input((None, D)), keras.Input((None, D))
    for function, options, message in (
        (conv_seq2seq, {"kernel_size": 0}, "kernel_size is 0"),
        (conv_seq2seq, {"positions": "rotary"}, "positions is 'rotary': give one of learned"),
        (t5, {"width": 6, "heads": 4}, "width 6 is not divisible by 4 heads"),
        (t5, {"buckets": 5}, "buckets is 5"),
        (t5, {"max_distance": 8}, "max_distance is 8"),
        (t5, {"dropout": 1.0}, "dropout is 1.0"),
    ):
        with pytest.raises(UserError, match=message):
            function(source, target=target, **options)
