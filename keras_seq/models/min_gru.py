"""Gated recurrent units whose gates do not look back, computed for all steps at once."""

from __future__ import annotations

from typing import Any

import keras

from keras_seq.layers import ApplyMask, Dropout, MinGRU
from keras_seq.models._checks import check_sizes
from keras_seq.registry import architecture


@architecture("causal", "streaming", "recurrent")
def min_gru(
    x: Any,
    *,
    mask: Any = None,
    width: int = 64,
    depth: int = 2,
    dropout: float = 0.0,
    bidirectional: bool = False,
) -> Any:
    """Blocks of a layer normalisation and a `MinGRU`, with residuals, on projected features.

    The gates see the past through the layers below: take two layers or more.

    Args:
        x: Features, (B, T, D).
        mask: (B, T) bool, True at real steps, or None.
        width: Features of a state.
        depth: Layers on top of each other.
        dropout: On what each layer adds, 0 to below 1.
        bidirectional: Whether half of each layer reads from the end (no longer causal).

    Returns:
        (B, T, width), zeros at masked steps.

    Raises:
        UserError: If a size is below 1 or the dropout is not a share.
        ValueError: If the width is odd and the layers are bidirectional.

    Example:
        >>> x = keras.Input((48, 3))
        >>> keras.Model(x, min_gru(x, width=8)).output.shape
        (None, 48, 8)

    Reference:
        Feng et al. 2024, Were RNNs All We Needed?
    """
    check_sizes(width=width, depth=depth, dropout=dropout)
    if bidirectional and width % 2:
        raise ValueError(
            f"width {width} is odd, and a bidirectional layer gives half to each way: take "
            f"{width + 1}"
        )
    if mask is not None:
        x = ApplyMask(name="apply_mask")(x, mask=mask)
    x = keras.layers.Dense(width, name="project")(x)
    for i in range(depth):
        h = keras.layers.LayerNormalization(name=f"norm_{i}")(x)
        units = width // 2 if bidirectional else width
        layer: Any = MinGRU(units, return_sequences=True, name=f"min_gru_{i}")
        if bidirectional:
            layer = keras.layers.Bidirectional(layer, name=f"min_gru_{i}_both_ways")
        h = layer(h, mask=mask)
        if dropout:
            h = Dropout(dropout, name=f"dropout_{i}")(h)
        x = keras.layers.Add(name=f"residual_{i}")([x, h])
    x = keras.layers.LayerNormalization(name="final_norm")(x)
    if mask is not None:
        x = ApplyMask(name="zero_padding")(x, mask=mask)
    return x
