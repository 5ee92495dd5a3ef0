"""PatchTST: a Transformer over patches of one channel at a time."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers import Dropout
from keras_seq.layers.masking import zero_masked
from keras_seq.layers.patches import LearnedOffset, Patches
from keras_seq.layers.transformer import TransformerBlock
from keras_seq.models._forecaster import (
    lookback_and_channels,
    to_forecast,
    to_rows,
)
from keras_seq.registry import architecture


@architecture("forecaster", "needs_fixed_length", "channel_independent", "returns_attention")
def patch_transformer(
    x: Any,
    *,
    horizon: int,
    outputs: int = 1,
    mask: Any = None,
    width: int = 64,
    depth: int = 2,
    heads: int = 4,
    patch_length: int = 16,
    stride: int = 8,
    head_width: int = 8,
    norm: str = "pre",
    glu: bool = False,
    dropout: float = 0.1,
) -> Any:
    """Each channel, cut into overlapping patches, is a sequence of tokens for one Transformer.

    The published head maps all tokens at once, ``patches x width`` numbers, to the horizon, and
    holds most of the weights. Here each token is first narrowed to ``head_width`` numbers.

    Args:
        x: The normalised series, (B, lookback, C).
        horizon: Steps to forecast, H.
        outputs: Numbers for each step and channel, Q.
        mask: (B, lookback) bool, True at real steps, or None.
        width: Features of a token; a multiple of ``heads``.
        depth: Transformer blocks.
        heads: Attention heads.
        patch_length: Steps of a patch; cut to the lookback where that is shorter.
        stride: Steps from patch to patch; at most the patch.
        head_width: Features of a token that reach the last map.
        norm: ``"pre"`` or ``"post"``: where the blocks normalise.
        glu: Whether the blocks' feed-forward parts are gated.
        dropout: In the blocks and before the last map.

    Returns:
        (B, H, C, Q).

    Raises:
        ValueError: If the lookback is not fixed, or ``width`` is no multiple of ``heads``.

    Example:
        >>> import keras
        >>> patch_transformer(keras.Input((48, 7)), horizon=12, width=16).shape
        (None, 12, 7, 1)

    Reference:
        Nie et al. 2023, A Time Series is Worth 64 Words: Long-term Forecasting with Transformers.
    """
    lookback, channels = lookback_and_channels(x, horizon, outputs)
    if width % heads:
        raise ValueError(f"width is {width}: give a multiple of heads, which is {heads}")
    length = min(patch_length, lookback)
    patches = Patches(length, min(stride, length), padding="end", name="patches")
    h = patches(to_rows(zero_masked(x, mask)))  # (B * C, N, P)
    h = keras.layers.Dense(width, name="embedding")(h)
    h = LearnedOffset(name="position")(h)
    for i in range(depth):
        h, _ = TransformerBlock(
            width, heads, dropout=dropout, norm=norm, glu=glu, name=f"attention_block_{i}"
        )(h)
    if norm == "pre":
        h = keras.layers.LayerNormalization(name="final_norm")(h)
    h = keras.layers.Dense(head_width, name="narrow")(h)
    h = ops.reshape(h, (-1, h.shape[1] * head_width))  # (B * C, N * head_width)
    if dropout:
        h = Dropout(dropout, name="head_dropout")(h)
    y = keras.layers.Dense(horizon * outputs, name="time")(h)
    return to_forecast(y, channels, horizon, outputs)
