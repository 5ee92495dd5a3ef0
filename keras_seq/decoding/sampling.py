"""Which token comes next: the likeliest, or one drawn from the likely ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_seq.errors import UserError

METHODS = ("greedy", "sample")


@dataclass(frozen=True)
class Choice:
    """How a token is chosen among the scores.

    Args:
        method: ``"greedy"`` takes the likeliest, ``"sample"`` draws.
        temperature: Scores are divided by it before the softmax: below 1 bolder, above 1 wilder.
        top_k: Draws among this many likeliest tokens; None: all.
        top_p: Draws among the fewest likeliest tokens whose probabilities reach this sum; None:
            all. With `top_k` both must hold.
        never: Ids that are never chosen.

    Raises:
        UserError: If a value is out of range.

    Example:
        >>> Choice("sample", temperature=0.0)
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: temperature is 0.0: give a number above 0, or method greedy ...

    Reference:
        Fan, Lewis and Dauphin 2018, Hierarchical Neural Story Generation (top-k); Holtzman et al.
        2020, The Curious Case of Neural Text Degeneration (top-p).
    """

    method: str = "greedy"
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    never: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"method is {self.method!r}: give greedy or sample")
        if not self.temperature > 0:
            raise UserError(
                f"temperature is {self.temperature}: give a number above 0, or method greedy for "
                "the likeliest token each time"
            )
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k is {self.top_k}: give at least 1, or leave it out")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}: give a share above 0 and up to 1")

    def pick(self, logits: Any, chance: Any) -> Any:
        """Chooses one token for each row.

        Args:
            logits: Scores of the tokens, (B, V).
            chance: A uniform number in [0, 1) for each row, (B,); unused by ``"greedy"``.

        Returns:
            The ids, (B,) int32.

        Example:
            >>> import numpy as np
            >>> logits = np.log([[0.1, 0.2, 0.3, 0.4]]).astype("float32")
            >>> [int(Choice("sample", never=()).pick(logits, [u])[0]) for u in (0.05, 0.25, 0.99)]
            [0, 1, 3]
        """
        if self.method == "greedy":
            return tf.argmax(_without(logits, self.never), axis=-1, output_type=tf.int32)
        shares, ids = self._shares(logits)
        # The place where the running sum passes the uniform number. A sampler of TensorFlow's
        # would draw for the batch as a whole, and a text would depend on its neighbours.
        sums = tf.cumsum(shares, axis=-1)
        passed = sums <= tf.cast(chance, sums.dtype)[:, None] * sums[:, -1:]
        place = tf.reduce_sum(tf.cast(passed, tf.int32), axis=-1)
        # Rounding may carry it past the last token that has any share.
        last = tf.reduce_sum(tf.cast(sums < sums[:, -1:], tf.int32), axis=-1)
        place = tf.minimum(place, last)
        return place if ids is None else tf.gather(ids, place, axis=1, batch_dims=1)

    def _shares(self, logits: Any) -> tuple[Any, Any]:
        """What each token may get, not scaled to 1: (B, K), and the ids, or None for all in order.

        The sum of `top_p` counts over all tokens, not over those that `top_k` left.
        """
        logits = _without(logits, self.never) / self.temperature
        shares = tf.nn.softmax(logits)
        if self.top_k is None and self.top_p is None:
            return shares, None
        size = shares.shape[-1]
        shares, ids = tf.math.top_k(shares, min(self.top_k or size, size))
        if self.top_p is not None:
            before = tf.cumsum(shares, axis=-1, exclusive=True)
            shares = tf.where(before <= self.top_p, shares, 0.0)
        return shares, ids


def probabilities(logits: Any, choice: Choice) -> Any:
    """The distribution that a choice draws from.

    Args:
        logits: Scores of the tokens, (B, V).
        choice: How tokens are chosen.

    Returns:
        (B, V) float32 tensor, each row sums to 1; with ``"greedy"`` one token has it all.

    Example:
        >>> import numpy as np
        >>> logits = np.log([[0.1, 0.2, 0.3, 0.4]]).astype("float32")
        >>> probabilities(logits, Choice("sample", top_k=2, never=())).numpy().round(2)
        array([[0.  , 0.  , 0.43, 0.57]], dtype=float32)
    """
    size = tf.shape(logits)[-1]
    if choice.method == "greedy":
        return tf.one_hot(choice.pick(logits, None), size)
    shares, ids = choice._shares(logits)
    shares = shares / tf.reduce_sum(shares, axis=-1, keepdims=True)
    if ids is None:
        return shares
    return tf.reduce_sum(tf.one_hot(ids, size) * shares[..., None], axis=1)


def _without(logits: Any, never: Sequence[int]) -> Any:
    """Scores in float32, those of forbidden tokens at the bottom."""
    logits = tf.cast(logits, tf.float32)
    if not never:
        return logits
    forbidden = tf.reduce_any(tf.range(logits.shape[-1])[:, None] == list(never), axis=-1)
    return tf.where(forbidden, -1e30, logits)
