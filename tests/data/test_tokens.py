"""Flat ids and their batches: padding, buckets, and resuming at any step."""

from __future__ import annotations

import numpy as np
import pytest

from keras_seq.data import TokenBatches, TokenStore, read_texts
from keras_seq.errors import UserError


def rows_of(lengths, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(5, 99, n).astype(np.int32) for n in lengths]


@pytest.fixture()
def store():
    return TokenStore.from_rows(rows_of(np.random.default_rng(1).integers(0, 60, 500)))


# --------------------------------------------------------------------------------------- store


def test_a_store_gives_its_rows_back(tmp_path):
    rows = rows_of([3, 0, 1, 7])
    for cache in (None, tmp_path / "deep" / "ids.bin"):
        store = TokenStore.from_rows(iter(rows), cache=cache)
        assert len(store) == 4 and store.lengths.tolist() == [3, 0, 1, 7]
        assert store.ids.dtype == np.int32 and store.offsets.dtype == np.int64
        for ours, row in zip(store, rows, strict=True):
            np.testing.assert_array_equal(ours, row)
        np.testing.assert_array_equal(store[-1], rows[-1])
        with pytest.raises(IndexError):
            store[4]
    assert isinstance(store.ids, np.memmap)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["ids.bin"]
    np.testing.assert_array_equal(TokenStore.open(cache).ids, np.concatenate(rows))


def test_a_row_is_a_view(store):
    assert np.shares_memory(store[3], store.ids)


def test_an_empty_store(tmp_path):
    assert len(TokenStore.from_rows([])) == 0
    assert len(TokenStore.from_rows([], cache=tmp_path / "a")) == 0
    assert TokenStore.from_rows([[], []], cache=tmp_path / "b").lengths.tolist() == [0, 0]


def test_a_failure_leaves_no_file(tmp_path):
    def rows():
        yield np.array([5])
        raise RuntimeError("the tokeniser broke")

    with pytest.raises(RuntimeError):
        TokenStore.from_rows(rows(), cache=tmp_path / "ids")
    assert not list(tmp_path.iterdir())


def test_wrong_rows_and_files(tmp_path):
    with pytest.raises(ValueError, match="row 2 must be"):
        TokenStore.from_rows([[1], [0.5]])
    with pytest.raises(ValueError, match="offsets must rise"):
        TokenStore(np.zeros(3, np.int32), np.array([0, 2]))
    path = tmp_path / "ids"
    TokenStore.from_rows(rows_of([5, 5]), cache=path)
    path.write_bytes(path.read_bytes()[:-1])
    for name in (path, tmp_path / "none"):
        with pytest.raises(UserError):
            TokenStore.open(name)


# ------------------------------------------------------------------------------------- batches


def test_padding_by_hand():
    store = TokenStore.from_rows([[5, 6, 7], [8], [], list(range(10, 30))])
    data = TokenBatches(store, np.array([0.5, 1.5, 2.5, 3.5], np.float32))
    x, y = data.batch(np.array([1, 2, 0]))
    assert x["tokens"].dtype == np.int32
    assert x["tokens"].tolist() == [[8] + [0] * 7, [0] * 8, [5, 6, 7] + [0] * 5]
    assert y.tolist() == [1.5, 2.5, 0.5]
    assert data.batch(np.array([3]))[0]["tokens"].shape == (1, 24)
    assert TokenBatches(store, None).batch(np.array([0]))[1] is None


def test_long_rows_are_cut():
    store = TokenStore.from_rows([list(range(10, 40)), [7, 8]])
    labels = TokenStore.from_rows([list(range(110, 140)), [1, 2]])
    head = TokenBatches(store, labels, max_tokens=12).batch([0, 1])
    assert head[0]["tokens"].tolist() == [list(range(10, 22)), [7, 8] + [0] * 10]
    ends = TokenBatches(store, labels, max_tokens=12, keep="ends").batch([0, 1])
    wanted = [*range(10, 13), *range(31, 40)]  # a quarter of the start, the rest of the end
    assert ends[0]["tokens"].tolist() == [wanted, [7, 8] + [0] * 10]
    assert ends[1].tolist() == [[i + 100 for i in wanted], [1, 2] + [0] * 10]
    assert ends[1].dtype == np.int32
    # no longer than the limit, although that is no multiple of 8
    assert TokenBatches(store, None, max_tokens=5).batch([0])[0]["tokens"].shape == (1, 5)
    alone = TokenBatches(store, None, max_tokens=12, keep="ends").batch([1])
    assert alone[0]["tokens"].tolist() == [[7, 8] + [0] * 6]


@pytest.mark.parametrize("keep", ["head", "ends"])
def test_batches_equal_a_plain_loop(store, keep):
    data = TokenBatches(store, np.arange(500), max_tokens=30, keep=keep)
    index = np.random.default_rng(0).permutation(500)[:64]
    x, y = data.batch(index)
    assert x["tokens"].shape == (64, 30)
    for row, i in zip(x["tokens"], index, strict=True):
        ids = store[i]
        if len(ids) > 30:
            ids = ids[:30] if keep == "head" else np.concatenate([ids[:7], ids[-23:]])
        assert row.tolist() == ids.tolist() + [0] * (30 - len(ids))
    assert y.tolist() == index.tolist()


def test_chosen_rows_and_more_inputs(store):
    rows = np.arange(0, 500, 5)
    extra = {
        "row": lambda rows, steps: rows.astype(np.int32),
        "place": lambda rows, steps: np.tile(np.arange(steps, dtype=np.int32), (len(rows), 1)),
    }
    data = TokenBatches(store, np.arange(500), rows=rows, extra=extra)
    assert len(data) == 100
    x, y = data.batch(np.array([1, 3]))
    assert x["row"].tolist() == y.tolist() == [5, 15]
    assert x["place"].shape == x["tokens"].shape
    np.testing.assert_array_equal(x["tokens"][0, : store.lengths[5]], store[5])
    mask = np.zeros(500, bool)
    mask[rows] = True
    np.testing.assert_array_equal(TokenBatches(store, None, rows=mask).rows, rows)
    for x, _ in data.dataset(32):
        assert set(x) == {"tokens", "row", "place"}
        assert x["place"].shape == x["tokens"].shape


@pytest.mark.parametrize("count", [500, 64, 17])
def test_a_pass_has_every_row_once(count):
    store = TokenStore.from_rows(rows_of(np.random.default_rng(2).integers(1, 50, count)))
    data = TokenBatches(store, np.arange(count))
    for seed in (None, 3):
        batches = [y for _, y in data.batches(16, seed=seed, steps=-(-count // 16))]
        assert sorted(np.concatenate(batches).tolist()) == list(range(count))
        assert sum(len(y) != 16 for y in batches) <= 1
    first = np.concatenate([y for _, y in data.batches(16, seed=3, steps=-(-count // 16))])
    other = np.concatenate([y for _, y in data.batches(16, seed=4, steps=-(-count // 16))])
    assert first.tolist() != other.tolist()


def test_little_data_is_mixed_too():
    lengths = np.arange(1, 201)
    data = TokenBatches(TokenStore.from_rows(rows_of(lengths)), np.arange(200))
    batches = [frozenset(y.tolist()) for _, y in data.batches(16, seed=0, steps=130)]
    assert len(set(batches)) == 130  # ten passes, and no batch stands twice


def test_predictions_are_put_back(store):
    data = TokenBatches(store, np.arange(500), rows=np.arange(100, 300))
    found = np.concatenate([y for _, y in data.dataset(32).as_numpy_iterator()])
    assert (np.diff(store.lengths[found]) >= 0).all()
    out = np.empty(200, int)
    out[data.order()] = found
    assert out.tolist() == list(range(100, 300))


def test_pools_are_sorted_and_batches_shuffled():
    lengths = np.random.default_rng(0).integers(1, 200, 4000)
    data = TokenBatches(TokenStore.from_rows(rows_of(lengths)), np.arange(4000))
    per_pass = 250
    batches = [y for _, y in data.batches(16, seed=1, steps=2 * per_pass)]
    assert np.mean([np.ptp(lengths[y]) for y in batches]) < 10
    longest = np.array([lengths[y].max() for y in batches[:per_pass]])
    assert 0.35 < (np.diff(longest) > 0).mean() < 0.65  # no order of lengths between batches
    again = {frozenset(y.tolist()) for y in batches[per_pass:]}
    assert not again & {frozenset(y.tolist()) for y in batches[:per_pass]}


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("start", [0, 1, 31, 32, 75])
def test_resuming_equals_skipping(store, seed, start):
    data = TokenBatches(store, np.arange(500))
    want = list(data.batches(16, seed=seed, steps=start + 9))[start:]
    got = list(data.dataset(16, seed=seed, start_step=start, steps=9).as_numpy_iterator())
    assert len(got) == 9
    for (x, y), (ours, targets) in zip(want, got, strict=True):
        np.testing.assert_array_equal(x["tokens"], ours["tokens"])
        np.testing.assert_array_equal(y, targets)


def test_the_dataset_knows_its_length(store):
    import tensorflow as tf

    data = TokenBatches(store, np.arange(500))
    assert int(data.dataset(64).cardinality()) == 8
    assert int(data.dataset(64, start_step=3).cardinality()) == 5
    assert int(data.dataset(64, seed=0).cardinality()) == tf.data.INFINITE_CARDINALITY
    x, y = data.dataset(64).element_spec
    assert x == {"tokens": tf.TensorSpec((None, None), tf.int32)}
    assert y.shape.as_list() == [None]
    alone = TokenBatches(store, None).dataset(64).element_spec
    assert alone == {"tokens": tf.TensorSpec((None, None), tf.int32)}
    labels = TokenBatches(store, store).dataset(64).element_spec
    assert labels[1] == tf.TensorSpec((None, None), tf.int32)
    many = TokenBatches(store, np.zeros((500, 3), np.float32)).dataset(64).element_spec
    assert many[1] == tf.TensorSpec((None, 3), tf.float32)


def test_a_memory_map_gives_the_same_batches(store, tmp_path):
    mapped = TokenStore.from_rows(iter(store), cache=tmp_path / "ids")
    for (x, _), (ours, _) in zip(
        TokenBatches(store, None).batches(32, seed=0, steps=20),
        TokenBatches(mapped, None).batches(32, seed=0, steps=20),
        strict=True,
    ):
        np.testing.assert_array_equal(x["tokens"], ours["tokens"])


def test_waste_is_the_share_of_padding(store):
    data = TokenBatches(store, np.arange(500))
    tokens = [x["tokens"] for x, _ in data.batches(16, seed=0, steps=32)]
    zeros = sum(int((t == 0).sum()) for t in tokens)
    assert data.waste(16) == pytest.approx(zeros / sum(t.size for t in tokens))


def test_what_does_not_fit(store):
    with pytest.raises(UserError, match="head, ends"):
        TokenBatches(store, None, keep="tail")
    with pytest.raises(UserError, match="at least 1"):
        TokenBatches(store, None, max_tokens=0)
    with pytest.raises(ValueError, match="as many targets"):
        TokenBatches(store, np.zeros(3))
    with pytest.raises(ValueError, match="rows must be"):
        TokenBatches(store, None, rows=np.array([500]))
    labels = TokenStore.from_rows([row[:-1] if i == 7 else row for i, row in enumerate(store)])
    with pytest.raises(ValueError, match="row 7 has"):
        TokenBatches(store, labels)
    with pytest.raises(ValueError, match="at least one row"):
        TokenBatches(store, None, rows=np.arange(0)).dataset(4)
    with pytest.raises(ValueError, match="batch_size >= 1"):
        list(TokenBatches(store, None).batches(0))


@pytest.mark.realdata
@pytest.mark.slow
def test_imdb_wastes_little(data_path):
    numbers: dict[str, int] = {}
    texts = read_texts(data_path / "sentiment" / "imdb_train.tsv.gz").texts
    store = TokenStore.from_rows(
        np.array([numbers.setdefault(w, len(numbers) + 5) for w in text.split()], np.int32)
        for text in texts
    )
    for limit in (None, 400):
        waste = TokenBatches(store, None, max_tokens=limit).waste(64)
        assert 0 < waste < 0.15, limit
