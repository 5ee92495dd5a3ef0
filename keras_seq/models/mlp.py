"""The multilayer perceptron: the whole window at once, without a notion of time."""

from __future__ import annotations

from typing import Any

import keras

from keras_seq.errors import UserError
from keras_seq.layers import ApplyMask, Dropout
from keras_seq.models._checks import check_sizes
from keras_seq.registry import architecture


@architecture("vector", "needs_fixed_length")
def mlp(
    x: Any,
    *,
    mask: Any = None,
    width: int = 64,
    depth: int = 2,
    dropout: float = 0.1,
    residual: bool = False,
    layer_norm: bool = False,
    activation: str = "relu",
) -> Any:
    """Dense layers on the flattened window.

    Args:
        x: Features, (B, T, D) with T known.
        mask: (B, T) bool, True at real steps, or None; masked steps count as zeros.
        width: Units of each layer.
        depth: Number of layers.
        dropout: After each layer, 0 to below 1.
        residual: Whether each layer but the first adds its input.
        layer_norm: Whether each layer's units are normalised before the activation.
        activation: Name of a Keras activation.

    Returns:
        (B, width): the time axis is used up.

    Raises:
        UserError: If the length is not fixed, a size is below 1 or the dropout is not a share.

    Example:
        >>> x = keras.Input((4, 2))
        >>> keras.Model(x, mlp(x, width=8, depth=2)).count_params()
        144

    Reference:
        Rumelhart, Hinton and Williams 1986, Learning Representations by Back-propagating Errors.
    """
    check_sizes(width=width, depth=depth, dropout=dropout)
    if x.shape[1] is None:
        raise UserError(
            "mlp needs a fixed number of time steps and got any number: give inputs=(time, "
            "features) with a number, or choose a sequence architecture"
        )
    if mask is not None:
        x = ApplyMask(name="apply_mask")(x, mask=mask)
    x = keras.layers.Flatten(name="window")(x)  # (B, T * D)
    for i in range(depth):
        h = keras.layers.Dense(width, name=f"dense_{i}")(x)
        if layer_norm:
            h = keras.layers.LayerNormalization(name=f"norm_{i}")(h)
        h = keras.layers.Activation(activation, name=f"activation_{i}")(h)
        if dropout:
            h = Dropout(dropout, name=f"dropout_{i}")(h)
        x = keras.layers.Add(name=f"residual_{i}")([x, h]) if residual and i else h
    return x
