"""Scores, calibration and paired tests for labels: NumPy and SciPy, no TensorFlow.

Shapes in axis letters: N examples, K classes or labels, M bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_seq.evaluation.significance import paired_bootstrap

__all__ = [
    "ExampleTest",
    "Reliability",
    "bootstrap_interval",
    "calibration_error",
    "classification_scores",
    "confusion_matrix",
    "example_test",
    "f1_by_class",
    "log_losses",
    "mcnemar",
    "multi_label_scores",
    "reliability",
    "roc_auc",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# A probability of 0 for what came true would cost infinitely much, by rounding alone.
_LEAST = 1e-7


# --- scores ---------------------------------------------------------------------------------------


def classification_scores(
    truth: ArrayLike, probabilities: ArrayLike, *, bins: int = 15, seed: int = 0
) -> dict[str, float]:
    """Score class probabilities by every usual name.

    - ``accuracy``, with the ends of its 95 % bootstrap interval over examples, ``accuracy_low``
      and ``accuracy_high``. A tie of probabilities goes to the first class.
    - ``macro_f1``: mean F1 of the classes that occur in the truth or among the answers.
    - ``auc``: area under the ROC curve; of more than two classes the mean of each against the
      rest, over the classes for which both occur. NaN where there is none.
    - ``log_loss``: mean of -log p of the true class, p cut off at 1e-7.
    - ``calibration_error``: see `calibration_error`.

    Args:
        truth: (N,) class numbers, 0 to K - 1.
        probabilities: (N, K), K at least 2, each row sums to 1.
        bins: Bins of the calibration error.
        seed: Of the bootstrap.

    Returns:
        Name to value.

    Raises:
        ValueError: Shapes or class numbers that do not fit, or probabilities that are none.

    Example:
        >>> scores = classification_scores([0, 1, 1], [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
        >>> round(scores["accuracy"], 3), round(scores["macro_f1"], 3), scores["auc"]
        (0.667, 0.667, 1.0)

    Source:
        Hand and Till (2001), "A simple generalisation of the area under the ROC curve"; Guo et al.
        (2017), "On calibration of modern neural networks".
    """
    truth, probabilities = _classes(truth, probabilities)
    classes = probabilities.shape[1]
    answer = probabilities.argmax(axis=1)
    right = answer == truth
    low, high = bootstrap_interval(right, seed=seed)
    matrix = confusion_matrix(truth, answer, classes)
    f1 = f1_by_class(matrix)
    if classes == 2:
        auc = roc_auc(truth == 1, probabilities[:, 1])
    else:
        auc = _mean([roc_auc(truth == k, probabilities[:, k]) for k in range(classes)])
    return {
        "accuracy": float(right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": _mean(f1.tolist()),
        "auc": auc,
        "log_loss": float(log_losses(truth, probabilities).mean()),
        "calibration_error": calibration_error(right, probabilities.max(axis=1), bins=bins),
    }


def multi_label_scores(
    truth: ArrayLike,
    probabilities: ArrayLike,
    *,
    threshold: float = 0.5,
    bins: int = 15,
    seed: int = 0,
) -> dict[str, float]:
    """Score the probabilities of labels of which an example may have any number.

    - ``macro_f1``: mean F1 of the labels that occur, with the ends of its 95 % bootstrap interval
      over examples, ``macro_f1_low`` and ``macro_f1_high``; ``micro_f1``: F1 of all decisions.
    - ``accuracy``: share of examples of which every label is right.
    - ``auc``: mean over the labels; ``log_loss``: mean over all decisions;
      ``calibration_error``: of the probabilities of all decisions.

    Args:
        truth: (N, K) 0 or 1.
        probabilities: (N, K), each label on its own.
        threshold: A label is given from this probability on.
        bins: Bins of the calibration error.
        seed: Of the bootstrap.

    Returns:
        Name to value.

    Raises:
        ValueError: Shapes that do not fit or probabilities that are none.

    Example:
        >>> scores = multi_label_scores([[1, 0], [1, 1]], [[0.9, 0.2], [0.8, 0.4]])
        >>> scores["accuracy"], scores["macro_f1"], round(scores["micro_f1"], 3)
        (0.5, 0.5, 0.8)
    """
    given = np.asarray(probabilities, np.float64)
    true = np.asarray(truth, np.int64)
    if given.ndim != 2 or true.shape != given.shape or not len(given):
        raise ValueError(f"truth {true.shape} and probabilities {given.shape}: give (N, K) of both")
    _check_probabilities(given)
    answer = given >= threshold
    hit = answer & (true == 1)
    f1 = _f1(hit.sum(0), answer.sum(0), true.sum(0))
    low, high = _f1_interval(hit, answer, true == 1, seed)
    p = np.clip(np.where(true == 1, given, 1 - given), _LEAST, 1.0)
    return {
        "macro_f1": _mean(f1.tolist()),
        "macro_f1_low": low,
        "macro_f1_high": high,
        "micro_f1": _mean(_f1(hit.sum()[None], answer.sum()[None], true.sum()[None]).tolist()),
        "accuracy": float((answer == (true == 1)).all(axis=1).mean()),
        "auc": _mean([roc_auc(true[:, k] == 1, given[:, k]) for k in range(true.shape[1])]),
        "log_loss": float(-np.log(p).mean()),
        "calibration_error": calibration_error(true.ravel() == 1, given.ravel(), bins=bins),
    }


def log_losses(truth: ArrayLike, probabilities: ArrayLike) -> Floats:
    """Give -log p of the true class of each example, p cut off at 1e-7.

    Args:
        truth: (N,) class numbers.
        probabilities: (N, K).

    Returns:
        (N,).

    Raises:
        ValueError: Shapes or class numbers that do not fit, or probabilities that are none.

    Example:
        >>> log_losses([0], [[1.0, 0.0]]).tolist()
        [0.0]
    """
    truth, probabilities = _classes(truth, probabilities)
    right = probabilities[np.arange(len(truth)), truth]
    return np.abs(-np.log(np.clip(right, _LEAST, 1.0)))  # abs: -log 1 is minus zero


def roc_auc(truth: ArrayLike, score: ArrayLike) -> float:
    """Give the area under the ROC curve: how often a true example scores above a false one.

    Args:
        truth: (N,) True or False.
        score: (N,) any numbers; equal ones count half.

    Returns:
        0 to 1; NaN where all examples are true or all are false.

    Example:
        >>> roc_auc([True, True, False], [0.9, 0.4, 0.4])
        0.75
    """
    true = np.asarray(truth, bool)
    positive = int(true.sum())
    negative = len(true) - positive
    if not positive or not negative:
        return math.nan
    _, place, counts = np.unique(np.asarray(score), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    rank = (last - (counts - 1) / 2)[place]  # equal scores share the mean of their ranks
    return float((rank[true].sum() - positive * (positive + 1) / 2) / (positive * negative))


def confusion_matrix(truth: ArrayLike, answer: ArrayLike, classes: int) -> Ints:
    """Count how often each class was taken for each.

    Args:
        truth: (N,) class numbers.
        answer: (N,) class numbers.
        classes: K.

    Returns:
        (K, K): rows are the truth, columns the answers.

    Example:
        >>> confusion_matrix([0, 1, 1], [0, 0, 1], 2).tolist()
        [[1, 0], [1, 1]]
    """
    pairs = np.asarray(truth, np.int64) * classes + np.asarray(answer, np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def f1_by_class(matrix: ArrayLike) -> Floats:
    """Give the F1 of each class.

    Args:
        matrix: (K, K) from `confusion_matrix`.

    Returns:
        (K,); NaN for a class that is neither in the truth nor among the answers.

    Example:
        >>> f1_by_class([[1, 0, 0], [1, 1, 0], [0, 0, 0]]).round(3).tolist()
        [0.667, 0.667, nan]
    """
    counts = np.asarray(matrix)
    return _f1(np.diag(counts), counts.sum(0), counts.sum(1))


# --- calibration ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reliability:
    """How often answers of like confidence are right.

    Args:
        confidence: (M,) mean confidence in each bin that is not empty.
        accuracy: (M,) share of right answers in it.
        count: (M,) answers in it.
    """

    confidence: Floats
    accuracy: Floats
    count: Ints


def reliability(right: ArrayLike, confidence: ArrayLike, *, bins: int = 15) -> Reliability:
    """Sort answers into bins of equal width by confidence.

    Args:
        right: (N,) whether each answer is right.
        confidence: (N,) what the model gave for it, 0 to 1.
        bins: Bins from 0 to 1; an end belongs to the bin below it.

    Returns:
        The bins that are not empty, from low to high.

    Example:
        >>> found = reliability([True, False, True], [0.9, 0.9, 0.2], bins=2)
        >>> found.accuracy.tolist(), found.count.tolist()
        ([1.0, 0.5], [1, 2])

    Source:
        Guo et al. (2017), "On calibration of modern neural networks".
    """
    sure = np.asarray(confidence, np.float64)
    place = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    there = count > 0
    hits = np.bincount(place, weights=np.asarray(right, np.float64), minlength=bins)
    sums = np.bincount(place, weights=sure, minlength=bins)
    return Reliability(sums[there] / count[there], hits[there] / count[there], count[there])


def calibration_error(right: ArrayLike, confidence: ArrayLike, *, bins: int = 15) -> float:
    """Give the expected calibration error: mean gap between confidence and accuracy in the bins.

    Args:
        right: (N,) whether each answer is right.
        confidence: (N,) what the model gave for it, 0 to 1.
        bins: See `reliability`.

    Returns:
        0 (calibrated) to 1; bins count by how many answers they hold.

    Example:
        >>> calibration_error([True, False], [0.75, 0.75])
        0.25

    Source:
        Naeini et al. (2015), "Obtaining well calibrated probabilities using Bayesian binning".
    """
    found = reliability(right, confidence, bins=bins)
    gap = np.abs(found.confidence - found.accuracy)
    return float((gap * found.count).sum() / found.count.sum())


# --- intervals and tests --------------------------------------------------------------------------


def bootstrap_interval(
    right: ArrayLike, *, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Give the percentile bootstrap interval of a share, over examples.

    Examples drawn with replacement from N, of which R are right, hold binomial(N, R / N) right
    ones, so the draws are made at once and not example by example.

    Args:
        right: (N,) True or False.
        level: What the interval holds.
        draws: Bootstrap samples.
        seed: Of the draws.

    Returns:
        Its ends.

    Example:
        >>> bootstrap_interval([True] * 90 + [False] * 10)
        (0.84, 0.95)

    Source:
        Efron and Tibshirani (1993), "An introduction to the bootstrap", section 13.3.
    """
    hits = np.asarray(right, bool)
    drawn = np.random.default_rng(seed).binomial(len(hits), hits.mean(), size=draws) / len(hits)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class ExampleTest:
    """Whether two systems differ on the same examples.

    Args:
        name: Which test.
        statistic: Negative where the first is better.
        p_value: Two-sided.
        mean_difference: Mean loss of the first minus that of the second.
        note: What was done where the plain test does not work; "" else.
    """

    name: str
    statistic: float
    p_value: float
    mean_difference: float
    note: str = ""


def mcnemar(first: ArrayLike, second: ArrayLike) -> ExampleTest:
    """Test whether two systems make errors equally often: McNemar's test, mid-p.

    Only examples count that one system gets right and the other wrong. If both were as good, each
    of them would be as likely to favour the one as the other: a binomial test, with half of the
    probability of what was seen (mid-p), which is neither too careful nor too sure.

    Args:
        first: (N,) True where the first system is wrong.
        second: (N,) True where the second is wrong.

    Returns:
        The test; its statistic is McNemar's z.

    Example:
        >>> found = mcnemar([True, False, False, False], [False, True, True, True])
        >>> found.statistic, found.p_value
        (-1.0, 0.375)

    Source:
        Fagerland, Lydersen and Laake (2013), "The McNemar test for binary matched-pairs data:
        mid-p and asymptotic are better than exact conditional".
    """
    from scipy import stats

    ours, theirs = np.asarray(first, bool), np.asarray(second, bool)
    if ours.ndim != 1 or ours.shape != theirs.shape or not len(ours):
        raise ValueError(f"errors have shapes {ours.shape} and {theirs.shape}; wanted (N,) of both")
    worse, better = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    name, total = "McNemar (mid-p)", worse + better
    if not total:
        return ExampleTest(name, 0.0, 1.0, 0.0, "both make the same errors")
    least = min(worse, better)
    p = 2 * stats.binom.cdf(least, total, 0.5) - stats.binom.pmf(least, total, 0.5)
    if worse == better:
        p = 1.0
    z = (worse - better) / math.sqrt(total)
    return ExampleTest(name, z, float(min(p, 1.0)), (worse - better) / len(ours))


def example_test(first: ArrayLike, second: ArrayLike, *, seed: int = 0) -> ExampleTest:
    """Test whether two systems differ in mean loss over the same, independent examples.

    McNemar's test where all losses are 0 or 1; else (means over seeds, log losses) a paired
    bootstrap over examples.

    Args:
        first: (N,) losses of the first system.
        second: (N,) those of the second.
        seed: Of the bootstrap.

    Returns:
        Which test, and what it says; the statistic of the bootstrap is mean over standard error.

    Raises:
        ValueError: Losses of different length or not finite.

    Example:
        >>> example_test([0.0, 1.0], [1.0, 1.0]).name, example_test([0.5, 1.0], [1.0, 1.5]).name
        ('McNemar (mid-p)', 'paired bootstrap over examples')
    """
    ours, theirs = np.asarray(first, np.float64), np.asarray(second, np.float64)
    both = np.concatenate([ours.ravel(), theirs.ravel()])
    if np.isin(both, (0.0, 1.0)).all():
        return mcnemar(ours == 1, theirs == 1)
    found = paired_bootstrap(ours, theirs, seed=seed)
    difference = ours - theirs
    mean, spread = float(difference.mean()), float(difference.std())
    name = "paired bootstrap over examples"
    if not spread:
        z = math.copysign(math.inf, mean) if mean else 0.0
        note = "the difference is the same in every example"
        return ExampleTest(name, z, 0.0 if mean else 1.0, mean, note)
    return ExampleTest(name, mean / (spread / math.sqrt(len(ours))), found.p_value, mean)


# --- small helpers --------------------------------------------------------------------------------


def _f1(hits: ArrayLike, answered: ArrayLike, true: ArrayLike) -> Floats:
    """F1 = 2 hits / (answered + true); NaN where neither is there."""
    both = np.asarray(answered, np.float64) + np.asarray(true, np.float64)
    return np.divide(2 * np.asarray(hits), both, out=np.full(both.shape, np.nan), where=both > 0)


def _f1_interval(
    hit: NDArray[np.bool_], answer: NDArray[np.bool_], true: NDArray[np.bool_], seed: int
) -> tuple[float, float]:
    counts = np.concatenate([hit, answer, true], axis=1).astype(np.float32)  # (N, 3K)
    generator = np.random.default_rng(seed)
    labels, found = hit.shape[1], []
    for _ in range(1000):
        times = np.bincount(generator.integers(len(hit), size=len(hit)), minlength=len(hit))
        sums = times.astype(np.float32) @ counts
        f1 = _f1(sums[:labels], sums[labels : 2 * labels], sums[2 * labels :])
        found.append(_mean(f1.tolist()))
    low, high = np.nanquantile(found, [0.025, 0.975])
    return float(low), float(high)


def _mean(values: list[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def _classes(truth: ArrayLike, probabilities: ArrayLike) -> tuple[Ints, Floats]:
    true, given = np.asarray(truth), np.asarray(probabilities, np.float64)
    if given.ndim != 2 or given.shape[1] < 2 or true.shape != given.shape[:1] or not len(true):
        raise ValueError(
            f"truth {true.shape} and probabilities {given.shape}: wanted (N,) and (N, K), at least "
            "one example and two classes"
        )
    if true.dtype.kind not in "iu" or true.min() < 0 or true.max() >= given.shape[1]:
        raise ValueError(f"truth must be class numbers from 0 to {given.shape[1] - 1}")
    _check_probabilities(given)
    return true.astype(np.int64), given


def _check_probabilities(given: Floats) -> None:
    if not np.isfinite(given).all():
        raise ValueError(
            "probabilities that are not finite: nothing can be scored; look for a training that "
            "diverged"
        )
    if given.min() < -1e-6 or given.max() > 1 + 1e-6:
        raise ValueError(
            f"probabilities from {given.min():.3g} to {given.max():.3g}: wanted 0 to 1"
        )
