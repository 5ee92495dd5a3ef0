"""The Transformer's encoder block, and the feed-forward layer in it."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers.attention import MultiHeadAttention, check_heads

Shape = tuple[Any, ...]


@keras.saving.register_keras_serializable(package="keras_seq")
class FeedForward(keras.layers.Layer):
    """Two dense layers at each step, or a gated pair (GLU) in place of the first.

    Args:
        hidden: Units between the two; None: 4 times the input's width (with `glu` 8/3 times, in
            multiples of 8, which costs as many parameters).
        glu: Whether half of the first layer gates the other half. Default False.
        activation: Name or function; None: ``"gelu"``, and with `glu` ``"silu"`` (SwiGLU). "gelu"
            is the tanh form, because the exact one does not convert everywhere.
        dropout: On the hidden units, 0 to below 1. Default 0.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, W).

    Returns:
        (B, T, W).

    Example:
        >>> import numpy as np
        >>> layer = FeedForward(16, glu=True)
        >>> layer(np.ones((1, 3, 8), "float32")).shape
        TensorShape([1, 3, 8])

    Reference:
        Vaswani et al. 2017, Attention Is All You Need; Shazeer 2020, GLU Variants Improve
        Transformer.
    """

    def __init__(
        self,
        hidden: int | None = None,
        *,
        glu: bool = False,
        activation: Any = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden = hidden
        self.glu = glu
        self.activation = keras.activations.get(activation or ("silu" if glu else "gelu"))
        self.dropout = dropout
        self.supports_masking = True

    def build(self, x_shape: Shape) -> None:
        """Makes the two dense layers."""
        width = x_shape[-1]
        hidden = self.hidden or (max(8, round(width / 3) * 8) if self.glu else 4 * width)
        parts = 2 if self.glu else 1
        self.expand = keras.layers.Dense(parts * hidden, dtype=self.dtype_policy, name="expand")
        self.contract = keras.layers.Dense(width, dtype=self.dtype_policy, name="contract")
        self.dropout_layer = keras.layers.Dropout(self.dropout, dtype=self.dtype_policy)
        self.expand.build(x_shape)
        self.contract.build((*x_shape[:-1], hidden))

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Transforms each step by itself."""
        h = self.expand(x)
        if self.glu:
            value, gate = ops.split(h, 2, axis=-1)
            h = value * self._activate(gate)
        else:
            h = self._activate(h)
        return self.contract(self.dropout_layer(h, training=training))

    def _activate(self, x: Any) -> Any:
        if self.activation is keras.activations.gelu:
            return ops.gelu(x, approximate=True)
        return self.activation(x)

    def compute_output_shape(self, x_shape: Shape) -> Shape:
        """Returns the input's shape."""
        return tuple(x_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "hidden": self.hidden,
            "glu": self.glu,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable(package="keras_seq")
class TransformerBlock(keras.layers.Layer):
    """Self-attention, then a feed-forward layer, each with a residual and layer normalisation.

    Args:
        width: Features of the input and the output, W; divisible by `heads`.
        heads: Number of heads. Default 4.
        norm: ``"pre"`` normalises what goes into each half (trains without warm-up; normalise
            once more after the last block), ``"post"`` what comes out of it (the 2017 form).
        hidden: Units of the feed-forward layer; None: see `FeedForward`.
        dropout: On the attention weights, the hidden units and both halves' results. Default 0.
        causal: Whether step t sees only steps up to t. Default False.
        rotary: Whether queries and keys are turned by their positions. Default False.
        glu: Whether the feed-forward layer is gated. Default False.
        activation: Of the feed-forward layer; None: see `FeedForward`.
        max_length: Longest sequence for rotary positions, in steps. Default 1024.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, W).
        mask: (B, T) bool, True at real steps, or (B, T, T); None: all.

    Returns:
        (B, T, W) and the attention weights (B, heads, T, T).

    Raises:
        ValueError: If `norm` is unknown, the width is not divisible by the heads, or the input has
            another width.

    Example:
        >>> import numpy as np
        >>> y, weights = TransformerBlock(4, heads=2, causal=True)(np.ones((1, 3, 4), "float32"))
        >>> y.shape, weights.shape
        (TensorShape([1, 3, 4]), TensorShape([1, 2, 3, 3]))

    Reference:
        Vaswani et al. 2017, Attention Is All You Need; Xiong et al. 2020, On Layer Normalization
        in the Transformer Architecture.
    """

    def __init__(
        self,
        width: int,
        heads: int = 4,
        *,
        norm: str = "pre",
        hidden: int | None = None,
        dropout: float = 0.0,
        causal: bool = False,
        rotary: bool = False,
        glu: bool = False,
        activation: Any = None,
        max_length: int = 1024,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if norm not in ("pre", "post"):
            raise ValueError(f"norm is {norm!r}: give 'pre' or 'post'")
        check_heads(width, heads)
        self.width = width
        self.heads = heads
        self.norm = norm
        self.hidden = hidden
        self.dropout = dropout
        self.causal = causal
        self.rotary = rotary
        self.glu = glu
        self.activation = activation if activation is None else keras.activations.get(activation)
        self.max_length = max_length
        self.supports_masking = True

    def build(self, x_shape: Shape) -> None:
        """Makes the layers."""
        if x_shape[-1] != self.width:
            raise ValueError(
                f"{self.name} has width {self.width} and got {x_shape[-1]} features: project them "
                f"with Dense({self.width}) first, or set width to {x_shape[-1]}"
            )
        policy = {"dtype": self.dtype_policy}
        self.attention = MultiHeadAttention(
            self.heads,
            dropout=self.dropout,
            causal=self.causal,
            rotary=self.rotary,
            max_length=self.max_length,
            name="attention",
            **policy,
        )
        self.feed_forward = FeedForward(
            self.hidden,
            glu=self.glu,
            activation=self.activation,
            dropout=self.dropout,
            name="feed_forward",
            **policy,
        )
        self.attention_norm = keras.layers.LayerNormalization(name="attention_norm", **policy)
        self.feed_forward_norm = keras.layers.LayerNormalization(name="feed_forward_norm", **policy)
        self.dropout_layer = keras.layers.Dropout(self.dropout, **policy)
        for layer in (self.attention, self.attention_norm):
            layer.build(x_shape)
        for layer in (self.feed_forward, self.feed_forward_norm):
            layer.build(x_shape)

    def call(self, x: Any, mask: Any = None, training: bool | None = None) -> tuple[Any, Any]:
        """Mixes the steps, then transforms each of them."""
        h = self.attention_norm(x) if self.norm == "pre" else x
        h, weights = self.attention(h, mask=mask, training=training)
        return self._transform(x, h, training), weights

    def step_shapes(self, length: int) -> dict[str, Shape]:
        """Tells what one step has to remember; see `MultiHeadAttention.step_shapes`."""
        return self.attention.step_shapes(length)

    def step(
        self, x: Any, states: dict[str, Any], position: Any
    ) -> tuple[tuple[Any, Any], dict[str, Any]]:
        """Computes one step of a sequence; see `MultiHeadAttention.step`.

        Args:
            x: Features of that step, (B, 1, W).
            states: ``key`` and ``value``, (B, heads, L, head width).
            position: Which step it is, counted from 0, (B,) int32.

        Returns:
            The output (B, 1, W) and the weights (B, heads, 1, L); and the states for the next step.
        """
        h = self.attention_norm(x) if self.norm == "pre" else x
        (h, weights), states = self.attention.step(h, states, position)
        return (self._transform(x, h, False), weights), states

    def _transform(self, x: Any, h: Any, training: bool | None) -> Any:
        """What comes after the attention h: both residuals and the feed-forward layer."""
        pre = self.norm == "pre"
        x = x + self.dropout_layer(h, training=training)
        x = x if pre else self.attention_norm(x)
        h = self.feed_forward_norm(x) if pre else x
        h = self.feed_forward(h, training=training)
        x = x + self.dropout_layer(h, training=training)
        return x if pre else self.feed_forward_norm(x)

    def compute_mask(self, x: Any, previous_mask: Any = None) -> Any:
        """Hands an implicit mask on, where it says which steps are real."""
        return previous_mask if previous_mask is None or len(previous_mask.shape) == 2 else None

    def compute_output_shape(self, x_shape: Shape) -> tuple[Shape, Shape]:
        """Returns the shapes of the output and of the weights."""
        batch, steps = x_shape[:2]
        return tuple(x_shape), (batch, self.heads, steps, steps)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        activation = self.activation
        return {
            **super().get_config(),
            "width": self.width,
            "heads": self.heads,
            "norm": self.norm,
            "hidden": self.hidden,
            "dropout": self.dropout,
            "causal": self.causal,
            "rotary": self.rotary,
            "glu": self.glu,
            "activation": activation and keras.activations.serialize(activation),
            "max_length": self.max_length,
        }
