"""Multi-head self-attention for long sequences: to all steps, or to the neighbouring ones."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seq.layers.attention import MultiHeadAttention
from keras_seq.layers.dot_product import dot_product_attention
from keras_seq.layers.masking import zero_masked

Shape = tuple[Any, ...]


@keras.saving.register_keras_serializable(package="keras_seq")
class BlockwiseAttention(MultiHeadAttention):
    """Self-attention of a `MultiHeadAttention` in memory that grows with the length.

    Weights are the same and load either way, and so are the results. Long sequences are computed by
    tiles, see `dot_product_attention`; so there are no weights to return. Dropout drops others than
    that of `MultiHeadAttention`.

    Args:
        heads: Number of heads.
        width: Features of the output and of all heads together; None: as the input's.
        dropout: On the weights, 0 to below 1. Default 0.
        causal: Whether step t sees only steps up to t. Default False.
        rotary: Whether queries and keys are turned by their positions. Default False.
        max_length: Longest sequence for rotary positions, in steps. Default 16384.
        kv_heads: See `MultiHeadAttention`.
        bias: ``"relative"``, ``"alibi"`` or None; see `MultiHeadAttention`.
        qk_norm: See `MultiHeadAttention`. Default False.
        use_bias: Whether the projections add a learned vector. Default True.
        method: ``"auto"``, ``"plain"`` or ``"blockwise"``. Default ``"auto"``.
        block: Most steps of a tile's sides; shorter sequences are computed at once. None: see
            `dot_product_attention`.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, D).
        mask: (B, T) bool, True at real steps; None: all.
        distances: (2 M + 1, heads), see `MultiHeadAttention`; not beside `bias`.

    Returns:
        (B, T, width). A step that sees nothing gets what the projection adds.

    Raises:
        ValueError: As `MultiHeadAttention`; if `block` is below 1, or two biases are given.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(1, 6, 4)).astype("float32")
        >>> plain, tiles = MultiHeadAttention(2), BlockwiseAttention(2, block=4)
        >>> _ = plain(x), tiles(x)
        >>> tiles.set_weights(plain.get_weights())
        >>> np.allclose(tiles(x), plain(x)[0], atol=1e-6)
        True

    Reference:
        Rabe and Staats 2021, Self-attention Does Not Need O(n^2) Memory; Dao et al. 2022,
        FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness.
    """

    def __init__(
        self,
        heads: int,
        *,
        width: int | None = None,
        dropout: float = 0.0,
        causal: bool = False,
        rotary: bool = False,
        max_length: int = 16384,
        kv_heads: int | None = None,
        bias: str | None = None,
        qk_norm: bool = False,
        use_bias: bool = True,
        method: str = "auto",
        block: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            heads,
            width=width,
            dropout=dropout,
            causal=causal,
            rotary=rotary,
            max_length=max_length,
            kv_heads=kv_heads,
            bias=bias,
            qk_norm=qk_norm,
            use_bias=use_bias,
            method=method,
            **kwargs,
        )
        if block is not None and block < 1:
            raise ValueError(f"block is {block}: give at least 1, or None")
        self.block = block

    window: Any = None  # all steps; a number in `SlidingWindowAttention`

    def build(self, x_shape: Shape) -> None:  # type: ignore[override]
        """Makes the projections."""
        super().build(x_shape)

    def call(  # type: ignore[override]
        self, x: Any, mask: Any = None, training: bool | None = None, distances: Any = None
    ) -> Any:
        """Attends."""
        if mask is not None:
            x = zero_masked(x, mask)
        q, k, v = self._project(x, x)
        if self.rotary:
            q, k = self.turn(q), self.turn(k)
        # What a converter asks, see `dot_product_attention`; the heads have lost the batch's size.
        converted = not training and x.shape[1] is None and x.shape[0] is not None
        mixed = dot_product_attention(
            q,
            k,
            v,
            mask=mask,
            causal=self.causal,
            window=self.window,
            bias=self._bias_by_distance(distances),
            dropout=self.dropout,
            seed=self.dropout_layer.seed_generator if self.dropout else None,
            method="plain" if converted else self.method,
            block=self.block,
            training=training,
        )
        return self._combine(mixed)

    def step(
        self,
        x: Any,
        states: dict[str, Any],
        position: Any,
        ancestry: Any = None,
        distances: Any = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Attends from one step; see `MultiHeadAttention.step`.

        Args:
            x: (B, 1, D), or (B, K, D) of K hypotheses.
            states: ``key`` and ``value``.
            position: (B,) int32.
            ancestry: (B, K, L) int32, or None.
            distances: (2 M + 1, heads), or None.

        Returns:
            The output (B, K, width), and the states for the next step.
        """
        (mixed, _), states = super().step(x, states, position, ancestry, distances)
        return mixed, states

    def compute_output_shape(self, x_shape: Shape) -> Shape:  # type: ignore[override]
        """Returns the shape of the output."""
        return (*x_shape[:2], self.width or x_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "block": self.block}


@keras.saving.register_keras_serializable(package="keras_seq")
class SlidingWindowAttention(BlockwiseAttention):
    """Self-attention from each step to those near it: work and memory grow with the length.

    Weights are those of a `MultiHeadAttention` and load either way. Stacked, the layers see
    farther, a window each.

    Args:
        heads: Number of heads.
        window: How many steps before its own and after it a step sees; causal: before it.
        width: See `BlockwiseAttention`.
        dropout: On the weights, 0 to below 1. Default 0.
        causal: Whether step t sees only steps up to t. Default False.
        rotary: Whether queries and keys are turned by their positions. Default False.
        max_length: Longest sequence for rotary positions, in steps. Default 16384.
        kv_heads: See `MultiHeadAttention`.
        bias: ``"relative"``, ``"alibi"`` or None; see `MultiHeadAttention`.
        qk_norm: See `MultiHeadAttention`. Default False.
        use_bias: Whether the projections add a learned vector. Default True.
        method: ``"auto"``, ``"plain"`` or ``"window"``. Default ``"auto"``.
        block: See `BlockwiseAttention`.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, D).
        mask: (B, T) bool, True at real steps; None: all.
        distances: (2 M + 1, heads), see `MultiHeadAttention`; not beside `bias`.

    Returns:
        (B, T, width). A step that sees nothing gets what the projection adds.

    Raises:
        ValueError: As `BlockwiseAttention`, or if the window is negative.

    Example:
        >>> import numpy as np
        >>> layer = SlidingWindowAttention(2, window=1)
        >>> x = np.zeros((1, 6, 4), "float32")
        >>> before = layer(x)
        >>> x[0, 5] = 1.0
        >>> (np.asarray(layer(x) - before)[0] != 0).any(-1)
        array([False, False, False, False,  True,  True])

    Reference:
        Beltagy, Peters and Cohan 2020, Longformer: The Long-Document Transformer.
    """

    def __init__(
        self,
        heads: int,
        *,
        window: int,
        width: int | None = None,
        dropout: float = 0.0,
        causal: bool = False,
        rotary: bool = False,
        max_length: int = 16384,
        kv_heads: int | None = None,
        bias: str | None = None,
        qk_norm: bool = False,
        use_bias: bool = True,
        method: str = "auto",
        block: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            heads,
            width=width,
            dropout=dropout,
            causal=causal,
            rotary=rotary,
            max_length=max_length,
            kv_heads=kv_heads,
            bias=bias,
            qk_norm=qk_norm,
            use_bias=use_bias,
            method=method,
            block=block,
            **kwargs,
        )
        if window < 0:
            raise ValueError(f"window is {window}: give at least 0")
        self.window = window

    methods = ("auto", "plain", "window")

    def step(
        self,
        x: Any,
        states: dict[str, Any],
        position: Any,
        ancestry: Any = None,
        distances: Any = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Attends from one step to the window before it; see `MultiHeadAttention.step`.

        Args:
            x: (B, 1, D), or (B, K, D) of K hypotheses.
            states: ``key`` and ``value``.
            position: (B,) int32.
            ancestry: (B, K, L) int32, or None.
            distances: (2 M + 1, heads), or None.

        Returns:
            The output (B, K, width), and the states for the next step.
        """
        # What a step does is that of `MultiHeadAttention`: a bias hides what is out of the window.
        farthest = self.window + 1
        hidden = np.zeros((2 * farthest + 1, self.heads), "float32")
        hidden[0] = -1e9
        table = ops.convert_to_tensor(hidden)
        if distances is not None:
            middle = distances.shape[0] // 2
            far = np.clip(np.arange(-farthest, farthest + 1), -middle, middle) + middle
            table = table + ops.take(ops.cast(distances, "float32"), far, axis=0)
        return super().step(x, states, position, ancestry, table)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "window": self.window}
