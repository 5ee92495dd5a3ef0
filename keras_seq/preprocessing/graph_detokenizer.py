"""The way back in TensorFlow's own operators: ids in, strings out, inside a SavedModel.

The same rules as `DeviceTokenizer.decode`. Nothing here needs tensorflow-text.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_seq.errors import UserError
from keras_seq.preprocessing.device_tokenizer import (
    END,
    KINDS,
    MASK,
    PADDING,
    SPECIAL,
    START,
    UNKNOWN,
    byte_letters,
)


class GraphDetokenizer(tf.Module):
    """Ids to strings inside a TensorFlow graph; the same texts as `Tokenizer.decode`.

    Args:
        config: A tokeniser's configuration.

    Call arguments:
        ids: (..., T) whole numbers. Padding, start and end are left out, wherever they stand.

    Returns:
        Strings (...), UTF-8. Of byte pairs and bytes, what is no UTF-8 becomes U+FFFD as in
        Python.

    Raises:
        UserError: If the kind of the tokeniser has no form in plain TensorFlow.

    Example:
        >>> from keras_seq.preprocessing import train_tokenizer
        >>> tokenizer = train_tokenizer("words", ["what a film !"])
        >>> ids = [[*tokenizer.encode("a film!"), 3, 0], [5, 3, 0, 0, 0]]
        >>> GraphDetokenizer(tokenizer.config())(ids).numpy()
        array([b'a film !', b'!'], dtype=object)
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(name="detokenizer")
        self.kind = str(config["kind"])
        if self.kind not in KINDS:
            raise UserError(
                f"the tokenizer {self.kind!r} cannot turn ids into texts in plain TensorFlow: take "
                f"one of {', '.join(KINDS)}"
            )
        self._bytes = self.kind in ("bytes", "byte_pairs")
        self._between = " " if self.kind in ("words", "word_pieces") else ""
        self._texts = np.array(_texts(self.kind, list(config["vocabulary"])), object)

    def __call__(self, ids: Any) -> Any:
        """Decode ids."""
        ids = tf.convert_to_tensor(ids, tf.int32)
        rows = tf.reshape(ids, (-1, tf.shape(ids)[-1]))
        kept = (rows != PADDING) & (rows != START) & (rows != END)
        flat = tf.gather(tf.constant(self._texts, tf.string), tf.boolean_mask(rows, kept))
        pieces = tf.RaggedTensor.from_row_lengths(
            flat, tf.reduce_sum(tf.cast(kept, tf.int64), axis=1), validate=False
        )
        texts = tf.strings.reduce_join(pieces, axis=1, separator=self._between)
        if self.kind == "word_pieces":
            texts = tf.strings.regex_replace(texts, " ##", "")
        if self._bytes:
            texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        return tf.reshape(texts, tf.shape(ids)[:-1])


def _texts(kind: str, vocabulary: list[str]) -> list[bytes]:
    """What each id adds to a text."""
    found = [token.encode("utf-8") for token in vocabulary]
    if kind == "bytes":
        found[len(SPECIAL) :] = [bytes([byte]) for byte in range(256)]
    elif kind == "byte_pairs":
        byte_of = {letter: byte for byte, letter in enumerate(byte_letters())}
        found[len(SPECIAL) :] = [
            bytes(byte_of[letter] for letter in token) for token in vocabulary[len(SPECIAL) :]
        ]
    elif kind == "unigrams":
        found = [text.replace("\u2581".encode(), b" ") for text in found]
    if kind not in ("words", "word_pieces"):
        found[UNKNOWN] = "\ufffd".encode()
    found[MASK] = vocabulary[MASK].encode()
    return found
