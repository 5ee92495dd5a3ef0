"""Read texts with labels from tables and folders, whole or a piece at a time, and check them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from keras_seq.data.text_files import Piece, check_file, open_text, read_pieces, shorten
from keras_seq.errors import UserError

__all__ = ["TextTable", "file_checksum", "iter_lines", "iter_texts", "read_texts"]

_BUILTIN = {"reviews": 6000}


@dataclass(frozen=True, eq=False)
class TextTable:
    """Texts and their labels, in the order of the file.

    Args:
        texts: N texts; several fields of a row are joined by a space and a line feed.
        labels: N labels as they stood in the file, None without labels. Several labels of one
            text stand in one string, with the file's separator between them.
        source: File or folder, or what stands for it.
        checksum: sha256 of the file or files; "" for a piece of a file.
        report: Lines for the user: what was found.
        label_name: The column of the labels, "" without labels.
    """

    texts: list[str]
    labels: list[str] | None
    source: str
    checksum: str
    report: tuple[str, ...]
    label_name: str


def read_texts(
    path: str | Path,
    *,
    text_columns: str | Sequence[str] = ("text",),
    label_column: str | None = "label",
    need_labels: bool = True,
) -> TextTable:
    r"""Read all texts of a file or a folder.

    Args:
        path: .csv or .tsv (with a header; a .tsv has no quotes), .jsonl (each may be .gz),
            .parquet, a folder with LABEL/*.txt, or "builtin:reviews" (synthetic).
        text_columns: Columns that hold the text; several are joined.
        label_column: Column of the labels; None reads none.
        need_labels: False for new data: a file without labels will do, and labels are not
            checked.

    Returns:
        The table. Empty texts are kept and counted in its report.

    Raises:
        UserError: The file or its content will not do; one line that names file, column and row
            (the first row of data is row 1) and says what to do.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "reviews.csv"
        >>> _ = path.write_text("text,label\nA fine film.,1\nA dull film.,0\n")
        >>> table = read_texts(path)
        >>> table.texts, table.labels
        (['A fine film.', 'A dull film.'], ['1', '0'])
    """
    columns, source = _columns(text_columns), str(path)
    if source.startswith("builtin:"):
        return _builtin(source, label_column)
    texts: list[str] = []
    labels: list[str] | None = []
    notes: dict[str, None] = {}
    for piece in read_pieces(Path(path).expanduser(), columns, label_column, need_labels, 10_000):
        texts += piece.texts
        labels = None if labels is None or piece.labels is None else labels + piece.labels
        notes |= dict.fromkeys(piece.notes)
    if not texts:
        raise UserError(f"{source} holds a header but no rows of data")
    found = _table(Piece(texts, labels, 1, tuple(notes)), source, label_column, need_labels)
    if need_labels and found.labels is not None and len(set(found.labels)) == 1:
        raise UserError(
            f"{source}: column {label_column!r} holds one class only ({shorten(found.labels[0])}); "
            "at least two are needed: choose another column, or give all of the data"
        )
    return replace(found, checksum=file_checksum(path))


def iter_texts(
    path: str | Path,
    *,
    text_columns: str | Sequence[str] = ("text",),
    label_column: str | None = "label",
    need_labels: bool = True,
    chunk_rows: int = 10_000,
) -> Iterator[TextTable]:
    r"""Read texts a piece at a time, for files larger than memory.

    Args:
        path: See `read_texts`.
        text_columns: See `read_texts`.
        label_column: See `read_texts`.
        need_labels: See `read_texts`.
        chunk_rows: The most rows of a piece.

    Yields:
        Tables of rows that follow each other; their checksum is "" (see `file_checksum`).

    Raises:
        UserError: As for `read_texts`, when the row is reached. One class alone is no error.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.jsonl"
        >>> _ = path.write_text('{"text": "a"}\n{"text": "b"}\n{"text": "c"}\n')
        >>> [t.texts for t in iter_texts(path, label_column=None, chunk_rows=2)]
        [['a', 'b'], ['c']]
    """
    if chunk_rows < 1:
        raise UserError(f"chunk_rows is {chunk_rows}: give at least 1")
    columns, source = _columns(text_columns), str(path)
    if source.startswith("builtin:"):
        table = _builtin(source, label_column)
        for start in range(0, len(table.texts), chunk_rows):
            part = slice(start, start + chunk_rows)
            labels = None if table.labels is None else table.labels[part]
            yield replace(table, texts=table.texts[part], labels=labels, checksum="")
        return
    empty = True
    for piece in read_pieces(
        Path(path).expanduser(), columns, label_column, need_labels, chunk_rows
    ):
        empty = False
        yield _table(piece, source, label_column, need_labels)
    if empty:
        raise UserError(f"{source} holds a header but no rows of data")


def iter_lines(path: str | Path) -> Iterator[str]:
    r"""Read the lines of a plain text, one at a time, without their line ends.

    Args:
        path: A UTF-8 text, or one packed by gzip (.gz).

    Yields:
        Every line, empty ones too.

    Raises:
        UserError: The file is missing or no UTF-8 text.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = path.write_text("To be,\n\nor not to be")
        >>> list(iter_lines(path))
        ['To be,', '', 'or not to be']
    """
    found = Path(path).expanduser()
    check_file(found)
    with open_text(found) as file:
        for line in file:
            yield line.removesuffix("\n").removesuffix("\r")


def file_checksum(path: str | Path) -> str:
    """Sha256 of a file, or of the names and contents of the texts in a folder.

    Args:
        path: What `read_texts` reads.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = path.write_text("a")
        >>> file_checksum(path)[:8]
        'ca978112'
    """
    if str(path).startswith("builtin:"):
        return _builtin(str(path), None).checksum
    found = Path(path).expanduser()
    if not found.is_dir():
        with open(found, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for name in sorted(p for p in found.rglob("*.txt") if p.is_file()):
        with open(name, "rb") as file:
            inner = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{name.relative_to(found).as_posix()}\0{inner}\n".encode())
    return digest.hexdigest()


# -------------------------------------------------------------------------------------- checks


def _columns(names: str | Sequence[str]) -> tuple[str, ...]:
    columns = (names,) if isinstance(names, str) else tuple(names)
    if not columns or len(set(columns)) < len(columns):
        raise UserError(f"text columns are {', '.join(columns) or 'none'}: name each one once")
    return columns


def _builtin(source: str, label_column: str | None) -> TextTable:
    from keras_seq.data.grammar import make_reviews

    name = source.removeprefix("builtin:")
    if name not in _BUILTIN:
        raise UserError(f"no built-in texts {name!r}: there are {', '.join(_BUILTIN)}")
    table = make_reviews(_BUILTIN[name])
    return table if label_column else replace(table, labels=None, label_name="")


def _table(piece: Piece, source: str, label: str | None, need_labels: bool) -> TextTable:
    """Check the labels of some rows and count empty texts."""
    notes = list(piece.notes)
    labels = piece.labels
    if labels is not None:
        blank = [piece.first + i for i, value in enumerate(labels) if not value]
        if blank and need_labels:
            raise UserError(
                f"{source}: column {label!r} is blank in {_rows(blank)}: fill it in, or leave "
                "the rows out"
            )
        if blank:
            notes.append(f"column {label!r} is blank in {_rows(blank)}: the labels are not used")
            labels = None
    empty = [piece.first + i for i, text in enumerate(piece.texts) if not text.strip()]
    if empty:
        one = len(empty) == 1
        notes.append(f"{len(empty)} empty text{'' if one else 's'} kept: {_rows(empty)}")
    name = "" if labels is None else label or ""
    return TextTable(piece.texts, labels, source, "", tuple(notes), name)


def _rows(numbers: list[int], most: int = 5) -> str:
    shown = ", ".join(str(n) for n in numbers[:most])
    more = f" and {len(numbers) - most:,} more" if len(numbers) > most else ""
    return f"row{'s' if len(numbers) > 1 else ''} {shown}{more}"
