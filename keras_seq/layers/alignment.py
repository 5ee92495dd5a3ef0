"""Alignment: how much each target step attends to each source step (Bahdanau, Luong, See)."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_seq.layers.attention_weights import masked_softmax
from keras_seq.layers.masking import zero_masked

Shape = tuple[Any, ...]

# Scores by a hidden layer over query and key; only they have a place for the coverage.
ADDITIVE = ("bahdanau", "luong_concat")
# Scores whose keys are a projection of the memory.
PROJECTED = ("bahdanau", "luong_general", "luong_concat", "scaled_dot")
SCORES = (*PROJECTED, "dot", "location")


def check_score(score: str) -> None:
    """Refuses an unknown score.

    Args:
        score: Name of the score.

    Raises:
        ValueError: If it is unknown.

    Example:
        >>> check_score("cosine")
        Traceback (most recent call last):
        ...
        ValueError: score is 'cosine': give one of bahdanau, dot, location, luong_concat, \
luong_general, scaled_dot
    """
    if score not in SCORES:
        raise ValueError(f"score is {score!r}: give one of {', '.join(sorted(SCORES))}")


@keras.saving.register_keras_serializable(package="keras_seq")
class AlignmentKeys(keras.layers.Layer):
    """The part of an alignment's score that depends on the memory alone, computed once.

    Args:
        units: Width of the keys, U. With ``"luong_general"`` it is the query's width. ``"dot"`` and
            ``"location"`` do not use it: their keys are the memory.
        score: As in `Alignment`. Default ``"bahdanau"``.
        **kwargs: As for every Keras layer.

    Call arguments:
        memory: (B, S, Dm), what is attended to.
        mask: (B, S) bool, True at real memory steps, or None.

    Returns:
        The keys, (B, S, U); (B, S, Dm) with ``"dot"`` and ``"location"``.

    Raises:
        ValueError: If the score is unknown, or `units` is below 1.

    Example:
        >>> import numpy as np
        >>> AlignmentKeys(4)(np.ones((1, 3, 2), "float32")).shape
        TensorShape([1, 3, 4])

    Reference:
        Bahdanau, Cho and Bengio 2015, Neural Machine Translation by Jointly Learning to Align and
        Translate (A.1.2: U h does not depend on the target step).
    """

    # Decoding computes what comes before and in this layer once for a source.
    once = ("output",)

    def __init__(self, units: int, *, score: str = "bahdanau", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_score(score)
        if units < 1:
            raise ValueError(f"units is {units}: give at least 1")
        self.units = units
        self.score = score
        self.supports_masking = True

    def build(self, memory_shape: Shape) -> None:
        """Makes the projection."""
        if self.score in PROJECTED:
            self.projection = keras.layers.Dense(
                self.units,
                use_bias=self.score == "bahdanau",
                dtype=self.dtype_policy,
                name="projection",
            )
            self.projection.build(memory_shape)

    def call(self, memory: Any, mask: Any = None) -> Any:
        """Projects the memory."""
        memory = zero_masked(memory, mask)
        return self.projection(memory) if self.score in PROJECTED else memory

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask: it is handed over to the alignment by hand."""
        return None

    def compute_output_shape(self, memory_shape: Shape) -> Shape:
        """Returns the shape of the keys."""
        width = self.units if self.score in PROJECTED else memory_shape[-1]
        return (*memory_shape[:-1], width)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "units": self.units, "score": self.score}


class Prepared(NamedTuple):
    """A memory that is ready to be attended to: all that is the same for every query.

    Args:
        keys: (B, S, U), zeros at masked steps.
        memory: (B, S, Dm), zeros at masked steps.
        valid: (B, 1, S) bool, or None: all.
        places: (1, 1, S) float32, the steps counted from 0.
        length: (B or 1, 1, 1) float32, how many steps up to the last real one.

    Example:
        >>> import numpy as np
        >>> memory = np.ones((1, 3, 2), "float32")
        >>> mask = np.array([[True, True, False]])
        >>> float(Alignment("dot").prepare(memory, memory, mask).length[0, 0, 0])
        2.0
    """

    keys: Any
    memory: Any
    valid: Any
    places: Any
    length: Any


@keras.saving.register_keras_serializable(package="keras_seq")
class Alignment(keras.layers.Layer):
    """Attention from target steps to source steps, by the scores of Bahdanau and Luong.

    With query q and key k, which `AlignmentKeys` makes of a memory step m:

    | score | is | keys |
    |---|---|---|
    | ``"bahdanau"`` | v . tanh(W q + k) | U m + b |
    | ``"luong_concat"`` | v . tanh(W [q; m]), written as above | U m |
    | ``"luong_general"`` | q . k | W m, as wide as q |
    | ``"dot"`` | q . m, of one width | m |
    | ``"scaled_dot"`` | W q . k / sqrt(U) | W' m |
    | ``"location"`` | (W q) at the step's place: it does not look at the memory | m, not used |

    The additive scores (the first two) hold (B, T, S, U) numbers at once.

    Args:
        score: See the table. Default ``"bahdanau"``.
        window: Luong's local attention: only steps up to so many before and after the centre are
            seen. None: all of them.
        predictive: Where the centre of the window is. False (local-m): at the target step's own
            place, or the last source step if the source is shorter. True (local-p): the query
            predicts it, S sigmoid(v . tanh(W q)), and a Gaussian of standard deviation window / 2
            around it scales the weights. Default False.
        coverage: Whether the score, which must be an additive one, knows how much each memory step
            was attended to before. Default False.
        max_length: Of ``"location"``: how many places it knows, in steps; later ones get no
            weight. Default 256.
        **kwargs: As for every Keras layer.

    Call arguments:
        query: (B, T, Dq). In decoding step by step the T are hypotheses at one position.
        keys: (B, S, U), from `AlignmentKeys` with the same score.
        memory: (B, S, Dm), what is averaged.
        mask: (B, S) bool, True at real memory steps, or None: all.
        coverage: (B, T, S), the sum of the weights of earlier target steps; None: there were none.
        position: (B,) int32, which target step the queries stand at, counted from 0, all T at the
            same; None: at 0, 1, ... T - 1.

    Returns:
        The context (B, T, Dm) and the weights (B, T, S). Masked steps get no weight; a query that
        sees nothing gets zeros for both.

    Raises:
        ValueError: If the score is unknown, options contradict each other, or query and keys do
            not fit together.

    Example:
        >>> import numpy as np
        >>> memory = np.array([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]], "float32")
        >>> query = np.array([[[0.0, np.log(3.0)]]], "float32")
        >>> mask = np.array([[True, True, False]])
        >>> context, weights = Alignment("dot")(query, memory, memory, mask=mask)
        >>> np.asarray(weights).round(2).tolist()
        [[[0.25, 0.75, 0.0]]]
        >>> keys = AlignmentKeys(4)(memory, mask=mask)
        >>> context, weights = Alignment()(query, keys, memory, mask=mask)
        >>> context.shape, float(weights[0, 0, 2])
        (TensorShape([1, 1, 2]), 0.0)

    Reference:
        Bahdanau, Cho and Bengio 2015, Neural Machine Translation by Jointly Learning to Align and
        Translate; Luong, Pham and Manning 2015, Effective Approaches to Attention-based Neural
        Machine Translation; See, Liu and Manning 2017, Get To The Point (coverage); Vaswani et al.
        2017, Attention Is All You Need (scaled_dot).
    """

    def __init__(
        self,
        score: str = "bahdanau",
        *,
        window: int | None = None,
        predictive: bool = False,
        coverage: bool = False,
        max_length: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_score(score)
        if window is not None and window < 1:
            raise ValueError(f"window is {window}: give at least 1 step, or None for all of them")
        if predictive and window is None:
            raise ValueError("predictive says where a window is: give window, in steps, as well")
        if coverage and score not in ADDITIVE:
            raise ValueError(
                f"the score {score!r} has no place for coverage: take one of {', '.join(ADDITIVE)}"
            )
        self.score = score
        self.window = window
        self.predictive = predictive
        self.coverage = coverage
        self.max_length = max_length
        self.supports_masking = True

    def build(self, query_shape: Shape, keys_shape: Shape, memory_shape: Shape) -> None:
        """Makes what the score and the window need."""
        width, units = query_shape[-1], keys_shape[-1]
        if self.score in ("dot", "luong_general") and width != units:
            mend = (
                "take the score 'luong_general'"
                if self.score == "dot"
                else f"give AlignmentKeys {width} units"
            )
            raise ValueError(
                f"{self.name} multiplies a query by a key, and the query has {width} features, the "
                f"key {units}: {mend}"
            )
        if self.score in (*ADDITIVE, "scaled_dot"):
            self.query_projection = self._dense(units, "query_projection", query_shape)
        if self.score == "location":
            self.locate = self._dense(self.max_length, "locate", query_shape)
        if self.score in ADDITIVE:
            self.vector = self._vector(units, "vector")
        if self.coverage:
            self.coverage_vector = self._vector(units, "coverage_vector")
        if self.predictive:
            self.centre_projection = self._dense(width, "centre_projection", query_shape)
            self.centre_vector = self._vector(width, "centre_vector")

    def _dense(self, units: int, name: str, shape: Shape) -> keras.layers.Dense:
        layer = keras.layers.Dense(units, use_bias=False, dtype=self.dtype_policy, name=name)
        layer.build(shape)
        return layer

    def _vector(self, units: int, name: str) -> Any:
        return self.add_weight(shape=(units,), initializer="glorot_uniform", name=name)

    def call(
        self,
        query: Any,
        keys: Any,
        memory: Any,
        mask: Any = None,
        coverage: Any = None,
        position: Any = None,
        training: bool | None = None,
    ) -> tuple[Any, Any]:
        """Attends."""
        prepared = self.prepare(keys, memory, mask)
        return self.attend(query, prepared, coverage, position, training)

    def prepare(self, keys: Any, memory: Any, mask: Any = None) -> Prepared:
        """Computes what is the same for every query, once before a loop over them.

        Args:
            keys: (B, S, U).
            memory: (B, S, Dm).
            mask: (B, S) bool, True at real memory steps, or None: all.

        Returns:
            What `attend` takes.
        """
        places = ops.cast(ops.arange(ops.shape(keys)[1]), "float32")[None, None]  # (1, 1, S)
        if mask is None:
            return Prepared(keys, memory, None, places, places[..., -1:] + 1)
        valid = ops.cast(mask, "bool")[:, None]  # (B, 1, S)
        ends = ops.where(valid, places + 1, ops.zeros_like(places))
        length = ops.max(ends, axis=-1, keepdims=True)
        return Prepared(zero_masked(keys, mask), zero_masked(memory, mask), valid, places, length)

    def attend(
        self,
        query: Any,
        prepared: Prepared,
        coverage: Any = None,
        position: Any = None,
        training: bool | None = None,
    ) -> tuple[Any, Any]:
        """Scores every pair, and averages the memory by the scores.

        Args:
            query: (B, T, Dq).
            prepared: From `prepare`.
            coverage: (B, T, S), or None.
            position: (B,) or (1,) int32, or None.
            training: Whether this is training; None: no.

        Returns:
            The context (B, T, Dm) and the weights (B, T, S).
        """
        valid = prepared.valid
        scores = self._scores(query, prepared, coverage)
        if self.score == "location":
            valid = _both(valid, prepared.places < self.max_length)
        scale: Any = None
        if self.window is not None:
            away = prepared.places - self._centre(query, prepared.length, position)  # (B, T, S)
            valid = _both(valid, ops.abs(away) <= self.window)
            if self.predictive:
                scale = ops.exp(-ops.square(away / (self.window / 2)) / 2)
        weights = masked_softmax(scores, valid, training=training)
        weights = weights if scale is None else weights * scale
        weights = ops.cast(weights, prepared.memory.dtype)
        return ops.matmul(weights, prepared.memory), weights

    def _scores(self, query: Any, prepared: Prepared, coverage: Any) -> Any:
        """(B, T, S)."""
        keys = prepared.keys
        if self.score == "location":
            # Places that it does not know take the last one's score, and are masked afterwards.
            places = ops.minimum(ops.arange(ops.shape(keys)[1]), self.max_length - 1)
            return ops.take(self.locate(query), places, axis=-1)
        if self.score in ADDITIVE:
            hidden = self.query_projection(query)[:, :, None] + keys[:, None]  # (B, T, S, U)
            if self.coverage and coverage is not None:
                vector = ops.cast(self.coverage_vector, hidden.dtype)
                # An axis put in by a slice does not convert where batch and source are open.
                seen = ops.expand_dims(ops.cast(coverage, hidden.dtype), -1)
                hidden = hidden + seen * vector
            return ops.matmul(ops.tanh(hidden), ops.cast(self.vector, hidden.dtype))
        if self.score == "scaled_dot":
            # Scaled before the product, so that float16 does not overflow in it.
            query = self.query_projection(query) * (keys.shape[-1] ** -0.5)
        return ops.matmul(query, ops.transpose(keys, (0, 2, 1)))

    def _centre(self, query: Any, length: Any, position: Any) -> Any:
        """The middle of each query's window, (B or 1, T, 1) float32."""
        if self.predictive:
            h = ops.tanh(self.centre_projection(query))
            h = ops.matmul(h, ops.cast(self.centre_vector, h.dtype))[..., None]
            return length * ops.sigmoid(ops.cast(h, "float32"))
        if position is None:
            position = ops.arange(ops.shape(query)[1])[None, :, None]  # (1, T, 1)
        else:
            position = ops.reshape(position, (-1, 1, 1))
        return ops.minimum(ops.cast(position, "float32"), length - 1)

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask: it belongs to the memory, not to the output."""
        return None

    def compute_output_shape(
        self, query_shape: Shape, keys_shape: Shape, memory_shape: Shape
    ) -> tuple[Shape, Shape]:
        """Returns the shapes of the context and of the weights."""
        batch, steps = query_shape[:2]
        return (batch, steps, memory_shape[-1]), (batch, steps, memory_shape[1])

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "score": self.score,
            "window": self.window,
            "predictive": self.predictive,
            "coverage": self.coverage,
            "max_length": self.max_length,
        }


def _both(valid: Any, more: Any) -> Any:
    return more if valid is None else ops.logical_and(valid, more)


def coverage_loss(weights: Any, mask: Any = None) -> Any:
    """How much target steps attend again to what was attended to before: See et al.'s loss.

    Args:
        weights: (B, T, S), the weights of an alignment.
        mask: (B, T) bool, True at real target steps, or None: all.

    Returns:
        A float32 number: the sum over the source of min(weight, sum of the earlier weights),
        averaged over the real target steps; 0 if no step is attended to twice.

    Example:
        >>> import numpy as np
        >>> twice = np.array([[[1.0, 0.0], [1.0, 0.0]]])
        >>> float(coverage_loss(twice)), float(coverage_loss(np.eye(2)[None]))
        (0.5, 0.0)

    Reference:
        See, Liu and Manning 2017, Get To The Point: Summarization with Pointer-Generator Networks.
    """
    weights = ops.cast(weights, "float32")
    before = ops.cumsum(weights, axis=1) - weights
    again = ops.sum(ops.minimum(weights, before), axis=-1)  # (B, T)
    if mask is None:
        return ops.mean(again)
    mask = ops.cast(mask, "bool")
    count = ops.sum(ops.cast(mask, "float32"))
    total = ops.sum(ops.where(mask, again, ops.zeros_like(again)))
    return total / ops.maximum(count, 1.0)
