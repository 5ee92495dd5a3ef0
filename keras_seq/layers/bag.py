"""A text as one weighted sum of the embeddings of its words and n-grams."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seq.layers.ngrams import HashedNGrams, padded_batches

Shape = tuple[Any, ...]
WEIGHTS = ("mean", "counts", "tf_idf")


@keras.saving.register_keras_serializable(package="keras_seq")
class EmbeddingBag(keras.layers.Layer):
    """The product of a text's vector of n-gram counts with a matrix, without making that vector.

    A row of the matrix is taken for every n-gram of the text and the rows are added, which is the
    same as multiplying the vector of all counts, (B, vocabulary), and costs no more for a large
    vocabulary than for a small one.

    Args:
        vocabulary: How many token ids there are.
        width: Columns of the matrix, W.
        orders: The longest n-grams. Default 1.
        buckets: Buckets of each order above 1. Default 2^16.
        weights: ``"mean"`` divides the sum by the number n of n-grams in the text; ``"counts"``
            by its root; ``"tf_idf"`` weighs each by its inverse document frequency, which `adapt`
            counts, and divides by the root of the sum of the squared weights.
        use_bias: Whether a learned vector is added. Default False.
        **kwargs: As for every Keras layer.

    Call arguments:
        tokens: (B, T) int32, 0 is padding.

    Returns:
        (B, W).

    Raises:
        ValueError: If a size is out of range or `weights` is unknown.

    Example:
        >>> import numpy as np
        >>> layer = EmbeddingBag(vocabulary=8, width=1, weights="tf_idf")
        >>> layer.build((None, None))
        >>> layer.adapt([(np.array([5, 5, 6]), 0), (np.array([5, 7]), 1)])
        >>> np.asarray(layer.idf, float)[5:].round(3).tolist()  # ln(3 / (1 + texts)) + 1
        [1.0, 1.405, 1.405]

    Reference:
        Joulin et al. 2017, Bag of Tricks for Efficient Text Classification; Sparck Jones 1972, A
        Statistical Interpretation of Term Specificity (idf, in scikit-learn's smooth form).
    """

    def __init__(
        self,
        vocabulary: int,
        width: int,
        *,
        orders: int = 1,
        buckets: int = 2**16,
        weights: str = "mean",
        use_bias: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("autocast", False)  # ids stay integers
        super().__init__(**kwargs)
        if weights not in WEIGHTS:
            raise ValueError(f"weights is {weights!r}: give one of {', '.join(WEIGHTS)}")
        if width < 1:
            raise ValueError(f"width is {width}: give at least 1")
        self.vocabulary = vocabulary
        self.width = width
        self.orders = orders
        self.buckets = buckets
        self.weighing = weights
        self.use_bias = use_bias
        self.ngrams = HashedNGrams(vocabulary, orders, buckets, name="ngrams")
        self.supports_masking = True

    def build(self, tokens_shape: Shape) -> None:
        """Makes the matrix, and the inverse document frequencies."""
        self.table = self.add_weight(
            shape=(self.ngrams.size, self.width),
            initializer=keras.initializers.RandomUniform(-0.05, 0.05),
            name="table",
        )
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.width,), initializer="zeros", name="bias")
        if self.weighing == "tf_idf":
            self.idf = self.add_weight(
                shape=(self.ngrams.size,), initializer="ones", trainable=False, name="idf"
            )

    def adapt(self, examples: Iterable[tuple[np.ndarray, Any]]) -> None:
        """Counts in how many texts each n-gram stands, where the weights are tf-idf.

        Args:
            examples: Token ids, (T,), and a label of each text, which is not looked at.
        """
        if self.weighing != "tf_idf":
            return
        if not self.built:
            self.build((None, None))
        counts, texts = np.zeros(self.ngrams.size, "int64"), 0
        for rows, labels in padded_batches(examples):
            for row in np.asarray(self.ngrams(rows)):
                counts[np.unique(row)] += 1
            texts += len(labels)
        self.idf.assign(np.log((1 + texts) / (1 + counts)) + 1)

    def call(self, tokens: Any) -> Any:
        """Adds the rows of all n-grams."""
        grams = self.ngrams(tokens)  # (B, G)
        weight = ops.cast(ops.not_equal(grams, 0), "float32")
        if self.weighing == "tf_idf":
            weight = weight * ops.cast(ops.take(self.idf, grams, axis=0), "float32")
        # Under mixed precision the table comes in half of it; a sum of hundreds of rows must not.
        rows = ops.cast(ops.take(self.table, grams, axis=0), "float32")  # (B, G, W)
        total = ops.squeeze(ops.matmul(weight[:, None], rows), 1)
        if self.weighing == "tf_idf":
            size = ops.sqrt(ops.sum(weight * weight, axis=1, keepdims=True))
        else:
            size = ops.sum(weight, axis=1, keepdims=True)
            size = size if self.weighing == "mean" else ops.sqrt(size)
        # Real n-grams weigh at least 1, so this changes only what is 0 by 0: a text without any.
        total = total / ops.maximum(size, 1.0)
        if self.use_bias:
            total = total + ops.cast(self.bias, "float32")
        return ops.cast(total, self.compute_dtype)

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask: there are no steps left."""
        return None

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        """Returns (B, W)."""
        return (tokens_shape[0], self.width)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "width": self.width,
            "orders": self.orders,
            "buckets": self.buckets,
            "weights": self.weighing,
            "use_bias": self.use_bias,
        }
