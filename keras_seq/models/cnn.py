"""A stack of convolutions over time."""

from __future__ import annotations

from typing import Any

import keras

from keras_seq.layers import ApplyMask, Dropout
from keras_seq.models._checks import check_sizes
from keras_seq.registry import architecture


@architecture()
def cnn(
    x: Any,
    *,
    mask: Any = None,
    width: int = 64,
    depth: int = 2,
    dropout: float = 0.1,
    kernel_size: int = 5,
    residual: bool = True,
    layer_norm: bool = True,
    activation: str = "relu",
    causal: bool = False,
) -> Any:
    """Convolutions that see `kernel_size` steps each, with residuals.

    A state sees 1 + depth (kernel_size - 1) steps around it, or before it with `causal`. Masked
    steps are zeroed before each convolution, as the steps outside the sequence are.

    Args:
        x: Features, (B, T, D).
        mask: (B, T) bool, True at real steps, or None.
        width: Channels of each convolution.
        depth: Number of convolutions.
        dropout: After each convolution, 0 to below 1.
        kernel_size: Steps that a kernel sees.
        residual: Whether each convolution adds its input.
        layer_norm: Whether the channels of each step are normalised.
        activation: Name of a Keras activation.
        causal: Whether step t sees only steps up to t.

    Returns:
        (B, T, width), zeros at masked steps.

    Raises:
        UserError: If a size is below 1 or the dropout is not a share.

    Example:
        >>> x = keras.Input((48, 3))
        >>> keras.Model(x, cnn(x, width=8)).output.shape
        (None, 48, 8)

    Reference:
        LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition; He et al. 2016
        (residuals).
    """
    check_sizes(width=width, depth=depth, kernel_size=kernel_size, dropout=dropout)
    for i in range(depth):
        if mask is not None:
            x = ApplyMask(name=f"apply_mask_{i}")(x, mask=mask)
        h = keras.layers.Conv1D(
            width, kernel_size, padding="causal" if causal else "same", name=f"convolution_{i}"
        )(x)
        if layer_norm:
            h = keras.layers.LayerNormalization(name=f"norm_{i}")(h)
        h = keras.layers.Activation(activation, name=f"activation_{i}")(h)
        if dropout:
            h = Dropout(dropout, name=f"dropout_{i}")(h)
        if residual:
            if x.shape[-1] != width:
                x = keras.layers.Dense(width, name=f"shortcut_{i}")(x)
            h = keras.layers.Add(name=f"residual_{i}")([x, h])
        x = h
    if mask is not None:
        x = ApplyMask(name="zero_padding")(x, mask=mask)
    return x
