"""How probable the true tokens are: over the whole vocabulary, or in training over a sample."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

Shape = tuple[Any, ...]


@keras.saving.register_keras_serializable(package="keras_seq")
class SampledLikelihood(keras.layers.Layer):
    """Log-probability of true tokens; training sets them against those of the same batch alone.

    The sum over a vocabulary of 30,000 words costs more than the rest of a small network. In
    training it is estimated without bias from the batch's other true tokens: they are drawn with
    the frequencies of the words, so each counts for as many as it stands for.

    Args:
        vocabulary: Number of ids, V.
        **kwargs: As for every Keras layer.

    Call arguments:
        states: (B, M, D), what the scores are computed from.
        candidates: (B, M, D), the output vectors of the true tokens.
        targets: (B, M) int32 true ids; 0 where there is none.
        logits: (B, M, V), the scores over the whole vocabulary; not used in training.
        training: Whether the sum is estimated.

    Returns:
        (B, M) natural logarithms, 0 where there is no target.

    Example:
        >>> layer = SampledLikelihood(2)
        >>> layer.adapt_counts(np.array([3, 1]))
        >>> one = np.ones((1, 1, 2), "float32")
        >>> p = layer(one, one, np.array([[1]]), np.log([[[0.5, 0.5]]]).astype("float32"))
        >>> np.exp(np.asarray(p)).round(3)
        array([[0.5]], dtype=float32)

    Reference:
        Bengio and Senecal 2008, Adaptive Importance Sampling to Accelerate Training of a Neural
        Probabilistic Language Model; Jozefowicz et al. 2016, Exploring the Limits of Language
        Modeling.
    """

    def __init__(self, vocabulary: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vocabulary = vocabulary
        self.supports_masking = True

    def build(
        self,
        states_shape: Shape,
        candidates_shape: Shape,
        targets_shape: Shape,
        logits_shape: Shape,
    ) -> None:
        """Makes the table of frequencies: alike, until they are counted."""
        self.log_frequency = self.add_weight(
            shape=(self.vocabulary,),
            initializer=keras.initializers.Constant(-float(np.log(self.vocabulary))),
            trainable=False,
            name="log_frequency",
        )

    def adapt_counts(self, counts: np.ndarray) -> None:
        """Sets the frequencies.

        Args:
            counts: (V,) how often each id is a target in the training part; unseen ones count 1.
        """
        if not hasattr(self, "log_frequency"):
            shape = (None, None, None)
            self.build(shape, shape, shape[:2], shape)
        counts = np.maximum(np.asarray(counts, np.float64), 1.0)
        self.log_frequency.assign(np.log(counts / counts.sum()).astype(np.float32))

    def call(
        self, states: Any, candidates: Any, targets: Any, logits: Any, training: bool | None = None
    ) -> Any:
        """Scores the true tokens."""
        there = ops.not_equal(targets, 0)
        if training:
            found = self._sampled(states, candidates, targets)
        else:
            logits = ops.cast(logits, "float32")
            found = -ops.sparse_categorical_crossentropy(targets, logits, from_logits=True)
        return ops.where(there, found, ops.zeros_like(found))

    def _sampled(self, states: Any, candidates: Any, targets: Any) -> Any:
        width = states.shape[-1]
        h = ops.reshape(states, (-1, width))  # (N, D), N = B M
        c = ops.reshape(candidates, (-1, width))
        ids = ops.reshape(targets, (-1,))  # (N,)
        real = ops.not_equal(ids, 0)
        number = ops.sum(ops.cast(real, "float32"))
        scores = ops.cast(ops.matmul(h, ops.transpose(c)), "float32")  # (N, N)
        # A true token i stands for 1 / (N p_i) tokens; those of a row's own kind are left out.
        stands_for = -ops.take(self.log_frequency, ids) - ops.log(ops.maximum(number, 1.0))
        other = ops.logical_and(ids[:, None] != ids[None, :], real[None, :])
        others = ops.where(other, scores + stands_for[None, :], -1e30)
        own = ops.sum(ops.cast(h, "float32") * ops.cast(c, "float32"), axis=-1)  # (N,)
        highest = ops.stop_gradient(ops.maximum(ops.max(others, axis=-1), own))
        total = ops.exp(own - highest) + ops.sum(ops.exp(others - highest[:, None]), axis=-1)
        return ops.reshape(own - highest - ops.log(total), ops.shape(targets))

    def compute_output_spec(
        self, states: Any, candidates: Any, targets: Any, logits: Any, training: bool | None = None
    ) -> Any:
        """Returns the shape of the targets."""
        return keras.KerasTensor(targets.shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "vocabulary": self.vocabulary}
