"""The checkers find what they are for: each broken thing below fails its own check."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_seq import testing
from keras_seq.registry import architecture

T = 7
X = np.random.default_rng(0).normal(size=(3, T, 4)).astype("float32")
MASK = np.arange(T) < np.array([[7], [4], [5]])


class Base(keras.layers.Layer):
    """A sound layer: a running mean, masked, without weights."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        real = ops.ones_like(x[..., :1]) if mask is None else ops.cast(mask, x.dtype)[..., None]
        return ops.cumsum(x * real, axis=1) / ops.maximum(ops.cumsum(real, axis=1), 1)

    def compute_output_shape(self, shape):
        return shape


@keras.saving.register_keras_serializable(package="test_testing")
class Sound(Base):
    pass


@keras.saving.register_keras_serializable(package="test_testing")
class ForgetsOption(Base):
    def __init__(self, size: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size

    def get_config(self):
        config = super().get_config()
        config.pop("size", None)
        return config


@keras.saving.register_keras_serializable(package="test_testing")
class IgnoresMask(Base):
    def call(self, x, mask=None):
        return x - ops.mean(x, axis=1, keepdims=True)


@keras.saving.register_keras_serializable(package="test_testing")
class CountsPadding(Base):
    """Hides the values under the mask, yet divides by the padded length."""

    def call(self, x, mask=None):
        if mask is not None:
            x = ops.where(mask[..., None], x, 0.0)
        return ops.sum(x, axis=1) / ops.cast(ops.shape(x)[1], x.dtype)

    def compute_output_shape(self, shape):
        return (shape[0], shape[2])


@keras.saving.register_keras_serializable(package="test_testing")
class LooksAhead(Base):
    def call(self, x, mask=None):
        return x + ops.roll(x, -1, axis=1)


@keras.saving.register_keras_serializable(package="test_testing")
class MixesRows(Base):
    def call(self, x, mask=None):
        return x - ops.mean(x, axis=0, keepdims=True)


@keras.saving.register_keras_serializable(package="test_testing")
class Overflows(Base):
    def call(self, x, mask=None):
        return super().call(x * 1e5, mask=mask) / 1e5


@keras.saving.register_keras_serializable(package="test_testing")
class LosesGradient(Base):
    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="gain")

    def call(self, x, mask=None):
        return super().call(x, mask=mask) * ops.stop_gradient(self.gain)


class Unregistered(Base):
    pass


def run(layer: Any, **arguments: Any) -> testing.Report:
    arguments.setdefault("mask", MASK)
    return testing.check_layer(layer, X, export=False, **arguments)


def test_a_sound_layer_passes_everything():
    report = run(Sound, causal=True)
    assert not report.failures
    assert [result.check for result in report.results] == [
        "config", "save", "eager_equals_graph", "rows", "gradients", "mask_values",
        "mask_padding", "causal", "prefixes", "mixed_float16", "mixed_bfloat16",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "check", "words"),
    [
        (ForgetsOption, "config", "leaves out"),
        (IgnoresMask, "mask_values", "under the mask"),
        (IgnoresMask, "mask_padding", "padding from"),
        (CountsPadding, "mask_padding", "padding from"),
        (LooksAhead, "causal", "before it"),
        (LooksAhead, "prefixes", "alone"),
        (MixesRows, "rows", "alone and in a batch"),
        (Overflows, "mixed_float16", "not finite"),
        (LosesGradient, "gradients", "no gradient"),
        (Unregistered, "save", "Unregistered"),
    ],
)
def test_a_broken_layer_fails_its_check(layer, check, words):
    causal = check in ("causal", "prefixes")
    with np.errstate(over="ignore"), pytest.raises(AssertionError) as caught:
        run(layer, causal=causal, checks=[check])
    assert f"FAILED  {check}" in str(caught.value)
    assert words in str(caught.value)


def test_all_failures_are_listed_together():
    with pytest.raises(AssertionError) as caught:
        run(LooksAhead, causal=True)
    message = str(caught.value)
    assert "looks_ahead: " in message
    for check in ("causal", "prefixes", "mask_values"):
        assert f"FAILED  {check}" in message
    for check in ("config", "save", "rows"):
        assert f"passed  {check}" in message


def test_unknown_check_is_named():
    with pytest.raises(ValueError, match=r"unknown checks \['mask'\]"):
        run(Sound, checks=["mask"])
    with pytest.raises(ValueError, match=r"unknown checks \['causal'\]"):
        run(Sound, skip=["causal"])  # not causal: there is no such check to skip


def test_a_mask_that_hides_nothing_is_refused():
    with pytest.raises(AssertionError, match="hides nothing"):
        run(Sound, mask=np.ones_like(MASK), checks=["mask_values"])


# --------------------------------------------------------------------------------- architectures


@architecture("causal")
def sound(x, *, mask=None, width=16):
    return keras.layers.GRU(width, return_sequences=True, name="gru")(x, mask=mask)


@architecture("causal")
def swallows(x, *, mask=None, width=16, **options):
    return keras.layers.Dense(width, name="project")(x)


@architecture("causal")
def not_causal(x, *, mask=None, width=16):
    return keras.layers.Bidirectional(keras.layers.GRU(width // 2, return_sequences=True))(x)


@architecture()
def wrong_shape(x, *, mask=None, width=16):
    return keras.layers.Dense(width + 1, name="project")(x)


@architecture()
def fixed_size(x, *, mask=None, width=16):
    return keras.layers.Dense(16, name="project")(x)


@architecture()
def same_names(x, *, mask=None, width=16, depth=1):
    for _ in range(depth):
        x = keras.layers.Dense(width, name="project")(x)
    return x


@architecture()
def positional(x, mask=None, width=16):
    return keras.layers.Dense(width, name="project")(x)


@architecture("returns_attention")
def no_attention(x, *, mask=None, width=16):
    return keras.layers.Dense(width, name="project")(x)


@architecture()
def learns_nothing(x, *, mask=None, width=16):
    return keras.layers.Dense(width, name="project")(x) * 0.0


def test_a_sound_architecture_passes_everything():
    report = testing.check_architecture(sound, export=False, fresh_process=False)
    assert {"signature", "width", "mask_padding", "causal", "learns", "save"} <= {
        result.check for result in report.results
    }


@pytest.mark.parametrize(
    ("function", "check", "words"),
    [
        (swallows, "unknown_option", "without a word"),
        (swallows, "signature", "keyword-only"),
        (positional, "signature", "keyword-only"),
        (not_causal, "causal", "before it"),
        (wrong_shape, "output_shape", "contract"),
        (fixed_size, "width", "grow"),
        (same_names, "depth", "project"),
        (no_attention, "attention", "starts with 'attention'"),
    ],
)
def test_a_broken_architecture_fails_its_check(function, check, words):
    with pytest.raises(AssertionError) as caught:
        testing.check_architecture(function, checks=[check], export=False, fresh_process=False)
    assert words in str(caught.value)


def test_what_cannot_learn_is_found():
    with pytest.raises(AssertionError, match="bring the loss"):
        # The head still has a bias: the mean is all that it can learn.
        testing.check_architecture(
            learns_nothing, checks=["learns"], export=False, fresh_process=False
        )


@architecture("vector")
def bag(x, *, mask=None, vocabulary, width=16):
    return WeighedBag(vocabulary, width, name="bag")(x)


@architecture("vector")
def bag_with_padding(x, *, mask=None, vocabulary, width=16):
    return ops.mean(keras.layers.Embedding(vocabulary, width, name="embedding")(x), axis=1)


@architecture("vector")
def forgetful_bag(x, *, mask=None, vocabulary, width=16):
    return ForgetfulBag(vocabulary, width, name="bag")(x)


@keras.saving.register_keras_serializable(package="test_testing")
class WeighedBag(keras.layers.Layer):
    """A sum of rows, each weighed by what `adapt` counts."""

    def __init__(self, vocabulary, width, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.vocabulary, self.width = vocabulary, width

    def build(self, shape):
        self.table = self.add_weight(shape=(self.vocabulary, self.width), name="table")
        self.count = self.add_weight(
            shape=(self.vocabulary,), initializer="ones", trainable=False, name="count"
        )

    def adapt(self, examples):
        found = np.ones(self.vocabulary)
        for ids, _ in examples:
            np.add.at(found, ids, 1)
        self.count.assign(1 / np.sqrt(found))

    def call(self, tokens):
        weight = ops.take(self.count, tokens, axis=0) * ops.cast(tokens > 0, self.count.dtype)
        rows = ops.take(self.table, tokens, axis=0)
        return ops.cast(ops.sum(rows * weight[..., None], axis=1), self.compute_dtype)

    def compute_output_shape(self, shape):
        return (shape[0], self.width)

    def get_config(self):
        return {**super().get_config(), "vocabulary": self.vocabulary, "width": self.width}


@keras.saving.register_keras_serializable(package="test_testing")
class ForgetfulBag(WeighedBag):
    """Keeps what it counts where no file will hold it."""

    factor = 1.0

    def adapt(self, examples):
        self.factor = float(sum(len(ids) for ids, _ in examples))

    def call(self, tokens):
        return super().call(tokens) * self.factor


def test_an_architecture_that_reads_ids_is_tried_on_them():
    report = testing.check_architecture(bag, export=False, fresh_process=False)
    assert {"signature", "width", "logits", "padding", "adapt", "learns", "mixed_float16"} <= {
        result.check for result in report.results
    }


def test_one_on_features_is_tried_on_embedded_tokens_where_asked():
    report = testing.check_architecture(
        sound, tokens=True, export=False, checks=["logits", "padding", "width"]
    )
    assert len(report.results) == 3


@pytest.mark.parametrize(
    ("function", "check", "words"),
    [
        (bag_with_padding, "padding", "nine steps of padding more"),
        (forgetful_bag, "adapt", "adapted, saved and loaded"),
    ],
)
def test_a_broken_reader_of_ids_fails_its_check(function, check, words):
    with pytest.raises(AssertionError, match=words):
        testing.check_architecture(function, checks=[check], export=False, fresh_process=False)


def test_check_model_finds_a_wrong_mask():
    x = keras.Input((T, 4), name="x")
    mask = keras.Input((T,), dtype="bool", name="mask")
    model = keras.Model({"x": x, "mask": mask}, {"y": keras.layers.Dense(2)(x + 0.0)})
    arrays = {"x": X, "mask": MASK}
    testing.check_model(model, arrays, mask="mask", causal=True, export=False)
    pooled = ops.mean(x, axis=1)
    model = keras.Model({"x": x, "mask": mask}, {"y": keras.layers.Dense(2)(pooled)})
    with pytest.raises(AssertionError, match="under the mask"):
        testing.check_model(model, arrays, mask="mask", export=False)


@pytest.mark.slow
def test_a_fresh_process_needs_the_class():
    with pytest.raises(AssertionError, match="fresh process"):
        testing.check_layer(
            Unregistered, X, export=False, fresh_process=True, checks=["fresh_process"]
        )
