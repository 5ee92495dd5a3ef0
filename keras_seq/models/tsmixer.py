"""TSMixer: perceptrons that mix the steps of a channel and the channels of a step, in turn."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers import Dropout
from keras_seq.layers.masking import zero_masked
from keras_seq.models._forecaster import lookback_and_channels, to_forecast
from keras_seq.registry import architecture


@architecture("forecaster", "needs_fixed_length")
def tsmixer(
    x: Any,
    *,
    horizon: int,
    outputs: int = 1,
    mask: Any = None,
    width: int = 64,
    depth: int = 2,
    norm: str | None = None,
    dropout: float = 0.1,
) -> Any:
    """Residual blocks that mix over time, then over channels; one map to the horizon at the end.

    The published time mixing is a full lookback-to-lookback map; here it has a hidden layer, so
    that its size follows ``width`` and not the square of the lookback.

    Args:
        x: The normalised series, (B, lookback, C).
        horizon: Steps to forecast, H.
        outputs: Numbers for each step and channel, Q.
        mask: (B, lookback) bool, True at real steps, or None.
        width: Units of the hidden layers; of those over channels at most 4 times the channels.
        depth: Blocks.
        norm: ``"layer"`` (over time and channels) or ``"batch"`` before each perceptron, or
            None, which is enough for a few blocks on normalised windows.
        dropout: After each map.

    Returns:
        (B, H, C, Q).

    Raises:
        ValueError: If ``norm`` is unknown or the lookback is not fixed.

    Example:
        >>> import keras
        >>> tsmixer(keras.Input((48, 7)), horizon=12, width=16).shape
        (None, 12, 7, 1)

    Reference:
        Chen et al. 2023, TSMixer: An All-MLP Architecture for Time Series Forecasting.
    """
    lookback, channels = lookback_and_channels(x, horizon, outputs)
    if norm not in (None, "layer", "batch"):
        raise ValueError(f"norm is {norm!r}: give 'layer', 'batch' or None")

    def normalized(h: Any, name: str) -> Any:
        if norm == "layer":
            return keras.layers.LayerNormalization(axis=[1, 2], name=name)(h)
        if norm == "batch":
            return keras.layers.BatchNormalization(axis=1, name=name)(h)
        return h

    def perceptron(h: Any, size: int, hidden: int, name: str) -> Any:
        h = keras.layers.Dense(hidden, activation="relu", name=f"{name}_hidden")(h)
        h = Dropout(dropout, name=f"{name}_hidden_dropout")(h)
        h = keras.layers.Dense(size, name=f"{name}_out")(h)
        return Dropout(dropout, name=f"{name}_out_dropout")(h)

    h = ops.transpose(zero_masked(x, mask), (0, 2, 1))  # (B, C, L)
    for i in range(depth):
        h = h + perceptron(normalized(h, f"time_norm_{i}"), lookback, width, f"time_{i}")
        across = ops.transpose(normalized(h, f"channel_norm_{i}"), (0, 2, 1))  # (B, L, C)
        across = perceptron(across, channels, min(width, 4 * channels), f"channel_{i}")
        h = h + ops.transpose(across, (0, 2, 1))
    # Zeros: the noise of a random map from a long lookback is slow to unlearn.
    y = keras.layers.Dense(horizon * outputs, kernel_initializer="zeros", name="time")(h)
    return to_forecast(y, channels, horizon, outputs)
