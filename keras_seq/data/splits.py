"""Cut series into train, validation and test parts in the order of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_seq.errors import UserError

if TYPE_CHECKING:
    from keras_seq.data.series import SeriesTable

__all__ = ["Split", "default_split", "parse_split"]

PARTS = ("train", "validation", "test")
_FORMS = (
    "give fractions such as 0.7,0.1,0.2, row counts such as 8640,2880,2880, two dates such as "
    "2017-07-01,2017-11-01, or tail:48,48"
)


@dataclass(frozen=True)
class Split:
    """A rule that cuts every series into train, validation and test rows.

    Args:
        kind: "fractions", "counts", "dates" or "tail".
        values: three fractions, three counts, two dates as text, or two counts
            (validation, test) from the end.
        text: the rule as the user wrote it.
    """

    kind: str
    values: tuple
    text: str

    def parts(self, table: SeriesTable) -> dict[str, np.ndarray]:
        """Row ranges of the parts.

        Args:
            table: the series.

        Returns:
            For each of train, validation and test an (S, 2) int64 array: first row and the row
            after the last, counted over the whole table.

        Raises:
            UserError: a series is too short, or the dates do not suit the times.
        """
        begin, end = table.offsets[:-1], table.offsets[1:]
        rows = end - begin
        if self.kind == "fractions":
            train = (rows * self.values[0]).astype(np.int64)
            test = (rows * self.values[2]).astype(np.int64)
            cuts = [begin, begin + train, end - test, end]
        elif self.kind == "counts":
            _need(table, rows, sum(self.values), f"the split {self.text}")
            cuts = [begin, *(begin + total for total in np.cumsum(self.values))]
        elif self.kind == "tail":
            validation, test = self.values
            _need(table, rows, validation + test + 1, f"the split {self.text}")
            cuts = [begin, end - validation - test, end - test, end]
        else:
            first, second = self._dates(table)
            # rising times inside each series: a cut is the count of earlier rows
            before = [
                np.add.reduceat(table.times < date, begin, dtype=np.int64)
                for date in (first, second)
            ]
            cuts = [begin, begin + before[0], begin + before[1], end]
        return {
            part: np.stack([cuts[i], cuts[i + 1]], 1).astype(np.int64)
            for i, part in enumerate(PARTS)
        }

    def starts(self, table: SeriesTable, lookback: int, horizon: int) -> dict[str, np.ndarray]:
        """Rows at which windows may start, for each part.

        The targets of a window lie inside its part. Inputs of validation and test windows may
        reach back into the part before; train windows lie in train altogether. No window holds
        rows of two series, and none is left out.

        Args:
            table: the series.
            lookback: input steps, at least 1.
            horizon: target steps, at least 1.

        Returns:
            For each of train, validation and test the rows, (W,) int64, rising.

        Raises:
            UserError: a number is below 1, or a series gives no window in some part.

        Example:
            >>> import pandas as pd
            >>> from keras_seq.data.series import series_from_frame
            >>> table = series_from_frame(pd.DataFrame({"y": range(12)}))
            >>> starts = parse_split("6,3,3").starts(table, lookback=3, horizon=2)
            >>> {part: rows.tolist() for part, rows in starts.items()}
            {'train': [0, 1], 'validation': [3, 4], 'test': [6, 7]}
        """
        for name, number in (("lookback", lookback), ("horizon", horizon)):
            if number < 1:
                raise UserError(f"{name} is {number}: give at least 1")
        ranges = self.parts(table)
        series_begin = table.offsets[:-1]
        found = {}
        for part in PARTS:
            low, high = ranges[part].T
            if part != "train":
                low = np.maximum(low - lookback, series_begin)
            counts = high - low - (lookback + horizon) + 1
            short = np.flatnonzero((counts < 1) | (ranges[part][:, 1] - ranges[part][:, 0] < 1))
            if short.size:
                raise UserError(self._too_short(table, ranges, part, short, lookback, horizon))
            # arange(counts[s]) + low[s] for every series s, end to end
            firsts = np.repeat(low - np.cumsum(counts) + counts, counts)
            found[part] = firsts + np.arange(counts.sum())
        return found

    def _dates(self, table: SeriesTable) -> tuple:
        if table.times.dtype.kind == "M":
            try:
                dates = tuple(np.datetime64(d).astype("datetime64[ns]") for d in self.values)
            except ValueError:
                raise UserError(f"split {self.text!r} holds no dates: {_FORMS}") from None
        elif table.time_column is None:
            raise UserError(
                f"split {self.text!r} needs times, and {table.source} has no time column: {_FORMS}"
            )
        else:
            try:
                dates = tuple(int(d) for d in self.values)
            except ValueError:
                raise UserError(
                    f"split {self.text!r}: column {table.time_column!r} of {table.source} holds "
                    "whole numbers, so give two of those"
                ) from None
        if dates[0] >= dates[1]:
            raise UserError(f"split {self.text!r}: the first date must be before the second")
        return dates

    def _too_short(
        self,
        table: SeriesTable,
        ranges: dict[str, np.ndarray],
        part: str,
        short: np.ndarray,
        lookback: int,
        horizon: int,
    ) -> str:
        s = int(short[0])
        rows = int(table.offsets[s + 1] - table.offsets[s])
        length = int(ranges[part][s, 1] - ranges[part][s, 0])
        if part == "train" or length >= horizon:
            need = f"{lookback + horizon} (lookback {lookback} + horizon {horizon})"
            have = length if part == "train" else int(ranges[part][s, 1] - table.offsets[s])
            what = "rows" if part == "train" else "rows up to its end"
        else:
            need, have, what = f"{horizon} (horizon)", length, "rows"
        more = f" (and {short.size - 1} more series)" if short.size > 1 else ""
        return (
            f"{table.source}: {_name(table, s)} with {rows} rows is too short{more}: under the "
            f"split {self.text} its {part} part has {have} {what}, a window needs {need}; shorten "
            "lookback or horizon, choose another split, or leave the series out"
        )


def _name(table: SeriesTable, s: int) -> str:
    return f"series {table.ids[s]!r}" if table.ids[s] else "the series"


def _need(table: SeriesTable, rows: np.ndarray, wanted: int, why: str) -> None:
    short = np.flatnonzero(rows < wanted)
    if short.size:
        s = int(short[0])
        more = f" (and {short.size - 1} more series)" if short.size > 1 else ""
        raise UserError(
            f"{table.source}: {_name(table, s)} with {int(rows[s])} rows is too short{more}: {why} "
            f"needs at least {wanted}; choose another split or leave the series out"
        )


def parse_split(text: str) -> Split:
    """Read a split rule.

    Args:
        text: "0.6,0.2,0.2" (fractions of each series), "8640,2880,2880" (rows from the start of
            each series, the rest unused), "2017-07-01,2017-11-01" (first validation and first
            test date) or "tail:48,48" (the last rows: validation, then test).

    Returns:
        The split.

    Raises:
        UserError: the text is none of these.

    Example:
        >>> parse_split("0.6,0.2,0.2").kind
        'fractions'
        >>> parse_split("tail:48,24").values
        (48, 24)
    """
    text = str(text).strip()
    tail = text.startswith("tail:")
    items = [item.strip() for item in text.removeprefix("tail:").split(",")]
    if tail:
        if len(items) == 2 and all(i.isdigit() and int(i) > 0 for i in items):
            return Split("tail", (int(items[0]), int(items[1])), text)
    elif len(items) == 3 and all(i.isdigit() for i in items):
        counts = tuple(int(i) for i in items)
        if min(counts) > 0:
            return Split("counts", counts, text)
    elif len(items) == 3:
        try:
            shares = tuple(float(i) for i in items)
        except ValueError:
            shares = (0.0,)
        if min(shares) > 0 and abs(sum(shares) - 1) < 1e-6:
            return Split("fractions", shares, text)
        if len(shares) == 3:
            raise UserError(f"split {text!r}: three fractions above 0 must add up to 1; {_FORMS}")
    elif len(items) == 2 and all(items):
        for item in items:
            try:
                np.datetime64(item)
            except ValueError:
                break
        else:
            if items[0] != "NaT" and items[1] != "NaT":
                return Split("dates", tuple(items), text)
    raise UserError(f"split {text!r} is not understood: {_FORMS}")


def default_split(table: SeriesTable, horizon: int) -> Split:
    """The split that is taken when the user names none.

    Args:
        table: the series.
        horizon: target steps.

    Returns:
        0.7, 0.1, 0.2 of a single series; for several, the last `horizon` rows of each are test
        and the `horizon` before them validation.
    """
    if horizon < 1:
        raise UserError(f"horizon is {horizon}: give at least 1")
    return parse_split("0.7,0.1,0.2" if len(table.ids) == 1 else f"tail:{horizon},{horizon}")
