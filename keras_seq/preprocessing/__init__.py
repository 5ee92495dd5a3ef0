"""Preprocessing: from raw text to token ids. Names are loaded when first used."""

from __future__ import annotations

from keras_seq.lazy import lazy_names

_HOMES = {
    "DeviceTokenizer": "device_tokenizer",
    "GivenWords": "device_words",
    "GraphDetokenizer": "graph_detokenizer",
    "GraphTokenizer": "graph_tokenizer",
    "KINDS": "device_tokenizer",
    "SubwordSampler": "subword_sampling",
    "Tokenizer": "tokenizer",
    "read_word_vectors": "word_vectors",
    "tokenizer_table": "tokenizers",
    "train_tokenizer": "tokenizers",
}
__all__, __getattr__, __dir__ = lazy_names(__name__, _HOMES)
