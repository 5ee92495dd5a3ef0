"""CycleNet: a learned periodic pattern taken off the lookback and put back on the horizon."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.errors import UserError
from keras_seq.layers import Dropout
from keras_seq.layers.cycle import LearnedCycle
from keras_seq.layers.masking import zero_masked
from keras_seq.models._forecaster import lookback_and_channels, to_forecast
from keras_seq.registry import architecture


@architecture("forecaster", "needs_fixed_length", "channel_independent")
def cycle(
    x: Any,
    *,
    horizon: int,
    outputs: int = 1,
    mask: Any = None,
    period: int | None = None,
    time_index: Any = None,
    backbone: str = "mlp",
    width: int = 64,
    depth: int = 1,
    dropout: float = 0.0,
) -> Any:
    """A learned cycle for each channel, and a shared map of what the cycle leaves over.

    Args:
        x: The normalised series, (B, lookback, C).
        horizon: Steps to forecast, H.
        outputs: Numbers for each step and channel, Q.
        mask: (B, lookback) bool, True at real steps, or None.
        period: Steps of the cycle.
        time_index: (B,) int32, the calendar position of the window's first step, in steps.
        backbone: ``"mlp"`` (hidden layers with ReLU) or ``"linear"`` (one map, no ``width``).
        width: Units of a hidden layer.
        depth: Hidden layers.
        dropout: After each hidden layer.

    Returns:
        (B, H, C, Q).

    Raises:
        UserError: If there is no period or no calendar position.
        ValueError: If the backbone is unknown or the lookback is not fixed.

    Example:
        >>> import keras
        >>> x, start = keras.Input((48, 7)), keras.Input((), dtype="int32")
        >>> cycle(x, horizon=12, period=24, time_index=start).shape
        (None, 12, 7, 1)

    Reference:
        Lin et al. 2024, CycleNet: Enhancing Time Series Forecasting through Modeling Periodic
        Patterns.
    """
    lookback, channels = lookback_and_channels(x, horizon, outputs)
    if backbone not in ("mlp", "linear"):
        raise ValueError(f"backbone is {backbone!r}: give 'mlp' or 'linear'")
    if period is None or time_index is None:
        missing = "period" if period is None else "time_index"
        raise UserError(
            f"cycle got no {missing}: give the seasonal period in steps (24 for hourly data with "
            "a daily pattern) and the windows' calendar positions, or leave cycle out"
        )
    table = LearnedCycle(period, channels, name="cycle")
    rest = zero_masked(x - table(time_index, offset=0, length=lookback), mask)
    h = ops.transpose(rest, (0, 2, 1))  # (B, C, L)
    if backbone == "mlp":
        for i in range(depth):
            h = keras.layers.Dense(width, activation="relu", name=f"hidden_{i}")(h)
            if dropout:
                h = Dropout(dropout, name=f"dropout_{i}")(h)
    # Zeros: training starts from the cycle alone, not from the noise of a random map.
    y = keras.layers.Dense(horizon * outputs, kernel_initializer="zeros", name="time")(h)
    ahead = table(time_index, offset=lookback, length=horizon)  # (B, H, C)
    return to_forecast(y, channels, horizon, outputs) + ahead[..., None]
