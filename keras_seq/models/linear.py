"""Linear maps from lookback to horizon: NLinear and DLinear."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers import Dropout
from keras_seq.layers.decomposition import SeriesDecomposition
from keras_seq.layers.masking import zero_masked
from keras_seq.models._forecaster import (
    last_value,
    lookback_and_channels,
    to_forecast,
)
from keras_seq.registry import architecture


@architecture("forecaster", "needs_fixed_length", "channel_independent")
def linear(
    x: Any,
    *,
    horizon: int,
    outputs: int = 1,
    mask: Any = None,
    form: str = "nlinear",
    individual: bool = False,
    window: int = 25,
    dropout: float = 0.0,
) -> Any:
    """One linear map from lookback to horizon, the same for all channels.

    The weights start at zero, so training starts from the last value (``nlinear``) or from the
    window's mean (``dlinear``, on a normalised window) and adds only what the data ask for.

    Args:
        x: The normalised series, (B, lookback, C).
        horizon: Steps to forecast, H.
        outputs: Numbers for each step and channel, Q.
        mask: (B, lookback) bool, True at real steps, or None.
        form: ``"nlinear"`` works on differences from the last value; ``"dlinear"`` maps a moving
            average and the rest of the series by a map each.
        individual: Whether each channel has maps of its own.
        window: Steps of the moving average of ``dlinear``.
        dropout: Share of the lookback's steps that are left out in training.

    Returns:
        (B, H, C, Q).

    Raises:
        ValueError: If ``form`` is unknown or the lookback is not fixed.

    Example:
        >>> import keras
        >>> linear(keras.Input((48, 7)), horizon=12).shape
        (None, 12, 7, 1)

    Reference:
        Zeng et al. 2023, Are Transformers Effective for Time Series Forecasting?
    """
    if form not in ("nlinear", "dlinear"):
        raise ValueError(f"form is {form!r}: give 'nlinear' or 'dlinear'")
    _, channels = lookback_and_channels(x, horizon, outputs)

    def over_time(series: Any, name: str) -> Any:
        rows = ops.transpose(series, (0, 2, 1))  # (B, C, L)
        if dropout:
            rows = Dropout(dropout, name=f"{name}_dropout")(rows)
        size = horizon * outputs
        if individual:
            return keras.layers.EinsumDense(
                "bcl,clh->bch",
                output_shape=(channels, size),
                bias_axes="ch",
                kernel_initializer="zeros",
                name=name,
            )(rows)
        return keras.layers.Dense(size, kernel_initializer="zeros", name=name)(rows)

    if form == "nlinear":
        last = last_value(x, mask)
        y = to_forecast(over_time(zero_masked(x - last, mask), "time"), channels, horizon, outputs)
        return y + last[..., None]
    seasonal, trend = SeriesDecomposition(window, name="decomposition")(zero_masked(x, mask))
    y = over_time(seasonal, "seasonal") + over_time(trend, "trend")
    return to_forecast(y, channels, horizon, outputs)
