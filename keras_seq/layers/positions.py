"""Telling an architecture without recurrence where each step stands."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops


def sinusoid_table(length: int, width: int, base: float = 10000.0) -> np.ndarray:
    """Sines in the even columns and cosines in the odd ones, of ever slower waves.

    Args:
        length: Rows, one a position.
        width: Columns.
        base: The slowest wave has a period of nearly 2 pi times this many steps.

    Returns:
        (length, width) float32 array.

    Example:
        >>> sinusoid_table(2, 4).round(2)
        array([[0.  , 1.  , 0.  , 1.  ],
               [0.84, 0.54, 0.01, 1.  ]], dtype=float32)

    Reference:
        Vaswani et al. 2017, Attention Is All You Need, section 3.5.
    """
    column = np.arange(width)
    angle = np.arange(length)[:, None] / base ** ((column - column % 2) / width)
    return np.where(column % 2 == 0, np.sin(angle), np.cos(angle)).astype("float32")


def rotary_table(length: int, head_width: int, base: float = 10000.0) -> np.ndarray:
    """Angles by which each position turns each pair of features.

    Args:
        length: Rows, one a position.
        head_width: Features of a head, even: half as many pairs.
        base: The slowest pair takes nearly 2 pi times this many steps for a turn.

    Returns:
        (length, head_width // 2) float32 array, in radians.

    Example:
        >>> rotary_table(3, 4).round(2)
        array([[0.  , 0.  ],
               [1.  , 0.01],
               [2.  , 0.02]], dtype=float32)

    Reference:
        Su et al. 2021, RoFormer: Enhanced Transformer with Rotary Position Embedding.
    """
    pair = np.arange(0, head_width, 2)
    return (np.arange(length)[:, None] / base ** (pair / head_width)).astype("float32")


def _check_length(layer: str, steps: int | None, max_length: int) -> None:
    if steps is not None and steps > max_length:
        raise ValueError(
            f"{layer} got {steps} steps and knows {max_length} positions: set max_length to "
            f"{steps} or more"
        )


def _turn(x: Any, cos: Any, sin: Any) -> Any:
    first, second = ops.split(x, 2, axis=-1)
    return ops.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


class _Positions(keras.layers.Layer):
    """What the position layers share: a longest length, checked where it is known."""

    hypotheses = True  # all of an example stand at one position

    def __init__(self, max_length: int = 1024, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if max_length < 1:
            raise ValueError(f"max_length is {max_length}: give at least 1 step")
        self.max_length = max_length
        self.supports_masking = True

    def compute_output_shape(self, x_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the input's shape."""
        return tuple(x_shape)

    def step_shapes(self, length: int) -> dict[str, tuple[int, ...]]:
        """Remembers nothing from step to step; refuses a length that it does not know."""
        _check_length(self.name, length, self.max_length)
        return {}

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "max_length": self.max_length}


BLOCK = 256


class _Waves:
    """The first rows of a `sinusoid_table`, which for many rows is kept as two small ones.

    Row 256 a + b follows from the rows for 256 a and for b, by the sines and cosines of sums:
    65,536 positions take the room of 1,024.
    """

    def __init__(self, length: int, width: int) -> None:
        self.width = width
        if length <= 4 * BLOCK:
            self.table: np.ndarray | None = sinusoid_table(length, width)
            return
        self.table = None
        column = np.arange(width)
        even = column % 2 == 0
        speed = 1 / 10000.0 ** ((column - column % 2) / width)  # radians a step
        near = np.arange(BLOCK)[:, None] * speed
        far = np.arange(0, length, BLOCK)[:, None] * speed
        self.near_cos = np.cos(near).astype("float32")  # (256, W)
        self.near_sin = np.sin(near).astype("float32")
        # sin(f + n) = sin f cos n + cos f sin n;  cos(f + n) = cos f cos n - sin f sin n
        self.by_cos = np.where(even, np.sin(far), np.cos(far)).astype("float32")
        self.by_sin = np.where(even, np.cos(far), -np.sin(far)).astype("float32")

    def __call__(self, steps: Any) -> Any:
        """Returns the rows, (steps, W)."""
        if self.table is not None:
            return ops.convert_to_tensor(self.table)[:steps]
        blocks = (steps + BLOCK - 1) // BLOCK
        waves = (
            ops.convert_to_tensor(self.by_cos)[:blocks, None] * self.near_cos
            + ops.convert_to_tensor(self.by_sin)[:blocks, None] * self.near_sin
        )  # (blocks, 256, W)
        return ops.reshape(waves, (-1, self.width))[:steps]

    def at(self, position: Any) -> Any:
        """Returns one row for each position, (B,) int32 to (B, W)."""
        if self.table is not None:
            return ops.take(ops.convert_to_tensor(self.table), position, axis=0)
        block, within = position // BLOCK, position % BLOCK
        return ops.take(self.by_cos, block, axis=0) * ops.take(
            self.near_cos, within, axis=0
        ) + ops.take(self.by_sin, block, axis=0) * ops.take(self.near_sin, within, axis=0)


@keras.saving.register_keras_serializable(package="keras_seq")
class SinusoidalPositions(_Positions):
    """Adds fixed waves to the features, so that each position has a pattern of its own.

    Args:
        max_length: Longest sequence, in steps; longer ones are an error. Default 1024.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, W), T may be unknown until run time.

    Returns:
        (B, T, W).

    Raises:
        ValueError: If the sequence is longer than `max_length`.

    Example:
        >>> import numpy as np
        >>> y = SinusoidalPositions(max_length=8)(np.zeros((1, 2, 2), "float32"))
        >>> np.asarray(y)[0].round(2)
        array([[0.  , 1.  ],
               [0.84, 0.54]], dtype=float32)

    Reference:
        Vaswani et al. 2017, Attention Is All You Need, section 3.5.
    """

    def build(self, x_shape: tuple[Any, ...]) -> None:
        """Computes the table once: slicing a constant runs everywhere, sines do not."""
        _check_length(self.name, x_shape[1], self.max_length)
        self._waves = _Waves(self.max_length, x_shape[-1])

    def call(self, x: Any) -> Any:
        """Adds the waves."""
        _check_length(self.name, x.shape[1], self.max_length)
        return x + ops.cast(self._waves(ops.shape(x)[1]), x.dtype)

    def step(self, x: Any, states: dict[str, Any], position: Any) -> tuple[Any, dict[str, Any]]:
        """Adds the wave of one position of each row; see `keras_seq.layers.steps`."""
        return x + ops.cast(self._waves.at(position), x.dtype)[:, None], {}


@keras.saving.register_keras_serializable(package="keras_seq")
class LearnedPositions(_Positions):
    """Adds a learned vector for each position; it knows nothing of lengths not trained on.

    Args:
        max_length: Rows to learn, in steps; longer sequences are an error. Default 1024.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, W), T may be unknown until run time.

    Returns:
        (B, T, W).

    Raises:
        ValueError: If the sequence is longer than `max_length`.

    Example:
        >>> import numpy as np
        >>> layer = LearnedPositions(max_length=8)
        >>> layer(np.zeros((1, 2, 4), "float32")).shape, layer.count_params()
        (TensorShape([1, 2, 4]), 32)

    Reference:
        Gehring et al. 2017, Convolutional Sequence to Sequence Learning.
    """

    def build(self, x_shape: tuple[Any, ...]) -> None:
        """Makes the table."""
        _check_length(self.name, x_shape[1], self.max_length)
        self.table = self.add_weight(
            shape=(self.max_length, x_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="table",
        )

    def call(self, x: Any) -> Any:
        """Adds the vectors."""
        _check_length(self.name, x.shape[1], self.max_length)
        table = ops.cast(ops.convert_to_tensor(self.table), x.dtype)
        return x + table[: ops.shape(x)[1]]

    def step(self, x: Any, states: dict[str, Any], position: Any) -> tuple[Any, dict[str, Any]]:
        """Adds the vector of one position; see `keras_seq.layers.steps`."""
        table = ops.cast(ops.convert_to_tensor(self.table), x.dtype)
        return x + ops.take(table, position, axis=0)[:, None], {}


@keras.saving.register_keras_serializable(package="keras_seq")
class RotaryPositions(_Positions):
    """Turns queries and keys by their position, so that their product sees only the distance.

    The first half of a head's features and the second half are the two coordinates of the pairs.

    Args:
        max_length: Longest sequence, in steps; longer ones are an error. Default 1024.
        base: Sets the slowest turn; larger for long sequences. Default 10000.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, H, T, head width), the head width even, T may be unknown until run time.

    Returns:
        (B, H, T, head width).

    Raises:
        ValueError: If the head width is odd or the sequence is longer than `max_length`.

    Example:
        >>> import numpy as np
        >>> x = np.array([[[[1.0, 0.0], [1.0, 0.0]]]], "float32")  # one head, two steps
        >>> np.asarray(RotaryPositions()(x))[0, 0].round(2)
        array([[1.  , 0.  ],
               [0.54, 0.84]], dtype=float32)

    Reference:
        Su et al. 2021, RoFormer: Enhanced Transformer with Rotary Position Embedding.
    """

    def __init__(self, max_length: int = 1024, base: float = 10000.0, **kwargs: Any) -> None:
        super().__init__(max_length, **kwargs)
        self.base = base

    def build(self, x_shape: tuple[Any, ...]) -> None:
        """Computes the table of turns once."""
        _check_length(self.name, x_shape[2], self.max_length)
        if x_shape[-1] % 2:
            raise ValueError(
                f"rotary positions turn pairs of features, and the head width is {x_shape[-1]}: "
                "choose width and heads so that width / heads is even"
            )
        angle = rotary_table(self.max_length, x_shape[-1], self.base)
        self._cos, self._sin = np.cos(angle), np.sin(angle)

    def call(self, x: Any) -> Any:
        """Turns each pair."""
        _check_length(self.name, x.shape[2], self.max_length)
        steps = ops.shape(x)[2]
        cos = ops.convert_to_tensor(self._cos, dtype=x.dtype)[:steps]  # (T, head width / 2)
        sin = ops.convert_to_tensor(self._sin, dtype=x.dtype)[:steps]
        return _turn(x, cos, sin)

    def step(self, x: Any, states: dict[str, Any], position: Any) -> tuple[Any, dict[str, Any]]:
        """Turns each pair by one position of each row; see `keras_seq.layers.steps`."""
        cos = ops.take(ops.convert_to_tensor(self._cos, dtype=x.dtype), position, axis=0)
        sin = ops.take(ops.convert_to_tensor(self._sin, dtype=x.dtype), position, axis=0)
        return _turn(x, cos[:, None, None], sin[:, None, None]), {}  # (B, 1, 1, head width / 2)

    def at(self, x: Any, position: Any) -> Any:
        """Turns each pair by the position of its step.

        Args:
            x: (B, H, T, head width).
            position: Where the steps of each row stand, counted from 0, (B, T) int32.

        Returns:
            (B, H, T, head width).

        Example:
            >>> import numpy as np
            >>> layer, x = RotaryPositions(), np.ones((1, 1, 3, 2), "float32")
            >>> turned = layer(x)
            >>> np.allclose(layer.at(x[:, :, :1], np.array([[2]])), turned[:, :, 2:])
            True
        """
        cos = ops.take(ops.convert_to_tensor(self._cos, dtype=x.dtype), position, axis=0)
        sin = ops.take(ops.convert_to_tensor(self._sin, dtype=x.dtype), position, axis=0)
        return _turn(x, cos[:, None], sin[:, None])  # (B, 1, T, head width / 2)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "base": self.base}
