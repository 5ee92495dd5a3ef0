"""Scores and baselines of tags, against counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from keras_seq.baselines.tagging import FeatureTagger, FrequentTag, MajorityTag
from keras_seq.evaluation.tagging import (
    are_spans,
    sentence_errors,
    span_f1,
    spans,
    tagging_scores,
)


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("O O", []),
        ("B-X I-X O B-X", [(0, 2, "X"), (3, 4, "X")]),
        # IOB1: I begins a span; B only parts two of one type.
        ("I-X I-X B-X I-Y", [(0, 2, "X"), (2, 3, "X"), (3, 4, "Y")]),
        # A change of type ends a span even without B.
        ("B-X I-Y I-Y", [(0, 1, "X"), (1, 3, "Y")]),
        # BIOES and BILOU.
        ("S-X B-Y I-Y E-Y S-Y", [(0, 1, "X"), (1, 4, "Y"), (4, 5, "Y")]),
        ("U-X B-Y I-Y L-Y U-Y", [(0, 1, "X"), (1, 4, "Y"), (4, 5, "Y")]),
        # E ends a span; what goes on after it is another one.
        ("B-X E-X I-X", [(0, 2, "X"), (2, 3, "X")]),
        ("E-X E-X", [(0, 1, "X"), (1, 2, "X")]),
        ("B-a-b I-a-b", [(0, 2, "a-b")]),
        ("", []),
    ],
)
def test_spans_by_the_rules_of_conlleval(tags: str, wanted: list[tuple[int, int, str]]):
    assert spans(tags.split()) == set(wanted)


def test_span_f1_by_hand():
    truth = [["B-PER", "I-PER", "O", "B-LOC", "O"], ["O", "B-ORG", "I-ORG", "O"], ["O", "O"]]
    answer = [["B-PER", "I-PER", "O", "B-ORG", "O"], ["O", "B-ORG", "O", "O"], ["B-LOC", "O"]]
    # Right: PER. Given: PER, ORG, ORG (too short), LOC. True: PER, LOC, ORG.
    assert span_f1(truth, answer) == pytest.approx(2 * 1 / (4 + 3))
    assert span_f1(truth, truth) == 1
    assert math.isnan(span_f1([["O"]], [["O"]]))


def test_what_looks_like_spans():
    assert are_spans(["O", "B-PER", "I-PER", "S-LOC"])
    assert not are_spans(["NOUN", "X", "VERB"])
    assert not are_spans(["B-PER", "I-PER"])  # nothing is outside
    assert not are_spans(["O"])
    assert not are_spans(["O", "B", "I"])


def test_scores_by_hand():
    tags = ["A", "B", "C"]
    truth = [0, 0, 1, 1, 2, 0, 1]
    answer = [0, 1, 1, 1, 2, 0, 0]
    offsets = [0, 3, 5, 7]
    known = [True, True, False, True, True, True, False]
    found = tagging_scores(truth, answer, offsets, tags=tags, known=known)
    assert found["accuracy"] == pytest.approx(5 / 7)
    assert found["known_accuracy"] == pytest.approx(4 / 5)
    assert found["unknown_accuracy"] == pytest.approx(1 / 2)
    assert found["sentence_accuracy"] == pytest.approx(1 / 3)
    f1 = [2 * 2 / (3 + 3), 2 * 2 / (3 + 3), 1.0]
    assert found["macro_f1"] == pytest.approx(np.mean(f1))
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
    assert "span_f1" not in found


def test_macro_f1_agrees_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 5, 300)
    answer = np.where(generator.random(300) < 0.7, truth, generator.integers(0, 5, 300))
    found = tagging_scores(truth, answer, [0, 100, 300], tags=list("ABCDE"), known=truth < 9)
    wanted = metrics.f1_score(truth, answer, average="macro")
    assert found["macro_f1"] == pytest.approx(wanted)
    assert math.isnan(found["unknown_accuracy"])


def test_a_tag_that_training_never_saw_is_an_error():
    found = tagging_scores([0, 2], [0, 1], [0, 2], tags=["O", "B-X"], known=[True, True])
    assert found["accuracy"] == 0.5
    assert found["span_f1"] == 0.0


def test_interval_draws_sentences_not_tokens():
    """Sentences that are right or wrong as a whole: the interval is that of sentences."""
    right = np.repeat(np.arange(40) < 30, 50)
    truth, offsets = np.zeros(2000, int), np.arange(0, 2001, 50)
    found = tagging_scores(truth, ~right, offsets, tags=["A", "B"], known=right)
    spread = math.sqrt(0.75 * 0.25 / 40)
    assert found["accuracy_high"] - found["accuracy_low"] == pytest.approx(3.92 * spread, rel=0.15)


def test_errors_of_sentences():
    assert sentence_errors([0, 1, 1, 0], [1, 1, 0, 0], [0, 2, 2, 4]).tolist() == [1, 0, 1]


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="must be"):
        tagging_scores([0, 1], [0], [0, 2], tags=["A", "B"], known=[True, True])


# ---- baselines ----------------------------------------------------------------------------------

WORDS = [["the", "dog", "barked"], ["The", "cats", "walked", "home"], ["dogs", "walked"]]
TAGS = [np.array([0, 1, 2]), np.array([0, 1, 2, 1]), np.array([1, 2])]


@pytest.mark.parametrize("kind", [MajorityTag, FrequentTag, FeatureTagger])
def test_baselines_give_probabilities(kind):
    tagger = kind()
    tagger.fit(WORDS, TAGS, 4)
    found = tagger.predict([["the", "fog"], ["jumped"], []])
    assert found.shape == (3, 4)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    assert not found[:, 3].any()  # a tag that training never gave


def test_majority_is_the_share_of_each_tag():
    tagger = MajorityTag()
    tagger.fit(WORDS, TAGS, 3)
    np.testing.assert_allclose(tagger.predict([["x"]])[0], [2 / 9, 4 / 9, 3 / 9])


def test_unknown_words_go_by_their_ending():
    words = [[f"{stem}ed", f"{stem}s"] for stem in ("jump", "call", "want", "play", "ask", "mix")]
    tagger = FrequentTag()
    tagger.fit([*words, ["ran"]], [*[np.array([0, 1])] * 6, np.array([2])], 3)
    assert tagger.predict([["ran", "pulled", "trees", "qq"]]).argmax(1)[:3].tolist() == [2, 0, 1]


def test_the_feature_tagger_sees_neighbours():
    words = [["a", "run"], ["to", "run"]] * 20
    tagger = FeatureTagger()
    tagger.fit(words, [np.array([0, 1]), np.array([2, 3])] * 20, 4)
    assert tagger.predict([["a", "run"], ["to", "run"]]).argmax(1).tolist() == [0, 1, 2, 3]


def test_a_single_tag_needs_no_model():
    tagger = FeatureTagger()
    tagger.fit([["a", "b"]], [np.array([1, 1])], 2)
    assert tagger.predict([["c"]]).tolist() == [[0.0, 1.0]]
