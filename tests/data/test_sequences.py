"""Numeric sequences with a label: wide and long tables, and their batches."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from keras_seq.data import SequenceBatches, read_sequences
from keras_seq.errors import UserError

LONG = """\
id,time,x,y,kind
b,2,3,30,up
a,1,5,50,down
b,1,1,10,up
a,2,4,40,down
b,3,7,70,up
"""


def put(folder, text, name="x.csv"):
    path = folder / name
    path.write_text(text)
    return path


def error_of(path, **options):
    with pytest.raises(UserError) as caught:
        read_sequences(path, **{"label_column": "kind", **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------- what is read


def test_a_wide_table(tmp_path):
    path = put(tmp_path, "kind,first,second,third\n0,1,2,3\n1,4,5,6.5\n")
    table = read_sequences(path, label_column="kind")
    assert [v.tolist() for v in table.values] == [[[1], [2], [3]], [[4], [5], [6.5]]]
    assert table.values[0].dtype == np.float32
    assert table.labels == ["0", "1"] and table.names == ("value",) and table.ids == ()
    assert table.label_name == "kind" and len(table.checksum) == 64 and table.report == ()
    table = read_sequences(path, label_column="kind", value_columns=("third", "first"))
    assert table.values[0].tolist() == [[3], [1]]


def test_a_wide_table_of_channels(tmp_path):
    path = put(tmp_path, "x_10,x_2,kind,y_2,y_10\n1,2,a,3,4\n5,6,b,7,8\n")
    table = read_sequences(path, label_column="kind")
    assert table.names == ("x", "y")
    assert table.values[0].tolist() == [[2, 3], [1, 4]]  # step 2 before step 10
    table = read_sequences(put(tmp_path, "0,1,kind\n1,2,a\n3,4,b\n"), label_column="kind")
    assert table.names == ("value",) and table.values[1].tolist() == [[3], [4]]


@pytest.mark.parametrize("name", ["x.csv", "x.tsv.gz", "x.parquet"])
def test_a_long_table(tmp_path, name):
    frame = pd.read_csv(put(tmp_path, LONG))
    path = tmp_path / name
    if "parquet" in name:
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if "tsv" in name else ",")
    options = {"label_column": "kind", "id_column": "id"}
    table = read_sequences(path, **options, time_column="time")
    assert table.ids == ("b", "a") and table.labels == ["up", "down"]
    assert table.names == ("x", "y")
    assert [v.tolist() for v in table.values] == [
        [[1, 10], [3, 30], [7, 70]],
        [[5, 50], [4, 40]],
    ]
    as_it_stands = read_sequences(path, **options, value_columns="x")
    assert as_it_stands.values[0][:, 0].tolist() == [3, 1, 7]


def test_times_may_be_dates(tmp_path):
    text = LONG.replace("b,2,", "b,2024-01-31 01:00,").replace("b,1,", "b,2023-12-31 00:00,")
    text = text.replace("b,3,", "b,2024-02-01 00:00,").replace("a,1,", "a,2024-02-01 00:00,")
    path = put(tmp_path, text.replace("a,2,", "a,2024-02-02 00:00,"))
    table = read_sequences(path, label_column="kind", id_column="id", time_column="time")
    assert table.values[0][:, 0].tolist() == [1, 3, 7]


def test_new_data_may_lack_labels(tmp_path):
    path = put(tmp_path, "a,b\n1,2\n3,4\n")
    for table in (
        read_sequences(path, label_column="kind", need_labels=False),
        read_sequences(path, label_column=None),
    ):
        assert table.labels is None and table.label_name == "" and len(table.values) == 2


# ------------------------------------------------------------------------------- what is wrong


def test_missing_values_and_words(tmp_path):
    assert "column 'b', row 2: the value is missing" in error_of(
        put(tmp_path, "kind,a,b\n0,1,2\n1,3,\n")
    )
    assert "row 1: the value is missing or infinite" in error_of(
        put(tmp_path, "kind,a,b\n0,inf,2\n1,3,4\n")
    )
    message = error_of(put(tmp_path, "kind,name,b\n0,Ann,2\n1,Bob,4\n"))
    assert "column 'name' holds no numbers" in message
    rows = "".join(f"{i % 2},{i if i != 3 else 'oh'}\n" for i in range(1, 9))
    assert "row 3: 'oh' is not a number" in error_of(put(tmp_path, "kind,a\n" + rows))


def test_labels_that_will_not_do(tmp_path):
    path = put(tmp_path, LONG.replace("7,70,up", "7,70,down"))
    message = error_of(path, id_column="id")
    assert "row 5: the label of 'b' changes from 'up' to 'down'" in message
    assert "row 2: the label is blank" in error_of(put(tmp_path, "kind,a\n0,1\n,3\n"))
    assert "one class only ('0')" in error_of(put(tmp_path, "kind,a\n0,1\n0,3\n"))


def test_ids_and_times_that_will_not_do(tmp_path):
    options = {"id_column": "id", "time_column": "time"}
    message = error_of(put(tmp_path, LONG.replace("b,3,", ",3,")), **options)
    assert "column 'id', row 5: the id is blank" in message
    message = error_of(put(tmp_path, LONG.replace("b,3,", "b,2,")), **options)
    assert "column 'time', row 5: the time stands twice" in message
    message = error_of(put(tmp_path, LONG.replace("b,3,", "b,soon,")), **options)
    assert "column 'time', row 1" in message or "column 'time', row 5" in message
    message = error_of(put(tmp_path, LONG), time_column="time")
    assert "needs an id column" in message


def test_columns_that_will_not_do(tmp_path):
    path = put(tmp_path, "kind,x_1,x_2,y_1\n0,1,2,3\n1,3,4,5\n")
    assert "channel 'y' has 1 columns" in error_of(path)
    assert "did you mean 'kind'?" in error_of(path, label_column="kinds")
    assert "given twice" in error_of(path, value_columns=("kind",))
    assert "no columns of values" in error_of(put(tmp_path, "kind\n0\n1\n"))
    assert "no such file" in error_of(tmp_path / "none.csv")


# ------------------------------------------------------------------------------------- batches


def test_batches_are_padded_and_masked():
    generator = np.random.default_rng(0)
    values = [generator.normal(size=(n, 2)).astype(np.float32) for n in (3, 20, 9, 1)]
    data = SequenceBatches(values, np.array([0, 1, 0, 1]), max_steps=10, keep="ends")
    x, y = data.batch(np.array([0, 1]))
    assert x["features"].shape == (2, 10, 2) and x["features"].dtype == np.float32
    assert x["mask"].tolist() == [[True] * 3 + [False] * 7, [True] * 10]
    np.testing.assert_array_equal(x["features"][0, :3], values[0])
    assert not x["features"][0, 3:].any()
    np.testing.assert_array_equal(x["features"][1], np.concatenate([values[1][:2], values[1][12:]]))
    assert y.tolist() == [0, 1]
    found = list(data.dataset(2))
    assert [tuple(x["features"].shape) for x, _ in found] == [(2, 8, 2), (2, 10, 2)]
    assert sorted(np.concatenate([y for _, y in found]).tolist()) == [0, 0, 1, 1]


def test_equal_lengths_are_not_padded():
    data = SequenceBatches(np.ones((5, 13, 2), np.float32), np.arange(5))
    x, _ = data.batch(np.arange(5))
    assert x["features"].shape == (5, 13, 2) and x["mask"].all() and data.waste(2) == 0


def test_resuming_equals_skipping():
    values = [np.full((n, 1), n, np.float32) for n in range(1, 60)]
    data = SequenceBatches(values, np.arange(59))
    want = list(data.dataset(8, seed=2, steps=20).as_numpy_iterator())[11:]
    got = list(data.dataset(8, seed=2, start_step=11, steps=9).as_numpy_iterator())
    for (x, y), (ours, targets) in zip(want, got, strict=True):
        np.testing.assert_array_equal(x["features"], ours["features"])
        np.testing.assert_array_equal(x["mask"], ours["mask"])
        np.testing.assert_array_equal(y, targets)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="all alike"):
        SequenceBatches([np.ones((3, 2)), np.ones((3, 1))], None)
    with pytest.raises(ValueError, match="all alike"):
        SequenceBatches([np.ones(3)], None)
    with pytest.raises(ValueError, match="as many targets"):
        SequenceBatches([np.ones((3, 1))], np.arange(2))
