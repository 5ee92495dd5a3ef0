"""A learned step in front of the sequence, whose state stands for the whole of it."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Shape = tuple[Any, ...]


@keras.saving.register_keras_serializable(package="keras_seq")
class ClassToken(keras.layers.Layer):
    """Puts one learned vector in front of every sequence.

    Args:
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, D).
        mask: (B, T) bool, True at real steps, or None.

    Returns:
        (B, 1 + T, D); with a mask also the mask (B, 1 + T), True in front.

    Example:
        >>> import numpy as np
        >>> x, mask = ClassToken()(np.ones((1, 2, 4), "float32"), mask=np.array([[True, False]]))
        >>> x.shape, np.asarray(mask).tolist()
        (TensorShape([1, 3, 4]), [[True, True, False]])

    Reference:
        Devlin et al. 2019, BERT: Pre-training of Deep Bidirectional Transformers.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, x_shape: Shape) -> None:
        """Makes the vector."""
        self.token = self.add_weight(
            shape=(1, 1, x_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="token",
        )

    def call(self, x: Any, mask: Any = None) -> Any:
        """Puts it in front."""
        # A sum with zeros takes the number of rows from x, open as it may be.
        first = ops.zeros_like(x[:, :1]) + ops.cast(self.token, x.dtype)
        y = ops.concatenate([first, x], axis=1)
        if mask is None:
            return y
        mask = ops.cast(mask, "bool")
        return y, ops.concatenate([ops.ones_like(mask[:, :1]), mask], axis=1)

    def compute_mask(self, *args: Any, **kwargs: Any) -> Any:
        """Ends an implicit mask: it has one step less."""
        return None

    def compute_output_spec(self, x: Any, mask: Any = None) -> Any:
        """Returns the shapes with one step more."""
        steps = None if x.shape[1] is None else x.shape[1] + 1
        y = keras.KerasTensor((x.shape[0], steps, x.shape[2]), dtype=self.compute_dtype)
        if mask is None:
            return y
        return y, keras.KerasTensor((mask.shape[0], steps), dtype="bool")

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return super().get_config()
