"""Batches each of which is a pure function of its number, as `tf.data.Dataset` and as NumPy."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["NumberedBatches", "numbered_batches"]


def numbered_batches(
    batch: Callable[[int], Any],
    signature: Any,
    *,
    start: int = 0,
    count: int | None = None,
    prefetch: int = 2,
) -> tf.data.Dataset:
    """Makes a dataset of what a function returns for one number after the other.

    It takes the place of `tf.data.Dataset.from_generator`, which slows the rest of the process
    down: steps that XLA compiles take a fifth longer after one has been used than after this.

    Args:
        batch: From a number to NumPy arrays in the structure of `signature`. It runs in a thread
            of the dataset, one number at a time; several iterators may call it in turns.
        signature: `tf.TensorSpec` in tuples, lists and dicts, the batch's number of rows None.
        start: The first number.
        count: How many numbers; None is without end.
        prefetch: Batches that are made ahead.

    Returns:
        A dataset that knows how many batches it has.

    Example:
        >>> import tensorflow as tf
        >>> rows = lambda k: {"x": np.full((2,), k, "int32")}
        >>> found = numbered_batches(rows, {"x": tf.TensorSpec((None,), "int32")}, start=3, count=2)
        >>> [batch["x"].numpy().tolist() for batch in found]
        [[3, 3], [4, 4]]
    """
    import tensorflow as tf

    specs = tf.nest.flatten(signature)
    types = [spec.dtype for spec in specs]

    def arrays(number: np.ndarray) -> list[np.ndarray]:
        found = batch(int(number))
        tf.nest.assert_same_structure(found, signature)
        return [
            np.asarray(a, t.as_numpy_dtype)
            for a, t in zip(tf.nest.flatten(found), types, strict=True)
        ]

    def tensors(number: tf.Tensor) -> Any:
        found = tf.numpy_function(arrays, [number], types)
        for tensor, spec in zip(found, specs, strict=True):
            tensor.set_shape(spec.shape)
        return tf.nest.pack_sequence_as(signature, found)

    if count is None:
        numbers = tf.data.Dataset.counter(start)
    else:
        numbers = tf.data.Dataset.range(start, start + count)
    return numbers.map(tensors).prefetch(prefetch)


class NumberedBatches(ABC):
    """Batches, pass after pass over the data, in which batch k is a pure function of k.

    So training goes on from any step. A subclass says what batch k is.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows, of which a batch takes some."""

    @abstractmethod
    def _numbered(self, batch_size: int, seed: int | None) -> Callable[[int], tuple[Any, Any]]:
        """Returns what gives inputs and targets of a step; several iterators may call it."""

    @abstractmethod
    def _signature(self) -> Any:
        """What a batch looks like, as `tf.TensorSpec`."""

    @abstractmethod
    def _steps_in_order(self, batch_size: int) -> int:
        """How many batches a pass without a seed has."""

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        start_step: int = 0,
        steps: int | None = None,
    ) -> Iterator[tuple[Any, Any]]:
        """The batches of `dataset` as NumPy arrays.

        Args:
            batch_size: See `dataset`.
            seed: See `dataset`.
            start_step: See `dataset`.
            steps: See `dataset`.

        Yields:
            Inputs, and targets or None.
        """
        count = self._count(batch_size, seed, start_step, steps)
        batch = self._numbered(batch_size, seed)
        for step in itertools.islice(itertools.count(start_step), count):
            yield batch(step)

    def dataset(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        start_step: int = 0,
        steps: int | None = None,
    ) -> tf.data.Dataset:
        """Batches as a `tf.data.Dataset` in which batch k depends on k alone.

        Args:
            batch_size: Rows in a batch; one batch of a pass may be smaller.
            seed: Shuffles each pass in its own order; None gives all rows in the order that is
                kept, or sorted by length where batches are made so (see `order` there).
            start_step: The first batch.
            steps: How many batches. None: without end where there is a seed, to the end of the
                pass of `start_step` where there is none.

        Returns:
            A dataset of (inputs, targets), or of inputs alone where there are no targets.

        Raises:
            ValueError: No rows, or a number out of range.
        """
        count = self._count(batch_size, seed, start_step, steps)
        pair = self._numbered(batch_size, seed)

        def batch(step: int) -> Any:
            x, y = pair(step)
            return x if y is None else (x, y)

        return numbered_batches(batch, self._signature(), start=start_step, count=count)

    def _count(
        self, batch_size: int, seed: int | None, start_step: int, steps: int | None
    ) -> int | None:
        """Checks the options of `dataset`; returns the number of batches, None without end."""
        if batch_size < 1 or start_step < 0 or not len(self) or (seed is not None and seed < 0):
            raise ValueError(
                "needs at least one row, batch_size >= 1, start_step >= 0 and seed >= 0, got "
                f"{len(self)} rows, batch_size {batch_size}, start_step {start_step}, seed {seed}"
            )
        if steps is None and seed is None:
            per_pass = self._steps_in_order(batch_size)
            return per_pass - start_step % per_pass
        return steps
