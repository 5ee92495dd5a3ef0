"""Scores of labels for each token: NumPy, no TensorFlow.

Shapes in axis letters: M tokens of all sentences, one after the other; N sentences; K labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from keras_seq.evaluation.classification import confusion_matrix, f1_by_class

__all__ = ["are_spans", "sentence_errors", "span_f1", "spans", "tagging_scores"]

_PREFIXES = ("B", "I", "E", "S", "L", "U")  # L and U: what BILOU calls E and S


def tagging_scores(
    truth: ArrayLike,
    answer: ArrayLike,
    offsets: ArrayLike,
    *,
    tags: Sequence[str],
    known: ArrayLike,
    seed: int = 0,
) -> dict[str, float]:
    """Score the labels of tokens by every usual name.

    - ``accuracy``: share of tokens with the right label, with the ends of its 95 % bootstrap
      interval over sentences, ``accuracy_low`` and ``accuracy_high``: tokens of one sentence are
      right or wrong together, so that whole sentences are drawn.
    - ``macro_f1``: mean F1 of the labels that occur in the truth or among the answers.
    - ``known_accuracy``, ``unknown_accuracy``: of the words that training saw, and of the others.
    - ``sentence_accuracy``: share of sentences in which every label is right.
    - ``span_f1``: see `span_f1`; only where the tags are those of spans.

    Args:
        truth: (M,) label numbers. A number of K or more is a label that training never saw: no
            answer is right there.
        answer: (M,) label numbers, 0 to K - 1.
        offsets: (N+1,) where the sentences start.
        tags: (K,) names of the labels.
        known: (M,) whether training saw the word.
        seed: Of the bootstrap.

    Returns:
        Name to value; NaN where there is nothing to count.

    Raises:
        ValueError: Shapes that do not fit.

    Example:
        >>> scores = tagging_scores(
        ...     [0, 1, 1], [0, 1, 0], [0, 2, 3], tags=["X", "Y"], known=[True, True, False]
        ... )
        >>> scores["sentence_accuracy"], scores["known_accuracy"], scores["unknown_accuracy"]
        (0.5, 1.0, 0.0)
    """
    true, given = np.asarray(truth, np.int64), np.asarray(answer, np.int64)
    starts, seen = np.asarray(offsets, np.int64), np.asarray(known, bool)
    if true.shape != given.shape or true.shape != seen.shape or starts[-1] != len(true):
        raise ValueError(
            f"truth {true.shape}, answer {given.shape} and known {seen.shape} must be (M,), and "
            f"the last offset M, not {starts[-1]}"
        )
    right = true == given
    errors, lengths = sentence_errors(true, given, starts), np.diff(starts)
    low, high = _accuracy_interval(errors, lengths, seed)
    classes = max(len(tags), int(true.max(initial=0)) + 1)
    f1 = f1_by_class(confusion_matrix(true, given, classes))
    found = {
        "accuracy": _mean(right),
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": _mean(f1[np.isfinite(f1)]),
        "known_accuracy": _mean(right[seen]),
        "unknown_accuracy": _mean(right[~seen]),
        "sentence_accuracy": _mean(errors[lengths > 0] == 0),
    }
    if are_spans(tags):
        names = [*tags, *("?" for _ in range(classes - len(tags)))]
        rows = list(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True))
        found["span_f1"] = span_f1(
            [[names[k] for k in true[a:b]] for a, b in rows],
            [[names[k] for k in given[a:b]] for a, b in rows],
        )
    return found


def sentence_errors(truth: ArrayLike, answer: ArrayLike, offsets: ArrayLike) -> np.ndarray:
    """Count the wrong labels of each sentence.

    Args:
        truth: (M,) label numbers.
        answer: (M,) label numbers.
        offsets: (N+1,) where the sentences start.

    Returns:
        (N,) int64.

    Example:
        >>> sentence_errors([0, 1, 1], [0, 0, 0], [0, 2, 2, 3]).tolist()
        [1, 0, 1]
    """
    wrong = np.asarray(truth) != np.asarray(answer)
    sums = np.concatenate([[0], np.cumsum(wrong)])
    return np.diff(sums[np.asarray(offsets, np.int64)])


def are_spans(tags: Sequence[str]) -> bool:
    """Tell whether tags are those of spans: O, and a letter of B, I, E, S, L, U with a type.

    Args:
        tags: Names.

    Example:
        >>> are_spans(["O", "B-PER", "I-PER"]), are_spans(["NOUN", "VERB"])
        (True, False)
    """
    inside = [tag for tag in tags if tag != "O"]
    return (
        bool(inside)
        and "O" in tags
        and all(len(tag) > 2 and tag[0] in _PREFIXES and tag[1] == "-" for tag in inside)
    )


def spans(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """Find the spans that tags stand for, by the rules of conlleval.

    A span goes on as long as the type stays and no letter ends or begins one. So tags that break
    the scheme (I-PER after O, I-LOC after B-PER) have spans too.

    Args:
        tags: Of one sentence.

    Returns:
        (first token, token behind the last, type).

    Example:
        >>> sorted(spans(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]))
        [(0, 2, 'PER'), (3, 4, 'LOC'), (4, 5, 'LOC')]

    Source:
        Tjong Kim Sang and De Meulder (2003), "Introduction to the CoNLL-2003 shared task";
        conlleval.
    """
    found: set[tuple[int, int, str]] = set()
    begin, before, kind = -1, "O", ""
    for i, tag in enumerate([*tags, "O"]):
        letter, _, here = tag.partition("-")
        letter = {"L": "E", "U": "S"}.get(letter, letter)
        if letter not in ("B", "I", "E", "S"):
            letter, here = "O", ""
        ends = before in ("E", "S") or letter in ("B", "S", "O") or here != kind
        if begin >= 0 and ends:
            found.add((begin, i, kind))
            begin = -1
        if letter != "O" and begin < 0:
            begin = i
        before, kind = letter, here
    return found


def span_f1(truth: Sequence[Sequence[str]], answer: Sequence[Sequence[str]]) -> float:
    """Give the F1 of spans: right are those whose ends and type are right.

    Args:
        truth: The tags of each sentence.
        answer: Likewise.

    Returns:
        0 to 1; NaN where neither has a span.

    Example:
        >>> span_f1([["B-PER", "O", "B-LOC"]], [["B-PER", "B-LOC", "B-LOC"]])
        0.8
    """
    hits = given = true = 0
    for row_truth, row_answer in zip(truth, answer, strict=True):
        wanted, found = spans(row_truth), spans(row_answer)
        hits, given, true = hits + len(wanted & found), given + len(found), true + len(wanted)
    return 2 * hits / (given + true) if given + true else math.nan


def _accuracy_interval(
    errors: np.ndarray, lengths: np.ndarray, seed: int, draws: int = 1000
) -> tuple[float, float]:
    generator = np.random.default_rng(seed)
    found = np.empty(draws)
    for i in range(draws):
        rows = generator.integers(len(errors), size=len(errors))
        found[i] = 1 - errors[rows].sum() / max(int(lengths[rows].sum()), 1)
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan
