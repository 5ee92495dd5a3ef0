"""Alignment: every score, the windows and the coverage against NumPy, one pair at a time."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose

from keras_seq.layers import AdditiveAttention, Alignment, AlignmentKeys, coverage_loss

B, T, S, D, M, U = 3, 4, 6, 5, 7, 5
SCORES = ("bahdanau", "dot", "luong_general", "luong_concat", "scaled_dot", "location")
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]], bool)


def randomise(layer, seed=0):
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(0, 0.8, w.shape).astype("float32") for w in layer.get_weights()])


def arrays(score):
    rng = np.random.default_rng(1)
    query = rng.normal(size=(B, T, D)).astype("float32")
    memory = rng.normal(size=(B, S, D if score == "dot" else M)).astype("float32")
    coverage = rng.uniform(size=(B, T, S)).astype("float32")
    return query, memory, coverage


def made(score, mask=None, **options):
    """The layers with random weights, and what they are called with."""
    query, memory, coverage = arrays(score)
    to_keys = AlignmentKeys(U, score=score)
    to_keys.build(memory.shape)
    randomise(to_keys)
    keys = to_keys(memory, mask=mask)
    layer = Alignment(score, **options)
    layer.build(query.shape, keys.shape, memory.shape)
    randomise(layer, seed=2)
    return layer, to_keys, query, keys, memory, coverage


def by_hand(layer, to_keys, query, memory, mask=None, coverage=None, at=None):
    """Context and weights in float64, with loops over rows, target steps and source steps."""
    mask = np.ones((B, S), bool) if mask is None else mask
    projection = [w.astype("float64") for w in to_keys.get_weights()]
    mine = {w.path.split("/", 1)[-1]: np.array(w, "float64") for w in layer.weights}
    contexts = np.zeros((B, T, memory.shape[-1]))
    weights = np.zeros((B, T, S))
    for b in range(B):
        real = np.flatnonzero(mask[b])
        if not len(real):
            continue
        length = real[-1] + 1
        for t in range(T):
            q, centre, seen = query[b, t].astype("float64"), None, list(real)
            if layer.predictive:
                h = np.tanh(q @ mine["centre_projection/kernel"])
                centre = length / (1 + np.exp(-h @ mine["centre_vector"]))
            elif layer.window:
                centre = min(t if at is None else at[b], length - 1)
            if layer.window:
                seen = [s for s in seen if centre - layer.window <= s <= centre + layer.window]
            scores = []
            for s in seen:
                m = memory[b, s].astype("float64")
                if layer.score == "dot":
                    scores.append(q @ m)
                elif layer.score == "luong_general":
                    scores.append(q @ (m @ projection[0]))
                elif layer.score == "scaled_dot":
                    mapped = q @ mine["query_projection/kernel"]
                    scores.append(mapped @ (m @ projection[0]) / np.sqrt(U))
                elif layer.score == "location":
                    scores.append((q @ mine["locate/kernel"])[s])
                else:
                    both = np.concatenate([mine["query_projection/kernel"], projection[0]])
                    hidden = np.concatenate([q, m]) @ both
                    if layer.score == "bahdanau":
                        hidden = hidden + projection[1]
                    if coverage is not None:
                        hidden = hidden + coverage[b, t, s] * mine["coverage_vector"]
                    scores.append(mine["vector"] @ np.tanh(hidden))
            e = np.exp(scores - np.max(scores))
            for s, w in zip(seen, e / e.sum(), strict=True):
                if layer.predictive:
                    w *= np.exp(-((s - centre) ** 2) / (2 * (layer.window / 2) ** 2))
                weights[b, t, s] = w
                contexts[b, t] += w * memory[b, s]
    return contexts, weights


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("masked", [False, True])
def test_every_score(score, masked):
    mask = MASK if masked else None
    layer, to_keys, query, keys, memory, _ = made(score, mask)
    context, weights = layer(query, keys, memory, mask=mask)
    expected_context, expected = by_hand(layer, to_keys, query, memory, mask)
    assert_allclose(weights, expected, atol=1e-5)
    assert_allclose(context, expected_context, atol=1e-5)
    if masked:
        assert not np.any(weights[2]) and not np.any(context[2])
        assert_allclose(np.sum(weights[:2], -1), 1, atol=1e-6)


@pytest.mark.parametrize("score", ["bahdanau", "dot", "location"])
@pytest.mark.parametrize(("window", "predictive"), [(1, False), (2, False), (2, True), (3, True)])
def test_windows(score, window, predictive):
    layer, to_keys, query, keys, memory, _ = made(score, MASK, window=window, predictive=predictive)
    context, weights = layer(query, keys, memory, mask=MASK)
    expected_context, expected = by_hand(layer, to_keys, query, memory, MASK)
    assert_allclose(weights, expected, atol=1e-5)
    assert_allclose(context, expected_context, atol=1e-5)
    assert np.count_nonzero(weights[0, 0]) < S


def test_the_window_of_hypotheses_at_a_position_of_their_own():
    layer, to_keys, query, keys, memory, _ = made("bahdanau", MASK, window=1)
    at = np.array([4, 7, 0], "int32")  # row 1 has three steps: the window ends there
    _, weights = layer(query, keys, memory, mask=MASK, position=at)
    _, expected = by_hand(layer, to_keys, query, memory, MASK, at=at)
    assert_allclose(weights, expected, atol=1e-5)
    assert np.flatnonzero(weights[0, 0]).tolist() == [3, 4, 5]
    assert np.flatnonzero(weights[1, 0]).tolist() == [1, 2]


@pytest.mark.parametrize("score", ["bahdanau", "luong_concat"])
def test_coverage(score):
    layer, to_keys, query, keys, memory, coverage = made(score, MASK, coverage=True)
    context, weights = layer(query, keys, memory, mask=MASK, coverage=coverage)
    expected_context, expected = by_hand(layer, to_keys, query, memory, MASK, coverage)
    assert_allclose(weights, expected, atol=1e-5)
    assert_allclose(context, expected_context, atol=1e-5)
    _, none = layer(query, keys, memory, mask=MASK)
    _, zero = layer(query, keys, memory, mask=MASK, coverage=np.zeros_like(coverage))
    assert_allclose(none, zero, atol=1e-7)
    assert np.max(np.abs(np.subtract(none, weights))) > 0.01


def test_bahdanaus_score_is_that_of_additive_attention():
    """Another layer with the same weights: the self-attention form."""
    layer, to_keys, query, keys, memory, _ = made("bahdanau", MASK)
    other = AdditiveAttention(U)
    other.build(query.shape, memory.shape)
    other.query_projection.set_weights(layer.query_projection.get_weights())
    other.memory_projection.set_weights(to_keys.get_weights())
    other.score.set_weights([layer.vector.numpy()[:, None]])
    for ours, theirs in zip(
        layer(query, keys, memory, mask=MASK), other(query, memory, mask=MASK), strict=True
    ):
        assert_allclose(ours, theirs, atol=1e-6)


def test_places_that_location_does_not_know_get_no_weight():
    query, memory, _ = arrays("location")
    layer = Alignment("location", max_length=4)
    _, weights = layer(query, memory, memory)
    assert not np.any(weights[..., 4:])
    assert_allclose(np.sum(weights, -1), 1, atol=1e-6)


@pytest.mark.parametrize("score", SCORES)
def test_padding_changes_nothing(score):
    """The same rows without padding, and with NaN under the mask."""
    layer, to_keys, query, keys, memory, _ = made(
        score, MASK, window=None if score == "location" else 2
    )
    context, weights = layer(query[1:2], keys[1:2, :3], memory[1:2, :3])
    for filling in (100.0, np.nan):
        hidden = np.where(MASK[..., None], memory, filling).astype("float32")
        padded = layer(query, to_keys(hidden, mask=MASK), hidden, mask=MASK)
        assert_allclose(padded[0][1:2], context, atol=1e-6)
        assert_allclose(padded[1][1:2, :, :3], weights, atol=1e-6)
        assert not np.any(padded[0][2])
        # keys that were made without the mask do no harm either
        careless = layer(query, to_keys(hidden), hidden, mask=MASK)
        assert_allclose(careless[1], padded[1], atol=1e-6)


GRADIENTS = {
    "bahdanau, coverage": ("bahdanau", {"coverage": True}),
    "luong_concat, predictive": ("luong_concat", {"window": 3, "predictive": True}),
    "luong_general": ("luong_general", {}),
    "scaled_dot, window": ("scaled_dot", {"window": 2}),
    "location": ("location", {"max_length": S}),
}


@pytest.mark.parametrize("case", GRADIENTS)
def test_gradients(case):
    """Against finite differences of the loops above in float64, along a random direction."""
    score, options = GRADIENTS[case]
    layer, to_keys, query, _, memory, coverage = made(score, MASK, **options)
    used = coverage if layer.coverage else None
    pull = np.random.default_rng(5).normal(size=(B, T, memory.shape[-1]))
    variables = [*to_keys.trainable_variables, *layer.trainable_variables]
    given = [tf.constant(query), tf.constant(memory)]
    with tf.GradientTape() as tape:
        tape.watch(given)
        keys = to_keys(given[1], mask=MASK)
        context, _ = layer(given[0], keys, given[1], mask=MASK, coverage=used, training=True)
        loss = tf.reduce_sum(context * tf.constant(pull, "float32"))
    gradients = tape.gradient(loss, [*given, *[v.value for v in variables]])
    assert all(np.all(np.isfinite(g)) for g in gradients)
    rng, before = np.random.default_rng(6), [v.numpy().astype("float64") for v in variables]
    for i, gradient in enumerate(gradients):
        way = rng.normal(size=gradient.shape)
        values = []
        for sign in (1, -1):
            moved = [query.astype("float64"), memory.astype("float64"), *before]
            moved[i] = moved[i] + sign * 1e-5 * way
            place = Weights(layer, to_keys, moved[2:])
            found, _ = by_hand(place, place.keys, moved[0], moved[1], MASK, used)
            values.append(np.sum(found * pull))
        expected = (values[0] - values[1]) / 2e-5
        size = np.sqrt(np.sum(np.square(gradient)) * np.sum(np.square(way)))
        assert abs(np.sum(gradient * way) - expected) < 1e-4 * size + 1e-6, variables[i - 2].path


class Weights:
    """Stands in for the two layers in `by_hand`, with float64 weights."""

    def __init__(self, layer, to_keys, values):
        self.score, self.window, self.predictive = layer.score, layer.window, layer.predictive
        count = len(to_keys.weights)
        self.weights = [
            Named(w.path, value) for w, value in zip(layer.weights, values[count:], strict=True)
        ]
        self.keys = type("Keys", (), {"get_weights": lambda _: values[:count]})()


class Named(np.ndarray):
    """An array with the path of a weight."""

    def __new__(cls, path, value):
        made = np.asarray(value).view(cls)
        made.path = path
        return made


def test_gradient_is_zero_without_a_real_step():
    layer, _, query, keys, memory, _ = made("bahdanau", MASK)
    q = tf.constant(query)
    for training in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(q)
            context, weights = layer(q, keys, memory, mask=MASK, training=training)
            loss = tf.reduce_sum(context) + tf.reduce_sum(weights * weights)
        gradient = np.asarray(tape.gradient(loss, q))
        assert np.all(gradient[2] == 0) and np.any(gradient[0] != 0)


def test_keys_are_computed_once_for_a_source():
    assert AlignmentKeys.once == ("output",)
    keys = AlignmentKeys(U, score="dot")
    assert keys(np.ones((1, 2, 3))).shape == (1, 2, 3) and not keys.weights
    assert AlignmentKeys(U).compute_output_shape((None, None, 3)) == (None, None, U)


@pytest.mark.parametrize("options", [{}, {"score": "location", "max_length": 9}])
def test_save_and_load(options, tmp_path):
    query, memory, _ = arrays("bahdanau")
    inputs = [keras.Input((None, D)), keras.Input((None, M)), keras.Input((None,), dtype="bool")]
    keys = AlignmentKeys(U, score=options.get("score", "bahdanau"))(inputs[1], mask=inputs[2])
    model = keras.Model(inputs, Alignment(**options)(inputs[0], keys, inputs[1], mask=inputs[2]))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for first, second in zip(
        model([query, memory, MASK]), again([query, memory, MASK]), strict=True
    ):
        assert_allclose(first, second, atol=1e-7)
    assert again.layers[-1].get_config() == model.layers[-1].get_config()


def test_what_is_refused():
    with pytest.raises(ValueError, match="score is 'cosine': give one of bahdanau, dot"):
        Alignment("cosine")
    with pytest.raises(ValueError, match="score is 'cosine'"):
        AlignmentKeys(4, score="cosine")
    with pytest.raises(ValueError, match="units is 0"):
        AlignmentKeys(0)
    with pytest.raises(ValueError, match="window is 0"):
        Alignment(window=0)
    with pytest.raises(ValueError, match="predictive says where a window is"):
        Alignment(predictive=True)
    with pytest.raises(ValueError, match="'dot' has no place for coverage"):
        Alignment("dot", coverage=True)
    with pytest.raises(ValueError, match="5 features, the key 7: take the score 'luong_general'"):
        Alignment("dot").build((B, T, 5), (B, S, 7), (B, S, 7))
    with pytest.raises(ValueError, match="give AlignmentKeys 5 units"):
        Alignment("luong_general").build((B, T, 5), (B, S, 7), (B, S, 7))


def test_coverage_loss_by_hand():
    weights = np.array(
        [[[0.5, 0.5, 0.0], [0.2, 0.0, 0.8], [0.4, 0.4, 0.2]], [[1, 0, 0], [1, 0, 0], [1, 0, 0]]]
    )
    # row 0: 0; min(.2, .5) = 0.2; min(.4, .7) + min(.4, .5) + min(.2, .8) = 1.0. Row 1: 0, 1, 1
    assert float(coverage_loss(weights)) == pytest.approx(3.2 / 6)
    mask = np.array([[True, True, False], [True, True, True]])
    assert float(coverage_loss(weights, mask)) == pytest.approx(2.2 / 5)
    assert float(coverage_loss(weights, np.zeros((2, 3), bool))) == 0
