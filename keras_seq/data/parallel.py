"""Read texts with their translations: two files of lines, or two columns of a table."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from keras_seq.data.text import _rows, file_checksum, iter_lines
from keras_seq.data.text_files import SUFFIXES, check_file, read_pieces, shorten
from keras_seq.errors import UserError

__all__ = ["Pairs", "filter_pairs", "find_leaks", "join_pairs", "read_pairs"]

_BUILTIN = {"dates": 10_000}
_CHUNK = 10_000  # rows of a table that are read together


@dataclass(frozen=True, eq=False)
class Pairs:
    """Texts and what each of them becomes, in the order of the file.

    Args:
        source: N texts.
        target: N texts, text i the translation of text i.
        notes: Lines for the user: what was found and what was dropped.
        origin: File or files, or what stands for them.
        checksum: sha256 of the file or files, "" where there is none.

    Raises:
        ValueError: The numbers of texts differ.

    Example:
        >>> pairs = Pairs(["a dog"], ["ein Hund"])
        >>> len(pairs), pairs.notes
        (1, ())
    """

    source: list[str]
    target: list[str]
    notes: tuple[str, ...] = ()
    origin: str = ""
    checksum: str = ""

    def __post_init__(self) -> None:
        if len(self.source) != len(self.target):
            raise ValueError(f"{len(self.source)} sources and {len(self.target)} targets")

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.source)


def read_pairs(
    source: str | Path,
    target: str | Path | None = None,
    *,
    source_column: str = "source",
    target_column: str = "target",
) -> Pairs:
    r"""Read aligned texts.

    Texts stay as they are; only line ends go. A pair with nothing but blanks on a side is dropped
    and counted. A column of a table that holds numbers alone is refused, as it is most often the
    wrong one; lines of two files are not looked at in that way.

    Args:
        source: A UTF-8 text with a sentence a line, plain or .gz; or, without `target`, a table
            with both: .csv or .tsv (with a header; a .tsv has no quotes), .jsonl (each may be
            .gz) or .parquet; or "builtin:dates" (synthetic).
        target: The text with the translation of line n in line n.
        source_column: Column of a table with the sources.
        target_column: Column of a table with the targets.

    Returns:
        The pairs.

    Raises:
        UserError: A file or its content will not do: files of different length, a missing column,
            not UTF-8 (names the byte), no pair.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "train.en").write_text("A dog.\n\nTwo cats.\n")
        >>> _ = (folder / "train.de").write_text("Ein Hund.\n\nZwei Katzen.\n")
        >>> pairs = read_pairs(folder / "train.en", folder / "train.de")
        >>> pairs.source, pairs.target
        (['A dog.', 'Two cats.'], ['Ein Hund.', 'Zwei Katzen.'])
        >>> pairs.notes
        ('1 pair without text on a side dropped: row 2',)
    """
    if str(source).startswith("builtin:"):
        return _builtin(str(source), target)
    found = Path(source).expanduser()
    if target is None:
        return _read_table(found, source_column, target_column)
    return _read_lines(found, Path(target).expanduser())


def _builtin(name: str, target: str | Path | None) -> Pairs:
    from keras_seq.data.dates import make_dates

    if target is not None:
        raise UserError(f"{name} has its targets with it: give no second file ({target})")
    short = name.removeprefix("builtin:")
    if short not in _BUILTIN:
        raise UserError(f"no built-in pairs {short!r}: there are {', '.join(_BUILTIN)}")
    return make_dates(_BUILTIN[short])


def _read_lines(source: Path, target: Path) -> Pairs:
    for path in (source, target):
        if path.name.lower().endswith(SUFFIXES):
            raise UserError(
                f"{path} is a table: give it alone, with the names of its two columns, or give two "
                "texts with a sentence a line"
            )
        check_file(path)
    if source.samefile(target):
        raise UserError(f"{source} is given twice: give the file of the targets as the second")
    left, right = list(iter_lines(source)), list(iter_lines(target))
    if len(left) != len(right):
        longer = max(left, right, key=len)
        blank = not any(line.strip() for line in longer[min(len(left), len(right)) :])
        hint = (
            "the lines over at the end are empty: delete them"
            if blank
            else "line n of one must be the translation of line n of the other"
        )
        raise UserError(f"{source} has {len(left):,} lines and {target} has {len(right):,}; {hint}")
    digest = hashlib.sha256(f"{file_checksum(source)}\n{file_checksum(target)}\n".encode())
    return _whole(left, right, (), f"{source}, {target}", digest.hexdigest())


def _read_table(path: Path, source_column: str, target_column: str) -> Pairs:
    if source_column == target_column:
        raise UserError(f"column {source_column!r} is given twice: as source and as target")
    if path.is_file() and not path.name.lower().endswith(SUFFIXES):
        raise UserError(
            f"{path} has no targets: give the file with its translations too, or one table "
            f"({', '.join(SUFFIXES)})"
        )
    check_file(path, SUFFIXES)
    notes: dict[str, None] = {}
    columns: list[list[str]] = []
    # A pass for each: a column is then checked as any column of texts is.
    for name in (source_column, target_column):
        columns.append([])
        for piece in read_pieces(path, (name,), None, False, _CHUNK):
            columns[-1] += piece.texts
            notes |= dict.fromkeys(piece.notes)
    if not columns[0]:
        raise UserError(f"{path} holds a header but no rows of data")
    return _whole(columns[0], columns[1], tuple(notes), str(path), file_checksum(path))


def _whole(
    source: list[str], target: list[str], notes: tuple[str, ...], origin: str, checksum: str
) -> Pairs:
    """Drop and count the pairs that lack a side."""
    kept = [bool(s.strip() and t.strip()) for s, t in zip(source, target, strict=True)]
    empty = [i for i, there in enumerate(kept, 1) if not there]
    if len(empty) == len(kept):
        raise UserError(f"{origin}: there is no pair with text on both sides")
    if empty:
        many = "pair" if len(empty) == 1 else "pairs"
        notes = (*notes, f"{len(empty):,} {many} without text on a side dropped: {_rows(empty)}")
        source = [text for text, there in zip(source, kept, strict=True) if there]
        target = [text for text, there in zip(target, kept, strict=True) if there]
    return Pairs(source, target, notes, origin, checksum)


# ------------------------------------------------------------------------------------- filters


def filter_pairs(
    pairs: Pairs,
    *,
    max_words: int | None = None,
    max_characters: int | None = None,
    max_ratio: float | None = None,
    drop_identical: bool = False,
    drop_duplicates: bool = False,
) -> Pairs:
    """Drop pairs that would teach little, or the wrong thing; each filter counts what it drops.

    Args:
        pairs: What was read.
        max_words: The most words of a side, cut at blanks; None is no limit.
        max_characters: The most characters of a side, which languages without blanks need; None
            is no limit.
        max_ratio: A side may have at most so many times the characters of the other: where it has
            more, the pair is most often no translation; None is no limit.
        drop_identical: Drop pairs whose target is the source.
        drop_duplicates: Keep the first of equal pairs alone.

    Returns:
        What is left, with a note for each filter that dropped something, in the order above.

    Raises:
        UserError: An option is out of range, or nothing is left.

    Example:
        >>> pairs = Pairs(["a dog", "ok", "a dog"], ["ein Hund", "ok", "ein Hund"])
        >>> left = filter_pairs(pairs, drop_identical=True, drop_duplicates=True)
        >>> left.source
        ['a dog']
        >>> left.notes[0]
        "1 of 3 pairs dropped, the target is the source: 'ok'"

    Reference:
        Koehn et al. 2007, Moses: Open Source Toolkit for Statistical Machine Translation (whose
        ``clean-corpus-n`` drops by length and ratio).
    """
    for name, limit in (
        ("words", max_words),
        ("characters", max_characters),
        ("times the characters of the other side", max_ratio),
    ):
        if limit is not None and not limit >= 1:
            raise UserError(f"the most {name} of a text is {limit}: give at least 1, or none")
    tests: list[tuple[str, Callable[[str, str], bool]]] = []
    if max_words is not None:
        most_words = max_words
        tests.append(
            (
                f"a side has over {max_words:,} words",
                lambda s, t: max(len(s.split()), len(t.split())) > most_words,
            )
        )
    if max_characters is not None:
        most = max_characters
        tests.append(
            (
                f"a side has over {max_characters:,} characters",
                lambda s, t: max(len(s), len(t)) > most,
            )
        )
    if max_ratio is not None:
        ratio = max_ratio
        tests.append(
            (
                f"a side has over {max_ratio:g} times the characters of the other",
                lambda s, t: max(len(s), len(t)) > ratio * min(len(s), len(t)),
            )
        )
    if drop_identical:
        tests.append(("the target is the source", lambda s, t: s.strip() == t.strip()))
    if drop_duplicates:
        seen: set[tuple[str, str]] = set()

        def repeated(source: str, target: str) -> bool:
            before = len(seen)
            seen.add((source.strip(), target.strip()))
            return len(seen) == before

        tests.append(("the same pair stands before", repeated))
    for why, wrong in tests:
        dropped = [wrong(s, t) for s, t in zip(pairs.source, pairs.target, strict=True)]
        pairs = _without(pairs, dropped, why)
    return pairs


def find_leaks(pairs: Pairs, held_out: Mapping[str, Pairs], *, drop: bool = False) -> Pairs:
    """Look for training pairs whose source also stands in a part that scores are measured on.

    Sources are the same if they differ in nothing but case, blanks and the way Unicode composes
    letters. For texts that are nearly the same see `keras_seq.data.near_duplicates`.

    Args:
        pairs: The training part.
        held_out: The other parts by name, such as "validation" and "test".
        drop: Drop them; else they are kept and only counted.

    Returns:
        The training part, with a note for each part that has some.

    Raises:
        UserError: Nothing is left.

    Example:
        >>> train = Pairs(["A dog.", "Two cats."], ["Ein Hund.", "Zwei Katzen."])
        >>> found = find_leaks(train, {"test": Pairs(["a dog."], ["ein Hund."])}, drop=True)
        >>> found.source, found.notes
        (['Two cats.'], ("1 of 2 pairs dropped, the source stands in the test part: 'A dog.'",))
    """
    for name, part in held_out.items():
        theirs = {_key(text) for text in part.source}
        leaked = [_key(text) in theirs for text in pairs.source]
        why = f"the source stands in the {name} part"
        if drop:
            pairs = _without(pairs, leaked, why)
        elif any(leaked):
            said = _said(pairs, leaked, "kept", f"{why} too, whose scores they flatter")
            pairs = replace(pairs, notes=(*pairs.notes, said))
    return pairs


def join_pairs(pairs: Pairs, most: int) -> Pairs:
    """Joins neighbouring pairs into longer ones, to see what length does.

    1, 2, ... `most` pairs in turn become one, with a blank between them, so that each of these
    numbers occurs equally often; what is too few at the end is left out.

    Args:
        pairs: In the order of the file.
        most: The most pairs in one; 1 changes nothing.

    Returns:
        The longer pairs, with a note.

    Raises:
        UserError: If `most` is below 1, or there are fewer pairs.

    Example:
        >>> joined = join_pairs(Pairs(["a", "b", "c", "d"], ["A", "B", "C", "D"]), 2)
        >>> joined.source, joined.target
        (['a', 'b c', 'd'], ['A', 'B C', 'D'])

    Reference:
        Bahdanau, Cho and Bengio 2015, Neural Machine Translation by Jointly Learning to Align and
        Translate (scores by the length of the source).
    """
    if most < 1:
        raise UserError(f"up to {most} pairs are to be joined: give at least 1")
    if most == 1:
        return pairs
    source, target, start, count = [], [], 0, 1
    while start + count <= len(pairs):
        source.append(" ".join(pairs.source[start : start + count]))
        target.append(" ".join(pairs.target[start : start + count]))
        start, count = start + count, count % most + 1
    if most > len(pairs):
        raise UserError(f"up to {most} pairs are to be joined, and there are {len(pairs)}")
    said = f"{len(pairs):,} pairs were joined, up to {most} in one, to {len(source):,}"
    return replace(pairs, source=source, target=target, notes=(*pairs.notes, said))


def _key(text: str) -> str:
    return unicodedata.normalize("NFC", " ".join(text.casefold().split()))


def _without(pairs: Pairs, dropped: list[bool], why: str) -> Pairs:
    if not any(dropped):
        return pairs
    said = _said(pairs, dropped, "dropped", why)
    if all(dropped):
        raise UserError(f"{pairs.origin or 'the pairs'}: {said}; nothing is left: allow more")
    return replace(
        pairs,
        source=[text for text, out in zip(pairs.source, dropped, strict=True) if not out],
        target=[text for text, out in zip(pairs.target, dropped, strict=True) if not out],
        notes=(*pairs.notes, said),
    )


def _said(pairs: Pairs, found: list[bool], what: str, why: str) -> str:
    first = shorten(pairs.source[found.index(True)])
    such = "such as " if sum(found) > 1 else ""
    return f"{sum(found):,} of {len(pairs):,} pairs {what}, {why}: {such}{first}"
