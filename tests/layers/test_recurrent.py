"""The fast loops of recurrent layers beside Keras's own: values, gradients, states, weights."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose

from keras_seq import layers
from keras_seq.layers import recurrent

PAIRS = {
    "lstm": (layers.LSTM, keras.layers.LSTM, 2),
    "gru": (layers.GRU, keras.layers.GRU, 1),
    "rnn": (layers.SimpleRNN, keras.layers.SimpleRNN, 1),
}
T, D, W = 7, 3, 4


def pair(kind, **options):
    """Ours and Keras's, of the same weights, none of them zero."""
    ours, theirs, states = PAIRS[kind]
    options = {"bias_initializer": "normal", "return_sequences": True, **options}
    both = ours(W, **options), theirs(W, **options)
    for layer in both:
        layer.build((4 if options.get("stateful") else None, T, D))
    both[1].set_weights(both[0].get_weights())
    return *both, states


def everything(layer, x, states, mask, weights):
    """All outputs and the gradients by input, states and weights of their weighted sum."""
    with tf.GradientTape() as tape:
        tape.watch([x, *states])
        found = layer(x, initial_state=list(states) or None, mask=mask, training=True)
        found = found if isinstance(found, (list, tuple)) else [found]
        total = sum(tf.reduce_sum(y * w) for y, w in zip(found, weights, strict=False))
    by = [x, *states, *[v.value for v in layer.trainable_variables]]
    return [*found, *tape.gradient(total, by)]


def agree(ours, theirs, states, mask=None, examples=5, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: tf.constant(rng.normal(size=shape), tf.float32)  # noqa: E731
    x, states = draw(examples, T, D), [draw(examples, W) for _ in range(states)]
    weights = [draw(examples, T, W), *[draw(examples, W) for _ in range(2)]]
    if not ours.return_sequences:
        weights[0] = draw(examples, W)
    parts = [everything(layer, x, states, mask, weights) for layer in (ours, theirs)]
    for a, b in zip(*parts, strict=True):
        assert_allclose(a, b, atol=1e-5, rtol=1e-5)


MASKS = {
    "none": None,
    "end": np.arange(T) < np.array([7, 4, 0, 1, 5] * 8)[:, None],
    "holes": np.random.default_rng(1).random((40, T)) < 0.6,
}


@pytest.fixture(autouse=True)
def the_fast_loop(monkeypatch):
    """Counts how often the fast loop runs."""
    calls = []
    for name in ("LSTM", "GRU", "SimpleRNN"):
        cls = getattr(recurrent, name)
        plain = cls._loop

        def counted(self, *args, _plain=plain):
            calls.append(type(self).__name__)
            return _plain(self, *args)

        monkeypatch.setattr(cls, "_loop", counted)
    monkeypatch.setattr(recurrent.os, "cpu_count", lambda: 2)
    return calls


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("mask", list(MASKS))
@pytest.mark.parametrize("kind", list(PAIRS))
def test_equals_keras(kind, mask, backwards, the_fast_loop):
    for zeros, examples in itertools.product((False, True), (5, 40)):
        options = {"go_backwards": backwards, "zero_output_for_mask": zeros, "return_state": True}
        given = None if MASKS[mask] is None else tf.constant(MASKS[mask][:examples])
        agree(*pair(kind, **options), mask=given, examples=examples)
    assert len(the_fast_loop) == 2 * (1 + 2)  # 40 examples in two halves


@pytest.mark.parametrize("kind", list(PAIRS))
@pytest.mark.parametrize("use_bias", [False, True])
def test_the_last_output_alone_without_states(kind, use_bias, the_fast_loop):
    ours, theirs, _ = pair(kind, return_sequences=False, use_bias=use_bias)
    agree(ours, theirs, 0, examples=33)
    assert len(the_fast_loop) == 2


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("kind", list(PAIRS))
def test_in_a_graph_with_open_lengths(kind, jit_compile):
    ours, theirs, _ = pair(kind)
    spec = [tf.TensorSpec((None, None, D)), tf.TensorSpec((None, None), tf.bool)]
    found = []
    for layer in (ours, theirs):

        @tf.function(input_signature=spec, jit_compile=jit_compile)
        def gradients(x, mask, layer=layer):
            with tf.GradientTape() as tape:
                y = layer(x, mask=mask, training=True)
                total = tf.reduce_sum(y * tf.cos(tf.cast(tf.range(W), tf.float32)))
            return [y, *tape.gradient(total, [v.value for v in layer.trainable_variables])]

        x = np.random.default_rng(3).normal(size=(40, T, D)).astype("float32")
        found.append([*gradients(x, MASKS["end"]), *gradients(x[:1], MASKS["end"][:1])])
    for a, b in zip(*found, strict=True):
        assert_allclose(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", list(PAIRS))
def test_gradients_by_differences(kind):
    ours, _, _ = pair(kind, dtype="float64")
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3, T, D))
    mask = tf.constant(MASKS["holes"][:3])

    def loss(x):
        return tf.reduce_sum(tf.sin(ours(x, mask=mask, training=True)))

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(x)
    slopes = tape.gradient(value, x)
    for _ in range(5):
        way = tf.constant(rng.normal(size=x.shape))
        by_steps = (loss(x + 1e-5 * way) - loss(x - 1e-5 * way)) / 2e-5
        assert_allclose(by_steps, tf.reduce_sum(slopes * way), rtol=1e-6)


def test_input_dropout_is_that_of_keras(the_fast_loop):
    ours, theirs, _ = pair("lstm", dropout=0.5, seed=7)
    x = np.ones((4, T, D), "float32")
    assert_allclose(ours(x, training=True), theirs(x, training=True), atol=1e-6)
    assert the_fast_loop == ["LSTM"]


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("kind", list(PAIRS))
def test_sixteen_bits(kind, dtype, the_fast_loop):
    ours, theirs, _ = pair(kind, dtype=dtype)
    x = np.random.default_rng(2).normal(size=(4, T, D)).astype("float32")
    found, expected = ours(x, training=True), theirs(x, training=True)
    assert keras.backend.standardize_dtype(found.dtype) == dtype.removeprefix("mixed_")
    assert_allclose(np.asarray(found, "float32"), np.asarray(expected, "float32"), atol=0.03)
    assert the_fast_loop


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("lstm", {"recurrent_dropout": 0.3, "seed": 1}),
        ("lstm", {"activation": "relu"}),
        ("gru", {"reset_after": False}),
        ("gru", {"recurrent_activation": "hard_sigmoid"}),
        ("rnn", {"unroll": True}),
    ],
)
def test_what_is_left_to_keras(kind, options, the_fast_loop):
    ours, theirs, _ = pair(kind, **options)
    x = np.random.default_rng(2).normal(size=(4, T, D)).astype("float32")
    assert_allclose(ours(x, training=True), theirs(x, training=True), atol=1e-6)
    assert_allclose(ours(x), theirs(x), atol=1e-6)
    assert not the_fast_loop


@pytest.mark.parametrize("kind", list(PAIRS))
def test_outside_of_training_it_is_that_of_keras(kind, the_fast_loop):
    ours, theirs, _ = pair(kind)
    x = np.random.default_rng(2).normal(size=(4, T, D)).astype("float32")
    assert_allclose(ours(x), theirs(x), atol=0)
    assert not the_fast_loop


def test_stateful(the_fast_loop):
    ours, theirs, _ = pair("gru", stateful=True)
    x = np.random.default_rng(2).normal(size=(4, T, D)).astype("float32")
    for layer in (ours, theirs):
        layer(np.zeros((4, T, D), "float32"))
        layer.reset_state()
    for _ in range(2):
        assert_allclose(ours(x, training=True), theirs(x, training=True), atol=1e-6)
    assert the_fast_loop == ["GRU"] * 2


@pytest.mark.parametrize("kind", list(PAIRS))
def test_bidirectional_saved_and_loaded(kind, tmp_path, the_fast_loop):
    ours, theirs, _ = PAIRS[kind]
    x = keras.Input((None, D))
    models = []
    for cls, options in ((ours, {"split_batch": False}), (theirs, {})):
        y = keras.layers.Bidirectional(cls(W, return_sequences=True, **options))(x)
        models.append(keras.Model(x, y))
    models[1].set_weights(models[0].get_weights())
    data = np.random.default_rng(2).normal(size=(40, T, D)).astype("float32")
    models[0].save(tmp_path / "a.keras")
    again = keras.saving.load_model(tmp_path / "a.keras")
    assert isinstance(again.layers[-1].backward_layer, ours)
    assert not again.layers[-1].backward_layer.split_batch
    expected = models[1](data, training=True)
    for model in (models[0], again):
        assert_allclose(model(data, training=True), expected, atol=1e-6)
    assert len(the_fast_loop) == 4
