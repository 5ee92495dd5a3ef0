"""One vector from a sequence, under a mask."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers.attention_weights import masked_softmax
from keras_seq.layers.masking import zero_masked

Shape = tuple[Any, ...]
METHODS = ("last", "first", "mean", "max", "attention")


@keras.saving.register_keras_serializable(package="keras_seq")
class Pooling(keras.layers.Layer):
    """Reduces the real steps of a sequence to one vector.

    Args:
        method: ``"last"`` the last real step (wherever the padding stands), ``"first"`` the first
            one, ``"mean"``, ``"max"``, or ``"attention"`` an average weighted by a learned score
            of each step.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, W).
        mask: (B, T) bool, True at real steps; None: all.

    Returns:
        (B, W); zeros for a sequence without a real step.

    Raises:
        ValueError: If the method is unknown.

    Example:
        >>> import numpy as np
        >>> x = np.array([[[1.0], [2.0], [9.0]]], "float32")
        >>> mask = np.array([[True, True, False]])
        >>> [float(Pooling(method)(x, mask=mask)[0, 0]) for method in ("last", "mean", "max")]
        [2.0, 1.5, 2.0]

    Reference:
        The attention method: Lin et al. 2017, A Structured Self-Attentive Sentence Embedding, with
        one row.
    """

    def __init__(self, method: str = "last", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if method not in METHODS:
            raise ValueError(f"pooling is {method!r}: give one of {', '.join(METHODS)}")
        self.method = method
        self.supports_masking = True

    def build(self, x_shape: Shape) -> None:
        """Makes the scoring layers of the attention method."""
        self._width = x_shape[-1]
        if self.method == "attention":
            width = x_shape[-1]
            policy = {"dtype": self.dtype_policy}
            self.hidden = keras.layers.Dense(width, activation="tanh", name="hidden", **policy)
            self.score = keras.layers.Dense(1, use_bias=False, name="score", **policy)
            self.hidden.build(x_shape)
            self.score.build(x_shape)

    def call(self, x: Any, mask: Any = None) -> Any:
        """Pools the real steps."""
        if mask is not None:
            mask = ops.cast(mask, "bool")
            x = zero_masked(x, mask)
        return getattr(self, f"_{self.method}")(x, mask)

    def _last(self, x: Any, mask: Any) -> Any:
        if mask is None:
            return x[:, -1]
        position = ops.arange(ops.shape(x)[1])[None]  # (1, T)
        last = ops.max(ops.where(mask, position, -1), axis=1, keepdims=True)  # (B, 1)
        # A sum over one step that is kept: no gather, so it runs on every device.
        return ops.sum(zero_masked(x, position == last), axis=1)

    def _first(self, x: Any, mask: Any) -> Any:
        if mask is None:
            return x[:, 0]
        count = ops.shape(x)[1]
        position = ops.arange(count)[None]  # (1, T)
        first = ops.min(ops.where(mask, position, count), axis=1, keepdims=True)  # (B, 1)
        return ops.sum(zero_masked(x, position == first), axis=1)

    def _mean(self, x: Any, mask: Any) -> Any:
        wide = ops.cast(x, "float32")  # a float16 sum of many steps would overflow
        if mask is None:
            return ops.cast(ops.mean(wide, axis=1), x.dtype)
        count = ops.sum(ops.cast(mask, "float32"), axis=1, keepdims=True)  # (B, 1)
        return ops.cast(ops.sum(wide, axis=1) / ops.maximum(count, 1.0), x.dtype)

    def _max(self, x: Any, mask: Any) -> Any:
        if mask is None:
            return ops.max(x, axis=1)
        # The lowest value of the channel cannot win against a real step, and stretches no range.
        lowest = ops.stop_gradient(ops.min(x, axis=1, keepdims=True))
        return ops.max(ops.where(mask[..., None], x, lowest), axis=1)

    def _attention(self, x: Any, mask: Any) -> Any:
        scores = ops.squeeze(self.score(self.hidden(x)), -1)  # (B, T)
        weights = ops.cast(masked_softmax(scores, mask), x.dtype)
        return ops.squeeze(ops.matmul(weights[:, None], x), 1)

    def step_shapes(self, length: int) -> dict[str, Shape]:
        """Tells what one step has to remember; see `keras_seq.layers.steps`.

        Args:
            length: Most steps that can be remembered; it makes no difference here.

        Returns:
            Nothing for ``"last"``. For ``"first"`` and ``"max"`` a state of that name (W,) and
            ``count`` (1,), 1 once there was a step. For ``"mean"`` ``mean`` (2, W), the second
            row of which is what rounding took off the first, and ``count``, the steps so far. For
            ``"attention"`` ``sum`` (W,), ``total`` (1,) and ``highest`` (1,), the largest score.
        """
        width = self._width
        if self.method == "last":
            return {}
        if self.method == "attention":
            return {"sum": (width,), "total": (1,), "highest": (1,)}
        shape: Shape = (2, width) if self.method == "mean" else (width,)
        return {self.method: shape, "count": (1,)}

    def step(
        self, x: Any, states: dict[str, Any], position: Any = None
    ) -> tuple[Any, dict[str, Any]]:
        """Pools all steps so far; see `keras_seq.layers.steps`.

        Args:
            x: Features of one more step, (B, 1, W).
            states: As `step_shapes` says, float32; zeros before the first step.
            position: Which step it is; it makes no difference here.

        Returns:
            (B, W), what the call gives for the steps up to this one; and the states. A mean over
            more than 16 million steps forgets the oldest slowly.

        Example:
            >>> import numpy as np
            >>> layer, x = Pooling("max"), np.array([[[-3.0], [-5.0]]], "float32")
            >>> whole = layer(x)
            >>> zeros = {"max": np.zeros((1, 1), "float32"), "count": np.zeros((1, 1), "float32")}
            >>> _, states = layer.step(x[:, :1], zeros)
            >>> pooled, _ = layer.step(x[:, 1:], states)
            >>> float(pooled[0, 0]), float(whole[0, 0])
            (-3.0, -3.0)
        """
        new = ops.squeeze(x, 1)
        if self.method == "last":
            return new, {}
        wide = ops.cast(new, "float32")
        states = {name: ops.cast(state, "float32") for name, state in states.items()}
        if self.method == "attention":
            score = ops.cast(self.score(self.hidden(x))[:, 0], "float32")  # (B, 1)
            # The softmax so far, whose largest term is 1.
            fresh = ops.equal(states["total"], 0.0)
            highest = ops.where(fresh, score, ops.maximum(states["highest"], score))
            kept, given = ops.exp(states["highest"] - highest), ops.exp(score - highest)
            kept = ops.where(fresh, ops.zeros_like(kept), kept)
            total = states["total"] * kept + given
            pooled = states["sum"] * kept + wide * given
            after = {"sum": pooled, "total": total, "highest": highest}
            return ops.cast(pooled / total, new.dtype), after
        before, count = states[self.method], states["count"]
        if self.method == "mean":
            # The digits that a sum of many steps rounds away are carried along (Kahan).
            before, lost = before[:, 0], before[:, 1]
            change = (wide - before) / (count + 1.0) - lost
            pooled = before + change
            both = ops.stack([pooled, (pooled - before) - change], axis=1)
            return ops.cast(pooled, new.dtype), {"mean": both, "count": count + 1.0}
        later = ops.maximum(before, wide) if self.method == "max" else before
        pooled = ops.where(count > 0, later, wide)
        after = {self.method: pooled, "count": ops.minimum(count + 1.0, 1.0)}
        return ops.cast(pooled, new.dtype), after

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask: there are no steps left."""
        return None

    def compute_output_shape(self, x_shape: Shape) -> Shape:
        """Returns the shape without the time axis."""
        return (x_shape[0], x_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "method": self.method}
