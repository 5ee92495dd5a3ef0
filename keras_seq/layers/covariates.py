"""The effect of known covariates on a series."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_seq")
class CovariateEffect(keras.layers.Layer):
    """What the covariates of a step say about the channels at that step, learned jointly.

    A regression with one hidden layer beside the covariates' own linear term. Both start at zero,
    so that a model begins as if there were no covariates.

    Args:
        channels: Channels of the series, C.
        width: Units of the hidden layer.
        **kwargs: As for every Keras layer.

    Call arguments:
        covariates: (B, T, K).

    Returns:
        (B, T, C).

    Example:
        >>> import numpy as np
        >>> CovariateEffect(2)(np.ones((1, 4, 3), "float32")).shape
        TensorShape([1, 4, 2])
    """

    def __init__(self, channels: int, width: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.width = width

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights."""
        features = input_shape[-1]
        self.hidden_kernel = self.add_weight(
            shape=(features, self.width), initializer="glorot_uniform", name="hidden_kernel"
        )
        self.hidden_bias = self.add_weight(
            shape=(self.width,), initializer="zeros", name="hidden_bias"
        )
        self.effect_kernel = self.add_weight(
            shape=(self.width, self.channels), initializer="zeros", name="effect_kernel"
        )
        self.linear_kernel = self.add_weight(
            shape=(features, self.channels), initializer="zeros", name="linear_kernel"
        )

    def call(self, covariates: Any) -> Any:
        """Computes the effect at each step."""
        x = ops.cast(covariates, self.compute_dtype)
        hidden = ops.gelu(ops.matmul(x, self.hidden_kernel) + self.hidden_bias, approximate=True)
        return ops.matmul(hidden, self.effect_kernel) + ops.matmul(x, self.linear_kernel)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns (B, T, C)."""
        return (*input_shape[:-1], self.channels)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "channels": self.channels, "width": self.width}
