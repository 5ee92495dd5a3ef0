"""Ids of words and word n-grams, by integer arithmetic that every runtime has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

Shape = tuple[Any, ...]

# One multiplier for each place of an n-gram; primes, so that few pairs of words meet in a bucket.
MULTIPLIERS = (30011, 7919, 20011, 12007, 27011)
LARGEST = 2**31 - 1  # int32, the only integer type that all device runtimes multiply


@keras.saving.register_keras_serializable(package="keras_seq")
class HashedNGrams(keras.layers.Layer):
    """Ids of all n-grams of a sequence: tokens keep their ids, longer n-grams are hashed.

    The n-gram that begins at token a of a, b, c has the bucket ``(30011 a mod B + 7919 b mod B +
    20011 c mod B) mod B``, a range of B ids for each order. Different n-grams may meet in a bucket.

    Args:
        vocabulary: How many token ids there are; 0 is padding. At most 71,556, because the
            products must stay below 2^31.
        orders: The longest n-grams, 1 to 5. Default 2.
        buckets: Buckets B of each order above 1. Default 2^18.
        **kwargs: As for every Keras layer.

    Call arguments:
        tokens: (B, T) int32.

    Returns:
        (B, T * orders) int32: all tokens, then all pairs, then all triples; 0 where a part of the
        n-gram is padding or behind the end. The largest id is `size` - 1.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import numpy as np
        >>> layer = HashedNGrams(vocabulary=10, orders=2, buckets=100)
        >>> np.asarray(layer(np.array([[5, 6, 0]], "int32"))).tolist()  # 55 + 14 + 10
        [[5, 6, 0, 79, 0, 0]]
        >>> layer.size
        110

    Reference:
        Joulin et al. 2017, Bag of Tricks for Efficient Text Classification.
    """

    def __init__(
        self, vocabulary: int, orders: int = 2, buckets: int = 2**18, **kwargs: Any
    ) -> None:
        # Ids are integers: a cast to float16 would lose them beyond 2048.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        if not 1 <= orders <= len(MULTIPLIERS):
            raise ValueError(f"orders is {orders}: give 1 to {len(MULTIPLIERS)}")
        if buckets < 1:
            raise ValueError(f"buckets is {buckets}: give at least 1")
        self.vocabulary = int(vocabulary)
        self.orders = int(orders)
        self.buckets = int(buckets)
        if orders > 1 and vocabulary * max(MULTIPLIERS) > LARGEST:
            raise ValueError(
                f"vocabulary is {vocabulary}: n-grams are hashed in 32 bits, which allow "
                f"{LARGEST // max(MULTIPLIERS)}; take a smaller vocabulary, or orders=1"
            )
        if self.size > LARGEST or orders * buckets > LARGEST:
            raise ValueError(f"buckets is {buckets}: {self.size} ids do not fit into 32 bits")
        self.supports_masking = True
        self.built = True

    @property
    def size(self) -> int:
        """How many ids come out."""
        return self.vocabulary + (self.orders - 1) * self.buckets

    def call(self, tokens: Any) -> Any:
        """Hashes all n-grams."""
        tokens = ops.cast(tokens, "int32")
        found = [tokens]
        first = ops.mod(tokens * MULTIPLIERS[0], self.buckets) if self.orders > 1 else None
        total, real = first, ops.not_equal(tokens, 0)
        for order in range(2, self.orders + 1):
            ahead = order - 1
            # Shifted to the left; zeros, which are padding, come in from the right. They are cut
            # from the tokens themselves, so a sequence shorter than the order works too.
            padded = ops.pad(tokens, [[0, 0], [0, ahead]])
            later = padded[:, ahead:]
            total = total + ops.mod(later * MULTIPLIERS[ahead], self.buckets)
            real = ops.logical_and(real, ops.not_equal(later, 0))
            start = self.vocabulary + (order - 2) * self.buckets
            found.append(ops.where(real, ops.mod(total, self.buckets) + start, 0))
        return found[0] if len(found) == 1 else ops.concatenate(found, axis=1)

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask: padding is told by the id 0."""
        return None

    def compute_output_spec(self, tokens: Any) -> keras.KerasTensor:
        """Returns (B, T * orders) int32."""
        steps = tokens.shape[1]
        steps = None if steps is None else steps * self.orders
        return keras.KerasTensor((tokens.shape[0], steps), dtype="int32")

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "orders": self.orders,
            "buckets": self.buckets,
        }


def padded_batches(
    examples: Iterable[tuple[np.ndarray, Any]], most: int = 2**18
) -> Iterator[tuple[np.ndarray, list[Any]]]:
    """Pads texts into batches of about so many ids, so that what reads them needs few calls.

    Args:
        examples: Token ids, (T,), and the label of each text.
        most: The most ids of a batch, padding included; a longer text is a batch of its own.

    Yields:
        Ids (B, T) int32, 0 behind the end of a text, and the labels.

    Example:
        >>> examples = [(np.array([5]), "a"), (np.array([6, 7]), "b")]
        >>> [(ids.tolist(), labels) for ids, labels in padded_batches(examples)]
        [([[5, 0], [6, 7]], ['a', 'b'])]
    """
    rows: list[np.ndarray] = []
    labels: list[Any] = []
    longest = 1
    for ids, label in examples:
        ids = np.asarray(ids)
        if rows and max(longest, len(ids)) * (len(rows) + 1) > most:
            yield _pad(rows, longest), labels
            rows, labels, longest = [], [], 1
        rows.append(ids)
        labels.append(label)
        longest = max(longest, len(ids))
    if rows:
        yield _pad(rows, longest), labels


def _pad(rows: list[np.ndarray], longest: int) -> np.ndarray:
    padded = np.zeros((len(rows), longest), "int32")
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded
