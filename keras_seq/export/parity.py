"""Whether an artifact computes what the model computes, in numbers.

Differences are relative to the scale of each output, its largest absolute value: an output near
zero in a series of thousands may differ by more than its own size and still be right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_seq.export.exporter import Exporter, ExportError, Run

#: An output that is zero everywhere still has a scale to divide by.
SCALE_FLOOR = 1e-6
#: int8 is to keep the test score within this share of the float model's.
SCORE_TARGET = 0.03
#: int8 may give another label to this share of the samples.
LABEL_TARGET = 0.01
#: A quantised model further off than this (root mean square) is of no use to anybody.
USELESS = 0.5

Score = Callable[[dict[str, np.ndarray]], float]


def compare(
    reference: dict[str, np.ndarray], outputs: dict[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """Compares named outputs with the reference.

    Args:
        reference: What the Keras model answers, (N, ...) for each output.
        outputs: What the artifact answers; the first axis may be shorter.

    Returns:
        For each output ``largest_difference``, ``scale`` (largest absolute reference),
        ``relative`` (the one divided by the other) and ``rms_relative`` (root mean square of the
        differences over that of the reference). Values that are not finite where the
        reference is count as infinitely far; text and truth values count as 0 or 1.

    Raises:
        ExportError: If names or shapes differ.

    Example:
        >>> found = compare({"y": np.array([2.0, -4.0])}, {"y": np.array([2.0, -3.0])})["y"]
        >>> found["largest_difference"], found["scale"], found["relative"]
        (1.0, 4.0, 0.25)
    """
    if set(reference) != set(outputs):
        raise ExportError(
            f"the artifact's outputs are {sorted(outputs)}, the model's {sorted(reference)}"
        )
    found = {}
    for name, expected in reference.items():
        value = outputs[name]
        expected = expected[: len(value)]
        if value.shape != expected.shape:
            raise ExportError(
                f"the artifact's output {name!r} has shape {value.shape}, the model's "
                f"{expected.shape}"
            )
        if expected.dtype.kind not in "fiu":
            wrong = float(distances(value, expected).max(initial=0.0))
            found[name] = {"largest_difference": wrong, "scale": 1.0, "relative": wrong}
            found[name]["rms_relative"] = wrong
            continue
        apart = distances(value, expected)
        exact = expected.astype(np.float64)
        finite = np.abs(exact[np.isfinite(exact)])
        scale = max(float(finite.max(initial=0.0)), SCALE_FLOOR)
        largest = float(apart.max(initial=0.0))
        found[name] = {
            "largest_difference": largest,
            "scale": scale,
            "relative": largest / scale,
            "rms_relative": _rms(apart) / max(_rms(finite), SCALE_FLOOR),
        }
    return found


def distances(value: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Returns how far each value is from the expected one.

    Args:
        value: What came.
        expected: What was wanted, of the same shape.

    Returns:
        Absolute differences, float64. Values that are not finite where the expected are count as
        infinitely far; text and truth values as 0 or 1.

    Example:
        >>> distances(np.array([1.0, np.nan, np.nan]), np.array([3.0, np.nan, 0.0])).tolist()
        [2.0, 0.0, inf]
    """
    if expected.dtype.kind not in "fiu":
        return (value.astype(expected.dtype) != expected).astype(np.float64)
    wide, exact = value.astype(np.float64), expected.astype(np.float64)
    # Equal infinities and equal NaN agree; any other value that is not finite does not.
    same = (wide == exact) | (np.isnan(wide) & np.isnan(exact))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(wide - exact))
    return np.where(np.isnan(apart), np.inf, apart)


def labels_that_differ(
    reference: np.ndarray, probabilities: np.ndarray, real: np.ndarray | None = None
) -> float:
    """Returns the share of labels that an artifact gives differently.

    Args:
        reference: The model's probabilities, (N, classes) or, for a label a step, (N, T, classes).
            Where a row sums to 1 its label is the largest; else each class is there or not (0.5).
        probabilities: The artifact's.
        real: (N, T) truth values; for a label a step, those of the real steps.

    Returns:
        0 to 1.

    Example:
        >>> model = np.array([[0.9, 0.1], [0.4, 0.6]])
        >>> labels_that_differ(model, np.array([[0.8, 0.2], [0.6, 0.4]]))
        0.5
    """
    if reference.ndim > 1 and np.allclose(reference.sum(axis=-1), 1.0, atol=1e-3):
        differ = reference.argmax(axis=-1) != probabilities.argmax(axis=-1)
    else:
        differ = (reference > 0.5) != (probabilities > 0.5)
        if differ.ndim > 1:
            differ = differ.any(axis=-1)
    if real is not None and real.shape == differ.shape:
        differ = differ[real]
    return float(np.mean(differ)) if differ.size else 0.0


def judge(
    exporter: Exporter,
    reference: dict[str, np.ndarray],
    run: Run,
    *,
    tolerance: float | None = None,
    score: Score | None = None,
    real: np.ndarray | None = None,
) -> dict[str, Any]:
    """Decides whether an artifact passes.

    Args:
        exporter: Its format.
        reference: What the Keras model answers.
        run: What the artifact answered.
        tolerance: Instead of the format's own.
        score: Test score of named outputs, for all samples.
        real: (N, T) truth values, the steps that are no padding, where there are any.

    Returns:
        The format's part of ``parity.json``: status ``passed`` or ``missed`` (quantised formats
        only), differences, and scores.

    Raises:
        ExportError: If a float format differs by more than its tolerance, or a quantised one is
            useless: values that are not finite, or more than 50 % off (root mean square).

    Example:
        >>> mine = Exporter(name="mine", path="mine/model.bin", write=print, run=print)
        >>> run = Run(outputs={"y": np.array([1.0, 2.1])})
        >>> judge(mine, {"y": np.array([1.0, 2.0])}, run, tolerance=0.1)["status"]
        'passed'
        >>> judge(mine, {"y": np.array([1.0, 2.0])}, run)
        Traceback (most recent call last):
        ...
        keras_seq.export.exporter.ExportError: mine differs from the model by 0.05 of the scale \
of output 'y', and 1e-05 is allowed; nothing was exported
    """
    allowed = exporter.tolerance if tolerance is None else tolerance
    found = compare(reference, run.outputs)
    for outputs in run.batches.values():
        for name, other in compare(reference, outputs).items():
            found[name] = max(found[name], other, key=lambda entry: entry["relative"])
    worst = max(found, key=lambda name: found[name]["relative"])
    relative = found[worst]["relative"]
    report: dict[str, Any] = {
        "status": "passed" if relative <= allowed else "missed",
        "judged_by": "outputs",
        "relative_difference": relative,
        "largest_difference": max(entry["largest_difference"] for entry in found.values()),
        "tolerance": allowed,
        "outputs": found,
    }
    if score is not None:
        before, after = float(score(reference)), float(score(run.outputs))
        change = (after - before) / max(abs(before), SCALE_FLOOR)
        report["score"] = {"model": before, "artifact": after, "relative_change": change}
        if exporter.by_score:
            report["judged_by"] = "score"
            report["score"]["target"] = SCORE_TARGET
            report["score"]["misses_by"] = max(abs(change) - SCORE_TARGET, 0.0)
            report["status"] = "passed" if abs(change) <= SCORE_TARGET else "missed"
    if "probabilities" in reference:
        share = labels_that_differ(
            reference["probabilities"], run.outputs["probabilities"], real=real
        )
        report["labels"] = {"differ": share, "target": LABEL_TARGET}
        if exporter.by_score:
            # An error rate of few samples moves in large steps; labels that stay tell more.
            report["judged_by"] = "labels"
            report["status"] = "passed" if share <= LABEL_TARGET else "missed"
    if exporter.strict and report["status"] == "missed":
        raise ExportError(
            f"{exporter.name} differs from the model by {relative:.3g} of the scale of output "
            f"{worst!r}, and {allowed:g} is allowed; nothing was exported"
        )
    for name, entry in found.items():
        if not entry["rms_relative"] <= USELESS:  # not `>`: NaN is useless too
            raise ExportError(
                f"{exporter.name} is of no use: it changes the output {name!r} by "
                f"{entry['rms_relative']:.0%}; leave this format out"
            )
    return report


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
