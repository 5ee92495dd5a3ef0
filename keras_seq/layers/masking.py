"""Zeroing the steps that a mask says are not real."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_seq")
class ApplyMask(keras.layers.Layer):
    """Sets the masked steps to zero, whatever stands there (NaN included).

    Args:
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, D).
        mask: (B, T) bool, True at real steps; None keeps every step.

    Returns:
        (B, T, D).

    Example:
        >>> import numpy as np
        >>> x = np.array([[[1.0], [np.nan]]], "float32")
        >>> np.asarray(ApplyMask()(x, mask=np.array([[True, False]])))[0, :, 0].tolist()
        [1.0, 0.0]
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, x_shape: tuple[Any, ...]) -> None:
        """Has no weights to make."""

    def call(self, x: Any, mask: Any = None) -> Any:
        """Zeroes the masked steps."""
        return zero_masked(x, mask)

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask: what it hid is zero now."""
        return None

    def compute_output_shape(self, x_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the input's shape."""
        return tuple(x_shape)


def zero_masked(x: Any, mask: Any) -> Any:
    """Sets the masked steps of a tensor to zero.

    Args:
        x: (B, T, ...) tensor.
        mask: (B, T) bool, True at real steps, or None.

    Returns:
        A tensor like `x`.

    Example:
        >>> import numpy as np
        >>> np.asarray(zero_masked(np.ones((1, 2, 1)), np.array([[False, True]]))).ravel().tolist()
        [0.0, 1.0]
    """
    if mask is None:
        return x
    # A choice, not a product: 0 * NaN is NaN, and its gradient too.
    mask = ops.cast(mask, "bool")
    for _ in range(len(x.shape) - 2):
        mask = ops.expand_dims(mask, -1)
    return ops.where(mask, x, ops.zeros_like(x))
