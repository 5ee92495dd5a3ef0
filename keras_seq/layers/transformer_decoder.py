"""The Transformer's decoder block: a Transformer block that also looks at a source."""

from __future__ import annotations

from typing import Any

import keras

from keras_seq.layers.cross_attention import CrossAttention
from keras_seq.layers.transformer import TransformerBlock, normalisation

Shape = tuple[Any, ...]

# What the block inside is told, and what the configuration is made of.
OPTIONS = (
    "width",
    "heads",
    "norm",
    "hidden",
    "dropout",
    "attention_dropout",
    "hidden_dropout",
    "rotary",
    "glu",
    "activation",
    "max_length",
    "kv_heads",
    "norm_kind",
    "bias",
    "qk_norm",
    "use_bias",
)


@keras.saving.register_keras_serializable(package="keras_seq")
class DecoderBlock(keras.layers.Layer):
    """Causal self-attention, attention to a source, then a feed-forward layer, with residuals.

    Its second output is an alignment: give it a name that begins with ``alignment``.

    Args:
        width: Features of the input and the output, W; divisible by `heads`.
        heads: Number of heads, of both attentions. Default 4.
        norm: ``"pre"`` normalises what goes into each of the three parts (normalise once more
            after the last block), ``"post"`` what comes out of it (the 2017 form).
        hidden: Units of the feed-forward layer; None: see `FeedForward`.
        dropout: On all parts' results, 0 to below 1. Default 0.
        attention_dropout: On the weights of both attentions; None: as `dropout`. Default None.
        hidden_dropout: On the feed-forward layer's hidden units; None: as `dropout`. Default None.
        rotary: Whether the self-attention's queries and keys are turned by their positions.
            Default False.
        glu: Whether the feed-forward layer is gated. Default False.
        activation: Of the feed-forward layer; None: see `FeedForward`.
        max_length: Longest target for rotary positions, in steps. Default 1024.
        kv_heads: Heads of the self-attention's keys and values; None: as `heads`. Those of the
            source are what `MemoryProjection` gives.
        norm_kind: ``"layer"`` or ``"rms"``, what normalises. Default ``"layer"``.
        bias: Of the self-attention: ``"relative"``, ``"alibi"`` or None; see `MultiHeadAttention`.
        qk_norm: Whether the self-attention's queries and keys are normalised. Default False.
        use_bias: Whether projections and dense layers add a learned vector. Default True.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, W), the target.
        key: (B, kv heads, S, W / heads), the source's keys, from `MemoryProjection`.
        value: (B, kv heads, S, W / heads), the source's values.
        mask: (B, S) bool, True at the real steps of the source, or None.
        target_mask: (B, T) bool, True at the real steps of the target, or (B, T, T); None: all.
            Padding behind the real steps is hidden from them in any case.
        distances: (2 M + 1, heads), a bias of the self-attention that blocks share, from
            `RelativeBiasTable`, or None.

    Returns:
        (B, T, W) and the weights of the attention to the source, (B, heads, T, S).

    Raises:
        ValueError: As `TransformerBlock` and `CrossAttention`.

    Example:
        >>> import numpy as np
        >>> from keras_seq.layers import MemoryProjection
        >>> key, value = MemoryProjection(heads=2, width=4)(np.ones((1, 5, 3), "float32"))
        >>> layer = DecoderBlock(4, heads=2, name="alignment_0")
        >>> y, weights = layer(np.ones((1, 3, 4), "float32"), key, value)
        >>> y.shape, weights.shape
        (TensorShape([1, 3, 4]), TensorShape([1, 2, 3, 5]))

    Reference:
        Vaswani et al. 2017, Attention Is All You Need.
    """

    hypotheses = True

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
        self.block = TransformerBlock(
            width,
            heads,
            norm=norm,
            hidden=hidden,
            dropout=dropout,
            attention_dropout=attention_dropout,
            hidden_dropout=hidden_dropout,
            causal=True,
            rotary=rotary,
            glu=glu,
            activation=activation,
            max_length=max_length,
            kv_heads=kv_heads,
            norm_kind=norm_kind,
            bias=bias,
            qk_norm=qk_norm,
            use_bias=use_bias,
            dtype=self.dtype_policy,
            name="block",
        )
        self.supports_masking = True

    def build(self, x_shape: Shape, key_shape: Shape, value_shape: Shape) -> None:
        """Makes the layers."""
        block, policy = self.block, self.dtype_policy
        block.build(x_shape)
        self.cross_attention = CrossAttention(
            block.heads,
            block.width,
            dropout=block.attention.dropout,
            use_bias=block.use_bias,
            name="cross_attention",
            dtype=policy,
        )
        self.cross_attention_norm = normalisation(block.norm_kind, "cross_attention_norm", policy)
        self.cross_attention.build(x_shape, key_shape, value_shape)
        self.cross_attention_norm.build(x_shape)

    def call(
        self,
        x: Any,
        key: Any,
        value: Any,
        mask: Any = None,
        target_mask: Any = None,
        training: bool | None = None,
        distances: Any = None,
    ) -> tuple[Any, Any]:
        """Mixes the target's steps, looks at the source, then transforms each step."""
        h = self.block.before(x, self.block.attention_norm)
        attention = self.block.attention
        h, _ = attention(h, mask=target_mask, training=training, distances=distances)
        return self._look(x, h, key, value, mask, training)

    def step_shapes(self, length: int, hypotheses: int = 1) -> dict[str, Shape]:
        """Tells what one step has to remember; see `MultiHeadAttention.step_shapes`."""
        return self.block.step_shapes(length, hypotheses)

    def step(
        self,
        x: Any,
        states: dict[str, Any],
        position: Any,
        key: Any,
        value: Any,
        mask: Any = None,
        ancestry: Any = None,
        distances: Any = None,
    ) -> tuple[tuple[Any, Any], dict[str, Any]]:
        """Computes one step of a target; see `MultiHeadAttention.step`.

        Args:
            x: Features of that step, (B, 1, W); of K hypotheses of a search, (B, K, W).
            states: ``key`` and ``value`` of the self-attention, (B, kv heads, L, K * head width).
            position: Which step it is, counted from 0, (B,) int32.
            key: (B, kv heads, S, W / heads), the source's keys.
            value: (B, kv heads, S, W / heads), the source's values.
            mask: (B, S) bool, the real steps of the source, or None.
            ancestry: (B, K, L) int32, or None for one hypothesis.
            distances: (2 M + 1, heads), as in the call.

        Returns:
            The output (B, K, W) and the weights (B, heads, K, S); and the states for the next
            step.
        """
        h = self.block.before(x, self.block.attention_norm)
        (h, _), states = self.block.attention.step(h, states, position, ancestry, distances)
        return self._look(x, h, key, value, mask, False), states

    def _look(
        self, x: Any, h: Any, key: Any, value: Any, mask: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """What comes after the self-attention h: the source, and the feed-forward layer."""
        x = self.block.after(x, h, self.block.attention_norm, training)
        h = self.block.before(x, self.cross_attention_norm)
        h, weights = self.cross_attention(h, key, value, mask=mask, training=training)
        x = self.block.after(x, h, self.cross_attention_norm, training)
        return self.block.transform(x, training), weights

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask: whether it is the target's or the source's is not known."""
        return None

    def compute_output_shape(
        self, x_shape: Shape, key_shape: Shape, value_shape: Shape
    ) -> tuple[Shape, Shape]:
        """Returns the shapes of the output and of the weights."""
        batch, steps = x_shape[:2]
        return tuple(x_shape), (batch, self.block.heads, steps, key_shape[2])

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        block = self.block.get_config()
        return {**super().get_config(), **{name: block[name] for name in OPTIONS}}
