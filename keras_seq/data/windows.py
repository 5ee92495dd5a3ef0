"""Windows of a series: one batched gather over strided views, no window copied before its turn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Windows"]

_CHUNK_BYTES = 6 << 20  # of the batches that `Windows.dataset` gathers in one step


class Windows:
    """Pairs of (lookback, horizon) cut from rows at given starts, a batch at a time.

    A window that starts at row s has inputs [s, s + lookback) and targets
    [s + lookback, s + lookback + horizon). Two overlapping views of the rows have one row for
    each window; a fancy index on them copies every window as one block of memory.

    Args:
        values: (N, C) numbers; float32 and C-ordered arrays are not copied (a read-only
            memory map stays on disk).
        starts: (W,) row numbers of the window starts, as `Split.starts` gives them.
        lookback: input steps, at least 1.
        horizon: target steps, at least 1.
        time_index: (N,) calendar positions; adds the first step's position to the inputs.
        covariates: (N, K) numbers known ahead; adds lookback + horizon steps of them.

    Raises:
        ValueError: shapes do not fit, or a window would leave the rows.

    Example:
        >>> import numpy as np
        >>> windows = Windows(np.arange(6.0)[:, None], np.arange(3), lookback=3, horizon=1)
        >>> inputs, targets = windows.batch([2, 0])
        >>> inputs["series"][..., 0]
        array([[2., 3., 4.],
               [0., 1., 2.]], dtype=float32)
        >>> targets[..., 0]
        array([[5.],
               [3.]], dtype=float32)
    """

    def __init__(
        self,
        values: np.ndarray,
        starts: np.ndarray,
        lookback: int,
        horizon: int,
        *,
        time_index: np.ndarray | None = None,
        covariates: np.ndarray | None = None,
    ) -> None:
        if lookback < 1 or horizon < 1:
            raise ValueError(
                f"lookback and horizon must be at least 1, got {lookback} and {horizon}"
            )
        self.lookback, self.horizon = int(lookback), int(horizon)
        self.starts = np.ascontiguousarray(starts, np.int64)
        rows, span = len(values), lookback + horizon
        if np.ndim(values) != 2 or self.starts.ndim != 1:
            raise ValueError(
                f"values must be (rows, channels) and starts (windows,), got shapes "
                f"{np.shape(values)} and {self.starts.shape}"
            )
        if len(self.starts) and (self.starts.min() < 0 or self.starts.max() + span > rows):
            raise ValueError(
                f"a window of {lookback} + {horizon} rows must lie inside {rows} rows, got starts "
                f"from {self.starts.min()} to {self.starts.max()}"
            )
        self.channels = values.shape[1]
        self._values = np.ascontiguousarray(values, np.float32)
        self._series = _view(self._values, self.lookback)
        self._targets = _view(self._values, self.horizon)
        self._known: np.ndarray | None = None
        self._covariates: np.ndarray | None = None
        self._time_index: np.ndarray | None = None
        self.known = 0
        if covariates is not None and covariates.shape[1]:
            if len(covariates) != rows:
                raise ValueError(f"covariates have {len(covariates)} rows, values {rows}")
            self.known = covariates.shape[1]
            self._known = np.ascontiguousarray(covariates, np.float32)
            self._covariates = _view(self._known, span)
        if time_index is not None:
            if np.shape(time_index) != (rows,):
                raise ValueError(f"time_index must be ({rows},), got {np.shape(time_index)}")
            self._time_index = np.ascontiguousarray(time_index, np.int32)

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.starts)

    def batch(self, indices: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The windows with these numbers.

        Args:
            indices: (B,) window numbers, a slice, or a mask over the windows.

        Returns:
            Inputs {"series": (B, L, C) float32, "time_index": (B,) int32 where given,
            "covariates": (B, L + H, K) float32 where given}, and targets (B, H, C) float32.
        """
        starts = self.starts[indices]
        size = len(starts)
        inputs = {"series": self._series[starts].reshape(size, self.lookback, self.channels)}
        if self._time_index is not None:
            inputs["time_index"] = self._time_index[starts]
        if self._covariates is not None:
            span = self.lookback + self.horizon
            inputs["covariates"] = self._covariates[starts].reshape(size, span, self.known)
        targets = self._targets[starts + self.lookback]
        return inputs, targets.reshape(size, self.horizon, self.channels)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches in one pass, the last and smaller one counted."""
        return -(-len(self) // batch_size)

    def order(self, seed: int | None, epoch: int) -> np.ndarray:
        """(W,) window numbers in the order in which an epoch takes them."""
        if seed is None:
            return np.arange(len(self))
        import tensorflow as tf

        with tf.device("CPU:0"):
            numbers = tf.range(len(self), dtype=tf.int64)
            return _shuffled(numbers, seed, tf.constant(epoch, tf.int64), len(self)).numpy()

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        start_step: int = 0,
        steps: int | None = None,
    ) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """The batches of `dataset` as NumPy arrays, for loops that are not TensorFlow's.

        The quickest way to the windows: each batch is one gather from the strided views.

        Args:
            batch_size: see `dataset`.
            seed: see `dataset`.
            start_step: see `dataset`.
            steps: see `dataset`.

        Yields:
            Inputs and targets as `batch` gives them.

        Example:
            >>> import numpy as np
            >>> windows = Windows(np.arange(6.0)[:, None], np.arange(3), lookback=3, horizon=1)
            >>> [targets[:, 0, 0].tolist() for _, targets in windows.batches(2)]
            [[3.0, 4.0], [5.0]]
        """
        steps = self._steps(batch_size, seed, start_step, steps)
        per_epoch = self.steps_per_epoch(batch_size)
        step, drawn, order = start_step, -1, np.arange(0)
        while steps is None or step < start_step + steps:
            epoch, within = divmod(step, per_epoch)
            if epoch != drawn:
                drawn, order = epoch, self.order(seed, epoch)
            yield self.batch(order[within * batch_size : (within + 1) * batch_size])
            step += 1

    def dataset(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        start_step: int = 0,
        steps: int | None = None,
    ) -> tf.data.Dataset:
        """Batches as a `tf.data.Dataset` in which batch k depends on the step k alone.

        Epoch k // steps_per_epoch takes the windows in an order that depends on seed and epoch
        alone (in their own order when `seed` is `None`), so training goes on from any step with
        the batches it would have seen.

        Everything runs inside TensorFlow. The gather itself is quicker in NumPy (see `batches`),
        but a call to Python from a pipeline's thread costs more than a gather, holds up the
        training loop, and can hang the program when it ends while such a call is under way. So
        several batches are gathered in one step and handed out without a copy.
        benchmarks/windows.py holds the measurements.

        Args:
            batch_size: windows in a batch; the last batch of an epoch may be smaller.
            seed: whole number from 0, or `None` for the windows in order.
            start_step: global step of the first batch.
            steps: number of batches. `None`: without end where there is a seed (give `fit` its
                `steps_per_epoch`), to the end of the epoch of `start_step` where there is none.

        Returns:
            A dataset of (inputs, targets) as `batch` gives them.

        Raises:
            ValueError: no windows, or a number out of range.
        """
        import tensorflow as tf

        steps = self._steps(batch_size, seed, start_step, steps)
        span = self.lookback + self.horizon
        size = 4 * batch_size * span * (self.channels + self.known)
        windows = len(self)
        plan = _Plan(windows, batch_size, max(1, min(_CHUNK_BYTES // size, 64)))
        # Every row with the rows after it, so that a window is copied in fewer, longer pieces.
        block = next(n for n in (4, 3, 2, 1) if not (self.lookback % n or self.horizon % n))
        with tf.device("CPU:0"):  # pipelines run there: from a GPU each step would copy them
            starts = tf.constant(self.starts)
            values = tf.constant(np.ascontiguousarray(_view(self._values, block)))
            known = None
            if self._known is not None:
                known = tf.constant(np.ascontiguousarray(_view(self._known, block)))
            index = None if self._time_index is None else tf.constant(self._time_index)

        def gather(table: tf.Tensor, places: tf.Tensor, steps: int) -> tf.Tensor:
            pieces = tf.gather(table, places)  # (batches, B, steps / block, block * C)
            shape = tf.shape(pieces)
            width = table.shape[1] // block
            return tf.reshape(pieces, [shape[0], shape[1], steps, width])

        def fetch(chunk: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
            epoch, first, count, size = plan.chunk(chunk)
            numbers = first + tf.range(count * size)
            numbers = _shuffled(numbers, seed, epoch, windows)
            # (batches, B) rows
            rows = tf.reshape(tf.gather(starts, numbers), [count, size])
            places = rows[..., None]
            past = tf.range(0, self.lookback, block, dtype=tf.int64)
            ahead = tf.range(self.lookback, span, block, dtype=tf.int64)
            inputs = {"series": gather(values, places + past, self.lookback)}
            if index is not None:
                inputs["time_index"] = tf.gather(index, rows)
            if known is not None:
                both = tf.concat([past, ahead], axis=0)
                inputs["covariates"] = gather(known, places + both, span)
            return inputs, gather(values, places + ahead, self.horizon)

        first, skip = plan.locate(start_step)
        chunks = tf.data.Dataset.counter(first)
        if steps is not None:
            # the last chunk wanted is the one that holds the last step
            last, _ = plan.locate(start_step + max(steps, 1) - 1)
            chunks = tf.data.Dataset.range(first, last + 1)
        batches = (
            chunks.map(fetch, num_parallel_calls=2, deterministic=True)
            .prefetch(1)
            .flat_map(lambda inputs, targets: tf.data.Dataset.from_tensor_slices((inputs, targets)))
        )
        if skip:
            batches = batches.skip(skip)
        if steps is not None:
            batches = batches.take(steps)
        count = tf.data.INFINITE_CARDINALITY if steps is None else steps
        return batches.apply(tf.data.experimental.assert_cardinality(count))

    def _steps(
        self, batch_size: int, seed: int | None, start_step: int, steps: int | None
    ) -> int | None:
        """Check the options that `batches` and `dataset` share; `None` is without end."""
        if batch_size < 1 or start_step < 0 or not len(self) or (seed is not None and seed < 0):
            raise ValueError(
                "needs at least one window, batch_size >= 1, start_step >= 0 and seed >= 0, got "
                f"{len(self)} windows, batch_size {batch_size}, start_step {start_step}, "
                f"seed {seed}"
            )
        if steps is None and seed is None:
            per_epoch = self.steps_per_epoch(batch_size)
            return per_epoch - start_step % per_epoch
        return steps


class _Plan:
    """How an epoch's batches are grouped into chunks of equal batches.

    The last batch of an epoch is a chunk of its own where it is smaller than the others, since
    the batches of one chunk are stacked.
    """

    def __init__(self, windows: int, batch_size: int, per_chunk: int) -> None:
        self.batch_size = batch_size
        self.full, self.rest = divmod(windows, batch_size)
        self.per_chunk = max(1, min(per_chunk, self.full))
        self.full_chunks = -(-self.full // self.per_chunk)
        self.chunks = self.full_chunks + bool(self.rest)

    def locate(self, step: int) -> tuple[int, int]:
        """The chunk that holds a step, and the batches before it in that chunk."""
        epoch, within = divmod(step, self.full + bool(self.rest))
        if within >= self.full:
            return epoch * self.chunks + self.full_chunks, 0
        chunk, skip = divmod(within, self.per_chunk)
        return epoch * self.chunks + chunk, skip

    def chunk(self, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Epoch, first window, number of batches and batch size of a chunk (int64 scalars)."""
        import tensorflow as tf

        epoch, within = number // self.chunks, number % self.chunks
        whole = within < self.full_chunks
        first = within * self.per_chunk
        count = tf.where(whole, tf.minimum(first + self.per_chunk, self.full) - first, 1)
        size = tf.where(whole, tf.constant(self.batch_size, tf.int64), self.rest)
        first = tf.where(whole, first, self.full) * self.batch_size
        return epoch, first, count, size


def _shuffled(numbers: tf.Tensor, seed: int | None, epoch: tf.Tensor, windows: int) -> tf.Tensor:
    """Where a permutation of the windows, drawn from seed and epoch, sends these numbers."""
    import tensorflow as tf

    if seed is None or windows == 1:
        return numbers
    seeds = tf.stack([tf.constant(seed, tf.int64), epoch])
    # each number is sent on its own: nothing is kept between calls
    return tf.random.experimental.index_shuffle(numbers, seeds, tf.constant(windows - 1, tf.int64))


def _view(values: np.ndarray, length: int) -> np.ndarray:
    """(N - length + 1, length * C) read-only view: row s is rows [s, s + length) end to end."""
    rows, width = values.shape
    return np.lib.stride_tricks.as_strided(
        values.reshape(-1),
        (max(rows - length + 1, 0), length * width),
        (4 * width, 4),
        writeable=False,
    )
