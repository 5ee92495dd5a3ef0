"""Milliseconds of dropout, forward and backward: this package's layer beside Keras's.

    python benchmarks/dropout.py            # attention weights of 64 texts, 4 heads, 128 steps

Both layers run in one process, in turns, as TensorFlow runs a graph and compiled by XLA; the
medians count.

Writes benchmarks/results/dropout.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

import keras_seq

SHAPES = ((64, 32, 256), (64, 32, 1024), (64, 4, 128, 128), (64, 4, 256, 256))


def both_ways(layer: keras.layers.Layer, compiled: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    """The gradient of a sum of squares through the layer."""
    layer.build(())

    @tf.function(jit_compile=compiled)
    def gradient(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(tf.square(layer(x, training=True)))
        return tape.gradient(total, x)

    return gradient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", default="benchmarks/results/dropout.md")
    options = parser.parse_args()
    rows = []
    for shape in SHAPES:
        x = tf.random.normal(shape)
        for compiled in (False, True):
            layers = (keras_seq.layers.Dropout(options.rate), keras.layers.Dropout(options.rate))
            cases = [both_ways(layer, compiled) for layer in layers]
            seconds: list[list[float]] = [[] for _ in cases]
            for turn in range(options.rounds + 1):
                for case, times in zip(cases, seconds, strict=True):
                    begin = time.perf_counter()
                    case(x)
                    if turn:  # the first one compiles
                        times.append(time.perf_counter() - begin)
            ours, theirs = (1000 * statistics.median(times) for times in seconds)
            how = "XLA" if compiled else "graph"
            rows.append(
                f"| {' x '.join(map(str, shape))} | {how} | {ours:.1f} | {theirs:.1f} | "
                f"{theirs / ours:.1f} |"
            )
            print(rows[-1], flush=True)
    Path(options.out).write_text(
        f"# Dropout of {options.rate:g}, forward and backward\n\n"
        f"{os.cpu_count()} cores, Python {platform.python_version()}, TensorFlow "
        f"{tf.__version__}, Keras {keras.__version__}; float32, medians of {options.rounds} "
        "in turns, with the sum of squares whose gradient it is.\n\n"
        "| shape | run as | keras_seq ms | Keras ms | times as fast |\n|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n\nMade by `python benchmarks/dropout.py`.\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
