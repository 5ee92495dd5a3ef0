"""Seconds and memory of attention over long sequences, forward and backward: ours and PyTorch's.

    python benchmarks/attention.py --torch PYTHON

PYTHON is an interpreter that has torch; it may be one of another environment. One sequence, 4 heads
of 64, float32: the gradients by queries, keys and values. Each line is a process of its own that
runs once with a short sequence, then with the whole one: memory is how far the resident set grows
over what it was between them, seconds are those of the fastest run. The lines of a length go in
turns.

Writes benchmarks/results/attention.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sides import Side, blocks, conclude, report

HEADS, WIDTH, SHORT, WINDOW = 4, 64, 256, 256
# What each is called.
FORMS = {
    "plain": "all weights at once",
    "tiles": "keras_seq, tiles",
    "causal": "keras_seq, tiles, causal",
    "window": f"keras_seq, {WINDOW} steps each side",
    "torch": "PyTorch scaled_dot_product_attention",
    "torch_causal": "PyTorch, causal",
}
# Tokens at full size, and what is measured there. The plain form of 16,384 would need some 13 GB.
LENGTHS: dict[int, tuple[str, ...]] = {
    2048: ("plain", "tiles"),
    4096: ("window",),
    8192: ("plain", "tiles", "window"),
    16384: ("tiles", "causal", "window", "torch", "torch_causal"),
}
# Length and form, against which, in what, and how many times as good it is to be.
WANTED = (
    (16384, "tiles", "torch", "seconds", 1.0),
    (16384, "tiles", "torch", "memory", 1.0),
    (16384, "causal", "tiles", "seconds", 1.6),
    (16384, "window", "tiles", "seconds", 6.0),
    (8192, "tiles", "plain", "memory", 10.0),
    (8192, "tiles", "plain", "seconds", 1.7),
    (2048, "tiles", "plain", "seconds", 1.8),
)


def with_keras(form: str) -> Callable[[int], Callable[[], Any]]:
    """A length to a step with TensorFlow."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    from keras_seq.layers import dot_product_attention

    options: dict[str, Any] = {"method": "plain" if form == "plain" else "blockwise"}
    if form == "window":
        options = {"method": "window", "window": WINDOW}
    options["causal"] = form == "causal"

    def of(steps: int) -> Callable[[], Any]:
        given = [tf.random.normal((1, HEADS, steps, WIDTH)) for _ in range(3)]

        @tf.function
        def step(*given: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(given)
                y = dot_product_attention(*given, training=True, **options)
                loss = tf.reduce_sum(y * y)
            return tape.gradient(loss, given)

        return lambda: [x.numpy()[0, 0, 0, 0] for x in step(*given)]

    return of


def with_torch(form: str) -> Callable[[int], Callable[[], Any]]:
    """A length to a step with PyTorch."""
    import torch

    def of(steps: int) -> Callable[[], Any]:
        given = [torch.randn(1, HEADS, steps, WIDTH, requires_grad=True) for _ in range(3)]

        def step() -> None:
            for x in given:
                x.grad = None
            attend = torch.nn.functional.scaled_dot_product_attention
            y = attend(*given, is_causal=form == "torch_causal")
            (y * y).sum().backward()

        return step

    return of


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def take_turns(form: str, steps: int) -> None:
    """Runs once whenever it is told to, and says how long it took and how far memory has grown."""
    of = (with_torch if form.startswith("torch") else with_keras)(form)
    of(min(SHORT, steps))()
    before, most, ended = resident(), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.002):
            most[0] = max(most[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    step = of(steps)
    report("ready")
    for _ in blocks():
        began = time.perf_counter()
        step()
        # Seconds first: that is what a side keeps; the rest is read by `main`.
        report(time.perf_counter() - began, (most[0] - before) / 2**20)
    ended.set()
    watcher.join()


class Measured(Side):
    """A side that also says how much memory it needed."""

    megabytes = 0.0

    def answer(self) -> list[str]:
        """Reads until it reports."""
        values = super().answer()
        if len(values) > 1:
            self.megabytes = float(values[1])
        return values


def main() -> None:
    """Measures all, or is one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each; the first compiles")
    parser.add_argument("--shorter", type=int, default=1, help="divides all lengths, for a try")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/attention.md")
    parser.add_argument("--side", nargs=2, metavar=("FORM", "STEPS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        take_turns(options.side[0], int(options.side[1]))
        return
    found: dict[tuple[int, str], tuple[float, float]] = {}
    for full, forms in LENGTHS.items():
        sides = []
        for form in forms:
            python = options.torch if form.startswith("torch") else sys.executable
            steps = str(full // options.shorter)
            sides.append(Measured(form, [python, __file__, "--side", form, steps]))
        for _ in range(options.rounds):
            for side in sides:
                side.block()
        for side in sides:
            side.end()
            seconds = min(side.seconds[1:] or side.seconds)
            found[full, side.name] = seconds, side.megabytes
    lines = [
        f"# Attention over one sequence, {HEADS} heads of {WIDTH}, forward and backward, float32",
        "",
        f"{os.cpu_count()} cores, Python {platform.python_version()}; the fastest of "
        f"{options.rounds - 1} runs in turns after the first; memory is the growth of the resident "
        "set in a process of its own, inputs and gradients included.",
        "",
        "| tokens | | seconds | MB |",
        "|---|---|---|---|",
    ]
    for (full, form), (seconds, megabytes) in found.items():
        steps = full // options.shorter
        lines.append(f"| {steps:,} | {FORMS[form]} | {seconds:.3f} | {megabytes:.0f} |")
    lines += [
        "",
        "| tokens | | against | in | times as good | wanted |",
        "|---|---|---|---|---|---|",
    ]
    fell_short = False
    for full, ours, other, what, wanted in WANTED:
        place = ("seconds", "memory").index(what)
        ratio = found[full, other][place] / max(found[full, ours][place], 1e-9)
        fell_short |= ratio < wanted
        lines.append(
            f"| {full // options.shorter:,} | {FORMS[ours]} | {FORMS[other]} | {what} "
            f"| {ratio:.2f} | {wanted} |"
        )
    lines += ["", "Made by `python benchmarks/attention.py --torch PYTHON`.", ""]
    conclude(lines, options.out, not fell_short)


if __name__ == "__main__":
    main()
