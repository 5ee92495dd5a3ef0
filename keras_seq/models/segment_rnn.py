"""SegRNN: a recurrent network over segments, decoding all segments of the forecast at once."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers import GRU, Dropout
from keras_seq.layers.masking import zero_masked
from keras_seq.layers.patches import Patches, SegmentQueries
from keras_seq.models._forecaster import (
    last_value,
    lookback_and_channels,
    to_forecast,
    to_rows,
)
from keras_seq.registry import architecture


@architecture("forecaster", "needs_fixed_length", "channel_independent", "recurrent")
def segment_rnn(
    x: Any,
    *,
    horizon: int,
    outputs: int = 1,
    mask: Any = None,
    width: int = 128,
    segment_length: int = 48,
    anchor: bool = False,
    dropout: float = 0.1,
) -> Any:
    """A GRU over a few long segments of each channel; the forecast's segments come in parallel.

    The lookback is cut into as few equal segments as ``segment_length`` allows; where they do not
    cover it exactly, the oldest value is repeated at the start. The last state answers one query
    (position and channel) for each segment of the forecast, in a single step of the same GRU.

    Args:
        x: The normalised series, (B, lookback, C).
        horizon: Steps to forecast, H.
        outputs: Numbers for each step and channel, Q.
        mask: (B, lookback) bool, True at real steps, or None.
        width: Units of the GRU.
        segment_length: Longest segment, in steps.
        anchor: Whether the network sees and forecasts differences from the last value, as
            published for windows that are not normalised.
        dropout: Before the last map.

    Returns:
        (B, H, C, Q).

    Raises:
        ValueError: If the lookback is not fixed, or ``segment_length`` is below 1.

    Example:
        >>> import keras
        >>> segment_rnn(keras.Input((96, 7)), horizon=30, width=16).shape
        (None, 30, 7, 1)

    Reference:
        Lin et al. 2023, SegRNN: Segment Recurrent Neural Network for Long-Term Forecasting.
    """
    lookback, channels = lookback_and_channels(x, horizon, outputs)
    if segment_length < 1:
        raise ValueError(f"segment_length is {segment_length}: give at least 1 step")
    past = _even(lookback, segment_length)
    ahead = _even(horizon, segment_length)
    segments = -(-horizon // ahead)

    last: Any = last_value(x, mask) if anchor else None
    rows = to_rows(zero_masked(x - last if anchor else x, mask))  # (B * C, L)
    h = Patches(past, past, name="segments")(rows)  # (B * C, N, P)
    h = keras.layers.Dense(width, activation="relu", name="embedding")(h)
    gru = GRU(width, name="gru")
    queries, states = SegmentQueries(segments, channels, name="queries")(gru(h))
    h = gru(queries, initial_state=states)  # (B * C * M, W)
    if dropout:
        h = Dropout(dropout, name="dropout")(h)
    y = keras.layers.Dense(ahead * outputs, name="segment")(h)
    y = ops.reshape(y, (-1, segments * ahead, outputs))[:, :horizon]  # (B * C, H, Q)
    y = to_forecast(y, channels, horizon, outputs)
    return y + last[..., None] if anchor else y


def _even(steps: int, longest: int) -> int:
    """The length of equal segments, as few as `longest` allows."""
    return -(-steps // -(-steps // longest))
