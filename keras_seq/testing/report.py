"""What a check finds, and how many of them are run and reported together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

Checks = dict[str, Callable[[], None]]
Arrays = dict[str, np.ndarray]


class CheckFailure(AssertionError):
    """One property does not hold; the message says where and by how much."""


@dataclass(frozen=True)
class Result:
    """What one check found.

    Args:
        check: The property's name.
        error: Why it does not hold, or None.
        seconds: How long the check took.
    """

    check: str
    error: str | None
    seconds: float


@dataclass(frozen=True)
class Report:
    """The results of all the checks of one subject.

    Args:
        subject: The name of the layer, model or architecture.
        results: One for each check, in order.
    """

    subject: str
    results: tuple[Result, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """The checks that did not pass."""
        return tuple(result for result in self.results if result.error is not None)

    def __str__(self) -> str:
        passed = len(self.results) - len(self.failures)
        lines = [f"{self.subject}: {passed} of {len(self.results)} checks passed"]
        for result in self.results:
            lines.append(
                f"  passed  {result.check}"
                if result.error is None
                else f"  FAILED  {result.check}: {result.error}"
            )
        return "\n".join(lines)


def run_checks(
    subject: str,
    found: Checks,
    *,
    checks: Iterable[str] | None = None,
    skip: Iterable[str] = (),
) -> Report:
    """Runs checks, goes on after a failure, and raises at the end if there was one.

    Args:
        subject: A name for the messages.
        found: Functions by name, from `layer_checks` and its sisters.
        checks: The names to run; default all.
        skip: Names to leave out.

    Returns:
        The report.

    Raises:
        AssertionError: If a check fails; the message lists all that fail.
        ValueError: If a name is unknown.

    Example:
        >>> print(run_checks("nothing", {"fine": lambda: None}))
        nothing: 1 of 1 checks passed
          passed  fine
    """
    wanted, unwanted = (None if checks is None else set(checks)), set(skip)
    if unknown := ((wanted or set()) | unwanted) - set(found):
        raise ValueError(
            f"unknown checks {sorted(unknown)} for {subject}: these apply to it: {sorted(found)}"
        )
    results = []
    for name, function in found.items():
        if name in unwanted or (wanted is not None and name not in wanted):
            continue
        error, start = None, time.perf_counter()
        try:
            function()
        except CheckFailure as failure:
            error = str(failure)
        except Exception as failure:  # a crash is a failed check like another
            error = f"{type(failure).__name__}: {failure}"
        results.append(Result(name, error, time.perf_counter() - start))
    report = Report(subject, tuple(results))
    if report.failures:
        raise AssertionError(str(report))
    return report


def require(condition: Any, message: str) -> None:
    """Raises `CheckFailure` with the message unless the condition holds."""
    if not condition:
        raise CheckFailure(message)


def close(got: np.ndarray, wanted: np.ndarray, tolerance: float, what: str) -> None:
    """Compares relative to the size of the values, not element by element."""
    require(got.shape == wanted.shape, f"{what}: shapes {got.shape} and {wanted.shape} differ")
    if not wanted.size:
        return
    got, wanted = got.astype("float64"), wanted.astype("float64")
    scale = max(1.0, float(np.max(np.abs(wanted))))
    difference = float(np.max(np.abs(got - wanted))) / scale
    require(
        difference <= tolerance,  # False for NaN
        f"{what}: they differ by {difference:.2g} of the largest value, {tolerance:.0e} is allowed",
    )


def all_close(got: Arrays, wanted: Arrays, tolerance: float, what: str) -> None:
    """Compares outputs by name, each relative to the size of its values."""
    require(got.keys() == wanted.keys(), f"{what}: outputs {list(got)} and {list(wanted)}")
    for name, value in wanted.items():
        close(got[name], value, tolerance, f"{what}, {name}")
