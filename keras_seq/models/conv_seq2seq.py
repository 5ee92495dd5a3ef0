"""The convolutional encoder-decoder: no recurrence, and attention in every layer of the decoder."""

from __future__ import annotations

from typing import Any

import keras

from keras_seq.layers import (
    ApplyMask,
    Dropout,
    EncoderOutput,
    GatedConvolution,
    LearnedPositions,
    MultiStepAttention,
    SinusoidalPositions,
)
from keras_seq.layers.multi_step_attention import HALF
from keras_seq.models._checks import check_choice, check_sizes
from keras_seq.registry import architecture

MAX_LENGTH = 1024
# The spread of the paper's embeddings; those of the heads here have one of 1. Gates and softmax are
# nearly linear then, and the variance stays the same through any number of layers.
SPREAD = 0.1


@architecture("encoder_decoder", "returns_attention")
def conv_seq2seq(
    source: Any,
    *,
    target: Any,
    mask: Any = None,
    target_mask: Any = None,
    width: int = 256,
    depth: int = 4,
    kernel_size: int = 3,
    dropout: float = 0.2,
    positions: str = "learned",
    max_length: int = MAX_LENGTH,
) -> Any:
    """Gated convolutions read the source; causal ones write the target and attend in each layer.

    All sums of two are scaled by sqrt(0.5), and the features by 0.1 at the start, so that the
    variance stays the same through many layers. The layers ``alignment_{i}`` return the weights
    over the source, (B, T, S), as second output.

    Args:
        source: Features, (B, S, D).
        target: Features of the target so far, (B, T, D).
        mask: (B, S) bool, True at real steps of the source, or None.
        target_mask: (B, T) bool; it makes no difference, padding comes last.
        width: Features of each step.
        depth: Convolutions of the encoder, and as many of the decoder.
        kernel_size: Steps that a convolution sees; `depth` of them see
            ``1 + depth (kernel_size - 1)``.
        dropout: On the embeddings and before each convolution, 0 to below 1.
        positions: ``"learned"``, ``"sinusoidal"`` or ``"none"``.
        max_length: Longest source and target where positions have a table, in steps.

    Returns:
        (B, T, width), the decoder's states.

    Raises:
        UserError: If an option is out of range.

    Example:
        >>> source, target = keras.Input((None, 3)), keras.Input((None, 3))
        >>> model = keras.Model([source, target], conv_seq2seq(source, target=target, width=8))
        >>> output, weights = model.get_layer("alignment_0").output
        >>> output.shape, weights.shape
        ((None, None, 8), (None, None, None))

    Reference:
        Gehring et al. 2017, Convolutional Sequence to Sequence Learning. Of its recipe two things
        are left out: weight normalisation, and smaller gradients for the encoder.
    """
    check_sizes(
        width=width, depth=depth, kernel_size=kernel_size, dropout=dropout, max_length=max_length
    )
    check_choice("positions", positions, ("learned", "sinusoidal", "none"))
    if mask is not None:
        source = ApplyMask(name="apply_mask")(source, mask=mask)
    source = _begin(source, "source", width, positions, dropout, max_length)
    x = keras.layers.Dense(width, name="encoder_start")(source)
    for i in range(depth):
        convolution = GatedConvolution(width, kernel_size, dropout=dropout, name=f"encoder_{i}")
        x = _sum(x, convolution(x, mask=mask), f"encoder_sum_{i}")
    x = keras.layers.Dense(width, name="encoder_end")(x)
    key = EncoderOutput(name="memory_key")(x)
    # A step of the source is found by its context, and gives the word that stands there as well.
    value = EncoderOutput(name="memory_value")(_sum(x, source, "source_sum"))
    if mask is not None:
        mask = EncoderOutput(name="memory_mask")(mask)
    target = _begin(target, "target", width, positions, dropout, max_length)
    y = keras.layers.Dense(width, name="decoder_start")(target)
    for i in range(depth):
        convolution = GatedConvolution(
            width, kernel_size, causal=True, dropout=dropout, name=f"decoder_{i}"
        )
        h = convolution(y)
        attention = MultiStepAttention(width, name=f"alignment_{i}")
        found, _ = attention(h, target, key, value, mask=mask)
        h = _sum(h, found, f"decoder_found_{i}")
        y = _sum(y, h, f"decoder_sum_{i}")
    return keras.layers.Dense(width, name="decoder_end")(y)


def _begin(x: Any, name: str, width: int, positions: str, dropout: float, max_length: int) -> Any:
    """Small features of the right width that know their positions."""
    if x.shape[-1] != width:
        x = keras.layers.Dense(width, name=f"{name}_project")(x)
    if positions == "sinusoidal":
        x = SinusoidalPositions(max_length, name=f"{name}_positions")(x)
    x = keras.layers.Rescaling(SPREAD, name=f"{name}_rescale")(x)
    if positions == "learned":
        x = LearnedPositions(max_length, name=f"{name}_positions")(x)
    return Dropout(dropout, name=f"{name}_start_dropout")(x) if dropout else x


def _sum(one: Any, other: Any, name: str) -> Any:
    """The sum of two, scaled. Layers with names: those that operators get differ by process."""
    return keras.layers.Rescaling(HALF, name=name)(
        keras.layers.Add(name=f"{name}_add")([one, other])
    )
