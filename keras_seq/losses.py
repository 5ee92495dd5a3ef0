"""Losses on sequences of labels: cross-entropy and conditional random fields, under masks.

A target is the number of the class plus 1; 0 stands where there is no label (padding), so that a
batch padded with 0 needs no mask of its own.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers.crf import log_partition

__all__ = ["CRFLoss", "MaskedAccuracy", "MaskedCrossentropy"]

_TINY = 1e-7  # a probability of 0 for what came true would cost infinitely much


@keras.saving.register_keras_serializable(package="keras_seq")
class MaskedCrossentropy(keras.losses.Loss):
    """Cross-entropy at each step that has a label, averaged over those steps of the whole batch.

    Long sequences so weigh as much as they have labels, and padding weighs nothing.

    Args:
        from_logits: Whether `y_pred` holds scores before the softmax, not probabilities.
        label_smoothing: Share of the target that is spread evenly over all classes, 0 to below 1.
        reduction: As in Keras; the default is the mean over the steps with a label.
        name: Of the loss.
        dtype: As in Keras.

    Call arguments:
        y_true: (B, T) int32, class number + 1, or 0 for no label.
        y_pred: (B, T, K).
        sample_weight: (B,) or (B, T), how much rows or steps count; None: all the same.

    Raises:
        ValueError: If `label_smoothing` is not a share.

    Example:
        >>> import numpy as np
        >>> scores = np.log([[[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]]])
        >>> loss = MaskedCrossentropy()(np.array([[1, 1, 0]]), scores)
        >>> round(float(loss), 4)  # (-log 0.5 - log 0.25) / 2
        1.0397

    Reference:
        Label smoothing: Szegedy et al. 2016, Rethinking the Inception Architecture.
    """

    def __init__(
        self,
        *,
        from_logits: bool = True,
        label_smoothing: float = 0.0,
        reduction: str | None = "mean_with_sample_weight",
        name: str = "masked_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is {label_smoothing}: give 0 to below 1")
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Returns the loss, with weight 0 where there is no label."""
        y_pred = ops.convert_to_tensor(y_pred)
        there = ops.cast(ops.not_equal(y_true, 0), y_pred.dtype)  # (B, T)
        return super().__call__(y_true, y_pred, sample_weight=_weights(there, sample_weight))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Gives the loss of each step, (B, T); of a step without a label it means nothing."""
        index = ops.maximum(ops.cast(y_true, "int32") - 1, 0)
        if self.from_logits:
            return _crossentropy(ops.convert_to_tensor(y_pred), index, self.label_smoothing)
        logs = ops.log(ops.maximum(y_pred, _TINY))
        loss = -ops.squeeze(ops.take_along_axis(logs, index[..., None], axis=-1), -1)
        if self.label_smoothing:
            spread = -ops.mean(logs, axis=-1)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * spread
        return loss

    def get_config(self) -> dict[str, Any]:
        """Gives what the constructor took."""
        return {
            **super().get_config(),
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
            "dtype": self.dtype,
        }


@keras.saving.register_keras_serializable(package="keras_seq")
class MaskedAccuracy(keras.metrics.Mean):
    """The share of steps with a label whose label is the one with the highest score.

    Args:
        name: Of the metric.
        dtype: As in Keras.

    Example:
        >>> import numpy as np
        >>> metric = MaskedAccuracy()
        >>> metric.update_state(np.array([[1, 2, 0]]), np.array([[[0.9, 0.1]] * 3]))
        >>> float(metric.result())
        0.5
    """

    def __init__(self, name: str = "accuracy", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Counts a batch.

        Args:
            y_true: (B, T) int32, class number + 1, or 0 for no label.
            y_pred: (B, T, K).
            sample_weight: (B,) or (B, T), how much rows or steps count; None: all the same.
        """
        y_true = ops.cast(y_true, "int32")
        right = ops.equal(ops.cast(ops.argmax(y_pred, axis=-1), "int32"), y_true - 1)
        there = ops.cast(ops.not_equal(y_true, 0), self.dtype)
        weights = _weights(there, sample_weight)
        # Flat, as Keras would take means over rows, and then steps of short batches count more.
        super().update_state(
            ops.reshape(ops.cast(right, self.dtype), (-1,)), ops.reshape(weights, (-1,))
        )

    def get_config(self) -> dict[str, Any]:
        """Gives what the constructor took."""
        return {"name": self.name, "dtype": self.dtype}


@keras.saving.register_keras_serializable(package="keras_seq")
class CRFLoss(keras.losses.Loss):
    """Negative log likelihood of the labels of a sentence under a conditional random field.

    The scores of transitions are a part of `y_pred`, so the loss shares no weights with the model:
    ``y_pred[b, t, i, j]`` is the score of label j at step t after label i at step t - 1; at t = 0
    it is the same for every i. The likelihood is that of the whole sequence; it is divided by the
    number of its labels, so that the loss is in nats a step, as `MaskedCrossentropy` is.

    Args:
        reduction: As in Keras; the default is the mean over the steps with a label.
        name: Of the loss.
        dtype: As in Keras.

    Call arguments:
        y_true: (B, T) int32, class number + 1; 0 only at the end of a row: padding.
        y_pred: (B, T, K, K).
        sample_weight: (B,), how much rows count; None: all the same.

    Example:
        >>> import numpy as np
        >>> loss = CRFLoss()(np.array([[1, 2, 0]]), np.zeros((1, 3, 2, 2), "float32"))
        >>> round(float(loss), 4)  # 4 sequences of two labels, all alike: log 4, over 2 steps
        0.6931

    Reference:
        Lafferty et al. 2001, Conditional Random Fields; Lample et al. 2016, Neural Architectures
        for Named Entity Recognition.
    """

    def __init__(
        self,
        *,
        reduction: str | None = "mean_with_sample_weight",
        name: str = "crf_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Returns the loss; a row weighs as many steps as it has."""
        y_pred = ops.convert_to_tensor(y_pred)
        steps = ops.sum(ops.cast(ops.not_equal(y_true, 0), y_pred.dtype), axis=1)  # (B,)
        return super().__call__(y_true, y_pred, sample_weight=_weights(steps, sample_weight))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Gives the loss a step of each row, (B,)."""
        y_true = ops.cast(y_true, "int32")
        there = ops.cast(ops.not_equal(y_true, 0), y_pred.dtype)  # (B, T)
        labels = ops.maximum(y_true - 1, 0)
        gap = log_partition(y_pred, ops.not_equal(y_true, 0)) - path_score(y_pred, labels, there)
        return gap / ops.maximum(ops.sum(there, axis=1), 1)

    def get_config(self) -> dict[str, Any]:
        """Gives what the constructor took."""
        return {**super().get_config(), "dtype": self.dtype}


def path_score(potentials: Any, labels: Any, there: Any) -> Any:
    """Sums the potentials along one sequence of labels.

    Args:
        potentials: (B, T, K, K), see `CRFLoss`.
        labels: (B, T) int32, class numbers.
        there: (B, T), 1 at real steps and 0 elsewhere.

    Returns:
        (B,).
    """
    classes = potentials.shape[-1]
    before = ops.concatenate([labels[:, :1], labels[:, :-1]], axis=1)
    shape = ops.shape(potentials)
    flat = ops.reshape(potentials, (shape[0], shape[1], classes * classes))
    place = (before * classes + labels)[..., None]  # (B, T, 1)
    return ops.sum(ops.squeeze(ops.take_along_axis(flat, place, axis=-1), -1) * there, axis=1)


def _crossentropy(scores: Any, index: Any, smoothing: float) -> Any:
    """The cross-entropy of scores (..., K) with smoothed labels; index and result are (...)."""
    classes = scores.shape[-1]

    # The scores of a batch may be 100 MB and more, so what counts is how often they are gone over:
    # with the gradient written out it is a third as often as by Keras's or TensorFlow's own ones.
    @ops.custom_gradient
    def loss(scores: Any, index: Any) -> Any:
        flat = ops.reshape(scores, (-1, classes))
        rows = ops.reshape(index, (-1,))
        at = ops.stack([ops.arange(ops.shape(rows)[0], dtype=rows.dtype), rows], axis=-1)
        found = ops.squeeze(ops.take_along_axis(flat, rows[:, None], axis=-1), -1)
        shares = ops.softmax(flat, axis=-1)
        # The largest share is 1 / K or more: its logarithm is exact, and no other is needed.
        total = ops.max(flat, axis=-1) - ops.log(ops.max(shares, axis=-1))
        value = total - (1 - smoothing) * found
        if smoothing:
            value = value - smoothing * ops.mean(flat, axis=-1)

        def gradient(*args: Any, upstream: Any = None) -> Any:
            above = ops.reshape(args[0] if upstream is None else upstream, (-1,))
            slope = (
                (shares - smoothing / classes) * above[:, None]
                if smoothing
                else (shares * above[:, None])
            )
            own = ops.exp(found - total) - smoothing / classes - (1 - smoothing)
            slope = ops.scatter_update(slope, at, own * above)
            return ops.reshape(slope, ops.shape(scores)), None

        return ops.reshape(value, ops.shape(index)), gradient

    return loss(scores, index)


def _weights(found: Any, given: Any) -> Any:
    """The weights that come from the targets, times those that the caller gave."""
    if given is None:
        return found
    given = ops.cast(given, found.dtype)
    while len(given.shape) < len(found.shape):
        given = given[..., None]
    return found * given
