"""Constant time steps: find them, count in them, name them, and turn times into features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_seq.errors import UserError

__all__ = [
    "Clock",
    "UnevenTimes",
    "calendar_features",
    "calendar_names",
    "clock_from_alias",
    "find_clock",
    "find_period",
]

_DAY = 86_400_000_000_000
_UNITS = {
    "D": _DAY,
    "h": 3_600_000_000_000,
    "min": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "ns": 1,
}
_WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


class UnevenTimes(ValueError):
    """The times of a table have no constant step; `position` is the first offending row."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True)
class Clock:
    """A constant step, and the counting of it.

    Args:
        kind: "rows" (no times), "numbers" (integer times), "time" (a fixed length), "months"
            (calendar months) or "business" (Monday to Friday).
        size: length of the step: in nanoseconds for "time", in months for "months", in the time
            column's own unit for "numbers", else 1.
        anchor: day of the month for "months"; 31 stands for the last day. 0 for other kinds.

    Example:
        >>> import numpy as np
        >>> clock = Clock("months", 1, 31)
        >>> clock.advance(np.array(["2023-12-31"], "datetime64[ns]"), np.array([2])).astype("M8[D]")
        array(['2024-02-29'], dtype='datetime64[D]')
    """

    kind: str
    size: int = 1
    anchor: int = 0

    def positions(self, times: np.ndarray) -> np.ndarray:
        """Whole steps since 1970 (or since 0 for numbers), (N,) int64."""
        if self.kind == "time":
            return times.astype("datetime64[ns]").astype(np.int64) // self.size
        if self.kind == "months":
            return times.astype("datetime64[M]").astype(np.int64) // self.size
        if self.kind == "business":
            return np.busday_count(np.datetime64(0, "D"), times.astype("datetime64[D]")).astype(
                np.int64
            )
        return np.asarray(times).astype(np.int64) // self.size

    def advance(self, times: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The times that lie `steps` steps after `times` (the two broadcast)."""
        if self.kind == "time":
            span = np.asarray(steps, np.int64) * self.size
            return times.astype("datetime64[ns]") + span.astype("timedelta64[ns]")
        if self.kind in ("months", "business"):
            days = times.astype("datetime64[D]")
            clock_time = times.astype("datetime64[ns]") - days
            if self.kind == "business":
                return (np.busday_offset(days, steps, roll="forward") + clock_time).astype(
                    "datetime64[ns]"
                )
            months = times.astype("datetime64[M]") + np.asarray(steps, np.int64) * self.size
            day = np.minimum(self.anchor, _days_in_month(months)) - 1
            return (months.astype("datetime64[D]") + day + clock_time).astype("datetime64[ns]")
        return np.asarray(times).astype(np.int64) + np.asarray(steps, np.int64) * self.size

    def alias(self, times: np.ndarray) -> str | None:
        """The pandas name of the step, `None` for rows and numbers."""
        first = times[:1]
        if self.kind == "business":
            return "B"
        if self.kind == "time":
            if self.size % (7 * _DAY) == 0:
                return _counted(self.size // (7 * _DAY), "W-" + _WEEKDAYS[_weekday(first)[0]])
            unit = next(u for u, length in _UNITS.items() if self.size % length == 0)
            return _counted(self.size // _UNITS[unit], unit)
        if self.kind == "months":
            end = "E" if self.anchor == 31 else "S"
            month = int(first.astype("datetime64[M]").astype(np.int64)[0] % 12)
            if self.size % 12 == 0:
                default = 11 if end == "E" else 0
                name = "Y" + end + ("" if month == default else "-" + _MONTHS[month])
                return _counted(self.size // 12, name)
            if self.size == 3:
                default = 2 if end == "E" else 0  # QE is QE-DEC: March, June, September, December
                if month % 3 == default:
                    return "Q" + end
                return f"Q{end}-" + _MONTHS[month % 3 + (9 if end == "E" else 0)]
            return _counted(self.size, "M" + end)
        return None

    def season(self) -> int | None:
        """Steps in the usual season, `None` where the step alone does not tell."""
        if self.kind == "business":
            return 5
        if self.kind == "months":
            return 12 // self.size if self.size < 12 and 12 % self.size == 0 else None
        if self.kind == "time":
            if self.size < _UNITS["min"]:
                return None  # seconds have no season that holds for every kind of data
            if self.size < _DAY:
                return max(1, round(_DAY / self.size))
            if self.size == _DAY:
                return 7
            weeks, rest = divmod(self.size, 7 * _DAY)
            return 52 // weeks if rest == 0 and weeks <= 26 and 52 % weeks == 0 else None
        return None


def _counted(count: int, unit: str) -> str:
    return unit if count == 1 else f"{count}{unit}"


def _weekday(times: np.ndarray) -> np.ndarray:
    # 1970-01-01 was a Thursday; Monday is 0
    return (times.astype("datetime64[D]").astype(np.int64) + 3) % 7


def _days_in_month(months: np.ndarray) -> np.ndarray:
    nights = (months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")
    return nights.astype(np.int64)


def _span(nanoseconds: int) -> str:
    unit = next(u for u, length in _UNITS.items() if nanoseconds % length == 0)
    return f"{nanoseconds // _UNITS[unit]}{unit}"


def clock_from_alias(alias: str) -> Clock:
    """The clock that a pandas frequency name stands for.

    Args:
        alias: a pandas frequency such as "h", "10min", "D", "B", "W-SAT", "MS", "QE" or "YS".

    Returns:
        The clock.

    Raises:
        UserError: the name is unknown or stands for no constant step.

    Example:
        >>> clock_from_alias("10min").season()
        144
        >>> clock_from_alias("QS")
        Clock(kind='months', size=3, anchor=1)
    """
    from pandas.tseries.frequencies import to_offset

    try:
        offset = to_offset(alias)
        base = offset.rule_code.split("-")[0]
    except (ValueError, AttributeError, TypeError):
        raise UserError(
            f"frequency {alias!r} is not known: give a pandas frequency such as 'h', '10min', "
            "'D', 'W', 'MS' or 'YS'"
        ) from None
    count = int(offset.n)
    if base in _UNITS and count > 0:
        return Clock("time", count * _UNITS[base])
    if base == "W":
        return Clock("time", count * 7 * _DAY)
    if base == "B" and count == 1:
        return Clock("business")
    months = {"M": 1, "Q": 3, "Y": 12}.get(base[:1])
    if months and base[1:] in ("S", "E"):
        return Clock("months", count * months, 31 if base[1] == "E" else 1)
    raise UserError(f"frequency {alias!r} is not a constant step that this package counts in")


def find_clock(times: np.ndarray, offsets: np.ndarray, ids: Sequence[str]) -> Clock:
    """The one step that all series share; missing times are whole multiples of it.

    Args:
        times: (N,) datetime64[ns] or int64, rising inside each series.
        offsets: (S+1,) row ranges of the series.
        ids: S names, for errors.

    Returns:
        The clock.

    Raises:
        UnevenTimes: no constant step, or the series have different ones.
    """
    starts = offsets[:-1]
    numbers = times.dtype.kind != "M"
    stamps = times.astype(np.int64)
    inside = np.ones(len(stamps), bool)
    inside[starts] = False
    # (N,) step from the row before; the first row of a series has none
    steps = np.diff(stamps, prepend=stamps[:1])
    if not inside.any():
        raise UnevenTimes(
            "one row for each series does not tell the time step: give at least two", 0
        )
    if not numbers and steps[inside].min() >= 28 * _DAY:
        clock = _months(times, steps, inside)
        if clock is not None:
            return clock
    step = _usual(steps[inside])
    show = str if numbers else _span
    own = np.minimum.reduceat(np.where(inside, steps, np.iinfo(np.int64).max), starts)
    long_enough = np.diff(offsets) >= 5
    for s in np.flatnonzero((own != step) & long_enough).tolist():
        series = steps[offsets[s] + 1 : offsets[s + 1]]
        if len(ids) > 1 and np.median(series) == own[s]:
            raise UnevenTimes(
                f"series {ids[s]!r} has a time step of {show(int(own[s]))}, the others "
                f"{show(step)}: train series of one frequency together",
                int(offsets[s]) + 1,
            )
    off = np.flatnonzero(inside & (steps % step != 0))
    if off.size:
        raise UnevenTimes(
            f"no constant time step: this row comes {show(int(steps[off[0]]))} after the row "
            f"before, the usual step is {show(step)}; resample the data to a constant step, or "
            "use time_column='none' to number the rows as they stand",
            int(off[0]),
        )
    if numbers:
        return Clock("numbers", step)
    weekdays_only = (
        step == _DAY
        and (_weekday(times) < 5).all()
        and (stamps[offsets[1:] - 1] - stamps[starts]).max() >= 7 * _DAY
    )
    return Clock("business") if weekdays_only else Clock("time", step)


def _usual(steps: np.ndarray) -> int:
    """The most frequent step; of several the one that all are multiples of, else the first."""
    lengths, first, counts = np.unique(steps, return_index=True, return_counts=True)
    often = np.flatnonzero(counts == counts.max())
    if len(often) > 1 and (lengths > 0).all():
        whole = [i for i in often if not (lengths % lengths[i]).any()]
        return int(lengths[whole[0] if whole else often[first[often].argmin()]])
    return int(lengths[often[0]])


def _months(times: np.ndarray, steps: np.ndarray, inside: np.ndarray) -> Clock | None:
    months = times.astype("datetime64[M]")
    days = times.astype("datetime64[D]")
    day = (days - months.astype("datetime64[D]")).astype(np.int64) + 1
    nights = _days_in_month(months)
    anchor = 31 if (day == nights).all() else int(day.max())
    same_time = np.unique(times - days).size == 1
    if not same_time or not (day == np.minimum(anchor, nights)).all():
        return None
    apart = np.diff(months.astype(np.int64), prepend=0)[inside]
    size = _usual(apart)
    return Clock("months", size, anchor) if size > 0 and (apart % size == 0).all() else None


def find_period(values: np.ndarray, offsets: np.ndarray) -> int:
    """The seasonal period that the autocorrelation shows, 1 where it shows none.

    The highest peak of the mean autocorrelation over channels and the (at most eight) longest
    series, linear trend taken off; of peaks nearly as high the earliest, since multiples of a
    period peak too. A peak counts when it stands at least 0.2 above the valley before it.

    Args:
        values: (N, C) numbers.
        offsets: (S+1,) row ranges of the series.

    Returns:
        The period in steps.

    Example:
        >>> import numpy as np
        >>> wave = np.sin(2 * np.pi * np.arange(200) / 12)[:, None]
        >>> find_period(wave, np.array([0, 200]))
        12
    """
    longest = np.argsort(-np.diff(offsets), kind="stable")[:8]
    curves = []
    for s in longest:
        x = values[offsets[s] : offsets[s + 1]][-20_000:]
        n = len(x)
        if n < 12:
            continue
        line = np.stack([np.ones(n), np.linspace(-1, 1, n)], 1)
        x = x - line @ np.linalg.lstsq(line, x, rcond=None)[0]
        spectrum = np.abs(np.fft.rfft(x, 2 * n, axis=0)) ** 2
        power = np.fft.irfft(spectrum, axis=0)[: n // 3 + 2]  # (lags, C)
        power = power[:, power[0] > 1e-12 * max(1.0, float(np.square(values).mean()))]
        if power.shape[1]:
            curves.append((power / power[0]).mean(1) * n / (n - np.arange(len(power))))
    if not curves:
        return 1
    length = min(len(c) for c in curves)
    curve = np.mean([c[:length] for c in curves], axis=0)
    lags = np.arange(2, length - 1)
    if not lags.size:
        return 1
    valley = np.minimum.accumulate(curve)[lags - 1]
    peak = (curve[lags] > curve[lags - 1]) & (curve[lags] >= curve[lags + 1])
    peak &= (curve[lags] >= 0.2) & (curve[lags] - valley >= 0.2)
    if not peak.any():
        return 1
    best = curve[lags[peak]].max()
    period = float(lags[peak & (curve[lags] >= 0.9 * best)][0])
    # later multiples stand at whole periods too, and tell the period more exactly
    for count in range(2, 11):
        low, high = int((count - 0.25) * period), int((count + 0.25) * period) + 2
        if high >= length or high - low < 3:
            break
        lag = low + int(curve[low:high].argmax())
        if curve[lag] < 0.2:
            break
        period = lag / count
    return int(period + 0.5)


def calendar_names(frequency: str) -> tuple[str, ...]:
    """Names of the columns that `calendar_features` gives for a frequency.

    Args:
        frequency: a pandas frequency name.

    Returns:
        The names.

    Example:
        >>> calendar_names("D")
        ('day_of_week_sin', 'day_of_week_cos', 'day_of_year_sin', 'day_of_year_cos')
    """
    clock = clock_from_alias(frequency)
    cycles = []
    if clock.kind == "time" and clock.size < _DAY:
        cycles.append("hour_of_day")
    if clock.kind == "business" or (clock.kind == "time" and clock.size < 7 * _DAY):
        cycles.append("day_of_week")
    if clock.kind != "months" or clock.size < 12:
        cycles.append("day_of_year")
    return tuple(f"{cycle}_{wave}" for cycle in cycles for wave in ("sin", "cos"))


def calendar_features(times: np.ndarray, frequency: str | None) -> np.ndarray:
    """Sine and cosine of the hour of the day, day of the week and day of the year.

    They are known for any time, the future included. Cycles that the frequency cannot show
    (the hour of daily data, any cycle of yearly data) are left out.

    Args:
        times: (N,) datetime64.
        frequency: the pandas frequency name of the times.

    Returns:
        (N, K) float64, columns as `calendar_names(frequency)`.

    Raises:
        UserError: there are no date-times.

    Example:
        >>> import numpy as np
        >>> calendar_features(np.array(["2024-01-01T06"], "datetime64[ns]"), "h")[0, :2].round(3)
        array([1., 0.])
    """
    times = np.asarray(times)
    if frequency is None or times.dtype.kind != "M":
        raise UserError(
            "calendar features need date-times: name the time column, or leave the calendar out"
        )
    days = times.astype("datetime64[D]")
    of_day = (times.astype("datetime64[ns]") - days).astype(np.int64) / _DAY
    years = days.astype("datetime64[Y]")
    nights = ((years + 1).astype("datetime64[D]") - years.astype("datetime64[D]")).astype(np.int64)
    phases = {
        "hour_of_day": of_day,
        "day_of_week": _weekday(days) / 7.0,
        "day_of_year": (days - years.astype("datetime64[D]")).astype(np.int64) / nights,
    }
    columns = [
        (np.sin if name.endswith("sin") else np.cos)(2 * np.pi * phases[name[:-4]])
        for name in calendar_names(frequency)
    ]
    return np.stack(columns, 1) if columns else np.zeros((len(times), 0))
