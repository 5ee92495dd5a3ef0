"""Sampling from encoder-decoders: frequencies, the greedy limit, batches, log-probabilities."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal

import keras_seq
from keras_seq import UserError
from keras_seq.decoding import SearchModel, greedy_search, sample_search, search_model
from keras_seq.heads import Tokens, Translation
from keras_seq.preprocessing.device_tokenizer import END, START

V, L = 8, 5
SOURCE = np.array([[5, 6, 7, 5], [7, 6, 0, 0], [6, 0, 0, 0]], "int32")


@pytest.fixture(scope="module")
def model():
    """Weights large enough that no distribution is near to uniform."""
    head = Translation(Tokens(V, 8), Tokens(V, 8), shared="all")
    inputs = {"source": (None,), "tokens": (None,)}
    made = keras_seq.build("t5", inputs=inputs, head=head, width=8, depth=1, heads=2)
    rng = np.random.default_rng(3)
    for weight in made.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return made


@pytest.fixture(scope="module")
def one(model):
    return search_model(model, hypotheses=1, length=L)


def chain(table, hypotheses=1, length=4):
    """A search model whose next token depends on the last one alone: log p = log table[last]."""
    logs = tf.constant(np.log(np.maximum(table, 1e-30)), tf.float32)

    def step(tokens, memory, states, position, ancestry=None):
        return tf.gather(logs, tokens), states, None

    return SearchModel(
        encode=lambda source: {"source": source},
        step=step,
        start=lambda memory: {},
        ordered={},
        hypotheses=hypotheses,
        length=length,
        vocabulary=len(table),
        aligned=False,
    )


TABLE = np.zeros((V, V))
TABLE[START, [5, 6, END]] = [0.5, 0.3, 0.2]
TABLE[5, [6, END]] = [0.25, 0.75]
TABLE[6, [5, 7, END]] = [0.2, 0.2, 0.6]
TABLE[7, [7, END]] = [0.5, 0.5]


def test_frequencies_are_the_probabilities():
    """Of every target of up to 3 tokens among 6,000: within 4 standard errors."""
    count = 6000
    found = sample_search(chain(TABLE, hypotheses=4, length=3), [[5], [6]], count=count, seed=1)
    assert found.tokens.shape == (2, count, 3)
    wanted = {}
    for text in itertools.product((5, 6, 7, END), repeat=3):
        text = text[: text.index(END) + 1] if END in text else text
        share = np.prod([TABLE[a, b] for a, b in zip((START, *text), text, strict=False)])
        wanted[(*text, *[0] * (3 - len(text)))] = share
    assert sum(wanted.values()) == pytest.approx(1)
    for row in found.tokens:
        for text, share in wanted.items():
            hits = (row == text).all(1).mean()
            assert abs(hits - share) <= 4 * np.sqrt(share * (1 - share) / count), text
    # Another source draws otherwise, with the same distribution.
    assert (found.tokens[0] != found.tokens[1]).any(1).mean() > 0.3


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({"temperature": 0.5}, np.array([0.25, 0.09, 0.04]) / 0.38),
        ({"top_k": 2}, np.array([0.5, 0.3, 0.0]) / 0.8),
        ({"top_p": 0.4}, np.array([1.0, 0.0, 0.0])),
        ({"never": (0, START, 4, END)}, np.array([0.5, 0.3, 0.0]) / 0.8),
    ],
)
def test_options_change_the_distribution(options, shares):
    count = 4000
    found = sample_search(chain(TABLE, length=1), [[5]], count=count, **options).tokens[0, :, 0]
    for token, share in zip((5, 6, END), shares, strict=True):
        assert abs((found == token).mean() - share) <= 4 * np.sqrt(share * (1 - share) / count)


def test_the_likeliest_alone_is_greedy(one):
    greedy = greedy_search(one, SOURCE)
    found = sample_search(one, SOURCE, top_k=1, count=2, seed=5)
    for n in range(2):
        assert_array_equal(found.tokens[:, n], greedy.tokens[:, 0])
        assert_allclose(found.log_probabilities[:, n], greedy.log_probabilities[:, 0], atol=1e-5)
        assert_allclose(found.alignments[:, n], greedy.alignments[:, 0], atol=1e-5)


def test_neither_batch_nor_padding_nor_count_makes_a_difference(model, one):
    together = sample_search(one, SOURCE, count=5, seed=3)
    assert len({tuple(t) for t in together.tokens.reshape(-1, L)}) > 5
    side = sample_search(search_model(model, hypotheses=3, length=L), SOURCE, count=5, seed=3)
    small = sample_search(one, SOURCE, count=5, seed=3, batch_size=2)
    wide = sample_search(one, np.pad(SOURCE, [[0, 0], [0, 3]]), count=5, seed=3)
    for other in (side, small, wide):
        assert_array_equal(other.tokens, together.tokens)
        assert_allclose(other.log_probabilities, together.log_probabilities, atol=1e-4)
    assert_array_equal(sample_search(one, SOURCE, count=2, seed=3).tokens, together.tokens[:, :2])
    assert_array_equal(
        sample_search(one, SOURCE[:1], count=5, seed=3).tokens[0], together.tokens[0]
    )
    assert (sample_search(one, SOURCE, count=5, seed=4).tokens != together.tokens).any()


def test_log_probabilities_and_alignments_are_the_whole_models(model, one):
    found = sample_search(one, SOURCE, count=4, seed=0, temperature=2.0)
    assert_array_equal(found.scores, found.log_probabilities)
    layer = model.get_layer("alignment_0")
    probe = keras.Model(model.input, [model.output["logits"], layer.output[1]])
    for row, source in enumerate(SOURCE):
        source = source[source > 0]
        for tokens, log, alignment in zip(
            found.tokens[row], found.log_probabilities[row], found.alignments[row], strict=True
        ):
            text = tokens[tokens > 0]
            fed = np.array([[START, *text[:-1]]], "int32")
            logits, weights = probe({"source": source[None], "tokens": fed}, training=False)
            logs = tf.nn.log_softmax(logits).numpy()[0]
            assert log == pytest.approx(logs[np.arange(len(text)), text].sum(), abs=1e-4)
            wanted = weights.numpy().mean(1)[0]
            assert_allclose(alignment[: len(text), : len(source)], wanted, atol=1e-5)
            assert not alignment[len(text) :].any()
            assert END not in text[:-1]
            assert len(text) == L or text[-1] == END


def test_the_loop_is_traced_once():
    calls = []
    plain = chain(TABLE)
    counted = SearchModel(
        **{
            **{name: getattr(plain, name) for name in ("encode", "start", "ordered", "hypotheses")},
            "step": lambda *args: calls.append(1) or plain.step(*args),
            "length": 4,
            "vocabulary": V,
            "aligned": False,
        }
    )
    for seed in range(3):
        sample_search(counted, [[5, 6]], seed=seed)
    assert len(calls) == 1


def test_what_cannot_be_drawn_is_told():
    parts = chain(TABLE)
    for options, message in (
        ({"count": 0}, "0 targets of each source are wanted"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ):
        with pytest.raises(UserError, match=message):
            sample_search(parts, [[5]], **options)
    with pytest.raises(UserError, match="there is no source"):
        sample_search(parts, np.zeros((0, 3)))
