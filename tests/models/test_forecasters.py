"""Every forecaster by its promises, and each against NumPy where that is short."""

from __future__ import annotations

import importlib
import inspect

import keras
import numpy as np
import pytest
from keras import ops

from keras_seq.errors import UserError
from keras_seq.layers.patches import Patches
from keras_seq.layers.reversible_normalization import (
    ReverseNormalization,
    ReversibleNormalization,
)

# name, options: the defaults, and each other form.
CASES = [
    ("linear", {}),
    ("linear", {"individual": True}),
    ("linear", {"form": "dlinear", "window": 5}),
    ("cycle", {"width": 8}),
    ("cycle", {"backbone": "linear"}),
    ("segment_rnn", {"width": 8, "segment_length": 8}),
    ("segment_rnn", {"width": 8, "segment_length": 8, "anchor": True}),
    ("nhits", {"width": 8}),
    ("tsmixer", {"width": 8}),
    ("tsmixer", {"width": 8, "norm": "layer"}),
    ("patch_transformer", {"width": 8, "heads": 2}),
    ("inverted_transformer", {"width": 8, "heads": 2}),
]
IDS = ["-".join([name, *map(str, options.values())]) for name, options in CASES]
LOOKBACK, HORIZON, CHANNELS, PERIOD = 24, 10, 3, 6


def forecaster(name):
    return getattr(importlib.import_module(f"keras_seq.models.{name}"), name)


def make(
    name,
    options=None,
    *,
    lookback=LOOKBACK,
    horizon=HORIZON,
    channels=CHANNELS,
    outputs=1,
    masked=False,
    normalize=False,
    batch=None,
    random=True,
):
    """A model with dict inputs, all weights drawn anew so that nothing is zero."""
    function = forecaster(name)
    x = keras.Input((lookback, channels), name="series", batch_size=batch)
    inputs = {"series": x}
    context = dict(options or {})
    if "time_index" in inspect.signature(function).parameters:
        inputs["time_index"] = keras.Input((), name="time_index", dtype="int32", batch_size=batch)
        context |= {"period": PERIOD, "time_index": inputs["time_index"]}
    if masked:
        inputs["mask"] = keras.Input((lookback,), name="mask", dtype="bool", batch_size=batch)
        context["mask"] = inputs["mask"]
    if normalize:
        x, location, scale = ReversibleNormalization(name="normalize")(x, mask=inputs.get("mask"))
    y = function(x, horizon=horizon, outputs=outputs, **context)
    if normalize:
        y = ReverseNormalization(name="denormalize")(y, location, scale)
    model = keras.Model(inputs, {"forecast": y})
    if random:
        model.set_weights([0.3 * np.random.normal(size=w.shape) for w in model.get_weights()])
    return model


def data(model, batch=4, seed=1):
    generator = np.random.default_rng(seed)
    found = {}
    for name, tensor in model.input.items():
        shape = (batch, *tensor.shape[1:])
        if name == "series":
            found[name] = generator.normal(size=shape).astype("float32")
        elif name == "mask":
            found[name] = np.ones(shape, bool)
        else:
            found[name] = generator.integers(0, 1000, shape).astype("int32")
    return found


def run(model, values):
    return np.asarray(model(values)["forecast"])


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_shapes_options_and_tags(name, options):
    function = forecaster(name)
    assert {"forecaster", "needs_fixed_length"} <= function.tags
    parameters = list(inspect.signature(function).parameters.values())
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[1:])
    model = make(name, options, outputs=3)
    assert model.output["forecast"].shape == (None, HORIZON, CHANNELS, 3)
    assert run(model, data(model)).shape == (4, HORIZON, CHANNELS, 3)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
@pytest.mark.parametrize(("lookback", "horizon"), [(2, 1), (2, 9), (7, 3), (53, 31), (17, 49)])
def test_every_lookback_and_horizon(name, options, lookback, horizon):
    model = make(name, options, lookback=lookback, horizon=horizon, channels=1)
    assert run(model, data(model, batch=2)).shape == (2, horizon, 1, 1)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_channels_that_claim_it_are_independent(name, options):
    model = make(name, options)
    values = data(model)
    before = run(model, values)
    values["series"][:, :, 1] += 1.0
    change = np.abs(run(model, values) - before).max(axis=(0, 1, 3))
    assert change[1] > 1e-3
    if "channel_independent" in forecaster(name).tags:
        assert change[0] == change[2] == 0
    else:
        assert min(change[0], change[2]) > 1e-5


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_masked_values_change_nothing(name, options):
    model = make(name, options, masked=True, normalize=True)
    values = data(model)
    values["mask"][0, :7] = values["mask"][1, -5:] = values["mask"][2, 11:14] = False
    before = run(model, values)
    for junk in (1000.0, np.nan):
        values["series"][~values["mask"]] = junk
        np.testing.assert_array_equal(run(model, values), before)
    # All steps real is the same as no mask.
    full = data(model)
    plain = make(name, options, normalize=True)
    plain.set_weights(model.get_weights())
    unmasked = {key: full[key] for key in plain.input}
    np.testing.assert_allclose(run(model, full), run(plain, unmasked), atol=2e-5)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_scale_and_level_go_through(name, options):
    model = make(name, options, normalize=True)
    values = data(model)
    before = run(model, values)
    moved = {**values, "series": 8.0 * values["series"] + 100.0}
    np.testing.assert_allclose(run(model, moved), 8.0 * before + 100.0, rtol=1e-5, atol=2e-3)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_file_gives_the_same_numbers(name, options, tmp_path):
    model = make(name, options, masked=True, normalize=True, outputs=2)
    values = data(model)
    values["mask"][0, :7] = False
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(run(again, values), run(model, values))


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_learns_a_sine(name, options):
    model = make(name, options, normalize=True, random=False, channels=2)
    steps = np.arange(400)
    waves = np.stack([np.sin(2 * np.pi * steps / PERIOD), np.cos(steps / 5)], -1)
    start = np.arange(200)
    windows = np.stack([waves[i : i + LOOKBACK + HORIZON] for i in start]).astype("float32")
    values = {"series": windows[:, :LOOKBACK], "time_index": start.astype("int32")}
    x = {key: values[key] for key in model.input}
    y = {"forecast": windows[:, LOOKBACK:, :, None]}
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    before = np.mean((run(model, x) - y["forecast"]) ** 2)
    model.fit(x, y, batch_size=50, epochs=2, verbose=0, shuffle=False)
    assert np.mean((run(model, x) - y["forecast"]) ** 2) < 0.9 * before


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES} - {"linear"}))
def test_width_sizes_the_model(name):
    counts = [make(name, {"width": w}, random=False).count_params() for w in (8, 16, 32)]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES}))
def test_mixed_precision_is_finite(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        options = {} if name == "linear" else {"width": 8}
        model = make(name, options, normalize=True)
    finally:
        keras.config.set_dtype_policy("float32")
    got = model(data(model))["forecast"]
    assert keras.backend.standardize_dtype(got.dtype) == "float32"
    assert np.all(np.isfinite(got))


# --- against NumPy ---------------------------------------------------------------------------


def test_nlinear_equals_numpy():
    model = make("linear", {}, outputs=2)
    x = data(model)["series"]
    kernel, bias = model.get_layer("time").get_weights()  # (L, H * Q)
    last = x[:, -1:]
    wanted = np.einsum("blc,lh->bch", x - last, kernel) + bias
    wanted = wanted.reshape(4, CHANNELS, HORIZON, 2).transpose(0, 2, 1, 3) + last[..., None]
    np.testing.assert_allclose(run(model, {"series": x}), wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["linear", "nhits"])
def test_untrained_forecast_is_the_last_value(name):
    model = make(name, {}, random=False)
    x = data(model)["series"]
    got = run(model, {"series": x})
    np.testing.assert_allclose(got[..., 0], np.repeat(x[:, -1:], HORIZON, axis=1), atol=1e-6)


def test_individual_linear_equals_numpy():
    model = make("linear", {"individual": True})
    x = data(model)["series"]
    kernel, bias = model.get_layer("time").get_weights()
    wanted = np.einsum("blc,clh->bhc", x - x[:, -1:], kernel) + bias.T + x[:, -1:]
    np.testing.assert_allclose(run(model, {"series": x})[..., 0], wanted, atol=1e-5)


def test_dlinear_equals_numpy():
    model = make("linear", {"form": "dlinear", "window": 5})
    x = data(model)["series"]
    padded = np.pad(x, ((0, 0), (2, 2), (0, 0)), mode="edge")
    trend = np.stack([padded[:, i : i + 5].mean(1) for i in range(LOOKBACK)], axis=1)
    wanted = 0
    for part, layer in ((x - trend, "seasonal"), (trend, "trend")):
        kernel, bias = model.get_layer(layer).get_weights()
        wanted = wanted + np.einsum("blc,lh->bhc", part, kernel) + bias[:, None]
    np.testing.assert_allclose(run(model, {"series": x})[..., 0], wanted, atol=1e-5)


def test_cycle_equals_numpy():
    model = make("cycle", {"width": 8})
    values = data(model)
    (table,) = model.get_layer("cycle").get_weights()
    at = values["time_index"][:, None] + np.arange(LOOKBACK + HORIZON)
    pattern = table[at % PERIOD]  # (B, L + H, C)
    h = (values["series"] - pattern[:, :LOOKBACK]).transpose(0, 2, 1)
    kernel, bias = model.get_layer("hidden_0").get_weights()
    h = np.maximum(h @ kernel + bias, 0)
    kernel, bias = model.get_layer("time").get_weights()
    wanted = (h @ kernel + bias).transpose(0, 2, 1) + pattern[:, LOOKBACK:]
    np.testing.assert_allclose(run(model, values)[..., 0], wanted, atol=1e-5)


def numpy_gru(x, h, kernel, recurrent, bias):
    """One step of a GRU with the reset gate behind the product, gates in Keras's order z, r, h."""
    size = h.shape[-1]
    a, b = x @ kernel + bias[0], h @ recurrent + bias[1]
    z = 1 / (1 + np.exp(-(a + b)[:, :size]))
    r = 1 / (1 + np.exp(-(a + b)[:, size : 2 * size]))
    new = np.tanh(a[:, 2 * size :] + r * b[:, 2 * size :])
    return z * h + (1 - z) * new


def test_segment_rnn_equals_numpy():
    width, outputs = 6, 2
    model = make(
        "segment_rnn", {"width": width, "segment_length": 7, "anchor": True}, outputs=outputs
    )
    x = data(model)["series"]
    # 24 steps in 4 segments of 6; 10 steps ahead in 2 segments of 5.
    last = x[:, -1:]
    rows = (x - last).transpose(0, 2, 1).reshape(-1, 4, 6)
    kernel, bias = model.get_layer("embedding").get_weights()
    tokens = np.maximum(rows @ kernel + bias, 0)
    gru = model.get_layer("gru").get_weights()
    h = np.zeros((len(rows), width))
    for i in range(4):
        h = numpy_gru(tokens[:, i], h, *gru)
    position, channel = model.get_layer("queries").get_weights()
    kernel, bias = model.get_layer("segment").get_weights()
    wanted = np.zeros((4, HORIZON, CHANNELS, outputs))
    for row in range(len(rows)):
        b, c = divmod(row, CHANNELS)
        for m in range(2):
            query = np.concatenate([position[m], channel[c]])[None]
            y = numpy_gru(query, h[row : row + 1], *gru) @ kernel + bias
            wanted[b, m * 5 : m * 5 + 5, c] = y.reshape(5, outputs)
    np.testing.assert_allclose(run(model, {"series": x}), wanted + last[..., None], atol=1e-5)


def test_nhits_equals_numpy():
    rates = (4, 1)
    model = make("nhits", {"width": 8, "depth": 1, "rates": rates})
    x = data(model)["series"]
    last = x[:, -1:]
    residual = (x - last).transpose(0, 2, 1).reshape(-1, LOOKBACK)
    total = np.zeros((len(residual), HORIZON))

    def dense(name, h):
        kernel, bias = model.get_layer(name).get_weights()
        return h @ kernel + bias

    def lines(knots, length):
        at = np.linspace(0, knots.shape[1] - 1, length)
        return np.stack([np.interp(at, np.arange(knots.shape[1]), row) for row in knots])

    for i, rate in enumerate(rates):
        h = residual.reshape(len(residual), -1, rate).max(-1)
        h = np.maximum(dense(f"block_{i}_hidden_0", h), 0)
        total += lines(dense(f"block_{i}_forecast", h), HORIZON)
        if i == 0:
            residual = residual - lines(dense(f"block_{i}_backcast", h), LOOKBACK)
    wanted = total.reshape(-1, CHANNELS, HORIZON).transpose(0, 2, 1) + last
    np.testing.assert_allclose(run(model, {"series": x})[..., 0], wanted, atol=1e-5)


def test_tsmixer_equals_numpy():
    model = make("tsmixer", {"width": 8, "depth": 1})
    x = data(model)["series"]

    def perceptron(name, h):
        for part, activate in (("hidden", True), ("out", False)):
            kernel, bias = model.get_layer(f"{name}_{part}").get_weights()
            h = h @ kernel + bias
            h = np.maximum(h, 0) if activate else h
        return h

    h = x.transpose(0, 2, 1)
    h = h + perceptron("time_0", h)
    h = h + perceptron("channel_0", h.transpose(0, 2, 1)).transpose(0, 2, 1)
    kernel, bias = model.get_layer("time").get_weights()
    wanted = (h @ kernel + bias).transpose(0, 2, 1)
    np.testing.assert_allclose(run(model, {"series": x})[..., 0], wanted, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "tokens"),
    # 24 steps in patches of 16 by 8, and one for the padded end; one token for each channel.
    [("patch_transformer", 3), ("inverted_transformer", CHANNELS)],
)
def test_attention_weights_can_be_fetched(name, tokens):
    model = make(name, {"width": 8, "heads": 2})
    layers = [layer for layer in model.layers if layer.name.startswith("attention")]
    assert len(layers) == 2
    _, weights = keras.Model(model.input, layers[0].output)(data(model))
    assert weights.shape[1:] == (2, tokens, tokens)
    np.testing.assert_allclose(ops.sum(weights, axis=-1), 1.0, atol=1e-5)


def test_inverted_transformer_does_not_care_about_the_order_of_channels():
    model = make("inverted_transformer", {"width": 8, "heads": 2})
    x = data(model)["series"]
    order = [2, 0, 1]
    got = run(model, {"series": x[:, :, order]})
    np.testing.assert_allclose(got, run(model, {"series": x})[:, :, order], atol=1e-5)


def test_patch_transformer_sees_the_newest_step():
    model = make("patch_transformer", {"width": 8, "heads": 2}, lookback=19)
    assert isinstance(model.get_layer("patches"), Patches)
    values = data(model)
    before = run(model, values)
    values["series"][:, -1] += 1.0
    assert np.abs(run(model, values) - before).max() > 1e-3


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES}))
def test_a_forecaster_refuses_what_it_cannot_do(name):
    function = forecaster(name)
    with pytest.raises(ValueError, match="fixed lookback"):
        function(keras.Input((None, 3)), horizon=4)
    with pytest.raises(ValueError, match="lookback is 1"):
        function(keras.Input((1, 3)), horizon=4)
    with pytest.raises(ValueError, match="horizon is 0"):
        function(keras.Input((8, 3)), horizon=0)


def test_wrong_options():
    x = keras.Input((24, 3))
    with pytest.raises(UserError, match="no period"):
        forecaster("cycle")(x, horizon=4)
    with pytest.raises(ValueError, match="backbone is 'gru'"):
        forecaster("cycle")(x, horizon=4, backbone="gru")
    with pytest.raises(ValueError, match="form is 'x'"):
        forecaster("linear")(x, horizon=4, form="x")
    with pytest.raises(ValueError, match="norm is 'x'"):
        forecaster("tsmixer")(x, horizon=4, norm="x")
    with pytest.raises(ValueError, match="multiple of heads"):
        forecaster("patch_transformer")(x, horizon=4, width=10)
    with pytest.raises(ValueError, match="multiple of heads"):
        forecaster("inverted_transformer")(x, horizon=4, width=10)
    with pytest.raises(ValueError, match="segment_length is 0"):
        forecaster("segment_rnn")(x, horizon=4, segment_length=0)
    with pytest.raises(ValueError, match="rates are"):
        forecaster("nhits")(x, horizon=4, rates=())
