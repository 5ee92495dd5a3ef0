"""Texts as pairs to learn from: a source in which spans are hidden, and a target that has them."""

from __future__ import annotations

import numpy as np

from keras_seq.data.tokens import TokenStore
from keras_seq.errors import UserError

__all__ = ["SpanDenoising"]

_UNKNOWN = 1
_FIRST = 5  # the ids before it are padding, unknown, start, end and mask


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
        if not 0 < share < 1:
            raise UserError(f"the share of hidden tokens is {share}: give a number from 0 to 1")
        if not span >= 1:
            raise UserError(f"the mean length of a span is {span}: give at least 1")
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
        ids = np.asarray(self.store[row], np.int32)
        # A sentinel that came out of a text could not be told from one that hides something.
        ids = np.where(ids >= self.vocabulary - self.sentinels, _UNKNOWN, ids).astype(np.int32)
        hidden, spans = self._counts(len(ids))
        if not hidden:
            return ids, np.zeros(0, np.int32)
        draw = np.random.default_rng([seed, number, row])
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
        if length < 2:
            return 0, 0
        hidden = min(max(round(length * self.share), 1), length - 1)
        # Between two spans at least one token is seen.
        most = min(self.sentinels, hidden, length - hidden + 1)
        return hidden, min(max(round(hidden / self.span), 1), most)


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
