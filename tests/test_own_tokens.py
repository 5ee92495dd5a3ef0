"""Scheduled sampling: what is mixed in, what is trained, and that nothing else changes."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal

import keras_seq
from keras_seq import UserError
from keras_seq.heads import Label, Tokens, Translation, scheduled_sampling, unscheduled
from keras_seq.losses import MaskedCrossentropy

V = 12
SOURCE = np.array([[5, 6, 7, 8], [9, 8, 0, 0]], "int32")
TOKENS = np.array([[2, 5, 6, 7, 8, 9], [2, 11, 10, 0, 0, 0]], "int32")
X = {"source": SOURCE, "tokens": TOKENS}


def built(architecture="seq2seq_transformer", dropout=0.0, **options):
    head = Translation(Tokens(V, 8), Tokens(V, 8), shared="all")
    inputs = {"source": (None,), "tokens": (None,)}
    model = keras_seq.build(
        architecture, inputs=inputs, head=head, width=8, depth=1, dropout=dropout, **options
    )
    rng = np.random.default_rng(3)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return model


def guesses_by_hand(model):
    """The likeliest allowed token at each place but the first, of a model without dropout."""
    logits = model(X, training=False)["logits"].numpy()[:, :-1]
    logits[..., [0, 2, 3, 4]] = -np.inf
    guesses = np.concatenate([TOKENS[:, :1], logits.argmax(-1)], 1)
    return np.where(TOKENS == 0, 0, guesses)


def mixed(trained, training=True, times=1):
    x = {name: np.tile(ids, (times, 1)) for name, ids in X.items()}
    return np.asarray(trained.get_layer("own_tokens")(x, training=training))


def test_all_some_or_none_of_the_tokens_are_guesses():
    model = built()
    wanted = guesses_by_hand(model)
    assert (wanted != TOKENS).sum() >= 5
    assert_array_equal(mixed(scheduled_sampling(model, 1.0)), wanted)
    assert_array_equal(mixed(scheduled_sampling(model, 0.0)), TOKENS)
    trained = scheduled_sampling(model, 0.25, seed=1)
    assert_array_equal(mixed(trained, training=False), TOKENS)
    seen = mixed(trained, times=400).reshape(400, *TOKENS.shape)
    assert ((seen == TOKENS) | (seen == wanted)).all()
    free = (wanted != TOKENS) & (TOKENS != 0)
    free[:, 0] = False
    share = (seen[:, free] == wanted[free]).mean()
    error = np.sqrt(0.25 * 0.75 / (400 * free.sum()))
    assert abs(share - 0.25) < 4 * error


def test_guesses_are_made_without_dropout_and_gradients():
    """With dropout in the model the guesses stay; the gradient is that of the mixture alone."""
    wanted = guesses_by_hand(built())
    model = built(dropout=0.5)
    assert_array_equal(mixed(scheduled_sampling(model, 1.0)), wanted)
    model = built()
    trained = scheduled_sampling(model, 1.0)
    loss = MaskedCrossentropy()
    y = np.where(TOKENS > 0, TOKENS + 1, 0)
    found = []
    for net, x in ((trained, X), (model, {**X, "tokens": wanted})):
        with tf.GradientTape() as tape:
            value = loss(y, net(x, training=True)["logits"])
        found.append(tape.gradient(value, [v.value for v in model.trainable_variables]))
    for ours, plain in zip(*found, strict=True):
        assert_allclose(tf.convert_to_tensor(ours), tf.convert_to_tensor(plain), atol=1e-6)


@pytest.mark.parametrize("architecture", ["seq2seq_attention", "conv_seq2seq"])
def test_every_encoder_decoder_trains_so(architecture):
    """The weights are the model's; its outputs and its names stay what they were."""
    model = built(architecture)
    names = [v.path for v in model.variables]
    trained = scheduled_sampling(model, 0.5, seed=0)
    assert unscheduled(trained) is model and unscheduled(model) is model
    assert [id(v) for v in trained.trainable_variables] == [
        id(v) for v in model.trainable_variables
    ]
    before = model(X, training=False)["logits"]
    assert_array_equal(trained(X, training=False)["logits"], before)
    trained.compile(optimizer=keras.optimizers.Adam(3e-2), loss={"logits": MaskedCrossentropy()})
    y = {"logits": np.where(TOKENS > 0, TOKENS + 1, 0)}
    losses = trained.fit(X, y, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0], losses
    assert [v.path for v in model.variables] == names
    after = model(X, training=False)["logits"]
    assert float(np.abs(after - before).max()) > 1e-3
    assert_array_equal(trained(X, training=False)["logits"], after)
    config = json.dumps(keras.saving.serialize_keras_object(model))
    assert "OwnTokens" not in config


def test_what_cannot_be_trained_so_is_told():
    with pytest.raises(UserError, match=r"share of scheduled sampling is 1.5"):
        scheduled_sampling(built(), 1.5)
    plain = keras_seq.build("gru", inputs=(5, 2), head=Label(classes=2), width=4)
    with pytest.raises(UserError, match="needs an encoder-decoder"):
        scheduled_sampling(plain, 0.5)


def test_a_run_trains_so_and_ships_the_plain_model(tmp_path):
    """By the task's option: watched, translated and shipped as a model that knows nothing of it."""
    letters = [f"{i:b}".replace("0", "a ").replace("1", "b ").strip() for i in range(64, 160)]
    for name, lines in (("source", letters), ("target", [line.upper() for line in letters])):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
    keras_seq.compare(
        "translation",
        source=str(tmp_path / "source.txt"),
        target=str(tmp_path / "target.txt"),
        tokenizer="words",
        embedding=8,
        max_length=8,
        beam=1,
        scheduled_sampling=0.5,
        architectures="seq2seq_attention",
        overrides={"seq2seq_attention": {"width": 8}},
        epochs=1,
        steps_per_epoch=3,
        monitor="bleu",
        # What is shipped is made from the file of the run, which is looked at below.
        export=(),
        track=(),
        quiet=True,
        out=tmp_path / "runs",
    )
    folder = tmp_path / "runs" / "seq2seq_attention" / "0"
    assert "scheduled_sampling = 0.5" in (folder / "config.toml").read_text()
    history = (folder / "history.csv").read_text().splitlines()
    assert "val_loss" in history[0] and len(history) == 2
    shipped = keras_seq.saving.load(folder / "model.keras")
    assert unscheduled(shipped) is shipped
    assert "OwnTokens" not in json.dumps(keras.saving.serialize_keras_object(shipped))


def test_a_share_out_of_range_is_refused():
    with pytest.raises(UserError, match=r"--scheduled-sampling is 1.0"):
        keras_seq.compare("translation", data="builtin:dates", scheduled_sampling=1.0, out="runs")
