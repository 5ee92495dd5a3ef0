"""Stacked recurrent trunks from Keras's own recurrent layers."""

from __future__ import annotations

from typing import Any

import keras

from keras_seq.layers.dropout import Dropout
from keras_seq.layers.masking import ApplyMask

CELLS = {"rnn": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}


def recurrent_stack(
    x: Any,
    *,
    cell: str,
    mask: Any = None,
    width: int = 64,
    depth: int = 1,
    dropout: float = 0.0,
    variational: bool = False,
    bidirectional: bool = False,
    residual: bool = False,
    layer_norm: bool = False,
) -> Any:
    """Stacks recurrent layers that return every state.

    Each layer: recurrence, then layer normalisation, dropout and the residual, where asked for.
    The layers are plain Keras layers of the functional graph, named ``{cell}_{i}``.

    Args:
        x: Symbolic features, (B, T, D).
        cell: ``"rnn"`` (Elman, tanh), ``"lstm"`` or ``"gru"``.
        mask: (B, T) bool, True at real steps, or None.
        width: Features of each state; with `bidirectional` half of them look each way.
        depth: Number of layers.
        dropout: After each layer, 0 to below 1.
        variational: Whether that dropout is the same at all steps of a sequence.
        bidirectional: Whether each layer reads both ways.
        residual: Whether each layer adds its input (projected where the width differs).
        layer_norm: Whether each layer's states are normalised.

    Returns:
        (B, T, width) states, zeros at masked steps.

    Raises:
        ValueError: If the cell is unknown, or `width` is odd with `bidirectional`.

    Example:
        >>> x = keras.Input((None, 3))
        >>> recurrent_stack(x, cell="gru", width=8, depth=2, bidirectional=True).shape
        (None, None, 8)

    Reference:
        Gal and Ghahramani 2016, A Theoretically Grounded Application of Dropout in Recurrent Neural
        Networks (`variational`).
    """
    if cell not in CELLS:
        raise ValueError(f"cell is {cell!r}: give one of {', '.join(CELLS)}")
    if bidirectional and width % 2:
        raise ValueError(
            f"width {width} is odd, and a bidirectional layer gives half to each way: take "
            f"{width + 1}"
        )
    # Keras draws orthogonal kernels by a QR decomposition, which has no 16-bit form.
    wide = keras.config.dtype_policy().variable_dtype in ("float32", "float64")
    recurrent_initializer = "orthogonal" if wide else "glorot_uniform"
    if mask is not None:
        x = ApplyMask(name="apply_mask")(x, mask=mask)
    for i in range(depth):
        name = f"{cell}_{i}"
        layer = CELLS[cell](
            width // 2 if bidirectional else width,
            return_sequences=True,
            recurrent_initializer=recurrent_initializer,
            name=name,
        )
        if bidirectional:
            layer = keras.layers.Bidirectional(layer, name=f"{name}_both_ways")
        h = layer(x, mask=mask)
        if layer_norm:
            h = keras.layers.LayerNormalization(name=f"norm_{i}")(h)
        if dropout:
            kind = keras.layers.SpatialDropout1D if variational else Dropout
            h = kind(dropout, name=f"dropout_{i}")(h)
        if residual:
            if x.shape[-1] != width:
                x = keras.layers.Dense(width, name=f"shortcut_{i}")(x)
            h = keras.layers.Add(name=f"residual_{i}")([x, h])
        x = h
    if mask is not None:
        # Keras's recurrent layers attach the mask to what they return, others do not. It ends here,
        # so that a loss treats every architecture alike.
        x = ApplyMask(name="zero_padding")(x, mask=mask)
    return x
