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


class _Positions(keras.layers.Layer):
    """What the position layers share: a longest length, checked where it is known."""

    def __init__(self, max_length: int = 1024, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if max_length < 1:
            raise ValueError(f"max_length is {max_length}: give at least 1 step")
        self.max_length = max_length
        self.supports_masking = True

    def compute_output_shape(self, x_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the input's shape."""
        return tuple(x_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "max_length": self.max_length}


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
        self._table = sinusoid_table(self.max_length, x_shape[-1])

    def call(self, x: Any) -> Any:
        """Adds the waves."""
        _check_length(self.name, x.shape[1], self.max_length)
        table = ops.convert_to_tensor(self._table, dtype=x.dtype)
        return x + table[: ops.shape(x)[1]]


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
        first, second = ops.split(x, 2, axis=-1)
        return ops.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "base": self.base}
