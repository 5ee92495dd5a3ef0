"""Cuts drawn at random: their limits are the plain cut and single bytes, their shares are right."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest

from keras_seq.errors import UserError
from keras_seq.preprocessing import SubwordSampler, Tokenizer
from keras_seq.preprocessing.device_tokenizer import SPECIAL, byte_letters
from tests.preprocessing.samples import HARD, TEXTS

SUBWORDS = ("byte_pairs", "unigrams")


def byte_pairs(*merges):
    vocabulary = [*SPECIAL, *byte_letters(), *(m.replace(" ", "") for m in merges)]
    config = {"kind": "byte_pairs", "lowercase": False, "clean": "none"}
    return Tokenizer({**config, "vocabulary": vocabulary, "merges": list(merges)})


def unigrams(**scores):
    config = {"kind": "unigrams", "lowercase": False, "clean": "none"}
    vocabulary = [*SPECIAL, *scores]
    return Tokenizer(
        {**config, "vocabulary": vocabulary, "scores": [-20_000] * 5 + list(scores.values())}
    )


def cuts(sampler, tokenizer, text, count=20_000, seed=0):
    """How often each cut comes, as a share."""
    draw = random.Random(seed)
    names = tokenizer.vocabulary
    found = Counter(
        " ".join(names[i] for i in sampler.encode(text, draw).tolist()) for _ in range(count)
    )
    return {cut: n / count for cut, n in found.items()}


def near(found, wanted, count=20_000):
    """Whether shares are what they should be, within four and a half standard deviations."""
    assert set(found) <= set(wanted), set(found) - set(wanted)
    for cut, share in wanted.items():
        room = 4.5 * math.sqrt(share * (1 - share) / count)
        assert abs(found.get(cut, 0.0) - share) <= room, (cut, found.get(cut), share)


def test_no_dropout_is_the_plain_cut(make):
    for vocabulary in (300, 400, 500):
        tokenizer = make("byte_pairs", vocabulary=vocabulary)
        sampler = SubwordSampler(tokenizer, dropout=0.0)
        draw = random.Random(0)
        for text in (*TEXTS[:8], *HARD, "banana aaaa aaaaa ababab"):
            np.testing.assert_array_equal(sampler.encode(text, draw), tokenizer.encode(text))


def test_merges_in_which_order_matters():
    # One sweep joins every "a b"; only then does "ab a" have its turn, although it is ranked first.
    tokenizer = byte_pairs("b c", "ab a", "a b", "a a", "aa a")
    sampler = SubwordSampler(tokenizer, dropout=0.0)
    for letters in itertools.product("abc", repeat=6):
        text = "".join(letters)
        got = sampler.encode(text, random.Random(0))
        assert got.tolist() == tokenizer.encode(text).tolist(), text


def test_full_dropout_is_single_bytes(make):
    tokenizer = make("byte_pairs", vocabulary=500)
    sampler = SubwordSampler(tokenizer, dropout=1.0)
    letters = byte_letters()
    for text in ("unhurried films", "größer 東京", "İx"):
        data = tokenizer.decode(tokenizer.encode(text)).encode()  # in lower case
        got = [tokenizer.vocabulary[i] for i in sampler.encode(text, random.Random(0))]
        assert got == [letters[byte] for byte in data]


@pytest.mark.parametrize("kind", SUBWORDS)
@pytest.mark.parametrize("strength", [0.0, 0.1, 0.5, 1.0])
def test_every_cut_is_the_same_text(make, kind, strength):
    tokenizer = make(kind, lowercase=False)
    sampler = SubwordSampler(tokenizer, dropout=strength, alpha=strength)
    draw = random.Random(1)
    for text in (*TEXTS[:8], *HARD):
        plain = tokenizer.encode(text)
        for _ in range(3):
            ids = sampler.encode(text, draw)
            assert ids.dtype == np.int32 and len(ids) >= 1
            assert tokenizer.decode(ids) == tokenizer.decode(plain)


@pytest.mark.parametrize("p", [0.1, 0.4])
def test_the_shares_of_byte_pairs(p):
    # "abc": "a b" is ranked before "b c"; what is left out in one step may come in the next.
    tokenizer = byte_pairs("a b", "b c", "ab c")
    q = 1 - p
    wanted = {
        "abc": q * q,  # a b, then ab c
        "ab c": q * p,
        "a bc": p * q,  # a b left out, b c not; then no merge is possible
        "a b c": p * p,
    }
    near(cuts(SubwordSampler(tokenizer, dropout=p), tokenizer, "abc"), wanted)


def test_the_shares_of_the_same_pair_twice():
    # "abab": both places are drawn for themselves in one step; what is left has another turn.
    tokenizer = byte_pairs("a b")
    p, q = 0.3, 0.7
    wanted = {
        "ab ab": q * q + 2 * p * q * q,
        "ab a b": p * q * p,
        "a b ab": p * q * p,
        "a b a b": p * p,
    }
    near(cuts(SubwordSampler(tokenizer, dropout=p), tokenizer, "abab"), wanted)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_shares_of_unigrams(alpha):
    scores = {"a": -2000, "b": -2500, "c": -3000, "ab": -3000, "bc": -4500, "abc": -5000}
    tokenizer = unigrams(**scores)
    sums = {
        cut: sum(scores[piece] for piece in cut.split()) / 1000
        for cut in ("abc", "ab c", "a bc", "a b c")
    }
    weights = {cut: math.exp(alpha * value) for cut, value in sums.items()}
    whole = sum(weights.values())
    near(
        cuts(SubwordSampler(tokenizer, alpha=alpha), tokenizer, "abc"),
        {cut: weight / whole for cut, weight in weights.items()},
    )


def test_large_alpha_is_the_plain_cut(make):
    tokenizer = make("unigrams")
    sampler = SubwordSampler(tokenizer, alpha=1e5)  # a thousandth is then 100 in the exponent
    scores = tokenizer.config()["scores"]
    draw = random.Random(0)
    for text in (*TEXTS[:8], *HARD):
        plain, got = tokenizer.encode(text), sampler.encode(text, draw)
        assert sum(scores[i] for i in plain) == sum(scores[i] for i in got)  # or as good a one
        same = len(plain) == len(got) and (plain == got).all()
        assert same or tokenizer.decode(plain) == tokenizer.decode(got)


def test_what_is_unknown_to_unigrams():
    tokenizer = unigrams(a=-1000, b=-1000)
    ids = SubwordSampler(tokenizer, alpha=0.1).encode("axb", random.Random(0))
    assert ids.tolist() == [5, 1, 6] == tokenizer.encode("axb").tolist()
    assert SubwordSampler(tokenizer).encode("", random.Random(0)).tolist() == [1]


@pytest.mark.parametrize("kind", SUBWORDS)
def test_a_store_depends_on_seed_pass_row_and_side_alone(make, kind):
    tokenizer = make(kind)
    options = {"dropout": 0.3, "alpha": 0.3}
    texts = [TEXTS[0]] * 3 + TEXTS[1:3]
    one = SubwordSampler(tokenizer, **options).store(texts, seed=1, number=2)
    used = SubwordSampler(tokenizer, **options)
    used.store(TEXTS, seed=0, number=0)  # what it remembers changes nothing
    again = used.store(texts, seed=1, number=2)
    np.testing.assert_array_equal(one.ids, again.ids)
    np.testing.assert_array_equal(one.offsets, again.offsets)
    # Another text before it does not change a row.
    other = used.store([TEXTS[4], *texts[1:]], seed=1, number=2)
    assert all(other[i].tolist() == one[i].tolist() for i in range(1, 5))
    rows = [one[0].tolist(), one[1].tolist(), one[2].tolist()]
    for change in ({"seed": 2}, {"number": 3}, {"side": "target"}):
        where = {"seed": 1, "number": 2, **change}
        rows.append(used.store(texts, **where)[0].tolist())
    assert len({tuple(row) for row in rows}) == 6


@pytest.mark.parametrize("kind", SUBWORDS)
def test_what_is_remembered_is_bounded(make, kind, monkeypatch):
    from keras_seq.preprocessing import subword_sampling

    tokenizer = make(kind)
    want = SubwordSampler(tokenizer, dropout=0.3).store(TEXTS, seed=0, number=0)
    monkeypatch.setattr(subword_sampling, "_STATES", 20)
    monkeypatch.setattr(subword_sampling, "REMEMBERED", 20)
    sampler = SubwordSampler(tokenizer, dropout=0.3)
    got = sampler.store(TEXTS, seed=0, number=0)
    np.testing.assert_array_equal(want.ids, got.ids)
    cutter = sampler._cutter
    assert len(cutter._states if kind == "byte_pairs" else cutter._known) < 200


def test_what_it_refuses(make):
    for kind in ("words", "characters", "bytes", "word_pieces"):
        with pytest.raises(UserError, match=f"a tokenizer of {kind} has one way"):
            SubwordSampler(make(kind))
    for options in ({"dropout": -0.1}, {"dropout": 1.1}, {"alpha": -1.0}, {"alpha": math.inf}):
        with pytest.raises(UserError, match=r"such as 0\.1"):
            SubwordSampler(make("byte_pairs"), **options)
