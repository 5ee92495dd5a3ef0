"""Explanations: they add up, they point at what decides, and odd texts do not break them."""

from __future__ import annotations

import io
import re

import keras
import numpy as np
import pytest
from rich.console import Console

import keras_seq
from keras_seq import saving
from keras_seq.errors import UserError
from keras_seq.explain import (
    Explanation,
    attention_layers,
    explain,
    explain_text,
    explanation_figures,
    reasons,
)
from keras_seq.figures.text import shares, text_figure
from keras_seq.heads import Label, Tokens
from keras_seq.preprocessing import train_tokenizer
from keras_seq.tasks.text import compare_tokenizers

WORDS = "this film is not bad at all it was great and awful"
ODD = "😀 👩‍👩‍👧 مرحبا بالعالم 東京 <script>alert(1)</script> $x$ \x1b[31m"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("words", [WORDS])


def make(name: str, tokenizer, *, classes: int = 2, length=None, pooling=None, **options):
    keras.utils.set_random_seed(1)
    head = Label(classes, pooling=pooling, tokens=Tokens(tokenizer.size, width=6))
    return keras_seq.build(name, inputs={"tokens": (length,)}, head=head, **options)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_linear_models_weights_and_bias_add_up_to_the_score(tokenizer, classes):
    def average(x, *, mask=None):
        """The mean of the features: with the head, a linear model."""
        return x

    model = make(average, tokenizer, classes=classes, pooling="mean")
    dense = model.get_layer("logits")
    dense.bias.assign(np.arange(classes) / 10)
    ids = tokenizer.encode("this film is not bad")
    logits = np.asarray(model({"tokens": ids[None]})["logits"])[0]
    best = int(logits.argmax())
    found = reasons(model, ids)
    # By hand: each embedded token, over 5, times the difference of the kernel's columns.
    rows = np.asarray(model.get_layer("embedding").embeddings)[ids] / len(ids)
    others = [k for k in range(classes) if k != best]
    column = np.asarray(dense.kernel)[:, best] - np.asarray(dense.kernel)[:, others].mean(axis=1)
    bias = best / 10 - np.mean(others) / 10
    np.testing.assert_allclose(found.weights, rows @ column, rtol=1e-4, atol=1e-7)
    assert found.weights.sum() == pytest.approx(found.score - bias, rel=1e-4)
    assert found.score == pytest.approx(logits[best] - logits[others].mean(), rel=1e-4)


def test_weighed_ngrams_are_shared_out_among_their_tokens(tokenizer):
    model = make("fasttext", tokenizer, ngrams=2, buckets=1000)
    layer = model.get_layer("naive_bayes")
    layer.adapt([(tokenizer.encode("not bad"), 1), (tokenizer.encode("bad"), 0)])
    layer.ratio.assign(np.ones(layer.ratio.shape))
    ids = tokenizer.encode("not bad film")
    grams = np.asarray(layer.ngrams(ids[None]))[0]  # 3 words, 2 pairs, and one behind the end
    weight = np.zeros(layer.weight.shape, "float32")
    weight[grams[:5], 0] = [1, 2, 3, 10, 20]
    layer.weight.assign(weight)
    found = reasons(model, ids, target=1)
    unit = layer.scale / np.sqrt(5)
    np.testing.assert_allclose(found.weights, unit * np.array([1 + 5, 2 + 5 + 10, 3 + 10]))
    assert found.weights.sum() == pytest.approx(found.score)  # the bias is 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gru", {"width": 4}),
        ("text_cnn", {"width": 4}),
        ("bag_of_words", {"width": 4}),
        ("mlp", {"width": 4}),
        ("fasttext", {"nb": False, "width": 4, "buckets": 100}),
    ],
)
def test_what_is_not_in_the_text_does_not_matter(tokenizer, name, options):
    """The weight of a token is the change of the score along its embedding: checked by nudges."""
    fixed = 8 if name == "mlp" else None
    model = make(name, tokenizer, length=fixed, **options)
    ids = tokenizer.encode("film is great")
    found = reasons(model, ids)
    assert found.kind == "gradient x input" and found.weights.shape == (3,)
    table = next(v for v in model.trainable_variables if v.shape[0] >= tokenizer.size)

    def score(rows):
        table.assign(rows)
        given = np.zeros((1, fixed or 3), "int32")
        given[0, :3] = ids
        logits = np.asarray(model({"tokens": given})["logits"])[0]
        return logits[int(best)] - logits[1 - int(best)]

    start = np.asarray(table).copy()
    given = np.zeros((1, fixed or 3), "int32")
    given[0, :3] = ids
    best = np.asarray(model({"tokens": given})["logits"])[0].argmax()
    if name != "fasttext":  # there a token stands in its pairs too
        for place, row in enumerate(ids):
            up, down = start.copy(), start.copy()
            up[row] *= 1.01
            down[row] *= 0.99
            change = (score(up) - score(down)) / 0.02
            table.assign(start)
            assert found.weights[place] == pytest.approx(change, rel=0.05, abs=2e-4)


def test_attention_is_taken_from_the_query_that_is_read(tokenizer):
    ids = tokenizer.encode("this film is not bad")
    for pooling, row in (("mean", None), ("last", -1), ("class_token", 0)):
        model = make("transformer", tokenizer, pooling=pooling, width=8, heads=2, depth=2)
        found = reasons(model, ids)
        front = int(pooling == "class_token")
        assert found.kind == "attention"
        assert list(found.maps) == ["attention_block_0", "attention_block_1"]
        last = found.maps["attention_block_1"]
        assert last.shape == (2, 5 + front, 5 + front)
        np.testing.assert_allclose(last.sum(axis=-1), 1, rtol=1e-5)
        mean = last.mean(axis=0)
        wanted = mean.mean(axis=0) if row is None else mean[row]
        np.testing.assert_allclose(found.weights, wanted[front:], rtol=1e-6)
    assert len(attention_layers(model)) == 2
    assert reasons(model, ids, method="gradient x input").kind == "gradient x input"


def test_padding_of_a_fixed_length_is_left_out(tokenizer):
    ids = tokenizer.encode("film bad")
    model = make("transformer", tokenizer, length=6, pooling="mean", width=8, heads=2, depth=1)
    found = reasons(model, ids)
    assert found.weights.shape == (2,) and found.weights.sum() == pytest.approx(1, rel=1e-5)


def test_a_deployable_model_and_an_ensemble_are_opened(tokenizer):
    one, two = make("gru", tokenizer, width=4), make("lstm", tokenizer, width=4)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    members = [
        keras.Model(m.input, m.output, name=f"member_{m.name}")({"tokens": tokens})["logits"]
        for m in (one, two)
    ]
    total = keras.layers.Add()(members)
    core = keras.Model({"tokens": tokens}, {"logits": total}, name="ensemble")
    shipped = keras.Model(
        {"tokens": tokens},
        {"probabilities": keras.layers.Softmax()(core({"tokens": tokens})["logits"])},
    )
    ids = tokenizer.encode("a film is great")
    target = reasons(shipped, ids).weights
    best = int(np.asarray(core({"tokens": ids[None]})["logits"])[0].argmax())
    apart = [reasons(m, ids, target=best).weights for m in (one, two)]
    np.testing.assert_allclose(target, sum(apart), rtol=1e-4, atol=1e-7)


def test_a_run_is_explained_from_its_file(tokenizer, tmp_path):
    core = make("gru", tokenizer, width=4)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    last = keras.layers.Softmax()(core({"tokens": tokens})["logits"])
    shipped = keras.Model({"tokens": tokens}, {"probabilities": last})
    metadata = {
        "task": "classification",
        "tokenizer": tokenizer.config(),
        "labels": ["bad", "good"],
        "max_tokens": 8,
        "keep": "ends",
        "multi_label": "",
    }
    saving.save(shipped, tmp_path / "model.keras", metadata)
    found = explain_text(tmp_path, "this film " + "was " * 20 + "great")
    assert found.tokens == ("this", "film", "was", "was", "was", "was", "was", "great")
    assert found.probabilities[found.label] == max(found.probabilities.values())
    ids = tokenizer.encode(" ".join(found.tokens))[None]
    given = np.asarray(shipped({"tokens": ids})["probabilities"])[0]
    np.testing.assert_allclose(list(found.probabilities.values()), given, rtol=1e-4)
    page = found.write_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and ">great</span>" in page
    assert len(list(tmp_path.iterdir())) == 2  # nothing is left beside them
    with pytest.raises(UserError, match=r"model\.keras"):
        explain_text(tmp_path / "nothing", "a")
    with pytest.raises(UserError, match="folder that exists"):
        found.write_html(tmp_path / "no" / "page.html")
    saving.save(shipped, tmp_path / "model.keras", {"task": "forecasting"})
    with pytest.raises(UserError, match="labels of texts"):
        explain_text(tmp_path, "a")
    with pytest.raises(UserError, match="nothing to explain"):
        reasons(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), np.array([5]))


@pytest.mark.parametrize("kind", ["words", "characters", "bytes"])
@pytest.mark.parametrize("text", [ODD, "", "\ud800 lone", "a" * 3000])
def test_odd_texts_are_shown_and_escaped(kind, text, tmp_path):
    tokenizer = train_tokenizer(kind, [ODD.encode("utf-8", "ignore").decode()])
    model = make("gru", tokenizer, width=4)
    found = explain(model, tokenizer, text, ["<b>", "&c"], max_tokens=120)
    assert len(found.tokens) == len(found.weights)
    page = found.to_html()
    assert "<script>" not in page and "<b>" not in page and not re.search(r"&c\b(?!;)", page)
    found.write_html(tmp_path / "page.html")
    console = Console(record=True, width=60, force_terminal=True, file=io.StringIO())
    console.print(found)
    assert "\x1b[31m" not in console.export_text()
    found.figure().savefig(tmp_path / "text.png", dpi=40)


def test_the_picture_for_tensorboard(tokenizer, tmp_path):
    model = make("gru", tokenizer, width=4)
    texts = ["this film is not bad", ODD, "great " * 200]
    found = explanation_figures(model, tokenizer, texts, ["bad", "good"], max_tokens=512)
    found["explanations"].savefig(tmp_path / "a.png", dpi=50)
    # What cannot be explained has no picture, and training goes on.
    series = keras_seq.build("gru", inputs={"features": (4, 1)}, head=Label(2), width=4)
    assert explanation_figures(series, tokenizer, texts, ["bad", "good"]) == {}


def test_attention_of_a_short_text_is_drawn(tokenizer, tmp_path):
    model = make("transformer", tokenizer, width=8, heads=2, depth=1)
    found = explain(model, tokenizer, "this film is bad", ["bad", "good"])
    found.map_figure().savefig(tmp_path / "map.png", dpi=50)
    assert "data:image/png;base64," in found.to_html()
    assert explain(model, tokenizer, "bad " * 50, ["bad", "good"]).map_figure() is None


def test_colours_and_words_follow_the_sign():
    found = Explanation(("good", "##ly", "awful"), np.array([2, 0, -1]), "yes", {"yes": 0.75})
    assert found.strongest() == "for yes: good +2; against: awful -1"
    assert "goodly awful" in re.sub("<[^>]+>", "", found.to_html())
    console = Console(record=True, width=60, file=io.StringIO())
    console.print(found)
    assert "yes (75.0 %), by gradient x input" in console.export_text()
    assert shares(np.zeros(3)).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="2 weights came with 1 tokens"):
        text_figure([("a", ["b"], np.zeros(2))], title="")


def test_unknown_methods_are_refused(tokenizer):
    model = make("gru", tokenizer, width=4)
    with pytest.raises(UserError, match="no attention"):
        reasons(model, np.array([5]), method="attention")
    with pytest.raises(UserError, match="give one of"):
        reasons(model, np.array([5]), method="magic")


def test_the_table_of_tokenizers(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text("text\n" + "\n".join(f"a film number {i}" for i in range(20)))
    table = compare_tokenizers(str(path), kinds=("words", "bytes"), vocabulary=20)
    assert table.columns[0].header == "tokenizer"
    assert list(table.columns[0].cells) == ["words", "bytes"]
    assert "trained on 16 texts, tried on 4 others" in str(table.title)
    with pytest.raises(UserError, match="nonsense"):
        compare_tokenizers(str(path), kinds=("nonsense",))
