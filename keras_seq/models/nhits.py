"""N-HiTS: blocks that look at the series at several rates and explain what the last one left."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers import Dropout
from keras_seq.layers.interpolation import LinearInterpolation
from keras_seq.layers.masking import zero_masked
from keras_seq.layers.patches import Patches
from keras_seq.models._forecaster import (
    last_value,
    lookback_and_channels,
    to_forecast,
    to_rows,
)
from keras_seq.registry import architecture


@architecture("forecaster", "needs_fixed_length", "channel_independent")
def nhits(
    x: Any,
    *,
    horizon: int,
    outputs: int = 1,
    mask: Any = None,
    width: int = 64,
    depth: int = 2,
    rates: tuple[int, ...] = (8, 4, 1),
    dropout: float = 0.0,
) -> Any:
    """Blocks from coarse to fine, each on the residual of those before it; forecasts add up.

    A block takes the greatest value of every ``rate`` steps, and a multi-layer perceptron draws
    from them knots ``rate`` steps apart for the lookback and the horizon. Straight lines through
    the knots are what it explains of the lookback and adds to the forecast. Both start at zero,
    so that training starts from the last value and not from the noise of random maps.

    Args:
        x: The normalised series, (B, lookback, C).
        horizon: Steps to forecast, H.
        outputs: Numbers for each step and channel, Q.
        mask: (B, lookback) bool, True at real steps, or None.
        width: Units of a hidden layer.
        depth: Hidden layers of a block.
        rates: Steps from knot to knot of each block; one longer than the lookback is cut to it.
        dropout: After each hidden layer.

    Returns:
        (B, H, C, Q).

    Raises:
        ValueError: If a rate or the depth is below 1, or the lookback is not fixed.

    Example:
        >>> import keras
        >>> nhits(keras.Input((48, 7)), horizon=12, width=16).shape
        (None, 12, 7, 1)

    Reference:
        Challu et al. 2023, N-HiTS: Neural Hierarchical Interpolation for Time Series Forecasting.
    """
    lookback, channels = lookback_and_channels(x, horizon, outputs)
    if not rates or min(rates) < 1 or depth < 1:
        raise ValueError(f"rates are {rates} and depth {depth}: each must be at least 1")
    last = last_value(x, mask)
    residual = to_rows(zero_masked(x - last, mask))  # (B * C, L)
    forecast = None
    for i, rate in enumerate(rates):
        pool = min(rate, lookback)
        h = residual
        if pool > 1:
            h = ops.max(Patches(pool, pool, name=f"pool_{i}")(h), axis=-1)  # (B * C, L / rate)
        for j in range(depth):
            h = keras.layers.Dense(width, activation="relu", name=f"block_{i}_hidden_{j}")(h)
            if dropout:
                h = Dropout(dropout, name=f"block_{i}_dropout_{j}")(h)
        knots = max(1, horizon // rate)
        ahead = keras.layers.Dense(
            knots * outputs, kernel_initializer="zeros", name=f"block_{i}_forecast"
        )(h)
        ahead = ops.reshape(ahead, (-1, outputs, knots))
        ahead = LinearInterpolation(horizon, name=f"block_{i}_forecast_lines")(ahead)
        forecast = ahead if forecast is None else forecast + ahead  # (B * C, Q, H)
        if i < len(rates) - 1:
            back = keras.layers.Dense(
                max(1, lookback // rate), kernel_initializer="zeros", name=f"block_{i}_backcast"
            )(h)
            back = LinearInterpolation(lookback, name=f"block_{i}_backcast_lines")(back)
            residual = residual - back
    y = to_forecast(ops.transpose(forecast, (0, 2, 1)), channels, horizon, outputs)
    return y + last[..., None]
