"""Long short-term memory: a recurrent network with a gated store."""

from __future__ import annotations

from typing import Any

from keras_seq.layers import recurrent_stack
from keras_seq.models._checks import check_sizes
from keras_seq.registry import architecture


@architecture("causal", "streaming", "recurrent")
def lstm(
    x: Any,
    *,
    mask: Any = None,
    width: int = 64,
    depth: int = 1,
    dropout: float = 0.0,
    variational: bool = False,
    bidirectional: bool = False,
    residual: bool = False,
    layer_norm: bool = False,
) -> Any:
    """Long short-term memory, stacked.

    Args:
        x: Features, (B, T, D).
        mask: (B, T) bool, True at real steps, or None.
        width: Features of a state.
        depth: Layers on top of each other.
        dropout: Between layers and after the last, 0 to below 1.
        variational: Whether that dropout is the same at all steps of a sequence.
        bidirectional: Whether half of each layer reads from the end (no longer causal).
        residual: Whether each layer adds its input.
        layer_norm: Whether each layer's states are normalised.

    Returns:
        The states, (B, T, width), zeros at masked steps.

    Raises:
        UserError: If a size is below 1 or the dropout is not a share.
        ValueError: If the width is odd and the layers are bidirectional.

    Example:
        >>> import keras
        >>> x = keras.Input((48, 3))
        >>> keras.Model(x, lstm(x, width=8, depth=2)).count_params()
        928

    Reference:
        Hochreiter and Schmidhuber 1997, Long Short-Term Memory; Gers et al. 2000 (forget gate).
    """
    check_sizes(width=width, depth=depth, dropout=dropout)
    return recurrent_stack(
        x,
        cell="lstm",
        mask=mask,
        width=width,
        depth=depth,
        dropout=dropout,
        variational=variational,
        bidirectional=bidirectional,
        residual=residual,
        layer_norm=layer_norm,
    )
