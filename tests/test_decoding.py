"""Writing on: steps against the whole model, cached against uncached, draws by hand."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal

import keras_seq
from keras_seq import UserError
from keras_seq.decoding import (
    Choice,
    Stepper,
    generate,
    probabilities,
    step_model,
    stepper,
    stream,
    whole_stepper,
)
from keras_seq.heads import Label, NextToken, Tokens

V, L = 17, 12

MODELS = {
    "gpt": ("gpt", {"width": 12, "depth": 2, "heads": 2}, {}),
    "gpt, gated, not tied": ("gpt", {"width": 8, "depth": 1, "glu": True}, {"tied": False}),
    "transformer": ("transformer", {"width": 8, "heads": 2, "causal": True}, {}),
    "transformer, learned positions": (
        "transformer",
        {"width": 8, "heads": 2, "causal": True, "norm": "post", "positions": "learned"},
        {},
    ),
    "lstm": ("lstm", {"width": 12, "depth": 2}, {}),
    "gru": ("gru", {"width": 8, "depth": 2, "residual": True, "layer_norm": True}, {}),
    "rnn": ("rnn", {"width": 8, "depth": 2}, {"tied": False}),
}


@functools.cache
def built(name, length=None):
    """A model with weights large enough that its distributions are far from uniform."""
    architecture, options, head = MODELS[name]
    head = NextToken(Tokens(vocabulary=V, width=8), **head)
    model = keras_seq.build(architecture, inputs={"tokens": (length,)}, head=head, **options)
    rng = np.random.default_rng(3)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.7, weight.shape))
    return model


@functools.cache
def cached(name, length=L):
    return stepper(built(name), length=length)


@functools.cache
def uncached(name, length=L):
    return whole_stepper(built(name), length=length)


def counting(tokens, states, position):
    """After n comes n + 1."""
    return tf.one_hot(tokens + 1, 9), states


COUNTING = Stepper(counting, {}, None)


@pytest.mark.parametrize("name", MODELS)
def test_steps_equal_the_whole(name):
    model = built(name)
    tokens = np.random.default_rng(0).integers(1, V, (3, L)).astype("int32")
    whole = model({"tokens": tokens})["logits"]
    step = cached(name)
    states = step.start(3)
    for t in range(L):
        logits, states = step.step(tf.constant(tokens[:, t]), states, tf.fill((3,), t))
        assert_allclose(logits, whole[:, t], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", ["greedy", "sample"])
def test_cached_equals_uncached_token_for_token(name, method):
    prompts = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]
    options = {"length": L - 5, "method": method, "end": None, "seed": 4}
    ours = generate(cached(name), prompts, **options)
    assert_array_equal(ours, generate(uncached(name), prompts, **options))
    assert ours.shape == (3, L) and np.all(ours[0, :10] > 0) and not np.any(ours[0, 10:])


def test_the_step_is_a_model_of_its_own_that_shares_the_weights(tmp_path):
    model = built("gpt")
    step = step_model(model, length=L)
    assert {id(w) for w in step.weights} == {id(w) for w in model.weights}
    assert step.input["attention_block_1_key"].shape == (None, 2, L, 6)
    assert set(step.output) == {"logits", *(set(step.input) - {"tokens", "position"})}
    # what it was made from is as it was
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    tokens = np.array([[5, 6]], "int32")
    assert_allclose(
        again({"tokens": tokens})["logits"], model({"tokens": tokens})["logits"], atol=1e-6
    )


def test_context():
    assert cached("lstm").context is None
    assert cached("gpt").context == L
    assert stepper(built("gpt", 6)).context == 6
    assert stepper(built("gpt")).context == 256
    assert stepper(step_model(built("gpt"), length=9)).context == 9


def test_an_architecture_without_a_step_is_refused_and_runs_whole():
    head = NextToken(Tokens(vocabulary=V, width=8))
    model = keras_seq.build(
        "attention_rnn", inputs={"tokens": (None,)}, head=head, width=8, causal=True
    )
    with pytest.raises(UserError, match="'attention_rnn' do not add up to the whole"):
        stepper(model, length=L)
    out = generate(whole_stepper(model, length=L), [[5, 6]], length=4, end=None)
    tokens = [5, 6]
    for _ in range(4):
        logits = np.array(model({"tokens": np.array([tokens])})["logits"])[0, -1]
        logits[0] = -np.inf
        tokens.append(int(np.argmax(logits)))
    assert out.tolist() == [tokens]


def test_models_that_do_not_write():
    label = Label(classes=2, tokens=Tokens(vocabulary=V, width=8))
    both = keras_seq.build("gru", inputs={"tokens": (None,)}, head=label, width=8)
    with pytest.raises(UserError, match="no score of the next token"):
        stepper(both)
    head = NextToken(Tokens(vocabulary=V, width=8))
    both = keras_seq.build(
        "gru", inputs={"tokens": (None,)}, head=head, width=8, bidirectional=True
    )
    with pytest.raises(UserError, match="cannot write on: gru_0_both_ways reads from the end"):
        stepper(both)
    x = keras.Input((4,))
    with pytest.raises(UserError, match="input 'tokens' and the output 'logits'"):
        whole_stepper(keras.Model(x, keras.layers.Dense(2)(x)))
    with pytest.raises(UserError, match="length is 7: give 1 to 6 positions"):
        stepper(built("gpt", 6), length=7)
    with pytest.raises(UserError, match="knows 2048 positions"):
        stepper(built("gpt"), length=4096)


# ------------------------------------------------------------------------------------------ loop


def test_rows_know_nothing_of_each_other():
    """The same row alone, in a batch, and beside longer prompts."""
    for name in ("gpt", "lstm"):
        options = {"length": 6, "method": "sample", "temperature": 1.5, "seed": 1, "end": None}
        alone = generate(cached(name), [[5, 6]], **options)[0]
        many = generate(cached(name), [[5, 6], [7], [8, 9, 10, 11, 12]], **options)
        padded = generate(cached(name), np.array([[5, 6, 0, 0, 0], [7] * 5]), **options)
        assert_array_equal(many[0, :8], alone)
        assert_array_equal(padded[0, :8], alone)


def test_seeds_and_lengths():
    options = {"method": "sample", "temperature": 2.0, "end": None}
    step = cached("gru")
    first = generate(step, [[5]], length=40, seed=0, **options)
    assert_array_equal(generate(step, [[5]], length=40, seed=0, **options), first)
    assert_array_equal(generate(step, [[5]], length=10, seed=0, **options)[0], first[0, :11])
    assert np.any(generate(step, [[5]], length=40, seed=1, **options) != first)
    assert generate(step, [[5, 6]], length=0).tolist() == [[5, 6]]


def test_the_end_ends_a_row():
    assert generate(COUNTING, [[4, 5], [7]], length=3, end=8).tolist() == [
        [4, 5, 6, 7, 8],
        [7, 8, 0, 0, 0],
    ]
    # an end in the prompt is read like any other token
    assert generate(COUNTING, [[6, 7, 4]], length=2, end=7).tolist() == [[6, 7, 4, 5, 6]]


def test_never():
    out = generate(COUNTING, [[4]], length=3, end=None, never=(0, 6))
    assert 6 not in out and 0 not in out[0]
    assert generate(COUNTING, [[4]], length=1, never=()).tolist() == [[4, 5]]


@pytest.mark.parametrize("name", ["gpt", "transformer"])
@pytest.mark.parametrize("method", ["greedy", "sample"])
def test_past_the_context_the_older_half_is_forgotten(name, method):
    """Token n is written from what a plain loop over the whole model would show it."""
    context = 6
    step = stepper(built(name), length=context)
    options = {"length": 14, "method": method, "end": None, "seed": 2}
    prompts = [[5, 6, 7], [9], list(range(5, 14))]
    out = generate(step, prompts, **options)
    again = generate(whole_stepper(built(name), length=context), prompts, **options)
    assert_array_equal(out, again)
    assert_array_equal(generate(step, prompts[:1], **options)[0], out[0, :17])
    if method == "greedy":
        row = list(prompts[2])
        while len(row) < 23:
            start = 0
            while len(row) - start > context:
                start += context // 2
            logits = np.array(built(name)({"tokens": np.array([row[start:]])})["logits"])[0, -1]
            logits[0] = -np.inf
            row.append(int(np.argmax(logits)))
        assert out[2].tolist() == row


@pytest.mark.parametrize("name", ["gpt", "lstm"])
def test_a_stream_gives_the_same_tokens(name):
    for options in (
        {"length": 20, "end": None},
        {"length": 20, "method": "sample", "top_k": 6, "top_p": 0.9, "seed": 5, "end": None},
        {"length": 30, "method": "sample", "end": 9},
    ):
        whole = generate(cached(name), [[5, 6, 7]], **options)[0]
        assert [5, 6, 7, *stream(cached(name), [5, 6, 7], **options)] == whole.tolist()


def test_initial_states():
    """What an encoder hands over: a decoder starts from it and not from zeros."""

    def add(tokens, states, position):
        return tf.one_hot(tokens + tf.cast(states["step"], tf.int32), 20), states

    step = Stepper(add, {"step": ((), "float32")}, None)
    out = generate(step, [[5], [5]], length=3, end=None, states={"step": tf.constant([1.0, 2.0])})
    assert out.tolist() == [[5, 6, 7, 8], [5, 7, 9, 11]]


def test_xla_gives_the_same():
    options = {"length": 8, "end": None}
    plain = generate(cached("gpt"), [[5, 6]], **options)
    assert_array_equal(generate(cached("gpt"), [[5, 6]], compile=True, **options), plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "beam"}, "method is 'beam'"),
        ({"method": "sample", "temperature": 0.0}, "or method greedy"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"length": -1}, "length is -1"),
    ],
)
def test_bad_options(options, message):
    options = {"length": 3, **options}
    with pytest.raises(UserError, match=message):
        generate(COUNTING, [[5]], **options)
    with pytest.raises(UserError, match=message):
        stream(COUNTING, [5], **options)


def test_no_prompt():
    with pytest.raises(UserError, match="prompt 1 is empty"):
        generate(COUNTING, [[5], []], length=1)
    with pytest.raises(UserError, match="there is no prompt"):
        generate(COUNTING, [], length=1)


# ---------------------------------------------------------------------------------------- choice


def test_probabilities_by_hand():
    logits = np.log(np.array([[0.5, 0.1, 0.25, 0.15]], "float32"))

    def of(**options):
        return np.asarray(probabilities(logits, Choice("sample", never=(), **options)))[0]

    assert_allclose(of(), [0.5, 0.1, 0.25, 0.15], atol=1e-6)
    assert_allclose(of(top_k=2), [2 / 3, 0, 1 / 3, 0], atol=1e-6)
    # 0.5 + 0.25 reaches 0.7; the third is not needed
    assert_allclose(of(top_p=0.7), [2 / 3, 0, 1 / 3, 0], atol=1e-6)
    assert_allclose(of(top_p=0.01), [1, 0, 0, 0], atol=1e-6)
    assert_allclose(of(top_k=3, top_p=0.8), [5 / 9, 0, 2.5 / 9, 1.5 / 9], atol=1e-6)
    squared = np.array([0.25, 0.01, 0.0625, 0.0225])
    assert_allclose(of(temperature=0.5), squared / squared.sum(), atol=1e-6)
    never = probabilities(logits, Choice("sample", never=(0,)))[0]
    assert_allclose(never, [0, 0.2, 0.5, 0.3], atol=1e-6)
    assert_allclose(probabilities(logits, Choice("greedy", never=(0,)))[0], [0, 0, 1, 0])


def test_draws_follow_the_probabilities():
    logits = np.random.default_rng(0).normal(size=(1, 8)).astype("float32")
    count = 20_000
    chance = np.random.default_rng(1).random(count).astype("float32")
    for options in ({}, {"top_k": 3}, {"top_p": 0.6}, {"top_k": 5, "top_p": 0.9}):
        choice = Choice("sample", **options)
        picked = choice.pick(np.repeat(logits, count, 0), chance)
        found = np.bincount(picked, minlength=8) / count
        assert_allclose(found, probabilities(logits, choice)[0], atol=0.015)


def test_a_chance_near_one_takes_a_token_that_has_a_share():
    logits = np.array([[0.0, 2.0, 1.0, -200.0, -200.0]], "float32")
    top = np.nextafter(np.float32(1), np.float32(0))
    for options in ({}, {"top_k": 4}, {"top_p": 0.99}):
        assert Choice("sample", never=(), **options).pick(logits, [top])[0] in (0, 1, 2)


@pytest.mark.parametrize(
    ("options", "sampler"),
    [
        ({}, ("RandomSampler", {})),
        ({"temperature": 0.7}, ("RandomSampler", {"temperature": 0.7})),
        ({"top_k": 4}, ("TopKSampler", {"k": 4})),
        ({"top_p": 0.8}, ("TopPSampler", {"p": 0.8})),
        (
            {"top_k": 6, "top_p": 0.7, "temperature": 1.3},
            ("TopPSampler", {"k": 6, "p": 0.7, "temperature": 1.3}),
        ),
    ],
)
def test_our_distribution_is_kerashubs(options, sampler):
    """Their samplers over the same scores, drawn often."""
    samplers = pytest.importorskip("keras_hub").samplers
    name, settings = sampler
    theirs = getattr(samplers, name)(seed=0, **settings)
    logits = np.random.default_rng(0).normal(0, 1.5, size=(1, 12)).astype("float32")
    count = 20_000
    shares = theirs.compute_probabilities(np.repeat(logits, count, 0))
    found = np.bincount(np.asarray(theirs.get_next_token(shares)), minlength=12) / count
    ours = np.asarray(probabilities(logits, Choice("sample", never=(), **options)))[0]
    assert_allclose(found, ours, atol=0.015)
    assert_array_equal(found > 0, ours > 1e-3)


def test_kerashubs_sampler_goes_over_our_step():
    """Greedy in their loop, with our states as the cache, is greedy in ours."""
    samplers = pytest.importorskip("keras_hub").samplers
    step = cached("lstm")

    def next_token(prompt, cache, index):
        token = tf.gather(prompt, index - 1, axis=1)
        logits, cache = step.step(token, cache, tf.fill(tf.shape(token), index - 1))
        return logits, None, cache

    prompt = np.array([[5, 0, 0, 0, 0, 0], [6, 0, 0, 0, 0, 0]], "int32")
    theirs = samplers.GreedySampler()(next_token, tf.constant(prompt), cache=step.start(2), index=1)
    ours = generate(step, prompt[:, :1], length=5, end=None, never=())
    assert_array_equal(theirs, ours)


# ---------------------------------------------------------------------------------------- export


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt", "lstm"])
def test_a_step_exports(name, tmp_path):
    """SavedModel, and LiteRT by builtin operators alone, at several positions."""
    step = step_model(built(name), length=L)
    rng = np.random.default_rng(0)
    samples = {
        key: rng.normal(size=(4, *tensor.shape[1:])).astype("float32")
        for key, tensor in step.input.items()
    }
    samples["tokens"] = np.array([[5], [6], [7], [8]], "int32")
    samples["position"] = np.array([0, 3, L - 1, 1], "int32")
    report = keras_seq.export(
        step, tmp_path / "step", formats=("saved_model", "litert"), samples=samples
    )
    assert {item["status"] for item in report["formats"].values()} == {"passed"}
