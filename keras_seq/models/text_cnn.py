"""Convolutions of several widths, each reduced to its largest value over time."""

from __future__ import annotations

from typing import Any

import keras

from keras_seq.errors import UserError
from keras_seq.layers import ApplyMask, Dropout
from keras_seq.models._checks import check_sizes
from keras_seq.registry import architecture


@architecture("vector")
def text_cnn(
    x: Any,
    *,
    mask: Any = None,
    width: int = 64,
    dropout: float = 0.0,
    kernel_sizes: tuple[int, ...] = (3, 4, 5),
) -> Any:
    """Looks for `width` patterns of each size anywhere in the sequence.

    Steps outside the sequence and masked ones count as zeros, so a sequence may be shorter than
    a pattern. The paper has 100 patterns of each size, and dropout 0.5 behind them, which is the
    business of the head.

    Args:
        x: Features, (B, T, D).
        mask: (B, T) bool, True at real steps, or None.
        width: Patterns of each size.
        dropout: On the joined results, 0 to below 1.
        kernel_sizes: Steps of the patterns.

    Returns:
        (B, width * number of sizes), none below 0.

    Raises:
        UserError: If a size is below 1 or the dropout is not a share.

    Example:
        >>> x = keras.Input((48, 3))
        >>> keras.Model(x, text_cnn(x, width=8)).output.shape
        (None, 24)

    Reference:
        Kim 2014, Convolutional Neural Networks for Sentence Classification.
    """
    check_sizes(width=width, dropout=dropout)
    if not kernel_sizes:
        raise UserError("kernel_sizes is empty: give at least one size")
    if mask is not None:
        x = ApplyMask(name="apply_mask")(x, mask=mask)
    found = []
    for size in kernel_sizes:
        check_sizes(kernel_sizes=size)
        name = f"convolution_{size}"
        h = keras.layers.Conv1D(width, size, padding="same", activation="relu", name=name)(x)
        if mask is not None:
            # Zero is the least that comes out of a relu, so padding never has the largest value.
            h = ApplyMask(name=f"zero_padding_{size}")(h, mask=mask)
        found.append(keras.layers.GlobalMaxPooling1D(name=f"largest_{size}")(h))
    y = found[0] if len(found) == 1 else keras.layers.Concatenate(name="joined")(found)
    return Dropout(dropout, name="dropout")(y) if dropout else y
