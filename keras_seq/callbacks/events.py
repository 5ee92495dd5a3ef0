"""TensorBoard event files of one folder: open, look into, and take events out again.

TensorBoard's files are append-only. A run that is killed and goes on from its last checkpoint
trains some epochs a second time, and would log them twice; so what the new attempt is going to
write again is taken out of the earlier files first. Only files with our suffix are ever touched.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

SUFFIX = ".keras_seq"
GRAPH = "graph"  # the name under which `drop` and `tags` speak of the graph, which has no tag


def open_writer(folder: Path) -> tf.summary.SummaryWriter:
    """Returns a writer of a new event file in `folder`, which is made if needed."""
    return tf.summary.create_file_writer(str(folder), filename_suffix=SUFFIX)


@contextlib.contextmanager
def writing(writer: tf.summary.SummaryWriter) -> Iterator[None]:
    """Makes `writer` the default for tf.summary.

    A keras.callbacks.TensorBoard(update_freq=N) beside ours leaves a "record only every N-th
    batch" switched on, in which epoch values would vanish: hence `record_if(True)`.
    """
    with writer.as_default(), tf.summary.record_if(True):
        yield


def own_files(folder: Path) -> list[Path]:
    """Returns the event files of `folder` that this package wrote, oldest first."""
    return sorted(Path(folder).glob(f"*tfevents*{SUFFIX}"))


def read(path: Path) -> Iterator[Any]:
    """Yields the Event messages of a file, up to the record that a kill cut off, if one did."""
    records = iter(tf.data.TFRecordDataset(str(path)))
    while True:
        try:
            record = next(records)
        except (StopIteration, tf.errors.DataLossError):
            return
        yield tf.compat.v1.Event.FromString(record.numpy())


def tags(folder: Path) -> set[str]:
    """Returns every tag in our files of `folder`."""
    found: set[str] = set()
    for path in own_files(folder):
        for event in read(path):
            found.update(value.tag for value in event.summary.value)
            if event.graph_def:
                found.add(GRAPH)
    return found


def drop(folder: Path, where: Callable[[int, str], bool]) -> int:
    """Takes events out of our files of `folder`.

    Args:
        folder: The folder; its sub-folders are left alone.
        where: `(step, tag) -> bool`, True for what has to go.

    Returns:
        How many values were taken out.
    """
    total = 0
    for path in own_files(folder):
        kept, dropped = [], 0
        for event in read(path):
            if event.graph_def:
                if where(event.step, GRAPH):
                    dropped += 1
                    continue
            elif event.summary.value:
                values = [v for v in event.summary.value if not where(event.step, v.tag)]
                dropped += len(event.summary.value) - len(values)
                if not values:
                    continue
                if len(values) < len(event.summary.value):
                    del event.summary.value[:]
                    event.summary.value.extend(values)
            kept.append(event)
        if not dropped:
            continue
        total += dropped
        if all(event.file_version for event in kept):  # nothing but the header is left
            path.unlink()
            continue
        # No "tfevents" in the temporary name: TensorBoard must not pick up half a file.
        temporary = path.with_name(f".rewriting.{os.getpid()}")
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for event in kept:
                writer.write(event.SerializeToString())
        os.replace(temporary, path)
    return total
