"""Batches of pairs of ids: what encoder-decoders are trained on."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_seq.data.tokens import PassBatches, TokenStore, gather
from keras_seq.errors import UserError

__all__ = ["PairBatches"]

_START, _END = 2, 3  # ids of `<s>` and `</s>`
_MIXED = 4  # batches that share their rows: what stands together differs from pass to pass
_LEAST = 4  # steps to which the lengths of a batch are rounded up, at least
_SPARE = 0.02  # more batches in a pass than the first one needs, where lengths change by pass

# (seed, pass) -> the source and target ids of that pass.
Segment = Callable[[int, int], tuple[TokenStore, TokenStore]]


class PairBatches(PassBatches):
    """Batches of source and target ids, padded on the right with 0, with little padding.

    A batch is ``{"source": (B, S), "tokens": (B, T)}`` and targets (B, T), all int32. ``tokens``
    is the start token and the target's ids, the targets are the target's ids and the end token,
    each id + 1, so that 0 can say: no target (see `keras_seq.losses.MaskedCrossentropy`).

    Pairs are put in order by the length of both sides, rounded up to a multiple of 4 (of an eighth
    of the next power of two, from 33 on), so that few shapes occur. The order is cut into classes
    of 4 batches. In each pass pairs of the same rounded lengths change places, the pairs of a
    class are dealt to its batches anew, and the batches are shuffled. Where classes and batches
    begin depends on the lengths alone: every pass has as many batches, and batch k is a pure
    function of k.

    Args:
        source: The ids of N sources.
        target: The ids of N targets, without start and end.
        rows: (M,) the rows to use; None is all.
        batch_tokens: The most padded steps of a batch, source and target together: a batch then
            has as many pairs as fit, and the `batch_size` of the methods means nothing. None:
            batches of `batch_size` pairs.
        max_source: The most steps of a source; the head is kept. None is no limit.
        max_target: The most steps of ``tokens``: the start and so many ids less one. A target
            that is cut does not end in the end token. None is no limit.
        segment: For training, other ids of the same texts in each pass (see
            `keras_seq.preprocessing.SubwordSampler`): a function of the seed and the number of
            the pass that gives N sources and N targets. Batches without a seed do without it. With
            `batch_tokens`, a pass may then have a few smaller batches than it needs, so that all
            have as many; and a pair that alone is over the limit in a pass is a batch of its own.

    Raises:
        UserError: A limit is out of range, or the longest pair does not fit into `batch_tokens`.
        ValueError: The stores or rows do not fit each other.

    Example:
        >>> source = TokenStore.from_rows([[5, 6, 7], [8]])
        >>> target = TokenStore.from_rows([[9, 10], [11, 12, 13]])
        >>> x, y = PairBatches(source, target).batch([0, 1])
        >>> x["source"].tolist()
        [[5, 6, 7, 0], [8, 0, 0, 0]]
        >>> x["tokens"].tolist()
        [[2, 9, 10, 0], [2, 11, 12, 13]]
        >>> y.tolist()
        [[10, 11, 4, 0], [12, 13, 14, 4]]

    References:
        Khomenko et al. 2017, Accelerating recurrent neural network training using sequence
        bucketing; Vaswani et al. 2017, Attention Is All You Need (batches by tokens).
    """

    def __init__(
        self,
        source: TokenStore,
        target: TokenStore,
        *,
        rows: np.ndarray | None = None,
        batch_tokens: int | None = None,
        max_source: int | None = None,
        max_target: int | None = None,
        segment: Segment | None = None,
    ) -> None:
        if len(source) != len(target):
            raise ValueError(f"{len(source)} sources need as many targets, got {len(target)}")
        for name, limit, least in (("source", max_source, 1), ("target", max_target, 2)):
            if limit is not None and limit < least:
                raise UserError(
                    f"the most tokens of a {name} is {limit}: give at least {least}, or none"
                )
        self.rows = np.arange(len(source)) if rows is None else np.asarray(rows)
        if self.rows.dtype == bool:
            self.rows = np.flatnonzero(self.rows)
        self.rows = self.rows.astype(np.int64)
        if self.rows.ndim != 1 or (
            len(self.rows) and not 0 <= self.rows.min() <= self.rows.max() < len(source)
        ):
            raise ValueError(f"rows must be numbers from 0 to {len(source) - 1} in one axis")
        self.batch_tokens = batch_tokens
        self.max_source = max_source
        self.max_target = max_target
        self.segment = segment
        self._steps: int | None = None  # batches of a pass, where the plan alone would not do
        self._drawn: tuple[tuple[int, int], PairBatches] | None = None
        self._steps_of: dict[int, int] = {}  # by seed
        self._measure(source, target)
        if batch_tokens is not None and len(self):
            longest = int(self._shapes.sum(axis=1).max())
            if batch_tokens < longest:
                raise UserError(
                    f"{batch_tokens:,} tokens are too few for a batch: the longest pair takes "
                    f"{longest:,} with its padding; give at least as many, or cut long texts"
                )

    def _measure(self, source: TokenStore, target: TokenStore) -> None:
        """Takes the ids and puts the rows in order by their rounded lengths."""
        self.source, self.targets = source, target
        limits = (self.max_source, self.max_target)
        lengths = [source.lengths[self.rows], target.lengths[self.rows] + 1]
        for i, most in enumerate(limits):
            if most is not None:
                lengths[i] = np.minimum(lengths[i], most)
        self.lengths = np.stack(lengths, 1)  # (M, 2)
        self.lengths.setflags(write=False)
        self._shapes = _rounded(self.lengths, limits)
        s, t = self._shapes.T
        # Long targets first. Of neighbouring target lengths one goes from long to short sources,
        # the next from short to long: shapes that follow each other differ little.
        place = np.unique(-t, return_inverse=True)[1].reshape(-1)
        wide = int(s.max(initial=0)) + 1
        self._keys = place * wide + np.where(place % 2, s, wide - 1 - s)
        self._plans: dict[int, list[tuple[int, int]]] = {}

    # ------------------------------------------------------------------------- one batch

    def batch(self, index: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Pads pairs to the longest of them, rounded up.

        Args:
            index: (B,) numbers from 0 to `len(self)` - 1, counted in `rows`.

        Returns:
            {"source": (B, S), "tokens": (B, T)} and the targets (B, T), all int32.
        """
        index = np.asarray(index, np.int64)
        s, t = self._shape(index)
        return self._batch(self.rows[index], s, t)

    def _shape(self, index: np.ndarray) -> tuple[int, int]:
        s, t = self._shapes[index].max(axis=0, initial=1)
        return int(s), int(t)

    def _batch(
        self, rows: np.ndarray, source_steps: int, target_steps: int
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        source = gather(self.source.ids, *_places(self.source, rows, source_steps))
        ids = gather(self.targets.ids, *_places(self.targets, rows, target_steps))
        last = self.targets.lengths[rows][:, None]  # where the end stands, (B, 1)
        steps = np.arange(target_steps)[None, :]
        tokens = np.where(steps <= last, np.roll(ids, 1, axis=1), 0).astype(np.int32)
        tokens[:, 0] = _START
        following = np.where(steps < last, ids + 1, 0).astype(np.int32)
        following[steps == last] = _END + 1
        return {"source": source, "tokens": tokens}, following

    def _signature(self) -> Any:
        import tensorflow as tf

        spec = tf.TensorSpec((None, None), tf.int32)
        return {"source": spec, "tokens": spec}, spec

    # ------------------------------------------------------------------------ one pass

    def order(self) -> np.ndarray:
        """(M,) the rows in the order of `dataset` without a seed, counted as in `batch`.

        Predictions in that order are put back by ``out[data.order()] = predictions``.
        """
        return np.argsort(self._keys, kind="stable")

    def _plan(self, batch_size: int) -> list[tuple[int, int]]:
        """The classes: (where it ends in the order, rows of a batch)."""
        if batch_size not in self._plans:
            if self.batch_tokens is None:
                # What is left at the end joins the class before: alone it would not be mixed.
                classes = max(1, len(self) // (_MIXED * batch_size))
                ends = [_MIXED * batch_size * i for i in range(1, classes)]
                found = [(end, batch_size) for end in (*ends, len(self))]
            else:
                found = self._token_plan(self.batch_tokens)
            self._plans[batch_size] = found
        return self._plans[batch_size]

    def _token_plan(self, limit: int) -> list[tuple[int, int]]:
        """Classes whose batches stay within the limit, however their rows are dealt."""
        shapes = self._shapes[self.order()]
        found: list[tuple[int, int]] = []
        start = 0
        while start < len(shapes):
            most = max(1, limit // int(shapes[start].sum()))
            longest = np.maximum.accumulate(shapes[start : start + _MIXED * most], axis=0)
            counts = np.arange(1, most + 1)
            ends = np.minimum(_MIXED * counts, len(longest))
            fits = counts * longest[ends - 1].sum(axis=1) <= limit
            # Where not even one fits, each row is a batch: that fits unless the row is too long.
            count = max(1, int(np.count_nonzero(fits)))
            start += min(_MIXED * count, len(longest))
            found.append((start, count))
        starts = [0, *(end for end, _ in found)]
        if len(found) > 1 and starts[-1] - starts[-2] < _MIXED * found[-1][1]:
            # What is left at the end joins the class before: alone it would not be mixed.
            longest = shapes[starts[-3] :].max(axis=0)
            found[-2:] = [(starts[-1], max(1, limit // int(longest.sum())))]
        return found

    def _pass(self, batch_size: int, seed: int | None, number: int) -> list[np.ndarray]:
        plan = self._plan(1 if self.batch_tokens else batch_size)
        steps = self._steps
        if steps is not None and self.batch_tokens is not None:
            # As good as never: the ids of this pass need more batches than the first pass and some.
            limit = self.batch_tokens
            while _count(plan) > steps:
                limit = math.ceil(limit * (1 + _SPARE))
                plan = self._token_plan(limit)
        order, generator = self.order(), None
        if seed is not None:
            generator = np.random.default_rng([seed, number])
            order = generator.permutation(len(self))
            order = order[np.argsort(self._keys[order], kind="stable")]
        found: list[np.ndarray] = []
        start = 0
        for end, count in plan:
            rows = order[start:end]
            if generator is not None:
                rows = generator.permutation(rows)
            found += np.split(rows, np.arange(count, len(rows), count))
            start = end
        if generator is None:
            return found
        while steps is not None and len(found) < steps:
            largest = max(range(len(found)), key=lambda i: len(found[i]))
            half = len(found[largest]) // 2
            found[largest : largest + 1] = [found[largest][:half], found[largest][half:]]
        return [found[i] for i in generator.permutation(len(found))]

    def _of_pass(self, seed: int | None, number: int) -> PairBatches:
        if self.segment is None or seed is None:
            return self
        drawn = self._drawn
        if drawn is None or drawn[0] != (seed, number):
            source, target = self.segment(seed, number)
            if not len(source) == len(target) == len(self.source):
                raise ValueError(
                    f"segment must give {len(self.source)} sources and targets, got {len(source)} "
                    f"and {len(target)}"
                )
            found = copy.copy(self)
            found._measure(source, target)
            found._steps = self._steps_of.get(seed)
            drawn = self._drawn = ((seed, number), found)
        return drawn[1]

    def steps_of_pass(self, batch_size: int, seed: int | None = None) -> int:
        """How many batches a pass has, the same in every pass.

        Args:
            batch_size: Pairs in a batch; means nothing with `batch_tokens`.
            seed: See `dataset`.

        Example:
            >>> store = TokenStore.from_rows([[5] * 7] * 10)
            >>> PairBatches(store, store, batch_tokens=64).steps_of_pass(1)
            3
        """
        if self.batch_tokens is None:
            return math.ceil(len(self) / batch_size)
        if self.segment is None or seed is None:
            return _count(self._plan(1))
        if seed not in self._steps_of:
            # The first pass says how many batches there are; others may need some more.
            first = self._of_pass(seed, 0)
            needed = _count(first._plan(1))
            first._steps = min(len(self), math.ceil((1 + _SPARE) * needed) + 1)
            self._steps_of[seed] = first._steps
        return self._steps_of[seed]

    def waste(self, batch_size: int = 64) -> float:
        """The share of padding in the steps of a shuffled pass, source and target, 0 to 1.

        Args:
            batch_size: Pairs in a batch; means nothing with `batch_tokens`.

        Example:
            >>> source = TokenStore.from_rows([[5] * n for n in (8, 8, 6, 6)])
            >>> PairBatches(source, source).waste(4)  # 60 real steps of 4 * (8 + 12)
            0.25
        """
        steps = sum(len(index) * sum(self._shape(index)) for index in self._pass(batch_size, 0, 0))
        return 1 - int(self.lengths.sum()) / steps if steps else 0.0


def _count(plan: list[tuple[int, int]]) -> int:
    """How many batches a plan has."""
    starts = [0, *(end for end, _ in plan)]
    return sum(-(-(end - start) // n) for start, (end, n) in zip(starts, plan, strict=False))


def _rounded(lengths: np.ndarray, limits: tuple[int | None, int | None]) -> np.ndarray:
    """(M, 2) the steps to which pairs of these lengths are padded."""
    bits = np.frexp(np.maximum(lengths - 1, 0))[1]  # of the length - 1, as a binary number
    unit = np.maximum(_LEAST, 2 ** bits.astype(np.int64) // 8)
    found = np.maximum(1, -(-lengths // unit)) * unit
    for axis, most in enumerate(limits):
        if most is not None:
            found[:, axis] = np.minimum(found[:, axis], most)
    return found


def _places(store: TokenStore, rows: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the steps of rows stand in the flat table, and which of them are real: (B, steps)."""
    columns = np.arange(steps)[None, :]
    return store.offsets[rows][:, None] + columns, columns < store.lengths[rows][:, None]
