"""Texts and labels out of files of every kind, some rows at a time."""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import io
import json
import math
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from keras_seq.errors import UserError

__all__ = ["Piece", "as_label", "check_file", "open_text", "read_pieces", "shorten"]

JOIN = " \n"  # between the fields of one text
LIST = ","  # between the labels of one text where a file holds a list
_LISTS = f"lists of labels were joined by {LIST!r}"
SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".parquet")


@dataclass
class Piece:
    """Some rows of a file before they are checked."""

    texts: list[str]
    labels: list[str] | None
    first: int  # number of the first row, from 1
    notes: tuple[str, ...] = ()


def shorten(text: str, most: int = 40) -> str:
    """A text in quotes on one line, cut for an error.

    Args:
        text: Any text.
        most: The most characters.

    Example:
        >>> shorten("one two", 6)
        "'one...'"
    """
    shown = " ".join(text.split())
    return repr(shown if len(shown) <= most else shown[: most - 3] + "...")


def check_file(path: Path, suffixes: Sequence[str] = ()) -> None:
    """Refuse what is no file with something in it.

    Args:
        path: The file.
        suffixes: How its name must end; any way where none is given.

    Raises:
        UserError: It is missing, a folder, empty or of another kind.

    Example:
        >>> check_file(Path("missing.csv"))
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: no such file: missing.csv; check the path
    """
    if not path.exists():
        folder = path.parent if path.parent.is_dir() else None
        names = [p.name for p in folder.iterdir()] if folder else []
        near = difflib.get_close_matches(path.name, names, 1)
        hint = f"did you mean {folder / near[0]}?" if folder and near else "check the path"
        raise UserError(f"no such file: {path}; {hint}")
    if path.is_dir():
        raise UserError(f"{path} is a folder: give one file")
    if suffixes and not path.name.lower().endswith(tuple(suffixes)):
        raise UserError(f"{path}: the name must end in one of {', '.join(suffixes)}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty: it must hold text")


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    r"""Open a UTF-8 file, packed by gzip or not, whose lines end at a line feed alone.

    Args:
        path: The file.

    Raises:
        UserError: Within the block: the file cannot be read, or is not UTF-8 (names the byte).

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = path.write_bytes(b"caf\xe9")
        >>> with open_text(path) as file:
        ...     file.read()
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: ...a.txt is not UTF-8: byte 3 is 0xe9; save the file as UTF-8
    """
    zipped = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path) if zipped else open(path, "rb") as raw:
            # newline: "\r" and the like inside of a text end no line.
            yield io.TextIOWrapper(raw, "utf-8-sig", newline="\n")
    except UnicodeDecodeError:
        raise UserError(_bad_byte(path, zipped)) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is not a whole gzip file: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def _bad_byte(path: Path, zipped: bool) -> str:
    """Where a file stops being UTF-8. Read anew, since a text stream does not tell."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    before = 0
    with gzip.open(path) if zipped else open(path, "rb") as file:
        head = file.read(2)
        file.seek(0)
        while block := file.read(1 << 20):
            held = len(decoder.getstate()[0])  # bytes of an unfinished character
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                at = before - held + error.start
                byte = error.object[error.start]
                break
            before += len(block)
        else:
            held_bytes = decoder.getstate()[0]  # the file ends within a character
            at, byte = before - len(held_bytes), held_bytes[0]
    unpacked = " of the unpacked text" if zipped else ""
    guess = "; it looks like UTF-16" if head in (b"\xff\xfe", b"\xfe\xff") else ""
    return (
        f"{path} is not UTF-8: byte {at}{unpacked} is 0x{byte:02x}{guess}; save the file as UTF-8"
    )


def _find(
    names: Sequence[str], columns: Sequence[str], label: str | None, need: bool, source: str
) -> tuple[list[int], int | None]:
    """Places of the text columns and of the label column in a header."""
    if label in columns:
        raise UserError(f"{source}: column {label!r} is given twice: as text and as label")

    def place(name: str) -> int:
        if names.count(name) > 1:
            raise UserError(f"{source}: there are two columns {name!r}; rename one")
        if name in names:
            return names.index(name)
        near = difflib.get_close_matches(name, names, 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        listed = ", ".join(n if len(n) <= 30 else n[:27] + "..." for n in names[:30])
        raise UserError(
            f"{source}: no column {name!r}; {hint}columns of the first row: {listed or 'none'}"
        )

    found = [place(name) for name in columns]
    if label is None or (label not in names and not need):
        return found, None
    return found, place(label)


def _is_number(text: str) -> bool:
    try:  # "infinity" and "nan" are words; longer strings of digits are sequences, no numbers
        return len(text) <= 25 and math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


def _refuse_numbers(values: list[str], name: str, others: dict[str, str], source: str) -> None:
    """Refuse a text column in which every text that is there is a number."""
    there = [v for v in values if v.strip()]
    if not there or not all(_is_number(v) for v in there):
        return
    words = {n: len(v) for n, v in others.items() if n != name and not _is_number(v)}
    best = max(words, key=lambda n: words[n], default="")
    hint = f"did you mean {best!r}?" if best else "choose the column that holds the text"
    raise UserError(
        f"{source}: column {name!r} holds numbers ({shorten(there[0])}), not text; {hint}"
    )


def read_pieces(
    path: Path, columns: tuple[str, ...], label: str | None, need: bool, size: int
) -> Iterator[Piece]:
    """The rows of a file or a folder in pieces; only what a single row shows is checked.

    Args:
        path: See `keras_seq.data.read_texts`.
        columns: The text columns.
        label: The label column, or None.
        need: Whether a file without labels is refused.
        size: The most rows of a piece.

    Yields:
        Pieces in the order of the file, a blank label as "".

    Raises:
        UserError: The file will not do.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.tsv"
        >>> _ = path.write_text("text" + chr(10) + "fine" + chr(10))
        >>> [piece.texts for piece in read_pieces(path, ("text",), None, False, 10)]
        [['fine']]
    """
    if path.is_dir():
        yield from _folder(path, label, need, size)
        return
    check_file(path, SUFFIXES)
    lower = path.name.lower()
    if lower.endswith(".parquet"):
        yield from _parquet(path, columns, label, need, size)
        return
    with open_text(path) as file:
        if ".jsonl" in lower[-9:]:
            yield from _json_lines(file, str(path), columns, label, need, size)
        else:
            yield from _delimited(file, path, columns, label, need, size)


def _folder(path: Path, label: str | None, need: bool, size: int) -> Iterator[Piece]:
    def texts(folder: Path) -> list[Path]:
        found = (p for p in folder.iterdir() if p.suffix.lower() == ".txt" and p.is_file())
        return sorted(p for p in found if not p.name.startswith("."))

    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = [(p.name, file) for p in folders for file in texts(p)]
    loose = texts(path)
    if need and label is not None and not files:
        raise UserError(f"{path}: no folders with .txt files in it; wanted LABEL/*.txt")
    notes: tuple[str, ...] = ()
    labelled = bool(files) and label is not None
    if labelled and loose:
        notes = (f"{len(loose)} .txt files outside of the label folders left out",)
    elif not labelled:
        files += [("", file) for file in loose]
    if not files:
        raise UserError(f"{path}: no .txt files in it; wanted LABEL/*.txt")
    for start in range(0, len(files), size):
        part = files[start : start + size]
        contents = []
        for _, name in part:
            with open_text(name) as file:
                contents.append(file.read())
        labels = [name for name, _ in part] if labelled else None
        yield Piece(contents, labels, start + 1, notes)


def _delimited(
    file: IO[str],
    path: Path,
    columns: tuple[str, ...],
    label: str | None,
    need: bool,
    size: int,
) -> Iterator[Piece]:
    tabs = ".tsv" in path.name.lower()
    head = file.readline()
    notes: tuple[str, ...] = ()
    if "\0" in head:
        raise UserError(f"{path} is not text (binary data): save it as UTF-8 CSV or as .parquet")
    if tabs:
        lines = (line.removesuffix("\n").removesuffix("\r") for line in file)
        rows: Iterator[list[str]] = (line.split("\t") if line else [] for line in lines)
        names = head.strip("\r\n").split("\t")
    else:
        # A longer text than the module's limit is no error here.
        csv.field_size_limit(max(csv.field_size_limit(), sys.maxsize >> 32))
        mark = ","
        if "," not in head:
            mark = next((m for m in (";", "\t") if m in head), mark)
            if mark != ",":
                notes = (f"columns are separated by {mark!r}",)
        rows = csv.reader(_chain(head, file), delimiter=mark, strict=True)
        try:
            names = next(rows)
        except csv.Error as error:
            raise UserError(f"{path}: the header cannot be read: {error}") from None
    names = [name.strip() for name in names]
    places, target = _find(names, columns, label, need, str(path))
    row, seen = 0, False
    texts: list[str] = []
    labels: list[str] = []
    # The texts of the first piece by column, in which numbers are looked for.
    values: list[list[str]] = [[] for _ in places]
    others: dict[str, str] = {}

    def piece() -> Piece:
        for name, column in zip(columns, values, strict=True):
            _refuse_numbers(column, name, others, str(path))
        first = row - len(texts) + 1
        return Piece(texts, None if target is None else labels, first, notes)

    while True:
        try:
            cells = next(rows, None)
        except csv.Error as error:
            raise UserError(
                f"{path}: row {row + 1}: the quotes do not match ({error}); write a quote inside "
                'of a quoted field as ""'
            ) from None
        if cells is None:
            break
        if not cells:  # a blank line: an empty text only where there is nothing else in a row
            if len(names) > 1:
                continue
            cells = [""]
        row += 1
        if len(cells) != len(names):
            raise UserError(
                f"{path}: row {row} has {len(cells)} fields, the header has {len(names)}: "
                + ("take the tab out of the text" if tabs else "put the text in quotes")
            )
        texts.append(JOIN.join([cells[p] for p in places]))
        if target is not None:
            labels.append(cells[target].strip())
        if not seen:
            for column, p in zip(values, places, strict=True):
                column.append(cells[p])
            if row == 1:
                others = {n: c for n, c in zip(names, cells, strict=True) if n != label}
        if len(texts) == size:
            yield piece()
            texts, labels, values, seen = [], [], [[] for _ in places], True
    if texts:
        yield piece()


def _chain(head: str, file: IO[str]) -> Iterator[str]:
    yield head
    yield from file


def _json_lines(
    file: IO[str],
    source: str,
    columns: tuple[str, ...],
    label: str | None,
    need: bool,
    size: int,
) -> Iterator[Piece]:
    texts: list[str] = []
    labels: list[str] = []
    row, given = 0, False
    notes: tuple[str, ...] = ()
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        row += 1
        try:
            values = json.loads(line)
        except ValueError as error:
            raise UserError(f"{source}: line {number} is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise UserError(f'{source}: line {number} is no JSON object like {{"text": ...}}')
        if row == 1:
            _find(list(values), columns, label, need, source)
            given = label is not None and label in values
        elif not all(name in values for name in columns):
            _find(list(values), columns, None, need, f"{source}, line {number}")
        fields = []
        for name in columns:
            value = values[name]
            if value is not None and not isinstance(value, str):
                kind = "a number" if isinstance(value, int | float) else "no text"
                raise UserError(
                    f"{source}: line {number}: {name!r} is {kind} ({shorten(str(value))}); choose "
                    "the field that holds the text"
                )
            fields.append(value or "")
        texts.append(JOIN.join(fields))
        if given and label is not None:
            value = values.get(label)
            if isinstance(value, list):
                notes = (_LISTS,)
            labels.append(as_label(value))
        if len(texts) == size:
            yield Piece(texts, labels if given else None, row - size + 1, notes)
            texts, labels = [], []
    if texts:
        yield Piece(texts, labels if given else None, row - len(texts) + 1, notes)


def as_label(value: Any) -> str:
    """A label of a typed file as it would stand in a text file.

    Args:
        value: A cell: text, a number, a truth value, None, or a list of them.

    Returns:
        The text without spaces around it; "" for a blank cell.

    Example:
        >>> as_label(1.0), as_label(True), as_label(None), as_label([" a", 2])
        ('1', 'true', '', 'a,2')
    """
    if isinstance(value, list):
        return LIST.join(as_label(v) for v in value)
    if value is None or value != value:  # NaN stands for a blank cell
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _parquet(
    path: Path, columns: tuple[str, ...], label: str | None, need: bool, size: int
) -> Iterator[Piece]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        what = " ".join(str(error).split())
        raise UserError(f"{path} is not a whole Parquet file: {what}") from None
    with file:
        schema = file.schema_arrow
        _, target = _find(schema.names, columns, label, need, str(path))
        strings = [n for n in schema.names if _is_text(pa, schema.field(n).type)]
        for name in columns:
            if name not in strings:
                others = [n for n in strings if n != label]
                hint = f"did you mean {others[0]!r}?" if others else "choose the text's column"
                raise UserError(
                    f"{path}: column {name!r} holds {schema.field(name).type}, not text; {hint}"
                )
        wanted = [*columns, *([] if target is None or label is None else [label])]
        row = 1
        try:
            for batch in file.iter_batches(size, columns=wanted, use_threads=False):
                fields = [batch.column(name).to_pylist() for name in columns]
                texts = [JOIN.join([f or "" for f in row]) for row in zip(*fields, strict=True)]
                labels = None
                notes: tuple[str, ...] = ()
                if target is not None:
                    found = batch.column(label).to_pylist()
                    if any(isinstance(v, list) for v in found):
                        notes = (_LISTS,)
                    labels = [as_label(v) for v in found]
                if row == 1:
                    first = {name: name for name in strings if name not in wanted}
                    for name, values in zip(columns, fields, strict=True):
                        _refuse_numbers([v or "" for v in values], name, first, str(path))
                if texts:
                    yield Piece(texts, labels, row, notes)
                row += len(texts)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            what = " ".join(str(error).split())
            raise UserError(f"{path} cannot be read: {what}") from None


def _is_text(pa: Any, kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
