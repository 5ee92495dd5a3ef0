"""Searches over encoder-decoders: against all possible targets, the whole model, and each other."""

from __future__ import annotations

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal

import keras_seq
from keras_seq import UserError
from keras_seq.decoding import (
    BeamOptions,
    average,
    beam_search,
    greedy_search,
    search_function,
    search_model,
    strip,
)
from keras_seq.heads import Label, Tokens, Translation
from keras_seq.preprocessing.device_tokenizer import END, PADDING, START

V, L = 9, 6

MODELS = {
    "seq2seq": ("seq2seq", {"width": 8}),
    "seq2seq, two gru layers": ("seq2seq", {"width": 8, "depth": 2, "cell": "gru"}),
    "bahdanau": ("seq2seq_attention", {"width": 8}),
    "luong": (
        "seq2seq_attention",
        {"width": 8, "score": "luong_general", "cell": "lstm", "depth": 2},
    ),
    "coverage": ("seq2seq_attention", {"width": 8, "coverage": True}),
    "conditional": (
        "seq2seq_attention",
        {"width": 8, "order": "conditional", "encoder_width": 6},
    ),
    "transformer": ("seq2seq_transformer", {"width": 8, "depth": 2, "heads": 2}),
    "transformer, all options": (
        "seq2seq_transformer",
        {
            "width": 8,
            "depth": 1,
            "heads": 2,
            "positions": "relative",
            "norm_kind": "rms",
            "glu": True,
            "kv_heads": 1,
        },
    ),
    "convolutional": ("conv_seq2seq", {"width": 8, "depth": 2, "kernel_size": 3}),
    "t5": ("t5", {"width": 8, "depth": 2, "heads": 2, "buckets": 4, "max_distance": 3}),
    "transformer, post, learned": (
        "seq2seq_transformer",
        {"width": 8, "depth": 1, "heads": 2, "norm": "post", "positions": "learned"},
    ),
}
SOURCE = np.array([[5, 6, 7, 8, 5], [7, 8, 0, 0, 0], [6, 0, 0, 0, 0]], "int32")


@functools.cache
def built(name, seed=3):
    """A model with weights large enough that its distributions are far from uniform."""
    architecture, options = MODELS[name]
    head = Translation(Tokens(V, 8), Tokens(V, 8), shared="all")
    model = keras_seq.build(
        architecture, inputs={"source": (None,), "tokens": (None,)}, head=head, **options
    )
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return model


@functools.cache
def searched(name, hypotheses, length=L):
    return search_model(built(name), hypotheses=hypotheses, length=length)


def log_probabilities(model, source, targets):
    """Of whole targets (N, T) of one source (S,), by the model as it is trained."""
    targets = np.asarray(targets)
    fed = np.concatenate([np.full((len(targets), 1), START), targets[:, :-1]], 1)
    sources = np.repeat(np.asarray(source)[None], len(targets), 0)
    logits = model({"source": sources, "tokens": fed.astype("int32")}, training=False)["logits"]
    logs = tf.nn.log_softmax(logits).numpy()
    each = np.take_along_axis(logs, targets[..., None], -1)[..., 0]
    return np.where(targets == PADDING, 0, each).sum(-1)


def all_targets(length, ids):
    """Every target that ends within a length, padded."""
    for count in range(length):
        for text in itertools.product(ids, repeat=count):
            yield [*text, END] + [PADDING] * (length - count - 1)


def greedy_by_hand(model, source, length):
    """The likeliest token each time, the whole model each time."""
    found = []
    for _ in range(length):
        fed = np.array([[START, *found]], "int32")
        logits = model({"source": source[None], "tokens": fed}, training=False)["logits"][0, -1]
        logits = logits.numpy()
        logits[[PADDING, START, 4]] = -np.inf
        found.append(int(logits.argmax()))
        if found[-1] == END:
            break
    return found


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("hypotheses", [1, 3])
def test_steps_with_a_memory_are_the_whole_model(name, hypotheses):
    """Logits of each step to 1e-5, for hypotheses that differ."""
    model, parts = built(name), searched(name, hypotheses)
    rng = np.random.default_rng(0)
    target = rng.integers(5, V, (len(SOURCE), hypotheses, L)).astype("int32")
    target[:, :, 0] = START
    memory = parts.encode(tf.constant(SOURCE))
    states = parts.start(memory)
    own = np.tile(np.arange(hypotheses, dtype="int32")[None, :, None], (len(SOURCE), 1, L))
    for t in range(L):
        place = tf.fill((len(SOURCE),), t)
        logits, states, _ = parts.step(
            tf.constant(target[:, :, t]), memory, states, place, tf.constant(own)
        )
        for k in range(hypotheses):
            fed = target[:, k, : t + 1]
            whole = model({"source": SOURCE, "tokens": fed}, training=False)["logits"][:, -1]
            assert_allclose(logits[:, k], whole, atol=1e-5)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_beam_of_one_is_greedy(name):
    found = greedy_search(searched(name, 1), SOURCE, options=BeamOptions(length_penalty=0.7))
    for source, tokens in zip(SOURCE, found.tokens[:, 0], strict=True):
        source = source[source > 0]
        wanted = greedy_by_hand(built(name), source, L)
        assert tokens.tolist() == wanted + [0] * (L - len(wanted))


@pytest.mark.parametrize("name", ["bahdanau", "transformer", "seq2seq", "convolutional", "t5"])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all_targets(name, penalty):
    length = 3
    allowed = [1, *range(5, V)]
    count = sum(len(allowed) ** n for n in range(length))
    # As wide as there are hypotheses of the last length: nothing is ever thrown away.
    parts = searched(name, len(allowed) ** (length - 1) + 1, length)
    found = beam_search(parts, SOURCE, options=BeamOptions(length_penalty=penalty), best=3)
    for row, source in enumerate(SOURCE):
        targets = np.array(list(all_targets(length, allowed)))
        assert len(targets) == count
        logs = log_probabilities(built(name), source[source > 0], targets)
        lengths = (targets > 0).sum(-1)
        scores = logs / ((5 + lengths) / 6) ** penalty
        order = np.argsort(-scores)[:3]
        assert_allclose(found.scores[row], scores[order], atol=1e-4)
        assert found.tokens[row].tolist() == targets[order].tolist()
        assert_allclose(found.log_probabilities[row], logs[order], atol=1e-4)


@pytest.mark.parametrize("name", list(MODELS))
def test_neither_batch_nor_padding_makes_a_difference(name):
    parts = searched(name, 3)
    together = beam_search(parts, SOURCE, best=3)
    wide = np.pad(np.repeat(SOURCE, 20, 0), [[0, 0], [0, 4]])
    many = beam_search(parts, wide, best=3, batch_size=64)
    assert_array_equal(many.tokens[::20], together.tokens)
    assert_allclose(many.scores[::20], together.scores, atol=1e-5)
    for row, source in enumerate(SOURCE):
        alone = beam_search(parts, source[source > 0][None], best=3, batch_size=1)
        assert_array_equal(alone.tokens[0], together.tokens[row])
        assert_allclose(alone.scores[0], together.scores[row], atol=1e-5)
        if alone.alignments is not None:
            count = (source > 0).sum()
            assert_allclose(alone.alignments[0], together.alignments[row, ..., :count], atol=1e-5)
            assert not together.alignments[row, ..., count:].any()


@pytest.mark.parametrize(
    "name",
    ["bahdanau", "luong", "transformer", "transformer, all options", "convolutional", "t5"],
)
def test_alignments_are_those_of_the_chosen_target(name):
    model = built(name)
    found = beam_search(searched(name, 3), SOURCE, best=3)
    layers = [layer for layer in model.layers if layer.name.startswith("alignment")]
    for row, source in enumerate(SOURCE):
        source = source[source > 0]
        for tokens, alignment in zip(found.tokens[row], found.alignments[row], strict=True):
            fed = np.array([[START, *tokens[tokens > 0][:-1]]], "int32")
            seen = []
            for layer in layers:
                probe = keras.Model(model.input, layer.output)
                weights = probe({"source": source[None], "tokens": fed}, training=False)[1].numpy()
                seen.append(weights.mean(1) if weights.ndim == 4 else weights)
            wanted = np.mean(seen, 0)[0]
            assert_allclose(alignment[: len(wanted), : len(source)], wanted, atol=1e-5)
            assert not alignment[len(wanted) :].any()


def test_options_keep_their_word():
    parts = searched("transformer", 4)
    late = beam_search(parts, SOURCE, options=BeamOptions(min_length=4), best=4)
    assert ((late.tokens > 0).sum(-1) >= 5).all()
    assert not (late.tokens[..., :4] == END).any()
    fresh = beam_search(
        searched("bahdanau", 4), SOURCE, options=BeamOptions(no_repeat=2, min_length=5), best=4
    )
    for tokens in fresh.tokens.reshape(-1, L):
        pairs = list(itertools.pairwise(strip(tokens)))
        assert len(pairs) == len(set(pairs))
    plain = beam_search(searched("bahdanau", 4), SOURCE, options=BeamOptions(min_length=5), best=4)
    doubled = [strip(tokens) for tokens in plain.tokens.reshape(-1, L)]
    assert any(len(set(itertools.pairwise(t))) < len(t) - 1 for t in doubled)
    prefix = np.array([[8, 6], [5, 0], [0, 0]])
    begun = beam_search(parts, SOURCE, prefix=prefix)
    assert begun.tokens[0, 0, :2].tolist() == [8, 6]
    assert begun.tokens[1, 0, 0] == 5
    assert_array_equal(begun.tokens[2], beam_search(parts, SOURCE).tokens[2])
    never = BeamOptions(never=(PADDING, START, 4, 5, 6))
    assert not np.isin(beam_search(parts, SOURCE, options=never, best=4).tokens, [5, 6]).any()


def test_a_coverage_penalty_is_taken_off_the_score():
    parts = searched("bahdanau", 30, 3)
    plain = beam_search(parts, SOURCE, best=30)
    covered = beam_search(parts, SOURCE, options=BeamOptions(coverage_penalty=0.4), best=30)
    for row, source in enumerate(SOURCE):
        wanted = {}
        for n in range(30):
            if END in plain.tokens[row, n]:
                cover = plain.alignments[row, n].sum(0)[: (source > 0).sum()]
                less = 0.4 * np.log(np.minimum(cover, 1)).sum()
                wanted[tuple(plain.tokens[row, n])] = plain.scores[row, n] + less
        found = {
            tuple(t): s
            for t, s in zip(covered.tokens[row], covered.scores[row], strict=True)
            if END in t
        }
        shared = set(wanted) & set(found)
        assert len(shared) >= 5
        for tokens in shared:
            assert found[tokens] == pytest.approx(wanted[tokens], abs=1e-4)
        order = [
            s for t, s in zip(covered.tokens[row], covered.scores[row], strict=True) if END in t
        ]
        assert order == sorted(order, reverse=True)


def test_an_ensemble_averages_probabilities():
    one, other = built("bahdanau"), built("transformer")
    parts = [search_model(m, hypotheses=30, length=3) for m in (one, other)]
    found = beam_search(average(parts), SOURCE, best=1)
    allowed = [1, *range(5, V)]
    targets = np.array(list(all_targets(3, allowed)))
    fed = np.concatenate([np.full((len(targets), 1), START), targets[:, :-1]], 1).astype("int32")
    for row, source in enumerate(SOURCE):
        source = np.repeat(source[source > 0][None], len(targets), 0)
        shares = [
            tf.nn.softmax(m({"source": source, "tokens": fed}, training=False)["logits"]).numpy()
            for m in (one, other)
        ]
        each = np.take_along_axis(np.mean(shares, 0), targets[..., None], -1)[..., 0]
        logs = np.where(targets == PADDING, 0, np.log(each)).sum(-1)
        lengths = (targets > 0).sum(-1)
        best = np.argmax(logs / ((5 + lengths) / 6))
        assert found.tokens[row, 0].tolist() == targets[best].tolist()
    twice = average([searched("bahdanau", 3), searched("bahdanau", 3)])
    assert_array_equal(
        beam_search(twice, SOURCE).tokens, beam_search(searched("bahdanau", 3), SOURCE).tokens
    )


def test_the_search_is_one_function_without_a_loop_in_python():
    calls = []
    parts = searched("transformer", 3)
    counted = type(parts)(
        encode=parts.encode,
        step=lambda *args: calls.append(1) or parts.step(*args),
        start=parts.start,
        ordered=parts.ordered,
        hypotheses=3,
        length=L,
        vocabulary=V,
        aligned=True,
    )
    search = tf.function(search_function(counted, BeamOptions()), autograph=False)
    found = search(tf.constant(SOURCE), tf.zeros((3, 0), tf.int32))
    assert len(calls) == 1
    assert_array_equal(found["tokens"], beam_search(parts, SOURCE).tokens)


@pytest.mark.parametrize("name", ["convolutional", "t5"])
def test_a_model_of_another_process_is_searched(name):
    """There Keras counts its own names from the start: none may meet those in the model."""
    architecture, options = MODELS[name]
    head = Translation(Tokens(V, 8), Tokens(V, 8))
    inputs = {"source": (None,), "tokens": (None,)}
    keras.backend.clear_session()
    model = keras_seq.build(architecture, inputs=inputs, head=head, **options)
    keras.backend.clear_session()
    assert search_model(model, hypotheses=2, length=3).aligned


def test_what_cannot_be_searched_is_told():
    plain = keras_seq.build("gru", inputs=(5, 2), head=Label(classes=2), width=4)
    with pytest.raises(UserError, match="needs an encoder-decoder"):
        search_model(plain)
    with pytest.raises(UserError, match="the beam is 0"):
        search_model(built("seq2seq"), hypotheses=0)
    with pytest.raises(UserError, match="most tokens of a target is 0"):
        search_model(built("seq2seq"), length=0)
    with pytest.raises(UserError, match="5 hypotheses of each source are wanted"):
        beam_search(searched("seq2seq", 4), SOURCE, best=5)
    with pytest.raises(UserError, match="prefix has 6 tokens"):
        beam_search(searched("seq2seq", 4), SOURCE, prefix=np.full((3, 6), 5))
    with pytest.raises(UserError, match="length_penalty is -1"):
        BeamOptions(length_penalty=-1)
    with pytest.raises(UserError, match="follows one hypothesis"):
        greedy_search(searched("seq2seq", 4), SOURCE)
    with pytest.raises(UserError, match="differ in hypotheses"):
        average([searched("seq2seq", 1), searched("seq2seq", 4)])
    with pytest.raises(UserError, match="has no decoder"):
        keras_seq.build(
            "gru",
            inputs={"source": (None,), "tokens": (None,)},
            head=Translation(Tokens(V, 8), Tokens(V, 8)),
        )


def test_a_decoder_that_peeks_at_the_source_is_refused():
    def peeking(source, *, target, mask=None, target_mask=None, width=8):
        mean = keras.ops.mean(source, axis=1, keepdims=True)
        return keras.layers.Dense(width)(target + mean)

    head = Translation(Tokens(V, 8), Tokens(V, 8))
    model = keras_seq.build(peeking, inputs={"source": (None,), "tokens": (None,)}, head=head)
    with pytest.raises(UserError, match="not marked as computed once"):
        search_model(model)


@pytest.mark.parametrize("name", ["bahdanau", "convolutional", "transformer, all options"])
@pytest.mark.parametrize("hypotheses", [1, 3])
def test_a_search_compiled_by_xla_finds_the_same(name, hypotheses):
    compiled = search_model(built(name), hypotheses=hypotheses, length=L, compile=True)
    for prefix in (None, np.array([[7, 5], [8, 0], [0, 0]])):
        wanted = beam_search(searched(name, hypotheses), SOURCE, best=hypotheses, prefix=prefix)
        found = beam_search(compiled, SOURCE, best=hypotheses, prefix=prefix)
        assert_array_equal(found.tokens, wanted.tokens)
        assert_allclose(found.scores, wanted.scores, rtol=1e-5, atol=1e-5)
        if wanted.alignments is not None:
            assert_allclose(found.alignments, wanted.alignments, atol=1e-5)
