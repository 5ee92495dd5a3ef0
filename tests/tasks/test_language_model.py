"""The language-model task: streams, scores by hand, n-grams, training, and what is shipped."""

from __future__ import annotations

import gzip
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_seq
from keras_seq import saving
from keras_seq.baselines import NGram
from keras_seq.data import StreamBatches, StreamRows
from keras_seq.errors import UserError
from keras_seq.evaluation import block_losses, language_model_scores
from keras_seq.heads import Label, MaskedToken, NextToken, Tokens
from keras_seq.layers import SampledLikelihood, forget_states
from keras_seq.models import resolve
from keras_seq.tasks.language_model import LanguageModel
from keras_seq.tasks.language_model_problem import LanguageModelProblem, mean_log_loss, score_file
from keras_seq.tasks.text import WarmStart
from keras_seq.training import fit

ALPHABET = "abcdefgh"


def letters(count: int, seed: int = 0) -> str:
    """Lines in which a letter mostly follows the one before it in the alphabet."""
    generator = np.random.default_rng(seed)
    jumps = np.where(generator.random(count) < 0.9, 1, generator.integers(0, 8, count))
    text = "".join(ALPHABET[i] for i in np.cumsum(jumps) % 8)
    return "\n".join(text[i : i + 30] for i in range(0, count, 30)) + "\n"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "letters.txt"
    path.write_text(letters(6000), encoding="utf-8")
    return str(path)


def prepare(path: Any, **options: Any) -> LanguageModelProblem:
    return LanguageModel(data=path, **{"context": 16, "embedding": 8, **options}).prepare()


@pytest.fixture(scope="module")
def problem(text: str) -> LanguageModelProblem:
    return prepare(text)


# ---- streams ------------------------------------------------------------------------------------


def test_characters_are_cut_where_the_field_cuts(text: str, problem: LanguageModelProblem) -> None:
    whole = Path(text).read_text(encoding="utf-8")
    cut = int(0.9 * len(whole))
    streams, decode = problem.streams, problem.tokenizer.decode
    assert decode(streams.ids["train"]) == whole[:cut]
    assert decode(streams.ids["validation"]) == whole[cut:]
    assert streams.characters == {
        "train": cut,
        "validation": len(whole) - cut,
        "test": len(whole) - cut,
    }
    assert streams.same_test


def test_words_end_each_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("to be\n\nor not\n" * 30)
    (tmp_path / "v.txt").write_text("to be\n\nbe\n")
    found = prepare(
        str(path), validation=str(tmp_path / "v.txt"), tokenizer="words", context=4
    ).streams
    to, be, end = (*found.tokenizer.encode("to be"), 3)
    assert found.ids["validation"].tolist() == [to, be, end, end, be, end]
    assert len(found.ids["train"]) == 30 * 7
    assert found.characters["validation"] == 10
    assert found.words["validation"] == 6  # three words and three ends of lines


def test_documents_of_a_table_end_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = "\n".join(f'"ab\ncd {i % 3}"' for i in range(40))
    path.write_text(f"text\n{rows}\n")
    found = prepare(str(path), context=4).streams
    size = len("ab\ncd 0") + 1
    assert found.ids["train"][:size].tolist() == [*found.tokenizer.encode("ab\ncd 0"), 3]
    assert len(found.ids["validation"]) == found.characters["validation"] == 4 * size
    assert not found.breaks


def test_parts_do_not_overlap_and_the_tokeniser_sees_training_only(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("ab" * 400 + "x" * 100 + "y" * 100)
    found = prepare(str(path), validation_fraction=0.1, test_fraction=0.1).streams
    # 1,001 characters with the line break that the last line gets
    assert [len(found.ids[p]) for p in ("train", "validation", "test")] == [800, 100, 101]
    assert set(found.tokenizer.vocabulary[5:]) == {"a", "b"}
    assert (found.ids["test"] == 1).all()
    assert any("unknown" in note for note in found.notes)


def test_ids_on_disk_are_the_same(text: str, problem: LanguageModelProblem, tmp_path: Path) -> None:
    found = prepare(text, cache=str(tmp_path / "ids")).streams
    assert isinstance(found.ids["train"], np.memmap)
    np.testing.assert_array_equal(found.ids["train"], problem.streams.ids["train"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": ()}, "--data is missing"),
        ({"objective": "both"}, "objective is 'both'"),
        ({"context": 0}, "context is 0"),
        ({"stride": 17}, "stride is 17"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"masked_share": 0.0}, "masked-share is 0.0"),
        ({"validation_fraction": 0.0}, "no validation"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "nothing to train on"),
    ],
)
def test_bad_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        LanguageModel(**{"data": "a.txt", "context": 16, **options})


def test_bad_data(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"missing\.txt"):
        prepare(str(tmp_path / "missing.txt"))
    (tmp_path / "a.txt").write_bytes(b"good\nbad \xff\n" * 20)
    with pytest.raises(UserError, match="byte"):
        prepare(str(tmp_path / "a.txt"))
    (tmp_path / "b.txt").write_text("short\n")
    with pytest.raises(UserError, match="a window wants 17"):
        prepare(str(tmp_path / "b.txt"))
    with pytest.raises(UserError, match="mixes tables"):
        prepare((text, str(tmp_path / "a.csv")))


# ---- scores -------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    # Two lines "ab" and "c": three words' tokens and two ends, 5 characters with line breaks.
    logs = np.log([0.5, 0.25, 0.5, 0.5, 0.25])
    found = language_model_scores(logs, characters=5, words=4)
    assert found["cross_entropy"] == pytest.approx(7 * math.log(2) / 5)
    assert found["perplexity"] == pytest.approx(2 ** (7 / 5))
    assert found["bits_per_character"] == pytest.approx(7 / 5)
    assert found["word_perplexity"] == pytest.approx(2 ** (7 / 4))
    with pytest.raises(ValueError, match="no token"):
        language_model_scores([])


def test_blocks_keep_the_mean() -> None:
    logs = -np.random.default_rng(0).random(10_001)
    blocks = block_losses(logs)
    assert len(blocks) == 200
    assert blocks.mean() == pytest.approx(-logs.mean(), rel=1e-3)
    assert block_losses(logs[:7]).tolist() == pytest.approx([-logs[:7].mean()])


# ---- n-grams ------------------------------------------------------------------------------------


def plain_kneser_ney(ids: list[int], order: int, vocabulary: int) -> Any:
    """The textbook's formulas with dictionaries, discounts fixed at 0.75 (a small text)."""
    stream = [2] * (order - 1) + ids
    counts: list[dict[tuple[int, ...], int]] = [{} for _ in range(order)]
    for i in range(order - 1, len(stream)):
        gram = tuple(stream[i - order + 1 : i + 1])
        counts[-1][gram] = counts[-1].get(gram, 0) + 1
    for k in range(order - 2, -1, -1):
        before = {tuple(stream[i - k - 1 : i + 1]) for i in range(order - 1, len(stream))}
        for gram in before:
            counts[k][gram[1:]] = counts[k].get(gram[1:], 0) + 1

    def probability(context: tuple[int, ...], token: int) -> float:
        shorter = probability(context[1:], token) if context else 1 / vocabulary
        table = counts[len(context)]
        here = {gram: c for gram, c in table.items() if gram[:-1] == context}
        total = sum(here.values())
        if not total:
            return shorter
        left = max(table.get((*context, token), 0) - 0.75, 0)
        return left / total + 0.75 * len(here) / total * shorter

    return probability


@pytest.mark.parametrize("order", [1, 2, 3])
def test_n_grams_are_the_textbooks(order: int) -> None:
    ids = [5, 6, 7, 5, 6, 5, 6, 7, 8, 5, 6, 7]
    test = [5, 6, 7, 7, 8, 9, 5]
    model = NGram(order, vocabulary=10).fit(np.array(ids))
    wanted = plain_kneser_ney(ids, order, 10)
    stream = [2] * (order - 1) + test
    for i, log in enumerate(model.log_probability(np.array(test))):
        context = tuple(stream[i : i + order - 1])
        assert math.exp(log) == pytest.approx(wanted(context, test[i])), i


def test_n_gram_probabilities_sum_to_one() -> None:
    ids = np.random.default_rng(0).integers(5, 25, 4000)
    model = NGram(4, vocabulary=25).fit(ids)
    history = ids[:50]
    for context in (history, history[:1], np.array([24, 24, 24])):
        rows = [model.log_probability(np.append(context, token))[-1] for token in range(25)]
        assert np.exp(rows).sum() == pytest.approx(1.0)
    assert NGram(0, 25).fit(ids).log_probability(ids[:3]).tolist() == [-math.log(25)] * 3


def test_baselines(problem: LanguageModelProblem) -> None:
    found = {name: problem.scores(p) for name, p, _, _ in problem.baselines()}
    assert found["uniform"]["cross_entropy"] == pytest.approx(math.log(problem.vocabulary))
    assert found["unigram"]["cross_entropy"] < found["uniform"]["cross_entropy"]
    # A letter follows the one before it nine times of ten.
    assert found["n_gram"]["cross_entropy"] < 0.75
    assert problem.reference in found


# ---- heads and layers ---------------------------------------------------------------------------


def test_next_token_sees_the_past_alone() -> None:
    head = NextToken(Tokens(20, 8))
    model = keras_seq.build(
        "gpt", inputs={"tokens": (None,)}, head=head, width=12, depth=1, heads=2
    )
    tokens = np.array([[5, 6, 7, 8, 9]], "int32")
    changed = tokens.copy()
    changed[0, 3] = 15
    a, b = (model.predict({"tokens": x}, verbose=0)["logits"] for x in (tokens, changed))
    np.testing.assert_allclose(a[:, :3], b[:, :3], atol=1e-6)
    assert np.abs(a[:, 3:] - b[:, 3:]).max() > 1e-3
    cut = model.predict({"tokens": tokens[:, :3]}, verbose=0)["logits"]
    np.testing.assert_allclose(a[:, :3], cut, atol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_output_is_the_embedding(tied: bool) -> None:
    head = NextToken(Tokens(20, 8), tied=tied, dropout=0.1, variational=True)
    model = keras_seq.build("gru", inputs={"tokens": (None,)}, head=head, width=8)
    tables = [w for w in model.weights if 20 in w.shape and len(w.shape) == 2]
    assert len(tables) == (1 if tied else 2)
    assert model.get_layer("head_dropout").__class__.__name__ == "SpatialDropout1D"
    if tied:
        probe = keras.Model(model.input, model.get_layer("head_dropout").output)
        x = {"tokens": np.array([[5, 6]], "int32")}
        wanted = probe.predict(x, verbose=0) @ np.asarray(model.get_layer("embedding").weights[0]).T
        np.testing.assert_allclose(model.predict(x, verbose=0)["logits"], wanted, atol=1e-5)


def test_head_refuses_what_it_cannot_use() -> None:
    inputs = {"tokens": (None,)}
    with pytest.raises(UserError, match="sees what comes after"):
        keras_seq.build("bert", inputs=inputs, head=NextToken(Tokens(20, 8)))
    with pytest.raises(UserError, match="one vector"):
        keras_seq.build(
            "text_cnn", inputs={**inputs, **MaskedToken.inputs()}, head=MaskedToken(Tokens(20, 8))
        )


def test_sampled_likelihood_by_hand() -> None:
    layer = SampledLikelihood(8)
    layer.adapt_counts(np.array([0, 0, 0, 0, 0, 6, 3, 1]))
    h = np.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [9.0, 9.0]]], "float32")
    c = np.array([[[0.5, 0.2], [0.1, 0.3], [0.5, 0.2], [7.0, 7.0]]], "float32")
    targets = np.array([[5, 6, 5, 0]], "int32")
    full = np.zeros((1, 4, 8), "float32")
    found = np.asarray(layer(h, c, targets, full, training=True))[0]
    frequency = {5: 6 / 15, 6: 3 / 15}  # unseen ids count 1
    for row in range(3):
        own = math.exp(h[0, row] @ c[0, row])
        others = sum(
            math.exp(h[0, row] @ c[0, j]) / (3 * frequency[int(targets[0, j])])
            for j in range(3)
            if targets[0, j] != targets[0, row]
        )
        assert found[row] == pytest.approx(math.log(own / (own + others)), abs=1e-5)
    assert found[3] == 0


def test_sampled_likelihood_is_near_the_full_one() -> None:
    generator = np.random.default_rng(0)
    vocabulary, width, count = 40, 6, 6000
    frequency = generator.dirichlet(np.full(vocabulary - 5, 5.0))  # none too rare to be drawn
    targets = generator.choice(np.arange(5, vocabulary), (1, count), p=frequency).astype("int32")
    table = generator.normal(size=(vocabulary, width)).astype("float32") * 0.5
    h = generator.normal(size=(1, count, width)).astype("float32")
    logits = h @ table.T
    logits[..., :5] = -1e9  # never drawn
    layer = SampledLikelihood(vocabulary)
    layer.adapt_counts(np.concatenate([np.zeros(5), frequency * 1e9]))
    arguments = (h, table[targets], targets, logits)
    sampled = np.asarray(layer(*arguments, training=True))
    full = np.asarray(layer(*arguments, training=False))
    assert abs(sampled.mean() - full.mean()) < 0.02
    assert np.corrcoef(sampled.ravel(), full.ravel())[0, 1] > 0.98


# ---- training -----------------------------------------------------------------------------------


def test_accepts(text: str) -> None:
    following, masked = (LanguageModel(data=text, objective=o) for o in ("next", "masked"))
    for name in ("gpt", "lstm", "gru", "rnn", "tcn"):
        assert following.accepts(resolve(name)) == ""
    assert masked.accepts(resolve("bert")) == ""
    assert following.accepts(resolve("transformer", causal=True)) == ""
    for name in ("bert", "transformer", "linear", "fasttext", "text_cnn", "patch_transformer"):
        assert following.accepts(resolve(name))
    assert following.accepts(resolve("lstm", bidirectional=True))
    assert masked.accepts(resolve("fasttext"))


@pytest.fixture(scope="module")
def trained(problem: LanguageModelProblem) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = problem.build("gpt", width=16, depth=1, heads=2)
    fit(
        model,
        problem.data("train", model),
        problem.data("validation", model),
        epochs=2,
        batch_size=16,
        steps_per_epoch=80,
        learning_rate=1e-2,
        averaging=0.9,
        **problem.training(),
    )
    return model


def test_learns_the_letters(problem: LanguageModelProblem, trained: keras.Model) -> None:
    prediction = problem.predict(trained)
    scores = problem.scores(prediction)
    unigram = {name: p for name, p, _, _ in problem.baselines()}["unigram"]
    assert len(prediction["test"]) == len(problem.streams.ids["test"])
    assert scores["cross_entropy"] < 0.9 < problem.scores(unigram)["cross_entropy"]
    assert scores["bits_per_character"] == pytest.approx(scores["cross_entropy"] / math.log(2))
    test = problem.paired_test(problem.losses(prediction), problem.losses(unigram))
    assert test["statistic"] < 0
    assert test["p"] < 0.01


def test_prediction_is_that_of_the_logits(
    problem: LanguageModelProblem, trained: keras.Model
) -> None:
    shipped = problem.deployable(trained)
    samples = problem.samples(shipped)  # every whole window of this small part
    score = problem.shipped_score(samples)(shipped.predict(samples, verbose=0))
    x, y = problem.data("test", trained).batch(np.arange(3))
    logits = trained.predict(x, verbose=0)["logits"].astype(np.float64)
    logs = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    wanted = np.take_along_axis(logs, (y - 1)[..., None], -1).ravel()
    found = problem.predict(trained)["test"]
    np.testing.assert_allclose(found[: len(wanted)], wanted, atol=1e-5)
    whole = samples["tokens"].size
    assert whole > len(found) - 16
    assert score == pytest.approx(-found[:whole].mean(), rel=1e-4)


def test_a_small_stride_scores_better(text: str, trained: keras.Model) -> None:
    blocks, sliding = prepare(text), prepare(text, stride=2)
    a, b = (p.scores(p.predict(trained))["cross_entropy"] for p in (blocks, sliding))
    assert len(sliding.predict(trained)["test"]) == len(blocks.predict(trained)["test"])
    assert b < a


def test_average_and_ensemble_agree(problem: LanguageModelProblem, trained: keras.Model) -> None:
    other = problem.build("gru", width=8)
    predictions = [problem.predict(model) for model in (trained, other)]
    joined = problem.average(predictions)
    np.testing.assert_allclose(
        np.exp(joined["test"]), np.mean([np.exp(p["test"]) for p in predictions], 0), rtol=1e-5
    )
    found = problem.predict(problem.ensemble([trained, other]))
    np.testing.assert_allclose(found["test"], joined["test"], atol=1e-4)


def test_words_report_what_the_field_reports(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("the cat sat\non the mat\n" * 60)
    problem = prepare(str(path), tokenizer="words", context=8)
    assert "word_perplexity" in problem.labels
    uniform = next(problem.baselines())[1]
    scores = problem.scores(uniform)
    nats = math.log(problem.vocabulary)  # 6 words and 2 ends of lines for 23 characters
    assert scores["perplexity"] == pytest.approx(problem.vocabulary)
    assert scores["bits_per_character"] == pytest.approx(8 * nats / math.log(2) / 23)


# ---- carried states -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stateful(text: str) -> LanguageModelProblem:
    return prepare(text, stateful=True, context=8)


def small(problem: LanguageModelProblem, **options: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    return problem.build("gru", **{"width": 8, **options})


def test_stateful_training_is_that_by_hand(stateful: LanguageModelProblem) -> None:
    """Seven steps over two passes of the stream, with the states in our own hands."""
    rows = 4
    data = StreamRows(stateful.streams.ids["train"][:140], 8)  # 4 batches a pass
    settings = {"learning_rate": 3e-2, "weight_decay": 0.1, "clipnorm": 0.5}
    model = small(stateful)
    fit(
        model,
        data,
        epochs=1,
        steps_per_epoch=7,
        batch_size=rows,
        warmup=0.0,
        **settings,
        **stateful.training(),
    )

    other = small(stateful)
    embedding, layer = other.get_layer("embedding"), other.get_layer("gru_0").layer
    recurrence = keras.layers.RNN(layer.cell, return_sequences=True, return_state=True)
    schedule = keras.optimizers.schedules.CosineDecay(
        settings["learning_rate"], 6, warmup_target=settings["learning_rate"], warmup_steps=1
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.1, global_clipnorm=0.5)
    state, begun = None, 0
    for step in range(7):
        x, y = data.training_batch(rows, 0, step)
        if step % 4 == 0:
            state, begun = tf.zeros((rows, 8)), begun + 1
        with tf.GradientTape() as tape:
            features = embedding(x["tokens"])
            h, state = recurrence(features, initial_state=tf.stop_gradient(state))
            logits = embedding(h, reverse=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y - 1, logits))
        weights = other.trainable_variables
        optimizer.apply(tape.gradient(loss, [v.value for v in weights]), weights)
    assert begun == 2
    for ours, theirs in zip(model.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=1e-5)
    kept = np.asarray(model.get_layer("gru_0").kept[0])[:rows]
    np.testing.assert_allclose(kept, state, atol=1e-5)


def test_validation_leaves_the_states_of_training_alone(stateful: LanguageModelProblem) -> None:
    def losses(validation: Any) -> list[float]:
        model = small(stateful, dropout=0.1, variational=True)
        train = stateful.data("train", model)
        assert isinstance(train, StreamRows)
        how = {"epochs": 3, "steps_per_epoch": 5, "averaging": 0.9, "learning_rate": 1e-2}
        result = fit(
            model, train, validation, batch_size=16, patience=None, **how, **stateful.training()
        )
        return [row["loss"] for row in result.history]

    held_out = StreamRows(stateful.streams.ids["validation"], 8)
    assert losses(held_out) == losses(None)


def test_stateful_prediction_reads_the_text_as_one(stateful: LanguageModelProblem) -> None:
    model = small(stateful)
    found = stateful.predict(model)["test"]
    ids = np.asarray(stateful.streams.ids["test"])
    assert len(found) == len(ids) < 25_000  # one row
    plain = stateful.deployable(model)
    assert list(plain.input) == ["tokens"]
    logits = plain.predict({"tokens": np.append(2, ids[:-1])[None]}, verbose=0)["logits"][0]
    logs = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    np.testing.assert_allclose(found, logs[np.arange(len(ids)), ids], atol=1e-5)
    # What was saved, and has no states of its own, is scored in the same way.
    np.testing.assert_array_equal(stateful.predict(forget_states(model))["test"], found)
    names = {e.name for e in stateful.endpoints(plain)}
    assert names == {"serving_text", "step"}
    joined = stateful.ensemble([model, model])
    assert list(joined.input) == ["tokens"]


def test_stateful_is_for_recurrent_networks(stateful: LanguageModelProblem, text: str) -> None:
    model = stateful.build("gpt", width=8, depth=1, heads=2)
    assert list(model.input) == ["tokens"]
    assert type(stateful.data("train", model)) is StreamBatches
    assert any("any order" in note for note in stateful.notes)
    assert "carried" in stateful.describe()["scores"]
    with pytest.raises(UserError, match="leave one out"):
        LanguageModel(data=text, objective="masked", stateful=True)


def test_stateful_warm_start(stateful: LanguageModelProblem, text: str, tmp_path: Path) -> None:
    model = small(stateful)
    saving.save(stateful.deployable(model), tmp_path / "model.keras", metadata=stateful.metadata())
    going_on = prepare(text, stateful=True, context=8, init=str(tmp_path / "model.keras"))
    keras.utils.set_random_seed(9)
    other = going_on.build("gru", width=8)
    assert going_on.adapt(other)
    for ours, theirs in zip(model.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


# Each run in a process of its own, forked when everything is imported.
STATEFUL = """
import os, sys, signal
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np, tensorflow as tf
from keras_seq.tasks.language_model import LanguageModel
from keras_seq.training import fit
text, whole, killed = sys.argv[1:]
for folder, kill_at in ((whole, 0), (killed, 14), (killed, 0)):
    child = os.fork()
    if not child:
        break
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (-signal.SIGKILL if kill_at else 0), (folder, kill_at, status)
else:
    sys.exit()
tf.config.experimental.enable_op_determinism()
keras.utils.set_random_seed(7)
problem = LanguageModel(data=text, context=8, embedding=8, stateful=True).prepare()
model = problem.build("lstm", width=8, dropout=0.2, variational=True)
class Kill(keras.callbacks.Callback):
    seen = 0
    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == kill_at: os.kill(os.getpid(), signal.SIGKILL)
result = fit(model, problem.data("train", model), problem.data("validation", model), epochs=3,
             batch_size=8, steps_per_epoch=10, learning_rate=1e-2, averaging=0.9, run_dir=folder,
             checkpoint_seconds=0.0, callbacks=[Kill()], **problem.training())
np.savez(folder + "/end.npz", *[np.asarray(v) for v in model.variables],
         *[np.asarray(v) for v in model.optimizer.variables],
         np.array([[row["loss"], row["val_loss"]] for row in result.history]))
"""


@pytest.mark.slow
def test_stateful_training_goes_on_bit_equal(text: str, tmp_path: Path) -> None:
    # Killed in the middle of an epoch, and of a pass.
    folders = [tmp_path / name for name in ("whole", "killed")]
    for folder in folders:
        folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", STATEFUL, text, *map(str, folders)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ends = []
    for folder in folders:
        with np.load(folder / "end.npz") as file:
            ends.append([file[name] for name in file.files])
    whole, killed = ends
    assert len(whole) == len(killed)
    for ours, theirs in zip(whole, killed, strict=True):
        np.testing.assert_array_equal(ours, theirs)


# ---- masked -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def masked(text: str) -> LanguageModelProblem:
    return prepare(text, objective="masked")


def test_masked_pretraining_goes_on_as_a_classifier(
    masked: LanguageModelProblem, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(0)
    model = masked.build("bert", width=16, depth=1, heads=2, dropout=0.0)
    masked.adapt(model)
    before = masked.scores(masked.predict(model))["cross_entropy"]
    fit(
        model,
        masked.data("train", model),
        masked.data("validation", model),
        epochs=1,
        batch_size=32,
        steps_per_epoch=150,
        learning_rate=1e-2,
        averaging=0.9,
        **masked.training(),
    )
    prediction = masked.predict(model)
    assert masked.scores(prediction)["cross_entropy"] < min(before, 1.9)
    assert "bits_per_character" not in masked.scores(prediction)
    for _, other, _, _ in masked.baselines():
        assert len(other["test"]) == len(prediction["test"])
    shipped = masked.deployable(model)
    samples = masked.samples(shipped, most=4)
    assert set(samples) == {"tokens", "places"}
    assert masked.shipped_score(samples)(shipped.predict(samples, verbose=0)) < before
    assert masked.endpoints(shipped) == ()
    saving.save(shipped, tmp_path / "model.keras", metadata=masked.metadata())
    head = Label(2, tokens=Tokens(masked.vocabulary, 8))
    classifier = keras_seq.build(
        "bert", inputs={"tokens": (None,)}, head=head, width=16, depth=1, heads=2
    )
    taken = WarmStart(tmp_path).apply(classifier)
    assert {"embedding", "embedding_norm", "attention_block_0", "final_norm"} <= set(taken)
    for name in taken:
        pairs = zip(model.get_layer(name).weights, classifier.get_layer(name).weights, strict=True)
        for ours, theirs in pairs:
            np.testing.assert_array_equal(ours, theirs)


def test_init_takes_tokeniser_and_weights(
    problem: LanguageModelProblem, trained: keras.Model, text: str, tmp_path: Path
) -> None:
    saving.save(problem.deployable(trained), tmp_path / "model.keras", metadata=problem.metadata())
    warm = prepare(text, init=str(tmp_path), tokenizer="words")
    assert warm.tokenizer == problem.tokenizer
    model = warm.build("gpt", width=16, depth=1, heads=2)
    assert "embedding" in warm.adapt(model)[0]
    np.testing.assert_allclose(
        warm.predict(model)["test"], problem.predict(trained)["test"], atol=1e-5
    )
    # Of another architecture the embedding alone fits.
    other = warm.build("gru", width=12)
    warm.adapt(other)
    table = trained.get_layer("embedding").weights[0]
    np.testing.assert_array_equal(other.get_layer("embedding").weights[0], table)


def test_mean_log_loss_counts_places() -> None:
    found = mean_log_loss(
        np.array([[1.0, 1.0], [1.0, 0.0]]), np.array([[-1.0, -2.0], [-6.0, -9.0]])
    )
    assert float(found) == 3.0


# ---- what is shipped ----------------------------------------------------------------------------


def test_endpoints(problem: LanguageModelProblem, trained: keras.Model) -> None:
    shipped = problem.deployable(trained)
    serving, step = problem.endpoints(shipped)
    assert (serving.name, step.name) == ("serving_text", "step")
    import tensorflow as tf

    found = serving.call({"text": tf.constant([str(t) for t in serving.samples["text"]])})
    np.testing.assert_allclose(found["logits"], serving.expected["logits"], atol=1e-5)
    assert sorted(problem.side_files()) == ["litert/tokenizer.json", "litert/tokenizer.py"]


def test_score_file(problem: LanguageModelProblem, trained: keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "new.txt"
    path.write_text("abcdefghabcdefghabcdefgh\n\nhgfedcbahgfedcbahgfedcba\n")
    shipped = problem.deployable(trained)

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = shipped.predict(inputs, verbose=0)
        return found

    table = score_file(run, {"tokens"}, problem.metadata(), str(path))
    assert table["tokens"].tolist() == [24, 24]
    assert table["cross_entropy"][0] < table["cross_entropy"][1]
    with pytest.raises(UserError, match="fills gaps"):
        score_file(run, {"tokens"}, {**problem.metadata(), "objective": "masked"}, str(path))


def test_check_fits(problem: LanguageModelProblem, trained: keras.Model, tmp_path: Path) -> None:
    problem.check_fits(problem.deployable(trained), "it")
    other = tmp_path / "a.txt"
    other.write_text("xyz" * 200)
    with pytest.raises(UserError, match="knows 14 ids"):
        prepare(str(other)).check_fits(problem.deployable(trained), "it")


# ---- real text ----------------------------------------------------------------------------------


@pytest.mark.realdata
def test_counts_of_the_field(data_path: Path) -> None:
    """Tiny Shakespeare and WikiText-2 have as many tokens as the literature divides by."""
    found = LanguageModel(data=str(data_path / "lm" / "tinyshakespeare.txt")).prepare().streams
    assert (len(found.ids["train"]), len(found.ids["validation"])) == (1_003_854, 111_540)
    from keras_seq.tasks.text_streams import read_units

    lines = list(read_units(data_path / "lm" / "wikitext2.test.txt.gz"))
    assert sum(len(line.split()) + 1 for line in lines) == 245_569
