"""The Transformer's encoder block, and the feed-forward layer in it."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers.activations import gelu
from keras_seq.layers.attention import MultiHeadAttention, check_attention, check_heads
from keras_seq.layers.dropout import Dropout

Shape = tuple[Any, ...]

NORMS = {"layer": keras.layers.LayerNormalization, "rms": keras.layers.RMSNormalization}


def normalisation(kind: str, name: str, policy: Any) -> keras.layers.Layer:
    """Makes the layer that normalises each step's features.

    Args:
        kind: ``"layer"``, to mean 0 and variance 1, or ``"rms"``, to mean square 1.
        name: Of the layer.
        policy: The layer's dtype policy.

    Returns:
        A Keras layer.

    Example:
        >>> import numpy as np
        >>> layer = normalisation("rms", "norm", "float32")
        >>> np.asarray(layer(np.array([[3.0, 4.0]], "float32"))).round(2)
        array([[0.85, 1.13]], dtype=float32)

    Reference:
        Ba et al. 2016, Layer Normalization; Zhang and Sennrich 2019, Root Mean Square Layer
        Normalization.
    """
    layer = NORMS[kind](name=name, dtype=policy)
    layer.supports_masking = True  # Keras says no for RMS, and warns that a mask ends there
    return layer


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
        use_bias: Whether the dense layers add a learned vector. Default True.
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
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden = hidden
        self.glu = glu
        self.activation = keras.activations.get(activation or ("silu" if glu else "gelu"))
        self.dropout = dropout
        self.use_bias = use_bias
        self.supports_masking = True

    def build(self, x_shape: Shape) -> None:
        """Makes the two dense layers."""
        width = x_shape[-1]
        hidden = self.hidden or (max(8, round(width / 3) * 8) if self.glu else 4 * width)
        parts = 2 if self.glu else 1
        options = {"use_bias": self.use_bias, "dtype": self.dtype_policy}
        self.expand = keras.layers.Dense(parts * hidden, name="expand", **options)
        self.contract = keras.layers.Dense(width, name="contract", **options)
        self.dropout_layer = Dropout(self.dropout, dtype=self.dtype_policy)
        self.expand.build(x_shape)
        self.contract.build((*x_shape[:-1], hidden))

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Transforms each step by itself."""
        h = self.expand(x)
        if self.glu:
            value, gate = ops.split(h, 2, axis=-1)
            h = value * self._activate(gate, training)
        else:
            h = self._activate(h, training)
        return self.contract(self.dropout_layer(h, training=training))

    def _activate(self, x: Any, training: bool | None) -> Any:
        if self.activation is keras.activations.gelu:
            return gelu(x) if training else ops.gelu(x, approximate=True)
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
            "use_bias": self.use_bias,
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
        dropout: On both halves' results, 0 to below 1. Default 0.
        attention_dropout: On the attention weights; None: as `dropout`. Default None.
        hidden_dropout: On the feed-forward layer's hidden units; None: as `dropout`. Default None.
        causal: Whether step t sees only steps up to t. Default False.
        rotary: Whether queries and keys are turned by their positions. Default False.
        glu: Whether the feed-forward layer is gated. Default False.
        activation: Of the feed-forward layer; None: see `FeedForward`.
        max_length: Longest sequence for rotary positions, in steps. Default 1024.
        kv_heads: Heads of the keys and the values; None: as `heads`. See `MultiHeadAttention`.
        norm_kind: ``"layer"`` or ``"rms"``, what normalises. Default ``"layer"``.
        bias: ``"relative"``, ``"alibi"`` or None; see `MultiHeadAttention`.
        qk_norm: Whether queries and keys are normalised; see `MultiHeadAttention`. Default False.
        use_bias: Whether projections and dense layers add a learned vector. Default True.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, W).
        mask: (B, T) bool, True at real steps, or (B, T, T); None: all.
        distances: (2 M + 1, heads), a bias that blocks share, from `RelativeBiasTable`, or None.

    Returns:
        (B, T, W) and the attention weights (B, heads, T, T).

    Raises:
        ValueError: If `norm`, `norm_kind` or `bias` is unknown, the width is not divisible by the
            heads or they not by `kv_heads`, or the input has another width.

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
        attention_dropout: float | None = None,
        hidden_dropout: float | None = None,
        causal: bool = False,
        rotary: bool = False,
        glu: bool = False,
        activation: Any = None,
        max_length: int = 1024,
        kv_heads: int | None = None,
        norm_kind: str = "layer",
        bias: str | None = None,
        qk_norm: bool = False,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if norm not in ("pre", "post"):
            raise ValueError(f"norm is {norm!r}: give 'pre' or 'post'")
        if norm_kind not in NORMS:
            raise ValueError(f"norm_kind is {norm_kind!r}: give 'layer' or 'rms'")
        check_heads(width, heads)
        check_attention(heads, kv_heads, bias)
        self.width = width
        self.heads = heads
        self.norm = norm
        self.hidden = hidden
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.hidden_dropout = hidden_dropout
        self.causal = causal
        self.rotary = rotary
        self.glu = glu
        self.activation = activation if activation is None else keras.activations.get(activation)
        self.max_length = max_length
        self.kv_heads = kv_heads
        self.norm_kind = norm_kind
        self.bias = bias
        self.qk_norm = qk_norm
        self.use_bias = use_bias
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
            dropout=_first(self.attention_dropout, self.dropout),
            causal=self.causal,
            rotary=self.rotary,
            max_length=self.max_length,
            kv_heads=self.kv_heads,
            bias=self.bias,
            qk_norm=self.qk_norm,
            use_bias=self.use_bias,
            name="attention",
            **policy,
        )
        self.feed_forward = FeedForward(
            self.hidden,
            glu=self.glu,
            activation=self.activation,
            dropout=_first(self.hidden_dropout, self.dropout),
            use_bias=self.use_bias,
            name="feed_forward",
            **policy,
        )
        self.attention_norm, self.feed_forward_norm = (
            normalisation(self.norm_kind, name, self.dtype_policy)
            for name in ("attention_norm", "feed_forward_norm")
        )
        self.dropout_layer = Dropout(self.dropout, **policy)
        for layer in (self.attention, self.attention_norm):
            layer.build(x_shape)
        for layer in (self.feed_forward, self.feed_forward_norm):
            layer.build(x_shape)

    def call(
        self, x: Any, mask: Any = None, training: bool | None = None, distances: Any = None
    ) -> tuple[Any, Any]:
        """Mixes the steps, then transforms each of them."""
        h = self.before(x, self.attention_norm)
        h, weights = self.attention(h, mask=mask, training=training, distances=distances)
        return self._transform(x, h, training), weights

    def before(self, x: Any, norm: keras.layers.Layer) -> Any:
        """Returns what goes into a part of the block.

        Args:
            x: (B, T, W), the block's features so far.
            norm: The part's normalisation.

        Returns:
            (B, T, W), normalised where `self.norm` is ``"pre"``.
        """
        return norm(x) if self.norm == "pre" else x

    def after(self, x: Any, h: Any, norm: keras.layers.Layer, training: bool | None = None) -> Any:
        """Adds what comes out of a part of the block.

        Args:
            x: (B, T, W), the block's features so far.
            h: (B, T, W), what the part made of them.
            norm: The part's normalisation.
            training: Whether there is dropout.

        Returns:
            (B, T, W), normalised where `self.norm` is ``"post"``.
        """
        x = x + self.dropout_layer(h, training=training)
        return x if self.norm == "pre" else norm(x)

    def transform(self, x: Any, training: bool | None = None) -> Any:
        """Transforms each step by itself: the block's last part, with its residual.

        Args:
            x: (B, T, W), the block's features so far.
            training: Whether there is dropout.

        Returns:
            (B, T, W).
        """
        h = self.feed_forward(self.before(x, self.feed_forward_norm), training=training)
        return self.after(x, h, self.feed_forward_norm, training)

    hypotheses = True
    slides = True

    def step_shapes(self, length: int, hypotheses: int = 1) -> dict[str, Shape]:
        """Tells what one step has to remember; see `MultiHeadAttention.step_shapes`."""
        return self.attention.step_shapes(length, hypotheses)

    def step(
        self,
        x: Any,
        states: dict[str, Any],
        position: Any,
        ancestry: Any = None,
        distances: Any = None,
    ) -> tuple[tuple[Any, Any], dict[str, Any]]:
        """Computes one step of a sequence; see `MultiHeadAttention.step`.

        Args:
            x: Features of that step, (B, 1, W); of K hypotheses of a search, (B, K, W).
            states: ``key`` and ``value``, (B, heads, L, K * head width).
            position: Which step it is, counted from 0, (B,) int32.
            ancestry: (B, K, L) int32, or None for one hypothesis.
            distances: (2 M + 1, heads), as in the call.

        Returns:
            The output (B, K, W) and the weights; and the states for the next step.
        """
        h = self.attention_norm(x) if self.norm == "pre" else x
        (h, weights), states = self.attention.step(h, states, position, ancestry, distances)
        return (self._transform(x, h, False), weights), states

    def _transform(self, x: Any, h: Any, training: bool | None) -> Any:
        """What comes after the attention h: both residuals and the feed-forward layer."""
        return self.transform(self.after(x, h, self.attention_norm, training), training)

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
            "attention_dropout": self.attention_dropout,
            "hidden_dropout": self.hidden_dropout,
            "causal": self.causal,
            "rotary": self.rotary,
            "glu": self.glu,
            "activation": activation and keras.activations.serialize(activation),
            "max_length": self.max_length,
            "kv_heads": self.kv_heads,
            "norm_kind": self.norm_kind,
            "bias": self.bias,
            "qk_norm": self.qk_norm,
            "use_bias": self.use_bias,
        }


def _first(share: float | None, otherwise: float) -> float:
    return otherwise if share is None else share
