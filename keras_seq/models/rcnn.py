"""Each step beside what stands before and behind it, as a recurrent network sees it."""

from __future__ import annotations

from typing import Any

import keras

from keras_seq.layers import ApplyMask, recurrent_stack
from keras_seq.layers.recurrent import CELLS
from keras_seq.models._checks import check_choice, check_sizes
from keras_seq.registry import architecture


@architecture("recurrent")
def rcnn(
    x: Any,
    *,
    mask: Any = None,
    width: int = 64,
    depth: int = 1,
    dropout: float = 0.0,
    cell: str = "lstm",
) -> Any:
    """Joins each step with the states of a bidirectional network and projects the three.

    The paper takes the largest value over time then, which is ``pooling="max"`` of the label
    head; without it the states serve for tagging as well.

    Args:
        x: Features, (B, T, D).
        mask: (B, T) bool, True at real steps, or None.
        width: Features of a state, even; half of them read from the end.
        depth: Recurrent layers on top of each other.
        dropout: After each recurrent layer, 0 to below 1.
        cell: ``"lstm"``, ``"gru"`` or ``"rnn"``.

    Returns:
        (B, T, width), zeros at masked steps.

    Raises:
        UserError: If an option is out of range.
        ValueError: If the width is odd.

    Example:
        >>> x = keras.Input((48, 3))
        >>> keras.Model(x, rcnn(x, width=8)).output.shape
        (None, 48, 8)

    Reference:
        Lai et al. 2015, Recurrent Convolutional Neural Networks for Text Classification.
    """
    check_sizes(width=width, depth=depth, dropout=dropout)
    check_choice("cell", cell, tuple(CELLS))
    if mask is not None:
        x = ApplyMask(name="real_steps")(x, mask=mask)
    context = recurrent_stack(
        x, cell=cell, mask=mask, width=width, depth=depth, dropout=dropout, bidirectional=True
    )
    # The sum of two products is the product with the joined vectors, and copies nothing.
    context_part = keras.layers.Dense(width, name="combine_context")(context)
    step_part = keras.layers.Dense(width, use_bias=False, name="combine_step")(x)
    y = keras.layers.Add(name="combine")([context_part, step_part])
    y = keras.layers.Activation("tanh", name="projected")(y)
    if mask is not None:
        y = ApplyMask(name="zero_projected")(y, mask=mask)
    return y
