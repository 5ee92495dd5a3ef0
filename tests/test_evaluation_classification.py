"""Scores of labels: by hand, and against scikit-learn and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from keras_seq.evaluation import (
    bootstrap_interval,
    calibration_error,
    classification_scores,
    confusion_matrix,
    example_test,
    f1_by_class,
    log_losses,
    mcnemar,
    multi_label_scores,
    reliability,
    roc_auc,
)


def some(classes: int, count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(classes, size=count)
    scores = generator.normal(size=(count, classes)) + 1.5 * np.eye(classes)[truth]
    scores = np.exp(scores)
    return truth, scores / scores.sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 5])
def test_scores_are_those_of_scikit_learn(classes: int):
    truth, given = some(classes)
    found = classification_scores(truth, given)
    answer = given.argmax(1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, answer))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(truth, answer, average="macro"))
    assert found["log_loss"] == pytest.approx(sk.log_loss(truth, given))
    if classes == 2:
        assert found["auc"] == pytest.approx(sk.roc_auc_score(truth, given[:, 1]))
    else:
        auc = sk.roc_auc_score(truth, given, multi_class="ovr", average="macro")
        assert found["auc"] == pytest.approx(auc)
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]


def test_multi_label_scores_are_those_of_scikit_learn():
    generator = np.random.default_rng(1)
    truth = (generator.random((300, 4)) < [0.5, 0.2, 0.4, 0.1]).astype(int)
    given = np.clip(0.35 * truth + generator.random((300, 4)) * 0.6, 0, 1)
    found = multi_label_scores(truth, given)
    answer = given >= 0.5
    assert found["macro_f1"] == pytest.approx(sk.f1_score(truth, answer, average="macro"))
    assert found["micro_f1"] == pytest.approx(sk.f1_score(truth, answer, average="micro"))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, answer))
    assert found["auc"] == pytest.approx(sk.roc_auc_score(truth, given, average="macro"))
    assert found["macro_f1_low"] < found["macro_f1"] < found["macro_f1_high"]


def test_auc_by_hand():
    assert roc_auc([True, False], [0.2, 0.1]) == 1.0
    assert roc_auc([True, False], [0.1, 0.2]) == 0.0
    assert roc_auc([True, False, False], [0.5, 0.5, 0.1]) == 0.75
    assert math.isnan(roc_auc([True, True], [0.1, 0.2]))


def test_a_sure_mistake_costs_much_and_not_infinitely():
    assert log_losses([1, 0], [[1.0, 0.0], [1.0, 0.0]]).tolist() == [-math.log(1e-7), 0.0]


def test_confusion_and_f1_by_hand():
    matrix = confusion_matrix([0, 0, 1, 2, 2], [0, 1, 1, 0, 2], 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    found = f1_by_class(matrix)
    assert found[:3] == pytest.approx([0.5, 2 / 3, 2 / 3])
    assert math.isnan(found[3])  # a class that is neither true nor given takes no part in the mean


def test_calibration_by_hand():
    # Two bins of two: 0.9 said and half right, 0.6 said and all right.
    right, sure = [True, False, True, True], [0.9, 0.9, 0.6, 0.6]
    assert calibration_error(right, sure) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    found = reliability(right, sure)
    assert found.confidence == pytest.approx([0.6, 0.9])
    assert found.accuracy.tolist() == [1.0, 0.5]
    assert reliability([True], [1.0]).count.tolist() == [1]
    assert reliability([True], [0.0]).count.tolist() == [1]


def test_bootstrap_interval_is_that_of_drawn_examples():
    right = np.random.default_rng(0).random(500) < 0.8
    generator = np.random.default_rng(1)
    drawn = [generator.choice(right, len(right)).mean() for _ in range(4000)]
    assert bootstrap_interval(right) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.005)
    assert bootstrap_interval([True, True]) == (1.0, 1.0)


def test_mcnemar_by_hand():
    # 10 against 2 of 12: twice P(X <= 2) less P(X = 2), X binomial(12, 1/2).
    ours = np.array([True] * 2 + [False] * 10 + [True] * 5 + [False] * 83)
    theirs = np.array([False] * 2 + [True] * 10 + [True] * 5 + [False] * 83)
    found = mcnemar(ours, theirs)
    assert found.p_value == pytest.approx((2 * (1 + 12 + 66) - 66) / 2**12)
    assert found.statistic == pytest.approx((2 - 10) / math.sqrt(12))
    assert found.mean_difference == pytest.approx(-0.08)
    back = mcnemar(theirs, ours)
    assert (back.p_value, back.statistic) == (found.p_value, -found.statistic)


def test_mcnemar_without_a_difference():
    assert mcnemar([True, False], [False, True]).p_value == 1.0
    found = mcnemar([True, False], [True, False])
    assert (found.p_value, found.statistic) == (1.0, 0.0)
    assert found.note


def test_example_test_takes_what_suits():
    generator = np.random.default_rng(0)
    ours, theirs = generator.random(300), generator.random(300) + 0.3
    found = example_test(ours, theirs)
    assert found.name == "paired bootstrap over examples"
    assert found.statistic < -5 and found.p_value < 0.01
    assert example_test(ours, ours).p_value == 1.0
    assert example_test([0.0, 1.0], [0.0, 0.0]).name == "McNemar (mid-p)"


@pytest.mark.parametrize(
    ("truth", "given", "said"),
    [
        ([0, 1], [[0.5, 0.5]], "wanted"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "0 to 1"),
        ([-1], [[0.5, 0.5]], "0 to 1"),
        ([0], [[math.nan, 0.5]], "not finite"),
        ([0], [[1.5, -0.5]], "wanted 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(truth: list[int], given: list[list[float]], said: str):
    with pytest.raises(ValueError, match=said):
        classification_scores(truth, given)
