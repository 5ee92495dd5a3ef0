"""Windows of a series: one batched gather over strided views, no window copied before its turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Windows"]

_CHUNK_BYTES = 12 << 20  # of batches fetched in one call from TensorFlow: see Windows.dataset
_PIECE_BYTES = 512 << 10  # of one gather: its temporary stays in the second-level cache


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
        self._series = _view(values, self.lookback)
        self._targets = _view(values, self.horizon)
        self._covariates: np.ndarray | None = None
        self._time_index: np.ndarray | None = None
        self.known = 0
        if covariates is not None and covariates.shape[1]:
            if len(covariates) != rows:
                raise ValueError(f"covariates have {len(covariates)} rows, values {rows}")
            self.known = covariates.shape[1]
            self._covariates = _view(covariates, span)
        if time_index is not None:
            if np.shape(time_index) != (rows,):
                raise ValueError(f"time_index must be ({rows},), got {np.shape(time_index)}")
            self._time_index = np.ascontiguousarray(time_index, np.int32)
        self._order: tuple[tuple[int, int], np.ndarray] | None = None

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
        cached = self._order
        if cached is None or cached[0] != (seed, epoch):
            drawn = np.random.default_rng([seed, epoch]).permutation(len(self))
            cached = self._order = ((seed, epoch), drawn)
        return cached[1]

    def dataset(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        start_step: int = 0,
        steps: int | None = None,
    ) -> tf.data.Dataset:
        """Batches as a `tf.data.Dataset` in which batch k depends on the step k alone.

        Epoch k // steps_per_epoch takes the windows in the order
        `np.random.default_rng([seed, epoch]).permutation(W)` (in their own order when `seed` is
        `None`), so training goes on from any step with the batches it would have seen.

        Several batches are gathered in each call from TensorFlow to NumPy, into memory aligned so
        that TensorFlow takes it, and each batch of it, without a copy: the call itself costs
        more than a gather. benchmarks/windows.py holds the measurements.

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

        if batch_size < 1 or start_step < 0 or not len(self):
            raise ValueError(
                f"needs at least one window, batch_size >= 1 and start_step >= 0, got {len(self)} "
                f"windows, batch_size {batch_size}, start_step {start_step}"
            )
        plan = _Plan(self, batch_size, seed)
        per_epoch = self.steps_per_epoch(batch_size)
        if steps is None and seed is None:
            steps = per_epoch - start_step % per_epoch
        first, skip = plan.locate(start_step)
        signature = {"series": tf.TensorSpec((None, self.lookback, self.channels), tf.float32)}
        if self._time_index is not None:
            signature["time_index"] = tf.TensorSpec((None,), tf.int32)
        if self._covariates is not None:
            span = self.lookback + self.horizon
            signature["covariates"] = tf.TensorSpec((None, span, self.known), tf.float32)
        names = list(signature)
        specs = [
            *signature.values(),
            tf.TensorSpec((None, self.horizon, self.channels), tf.float32),
        ]

        def fetch(chunk: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
            arrays = tf.numpy_function(plan.chunk, [chunk], [s.dtype for s in specs], False)
            for array, spec in zip(arrays, specs, strict=True):
                array.set_shape([None, *spec.shape])  # (batches, B, ...)
            return dict(zip(names, arrays[:-1], strict=True)), arrays[-1]

        chunks = tf.data.Dataset.counter(first)
        if steps is not None:
            # the last chunk wanted is the one that holds the last step
            last = plan.locate(start_step + max(steps, 1) - 1)[0]
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


class _Plan:
    """How an epoch's batches are grouped into chunks of equal batches.

    The last batch of an epoch is a chunk of its own where it is smaller than the others, since
    the batches of one chunk are stacked.
    """

    def __init__(self, windows: Windows, batch_size: int, seed: int | None) -> None:
        self.windows, self.batch_size, self.seed = windows, batch_size, seed
        steps = windows.lookback + windows.horizon
        size = 4 * batch_size * steps * (windows.channels + windows.known)
        self.full, rest = divmod(len(windows), batch_size)
        self.per_chunk = max(1, min(_CHUNK_BYTES // size, 64, self.full))
        self.full_chunks = -(-self.full // self.per_chunk)
        self.chunks = self.full_chunks + bool(rest)

    def locate(self, step: int) -> tuple[int, int]:
        """The chunk that holds a step, and the batches before it in that chunk."""
        epoch, within = divmod(step, self.windows.steps_per_epoch(self.batch_size))
        if within >= self.full:
            return epoch * self.chunks + self.full_chunks, 0
        chunk, skip = divmod(within, self.per_chunk)
        return epoch * self.chunks + chunk, skip

    def chunk(self, number: int) -> list[np.ndarray]:
        """Stacked arrays of one chunk: inputs in the order of `Windows.batch`, then targets."""
        epoch, chunk = divmod(int(number), self.chunks)
        size = self.batch_size
        if chunk < self.full_chunks:
            first = chunk * self.per_chunk
            count = min(self.per_chunk, self.full - first)
        else:
            first, count, size = self.full, 1, len(self.windows) - self.full * size
        begin = first * self.batch_size
        windows = self.windows
        numbers = windows.order(self.seed, epoch)[begin : begin + count * size]
        starts = windows.starts[numbers]
        lookback, channels = windows.lookback, windows.channels
        arrays = [_gather(windows._series, starts, (count, size, lookback, channels))]
        if windows._time_index is not None:
            arrays.append(windows._time_index[starts].reshape(count, size))
        if windows._covariates is not None:
            span = lookback + windows.horizon
            arrays.append(_gather(windows._covariates, starts, (count, size, span, windows.known)))
        shape = (count, size, windows.horizon, channels)
        return [*arrays, _gather(windows._targets, starts + lookback, shape)]


def _view(values: np.ndarray, length: int) -> np.ndarray:
    """(N - length + 1, length * C) read-only view: row s is rows [s, s + length) end to end."""
    flat = np.ascontiguousarray(values, np.float32)
    rows, width = flat.shape
    return np.lib.stride_tricks.as_strided(
        flat,
        (max(rows - length + 1, 0), length * width),
        (4 * width, 4),
        writeable=False,
    )


def _gather(view: np.ndarray, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The view's rows in new memory at a multiple of 64 bytes, which TensorFlow need not copy."""
    size = 4 * int(np.prod(shape))
    memory = np.empty(size + 64, np.uint8)
    shift = -memory.ctypes.data % 64
    out = memory[shift : shift + size].view(np.float32).reshape(len(rows), -1)
    piece = max(1, _PIECE_BYTES // (4 * view.shape[1]))
    for begin in range(0, len(rows), piece):
        out[begin : begin + piece] = view[rows[begin : begin + piece]]
    return out.reshape(shape)
