"""A multi-layer perceptron on weighted counts of words."""

from __future__ import annotations

from typing import Any

import keras

from keras_seq.errors import UserError
from keras_seq.layers import Dropout, EmbeddingBag
from keras_seq.models._checks import check_choice, check_sizes
from keras_seq.registry import architecture


@architecture("vector")
def bag_of_words(
    x: Any,
    *,
    mask: Any = None,
    vocabulary: int,
    width: int = 64,
    depth: int = 1,
    dropout: float = 0.5,
    weights: str = "tf_idf",
    ngrams: int = 1,
    buckets: int = 2**16,
    activation: str = "relu",
) -> Any:
    """Counts which words a text has, forgets their order, and applies dense layers.

    Args:
        x: Token ids, (B, T); 0 is padding.
        mask: Not needed: padding is told by its id.
        vocabulary: How many ids there are.
        width: Units of each layer.
        depth: Number of layers.
        dropout: After each layer, 0 to below 1.
        weights: ``"tf_idf"``: counts weighed by how few texts have the word, or ``"counts"``. Both
            are divided by a text's norm, for which all its words count as different.
        ngrams: Words of the longest n-grams, 1 to 5; those of two and more are hashed.
        buckets: Hash buckets of each order above 1.
        activation: Name of a Keras activation.

    Returns:
        (B, width).

    Raises:
        UserError: If an option is out of range, or the vocabulary is too large to hash n-grams.

    Example:
        >>> tokens = keras.Input((None,), dtype="int32")
        >>> bag_of_words(tokens, vocabulary=100, width=8).shape
        (None, 8)

    Reference:
        Salton and Buckley 1988, Term-Weighting Approaches in Automatic Text Retrieval.
    """
    check_sizes(width=width, depth=depth, ngrams=ngrams, buckets=buckets, dropout=dropout)
    check_choice("weights", weights, ("tf_idf", "counts"))
    try:
        # The first dense layer: its kernel has a row for each word.
        h = EmbeddingBag(
            vocabulary,
            width,
            orders=ngrams,
            buckets=buckets,
            weights=weights,
            use_bias=True,
            name="words",
        )(x)
    except ValueError as error:
        raise UserError(str(error)) from None
    for i in range(depth):
        if i:
            h = keras.layers.Dense(width, name=f"dense_{i}")(h)
        h = keras.layers.Activation(activation, name=f"activation_{i}")(h)
        if dropout:
            h = Dropout(dropout, name=f"dropout_{i}")(h)
    return h
