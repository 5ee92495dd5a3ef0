"""What a language model must beat: counted n-grams with Kneser-Ney smoothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_START = 2
_MOST = 30_000_000  # training tokens that are counted


@dataclass
class _Order:
    """The counts of one order: grams of n tokens, and the contexts of n - 1 that they follow."""

    keys: np.ndarray  # (G,) context number * V + token, ascending
    counts: np.ndarray  # (G,) of the gram, or of the tokens that stand before it
    totals: np.ndarray  # (C,) sums of `counts` by context
    back_off: np.ndarray  # (C,) the part that the discounts leave to the shorter context
    discounts: np.ndarray  # (4,) by count 0, 1, 2, 3 and more


class NGram:
    """Interpolated modified Kneser-Ney: the strongest of the counted language models.

    The probability after a context of n - 1 tokens is its discounted count plus what the discounts
    leave over, shared out by the next shorter context. Shorter contexts count in how many different
    contexts a token was seen, and not how often.

    Args:
        order: n, tokens of the longest gram; 1 knows frequencies only, 0 nothing (all alike).
        vocabulary: Number of ids, V.

    Example:
        >>> model = NGram(2, vocabulary=8).fit(np.array([5, 6, 5, 6, 5, 7]))
        >>> p = np.exp(model.log_probability(np.array([5, 6])))
        >>> bool(p[1] > 0.4)  # 6 has followed 5 twice of three times
        True

    Reference:
        Kneser and Ney 1995, Improved Backing-off for M-gram Language Modeling; Chen and Goodman
        1999, An Empirical Study of Smoothing Techniques for Language Modeling.
    """

    def __init__(self, order: int, vocabulary: int) -> None:
        if order < 0 or vocabulary < 1:
            raise ValueError(f"order is {order} and vocabulary {vocabulary}: give 0 and 1 or more")
        self.order = order
        self.vocabulary = vocabulary
        self.note = ""
        self._orders: list[_Order] = []

    def fit(self, ids: np.ndarray) -> NGram:
        """Counts the grams of a stream.

        Args:
            ids: (N,) the training part.

        Returns:
            The model itself.
        """
        if len(ids) > _MOST:
            self.note = f"counted on the last {_MOST:,} of {len(ids):,} tokens"
            ids = ids[-_MOST:]
        self._orders = []
        if not self.order:
            return self
        stream = self._padded(ids)
        number = np.zeros(len(stream), np.int64)  # of the context of k - 1 tokens before i
        grams: list[np.ndarray] = []
        keys: list[np.ndarray] = []
        for _ in range(self.order):
            key, gram = np.unique(number * self.vocabulary + stream, return_inverse=True)
            keys.append(key)
            grams.append(gram)
            number = np.concatenate([[0], gram[:-1]])  # what ends at i - 1 is the context of i
        for k in range(self.order):
            real = slice(self.order - 1 if self.order > 1 else 0, None)  # no gram of the padding
            if k == self.order - 1:
                counts = np.bincount(grams[k][real], minlength=len(keys[k]))
            else:
                # In how many longer grams does it end?
                longer = np.full(len(keys[k + 1]), -1)
                longer[grams[k + 1][real]] = grams[k][real]
                counts = np.bincount(longer[longer >= 0], minlength=len(keys[k]))
            self._orders.append(self._smoothed(keys[k], counts))
        return self

    def _padded(self, ids: np.ndarray) -> np.ndarray:
        start = np.full(max(self.order - 1, 0), _START, np.int64)
        return np.concatenate([start, np.asarray(ids, np.int64)])

    def _smoothed(self, keys: np.ndarray, counts: np.ndarray) -> _Order:
        seen = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(np.float64)
        discounts = np.array([0.0, 0.75, 0.75, 0.75])
        if (seen > 0).all():
            n1, n2, n3, n4 = seen
            y = n1 / (n1 + 2 * n2)
            found = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
            # Of few grams these counts of counts are odd; a discount stays within its count.
            discounts[1:] = np.clip(found, 0.05, [0.9, 1.8, 2.7])
        context = keys // self.vocabulary
        size = int(context.max()) + 1
        totals = np.bincount(context, counts, minlength=size)
        taken = np.bincount(context, discounts[np.minimum(counts, 3)], minlength=size)
        back_off = np.divide(taken, totals, out=np.ones(size), where=totals > 0)
        return _Order(keys, counts, totals, back_off, discounts)

    def log_probability(self, ids: np.ndarray) -> np.ndarray:
        """Gives the log-probability of each token after the tokens before it.

        Args:
            ids: (N,) a stream.

        Returns:
            (N,) natural logarithms.
        """
        stream = self._padded(ids)
        probability = np.full(len(stream), 1.0 / self.vocabulary)
        number = np.zeros(len(stream), np.int64)  # of the context; -1 was never seen
        for order in self._orders:
            known = (number >= 0) & (number < len(order.totals))
            context = np.where(known, number, 0)
            known &= order.totals[context] > 0
            key = context * self.vocabulary + stream
            place = np.minimum(np.searchsorted(order.keys, key), len(order.keys) - 1)
            there = known & (order.keys[place] == key)
            count = np.where(there, order.counts[place], 0)
            left = count - order.discounts[np.minimum(count, 3)]
            total = np.maximum(order.totals[context], 1.0)
            found = left / total + order.back_off[context] * probability
            probability = np.where(known, found, probability)
            number = np.concatenate([[0], np.where(there, place, -1)[:-1]])
        return np.log(probability[len(stream) - len(ids) :])
