"""Conditional random fields agree with all sequences written out."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

from keras_seq.layers.crf import CRFMarginals, CRFPotentials, ViterbiDecode, log_partition
from keras_seq.losses import CRFLoss
from keras_seq.testing import check_layer

CLASSES, STEPS = 3, 6
LENGTHS = (6, 4, 2, 1)
MASK = np.arange(STEPS) < np.array(LENGTHS)[:, None]


@pytest.fixture
def potentials() -> np.ndarray:
    generator = np.random.default_rng(3)
    found = 2 * generator.normal(size=(len(LENGTHS), STEPS, CLASSES, CLASSES)).astype("float32")
    found[:, 0] = found[:, 0, :1]  # nothing stands before the first step
    return found


def every_path(potentials: np.ndarray, length: int) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """All sequences of labels of one row, and their scores."""
    paths = list(itertools.product(range(CLASSES), repeat=length))
    scores = [
        potentials[0, 0, path[0]]
        + sum(potentials[t, path[t - 1], path[t]] for t in range(1, length))
        for path in paths
    ]
    return paths, np.array(scores, np.float64)


def brute_log_sum(potentials: np.ndarray, length: int) -> float:
    _, scores = every_path(potentials, length)
    return float(np.log(np.exp(scores - scores.max()).sum()) + scores.max())


@pytest.mark.parametrize("unroll", [False, True])
def test_viterbi_finds_the_best_of_all_sequences(potentials, unroll):
    found = np.asarray(ViterbiDecode(unroll=unroll)(potentials, mask=MASK))
    assert found.dtype == np.int32
    for row, length, given in zip(potentials, LENGTHS, found, strict=True):
        paths, scores = every_path(row, length)
        assert tuple(given[:length]) == paths[int(scores.argmax())]
        assert not given[length:].any()


@pytest.mark.parametrize("unroll", [False, True])
def test_marginals_are_sums_over_all_sequences(potentials, unroll):
    found = np.asarray(CRFMarginals(unroll=unroll)(potentials, mask=MASK))
    for row, length, given in zip(potentials, LENGTHS, found, strict=True):
        paths, scores = every_path(row, length)
        weights = np.exp(scores - brute_log_sum(row, length))
        wanted = np.zeros((length, CLASSES))
        for path, weight in zip(paths, weights, strict=True):
            wanted[np.arange(length), path] += weight
        np.testing.assert_allclose(given[:length], wanted, atol=2e-6)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)


def test_partition_is_the_sum_over_all_sequences(potentials):
    wanted = [brute_log_sum(row, n) for row, n in zip(potentials, LENGTHS, strict=True)]
    np.testing.assert_allclose(log_partition(potentials, MASK), wanted, rtol=1e-6)


def test_loss_is_the_negative_log_likelihood_a_step(potentials):
    generator = np.random.default_rng(0)
    labels = np.where(MASK, generator.integers(0, CLASSES, MASK.shape) + 1, 0)
    total = 0.0
    for row, length, path in zip(potentials, LENGTHS, labels - 1, strict=True):
        paths, scores = every_path(row, length)
        total += brute_log_sum(row, length) - scores[paths.index(tuple(path[:length].tolist()))]
    loss = CRFLoss()
    assert float(loss(labels, potentials)) == pytest.approx(total / sum(LENGTHS), rel=1e-5)
    # A row alone, by its weight.
    alone = float(loss(labels[1:2], potentials[1:2]))
    weighted = float(loss(labels, potentials, sample_weight=np.array([0.0, 1, 0, 0])))
    assert weighted == pytest.approx(alone, rel=1e-5)


def test_loss_has_no_gradient_at_padding(potentials):
    import tensorflow as tf

    labels = tf.constant(MASK.astype("int32"))
    inputs = tf.constant(potentials)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = CRFLoss()(labels, inputs)
    gradient = np.asarray(tape.gradient(loss, inputs))
    assert np.isfinite(gradient).all()
    assert not gradient[~MASK].any()
    assert np.abs(gradient[MASK]).max() > 0


def test_what_stands_in_the_padding_changes_nothing(potentials):
    spoilt = np.where(MASK[..., None, None], potentials, 50.0).astype("float32")
    for layer in (ViterbiDecode(), CRFMarginals()):
        one, two = (np.asarray(layer(x, mask=MASK)) for x in (potentials, spoilt))
        np.testing.assert_array_equal(one[MASK], two[MASK])


def test_potentials_add_transitions_and_a_start():
    layer = CRFPotentials()
    scores = np.arange(6, dtype="float32").reshape(1, 3, 2)
    layer.build(scores.shape)
    layer.transitions.assign([[0.1, 0.2], [0.3, 0.4]])
    layer.start.assign([10.0, 20.0])
    found = np.asarray(layer(scores))[0]
    np.testing.assert_allclose(found[0], [[10, 21], [10, 21]])
    np.testing.assert_allclose(found[1], [[2.1, 3.2], [2.3, 3.4]], rtol=1e-6)
    np.testing.assert_allclose(found[2], [[4.1, 5.2], [4.3, 5.4]], rtol=1e-6)


def test_equal_scores_take_the_first_label():
    assert not np.asarray(ViterbiDecode()(np.zeros((2, 4, 3, 3), "float32"))).any()


def test_crf_learns_that_labels_alternate():
    """The features say nothing; only the transitions can."""
    keras.utils.set_random_seed(0)
    x = np.zeros((32, 8, 1), "float32")
    y = np.tile([1, 2], (32, 4))
    inputs = keras.Input((None, 1))
    model = keras.Model(inputs, CRFPotentials()(keras.layers.Dense(2)(inputs)))
    model.compile(optimizer=keras.optimizers.Adam(0.1), loss=CRFLoss())
    history = model.fit(x, y, epochs=20, batch_size=8, verbose=0).history["loss"]
    assert history[-1] < 0.05 < history[0]
    np.testing.assert_array_equal(ViterbiDecode()(model.predict(x[:1], verbose=0)), y[:1] - 1)


@pytest.mark.parametrize(
    ("layer", "inputs", "mask"),
    [
        (CRFPotentials(), np.random.default_rng(0).normal(size=(3, 7, 4)), None),
        (CRFMarginals(), np.random.default_rng(0).normal(size=(3, 7, 4, 4)), True),
    ],
    ids=["potentials", "marginals"],
)
def test_layers_keep_what_layers_promise(layer, inputs, mask):
    rows = np.arange(7) < np.array([[7], [4], [5]]) if mask else None
    check_layer(layer, inputs.astype("float32"), mask=rows, export=False, skip=["mixed_float16"])


@pytest.mark.slow
def test_decoding_runs_on_a_device(tmp_path):
    from keras_seq.export import export

    keras.utils.set_random_seed(0)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    mask = keras.ops.not_equal(tokens, 0)
    x = keras.layers.Embedding(9, 4)(tokens)
    scores = CRFPotentials()(keras.layers.Dense(CLASSES)(x))
    outputs = {
        "tags": ViterbiDecode()(scores, mask=mask),
        "probabilities": CRFMarginals()(scores, mask=mask),
    }
    model = keras.Model({"tokens": tokens}, outputs)
    rows = np.random.default_rng(0).integers(1, 9, (12, STEPS)).astype("int32")
    rows[::2, 4:] = 0
    report = export(
        model, tmp_path / "crf", formats=("saved_model", "litert"), samples={"tokens": rows}
    )
    assert report["formats"]["litert"]["flex"] is False
    assert report["formats"]["litert"]["unpadded"]["lengths"]
