"""Programs that are measured in turns, each in a process of its own, and the page about them.

A side answers a line with ``RESULT`` and numbers; between two of them it waits for the line ``go``,
so that a shared machine drifts for all sides alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn


def blocks() -> Iterator[None]:
    """One for each line that says to go on."""
    for line in sys.stdin:
        if line.strip() != "go":
            return
        yield


def report(*values: Any) -> None:
    """Answers the process that started this one."""
    print("RESULT", *values, flush=True)


def keras_turns(steps: int) -> Any:
    """Returns a callback that waits for ``go`` before each epoch, and answers its seconds.

    Args:
        steps: Of an epoch; what comes after the last one does not count.
    """
    import keras

    told = blocks()

    class Turns(keras.callbacks.Callback):
        """Waits for its turn before each block."""

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            next(told)
            self.began = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == steps - 1:
                report(time.perf_counter() - self.began)

    return Turns()


class Side:
    """One program, started and ready.

    Args:
        name: As tables say.
        command: What starts it.
    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.seconds: list[float] = []
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.about = self.answer()

    def answer(self) -> list[str]:
        """Reads until it reports."""
        if self.process.stdout is None:
            raise RuntimeError("no output")
        for line in self.process.stdout:
            if line.startswith("RESULT"):
                return line.split()[1:]
        raise RuntimeError(f"{self.name} ended without a result")

    def block(self) -> None:
        """Lets it go on, and notes its seconds."""
        if self.process.stdin is None:
            raise RuntimeError("no input")
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self.seconds.append(float(self.answer()[0]))

    def end(self) -> None:
        """Lets it end."""
        self.process.communicate()


def in_turns(sides: Mapping[str, Side], rounds: int) -> dict[str, float]:
    """Lets each do its blocks, one after the other, and end.

    Args:
        sides: By name.
        rounds: Blocks of each; the first does not count.

    Returns:
        The median of the seconds of a block, by name.
    """
    for _ in range(rounds):
        for side in sides.values():
            side.block()
    for side in sides.values():
        side.end()
    return {name: statistics.median(side.seconds[1:]) for name, side in sides.items()}


def conclude(lines: Sequence[str], out: Path, met: bool) -> NoReturn:
    """Prints and writes a page, and ends with 1 where what was wanted was not met."""
    print("\n".join(lines))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines), encoding="utf-8")
    sys.exit(0 if met else 1)
