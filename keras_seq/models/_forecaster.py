"""What the forecasters share: checks, masked steps, and the two layouts of a window."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_seq.layers.reversible_normalization import LastObserved


def lookback_and_channels(x: Any, horizon: int, outputs: int) -> tuple[int, int]:
    """Checks what every forecaster needs and returns (lookback, channels).

    Args:
        x: (B, lookback, C) with a fixed lookback.
        horizon: Steps to forecast.
        outputs: Numbers for each step and channel.

    Raises:
        ValueError: If the lookback is not fixed or shorter than 2, or a count is below 1.
    """
    if len(x.shape) != 3 or x.shape[1] is None or x.shape[2] is None:
        raise ValueError(
            f"the series has the shape {tuple(x.shape)}: a forecaster needs "
            "(batch, lookback, channels) with a fixed lookback and fixed channels"
        )
    if x.shape[1] < 2:
        raise ValueError(f"the lookback is {x.shape[1]}: give at least 2 steps")
    if horizon < 1 or outputs < 1:
        raise ValueError(f"horizon is {horizon} and outputs {outputs}: each must be at least 1")
    return x.shape[1], x.shape[2]


def last_value(x: Any, mask: Any) -> Any:
    """Returns the last real value of each channel, (B, 1, C).

    Args:
        x: (B, L, C).
        mask: (B, L) bool or None.
    """
    return x[:, -1:] if mask is None else LastObserved(name="last_observed")(x, mask=mask)


def to_rows(x: Any) -> Any:
    """Returns each channel as a row of its own: (B, L, C) -> (B * C, L).

    Args:
        x: (B, L, C).
    """
    return ops.reshape(ops.transpose(x, (0, 2, 1)), (-1, x.shape[1]))


def to_forecast(y: Any, channels: int, horizon: int, outputs: int) -> Any:
    """Returns rows as a forecast: (B * C, H * Q) or (B, C, H * Q) -> (B, H, C, Q).

    Args:
        y: Rows with the numbers of each step side by side.
        channels: C.
        horizon: H.
        outputs: Q.
    """
    return ops.transpose(ops.reshape(y, (-1, channels, horizon, outputs)), (0, 2, 1, 3))
