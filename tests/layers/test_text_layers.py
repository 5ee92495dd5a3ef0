"""Layers for text, by hand and against other implementations."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal

from keras_seq.layers import (
    ClassToken,
    EmbeddingBag,
    HashedNGrams,
    LearnedPositions,
    NaiveBayesScores,
    Pooling,
    SinusoidalPositions,
    sinusoid_table,
)
from keras_seq.layers.ngrams import padded_batches

TEXTS = [[5, 6, 7, 5], [6, 6, 8], [9], [7, 8, 5, 6, 9]]


def padded(rows):
    return next(padded_batches((np.array(row), 0) for row in rows))[0]


# ---------------------------------------------------------------------------------------- n-grams


def ngram(words, vocabulary, buckets):
    """The id of one n-gram, in Python's integers of any size."""
    if len(words) == 1:
        return words[0]
    primes = (30011, 7919, 20011, 12007, 27011)
    bucket = sum(word * prime % buckets for word, prime in zip(words, primes, strict=False))
    return vocabulary + (len(words) - 2) * buckets + bucket % buckets


@pytest.mark.parametrize("orders", [1, 2, 3, 5])
def test_ngrams_equal_python(orders):
    vocabulary, buckets = 70_000, 2**21
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, vocabulary, size=n).tolist() for n in (7, 1, 3)]
    layer = HashedNGrams(vocabulary, orders, buckets)
    got = np.asarray(layer(padded(rows)))
    assert got.shape == (3, 7 * orders)
    for row, found in zip(rows, got.tolist(), strict=True):
        wanted = [
            ngram(row[i : i + order], vocabulary, buckets)
            for order in range(1, orders + 1)
            for i in range(len(row) - order + 1)
        ]
        assert Counter(g for g in found if g) == Counter(wanted)
        assert max(found) < layer.size == vocabulary + (orders - 1) * buckets


def test_an_ngram_stands_where_it_begins():
    got = np.asarray(HashedNGrams(10, 2, 100)(np.array([[5, 6, 0, 7, 8]], "int32")))[0]
    assert_array_equal(got[5:] > 0, [True, False, False, True, False])  # none across the hole


def test_word_order_makes_other_ngrams():
    layer = HashedNGrams(10, 2, 10007)
    one, other = np.asarray(layer(np.array([[5, 6], [6, 5]], "int32")))
    assert one[2] != other[2]


def test_ngrams_in_graph_and_of_no_step():
    layer = HashedNGrams(10, 3, 100)
    graph = tf.function(layer, input_signature=[tf.TensorSpec((None, None), "int32")])
    rows = padded(TEXTS)
    assert_array_equal(graph(rows), layer(rows))
    assert graph(np.zeros((2, 0), "int32")).shape == (2, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"vocabulary": 71_557}, "allow 71556"),
        ({"vocabulary": 10, "orders": 6}, "orders is 6: give 1 to 5"),
        ({"vocabulary": 10, "buckets": 0}, "buckets is 0"),
        ({"vocabulary": 10, "buckets": 2**31}, "do not fit into 32 bits"),
    ],
)
def test_ngrams_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        HashedNGrams(**arguments)
    assert HashedNGrams(vocabulary=71_556).size
    assert HashedNGrams(vocabulary=10**6, orders=1).size == 10**6  # nothing is hashed


def test_batches_hold_every_text_once():
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 99, size=n) for n in (3, 50, 1, 0, 7, 7, 200, 2)]
    found = []
    for ids, labels in padded_batches(zip(rows, "abcdefgh", strict=True), most=60):
        assert ids.size <= 60 or len(labels) == 1
        found += zip(ids, labels, strict=True)
    assert [label for _, label in found] == list("abcdefgh")
    for row, (ids, _) in zip(rows, found, strict=True):
        assert_array_equal(ids[: len(row)], row)
        assert not ids[len(row) :].any()


# ------------------------------------------------------------------------------------ naive Bayes


def test_ratios_equal_scikit_learn():
    """The log-count ratio is what MultinomialNB says of presences, class against the rest."""
    from sklearn.naive_bayes import MultinomialNB

    rng = np.random.default_rng(1)
    texts = [rng.integers(5, 30, size=rng.integers(1, 12)) for _ in range(80)]
    labels = rng.integers(0, 3, size=80)
    layer = NaiveBayesScores(3, 30, orders=1, smoothing=2.0)
    layer.adapt(zip(texts, labels.tolist(), strict=True))
    there = np.array([[word in text for word in range(30)] for text in texts], int)
    seen = np.flatnonzero(there.any(0))
    for k in range(3):
        model = MultinomialNB(alpha=2.0).fit(there[:, seen], labels == k)
        wanted = model.feature_log_prob_[1] - model.feature_log_prob_[0]
        assert_allclose(np.asarray(layer.ratio)[seen, k], wanted, atol=1e-5)
    assert not np.delete(np.asarray(layer.ratio), seen, axis=0).any()


def test_scores_by_hand():
    layer = NaiveBayesScores(3, 10, orders=2, buckets=50, scale=2.0)
    rows = padded(TEXTS)
    layer(rows)
    rng = np.random.default_rng(0)
    ratio, weight = rng.normal(size=(2, 60, 3))
    bias = np.array([1.0, 2.0, 3.0])
    layer.ratio.assign(ratio)
    layer.weight.assign(weight)
    layer.bias.assign(bias)
    for text, got in zip(TEXTS, np.asarray(layer(rows)), strict=True):
        grams = [ngram(words, 10, 50) for words in [[w] for w in text] + list(pairwise(text))]
        wanted = 2.0 * (ratio * weight)[grams].sum(0) / len(grams) ** 0.5 + bias
        assert_allclose(got, wanted, atol=1e-5)


def test_two_exclusive_classes_share_a_score_and_two_free_ones_do_not():
    examples = [(np.array(text), i % 2) for i, text in enumerate(TEXTS)]
    shared = NaiveBayesScores(2, 10, orders=1)
    free = NaiveBayesScores(2, 10, orders=1, exclusive=False)
    for layer in (shared, free):
        layer.adapt(examples)
        layer.weight.assign(np.full(layer.weight.shape, 0.1))
    assert shared.ratio.shape == (10, 1) and free.ratio.shape == (10, 2)
    assert_allclose(shared.ratio[:, 0], free.ratio[:, 1], atol=1e-6)
    assert_allclose(free.ratio[:, 0], -free.ratio[:, 1], atol=1e-6)
    logits = np.asarray(shared(padded(TEXTS)))
    assert_allclose(logits[:, 0], -logits[:, 1])
    # The same probabilities as a sigmoid of the score.
    assert_allclose(logits[:, 1] - logits[:, 0], np.asarray(free(padded(TEXTS)))[:, 1], atol=1e-5)


def test_a_text_may_have_several_labels_or_none():
    layer = NaiveBayesScores(2, 10, orders=1, exclusive=False)
    layer.adapt([(np.array([5]), [0, 1]), (np.array([6]), []), (np.array([7]), [1])])
    ours, theirs = np.array([2, 1, 1]), np.array([1, 2, 2])  # of class 0: texts + 1
    wanted = np.log(ours / ours.sum()) - np.log(theirs / theirs.sum())
    assert_allclose(np.asarray(layer.ratio)[5:8, 0], wanted, atol=1e-6)


def test_adapt_forgets_what_it_counted_before():
    one, two = (NaiveBayesScores(2, 10, orders=1) for _ in range(2))
    one.adapt([(np.array([5, 6]), 0), (np.array([8]), 1)])
    for layer in (one, two):
        layer.adapt([(np.array(text), i % 2) for i, text in enumerate(TEXTS)])
    assert_array_equal(one.ratio, two.ratio)


def test_ngrams_are_left_out_in_training_only():
    layer = NaiveBayesScores(2, 10, orders=1, dropout=0.5, seed=0)
    layer.adapt([(np.array(text), i % 2) for i, text in enumerate(TEXTS)])
    layer.weight.assign(np.ones(layer.weight.shape))
    rows = padded(TEXTS)
    assert_array_equal(layer(rows), layer(rows))
    assert not np.allclose(layer(rows, training=True), layer(rows))


@pytest.mark.parametrize(
    "arguments", [{"classes": 1}, {"classes": 2, "dropout": 1.0}, {"classes": 2, "smoothing": 0}]
)
def test_naive_bayes_refuses(arguments):
    with pytest.raises(ValueError, match="give"):
        NaiveBayesScores(vocabulary=10, **arguments)


# ------------------------------------------------------------------------------------ bag of words


@pytest.mark.parametrize("weights", ["mean", "counts", "tf_idf"])
def test_a_bag_is_a_product_with_the_counts(weights):
    layer = EmbeddingBag(10, 4, weights=weights, use_bias=True)
    layer.build((None, None))
    layer.adapt([(np.array(text), 0) for text in TEXTS])
    layer.bias.assign(np.arange(4.0))
    table = np.asarray(layer.table)
    counts = np.array([[text.count(word) for word in range(10)] for text in TEXTS])
    idf = np.log((1 + len(TEXTS)) / (1 + (counts > 0).sum(0))) + 1
    if weights == "mean":
        wanted = counts / counts.sum(1, keepdims=True) @ table
    elif weights == "counts":
        wanted = counts / np.sqrt(counts.sum(1, keepdims=True)) @ table
    else:
        # The norm takes every occurrence for a word of its own.
        wanted = counts * idf / np.sqrt((counts * idf**2).sum(1, keepdims=True)) @ table
    assert_allclose(layer(padded(TEXTS)), wanted + np.arange(4.0), atol=1e-6)


def test_tf_idf_equals_scikit_learn_where_no_word_repeats():
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = ["d e f", "e g", "h", "f g d e h"]
    matrix = TfidfVectorizer(token_pattern=r"\S").fit_transform(texts).toarray()
    rows = [["defgh".index(word) + 5 for word in text.split()] for text in texts]
    layer = EmbeddingBag(10, 5, weights="tf_idf")
    layer.build((None, None))
    layer.adapt([(np.array(row), 0) for row in rows])
    layer.table.assign(np.concatenate([np.zeros((5, 5)), np.eye(5)]))
    assert_allclose(layer(padded(rows)), matrix, atol=1e-6)


def test_a_bag_of_nothing_is_zero():
    layer = EmbeddingBag(10, 4, weights="tf_idf", orders=2, buckets=20)
    assert_array_equal(layer(np.zeros((2, 3), "int32")), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="weights is 'bm25'"):
        EmbeddingBag(10, 4, weights="bm25")
    with pytest.raises(ValueError, match="width is 0"):
        EmbeddingBag(10, 0)


# ---------------------------------------------------------------------------- class token, pooling


def test_class_token_stands_in_front():
    x = np.arange(12, dtype="float32").reshape(2, 3, 2)
    mask = np.array([[True, True, False], [False, False, False]])
    layer = ClassToken()
    y, longer = layer(x, mask=mask)
    assert_array_equal(y[:, 1:], x)
    assert_array_equal(y[:, 0], np.tile(layer.token[0], (2, 1)))
    assert_array_equal(longer, [[True, True, True, False], [True, False, False, False]])
    assert_array_equal(layer(x), y)


def test_first_real_step():
    x = np.array([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]], [[7.0], [8.0], [9.0]]], "float32")
    mask = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 0]], bool)
    assert_array_equal(Pooling("first")(x, mask=mask), [[1], [5], [0]])
    assert_array_equal(Pooling("first")(x), [[1], [4], [7]])


# -------------------------------------------------------------------------------------- positions


@pytest.mark.parametrize("length", [1024, 1025, 5000])
def test_positions_of_long_sequences_equal_the_table(length):
    layer = SinusoidalPositions(max_length=length)
    graph = tf.function(layer, input_signature=[tf.TensorSpec((None, None, 6), "float32")])
    table = sinusoid_table(length, 6)
    for steps in {1, 255, 257, length - 1, length}:
        zeros = np.zeros((1, steps, 6), "float32")
        assert_allclose(layer(zeros)[0], table[:steps], atol=1e-5)
        assert_allclose(graph(zeros)[0], table[:steps], atol=1e-5)


@pytest.mark.parametrize("kind", [SinusoidalPositions, LearnedPositions])
def test_a_sequence_that_is_too_long_is_an_error(kind):
    layer = kind(max_length=1500)
    with pytest.raises(ValueError, match="got 2000 steps and knows 1500 positions"):
        layer(np.zeros((1, 2000, 4), "float32"))
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, layer(inputs))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        model.predict(np.zeros((1, 2000, 4), "float32"), verbose=0)
