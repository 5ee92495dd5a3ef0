"""Texts into chunks, in TensorFlow: the splitting rules of `device_tokenizer.py` on code points.

Every function takes the flat code points `(N,)` of a batch, the row of each, and its class, and
returns the chunks as strings `(M,)` with the row of each. Rows are sorted.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_seq.preprocessing.device_tokenizer import JOINERS, LONGEST

BLANK, WORD, SIGN = 0, 1, 2
_SPACE = 0x20


def words(points: Any, rows: Any, kinds: Any) -> tuple[Any, Any]:
    """Words, and every other sign by itself: `split_words`.

    Args:
        points: Code points `(N,)` int32.
        rows: The text that each belongs to `(N,)`, sorted.
        kinds: BLANK, WORD or SIGN of each `(N,)`.

    Returns:
        Strings `(M,)` and their rows `(M,)`.

    Example:
        >>> import tensorflow as tf
        >>> points, rows = tf.constant([97, 39, 98, 33]), tf.zeros(4, tf.int64)
        >>> words(points, rows, tf.constant([1, 2, 1, 2]))[0]
        <tf.Tensor: shape=(2,), dtype=string, numpy=array([b"a'b", b'!'], dtype=object)>
    """
    word = kinds == WORD
    joiner = tf.reduce_any(points[:, None] == [ord(c) for c in JOINERS], axis=1)
    word |= joiner & _before(word, rows) & _after(word, rows)
    sign = (kinds == SIGN) & ~word
    start = sign | (word & ~_before(word, rows))
    return _cut(points, rows, start, word | sign)


def plain_words(points: Any, rows: Any, kinds: Any) -> tuple[Any, Any]:
    """Words without joiners, long ones cut, and every other sign by itself: `split_plain_words`.

    Args:
        points: Code points `(N,)` int32.
        rows: The text that each belongs to `(N,)`, sorted.
        kinds: BLANK, WORD or SIGN of each `(N,)`.

    Returns:
        Strings `(M,)` and their rows `(M,)`.

    Example:
        >>> import tensorflow as tf
        >>> plain_words(tf.constant([97, 39]), tf.zeros(2, tf.int64), tf.constant([1, 2]))[0]
        <tf.Tensor: shape=(2,), dtype=string, numpy=array([b'a', b"'"], dtype=object)>
    """
    word, sign = kinds == WORD, kinds == SIGN
    start = word & (place_in_run(word, rows) % LONGEST == 0)
    return _cut(points, rows, sign | start, word | sign)


def text_chunks(points: Any, rows: Any, kinds: Any) -> tuple[Any, Any]:
    """All of a text: a blank and the run of word characters, or of others, behind it.

    The rule of `split_chunks`.

    Args:
        points: Code points `(N,)` int32.
        rows: The text that each belongs to `(N,)`, sorted.
        kinds: BLANK, WORD or SIGN of each `(N,)`.

    Returns:
        Strings `(M,)` and their rows `(M,)`.

    Example:
        >>> import tensorflow as tf
        >>> text_chunks(tf.constant([97, 32, 98]), tf.zeros(3, tf.int64), tf.constant([1, 0, 1]))[0]
        <tf.Tensor: shape=(2,), dtype=string, numpy=array([b'a', b' b'], dtype=object)>
    """
    space = points == _SPACE
    group = tf.where(space, 2, tf.cast(kinds == WORD, tf.int32))
    place = place_in_run(group, rows)
    # The head of a run behind a blank belongs to the chunk that the blank has started.
    start = space | ((place % LONGEST == 0) & ~((place == 0) & _before(space, rows)))
    return _cut(points, rows, start, tf.ones_like(start))


def place_in_run(values: Any, rows: Any) -> Any:
    """How far each element is from the first of its run of equal values in its row.

    Args:
        values: `(N,)`.
        rows: The row of each `(N,)`, sorted.

    Returns:
        0, 1, 2, ... within each run, `(N,)` int32.

    Example:
        >>> import tensorflow as tf
        >>> place_in_run(tf.constant([7, 7, 7, 8]), tf.constant([0, 0, 1, 1])).numpy()
        array([0, 1, 0, 0], dtype=int32)
    """
    changes = (values[1:] != values[:-1]) | (rows[1:] != rows[:-1])
    starts = tf.concat([tf.ones_like(values[:1], tf.bool), changes], 0)
    place = tf.range(tf.size(starts))
    firsts = tf.boolean_mask(place, starts)
    return place - tf.gather(firsts, tf.cumsum(tf.cast(starts, tf.int32)) - 1)


def _before(flags: Any, rows: Any) -> Any:
    """The flag of the neighbour on the left, False where a text begins."""
    return tf.concat([tf.zeros_like(flags[:1]), flags[:-1] & (rows[1:] == rows[:-1])], 0)


def _after(flags: Any, rows: Any) -> Any:
    """The flag of the neighbour on the right, False where a text ends."""
    return tf.concat([flags[1:] & (rows[1:] == rows[:-1]), tf.zeros_like(flags[:1])], 0)


def _cut(points: Any, rows: Any, start: Any, kept: Any) -> tuple[Any, Any]:
    """The kept code points, from each start to the next, as strings."""
    chunk = tf.cumsum(tf.cast(start, tf.int64)) - 1
    ragged = tf.RaggedTensor.from_value_rowids(
        tf.boolean_mask(points, kept),
        tf.boolean_mask(chunk, kept),
        tf.reduce_sum(tf.cast(start, tf.int64)),
        validate=False,
    )
    return tf.strings.unicode_encode(ragged, "UTF-8"), tf.boolean_mask(rows, start)
