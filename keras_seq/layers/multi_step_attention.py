"""The attention of convolutional encoder-decoders: one in each layer of the decoder."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers.attention_weights import masked_softmax

Shape = tuple[Any, ...]

HALF = 0.5**0.5  # keeps the variance of the sum of two independent terms


@keras.saving.register_keras_serializable(package="keras_seq")
class MultiStepAttention(keras.layers.Layer):
    """Attention from a decoder layer's states and the target's embeddings to the source.

    The query is ``sqrt(0.5) (W states + embedding)``, its score with a key their product, which is
    not divided: give it features that begin small, with a spread of about 0.1. What is found is
    scaled by the square root of the number of source steps: a mean over n steps has ``1 / sqrt(n)``
    of their spread. A step knows nothing of the steps before it: all steps of a target, one of
    them, and one of several hypotheses are the same call.

    Args:
        width: Features of the keys and of the output, W.
        **kwargs: As for every Keras layer.

    Call arguments:
        states: (B, T, D), of the decoder.
        embedding: (B, T, width), of the target's tokens.
        key: (B, S, width), the encoder's output.
        value: (B, S, Dv), the encoder's output and the source's embeddings.
        mask: (B, S) bool, True at the real steps of the source, or None.

    Returns:
        The output (B, T, width) and the weights (B, T, S). Where a source has no real step the
        weights are zeros.

    Raises:
        ValueError: If the embeddings or the keys have another width.

    Example:
        >>> import numpy as np
        >>> ones = lambda *shape: np.ones(shape, "float32")
        >>> mask = np.array([[True, True, False]])
        >>> layer = MultiStepAttention(4)
        >>> output, weights = layer(ones(1, 2, 5), ones(1, 2, 4), ones(1, 3, 4), ones(1, 3, 4),
        ...     mask=mask)
        >>> output.shape, np.asarray(weights)[0, 0].tolist()
        (TensorShape([1, 2, 4]), [0.5, 0.5, 0.0])

    Reference:
        Gehring et al. 2017, Convolutional Sequence to Sequence Learning, section 3.3.
    """

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if width < 1:
            raise ValueError(f"width is {width}: give at least 1")
        self.width = width
        self.supports_masking = True

    def build(
        self, states_shape: Shape, embedding_shape: Shape, key_shape: Shape, value_shape: Shape
    ) -> None:
        """Makes the projections of the states and of what is found."""
        for what, shape in (("embeddings", embedding_shape), ("keys", key_shape)):
            if shape[-1] != self.width:
                raise ValueError(
                    f"{self.name} has width {self.width} and got {what} of {shape[-1]} features: "
                    f"project them with Dense({self.width}) first"
                )
        self.query_projection, self.output_projection = (
            keras.layers.Dense(self.width, dtype=self.dtype_policy, name=name)
            for name in ("query", "combine")
        )
        self.query_projection.build(states_shape)
        self.output_projection.build(value_shape)

    def call(
        self,
        states: Any,
        embedding: Any,
        key: Any,
        value: Any,
        mask: Any = None,
        training: bool | None = None,
    ) -> tuple[Any, Any]:
        """Attends."""
        query = (self.query_projection(states) + embedding) * HALF
        scores = ops.matmul(query, ops.transpose(key, (0, 2, 1)))  # (B, T, S)
        valid = None if mask is None else ops.expand_dims(ops.cast(mask, "bool"), 1)
        weights = ops.cast(masked_softmax(scores, valid, training=training), value.dtype)
        if mask is None:
            count = ops.cast(ops.shape(key)[1], "float32")
        else:
            count = ops.sum(ops.cast(valid, "float32"), axis=-1, keepdims=True)  # (B, 1, 1)
        found = ops.matmul(weights, value) * ops.cast(ops.sqrt(count), value.dtype)
        return self.output_projection(found), weights

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask: it belongs to the source, not to the output."""
        return None

    def compute_output_shape(
        self, states_shape: Shape, embedding_shape: Shape, key_shape: Shape, value_shape: Shape
    ) -> tuple[Shape, Shape]:
        """Returns the shapes of the output and of the weights."""
        batch, steps = states_shape[:2]
        return (batch, steps, self.width), (batch, steps, key_shape[1])

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "width": self.width}
