"""Class scores that weigh every feature by its naive Bayes log-count ratio."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seq.layers.dropout import Dropout
from keras_seq.layers.ngrams import HashedNGrams, padded_batches

Shape = tuple[Any, ...]


@keras.saving.register_keras_serializable(package="keras_seq")
class NaiveBayesScores(keras.layers.Layer):
    """A linear classifier on n-grams, each scaled by how much oftener a class has it.

    The score of class k is ``scale * sum_g r[g, k] w[g, k] / sqrt(n) + b[k]`` over the n real
    n-grams g of a text. `adapt` sets r, the log of the ratio of the shares that n-gram g has of
    all n-grams of class k and of the other classes, counted once a text, with `smoothing` texts
    added to each count; w starts at 0 and is learned.

    Args:
        classes: How many classes there are, K.
        vocabulary: How many token ids there are.
        orders: The longest n-grams. Default 3.
        buckets: Buckets of each order above 1. Default 2^18.
        exclusive: Whether a text has exactly one class. Two such classes share one score, with
            opposite signs. Default True.
        smoothing: Texts added to each count; the more, the less do rare n-grams say. Default 1.
        scale: Of the scores; it sets how far a step of Adam moves them. The default, 50, suits a
            learning rate of 1e-3.
        dropout: Share of the n-grams of a text that training leaves out, 0 to below 1. Default 0.
        seed: Of that choice; None draws one.
        **kwargs: As for every Keras layer.

    Call arguments:
        tokens: (B, T) int32, 0 is padding.
        training: Whether n-grams are left out.

    Returns:
        (B, K), to be read as logits.

    Raises:
        ValueError: If a size is out of range.

    Example:
        >>> import numpy as np
        >>> layer = NaiveBayesScores(2, vocabulary=8, orders=1)
        >>> layer.build((None, None))
        >>> layer.adapt([(np.array([5, 6]), 0), (np.array([5, 7]), 1)])
        >>> np.asarray(layer.ratio, float)[5:, 0].round(2).tolist()  # log(1 / 2); both have 5
        [0.0, -0.69, 0.69]

    Reference:
        Wang and Manning 2012, Baselines and Bigrams: Simple, Good Sentiment and Topic
        Classification (NBSVM).
    """

    def __init__(
        self,
        classes: int,
        vocabulary: int,
        *,
        orders: int = 3,
        buckets: int = 2**18,
        exclusive: bool = True,
        smoothing: float = 1.0,
        scale: float = 50.0,
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("autocast", False)  # ids stay integers
        super().__init__(**kwargs)
        if classes < 1 or (exclusive and classes < 2):
            raise ValueError(f"classes is {classes}: give at least {2 if exclusive else 1}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}: give 0 to below 1")
        if smoothing <= 0:
            raise ValueError(f"smoothing is {smoothing}: give more than 0")
        self.classes = int(classes)
        self.vocabulary = vocabulary
        self.orders = orders
        self.buckets = buckets
        self.exclusive = bool(exclusive)
        self.smoothing = float(smoothing)
        self.scale = float(scale)
        self.dropout = dropout
        self.seed = seed
        self.dropout_layer = Dropout(dropout, seed=seed, dtype="float32")
        self.ngrams = HashedNGrams(vocabulary, orders, buckets, name="ngrams")
        self.supports_masking = True

    @property
    def scores(self) -> int:
        """How many scores are learned: one for two exclusive classes."""
        return 1 if self.exclusive and self.classes == 2 else self.classes

    def build(self, tokens_shape: Shape) -> None:
        """Makes the two tables."""
        shape = (self.ngrams.size, self.scores)
        self.ratio = self.add_weight(
            shape=shape, initializer="zeros", trainable=False, name="ratio"
        )
        self.weight = self.add_weight(shape=shape, initializer="zeros", name="weight")
        self.bias = self.add_weight(shape=(self.scores,), initializer="zeros", name="bias")

    def adapt(self, examples: Iterable[tuple[np.ndarray, Any]]) -> None:
        """Counts the n-grams of every class, and forgets what was counted before.

        Args:
            examples: Token ids, (T,), and the class index of each text; of classes that do not
                exclude each other, a list of indices.
        """
        if not self.built:
            self.build((None, None))
        counts = np.zeros((self.ngrams.size, self.scores), "int64")
        everywhere = np.zeros(self.ngrams.size, "int64")
        for rows, labels in padded_batches(examples):
            features = np.asarray(self.ngrams(rows))
            for row, label in zip(features, labels, strict=True):
                present = np.unique(row)
                present = present[present > 0]
                everywhere[present] += 1
                for k in np.atleast_1d(np.asarray(label, "int64")):
                    if self.scores == self.classes:
                        counts[present, k] += 1
                    elif k == 1:
                        counts[present, 0] += 1
        # Only n-grams that were seen: of the others nothing is known, so their ratio is 0.
        seen = everywhere > 0
        ours = counts[seen] + self.smoothing
        theirs = everywhere[seen, None] - counts[seen] + self.smoothing
        ratio = np.zeros(counts.shape, "float32")
        ratio[seen] = np.log(ours / ours.sum(0)) - np.log(theirs / theirs.sum(0))
        self.ratio.assign(ratio)

    def call(self, tokens: Any, training: bool | None = None) -> Any:
        """Adds the scores of all n-grams."""
        grams = self.ngrams(tokens)  # (B, G)
        real = ops.cast(ops.not_equal(grams, 0), "float32")
        # Under mixed precision the tables come in half of it; a sum of hundreds of rows must not.
        ratio, weight = (
            ops.cast(ops.take(table, grams, axis=0), "float32")
            for table in (self.ratio, self.weight)
        )
        each = ratio * weight  # (B, G, scores)
        kept = self.dropout_layer(real, training=training)
        total = ops.sum(each * kept[..., None], axis=1)  # (B, scores)
        count = ops.maximum(ops.sum(real, axis=1, keepdims=True), 1.0)
        score = self.scale * total / ops.sqrt(count) + ops.cast(self.bias, "float32")
        score = ops.cast(score, self.compute_dtype)
        if self.scores == self.classes:
            return score
        return ops.concatenate([-0.5 * score, 0.5 * score], axis=-1)

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask: there are no steps left."""
        return None

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        """Returns (B, K)."""
        return (tokens_shape[0], self.classes)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "classes": self.classes,
            "vocabulary": self.vocabulary,
            "orders": self.orders,
            "buckets": self.buckets,
            "exclusive": self.exclusive,
            "smoothing": self.smoothing,
            "scale": self.scale,
            "dropout": self.dropout,
            "seed": self.seed,
        }
