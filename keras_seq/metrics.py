"""Losses that Keras lacks. Scores of whole test sets are in `keras_seq.evaluation` (NumPy)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

__all__ = ["PinballLoss", "WeightedCrossentropy"]


@keras.saving.register_keras_serializable(package="keras_seq")
class PinballLoss(keras.losses.Loss):
    """Pinball (quantile) loss, averaged over quantile levels.

    For level t and d = truth - quantile the loss is max(t * d, (t - 1) * d): a truth above the
    quantile costs t a unit, one below it 1 - t, so that the cheapest quantile forecast has a share
    t of the truth below it. With the one level 0.5 it is half the mean absolute error.

    Args:
        quantiles: Levels between 0 and 1, one for each entry of the last axis of `y_pred`.
        weights: How much each level counts, not negative and not all 0. Default: all the same.
            The loss is the weighted mean, so the size of the weights does not matter.
        reduction: As in every Keras loss.
        name: As in every Keras loss.
        dtype: As in every Keras loss.

    Call arguments:
        y_true: (B, H, C), or any shape without the axis of quantiles.
        y_pred: (B, H, C, Q).
        sample_weight: Broadcasts over (B, H, C), floats: 0 takes a value out of the loss, as long
            as it is finite (put any number in the place of a missing truth).

    Raises:
        ValueError: Levels outside (0, 1), weights that do not fit, `y_pred` without Q entries in
            its last axis or whose other axes do not fit `y_true`.

    Example:
        >>> loss = PinballLoss([0.1, 0.5, 0.9])
        >>> y_true = keras.ops.ones((1, 1, 1)) * 10
        >>> y_pred = keras.ops.array([[[[8.0, 9.0, 14.0]]]])
        >>> round(float(loss(y_true, y_pred)), 4)  # (0.1 * 2 + 0.5 * 1 + 0.1 * 4) / 3
        0.3667

    Source:
        Koenker and Bassett (1978), "Regression quantiles".
    """

    def __init__(
        self,
        quantiles: Sequence[float],
        *,
        weights: Sequence[float] | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "pinball_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.quantiles = tuple(float(level) for level in quantiles)
        self.weights = None if weights is None else tuple(float(weight) for weight in weights)
        if not self.quantiles or not all(0 < level < 1 for level in self.quantiles):
            raise ValueError(f"quantiles must be levels between 0 and 1; got {self.quantiles}")
        if self.weights is not None:
            if len(self.weights) != len(self.quantiles):
                raise ValueError(
                    f"got {len(self.weights)} weights for {len(self.quantiles)} quantiles; "
                    "wanted one for each"
                )
            if not (min(self.weights) >= 0 and sum(self.weights) > 0):
                raise ValueError(f"weights must not be negative, nor all be 0; got {self.weights}")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Give the loss of each value: (B, H, C) and (B, H, C, Q) to (B, H, C)."""
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        # Broadcasting would quietly make a wrong loss of shapes that do not belong together.
        if len(y_pred.shape) != len(y_true.shape) + 1 or y_pred.shape[-1] != len(self.quantiles):
            raise ValueError(
                f"y_pred has shape {tuple(y_pred.shape)} for y_true {tuple(y_true.shape)}; wanted "
                f"the shape of y_true and a last axis of {len(self.quantiles)} quantiles"
            )
        for true, pred in zip(y_true.shape, y_pred.shape[:-1], strict=True):
            if true is not None and pred is not None and true != pred:
                raise ValueError(
                    f"y_pred has shape {tuple(y_pred.shape)} for y_true {tuple(y_true.shape)}; "
                    "their first axes must be the same"
                )
        levels = ops.convert_to_tensor(self.quantiles, dtype=y_pred.dtype)
        gap = ops.expand_dims(y_true, -1) - y_pred  # (B, H, C, Q)
        loss = ops.maximum(levels * gap, (levels - 1) * gap)
        if self.weights is None:
            return ops.mean(loss, axis=-1)
        total = sum(self.weights)
        share = ops.convert_to_tensor([w / total for w in self.weights], dtype=y_pred.dtype)
        return ops.sum(loss * share, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Give what the constructor took."""
        return {
            **super().get_config(),
            "quantiles": list(self.quantiles),
            "weights": None if self.weights is None else list(self.weights),
            "dtype": self.dtype,
        }


@keras.saving.register_keras_serializable(package="keras_seq")
class WeightedCrossentropy(keras.losses.Loss):
    """Cross-entropy of class scores (logits) in which some classes count more than others.

    The loss of an example is -log softmax(scores)[class] times the weight of its class. With the
    weights of `balanced` every class counts the same over the training part, however rare.

    Args:
        weights: One for each class, not negative and not all 0.
        reduction: As in every Keras loss.
        name: As in every Keras loss.
        dtype: As in every Keras loss.

    Call arguments:
        y_true: (B,) class numbers.
        y_pred: (B, K) scores before softmax.

    Raises:
        ValueError: Weights that are negative or all 0, or not as many as scores.

    Example:
        >>> import numpy as np
        >>> loss = WeightedCrossentropy([1.0, 3.0])
        >>> round(float(loss(np.array([0, 1]), np.zeros((2, 2), "float32")) / np.log(2)), 5)
        2.0

    Source:
        King and Zeng (2001), "Logistic regression in rare events data".
    """

    def __init__(
        self,
        weights: Sequence[float],
        *,
        reduction: str | None = "sum_over_batch_size",
        name: str = "weighted_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.weights = tuple(float(weight) for weight in weights)
        if not (self.weights and min(self.weights) >= 0 and sum(self.weights) > 0):
            raise ValueError(f"weights must not be negative, nor all be 0; got {self.weights}")

    @staticmethod
    def balanced(counts: Sequence[int]) -> tuple[float, ...]:
        """Gives the weights with which every class counts the same.

        Args:
            counts: Training examples of each class.

        Returns:
            N / (K n_k): 1 for every class where all are as many.

        Example:
            >>> WeightedCrossentropy.balanced([30, 10])
            (0.6666666666666666, 2.0)
        """
        total = sum(counts)
        return tuple(total / (len(counts) * count) if count else 0.0 for count in counts)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Give the loss of each example: (B,) and (B, K) to (B,)."""
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        if y_pred.shape[-1] != len(self.weights):
            raise ValueError(
                f"y_pred has {y_pred.shape[-1]} scores and there are {len(self.weights)} weights"
            )
        y_true = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        loss = ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        return loss * ops.take(ops.convert_to_tensor(self.weights, dtype=loss.dtype), y_true)

    def get_config(self) -> dict[str, Any]:
        """Give what the constructor took."""
        return {**super().get_config(), "weights": list(self.weights), "dtype": self.dtype}
