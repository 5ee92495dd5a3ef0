"""Text from runs and exports of language models."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq import UserError, saving
from keras_seq.generation import generate_text, model_stepper, open_stepper, step_endpoint
from keras_seq.heads import NextToken, Tokens
from keras_seq.preprocessing import train_tokenizer

TEXT = ["the cat sat on the mat.\n", "a dog sat on a log.\n"]
CONTEXT = 16


def network(tokenizer, architecture="gpt", **options):
    head = NextToken(Tokens(vocabulary=tokenizer.size, width=8))
    model = keras_seq.build(
        architecture, inputs={"tokens": (None,)}, head=head, **{"width": 8, "depth": 1, **options}
    )
    rng = np.random.default_rng(3)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.6, weight.shape))
    return model


def shipped(model):
    """As the task ships it: the network inside a model that passes its scores on."""
    tokens = keras.Input((None,), name="tokens", dtype="int32")
    logits = model({"tokens": tokens})["logits"]
    return keras.Model({"tokens": tokens}, {"logits": keras.layers.Identity(name="logits")(logits)})


def metadata(tokenizer, **more):
    return {
        "task": "language_model",
        "objective": "next",
        "context": CONTEXT,
        "lines": True,
        "tokenizer": tokenizer.config(),
        **more,
    }


@pytest.fixture
def run(tmp_path):
    tokenizer = train_tokenizer("characters", TEXT)
    saving.save(shipped(network(tokenizer)), tmp_path / "model.keras", metadata(tokenizer))
    return tmp_path


def test_text_comes_in_pieces(run):
    pieces = []
    text = generate_text(run, "the c", length=30, seed=1, top_k=8, write=pieces.append)
    assert "".join(pieces) == text
    assert text.startswith("the c") and len(text) == 35 and len(pieces) == 31
    assert generate_text(run, "the c", length=30, seed=1, top_k=8) == text
    assert generate_text(run, "the c", length=30, seed=2, top_k=8) != text
    # the file itself is as good as its folder
    assert generate_text(run / "model.keras", "the c", length=30, seed=1, top_k=8) == text


def test_without_a_prompt(run):
    text = generate_text(run, length=10, method="greedy")
    assert len(text) == 10
    assert ("\n" + text) == generate_text(run, "\n", length=10, method="greedy")


def test_the_network_inside_has_a_memory(run):
    stepper, _ = open_stepper(run)
    assert "attention_block_0_key" in stepper.states and stepper.context == CONTEXT


def test_a_model_without_a_step_writes_too():
    tokenizer = train_tokenizer("characters", TEXT)
    stepper = model_stepper(shipped(network(tokenizer, "attention_rnn", causal=True)), length=9)
    assert stepper.context == 9 and list(stepper.states) == ["text"]


@pytest.mark.parametrize("kind", ["words", "word_pieces", "byte_pairs", "unigrams", "bytes"])
def test_every_tokenizer(kind, tmp_path):
    tokenizer = train_tokenizer(kind, TEXT * 5, vocabulary=300)
    path = tmp_path / "model.keras"
    saving.save(shipped(network(tokenizer, "gru")), path, metadata(tokenizer))
    pieces = []
    text = generate_text(path, "The cat", length=25, seed=0, write=pieces.append)
    assert text.startswith("The cat") and "".join(pieces) == text
    assert "<unk>" not in text and "<pad>" not in text


def test_lines_go_on_and_documents_end(tmp_path):
    """A model that always says </s>: a line break each time, or the end."""
    tokenizer = train_tokenizer("words", TEXT)
    model = network(tokenizer, "gru")
    weights = model.get_layer("embedding").weights
    weights[0].assign(np.zeros(weights[0].shape))  # every score is 0
    path = tmp_path / "model.keras"
    saving.save(shipped(model), path, metadata(tokenizer))
    # of equal scores the first that is allowed: </s>
    assert generate_text(path, "the cat", length=3, method="greedy") == "the cat\n\n\n"
    saving.save(shipped(model), path, metadata(tokenizer, lines=False))
    assert generate_text(path, "the cat", length=3, method="greedy") == "the cat\n"


def test_what_cannot_write(tmp_path, run):
    tokenizer = train_tokenizer("characters", TEXT)
    model = shipped(network(tokenizer))
    with pytest.raises(UserError, match="holds no model"):
        generate_text(tmp_path / "nothing")
    path = tmp_path / "other.keras"
    saving.save(model, path, {"task": "forecasting"})
    with pytest.raises(UserError, match="is no language model \\(its task is forecasting\\)"):
        generate_text(path)
    saving.save(model, path, metadata(tokenizer, objective="masked"))
    with pytest.raises(UserError, match="was trained to fill gaps"):
        generate_text(path)
    written = []
    with pytest.raises(UserError, match="temperature is 0"):
        generate_text(run, "the", temperature=0, write=written.append)
    assert not written


def test_no_endpoint_without_a_step():
    tokenizer = train_tokenizer("characters", TEXT)
    tokens = np.full((3, 8), 5)
    assert step_endpoint(shipped(network(tokenizer, "attention_rnn", causal=True)), tokens) is None
    model = shipped(network(tokenizer))
    assert step_endpoint(model, np.zeros((3, 8))) is None
    endpoint = step_endpoint(model, tokens, length=CONTEXT)
    assert endpoint.inputs["attention_block_0_value"] == ((None, 4, CONTEXT, 2), "float32")
    assert len(endpoint.samples["tokens"]) == len(endpoint.expected["logits"]) == 12
    assert set(endpoint.samples["position"]) == {0, 1, 2, 3}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt", "lstm"])
def test_exports_write_the_same_text(architecture, tmp_path):
    tokenizer = train_tokenizer("characters", TEXT)
    model = shipped(network(tokenizer, architecture))
    tokens = np.stack([tokenizer.encode(text)[:CONTEXT] for text in TEXT])
    folder = tmp_path / "export"
    keras_seq.export(
        model,
        folder,
        formats=("saved_model", "litert"),
        samples={"tokens": tokens},
        metadata=metadata(tokenizer),
        endpoints=(step_endpoint(model, tokens, length=CONTEXT),),
    )
    path = tmp_path / "model.keras"
    saving.save(model, path, metadata(tokenizer))
    wanted = generate_text(path, "the c", length=30, seed=1)
    assert json.loads((folder / "metadata.json").read_text())["task"] == "language_model"
    assert generate_text(folder, "the c", length=30, seed=1) == wanted
    (folder / "1" / "saved_model.pb").unlink()
    assert generate_text(folder, "the c", length=30, seed=1) == wanted
