"""Scores of translations: n-grams counted here, numbers by hand, and sacreBLEU's own."""

from __future__ import annotations

import gzip
import math
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from sacrebleu import BLEU, CHRF, TER

from keras_seq.evaluation import (
    TOKENISERS,
    bleu_by_length,
    corpus_interval,
    corpus_score,
    corpus_test,
    rouge_l,
    sentence_scores,
    sentence_statistics,
    tokenised_note,
    translation_scores,
    translation_signatures,
)

WORDS = ["the", "a", "cat", "dog", "sat", "on", "mat", "with", "red", "hat", "and", ".", ","]


def lines(count: int, seed: int = 0, least: int = 1, most: int = 12) -> list[str]:
    generator = np.random.default_rng(seed)
    sizes = generator.integers(least, most, size=count)
    return [" ".join(generator.choice(WORDS, size=size)) for size in sizes]


def noisy(references: list[str], share: float, seed: int) -> list[str]:
    """Some words replaced, some left out."""
    generator = np.random.default_rng(seed)
    found = []
    for line in references:
        words = [
            str(generator.choice(WORDS)) if generator.random() < share else word
            for word in line.split()
            if generator.random() > share / 3
        ]
        found.append(" ".join(words))
    return found


def counted_bleu(hypotheses: list[str], references: list[str]) -> float:
    """BLEU as Papineni et al. write it, with mteval's smoothing; texts are split at blanks."""
    matches, totals = [0] * 4, [0] * 4
    for ours, theirs in zip(hypotheses, references, strict=True):
        first, second = ours.split(), theirs.split()
        for n in range(1, 5):
            a = Counter(tuple(first[i : i + n]) for i in range(len(first) - n + 1))
            b = Counter(tuple(second[i : i + n]) for i in range(len(second) - n + 1))
            matches[n - 1] += sum(min(a[gram], b[gram]) for gram in a)
            totals[n - 1] += sum(a.values())
    if not any(matches) or not all(totals):
        return 0.0
    product, half = 1.0, 1.0
    for match, total in zip(matches, totals, strict=True):
        if not match:
            half /= 2
        product *= (match or half) / total
    ours, theirs = (sum(len(x.split()) for x in row) for row in (hypotheses, references))
    return 100 * product**0.25 * min(1.0, math.exp(1 - theirs / ours))


def one_by_one(metric: BLEU | CHRF | TER, first: list[str], second: list[str]) -> list[float]:
    return [metric.sentence_score(a, [b]).score for a, b in zip(first, second, strict=True)]


# --- BLEU, chrF, TER


def test_bleu_by_hand():
    # 1-grams: the (2 of 3 count), cat, on, mat, of 7 -> 5; 2-grams: the cat, on the, the mat;
    # 3-grams: on the mat; no 4-gram, so half of one in 4. 7 words are more than 6: no penalty.
    rows = sentence_statistics(["the cat the cat on the mat"], ["the cat sat on the mat"])
    assert rows.tolist() == [[5, 3, 1, 0, 7, 6, 5, 4, 7, 6]]
    wanted = 100 * (5 / 7 * 3 / 6 * 1 / 5 * 0.5 / 4) ** 0.25
    assert corpus_score(rows) == pytest.approx(wanted, rel=1e-12)
    # 5 words for 8: precision 1 everywhere, and the penalty exp(1 - 8/5).
    rows = sentence_statistics(["a b c d e"], ["a b c d e f g h"])
    assert corpus_score(rows) == pytest.approx(100 * math.exp(-3 / 5), rel=1e-12)
    # Of a corpus counts are added, not scores: 5 + 4 words match of 9.
    rows = sentence_statistics(["a b c d e", "f g h i"], ["a b c d e", "f g h j"])
    assert corpus_score(rows) == pytest.approx(100 * (8 / 9 * 6 / 7 * 4 / 5 * 2 / 3) ** 0.25)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("least", [1, 5])
def test_bleu_is_that_of_counting_and_of_sacrebleu(share: float, least: int):
    references = lines(40, least=least)
    hypotheses = noisy(references, share, seed=1)
    rows = sentence_statistics(hypotheses, references, tokenize="none")
    assert corpus_score(rows) == pytest.approx(counted_bleu(hypotheses, references), rel=1e-10)
    theirs = BLEU(tokenize="none").corpus_score(hypotheses, [references]).score
    assert corpus_score(rows) == pytest.approx(theirs, rel=1e-10)
    alone = BLEU(tokenize="none", effective_order=True)
    wanted = [
        alone.sentence_score(a, [b]).score for a, b in zip(hypotheses, references, strict=True)
    ]
    np.testing.assert_allclose(sentence_scores(rows), wanted, rtol=1e-10)


@pytest.mark.parametrize(
    ("hypotheses", "references"),
    [
        ([""], ["a b c"]),
        ([""], [""]),
        (["a b c"], [""]),
        (["a"], ["a"]),
        (["x y z w"], ["a b c d"]),
        (["a b c"], ["a b c"]),  # no n-gram of four: 0 as a corpus, 100 as a sentence
        (["a b", ""], ["a c", "b"]),
    ],
)
def test_edges_are_those_of_sacrebleu(hypotheses: list[str], references: list[str]):
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF()), ("ter", TER())):
        rows = sentence_statistics(hypotheses, references, name)
        theirs = metric.corpus_score(hypotheses, [references]).score
        assert corpus_score(rows, name) == pytest.approx(theirs, abs=1e-9)
        alone = BLEU(effective_order=True) if name == "bleu" else metric
        wanted = [
            alone.sentence_score(a, [b]).score for a, b in zip(hypotheses, references, strict=True)
        ]
        np.testing.assert_allclose(sentence_scores(rows, name), wanted, atol=1e-9)


def test_chrf_and_ter_by_hand():
    # Letters: "abcd" has all its 1-grams but one; "abce".
    # n = 1: 3 of 4; n = 2: ab bc of 3; n = 3: abc of 2; n = 4: none of 1; no longer ones.
    precision = (3 / 4 + 2 / 3 + 1 / 2 + 0) / 4
    rows = sentence_statistics(["ab cd"], ["ab ce"], "chrf")
    assert corpus_score(rows, "chrf") == pytest.approx(100 * precision)  # recall is the same
    # "b c a" to "a b c": one shift; "a x c d" to "a b c": a substitution and a deletion.
    rows = sentence_statistics(["b c a", "a x c d"], ["a b c", "a b c"], "ter")
    assert rows.tolist() == [[1, 3], [2, 3]]
    assert corpus_score(rows, "ter") == pytest.approx(100 * 3 / 6)


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_chrf_and_ter_are_those_of_sacrebleu(share: float):
    references = lines(30)
    hypotheses = noisy(references, share, seed=2)
    for name, metric in (("chrf", CHRF()), ("ter", TER())):
        rows = sentence_statistics(hypotheses, references, name)
        theirs = metric.corpus_score(hypotheses, [references]).score
        assert corpus_score(rows, name) == pytest.approx(theirs, rel=1e-10)
        wanted = [
            metric.sentence_score(a, [b]).score for a, b in zip(hypotheses, references, strict=True)
        ]
        np.testing.assert_allclose(sentence_scores(rows, name), wanted, rtol=1e-10)


def test_case_and_tokens():
    ours, theirs = ["Ein Mann geht, und ein Hund."], ["ein Mann geht , und Ein Hund ."]
    found = translation_scores(ours, theirs)
    assert found["bleu_lowercase"] == pytest.approx(100)  # 13a parts the signs from the words
    assert found["bleu"] < 100 and found["exact_match"] == 0
    assert found["token_accuracy"] == pytest.approx(6 / 8)
    # Chinese has no blanks: one "word" to 13a, five to zh.
    chinese = ["我爱你。"], ["我爱她。"]
    assert translation_scores(*chinese)["token_accuracy"] == 0
    assert translation_scores(*chinese, tokenize="zh")["token_accuracy"] == pytest.approx(3 / 4)


def test_scores_of_the_reference_itself():
    references = ["A man sleeps on a bench.", "Two dogs run over the grass."]
    found = translation_scores(references, references)
    perfect = {"bleu", "bleu_low", "bleu_high", "bleu_lowercase", "chrf", "rouge_l"}
    assert all(found[name] == pytest.approx(100) for name in perfect)
    assert found["ter"] == 0
    assert found["exact_match"] == found["token_accuracy"] == found["length_ratio"] == 1
    assert set(found) == {*perfect, "ter", "exact_match", "token_accuracy", "length_ratio"}


def test_signatures_say_what_is_scored():
    found = translation_signatures("intl")
    assert "case:mixed" in found["bleu"] and "tok:intl" in found["bleu"]
    assert "case:lc" in found["bleu_lowercase"] and "smooth:exp" in found["bleu_lowercase"]
    assert "nc:6|nw:0" in found["chrf"] and "case:lc" in found["ter"]
    assert "tokens by intl" in found["rouge_l"]
    for name in TOKENISERS:  # none of them may want a download
        sentence_statistics(["ein Satz."], ["ein Satz."], tokenize=name)


def test_tokenised_texts_are_noticed():
    assert tokenised_note(["a man .", "a dog ."] * 3) != ""
    assert tokenised_note(["a man."] * 19 + ["a dog ."]) == ""  # one in twenty is chance


# --- ROUGE-L, matches, places


def test_rouge_l_by_hand():
    # Lin's example: three of four words in order; then "the gunman".
    found = rouge_l(
        ["police killed the gunman", "the gunman kill police", "", ""],
        ["police kill the gunman", "police kill the gunman", "a", ""],
    )
    np.testing.assert_allclose(found, [75, 50, 0, 100])
    # Precision 2/2, recall 2/4.
    assert rouge_l(["Der Hund"], ["der große hund rennt"])[0] == pytest.approx(100 * 2 / 3)
    assert rouge_l(["Der Hund"], ["der hund"], lowercase=False)[0] == 0


def test_rouge_l_is_that_of_a_table():
    first, second = lines(60, seed=3, most=90), lines(60, seed=4, most=90)
    for a, b, found in zip(first, second, rouge_l(first, second, tokenize="none"), strict=True):
        x, y = a.split(), b.split()
        table = np.zeros((len(x) + 1, len(y) + 1), int)
        for i, j in np.ndindex(len(x), len(y)):
            best = max(table[i, j + 1], table[i + 1, j])
            table[i + 1, j + 1] = table[i, j] + 1 if x[i] == y[j] else best
        assert found == pytest.approx(200 * table[-1, -1] / (len(x) + len(y)))


def test_matches_and_places_by_hand():
    found = translation_scores(["a b c", "a  b ", "x"], ["a x c d", "a b", "x y z"])
    assert found["exact_match"] == pytest.approx(1 / 3)  # the second: blanks aside
    # a and c of 4 places; both; x of 3.
    assert found["token_accuracy"] == pytest.approx((2 + 2 + 1) / (4 + 2 + 3))
    assert found["length_ratio"] == pytest.approx((3 + 2 + 1) / (4 + 2 + 3))


# --- by length


def test_bleu_by_length():
    references = lines(60, least=4, most=30)
    hypotheses = noisy(references, 0.2, seed=5)
    lengths = np.array([len(line.split()) for line in references])
    found = bleu_by_length(hypotheses, references, lengths, starts=(0, 10, 20, 40))
    assert [
        (b.shortest >= low, b.longest < high)
        for b, low, high in zip(found, (0, 10, 20), (10, 20, 40), strict=True)
    ] == [(True, True)] * 3  # the empty bucket is left out
    assert sum(b.count for b in found) == 60
    for bucket, inside in zip(
        found, (lengths < 10, (lengths >= 10) & (lengths < 20), lengths >= 20), strict=True
    ):
        picked = np.flatnonzero(inside)
        theirs = BLEU().corpus_score(
            [hypotheses[i] for i in picked], [[references[i] for i in picked]]
        )
        assert bucket.score == pytest.approx(theirs.score) and bucket.count == len(picked)
        assert bucket.low < bucket.score < bucket.high
    # By themselves: about as many in each, and a length is never parted.
    found = bleu_by_length(hypotheses, references, lengths, buckets=4)
    assert len(found) == 4 and all(8 <= b.count <= 22 for b in found)
    assert all(a.longest < b.shortest for a, b in pairwise(found))
    same = bleu_by_length(hypotheses, references, np.full(60, 7))
    assert [(b.shortest, b.longest, b.count) for b in same] == [(7, 7, 60)]
    # What is shorter than the first start is left out.
    assert sum(
        b.count for b in bleu_by_length(hypotheses, references, lengths, starts=(10,))
    ) == int((lengths >= 10).sum())


# --- intervals and tests


def test_the_interval_is_that_of_resamples_that_are_written_out():
    references = lines(12, least=5)
    hypotheses = noisy(references, 0.2, seed=6)
    drawn = np.random.default_rng(3).integers(12, size=(30, 12))
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF()), ("ter", TER())):
        scores = [
            metric.corpus_score([hypotheses[i] for i in row], [[references[i] for i in row]]).score
            for row in drawn
        ]
        rows = sentence_statistics(hypotheses, references, name)
        found = corpus_interval(rows, name, level=0.9, resamples=30, seed=3)
        np.testing.assert_allclose(found, np.quantile(scores, [0.05, 0.95]), rtol=1e-9)


def test_the_draw_does_not_depend_on_memory(monkeypatch):
    from keras_seq.evaluation import translation

    rows = sentence_statistics(noisy(lines(20), 0.3, 0), lines(20))
    whole = corpus_interval(rows, resamples=50)
    monkeypatch.setattr(translation, "_MOST_DRAWN", 20 * 7)
    assert corpus_interval(rows, resamples=50) == whole


def test_equal_systems_have_any_p_value_and_different_ones_a_small_one():
    references = lines(200, least=5)
    first = sentence_statistics(noisy(references, 0.3, seed=7), references)
    second = sentence_statistics(noisy(references, 0.3, seed=8), references)
    # Sentences that are swapped between two systems at random make two systems that are equal.
    generator = np.random.default_rng(0)
    found = []
    for seed in range(80):
        swap = generator.random((200, 1)) < 0.5
        pair = np.where(swap, first, second), np.where(swap, second, first)
        found.append(corpus_test(*pair, resamples=200, seed=seed).p_value)
    assert 0.4 < np.mean(found) < 0.6
    assert 0.0 < np.mean(np.array(found) < 0.2) < 0.3
    worse = sentence_statistics(noisy(references, 0.45, seed=9), references)
    better = corpus_test(first, worse, resamples=500)
    assert better.p_value < 0.01 and better.statistic < -3
    assert better.mean_difference == pytest.approx(corpus_score(worse) - corpus_score(first))
    back = corpus_test(worse, first, resamples=500)
    assert back.p_value == better.p_value and back.statistic == -better.statistic
    assert back.mean_difference == -better.mean_difference > 0
    assert corpus_test(first, worse, resamples=500) == better  # the seed decides
    for metric in ("chrf", "ter"):
        ours, theirs = (
            sentence_statistics(noisy(references, share, seed=7), references, metric)
            for share in (0.2, 0.5)
        )
        found = corpus_test(ours, theirs, metric, resamples=500)
        assert found.p_value < 0.01 and found.mean_difference < 0  # the first is better


def test_means_over_seeds_are_tested_too():
    references = lines(80, least=5)
    runs = [sentence_statistics(noisy(references, 0.2, s), references) for s in range(3)]
    mean = np.mean(runs, axis=0)
    # All runs as one long corpus have the same score.
    assert corpus_score(mean) == pytest.approx(corpus_score(np.concatenate(runs)))
    worse = sentence_statistics(noisy(references, 0.5, 9), references)
    assert corpus_test(mean, worse, resamples=500).p_value < 0.01


def test_tests_without_anything_to_tell():
    rows = sentence_statistics(["a b c d e"] * 5, ["a b c d f"] * 5)
    same = corpus_test(rows, rows)
    assert (same.p_value, same.statistic, same.mean_difference) == (1.0, 0.0, 0.0)
    assert "same counts" in same.note
    other = sentence_statistics(["a b c d f"] * 5, ["a b c d f"] * 5)
    assert (
        corpus_test(rows[:1], other[:1]).p_value == 1
        and "one" in corpus_test(rows[:1], other[:1]).note
    )
    constant = corpus_test(rows, other, resamples=200)
    assert constant.statistic == math.inf and constant.p_value == pytest.approx(2 / 201)


# --- what is refused


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: translation_scores(["a"], ["a", "b"]), "1 hypotheses and 2 references"),
        (lambda: translation_scores([], []), "at least one"),
        (lambda: translation_scores("ab", "ab"), "list of texts"),
        (lambda: translation_scores(["a"], ["a"], tokenize="spm"), "13a, intl"),
        (lambda: translation_signatures("moses"), "moses"),
        (lambda: sentence_statistics(["a"], ["a"], "meteor"), "bleu, chrf, ter"),
        (lambda: corpus_score([[1.0, 2.0]]), r"wanted \(N, 10\)"),
        (lambda: corpus_score([[1.0, 2.0]], "wer"), "bleu, chrf, ter"),
        (lambda: corpus_interval([[1.0, 2.0]], "ter", level=95), "0.95"),
        (lambda: corpus_interval([[1.0, 2.0]], "ter", resamples=0), "at least 1"),
        (lambda: corpus_test([[1.0, 2.0]], [[1.0, 2.0]] * 2, "ter"), "same sentences"),
        (lambda: bleu_by_length(["a"], ["a"], [1, 2]), "one for each of 1"),
        (lambda: bleu_by_length(["a"], ["a"], [1], starts=(5, 5)), "ascending"),
        (lambda: bleu_by_length(["a"], ["a"], [1], buckets=0), "at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_needs_no_tensorflow():
    code = (
        "import sys, keras_seq.evaluation.translation; "
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.realdata
@pytest.mark.slow
def test_multi30k(data_path):
    def read(name: str) -> list[str]:
        with gzip.open(data_path / "translation" / f"{name}.gz", "rt", encoding="utf-8") as file:
            return file.read().splitlines()

    english, german = read("test_2016_flickr.en"), read("test_2016_flickr.de")
    assert len(english) == len(german) == 1000
    itself = translation_scores(german, german, resamples=50)
    assert itself["bleu"] == pytest.approx(100) and itself["chrf"] == pytest.approx(100)
    assert itself["ter"] == 0 and itself["exact_match"] == 1
    # A copy has names, numbers and full stops right. sacreBLEU's command line says the same.
    copied = translation_scores(english, german)
    print(copied, translation_signatures())
    assert copied["bleu"] == pytest.approx(0.48, abs=0.01)
    assert copied["bleu_lowercase"] == pytest.approx(0.74, abs=0.01)
    assert copied["chrf"] == pytest.approx(16.34, abs=0.01)
    assert copied["ter"] == pytest.approx(106.75, abs=0.05)
    assert tokenised_note(german) == ""
    buckets = bleu_by_length(english, german, [len(line.split()) for line in english])
    assert sum(b.count for b in buckets) == 1000 and len(buckets) == 6
