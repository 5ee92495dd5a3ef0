"""Heads: what comes out is what the layers inside say, by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_seq
from keras_seq.errors import UserError
from keras_seq.heads import Forecast, Label, Tokens
from keras_seq.layers import CovariateEffect, OrderedQuantiles, Pooling


def wave(batch: int = 2, steps: int = 32, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(batch, steps, channels)).astype("float32")


def test_point_forecast_by_hand():
    """GRU on patches of each channel: the same numbers from the layers called one by one."""
    head = Forecast(horizon=5, patch=8)
    model = keras_seq.build("gru", inputs=(32, 3), head=head, width=8)
    x = wave()
    mean, std = x.mean(1, keepdims=True), x.std(1, keepdims=True)
    normal = (x - mean) / std
    patches = normal.transpose(0, 2, 1).reshape(6, 4, 8)
    recurrent = next(layer for layer in model.layers if isinstance(layer, keras.layers.GRU))
    states = np.asarray(recurrent(patches))
    last = states[:, -1] if states.ndim == 3 else states
    kernel, bias = model.get_layer("horizon").get_weights()
    expected = (last @ kernel + bias).reshape(2, 3, 5).transpose(0, 2, 1) * std + mean
    np.testing.assert_allclose(model({"series": x})["forecast"], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["linear", "gru", "mlp", "cnn", "nhits"])
def test_forecasts_follow_level_and_scale(name):
    """Reversible normalisation: a window moved and stretched gives its forecast likewise."""
    model = keras_seq.build(name, inputs=(32, 2), head=Forecast(horizon=4))
    x = wave(channels=2)
    plain = np.asarray(model({"series": x})["forecast"])
    moved = np.asarray(model({"series": 100 + 7 * x})["forecast"])
    np.testing.assert_allclose(moved, 100 + 7 * plain, rtol=1e-4, atol=1e-3)


def test_channels_are_independent_only_where_said():
    x, other = wave(), wave()
    other[:, :, 2] += np.linspace(0, 3, 32)
    for independent in (True, False):
        keras.utils.set_random_seed(0)
        head = Forecast(horizon=4, channel_independent=independent)
        model = keras_seq.build("lstm", inputs=(32, 3), head=head, width=8)
        before, after = (np.asarray(model({"series": v})["forecast"])[:, :, :2] for v in (x, other))
        assert np.allclose(before, after, atol=1e-6) == independent


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-50, 50, width=32), min_size=5, max_size=5))
def test_quantiles_never_cross(numbers):
    layer = OrderedQuantiles((0.05, 0.2, 0.5, 0.8, 0.95))
    out = np.asarray(layer(np.array([numbers], "float32")))[0]
    assert (np.diff(out) >= 0).all()
    assert out[2] == np.float32(numbers[2])


def test_quantile_head_has_the_median_as_forecast():
    head = Forecast(horizon=3, quantiles=(0.1, 0.9))
    model = keras_seq.build("linear", inputs=(16, 2), head=head)
    out = model({"series": wave(steps=16, channels=2)})
    assert head.levels == (0.1, 0.5, 0.9)
    assert out["quantiles"].shape == (2, 3, 2, 3)
    np.testing.assert_array_equal(out["forecast"], out["quantiles"][..., 1])
    assert (np.diff(np.asarray(out["quantiles"])) >= 0).all()


def test_covariates_begin_without_effect_and_learn_it():
    """A series that is nothing but twice its covariate is learnt from the covariate."""
    generator = np.random.default_rng(1)
    known = generator.normal(size=(256, 20, 1)).astype("float32")
    x, y = 2 * known[:, :16], 2 * known[:, 16:]
    keras.utils.set_random_seed(0)
    head = Forecast(horizon=4, normalize=None)
    inputs = {"series": (16, 1), "covariates": (20, 1)}
    model = keras_seq.build("linear", inputs=inputs, head=head)
    with_zero = np.asarray(model({"series": x, "covariates": 0 * known})["forecast"])
    np.testing.assert_array_equal(model({"series": x, "covariates": known})["forecast"], with_zero)
    keras_seq.fit(
        model, ({"series": x, "covariates": known}, {"forecast": y}), loss={"forecast": "mse"},
        epochs=40, batch_size=32, learning_rate=0.02,
    )  # fmt: skip
    error = np.mean((np.asarray(model({"series": x, "covariates": known})["forecast"]) - y) ** 2)
    assert error < 0.02 * np.mean(y**2)


def test_covariate_effect_by_hand():
    layer = CovariateEffect(2, width=3)
    x = wave(channels=4)
    layer(x)
    weights = [np.random.default_rng(i).normal(size=w.shape) for i, w in enumerate(layer.weights)]
    layer.set_weights(weights)
    hidden, bias, effect, linear = weights
    z = x @ hidden + bias
    gelu = 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
    np.testing.assert_allclose(layer(x), gelu @ effect + x @ linear, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("period", "lookback", "patch"), [(24, 336, 24), (52, 104, 6), (144, 720, 48), (None, 10, 1)]
)
def test_patch_lengths(period, lookback, patch):
    assert Forecast(horizon=1, period=period).patch_length(lookback) == patch


def test_label_head_by_hand():
    model = keras_seq.build("mlp", inputs={"features": (6, 2)}, head=Label(classes=3), width=8)
    assert model.output["logits"].shape == (None, 3)
    real = keras.Input((None,), name="mask", dtype="bool")
    inputs = {"features": (None, 2), "mask": real}
    model = keras_seq.build("gru", inputs=inputs, head=Label(classes=3), width=8)
    x = wave(channels=2)
    mask = np.arange(32)[None] < np.array([[20], [32]])
    whole = np.asarray(model({"features": x, "mask": mask})["logits"])
    short = np.asarray(model({"features": x[:1, :20], "mask": mask[:1, :20]})["logits"])
    np.testing.assert_allclose(whole[:1], short, atol=1e-5)


TOKENS = np.array([[5, 6, 7, 0, 0], [8, 9, 10, 11, 12]], "int32")


def classifier(name, pooling=None, classes=3, **options):
    head = Label(classes=classes, pooling=pooling, tokens=Tokens(20, width=6))
    return keras_seq.build(name, inputs={"tokens": (None,)}, head=head, **options)


def states(model, name):
    """The states that come out of the last layer of that name, with the real steps."""
    found = keras.Model(model.input, model.get_layer(name).output)
    return np.asarray(found({"tokens": TOKENS})), TOKENS > 0


def test_tokens_are_embedded_and_their_padding_masked():
    model = classifier("gru", "mean", width=4)
    table = np.asarray(model.get_layer("embedding").embeddings)
    h, real = np.asarray(model.get_layer("gru_0")(table[TOKENS], mask=TOKENS > 0)), TOKENS > 0
    mean = (h * real[..., None]).sum(1) / real.sum(1, keepdims=True)
    kernel, bias = model.get_layer("logits").get_weights()
    np.testing.assert_allclose(model({"tokens": TOKENS})["logits"], mean @ kernel + bias, atol=1e-5)


def test_joined_poolings_by_hand():
    model = classifier("gru", "max+last+first", width=4)
    h, _ = states(model, "zero_padding")
    parts = [
        np.stack([h[0, :3].max(0), h[1].max(0)]),
        np.stack([h[0, 2], h[1, 4]]),
        h[:, 0],
    ]
    kernel, bias = model.get_layer("logits").get_weights()
    wanted = np.concatenate(parts, 1) @ kernel + bias
    np.testing.assert_allclose(model({"tokens": TOKENS})["logits"], wanted, atol=1e-5)


def test_poolings_that_are_taken_where_none_is_asked_for():
    def names(name, **options):
        found = classifier(name, **options).layers
        return [getattr(x, "method", "") for x in found if isinstance(x, Pooling)]

    assert names("lstm") == names("gru", bidirectional=True) == ["mean", "max"]
    assert names("tcn") == names("transformer", causal=True) == ["last"]
    assert names("transformer") == ["mean"]
    assert names("text_cnn") == names("fasttext", buckets=10) == []


@pytest.mark.parametrize("name", ["transformer", "attention_rnn", "rcnn"])
def test_class_token_reads_the_whole_sequence(name):
    model = classifier(name, "class_token", width=8)
    changed = TOKENS.copy()
    changed[0, 2] = 13
    before, after = (np.asarray(model({"tokens": t})["logits"]) for t in (TOKENS, changed))
    assert np.abs(before - after)[0].max() > 1e-5
    np.testing.assert_allclose(before[1], after[1], atol=1e-6)
    longer = np.pad(TOKENS, [(0, 0), (0, 4)])
    np.testing.assert_allclose(model({"tokens": longer})["logits"], before, atol=1e-5)


def test_class_token_without_a_mask():
    head = Label(classes=2, pooling="class_token")
    model = keras_seq.build("transformer", inputs={"features": (None, 3)}, head=head, width=8)
    assert model({"features": wave()}, training=False)["logits"].shape == (2, 2)


def test_class_token_of_an_architecture_that_reads_ids_is_the_start_token():
    def reader(x, *, mask=None, vocabulary):
        return keras.layers.Embedding(vocabulary, 3, name="own")(x)

    model = classifier(reader, "class_token")
    start = np.asarray(model.get_layer("own").embeddings)[2]
    kernel, bias = model.get_layer("logits").get_weights()
    wanted = np.tile(start @ kernel + bias, (2, 1))
    np.testing.assert_allclose(model({"tokens": TOKENS})["logits"], wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "tcn"])
def test_class_token_is_refused_where_the_first_step_sees_nothing(name):
    with pytest.raises(UserError, match=f"{name} is causal: a class token"):
        classifier(name, "class_token")


def test_class_token_of_a_vector_changes_nothing():
    assert "class_token" not in [
        layer.name for layer in classifier("text_cnn", "class_token").layers
    ]


@pytest.mark.parametrize("pooling", ["median", "mean+", "mean+mean", "mean+class_token", ""])
def test_unknown_poolings(pooling):
    with pytest.raises(UserError, match="give one of last, first, mean, max, attention"):
        Label(classes=2, pooling=pooling)


def test_token_dropout_in_training_only():
    head = Label(classes=2, tokens=Tokens(20, width=6, token_dropout=0.9, dropout=0.5))
    model = keras_seq.build("gru", inputs={"tokens": (None,)}, head=head, width=4)
    first, second = (np.asarray(model({"tokens": TOKENS})["logits"]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    trained = np.asarray(model({"tokens": TOKENS}, training=True)["logits"])
    assert not np.allclose(trained, first)


def test_ids_need_a_vocabulary():
    with pytest.raises(ValueError, match="give Label\\(tokens=Tokens"):
        keras_seq.build("gru", inputs={"tokens": (None,)}, head=Label(classes=2))
    with pytest.raises(ValueError, match="vocabulary is 1"):
        Tokens(1)
    with pytest.raises(ValueError, match="classes is 0"):
        Label(classes=0)


def test_refusals():
    with pytest.raises(ValueError, match="at least 1"):
        Forecast(horizon=0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Forecast(horizon=1, quantiles=(1.0,))
    with pytest.raises(ValueError, match="forecaster"):
        keras_seq.build("nhits", inputs=(16, 2), head=Label(classes=2))
