"""Texts as pairs to learn from: a source in which spans are hidden, and a target that has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_seq.data.streams import StreamBatches
from keras_seq.data.tokens import TokenStore
from keras_seq.errors import UserError

__all__ = ["SpanBatches", "SpanDenoising", "most_spans"]

_UNKNOWN, _START, _END = 1, 2, 3
_FIRST = 5  # the ids before it are padding, unknown, start, end and mask
_FIXED = 7  # the seed of what is hidden for scoring


class SpanDenoising:
    """Hides spans of texts and asks for them: how T5 is trained before it learns a task.

    In the source each hidden span is one sentinel, the last id of the vocabulary for the first
    span, the last but one for the second, and so on. The target is each of these sentinels,
    followed by what it stands for::

        text    Thank you for inviting me to your party last week
        source  Thank you <X> me to your party <Y> week
        target  <X> for inviting <Y> last

    Where the spans are is drawn anew in each pass, and is a pure function of the seed, the number
    of the pass and of the row. How many tokens and spans a text loses follows from its length:
    every pass has pairs of the same lengths.

    Args:
        store: The ids of N texts, without start and end.
        vocabulary: How many ids there are, sentinels included. With that of the tokenizer the
            sentinels take the places of its last tokens, its rarest, which are unknown tokens in
            the texts here; with so many ids more nothing is lost, and the model has these rows
            more.
        share: Of the tokens that are hidden, above 0 and below 1. Default 0.15.
        span: Tokens of a span, on average; at least 1. Default 3.
        sentinels: How many ids are sentinels, the most spans of a text. Default 32: longer spans
            come in texts of over 640 tokens.

    Raises:
        UserError: A number is out of range.

    Example:
        >>> store = TokenStore.from_rows([range(10, 20)])
        >>> denoising = SpanDenoising(store, 100, share=0.4, span=2)
        >>> source, target = denoising(seed=0, number=0)
        >>> source[0].tolist()
        [10, 11, 12, 13, 99, 15, 98, 19]
        >>> target[0].tolist()
        [99, 14, 98, 16, 17, 18]

        As the pairs of `keras_seq.data.PairBatches`, hidden elsewhere in each pass:

        >>> from keras_seq.data import PairBatches
        >>> batches = PairBatches(*denoising(0, 0), segment=denoising)

    Reference:
        Raffel et al. 2020, Exploring the Limits of Transfer Learning with a Unified Text-to-Text
        Transformer, section 3.1.4.
    """

    def __init__(
        self,
        store: TokenStore,
        vocabulary: int,
        *,
        share: float = 0.15,
        span: float = 3.0,
        sentinels: int = 32,
    ) -> None:
        _check(share, span)
        if not 1 <= sentinels < vocabulary - _FIRST:
            raise UserError(
                f"{sentinels} sentinels are wanted and the vocabulary has {vocabulary} ids, "
                f"{_FIRST} of them special: give 1 to {vocabulary - _FIRST - 1}"
            )
        self.store = store
        self.vocabulary = vocabulary
        self.share = share
        self.span = span
        self.sentinels = sentinels

    def __call__(self, seed: int, number: int) -> tuple[TokenStore, TokenStore]:
        """Returns the pairs of one pass.

        Args:
            seed: Of the training.
            number: Of the pass.

        Returns:
            N sources and N targets, without start and end.
        """
        pairs = [self.pair(row, seed, number) for row in range(len(self.store))]
        return (
            TokenStore.from_rows(source for source, _ in pairs),
            TokenStore.from_rows(target for _, target in pairs),
        )

    def pair(self, row: int, seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the pair of one text.

        Args:
            row: Which text.
            seed: As for the call.
            number: As for the call.

        Returns:
            Source (S,) and target (T,), int32. Of a text of one token nothing is hidden, and the
            target is empty.
        """
        return self.hide(self.store[row], np.random.default_rng([seed, number, row]))

    def hide(self, ids: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Returns the pair of any text of this vocabulary.

        Args:
            ids: (N,) its ids.
            draw: Where the random numbers come from.

        Returns:
            Source (S,) and target (T,), int32, as of `pair`.
        """
        ids = np.asarray(ids, np.int32)
        # A sentinel that came out of a text could not be told from one that hides something.
        ids = np.where(ids >= self.vocabulary - self.sentinels, _UNKNOWN, ids).astype(np.int32)
        hidden, spans = self._counts(len(ids))
        if not hidden:
            return ids, np.zeros(0, np.int32)
        # Before the first span and behind the last one nothing has to be seen.
        seen = _parts(len(ids) - hidden, spans + 1, draw, ends=True)
        lost = _parts(hidden, spans, draw)
        source, target, start = [], [], 0
        for i in range(spans):
            mark = np.array([self.vocabulary - 1 - i], np.int32)
            stop = start + seen[i]
            source += [ids[start:stop], mark]
            start = stop + lost[i]
            target += [mark, ids[stop:start]]
        return np.concatenate([*source, ids[start:]]), np.concatenate(target)

    def _counts(self, length: int) -> tuple[int, int]:
        """How many tokens of a text are hidden, in how many spans."""
        hidden, spans = _counts(length, self.share, self.span)
        return hidden, min(spans, self.sentinels)


class SpanBatches(StreamBatches):
    """Windows of a stream in which spans of ids are hidden, and are the targets.

    The windows are those of `StreamBatches`, side by side: in training from another first id in
    each pass, shuffled, and with other spans hidden each time; at fixed places always with the same
    ones. Batch k is a pure function of k. What is hidden of a window is told in the way of
    `SpanDenoising`, and a batch is one of `keras_seq.data.PairBatches`: ``source`` (B, S) and
    ``tokens`` (B, T), which begin with the start token, and targets (B, T): each id + 1, the end
    last, 0 where there is none. All whole windows lose as many ids in as many spans, so S and T are
    the same in all batches.

    Sentinels are the last ids of the vocabulary, as many as a window has spans at most: where the
    text has them, they become the unknown token.

    Args:
        ids: (N,) int32, may be a memory map.
        context: The ids of a window, at least 2.
        vocabulary: Number of ids, those of the sentinels included.
        share: The part of a window that is hidden, above 0 and below 1. Default 0.15.
        span: Ids of a span, on average; at least 1. Default 3.

    Raises:
        UserError: If there is no id, or a number is out of range.

    Example:
        >>> data = SpanBatches(np.arange(10, 30), context=10, vocabulary=100, share=0.4, span=2)
        >>> data.sentinels
        2
        >>> x, y = data.batch([0])
        >>> x["source"].tolist()
        [[10, 11, 12, 13, 99, 17, 98, 19]]
        >>> x["tokens"].tolist()
        [[2, 99, 14, 15, 16, 98, 18]]
        >>> y.tolist()
        [[100, 15, 16, 17, 99, 19, 4]]

    Reference:
        Raffel et al. 2020, Exploring the Limits of Transfer Learning with a Unified Text-to-Text
        Transformer, section 3.1.4.
    """

    def __init__(
        self,
        ids: np.ndarray,
        context: int,
        *,
        vocabulary: int,
        share: float = 0.15,
        span: float = 3.0,
    ) -> None:
        super().__init__(ids, context)
        if context < 2:
            raise UserError(f"the context is {context}: give at least 2 tokens, one of them to see")
        offsets = np.minimum(np.arange(len(self) + 1) * context, len(ids))
        self.sentinels = most_spans(context, share, span)
        self._denoising = SpanDenoising(
            TokenStore(ids, offsets), vocabulary, share=share, span=span, sentinels=self.sentinels
        )
        # The first window and the last one, which may be short.
        lengths = [int(offsets[1]), int(offsets[-1] - offsets[-2])]
        counts = [_counts(n, share, span) for n in lengths]
        self._steps = (
            max(n - lost + spans for n, (lost, spans) in zip(lengths, counts, strict=True)),
            max(lost + spans + 1 for lost, spans in counts),
        )

    def batch(self, index: np.ndarray) -> tuple[dict[str, np.ndarray], Any]:
        """The windows at fixed places, each with the same spans hidden every time.

        Args:
            index: (B,) numbers from 0 to `len(self)` - 1.

        Returns:
            {"source": (B, S), "tokens": (B, T)} and the targets (B, T), all int32.
        """
        return self._joined([self._denoising.pair(int(i), _FIXED, 0) for i in index])

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
        starts = self._shuffled(batch_size, seed, step)
        draw = np.random.default_rng([seed, step, 1])
        return self._joined(
            [self._denoising.hide(self.ids[i : i + self.context], draw) for i in starts]
        )

    def _joined(
        self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Pads pairs to the shapes of all batches."""
        source, tokens, following = (
            np.zeros((len(pairs), steps), np.int32) for steps in (*self._steps, self._steps[1])
        )
        tokens[:, 0] = _START
        for i, (seen, hidden) in enumerate(pairs):
            source[i, : len(seen)] = seen
            tokens[i, 1 : len(hidden) + 1] = hidden
            following[i, : len(hidden)] = hidden + 1
            following[i, len(hidden)] = _END + 1
        return {"source": source, "tokens": tokens}, following


def most_spans(length: int, share: float = 0.15, span: float = 3.0) -> int:
    """Says how many spans are hidden at most in texts of up to so many tokens.

    Args:
        length: Tokens of the longest text.
        share: See `SpanDenoising`.
        span: Likewise.

    Raises:
        UserError: A number is out of range.

    Example:
        >>> most_spans(128), most_spans(512)
        (6, 26)
    """
    _check(share, span)
    return max(_counts(n, share, span)[1] for n in range(1, length + 1))


def _check(share: float, span: float) -> None:
    if not 0 < share < 1:
        raise UserError(f"the share of hidden tokens is {share}: give a number from 0 to 1")
    if not span >= 1:
        raise UserError(f"the mean length of a span is {span}: give at least 1")


def _counts(length: int, share: float, span: float) -> tuple[int, int]:
    """How many tokens of a text are hidden, in how many spans, where sentinels are no limit."""
    if length < 2:
        return 0, 0
    hidden = min(max(round(length * share), 1), length - 1)
    # Between two spans at least one token is seen.
    return hidden, min(max(round(hidden / span), 1), hidden, length - hidden + 1)


def _parts(total: int, count: int, draw: np.random.Generator, *, ends: bool = False) -> list[int]:
    """Cuts a length into parts of at least 1, all cuts alike; with `ends` first and last may be 0.

    Of the latter at least one can be above 0 wherever `total` is at least `count` - 1.
    """
    more = 2 if ends else 0
    cuts = np.sort(draw.choice(total + more - 1, count - 1, replace=False)) + 1
    parts = np.diff(np.concatenate([[0], cuts, [total + more]]))
    if ends:
        parts[[0, -1]] -= 1
    return [int(n) for n in parts]
