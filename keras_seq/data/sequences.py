"""Numeric sequences with a label: read them from wide or long tables, and batch them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from keras_seq.data.series import _numbers, _read_frame, _refuse
from keras_seq.data.text import file_checksum
from keras_seq.data.text_files import as_label
from keras_seq.data.tokens import LengthBatches, gather
from keras_seq.errors import UserError

__all__ = ["SequenceBatches", "SequenceTable", "read_sequences"]

_NUMBERED = re.compile(r"(.*?)[_.\- ]?(\d+)")


@dataclass(frozen=True, eq=False)
class SequenceTable:
    """Sequences and their labels, in the order of the file.

    Args:
        values: N arrays (T, C) float32; T may differ.
        labels: N labels, None without labels.
        names: The C channels.
        source: The file.
        checksum: sha256 of the file.
        report: Lines for the user: what was found.
        label_name: The column of the labels, "" without labels.
        ids: N names of the sequences in a long table, () for a wide one.
    """

    values: list[np.ndarray]
    labels: list[str] | None
    names: tuple[str, ...]
    source: str
    checksum: str
    report: tuple[str, ...]
    label_name: str = ""
    ids: tuple[str, ...] = ()


def read_sequences(
    path: str | Path,
    *,
    label_column: str | None,
    id_column: str = "",
    time_column: str = "",
    value_columns: str | Sequence[str] = (),
    need_labels: bool = True,
) -> SequenceTable:
    r"""Read numeric sequences with a label each.

    A wide table has a row for each sequence; its columns are the steps, in the order in which they
    stand. Where all of them are named by channel and step ("x_0", "x_1", "y_0", "y_1"), the steps
    of each channel are put in the order of their numbers. A long table, told by `id_column`, has a
    row for each step and a column for each channel; its sequences may differ in length.

    Args:
        path: .csv or .tsv (either may be .gz), or .parquet.
        label_column: Column of the labels; None reads none.
        id_column: Column that tells the sequences apart: the table is long.
        time_column: Column by which the steps of a long table are sorted (numbers or dates);
            without one they stay as they stand.
        value_columns: Columns of values; default all but those named.
        need_labels: False for new data: a file without labels will do.

    Returns:
        The sequences, long ones in the order in which their ids come up.

    Raises:
        UserError: The file or its content will not do; one line that names file, column and row
            (the first row of data is row 1).

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.csv"
        >>> _ = path.write_text("kind,x_0,x_1\nup,1,2\ndown,2,1\n")
        >>> table = read_sequences(path, label_column="kind")
        >>> [v[:, 0].tolist() for v in table.values], table.labels, table.names
        ([[1.0, 2.0], [2.0, 1.0]], ['up', 'down'], ('x',))
    """
    source = str(path)
    found = Path(path).expanduser()
    report: list[str] = []
    frame = _read_frame(found, report).rename(columns=str)
    columns = (value_columns,) if isinstance(value_columns, str) else tuple(value_columns)
    if label_column not in frame.columns and not need_labels:
        label_column = None
    if time_column and not id_column:
        raise UserError(
            f"{source}: a time column needs an id column: in a table with a row for each sequence "
            "the order of the columns is the time"
        )
    roles = [*columns, *(c for c in (label_column, id_column, time_column) if c)]
    _check_columns(frame, roles, source)
    if not columns:
        columns = tuple(c for c in frame.columns if c not in roles)
    if not columns:
        raise UserError(f"{source}: no columns of values are left")
    values = np.stack([_values(frame, name, source) for name in columns], 1)
    labels = None
    if label_column is not None:
        column = frame[label_column].astype(object)
        labels = [as_label(v) for v in column.where(column.notna(), None)]
        _refuse(np.array([not v for v in labels]), source, label_column, "the label is blank")
    ids: tuple[str, ...] = ()
    if id_column:
        rows, ids = _rows_of_ids(frame, id_column, time_column, source)
        if labels is not None and label_column is not None:
            labels = _labels_of_ids(labels, rows, ids, label_column, source)
        sequences, names = [values[r] for r in rows], columns
    else:
        sequences, names = _channels(values, columns, source)
    if need_labels and labels is not None and len(set(labels)) == 1:
        raise UserError(
            f"{source}: column {label_column!r} holds one class only ({labels[0]!r}); at least "
            "two are needed: choose another column, or give all of the data"
        )
    return SequenceTable(
        values=sequences,
        labels=labels,
        names=names,
        source=source,
        checksum=file_checksum(found),
        report=tuple(report),
        label_name=label_column or "",
        ids=ids,
    )


def _check_columns(frame: pd.DataFrame, names: Sequence[str], source: str) -> None:
    import difflib

    for name in names:
        if name not in frame.columns:
            near = difflib.get_close_matches(name, frame.columns, 1, 0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            listed = ", ".join(frame.columns[:30]) + (", ..." if len(frame.columns) > 30 else "")
            raise UserError(f"{source}: no column {name!r}; {hint}columns: {listed}")
        if list(names).count(name) > 1:
            raise UserError(f"{source}: column {name!r} is given twice; give it one role")
        if (frame.columns == name).sum() > 1:
            raise UserError(f"{source}: there are two columns {name!r}; rename one")


def _values(frame: pd.DataFrame, name: str, source: str) -> np.ndarray:
    """A column as float32 in which every cell is a number."""
    try:
        found = _numbers(frame, name, source)
    except UserError as error:  # most cells are numbers: the row is named
        raise UserError(str(error).replace("as target", "of values")) from None
    if found is None:
        raise UserError(
            f"{source}: column {name!r} holds no numbers; leave it out of the value columns, or "
            "name those that are values"
        )
    _refuse(
        ~np.isfinite(found), source, name, "the value is missing or infinite; put a number there"
    )
    return found.astype(np.float32)


def _rows_of_ids(
    frame: pd.DataFrame, id_column: str, time_column: str, source: str
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """The rows of each sequence in the order of time, and its name."""
    codes, found = pd.factorize(frame[id_column])
    _refuse(codes < 0, source, id_column, "the id is blank; fill it in")
    times = np.arange(len(frame))
    if time_column:
        column = frame[time_column]
        if column.dtype.kind not in "biufM":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pandas warns when it must guess a format
                column = pd.to_datetime(column, errors="coerce")
        if getattr(column.dtype, "tz", None) is not None:
            column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        what = "the time is blank, or no number or date"
        _refuse(column.isna().to_numpy(), source, time_column, what)
        times = column.to_numpy()
    order = np.lexsort((times, codes))
    ends = np.cumsum(np.bincount(codes))
    if time_column:
        same = (codes[order][1:] == codes[order][:-1]) & (times[order][1:] == times[order][:-1])
        twice = np.zeros(len(frame), bool)
        twice[order[1:][same]] = True
        _refuse(twice, source, time_column, "the time stands twice in one sequence")
    return np.split(order, ends[:-1]), tuple(str(i) for i in found)


def _labels_of_ids(
    labels: list[str], rows: list[np.ndarray], ids: Sequence[str], name: str, source: str
) -> list[str]:
    found = []
    for number, its_rows in enumerate(rows):
        its_rows = np.sort(its_rows)
        first = labels[its_rows[0]]
        for row in its_rows:
            if labels[row] != first:
                raise UserError(
                    f"{source}: column {name!r}, row {row + 1}: the label of {ids[number]!r} "
                    f"changes from {first!r} to {labels[row]!r}; a sequence has one label"
                )
        found.append(first)
    return found


def _channels(
    values: np.ndarray, columns: Sequence[str], source: str
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """A wide table as (T, C) sequences: one channel, or several by the names of the columns."""
    steps: dict[str, dict[int, int]] = {}
    for place, name in enumerate(columns):
        match = _NUMBERED.fullmatch(name)
        if match is None or int(match[2]) in steps.get(match[1], {}):
            return list(values[:, :, None]), ("value",)
        steps.setdefault(match[1], {})[int(match[2])] = place
    numbers = sorted(next(iter(steps.values())))
    for channel, places in steps.items():
        if sorted(places) != numbers:
            raise UserError(
                f"{source}: channel {channel!r} has {len(places)} columns, the first one "
                f"{len(numbers)}: every channel needs the same steps; name the value columns"
            )
    order = np.array([[places[n] for places in steps.values()] for n in numbers])
    return list(values[:, order]), tuple(name or "value" for name in steps)


class SequenceBatches(LengthBatches):
    """Batches of numeric sequences, padded on the right with 0, and their mask.

    See `LengthBatches` for how a pass is cut into batches. Where all sequences have one length,
    nothing is padded.

    Args:
        values: N arrays (T, C).
        targets: (N, ...) one for each sequence, or None.
        rows: (M,) the sequences to use; None is all.
        max_steps: The most steps of a sequence; None is no limit.
        keep: What is kept of a longer one: "head", or "ends": the first quarter and the last
            three quarters of `max_steps`.
        extra: More inputs by name: a function of the row numbers (B,) and the padded length T.

    Raises:
        UserError: `keep` or `max_steps` is out of range.
        ValueError: Shapes do not fit.

    Example:
        >>> import numpy as np
        >>> data = SequenceBatches([np.ones((9, 1)), np.ones((2, 1))], np.array([0, 1]))
        >>> x, y = data.batch([0, 1])
        >>> x["features"].shape, x["mask"].sum(1).tolist()
        ((2, 16, 1), [9, 2])
    """

    def __init__(
        self,
        values: Sequence[np.ndarray],
        targets: np.ndarray | None,
        *,
        rows: np.ndarray | None = None,
        max_steps: int | None = None,
        keep: str = "head",
        extra: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] | None = None,
    ) -> None:
        shapes = {np.shape(v)[1:] for v in values}
        if len(shapes) > 1 or any(np.ndim(v) != 2 for v in values):
            raise ValueError(f"sequences must be (steps, channels), all alike; got {shapes}")
        offsets = np.cumsum([0, *(len(v) for v in values)]).astype(np.int64)
        super().__init__(offsets, targets, rows=rows, max_steps=max_steps, keep=keep, extra=extra)
        if len(self) and self.lengths.min() == self.lengths.max():
            self.round_to = 1
        arrays = [np.asarray(v, np.float32) for v in values]
        self.flat = np.concatenate(arrays) if arrays else np.zeros((0, 1), np.float32)

    def inputs(self, rows: np.ndarray, steps: int) -> dict[str, np.ndarray]:
        """{"features": (B, T, C) float32, "mask": (B, T) bool} of sequences.

        Args:
            rows: (B,) their numbers.
            steps: T, the padded length.
        """
        places, there = self.places(rows, steps)
        return {"features": gather(self.flat, places, there), "mask": there}
