"""Telling attention how far apart two steps are, by a number that is added to their score."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

Shape = tuple[Any, ...]


def bucket_table(buckets: int, max_distance: int, *, causal: bool = False) -> np.ndarray:
    """Sorts distances into buckets: near ones have their own, far ones share wider and wider ones.

    Args:
        buckets: Number of buckets. Half of them are of one step each; not `causal`, the first half
            is for the past and the present and the second for the future.
        max_distance: From this distance on all steps are in the last bucket.
        causal: Whether only the past has buckets, and the future is in that of the present.

    Returns:
        (2 max_distance + 1,) int32 array: the buckets of the steps from `max_distance` before the
        query up to `max_distance` after it.

    Example:
        >>> bucket_table(8, 6)
        array([3, 3, 3, 2, 2, 1, 0, 5, 6, 6, 7, 7, 7], dtype=int32)
        >>> bucket_table(4, 4, causal=True)
        array([3, 3, 2, 1, 0, 0, 0, 0, 0], dtype=int32)

    Reference:
        Raffel et al. 2020, Exploring the Limits of Transfer Learning with a Unified Text-to-Text
        Transformer, section 2.1.
    """
    side = buckets if causal else buckets // 2
    single = side // 2
    after = np.arange(-max_distance, max_distance + 1)  # positive: the memory step comes later
    far = np.maximum(-after, 0) if causal else np.abs(after)
    growth = np.log(np.maximum(far, single) / single) / np.log(max_distance / single)
    # What is a whole number must not fall below it by rounding.
    shared = single + np.floor(growth * (side - single) + 1e-9)
    found = np.where(far < single, far, np.minimum(shared, side - 1))
    return (found if causal else found + side * (after > 0)).astype("int32")


def alibi_slopes(heads: int) -> np.ndarray:
    """Says what a step of distance costs in each head.

    Args:
        heads: Number of heads.

    Returns:
        (heads,) float32 array. Where `heads` is a power of two it is geometric and ends at 1 / 256;
        else it is that of the power of two below, and every other one of the power above.

    Example:
        >>> alibi_slopes(4)
        array([0.25      , 0.0625    , 0.015625  , 0.00390625], dtype=float32)

    Reference:
        Press, Smith and Lewis 2022, Train Short, Test Long: Attention with Linear Biases Enables
        Input Length Extrapolation.
    """

    def geometric(count: int) -> np.ndarray:
        return 2.0 ** (-8.0 * np.arange(1, count + 1) / count)

    whole = 2 ** (heads.bit_length() - 1)
    slopes = np.concatenate([geometric(whole), geometric(2 * whole)[::2][: heads - whole]])
    return slopes.astype("float32")


def bias_between(bias: Any, later: Any) -> Any:
    """Returns the bias between steps that are so far from each other.

    Args:
        bias: (2 M + 1, heads), for each distance from M steps before to M after and what is beyond
            them; or slopes (heads,), taken off for each step of distance.
        later: (T, S) int32, how many steps the memory is later than the query.

    Returns:
        (heads, T, S) float32.

    Example:
        >>> np.asarray(bias_between(np.array([0.5]), np.array([[0, 1], [-1, 0]])))[0]
        array([[ 0. , -0.5],
               [-0.5,  0. ]], dtype=float32)
    """
    if len(bias.shape) == 1:
        # Not [..., None]: an ellipsis on an open length does not convert to LiteRT.
        minus = ops.expand_dims(ops.cast(-ops.abs(later), "float32"), -1)
        found = minus * ops.cast(bias, "float32")
    else:
        found = _look_up(bias, later)
    return ops.transpose(found, (2, 0, 1))


def shared_at(table: Any, position: Any, length: int) -> Any:
    """Returns the bias between one query step of each row and the first steps of the memory.

    Args:
        table: (2 M + 1, heads), from `RelativeBiasTable`.
        position: Where the query steps stand, counted from 0, (B,) int32.
        length: L, number of steps of the memory.

    Returns:
        (B, heads, 1, L) float32.

    Example:
        >>> table = np.array([[-1.0], [0.0], [1.0]])
        >>> np.asarray(shared_at(table, np.array([1]), 3))[0, 0]
        array([[-1.,  0.,  1.]], dtype=float32)
    """
    return _at(partial(_look_up, table), position, length)


def _between(bias: Callable[[Any], Any], query_steps: Any, memory_steps: Any) -> Any:
    """(heads, T, S) of a bias (X, Y) -> (X, Y, heads) by how many steps later the memory is."""
    query = ops.arange(query_steps, dtype="int32")[:, None]
    memory = ops.arange(memory_steps, dtype="int32")[None, :]
    return ops.transpose(bias(memory - query), (2, 0, 1))


def _at(bias: Callable[[Any], Any], position: Any, length: int) -> Any:
    """(B, heads, 1, L), likewise."""
    query = ops.cast(position, "int32")[:, None]
    memory = ops.arange(length, dtype="int32")[None, :]
    return ops.expand_dims(ops.transpose(bias(memory - query), (0, 2, 1)), 2)


def _look_up(table: Any, after: Any) -> Any:
    """(X, Y) -> (X, Y, heads)."""
    farthest = table.shape[0] // 2
    near = ops.clip(after, -farthest, farthest)
    return ops.take(ops.cast(table, "float32"), near + farthest, axis=0)


class _Bias(keras.layers.Layer):
    """What the biases share: where they are added, for a whole sequence and for a step."""

    def __init__(self, heads: int, *, causal: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if heads < 1:
            raise ValueError(f"heads is {heads}: give at least 1")
        self.heads = heads
        self.causal = causal
        self.supports_masking = True

    def build(self, scores_shape: Shape | None = None) -> None:
        """Has no weights to make."""

    def call(self, scores: Any) -> Any:
        """Adds the bias."""
        _, heads, query_steps, memory_steps = ops.shape(scores)
        if heads != self.heads:
            raise ValueError(
                f"{self.name} has {self.heads} heads and got scores of {heads}: give scores of "
                "(B, heads, T, S)"
            )
        return scores + ops.cast(self.between(query_steps, memory_steps), scores.dtype)

    def between(self, query_steps: Any, memory_steps: Any) -> Any:
        """Returns the bias between all steps of two sequences that begin together.

        Args:
            query_steps: T, a number or a scalar tensor.
            memory_steps: S, a number or a scalar tensor.

        Returns:
            (heads, T, S) float32.
        """
        return _between(self._bias, query_steps, memory_steps)

    def at(self, position: Any, length: int) -> Any:
        """Returns the bias between one query step of each row and the first steps of the memory.

        Args:
            position: Where the query steps stand, counted from 0, (B,) int32.
            length: L, number of steps of the memory.

        Returns:
            (B, heads, 1, L) float32.
        """
        return _at(self._bias, position, length)

    def _bias(self, after: Any) -> Any:
        """The bias of the memory step so many steps after the query: (X, Y) -> (X, Y, heads)."""
        raise NotImplementedError

    def compute_output_shape(self, scores_shape: Shape) -> Shape:
        """Returns the input's shape."""
        return tuple(scores_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "heads": self.heads, "causal": self.causal}


@keras.saving.register_keras_serializable(package="keras_seq")
class RelativeBias(_Bias):
    """Adds to the score of two steps a learned number for their distance, in each head (T5).

    Distances are sorted into buckets, so it knows every length; see `bucket_table`.

    Args:
        heads: Number of heads.
        buckets: Number of buckets; even, at least 4 (`causal`: at least 2). Default 32.
        max_distance: From this distance on all steps are treated alike. Default 128.
        causal: Whether all buckets are for the past; the future is not told from the present, and
            is to be masked. Default False.
        **kwargs: As for every Keras layer.

    Call arguments:
        scores: (B, heads, T, S), T and S may be unknown until run time.

    Returns:
        (B, heads, T, S). `between` and `at` return the bias alone.

    Raises:
        ValueError: If there are too few heads or buckets, `max_distance` is within the buckets of
            one step, or the scores have another number of heads.

    Example:
        >>> import numpy as np
        >>> layer = RelativeBias(1, buckets=4, max_distance=2)
        >>> layer.build()
        >>> layer.set_weights([np.array([[0.0], [0.1], [0.2], [0.3]])])
        >>> np.asarray(layer.between(3, 3))[0].round(1)
        array([[0. , 0.3, 0.3],
               [0.1, 0. , 0.3],
               [0.1, 0.1, 0. ]], dtype=float32)

    Reference:
        Raffel et al. 2020, Exploring the Limits of Transfer Learning with a Unified Text-to-Text
        Transformer, section 2.1.
    """

    def __init__(
        self,
        heads: int,
        *,
        buckets: int = 32,
        max_distance: int = 128,
        causal: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(heads, causal=causal, **kwargs)
        fewest = 2 if causal else 4
        if buckets < fewest or buckets % 2:
            raise ValueError(f"buckets is {buckets}: give an even number of at least {fewest}")
        single = buckets // fewest
        if max_distance <= single:
            raise ValueError(
                f"max_distance is {max_distance}, and the first {single} steps have buckets of "
                f"their own: give at least {single + 1}, or fewer buckets"
            )
        self.buckets = buckets
        self.max_distance = max_distance

    def build(self, scores_shape: Shape | None = None) -> None:
        """Makes the learned numbers."""
        self._bucket = bucket_table(self.buckets, self.max_distance, causal=self.causal)
        self.table = self.add_weight(
            shape=(self.buckets, self.heads),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="table",
        )

    def by_distance(self) -> Any:
        """Returns the bias of each distance, from `max_distance` before to as much after it.

        Returns:
            (2 max_distance + 1, heads) float32.
        """
        # By distance first: two small look-ups in place of logarithms at run time.
        table = ops.cast(ops.convert_to_tensor(self.table), "float32")
        return ops.take(table, self._bucket, axis=0)

    def _bias(self, after: Any) -> Any:
        return _look_up(self.by_distance(), after)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "buckets": self.buckets,
            "max_distance": self.max_distance,
        }


@keras.saving.register_keras_serializable(package="keras_seq")
class RelativeBiasTable(RelativeBias):
    """The numbers of a `RelativeBias` by distance, for several layers of attention to share.

    `MultiHeadAttention`, `TransformerBlock` and `DecoderBlock` take them as ``distances``.

    Args:
        heads: Number of heads.
        buckets: See `RelativeBias`. Default 32.
        max_distance: See `RelativeBias`. Default 128.
        causal: See `RelativeBias`. Default False.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: A tensor of the sequence that attends to itself. It makes no difference; it says where
            in a functional model this stands.

    Returns:
        (2 max_distance + 1, heads), without an axis for the batch.

    Raises:
        ValueError: As `RelativeBias`.

    Example:
        >>> import numpy as np
        >>> layer = RelativeBiasTable(1, buckets=4, max_distance=2)
        >>> layer.build((None, None, 8))
        >>> layer.set_weights([np.array([[0.0], [0.1], [0.2], [0.3]])])
        >>> np.asarray(layer(np.zeros((1, 5, 8), "float32")))[:, 0].round(1)
        array([0.1, 0.1, 0. , 0.3, 0.3], dtype=float32)

    Reference:
        Raffel et al. 2020, Exploring the Limits of Transfer Learning with a Unified Text-to-Text
        Transformer, section 2.1.
    """

    def call(self, x: Any) -> Any:
        """Returns the bias of each distance."""
        return ops.cast(self.by_distance(), self.compute_dtype)

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask: there is no time here."""
        return None

    def compute_output_shape(self, x_shape: Shape) -> Shape:
        """Returns the shape of the table."""
        return (2 * self.max_distance + 1, self.heads)


@keras.saving.register_keras_serializable(package="keras_seq")
class AlibiBias(_Bias):
    """Takes from the score of two steps a fixed part of their distance, another in each head.

    Nothing is learned, and sequences may be longer than those trained on.

    Args:
        heads: Number of heads; their slopes are `alibi_slopes`.
        causal: Whether only the past costs; the future is to be masked. Else the distance counts
            in both directions. Default False.
        **kwargs: As for every Keras layer.

    Call arguments:
        scores: (B, heads, T, S), T and S may be unknown until run time.

    Returns:
        (B, heads, T, S). `between` and `at` return the bias alone.

    Raises:
        ValueError: If there are too few heads, or the scores have another number of heads.

    Example:
        >>> import numpy as np
        >>> np.asarray(AlibiBias(8).between(2, 3))[0]
        array([[ 0. , -0.5, -1. ],
               [-0.5,  0. , -0.5]], dtype=float32)

    Reference:
        Press, Smith and Lewis 2022, Train Short, Test Long: Attention with Linear Biases Enables
        Input Length Extrapolation.
    """

    def _bias(self, after: Any) -> Any:
        minus = ops.minimum(after, 0) if self.causal else -ops.abs(after)
        # Not [..., None]: an ellipsis on an open length does not convert to LiteRT.
        return ops.expand_dims(ops.cast(minus, "float32"), -1) * alibi_slopes(self.heads)
