"""Classifiers on bags of words and word n-grams: fast, and hard to beat on long texts."""

from __future__ import annotations

from typing import Any

import keras

from keras_seq.errors import UserError
from keras_seq.layers import Dropout, EmbeddingBag, NaiveBayesScores
from keras_seq.models._checks import check_sizes
from keras_seq.registry import architecture


@architecture("vector", "logits")
def fasttext(
    x: Any,
    *,
    mask: Any = None,
    vocabulary: int,
    classes: int | None = None,
    exclusive: bool = True,
    width: int = 64,
    dropout: float = 0.0,
    ngrams: int = 3,
    buckets: int | None = None,
    nb: bool = True,
    smoothing: float = 1.0,
) -> Any:
    """A linear classifier on n-grams weighed by naive Bayes, or the mean of their embeddings.

    With `nb` the class scores are a weighted sum over the n-grams that stand in the text (see
    `keras_seq.layers.NaiveBayesScores`), fitted before training by counting; `width` has no
    say. Without it, or where there are no classes, the embeddings of words and n-grams are
    averaged.

    Args:
        x: Token ids, (B, T); 0 is padding.
        mask: Not needed: padding is told by its id.
        vocabulary: How many ids there are.
        classes: How many classes there are, or None.
        exclusive: Whether a text has exactly one class.
        width: Features of an embedding.
        dropout: Share of the n-grams that training leaves out, or of the features of their mean,
            0 to below 1.
        ngrams: Words of the longest n-grams, 1 to 5.
        buckets: Hash buckets of each order above 1. None: 2^21 of weighed n-grams with one score
            (two classes), fewer the more classes there are; 2^16 of embeddings.
        nb: Whether n-grams are weighed by naive Bayes.
        smoothing: Texts added to every count of naive Bayes; the more, the less do rare n-grams
            say.

    Returns:
        Class scores, (B, classes), to be read as logits; without `classes` (B, width).

    Raises:
        UserError: If an option is out of range, or the vocabulary is too large to hash n-grams.

    Example:
        >>> tokens = keras.Input((None,), dtype="int32")
        >>> fasttext(tokens, vocabulary=100, classes=2, buckets=1000).shape
        (None, 2)

    Reference:
        Joulin et al. 2017, Bag of Tricks for Efficient Text Classification; Wang and Manning 2012,
        Baselines and Bigrams: Simple, Good Sentiment and Topic Classification.
    """
    check_sizes(width=width, ngrams=ngrams, dropout=dropout)
    if buckets is None:
        buckets = 2**16
        if nb and classes is not None:
            buckets = 2 ** (21 if classes == 2 and exclusive else 19 if classes < 6 else 17)
    check_sizes(buckets=buckets)
    try:
        if nb and classes is not None:
            return NaiveBayesScores(
                classes,
                vocabulary,
                orders=ngrams,
                buckets=buckets,
                exclusive=exclusive,
                smoothing=smoothing,
                dropout=dropout,
                name="naive_bayes",
            )(x)
        h = EmbeddingBag(vocabulary, width, orders=ngrams, buckets=buckets, name="embedding_bag")(x)
    except ValueError as error:
        raise UserError(str(error)) from None
    if dropout:
        h = Dropout(dropout, name="dropout")(h)
    return h if classes is None else keras.layers.Dense(classes, name="scores")(h)
