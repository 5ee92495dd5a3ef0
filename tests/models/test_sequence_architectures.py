"""The sequence architectures: numbers, masks, causality, options, files, precision."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose

from keras_seq.errors import UserError
from keras_seq.layers import receptive_field
from keras_seq.models.attention_rnn import attention_rnn
from keras_seq.models.cnn import cnn
from keras_seq.models.gru import gru
from keras_seq.models.lstm import lstm
from keras_seq.models.mlp import mlp
from keras_seq.models.rnn import rnn
from keras_seq.models.tcn import tcn
from keras_seq.models.transformer import transformer

B, T, D, W = 3, 10, 3, 8

VARIANTS = {
    "cnn": (cnn, {}),
    "cnn causal": (cnn, {"causal": True, "kernel_size": 4, "residual": False}),
    "cnn bare": (cnn, {"layer_norm": False, "depth": 3, "activation": "gelu"}),
    "tcn": (tcn, {}),
    "tcn shallow": (tcn, {"depth": 1, "kernel_size": 2}),
    "rnn": (rnn, {}),
    "lstm": (lstm, {}),
    "gru": (gru, {}),
    "lstm full": (lstm, {"depth": 2, "bidirectional": True, "residual": True, "layer_norm": True}),
    "gru residual": (gru, {"depth": 2, "residual": True, "dropout": 0.2}),
    "rnn normal": (rnn, {"depth": 2, "layer_norm": True}),
    "attention_rnn": (attention_rnn, {}),
    "attention_rnn causal": (attention_rnn, {"causal": True, "cell": "gru", "depth": 2}),
    "attention_rnn both": (attention_rnn, {"bidirectional": True, "cell": "rnn"}),
    "transformer": (transformer, {}),
    "transformer causal": (transformer, {"causal": True, "positions": "learned", "norm": "post"}),
    "transformer rotary": (transformer, {"positions": "rotary", "glu": True, "heads": 2}),
    "transformer none": (transformer, {"positions": "none", "depth": 1, "activation": "relu"}),
}
CAUSAL = ("causal", "tcn", "rnn", "lstm", "gru", "tcn shallow", "gru residual", "rnn normal")
EVERY = pytest.mark.parametrize("name", VARIANTS)


def is_causal(name):
    return name in CAUSAL or name.endswith("causal")


def make(name, *, steps=None, masked=False, width=W, **more):
    function, options = VARIANTS[name]
    inputs = {"x": keras.Input((steps, D), name="x")}
    if masked:
        inputs["mask"] = keras.Input((steps,), dtype="bool", name="mask")
    output = function(inputs["x"], mask=inputs.get("mask"), width=width, **{**options, **more})
    return keras.Model(inputs, output)


def randomise(model):
    """Values that hide nothing: biases and scales away from 0 and 1."""
    rng = np.random.default_rng(1)
    model.set_weights([w + rng.normal(0, 0.2, w.shape) for w in model.get_weights()])


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(B, T, D)).astype("float32")


@EVERY
def test_open_length_and_shape(name):
    model = make(name)
    assert model.output.shape == (None, None, W)
    for steps in (1, 13):
        assert model({"x": np.zeros((2, steps, D), "float32")}).shape == (2, steps, W)


@EVERY
def test_padded_equals_unpadded_whatever_the_padding_holds(name, x):
    plain, masked = make(name), make(name, masked=True)
    randomise(plain)
    masked.set_weights(plain.get_weights())
    lengths = [T, 6, 1]
    mask = np.arange(T)[None] < np.array(lengths)[:, None]
    results = []
    for value in (0.0, 1e4, np.nan):
        dirty = np.where(mask[..., None], x, value).astype("float32")
        results.append(np.asarray(masked({"x": dirty, "mask": mask})))
    assert_allclose(results[1], results[0], atol=1e-6)
    assert_allclose(results[2], results[0], atol=1e-6)
    for i, length in enumerate(lengths):
        alone = plain({"x": x[i : i + 1, :length]})
        assert_allclose(results[0][i, :length], alone[0], atol=1e-5)
        assert (results[0][i, length:] == 0).all()


@EVERY
def test_gradients_under_a_mask_are_finite_and_reach_every_weight(name, x):
    model = make(name, masked=True, dropout=0.0)
    randomise(model)
    mask = np.array([[1] * T, [1] * 4 + [0] * 6, [0] * T], bool)
    dirty = np.where(mask[..., None], x, np.nan).astype("float32")
    with tf.GradientTape() as tape:
        y = model({"x": dirty, "mask": mask}, training=True)
        loss = tf.reduce_sum(y[..., ::2] ** 2)
    for weight, gradient in zip(
        model.trainable_variables,
        tape.gradient(loss, model.trainable_variables),
        strict=True,
    ):
        assert gradient is not None, weight.path
        assert np.isfinite(gradient).all(), weight.path
        assert np.abs(gradient).max() > 0, weight.path


@EVERY
def test_causality_is_as_declared(name, x):
    model = make(name)
    randomise(model)
    changed = x.copy()
    changed[:, 6:] = 5 * changed[:, 6:] + 1
    before, after = (np.asarray(model({"x": v})) for v in (x, changed))
    difference = np.abs(before - after).max((0, 2))
    assert difference[6:].min() > 1e-4
    if is_causal(name):
        assert difference[:6].max() < 1e-6
    else:
        assert difference[:6].max() > 1e-4


@pytest.mark.parametrize(
    ("function", "tags"),
    [
        (mlp, {"vector", "needs_fixed_length"}),
        (cnn, set()),
        (tcn, {"causal", "streaming"}),
        (rnn, {"causal", "streaming", "recurrent"}),
        (lstm, {"causal", "streaming", "recurrent"}),
        (gru, {"causal", "streaming", "recurrent"}),
        (attention_rnn, {"recurrent", "returns_attention"}),
        (transformer, {"returns_attention"}),
    ],
)
def test_tags_and_signature(function, tags):
    assert function.tags == tags
    first, *rest = inspect.signature(function).parameters.values()
    assert first.name == "x"
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in rest)
    assert [p.name for p in rest][:4] == ["mask", "width", "depth", "dropout"]


@EVERY
def test_parameters_grow_with_the_width(name):
    counts = [make(name, steps=T, width=width).count_params() for width in (8, 16, 24, 32)]
    assert counts == sorted(set(counts))


@EVERY
def test_file_round_trip(name, x, tmp_path):
    model = make(name, masked=True)
    randomise(model)
    mask = np.arange(T)[None] < np.array([[T], [7], [2]])
    expected = model({"x": x, "mask": mask})
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_allclose(loaded({"x": x, "mask": mask}), expected, atol=1e-6)
    assert loaded.to_json() == model.to_json()


@EVERY
@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_low_precision(name, policy, x):
    full = make(name, masked=True, steps=T)
    keras.config.set_dtype_policy(policy)
    try:
        low = make(name, masked=True, steps=T)
    finally:
        keras.config.set_dtype_policy("float32")
    low.set_weights([w.astype(low.layers[-2].variable_dtype) for w in full.get_weights()])
    mask = np.arange(T)[None] < np.array([[T], [7], [0]])
    got, want = (m({"x": x, "mask": mask}) for m in (low, full))
    assert got.dtype == policy.removeprefix("mixed_")
    assert_allclose(np.asarray(got, "float32"), want, atol=0.02 if "_" in policy else 0.1)


@pytest.mark.parametrize(
    "name", ["attention_rnn", "attention_rnn causal", "transformer", "transformer causal"]
)
def test_attention_weights_can_be_fetched(name, x):
    model = make(name, masked=True)
    layers = [layer for layer in model.layers if layer.name.startswith("attention")]
    assert layers
    mask = np.arange(T)[None] < np.array([[T], [7], [2]])
    for layer in layers:
        output, weights = keras.Model(model.input, layer.output)({"x": x, "mask": mask})
        steps = output.shape[1]
        weights = np.asarray(weights).reshape(B, -1, steps, T)
        assert (weights[1, ..., 7:] == 0).all()
        assert_allclose(weights.sum(-1), np.ones(weights.shape[:-1]), atol=1e-5)
        if name.endswith("causal"):
            assert (weights[..., ~np.tril(np.ones((T, T), bool))] == 0).all()


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def numpy_rnn(x, weights):
    kernel, recurrent, bias = weights
    h, states = np.zeros((len(x), W)), []
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ kernel + h @ recurrent + bias)
        states.append(h)
    return np.stack(states, 1)


def numpy_lstm(x, weights):
    kernel, recurrent, bias = weights
    h = c = np.zeros((len(x), W))
    states = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.stack(states, 1)


def numpy_gru(x, weights):
    kernel, recurrent, (bias, recurrent_bias) = weights
    h, states = np.zeros((len(x), W)), []
    for t in range(x.shape[1]):
        xz, xr, xh = np.split(x[:, t] @ kernel + bias, 3, -1)
        hz, hr, hh = np.split(h @ recurrent + recurrent_bias, 3, -1)
        z = sigmoid(xz + hz)
        h = z * h + (1 - z) * np.tanh(xh + sigmoid(xr + hr) * hh)
        states.append(h)
    return np.stack(states, 1)


NUMPY = {"rnn": (rnn, numpy_rnn), "lstm": (lstm, numpy_lstm), "gru": (gru, numpy_gru)}


@pytest.mark.parametrize("name", NUMPY)
def test_recurrences_equal_numpy(name, x):
    function, reference = NUMPY[name]
    inputs = keras.Input((None, D))
    model = keras.Model(inputs, function(inputs, width=W))
    randomise(model)
    assert_allclose(model(x), reference(x, model.get_layer(f"{name}_0").get_weights()), atol=1e-5)


@pytest.mark.parametrize("name", NUMPY)
def test_options_of_the_stack_equal_numpy(name, x):
    function, reference = NUMPY[name]
    inputs = keras.Input((None, D))
    y = function(inputs, width=W, depth=2, residual=True, layer_norm=True, dropout=0.3)
    model = keras.Model(inputs, y)
    randomise(model)
    h = x
    for i in range(2):
        states = reference(h, model.get_layer(f"{name}_{i}").get_weights())
        gamma, beta = model.get_layer(f"norm_{i}").get_weights()
        centred = states - states.mean(-1, keepdims=True)
        normal = centred / np.sqrt(states.var(-1, keepdims=True) + 1e-3) * gamma + beta
        if i == 0:
            kernel, bias = model.get_layer("shortcut_0").get_weights()
            h = h @ kernel + bias
        h = h + normal
    assert_allclose(model(x), h, atol=1e-5)


def test_bidirectional_halves_look_each_way(x):
    inputs = keras.Input((None, D))
    model = keras.Model(inputs, lstm(inputs, width=W, bidirectional=True))
    changed = x.copy()
    changed[:, 5] += 1
    difference = np.abs(np.asarray(model(x)) - np.asarray(model(changed))).max(0)
    assert (difference[:5, : W // 2] == 0).all()
    assert (difference[6:, W // 2 :] == 0).all()
    assert (difference[5:, : W // 2] > 0).any()
    assert (difference[:6, W // 2 :] > 0).any()


def test_keras_layers_stay_in_reach_of_the_exporter():
    """The exporter unrolls Keras's recurrent layers, which it finds in the flat list."""
    kinds = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)
    for name, count in (("lstm full", 4), ("gru residual", 2), ("attention_rnn both", 2)):
        found = [layer for layer in make(name)._flatten_layers() if isinstance(layer, kinds)]
        assert len(found) == count


def test_tcn_sees_its_receptive_field():
    for depth, kernel_size in ((1, 3), (3, 2)):
        field = receptive_field(depth=depth, kernel_size=kernel_size)
        inputs = keras.Input((None, D))
        model = keras.Model(
            inputs, tcn(inputs, width=16, depth=depth, kernel_size=kernel_size, activation="tanh")
        )
        x = np.random.default_rng(0).normal(size=(1, field + 3, D)).astype("float32")
        rows = np.repeat(x, field + 4, 0)
        rows[np.arange(field + 3), np.arange(field + 3)] += 2  # the last row stays as it is
        last = np.asarray(model(rows))[:, -1]
        assert (np.abs(last[:-1] - last[-1]).max(-1) > 1e-6).sum() == field


def test_causal_cnn_sees_what_its_docstring_says(x):
    inputs = keras.Input((None, D))
    model = keras.Model(inputs, cnn(inputs, width=W, depth=2, kernel_size=3, causal=True))
    changed = x.copy()
    changed[:, 2] += 1
    difference = np.abs(np.asarray(model(x)) - np.asarray(model(changed))).max((0, 2))
    assert np.flatnonzero(difference > 1e-6).tolist() == [2, 3, 4, 5, 6]


def test_positions_tell_the_steps_apart():
    """Equal steps have equal states without positions, and differ with each kind but rotary."""
    x = np.ones((1, T, D), "float32")
    spread = {}
    for positions in ("none", "rotary", "sinusoidal", "learned"):
        inputs = keras.Input((T, D))
        model = keras.Model(inputs, transformer(inputs, width=W, heads=2, positions=positions))
        spread[positions] = np.ptp(np.asarray(model(x)), axis=1).max()
    assert spread["none"] < 1e-5
    assert spread["rotary"] < 1e-5  # averages of equal values, whatever the weights
    assert spread["sinusoidal"] > 0.1
    assert spread["learned"] > 1e-3


def test_mlp_equals_numpy(x):
    inputs = keras.Input((T, D))
    model = keras.Model(inputs, mlp(inputs, width=W, depth=2, residual=True, layer_norm=True))
    randomise(model)
    h = x.reshape(B, -1)
    for i in range(2):
        kernel, bias = model.get_layer(f"dense_{i}").get_weights()
        gamma, beta = model.get_layer(f"norm_{i}").get_weights()
        y = h @ kernel + bias
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-3)
        y = np.maximum(y * gamma + beta, 0)
        h = h + y if i else y
    assert_allclose(model(x), h, atol=1e-5)


def test_mlp_under_a_mask(x):
    inputs = keras.Input((T, D)), keras.Input((T,), dtype="bool")
    model = keras.Model(inputs, mlp(inputs[0], mask=inputs[1], width=W))
    mask = np.arange(T)[None] < np.array([[T], [7], [0]])
    dirty = np.where(mask[..., None], x, np.nan).astype("float32")
    clean = np.where(mask[..., None], x, 0).astype("float32")
    assert_allclose(model([dirty, mask]), model([clean, mask]))


def test_mlp_needs_a_length():
    with pytest.raises(UserError, match="mlp needs a fixed number of time steps"):
        mlp(keras.Input((None, D)))


@pytest.mark.parametrize(
    ("function", "options", "words"),
    [
        (transformer, {"width": 30}, "30 is not divisible by 4 heads: take width 28 or 32"),
        (
            transformer,
            {"width": 12, "positions": "rotary"},
            "4 heads of even width: take width 8 or 16",
        ),
        (transformer, {"norm": "none"}, "norm is 'none': give one of pre, post"),
        (transformer, {"positions": "alibi"}, "positions is 'alibi': give one of sinusoidal"),
        (attention_rnn, {"cell": "qrnn"}, "cell is 'qrnn': give one of rnn, lstm, gru"),
        (attention_rnn, {"causal": True, "bidirectional": True}, "contradict each other"),
        (lstm, {"depth": 0}, "depth is 0: give a whole number of at least 1"),
        (tcn, {"kernel_size": 2.5}, "kernel_size is 2.5"),
        (cnn, {"dropout": 1.0}, "dropout is 1.0: give a share from 0 to below 1"),
        (gru, {"width": 9, "bidirectional": True}, "width 9 is odd"),
    ],
)
def test_bad_options_say_what_to_do(function, options, words):
    with pytest.raises(UserError if function is not gru else ValueError, match=words):
        function(keras.Input((T, D)), **options)


def test_a_misspelt_option_is_a_type_error():
    with pytest.raises(TypeError, match="widht"):
        lstm(keras.Input((T, D)), widht=3)


@pytest.mark.parametrize("name", ["tcn", "attention_rnn", "transformer"])
def test_learns_to_remember(name):
    """The first step's value is to be known at the last one."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 6, D)).astype("float32")
    model = make(name, steps=6, width=16, dropout=0.0)
    y = keras.layers.Dense(1)(model.output[:, -1])
    model = keras.Model(model.inputs, y)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    history = model.fit(x, x[:, 0, :1], batch_size=64, epochs=15, verbose=0).history["loss"]
    assert history[-1] < 0.4 * history[0]
