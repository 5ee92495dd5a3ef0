"""The Transformer as it was invented: an encoder, and a decoder that attends to it."""

from __future__ import annotations

from typing import Any

import keras

from keras_seq.errors import UserError
from keras_seq.layers import (
    ApplyMask,
    DecoderBlock,
    Dropout,
    EncoderOutput,
    LearnedPositions,
    MemoryProjection,
    SinusoidalPositions,
    TransformerBlock,
)
from keras_seq.layers.attention import check_heads
from keras_seq.models._checks import check_choice, check_shares, check_sizes
from keras_seq.registry import architecture

POSITIONS = ("sinusoidal", "learned", "rotary", "relative", "alibi", "none")
MAX_LENGTH = 1024


@architecture("encoder_decoder", "returns_attention")
def seq2seq_transformer(
    source: Any,
    *,
    target: Any,
    mask: Any = None,
    target_mask: Any = None,
    width: int = 256,
    depth: int = 3,
    heads: int = 4,
    hidden: int = 0,
    dropout: float = 0.3,
    attention_dropout: float = 0.0,
    hidden_dropout: float = 0.0,
    norm: str = "pre",
    norm_kind: str = "layer",
    positions: str = "sinusoidal",
    glu: bool = False,
    activation: str | None = None,
    kv_heads: int = 0,
    max_length: int = MAX_LENGTH,
) -> Any:
    """Transformer blocks over the source; decoder blocks over the target that attend to them.

    The layers ``alignment_{i}`` return the weights over the source, (B, heads, T, S), as second
    output, ``attention_block_{i}`` those of the encoder.

    Args:
        source: Features, (B, S, D).
        target: Features of the target so far, (B, T, D).
        mask: (B, S) bool, True at real steps of the source, or None.
        target_mask: (B, T) bool; it makes no difference, padding comes last.
        width: Features of each step; divisible by `heads`.
        depth: Blocks of the encoder, and as many of the decoder.
        heads: Attention heads.
        hidden: Units of the feed-forward layers; 0: 4 times the width (with `glu` 8/3 times).
        dropout: On the features that come in and on what each part of a block gives, 0 to below
            1.
        attention_dropout: On the attention weights. More than a little of it learns much slower.
        hidden_dropout: On the hidden units of the feed-forward layers.
        norm: ``"pre"`` or ``"post"`` normalisation.
        norm_kind: ``"layer"`` or ``"rms"``.
        positions: ``"sinusoidal"``, ``"learned"``, ``"rotary"``, ``"relative"`` (T5's bias),
            ``"alibi"`` or ``"none"``.
        glu: Whether the feed-forward layers are gated (SwiGLU).
        activation: Of the feed-forward layers; None: "gelu", with `glu` "silu".
        kv_heads: Heads of keys and values, shared by the others (grouped-query); 0: as `heads`.
        max_length: Longest source and target where positions have a table, in steps.

    Returns:
        (B, T, width), the decoder's states.

    Raises:
        UserError: If an option is out of range.

    Example:
        >>> source, target = keras.Input((None, 3)), keras.Input((None, 3))
        >>> y = seq2seq_transformer(source, target=target, width=8, depth=1, heads=2)
        >>> y.shape
        (None, None, 8)

    Reference:
        Vaswani et al. 2017, Attention Is All You Need.
    """
    check_sizes(width=width, depth=depth, heads=heads, dropout=dropout, max_length=max_length)
    check_shares(attention_dropout=attention_dropout, hidden_dropout=hidden_dropout)
    check_choice("norm", norm, ("pre", "post"))
    check_choice("norm_kind", norm_kind, ("layer", "rms"))
    check_choice("positions", positions, POSITIONS)
    try:
        check_heads(width, heads, even=positions == "rotary")
        shared: dict[str, Any] = {
            "norm": norm,
            "norm_kind": norm_kind,
            "hidden": hidden or None,
            "dropout": dropout,
            "attention_dropout": attention_dropout,
            "hidden_dropout": hidden_dropout,
            "rotary": positions == "rotary",
            "bias": positions if positions in ("relative", "alibi") else None,
            "glu": glu,
            "activation": activation,
            "kv_heads": kv_heads or None,
            "max_length": max_length,
        }
        encoder = [
            TransformerBlock(width, heads, name=f"attention_block_{i}", **shared)
            for i in range(depth)
        ]
        decoder = [
            DecoderBlock(width, heads, name=f"alignment_{i}", **shared) for i in range(depth)
        ]
    except ValueError as error:
        raise UserError(str(error)) from None
    x, y = source, target
    if mask is not None:
        x = ApplyMask(name="apply_mask")(x, mask=mask)
    x = _begin(x, "source", width, positions, dropout, max_length)
    for block in encoder:
        x, _ = block(x, mask=mask)
    if mask is not None:
        x = ApplyMask(name="zero_padding")(x, mask=mask)
    if norm == "pre":
        x = _normalise("encoder_norm", norm_kind)(x)
    memory_mask = None if mask is None else EncoderOutput(name="memory_mask")(mask)
    y = _begin(y, "target", width, positions, dropout, max_length)
    for i, block in enumerate(decoder):
        project = MemoryProjection(heads=heads, width=width, name=f"memory_{i}")
        key, value = project(x, mask=mask)
        y, _ = block(y, key, value, mask=memory_mask)
    return _normalise("decoder_norm", norm_kind)(y) if norm == "pre" else y


def _begin(x: Any, name: str, width: int, positions: str, dropout: float, max_length: int) -> Any:
    """Features of the right width that know their positions."""
    if x.shape[-1] != width:
        x = keras.layers.Dense(width, name=f"{name}_project")(x)
    if positions == "sinusoidal":
        x = SinusoidalPositions(max_length, name=f"{name}_positions")(x)
    elif positions == "learned":
        x = LearnedPositions(max_length, name=f"{name}_positions")(x)
    return Dropout(dropout, name=f"{name}_start_dropout")(x) if dropout else x


def _normalise(name: str, kind: str) -> keras.layers.Layer:
    if kind == "rms":
        return keras.layers.RMSNormalization(name=name)
    return keras.layers.LayerNormalization(name=name)
