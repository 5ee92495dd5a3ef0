"""Attention: additive (Bahdanau) and multi-head (scaled dot product), with the weights returned."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seq.layers.attention_weights import (
    head_scores,
    head_values,
    masked_softmax,
    visible,
)
from keras_seq.layers.dot_product import dot_product_attention
from keras_seq.layers.dropout import Dropout
from keras_seq.layers.masking import zero_masked
from keras_seq.layers.positions import RotaryPositions
from keras_seq.layers.relative_bias import AlibiBias, RelativeBias, alibi_slopes, shared_at
from keras_seq.layers.steps import update, write_at

Shape = tuple[Any, ...]


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


BIASES = {"relative": RelativeBias, "alibi": AlibiBias}


def check_attention(heads: int, kv_heads: int | None = None, bias: str | None = None) -> None:
    """Refuses options of multi-head attention that do not go together, and says which do.

    Args:
        heads: Number of heads of the queries.
        kv_heads: Number of heads of the keys and the values; None: as many.
        bias: ``"relative"``, ``"alibi"`` or None.

    Raises:
        ValueError: If there is no head, the heads cannot be shared out, or the bias is unknown.

    Example:
        >>> check_attention(6, 4)
        Traceback (most recent call last):
        ...
        ValueError: 6 heads cannot share 4 heads of keys and values: give kv_heads 1, 2, 3 or 6
    """
    if heads < 1:
        raise ValueError(f"heads is {heads}: give at least 1")
    if kv_heads is not None and (kv_heads < 1 or heads % kv_heads):
        *most, last = (str(n) for n in range(1, heads + 1) if heads % n == 0)
        raise ValueError(
            f"{heads} heads cannot share {kv_heads} heads of keys and values: give kv_heads "
            f"{', '.join(most)}{' or ' if most else ''}{last}"
        )
    if bias is not None and bias not in BIASES:
        raise ValueError(f"bias is {bias!r}: give 'relative', 'alibi' or None")


def joint_projection(
    name: str, shape: Shape, width: int, parts: int, policy: Any, use_bias: bool = True
) -> Any:
    """Makes one dense layer for several projections of the same features.

    Args:
        name: Of the layer.
        shape: Shape of the features, (..., D).
        width: Units of each projection.
        parts: Number of projections.
        policy: The layer's dtype policy.
        use_bias: Whether it has a bias.

    Returns:
        A built `keras.layers.Dense` with `parts` times `width` units.

    Example:
        >>> joint_projection("key_value", (None, None, 3), 4, 2, "float32").units
        8
    """
    # Parts share a kernel, and each is to start with the spread that it would have alone:
    # Glorot's variance is 2 / (inputs + outputs of one part).
    inputs = shape[-1]
    scale = (inputs + parts * width) / (inputs + width)
    start = keras.initializers.VarianceScaling(scale, "fan_avg", "uniform")
    layer = keras.layers.Dense(
        parts * width, use_bias=use_bias, kernel_initializer=start, dtype=policy, name=name
    )
    layer.build(shape)
    return layer


def split_heads(x: Any, heads: int) -> Any:
    """Gives each head its part of the features: (B, T, W) to (B, heads, T, W / heads).

    Args:
        x: (B, T, W), W divisible by `heads`.
        heads: Number of heads.

    Returns:
        (B, heads, T, W / heads).

    Example:
        >>> import numpy as np
        >>> np.asarray(split_heads(np.array([[[1, 2, 3, 4]]]), 2)).tolist()
        [[[[1, 2]], [[3, 4]]]]
    """
    x = ops.reshape(x, (-1, ops.shape(x)[1], heads, x.shape[-1] // heads))
    return ops.transpose(x, (0, 2, 1, 3))


def join_heads(x: Any) -> Any:
    """Puts the heads' features side by side: (B, heads, T, W / heads) to (B, T, W).

    Args:
        x: (B, heads, T, head width).

    Returns:
        (B, T, heads * head width).

    Example:
        >>> import numpy as np
        >>> np.asarray(join_heads(np.array([[[[1, 2]], [[3, 4]]]]))).tolist()
        [[[1, 2, 3, 4]]]
    """
    x = ops.transpose(x, (0, 2, 1, 3))  # (B, T, heads, head width)
    return ops.reshape(x, (-1, ops.shape(x)[1], x.shape[2] * x.shape[3]))


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
        valid = visible(mask, ops.shape(query)[1], ops.shape(memory)[1], causal=self.causal)
        if valid is not None:
            valid = ops.squeeze(valid, 1)
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
        kv_heads: Heads of the keys and the values, each shared by as many neighbouring heads of
            the queries (grouped-query attention): less to remember at a step; None: as `heads`.
        bias: What is added to the scores for the distance of two steps: ``"relative"``, a
            `RelativeBias`; ``"alibi"``, an `AlibiBias`; or None.
        qk_norm: Whether each head's queries and keys are brought to one length, times a learned
            scale (RMS normalisation): keeps the scores in bounds. Default False.
        use_bias: Whether the projections add a learned vector. Default True.
        method: ``"auto"``, ``"plain"`` or ``"blockwise"``, see `dot_product_attention`: long
            sequences in a graph are computed by tiles where nobody reads the weights. Default
            ``"auto"``.
        **kwargs: As for every Keras layer.

    Call arguments:
        query: (B, T, D).
        memory: (B, S, Dm), what is attended to; None: the query itself.
        mask: (B, S) bool, True at real steps of the memory, or (B, T, S); None: all.
        distances: (2 M + 1, heads), what is added to the scores for the distance of two steps,
            from a `RelativeBiasTable` that several layers share; not beside `bias`. None: nothing.

    Returns:
        The output (B, T, width) and the weights (B, heads, T, S), before dropout. A step that sees
        nothing gets zero weights.

    Raises:
        ValueError: If the width is not divisible by the heads, the heads not by `kv_heads`, `bias`
            or `method` is unknown, or two biases are given.

    Example:
        >>> import numpy as np
        >>> layer = MultiHeadAttention(heads=2, causal=True)
        >>> output, weights = layer(np.ones((1, 3, 4), "float32"))
        >>> np.asarray(weights)[0, 0].round(2)
        array([[1.  , 0.  , 0.  ],
               [0.5 , 0.5 , 0.  ],
               [0.33, 0.33, 0.33]], dtype=float32)

    Reference:
        Vaswani et al. 2017, Attention Is All You Need; Ainslie et al. 2023, GQA: Training
        Generalized Multi-Query Transformer Models from Multi-Head Checkpoints; Henry et al. 2020,
        Query-Key Normalization for Transformers.
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
        kv_heads: int | None = None,
        bias: str | None = None,
        qk_norm: bool = False,
        use_bias: bool = True,
        method: str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_attention(heads, kv_heads, bias)
        if method not in self.methods:
            known = ", ".join(map(repr, self.methods))
            raise ValueError(f"method is {method!r}: give one of {known}")
        self.heads = heads
        self.width = width
        self.dropout = dropout
        self.causal = causal
        self.rotary = rotary
        self.max_length = max_length
        self.kv_heads = kv_heads
        self.bias = bias
        self.qk_norm = qk_norm
        self.use_bias = use_bias
        self.method = method
        self.supports_masking = True

    def build(self, query_shape: Shape, memory_shape: Shape | None = None) -> None:
        """Makes the projections."""
        width = self.width or query_shape[-1]
        check_heads(width, self.heads, even=self.rotary)
        self._head_width = width // self.heads
        self._memory_heads = self.kv_heads or self.heads
        if memory_shape is None and self._memory_heads == self.heads:
            self.query_projection: Any = None
            self.fused_projection = self._dense("query_key_value", query_shape, width, 3)
        else:
            memory_width = self._memory_heads * self._head_width
            memory_shape = memory_shape or query_shape
            self.query_projection = self._dense("query", query_shape, width, 1)
            self.fused_projection = self._dense("key_value", memory_shape, memory_width, 2)
        self.output_projection = self._dense("combine", (*query_shape[:-1], width), width, 1)
        self.dropout_layer = Dropout(self.dropout, dtype=self.dtype_policy)
        if self.rotary:
            self.turn = RotaryPositions(self.max_length, dtype=self.dtype_policy, name="turn")
            self.turn.build((query_shape[0], self.heads, query_shape[1], self._head_width))
        if self.bias is not None:
            self.distance_bias = BIASES[self.bias](
                self.heads, causal=self.causal, dtype=self.dtype_policy, name="distance_bias"
            )
            self.distance_bias.build()
        if self.qk_norm:
            self.query_norm, self.key_norm = (
                keras.layers.RMSNormalization(dtype=self.dtype_policy, name=name)
                for name in ("query_norm", "key_norm")
            )
            self.query_norm.build((None, self.heads, None, self._head_width))
            self.key_norm.build((None, self._memory_heads, None, self._head_width))

    def _dense(self, name: str, shape: Shape, width: int, parts: int) -> keras.layers.Dense:
        return joint_projection(name, shape, width, parts, self.dtype_policy, self.use_bias)

    def _project(self, query: Any, memory: Any) -> tuple[Any, Any, Any]:
        """(B, heads, T, head width), and twice (B, kv_heads, S, head width)."""
        if self.query_projection is None:
            q, k, v = ops.split(self.fused_projection(query), 3, axis=-1)
        else:
            q = self.query_projection(query)
            k, v = ops.split(self.fused_projection(memory), 2, axis=-1)
        q, k, v = (
            split_heads(q, self.heads),
            split_heads(k, self._memory_heads),
            split_heads(v, self._memory_heads),
        )
        if self.qk_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        return q, k, v

    def call(
        self,
        query: Any,
        memory: Any = None,
        mask: Any = None,
        training: bool | None = None,
        distances: Any = None,
    ) -> tuple[Any, Any]:
        """Attends."""
        steps = query if memory is None else memory
        if mask is not None and len(mask.shape) == 2:
            steps = zero_masked(steps, mask)
        q, k, v = self._project(steps if memory is None else query, steps)
        if self.rotary:
            q, k = self.turn(q), self.turn(k)
        mixed, weights = dot_product_attention(
            q,
            k,
            v,
            mask=mask,
            causal=self.causal,
            bias=self._bias_by_distance(distances),
            dropout=self.dropout,
            seed=self.dropout_layer.seed_generator if self.dropout else None,
            method=self.method,
            training=training,
            return_weights=True,
        )
        return self._combine(mixed), weights

    def _bias_by_distance(self, distances: Any) -> Any:
        """A table by distance, slopes, or None."""
        if distances is None:
            if self.bias is None:
                return None
            if self.bias == "alibi":
                return ops.convert_to_tensor(alibi_slopes(self.heads))
            return self.distance_bias.by_distance()
        if self.bias is not None:
            raise ValueError(
                f"{self.name} has bias={self.bias!r} and was given distances: take one of them"
            )
        return distances

    methods = ("auto", "plain", "blockwise")
    hypotheses = True  # of a search: a step takes (B, K, D)
    slides = True  # over a stream without an end, see `keras_seq.layers.steps.UPDATES`

    def step_shapes(self, length: int, hypotheses: int = 1) -> dict[str, Shape]:
        """Tells what one step has to remember: the keys and the values of the steps before it.

        Args:
            length: Most steps that can be remembered.
            hypotheses: How many a search follows, K; they stand side by side.

        Returns:
            ``key`` and ``value``, each (kv heads, length, K * head width), without the batch.

        Raises:
            ValueError: If a step sees what comes after it, so that it cannot be computed alone.
        """
        if not self.causal:
            raise ValueError(f"{self.name} sees what comes after a step: it has no step of its own")
        if self.rotary:
            self.turn.step_shapes(length)
        shape = (self._memory_heads, length, hypotheses * self._head_width)
        return {"key": shape, "value": shape}

    def step(
        self,
        x: Any,
        states: dict[str, Any],
        position: Any,
        ancestry: Any = None,
        distances: Any = None,
    ) -> tuple[tuple[Any, Any], dict[str, Any]]:
        """Attends from one step of a sequence to itself and to the steps before it.

        Args:
            x: Features of that step, (B, 1, D); of K hypotheses of a search, (B, K, D).
            states: ``key`` and ``value``, (B, kv heads, L, K * head width): what earlier steps
                left.
            position: Which step it is, counted from 0, (B,) int32; below L, but for a stream
                (``"window"`` of `keras_seq.layers.steps.UPDATES`), which sees the last L steps.
            ancestry: (B, K, L) int32, which hypothesis wrote what hypothesis k sees at each
                position: k itself at this one; None where there is only one.
            distances: (2 M + 1, heads), as in the call.

        Returns:
            The output (B, K, width) and the weights (B, heads, K, K L), the entries of all
            hypotheses at a position beside each other; and the states for the next step.

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
        if update() == "window":
            return self._step_in_window(x, states, position, distances)
        q, k, v = self._project(x, x)  # (B, H, K, head width)
        if self.rotary:
            (q, _), (k, _) = (self.turn.step(part, {}, position) for part in (q, k))
        count, length = x.shape[1], states["key"].shape[2]
        place = ops.arange(length, dtype="int32")[None, None, :, None]  # (1, 1, L, 1)
        position = ops.cast(position, "int32")[:, None, None, None]

        def remember(state: Any, new: Any) -> tuple[Any, Any]:
            new = ops.reshape(new, (-1, self._memory_heads, 1, count * self._head_width))
            state = write_at(ops.cast(state, new.dtype), new, position[:, 0, 0, 0])
            wide = (-1, self._memory_heads, length * count, self._head_width)
            return state, ops.reshape(state, wide)

        key, keys = remember(states["key"], k)
        value, values = remember(states["value"], v)
        q = q * (self._head_width**-0.5)
        scores = head_scores(q, keys)  # (B, H, K, L K)
        if self.bias is not None:
            bias = self.distance_bias.at(position[:, 0, 0, 0], length)  # (B, H, 1, L)
            scores = ops.cast(scores, "float32") + ops.repeat(bias, count, axis=-1)
        if distances is not None:
            bias = shared_at(distances, position[:, 0, 0, 0], length)
            scores = ops.cast(scores, "float32") + ops.repeat(bias, count, axis=-1)
        seen = ops.transpose(ops.less_equal(place, position), (0, 1, 3, 2))  # (B, 1, 1, L)
        if count > 1:
            if ancestry is None:
                raise ValueError(f"{self.name} follows {count} hypotheses: give their ancestry")
            writer = ops.arange(count, dtype=ancestry.dtype)
            own = ops.equal(ancestry[..., None], writer)  # (B, K, L, K)
            seen = ops.logical_and(own, ops.transpose(seen, (0, 2, 3, 1)))
            seen = ops.reshape(seen, (-1, 1, count, length * count))
        weights = ops.cast(masked_softmax(scores, seen), v.dtype)
        mixed = self._combine(head_values(weights, values))
        return (mixed, weights), {"key": key, "value": value}

    def _step_in_window(
        self, x: Any, states: dict[str, Any], position: Any, distances: Any
    ) -> tuple[tuple[Any, Any], dict[str, Any]]:
        """Attends from one step to itself and to the L - 1 steps before it, in a stream.

        The latest entry of a state is its last one. Keys are remembered as they are before they
        are turned: as long as no step has fallen out they are turned by where they stand in the
        sequence, to the very numbers of the whole, and later by where they stand in the window,
        which gives the same scores and never leaves the table of turns.
        """
        if x.shape[1] != 1:
            raise ValueError(f"{self.name} got {x.shape[1]} steps: a stream goes on one at a time")
        q, k, v = self._project(x, x)  # (B, H, 1, head width)
        length = states["key"].shape[2]

        def remember(state: Any, new: Any) -> Any:
            if length == 1:
                return new
            return ops.concatenate([ops.cast(state, new.dtype)[:, :, 1:], new], axis=2)

        key, value = remember(states["key"], k), remember(states["value"], v)
        here = ops.minimum(ops.cast(position, "int32"), length - 1)  # (B,)
        # (B, L): where each entry stands; below 0 there is none yet.
        place = ops.expand_dims(here, 1) + ops.arange(1 - length, 1, dtype="int32")
        keys = key
        if self.rotary:
            q, _ = self.turn.step(q, {}, here)
            keys = self.turn.at(key, ops.maximum(place, 0))
        q = q * (self._head_width**-0.5)
        scores = head_scores(q, keys)  # (B, H, 1, L)
        last = np.array([length - 1], "int32")
        if self.bias is not None:
            scores = ops.cast(scores, "float32") + self.distance_bias.at(last, length)
        if distances is not None:
            scores = ops.cast(scores, "float32") + shared_at(distances, last, length)
        seen = ops.greater_equal(place, 0)[:, None, None, :]
        weights = ops.cast(masked_softmax(scores, seen), v.dtype)
        mixed = self._combine(head_values(weights, value))
        return (mixed, weights), {"key": key, "value": value}

    def _combine(self, mixed: Any) -> Any:
        """(B, H, T, head width) -> (B, T, W), projected."""
        return self.output_projection(join_heads(mixed))

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
            "kv_heads": self.kv_heads,
            "bias": self.bias,
            "qk_norm": self.qk_norm,
            "use_bias": self.use_bias,
            "method": self.method,
        }
