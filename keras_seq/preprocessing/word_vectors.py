"""Word vectors from a text file: those of word2vec, GloVe, fastText and gensim."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_seq.errors import UserError


def read_word_vectors(path: str | Path, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    r"""Reads the vectors of some words from a file that may be larger than memory.

    A line is a word and its numbers, with blanks between; a first line of two numbers (how many
    words, how many features) may stand before them. A word that is not there takes the vector of
    its form in small letters.

    Args:
        path: The file, in UTF-8; ``.gz`` is unpacked.
        words: The words that are wanted.

    Returns:
        The vectors (len(words), D) float32, zeros where there is none, and which words have one,
        (len(words),) bool.

    Raises:
        UserError: If there is no such file, it is not UTF-8 or no table of numbers (the line is
            named), or none of the words is in it.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "two.vec")
        ...     _ = path.write_text("2 3\ngood 1 0 0\nbad -1 0 0.5\n")
        ...     vectors, known = read_word_vectors(path, ["bad", "new"])
        >>> vectors.tolist(), known.tolist()
        ([[-1.0, 0.0, 0.5], [0.0, 0.0, 0.0]], [True, False])

    Reference:
        Mikolov et al. 2013, Efficient Estimation of Word Representations in Vector Space.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"{path}: there is no such file of word vectors")
    rows: dict[str, list[int]] = {}
    small: dict[str, list[int]] = {}
    for row, word in enumerate(words):
        rows.setdefault(word, []).append(row)
        if word.lower() != word:
            small.setdefault(word.lower(), []).append(row)
    width = 0
    vectors = np.zeros((0, 0), np.float32)
    exact, known = np.zeros(len(words), bool), np.zeros(len(words), bool)
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as lines:
        for number, raw in enumerate(lines, 1):
            try:
                line = raw.decode("utf-8").rstrip()
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}: line {number} is not UTF-8 (byte {error.start} of it): give the text "
                    "format, not the binary one"
                ) from None
            parts = line.split(" ")
            if not line or (number == 1 and len(parts) == 2):
                continue
            if not width:
                width = len(parts) - 1
                vectors = np.zeros((len(words), max(width, 1)), np.float32)
            if len(parts) <= width or width < 1:
                raise UserError(
                    f"{path}: line {number} has {len(parts) - 1} numbers, and the first one "
                    f"{width}: give a word and as many numbers on each line"
                )
            # A few files have words with blanks inside.
            word = " ".join(parts[: len(parts) - width])
            found = [row for row in rows.get(word, []) if not exact[row]]
            likewise = [row for row in small.get(word, []) if not known[row]]
            if not found and not likewise:
                continue
            try:
                vector = np.array(parts[-width:], np.float32)
            except ValueError:
                vector = np.full(width, np.nan, np.float32)
            if not np.isfinite(vector).all():
                raise UserError(
                    f"{path}: line {number}, the word {word!r}, has something else than {width} "
                    "numbers"
                )
            vectors[found + likewise] = vector
            exact[found] = True
            known[found + likewise] = True
    if not known.any():
        raise UserError(
            f"{path}: none of the {len(words):,} words of the tokenizer is in it; is it of another "
            "language, or not a file of word vectors?"
        )
    return vectors, known
