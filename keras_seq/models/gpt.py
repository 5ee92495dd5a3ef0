"""The decoder-only Transformer: it reads what came before, and nothing after."""

from __future__ import annotations

from typing import Any

import keras

from keras_seq.errors import UserError
from keras_seq.layers import ApplyMask, Dropout, TransformerBlock
from keras_seq.layers.attention import check_heads
from keras_seq.models._checks import check_sizes
from keras_seq.registry import architecture


@architecture("causal", "streaming", "returns_attention")
def gpt(
    x: Any,
    *,
    mask: Any = None,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    dropout: float = 0.0,
    glu: bool = False,
    max_length: int = 2048,
) -> Any:
    """Causal Transformer blocks, normalised before each half, with rotary positions.

    The layers ``attention_block_{i}`` return the weights, (B, heads, T, T), as second output.

    Args:
        x: Features, (B, T, D); projected where D is not `width`.
        mask: (B, T) bool, True at real steps, or None.
        width: Features of each step; divisible by twice `heads`.
        depth: Number of blocks.
        heads: Attention heads.
        dropout: On the input, the weights, hidden units and each half of a block, 0 to below 1.
        glu: Whether the feed-forward layers are gated (SwiGLU).
        max_length: Longest sequence where T is left open, in steps.

    Returns:
        (B, T, width), zeros at masked steps.

    Raises:
        UserError: If an option is out of range, or `width` does not fit `heads`.

    Example:
        >>> x = keras.Input((48, 3))
        >>> keras.Model(x, gpt(x, width=8, depth=1, heads=2)).output.shape
        (None, 48, 8)

    Reference:
        Radford et al. 2019, Language Models are Unsupervised Multitask Learners; Su et al. 2021,
        RoFormer: Enhanced Transformer with Rotary Position Embedding.
    """
    return rotary_transformer(
        x,
        mask=mask,
        width=width,
        depth=depth,
        heads=heads,
        dropout=dropout,
        glu=glu,
        max_length=max_length,
        causal=True,
    )


def rotary_transformer(
    x: Any,
    *,
    mask: Any,
    width: int,
    depth: int,
    heads: int,
    dropout: float,
    glu: bool,
    max_length: int,
    causal: bool,
) -> Any:
    """Builds what `gpt` and `bert` share; they differ in who sees whom, and in what is predicted.

    Args:
        x: Features, (B, T, D).
        mask: (B, T) bool, True at real steps, or None.
        width: Features of each step.
        depth: Number of blocks.
        heads: Attention heads.
        dropout: 0 to below 1.
        glu: Whether the feed-forward layers are gated.
        max_length: Longest sequence where T is left open.
        causal: Whether step t sees only steps up to t.

    Returns:
        (B, T, width), zeros at masked steps.

    Raises:
        UserError: If an option is out of range.
    """
    check_sizes(width=width, depth=depth, heads=heads, max_length=max_length, dropout=dropout)
    try:
        check_heads(width, heads, even=True)
    except ValueError as error:
        raise UserError(str(error)) from None
    if mask is not None:
        x = ApplyMask(name="apply_mask")(x, mask=mask)
    if x.shape[-1] != width:
        x = keras.layers.Dense(width, name="project")(x)
    # Embeddings start small, and what the first block adds would drown them.
    x = keras.layers.LayerNormalization(name="embedding_norm")(x)
    if dropout:
        x = Dropout(dropout, name="dropout")(x)
    for i in range(depth):
        x, _ = TransformerBlock(
            width,
            heads,
            norm="pre",
            dropout=dropout,
            causal=causal,
            rotary=True,
            glu=glu,
            max_length=x.shape[1] or max_length,
            name=f"attention_block_{i}",
        )(x, mask=mask)
    x = keras.layers.LayerNormalization(name="final_norm")(x)
    if mask is not None:
        x = ApplyMask(name="zero_padding")(x, mask=mask)
    return x
