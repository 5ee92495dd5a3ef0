"""Baselines of labels: by hand, and against scikit-learn's own pipelines."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB

from keras_seq.baselines import (
    FEATURE_BASELINES,
    TEXT_BASELINES,
    Logistic,
    Majority,
    NaiveBayes,
    NaiveBayesLogistic,
    NearestNeighbours,
    PositionLogistic,
    ngram_features,
    sequence_features,
)
from keras_seq.data import TokenStore


def texts(count: int = 200, seed: int = 0, words: int = 30) -> tuple[TokenStore, np.ndarray]:
    """Ids from 5 on; one class has some words more often than the other."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=count)
    shares = np.stack([np.linspace(1, 3, words), np.linspace(3, 1, words)])
    shares /= shares.sum(1, keepdims=True)
    rows = [
        5 + generator.choice(words, size=generator.integers(1, 25), p=shares[label])
        for label in labels
    ]
    return TokenStore.from_rows(rows), labels


def as_strings(store: TokenStore) -> list[str]:
    return [" ".join(f"w{i:03d}" for i in row) for row in store]


@pytest.mark.parametrize("orders", [1, 2, 3])
@pytest.mark.parametrize("binary", [True, False])
def test_ngrams_are_those_of_scikit_learn(orders: int, binary: bool):
    store, _ = texts()
    test, _ = texts(seed=1, words=40)  # some n-grams were not seen
    vectorizer = CountVectorizer(ngram_range=(1, orders), binary=binary, token_pattern=r"\S+")
    theirs = vectorizer.fit_transform(as_strings(store))
    ours, keys = ngram_features(store, orders, binary=binary)
    assert ours.shape == theirs.shape
    # The columns stand in another order: compare what they hold.
    assert sorted(ours.sum(0).tolist()) == sorted(np.asarray(theirs.sum(0)).ravel().tolist())
    assert ours.sum(1).tolist() == np.asarray(theirs.sum(1)).ravel().tolist()
    again, _ = ngram_features(test, orders, keys=keys, binary=binary)
    expected = vectorizer.transform(as_strings(test))
    assert again.shape == expected.shape
    assert again.sum(1).tolist() == np.asarray(expected.sum(1)).ravel().tolist()


def test_naive_bayes_is_that_of_scikit_learn():
    store, labels = texts()
    test, _ = texts(seed=1)
    vectorizer = CountVectorizer(token_pattern=r"\S+")
    theirs = MultinomialNB().fit(vectorizer.fit_transform(as_strings(store)), labels)
    ours = NaiveBayes().fit(store, np.eye(2)[labels])
    expected = theirs.predict_proba(vectorizer.transform(as_strings(test)))
    assert ours.predict(test) == pytest.approx(expected, abs=1e-6)


def test_naive_bayes_logistic_is_the_published_recipe():
    store, labels = texts()
    test, truth = texts(seed=1)
    vectorizer = CountVectorizer(ngram_range=(1, 2), binary=True, token_pattern=r"\S+")
    x = vectorizer.fit_transform(as_strings(store)).toarray().astype(float)
    p, q = x[labels == 1].sum(0) + 1, x[labels == 0].sum(0) + 1
    ratio = np.log(p / p.sum() / (q / q.sum()))
    theirs = LogisticRegression(C=1.0, solver="liblinear", max_iter=10_000, tol=1e-8)
    theirs.fit(x * ratio, labels)
    expected = theirs.predict_proba(vectorizer.transform(as_strings(test)).toarray() * ratio)
    ours = NaiveBayesLogistic(orders=2).fit(store, np.eye(2)[labels])
    given = ours.predict(test)
    assert given == pytest.approx(expected, abs=0.02)
    assert (given.argmax(1) == truth).mean() > 0.7
    assert ours.notes == ()


def test_more_classes_and_several_labels():
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=150)
    rows = [[5 + label, 8 + generator.integers(4)] for label in labels]
    store = TokenStore.from_rows(rows)
    table = np.eye(3)[labels]
    for name, factory in TEXT_BASELINES.items():
        given = factory().fit(store, table).predict(store)
        assert given.shape == (150, 3)
        assert given.sum(1) == pytest.approx(np.ones(150)), name
        if name != "majority":
            assert (given.argmax(1) == labels).all(), name
    several = table.copy()
    several[:, 0] = 1  # a label that all have
    for name, factory in TEXT_BASELINES.items():
        given = factory().fit(store, several, exclusive=False).predict(store)
        assert (given[:, 0] > 0.5).all(), name
        if name != "majority":
            assert ((given >= 0.5) == (several == 1)).mean() > 0.95, name


def test_majority_gives_shares():
    given = Majority().fit(range(4), [[1, 0], [1, 0], [1, 0], [0, 1]]).predict(range(2))
    assert given.tolist() == [[0.75, 0.25], [0.75, 0.25]]


def test_positions_matter_to_position_logistic():
    generator = np.random.default_rng(0)
    rows = generator.integers(5, 9, size=(300, 6))
    labels = (rows[:, 3] == 5).astype(int)  # what stands at one place decides
    store = TokenStore.from_rows(rows.astype(np.int32))
    found = PositionLogistic(strength=1.0).fit(store, np.eye(2)[labels])
    assert (found.predict(store).argmax(1) == labels).mean() == 1.0
    # Longer texts and ids that were not seen are no error.
    assert found.predict(TokenStore.from_rows([[9] * 8])).shape == (1, 2)


def test_features_of_sequences_by_hand():
    found = sequence_features([np.array([[1.0], [2.0], [3.0]]), np.array([[5.0], [5.0]])])
    first = [2, np.sqrt(2 / 3), 1, 3, 1, 3, 1, 3]
    assert found[0] == pytest.approx(first)
    assert found[1].tolist() == [5, 0, 5, 5, 5, 5, 0, 2]


def test_feature_baselines_learn_what_is_easy():
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=120)
    values = generator.normal(size=(120, 8)) + 3 * labels[:, None]
    for name, factory in FEATURE_BASELINES.items():
        given = factory().fit(values, np.eye(3)[labels]).predict(values)
        assert given.sum(1) == pytest.approx(np.ones(120))
        if name != "majority":
            assert (given.argmax(1) == labels).mean() > 0.95, name
    assert set(FEATURE_BASELINES) == {Majority.name, Logistic.name, NearestNeighbours.name}


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="wanted"):
        Majority().fit(range(3), [[1, 0]])
    with pytest.raises(ValueError, match="1 to 3"):
        ngram_features(TokenStore.from_rows([[5]]), 4)
