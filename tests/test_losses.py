"""Losses on labels under a mask agree with their definitions, values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_seq.losses import CRFLoss, MaskedAccuracy, MaskedCrossentropy


def test_masked_crossentropy_is_the_mean_over_labels():
    generator = np.random.default_rng(1)
    scores = generator.normal(size=(2, 3, 4)).astype("float32")
    labels = np.array([[1, 4, 0], [2, 0, 0]])
    logs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    wanted = -(logs[0, 0, 0] + logs[0, 1, 3] + logs[1, 0, 1]) / 3
    assert float(MaskedCrossentropy()(labels, scores)) == pytest.approx(wanted, rel=1e-5)
    shares = np.exp(logs)
    given = float(MaskedCrossentropy(from_logits=False)(labels, shares))
    assert given == pytest.approx(wanted, rel=1e-5)
    rows = float(MaskedCrossentropy()(labels, scores, sample_weight=np.array([1.0, 0.0])))
    assert rows == pytest.approx(-(logs[0, 0, 0] + logs[0, 1, 3]) / 2, rel=1e-5)


def test_label_smoothing_spreads_a_share():
    scores = np.log(np.array([[[0.7, 0.2, 0.1]]], "float32"))
    wanted = -(0.9 * np.log(0.7) + 0.1 * np.log([0.7, 0.2, 0.1]).mean())
    given = float(MaskedCrossentropy(label_smoothing=0.1)(np.array([[1]]), scores))
    assert given == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(ValueError, match="label_smoothing is 1"):
        MaskedCrossentropy(label_smoothing=1)


def test_a_batch_without_labels_costs_nothing():
    zeros = np.zeros((2, 3), "int32")
    assert float(MaskedCrossentropy()(zeros, np.ones((2, 3, 4), "float32"))) == 0
    assert float(CRFLoss()(zeros, np.ones((2, 3, 4, 4), "float32"))) == 0


def test_masked_accuracy_counts_labels_only():
    metric = MaskedAccuracy()
    scores = np.array([[[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]]])
    metric.update_state(np.array([[1, 1, 0]]), scores)
    metric.update_state(np.array([[0, 2, 0]]), scores)
    assert float(metric.result()) == pytest.approx(2 / 3)
    # A longer batch of as many labels counts as much.
    metric.update_state(np.array([[2, 0, 0, 1, 1, 0, 0]]), np.array([[[0.9, 0.1]] * 7]))
    assert float(metric.result()) == pytest.approx(4 / 6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "xla"])
def test_crossentropy_has_the_gradient_of_tensorflows_own(smoothing, compiled):
    generator = np.random.default_rng(2)
    scores = generator.normal(size=(4, 5, 7)).astype("float32")
    scores[0, 0] *= 1e4  # all the rest of the row underflows
    labels = generator.integers(0, 8, (4, 5))
    labels[0, 0], labels[3, 4] = 3, 0
    weights = generator.uniform(size=4).astype("float32")
    loss = MaskedCrossentropy(label_smoothing=smoothing)

    @tf.function(jit_compile=compiled)
    def ours(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x, sample_weight=weights)
        return value, tape.gradient(value, x)

    x = tf.constant(scores, "float64")
    with tf.GradientTape() as tape:
        tape.watch(x)
        wanted = tf.one_hot(labels - 1, 7, dtype="float64") * (1 - smoothing) + smoothing / 7
        each = tf.nn.softmax_cross_entropy_with_logits(wanted, x)
        count = (labels > 0) * weights[:, None].astype("float64")
        value = tf.reduce_sum(each * count) / count.sum()
    found, slope = ours(tf.constant(scores))
    np.testing.assert_allclose(found, value, rtol=1e-5)
    np.testing.assert_allclose(slope, tape.gradient(value, x), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "thing",
    [MaskedCrossentropy(label_smoothing=0.1), CRFLoss(), MaskedAccuracy(name="right")],
    ids=["crossentropy", "crf", "accuracy"],
)
def test_losses_survive_their_configuration(thing):
    again = type(thing).from_config(thing.get_config())
    assert again.get_config() == thing.get_config()
