"""Ids to texts inside a graph, against `Tokenizer.decode`."""

from __future__ import annotations

import random

import numpy as np
import pytest
import tensorflow as tf

from keras_seq import UserError
from keras_seq.preprocessing import KINDS, GraphDetokenizer, train_tokenizer

TEXTS = [
    "Ein Mann schläft auf der Couch.",
    "l'été, 東京 and ## hashes \u2581 in 😀 words",
    "  two  blanks\tand a tab ",
    "naïve cafés #1",
]


@pytest.mark.parametrize("kind", KINDS)
def test_any_ids_give_the_text_that_python_gives(kind):
    """Random ids: pieces of bytes in any order, specials in between, and nothing at all."""
    tokenizer = train_tokenizer(kind, TEXTS * 3, vocabulary=300, lowercase=False)
    ids = np.random.default_rng(0).integers(0, tokenizer.size, (400, 12)).astype("int32")
    for special in range(5):
        ids[special::10, special : special + 2] = special
    ids[:2] = [[0], [3]]
    graph = tf.function(GraphDetokenizer(tokenizer.config()), reduce_retracing=True)
    wanted = [tokenizer.decode(row) for row in ids]
    assert [text.decode() for text in graph(tf.constant(ids)).numpy()] == wanted
    assert len(set(wanted)) > 300 and wanted[:2] == ["", ""]
    assert graph(tf.constant(ids.reshape(20, 20, 12))).numpy()[3, 5].decode() == wanted[65]
    assert graph(tf.zeros((2, 0), tf.int32)).numpy().tolist() == [b"", b""]
    assert graph(tf.zeros((0, 4), tf.int32)).shape == (0,)
    for text in TEXTS:
        row = tokenizer.encode(text)[None]
        assert graph(tf.constant(row)).numpy()[0].decode() == tokenizer.decode(row[0])


def test_bytes_that_are_no_text_become_the_same_signs():
    tokenizer = train_tokenizer("bytes", [])
    draw = random.Random(0)
    pool = [0, 0x41, 0x80, 0xBF, 0xC0, 0xC3, 0xE0, 0xA0, 0xED, 0x9F, 0xEF, 0xBB, 0xF0, 0x90, 0xF4]
    ids = np.array([[draw.choice(pool) + 5 for _ in range(8)] for _ in range(5000)], "int32")
    found = GraphDetokenizer(tokenizer.config())(ids).numpy()
    wanted = [bytes(int(i) - 5 for i in row).decode("utf-8", "replace") for row in ids]
    assert [text.decode() for text in found] == wanted
    assert sum("\ufffd" in text for text in wanted) > 4000


def test_a_kind_without_a_graph_is_refused():
    with pytest.raises(UserError, match="'hub' cannot turn ids into texts"):
        GraphDetokenizer({"kind": "hub", "vocabulary": []})
