"""Read one or many time series from a file or a frame, and check them."""

from __future__ import annotations

import difflib
import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from keras_seq.data.calendar import (
    Clock,
    UnevenTimes,
    calendar_features,
    calendar_names,
    clock_from_alias,
    find_clock,
    find_period,
)
from keras_seq.data.splits import Split, default_split, parse_split
from keras_seq.data.windows import Windows
from keras_seq.errors import UserError

__all__ = [
    "SeriesTable",
    "Split",
    "Windows",
    "calendar_features",
    "calendar_names",
    "default_split",
    "future_times",
    "parse_split",
    "read_series",
    "series_from_frame",
]

GAPS = ("report", "error", "interpolate", "forward_fill")
_NONE = "none"  # as time_column: number the rows, although a column holds dates
_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
_DATE = r"^\s*\d{1,4}[-/.]\d{1,2}([-/.]\d{1,4})?(\D.*)?$"


@dataclass(frozen=True, eq=False)
class SeriesTable:
    """All series of one file, one after the other. The arrays are read-only.

    Args:
        names: the C target columns.
        ids: one name for each of the S series; ("",) for a file without an id column.
        values: (N, C) float64.
        offsets: (S+1,) int64; series s is the rows offsets[s]:offsets[s+1].
        times: (N,) datetime64[ns]; int64 for whole-number times; int64 row numbers, counted in
            each series, where there is no time column.
        time_index: (N,) int64 that fits int32: place on the calendar counted in steps (since
            1970 for dates), the same for the same time in every file of one frequency.
        frequency: pandas frequency name, `None` without dates.
        period: seasonal period in steps, 1 where there is none.
        covariate_names: the K columns known ahead.
        covariates: (N, K) float64.
        report: lines for the user: what was found, filled or left out.
        checksum: sha256 of the content.
        source: file name or what stands for it.
        time_column: its name, or `None`.
        id_column: its name, or `None`.
        clock: the step, for counting on.
    """

    names: tuple[str, ...]
    ids: tuple[str, ...]
    values: np.ndarray
    offsets: np.ndarray
    times: np.ndarray
    time_index: np.ndarray
    frequency: str | None
    period: int
    covariate_names: tuple[str, ...]
    covariates: np.ndarray
    report: tuple[str, ...]
    checksum: str
    source: str
    time_column: str | None
    id_column: str | None
    clock: Clock


def read_series(
    path: str | Path,
    *,
    time_column: str | None = None,
    target: str | Sequence[str] = (),
    id_column: str | None = None,
    covariates: str | Sequence[str] = (),
    gaps: str = "report",
    calendar: bool = False,
    frequency: str | None = None,
) -> SeriesTable:
    """Read series from a file and check them.

    Wide files have a time column and a column for each value; long files also have an id column
    that tells the series apart.

    Args:
        path: .csv, .tsv (either may be .gz), .parquet, or "builtin:NAME" (co2, el_nino,
            sunspots, waves).
        time_column: name of the time column (dates or whole numbers). `None`: the one column
            that holds dates, if there is one. "none": number the rows as they stand.
        target: names of the columns to forecast; default all numeric columns.
        id_column: name of the column that tells the series apart.
        covariates: names of columns known ahead for the whole horizon.
        gaps: "report" takes rows as they stand and tells about missing times; "error" refuses
            them; "interpolate" and "forward_fill" put missing rows in and fill empty cells.
        calendar: add sine and cosine of hour, weekday and day of the year to the covariates.
        frequency: the frequency that the file must have (a pandas name), for new data that must
            fit a trained model; default: found.

    Returns:
        The table.

    Raises:
        UserError: the file or its content will not do; one line that names file, column and
            row (the first row of data is row 1) and says what to do.

    Example:
        >>> table = read_series("builtin:sunspots")
        >>> table.names, table.frequency, table.period
        (('activity',), 'YS', 11)
    """
    text = str(path)
    extra: list[str] = []
    if text.startswith("builtin:"):
        from keras_seq.data.builtin import builtin_info, load_builtin

        info = builtin_info(text.removeprefix("builtin:"))
        frame = load_builtin(info.name)
        extra.append(f"{info.title}; source: {info.source}")
        if info.note:
            extra.append(info.note)
    else:
        frame = _read_frame(Path(text).expanduser(), extra)
    return _build(
        frame, time_column, target, id_column, covariates, gaps, calendar, frequency, text, extra
    )


def series_from_frame(
    frame: pd.DataFrame,
    *,
    time_column: str | None = None,
    target: str | Sequence[str] = (),
    id_column: str | None = None,
    covariates: str | Sequence[str] = (),
    gaps: str = "report",
    calendar: bool = False,
    frequency: str | None = None,
    source: str = "frame",
) -> SeriesTable:
    """The same as `read_series` for a frame in memory.

    Args:
        frame: the data; dates may also stand in its index.
        time_column: see `read_series`.
        target: see `read_series`.
        id_column: see `read_series`.
        covariates: see `read_series`.
        gaps: see `read_series`.
        calendar: see `read_series`.
        frequency: see `read_series`.
        source: what errors and the report call the data.

    Returns:
        The table.

    Raises:
        UserError: the content will not do.

    Example:
        >>> import pandas as pd
        >>> days = pd.date_range("2024-01-01", periods=3)
        >>> table = series_from_frame(pd.DataFrame({"day": days, "sales": [3, 1, 2]}))
        >>> table.time_column, table.frequency, table.period, table.values.tolist()
        ('day', 'D', 7, [[3.0], [1.0], [2.0]])
    """
    if isinstance(frame.index, pd.DatetimeIndex) and time_column in (None, frame.index.name):
        name = frame.index.name or "time"
        if name not in frame.columns:
            frame = frame.rename_axis(index=name).reset_index()
    if not len(frame):
        raise UserError(f"{source}: holds no rows")
    return _build(
        frame, time_column, target, id_column, covariates, gaps, calendar, frequency, source, []
    )


def future_times(table: SeriesTable, horizon: int) -> np.ndarray:
    """The next times of each series.

    Args:
        table: the series.
        horizon: number of steps, at least 1.

    Returns:
        (S, horizon), of the same type as `table.times`.

    Example:
        >>> table = read_series("builtin:el_nino")
        >>> future_times(table, 2).astype("datetime64[D]")
        array([['2011-01-01', '2011-02-01']], dtype='datetime64[D]')
    """
    if horizon < 1:
        raise UserError(f"horizon is {horizon}: give at least 1")
    last = table.times[table.offsets[1:] - 1]
    return table.clock.advance(last[:, None], np.arange(1, horizon + 1)[None, :])


# --------------------------------------------------------------------------------------- files


def _read_frame(path: Path, report: list[str]) -> pd.DataFrame:
    if not path.exists():
        folder = path.parent if path.parent.is_dir() else None
        names = [p.name for p in folder.iterdir() if p.is_file()] if folder else []
        near = difflib.get_close_matches(path.name, names, 1)
        hint = f"did you mean {folder / near[0]}?" if folder and near else "check the path"
        raise UserError(f"no such file: {path}; {hint}")
    if path.is_dir():
        raise UserError(f"{path} is a folder: give one file ({', '.join(_SUFFIXES)})")
    lower = path.name.lower()
    if not lower.endswith(_SUFFIXES):
        raise UserError(f"{path}: the name must end in one of {', '.join(_SUFFIXES)}")
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty: it must hold a header and rows")
        frame = _parquet(path) if lower.endswith(".parquet") else _delimited(path, report)
    except OSError as error:  # no permission, a broken gzip file
        raise UserError(f"{path} cannot be read: {_one_line(error)}") from None
    if not len(frame):
        raise UserError(f"{path} holds a header but no rows of data")
    return frame


def _parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except ImportError:
        raise UserError(f"{path}: reading .parquet needs `pip install pyarrow`") from None
    except Exception as error:  # pyarrow's errors have no common base but Exception
        raise UserError(f"{path} is not a whole Parquet file: {_one_line(error)}") from None
    return frame.reset_index() if isinstance(frame.index, pd.DatetimeIndex) else frame


def _delimited(path: Path, report: list[str]) -> pd.DataFrame:
    import gzip
    import zlib

    lower = path.name.lower()
    zipped = lower.endswith(".gz")
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            head = file.read(1 << 16)
    except (EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file: {_one_line(error)}") from None
    if b"\0" in head:
        raise UserError(f"{path} is not text (binary data): save it as UTF-8 CSV or as .parquet")
    if not head.strip():
        raise UserError(f"{path} is empty: it must hold a header and rows")
    separator = "\t" if ".tsv" in lower else ","
    header = head.split(b"\n", 1)[0].decode("latin-1")
    if separator not in header:
        found = next((s for s in (";", "\t", ",") if s in header), separator)
        if found != separator:
            report.append(f"columns are separated by {found!r}")
            separator = found
    options: dict = {"sep": separator, "index_col": False, "low_memory": False}
    options["compression"] = "gzip" if zipped else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            try:
                frame = pd.read_csv(path, encoding="utf-8", **options)
            except UnicodeDecodeError:
                frame = pd.read_csv(path, encoding="latin-1", **options)
                report.append("the file is not UTF-8 and was read as Latin-1")
    except pd.errors.ParserWarning:
        raise UserError(f"{path}: rows have more fields than the header has names") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path} cannot be read as a table: {_one_line(error)}") from None
    except (EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file: {_one_line(error)}") from None
    first = frame.columns[0]
    unnamed = str(first).startswith("Unnamed: 0") and frame[first].dtype.kind in "iu"
    if unnamed and (np.diff(frame[first].to_numpy()) == 1).all():
        report.append("the unnamed first column holds row numbers and was left out")
        frame = frame.drop(columns=first)
    return frame


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# ------------------------------------------------------------------------------------- columns


def _build(
    frame: pd.DataFrame,
    time_column: str | None,
    target: str | Sequence[str],
    id_column: str | None,
    covariates: str | Sequence[str],
    gaps: str,
    calendar: bool,
    frequency: str | None,
    source: str,
    report: list[str],
) -> SeriesTable:
    if gaps not in GAPS:
        raise UserError(f"gaps is {gaps!r}: give one of {', '.join(GAPS)}")
    frame = frame.rename(columns=str)
    target = (target,) if isinstance(target, str) else tuple(target)
    covariates = (covariates,) if isinstance(covariates, str) else tuple(covariates)
    if time_column == _NONE and _NONE not in frame.columns:
        numbered, time_column = True, None
    else:
        numbered = False
    named = [*target, *covariates, *(c for c in (time_column, id_column) if c is not None)]
    for name in named:
        if name not in frame.columns:
            near = difflib.get_close_matches(name, frame.columns, 1, 0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(
                f"{source}: no column {name!r}; {hint}columns: {_listed(frame.columns)}"
            )
        if named.count(name) > 1:
            raise UserError(f"{source}: column {name!r} is given twice; give it one role")
        if (frame.columns == name).sum() > 1:
            raise UserError(f"{source}: there are two columns {name!r}; rename one")
    if time_column is None and not numbered:
        time_column = _find_time_column(frame, named, source)
    used = {time_column, id_column, *covariates}
    columns: dict[str, np.ndarray] = {}
    for name in (*target, *covariates):
        columns[name] = _required(frame, name, source)
    if not target:
        dropped = []
        for name in frame.columns:
            if name in used:
                continue
            numbers = _numbers(frame, name, source)
            if numbers is None:
                dropped.append(name)
            else:
                columns[name] = numbers
        target = tuple(name for name in columns if name not in covariates)
        if dropped:
            report.append(f"not numeric, left out: {_listed(dropped)}")
        if not target:
            raise UserError(
                f"{source}: no numeric column to forecast; columns: {_listed(frame.columns)}"
            )

    # sort rows by series; the order inside a series stays as it was
    ids: tuple[str, ...] = ("",)
    order = None
    offsets = np.array([0, len(frame)], np.int64)
    if id_column is not None:
        codes, found = pd.factorize(frame[id_column])
        _refuse(codes < 0, source, id_column, "the id is empty; fill it in")
        ids = tuple(str(i) for i in found)
        if (np.diff(codes) < 0).any():
            order = np.argsort(codes, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(codes))]).astype(np.int64)
    place = _Place(source, np.arange(len(frame)) if order is None else order)
    values = np.stack([columns[name] for name in target], 1)[place.rows]
    known = np.zeros((len(frame), 0))
    if covariates:
        known = np.stack([columns[name] for name in covariates], 1)[place.rows]

    if time_column is None:
        if frequency is not None:
            raise UserError(f"{source}: frequency {frequency!r} is given but no time column")
        clock, alias = Clock("rows"), None
        times = np.arange(len(frame)) - np.repeat(offsets[:-1], np.diff(offsets))
    else:
        times = _parse_times(frame[time_column], source, time_column, report)[place.rows]
        _check_rising(times, offsets, place, frame, time_column, id_column)
        clock, alias = _find_step(times, offsets, ids, place, time_column, frequency)
    positions = clock.positions(times)
    cells = np.concatenate([values, known], 1)
    for i, name in enumerate((*target, *covariates)):
        _refuse(np.isinf(cells[:, i]), place, name, "the value is infinite; put a number there")
    missing = _missing(positions, times, offsets, place, time_column, ids)
    if missing:
        if gaps == "error":
            raise UserError(
                f"{source}: {missing}; use gaps='interpolate' or 'forward_fill' to fill them, or "
                "'report' to take the rows as they stand"
            )
        report.append(missing)
    empty = np.isnan(cells)
    if gaps in ("report", "error"):
        if empty.any():
            i = int(empty.any(0).argmax())
            count = int(empty.sum())
            _refuse(
                empty[:, i],
                place,
                (*target, *covariates)[i],
                f"the cell is empty or NaN ({count} such cell{'s' * (count > 1)}); use "
                "gaps='interpolate' or 'forward_fill', or fill the file",
            )
    else:
        if missing:
            cells, times, positions, offsets = _insert(
                cells, times, positions, offsets, clock, place, time_column
            )
        filled = int(np.isnan(cells).sum())
        if filled:
            cells = _fill(cells, offsets, gaps, ids, (*target, *covariates), source)
            report.append(
                f"{filled} cells filled by {gaps}"
                + (f", {len(cells) - len(frame)} rows put in" if len(cells) > len(frame) else "")
            )
    values = np.ascontiguousarray(cells[:, : len(target)])
    known = np.ascontiguousarray(cells[:, len(target) :])
    if calendar:
        if alias is None:
            raise UserError(
                f"{source}: calendar features need a time column with dates; name it, or leave "
                "the calendar out"
            )
        known = np.concatenate([known, calendar_features(times, alias)], 1)
        covariates = (*covariates, *calendar_names(alias))

    period = clock.season()
    if period is None:
        period = find_period(values, offsets)
        if period > 1:
            report.append(f"seasonal period {period} read from the autocorrelation")
    index = _small(positions, period)
    for array in (values, known, offsets, times, index):
        array.setflags(write=False)
    digest = hashlib.sha256(repr((target, ids, covariates, alias, values.shape)).encode())
    for array in (offsets, times, values, known):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return SeriesTable(
        names=target,
        ids=ids,
        values=values,
        offsets=offsets,
        times=times,
        time_index=index,
        frequency=alias,
        period=period,
        covariate_names=covariates,
        covariates=known,
        report=tuple(report),
        checksum=digest.hexdigest(),
        source=source,
        time_column=time_column,
        id_column=id_column,
        clock=clock,
    )


@dataclass(frozen=True)
class _Place:
    """Where the rows of the sorted table stood in the file."""

    source: str
    rows: np.ndarray

    def number(self, position: int) -> int:
        return int(self.rows[position]) + 1


def _refuse(bad: np.ndarray, where: str | _Place, column: str, what: str) -> None:
    """Raise for the first bad row in the order of the file, if there is one."""
    if not bad.any():
        return
    if isinstance(where, str):
        source, row = where, int(bad.argmax()) + 1
    else:
        source, row = where.source, int(where.rows[bad].min()) + 1
    raise UserError(f"{source}: column {column!r}, row {row}: {what}")


def _listed(names: Sequence[str], most: int = 30) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _is_text(column: pd.Series) -> bool:
    return pd.api.types.is_string_dtype(column) or column.dtype == object


def _required(frame: pd.DataFrame, name: str, source: str) -> np.ndarray:
    """A column that was asked for, as float64."""
    numbers = _numbers(frame, name, source, optional=False)
    if numbers is None:
        raise UserError(f"{source}: column {name!r} holds no numbers; choose another column")
    return numbers


def _numbers(
    frame: pd.DataFrame, name: str, source: str, *, optional: bool = True
) -> np.ndarray | None:
    """A column as float64. `None` where `optional` and most of its cells are no numbers."""
    column = frame[name]
    if column.dtype.kind in "biuf" and isinstance(column.dtype, np.dtype):
        return column.to_numpy(np.float64)
    if column.dtype.kind in "mM" or isinstance(column.dtype, pd.CategoricalDtype):
        if optional:
            return None
        raise UserError(
            f"{source}: column {name!r} holds {column.dtype}, not numbers; choose another column"
        )
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.dtype.kind == "c":
        raise UserError(f"{source}: column {name!r} holds complex numbers")
    values = numbers.to_numpy(np.float64, na_value=np.nan)
    bad = np.isnan(values) & column.notna().to_numpy()
    if not bad.any():
        return values
    if optional and bad.sum() * 2 >= column.notna().sum():
        return None  # text, such as a name
    row = int(bad.argmax())
    shown = str(column.iloc[row])[:40]
    comma = " (decimal commas must be points)" if shown.count(",") == 1 else ""
    raise UserError(
        f"{source}: column {name!r}, row {row + 1}: {shown!r} is not a number{comma}; mend the "
        "cell or choose other columns as target"
    )


# --------------------------------------------------------------------------------------- times


def _find_time_column(frame: pd.DataFrame, taken: Sequence[str], source: str) -> str | None:
    found = []
    for name in frame.columns:
        if name in taken or (frame.columns == name).sum() > 1:
            continue
        column = frame[name]
        if column.dtype.kind == "M":
            found.append(name)
        elif _is_text(column):
            head = column.head(200).dropna().astype(str)
            if not len(head) or head.str.match(_DATE).mean() < 0.5:
                continue
            # "1.5" looks like a date too: a column of numbers with a broken cell is no time
            if pd.to_numeric(head, errors="coerce").notna().mean() < 0.5:
                found.append(name)
    if len(found) > 1:
        raise UserError(
            f"{source}: several columns hold dates ({_listed(found)}); name the time column"
        )
    return found[0] if found else None


def _parse_times(column: pd.Series, source: str, name: str, report: list[str]) -> np.ndarray:
    """The times as datetime64[ns], or int64 where the column holds whole numbers."""
    _refuse(column.isna().to_numpy(), source, name, "the time is empty; fill it in")
    if column.dtype.kind in "iuf":
        numbers = column.to_numpy()
        if column.dtype.kind == "f":
            bad = ~np.isfinite(numbers) | (numbers != np.round(numbers))
            _refuse(
                bad,
                source,
                name,
                "the time is no whole number; number the rows instead "
                "(time_column='none') or write dates",
            )
        whole = numbers.astype(np.int64)
        dates = _compact_dates(whole)
        return whole if dates is None else dates
    if column.dtype.kind != "M":
        column = _parse_dates(column.astype(str), source, name, report)
    if getattr(column.dtype, "tz", None) is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        report.append(f"times of {name!r} were turned into UTC")
    try:
        return column.astype("datetime64[ns]").to_numpy()
    except (pd.errors.OutOfBoundsDatetime, OverflowError):
        raise UserError(
            f"{source}: column {name!r}: dates must lie between 1678 and 2262"
        ) from None


def _compact_dates(whole: np.ndarray) -> np.ndarray | None:
    """Dates written as 20240131, where all numbers are such dates."""
    if whole.min() < 16780101 or whole.max() > 22611231:
        return None
    dates = pd.to_datetime(pd.Series(whole).astype(str), format="%Y%m%d", errors="coerce")
    return None if dates.isna().any() else dates.astype("datetime64[ns]").to_numpy()


def _parse_dates(column: pd.Series, source: str, name: str, report: list[str]) -> pd.Series:
    def attempt(**options: object) -> pd.Series | None:
        try:
            return pd.to_datetime(column, errors="coerce", **options)
        except (ValueError, TypeError):  # mixed time zones
            return None

    def step_kinds(dates: pd.Series) -> int:
        return len(np.unique(np.diff(dates.to_numpy())))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas warns when it must guess a format
        tries = [attempt()]
        if tries[0] is None or tries[0].isna().any():
            tries += [attempt(format="ISO8601"), attempt(format="ISO8601", utc=True)]
        day_first = None
        if column.head(1).str.match(r"^\s*\d{1,2}[-/.]\d{1,2}[-/.]").all():
            day_first = attempt(dayfirst=True)
            tries.append(day_first)
    read = [t for t in tries if t is not None and t.dtype.kind == "M"]
    good = [t for t in read if not t.isna().any()]
    if good:
        # 03/04/2024 can be read two ways: the reading with the more regular steps is right
        best = min(good, key=step_kinds) if len(good) > 1 else good[0]
        if best is day_first and not any(t is not best and t.equals(best) for t in good):
            report.append(f"dates of {name!r} are read with the day first")
        return best
    least = min(read, key=lambda t: int(t.isna().sum()), default=None)
    row = 0 if least is None else int(least.isna().to_numpy().argmax())
    raise UserError(
        f"{source}: column {name!r}, row {row + 1}: {str(column.iloc[row])[:40]!r} is no date or "
        "time like the others; write it as 2024-01-31 or 2024-01-31 15:00:00"
    )


def _check_rising(
    times: np.ndarray,
    offsets: np.ndarray,
    place: _Place,
    frame: pd.DataFrame,
    name: str,
    id_column: str | None,
) -> None:
    steps = np.diff(times.astype(np.int64), prepend=times[:1].astype(np.int64) - 1)
    steps[offsets[:-1]] = 1
    bad = np.flatnonzero(steps <= 0)
    if not bad.size:
        return
    at = int(bad[place.rows[bad].argmin()])
    shown, before = _shown(times[at]), _shown(times[at - 1])
    if steps[at] == 0:
        text = f"{shown} stands twice (also in row {place.number(at - 1)}); leave one row out"
    else:
        text = f"{shown} comes after {before}; sort the rows by time"
    if id_column is None:
        # many rows for each time are the mark of a long table
        for other in frame.columns:
            column = frame[other]
            if other != name and _is_text(column) and 1 < column.nunique() <= len(frame) // 2:
                text += f", or name the id column if there are several series ({other!r}?)"
                break
    else:
        text += f" of series {frame[id_column].iloc[int(place.rows[at])]!r}"
    raise UserError(
        f"{place.source}: column {name!r}, row {place.number(at)}: {text}; or use "
        "time_column='none' to number the rows as they stand"
    )


def _shown(time: np.generic) -> str:
    if time.dtype.kind != "M":
        return str(time)
    return str(pd.Timestamp(time))


def _find_step(
    times: np.ndarray,
    offsets: np.ndarray,
    ids: tuple[str, ...],
    place: _Place,
    name: str,
    frequency: str | None,
) -> tuple[Clock, str | None]:
    try:
        if frequency is None:
            clock = find_clock(times, offsets, ids)
            return clock, clock.alias(times)
        clock = clock_from_alias(frequency)
        if times.dtype.kind != "M":
            raise UserError(
                f"{place.source}: frequency {frequency!r} needs dates, column {name!r} holds "
                "whole numbers"
            )
        # a time on the clock is where counting from the first time gets to
        first = np.repeat(times[offsets[:-1]], np.diff(offsets))
        there = clock.advance(first, clock.positions(times) - clock.positions(first))
        off = np.flatnonzero(there != times)
        if off.size:
            raise UnevenTimes(f"the time does not fit the frequency {frequency!r}", int(off[0]))
        return clock, frequency
    except UnevenTimes as error:
        row = place.number(error.position)
        raise UserError(f"{place.source}: column {name!r}, row {row}: {error}") from None


def _missing(
    positions: np.ndarray,
    times: np.ndarray,
    offsets: np.ndarray,
    place: _Place,
    name: str | None,
    ids: tuple[str, ...],
) -> str | None:
    if name is None:
        return None
    steps = np.diff(positions, prepend=positions[:1])
    steps[offsets[:-1]] = 1
    holes = np.flatnonzero(steps > 1)
    if not holes.size:
        return None
    at = int(holes[0])
    s = int(np.searchsorted(offsets, at, "right")) - 1
    whose = f" of series {ids[s]!r}" if len(ids) > 1 else ""
    count = int((steps[holes] - 1).sum())
    return (
        f"column {name!r}: {count} missing time{'s' * (count > 1)} in "
        f"{len(holes)} gap{'s' * (len(holes) > 1)}, the longest {int(steps.max()) - 1} steps, the "
        f"first{whose} after row {place.number(at - 1)} ({_shown(times[at - 1])})"
    )


# ---------------------------------------------------------------------------------------- gaps


def _insert(
    cells: np.ndarray,
    times: np.ndarray,
    positions: np.ndarray,
    offsets: np.ndarray,
    clock: Clock,
    place: _Place,
    name: str | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Put rows of NaN where times are missing."""
    first = positions[offsets[:-1]]
    lengths = positions[offsets[1:] - 1] - first + 1
    if lengths.sum() > 20 * len(cells) + 10_000:
        raise UserError(
            f"{place.source}: column {name!r}: filling the gaps would turn {len(cells)} rows into "
            f"{int(lengths.sum())}; look for a wrong time, or resample the data first"
        )
    full = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    series = np.repeat(np.arange(len(first)), lengths)
    steps = np.arange(full[-1]) - full[series]
    out = np.full((len(series), cells.shape[1]), np.nan)
    target = positions - np.repeat(first - full[:-1], np.diff(offsets))
    out[target] = cells
    return out, clock.advance(times[offsets[:-1]][series], steps), first[series] + steps, full


def _fill(
    cells: np.ndarray,
    offsets: np.ndarray,
    gaps: str,
    ids: tuple[str, ...],
    names: tuple[str, ...],
    source: str,
) -> np.ndarray:
    """Fill NaN inside each series; the edges take the nearest value there is."""
    rows = np.arange(len(cells))[:, None]
    lengths = np.diff(offsets)
    begin = np.repeat(offsets[:-1], lengths)[:, None]
    end = np.repeat(offsets[1:], lengths)[:, None]
    there = ~np.isnan(cells)
    # (N, C) row of the nearest value before (-1: none) and after (N: none)
    before = np.maximum.accumulate(np.where(there, rows, -1), axis=0)
    after = np.minimum.accumulate(np.where(there, rows, len(cells))[::-1], axis=0)[::-1]
    has_before, has_after = before >= begin, after < end
    lost = ~(has_before | has_after)
    if lost.any():
        row, column = np.argwhere(lost)[0]
        s = int(np.searchsorted(offsets, row, "right")) - 1
        whose = f"series {ids[s]!r}" if ids[s] else "the file"
        raise UserError(
            f"{source}: column {names[column]!r}: {whose} holds no value at all to fill from; "
            "leave it out"
        )
    before = np.where(has_before, before, after)
    after = np.where(has_after, after, before)
    left = np.take_along_axis(cells, before, 0)
    if gaps == "forward_fill":
        return left
    right = np.take_along_axis(cells, after, 0)
    share = (rows - before) / np.maximum(after - before, 1)
    return np.where(there, cells, left + np.clip(share, 0, 1) * (right - left))


def _small(positions: np.ndarray, period: int) -> np.ndarray:
    """Positions that fit int32, with the same phase in the period."""
    limit = 2**31 - 2**20  # room for the steps of a horizon
    if positions.size and max(positions.max(), -positions.min()) >= limit:
        return positions % (limit // period * period)
    return positions.astype(np.int64)
