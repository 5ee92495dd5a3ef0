"""Diagonal state spaces: linear recurrences that remember over thousands of steps."""

from __future__ import annotations

from typing import Any

import keras

from keras_seq.errors import UserError
from keras_seq.layers import ApplyMask, DiagonalStateSpace, Dropout
from keras_seq.models._checks import check_choice, check_sizes
from keras_seq.registry import architecture


@architecture("causal", "streaming")
def s4d(
    x: Any,
    *,
    mask: Any = None,
    width: int = 64,
    depth: int = 2,
    dropout: float = 0.1,
    states: int = 32,
    initialization: str = "lin",
) -> Any:
    """Blocks of a layer normalisation and a `DiagonalStateSpace`, with residuals.

    Args:
        x: Features, (B, T, D).
        mask: (B, T) bool, True at real steps, or None.
        width: Features of each step.
        depth: Number of blocks.
        dropout: On what each block adds, 0 to below 1.
        states: Numbers that are remembered of each feature; even with ``"lin"``.
        initialization: ``"lin"``, states that turn, or ``"real"``, states that decay; see
            `DiagonalStateSpace`.

    Returns:
        (B, T, width), zeros at masked steps.

    Raises:
        UserError: If an option is out of range.

    Example:
        >>> x = keras.Input((48, 3))
        >>> keras.Model(x, s4d(x, width=8, states=4)).output.shape
        (None, 48, 8)

    Reference:
        Gu et al. 2022, On the Parameterization and Initialization of Diagonal State Space Models.
    """
    check_sizes(width=width, depth=depth, states=states, dropout=dropout)
    check_choice("initialization", initialization, ("lin", "real"))
    if initialization == "lin" and states % 2:
        raise UserError(f"states is {states}, and 'lin' has pairs of them: take {states + 1}")
    if mask is not None:
        x = ApplyMask(name="apply_mask")(x, mask=mask)
    x = keras.layers.Dense(width, name="project")(x)
    for i in range(depth):
        h = keras.layers.LayerNormalization(name=f"norm_{i}")(x)
        h = DiagonalStateSpace(
            width,
            states,
            initialization=initialization,
            return_sequences=True,
            name=f"state_space_{i}",
        )(h, mask=mask)
        if dropout:
            h = Dropout(dropout, name=f"dropout_{i}")(h)
        x = keras.layers.Add(name=f"residual_{i}")([x, h])
    x = keras.layers.LayerNormalization(name="final_norm")(x)
    if mask is not None:
        x = ApplyMask(name="zero_padding")(x, mask=mask)
    return x
