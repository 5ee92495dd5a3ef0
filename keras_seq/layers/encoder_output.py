"""The border between an encoder and its decoder: what is computed once for a source."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="keras_seq")
class EncoderOutput(keras.layers.Layer):
    """Hands on what a decoder takes from an encoder, unchanged.

    While a decoder writes, its steps follow each other, and the encoder has run before them. A
    layer with the class attribute ``once``, the names of its outputs, marks what is kept: they are
    computed once for a source and are inputs of the decoder's step (see
    `keras_seq.decoding.search_model`). This one computes nothing; others, such as
    `MemoryProjection`, do.

    Args:
        **kwargs: As for every Keras layer; the input of the step is called ``{name}_output``.

    Call arguments:
        x: A tensor whose first axis is the batch.

    Returns:
        The same.

    Example:
        >>> import numpy as np
        >>> EncoderOutput(name="memory")(np.ones((1, 2, 3), "float32")).shape
        TensorShape([1, 2, 3])
    """

    once = ("output",)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = False

    def call(self, x: Any) -> Any:
        """Returns it."""
        return keras.ops.copy(x)

    def compute_output_spec(self, x: Any) -> Any:
        """Returns a tensor of the same shape and type: masks pass too."""
        return keras.KerasTensor(x.shape, dtype=x.dtype)

    def compute_output_shape(self, x_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the input's shape."""
        return tuple(x_shape)
