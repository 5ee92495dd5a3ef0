"""Windows of a stream: what is a target, how often, and what is hidden."""

from __future__ import annotations

import numpy as np
import pytest

from keras_seq.data import MaskedBatches, StreamBatches
from keras_seq.errors import UserError

IDS = np.random.default_rng(0).integers(5, 50, 403).astype(np.int32)


def test_first_window_by_hand() -> None:
    x, y = StreamBatches(np.arange(5, 12), 4).batch(np.array([0, 1]))
    assert x["tokens"].tolist() == [[2, 5, 6, 7], [8, 9, 10, 0]]
    assert y.tolist() == [[6, 7, 8, 9], [10, 11, 12, 0]]
    assert x["tokens"].dtype == y.dtype == np.int32


@pytest.mark.parametrize(("context", "stride"), [(16, 16), (16, 5), (16, 1), (500, 500), (403, 7)])
def test_every_id_is_a_target_once(context: int, stride: int) -> None:
    data = StreamBatches(IDS, context, stride=stride)
    targets = []
    for x, y in data.batches(3):
        assert x["tokens"].shape == y.shape == (len(y), context)
        targets.append(y[y > 0])
    np.testing.assert_array_equal(np.concatenate(targets) - 1, IDS)


def test_stride_gives_every_later_target_its_context() -> None:
    data = StreamBatches(IDS, 16, stride=4)
    _, y = data.batch(np.arange(1, len(data)))
    assert not y[:, :12].any()  # at least 12 ids stand before the first target that counts
    assert y[:-1, 12:].all()


def test_inputs_stand_one_place_before_the_targets() -> None:
    x, y = StreamBatches(IDS, 16).training_batch(8, seed=3, step=11)
    np.testing.assert_array_equal(x["tokens"][:, 1:], y[:, :-1] - 1)
    assert (y > 0).all()


def test_a_pass_reads_the_stream_nearly_once() -> None:
    stream = np.arange(5, 5 + 16 * 40, dtype=np.int32)
    data = StreamBatches(stream, 16)
    for number in range(3):
        steps = range(number * 10, number * 10 + 10)  # 40 windows in batches of 4
        seen = np.concatenate([data.training_batch(4, 0, k)[1].ravel() for k in steps]) - 1
        counts = np.bincount(seen, minlength=len(stream) + 5)[5:]
        assert (counts > 0).mean() >= 39 / 40
        # What does not fill the last batch is read again.
        assert counts.max() <= 2


def test_passes_differ_in_offset_and_order() -> None:
    data = StreamBatches(IDS, 16)
    first = [data.training_batch(4, 0, k)[0]["tokens"] for k in (0, 6, 12)]
    assert len({tuple(x[0].tolist()) for x in first}) == 3


@pytest.mark.parametrize("masked", [False, True])
def test_training_goes_on_from_any_step(masked: bool) -> None:
    def make() -> StreamBatches:
        return MaskedBatches(IDS, 16, vocabulary=50) if masked else StreamBatches(IDS, 16)

    whole = list(make().dataset(4, seed=1, steps=17).as_numpy_iterator())
    rest = list(make().dataset(4, seed=1, start_step=9, steps=8).as_numpy_iterator())
    for (x, y), (other_x, other_y) in zip(whole[9:], rest, strict=True):
        np.testing.assert_array_equal(y, other_y)
        for name, value in x.items():
            np.testing.assert_array_equal(value, other_x[name])
    x, _ = next(iter(make().dataset(4, seed=2)))
    assert not np.array_equal(x["tokens"], whole[0][0]["tokens"])


def test_dataset_in_order_has_a_known_end() -> None:
    data = StreamBatches(IDS, 16)
    found = data.dataset(4)
    assert int(found.cardinality()) == 7  # 26 windows
    assert [len(y) for _, y in found] == [4] * 6 + [2]


def test_short_stream_trains() -> None:
    x, y = StreamBatches(IDS[:5], 16).training_batch(2, 0, 3)
    assert x["tokens"].shape == (2, 16)
    assert (y > 0).sum(1).tolist() == [5, 5]


def test_hidden_tokens() -> None:
    ids = np.random.default_rng(1).integers(5, 1000, 64 * 200).astype(np.int32)
    data = MaskedBatches(ids, 64, vocabulary=1000, share=0.15)
    x, weights = data.training_batch(150, seed=0, step=0)
    tokens, places, targets = x["tokens"], x["places"], x["targets"]
    assert places.shape == targets.shape == weights.shape == (150, 10)
    assert weights.all()
    assert (np.diff(places) > 0).all()  # no place twice
    shown = np.take_along_axis(tokens, places, 1)
    assert abs((shown == 4).mean() - 0.8) < 0.03
    assert abs((shown == targets).mean() - 0.1) < 0.03
    assert shown[shown != 4].min() >= 5
    whole = tokens.copy()
    np.put_along_axis(whole, places, targets, 1)
    windows = {row.tobytes() for row in np.lib.stride_tricks.sliding_window_view(ids, 64)}
    assert all(row.tobytes() in windows for row in whole)


def test_hidden_tokens_at_fixed_places_stay_and_spare_the_specials() -> None:
    ids = np.concatenate([np.full(20, 3), np.arange(5, 9)]).astype(np.int32)
    data = MaskedBatches(ids, 12, vocabulary=9, share=0.5)
    first, again = data.batch(np.array([1])), data.batch(np.array([0, 1]))
    np.testing.assert_array_equal(first[0]["tokens"][0], again[0]["tokens"][1])
    x, weights = again
    assert weights[0].sum() == 0  # nothing but ends of lines
    assert (x["tokens"][0] == 3).all()
    assert x["targets"][0].sum() == 0
    assert sorted(x["targets"][1][weights[1] > 0]) == [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"ids": IDS, "context": 0}, "context is 0"),
        ({"ids": IDS, "context": 8, "stride": 9}, "stride is 9"),
        ({"ids": IDS[:0], "context": 8}, "no token"),
    ],
)
def test_bad_streams(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        StreamBatches(**arguments)  # type: ignore[arg-type]


def test_bad_masks() -> None:
    with pytest.raises(UserError, match="share of hidden"):
        MaskedBatches(IDS, 8, vocabulary=50, share=1.0)
    with pytest.raises(UserError, match="vocabulary of 5"):
        MaskedBatches(IDS, 8, vocabulary=5)
