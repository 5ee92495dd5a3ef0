"""Windows a second: this package's gather beside Keras's and other ways to cut windows.

    python benchmarks/windows.py            # 100,000 rows, 7 columns, lookback 336, batch 64

All cases run in one process, in turns, several times; the medians count, since a shared machine
drifts. Every case gives shuffled batches of (lookback, channels) inputs and (horizon, channels)
targets. "in a graph" takes the batches of a dataset in a compiled loop, as `fit` does; "from
Python" calls `next` for each batch, which costs more than a gather does.
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
import numpy as np
import tensorflow as tf

from keras_seq.data.windows import Windows

WANTED = 40.0
BASELINE = "keras.utils.timeseries_dataset_from_array"

Case = Callable[[int], object]


def in_python(dataset: tf.data.Dataset) -> Case:
    batches = iter(dataset)

    def take(count: int) -> None:
        for _ in range(count):
            next(batches)

    return take


def in_graph(dataset: tf.data.Dataset) -> Case:
    batches = iter(dataset)

    @tf.function
    def loop(count: tf.Tensor) -> tf.Tensor:
        total = tf.zeros((), tf.float32)
        for _ in tf.range(count):
            inputs, targets = next(batches)
            series = inputs["series"] if isinstance(inputs, dict) else inputs
            # touches both, so that neither can be left out
            total += series[0, 0, 0] + targets[0, 0, 0]
        return total

    return lambda count: loop(tf.constant(count)).numpy()


def cases(options: argparse.Namespace) -> dict[str, Case]:
    lookback, horizon, batch = options.lookback, options.horizon, options.batch
    span = lookback + horizon
    values = np.random.default_rng(0).standard_normal((options.rows, options.columns))
    values = values.astype(np.float32)
    starts = np.arange(options.rows - span + 1)
    windows = Windows(values, starts, lookback, horizon)

    def keras_dataset() -> tf.data.Dataset:
        # the usual recipe for several steps ahead: cut the whole span, then divide it
        whole = keras.utils.timeseries_dataset_from_array(
            values, None, sequence_length=span, batch_size=batch, shuffle=True
        )
        return whole.map(lambda w: (w[:, :lookback], w[:, lookback:])).repeat()

    def gather_dataset() -> tf.data.Dataset:
        rows, steps = tf.constant(values), tf.range(span)

        def cut(begin: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            whole = tf.gather(rows, tf.cast(begin, tf.int32)[:, None] + steps)
            return whole[:, :lookback], whole[:, lookback:]

        order = tf.data.Dataset.range(len(starts)).shuffle(len(starts)).batch(batch, True)
        return order.repeat().map(cut, num_parallel_calls=2).prefetch(4)

    endless = windows.batches(batch, seed=0)

    def in_numpy(count: int) -> None:
        for _ in range(count):
            next(endless)

    return {
        f"{BASELINE}, from Python": in_python(keras_dataset()),
        f"{BASELINE}, in a graph": in_graph(keras_dataset()),
        "tf.gather of a batch of numbers, in a graph": in_graph(gather_dataset()),
        "Windows.batches (NumPy)": in_numpy,
        "Windows.dataset (tf.data), in a graph": in_graph(windows.dataset(batch, seed=0)),
        "Windows.dataset (tf.data), from Python": in_python(windows.dataset(batch, seed=0)),
    }


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Median windows a second of each case."""
    table = cases(options)
    counts = {name: options.batches // (5 if "Windows" not in name else 1) for name in table}
    for take in table.values():
        take(30)  # traces the graph, fills the buffers
    seconds: dict[str, list[float]] = {name: [] for name in table}
    for _ in range(options.repeats):
        for name, take in table.items():
            begin = time.perf_counter()
            take(counts[name])
            seconds[name].append((time.perf_counter() - begin) / counts[name])
    return {name: options.batch / statistics.median(times) for name, times in seconds.items()}


def report(options: argparse.Namespace, rates: dict[str, float]) -> str:
    peer = f"{BASELINE}, from Python", f"{BASELINE}, in a graph"
    lines = [
        "# Windows a second",
        "",
        f"{options.rows:,} rows of {options.columns} columns, lookback {options.lookback}, horizon "
        f"{options.horizon}, batch {options.batch}, shuffled; medians of {options.repeats} turns "
        f"in one process; {os.cpu_count()} cores, Python {platform.python_version()}, TensorFlow "
        f"{tf.__version__}, Keras {keras.__version__}, NumPy {np.__version__}.",
        "",
        "| way | windows a second | against Keras, from Python | against Keras, in a graph |",
        "|---|---|---|---|",
    ]
    for name, rate in rates.items():
        ratios = " | ".join(f"{rate / rates[p]:.1f}" for p in peer)
        lines.append(f"| {name} | {rate:,.0f} | {ratios} |")
    lines += ["", f"At least {WANTED:.0f} times Keras's faster case:", ""]
    best = max(rates[p] for p in peer)
    for name in rates:
        if name.startswith("Windows"):
            ratio = rates[name] / best
            lines.append(f"- {name}: {ratio:.1f}, {'met' if ratio >= WANTED else 'NOT met'}")
    command = (
        f"python benchmarks/windows.py --rows {options.rows} --columns {options.columns} "
        f"--lookback {options.lookback} --horizon {options.horizon} --batch {options.batch} "
        f"--batches {options.batches} --repeats {options.repeats}"
    )
    return "\n".join([*lines, "", f"Made by `{command}`.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=7)
    parser.add_argument("--lookback", type=int, default=336)
    parser.add_argument("--horizon", type=int, default=96)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=1500, help="batches in a turn")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/windows.md")
    options = parser.parse_args()
    text = report(options, measure(options))
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)


if __name__ == "__main__":
    main()
