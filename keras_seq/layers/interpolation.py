"""Straight lines between knots."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="keras_seq")
class LinearInterpolation(keras.layers.Layer):
    """Draws straight lines through evenly spaced knots: one product with a constant matrix.

    The first and the last knot are the first and the last step; a single knot is a constant.

    Args:
        length: Steps wanted, T.
        **kwargs: As for every Keras layer.

    Call arguments:
        knots: (..., K).

    Returns:
        (..., T).

    Example:
        >>> import numpy as np
        >>> LinearInterpolation(5)(np.array([[0.0, 4.0, 0.0]], "float32")).numpy().tolist()
        [[0.0, 2.0, 4.0, 2.0, 0.0]]
    """

    def __init__(self, length: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        if length < 1:
            raise ValueError(f"length is {length}: give at least 1 step")
        self.length = int(length)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the constant matrix (K, T)."""
        knots = input_shape[-1]
        if knots is None:
            raise ValueError("LinearInterpolation needs a fixed number of knots (the last axis)")
        at = np.linspace(0.0, knots - 1.0, self.length)
        # Row k is what knot k adds to each step: the interpolation of a unit vector.
        self._matrix = np.stack(
            [np.interp(at, np.arange(knots), row) for row in np.eye(knots)]
        ).astype("float32")

    def call(self, knots: Any) -> Any:
        """Interpolates."""
        if knots.shape[-1] == self.length:
            return knots
        return ops.matmul(knots, ops.convert_to_tensor(self._matrix, dtype=self.compute_dtype))

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Ends an implicit mask: masks are passed by hand."""
        return None

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns (..., T)."""
        return (*input_shape[:-1], self.length)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "length": self.length}
