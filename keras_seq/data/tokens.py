"""Rows of different lengths: kept flat, cut into batches of like length, padded on the right."""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from keras_seq.data.numbered import NumberedBatches
from keras_seq.errors import UserError

__all__ = ["LengthBatches", "PassBatches", "TokenBatches", "TokenStore"]

_POOL = 50  # batches that are sorted by length together, at most
_POOLS = 4  # in a pass, at least
KEEP = ("head", "ends")


class TokenStore:
    """Many rows of ids, one after the other in one array, in memory or in a file.

    Args:
        ids: (M,) int32, all rows joined; may be a memory map.
        offsets: (N+1,) int64; row i is ids[offsets[i]:offsets[i+1]].

    Raises:
        ValueError: The offsets do not rise from 0 to M.

    Example:
        >>> import numpy as np
        >>> store = TokenStore.from_rows([np.array([5, 6, 7]), np.array([8])])
        >>> len(store), store.lengths.tolist(), store[0].tolist()
        (2, [3, 1], [5, 6, 7])
    """

    _MAGIC: ClassVar[bytes] = b"KSTOKEN1"
    _HEADER: ClassVar[int] = 24  # magic, rows and ids, 8 bytes each

    def __init__(self, ids: np.ndarray, offsets: np.ndarray) -> None:
        self.ids = ids if ids.dtype == np.int32 else ids.astype(np.int32)
        self.offsets = np.ascontiguousarray(offsets, np.int64)
        if self.ids.ndim != 1 or self.offsets.ndim != 1 or len(self.offsets) < 1:
            raise ValueError(
                f"ids and offsets must have one axis, got {ids.shape} and {np.shape(offsets)}"
            )
        lengths = np.diff(self.offsets)
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.ids) or (lengths < 0).any():
            raise ValueError(
                f"offsets must rise from 0 to {len(self.ids)}, got {self.offsets[0]} to "
                f"{self.offsets[-1]}"
            )
        self.lengths = lengths
        self.lengths.setflags(write=False)

    @classmethod
    def from_rows(cls, rows: Iterable[np.ndarray], *, cache: Path | None = None) -> TokenStore:
        """Joins rows; with `cache` they go to a file as they come and never stand in memory.

        Args:
            rows: Whole numbers, each (T,); read once.
            cache: The file to write, under a temporary name until it is whole.

        Returns:
            The store; with `cache` its ids are a read-only memory map.

        Raises:
            ValueError: A row is not a list of whole numbers.

        Example:
            >>> TokenStore.from_rows([[5, 6], [], [7]]).offsets.tolist()
            [0, 2, 2, 3]
        """
        offsets = [0]
        if cache is None:
            parts: list[np.ndarray] = []
            for row in rows:
                parts.append(_int32(row, len(offsets)))
                offsets.append(offsets[-1] + len(parts[-1]))
            ids = np.concatenate(parts) if parts else np.zeros(0, np.int32)
            return cls(ids, np.array(offsets, np.int64))
        cache = Path(cache)
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary = cache.with_name(f".{cache.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(bytes(cls._HEADER))
                for row in rows:
                    part = _int32(row, len(offsets))
                    file.write(part.data)
                    offsets.append(offsets[-1] + len(part))
                if offsets[-1] % 2:
                    file.write(bytes(4))  # offsets stand on a multiple of 8 bytes
                file.write(np.array(offsets, np.int64).data)
                file.seek(0)
                file.write(cls._MAGIC)
                file.write(np.array([len(offsets) - 1, offsets[-1]], np.int64).data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, cache)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return cls.open(cache)

    @classmethod
    def open(cls, cache: Path) -> TokenStore:
        """Opens a file that `from_rows` wrote; the ids stay on disk.

        Args:
            cache: The file.

        Raises:
            UserError: It is missing, or no whole file of ids.
        """
        cache = Path(cache)
        try:
            with open(cache, "rb") as file:
                head = file.read(cls._HEADER)
            size = cache.stat().st_size
        except OSError as error:
            raise UserError(f"{cache} cannot be read: {error.strerror or error}") from None
        rows, count = (int(n) for n in np.frombuffer(head[8:].ljust(16, b"\0"), np.int64))
        start = cls._HEADER + 4 * (count + count % 2)
        if head[:8] != cls._MAGIC or size != start + 8 * (rows + 1):
            raise UserError(f"{cache} is not a whole file of ids: delete it, it is made again")
        offsets = np.fromfile(cache, np.int64, offset=start)
        if not count:  # an empty part of a file cannot be mapped
            return cls(np.zeros(0, np.int32), offsets)
        return cls(np.memmap(cache, np.int32, "r", cls._HEADER, (count,)), offsets)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        """(T,) the ids of a row, a view."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))


def _int32(row: Any, number: int) -> np.ndarray:
    found = np.asarray(row)
    if found.size == 0:
        return np.zeros(0, np.int32)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ValueError(
            f"row {number} must be a list of whole numbers, got {found.dtype} {found.shape}"
        )
    return np.ascontiguousarray(found, np.int32)


class PassBatches(NumberedBatches):
    """Batches of rows, pass after pass, in which batch k is a pure function of k.

    A subclass says how a pass is cut into batches, and what a batch of rows holds. Every pass has
    the same number of batches, so that training goes on from any step.
    """

    rows: np.ndarray  # (M,) the rows that are used
    targets: Any  # None: batches are inputs alone

    def __len__(self) -> int:
        """Number of rows that are used."""
        return len(self.rows)

    @abstractmethod
    def batch(self, index: np.ndarray) -> tuple[dict[str, np.ndarray], Any]:
        """Inputs by name and the targets (or None) of rows (B,), counted in `rows`."""

    @abstractmethod
    def _pass(self, batch_size: int, seed: int | None, number: int) -> list[np.ndarray]:
        """The batches of one pass, as row numbers counted as in `batch`."""

    def _steps_in_order(self, batch_size: int) -> int:
        return self.steps_of_pass(batch_size)

    def _of_pass(self, seed: int | None, number: int) -> PassBatches:
        """The data of one pass, where passes differ in more than their order."""
        return self

    def steps_of_pass(self, batch_size: int, seed: int | None = None) -> int:
        """How many batches a pass has, the same in every pass.

        Args:
            batch_size: See `dataset`.
            seed: See `dataset`.
        """
        return math.ceil(len(self) / batch_size)

    def _numbered(self, batch_size: int, seed: int | None) -> Callable[[int], tuple[Any, Any]]:
        per_pass = self.steps_of_pass(batch_size, seed)
        # Pass, its data, its batches: one name, as several iterators may read and change it.
        held: tuple[int, PassBatches, list[np.ndarray]] | None = None

        def batch(step: int) -> tuple[Any, Any]:
            nonlocal held
            number, place = divmod(step, per_pass)
            if seed is None:
                number = 0  # every pass is the same
            found = held
            if found is None or found[0] != number:
                data = self._of_pass(seed, number)
                found = held = (number, data, data._pass(batch_size, seed, number))
            return found[1].batch(found[2][place])

        return batch


class LengthBatches(PassBatches):
    """Batches of rows of like length: what `TokenBatches` and `SequenceBatches` share.

    A pass over the rows is shuffled and cut into pools of at most 50 batches; a pool is sorted by
    length before it is cut into batches, and the batches of the pass are shuffled. So a batch
    holds rows of like length and little padding, yet what stands together differs from pass to
    pass (Khomenko et al. 2017, "Accelerating recurrent neural network training using sequence
    bucketing"). Batch k is a pure function of k: training goes on from any step.

    Args:
        offsets: (N+1,) where the rows of the flat table start.
        targets: (N, ...) one for each row; or a `TokenStore` with a label for each step, padded
            with 0 like the inputs; or None.
        rows: (M,) the rows to use; None is all.
        max_steps: The most steps of a row; None is no limit.
        keep: What is kept of a longer row: "head", or "ends": the first quarter and the last
            three quarters of `max_steps`.
        extra: More inputs by name: a function of the row numbers (B,) and the padded length T.

    Raises:
        UserError: `keep` or `max_steps` is out of range.
        ValueError: Targets or rows do not fit.
    """

    round_to: int = 8  # batches are padded to a multiple of this: fewer shapes occur

    def __init__(
        self,
        offsets: np.ndarray,
        targets: np.ndarray | TokenStore | None,
        *,
        rows: np.ndarray | None = None,
        max_steps: int | None = None,
        keep: str = "head",
        extra: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] | None = None,
    ) -> None:
        if keep not in KEEP:
            raise UserError(f"keep is {keep!r}: give one of {', '.join(KEEP)}")
        if max_steps is not None and max_steps < 1:
            raise UserError(f"the most tokens of a text is {max_steps}: give at least 1, or none")
        self._offsets = offsets
        full = np.diff(offsets)
        self.rows = np.arange(len(full)) if rows is None else np.asarray(rows)
        if self.rows.dtype == bool:
            self.rows = np.flatnonzero(self.rows)
        self.rows = self.rows.astype(np.int64)
        if self.rows.ndim != 1 or (
            len(self.rows) and not 0 <= self.rows.min() <= self.rows.max() < len(full)
        ):
            raise ValueError(f"rows must be numbers from 0 to {len(full) - 1} in one axis")
        self.targets = (
            targets if targets is None or isinstance(targets, TokenStore) else (np.asarray(targets))
        )
        if self.targets is not None and len(self.targets) != len(full):
            raise ValueError(f"{len(full)} rows need as many targets, got {len(self.targets)}")
        if isinstance(self.targets, TokenStore):
            wrong = np.flatnonzero(self.targets.lengths != full)
            if wrong.size:
                row = int(wrong[0])
                raise ValueError(
                    f"row {row} has {full[row]} steps and {self.targets.lengths[row]} labels"
                )
        self.max_steps = max_steps
        self.keep = keep
        self.extra = dict(extra or {})
        self.lengths = (
            full[self.rows] if max_steps is None else (np.minimum(full[self.rows], max_steps))
        )
        self.lengths.setflags(write=False)

    @abstractmethod
    def inputs(self, rows: np.ndarray, steps: int) -> dict[str, np.ndarray]:
        """The inputs of rows of the table, padded on the right to this many steps."""

    def padded(self, longest: int) -> int:
        """The steps to which a batch is padded whose longest row has so many."""
        steps = max(1, -(-longest // self.round_to)) * self.round_to
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def batch(self, index: np.ndarray) -> tuple[dict[str, np.ndarray], Any]:
        """Pads rows to the longest of them, rounded up to a multiple of 8.

        Args:
            index: (B,) numbers from 0 to `len(self)` - 1, counted in `rows`.

        Returns:
            Inputs by name and the targets (None where there are none).
        """
        index = np.asarray(index)
        return self._batch(self.rows[index], self.padded(int(self.lengths[index].max(initial=1))))

    def _batch(self, rows: np.ndarray, steps: int) -> tuple[dict[str, np.ndarray], Any]:
        inputs = self.inputs(rows, steps)
        for name, function in self.extra.items():
            inputs[name] = np.asarray(function(rows, steps))
        if isinstance(self.targets, TokenStore):
            places, there = self.places(rows, steps)
            return inputs, gather(self.targets.ids, places, there)
        return inputs, None if self.targets is None else self.targets[rows]

    def places(self, rows: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the steps of rows stand in the flat table.

        Args:
            rows: (B,) rows of the table.
            steps: T, the padded length.

        Returns:
            (B, T) int64 places, and (B, T) bool: which of them are real.
        """
        starts = self._offsets[rows][:, None]
        lengths = self._offsets[rows + 1][:, None] - starts
        most = steps if self.max_steps is None else min(steps, self.max_steps)
        columns = np.arange(steps)[None, :]
        there = columns < np.minimum(lengths, most)
        places = starts + columns
        if self.keep == "ends" and self.max_steps is not None:
            cut = np.maximum(lengths - self.max_steps, 0)
            places = places + cut * (columns >= self.max_steps // 4)
        return places, there

    def order(self) -> np.ndarray:
        """(M,) the rows in the order of `dataset` without a seed, counted as in `batch`.

        Predictions in that order are put back by ``out[data.order()] = predictions``.
        """
        return np.argsort(self.lengths, kind="stable")

    def _pass(self, batch_size: int, seed: int | None, number: int) -> list[np.ndarray]:
        """The batches of one pass, as row numbers counted as in `batch`."""
        if seed is None:
            order = self.order()
            ends = np.arange(batch_size, len(order), batch_size)
            return np.split(order, ends) if len(order) else []
        generator = np.random.default_rng([seed, number])
        order = generator.permutation(len(self))
        # Pools are whole batches, so that only the last batch of the last pool is smaller. Little
        # data has smaller pools: in a single one the same rows would always stand together.
        most = math.ceil(len(order) / batch_size / _POOLS)
        pools = np.arange(len(order)) // (min(_POOL, most) * batch_size)
        order = order[np.lexsort((self.lengths[order], pools))]
        found = np.split(order, np.arange(batch_size, len(order), batch_size))
        return [found[i] for i in generator.permutation(len(found))]

    def waste(self, batch_size: int) -> float:
        """The share of padding in the steps of a shuffled pass, 0 to 1.

        Args:
            batch_size: Rows in a batch.

        Example:
            >>> import numpy as np
            >>> store = TokenStore.from_rows([np.arange(5, 5 + n) for n in (8, 8, 4, 4)])
            >>> TokenBatches(store, None).waste(2)
            0.25
        """
        steps = sum(
            len(index) * self.padded(int(self.lengths[index].max(initial=1)))
            for index in self._pass(batch_size, 0, 0)
        )
        return 1 - int(self.lengths.sum()) / steps if steps else 0.0

    def _signature(self) -> Any:
        """What a batch looks like: axes that grow with the padded length are open."""
        import tensorflow as tf

        (x, y), (longer, y_longer) = (self._batch(self.rows[:1], n) for n in (8, 16))

        def spec(a: np.ndarray, b: np.ndarray) -> Any:
            axes = zip(a.shape[1:], b.shape[1:], strict=True)
            return tf.TensorSpec((None, *(m if m == n else None for m, n in axes)), a.dtype)

        inputs = {name: spec(value, longer[name]) for name, value in x.items()}
        return inputs if self.targets is None else (inputs, spec(y, y_longer))


def gather(table: np.ndarray, places: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Rows of a flat table by place, with 0 where there is nothing.

    Args:
        table: (M, ...) values.
        places: (B, T) places, also past the end where `there` is false.
        there: (B, T) which are real.

    Returns:
        (B, T, ...) of the table's type.

    Example:
        >>> import numpy as np
        >>> gather(np.array([5, 6, 7]), np.array([[1, 2, 3]]), np.array([[True, True, False]]))
        array([[6, 7, 0]])
    """
    found = np.zeros((*places.shape, *table.shape[1:]), table.dtype)
    found[there] = table[places[there]]
    return found


class TokenBatches(LengthBatches):
    """Batches of ids, padded on the right with 0: training data of models that read text.

    See `LengthBatches` for how a pass is cut into batches.

    Args:
        store: The ids of N rows.
        targets: (N, ...) one for each row; or a `TokenStore` with a label for each id, padded
            with 0 like the ids; or None.
        rows: (M,) the rows to use; None is all.
        max_tokens: The most ids of a row; None is no limit.
        keep: What is kept of a longer row: "head", or "ends": the first quarter and the last
            three quarters of `max_tokens`.
        extra: More inputs by name: a function of the row numbers (B,) and the padded length T.

    Raises:
        UserError: `keep` or `max_tokens` is out of range.
        ValueError: Targets or rows do not fit.

    Example:
        >>> import numpy as np
        >>> store = TokenStore.from_rows([np.array([5, 6, 7]), np.array([8])])
        >>> x, y = TokenBatches(store, np.array([0, 1])).batch([1, 0])
        >>> x["tokens"]
        array([[8, 0, 0, 0, 0, 0, 0, 0],
               [5, 6, 7, 0, 0, 0, 0, 0]], dtype=int32)
        >>> y
        array([1, 0])
    """

    def __init__(
        self,
        store: TokenStore,
        targets: np.ndarray | TokenStore | None,
        *,
        rows: np.ndarray | None = None,
        max_tokens: int | None = None,
        keep: str = "head",
        extra: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] | None = None,
    ) -> None:
        super().__init__(
            store.offsets, targets, rows=rows, max_steps=max_tokens, keep=keep, extra=extra
        )
        self.store = store
        self.max_tokens = max_tokens

    def inputs(self, rows: np.ndarray, steps: int) -> dict[str, np.ndarray]:
        """{"tokens": (B, T) int32} of rows of the store.

        Args:
            rows: (B,) rows of the store.
            steps: T, the padded length.
        """
        return {"tokens": gather(self.store.ids, *self.places(rows, steps))}
