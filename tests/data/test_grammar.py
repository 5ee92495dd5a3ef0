"""The synthetic reviews: words alone know nothing, their order knows everything."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from keras_seq.data import make_reviews
from keras_seq.data.grammar import _BAD, _GOOD, _SENTENCES
from keras_seq.errors import UserError


@pytest.fixture(scope="module")
def table():
    return make_reviews(6000)


def words_of(text):
    return re.findall(r"\w+", text.lower())


def test_what_comes(table):
    assert Counter(table.labels) == {"negative": 3000, "positive": 3000}
    assert len(set(table.texts)) == 6000
    assert table.source == "builtin:reviews" and table.label_name == "label"
    assert "synthetic" in table.report[0] and len(table.checksum) == 64
    assert max(len(words_of(text)) for text in table.texts) < 120
    assert all(re.match(r"[A-Z].*\.$", text) for text in table.texts)
    assert not any("{" in text or " ," in text or " i " in text for text in table.texts)


def test_it_is_the_same_every_time(table):
    again = make_reviews(6000)
    assert again.texts == table.texts and again.checksum == table.checksum
    other = make_reviews(6000, seed=1)
    assert other.checksum != table.checksum
    assert len(set(other.texts) & set(table.texts)) < 600


def test_sentences_hold_as_much_good_as_bad():
    assert not set(_GOOD) & set(_BAD) and len(_GOOD) == len(_BAD)
    for sentence in _SENTENCES:
        assert sentence.count("{s}") == sentence.count("{o}") == 1


def test_every_word_is_as_frequent_under_both_labels(table):
    counts = {name: Counter() for name in ("negative", "positive")}
    for text, label in zip(table.texts, table.labels, strict=True):
        counts[label].update(set(words_of(text)))
    for word, count in (counts["negative"] + counts["positive"]).items():
        # four and a half standard deviations of a fair coin
        assert abs(counts["positive"][word] - count / 2) < 4.5 * (count / 4) ** 0.5 + 1, word


@pytest.mark.parametrize("model", ["MultinomialNB", "LogisticRegression"])
def test_a_bag_of_words_stays_at_chance_and_order_helps(table, model):
    pytest.importorskip("sklearn")
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import MultinomialNB

    made = {
        "MultinomialNB": MultinomialNB(),
        "LogisticRegression": LogisticRegression(solver="liblinear"),
    }
    scores = []
    for longest in (1, 3):
        counts = CountVectorizer(ngram_range=(1, longest), token_pattern=r"\w+")
        x = counts.fit_transform(table.texts[:4500])
        fitted = made[model].fit(x, table.labels[:4500])
        scores.append(fitted.score(counts.transform(table.texts[4500:]), table.labels[4500:]))
    assert 0.4 <= scores[0] <= 0.6
    assert scores[1] >= 0.7


def test_wrong_counts():
    for count in (1, 2_000_000):
        with pytest.raises(UserError, match="2 to 1,000,000"):
            make_reviews(count)
