"""The Transformer encoder on a sequence of feature vectors."""

from __future__ import annotations

from typing import Any

import keras

from keras_seq.errors import UserError
from keras_seq.layers import (
    ApplyMask,
    Dropout,
    LearnedPositions,
    SinusoidalPositions,
    TransformerBlock,
)
from keras_seq.layers.attention import check_heads
from keras_seq.models._checks import check_choice, check_sizes
from keras_seq.registry import architecture

# Positions known where the length is left open. Waves are computed for any number, at no cost in
# the file; tables of learned vectors and of turns have a row for each.
OPEN_LENGTH = 65536
OPEN_TABLE = 4096


@architecture("returns_attention")
def transformer(
    x: Any,
    *,
    mask: Any = None,
    width: int = 64,
    depth: int = 2,
    dropout: float = 0.1,
    heads: int = 4,
    norm: str = "pre",
    positions: str = "sinusoidal",
    causal: bool = False,
    glu: bool = False,
    activation: str | None = None,
) -> Any:
    """Blocks of self-attention and feed-forward layers on projected features.

    The layers ``attention_block_{i}`` return the weights, (B, heads, T, T), as second output.

    Args:
        x: Features, (B, T, D). Where T is open, at most 65,536 steps; 4,096 with learned and with
            rotary positions.
        mask: (B, T) bool, True at real steps, or None.
        width: Features of each step; divisible by `heads`.
        depth: Number of blocks.
        dropout: On weights, hidden units and each half of a block, 0 to below 1.
        heads: Attention heads.
        norm: ``"pre"`` or ``"post"`` layer normalisation.
        positions: ``"sinusoidal"``, ``"learned"``, ``"rotary"`` or ``"none"``.
        causal: Whether step t sees only steps up to t.
        glu: Whether the feed-forward layers are gated (SwiGLU).
        activation: Of the feed-forward layers; None: "gelu", with `glu` "silu".

    Returns:
        (B, T, width), zeros at masked steps.

    Raises:
        UserError: If an option is out of range, or `width` is not divisible by `heads`.

    Example:
        >>> x = keras.Input((48, 3))
        >>> model = keras.Model(x, transformer(x, width=8, heads=2))
        >>> output, weights = model.get_layer("attention_block_0").output
        >>> weights.shape
        (None, 2, 48, 48)

    Reference:
        Vaswani et al. 2017, Attention Is All You Need.
    """
    check_sizes(width=width, depth=depth, heads=heads, dropout=dropout)
    check_choice("norm", norm, ("pre", "post"))
    check_choice("positions", positions, ("sinusoidal", "learned", "rotary", "none"))
    try:
        check_heads(width, heads, even=positions == "rotary")
    except ValueError as error:
        raise UserError(str(error)) from None
    max_length = x.shape[1] or (OPEN_LENGTH if positions == "sinusoidal" else OPEN_TABLE)
    if mask is not None:
        x = ApplyMask(name="apply_mask")(x, mask=mask)
    x = keras.layers.Dense(width, name="project")(x)
    if positions == "sinusoidal":
        x = SinusoidalPositions(max_length, name="positions")(x)
    elif positions == "learned":
        x = LearnedPositions(max_length, name="positions")(x)
    if dropout:
        x = Dropout(dropout, name="dropout")(x)
    for i in range(depth):
        x, _ = TransformerBlock(
            width,
            heads,
            norm=norm,
            dropout=dropout,
            causal=causal,
            rotary=positions == "rotary",
            glu=glu,
            activation=activation,
            max_length=max_length,
            name=f"attention_block_{i}",
        )(x, mask=mask)
    if norm == "pre":
        x = keras.layers.LayerNormalization(name="final_norm")(x)
    if mask is not None:
        x = ApplyMask(name="zero_padding")(x, mask=mask)
    return x
