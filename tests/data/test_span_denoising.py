"""Hidden spans: nothing is lost, as much is hidden as was asked, and the draws are pure."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_seq.data import PairBatches, SpanBatches, SpanDenoising, TokenStore, most_spans
from keras_seq.errors import UserError

V, MARKS = 1000, 32


def store_of(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return TokenStore.from_rows([rng.integers(5, V - MARKS, n) for n in lengths])


def spans(ids):
    """Sentinel -> what follows it up to the next one."""
    found, mark = {}, None
    for token in ids.tolist():
        if token >= V - MARKS:
            mark = token
            found[mark] = []
        else:
            found[mark].append(token)
    return found


def put_back(source, target):
    hidden = spans(target)
    found = []
    for token in source.tolist():
        found += hidden[token] if token >= V - MARKS else [token]
    return found


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 300),
    st.floats(0.01, 0.99),
    st.floats(1, 10),
    st.integers(1, MARKS),
    st.integers(0, 99),
)
def test_what_is_hidden_can_be_put_back(length, share, span, sentinels, seed):
    store = store_of([length], seed)
    denoising = SpanDenoising(store, V, share=share, span=span, sentinels=sentinels)
    if length:  # none of these ids is a sentinel
        assert store.ids.max() < V - MARKS
    source, target = denoising.pair(0, seed, 0)
    assert source.dtype == target.dtype == np.int32
    assert put_back(source, target) == store[0].tolist()
    marks = [t for t in source.tolist() if t >= V - MARKS]
    count = len(marks)
    # The last id first, each once, in the same order on both sides.
    assert marks == list(range(V - 1, V - 1 - count, -1)) == list(spans(target) if count else [])
    assert count <= sentinels
    assert all(len(tokens) > 0 for tokens in spans(target).values()) if count else not len(target)
    for a, b in itertools.pairwise(source):
        assert a < V - MARKS or b < V - MARKS  # two spans never touch
    hidden = length - (len(source) - count)
    if length >= 2:
        assert hidden == min(max(round(length * share), 1), length - 1)


def test_shares_and_lengths_of_spans():
    """15 % of the tokens, spans of 3 on average, anywhere in a text alike."""
    store = store_of([200] * 400)
    sources, targets = SpanDenoising(store, V)(0, 0)
    lengths = [len(s) for i in range(400) for s in spans(targets[i]).values()]
    assert sum(lengths) == 400 * 30
    assert np.mean(lengths) == pytest.approx(3)
    assert min(lengths) == 1 and max(lengths) > 6
    share = np.zeros(200)
    for i in range(400):
        place, hidden = 0, spans(targets[i])
        for token in sources[i].tolist():
            size = len(hidden[token]) if token >= V - MARKS else 1
            share[place : place + size] += token >= V - MARKS
            place += size
    share /= 400
    assert share.mean() == pytest.approx(0.15)
    for part in (share[:20], share[90:110], share[-20:]):
        assert part.mean() == pytest.approx(0.15, abs=0.03)


def test_a_draw_depends_on_seed_pass_and_row_alone():
    store = store_of([30] * 50)
    denoising = SpanDenoising(store, V)
    one, again = denoising(3, 1), SpanDenoising(store, V)(3, 1)
    for ours, theirs in zip(one, again, strict=True):
        np.testing.assert_array_equal(ours.ids, theirs.ids)
    alone = denoising.pair(7, 3, 1)
    np.testing.assert_array_equal(alone[0], one[0][7])
    fewer = SpanDenoising(TokenStore.from_rows([store[i] for i in range(8)]), V)
    np.testing.assert_array_equal(fewer.pair(7, 3, 1)[1], one[1][7])
    for seed, number in ((3, 2), (4, 1)):
        other = denoising(seed, number)
        assert (other[0].ids != one[0].ids).mean() > 0.2
        # As many tokens and spans in each pass: batches have the same shapes.
        for ours, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(ours.lengths, theirs.lengths)


def test_sentinels_in_a_text_become_unknown():
    store = TokenStore.from_rows([[10, V - 1, V - MARKS, V - MARKS - 1, 11]])
    source, target = SpanDenoising(store, V).pair(0, 0, 0)
    assert put_back(source, target) == [10, 1, 1, V - MARKS - 1, 11]


def test_batches_hide_other_spans_in_each_pass():
    denoising = SpanDenoising(store_of([20] * 8), V)
    data = PairBatches(*denoising(0, 0), segment=denoising)
    (x, y), (later, _) = data.batches(8, seed=5, steps=2)
    assert x["source"].shape == later["source"].shape
    wanted = sorted(source.tolist() for source in denoising(5, 0)[0])
    assert sorted(row[row > 0].tolist() for row in x["source"]) == wanted
    assert (np.sort(x["source"], 0) != np.sort(later["source"], 0)).any()
    # The target's ids, each + 1, and the end.
    row = y[0][y[0] > 0]
    assert row[-1] == 4 and row[0] == V - 1 + 1


def test_what_cannot_be_hidden_is_told():
    store = store_of([9])
    for options, message in (
        ({"share": 0.0}, "share of hidden tokens is 0.0"),
        ({"share": 1.0}, "share of hidden tokens is 1.0"),
        ({"span": 0.5}, "mean length of a span is 0.5"),
        ({"sentinels": 0}, "0 sentinels are wanted"),
        ({"sentinels": V - 5}, "995 sentinels are wanted and the vocabulary has 1000 ids"),
    ):
        with pytest.raises(UserError, match=message):
            SpanDenoising(store, V, **options)


# ---- windows of a stream -------------------------------------------------------------------------

STREAM = np.random.default_rng(1).integers(5, V, 1010).astype(np.int32)


def windows(**options):
    return SpanBatches(STREAM, 100, vocabulary=V, **options)


def rows_of(x, y):
    """The pairs of a batch without padding, start and end."""
    for source, tokens, following in zip(x["source"], x["tokens"], y, strict=True):
        there = following[following > 0] - 1
        assert tokens[0] == 2 and there[-1] == 3
        np.testing.assert_array_equal(tokens[1 : len(there)], there[:-1])
        assert not tokens[len(there) :].any() and not following[len(there) :].any()
        yield source[source > 0], there[:-1]


def restored(source, target, marks):
    """The text of a pair, the last so many ids being marks."""
    hidden, found, mark = {}, [], None
    for token in target.tolist():
        if token >= V - marks:
            mark = token
            hidden[mark] = []
        else:
            hidden[mark].append(token)
    for token in source.tolist():
        found += hidden[token] if token >= V - marks else [token]
    return found


def test_windows_at_fixed_places_hold_the_whole_stream():
    data = windows()
    assert len(data) == 11 and data.sentinels == most_spans(100) == 5
    x, y = data.batch(np.arange(11))
    # 100 - 15 + 5 and 15 + 5 and the end; the last window has 10 ids: 2 hidden in one span.
    assert x["source"].shape == (11, 90) and x["tokens"].shape == y.shape == (11, 21)
    assert (y > 0).sum(1).tolist() == [21] * 10 + [4]
    assert (x["source"] > 0).sum(1).tolist() == [90] * 10 + [9]
    text = [t for pair in rows_of(x, y) for t in restored(*pair, data.sentinels)]
    assert text == np.where(STREAM >= V - 5, 1, STREAM).tolist()
    again, _ = windows().batch(np.array([3]))
    np.testing.assert_array_equal(again["source"][0], x["source"][3])


def test_training_windows_are_pure_functions_of_the_step():
    data, text = windows(share=0.3), np.where(STREAM >= V - 10, 1, STREAM)
    assert data.sentinels == 10
    steps = list(data.batches(4, seed=3, steps=6))  # 9 whole windows: two batches a pass
    later = list(windows(share=0.3).batches(4, seed=3, start_step=4, steps=2))
    for (x, y), (other, targets) in zip(steps[4:], later, strict=True):
        np.testing.assert_array_equal(x["source"], other["source"])
        np.testing.assert_array_equal(x["tokens"], other["tokens"])
        np.testing.assert_array_equal(y, targets)
    assert len({x["source"].shape + y.shape for x, y in steps}) == 1
    firsts = []
    for x, y in steps:
        for source, target in rows_of(x, y):
            window = restored(source, target, 10)
            places = [i for i in range(911) if text[i : i + 100].tolist() == window]
            assert len(places) == 1
            firsts.append(places[0])
    passes = [sorted(firsts[i : i + 8]) for i in (0, 8, 16)]
    for pass_ in passes:  # side by side
        assert len(set(pass_)) == 8 and {i % 100 for i in pass_} == {pass_[0] % 100}
    assert passes[0] != passes[1]
    other = next(windows(share=0.3).batches(4, seed=4, steps=1))[0]
    assert (other["source"] != steps[0][0]["source"]).mean() > 0.5


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.floats(0.01, 0.99), st.floats(1, 6))
def test_there_are_as_many_sentinels_as_spans(length, share, span):
    counts = []
    for n in range(1, length + 1):
        store = TokenStore.from_rows([np.full(n, 7)])
        source, _ = SpanDenoising(store, V, share=share, span=span, sentinels=300).pair(0, 0, 0)
        counts.append(int((source >= V - 300).sum()))
    assert most_spans(length, share, span) == max(counts)


def test_what_windows_refuse():
    for ids, context, options, message in (
        (STREAM, 1, {}, "the context is 1: give at least 2"),
        (STREAM[:0], 8, {}, "there is no token"),
        (STREAM, 8, {"share": 1.0}, "share of hidden tokens is 1.0"),
        (STREAM, 8, {"span": 0.0}, "mean length of a span is 0.0"),
        (STREAM, 100, {"vocabulary": 10}, "5 sentinels are wanted and the vocabulary has 10"),
    ):
        with pytest.raises(UserError, match=message):
            SpanBatches(ids, context, **{"vocabulary": V, **options})
