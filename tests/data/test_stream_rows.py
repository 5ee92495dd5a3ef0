"""Rows of a stream side by side: who goes on where, and that every id is scored once."""

from __future__ import annotations

import numpy as np
import pytest

from keras_seq.data import MOST_ROWS, StreamRows
from keras_seq.errors import UserError

IDS = np.random.default_rng(0).integers(5, 50, 403).astype(np.int32)


def test_by_hand() -> None:
    data = StreamRows(np.arange(5, 17, dtype=np.int32), context=3)
    x, y = data.training_batch(2, seed=0, step=0)  # spare: 10 ids, of which a batch takes 6
    begin = int(y[0, 0]) - 6
    assert (y - 1).tolist() == [
        list(range(5 + begin, 8 + begin)),
        list(range(8 + begin, 11 + begin)),
    ]
    assert x["fresh"].tolist() == [1, 1]
    x, y = StreamRows(np.arange(5, 105, dtype=np.int32), 3).scoring_batch(2, 1)
    assert x["tokens"].tolist() == [[7, 8, 9], [57, 58, 59]]
    assert y.tolist() == [[9, 10, 11], [59, 60, 61]]
    assert x["slots"].tolist() == [MOST_ROWS, MOST_ROWS + 1]
    assert x["fresh"].tolist() == [0, 0]


def test_rows_go_on_until_the_pass_ends() -> None:
    stream = np.arange(5, 5 + 403, dtype=np.int32)
    data = StreamRows(stream, 16)
    per_pass = 6  # 388 ids where a pass may begin anywhere in the first 16, 64 to a batch
    offsets = set()
    before = None
    for step in range(3 * per_pass):
        x, y = data.training_batch(4, seed=1, step=step)
        assert x["slots"].tolist() == [0, 1, 2, 3]
        begins = step % per_pass == 0
        assert x["fresh"].tolist() == [int(begins)] * 4
        if begins:
            offsets.add(int(y[0, 0]))
        else:
            np.testing.assert_array_equal(y[:, 0], before + 1)
        np.testing.assert_array_equal(x["tokens"][:, 1:], y[:, :-1] - 1)
        before = y[:, -1]
    assert len(offsets) == 3


@pytest.mark.parametrize(
    ("context", "most", "rows"), [(16, 8, 1), (5, 8, 5), (3, 4, 4), (1, 30, 25)]
)
def test_every_id_is_scored_once_in_order(context: int, most: int, rows: int) -> None:
    data = StreamRows(IDS, context)
    targets = []
    for x, y in data.batches(most):
        assert x["tokens"].shape == y.shape == (rows, context)
        targets.append(y)
    assert len(targets) == data.scoring_steps(most)
    joined = np.concatenate(targets, 1)
    np.testing.assert_array_equal(joined[joined > 0] - 1, IDS)


def test_dataset_is_a_function_of_the_step() -> None:
    data = StreamRows(IDS, 5)
    whole = list(data.dataset(4, seed=3, steps=12))
    for step in (0, 7, 11):
        x, y = next(iter(data.dataset(4, seed=3, start_step=step)))
        assert sorted(x) == ["fresh", "slots", "tokens"]
        np.testing.assert_array_equal(y, whole[step][1])
        for name, value in x.items():
            np.testing.assert_array_equal(value, whole[step][0][name])
    assert len(list(data.dataset(4))) == data.dataset(4).cardinality() == data.scoring_steps(4)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="batch size is 513"):
        StreamRows(IDS, 1).training_batch(513, 0, 0)
    with pytest.raises(UserError, match="64 rows of 16 do not fit"):
        StreamRows(IDS, 16).training_batch(64, 0, 0)
