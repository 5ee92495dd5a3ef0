"""Training, the contract of a tokeniser, and the table."""

# ruff: noqa: RUF001 (letters that look like others)

from __future__ import annotations

import copy
import itertools
import json
import pickle
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_seq.errors import UserError
from keras_seq.preprocessing import Tokenizer, tokenizer_table, train_tokenizer
from keras_seq.preprocessing.device_tokenizer import (
    KINDS,
    SPECIAL,
    UNKNOWN,
    byte_letters,
    split_chunks,
    split_plain_words,
)
from tests.preprocessing.samples import HARD, TEXTS, trained


def test_ids_are_in_range_and_pieces_match(kind, make):
    for lowercase in (True, False):
        tokenizer = make(kind, lowercase=lowercase, clean="html")
        for text in HARD:
            ids = tokenizer.encode(text)
            assert ids.dtype == np.int32 and ids.ndim == 1 and len(ids) >= 1
            assert ids.min() >= 1 and ids.max() < tokenizer.size
            assert not set(ids.tolist()) & {0, 2, 3, 4}, "a special token came out of a text"
            assert len(tokenizer.tokens(text)) == len(ids)
            assert (tokenizer.encode(text) == ids).all()
            assert isinstance(tokenizer.decode(ids), str)


@given(text=st.text(), lowercase=st.booleans(), clean=st.sampled_from(["none", "html", "web"]))
@settings(max_examples=60, deadline=None)
def test_any_text(text, lowercase, clean):
    for kind in KINDS:
        tokenizer = trained(kind, lowercase=lowercase, clean=clean)
        ids = tokenizer.encode(text)
        assert 1 <= len(ids) == len(tokenizer.tokens(text))
        assert ids.min() >= 1 and ids.max() < tokenizer.size


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@settings(max_examples=100, deadline=None)
def test_bytes_and_byte_pairs_give_the_text_back(text):
    for kind in ("bytes", "byte_pairs"):
        tokenizer = trained(kind, lowercase=False)
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@settings(max_examples=50, deadline=None)
def test_characters_give_the_text_back(text):
    tokenizer = train_tokenizer("characters", [text], lowercase=False)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert "".join(tokenizer.tokens(text)) == text


@pytest.mark.parametrize("kind", ["byte_pairs", "unigrams"])
def test_pieces_joined_are_the_text(kind, make):
    text = "Waiting for a film, about quiet films ..."
    tokenizer = make(kind, lowercase=False)
    assert "".join(tokenizer.tokens(text)) == text
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_words_by_hand():
    tokenizer = train_tokenizer("words", ["b a c", "a b", "a"], vocabulary=7)
    assert tokenizer.vocabulary == (*SPECIAL, "a", "b")
    assert tokenizer.encode("C b A d").tolist() == [1, 6, 5, 1]
    assert tokenizer.tokens("C b A d") == ["c", "b", "a", "d"]
    assert tokenizer.decode([2, 5, 6, 1, 3, 0, 0]) == "a b <unk>"


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Can't stop, won’t stop.", ["can't", "stop", ",", "won’t", "stop", "."]),
        ("'quoted' rock'n'roll", ["'", "quoted", "'", "rock'n'roll"]),
        ("snake_case 3.14 x²", ["snake_case", "3", ".", "14", "x²"]),
        ("東京タワー", ["東", "京", "タ", "ワ", "ー"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("한국어 영화", ["한국어", "영화"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("😀\ufe0f👩\u200d🚀", ["😀", "👩", "🚀"]),
        ("İstanbul ΟΔΟΣ", ["istanbul", "οδοσ"]),
        ("a\u00a0b\u3000c\u2028d", ["a", "b", "c", "d"]),
    ],
)
def test_words_of_many_languages(text, pieces):
    assert train_tokenizer("words", []).tokens(text) == pieces


@pytest.mark.parametrize(
    ("clean", "pieces"),
    [
        ("none", "a < br / > < b > b < / b > c & amp ; http : / / x . org"),
        ("html", "a bc & http : / / x . org"),
        ("web", "a bc &"),
    ],
)
def test_cleaning(clean, pieces):
    tokenizer = train_tokenizer("words", [], clean=clean)
    assert tokenizer.tokens("a<br /><b>b</b>c &amp; http://x.org") == pieces.split()


def test_html_leaves_what_is_no_tag():
    tokens = train_tokenizer("words", [], clean="html").tokens
    assert tokens("3 < 4 and 5 > 4") == ["3", "<", "4", "and", "5", ">", "4"]
    assert tokens("two<p>parts &amp;lt;") == ["two", "parts", "&", "lt", ";"]


def test_word_pieces_equal_another_implementation(make):
    tokenizers = pytest.importorskip("tokenizers")
    ours = make("word_pieces")
    theirs = tokenizers.models.WordPiece(
        vocab={token: i for i, token in enumerate(ours.vocabulary)},
        unk_token="<unk>",
        max_input_chars_per_word=1000,
    )
    for text in ("unwaiting films filming", "quietly hurried xyz", "фильмы ожидание", "zzz q"):
        expected = [t.id for word in split_plain_words(text) for t in theirs.tokenize(word)]
        assert ours.encode(text).tolist() == expected


def test_byte_pairs_equal_another_implementation(make):
    tokenizers = pytest.importorskip("tokenizers")
    ours = make("byte_pairs")
    config = ours.config()
    theirs = tokenizers.models.BPE(
        vocab={token: i for i, token in enumerate(ours.vocabulary)},
        merges=[tuple(merge.split(" ")) for merge in config["merges"]],
    )
    letters = byte_letters()
    for text in ("unwaiting films filming aaaa", "quietly  hurried\n\nxyz", "фильмы 東京の映画 😀"):
        chunks = ("".join(letters[b] for b in c.encode()) for c in split_chunks(text))
        expected = [token.id for chunk in chunks for token in theirs.tokenize(chunk)]
        assert ours.encode(text).tolist() == expected


def test_unigrams_are_the_best_of_all_cuts(make):
    tokenizer = make("unigrams")
    config = tokenizer.config()
    scores = dict(zip(config["vocabulary"][5:], config["scores"][5:], strict=True))
    for chunk in ("waiting", " film", "unhurri", "xfilmq"):
        text = chunk.replace(" ", "\u2581")

        def total(cut, text=text):
            pieces = [text[a:b] for a, b in itertools.pairwise(cut)]
            if any(len(piece) > 1 and piece not in scores for piece in pieces):
                return None
            return sum(scores.get(piece, config["scores"][UNKNOWN]) for piece in pieces)

        inner = range(1, len(text))
        cuts = (
            (0, *cut, len(text))
            for size in range(len(text))
            for cut in itertools.combinations(inner, size)
        )
        best = max(score for score in map(total, cuts) if score is not None)
        ids = tokenizer.encode(chunk)
        assert sum(config["scores"][i] for i in ids) == best


def test_training_again_gives_the_same(kind, make):
    texts = [f"text {i % 7} of the waiting room {i % 3}" for i in range(50)]
    make(kind)  # skips where the trainer is missing
    again = [train_tokenizer(kind, texts, vocabulary=300) for _ in range(3)]
    assert again[0] == again[1] == again[2]


def test_config_pickle_and_copy(kind, make):
    tokenizer = make(kind)
    again = Tokenizer.from_config(json.loads(json.dumps(tokenizer.config())))
    assert again == tokenizer and hash(again) == hash(tokenizer)
    assert pickle.loads(pickle.dumps(tokenizer)) == tokenizer
    assert copy.deepcopy(tokenizer) == tokenizer
    assert (again.encode("A waiting film!") == tokenizer.encode("A waiting film!")).all()
    assert tokenizer != make(kind, lowercase=False)
    assert kind in repr(tokenizer)
    changed = tokenizer.config()
    changed["vocabulary"].append("more")
    assert len(tokenizer.config()["vocabulary"]) == tokenizer.size


@pytest.mark.parametrize("kind", KINDS)
def test_vocabulary_is_bounded(kind, make):
    limit = 300
    tokenizer = make(kind, vocabulary=limit)
    assert tokenizer.size <= limit and tokenizer.vocabulary[:5] == SPECIAL
    assert len(set(tokenizer.vocabulary)) == tokenizer.size


@pytest.mark.parametrize("kind", ["words", "characters", "word_pieces", "byte_pairs", "unigrams"])
def test_a_vocabulary_larger_than_the_corpus(kind, make):
    tokenizer = make(kind, vocabulary=50_000)
    assert tokenizer.size < 50_000
    assert any("50000 were allowed" in note for note in tokenizer.report)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_learn_from(kind, make):
    make(kind)  # skips where the trainer is missing
    tokenizer = train_tokenizer(kind, ["", "  "] if kind == "words" else [], vocabulary=300)
    assert len(tokenizer.encode("some text")) >= 1
    assert (tokenizer.encode("") == [UNKNOWN]).all()


def test_a_large_corpus_is_sampled_evenly():
    texts = (f"word{i:04d}" for i in range(1000))
    tokenizer = train_tokenizer("words", texts, max_characters=2000)
    assert 125 <= tokenizer.size - 5 <= 250
    numbers = np.array(sorted(int(word[4:]) for word in tokenizer.vocabulary[5:]))
    assert len(set(np.diff(numbers))) == 1
    assert "of 1,000 texts" in tokenizer.report[0] and "memory" in tokenizer.report[0]
    quick = train_tokenizer("words", ["ab " * 300] * 50, max_seconds=1e-3)
    assert "to learn in 0.001 s" in quick.report[0]


def test_one_text_that_is_too_large():
    tokenizer = train_tokenizer("characters", ["a" * 50 + "b"], max_characters=10)
    assert tokenizer.vocabulary[5:] == ("a",)
    assert "(10 of 51 characters" in tokenizer.report[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: train_tokenizer("syllables", []), "take one of words, characters"),
        (lambda: train_tokenizer("words", [], clean="soap"), "take one of none, html, web"),
        (lambda: train_tokenizer("words", [], vocabulary=5), "at least 6"),
        (lambda: train_tokenizer("words", ["a", 3]), "text 2 is int"),
        (lambda: train_tokenizer("words", [], max_characters=0), "more than 0"),
        (lambda: train_tokenizer("byte_pairs", ["a"], vocabulary=100), "261"),
        (lambda: train_tokenizer("bytes", []).decode([261]), "not in 0 to 260"),
        (lambda: Tokenizer.from_config({"kind": "words"}), "no 'lowercase'"),
        (lambda: Tokenizer.from_config([]), "dictionary"),
        (lambda: tokenizer_table(["one"]), "at least 2"),
        (lambda: tokenizer_table(["one", "two"], held_out=[]), "held_out is empty"),
        (lambda: train_tokenizer("words", []).graph(0), "at least 1"),
        (lambda: train_tokenizer("words", []).graph(3, keep="middle"), "'head' or 'ends'"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_unigrams_with_too_little_room():
    pytest.importorskip("sentencepiece")
    with pytest.raises(UserError, match="a vocabulary of 8 is too small"):
        train_tokenizer("unigrams", ["abcdefghijklmnopqrstuvwxyz"] * 20, vocabulary=8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["one word " * 111_112, "x" * 1_000_000, "<a&!'" * 200_000])
def test_a_very_long_text_takes_seconds(kind, text, make):
    tokenizer = make(kind, clean="web")
    start = time.perf_counter()
    assert len(tokenizer.encode(text)) >= 1
    assert time.perf_counter() - start < 20


def test_table(make):
    for kind in KINDS:
        make(kind)
    table = tokenizer_table(TEXTS, vocabulary=400, clean="html")
    assert table["tokenizer"].tolist() == list(KINDS)
    assert table.columns.tolist() == [
        "tokenizer",
        "vocabulary",
        "mean tokens",
        "median tokens",
        "95 % tokens",
        "characters per token",
        "unknown %",
        "seconds to train",
        "microseconds a text",
    ]
    rows = table.set_index("tokenizer")
    assert rows.loc["bytes", "unknown %"] == rows.loc["byte_pairs", "unknown %"] == 0
    assert rows.loc["words", "mean tokens"] < rows.loc["characters", "mean tokens"]
    assert any("characters:" in note for note in table.attrs["report"])


def test_table_measures_what_was_not_learnt():
    table = tokenizer_table(["a b"], kinds=["words"], held_out=["a c", "d"])
    assert table.loc[0, "unknown %"] == pytest.approx(100 * 2 / 3)
    assert table.loc[0, "mean tokens"] == 1.5
    assert table.loc[0, "characters per token"] == pytest.approx(4 / 3)


@pytest.mark.parametrize("keep", ["head", "ends"])
def test_the_device_cuts_as_training_does(keep: str):
    from keras_seq.preprocessing import DeviceTokenizer
    from keras_seq.tasks.text import cut

    tokenizer = train_tokenizer("words", ["a b c d e f g h i j k l m"])
    files = tokenizer.device_files(max_tokens=8, keep=keep)
    device = DeviceTokenizer(json.loads(files["tokenizer.json"]))
    for text in ("", "a b", "a b c d e f g h", "a b c d e f g h i j k l m a b c"):
        assert device.encode(text) == cut(tokenizer.encode(text), 8, keep).tolist()
