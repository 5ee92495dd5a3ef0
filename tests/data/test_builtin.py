"""Built-in series: what they are, and the waves' known answers."""

from __future__ import annotations

import numpy as np
import pytest

from keras_seq.data import builtin_info, load_builtin, make_waves, read_series
from keras_seq.data.builtin import BUILTIN
from keras_seq.errors import UserError


@pytest.mark.parametrize("name", list(BUILTIN))
def test_each_reads_as_its_metadata_says(name):
    info = builtin_info(name)
    frame = load_builtin(name)
    assert tuple(frame.columns) == (info.time_column, *info.target)
    assert not frame.isna().any().any()
    table = read_series(f"builtin:{name}")
    assert (table.frequency, table.period) == (info.frequency, info.period)
    assert table.names == info.target and table.time_column == info.time_column
    assert table.source == f"builtin:{name}"
    np.testing.assert_array_equal(np.diff(table.time_index), 1)  # no gaps
    assert any(info.source in line for line in table.report)
    assert table.checksum == read_series(f"builtin:{name}").checksum


def test_values_of_the_sources():
    co2 = load_builtin("co2")
    assert len(co2) == 2284 and co2["co2"].iloc[0] == 316.1
    assert str(co2["date"].iloc[0])[:10] == "1958-03-29"
    # the first empty week is filled by the mean of its neighbours where one is missing
    from statsmodels.datasets import co2 as source

    raw = source.load_pandas().data["co2"].to_numpy()
    empty = np.isnan(raw)
    assert empty.sum() == 59 and "59 weeks" in builtin_info("co2").note
    np.testing.assert_array_equal(co2["co2"].to_numpy()[~empty], raw[~empty])
    alone = np.flatnonzero(empty[1:-1] & ~empty[:-2] & ~empty[2:]) + 1
    middle = (raw[alone - 1] + raw[alone + 1]) / 2
    np.testing.assert_allclose(co2["co2"].to_numpy()[alone], middle)

    nino = load_builtin("el_nino")
    assert len(nino) == 61 * 12
    assert nino["temperature"].iloc[:3].tolist() == [23.11, 24.20, 25.37]  # months of 1950
    assert nino["temperature"].iloc[12] == 24.19  # January 1951
    sunspots = load_builtin("sunspots")
    assert len(sunspots) == 309 and sunspots["activity"].iloc[:3].tolist() == [5, 11, 16]


def test_waves_have_known_answers():
    frame, truth = make_waves(500, periods=(10, 25), channels=("u",), noise=0.5, trend=0.1, seed=3)
    values = frame["u"].to_numpy()
    assert abs((values - truth[:, 0]).std() - 0.5) < 0.05
    # without trend the waves repeat after the least common multiple of their periods
    _, still = make_waves(500, periods=(10, 25), channels=("u",), seed=3)
    np.testing.assert_allclose(still[50:], still[:-50], atol=1e-9)
    np.testing.assert_allclose(truth[:, 0], still[:, 0] + 0.1 * np.arange(500), atol=1e-9)
    again, _ = make_waves(500, periods=(10, 25), channels=("u",), noise=0.5, trend=0.1, seed=3)
    assert frame.equals(again)
    other, _ = make_waves(500, periods=(10, 25), channels=("u",), noise=0.5, trend=0.1, seed=4)
    assert not frame.equals(other)


def test_wrong_names_and_options():
    with pytest.raises(UserError, match="did you mean 'sunspots'"):
        load_builtin("sunspot")
    with pytest.raises(UserError, match="there are co2, el_nino, sunspots, waves"):
        builtin_info("x")
    for options in ({"steps": 0}, {"periods": ()}, {"periods": (0,)}, {"noise": -1}):
        with pytest.raises(UserError, match="waves need"):
            make_waves(**options)
