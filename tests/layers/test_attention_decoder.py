"""The attention decoder against loops in float64: outputs, gradients, steps, hypotheses, masks."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose

import keras_seq
from keras_seq.layers import AlignmentKeys, AttentionDecoder
from keras_seq.layers.steps import Step, search_shapes, step_shapes

B, T, S, D, M, W = 3, 4, 5, 6, 7, 8
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)

CASES = {
    "gru, bahdanau": {},
    "lstm, bahdanau, coverage, 2 layers": {"cell": "lstm", "coverage": True, "depth": 2},
    "rnn, general, bahdanau's order": {
        "cell": "rnn",
        "score": "luong_general",
        "order": "bahdanau",
    },
    "gru, conditional": {"order": "conditional"},
    "rnn, general, conditional": {
        "cell": "rnn",
        "score": "luong_general",
        "order": "conditional",
    },
    "lstm, conditional, coverage, 2 layers": {
        "cell": "lstm",
        "order": "conditional",
        "coverage": True,
        "depth": 2,
    },
    "lstm, luong": {"cell": "lstm", "score": "luong_general"},
    "gru, luong, 2 layers": {"score": "scaled_dot", "depth": 2},
    "rnn, luong, window": {"cell": "rnn", "score": "luong_general", "window": 1},
    "gru, luong, all at once": {"score": "luong_concat", "input_feeding": False},
    "lstm, luong, all at once, 2 layers": {
        "cell": "lstm",
        "score": "luong_general",
        "input_feeding": False,
        "depth": 2,
    },
    "gru, luong, coverage, not fed": {
        "order": "luong",
        "input_feeding": False,
        "coverage": True,
    },
}


def arrays(seed=0):
    """Target features, keys, memory."""
    rng = np.random.default_rng(seed)
    shapes = ((B, T, D), (B, S, W), (B, S, M))
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


@functools.cache
def built(case):
    """A layer with weights that are not small, and random first states."""
    layer = AttentionDecoder(W, **CASES[case])
    layer.build((B, T, D), (B, S, W), (B, S, M))
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.normal(0, 0.6, weight.shape))
    count = layer.depth * (2 if layer.cell == "lstm" else 1)
    return layer, [rng.normal(size=(B, W)).astype("float32") for _ in range(count)]


@functools.cache
def whole(case):
    layer, first = built(case)
    return [np.asarray(y) for y in call(layer, *arrays(), first)]


def call(layer, x, keys, memory, first, mask=MASK, **options):
    traced = tf.function(layer, autograph=False)
    return traced(*map(tf.constant, (x, keys, memory)), tf.constant(mask), first, **options)


def cell_by_hand(kind, x, states, kernel, recurrent, bias):
    """One step of a recurrent layer, its input in one piece."""
    if kind == "rnn":
        return [tf.tanh(x @ kernel + states[0] @ recurrent + bias)]
    if kind == "lstm":
        i, f, g, o = tf.split(x @ kernel + states[0] @ recurrent + bias, 4, axis=1)
        c = tf.sigmoid(f) * states[1] + tf.sigmoid(i) * tf.tanh(g)
        return [tf.sigmoid(o) * tf.tanh(c), c]
    a, b = x @ kernel + bias[0], states[0] @ recurrent + bias[1]
    z, r = (tf.sigmoid(a[:, i : i + W] + b[:, i : i + W]) for i in (0, W))
    return [z * states[0] + (1 - z) * tf.tanh(a[:, 2 * W :] + r * b[:, 2 * W :])]


def by_hand(layer, weights, x, keys, memory, first):
    """Step after step, everything in the loop, in float64."""
    named = {w.path.split("/", 1)[-1]: v for w, v in zip(layer.weights, weights, strict=True)}
    score, coverage = layer.score, tf.zeros((B, S), "float64")
    order = layer.order or ("bahdanau" if score == "bahdanau" else "luong")
    parts = 2 if layer.cell == "lstm" else 1
    states = [list(first[i * parts : (i + 1) * parts]) for i in range(layer.depth)]
    fed, outputs, found = tf.zeros((B, W), "float64"), [], []

    def attend(q, t):
        if score in ("bahdanau", "luong_concat"):
            q = q @ named["alignment/query_projection/kernel"]
            hidden = q[:, None, :] + keys
            if layer.coverage:
                hidden += coverage[:, :, None] * named["alignment/coverage_vector"]
            scores = tf.linalg.matvec(tf.tanh(hidden), named["alignment/vector"])
        else:
            if score == "scaled_dot":
                q = q @ named["alignment/query_projection/kernel"] / np.sqrt(W)
            scores = tf.einsum("bu,bsu->bs", q, keys)
        seen = MASK
        if layer.window:
            ends = np.array([[5], [3], [0]])
            seen = MASK & (np.abs(np.arange(S) - np.minimum(t, ends - 1)) <= layer.window)
        e = tf.exp(scores) * seen.astype("float64")
        w = e / tf.maximum(tf.reduce_sum(e, 1, keepdims=True), 1e-300)
        return tf.einsum("bs,bsm->bm", w, memory), w

    for t in range(T):
        h = x[:, t]
        if order == "bahdanau":
            context, w = attend(states[-1][0], t)
            h = tf.concat([h, context], 1)
        elif order == "luong" and layer.input_feeding:
            h = tf.concat([h, fed], 1)
        for i in range(layer.depth):
            kernel, recurrent, bias = weights_of(named, f"{layer.cell}_{i}")
            states[i] = cell_by_hand(layer.cell, h, states[i], kernel, recurrent, bias)
            h = states[i][0]
        if order != "bahdanau":
            context, w = attend(h, t)
        if order == "conditional":  # one cell more, on the last layer's state
            last = weights_of(named, f"{layer.cell}_{layer.depth}")
            states[-1] = cell_by_hand(layer.cell, context, states[-1], *last)
            h = states[-1][0]
        seen = [context, h] if order == "luong" else [h, context, x[:, t]]
        fed = tf.tanh(tf.concat(seen, 1) @ named["readout/kernel"] + named["readout/bias"])
        coverage += w
        outputs.append(fed)
        found.append(w)
    return tf.stack(outputs, 1), tf.stack(found, 1)


def weights_of(named, name):
    return [v for key, v in named.items() if key.startswith(f"{name}/")]


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients(case):
    """Against another graph in float64: outputs to 1e-5, gradients to 1e-4 of their size."""
    layer, first = built(case)
    rng = np.random.default_rng(2)
    pulls = [rng.normal(size=shape) for shape in ((B, T, W), (B, T, S))]
    x, keys, memory = arrays()
    # What stands under the mask is read by nobody; the loops by hand would spread it.
    memory, keys = (np.where(MASK[..., None], m, 0).astype("float32") for m in (memory, keys))

    @tf.function(autograph=False)
    def ours(x, keys, memory, *first):
        given = [x, keys, memory, *first]
        with tf.GradientTape() as tape:
            tape.watch(given)
            y = layer(*given[:3], tf.constant(MASK), list(given[3:]), training=True)
            loss = sum(
                tf.reduce_sum(a * b.astype("float32")) for a, b in zip(y, pulls, strict=True)
            )
        variables = [v.value for v in layer.trainable_variables]
        return [*y, *tape.gradient(loss, [*given, *variables])]

    def theirs(values):
        values = [tf.constant(v, "float64") for v in values]
        with tf.GradientTape() as tape:
            tape.watch(values)
            count = 3 + len(first)
            y = by_hand(layer, values[count:], *values[:3], values[3:count])
            loss = sum(tf.reduce_sum(a * b) for a, b in zip(y, pulls, strict=True))
        return [*y, *tape.gradient(loss, values)]

    weights = [w.numpy() for w in layer.trainable_variables]
    assert len(weights) == len(layer.weights)
    got = ours(*map(tf.constant, (x, keys, memory, *first)))
    expected = theirs([x, keys, memory, *first, *weights])
    for a, b in zip(got[:2], expected[:2], strict=True):
        assert_allclose(a, b, atol=1e-5)
    names = ["x", "keys", "memory", *["first"] * len(first), *[w.path for w in layer.weights]]
    for name, a, b in zip(names, got[2:], expected[2:], strict=True):
        assert np.max(np.abs(np.subtract(a, b))) <= 1e-4 * np.max(np.abs(b)) + 1e-9, name


@pytest.mark.parametrize("case", CASES)
def test_steps_equal_the_whole(case):
    layer, first = built(case)
    x, keys, memory = arrays()
    output, weights = whole(case)
    step, given = Step(layer), {"keys": keys, "memory": memory, "mask": MASK}
    shapes = step_shapes(layer, T)
    states = {name: np.zeros((B, *shape), "float32") for name, shape in shapes.items()}
    states |= dict(zip(shapes, first, strict=False))
    for t in range(T):
        (y, w), states = step(x[:, t : t + 1], states, np.full(B, t, "int32"), given=given)
        assert {name: state.shape[1:] for name, state in states.items()} == shapes
        assert_allclose(y[:, 0], output[:, t], atol=1e-6)
        assert_allclose(w[:, 0], weights[:, t], atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_hypotheses_know_nothing_of_each_other(case):
    """Three targets of each source side by side, and each of them alone."""
    layer, first = built(case)
    _, keys, memory = arrays()
    targets = [arrays(seed)[0] for seed in (0, 3, 4)]
    alone = [call(layer, x, keys, memory, first) for x in targets]
    step, given = Step(layer, search=True), {"keys": keys, "memory": memory, "mask": MASK}
    shapes = search_shapes(layer, T, 3)
    assert all(ordered for _, ordered in shapes.values())
    states = {name: np.zeros((B, *shape), "float32") for name, (shape, _) in shapes.items()}
    states |= {
        name: np.repeat(h[:, None], 3, axis=1) for name, h in zip(shapes, first, strict=False)
    }
    for t in range(T):
        x = np.stack([target[:, t] for target in targets], 1)
        (y, w), states = step(x, states, np.full(B, t, "int32"), given=given)
        for k, (output, weights) in enumerate(alone):
            assert_allclose(y[:, k], output[:, t], atol=1e-6)
            assert_allclose(w[:, k], weights[:, t], atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_padding_changes_nothing(case):
    """A source alone, and padded with anything; one without a real step gets zeros."""
    layer, first = built(case)
    x, keys, memory = arrays()
    row = [a[1:2] for a in (x, keys, memory)]
    short = [row[0], row[1][:, :3], row[2][:, :3], [h[1:2] for h in first], MASK[1:2, :3]]
    output, weights = call(layer, *short)
    padded_output, padded_weights = whole(case)
    assert_allclose(padded_output[1:2], output, atol=1e-6)
    assert_allclose(padded_weights[1:2, :, :3], weights, atol=1e-6)
    assert not np.any(padded_weights[1, :, 3:]) and not np.any(padded_weights[2])
    keys, memory = (np.where(MASK[..., None], m, np.nan).astype("float32") for m in (keys, memory))
    for a, b in zip(call(layer, x, keys, memory, first), whole(case), strict=True):
        assert_allclose(a, b, atol=1e-7)


@pytest.mark.parametrize(
    "case", ["gru, bahdanau", "gru, conditional", "lstm, luong", "gru, luong, all at once"]
)
def test_a_step_depends_on_the_steps_up_to_it(case):
    layer, first = built(case)
    x, keys, memory = arrays()
    x[:, 2] += 1
    before, (after, _) = whole(case)[0], call(layer, x, keys, memory, first)
    assert_allclose(after[:, :2], before[:, :2], atol=1e-7)
    assert np.all(np.max(np.abs(after - before)[:, 2:], axis=(0, 2)) > 1e-3)


def test_the_first_state():
    layer, first = built("lstm, luong")
    x, keys, memory = arrays()
    zeros = [np.zeros((B, W), "float32")] * 2
    assert_allclose(
        layer(x, keys, memory, mask=MASK)[0],
        layer(x, keys, memory, mask=MASK, initial_state=zeros)[0],
        atol=1e-7,
    )
    with pytest.raises(ValueError, match="got 1 initial states: give 2, a list of hidden, cell"):
        layer(x, keys, memory, initial_state=first[:1])
    one, (state,) = built("gru, bahdanau")
    assert_allclose(
        one(x, keys, memory, initial_state=state)[0], one(x, keys, memory, initial_state=[state])[0]
    )


def test_what_a_step_remembers():
    def shapes(**options):
        layer = AttentionDecoder(W, **options)
        layer.build((None, None, D), (None, None, W), (None, None, M))
        return layer.step_shapes(9)

    assert shapes() == {"hidden": (W,)}
    assert shapes(cell="lstm", score="dot") == {"hidden": (W,), "cell": (W,), "attentional": (W,)}
    assert list(shapes(cell="lstm", depth=2, coverage=True)) == [
        "hidden", "cell", "hidden_1", "cell_1", "coverage"
    ]  # fmt: skip
    assert shapes(coverage=True)["coverage"] == (None,)
    assert shapes(score="dot", input_feeding=False) == {"hidden": (W,)}
    assert shapes(order="conditional") == {"hidden": (W,)}


@pytest.mark.parametrize("options", [{}, {"score": "luong_general"}])
def test_dropout_is_on_the_output_and_not_on_what_is_fed_back(options):
    layer = AttentionDecoder(W, dropout=0.5, **options)
    x, keys, memory = arrays()
    still, weights = layer(x, keys, memory, mask=MASK)
    dropped, same = layer(x, keys, memory, mask=MASK, training=True)
    kept = np.asarray(dropped) != 0
    assert 0.2 < np.mean(kept) < 0.8
    assert_allclose(np.asarray(dropped)[kept], 2 * np.asarray(still)[kept], rtol=1e-5)
    assert_allclose(same, weights, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"score": "dot", "input_feeding": False}])
def test_dropout_between_layers(options):
    layer = AttentionDecoder(W, depth=2, dropout=0.5, **options)
    x, keys, _ = arrays()
    still = layer(x, keys, keys, mask=MASK)[1]
    runs = [np.asarray(layer(x, keys, keys, mask=MASK, training=True)[1]) for _ in range(2)]
    for run in runs:
        assert np.max(np.abs(run - still)) > 1e-4 and np.all(np.isfinite(run))
    assert np.max(np.abs(runs[0] - runs[1])) > 1e-4
    assert_allclose(layer(x, keys, keys, mask=MASK)[1], still, atol=1e-7)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("case", ["lstm, bahdanau, coverage, 2 layers", "gru, luong, all at once"])
def test_mixed_precision(case, policy):
    layer, first = built(case)
    other = AttentionDecoder(W, dtype=policy, **CASES[case])
    other.build((B, T, D), (B, S, W), (B, S, M))
    other.set_weights(layer.get_weights())
    output, weights = call(other, *arrays(), first)
    assert output.dtype == weights.dtype == other.compute_dtype
    assert all(w.dtype == "float32" for w in other.weights)
    assert_allclose(tf.cast(output, "float32"), whole(case)[0], atol=0.1)
    assert_allclose(tf.cast(weights, "float32"), whole(case)[1], atol=0.05)


def model_of(**options):
    """A functional model over keys that are computed once."""
    inputs = {
        "x": keras.Input((None, D), name="x"),
        "memory": keras.Input((None, M), name="memory"),
        "mask": keras.Input((None,), name="mask", dtype="bool"),
        "hidden": keras.Input((W,), name="hidden"),
    }
    keys = AlignmentKeys(W, score=options.get("score", "bahdanau"), name="source_keys")(
        inputs["memory"], mask=inputs["mask"]
    )
    output, weights = AttentionDecoder(W, name="alignment", **options)(
        inputs["x"], keys, inputs["memory"], mask=inputs["mask"], initial_state=[inputs["hidden"]]
    )
    return keras.Model(inputs, {"output": output, "weights": weights})


@pytest.mark.parametrize(
    "options", [{"coverage": True}, {"score": "luong_general", "dropout": 0.1, "window": 2}]
)
def test_save_and_load(options, tmp_path):
    x, _, memory = arrays()
    model = model_of(**options)
    given = {"x": x, "memory": memory, "mask": MASK, "hidden": np.ones((B, W), "float32")}
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for name, value in model(given).items():
        assert_allclose(again(given)[name], value, atol=1e-7)
    assert again.get_layer("alignment").get_config() == model.get_layer("alignment").get_config()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["lstm, bahdanau, coverage, 2 layers", "gru, luong, 2 layers"])
def test_a_step_exports(case, tmp_path):
    """SavedModel, and LiteRT by builtin operators alone, of two hypotheses."""
    layer, _ = built(case)
    shapes = {k: shape for k, (shape, _) in search_shapes(layer, T, 2).items()}
    inputs = {
        "x": keras.Input((2, D), name="x"),
        "position": keras.Input((), name="position", dtype="int32"),
        "keys": keras.Input((S, W), name="keys"),
        "memory": keras.Input((S, M), name="memory"),
        "mask": keras.Input((S,), name="mask", dtype="bool"),
        **{k: keras.Input(shape, name=k) for k, shape in shapes.items()},
    }
    given = {name: inputs[name] for name in ("keys", "memory", "mask")}
    (y, weights), after = Step(layer, search=True)(
        inputs["x"], {k: inputs[k] for k in shapes}, inputs["position"], given=given
    )
    model = keras.Model(inputs, {"y": y, "alignment": weights, **after})
    rng = np.random.default_rng(0)
    samples = {
        name: rng.normal(size=(4, *tensor.shape[1:])).astype("float32")
        for name, tensor in inputs.items()
    }
    samples["position"] = np.array([0, 1, 2, 3], "int32")
    samples["mask"] = np.arange(S) < np.array([[5], [3], [1], [4]])
    report = keras_seq.export(
        model, tmp_path / "step", formats=("saved_model", "litert"), samples=samples
    )
    assert {item["status"] for item in report["formats"].values()} == {"passed"}
    assert report["formats"]["litert"]["flex"] is False


def test_it_learns_to_copy():
    """The source's step t is the answer at t: a few training steps find the alignment."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 6, size=(64, S))
    memory = np.concatenate(
        [np.eye(6)[tokens], np.tile(np.eye(S), (64, 1, 1))], -1
    ).astype("float32")  # fmt: skip
    x = np.tile(np.eye(S), (64, 1, 1)).astype("float32")
    source, target = keras.Input((S, 6 + S)), keras.Input((S, S))
    keys = AlignmentKeys(16)(source)
    y, weights = AttentionDecoder(16, name="alignment")(target, keys, source)
    model = keras.Model([source, target], [keras.layers.Dense(6)(y), weights])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.03), loss=[loss, None])
    model.fit([memory, x], tokens, batch_size=64, epochs=80, verbose=0)
    logits, weights = model.predict_on_batch([memory, x])
    assert np.mean(np.argmax(logits, -1) == tokens) > 0.95
    assert np.mean(weights[:, range(S), range(S)]) > 0.5


def test_what_is_refused():
    with pytest.raises(ValueError, match="cell is 'qrnn': give one of rnn, lstm, gru"):
        AttentionDecoder(W, cell="qrnn")
    with pytest.raises(ValueError, match="order is 'vinyals'"):
        AttentionDecoder(W, order="vinyals")
    with pytest.raises(ValueError, match="score is 'cosine'"):
        AttentionDecoder(W, score="cosine")
    with pytest.raises(ValueError, match="always goes into the cell: leave input_feeding True"):
        AttentionDecoder(W, input_feeding=False)
    with pytest.raises(ValueError, match="width is 0 and depth is 1"):
        AttentionDecoder(0)
    with pytest.raises(ValueError, match="no place for coverage"):
        AttentionDecoder(W, score="dot", coverage=True)
