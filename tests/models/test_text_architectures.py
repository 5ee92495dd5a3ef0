"""Architectures for text: numbers by hand, padding, options, and what they can tell apart."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import keras_seq
from keras_seq.errors import UserError
from keras_seq.heads import Label, Tokens
from keras_seq.models import resolve
from keras_seq.models.bag_of_words import bag_of_words
from keras_seq.models.fasttext import fasttext
from keras_seq.models.rcnn import rcnn
from keras_seq.models.text_cnn import text_cnn

V = 30


def classifier(name, classes=2, head=None, **options):
    head = Label(classes=classes, tokens=Tokens(V, width=8), **(head or {}))
    return keras_seq.build(name, inputs={"tokens": (None,)}, head=head, **options)


def logits(model, tokens):
    return np.asarray(model({"tokens": np.asarray(tokens, "int32")}, training=False)["logits"])


def randomise(model):
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign_add(rng.normal(0, 0.2, variable.shape).astype("float32"))


def weights_of(model, name):
    return [np.asarray(w) for w in model.get_layer(name).weights]


TOKENS = np.array([[5, 6, 7, 8, 0, 0], [9, 10, 9, 10, 11, 12], [1, 0, 0, 0, 0, 0]], "int32")


def test_what_they_read():
    for name in ("fasttext", "bag_of_words"):
        assert resolve(name).reads_tokens
        assert "vector" in resolve(name).tags
    for name in ("text_cnn", "rcnn"):
        assert not resolve(name).reads_tokens


def test_fasttext_gives_the_logits_itself():
    model = classifier("fasttext", buckets=50)
    assert not [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert_array_equal(logits(model, TOKENS), np.zeros((3, 2)))  # before training it knows nothing
    randomise(model)
    scores = model.get_layer("naive_bayes")
    scores.adapt([(row, k) for row, k in zip(TOKENS, (0, 1, 0), strict=True)])
    assert_allclose(logits(model, TOKENS), scores(TOKENS), atol=1e-6)


@pytest.mark.parametrize(
    ("classes", "exclusive", "buckets"),
    [(2, True, 2**21), (2, False, 2**19), (5, True, 2**19), (20, True, 2**17)],
)
def test_fasttext_takes_fewer_buckets_for_more_classes(classes, exclusive, buckets):
    model = classifier("fasttext", classes=classes, head={"exclusive": exclusive}, ngrams=2)
    layer = model.get_layer("naive_bayes")
    assert layer.buckets == buckets
    assert layer.weight.shape == (V + buckets, 1 if exclusive and classes == 2 else classes)


def test_fasttext_of_embeddings_by_hand():
    model = classifier("fasttext", classes=3, nb=False, width=4, buckets=50, ngrams=1)
    (table,) = weights_of(model, "embedding_bag")
    kernel, bias = weights_of(model, "scores")
    means = np.stack([table[row[row > 0]].mean(0) for row in TOKENS])
    assert_allclose(logits(model, TOKENS), means @ kernel + bias, atol=1e-6)


def test_fasttext_without_classes_is_a_vector():
    tokens = keras.Input((None,), dtype="int32")
    assert fasttext(tokens, vocabulary=V, width=6, buckets=50).shape == (None, 6)


def test_bag_of_words_by_hand():
    model = classifier("bag_of_words", classes=3, width=4, depth=2, weights="counts")
    randomise(model)
    table, bias = weights_of(model, "words")
    kernel_1, bias_1 = weights_of(model, "dense_1")
    kernel, bias_2 = weights_of(model, "logits")
    counts = np.stack([np.bincount(row[row > 0], minlength=V) for row in TOKENS])
    h = np.maximum(counts / np.sqrt(counts.sum(1, keepdims=True)) @ table + bias, 0)
    h = np.maximum(h @ kernel_1 + bias_1, 0)
    assert_allclose(logits(model, TOKENS), h @ kernel + bias_2, atol=1e-5)


def test_text_cnn_by_hand():
    """Each pattern's largest response, over windows that reach past both ends."""
    x = np.random.default_rng(0).normal(size=(3, 6, 2)).astype("float32")
    mask = np.arange(6) < np.array([[6], [4], [1]])
    inputs = {"x": keras.Input((None, 2), name="x")}
    inputs["mask"] = keras.Input((None,), dtype="bool", name="mask")
    y = text_cnn(inputs["x"], mask=inputs["mask"], width=3, kernel_sizes=(2, 5))
    model = keras.Model(inputs, y)
    randomise(model)
    wanted = np.zeros((3, 6))
    for column, size in ((0, 2), (3, 5)):
        kernel, bias = weights_of(model, f"convolution_{size}")
        before = (size - 1) // 2  # as Keras pads "same": the odd step goes behind
        for row in range(3):
            steps = x[row, mask[row]]
            around = np.pad(steps, [(before, size), (0, 0)])
            windows = np.stack([around[t : t + size] for t in range(len(steps))])
            answers = np.einsum("tkd,kdw->tw", windows, kernel) + bias
            wanted[row, column : column + 3] = np.maximum(answers.max(0), 0)
    dirty = np.where(mask[..., None], x, np.nan).astype("float32")
    assert_allclose(model({"x": dirty, "mask": mask}), wanted, atol=1e-5)


def test_rcnn_by_hand():
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, rcnn(inputs, width=4, cell="gru"))
    randomise(model)
    context = np.asarray(model.get_layer("gru_0_both_ways")(x))
    kernel, bias = weights_of(model, "combine_context")
    (step_kernel,) = weights_of(model, "combine_step")
    assert_allclose(model(x), np.tanh(context @ kernel + bias + x @ step_kernel), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fasttext", {"buckets": 50}),
        ("fasttext", {"buckets": 50, "nb": False}),
        ("bag_of_words", {"ngrams": 2, "buckets": 50}),
        ("text_cnn", {}),
        ("rcnn", {}),
    ],
)
def test_padding_changes_nothing_and_one_token_is_enough(name, options):
    model = classifier(name, **options)
    for layer in model.layers:
        if hasattr(layer, "adapt"):
            layer.adapt(zip(TOKENS, (0, 1, 1), strict=True))
    randomise(model)
    together = logits(model, np.pad(TOKENS, [(0, 0), (0, 7)]))
    for row, wanted in zip(TOKENS, together, strict=True):
        assert_allclose(logits(model, row[None, row > 0])[0], wanted, atol=1e-5)


def test_word_order_decides_for_those_that_see_it():
    """Texts of the same two words in either order: a bag cannot tell them, n-grams can."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, size=128).astype("int32")
    tokens = rng.integers(10, V, size=(128, 8)).astype("int32")
    tokens[:, 3], tokens[:, 4] = 5 + labels, 6 - labels
    accuracy = {}
    for name, options in (
        ("bag_of_words", {}),
        ("fasttext", {"buckets": 5000}),
        ("text_cnn", {"width": 16}),
    ):
        keras.utils.set_random_seed(0)
        model = classifier(name, **options)
        for layer in model.layers:
            if hasattr(layer, "adapt"):
                layer.adapt(zip(tokens[:64], labels[:64].tolist(), strict=True))
        model.compile(
            keras.optimizers.Adam(0.01),
            {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        )
        model.fit({"tokens": tokens[:64]}, {"logits": labels[:64]}, epochs=20, verbose=0)
        accuracy[name] = (logits(model, tokens[64:]).argmax(1) == labels[64:]).mean()
    assert accuracy["bag_of_words"] < 0.75
    assert accuracy["fasttext"] > 0.9
    assert accuracy["text_cnn"] > 0.9


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary", "learned", "none"])
def test_transformers_take_texts_of_2000_tokens(positions):
    model = classifier("transformer", width=8, heads=2, depth=1, positions=positions)
    tokens = np.random.default_rng(0).integers(5, V, size=(1, 2100))
    assert logits(model, tokens).shape == (1, 2)


def test_positions_behind_the_1024th_count():
    """Two tokens swapped far behind: a Transformer with positions tells, and one without cannot."""
    tokens = np.full((2, 1200), 5)
    tokens[0, 1100:1102] = tokens[1, [1101, 1100]] = [6, 7]
    for positions, told in (("sinusoidal", True), ("none", False)):
        model = classifier("transformer", width=8, heads=2, depth=1, positions=positions)
        one, other = logits(model, tokens)
        assert (np.abs(one - other).max() > 1e-6) == told


@pytest.mark.parametrize(
    ("function", "options", "words"),
    [
        (fasttext, {"vocabulary": 10**5}, "allow 71556"),
        (fasttext, {"vocabulary": V, "ngrams": 6}, "orders is 6"),
        (fasttext, {"vocabulary": V, "buckets": 0}, "buckets is 0"),
        (bag_of_words, {"vocabulary": V, "weights": "binary"}, "weights is 'binary'"),
        (bag_of_words, {"vocabulary": V, "depth": 0}, "depth is 0"),
    ],
)
def test_bad_options_say_what_to_do(function, options, words):
    with pytest.raises(UserError, match=words):
        function(keras.Input((None,), dtype="int32"), **options)


@pytest.mark.parametrize(
    ("function", "options", "words"),
    [
        (text_cnn, {"kernel_sizes": ()}, "kernel_sizes is empty"),
        (text_cnn, {"kernel_sizes": (3, 0)}, "kernel_sizes is 0"),
        (rcnn, {"cell": "qrnn"}, "cell is 'qrnn'"),
    ],
)
def test_bad_options_of_those_on_features(function, options, words):
    with pytest.raises(UserError, match=words):
        function(keras.Input((None, 4)), **options)
