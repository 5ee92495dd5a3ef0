"""Quantiles that cannot cross."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_seq")
class OrderedQuantiles(keras.layers.Layer):
    """Turns free numbers into ascending quantiles: the median, and positive steps away from it.

    The number at the level nearest to 0.5 is kept; each level further away lies a softplus of the
    difference of neighbouring numbers beyond the last, so that a shift of all numbers shifts all
    quantiles alike.

    Args:
        levels: Quantile levels, ascending, between 0 and 1.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (..., Q) free numbers, one for each level.

    Returns:
        (..., Q), ascending along the last axis.

    Example:
        >>> import numpy as np
        >>> layer = OrderedQuantiles((0.1, 0.5, 0.9))
        >>> [round(float(v), 3) for v in layer(np.zeros((1, 3), "float32"))[0]]
        [-0.693, 0.0, 0.693]
    """

    def __init__(self, levels: tuple[float, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.levels = tuple(float(level) for level in levels)
        if list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"levels are {levels}: give them ascending, each once")
        self.middle = min(range(len(self.levels)), key=lambda i: abs(self.levels[i] - 0.5))

    def call(self, x: Any) -> Any:
        """Orders the last axis."""
        m = self.middle
        parts = [x[..., m : m + 1]]
        for i in range(m + 1, len(self.levels)):
            step = x[..., i : i + 1] - x[..., i - 1 : i]
            parts.append(parts[-1] + ops.softplus(step))
        for i in range(m - 1, -1, -1):
            step = x[..., i + 1 : i + 2] - x[..., i : i + 1]
            parts.insert(0, parts[0] - ops.softplus(step))
        return ops.concatenate(parts, axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "levels": list(self.levels)}
