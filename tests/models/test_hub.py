"""Pretrained backbones: tiny random presets, written and read here, since there is no network."""

from __future__ import annotations

import json
import pickle
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_seq
from keras_seq import saving
from keras_seq.errors import UserError
from keras_seq.explain import reasons
from keras_seq.heads import Label, Tokens
from keras_seq.models import resolve
from keras_seq.preprocessing import Tokenizer, train_tokenizer
from keras_seq.preprocessing.device_tokenizer import SPECIAL
from keras_seq.preprocessing.hub_tokenizer import HubTokenizer
from keras_seq.registry import architectures
from keras_seq.tasks.classification import Classification

keras_hub = pytest.importorskip("keras_hub")

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES += [".", ",", "the", "film", "was", "not", "bad", "good", "##ly", "great", "a"]
SIZES = {"num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16, "max_sequence_length": 40}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """The folder of a BERT with random weights."""
    folder = str(tmp_path_factory.mktemp("bert"))
    keras.utils.set_random_seed(0)
    models = keras_hub.models
    models.BertBackbone(vocabulary_size=len(PIECES), num_layers=2, **SIZES).save_to_preset(folder)
    models.BertTokenizer(vocabulary=PIECES, lowercase=True).save_to_preset(folder)
    return folder


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    """The folder of a GPT-2 with random weights, and a tokenizer of byte pairs."""
    folder = str(tmp_path_factory.mktemp("gpt"))
    keras.utils.set_random_seed(0)
    tokens = ["<|endoftext|>", *(chr(c) for c in range(33, 127)), "Ġ", "th", "the", "Ġf"]
    table = {token: i for i, token in enumerate(tokens)}
    models = keras_hub.models
    models.GPT2Backbone(vocabulary_size=len(tokens), num_layers=1, **SIZES).save_to_preset(folder)
    merges = ["t h", "th e", "Ġ f"]
    models.GPT2Tokenizer(vocabulary=table, merges=merges).save_to_preset(folder)
    return folder


def make(folder: str, tokenizer, *, pooling=None, **options):
    head = Label(2, pooling=pooling, tokens=Tokens(tokenizer.size))
    return keras_seq.build(f"hub:{folder}", inputs={"tokens": (None,)}, head=head, **options)


def numbers(variables) -> int:
    return sum(int(np.prod(v.shape)) for v in variables)


def test_ids_are_those_of_the_preset_plus_five(bert):
    tokenizer = train_tokenizer(f"hub:{bert}", [])
    theirs = keras_hub.models.BertTokenizer.from_preset(bert)
    for text in ("The film was not greatly bad.", "a, b, the film", "good"):
        assert tokenizer.encode(text)[0] in (1, *(np.asarray(theirs(text)) + 5))
        ours = [i - 5 if i >= 5 else PIECES.index("[UNK]") for i in tokenizer.encode(text)]
        assert ours == np.asarray(theirs(text)).tolist()
    # A tokenizer of ours, with all that it can: on a device, and in plain TensorFlow.
    assert isinstance(tokenizer, Tokenizer) and not tokenizer.needs_tensorflow_text
    assert tokenizer.vocabulary == (*SPECIAL, *PIECES)
    assert sorted(tokenizer.device_files()) == ["tokenizer.json", "tokenizer.py"]


def test_the_backbone_gets_what_it_was_trained_with(bert):
    """Start and end around the text, its own ids, and a mask: as KerasHub's preprocessor does."""
    tokenizer = train_tokenizer(f"hub:{bert}", [])
    texts = ["the film was not bad", "great"]
    rows = tokenizer.encode_batch(texts)
    tokens = np.zeros((2, 7), "int32")
    for place, row in zip(tokens, rows, strict=True):
        place[: len(row)] = row
    x = keras.Input((None,), dtype="int32")
    states = keras.Model(x, resolve(f"hub:{bert}", dropout=0.0)(x, mask=keras.ops.not_equal(x, 0)))
    prepare = keras_hub.models.BertTextClassifierPreprocessor.from_preset(bert, sequence_length=9)
    backbone = keras_hub.models.BertBackbone.from_preset(bert)
    wanted = backbone(prepare(texts))["sequence_output"]
    ours = np.asarray(states(tokens))
    assert ours.shape == (2, 7, 8)
    for i, row in enumerate(rows):
        np.testing.assert_allclose(
            ours[i, : len(row)], np.asarray(wanted)[i, 1 : 1 + len(row)], atol=1e-5
        )


def test_tuning_says_what_is_trained(bert):
    tokenizer = train_tokenizer(f"hub:{bert}", [])
    ids = np.array([[12, 13, 14, 16], [12, 17, 0, 0]], "int32")
    counts = {}
    for tuning in ("full", "frozen", "lora"):
        model = make(bert, tokenizer, tuning=tuning, rank=2)
        before = [np.asarray(v).copy() for v in model.get_layer("bert_backbone").variables]
        counts[tuning] = numbers(model.trainable_variables)
        model.compile(
            optimizer=keras.optimizers.SGD(0.5),
            loss={"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        )
        model.train_on_batch({"tokens": ids}, {"logits": np.array([0, 1])})
        after = model.get_layer("bert_backbone").variables
        moved = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
        assert any(moved) == (tuning != "frozen")
    assert counts["frozen"] == 8 * 2 + 2  # the head
    # Ranks 2 beside 2 kernels (8, 2, 4) and their biases, in 2 layers.
    assert counts["frozen"] < counts["lora"] < 0.2 * counts["full"]
    with pytest.raises(UserError, match="tuning"):
        make(bert, tokenizer, tuning="some")


@pytest.mark.parametrize("tuning", ["frozen", "lora"])
def test_a_model_is_saved_and_loaded(bert, tmp_path, tuning):
    tokenizer = train_tokenizer(f"hub:{bert}", [])
    model = make(bert, tokenizer, tuning=tuning)
    for variable in model.trainable_variables:
        variable.assign_add(0.1 * keras.random.normal(variable.shape, seed=1))
    ids = {"tokens": np.array([[12, 13, 14, 16], [12, 17, 0, 0]], "int32")}
    path = saving.save(model, tmp_path / "model.keras")
    again = saving.load(path)
    np.testing.assert_allclose(again(ids)["logits"], model(ids)["logits"], atol=1e-6)


@pytest.mark.parametrize("preset", ["bert", "gpt"])
def test_padding_changes_nothing(preset, request):
    folder = request.getfixturevalue(preset)
    tokenizer = train_tokenizer(f"hub:{folder}", [])
    model = make(folder, tokenizer)
    short = model({"tokens": np.array([[7, 8, 9]])})["logits"]
    long = model({"tokens": np.array([[7, 8, 9, 0, 0, 0]])})["logits"]
    np.testing.assert_allclose(short, long, atol=1e-5)


def test_tags_tell_what_reads_forward_only(bert, gpt):
    assert not resolve(f"hub:{bert}").causal and resolve(f"hub:{gpt}").causal
    assert resolve(f"hub:{bert}").reads_tokens
    assert architectures.origin(f"hub:{bert}") == "keras_seq"
    with pytest.raises(UserError, match="causal"):
        make(gpt, train_tokenizer(f"hub:{gpt}", []), pooling="class_token")


def test_other_tokenizers_keep_kerashubs_code(gpt):
    tokenizer = train_tokenizer(f"hub:{gpt}", [])
    assert isinstance(tokenizer, HubTokenizer) and tokenizer.needs_tensorflow_text
    theirs = keras_hub.models.GPT2Tokenizer.from_preset(gpt)
    texts = ["the film", "don't stop", ""]
    for text, ids in zip(texts[:2], tokenizer.encode_batch(texts), strict=False):
        assert ids.tolist() == (np.asarray(theirs(text)) + 5).tolist()
        assert tokenizer.decode(ids) == text and "".join(tokenizer.tokens(text)) == text
    assert tokenizer.encode("").tolist() == [1]
    graph = tokenizer.graph(4, keep="ends")
    found = tf.function(lambda x: graph(x))(tf.constant(texts)).numpy()
    full = tokenizer.encode("don't stop")
    assert found[1].tolist() == [full[0], *full[-3:]] and found[2].tolist() == [1, 0, 0, 0]
    again = Tokenizer.from_config(json.loads(json.dumps(tokenizer.config())))
    assert again == tokenizer and pickle.loads(pickle.dumps(tokenizer)) == tokenizer
    assert again.encode("the film").tolist() == tokenizer.encode("the film").tolist()
    with pytest.raises(UserError, match="another tokenizer"):
        tokenizer.decode([10_000])


def test_what_ships_computes_the_same(bert, tmp_path):
    tokenizer = train_tokenizer(f"hub:{bert}", [])
    core = make(bert, tokenizer)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    found = keras.layers.Softmax(name="probabilities")(core({"tokens": tokens})["logits"])
    model = keras.Model({"tokens": tokens}, {"probabilities": found}, name="tiny")
    samples = {"tokens": np.array([[12, 13, 14, 16], [12, 17, 0, 0], [19, 1, 13, 0]], "int32")}
    report = keras_seq.export(
        model, tmp_path / "out", formats=("saved_model", "litert"), samples=samples
    )
    assert {f["status"] for f in report["formats"].values()} == {"passed"}


def test_it_can_be_explained(bert):
    tokenizer = train_tokenizer(f"hub:{bert}", [])
    found = reasons(make(bert, tokenizer), tokenizer.encode("the film was not bad"))
    assert found.kind == "gradient x input" and np.abs(found.weights).min() > 0


def test_errors_are_one_line(bert, gpt, monkeypatch):
    with pytest.raises(UserError, match=r"hub:no_such_preset cannot be loaded .* give the folder"):
        train_tokenizer("hub:no_such_preset", [])
    with pytest.raises(UserError, match="give --tokenizer hub:"):
        make(gpt, train_tokenizer(f"hub:{bert}", []))
    task = Classification(data="x.csv", tokenizer=f"hub:{bert}", max_tokens=37)
    assert task.accepts(resolve(f"hub:{bert}")) == ""
    assert "give --tokenizer hub:" in task.accepts(resolve(f"hub:{gpt}"))
    task = Classification(data="x.csv", tokenizer=f"hub:{bert}")
    assert "at most 37 tokens" in task.accepts(resolve(f"hub:{bert}"))
    with pytest.raises(UserError, match="--tokenizer is 'hubble'"):
        Classification(data="x.csv", tokenizer="hubble")
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(UserError, match="pip install keras-hub"):
        resolve("hub:another")
