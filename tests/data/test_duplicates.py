"""Near duplicates against a comparison of all pairs."""

from __future__ import annotations

import random
import re

import pytest

from keras_seq.data import make_reviews, near_duplicates, read_texts
from keras_seq.errors import UserError


def pieces(text, size):
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1))}


def jaccard(a, b, size=5):
    a, b = pieces(a, size), pieces(b, size)
    return len(a & b) / len(a | b)


def changed(texts, most, seed=0):
    draw = random.Random(seed)
    found = []
    for text in texts:
        words = text.split()
        for _ in range(draw.randint(0, most)):
            words[draw.randrange(len(words))] = "other"
        found.append(" ".join(words))
    return found


@pytest.fixture(scope="module")
def texts():
    """Texts of 60 to 120 words, all different."""
    draw = random.Random(0)
    words = [f"word{i}" for i in range(2000)]
    return [" ".join(draw.choices(words, k=draw.randint(60, 120))) for _ in range(400)]


@pytest.mark.parametrize("threshold", [0.9, 0.7, 0.5])
def test_all_pairs_over_the_threshold_are_found(texts, threshold):
    second = changed(texts, 6)
    want = {j: jaccard(texts[j], second[j]) for j in range(len(texts))}
    want = {j: value for j, value in want.items() if value >= threshold}
    found = near_duplicates(texts, second, threshold=threshold)
    assert {j for _, j, _ in found} == set(want)
    assert len(want) > 30
    for i, j, similarity in found:
        assert i == j and similarity == pytest.approx(want[j])


def test_different_texts_are_none(texts):
    assert near_duplicates(texts[:200], texts[200:], threshold=0.2) == []


def test_equal_texts_and_case_and_punctuation(texts):
    second = [texts[3], texts[5].upper().replace(" ", ", "), "nothing like it"]
    assert near_duplicates(texts, second) == [(3, 0, 1.0), (5, 1, 1.0)]
    assert near_duplicates(texts, second, threshold=1.0) == [(3, 0, 1.0), (5, 1, 1.0)]


def test_the_most_alike_is_given(texts):
    words = texts[0].split()
    close, closer = [*words], [*words]
    close[10], close[40], closer[10] = "x", "x", "x"
    first = [" ".join(close), " ".join(closer), " ".join(closer)]
    (pair,) = near_duplicates(first, [texts[0]], threshold=0.5)
    assert pair == (1, 0, pytest.approx(jaccard(first[1], texts[0])))


def test_short_and_empty_texts():
    first = ["", "good", "a really good little film about nothing much at all", "very bad film"]
    second = ["", " ", "Good!", "bad", "a really good little film about nothing much", "very bad"]
    found = near_duplicates(first, second, threshold=0.7)
    assert found == [(1, 2, 1.0), (2, 4, pytest.approx(6 / 8))]


@pytest.mark.parametrize("words", range(17, 28))
def test_no_pair_is_torn_apart_by_its_length(words):
    text = " ".join(f"w{i}" for i in range(words))
    assert near_duplicates([text], [text + " more"], threshold=0.8)


def test_texts_without_words_between_spaces():
    draw = random.Random(0)
    first = ["".join(draw.choices("ACGT", k=300)) for _ in range(50)]
    second = [text[:150] + "A" + text[151:] for text in first]
    found = near_duplicates(first, second, threshold=0.8)
    assert [(i, j) for i, j, _ in found] == [(i, i) for i in range(50)]
    assert near_duplicates(first[:25], first[25:], threshold=0.8) == []


def test_it_is_the_same_every_time(texts):
    second = changed(texts, 4)
    assert near_duplicates(texts, second) == near_duplicates(texts, second)


def test_one_text_many_times_is_quick():
    film = "the very same review stands here again and again " * 5
    found = near_duplicates([film + "!"] * 3000, [film + "?"] * 3000)
    assert found == [(0, j, 1.0) for j in range(3000)]


def test_nothing_to_compare():
    assert near_duplicates([], ["a"]) == near_duplicates(["a"], []) == []
    reviews = make_reviews(50).texts
    assert len(near_duplicates(reviews, reviews)) == 50
    for threshold in (0, 1.1, -1):
        with pytest.raises(UserError, match="over 0 and at most 1"):
            near_duplicates(["a"], ["a"], threshold=threshold)


@pytest.mark.realdata
@pytest.mark.slow
def test_imdb(data_path):
    first, second = (
        read_texts(data_path / "sentiment" / f"imdb_{part}.tsv.gz").texts
        for part in ("train", "test")
    )
    found = near_duplicates(first, second)
    assert sum(first[i] == second[j] for i, j, _ in found) == 123
    assert all(similarity >= 0.9 for _, _, similarity in found)
