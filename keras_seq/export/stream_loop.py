"""A stream through one signature: each step is given what the step before it left.

The workers that stand for the runtimes run this; nothing here imports TensorFlow or Keras.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

#: The input that counts the steps, where a signature has one.
POSITION = "position"


def stream(
    call: Callable[[Arrays], Mapping[str, Any]],
    inputs: Arrays,
    states: Arrays,
    *,
    position: bool,
    most_position: int | None = None,
) -> tuple[Arrays, dict[str, Any]]:
    """Runs a step over sequences, from states of zeros.

    Args:
        call: The signature: inputs, states and perhaps ``position`` to outputs and states.
        inputs: (B, S, ...), what each of S calls gets.
        states: The states before the first step, batch first.
        position: Whether the signature counts the steps, as ``position`` (B,) int32.
        most_position: Where a caller may stop counting; None: never.

    Returns:
        The outputs that are no states, (B, S, ...); and ``latency_ms``, the median of a call, and
        ``memory_growth_mb``, by how much the process grew in the last three quarters of the
        calls, where the system tells.

    Example:
        >>> def call(given):
        ...     total = given["total"] + given["x"]
        ...     return {"total": total, "y": 2 * total}
        >>> found, _ = stream(call, {"x": np.ones((1, 3))}, {"total": np.zeros(1)}, position=False)
        >>> found["y"].tolist()
        [[2.0, 4.0, 6.0]]
    """
    batch, steps = next(iter(inputs.values())).shape[:2]
    found: dict[str, np.ndarray] = {}
    times = np.zeros(steps)
    early: float | None = None
    for t in range(steps):
        given = {name: value[:, t] for name, value in inputs.items()} | states
        if position:
            now = t if most_position is None else min(t, most_position)
            given[POSITION] = np.full(batch, now, "int32")
        started = time.perf_counter()
        results = call(given)
        times[t] = time.perf_counter() - started
        # Copied: a runtime may use its memory again in the next call.
        states = {name: np.array(results[name]) for name in states}
        for name, value in results.items():
            if name in states:
                continue
            here = np.asarray(value)
            if name not in found:
                found[name] = np.zeros((batch, steps, *here.shape[1:]), here.dtype)
            found[name][:, t] = here
        if t == steps // 4:
            early = resident_memory()
    late = resident_memory()
    return found, {
        "latency_ms": float(np.median(times)) * 1e3,
        "memory_growth_mb": None if early is None or late is None else round(late - early, 2),
    }


def resident_memory() -> float | None:
    """Memory that the process has now, MiB; None where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return None
