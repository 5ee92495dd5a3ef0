"""Attention: additive (Bahdanau) and multi-head (scaled dot product), with the weights returned."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers.masking import zero_masked
from keras_seq.layers.positions import RotaryPositions

Shape = tuple[Any, ...]


def causal_mask(query_steps: Any, memory_steps: Any) -> Any:
    """Tells which memory steps a query step may see: those up to its own position.

    Args:
        query_steps: T, a number or a scalar tensor.
        memory_steps: S, a number or a scalar tensor.

    Returns:
        (T, S) bool tensor.

    Example:
        >>> import numpy as np
        >>> np.asarray(causal_mask(2, 2)).tolist()
        [[True, False], [True, True]]
    """
    # A comparison of ranges converts to LiteRT for every length; a band matrix does not.
    return ops.arange(query_steps)[:, None] >= ops.arange(memory_steps)[None, :]


def masked_softmax(scores: Any, valid: Any = None) -> Any:
    """Softmax over the last axis in float32; a row without a valid entry gives zeros.

    Args:
        scores: (..., S) tensor.
        valid: Bool tensor that broadcasts to `scores`, or None for all valid.

    Returns:
        float32 tensor shaped like `scores`; each row sums to 1, or to 0 where nothing is valid.

    Example:
        >>> import numpy as np
        >>> valid = np.array([[True, True, False], [False, False, False]])
        >>> np.asarray(masked_softmax(np.zeros((2, 3), "float32"), valid)).tolist()
        [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """
    scores = ops.cast(scores, "float32")
    if valid is None:
        return _softmax(scores)
    # The row's lowest score stands in for "minus infinity": a huge negative number would stretch
    # the range of this tensor and leave nothing of the real scores in an int8 model. It takes some
    # weight, so the rest is scaled back to 1 afterwards.
    lowest = ops.stop_gradient(ops.min(scores, axis=-1, keepdims=True))
    weights = _softmax(ops.where(valid, scores, lowest))
    weights = ops.where(valid, weights, ops.zeros_like(weights))
    total = ops.sum(weights, axis=-1, keepdims=True)
    return weights / ops.where(total > 0, total, ops.ones_like(total))


def _softmax(scores: Any) -> Any:
    # Keras warns of a softmax over one entry, which is right for a sequence of one step.
    return ops.exp(scores - scores) if scores.shape[-1] == 1 else ops.softmax(scores, axis=-1)


def _valid(mask: Any, causal: bool, query_steps: Any, memory_steps: Any) -> Any:
    """(B or 1, T or 1, S) bool, or None where everything may be seen."""
    valid = None
    if mask is not None:
        mask = ops.cast(mask, "bool")
        valid = mask if len(mask.shape) == 3 else mask[:, None, :]
    if causal:
        past = causal_mask(query_steps, memory_steps)[None]
        valid = past if valid is None else ops.logical_and(valid, past)
    return valid


def check_heads(width: int, heads: int, *, even: bool = False) -> None:
    """Refuses a width that cannot be shared out among the heads, and says which can.

    Args:
        width: Features of all heads together.
        heads: Number of heads.
        even: Whether a head's width must be even (rotary positions).

    Raises:
        ValueError: If the width is not divisible.

    Example:
        >>> check_heads(30, 4)
        Traceback (most recent call last):
        ...
        ValueError: width 30 is not divisible by 4 heads: take width 28 or 32, or other heads
    """
    if heads < 1:
        raise ValueError(f"heads is {heads}: give at least 1")
    step = 2 * heads if even else heads
    if width % step or width < 1:
        lower = width - width % step
        raise ValueError(
            f"width {width} is not divisible by {heads} heads{' of even width' if even else ''}: "
            f"take width {f'{lower} or ' if lower > 0 else ''}{lower + step}, or other heads"
        )


@keras.saving.register_keras_serializable(package="keras_seq")
class AdditiveAttention(keras.layers.Layer):
    """Bahdanau's attention: score = v . tanh(query W + memory U + b).

    It holds (B, T, S, units) numbers at once: fine for one query a sequence or for short ones.

    Args:
        units: Width of the hidden layer that scores a pair.
        causal: Whether query step t sees only memory steps up to t. Default False.
        **kwargs: As for every Keras layer.

    Call arguments:
        query: (B, T, Dq).
        memory: (B, S, Dm), what is attended to.
        mask: (B, S) bool, True at real memory steps, or (B, T, S); None: all.

    Returns:
        The attended memory (B, T, Dm) and the weights (B, T, S). A query with no step to see gets
        zeros for both.

    Raises:
        ValueError: If `units` is below 1.

    Example:
        >>> import numpy as np
        >>> memory = np.array([[[1.0], [3.0], [100.0]]], "float32")
        >>> mask = np.array([[True, True, False]])
        >>> layer = AdditiveAttention(4)
        >>> output, weights = layer(np.zeros((1, 1, 2), "float32"), memory, mask=mask)
        >>> output.shape, float(weights[0, 0, 2])
        (TensorShape([1, 1, 1]), 0.0)

    Reference:
        Bahdanau, Cho and Bengio 2015, Neural Machine Translation by Jointly Learning to Align and
        Translate.
    """

    def __init__(self, units: int, *, causal: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"units is {units}: give at least 1")
        self.units = units
        self.causal = causal
        self.supports_masking = True

    def build(self, query_shape: Shape, memory_shape: Shape) -> None:
        """Makes the two projections and the scoring vector."""
        options = {"dtype": self.dtype_policy}
        self.query_projection = keras.layers.Dense(
            self.units, use_bias=False, name="query_projection", **options
        )
        self.memory_projection = keras.layers.Dense(self.units, name="memory_projection", **options)
        self.score = keras.layers.Dense(1, use_bias=False, name="score", **options)
        self.query_projection.build(query_shape)
        self.memory_projection.build(memory_shape)
        self.score.build((*query_shape[:-1], self.units))

    def call(self, query: Any, memory: Any, mask: Any = None) -> tuple[Any, Any]:
        """Scores every pair, and averages the memory by the scores."""
        if mask is not None and len(mask.shape) == 2:
            memory = zero_masked(memory, mask)
        q = ops.expand_dims(self.query_projection(query), 2)  # (B, T, 1, units)
        m = ops.expand_dims(self.memory_projection(memory), 1)  # (B, 1, S, units)
        scores = ops.squeeze(self.score(ops.tanh(q + m)), -1)  # (B, T, S)
        valid = _valid(mask, self.causal, ops.shape(query)[1], ops.shape(memory)[1])
        weights = ops.cast(masked_softmax(scores, valid), memory.dtype)
        return ops.matmul(weights, memory), weights

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask: it belongs to the memory, not to the output."""
        return None

    def compute_output_shape(self, query_shape: Shape, memory_shape: Shape) -> tuple[Shape, Shape]:
        """Returns the shapes of the attended memory and of the weights."""
        batch, steps = query_shape[:2]
        return (batch, steps, memory_shape[-1]), (batch, steps, memory_shape[1])

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "units": self.units, "causal": self.causal}


@keras.saving.register_keras_serializable(package="keras_seq")
class MultiHeadAttention(keras.layers.Layer):
    """Scaled dot-product attention in several heads, with an explicit mask.

    Queries, keys and values come from one product where a sequence attends to itself. The softmax
    is computed in float32 under every policy.

    Args:
        heads: Number of heads.
        width: Features of the output and of all heads together; None: as the query's.
        dropout: On the weights, 0 to below 1. Default 0.
        causal: Whether step t sees only steps up to t. Default False.
        rotary: Whether queries and keys are turned by their positions. Default False.
        max_length: Longest sequence for rotary positions, in steps. Default 1024.
        **kwargs: As for every Keras layer.

    Call arguments:
        query: (B, T, D).
        memory: (B, S, Dm), what is attended to; None: the query itself.
        mask: (B, S) bool, True at real steps of the memory, or (B, T, S); None: all.

    Returns:
        The output (B, T, width) and the weights (B, heads, T, S), before dropout. A step that sees
        nothing gets zero weights.

    Raises:
        ValueError: If the width is not divisible by the heads.

    Example:
        >>> import numpy as np
        >>> layer = MultiHeadAttention(heads=2, causal=True)
        >>> output, weights = layer(np.ones((1, 3, 4), "float32"))
        >>> np.asarray(weights)[0, 0].round(2)
        array([[1.  , 0.  , 0.  ],
               [0.5 , 0.5 , 0.  ],
               [0.33, 0.33, 0.33]], dtype=float32)

    Reference:
        Vaswani et al. 2017, Attention Is All You Need.
    """

    def __init__(
        self,
        heads: int,
        *,
        width: int | None = None,
        dropout: float = 0.0,
        causal: bool = False,
        rotary: bool = False,
        max_length: int = 1024,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if heads < 1:
            raise ValueError(f"heads is {heads}: give at least 1")
        self.heads = heads
        self.width = width
        self.dropout = dropout
        self.causal = causal
        self.rotary = rotary
        self.max_length = max_length
        self.supports_masking = True

    def build(self, query_shape: Shape, memory_shape: Shape | None = None) -> None:
        """Makes the projections."""
        width = self.width or query_shape[-1]
        check_heads(width, self.heads, even=self.rotary)
        self._head_width = width // self.heads
        if memory_shape is None:
            self.query_projection: Any = None
            self.fused_projection = self._dense("query_key_value", query_shape, width, 3)
        else:
            self.query_projection = self._dense("query", query_shape, width, 1)
            self.fused_projection = self._dense("key_value", memory_shape, width, 2)
        self.output_projection = self._dense("combine", (*query_shape[:-1], width), width, 1)
        self.dropout_layer = keras.layers.Dropout(self.dropout, dtype=self.dtype_policy)
        if self.rotary:
            self.turn = RotaryPositions(self.max_length, dtype=self.dtype_policy, name="turn")
            self.turn.build((query_shape[0], self.heads, query_shape[1], self._head_width))

    def _dense(self, name: str, shape: Shape, width: int, parts: int) -> keras.layers.Dense:
        # Parts share a kernel, and each is to start with the spread that it would have alone:
        # Glorot's variance is 2 / (inputs + outputs of one part).
        inputs = shape[-1]
        scale = (inputs + parts * width) / (inputs + width)
        start = keras.initializers.VarianceScaling(scale, "fan_avg", "uniform")
        layer = keras.layers.Dense(
            parts * width, kernel_initializer=start, dtype=self.dtype_policy, name=name
        )
        layer.build(shape)
        return layer

    def call(
        self, query: Any, memory: Any = None, mask: Any = None, training: bool | None = None
    ) -> tuple[Any, Any]:
        """Attends."""
        if memory is None:
            steps = query if mask is None or len(mask.shape) == 3 else zero_masked(query, mask)
            q, k, v = ops.split(self.fused_projection(steps), 3, axis=-1)
        else:
            steps = memory if mask is None or len(mask.shape) == 3 else zero_masked(memory, mask)
            q = self.query_projection(query)
            k, v = ops.split(self.fused_projection(steps), 2, axis=-1)
        q, k, v = self._split(q), self._split(k), self._split(v)  # (B, H, T or S, head width)
        if self.rotary:
            q, k = self.turn(q), self.turn(k)
        # The query is scaled before the product, so that float16 does not overflow in it.
        q = q * (self._head_width**-0.5)
        scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2)))  # (B, H, T, S)
        valid = _valid(mask, self.causal, ops.shape(query)[1], ops.shape(steps)[1])
        if valid is not None:
            valid = ops.expand_dims(valid, 1)
        weights = ops.cast(masked_softmax(scores, valid), v.dtype)
        mixed = ops.matmul(self.dropout_layer(weights, training=training), v)
        return self._combine(mixed), weights

    def step_shapes(self, length: int) -> dict[str, Shape]:
        """Tells what one step has to remember: the keys and the values of the steps before it.

        Args:
            length: Most steps that can be remembered.

        Returns:
            ``key`` and ``value``, each (heads, length, head width), without the batch.

        Raises:
            ValueError: If a step sees what comes after it, so that it cannot be computed alone.
        """
        if not self.causal:
            raise ValueError(f"{self.name} sees what comes after a step: it has no step of its own")
        if self.rotary:
            self.turn.step_shapes(length)
        shape = (self.heads, length, self._head_width)
        return {"key": shape, "value": shape}

    def step(
        self, x: Any, states: dict[str, Any], position: Any
    ) -> tuple[tuple[Any, Any], dict[str, Any]]:
        """Attends from one step of a sequence to itself and to the steps before it.

        Args:
            x: Features of that step, (B, 1, D).
            states: ``key`` and ``value``, (B, heads, L, head width): what earlier steps left.
            position: Which step it is, counted from 0, (B,) int32; below L.

        Returns:
            The output (B, 1, width) and the weights (B, heads, 1, L); and the states for the next
            step.

        Example:
            >>> import numpy as np
            >>> layer = MultiHeadAttention(heads=2, causal=True)
            >>> x = np.random.default_rng(0).normal(size=(1, 2, 4)).astype("float32")
            >>> whole, _ = layer(x)
            >>> states = {"key": np.zeros((1, 2, 8, 2)), "value": np.zeros((1, 2, 8, 2))}
            >>> _, states = layer.step(x[:, :1], states, np.array([0]))
            >>> (last, _), states = layer.step(x[:, 1:], states, np.array([1]))
            >>> np.allclose(last[:, 0], whole[:, 1], atol=1e-6)
            True
        """
        q, k, v = ops.split(self.fused_projection(x), 3, axis=-1)
        q, k, v = self._split(q), self._split(k), self._split(v)  # (B, H, 1, head width)
        if self.rotary:
            (q, _), (k, _) = (self.turn.step(part, {}, position) for part in (q, k))
        place = ops.arange(states["key"].shape[2], dtype="int32")[None, None, :, None]  # (1,1,L,1)
        position = ops.cast(position, "int32")[:, None, None, None]
        # A choice, not an update in place: it takes another position for each row, and converts.
        here = ops.equal(place, position)
        keys = ops.where(here, k, ops.cast(states["key"], k.dtype))
        values = ops.where(here, v, ops.cast(states["value"], v.dtype))
        q = q * (self._head_width**-0.5)
        scores = ops.matmul(q, ops.transpose(keys, (0, 1, 3, 2)))  # (B, H, 1, L)
        seen = ops.transpose(ops.less_equal(place, position), (0, 1, 3, 2))
        weights = ops.cast(masked_softmax(scores, seen), v.dtype)
        mixed = self._combine(ops.matmul(weights, values))
        return (mixed, weights), {"key": keys, "value": values}

    def _combine(self, mixed: Any) -> Any:
        """(B, H, T, head width) -> (B, T, W), projected."""
        mixed = ops.transpose(mixed, (0, 2, 1, 3))  # (B, T, H, head width)
        mixed = ops.reshape(mixed, (-1, ops.shape(mixed)[1], self.heads * self._head_width))
        return self.output_projection(mixed)

    def _split(self, x: Any) -> Any:
        """(B, T, W) -> (B, H, T, W / H)."""
        x = ops.reshape(x, (-1, ops.shape(x)[1], self.heads, self._head_width))
        return ops.transpose(x, (0, 2, 1, 3))

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask: it belongs to the memory, not to the output."""
        return None

    def compute_output_shape(
        self, query_shape: Shape, memory_shape: Shape | None = None
    ) -> tuple[Shape, Shape]:
        """Returns the shapes of the output and of the weights."""
        batch, steps = query_shape[:2]
        memory_steps = steps if memory_shape is None else memory_shape[1]
        width = self.width or query_shape[-1]
        return (batch, steps, width), (batch, self.heads, steps, memory_steps)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "width": self.width,
            "dropout": self.dropout,
            "causal": self.causal,
            "rotary": self.rotary,
            "max_length": self.max_length,
        }
