"""The temporal convolutional network: causal convolutions whose reach doubles with each block."""

from __future__ import annotations

from typing import Any

from keras_seq.layers import ApplyMask, TemporalBlock
from keras_seq.models._checks import check_sizes
from keras_seq.registry import architecture


@architecture("causal", "streaming")
def tcn(
    x: Any,
    *,
    mask: Any = None,
    width: int = 64,
    depth: int = 4,
    dropout: float = 0.1,
    kernel_size: int = 3,
    activation: str = "relu",
) -> Any:
    """Residual blocks of two dilated causal convolutions; block i has dilation 2^i.

    A state sees 1 + 2 (kernel_size - 1) (2^depth - 1) steps back, itself included: 61 with the
    defaults, 509 with depth 7 (`keras_seq.layers.receptive_field` computes it). Take a depth that
    covers what matters.

    Args:
        x: Features, (B, T, D).
        mask: (B, T) bool, True at real steps, or None.
        width: Channels of each convolution.
        depth: Number of blocks.
        dropout: Share of whole channels dropped after each convolution, 0 to below 1.
        kernel_size: Steps that a kernel sees.
        activation: Name of a Keras activation.

    Returns:
        (B, T, width), zeros at masked steps.

    Raises:
        UserError: If a size is below 1 or the dropout is not a share.

    Example:
        >>> import keras
        >>> x = keras.Input((48, 3))
        >>> keras.Model(x, tcn(x, width=8)).output.shape
        (None, 48, 8)

    Reference:
        Bai, Kolter and Koltun 2018, An Empirical Evaluation of Generic Convolutional and Recurrent
        Networks for Sequence Modeling.
    """
    check_sizes(width=width, depth=depth, kernel_size=kernel_size, dropout=dropout)
    for i in range(depth):
        x = TemporalBlock(
            width,
            kernel_size,
            dilation=2**i,
            dropout=dropout,
            activation=activation,
            name=f"block_{i}",
        )(x, mask=mask)
    if mask is not None:
        x = ApplyMask(name="zero_padding")(x, mask=mask)
    return x
