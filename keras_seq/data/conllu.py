"""Read sentences with a tag for each word: CoNLL-U, or two columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from keras_seq.data.text import file_checksum
from keras_seq.data.text_files import check_file, open_text, shorten
from keras_seq.errors import UserError

__all__ = ["TaggedTable", "read_conllu"]

_COLUMNS = {"upos": 3, "xpos": 4, "feats": 5}
_FIELDS = 10  # of a CoNLL-U line


@dataclass(frozen=True, eq=False)
class TaggedTable:
    """Sentences of words and tags, in the order of the file.

    Args:
        words: The words of each of N sentences.
        tags: As many tags as words.
        source: The file.
        checksum: sha256 of the file.
        report: Lines for the user: what was found or left out.
    """

    words: list[list[str]]
    tags: list[list[str]]
    source: str
    checksum: str
    report: tuple[str, ...]


def read_conllu(path: str | Path, *, column: str = "upos") -> TaggedTable:
    r"""Read tagged sentences.

    A CoNLL-U line has ten fields with tabs between them. Lines whose ID holds "-" (several words
    written as one) or "." (a word that is left out) are no words of the sentence and are skipped,
    as the shared tasks do. A file with two columns holds a word and its tag, separated by a tab or
    spaces, as span tags (B-PER, I-PER, O) are given; more columns than two and fewer than ten are
    read as word first, tag last (CoNLL-2003). A blank line ends a sentence in both.

    See Nivre et al. 2020, "Universal Dependencies v2".

    Args:
        path: UTF-8, or packed by gzip (.gz).
        column: "upos", "xpos" or "feats": the tags of a CoNLL-U file.

    Returns:
        The sentences.

    Raises:
        UserError: The file will not do; one line that names file and line.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = path.write_text("Ann\tB-PER\nsleeps\tO\n\nBob\tB-PER\n")
        >>> table = read_conllu(path)
        >>> table.words, table.tags
        ([['Ann', 'sleeps'], ['Bob']], [['B-PER', 'O'], ['B-PER']])
    """
    if column not in _COLUMNS:
        raise UserError(f"the tag column is {column!r}: give one of {', '.join(_COLUMNS)}")
    found = Path(path).expanduser()
    check_file(found)
    words: list[list[str]] = []
    tags: list[list[str]] = []
    skipped = 0
    for sentence in _sentences(found):
        row_words, row_tags = [], []
        for number, fields in sentence:
            if len(fields) != _FIELDS:
                word, tag = fields[0], fields[-1]
            elif "-" in fields[0] or "." in fields[0]:
                skipped += 1
                continue
            elif not fields[0].isdigit():
                raise UserError(
                    f"{path}: line {number}: the ID is {shorten(fields[0])}, not a number"
                )
            else:
                word, tag = fields[1], fields[_COLUMNS[column]]
                if tag == "_" and column != "feats":
                    raise UserError(
                        f"{path}: line {number}: the word {shorten(word)} has no {column} tag; "
                        f"choose another of {', '.join(_COLUMNS)}"
                    )
            if not word or not tag:
                raise UserError(f"{path}: line {number}: the {'tag' if word else 'word'} is blank")
            row_words.append(word)
            row_tags.append(tag)
        if row_words:
            words.append(row_words)
            tags.append(row_tags)
    if not words:
        raise UserError(f"{path} holds no sentences")
    report = (f"{skipped} lines of joined or left-out words skipped",) if skipped else ()
    return TaggedTable(words, tags, str(path), file_checksum(found), report)


def _sentences(path: Path) -> Iterator[list[tuple[int, list[str]]]]:
    """Sentences as (line number, fields); all lines of a file have as many fields."""
    sentence: list[tuple[int, list[str]]] = []
    width, tabbed = 0, False
    with open_text(path) as file:
        for number, raw in enumerate(file, 1):
            line = raw.strip("\r\n")
            if not line.strip():
                if sentence:
                    yield sentence
                sentence = []
                continue
            fields = line.split("\t") if "\t" in line else line.split(" ")
            # "#" starts a comment, but may also be a word with a tag.
            comment = line.startswith("#") and (
                len(fields) != width if width and not tabbed else "\t" not in line
            )
            if comment or line.startswith("-DOCSTART-"):
                continue
            if len(fields) < 2:
                raise UserError(
                    f"{path}: line {number}: {shorten(line)} has one column; wanted a word and "
                    "its tag, or the ten columns of CoNLL-U"
                )
            if width and len(fields) != width:
                raise UserError(
                    f"{path}: line {number} has {len(fields)} columns, the lines before have "
                    f"{width}; mend the line"
                )
            width, tabbed = len(fields), "\t" in line
            sentence.append((number, fields))
    if sentence:
        yield sentence
