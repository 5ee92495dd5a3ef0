"""Reading series: what is found, what is filled, and every way in which a file can be wrong."""

from __future__ import annotations

import gzip
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from keras_seq.data import (
    calendar_features,
    calendar_names,
    future_times,
    read_series,
    series_from_frame,
)
from keras_seq.data.calendar import Clock, clock_from_alias, find_period
from keras_seq.errors import UserError

HOURLY = "date,a,b\n2024-01-01 00:00:00,1,10\n2024-01-01 01:00:00,2,20\n2024-01-01 02:00:00,3,30\n"


def put(folder, text, name="x.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def frame_of(frequency, periods=12, start="2020-01-01"):
    return pd.DataFrame(
        {
            "date": pd.date_range(start, periods=periods, freq=frequency),
            "y": np.arange(periods, dtype=float),
        }
    )


# --------------------------------------------------------------------------------- what is read


def test_a_wide_file(tmp_path):
    path = put(tmp_path, HOURLY)
    table = read_series(path)
    assert table.names == ("a", "b") and table.ids == ("",)
    assert table.values.tolist() == [[1, 10], [2, 20], [3, 30]]
    assert table.values.dtype == np.float64 and not table.values.flags.writeable
    assert table.offsets.tolist() == [0, 3]
    assert table.times.dtype == np.dtype("datetime64[ns]")
    assert (table.time_column, table.id_column) == ("date", None)
    assert (table.frequency, table.period) == ("h", 24)
    first = (np.datetime64("2024-01-01") - np.datetime64("1970-01-01")).astype("timedelta64[h]")
    assert table.time_index.tolist() == [first.astype(int) + i for i in range(3)]
    assert table.covariates.shape == (3, 0) and table.report == ()
    assert table.source == str(path)


def test_chosen_columns(tmp_path):
    path = put(tmp_path, HOURLY)
    table = read_series(path, target="b", covariates=["a"])
    assert table.names == ("b",) and table.covariate_names == ("a",)
    assert table.values[:, 0].tolist() == [10, 20, 30]
    assert table.covariates[:, 0].tolist() == [1, 2, 3]
    assert read_series(path, target=["b", "a"]).values.tolist() == [[10, 1], [20, 2], [30, 3]]
    assert read_series(path, covariates="a").names == ("b",)


def test_the_same_content_has_the_same_checksum(tmp_path):
    table = read_series(put(tmp_path, HOURLY))
    assert table.checksum == read_series(put(tmp_path, HOURLY, "y.csv")).checksum
    assert len(table.checksum) == 64
    others = [
        read_series(put(tmp_path, HOURLY.replace("30", "31"), "z.csv")),
        read_series(put(tmp_path, HOURLY.replace(",b", ",c"), "v.csv")),
        read_series(put(tmp_path, HOURLY.replace("2024", "2023"), "w.csv")),
        read_series(put(tmp_path, HOURLY), target="a"),
    ]
    assert len({table.checksum, *(t.checksum for t in others)}) == 5


@pytest.mark.parametrize(
    "kind", ["csv.gz", "tsv", "tsv.gz", "semicolon", "parquet", "latin", "bom"]
)
def test_kinds_of_files(tmp_path, kind):
    wanted = read_series(put(tmp_path, HOURLY))
    text = HOURLY.encode()
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        path = tmp_path / "x.parquet"
        pd.read_csv(tmp_path / "x.csv", parse_dates=["date"]).to_parquet(path)
    elif kind == "semicolon":
        path = put(tmp_path, text.replace(b",", b";"), "s.csv")
    elif kind == "latin":
        path = put(tmp_path, text.replace(b"a,b", "µ,b".encode("latin-1")), "l.csv")
    elif kind == "bom":
        path = put(tmp_path, b"\xef\xbb\xbf" + text, "b.csv")
    else:
        body = text.replace(b",", b"\t") if "tsv" in kind else text
        path = put(tmp_path, gzip.compress(body) if kind.endswith("gz") else body, f"k.{kind}")
    table = read_series(path)
    if kind == "latin":
        assert table.names == ("µ", "b") and "Latin-1" in table.report[0]
    else:
        assert table.checksum == wanted.checksum
    assert any("separated by ';'" in line for line in table.report) == (kind == "semicolon")


def test_a_long_file_whose_series_are_mixed_up():
    # sorted by time, as such files often are
    frame = pd.DataFrame(
        {
            "shop": ["B", "A", "B", "A", "B"],
            "day": pd.to_datetime(
                ["2024-01-01", "2024-01-01", "2024-01-02", "2024-01-02", "2024-01-03"]
            ),
            "y": [1.0, 10.0, 2.0, 20.0, 3.0],
        }
    )
    table = series_from_frame(frame, id_column="shop")
    assert table.ids == ("B", "A") and table.offsets.tolist() == [0, 3, 5]
    assert table.values[:, 0].tolist() == [1, 2, 3, 10, 20]
    assert (table.frequency, table.period, table.id_column) == ("D", 7, "shop")
    assert future_times(table, 2).astype("datetime64[D]").astype(str).tolist() == [
        ["2024-01-04", "2024-01-05"],
        ["2024-01-03", "2024-01-04"],
    ]


def test_without_a_time_column_rows_are_numbered_in_each_series():
    frame = pd.DataFrame({"id": [1, 1, 1, 2, 2], "y": [1.0, 2, 3, 4, 5]})
    table = series_from_frame(frame, id_column="id")
    assert table.ids == ("1", "2")
    assert table.times.tolist() == table.time_index.tolist() == [0, 1, 2, 0, 1]
    assert table.frequency is None and table.time_column is None
    assert future_times(table, 2).tolist() == [[3, 4], [2, 3]]


def test_whole_numbers_as_times():
    frame = pd.DataFrame({"t": [100, 110, 120, 140], "y": [1.0, 2, 3, 5]})
    table = series_from_frame(frame, time_column="t")
    assert table.times.tolist() == [100, 110, 120, 140]
    assert table.time_index.tolist() == [10, 11, 12, 14]
    assert "1 missing time in 1 gap" in table.report[0]
    assert future_times(table, 2).tolist() == [[150, 160]]
    filled = series_from_frame(frame, time_column="t", gaps="interpolate")
    assert filled.times.tolist() == [100, 110, 120, 130, 140]
    assert filled.values[:, 0].tolist() == [1, 2, 3, 4, 5]


def test_dates_written_as_whole_numbers():
    frame = pd.DataFrame({"t": [20240130, 20240131, 20240201], "y": [1.0, 2, 3]})
    table = series_from_frame(frame, time_column="t")
    assert table.frequency == "D" and str(table.times[2])[:10] == "2024-02-01"


def test_dates_in_the_index():
    frame = frame_of("D", 4).set_index("date")
    assert series_from_frame(frame).time_column == "date"
    assert series_from_frame(frame.rename_axis(index=None)).time_column == "time"


def test_time_column_none_numbers_rows_although_there_are_dates(tmp_path):
    twice = HOURLY + "2024-01-01 02:00:00,4,40\n"
    table = read_series(put(tmp_path, twice), time_column="none")
    assert table.times.tolist() == [0, 1, 2, 3] and table.time_column is None
    assert "left out: date" in table.report[0]


def test_columns_that_are_left_out_are_reported(tmp_path):
    path = put(tmp_path, "x,name,y\n1,red,1\n2,blue,2\n")
    table = read_series(path)
    assert table.names == ("x", "y") and table.report == ("not numeric, left out: name",)
    numbered = put(tmp_path, ",y\n0,5\n1,6\n2,7\n", "n.csv")  # as pandas writes an index
    assert read_series(numbered).names == ("y",)


def test_time_zones_are_turned_into_utc(tmp_path):
    times = ("2024-03-31T00:00:00+01:00", "2024-03-31T01:00:00+01:00", "2024-03-31T03:00:00+02:00")
    text = "t,y\n" + "".join(f"{time},1\n" for time in times)
    table = read_series(put(tmp_path, text))
    assert table.frequency == "h" and str(table.times[0]) == "2024-03-30T23:00:00.000000000"


@pytest.mark.parametrize(
    ("dates", "first"),
    [
        (["01/02/2024", "02/02/2024", "13/02/2024"], "2024-02-01"),  # only day first can be read
        (["01/02/2024", "01/03/2024", "01/04/2024"], "2024-01-02"),  # daily either way is not
        (["01.02.2024", "02.02.2024", "03.02.2024"], "2024-02-01"),
    ],
)
def test_day_first_dates(dates, first):
    frame = pd.DataFrame({"d": dates, "y": [1.0, 2.0, 3.0]})
    table = series_from_frame(frame, time_column="d")
    assert str(table.times[0])[:10] == first
    assert any("day first" in line for line in table.report) == (first == "2024-02-01")


# ----------------------------------------------------------------------------------- frequencies


@pytest.mark.parametrize(
    ("frequency", "period", "start"),
    [
        ("h", 24, "2020-01-01 00:30"),
        ("2h", 12, "2020-01-01"),
        ("10min", 144, "2020-01-01"),
        ("15min", 96, "2020-01-01"),
        ("min", 1440, "2020-01-01"),
        ("D", 7, "2020-01-01"),
        ("B", 5, "2020-01-01"),
        ("W-SUN", 52, "2020-01-01"),
        ("W-WED", 52, "2020-01-01"),
        ("2W-WED", 26, "2020-01-01"),
        ("MS", 12, "2020-01-01"),
        ("ME", 12, "2020-01-01"),
        ("QS", 4, "2020-01-01"),
        ("QE", 4, "2020-01-01"),
        ("QS-FEB", 4, "2020-01-01"),
        ("QE-NOV", 4, "2020-01-01"),
        ("2MS", 6, "2020-01-01"),
        ("YS", 1, "1970-01-01"),
        ("YE", 1, "1970-01-01"),
        ("YS-APR", 1, "1970-01-01"),
        ("s", 1, "2020-01-01"),
    ],
)
def test_frequencies(frequency, period, start):
    frame = frame_of(frequency, 14, start)
    table = series_from_frame(frame)
    assert (table.frequency, table.period) == (frequency, period)
    assert table.report == ()
    np.testing.assert_array_equal(np.diff(table.time_index), 1)
    assert abs(table.time_index).max() < 2**31
    # pandas goes on from the last time to the same times
    wanted = pd.date_range(frame["date"].iloc[-1], periods=4, freq=frequency)[1:]
    np.testing.assert_array_equal(future_times(table, 3)[0], np.asarray(wanted, "M8[ns]"))
    # a later piece of the same series stands at the same places of the calendar
    piece = series_from_frame(frame.iloc[9:], frequency=table.frequency)
    np.testing.assert_array_equal(piece.time_index, table.time_index[9:])
    np.testing.assert_array_equal(
        clock_from_alias(frequency).positions(table.times), table.clock.positions(table.times)
    )


def test_months_that_start_on_the_last_but_one_day():
    frame = pd.DataFrame(
        {"d": pd.to_datetime(["2023-11-30", "2023-12-30", "2024-01-30", "2024-02-29"]), "y": 1.0}
    )
    table = series_from_frame(frame)
    assert table.period == 12
    assert future_times(table, 1)[0, 0] == np.datetime64("2024-03-30")


def test_finer_steps_than_a_second_still_fit_int32():
    frame = frame_of("ms", 50, "2024-05-05")
    table = series_from_frame(frame)
    assert table.frequency == "ms" and abs(table.time_index).max() < 2**31
    np.testing.assert_array_equal(np.diff(table.time_index), 1)


def test_times_before_1970_count_on():
    table = series_from_frame(frame_of("MS", 6, "1969-10-01"))
    assert table.time_index.tolist() == [-3, -2, -1, 0, 1, 2]


def test_a_frequency_that_new_data_must_have():
    frame = frame_of("D", 5).iloc[[0, 2, 4]]  # by itself it looks like every second day
    assert series_from_frame(frame).frequency == "2D"
    table = series_from_frame(frame, frequency="D")
    assert table.frequency == "D" and np.diff(table.time_index).tolist() == [2, 2]
    with pytest.raises(UserError, match=r"row 2: the time does not fit the frequency 'MS'"):
        series_from_frame(frame_of("D", 5), frequency="MS")
    assert series_from_frame(frame_of("D", 1), frequency="D").frequency == "D"
    with pytest.raises(UserError, match="'foo' is not known"):
        series_from_frame(frame_of("D", 5), frequency="foo")


def test_the_period_that_the_autocorrelation_shows():
    t = np.arange(600)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((600, 2))
    offsets = np.array([0, 600])
    wave = 10 * np.sin(2 * np.pi * t / 36)[:, None] + 0.05 * t[:, None] + noise
    assert find_period(wave, offsets) == 36
    assert find_period(noise, offsets) == 1
    assert find_period(np.zeros((600, 1)), offsets) == 1
    assert find_period(np.cumsum(noise, 0)[:100, :1], np.array([0, 100])) == 1
    assert find_period(noise[:5], np.array([0, 5])) == 1
    table = series_from_frame(pd.DataFrame({"y": wave[:, 0]}))
    assert table.period == 36 and "36 read from the autocorrelation" in table.report[0]


# ------------------------------------------------------------------------------------------ gaps


def with_gaps():
    # A misses 01-03 and 01-04, has an empty first cell; B has an empty last cell
    return pd.DataFrame(
        {
            "id": ["A", "A", "A", "A", "B", "B", "B"],
            "day": pd.to_datetime(
                ["2024-01-01", "2024-01-02", "2024-01-05", "2024-01-06",
                 "2024-01-01", "2024-01-02", "2024-01-03"]
            ),
            "y": [np.nan, 2.0, 5.0, 7.0, 10.0, 20.0, np.nan],
            "z": [1.0, 1, 4, 4, 0, 0, 0],
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gaps", "wanted"),
    [
        ("interpolate", [2, 2, 3, 4, 5, 7, 10, 20, 20]),
        ("forward_fill", [2, 2, 2, 2, 5, 7, 10, 20, 20]),
    ],
)
def test_gaps_are_filled_inside_each_series(gaps, wanted):
    table = series_from_frame(with_gaps(), id_column="id", target="y", covariates="z", gaps=gaps)
    assert table.values[:, 0].tolist() == wanted
    assert table.offsets.tolist() == [0, 6, 9]
    days = table.times.astype("datetime64[D]").astype(str)
    assert days.tolist()[:6] == [f"2024-01-0{i}" for i in range(1, 7)]
    assert np.diff(table.time_index[:6]).tolist() == [1] * 5
    middle = {"interpolate": [2, 3], "forward_fill": [1, 1]}[gaps]
    assert table.covariates[2:4, 0].tolist() == middle
    assert "2 missing times in 1 gap, the longest 2 steps" in table.report[0]
    assert "of series 'A' after row 2 (2024-01-02" in table.report[0]
    # y: 2 empty and 2 put in; z: 2 put in
    assert table.report[1] == f"6 cells filled by {gaps}, 2 rows put in"


def test_gaps_are_reported_or_refused():
    frame = with_gaps().fillna(0.0)
    table = series_from_frame(frame, id_column="id")
    assert len(table.values) == 7 and "2 missing times" in table.report[0]
    assert np.diff(table.time_index[:4]).tolist() == [1, 3, 1]  # the calendar shows the gap
    with pytest.raises(UserError, match=r"2 missing times .* after row 2 .*'interpolate'"):
        series_from_frame(frame, id_column="id", gaps="error")
    with pytest.raises(UserError, match="gaps is 'fill'"):
        series_from_frame(frame, id_column="id", gaps="fill")


def test_monthly_gaps():
    frame = frame_of("ME", 6).drop(index=[2])
    table = series_from_frame(frame, gaps="interpolate")
    assert table.frequency == "ME"
    assert str(table.times[2])[:10] == "2020-03-31" and table.values[2, 0] == 2.0


def test_a_gap_that_is_a_wrong_date():
    frame = frame_of("h", 50)
    frame.loc[0, "date"] = pd.Timestamp("1970-01-01")
    with pytest.raises(UserError, match="filling the gaps would turn 50 rows into"):
        series_from_frame(frame, gaps="interpolate")


def test_nothing_to_fill_from():
    frame = with_gaps()
    frame.loc[frame["id"] == "B", "y"] = np.nan
    with pytest.raises(UserError, match="column 'y': series 'B' holds no value at all"):
        series_from_frame(frame, id_column="id", gaps="interpolate")


# -------------------------------------------------------------------------------------- calendar


def test_calendar_features_by_hand():
    times = np.array(["2024-01-01T00", "2024-01-02T06", "2024-07-01T18"], "datetime64[ns]")
    found = calendar_features(times, "h")
    names = calendar_names("h")
    assert found.shape == (3, 6) and names[0] == "hour_of_day_sin"
    np.testing.assert_allclose(found[:, 0], [0, 1, -1], atol=1e-12)
    np.testing.assert_allclose(found[:, 1], [1, 0, 0], atol=1e-12)
    # Monday, Tuesday, Monday
    np.testing.assert_allclose(found[:, 2], np.sin(2 * np.pi * np.array([0, 1, 0]) / 7), atol=1e-12)
    days = np.array([0, 1, 182]) / 366  # a leap year
    np.testing.assert_allclose(found[:, 5], np.cos(2 * np.pi * days), atol=1e-12)


def test_calendar_columns_suit_the_frequency():
    def cycles(frequency):
        return [n[:-4] for n in calendar_names(frequency)[::2]]

    assert cycles("10min") == ["hour_of_day", "day_of_week", "day_of_year"]
    assert cycles("D") == cycles("B") == ["day_of_week", "day_of_year"]
    assert cycles("W-SAT") == cycles("MS") == cycles("QE") == ["day_of_year"]
    assert cycles("YS") == []
    assert calendar_features(np.array(["2020"], "datetime64[ns]"), "YS").shape == (1, 0)


def test_calendar_as_covariates_goes_on_into_the_future():
    frame = frame_of("D", 20)
    table = series_from_frame(frame.iloc[:15], calendar=True)
    assert table.covariate_names == calendar_names("D")
    whole = series_from_frame(frame, calendar=True)
    ahead = calendar_features(future_times(table, 5)[0], table.frequency)
    np.testing.assert_allclose(ahead, whole.covariates[15:])
    with pytest.raises(UserError, match="calendar features need a time column"):
        series_from_frame(pd.DataFrame({"y": [1.0, 2.0]}), calendar=True)
    with pytest.raises(UserError, match="need date-times"):
        calendar_features(np.arange(3), None)


def test_business_days_skip_the_weekend():
    clock = Clock("business")
    friday = np.array(["2024-01-05T16:00"], "datetime64[ns]")
    assert str(clock.advance(friday, np.array([1]))[0])[:16] == "2024-01-08T16:00"


# ------------------------------------------------------------------------------------- bad input

ROWS = "date,y\n2024-01-01,1\n2024-01-02,2\n2024-01-03,{}\n2024-01-04,4\n"
TIMES = "date,y\n2024-01-01,1\n2024-01-02,2\n{},3\n2024-01-04,4\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "x.csv is empty"),
        (" \n\n", {}, "x.csv is empty"),
        ("date,y\n", {}, "a header but no rows"),
        (b"\x00\x01\x02\xff" * 50, {}, "not text"),
        ("a,b\n1,2\n3,4,5\n", {}, "cannot be read as a table.*line 3"),
        ("a,b\n1,2,3\n3,4,5\n", {}, "x.csv"),
        (HOURLY, {"target": "c"}, r"no column 'c'; .*columns: date, a, b"),
        (HOURLY, {"time_column": "dat"}, "no column 'dat'; did you mean 'date'"),
        (HOURLY, {"id_column": "id"}, "no column 'id'"),
        (HOURLY, {"covariates": ["q"]}, "no column 'q'"),
        (HOURLY, {"target": "a", "covariates": "a"}, "column 'a' is given twice"),
        (HOURLY, {"target": "date"}, r"column 'date', row 1: '2024-01-01 00:00:00' is not a num"),
        ("name,colour\na,red\nb,blue\n", {}, "no numeric column"),
        (ROWS.format("abc"), {}, "column 'y', row 3: 'abc' is not a number"),
        (ROWS.format("abc"), {"target": "y"}, "column 'y', row 3: 'abc' is not a number"),
        (ROWS.format('"1,5"'), {"target": "y"}, "row 3: '1,5' is not a number .*decimal commas"),
        (ROWS.format(""), {}, r"column 'y', row 3: .*empty or NaN \(1 such cell\).*interpolate"),
        (ROWS.format("nan"), {}, "column 'y', row 3: .*NaN"),
        (ROWS.format("inf"), {}, "column 'y', row 3: the value is infinite"),
        (ROWS.format("-inf"), {"gaps": "interpolate"}, "row 3: the value is infinite"),
        (TIMES.format("2023-12-31"), {}, "column 'date', row 3: 2023-12-31 .* after 2024-01-02"),
        (TIMES.format("2024-01-02"), {}, r"column 'date', row 3: .*twice \(also in row 2\)"),
        (TIMES.format("soon"), {}, "column 'date', row 3: 'soon' is no date"),
        (TIMES.format(""), {}, "column 'date', row 3: the time is empty"),
        (TIMES.format("2024-01-03 07:30:00"), {}, "row 3: no constant time step"),
        ("date,y\n2024-01-01,1\n", {}, "row 1: one row for each series"),
        ("t,y\n1.5,1\n2.5,2\n", {"time_column": "t"}, "row 1: the time is no whole number"),
        ("a,b,y\n2024-01-01,2024-01-01,1\n", {}, "several columns hold dates .a, b."),
        (
            "id,d,y\nA,2024-01-01,1\nB,2024-01-01,2\nA,2024-01-02,1\nB,2024-01-02,2\n",
            {},
            r"column 'd', row 2: .*twice.*name the id column .*\('id'\?\)",
        ),
        ("id,y\nA,1\n,2\n", {"id_column": "id"}, "column 'id', row 2: the id is empty"),
        ("y\n1\n2\n", {"frequency": "h"}, "frequency 'h' is given but no time column"),
        ("date,y\n1500-01-01,1\n1500-01-02,2\n", {}, "column 'date'"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(tmp_path, text, options, message):
    path = put(tmp_path, text)
    with pytest.raises(UserError, match=message) as error:
        read_series(path, **options)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_bad_paths(tmp_path):
    put(tmp_path, HOURLY, "sales.csv")
    with pytest.raises(UserError, match=r"no such file: .*sale.csv; did you mean .*sales.csv"):
        read_series(tmp_path / "sale.csv")
    with pytest.raises(UserError, match=r"no such file: .*check the path"):
        read_series(tmp_path / "nowhere" / "x.csv")
    with pytest.raises(UserError, match="is a folder"):
        read_series(tmp_path)
    with pytest.raises(UserError, match=r"must end in one of \.csv"):
        read_series(put(tmp_path, HOURLY, "x.xlsx"))
    with pytest.raises(UserError, match=r"cannot be read|not a whole gzip"):
        read_series(put(tmp_path, HOURLY, "x.csv.gz"))
    whole = gzip.compress((HOURLY * 200).encode())
    with pytest.raises(UserError, match="not a whole gzip"):
        read_series(put(tmp_path, whole[: len(whole) // 2], "cut.csv.gz"))
    with pytest.raises(UserError, match="did you mean 'co2'"):
        read_series("builtin:c02")


def test_a_cut_parquet_file(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "x.parquet"
    frame_of("D").to_parquet(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a whole Parquet file"):
        read_series(path)


def test_rows_in_errors_are_rows_of_the_file_even_in_mixed_up_series():
    frame = pd.DataFrame(
        {
            "id": ["A", "B", "A", "B", "A", "B"],
            "d": pd.to_datetime(["2024-01-01", "2024-01-01", "2024-01-02", "2024-01-02",
                                 "2024-01-03", "2024-01-03"]),
            "y": [1.0, 2, 3, 4, 5, 6],
        }
    )  # fmt: skip
    for row, value, message in ((3, np.nan, "NaN"), (4, np.inf, "infinite")):
        bad = frame.copy()
        bad.loc[row, "y"] = value
        with pytest.raises(UserError, match=f"column 'y', row {row + 1}: .*{message}"):
            series_from_frame(bad, id_column="id")
    bad = frame.copy()
    bad.loc[5, "d"] = pd.Timestamp("2023-01-01")
    with pytest.raises(UserError, match=r"row 6: 2023-01-01 .* of series 'B'"):
        series_from_frame(bad, id_column="id")


def test_series_of_different_frequency_are_named():
    one = frame_of("h", 30).assign(id="fine")
    two = frame_of("D", 10).assign(id="coarse")
    with pytest.raises(UserError, match=r"series 'coarse' has a time step of 1D, the others 1h"):
        series_from_frame(pd.concat([one, two], ignore_index=True), id_column="id")
    with pytest.raises(UserError, match=r"series 'fine' has a time step of 1h, the others 1D"):
        series_from_frame(pd.concat([frame_of("D", 40).assign(id="coarse"), one]), id_column="id")


def test_an_empty_frame():
    with pytest.raises(UserError, match="sales: holds no rows"):
        series_from_frame(pd.DataFrame({"y": []}), source="sales")


def test_reading_series_does_not_load_tensorflow(repository):
    code = (
        "import sys, keras_seq.data.series as s; s.read_series('builtin:sunspots');"
        "sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=repository, check=True)


@pytest.mark.slow
def test_a_million_rows_are_read_in_seconds():
    import time

    rows, series = 10_000, 100
    frame = pd.DataFrame(
        {
            "id": np.tile([f"s{i}" for i in range(series)], rows),
            "date": np.repeat(pd.date_range("2020-01-01", periods=rows, freq="h"), series),
            "y": np.arange(rows * series, dtype=float),
        }
    )
    begin = time.perf_counter()
    table = series_from_frame(frame, id_column="id")
    assert time.perf_counter() - begin < 20  # about 1 s where nothing else runs
    assert len(table.ids) == series and table.values[1, 0] == series
