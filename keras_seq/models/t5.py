"""T5: the encoder-decoder Transformer that knows positions by their distance only."""

from __future__ import annotations

from typing import Any

import keras

from keras_seq.errors import UserError
from keras_seq.layers import (
    ApplyMask,
    DecoderBlock,
    Dropout,
    EncoderOutput,
    MemoryProjection,
    RelativeBiasTable,
    TransformerBlock,
)
from keras_seq.layers.attention import check_heads
from keras_seq.models._checks import check_sizes
from keras_seq.registry import architecture


@architecture("encoder_decoder", "returns_attention")
def t5(
    source: Any,
    *,
    target: Any,
    mask: Any = None,
    target_mask: Any = None,
    width: int = 256,
    depth: int = 3,
    heads: int = 4,
    hidden: int = 0,
    dropout: float = 0.1,
    glu: bool = False,
    activation: str | None = None,
    buckets: int = 32,
    max_distance: int = 128,
) -> Any:
    """Transformer blocks with RMS normalisation before each part, and a bias for each distance.

    The blocks of the encoder share one learned bias of scores by distance, those of the decoder
    another one, as in the paper. No layer adds a learned vector, and nothing has a longest length.
    The layers ``alignment_{i}`` return the weights over the source, (B, heads, T, S), as second
    output, ``attention_block_{i}`` those of the encoder.

    What is pretrained by the task ``language_model`` with the objective ``denoise`` goes into a
    translation with ``--init RUN``.

    Two numbers stand elsewhere than in the paper's code, to the same effect at the start: scores
    are divided by the square root of the head width here (there the first weights are so much
    smaller), and embeddings are multiplied by the square root of their width by the head (there
    the output is divided by it).

    Args:
        source: Features, (B, S, D).
        target: Features of the target so far, (B, T, D).
        mask: (B, S) bool, True at real steps of the source, or None.
        target_mask: (B, T) bool; it makes no difference, padding comes last.
        width: Features of each step; divisible by `heads`.
        depth: Blocks of the encoder, and as many of the decoder.
        heads: Attention heads.
        hidden: Units of the feed-forward layers; 0: 4 times the width (with `glu` 8/3 times).
        dropout: On the features, weights, hidden units and each part of a block, 0 to below 1.
        glu: Whether the feed-forward layers are gated, as in version 1.1.
        activation: Of the feed-forward layers; None: "relu", with `glu` "gelu".
        buckets: Distances that are told from each other; see `keras_seq.layers.RelativeBias`.
        max_distance: From this distance on all steps are alike.

    Returns:
        (B, T, width), the decoder's states.

    Raises:
        UserError: If an option is out of range.

    Example:
        >>> source, target = keras.Input((None, 3)), keras.Input((None, 3))
        >>> y = t5(source, target=target, width=8, depth=1, heads=2)
        >>> y.shape
        (None, None, 8)

    Reference:
        Raffel et al. 2020, Exploring the Limits of Transfer Learning with a Unified Text-to-Text
        Transformer; Shazeer 2020, GLU Variants Improve Transformer.
    """
    check_sizes(width=width, depth=depth, heads=heads, dropout=dropout)
    shared: dict[str, Any] = {
        "norm": "pre",
        "norm_kind": "rms",
        "hidden": hidden or None,
        "dropout": dropout,
        "glu": glu,
        "activation": activation or ("gelu" if glu else "relu"),
        "use_bias": False,
    }
    far: dict[str, Any] = {"buckets": buckets, "max_distance": max_distance}
    try:
        check_heads(width, heads)
        encoder = [
            TransformerBlock(width, heads, name=f"attention_block_{i}", **shared)
            for i in range(depth)
        ]
        decoder = [
            DecoderBlock(width, heads, name=f"alignment_{i}", **shared) for i in range(depth)
        ]
        encoder_bias = RelativeBiasTable(heads, name="encoder_bias", **far)
        decoder_bias = RelativeBiasTable(heads, causal=True, name="decoder_bias", **far)
    except ValueError as error:
        raise UserError(str(error)) from None
    x, y = source, target
    if mask is not None:
        x = ApplyMask(name="apply_mask")(x, mask=mask)
    x = _begin(x, "source", width, dropout)
    distances = encoder_bias(x)
    for block in encoder:
        x, _ = block(x, mask=mask, distances=distances)
    if mask is not None:
        x = ApplyMask(name="zero_padding")(x, mask=mask)
    x = _end(x, "encoder", dropout)
    memory_mask = None if mask is None else EncoderOutput(name="memory_mask")(mask)
    y = _begin(y, "target", width, dropout)
    distances = decoder_bias(y)
    for i, block in enumerate(decoder):
        project = MemoryProjection(heads=heads, width=width, use_bias=False, name=f"memory_{i}")
        key, value = project(x, mask=mask)
        y, _ = block(y, key, value, mask=memory_mask, distances=distances)
    return _end(y, "decoder", dropout)


def _begin(x: Any, name: str, width: int, dropout: float) -> Any:
    """Features of the right width."""
    if x.shape[-1] != width:
        x = keras.layers.Dense(width, use_bias=False, name=f"{name}_project")(x)
    return Dropout(dropout, name=f"{name}_start_dropout")(x) if dropout else x


def _end(x: Any, name: str, dropout: float) -> Any:
    x = keras.layers.RMSNormalization(name=f"{name}_norm")(x)
    return Dropout(dropout, name=f"{name}_end_dropout")(x) if dropout else x
