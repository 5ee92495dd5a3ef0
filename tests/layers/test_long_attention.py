"""Tiles and windows against attention with all weights at once, values and gradients."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose

from keras_seq.export import export
from keras_seq.layers import (
    BlockwiseAttention,
    MultiHeadAttention,
    SlidingWindowAttention,
    blockwise_attention,
    dot_product_attention,
    sliding_window_attention,
)
from keras_seq.layers.attention_tiles import drawn_scale

B, H, G, T, S, D, V, M = 2, 4, 2, 13, 11, 8, 6, 3


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def plain(q, k, v, bias=None, *, mask=None, seen=None):
    """All weights at once; `seen` (T, S) bool."""
    k, v = (tf.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    scores = tf.einsum("bhtd,bhsd->bhts", q, k) / np.sqrt(q.shape[-1])
    steps, memory = q.shape[2], k.shape[2]
    later = np.arange(memory)[None, :] - np.arange(steps)[:, None]
    if bias is not None and len(bias.shape) == 1:
        scores -= bias[:, None, None] * np.abs(later)
    elif bias is not None:
        far = bias.shape[0] // 2
        scores += tf.transpose(tf.gather(bias, np.clip(later, -far, far) + far), [2, 0, 1])
    valid = np.ones((q.shape[0], 1, steps, memory), bool)
    valid = valid if seen is None else valid & seen
    valid = valid if mask is None else valid & mask[:, None, None, :]
    e = tf.where(valid, tf.exp(scores - tf.reduce_max(scores, -1, keepdims=True)), 0.0)
    return tf.matmul(tf.math.divide_no_nan(e, tf.reduce_sum(e, -1, keepdims=True)), v)


def band(before, after, steps=T, memory=S):
    later = np.arange(memory)[None, :] - np.arange(steps)[:, None]
    return (later >= -before) & (later <= after)


def tensors(rng, *, groups=G, heads=H, steps=T, memory=S, dtype="float64"):
    """Queries, keys and values, and what the outputs are multiplied with for a loss."""
    shapes = (
        (B, heads, steps, D), (B, groups, memory, D), (B, groups, memory, V), (B, heads, steps, V),
    )  # fmt: skip
    *given, weights = (tf.constant(rng.normal(size=shape), dtype) for shape in shapes)
    return given, weights


def with_gradients(function, given, weights):
    with tf.GradientTape() as tape:
        tape.watch(given)
        y = function(*given)
        loss = tf.reduce_sum(y * tf.cast(weights, y.dtype))
    # What TensorFlow derives for a look-up is sparse.
    return [y, *(tf.convert_to_tensor(x) for x in tape.gradient(loss, given))]


def holes(rng):
    """A mask with holes; the first row of the batch has no key at all."""
    mask = rng.random((B, S)) > 0.4
    mask[0] = False
    mask[1, :3] = [False, True, False]
    return mask


CASES = {
    "all": ({}, None),
    "causal": ({"causal": True}, band(99, 0)),
    "window": ({"window": 3}, band(3, 3)),
    "window-causal": ({"window": 2, "causal": True}, band(2, 0)),
    "window-0": ({"window": 0}, band(0, 0)),
}


@pytest.mark.parametrize(("masked", "groups"), [(False, H), (True, G)], ids=["open", "masked"])
@pytest.mark.parametrize("bias", [None, "slopes", "table"])
@pytest.mark.parametrize("case", CASES)
def test_equals_all_weights_at_once(rng, case, masked, bias, groups):
    """In float64, where what is left is rounding: a formula that is off shows."""
    options, seen = CASES[case]
    given, weights = tensors(rng, groups=groups)
    if bias is not None:
        shape = (H,) if bias == "slopes" else (2 * M + 1, H)
        given.append(tf.constant(rng.normal(size=shape)))
    mask = holes(rng) if masked else None
    function = sliding_window_attention if "window" in options else blockwise_attention

    def ours(q, k, v, bias=None):
        return function(q, k, v, bias=bias, mask=mask, block=5, **options)

    def theirs(*given):
        return plain(*given, mask=mask, seen=seen)

    # The first row of the masked batch sees nothing: 0, and no gradient.
    found = with_gradients(ours, given, weights)
    wanted = with_gradients(theirs, given, weights)
    for got, expected in zip(found, wanted, strict=True):
        assert_allclose(got, expected, rtol=1e-9, atol=1e-11)
    if masked:
        assert not np.any(found[0][0]) and not np.any(found[1][0])


@pytest.mark.parametrize("form", ["eager", "open", "compiled"])
def test_every_way_to_run(rng, form):
    """Eager, with sizes that are unknown until run time, and by XLA."""
    given, weights = tensors(rng, dtype="float32")
    given.append(tf.constant(rng.normal(size=(2 * M + 1, H)), "float32"))
    mask = tf.constant(holes(rng))

    def ours(q, k, v, bias, mask):
        return blockwise_attention(q, k, v, bias=bias, mask=mask, causal=True, block=4)

    def run(mask, weights, *given):
        return with_gradients(lambda *x: ours(*x, mask), list(given), weights)

    if form == "open":
        open_sizes = [tf.TensorSpec([None, x.shape[1], None, x.shape[3]]) for x in given[:3]]
        signature = [
            tf.TensorSpec([None, None], tf.bool), tf.TensorSpec([None, H, None, V]),
            *open_sizes, tf.TensorSpec([2 * M + 1, H]),
        ]  # fmt: skip
        run = tf.function(run, input_signature=signature)
    elif form == "compiled":
        run = tf.function(run, jit_compile=True)
    wanted = with_gradients(
        lambda *x: plain(*x, mask=mask.numpy(), seen=band(99, 0)), given, weights
    )
    for got, expected in zip(run(mask, weights, *given), wanted, strict=True):
        assert_allclose(got, expected, atol=1e-5)


def test_gradients_are_the_slopes(rng):
    """By finite differences, with dropout: the backward pass drops what the forward one did."""
    given, weights = tensors(rng, steps=7, memory=6)
    given.append(tf.constant(rng.normal(size=(2 * M + 1, H))))

    def loss(q, k, v, bias):
        y = blockwise_attention(q, k, v, bias=bias, dropout=0.4, seed=3, causal=True, block=3)
        return tf.reduce_sum(y * weights)

    with tf.GradientTape() as tape:
        tape.watch(given)
        y = loss(*given)
    for place, slope in enumerate(tape.gradient(y, given)):
        way = rng.normal(size=slope.shape)
        up, down = (
            loss(*[x + e * way if i == place else x for i, x in enumerate(given)])
            for e in (1e-5, -1e-5)
        )
        assert_allclose(tf.reduce_sum(slope * way), (up - down) / 2e-5, rtol=1e-6, atol=1e-8)


def test_dropout(rng):
    (q, k, v), _ = tensors(rng, dtype="float32")

    def ours(seed):
        return blockwise_attention(q, k, v, dropout=0.25, seed=seed, block=4)

    assert_allclose(ours(1), ours(1))
    assert np.abs(ours(1) - ours(2)).max() > 0.1
    many = tf.function(
        lambda: tf.map_fn(lambda i: ours(tf.stack([i, 7])), tf.range(600), tf.float32)
    )()
    # The mean of 600: a standard error is some 0.02.
    assert_allclose(tf.reduce_mean(many, 0), plain(q, k, v), atol=0.12)
    drawn = drawn_scale(0.25, [100, 100], tf.constant([1, 2]), tf.float32)
    assert_allclose(np.mean(drawn.numpy() == 0), 0.25, atol=0.02)
    assert_allclose(np.unique(drawn), [0, 1 / 0.75], rtol=1e-6)


@pytest.mark.parametrize(("dtype", "atol"), [("bfloat16", 0.06), ("float16", 0.01)])
def test_sixteen_bits(rng, dtype, atol):
    given, weights = tensors(rng)
    low = [tf.cast(x, dtype) for x in given]
    found = with_gradients(lambda *x: blockwise_attention(*x, causal=True, block=4), low, weights)
    given = [tf.cast(x, "float64") for x in low]
    wanted = with_gradients(lambda *x: plain(*x, seen=band(99, 0)), given, weights)
    for got, expected in zip(found, wanted, strict=True):
        assert got.dtype == dtype
        assert_allclose(tf.cast(got, "float64"), expected, atol=atol * np.abs(expected).max())


def test_large_scores_stay_finite():
    q = tf.constant([[[[300.0], [-300.0]]]])
    y = blockwise_attention(q, q, q, block=1)
    assert_allclose(np.asarray(y)[0, 0, :, 0], [300, -300])


# --------------------------------------------------------------------------------- which form


@pytest.mark.parametrize("method", ["plain", "auto", "rows"])
@pytest.mark.parametrize("window", [None, 2])
def test_all_forms_agree(rng, method, window):
    (q, k, v), _ = tensors(rng, dtype="float32")
    bias = tf.constant(rng.normal(size=(2 * M + 1, H)), "float32")
    options = {"mask": holes(rng), "causal": True, "bias": bias, "window": window, "block": 4}
    training = None if method == "rows" else True
    y = dot_product_attention(
        q, k, v, method="auto" if method == "rows" else method, training=training, **options
    )
    seen = band(99 if window is None else window, 0)
    assert_allclose(y, plain(q, k, v, bias, mask=options["mask"], seen=seen), atol=1e-5)


def test_weights_and_masks_of_three_axes(rng):
    (q, k, v), _ = tensors(rng, dtype="float32")
    seen = rng.random((B, T, S)) > 0.5
    y, weights = dot_product_attention(q, k, v, mask=seen, block=4, return_weights=True)
    assert_allclose(y, plain(q, k, v, seen=seen[:, None]), atol=1e-5)
    some = np.broadcast_to(seen.any(-1)[:, None], (B, H, T))
    assert_allclose(np.sum(weights, -1), some, atol=1e-5)


def test_what_cannot_be_is_said(rng):
    (q, k, v), _ = tensors(rng)
    for options, words in (
        ({"method": "flash"}, "give one of 'auto'"),
        ({"method": "window"}, "say how many steps"),
        ({"method": "blockwise", "window": 2}, "give 'window' or 'auto'"),
        ({"method": "blockwise", "mask": np.ones((B, T, S))}, r"has no mask \(B, T, S\)"),
        ({"dropout": 0.1, "training": True}, "there is no seed"),
        ({"bias": np.zeros(3)}, r"slopes \(4,\)"),
        ({"window": -1}, "at least 0"),
    ):
        with pytest.raises(ValueError, match=words):
            dot_product_attention(q, k, v, **options)
    with pytest.raises(ValueError, match="cannot share"):
        blockwise_attention(q[:, :3], k, v)


# -------------------------------------------------------------------------------------- layers

OPTIONS = {
    "plain": {},
    "causal": {"causal": True, "rotary": True, "kv_heads": 2, "qk_norm": True},
    "relative": {"bias": "relative"},
    "alibi": {"bias": "alibi", "causal": True, "use_bias": False},
}


@pytest.mark.parametrize("case", OPTIONS)
def test_layer_equals_multi_head_attention(rng, case):
    """With its weights, in training and in inference; the gradients of all weights too."""
    x = tf.constant(rng.normal(size=(B, T, 6)), "float32")
    mask = tf.constant(rng.random((B, T)) > 0.3)
    weights = rng.normal(size=(B, T, 8)).astype("float32")
    theirs = MultiHeadAttention(4, width=8, **OPTIONS[case])
    ours = BlockwiseAttention(4, width=8, block=4, **OPTIONS[case])
    theirs(x), ours(x)
    theirs.set_weights([rng.normal(0, 0.5, w.shape) for w in theirs.get_weights()])
    ours.set_weights(theirs.get_weights())
    assert_allclose(ours(x, mask=mask), theirs(x, mask=mask)[0], atol=1e-5)

    def slopes(layer):
        with tf.GradientTape() as tape:
            y = layer(x, mask=mask, training=True)
            loss = tf.reduce_sum((y[0] if layer is theirs else y) * weights)
        found = tape.gradient(loss, [w.value for w in layer.trainable_variables])
        return [tf.convert_to_tensor(x) for x in found]

    for got, expected in zip(slopes(ours), slopes(theirs), strict=True):
        assert_allclose(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
def test_window_layer(rng, causal):
    """It is attention with a mask of three axes, and its steps are its call."""
    x = tf.constant(rng.normal(size=(B, T, 8)), "float32")
    theirs = MultiHeadAttention(4, causal=causal, bias="alibi")
    ours = SlidingWindowAttention(4, window=2, causal=causal, bias="alibi", block=4)
    theirs(x), ours(x)
    ours.set_weights(theirs.get_weights())
    near = np.broadcast_to(band(2, 2, T, T), (B, T, T))
    wanted = theirs(x, mask=near)[0]
    for training in (False, True):
        assert_allclose(ours(x, training=training), wanted, atol=1e-5)
    if causal:
        states = {n: np.zeros((B, *s), "float32") for n, s in ours.step_shapes(T).items()}
        for t in range(T):
            y, states = ours.step(x[:, t : t + 1], states, np.full(B, t))
            assert_allclose(y[:, 0], wanted[:, t], atol=1e-5)


def test_layer_drops_in_training_only(rng):
    x = rng.normal(size=(B, T, 8)).astype("float32")
    layer = BlockwiseAttention(4, dropout=0.5, block=4)
    assert_allclose(layer(x), layer(x, training=False))
    assert np.abs(layer(x, training=True) - layer(x, training=True)).max() > 1e-3


def test_shared_distances(rng):
    x = rng.normal(size=(B, T, 8)).astype("float32")
    table = rng.normal(size=(2 * M + 1, 4)).astype("float32")
    theirs, ours = MultiHeadAttention(4), BlockwiseAttention(4, block=4)
    theirs(x), ours(x)
    ours.set_weights(theirs.get_weights())
    assert_allclose(ours(x, distances=table), theirs(x, distances=table)[0], atol=1e-5)
    with pytest.raises(ValueError, match="take one of them"):
        BlockwiseAttention(4, bias="alibi")(x, distances=table)


@pytest.mark.parametrize("kind", [BlockwiseAttention, SlidingWindowAttention])
def test_length_that_is_open_can_be_trained(rng, kind):
    x = rng.normal(size=(8, 9, 4)).astype("float32")
    options = {"window": 2} if kind is SlidingWindowAttention else {}
    model = keras.Sequential([keras.Input((None, 4)), kind(2, block=4, dropout=0.1, **options)])
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    # The target is what was seen one step before.
    history = model.fit(x, np.roll(x, 1, axis=1) * 0.5, epochs=8, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]
    assert_allclose(model.predict(x, verbose=0), model(x), atol=1e-5)


@pytest.mark.parametrize("kind", [BlockwiseAttention, SlidingWindowAttention])
@pytest.mark.slow
def test_tiles_convert(rng, kind, tmp_path):
    """A length that is fixed, above that of a block: unrolled, builtin operators alone."""
    options = {"window": 3} if kind is SlidingWindowAttention else {}
    inputs = {
        "x": keras.Input((T, 8), name="x"),
        "mask": keras.Input((T,), dtype="bool", name="mask"),
    }
    layer = kind(4, block=4, kv_heads=2, bias="relative", causal=True, **options)
    model = keras.Model(inputs, layer(inputs["x"], mask=inputs["mask"]))
    samples = {
        "x": rng.normal(size=(3, T, 8)).astype("float32"), "mask": rng.random((3, T)) > 0.3,
    }  # fmt: skip
    export(model, tmp_path, formats=("litert",), samples=samples)
    assert list(tmp_path.rglob("*.tflite"))


@pytest.mark.parametrize("case", OPTIONS)
def test_long_sequences_of_multi_head_attention_go_by_tiles(rng, case, monkeypatch):
    """Above the bound of weights, in a graph; the weights are there for who reads them."""
    inputs = keras.Input((T, 6))
    layer = MultiHeadAttention(4, width=8, **OPTIONS[case])
    x = tf.constant(rng.normal(size=(B, T, 6)), "float32")
    mask = tf.constant(rng.random((B, T)) > 0.3)
    weights = rng.normal(size=(B, T, 8)).astype("float32")
    keras.Model(inputs, layer(inputs))
    layer.set_weights([rng.normal(0, 0.5, w.shape) for w in layer.get_weights()])

    def run(training):
        @tf.function
        def step():
            with tf.GradientTape() as tape:
                y, attention = layer(x, mask=mask, training=training)
                loss = tf.reduce_sum(y * weights)
            slopes = tape.gradient(loss, [w.value for w in layer.trainable_variables])
            return [y, attention, *(tf.convert_to_tensor(s) for s in slopes)]

        names = {op.type for op in step.get_concrete_function().graph.get_operations()}
        return step(), any("While" in name for name in names)

    for training in (True, False):
        monkeypatch.setattr("keras_seq.layers.dot_product._MOST", 2**24)
        wanted, loops = run(training)
        assert not loops
        monkeypatch.setattr("keras_seq.layers.dot_product._MOST", 100)
        monkeypatch.setattr("keras_seq.layers.attention_tiles._BLOCKS", ((999, 4),))
        found, loops = run(training)
        assert loops == training  # without training blocks are written out
        for got, expected in zip(found, wanted, strict=True):
            assert_allclose(got, expected, atol=1e-4, rtol=1e-4)


def test_the_way_can_be_named(rng):
    x = rng.normal(size=(B, T, 8)).astype("float32")
    layers = [MultiHeadAttention(4, method=method) for method in ("plain", "blockwise")]
    for layer in layers:
        layer(x)
        layer.set_weights(layers[0].get_weights())
    (y, weights), (ours, same) = (layer(x) for layer in layers)
    assert_allclose(ours, y, atol=1e-5)
    assert_allclose(same, weights, atol=1e-6)
    assert MultiHeadAttention.from_config(layers[1].get_config()).method == "blockwise"
    for kind, method in (
        (lambda **o: MultiHeadAttention(2, **o), "window"),
        (lambda **o: SlidingWindowAttention(2, window=1, **o), "blockwise"),
    ):
        with pytest.raises(ValueError, match=f"method is '{method}'"):
            kind(method=method)
