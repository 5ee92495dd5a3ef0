"""A KerasHub tokenizer inside a TensorFlow graph."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_seq.preprocessing.device_tokenizer import SPECIAL
from keras_seq.preprocessing.graph_tokenizer import GraphTokenizer


class HubGraph(GraphTokenizer):
    """Strings to ids with the operators that KerasHub's tokenizers use, tensorflow-text's included.

    Args:
        layer: The tokenizer, of `keras_hub.tokenizers`; it cuts texts to no length.
        clean: As for `keras_seq.preprocessing.train_tokenizer`.
        max_tokens: Longer texts are cut to this many ids; None cuts none.
        keep: Of a longer text: its "head", or its "ends".

    Call arguments:
        texts: Strings (B,), UTF-8.

    Returns:
        Ids (B, T) int32, theirs plus 5, padded on the right with 0.
    """

    def __init__(
        self, layer: Any, clean: str, *, max_tokens: int | None = None, keep: str = "head"
    ) -> None:
        rules = {"kind": "hub", "clean": clean, "lowercase": False, "vocabulary": list(SPECIAL)}
        super().__init__(rules, max_tokens=max_tokens, keep=keep)
        self.layer = layer

    def _encode(self, texts: Any) -> tuple[Any, Any]:
        found = self.layer.tokenize(texts)
        rows = tf.cast(found.value_rowids(), tf.int64)
        return tf.cast(found.flat_values, tf.int64) + len(SPECIAL), rows
