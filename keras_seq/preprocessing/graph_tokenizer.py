"""The tokenisers in TensorFlow's own operators: strings in, ids out, inside a SavedModel.

The same rules as `device_tokenizer.py`, on code points and whole batches at once. Nothing here
needs tensorflow-text, so that any TensorFlow server runs it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_seq.errors import UserError
from keras_seq.preprocessing.device_tokenizer import (
    BLANK_RANGES,
    CLEANING,
    PADDING,
    SPECIAL,
    UNKNOWN,
    WORD_RANGES,
    lower,
    parse_ranges,
)
from keras_seq.preprocessing.graph_chunks import (
    BLANK,
    SIGN,
    WORD,
    plain_words,
    text_chunks,
    words,
)
from keras_seq.preprocessing.graph_pieces import BytePairs, Unigrams, WordPieces, lookup_table

_CODE_POINTS = 0x110000
_PAGE = 256
_SPLITS = {"words": words, "word_pieces": plain_words}


class GraphTokenizer(tf.Module):
    """Strings to ids inside a TensorFlow graph; the same ids as `Tokenizer.encode`.

    Call it in a `tf.function`, in `Dataset.map`, or eagerly. Its lookup tables are tracked: a
    `tf.Module`, Keras layer or export archive that holds it saves them too.

    Args:
        config: A tokeniser's configuration.
        max_tokens: Longer texts are cut to this many ids; None cuts none.
        keep: Of a longer text: its "head", or its "ends", the first quarter and the last three
            quarters of `max_tokens`.

    Call arguments:
        texts: Strings `(B,)`, UTF-8. Bytes that are no UTF-8 count as U+FFFD.

    Returns:
        Ids `(B, T)` int32 padded on the right with 0, T the longest of the batch, at least 1. A
        text without tokens is the unknown token alone.

    Raises:
        UserError: `max_tokens` is below 1 or `keep` is not known.

    Example:
        >>> from keras_seq.preprocessing import train_tokenizer
        >>> tokenizer = train_tokenizer("characters", ["abc"])
        >>> tokenizer.graph()(["cab", ""]).numpy()
        array([[7, 5, 6],
               [1, 0, 0]], dtype=int32)
    """

    def __init__(
        self, config: dict[str, Any], *, max_tokens: int | None = None, keep: str = "head"
    ) -> None:
        super().__init__(name="tokenizer")
        if max_tokens is not None and max_tokens < 1:
            raise UserError(f"max_tokens is {max_tokens}: give at least 1, or None to cut nothing")
        if keep not in ("head", "ends"):
            raise UserError(f"keep is {keep!r}: take 'head' or 'ends'")
        self.kind = str(config["kind"])
        self.max_tokens = max_tokens
        self.first = (max_tokens or 0) if keep == "head" else (max_tokens or 0) // 4
        self.lowercase = bool(config["lowercase"])
        self._cleaning = CLEANING[config["clean"]]
        real = config["vocabulary"][len(SPECIAL) :]
        self._table: Any = None
        self._pieces: Any = None
        if self.kind == "words":
            self._table = lookup_table(real, len(SPECIAL), UNKNOWN)
        elif self.kind == "characters":
            self._table = lookup_table(list(map(ord, real)), len(SPECIAL), UNKNOWN)
        elif self.kind == "word_pieces":
            self._pieces = WordPieces(config["vocabulary"])
        elif self.kind == "byte_pairs":
            self._pieces = BytePairs(config["vocabulary"], config["merges"])
        elif self.kind == "unigrams":
            self._pieces = Unigrams(config["vocabulary"], config["scores"])

    def __call__(self, texts: Any) -> Any:
        """Encode a batch of strings."""
        texts = tf.convert_to_tensor(texts, tf.string)
        ids, rows = self._encode(self._clean(texts))
        return self._dense(ids, rows, tf.size(texts, tf.int64))

    def _clean(self, texts: Any) -> Any:
        # What is no UTF-8 is made so first: regular expressions would stumble over it.
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        for pattern, replacement in self._cleaning:
            texts = tf.strings.regex_replace(texts, pattern, replacement.replace("\\", "\\\\"))
        return texts

    def _encode(self, texts: Any) -> tuple[Any, Any]:
        """Flat ids (N,) and the row that each belongs to (N,), both int64."""
        if self.kind == "bytes":
            if self.lowercase:
                points, rows = self._code_points(texts)
                ragged = tf.RaggedTensor.from_value_rowids(points, rows, tf.size(texts, tf.int64))
                texts = tf.strings.unicode_encode(ragged, "UTF-8")
            flat = tf.io.decode_raw(tf.strings.reduce_join(texts), tf.uint8)
            lengths = tf.strings.length(texts)
            return tf.cast(flat, tf.int64) + len(SPECIAL), _row_ids(lengths)
        points, rows = self._code_points(texts)
        if self.kind == "characters":
            return self._table.lookup(tf.cast(points, tf.int64)), rows
        kinds = _lookup(_CLASS_PAGES, points)
        chunks, rows = _SPLITS.get(self.kind, text_chunks)(points, rows, kinds)
        if self.kind == "words":
            return self._table.lookup(chunks), rows
        # A common word is cut once a batch.
        unique, where = tf.unique(chunks, tf.int64)
        cut = tf.gather(self._pieces(unique), where)
        return cut.values, tf.repeat(rows, cut.row_lengths())

    def _code_points(self, texts: Any) -> tuple[Any, Any]:
        """Flat code points (N,) int32, in lower case if so wished, and their rows (N,) int64."""
        ragged = tf.strings.unicode_decode(texts, "UTF-8", errors="replace")
        points = ragged.values
        if self.lowercase:
            points += _lookup(_LOWER_PAGES, points)
        return points, ragged.value_rowids()

    def _dense(self, ids: Any, rows: Any, count: Any) -> Any:
        """(N,) ids of `count` rows -> (B, T), cut to `max_tokens`."""
        lengths = tf.math.bincount(
            tf.cast(rows, tf.int32), minlength=tf.cast(count, tf.int32), dtype=tf.int64
        )
        if self.max_tokens is not None:
            start = tf.gather(tf.cumsum(lengths, exclusive=True), rows)
            place = tf.range(tf.size(ids, tf.int64)) - start
            tail = tf.gather(lengths, rows) - (self.max_tokens - self.first)
            kept = (place < self.first) | (place >= tail)
            ids, rows = tf.boolean_mask(ids, kept), tf.boolean_mask(rows, kept)
        ragged = tf.RaggedTensor.from_value_rowids(tf.cast(ids, tf.int32), rows, count)
        dense = ragged.to_tensor(PADDING)
        dense = tf.pad(dense, [[0, 0], [0, tf.maximum(1 - tf.shape(dense)[1], 0)]])
        first = tf.where(lengths == 0, UNKNOWN, dense[:, 0])
        return tf.concat([first[:, None], dense[:, 1:]], axis=1)


def _row_ids(lengths: Any) -> Any:
    """[2, 0, 1] -> [0, 0, 2]."""
    return tf.repeat(tf.range(tf.size(lengths, tf.int64)), lengths)


def _pages(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A table over all code points, kept small: equal pages of it are held once."""
    pages, index = np.unique(values.reshape(-1, _PAGE), axis=0, return_inverse=True)
    return index.astype(np.int32).reshape(-1), pages.reshape(-1)


def _lookup(table: tuple[np.ndarray, np.ndarray], points: Any) -> Any:
    index, pages = table
    return tf.gather(pages, tf.gather(index, points // _PAGE) * _PAGE + points % _PAGE)


def _classes() -> np.ndarray:
    """BLANK, WORD or SIGN of every code point."""
    classes = np.full(_CODE_POINTS, SIGN, np.int32)
    for ranges, name in ((WORD_RANGES, WORD), (BLANK_RANGES, BLANK)):
        for first, last in parse_ranges(ranges):
            classes[first : last + 1] = name
    return classes


def _lower_steps() -> np.ndarray:
    """What to add to a code point for its lower case."""
    steps = np.zeros(_CODE_POINTS, np.int32)
    for point in range(_CODE_POINTS):
        if not 0xD800 <= point < 0xE000 and (low := lower(chr(point))) != chr(point):
            steps[point] = ord(low) - point
    return steps


_CLASS_PAGES = _pages(_classes())
_LOWER_PAGES = _pages(_lower_steps())
