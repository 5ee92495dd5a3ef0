"""A series as a slow trend and what is left."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_seq")
class SeriesDecomposition(keras.layers.Layer):
    """Splits a series into a centred moving average and the rest.

    The ends are padded with the first and the last value, so the length is kept.

    Args:
        window: Steps of the moving average; of an even window the greater half lies ahead.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, C).

    Returns:
        ``(seasonal, trend)``, each (B, T, C); their sum is ``x``.

    Example:
        >>> import numpy as np
        >>> x = np.array([[[0.0], [3.0], [6.0]]], "float32")
        >>> seasonal, trend = SeriesDecomposition(3)(x)
        >>> trend.numpy().ravel().tolist(), seasonal.numpy().ravel().tolist()
        ([1.0, 3.0, 5.0], [-1.0, 0.0, 1.0])

    Reference:
        Zeng et al. 2023, Are Transformers Effective for Time Series Forecasting? (DLinear).
    """

    def __init__(self, window: int = 25, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        if window < 1:
            raise ValueError(f"window is {window}: give at least 1 step")
        self.window = int(window)

    def call(self, x: Any) -> tuple[Any, Any]:
        """Splits the series."""
        before, after = (self.window - 1) // 2, self.window // 2
        parts = [ops.tile(x[:, :1], (1, before, 1))] if before else []
        parts.append(x)
        if after:
            parts.append(ops.tile(x[:, -1:], (1, after, 1)))
        padded = ops.concatenate(parts, axis=1)  # (B, T + window - 1, C)
        trend = ops.average_pool(
            padded, self.window, strides=1, padding="valid", data_format="channels_last"
        )
        return x - trend, trend

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Ends an implicit mask: masks are passed by hand."""
        return None

    def compute_output_spec(self, x: Any) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Returns the input's shape twice."""
        return (
            keras.KerasTensor(x.shape, dtype=self.compute_dtype),
            keras.KerasTensor(x.shape, dtype=self.compute_dtype),
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "window": self.window}
