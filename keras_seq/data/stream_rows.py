"""One long row of ids, cut into rows side by side, so that states can be carried along them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_seq.data.streams import StreamBatches
from keras_seq.errors import UserError

__all__ = ["MOST_ROWS", "StreamRows"]

# Rows of a batch. As many slots keep the states of training, as many more those of scoring.
MOST_ROWS = 512


class StreamRows(StreamBatches):
    """Batches in which each row goes on where that row of the batch before ended.

    The stream is cut into as many long rows as a batch has; a batch holds the next `context` ids of
    every row. To train, a pass begins at another id each time, and what does not fill a whole batch
    is left out of the pass. To score, every id of the stream is a target exactly once, and the
    first of a row alone has nothing but one id to go by; a short stream is cut into fewer rows, of
    16 windows at least. Batch k is a pure function of k.

    Two inputs say what becomes of the states (`keras_seq.layers.CarriedStates`): ``fresh`` is 1
    where a row begins anew, and ``slots`` are 0, 1, ... in training and `MOST_ROWS`, ... in
    scoring, so that a validation in the midst of training leaves the states of training alone.

    Args:
        ids: (N,) int32, may be a memory map.
        context: T, the ids of a row in a batch: as far as gradients go back.

    Raises:
        UserError: If there is no id, or a number is out of range.

    Example:
        >>> data = StreamRows(np.arange(5, 105), context=2)
        >>> first, second = [x for x, y in data.batches(2, seed=0, steps=2)]
        >>> (second["tokens"][:, 0] - first["tokens"][:, 1]).tolist()
        [1, 1]
        >>> first["fresh"].tolist(), second["fresh"].tolist(), second["slots"].tolist()
        ([1, 1], [0, 0], [0, 1])
    """

    def __init__(self, ids: np.ndarray, context: int) -> None:
        super().__init__(ids, context)

    def batch(self, index: np.ndarray) -> tuple[dict[str, np.ndarray], Any]:
        """Windows at fixed places, each by itself, as `StreamBatches.batch` gives them.

        Args:
            index: (B,) numbers from 0 to `len(self)` - 1.

        Returns:
            ``tokens`` (B, T), ``slots`` and ``fresh`` (B,) int32, and (B, T) int32 targets.
        """
        x, y = super().batch(index)
        _check_rows(len(y))
        return x | _where(len(y), begins=True, first=MOST_ROWS), y

    def training_batch(
        self, batch_size: int, seed: int, step: int
    ) -> tuple[dict[str, np.ndarray], Any]:
        """The batch of a training step.

        Args:
            batch_size: Rows.
            seed: Of where passes begin.
            step: Its number.

        Returns:
            Inputs and targets, as of `batch`.

        Raises:
            UserError: If the rows are too many.
        """
        _check_rows(batch_size)
        if len(self.ids) < batch_size * self.context:
            raise UserError(
                f"the text has {len(self.ids):,} tokens, and {batch_size} rows of {self.context} "
                "do not fit: give a smaller --batch-size or --context, or more text"
            )
        # So many that a pass may begin at any of the first `context` ids.
        spare = len(self.ids) - self.context + 1
        per_pass = max(1, spare // (batch_size * self.context))
        number, batch = divmod(step, per_pass)
        length = per_pass * self.context  # of a row
        generator = np.random.default_rng([seed, number])
        offset = int(generator.integers(0, len(self.ids) - batch_size * length + 1))
        starts = offset + np.arange(batch_size) * length + batch * self.context
        tokens, following = self._windows(starts)
        return {"tokens": tokens} | _where(batch_size, begins=batch == 0, first=0), following

    def rows(self, batch_size: int) -> int:
        """How many rows the stream is cut into for scoring.

        Args:
            batch_size: The most.
        """
        _check_rows(batch_size)
        return int(np.clip(len(self.ids) // (16 * self.context), 1, batch_size))

    def scoring_steps(self, batch_size: int) -> int:
        """How many batches score the whole stream.

        Args:
            batch_size: The most rows of a batch.
        """
        return math.ceil(math.ceil(len(self.ids) / self.rows(batch_size)) / self.context)

    def scoring_batch(self, batch_size: int, step: int) -> tuple[dict[str, np.ndarray], Any]:
        """A batch of scoring.

        Args:
            batch_size: The most rows of a batch.
            step: Its number.

        Returns:
            Inputs and targets, as of `batch`.
        """
        rows = self.rows(batch_size)
        length = math.ceil(len(self.ids) / rows)
        within = step * self.context + np.arange(self.context)
        tokens, following = self._windows(np.arange(rows) * length + step * self.context)
        there = within < length
        x = {"tokens": np.where(there, tokens, 0).astype(np.int32)}
        y = np.where(there, following, 0).astype(np.int32)
        return x | _where(rows, begins=step == 0, first=MOST_ROWS), y


def _where(rows: int, *, begins: bool, first: int) -> dict[str, np.ndarray]:
    return {
        "slots": np.arange(first, first + rows, dtype=np.int32),
        "fresh": np.full(rows, begins, np.int32),
    }


def _check_rows(rows: int) -> None:
    if rows > MOST_ROWS:
        raise UserError(
            f"the batch size is {rows}: with --stateful give at most {MOST_ROWS}, the states that "
            "are kept"
        )
