"""Activations whose gradient costs less than the one that is derived by rule."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

# gelu(x) = x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)): the same function as with the tanh.
_SLOPE = 2 * math.sqrt(2 / math.pi)
_CUBE = 0.044715 * _SLOPE


def gelu(x: Any) -> Any:
    """The tanh form of GELU for training: a third of the work of what Keras derives.

    For inference `keras.ops.gelu(x, approximate=True)` is the better one: converters know it.

    Args:
        x: Any float tensor.

    Returns:
        Its shape and type; the values of `keras.ops.gelu(x, approximate=True)`.

    Example:
        >>> import numpy as np
        >>> np.asarray(gelu(np.array([-1.0, 0.0, 2.0], "float32"))).round(4)
        array([-0.1588,  0.    ,  1.9546], dtype=float32)

    Reference:
        Hendrycks and Gimpel 2016, Gaussian Error Linear Units.
    """
    return _gelu(ops.convert_to_tensor(x))


@ops.custom_gradient
def _gelu(x: Any) -> Any:
    square = x * x
    if keras.backend.standardize_dtype(x.dtype) == "float16":
        square = ops.minimum(square, 100.0)  # beyond it the sigmoid is 0 or 1, and it overflows
    share = ops.sigmoid(x * (_SLOPE + _CUBE * square))
    y = x * share

    def gradient(*args: Any, upstream: Any = None) -> Any:
        above = args[0] if upstream is None else upstream
        slope = _SLOPE + 3 * _CUBE * square
        return above * (share + y * ((1.0 - share) * slope))

    return y, gradient
