"""The tokenisers in TensorFlow give exactly the ids of the Python file."""

from __future__ import annotations

import csv
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_seq.preprocessing import Tokenizer, train_tokenizer
from keras_seq.preprocessing.device_tokenizer import (
    KINDS,
    lower,
    split_chunks,
    split_plain_words,
    split_words,
)
from tests.preprocessing.samples import HARD, TEXTS, trained

STRINGS = [tf.TensorSpec((None,), tf.string)]
FUNCTIONS: dict = {}


def function(tokenizer: Tokenizer, **options):
    """The graph as a `tf.function`, traced once."""
    key = (tokenizer, *sorted(options.items()))
    if key not in FUNCTIONS:
        FUNCTIONS[key] = tf.function(tokenizer.graph(**options), input_signature=STRINGS)
    return FUNCTIONS[key]


def check(tokenizer: Tokenizer, texts: list[str]) -> None:
    """Graph and Python agree on a batch."""
    got = function(tokenizer)(tf.constant(texts, tf.string)).numpy()
    assert got.dtype == np.int32
    expected = tokenizer.encode_batch(texts)
    assert got.shape == (len(texts), max(map(len, expected)))
    for row, ids, text in zip(got, expected, texts, strict=True):
        assert row[: len(ids)].tolist() == ids.tolist(), text
        assert not row[len(ids) :].any()


@pytest.mark.parametrize("options", [{"clean": "web"}, {"lowercase": False}], ids=str)
def test_hard_texts(kind, make, options):
    # TensorFlow takes no half surrogates.
    check(make(kind, **options), [t for t in (*TEXTS[:8], *HARD) if "\ud800" not in t])


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_texts(texts):
    for kind in KINDS:
        check(trained(kind, clean="web"), texts)


@given(text=st.text("aAbeilmtw <>/p&;!'éİΣ東😀\u200d\u2581 ", max_size=80))
@settings(max_examples=60, deadline=None)
def test_texts_of_tricky_letters(text):
    for kind in KINDS:
        check(trained(kind, clean="web"), [text, "film"])


@pytest.mark.slow
def test_every_code_point():
    """Lower case and splitting of all of Unicode, each character between and beside letters."""
    from keras_seq.preprocessing import graph_chunks, graph_tokenizer

    points = [p for p in range(0x110000) if not 0xD800 <= p < 0xE000]
    flat = tf.constant(points, tf.int32)
    low = flat + graph_tokenizer._lookup(graph_tokenizer._LOWER_PAGES, flat)
    assert low.numpy().tolist() == [ord(lower(chr(p))) for p in points]

    text = "".join(f"a{chr(p)}b {chr(p)}" for p in points)
    flat = tf.strings.unicode_decode(text, "UTF-8")
    kinds = graph_tokenizer._lookup(graph_tokenizer._CLASS_PAGES, flat)
    rows = tf.zeros(tf.size(flat), tf.int64)
    for ours, python in (
        (graph_chunks.words, split_words),
        (graph_chunks.plain_words, split_plain_words),
        (graph_chunks.text_chunks, split_chunks),
    ):
        strings, _ = ours(flat, rows, kinds)
        assert [s.decode() for s in strings.numpy()] == python(text)


@pytest.mark.parametrize("keep", ["head", "ends"])
@pytest.mark.parametrize("limit", [1, 4, 5, 8])
def test_long_texts_are_cut(keep, limit):
    tokenizer = trained("characters")
    texts = ["", "film", "films", "a film about waiting"]
    got = function(tokenizer, max_tokens=limit, keep=keep)(tf.constant(texts)).numpy()
    assert got.shape == (4, limit)
    for row, text in zip(got, texts, strict=True):
        ids = tokenizer.encode(text).tolist()
        if len(ids) > limit:
            first = limit if keep == "head" else limit // 4
            ids = ids[:first] + ids[len(ids) - (limit - first) :]
        assert row.tolist() == ids + [0] * (limit - len(ids))


def test_empty_texts_and_batches(kind, make):
    graph = function(make(kind))
    assert graph(tf.constant(["", ""])).numpy().tolist() == [[1], [1]]
    assert graph(tf.constant([], tf.string)).shape == (0, 1)


def test_bytes_that_are_no_utf8(kind, make):
    tokenizer = make(kind)
    raw = [b"good \xff film", b"\xc3", b"\xe6\x9d", b"\xf0\x9f\x98\x80 ok"]
    got = function(tokenizer)(tf.constant(raw)).numpy()
    for row, text in zip(got, raw, strict=True):
        # TensorFlow and Python may count the broken bytes differently; what is whole agrees.
        whole = tokenizer.encode(text.decode("utf-8", "ignore")).tolist()
        assert set(whole) - {1} <= set(row.tolist())


@pytest.mark.slow
def test_in_a_saved_model_of_its_own_process(tmp_path):
    """Saved, and served by a process that has neither our package nor tensorflow-text."""
    module, signatures = tf.Module(), {}
    module.graphs = {}
    for kind in KINDS:
        tokenizer = trained(kind, clean="web")
        assert tokenizer.needs_tensorflow_text is False
        module.graphs[kind] = graph = tokenizer.graph(max_tokens=20, keep="ends")
        signatures[kind] = tf.function(lambda text, graph=graph: {"ids": graph(text)}, STRINGS)
    tf.saved_model.save(module, str(tmp_path / "model"), signatures)
    np.save(tmp_path / "texts.npy", np.array([text.encode() for text in TEXTS[:8]]))
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        "model = tf.saved_model.load('model')\n"
        "texts = tf.constant(np.load('texts.npy'))\n"
        "ids = {k: f(texts)['ids'].numpy() for k, f in model.signatures.items()}\n"
        "np.savez('ids.npz', **ids)\n"
        "wrong = [n for n in sys.modules if n.startswith(('keras_seq', 'tensorflow_text'))]\n"
        "sys.exit(str(wrong) if wrong else 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)
    ids = np.load(tmp_path / "ids.npz")
    for kind in KINDS:
        expected = module.graphs[kind](tf.constant(TEXTS[:8])).numpy()
        assert (ids[kind] == expected).all()


def test_in_an_export_archive_of_keras(tmp_path):
    """The way that an exporter takes it: tracked beside a Keras model."""
    tokenizer = trained("words")
    graph = tokenizer.graph(max_tokens=12)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    features = keras.layers.Embedding(tokenizer.size, 4)(tokens)
    model = keras.Model(tokens, keras.layers.GlobalAveragePooling1D()(features))
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.track(graph)
    archive.add_endpoint("serving_text", lambda text: model(graph(text)), input_signature=STRINGS)
    archive.write_out(tmp_path / "model", verbose=False)
    texts = tf.constant(TEXTS[:8])
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_allclose(
        loaded.serving_text(texts), model(graph(texts)), rtol=1e-6, atol=1e-7
    )


def test_in_a_dataset():
    tokenizer = trained("unigrams")
    dataset = tf.data.Dataset.from_tensor_slices(TEXTS[:8]).batch(4).map(tokenizer.graph())
    rows = [row[row != 0].tolist() for batch in dataset.as_numpy_iterator() for row in batch]
    assert rows == [tokenizer.encode(text).tolist() for text in TEXTS[:8]]


def test_a_million_characters(kind, make):
    check(make(kind), ["one word " * 111_112, "x" * 100_000, "short"])


@pytest.fixture(scope="module")
def reviews(data_path):
    """A thousand training reviews of IMDb, and a thousand test reviews."""
    import pandas as pd

    return [
        pd.read_csv(
            data_path / "sentiment" / f"imdb_{part}.tsv.gz", sep="\t", quoting=csv.QUOTE_NONE
        )["text"].tolist()[::25]
        for part in ("train", "test")
    ]


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("clean", ["html", "none"])
def test_a_thousand_reviews(kind, make, clean, reviews):
    """IMDb, learnt from training reviews and checked on test reviews."""
    make(kind)  # skips where the trainer is missing
    train, test = reviews
    tokenizer = train_tokenizer(
        kind, train, vocabulary=5000, clean=clean, lowercase=clean == "html"
    )
    for start in range(0, 1000, 200):
        check(tokenizer, test[start : start + 200])
