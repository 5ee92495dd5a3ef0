"""Milliseconds of a training step of linear recurrences beside those of an LSTM.

    python benchmarks/scans.py

One layer that returns all states, of width 256, for 8 sequences of 1,024 steps with 256 features:
forward and the gradients by input and weights. `MinGRU` and `DiagonalStateSpace` also with 4, 2 and
1 sequences of 2,048, 4,096 and 8,192 steps: the time for a step of a sequence is to stay the same.
All go in turns, a block of steps each, so that a shared machine drifts for all; medians of the
blocks count.

Writes benchmarks/results/scans.md.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sides import Side, blocks, conclude, in_turns, report

WIDTH, TOKENS = 256, 8192
LENGTHS = (1024, 2048, 4096, 8192)
# Name of a side: what it is called, and how many times as fast as Keras's LSTM it is to be.
SIDES = {
    "keras_lstm": ("Keras LSTM", None),
    "lstm": ("keras_seq LSTM", 2.0),
    "min_gru": ("keras_seq MinGRU", 8.0),
    "state_space": ("keras_seq DiagonalStateSpace", 4.5),
}
FLAT = 1.3  # times as long for a step of the longest sequence as of the shortest, at most


def lengths_of(side: str, longest: int) -> list[int]:
    """The lengths that are measured, those of the LSTM being the first alone."""
    return [n for n in LENGTHS if n <= longest][: 1 if "lstm" in side else None]


def training_step(side: str, length: int, tokens: int, width: int) -> Callable[[], Any]:
    """A step of a layer, for sequences of one length."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf

    from keras_seq import layers

    kinds = {
        "keras_lstm": keras.layers.LSTM,
        "lstm": layers.LSTM,
        "min_gru": layers.MinGRU,
        "state_space": layers.DiagonalStateSpace,
    }
    layer = kinds[side](width, return_sequences=True)
    shape = (max(1, tokens // length), length, width)
    layer.build(shape)
    x = tf.random.normal(shape)

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean(tf.square(layer(x, training=True)))
        return tape.gradient(loss, [x, *[w.value for w in layer.trainable_variables]])

    return lambda: step()[0].numpy()


def take_turns(side: str, options: argparse.Namespace) -> None:
    """Runs a block of one length after the other whenever it is told to."""
    lengths = lengths_of(side, options.longest)
    steps = [training_step(side, n, options.tokens, options.width) for n in lengths]
    for step in steps:
        step()
    report("ready")
    for _, step in zip(blocks(), itertools.cycle(steps), strict=False):
        began = time.perf_counter()
        for _ in range(options.steps):
            step()
        report((time.perf_counter() - began) / options.steps)


def main() -> None:
    """Measures all, or is one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2, help="of a block")
    parser.add_argument("--rounds", type=int, default=6, help="blocks, the first does not count")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of a batch")
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--longest", type=int, default=LENGTHS[-1], help="steps of a sequence")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/scans.md")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        take_turns(options.side, options)
        return
    sides = {}
    for name in SIDES:
        given = {key: getattr(options, key) for key in ("steps", "tokens", "width", "longest")}
        command = [f"--{key}={value}" for key, value in given.items()]
        sides[name] = Side(name, [sys.executable, __file__, *command, "--side", name])
    many = max(len(lengths_of(name, options.longest)) for name in SIDES)
    in_turns(sides, options.rounds * many)
    seconds = {}
    for name, side in sides.items():
        lengths = lengths_of(name, options.longest)
        for i, n in enumerate(lengths):
            seconds[name, n] = statistics.median(side.seconds[i :: len(lengths)][1:])
    batch = options.tokens // LENGTHS[0]
    lines = [
        f"# Training linear recurrences of width {options.width}",
        "",
        f"{os.cpu_count()} cores, Python {platform.python_version()}; medians of blocks of "
        f"{options.steps} steps in turns, {options.rounds - 1} of each length.",
        "",
        f"| {batch} sequences of {LENGTHS[0]:,} steps | ms a step | times as fast | wanted |",
        "|---|---|---|---|",
    ]
    fell_short = False
    for name, (label, wanted) in SIDES.items():
        ratio = seconds["keras_lstm", LENGTHS[0]] / seconds[name, LENGTHS[0]]
        fell_short |= wanted is not None and ratio < wanted
        took = 1000 * seconds[name, LENGTHS[0]]
        lines.append(f"| {label} | {took:.0f} | {ratio:.2f} | {wanted or ''} |")
    lengths = lengths_of("min_gru", options.longest)
    lines += [
        "",
        f"Microseconds for a step of a sequence, {options.tokens:,} of them in a batch:",
        "",
        f"| | {' | '.join(f'{n:,}' for n in lengths)} | last by first | wanted at most |",
        f"|---|{'---|' * (len(lengths) + 2)}",
    ]
    for name in ("min_gru", "state_space"):
        times = [1e6 * seconds[name, n] / (max(1, options.tokens // n) * n) for n in lengths]
        ratio = times[-1] / times[0]
        fell_short |= ratio > FLAT
        cells = " | ".join(f"{t:.2f}" for t in times)
        lines.append(f"| {SIDES[name][0]} | {cells} | {ratio:.2f} | {FLAT} |")
    lines += ["", "Made by `python benchmarks/scans.py`.", ""]
    conclude(lines, options.out, not fell_short)


if __name__ == "__main__":
    main()
