"""One long row of ids, cut into windows: what language models are trained and scored on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_seq.data.numbered import NumberedBatches
from keras_seq.errors import UserError

__all__ = ["MaskedBatches", "StreamBatches"]

_START, _MASK, _FIRST = 2, 4, 5  # ids of `<s>`, `<mask>` and the first real token


class StreamBatches(NumberedBatches):
    """Windows of a stream of ids with the next id at every step as the target.

    To train, each pass over the stream is cut into windows that lie side by side, from another
    first id each time, and the windows are shuffled. To score, windows stand at fixed places and
    every id of the stream is a target exactly once: with `stride` equal to `context` the windows
    lie side by side, and a window's first target has one id to go by; with a smaller stride the
    windows overlap, only a window's last `stride` targets count (all of the first window's), and
    each of them has at least ``context - stride`` ids to go by. The first id of the stream is
    predicted from the start token. Batch k is a pure function of k.

    Targets are ids + 1, so that 0 can say: does not count.

    Args:
        ids: (N,) int32, may be a memory map.
        context: T, the steps of a window.
        stride: Steps from one scored window to the next, 1 to `context`; None: `context`.

    Raises:
        UserError: If there is no id, or a number is out of range.

    Example:
        >>> import numpy as np
        >>> data = StreamBatches(np.array([5, 6, 7, 8, 9]), context=3)
        >>> x, y = data.batch(np.arange(len(data)))
        >>> x["tokens"]
        array([[2, 5, 6],
               [7, 8, 0]], dtype=int32)
        >>> y
        array([[ 6,  7,  8],
               [ 9, 10,  0]], dtype=int32)
    """

    def __init__(self, ids: np.ndarray, context: int, *, stride: int | None = None) -> None:
        stride = context if stride is None else stride
        if context < 1:
            raise UserError(f"the context is {context}: give at least 1 token")
        if not 1 <= stride <= context:
            raise UserError(f"the stride is {stride}: give 1 to the context of {context} tokens")
        if np.ndim(ids) != 1 or not len(ids):
            raise UserError("there is no token in a part of the data: give more text")
        self.ids = ids
        self.context = context
        self.stride = stride
        # Seed, pass, starts that were drawn last: one name, as several iterators may change it.
        self._drawn = (-1, -1, np.zeros(0, np.int64))

    def __len__(self) -> int:
        """Number of windows at fixed places."""
        return 1 + max(0, math.ceil((len(self.ids) - self.context) / self.stride))

    def batch(self, index: np.ndarray) -> tuple[dict[str, np.ndarray], Any]:
        """The windows at fixed places with these numbers.

        Args:
            index: (B,) numbers from 0 to `len(self)` - 1.

        Returns:
            {"tokens": (B, T) int32} and (B, T) int32 targets: ids + 1, 0 where none counts.
        """
        index = np.asarray(index)
        tokens, following = self._windows(index * self.stride)
        counted = np.arange(self.context)[None, :] >= self.context - self.stride
        counted = counted | (index[:, None] == 0)
        return {"tokens": tokens}, np.where(counted, following, 0)

    def _windows(self, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, T) inputs and targets; the inputs stand one place before the targets."""
        places = starts[:, None] + np.arange(self.context)[None, :]
        there = places < len(self.ids)
        places = np.minimum(places, len(self.ids) - 1)
        following = np.where(there, self.ids[places] + 1, 0)
        before = np.where(places > 0, self.ids[np.maximum(places - 1, 0)], _START)
        return np.where(there, before, 0).astype(np.int32), following.astype(np.int32)

    def _shuffled(self, batch_size: int, seed: int, step: int) -> np.ndarray:
        """(B,) starts of the windows of a training step.

        A pass is so many whole batches as the stream fills; what is left over at its end is
        another part of the stream in every pass.
        """
        most = max(1, len(self.ids) // self.context)
        per_pass = max(1, most // batch_size)
        number, batch = divmod(step, per_pass)
        drawn = self._drawn
        if (seed, number) != drawn[:2]:
            # One window less leaves room for any offset within a window.
            most -= most > 1
            spare = max(0, len(self.ids) - most * self.context)
            generator = np.random.default_rng([seed, number])
            offset = int(generator.integers(0, spare + 1))
            starts = offset + generator.permutation(most) * self.context
            drawn = self._drawn = (seed, number, starts)
        rows = np.arange(batch * batch_size, (batch + 1) * batch_size)
        return drawn[2][rows % len(drawn[2])]

    def _steps_in_order(self, batch_size: int) -> int:
        return self.scoring_steps(batch_size)

    def _numbered(self, batch_size: int, seed: int | None) -> Callable[[int], tuple[Any, Any]]:
        if seed is not None:
            return lambda step: self.training_batch(batch_size, seed, step)
        per_pass = self.scoring_steps(batch_size)
        return lambda step: self.scoring_batch(batch_size, step % per_pass)

    def scoring_steps(self, batch_size: int) -> int:
        """How many batches hold the windows at fixed places.

        Args:
            batch_size: Windows in a batch.
        """
        return math.ceil(len(self) / batch_size)

    def scoring_batch(self, batch_size: int, step: int) -> tuple[dict[str, np.ndarray], Any]:
        """A batch of windows at fixed places, in order; the last one may be smaller.

        Args:
            batch_size: Windows in it.
            step: Its number, from 0 to `scoring_steps` - 1.

        Returns:
            Inputs and targets as `batch` gives them.
        """
        first = step * batch_size
        return self.batch(np.arange(first, min(first + batch_size, len(self))))

    def training_batch(
        self, batch_size: int, seed: int, step: int
    ) -> tuple[dict[str, np.ndarray], Any]:
        """The batch of a training step.

        Args:
            batch_size: Windows in it.
            seed: Of the order of the windows.
            step: Its number.

        Returns:
            Inputs and targets.
        """
        tokens, following = self._windows(self._shuffled(batch_size, seed, step))
        return {"tokens": tokens}, following

    def _signature(self) -> Any:
        import tensorflow as tf

        x, y = self.batch(np.arange(1))
        return (
            {k: tf.TensorSpec((None, *v.shape[1:]), v.dtype) for k, v in x.items()},
            tf.TensorSpec((None, *y.shape[1:]), y.dtype),
        )


class MaskedBatches(StreamBatches):
    """Windows of a stream in which some ids are hidden, and are the targets.

    Of the real tokens of a window a fixed share is chosen. Of those 80 % become ``<mask>``, 10 %
    another token, and 10 % stay as they are. In training each pass over the stream hides others; at
    fixed places it is always the same ones.

    Args:
        ids: (N,) int32, may be a memory map.
        context: T, the steps of a window.
        vocabulary: Number of ids; the first 5 are never hidden, nor put in place of others.
        share: The part of a window that is hidden; the number M is the same for all windows.

    Raises:
        UserError: If there is no id, or a number is out of range.

    Example:
        >>> import numpy as np
        >>> data = MaskedBatches(np.arange(5, 25), context=10, vocabulary=25, share=0.2)
        >>> x, weights = data.batch([0])
        >>> x["places"].shape, bool((x["tokens"] != np.arange(5, 15)).sum() <= 2)
        ((1, 2), True)
        >>> bool((x["targets"] == x["places"] + 5).all()), weights.tolist()
        (True, [[1.0, 1.0]])

    Reference:
        Devlin et al. 2019, BERT: Pre-training of Deep Bidirectional Transformers for Language
        Understanding.
    """

    def __init__(
        self, ids: np.ndarray, context: int, *, vocabulary: int, share: float = 0.15
    ) -> None:
        super().__init__(ids, context)
        if not 0 < share < 1:
            raise UserError(f"the share of hidden tokens is {share}: give 0 to 1, such as 0.15")
        if vocabulary <= _FIRST:
            raise UserError(f"a vocabulary of {vocabulary} ids has no real token: give more text")
        self.vocabulary = vocabulary
        self.hidden = max(1, round(share * context))  # M

    def batch(self, index: np.ndarray) -> tuple[dict[str, np.ndarray], Any]:
        """The windows at fixed places, each with the same tokens hidden every time.

        Args:
            index: (B,) numbers from 0 to `len(self)` - 1.

        Returns:
            {"tokens": (B, T), "places": (B, M), "targets": (B, M)} int32, and (B, M) float32: 1
            where there is a target, 0 where a window has fewer than M real tokens.
        """
        index = np.asarray(index)
        ids = self._ids(index * self.context)
        draws = [np.random.default_rng([7, int(i)]).random((3, self.context)) for i in index]
        return self._hide(ids, np.stack(draws, 1))

    def training_batch(
        self, batch_size: int, seed: int, step: int
    ) -> tuple[dict[str, np.ndarray], Any]:
        """The batch of a training step.

        Args:
            batch_size: Windows in it.
            seed: Of the order of the windows and of what is hidden.
            step: Its number.

        Returns:
            Inputs and targets, as of `batch`.
        """
        ids = self._ids(self._shuffled(batch_size, seed, step))
        generator = np.random.default_rng([seed, step, 1])
        return self._hide(ids, generator.random((3, *ids.shape)))

    def _ids(self, starts: np.ndarray) -> np.ndarray:
        places = starts[:, None] + np.arange(self.context)[None, :]
        found = self.ids[np.minimum(places, len(self.ids) - 1)]
        return np.where(places < len(self.ids), found, 0).astype(np.int32)

    def _hide(self, ids: np.ndarray, draws: np.ndarray) -> tuple[dict[str, np.ndarray], Any]:
        """Hides M tokens of each row.

        Args:
            ids: (B, T).
            draws: (3, B, T) uniform numbers: which, how, and what in its place.
        """
        rank = np.where(ids >= _FIRST, draws[0], 2.0)  # specials last
        places = np.argpartition(rank, self.hidden - 1, axis=1)[:, : self.hidden]
        places.sort(axis=1)
        true = np.take_along_axis(ids, places, 1)
        how = np.take_along_axis(draws[1], places, 1)
        what = np.take_along_axis(draws[2], places, 1)
        other = _FIRST + (what * (self.vocabulary - _FIRST)).astype(np.int32)
        real = true >= _FIRST
        shown = np.where(how < 0.8, _MASK, np.where(how < 0.9, other, true))
        tokens = ids.copy()
        np.put_along_axis(tokens, places, np.where(real, shown, true).astype(np.int32), 1)
        targets = np.where(real, true, 0).astype(np.int32)
        inputs = {"tokens": tokens, "places": places.astype(np.int32), "targets": targets}
        return inputs, real.astype(np.float32)
