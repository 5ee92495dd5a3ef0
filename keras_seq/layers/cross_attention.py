"""Attention from a decoder to its source: what is computed once, and what at each step."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers.attention import (
    check_heads,
    join_heads,
    joint_projection,
    split_heads,
)
from keras_seq.layers.dot_product import dot_product_attention
from keras_seq.layers.dropout import Dropout
from keras_seq.layers.masking import zero_masked

Shape = tuple[Any, ...]


@keras.saving.register_keras_serializable(package="keras_seq")
class MemoryProjection(keras.layers.Layer):
    """The keys and the values of a source, for `CrossAttention`.

    They do not depend on the target: they are computed once for a source, however long what is
    written from it.

    Args:
        heads: Number of heads. It may be a part of those of the attention, which then share keys
            and values (grouped-query attention).
        width: Features of all these heads together; divisible by `heads`.
        use_bias: Whether the projection adds a learned vector. Default True.
        **kwargs: As for every Keras layer.

    Call arguments:
        memory: (B, S, Dm), the source as the encoder gives it.
        mask: (B, S) bool, True at real steps, or None. What stands at the others is not read.

    Returns:
        The keys and the values, each (B, heads, S, width / heads).

    Raises:
        ValueError: If the width is not divisible by the heads.

    Example:
        >>> import numpy as np
        >>> key, value = MemoryProjection(heads=2, width=6)(np.ones((1, 5, 4), "float32"))
        >>> key.shape, value.shape
        (TensorShape([1, 2, 5, 3]), TensorShape([1, 2, 5, 3]))

    Reference:
        Vaswani et al. 2017, Attention Is All You Need.
    """

    # A border between encoder and decoder; see `keras_seq.layers.encoder_output`.
    once = ("key", "value")

    def __init__(self, heads: int, width: int, *, use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_heads(width, heads)
        self.heads = heads
        self.width = width
        self.use_bias = use_bias
        self.supports_masking = True

    def build(self, memory_shape: Shape) -> None:
        """Makes the projection."""
        self.projection = joint_projection(
            "key_value", memory_shape, self.width, 2, self.dtype_policy, self.use_bias
        )

    def call(self, memory: Any, mask: Any = None) -> tuple[Any, Any]:
        """Projects the real steps."""
        key, value = ops.split(self.projection(zero_masked(memory, mask)), 2, axis=-1)
        return split_heads(key, self.heads), split_heads(value, self.heads)

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask: time is another axis now."""
        return None

    def compute_output_shape(self, memory_shape: Shape) -> tuple[Shape, Shape]:
        """Returns the shapes of the keys and of the values."""
        shape = (memory_shape[0], self.heads, memory_shape[1], self.width // self.heads)
        return shape, shape

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "width": self.width,
            "use_bias": self.use_bias,
        }


@keras.saving.register_keras_serializable(package="keras_seq")
class CrossAttention(keras.layers.Layer):
    """Scaled dot-product attention from the steps of a target to the keys of its source.

    A step knows nothing of the steps before it: all steps of a target, one of them, and one of
    several hypotheses are the same call. The softmax is computed in float32 under every policy.

    Args:
        heads: Number of heads.
        width: Features of the output and of all heads together; divisible by `heads`.
        dropout: On the weights, 0 to below 1. Default 0.
        use_bias: Whether the projections add a learned vector. Default True.
        **kwargs: As for every Keras layer.

    Call arguments:
        query: (B, T, D), T steps of the target or T hypotheses at one step.
        key: (B, kv heads, S, width / heads), from `MemoryProjection`; `heads` is a multiple of
            its heads.
        value: (B, kv heads, S, width / heads).
        mask: (B, S) bool, True at the real steps of the source, or None.

    Returns:
        The output (B, T, width) and the weights (B, heads, T, S), before dropout. Where a source
        has no real step the weights are zeros.

    Raises:
        ValueError: If the width is not divisible by the heads, or the keys have another head
            width or a number of heads that cannot be shared.

    Example:
        >>> import numpy as np
        >>> key, value = MemoryProjection(heads=2, width=6)(np.ones((1, 3, 4), "float32"))
        >>> mask = np.array([[True, True, False]])
        >>> layer = CrossAttention(heads=2, width=6)
        >>> output, weights = layer(np.ones((1, 1, 4), "float32"), key, value, mask=mask)
        >>> output.shape, np.asarray(weights)[0, 0].round(2).tolist()
        (TensorShape([1, 1, 6]), [[0.5, 0.5, 0.0]])

    Reference:
        Vaswani et al. 2017, Attention Is All You Need.
    """

    def __init__(
        self,
        heads: int,
        width: int,
        *,
        dropout: float = 0.0,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_heads(width, heads)
        self.heads = heads
        self.width = width
        self.dropout = dropout
        self.use_bias = use_bias
        self.supports_masking = True

    def build(self, query_shape: Shape, key_shape: Shape, value_shape: Shape) -> None:
        """Makes the projections of the query and of the output."""
        head_width = self.width // self.heads
        if self.heads % key_shape[1] or key_shape[-1] != head_width:
            raise ValueError(
                f"{self.name} has {self.heads} heads of width {head_width} and got keys with "
                f"{key_shape[1]} heads of width {key_shape[-1]}: make them with MemoryProjection("
                f"heads={self.heads}, width={self.width}), or with a part of these heads and the "
                "same part of the width"
            )
        policy = self.dtype_policy
        self.query_projection = joint_projection(
            "query", query_shape, self.width, 1, policy, self.use_bias
        )
        self.output_projection = joint_projection(
            "combine", (*query_shape[:-1], self.width), self.width, 1, policy, self.use_bias
        )
        self.dropout_layer = Dropout(self.dropout, dtype=policy)

    def call(
        self, query: Any, key: Any, value: Any, mask: Any = None, training: bool | None = None
    ) -> tuple[Any, Any]:
        """Attends."""
        q = split_heads(self.query_projection(query), self.heads)  # (B, H, T, head width)
        mixed, weights = dot_product_attention(
            q,
            key,
            value,
            mask=mask,
            dropout=self.dropout,
            seed=self.dropout_layer.seed_generator if self.dropout else None,
            training=training,
            return_weights=True,
        )
        return self.output_projection(join_heads(mixed)), weights

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask: it belongs to the memory, not to the output."""
        return None

    def compute_output_shape(
        self, query_shape: Shape, key_shape: Shape, value_shape: Shape
    ) -> tuple[Shape, Shape]:
        """Returns the shapes of the output and of the weights."""
        batch, steps = query_shape[:2]
        return (batch, steps, self.width), (batch, self.heads, steps, key_shape[2])

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "width": self.width,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
        }
