"""iTransformer: every channel's whole lookback is one token, attention runs across channels."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers import Dropout
from keras_seq.layers.masking import zero_masked
from keras_seq.layers.transformer import TransformerBlock
from keras_seq.models._forecaster import lookback_and_channels, to_forecast
from keras_seq.registry import architecture


@architecture("forecaster", "needs_fixed_length", "returns_attention")
def inverted_transformer(
    x: Any,
    *,
    horizon: int,
    outputs: int = 1,
    mask: Any = None,
    width: int = 64,
    depth: int = 2,
    heads: int = 4,
    norm: str = "post",
    glu: bool = False,
    dropout: float = 0.1,
) -> Any:
    """A token for each channel, embedded from its whole lookback; attention relates the channels.

    Args:
        x: The normalised series, (B, lookback, C).
        horizon: Steps to forecast, H.
        outputs: Numbers for each step and channel, Q.
        mask: (B, lookback) bool, True at real steps, or None.
        width: Features of a token; a multiple of ``heads``.
        depth: Transformer blocks.
        heads: Attention heads.
        norm: ``"post"``, as published, or ``"pre"``: where the blocks normalise.
        glu: Whether the blocks' feed-forward parts are gated.
        dropout: On the tokens and in the blocks.

    Returns:
        (B, H, C, Q).

    Raises:
        ValueError: If the lookback is not fixed, or ``width`` is no multiple of ``heads``.

    Example:
        >>> import keras
        >>> inverted_transformer(keras.Input((48, 7)), horizon=12, width=16).shape
        (None, 12, 7, 1)

    Reference:
        Liu et al. 2024, iTransformer: Inverted Transformers Are Effective for Time Series
        Forecasting.
    """
    _, channels = lookback_and_channels(x, horizon, outputs)
    if width % heads:
        raise ValueError(f"width is {width}: give a multiple of heads, which is {heads}")
    h = ops.transpose(zero_masked(x, mask), (0, 2, 1))  # (B, C, L)
    h = keras.layers.Dense(width, name="embedding")(h)  # (B, C, W)
    if dropout:
        h = Dropout(dropout, name="embedding_dropout")(h)
    for i in range(depth):
        h, _ = TransformerBlock(
            width, heads, dropout=dropout, norm=norm, glu=glu, name=f"attention_block_{i}"
        )(h)
    h = keras.layers.LayerNormalization(name="final_norm")(h)
    y = keras.layers.Dense(horizon * outputs, name="time")(h)
    return to_forecast(y, channels, horizon, outputs)
