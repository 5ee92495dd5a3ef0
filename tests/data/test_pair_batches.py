"""Batches of pairs: what stands in them, every pair once a pass, the limit, resuming."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_seq.data import PairBatches, TokenStore, read_pairs
from keras_seq.errors import UserError
from keras_seq.preprocessing.device_tokenizer import END, PADDING, SPECIAL, START


def stores(lengths, first=5):
    """Pairs of these (source, target) lengths; every id of row i is i + 5."""
    return tuple(
        TokenStore.from_rows([np.full(pair[side], i + first) for i, pair in enumerate(lengths)])
        for side in (0, 1)
    )


def random_lengths(count, seed=0, most=40):
    return np.random.default_rng(seed).integers(1, most, (count, 2)).tolist()


def rows_in(batch):
    """The rows in a batch of `stores`, told by the first id of the source."""
    return (batch[0]["source"][:, 0] - 5).tolist()


def padded(batch):
    x, y = batch
    assert x["tokens"].shape == y.shape and len(x["source"]) == len(y)
    return x["source"].size + y.size


def same(one, two):
    for (x, y), (ours, targets) in zip(one, two, strict=True):
        assert set(x) == set(ours) == {"source", "tokens"}
        for name in x:
            np.testing.assert_array_equal(x[name], ours[name])
        np.testing.assert_array_equal(y, targets)


# ----------------------------------------------------------------------------- one batch


def test_a_batch_by_hand():
    source = TokenStore.from_rows([[5, 6, 7, 8, 9], [], [10]])
    target = TokenStore.from_rows([[11], [12, 13, 14], []])
    x, y = PairBatches(source, target).batch(np.array([2, 0, 1]))
    assert x["source"].tolist() == [[10] + [0] * 7, [5, 6, 7, 8, 9, 0, 0, 0], [0] * 8]
    assert x["tokens"].tolist() == [[2, 0, 0, 0], [2, 11, 0, 0], [2, 12, 13, 14]]
    assert y.tolist() == [[4, 0, 0, 0], [12, 4, 0, 0], [13, 14, 15, 4]]
    assert {a.dtype for a in (*x.values(), y)} == {np.dtype(np.int32)}


def test_the_ids_are_those_of_the_tokenizers():
    assert (PADDING, START, END) == (0, 2, 3) and SPECIAL[START] == "<s>" and SPECIAL[END] == "</s>"


def test_long_texts_are_cut():
    source = TokenStore.from_rows([range(10, 30), [5]])
    target = TokenStore.from_rows([range(40, 60), [6]])
    x, y = PairBatches(source, target, max_source=6, max_target=5).batch([0, 1])
    assert x["source"].tolist() == [list(range(10, 16)), [5, 0, 0, 0, 0, 0]]
    # The target that is cut goes on: it does not learn to end here.
    assert x["tokens"].tolist() == [[2, 40, 41, 42, 43], [2, 6, 0, 0, 0]]
    assert y.tolist() == [[41, 42, 43, 44, 45], [7, 4, 0, 0, 0]]
    exact = PairBatches(source, target, max_target=21).batch([0])
    assert exact[1].shape == (1, 21) and exact[1][0, -1] == END + 1


@pytest.mark.parametrize("limits", [(None, None), (17, 9)])
def test_batches_equal_a_plain_loop(limits):
    generator = np.random.default_rng(0)
    lengths = random_lengths(60)
    sides = [[generator.integers(5, 99, n[i]).tolist() for n in lengths] for i in (0, 1)]
    data = PairBatches(
        *map(TokenStore.from_rows, sides), max_source=limits[0], max_target=limits[1]
    )
    index = generator.permutation(60)[:20]
    x, y = data.batch(index)
    s, t = x["source"].shape[1], y.shape[1]
    assert s == (limits[0] or s) and t == (limits[1] or t)
    for row, i in enumerate(index):
        source, target = (side[i] for side in sides)
        assert x["source"][row].tolist() == (source + [0] * s)[:s]
        assert x["tokens"][row].tolist() == ([START, *target] + [0] * t)[:t]
        following = [*target, END]
        assert y[row].tolist() == ([i + 1 for i in following] + [0] * t)[:t]


def test_lengths_are_rounded_up():
    wanted = {1: 4, 4: 4, 5: 8, 8: 8, 29: 32, 32: 32, 33: 40, 64: 64, 65: 80, 128: 128, 129: 160}
    for length, steps in wanted.items():
        data = PairBatches(*stores([(length, length - 1)]))
        x, y = data.batch([0])
        assert x["source"].shape == y.shape == (1, steps), length
    empty = PairBatches(*stores([(0, 0)])).batch([0])
    assert empty[0]["source"].tolist() == [[0] * 4] and empty[1].tolist() == [[4, 0, 0, 0]]


def test_the_targets_are_those_of_the_loss():
    from keras_seq.losses import MaskedCrossentropy

    _, y = PairBatches(*stores([(3, 2), (1, 5)])).batch([0, 1])
    right = np.where(np.arange(20) == y[..., None] - 1, 50.0, 0.0).astype(np.float32)
    assert float(MaskedCrossentropy()(y, right)) < 1e-6
    right[0, 2, END] = 0  # the end of the first target, one of 3 + 6 steps: log 20 there
    assert float(MaskedCrossentropy()(y, right)) == pytest.approx(np.log(20) / 9, rel=1e-5)


# ------------------------------------------------------------------------------- passes

PAIRS = st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70)), min_size=1, max_size=120)


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.integers(0, 400), st.integers(0, 5), st.integers(0, 5))
def test_batches_by_tokens(lengths, spare, seed, number):
    source, target = stores([(s + 1, t) for s, t in lengths])
    alone = PairBatches(source, target)
    longest = max(padded(alone.batch([i])) for i in range(len(alone)))
    limit = longest + spare
    data = PairBatches(source, target, batch_tokens=limit)
    steps = data.steps_of_pass(64, seed)
    found = list(data.batches(64, seed=seed, start_step=number * steps, steps=steps))
    # every pair once, no batch over the limit
    assert sorted(i for batch in found for i in rows_in(batch)) == list(range(len(lengths)))
    assert max(map(padded, found)) <= limit
    # without a seed the same holds, and the order says who is where
    plain = list(data.batches(64))
    assert len(plain) == steps and max(map(padded, plain)) <= limit
    assert [i for batch in plain for i in rows_in(batch)] == data.order().tolist()
    with pytest.raises(UserError, match="too few"):
        PairBatches(source, target, batch_tokens=longest - 1)


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.integers(1, 50), st.integers(0, 5), st.integers(0, 5))
def test_batches_by_number(lengths, size, seed, number):
    data = PairBatches(*stores([(s + 1, t) for s, t in lengths]))
    steps = data.steps_of_pass(size, seed)
    assert steps == -(-len(lengths) // size)
    found = list(data.batches(size, seed=seed, start_step=number * steps, steps=steps))
    assert sorted(i for batch in found for i in rows_in(batch)) == list(range(len(lengths)))
    assert sum(len(rows_in(batch)) != size for batch in found) <= 1
    plain = list(data.batches(size))
    assert [i for batch in plain for i in rows_in(batch)] == data.order().tolist()


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.sampled_from([None, 300, 1000]), st.sampled_from([None, 0, 3]), st.integers(0, 60))
def test_resuming_gives_the_same_batches(lengths, limit, seed, start):
    data = PairBatches(*stores([(s + 1, t) for s, t in lengths]), batch_tokens=limit)
    want = list(data.batches(8, seed=seed, steps=start + 5))[start:]
    again = PairBatches(*stores([(s + 1, t) for s, t in lengths]), batch_tokens=limit)
    same(want, list(again.batches(8, seed=seed, start_step=start, steps=5)))


@pytest.mark.parametrize("limit", [None, 2000])
def test_passes_differ_and_batches_are_shuffled(limit):
    data = PairBatches(*stores(random_lengths(4000)), batch_tokens=limit)
    steps = data.steps_of_pass(32, 1)
    assert steps > 80
    found = list(data.batches(32, seed=1, steps=2 * steps))
    sets = [frozenset(rows_in(batch)) for batch in found]
    assert len(set(sets)) == 2 * steps  # no batch stands twice
    long = np.array([batch[1].shape[1] for batch in found[:steps]])
    rises, falls = (np.diff(long) > 0).mean(), (np.diff(long) < 0).mean()
    assert abs(rises - falls) < 0.15 and rises > 0.3  # no order of lengths between batches
    other = [frozenset(rows_in(batch)) for batch in data.batches(32, seed=2, steps=steps)]
    assert not set(other) & set(sets)


@pytest.mark.parametrize("limit", [None, 1300])
def test_little_data_is_mixed_too(limit):
    # So different lengths that each batch would be the same in every pass if they alone decided.
    lengths = [(n, n) for n in range(1, 201)]
    data = PairBatches(*stores(lengths), batch_tokens=limit)
    steps = data.steps_of_pass(16, 0)
    sets = [frozenset(rows_in(b)) for b in data.batches(16, seed=0, steps=10 * steps)]
    many = [s for s in sets if len(s) > 3]  # a batch of few pairs can but come again
    assert len(many) > 5 * steps and len(set(many)) > 0.98 * len(many)


def test_chosen_rows():
    lengths = random_lengths(100)
    mask = np.zeros(100, bool)
    mask[::5] = True
    data = PairBatches(*stores(lengths), rows=mask, batch_tokens=300)
    assert len(data) == 20
    steps = data.steps_of_pass(1, 0)
    found = [i for b in data.batches(1, seed=0, steps=steps) for i in rows_in(b)]
    assert sorted(found) == list(range(0, 100, 5))
    out = np.empty(20, int)
    out[data.order()] = [i for b in data.batches(1) for i in rows_in(b)]
    assert out.tolist() == list(range(0, 100, 5))


def test_batches_are_full_and_shapes_few():
    lengths = np.random.default_rng(0).normal(14, 5, (8000, 1)).clip(2, 40)
    lengths = (lengths + np.random.default_rng(1).normal(0, 2, (8000, 2))).clip(1, 50).astype(int)
    data = PairBatches(*stores(lengths.tolist()), batch_tokens=4096)
    found = list(data.batches(1, seed=0, steps=data.steps_of_pass(1)))
    assert np.mean([padded(batch) for batch in found]) > 0.93 * 4096
    assert len({(b[0]["source"].shape[1], b[1].shape[1]) for b in found}) < 40
    # Between what rounding alone costs and what batches at random cost, near the former.
    real = lengths.sum() + len(lengths)
    alone = 1 - real / sum(padded(data.batch([i])) for i in range(8000))
    random = np.random.default_rng(2).permutation(8000).reshape(-1, 64)
    drawn = 1 - real / sum(padded(data.batch(index)) for index in random)
    assert alone < 0.12 and drawn > 0.4
    assert data.waste() < alone + 0.1
    assert PairBatches(data.source, data.targets).waste(64) < alone + 0.1


@pytest.mark.parametrize("limit", [None, 500])
def test_waste_is_the_share_of_padding(limit):
    data = PairBatches(*stores(random_lengths(300)), batch_tokens=limit)
    found = list(data.batches(16, seed=0, steps=data.steps_of_pass(16)))
    zeros = sum(int((x["source"] == 0).sum() + (y == 0).sum()) for x, y in found)
    assert data.waste(16) == pytest.approx(zeros / sum(map(padded, found)))


# ------------------------------------------------------------------------------ tf.data


@pytest.mark.parametrize("limit", [None, 500])
def test_the_dataset(limit):
    import tensorflow as tf

    data = PairBatches(*stores(random_lengths(100)), batch_tokens=limit)
    steps = data.steps_of_pass(16)
    assert int(data.dataset(16).cardinality()) == steps
    assert int(data.dataset(16, start_step=steps + 2).cardinality()) == steps - 2
    assert int(data.dataset(16, seed=0).cardinality()) == tf.data.INFINITE_CARDINALITY
    spec = tf.TensorSpec((None, None), tf.int32)
    assert data.dataset(16).element_spec == ({"source": spec, "tokens": spec}, spec)
    want = list(data.batches(16, seed=3, steps=9))[4:]
    same(want, data.dataset(16, seed=3, start_step=4, steps=5).as_numpy_iterator())


def test_fit_takes_it(tmp_path):
    import keras

    from keras_seq.losses import MaskedCrossentropy
    from keras_seq.training import fit

    data = PairBatches(*stores(random_lengths(40, most=9)), batch_tokens=120)
    source, tokens = (keras.Input((None,), dtype="int32", name=n) for n in ("source", "tokens"))
    memory = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(50, 4)(source))
    states = keras.layers.Embedding(50, 4)(tokens) + memory[:, None]
    model = keras.Model({"source": source, "tokens": tokens}, keras.layers.Dense(50)(states))
    result = fit(
        model,
        data,
        data,
        loss=MaskedCrossentropy(),
        epochs=2,
        steps_per_epoch=data.steps_of_pass(1),
        learning_rate=0.03,
    )
    losses = [row["val_loss"] for row in result.history]
    assert len(losses) == 2 and losses[1] < losses[0] < np.log(50)


# ------------------------------------------------------- other ids of the same texts in each pass


def drawn(lengths, most=2.0, calls=None):
    """Rows that are longer in each pass, by another share; deterministic."""

    def segment(seed, number):
        if calls is not None:
            calls.append((seed, number))
        share = np.random.default_rng([seed, number]).uniform(1, most, (len(lengths), 2))
        return stores(np.ceil(share * lengths).astype(int).tolist())

    return segment


@pytest.mark.parametrize("limit", [None, 400])
def test_each_pass_has_its_own_ids(limit):
    lengths = random_lengths(150, most=30)
    calls: list[tuple[int, int]] = []
    options = {"batch_tokens": limit}
    data = PairBatches(*stores(lengths), **options, segment=drawn(lengths, calls=calls))
    steps = data.steps_of_pass(16, 5)
    found = list(data.batches(16, seed=5, steps=6 * steps))
    assert calls == [(5, number) for number in range(6)]  # once a pass
    for number, start in enumerate(range(0, 6 * steps, steps)):
        part = found[start : start + steps]
        assert sorted(i for b in part for i in rows_in(b)) == list(range(150))
        ours, theirs = drawn(lengths)(5, number)
        for (x, y), row in itertools.product(part, range(16)):
            if row < len(y):
                i = x["source"][row, 0] - 5
                assert (x["source"][row] > 0).sum() == ours.lengths[i]
                assert (y[row] > 0).sum() == theirs.lengths[i] + 1
    if limit is None:
        assert steps == 10
    else:
        assert max(map(padded, found)) <= limit
    # Resuming within the fourth pass needs that pass (and, by tokens, the first) and no other.
    calls.clear()
    again = PairBatches(*stores(lengths), **options, segment=drawn(lengths, calls=calls))
    start = 3 * steps + 2
    same(found[start : start + 4], list(again.batches(16, seed=5, start_step=start, steps=4)))
    assert calls == ([(5, 3)] if limit is None else [(5, 0), (5, 3)])
    # Scoring has the tokenizer's own cut.
    same(data.batches(16), PairBatches(*stores(lengths), **options).batches(16))
    assert len(calls) <= 2


def test_a_pass_that_is_longer_than_the_first():
    lengths = random_lengths(80, most=20)

    def segment(seed, number):
        return stores([(s * (1 + number), t) for s, t in lengths])

    data = PairBatches(*stores(lengths), batch_tokens=200, segment=segment)
    steps = data.steps_of_pass(1, 0)
    found = list(data.batches(1, seed=0, steps=3 * steps))
    for start in range(0, 3 * steps, steps):
        rows = [i for b in found[start : start + steps] for i in rows_in(b)]
        assert sorted(rows) == list(range(80))
    assert max(map(padded, found[:steps])) <= 200
    assert max(map(padded, found)) < 500


def test_segments_that_do_not_fit():
    lengths = random_lengths(10)
    data = PairBatches(*stores(lengths), segment=lambda seed, number: stores(lengths[:9]))
    with pytest.raises(ValueError, match="segment must give 10"):
        next(data.batches(4, seed=0))


# ------------------------------------------------------------------------------- errors


def test_what_does_not_fit():
    source, target = stores([(3, 3), (4, 4)])
    with pytest.raises(ValueError, match="2 sources need as many targets, got 1"):
        PairBatches(source, TokenStore.from_rows([[5]]))
    with pytest.raises(UserError, match="of a source is 0: give at least 1"):
        PairBatches(source, target, max_source=0)
    with pytest.raises(UserError, match="of a target is 1: give at least 2"):
        PairBatches(source, target, max_target=1)
    with pytest.raises(UserError, match="the longest pair takes 12 with its padding"):
        PairBatches(source, target, batch_tokens=11)
    with pytest.raises(ValueError, match="rows must be"):
        PairBatches(source, target, rows=np.array([2]))
    with pytest.raises(ValueError, match="at least one row"):
        PairBatches(source, target, rows=np.arange(0), batch_tokens=100).dataset(4)
    with pytest.raises(ValueError, match="batch_size >= 1"):
        list(PairBatches(source, target).batches(0))
    assert PairBatches(source, target, batch_tokens=12).steps_of_pass(1) == 2


@pytest.mark.realdata
def test_multi30k_wastes_little(data_path):
    folder = data_path / "translation"
    pairs = read_pairs(folder / "train.en.gz", folder / "train.de.gz")
    numbers: dict[str, int] = {}
    source, target = (
        TokenStore.from_rows(
            np.array([numbers.setdefault(w, len(numbers) + 5) for w in text.split()], np.int32)
            for text in texts
        )
        for texts in (pairs.source, pairs.target)
    )
    data = PairBatches(source, target, batch_tokens=4096)
    found = [padded(batch) for batch in data.batches(1, seed=0, steps=data.steps_of_pass(1))]
    print(f"waste {data.waste():.3f}, {len(found)} batches, {np.mean(found) / 4096:.3f} full")
    assert len(data) == 29_000 and max(found) <= 4096
    assert data.waste() < 0.16 and np.mean(found) > 0.97 * 4096
    assert data.waste() < PairBatches(source, target).waste(64) + 0.03
