"""Text files to streams of ids: split, tokenised, counted, without holding a file in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_seq.data import TokenStore, file_checksum, iter_lines, iter_texts
from keras_seq.errors import UserError

if TYPE_CHECKING:
    from keras_seq.preprocessing import Tokenizer

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
BREAKS = ("characters", "bytes")  # tokenisers that read a line break as it is
END, UNKNOWN = 3, 1
_CHUNK = 2000  # lines or documents that are encoded together


def is_table(path: str | Path) -> bool:
    """Tells whether a path holds documents in rows or files, and not lines of one text.

    Args:
        path: A file or a folder.

    Example:
        >>> is_table("reviews.tsv.gz"), is_table("shakespeare.txt")
        (True, False)
    """
    found = Path(path)
    suffix = Path(found.stem).suffix if found.suffix == ".gz" else found.suffix
    return str(path).startswith("builtin:") or found.is_dir() or suffix in TABLES


def read_units(path: str | Path, text_column: tuple[str, ...] = ("text",)) -> Iterator[str]:
    """Reads a file a unit at a time: a line of a text, a document of a table.

    Args:
        path: The file or folder.
        text_column: Columns of the text in a table.

    Yields:
        Texts without the line end.

    Raises:
        UserError: If it is missing or cannot be read.
    """
    if is_table(path):
        for table in iter_texts(
            path, text_columns=text_column, label_column=None, need_labels=False
        ):
            yield from table.texts
    else:
        yield from iter_lines(path)


@dataclass(frozen=True)
class Streams:
    """The three parts of a text as ids.

    Args:
        ids: (N,) int32 by part: ``train``, ``validation``, ``test``.
        characters: By part, line breaks counted.
        words: By part: runs without a blank, and one ``</s>`` for each line or document.
        tokenizer: What made the ids.
        source: The files.
        checksum: sha256 over theirs.
        breaks: Whether a line ends with its line break; else with ``</s>``.
        lines: Whether the text was read line by line.
        same_test: Whether the test part is the validation part.
        notes: What the user should know.
    """

    ids: dict[str, np.ndarray]
    characters: dict[str, int]
    words: dict[str, int]
    tokenizer: Tokenizer
    source: str
    checksum: str
    breaks: bool
    lines: bool
    same_test: bool
    notes: tuple[str, ...]

    @classmethod
    def read(
        cls,
        data: tuple[str, ...],
        *,
        validation: str = "",
        test: str = "",
        validation_fraction: float = 0.1,
        test_fraction: float = 0.0,
        text_column: tuple[str, ...] = ("text",),
        tokenizer: str | Tokenizer = "characters",
        vocabulary: int = 30_000,
        lowercase: bool = False,
        clean: str = "none",
        cache: Path | None = None,
    ) -> Streams:
        """Reads, splits and encodes; the tokeniser is trained on the training part only.

        Args:
            data: Files of the training text, one after the other.
            validation: A file, or "" to cut the part off `data`.
            test: A file, or "" to cut it off (`test_fraction` over 0) or to take the validation
                part.
            validation_fraction: Of the characters of `data`, at its end, before the test part.
            test_fraction: Of the characters of `data`, at its end.
            text_column: Columns of the text in a table.
            tokenizer: A kind to train, or one that is trained.
            vocabulary: The most ids.
            lowercase: Whether letters are made small.
            clean: What is taken out of the text.
            cache: A folder for the ids; None keeps them in memory.

        Returns:
            The streams.

        Raises:
            UserError: If a file is missing or a part is empty.
        """
        from keras_seq.preprocessing import train_tokenizer

        kind = tokenizer if isinstance(tokenizer, str) else tokenizer.kind
        tables = {is_table(path) for path in data}
        if len(tables) > 1:
            raise UserError("--data mixes tables and plain texts: give one kind")
        # Documents end with </s> under every tokeniser: they have line breaks of their own.
        breaks = kind in BREAKS and not tables.pop()
        splitter = _Splitter(data, text_column, characters=breaks)
        fractions = {
            "validation": 0.0 if validation else validation_fraction,
            "test": 0.0 if test else test_fraction,
        }
        spans = splitter.spans(fractions)

        def units(part: str) -> Iterator[str]:
            """Units of a part; with `breaks` their line break is a part of them."""
            given = {"validation": validation, "test": test}.get(part)
            if given:
                end = "\n" if breaks else ""
                return (unit + end for unit in read_units(given, text_column))
            return splitter.units(*spans[part])

        if isinstance(tokenizer, str):
            tokenizer = train_tokenizer(
                tokenizer,
                units("train"),
                vocabulary=vocabulary,
                lowercase=lowercase,
                clean=clean,
            )
        same = not test and not test_fraction
        ids: dict[str, np.ndarray] = {}
        characters: dict[str, int] = {}
        words: dict[str, int] = {}
        for part in ("train", "validation", *(() if same else ("test",))):
            count = _Count()
            rows = _encoded(count.over(units(part), breaks), tokenizer, breaks)
            where = cache / f"{part}.ids" if cache else None
            ids[part] = TokenStore.from_rows(rows, cache=where).ids
            characters[part], words[part] = count.characters, count.words
            if not len(ids[part]):
                raise UserError(f"the {part} part has no text: give more, or another fraction")
        if same:
            ids["test"] = ids["validation"]
            characters["test"], words["test"] = characters["validation"], words["validation"]
        files = [*data, *(path for path in (validation, test) if path)]
        digest = hashlib.sha256("".join(file_checksum(path) for path in files).encode())
        checksum = file_checksum(files[0]) if len(files) == 1 else digest.hexdigest()
        notes = [
            "; ".join(
                f"{part}: {len(ids[part]):,} tokens of {characters[part]:,} characters"
                for part in dict.fromkeys(("train", "validation", *([] if same else ["test"])))
            ),
            *tokenizer.report,
        ]
        if same:
            notes.append("the test part is the validation part: give --test or --test-fraction")
        unknown = float(np.mean(ids["test"] == UNKNOWN))
        if unknown:
            notes.append(
                f"{unknown:.2%} of the test tokens are unknown and counted as one token <unk>: "
                "perplexities of other vocabularies do not compare"
            )
        return cls(
            ids=ids,
            characters=characters,
            words=words,
            tokenizer=tokenizer,
            source=", ".join(Path(path).name for path in files),
            checksum=checksum,
            breaks=breaks,
            lines=not is_table(data[0]),
            same_test=same,
            notes=tuple(notes),
        )


class _Splitter:
    """Cuts a text at shares of its characters: between units, or within one."""

    def __init__(
        self, files: tuple[str, ...], text_column: tuple[str, ...], *, characters: bool
    ) -> None:
        self.files = files
        self.text_column = text_column
        self.characters = characters

    def _all(self) -> Iterator[str]:
        for path in self.files:
            yield from read_units(path, self.text_column)

    def spans(self, fractions: dict[str, float]) -> dict[str, tuple[int, int]]:
        """First and last-plus-one character of each part."""
        if not any(fractions.values()):
            return {"train": (0, 2**62)}
        total = sum(len(unit) + 1 for unit in self._all())
        first_test = int(total * (1 - fractions["test"]))
        first = int(total * (1 - fractions["test"] - fractions["validation"]))
        return {"train": (0, first), "validation": (first, first_test), "test": (first_test, total)}

    def units(self, begin: int, end: int) -> Iterator[str]:
        """The units of a part; a unit belongs to the part in which it begins."""
        at = 0
        for unit in self._all():
            size = len(unit) + 1
            if self.characters:
                if part := (unit + "\n")[max(begin - at, 0) : max(end - at, 0)]:
                    yield part
            elif begin <= at < end:
                yield unit
            at += size
            if at >= end:
                return


class _Count:
    """Counts what goes by."""

    def __init__(self) -> None:
        self.characters = 0
        self.words = 0

    def over(self, units: Iterable[str], breaks: bool) -> Iterator[str]:
        for unit in units:
            self.characters += len(unit) + (not breaks)
            self.words += len(unit.split()) + 1
            yield unit


def _encoded(units: Iterable[str], tokenizer: Tokenizer, breaks: bool) -> Iterator[np.ndarray]:
    """Ids a chunk at a time."""
    source = iter(units)
    while chunk := list(islice(source, _CHUNK)):
        if breaks:
            yield tokenizer.encode("".join(chunk))
            continue
        end = np.array([END], np.int32)
        # An empty text would encode as the unknown token, and here it is a line without words.
        full = iter(tokenizer.encode_batch([unit for unit in chunk if unit.strip()]))
        parts = [part for unit in chunk for part in ((next(full), end) if unit.strip() else (end,))]
        yield np.concatenate(parts)
