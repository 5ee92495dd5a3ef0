"""Baselines of translation: tables by hand and by plain loops, and what odd texts become."""

from __future__ import annotations

import gzip
import itertools
import time
from collections import defaultdict

import numpy as np
import pytest

from keras_seq.baselines import TRANSLATORS, CopySource, TranslationMemory, WordTable
from keras_seq.baselines import translation as module
from keras_seq.evaluation import translation_scores

SOURCES = ["the house", "the book", "a book"]
TARGETS = ["das Haus", "das Buch", "ein Buch"]


def plain_model_1(sources, targets, iterations):
    """IBM model 1 in loops over dictionaries, with an empty source word."""
    pairs = [
        (["", *a.lower().split()], b.lower().split()) for a, b in zip(sources, targets, strict=True)
    ]
    table = defaultdict(lambda: 1.0)
    for _ in range(iterations):
        counts, totals = defaultdict(float), defaultdict(float)
        for ours, theirs in pairs:
            for f in theirs:
                total = sum(table[e, f] for e in ours)
                for e in ours:
                    counts[e, f] += table[e, f] / total
                    totals[e] += table[e, f] / total
        table = defaultdict(float, {(e, f): n / totals[e] for (e, f), n in counts.items()})
    return table


@pytest.mark.parametrize("name", TRANSLATORS)
def test_every_translator(name):
    translator = TRANSLATORS[name]()
    assert translator.note == ""
    translator.fit(SOURCES, TARGETS)
    found = translator.predict([*SOURCES, "", "xyz 7"])
    assert len(found) == 5 and all(isinstance(text, str) for text in found)
    assert found[3:] == ["", "xyz 7"]  # nothing is known of them
    assert translator.predict([]) == []
    for odd in ([], ["a", "b"]):
        with pytest.raises(ValueError, match=f"{len(odd)} sources and 0 targets"):
            TRANSLATORS[name]().fit(odd, [])


def test_copies():
    copy = CopySource()
    copy.fit(SOURCES, TARGETS)
    assert copy.predict(["Berlin, 1989 "]) == ["Berlin, 1989 "]


# --- the memory


def test_the_memory_gives_the_nearest_sentence():
    memory = TranslationMemory()
    memory.fit(["a man sleeps", "a dog runs fast", "a man runs"], ["1", "2", "3"])
    # Each sentence of the memory is nearest to itself; order counts through pairs of words.
    assert memory.predict(["A man sleeps.", "a dog runs fast", "a man runs"]) == ["1", "2", "3"]
    assert memory.predict(["the dog", "who sleeps"]) == ["2", "1"]
    memory.fit(["x y z", "y x z"], ["1", "2"])
    assert memory.predict(["y x", "x y"]) == ["2", "1"]
    memory.fit(["same", "same"], ["first", "second"])
    assert memory.predict(["same"]) == ["first"]


def test_the_memory_looks_up_in_chunks(monkeypatch):
    sources = [f"word{i} word{i + 1}" for i in range(20)]
    targets = [str(i) for i in range(20)]
    monkeypatch.setattr(module, "_CHUNK", 3)
    memory = TranslationMemory()
    memory.fit(sources, targets)
    assert memory.predict(sources) == targets
    monkeypatch.setattr(module, "_MOST_PAIRS", 7)  # every third pair: 0, 3, 6, ...
    memory.fit(sources, targets)
    assert memory.note == "learned from one of 3 pairs, 7 of 20"
    assert memory.predict(["word6 word7"]) == ["6"]
    assert memory.predict(["word11"]) == ["word11"]


# --- the table of words


@pytest.mark.parametrize("iterations", [1, 2, 10])
def test_model_1_is_that_of_plain_loops(iterations):
    sources = [*SOURCES, "the the small house", "book", "a small house in the book"]
    targets = [*TARGETS, "das kleine Haus", "Buch Buch", "ein kleines Haus im Buch"]
    wanted = plain_model_1(sources, targets, iterations)
    table = WordTable(iterations)
    table.fit(sources, targets)
    for word in {"", *" ".join(sources).split()}:
        best = max(p for (e, _), p in wanted.items() if e == word)
        found, share = table.translate(word)
        assert share == pytest.approx(best, rel=1e-12)
        assert wanted[word, found.lower()] == pytest.approx(best, rel=1e-12)


def test_one_iteration_by_hand():
    # Of two words and the empty one each has a third of each target word. "house" stands beside
    # das and Haus once: a half each. "the" stands beside das twice, Haus and Buch once.
    table = WordTable(1)
    table.fit(SOURCES, TARGETS)
    assert table.translate("the") == ("das", pytest.approx(1 / 2))
    assert table.translate("house")[1] == pytest.approx(1 / 2)
    assert table.translate("Book") == ("Buch", pytest.approx(1 / 2))


def test_a_toy_dictionary_is_learned():
    table = WordTable()
    table.fit(SOURCES, TARGETS)
    pairs = {"the": "das", "house": "Haus", "book": "Buch", "a": "ein"}
    assert {word: table.translate(word)[0] for word in pairs} == pairs
    # 40 words, sentences of two to six of them in any order: every word is found, and surely.
    generator = np.random.default_rng(0)
    rows = [generator.choice(40, size=generator.integers(2, 7), replace=False) for _ in range(300)]
    sources = [" ".join(f"s{i}" for i in row) for row in rows]
    targets = [" ".join(f"t{i}" for i in generator.permutation(row)) for row in rows]
    table = WordTable(20)
    table.fit(sources, targets)
    for i in range(40):
        word, share = table.translate(f"s{i}")
        assert word == f"t{i}" and share > 0.9
    assert table.predict(["s3 s1 s2"]) == ["t3 t1 t2"]


def test_case_signs_and_unknown_words():
    sources = ["The dog sleeps.", "The cat sleeps", "A dog, a cat", "see the Dog", "no.", "yes, no"]
    targets = [
        "Der Hund schläft.", "Die Katze schläft", "Ein Hund, eine Katze", "sieh den Hund", "nein.",
        "ja, nein",
    ]  # fmt: skip
    table = WordTable()
    table.fit(sources, targets)
    # Written as within a sentence; the first letter is large where the source's is.
    assert table.predict(["dog", "Dog, cat.", "CAT"]) == ["Hund", "Hund, Katze.", "Katze"]
    assert table.predict(["No, yes.", "no"]) == ["Nein, ja.", "nein"]
    # What is unknown stays as it is.
    assert table.predict(["dog Zugspitze xyz", "(dog)"]) == ["Hund Zugspitze xyz", "(Hund)"]
    # What only ever begins a sentence is written as it is there.
    assert module._spelling([["Der", "Hund"], ["Den", "den"]]) == {
        "der": "Der", "hund": "Hund", "den": "den",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "Don't worry, it's 3.5 % (or so)!",
        "Ein T-Shirt: »grün«.",
        "我爱你。他走了。",
        "हिन्दी में लिखा है।",
        "رجل يرتدي قبعة، برتقالية",
        "¿a la (b)…",
    ],
)
def test_texts_are_put_together_again(text):
    words = list(module._words(text))
    assert module._joined(words).replace(" ", "") == text.replace(" ", "")
    # Blanks too, where no sign has to guess.
    if not set(text) & set("%»«"):
        assert module._joined(words) == text


def test_words():
    assert list(module._words("Don't (go), A.B.!")) == [
        "Don't",
        "(",
        "go",
        ")",
        ",",
        "A.B",
        ".",
        "!",
    ]
    assert list(module._words("我爱NLP。")) == ["我", "爱", "NLP", "。"]
    assert list(module._words("हिन्दी")) == ["हिन्दी"]
    assert list(module._words(" ... \u3000 ")) == [".", ".", "."]


def test_a_large_corpus_is_thinned_out(monkeypatch):
    sources, targets = SOURCES * 10, TARGETS * 10
    monkeypatch.setattr(module, "_MOST_LINKS", 60)  # 30 pairs of 3 x 2 words
    table = WordTable()
    table.fit(sources, targets)
    assert table.note == "learned from one of 3 pairs, 10 of 30"
    with pytest.raises(ValueError, match="at least 1"):
        WordTable(0)
    table.fit(["a"], [""])  # nothing to learn
    assert table.predict(["a b"]) == ["a b"]


@pytest.mark.realdata
@pytest.mark.slow
def test_multi30k(data_path):
    def read(name: str) -> list[str]:
        with gzip.open(data_path / "translation" / f"{name}.gz", "rt", encoding="utf-8") as file:
            return file.read().splitlines()

    english, german = read("train.en"), read("train.de")
    sources, references = read("test_2016_flickr.en"), read("test_2016_flickr.de")
    assert not set(sources) & set(english)
    found = {}
    for name, make in TRANSLATORS.items():
        started = time.process_time()
        translator = make()
        translator.fit(english, german)
        answers = translator.predict(sources)
        seconds = time.process_time() - started
        found[name] = translation_scores(answers, references, resamples=100)["bleu"]
        print(f"{name}: BLEU {found[name]:.2f}, {seconds:.1f} s of processor")
        assert translator.note == "" and seconds < 30
    assert found["copy"] == pytest.approx(0.48, abs=0.01)
    assert found["translation_memory"] == pytest.approx(9.80, abs=0.05)
    assert found["word_table"] == pytest.approx(11.54, abs=0.05)
    for a, b in itertools.pairwise(found.values()):
        assert a < b
