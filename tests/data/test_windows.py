"""Windows and splits against plain slicing loops."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_seq.data import Windows, default_split, parse_split, read_series, series_from_frame
from keras_seq.errors import UserError


def table_of(lengths, columns=1):
    """Series of the given lengths whose values tell series and row: 1000 * series + row."""
    frames = [
        pd.DataFrame(
            {"id": f"s{i}", **{f"c{c}": 1000.0 * i + np.arange(n) + c / 10 for c in range(columns)}}
        )
        for i, n in enumerate(lengths)
    ]
    return series_from_frame(pd.concat(frames, ignore_index=True), id_column="id")


def same(left, right):
    inputs, targets = left
    others, wanted = right
    assert inputs.keys() == others.keys()
    for name in inputs:
        np.testing.assert_array_equal(np.asarray(inputs[name]), np.asarray(others[name]))
    np.testing.assert_array_equal(np.asarray(targets), np.asarray(wanted))


# ------------------------------------------------------------------------------------- windows


@given(
    rows=st.integers(4, 40),
    columns=st.integers(1, 3),
    lookback=st.integers(1, 5),
    horizon=st.integers(1, 4),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_a_batch_equals_slices(rows, columns, lookback, horizon, data):
    span = lookback + horizon
    rows = max(rows, span)
    values = np.random.default_rng(rows).standard_normal((rows, columns))
    known = np.random.default_rng(columns).standard_normal((rows, 2))
    starts = np.array(
        data.draw(st.lists(st.integers(0, rows - span), min_size=1, unique=True)), np.int64
    )
    windows = Windows(
        values, starts, lookback, horizon, time_index=np.arange(rows) + 7, covariates=known
    )
    picked = data.draw(st.lists(st.integers(0, len(starts) - 1), min_size=1, max_size=6))
    inputs, targets = windows.batch(np.array(picked))
    for b, i in enumerate(picked):
        s = starts[i]
        np.testing.assert_array_equal(
            inputs["series"][b], values[s : s + lookback].astype(np.float32)
        )
        np.testing.assert_array_equal(
            targets[b], values[s + lookback : s + span].astype(np.float32)
        )
        np.testing.assert_array_equal(
            inputs["covariates"][b], known[s : s + span].astype(np.float32)
        )
        assert inputs["time_index"][b] == s + 7
    assert inputs["time_index"].dtype == np.int32 and targets.dtype == np.float32


def test_values_are_not_copied_even_from_a_read_only_map(tmp_path):
    path = tmp_path / "values.npy"
    values = np.arange(60, dtype=np.float32).reshape(20, 3)
    np.save(path, values)
    mapped = np.load(path, mmap_mode="r")
    windows = Windows(mapped, np.arange(14), 4, 3)
    assert np.shares_memory(windows._series, mapped)
    np.testing.assert_array_equal(windows.batch([13])[1][0], values[17:20])
    with pytest.raises(ValueError, match="read-only"):
        windows._series[0, 0] = 1


def test_a_batch_is_a_copy_that_may_be_changed():
    values = np.arange(8, dtype=np.float32)[:, None]
    windows = Windows(values, np.arange(6), 2, 1)
    inputs, targets = windows.batch([0, 1])
    inputs["series"][:] = -1
    targets[:] = -1
    np.testing.assert_array_equal(values[:, 0], np.arange(8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(starts=[0], lookback=0, horizon=1), "at least 1"),
        (dict(starts=[0], lookback=1, horizon=0), "at least 1"),
        (dict(starts=[7], lookback=2, horizon=2), "inside 10 rows"),
        (dict(starts=[-1], lookback=2, horizon=2), "inside 10 rows"),
        (dict(starts=[[0]], lookback=2, horizon=2), "shapes"),
        (dict(starts=[0], lookback=2, horizon=2, time_index=np.arange(9)), "time_index"),
        (dict(starts=[0], lookback=2, horizon=2, covariates=np.zeros((9, 1))), "covariates"),
    ],
)
def test_windows_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        Windows(np.zeros((10, 1), np.float32), **arguments)


# ------------------------------------------------------------------------------------- dataset


def example(windows=11, **options):
    rows = windows + 4
    values = np.random.default_rng(0).standard_normal((rows, 2)).astype(np.float32)
    # not every row starts a window, and not in rising order
    return Windows(values, np.arange(windows)[::-1], 3, 2, **options)


@pytest.mark.parametrize("batch", [1, 3, 4, 11, 20])
@pytest.mark.parametrize("seed", [None, 5])
def test_the_dataset_gives_the_batches_of_numpy(batch, seed):
    windows = example(time_index=np.arange(15), covariates=np.arange(30.0).reshape(15, 2))
    count = 2 * windows.steps_per_epoch(batch) + 1
    ours = list(windows.batches(batch, seed=seed, steps=count))
    theirs = list(windows.dataset(batch, seed=seed, steps=count))
    assert len(ours) == len(theirs) == count
    for left, right in zip(ours, theirs, strict=True):
        same(left, right)


@given(
    windows=st.integers(1, 12),
    batch=st.integers(1, 6),
    start=st.integers(0, 15),
    chunk=st.sampled_from([1, 200, 1 << 20]),
)
@settings(max_examples=15, deadline=None)
def test_going_on_from_any_step_gives_the_same_batches(windows, batch, start, chunk):
    from keras_seq.data import windows as module

    source = example(windows)
    before = module._CHUNK_BYTES
    module._CHUNK_BYTES = chunk  # one batch a chunk, a few, all
    try:
        whole = list(source.dataset(batch, seed=3, steps=start + 5))
        rest = list(source.dataset(batch, seed=3, start_step=start, steps=5))
    finally:
        module._CHUNK_BYTES = before
    assert len(rest) == 5
    for left, right in zip(whole[start:], rest, strict=True):
        same(left, right)
    numpy = source.batches(batch, seed=3, start_step=start, steps=5)
    for left, right in zip(numpy, rest, strict=True):
        same(left, right)


def test_an_epoch_holds_every_window_once_and_epochs_differ():
    windows = example(50)
    orders = [windows.order(1, epoch) for epoch in range(3)] + [windows.order(2, 0)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(50))
    for i, left in enumerate(orders):
        for right in orders[:i]:
            assert (left != right).mean() > 0.7
    np.testing.assert_array_equal(orders[0], windows.order(1, 0))
    np.testing.assert_array_equal(windows.order(None, 4), np.arange(50))
    # the targets that the dataset gives in its second epoch are those of that epoch's order
    per_epoch = windows.steps_per_epoch(8)
    assert per_epoch == 7
    second = list(windows.dataset(8, seed=1, start_step=per_epoch, steps=per_epoch))
    assert [len(y) for _, y in second] == [8] * 6 + [2]
    seen = np.concatenate([y.numpy() for _, y in second])
    np.testing.assert_array_equal(seen, windows.batch(orders[1])[1])


def test_a_large_order_is_well_mixed():
    order = example(20_000).order(0, 0)
    numbers = np.arange(20_000)
    # a random order: no correlation with the place, neighbours a third of the range apart
    assert abs(np.corrcoef(order, numbers)[0, 1]) < 0.03
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.03
    assert abs(np.abs(np.diff(order)).mean() / 20_000 - 1 / 3) < 0.01


def test_shapes_are_static_but_for_the_batch_and_the_length_is_known():
    import tensorflow as tf

    windows = example(covariates=np.zeros((15, 3)), time_index=np.arange(15))
    dataset = windows.dataset(4, seed=0)
    inputs, targets = dataset.element_spec
    assert inputs["series"].shape.as_list() == [None, 3, 2]
    assert inputs["covariates"].shape.as_list() == [None, 5, 3]
    assert inputs["time_index"].shape.as_list() == [None]
    assert inputs["time_index"].dtype == tf.int32
    assert targets.shape.as_list() == [None, 2, 2]
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    assert windows.dataset(4).cardinality() == 3
    assert windows.dataset(4, start_step=4).cardinality() == 2
    assert len(list(windows.dataset(4, start_step=4))) == 2


@pytest.mark.parametrize(
    "options", [dict(batch_size=0), dict(batch_size=2, start_step=-1), dict(batch_size=2, seed=-1)]
)
def test_bad_dataset_options(options):
    with pytest.raises(ValueError, match="batch_size >= 1"):
        example().dataset(**options)
    with pytest.raises(ValueError, match="batch_size >= 1"):
        next(example().batches(**options))


def test_no_windows_is_an_error():
    windows = Windows(np.zeros((3, 1), np.float32), np.zeros(0, np.int64), 2, 2)
    assert len(windows) == 0
    with pytest.raises(ValueError, match="at least one window"):
        windows.dataset(2)


@pytest.mark.slow
def test_a_program_ends_while_its_pipeline_is_at_work(repository):
    # A pipeline that calls Python hangs here more often than not, and only at the very end.
    code = (
        "import numpy as np\n"
        "from keras_seq.data import Windows\n"
        "w = Windows(np.zeros((50000, 7), np.float32), np.arange(49000), 336, 96)\n"
        "batches = iter(w.dataset(64, seed=0))\n"
        "for _ in range(5): next(batches)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=repository, check=True, timeout=120)


# -------------------------------------------------------------------------------------- splits


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("0.6,0.2,0.2", "fractions", (0.6, 0.2, 0.2)),
        (" 0.7, 0.1, 0.2 ", "fractions", (0.7, 0.1, 0.2)),
        ("8640,2880,2880", "counts", (8640, 2880, 2880)),
        ("2017-07-01,2017-11-01", "dates", ("2017-07-01", "2017-11-01")),
        ("tail:48,24", "tail", (48, 24)),
    ],
)
def test_split_rules(text, kind, values):
    split = parse_split(text)
    assert (split.kind, split.values) == (kind, values)


@pytest.mark.parametrize(
    "text",
    ["", "a", "0.5,0.5", "0.5,0.5,0.5", "1,2", "0,5,5", "10,-1,5", "tail:5", "tail:0,5",
     "0.6,0.2,0.2,0", "2017-07-01", "2017-07-01,NaT", "2017-13-01,2017-14-01", "nan,0.5,0.5"],
)  # fmt: skip
def test_split_rules_that_are_none(text):
    if text == "1,2":  # two years, or two whole numbers of an integer time column
        assert parse_split(text).kind == "dates"
        return
    with pytest.raises(UserError, match="split"):
        parse_split(text)


@given(
    lengths=st.lists(st.integers(20, 45), min_size=1, max_size=4),
    lookback=st.integers(1, 4),
    horizon=st.integers(1, 3),
    text=st.sampled_from(["0.5,0.25,0.25", "10,5,5", "tail:5,4"]),
)
@settings(max_examples=60, deadline=None)
def test_starts_are_all_windows_that_may_be(lengths, lookback, horizon, text):
    table = table_of(lengths)
    split = parse_split(text)
    parts, starts = split.parts(table), split.starts(table, lookback, horizon)
    for part in ("train", "validation", "test"):
        wanted = []
        for s, (low, high) in enumerate(parts[part]):
            assert table.offsets[s] <= low < high <= table.offsets[s + 1]
            for row in range(table.offsets[s], table.offsets[s + 1]):
                inputs_from = low if part == "train" else table.offsets[s]
                targets = (row + lookback, row + lookback + horizon)
                if row >= inputs_from and targets[0] >= low and targets[1] <= high:
                    wanted.append(row)
        np.testing.assert_array_equal(starts[part], wanted)
        # no window holds rows of two series
        series = np.floor(table.values[:, 0] / 1000)
        for row in starts[part]:
            assert len(set(series[row : row + lookback + horizon])) == 1
    for part, other in (("train", "validation"), ("validation", "test")):
        assert (parts[part][:, 1] == parts[other][:, 0]).all()
    # nothing that training sees is a target of validation or test
    seen = {r for s in starts["train"] for r in range(s, s + lookback + horizon)}
    for part in ("validation", "test"):
        for s in starts[part]:
            assert seen.isdisjoint(range(s + lookback, s + lookback + horizon))


def test_parts_by_hand():
    table = table_of([23])
    assert {k: v.tolist() for k, v in parse_split("0.7,0.1,0.2").parts(table).items()} == {
        "train": [[0, 16]],  # int(16.1)
        "validation": [[16, 19]],
        "test": [[19, 23]],  # int(4.6)
    }
    two = table_of([20, 12])
    assert {k: v.tolist() for k, v in parse_split("tail:3,2").parts(two).items()} == {
        "train": [[0, 15], [20, 27]],
        "validation": [[15, 18], [27, 30]],
        "test": [[18, 20], [30, 32]],
    }
    counts = parse_split("5,3,2").parts(two)
    assert counts["test"].tolist() == [[8, 10], [28, 30]]  # the rest is unused


def test_parts_by_date():
    days = pd.date_range("2020-01-01", periods=20)
    table = series_from_frame(pd.DataFrame({"day": days, "y": np.arange(20.0)}))
    parts = parse_split("2020-01-11,2020-01-16").parts(table)
    assert [parts[p].tolist() for p in ("train", "validation", "test")] == [
        [[0, 10]],
        [[10, 15]],
        [[15, 20]],
    ]
    numbered = series_from_frame(
        pd.DataFrame({"year": range(1900, 1920), "y": 1.0}), time_column="year"
    )
    assert parse_split("1910,1915").parts(numbered)["test"].tolist() == [[15, 20]]
    with pytest.raises(UserError, match="first date must be before"):
        parse_split("2020-01-16,2020-01-11").parts(table)
    with pytest.raises(UserError, match="no time column"):
        parse_split("2020-01-11,2020-01-16").parts(table_of([30]))
    with pytest.raises(UserError, match="whole numbers"):
        parse_split("2020-01-11,2020-01-16").parts(numbered)


@pytest.mark.parametrize(
    ("text", "lookback", "horizon", "message"),
    [
        ("tail:2,2", 0, 1, "lookback is 0"),
        ("tail:2,2", 1, 0, "horizon is 0"),
        ("tail:2,2", 6, 2, r"series 's1' with 10 rows .* train part has 6 rows.*needs 8"),
        ("tail:2,2", 2, 3, r"'s0' .* \(and 1 more series\).*validation part has 2 rows.* 3"),
        ("10,5,5", 2, 2, r"series 's1' with 10 rows.* needs at least 20"),
        ("tail:8,8", 2, 2, r"series 's1' with 10 rows.* needs at least 17"),
    ],
)
def test_series_that_are_too_short(text, lookback, horizon, message):
    with pytest.raises(UserError, match=message) as error:
        parse_split(text).starts(table_of([30, 10]), lookback, horizon)
    assert "\n" not in str(error.value)


def test_default_split():
    assert default_split(table_of([50]), 5).text == "0.7,0.1,0.2"
    assert default_split(table_of([50, 50]), 5).text == "tail:5,5"
    with pytest.raises(UserError, match="horizon is 0"):
        default_split(table_of([50]), 0)


def test_the_protocol_of_etth1_on_rows_of_our_own():
    table = table_of([17_420], columns=2)
    starts = parse_split("8640,2880,2880").starts(table, 336, 96)
    assert {part: len(rows) for part, rows in starts.items()} == {
        "train": 8640 - 336 - 96 + 1,
        "validation": 2785,
        "test": 2785,
    }
    assert starts["test"][0] == 8640 + 2880 - 336
    assert starts["test"][-1] + 336 + 96 == 8640 + 2880 + 2880


@pytest.mark.realdata
def test_the_protocol_of_etth1():
    folder = os.environ.get("KERAS_SEQ_DATA")
    if not folder:
        pytest.skip("KERAS_SEQ_DATA does not name the folder of the data sets")
    table = read_series(Path(folder) / "timeseries/ETTh1.csv")
    assert (table.frequency, table.period, table.values.shape) == ("h", 24, (17_420, 7))
    assert table.report == ()
    starts = parse_split("8640,2880,2880").starts(table, 336, 96)
    assert len(starts["test"]) == 2785
