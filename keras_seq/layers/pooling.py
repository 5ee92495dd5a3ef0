"""One vector from a sequence, under a mask."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers.attention import masked_softmax
from keras_seq.layers.masking import zero_masked

Shape = tuple[Any, ...]
METHODS = ("last", "first", "mean", "max", "attention")


@keras.saving.register_keras_serializable(package="keras_seq")
class Pooling(keras.layers.Layer):
    """Reduces the real steps of a sequence to one vector.

    Args:
        method: ``"last"`` the last real step (wherever the padding stands), ``"first"`` the first
            one, ``"mean"``, ``"max"``, or ``"attention"`` an average weighted by a learned score
            of each step.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, W).
        mask: (B, T) bool, True at real steps; None: all.

    Returns:
        (B, W); zeros for a sequence without a real step.

    Raises:
        ValueError: If the method is unknown.

    Example:
        >>> import numpy as np
        >>> x = np.array([[[1.0], [2.0], [9.0]]], "float32")
        >>> mask = np.array([[True, True, False]])
        >>> [float(Pooling(method)(x, mask=mask)[0, 0]) for method in ("last", "mean", "max")]
        [2.0, 1.5, 2.0]

    Reference:
        The attention method: Lin et al. 2017, A Structured Self-Attentive Sentence Embedding, with
        one row.
    """

    def __init__(self, method: str = "last", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if method not in METHODS:
            raise ValueError(f"pooling is {method!r}: give one of {', '.join(METHODS)}")
        self.method = method
        self.supports_masking = True

    def build(self, x_shape: Shape) -> None:
        """Makes the scoring layers of the attention method."""
        if self.method == "attention":
            width = x_shape[-1]
            policy = {"dtype": self.dtype_policy}
            self.hidden = keras.layers.Dense(width, activation="tanh", name="hidden", **policy)
            self.score = keras.layers.Dense(1, use_bias=False, name="score", **policy)
            self.hidden.build(x_shape)
            self.score.build(x_shape)

    def call(self, x: Any, mask: Any = None) -> Any:
        """Pools the real steps."""
        if mask is not None:
            mask = ops.cast(mask, "bool")
            x = zero_masked(x, mask)
        return getattr(self, f"_{self.method}")(x, mask)

    def _last(self, x: Any, mask: Any) -> Any:
        if mask is None:
            return x[:, -1]
        position = ops.arange(ops.shape(x)[1])[None]  # (1, T)
        last = ops.max(ops.where(mask, position, -1), axis=1, keepdims=True)  # (B, 1)
        # A sum over one step that is kept: no gather, so it runs on every device.
        return ops.sum(zero_masked(x, position == last), axis=1)

    def _first(self, x: Any, mask: Any) -> Any:
        if mask is None:
            return x[:, 0]
        count = ops.shape(x)[1]
        position = ops.arange(count)[None]  # (1, T)
        first = ops.min(ops.where(mask, position, count), axis=1, keepdims=True)  # (B, 1)
        return ops.sum(zero_masked(x, position == first), axis=1)

    def _mean(self, x: Any, mask: Any) -> Any:
        wide = ops.cast(x, "float32")  # a float16 sum of many steps would overflow
        if mask is None:
            return ops.cast(ops.mean(wide, axis=1), x.dtype)
        count = ops.sum(ops.cast(mask, "float32"), axis=1, keepdims=True)  # (B, 1)
        return ops.cast(ops.sum(wide, axis=1) / ops.maximum(count, 1.0), x.dtype)

    def _max(self, x: Any, mask: Any) -> Any:
        if mask is None:
            return ops.max(x, axis=1)
        # The lowest value of the channel cannot win against a real step, and stretches no range.
        lowest = ops.stop_gradient(ops.min(x, axis=1, keepdims=True))
        return ops.max(ops.where(mask[..., None], x, lowest), axis=1)

    def _attention(self, x: Any, mask: Any) -> Any:
        scores = ops.squeeze(self.score(self.hidden(x)), -1)  # (B, T)
        weights = ops.cast(masked_softmax(scores, mask), x.dtype)
        return ops.squeeze(ops.matmul(weights[:, None], x), 1)

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask: there are no steps left."""
        return None

    def compute_output_shape(self, x_shape: Shape) -> Shape:
        """Returns the shape without the time axis."""
        return (x_shape[0], x_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "method": self.method}
