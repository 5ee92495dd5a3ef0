"""Milliseconds of a training step of recurrent layers: ours beside Keras's and PyTorch's.

    python benchmarks/recurrent.py --torch PYTHON

PYTHON is an interpreter that has torch; it may be one of another environment. One layer that
returns all states, 64 sequences of 128 steps with 256 features, width 256: forward and the
gradients by input and weights. All go in turns, a block of steps each, so that a shared machine
drifts for all; medians of the blocks count. The limit is the time of the products alone, at the
rate of a product of 2,048 squared that is measured in the same turns.

Writes benchmarks/results/recurrent.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sides import Side, blocks, conclude, in_turns, report

BATCH, STEPS, WIDTH, SQUARE = 64, 128, 256, 2048
# Products forward and back: of the input and of the state, 6 operations a weight and step.
OPERATIONS = {"lstm": 12 * BATCH * STEPS * WIDTH * 4 * WIDTH}
OPERATIONS["gru"] = OPERATIONS["lstm"] * 3 // 4
# Name of a side: what it is called, whose layer, which, the type.
SIDES = {
    "ours_lstm": ("keras_seq LSTM", "lstm", "float32"),
    "keras_lstm": ("Keras LSTM", "lstm", "float32"),
    "torch_lstm": ("PyTorch LSTM", "lstm", "float32"),
    "ours_lstm_16": ("keras_seq LSTM", "lstm", "bfloat16"),
    "keras_lstm_16": ("Keras LSTM", "lstm", "bfloat16"),
    "ours_gru": ("keras_seq GRU", "gru", "float32"),
    "keras_gru": ("Keras GRU", "gru", "float32"),
    "torch_gru": ("PyTorch GRU", "gru", "float32"),
}
# Ours, against whom, and how many times as fast it is to be.
WANTED = (
    ("ours_lstm", "keras_lstm", 1.35),
    ("ours_lstm", "torch_lstm", 1.25),
    ("ours_gru", "keras_gru", 1.25),
    ("ours_gru", "torch_gru", 1.7),
    ("ours_lstm_16", "keras_lstm", 1.9),
)


def with_keras(side: str) -> Callable[[], Any]:
    """A step with TensorFlow."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf

    import keras_seq

    if side == "square":
        a = tf.random.normal((SQUARE, SQUARE))
        product = tf.function(lambda: tf.linalg.matmul(a, a))
        return lambda: product().numpy()
    _, kind, dtype = SIDES[side]
    home = keras_seq.layers if side.startswith("ours") else keras.layers
    policy = "mixed_bfloat16" if dtype == "bfloat16" else dtype
    layer = getattr(home, kind.upper())(WIDTH, return_sequences=True, dtype=policy)
    layer.build((BATCH, STEPS, WIDTH))
    x = tf.random.normal((BATCH, STEPS, WIDTH))

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean(tf.square(tf.cast(layer(x, training=True), tf.float32)))
        return tape.gradient(loss, [x, *[w.value for w in layer.trainable_variables]])

    return lambda: step()[0].numpy()


def with_torch(side: str) -> Callable[[], Any]:
    """A step with PyTorch."""
    import torch

    kind = torch.nn.LSTM if "lstm" in side else torch.nn.GRU
    layer = kind(WIDTH, WIDTH, batch_first=True)
    x = torch.randn(BATCH, STEPS, WIDTH, requires_grad=True)

    def step() -> None:
        layer.zero_grad(set_to_none=True)
        x.grad = None
        layer(x)[0].square().mean().backward()

    return step


def take_turns(side: str, steps: int) -> None:
    """Runs blocks of steps whenever it is told to."""
    step = (with_torch if side.startswith("torch") else with_keras)(side)
    step()
    report("ready")
    for _ in blocks():
        began = time.perf_counter()
        for _ in range(steps):
            step()
        report((time.perf_counter() - began) / steps)


def main() -> None:
    """Measures all, or is one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--steps", type=int, default=5, help="of a block")
    parser.add_argument("--rounds", type=int, default=10, help="blocks, the first does not count")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/recurrent.md")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        take_turns(options.side, options.steps)
        return
    sides = {}
    for name in (*SIDES, "square"):
        python = options.torch if name.startswith("torch") else sys.executable
        command = [python, __file__, "--steps", str(options.steps), "--side", name]
        sides[name] = Side(name, command)
    seconds = in_turns(sides, options.rounds)
    rate = 2 * SQUARE**3 / seconds["square"]
    lines = [
        f"# Training a recurrent layer of width {WIDTH}: {BATCH} sequences of {STEPS} steps",
        "",
        f"{os.cpu_count()} cores, Python {platform.python_version()}; {options.rounds - 1} blocks "
        f"of {options.steps} steps in turns, medians. Products of {SQUARE:,} squared run at "
        f"{rate / 1e9:.0f} GFLOP/s.",
        "",
        "| | type | ms a step | against Keras, float32 | times its limit |",
        "|---|---|---|---|---|",
    ]
    for name, (label, kind, dtype) in SIDES.items():
        ratio = seconds[f"keras_{kind}"] / seconds[name]
        limit = seconds[name] / (OPERATIONS[kind] / rate)
        lines.append(
            f"| {label} | {dtype} | {1000 * seconds[name]:.0f} | {ratio:.2f} | {limit:.2f} |"
        )
    lines += ["", "| | against | times as fast | wanted |", "|---|---|---|---|"]
    fell_short = False
    for ours, other, wanted in WANTED:
        ratio = seconds[other] / seconds[ours]
        fell_short |= ratio < wanted
        names = [f"{SIDES[side][0]}, {SIDES[side][2]}" for side in (ours, other)]
        lines.append(f"| {names[0]} | {names[1]} | {ratio:.2f} | {wanted} |")
    lines += ["", "Made by `python benchmarks/recurrent.py --torch PYTHON`.", ""]
    conclude(lines, options.out, not fell_short)


if __name__ == "__main__":
    main()
