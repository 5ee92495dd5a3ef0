"""T5's pretraining: hidden spans as a task, and its weights as the start of a translation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq import saving
from keras_seq.data import SpanDenoising, TokenStore
from keras_seq.errors import UserError
from keras_seq.heads import Label, Tokens
from keras_seq.recipe import expand, make_task
from keras_seq.tasks.denoising_problem import DenoisingProblem
from keras_seq.tasks.language_model import LanguageModel
from keras_seq.tasks.text import WarmStart
from keras_seq.tasks.translation import Translation
from keras_seq.training import fit

SMALL = {"width": 16, "depth": 1, "heads": 2, "dropout": 0.0}


def letters(count: int, seed: int = 0) -> str:
    """Lines in which a letter mostly follows the one before it in the alphabet."""
    generator = np.random.default_rng(seed)
    jumps = np.where(generator.random(count) < 0.95, 1, generator.integers(0, 8, count))
    text = "".join("abcdefgh"[i] for i in np.cumsum(jumps) % 8)
    return "\n".join(text[i : i + 30] for i in range(0, count, 30)) + "\n"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "letters.txt"
    path.write_text(letters(6000), encoding="utf-8")
    return str(path)


def prepare(path: Any, **options: Any) -> Any:
    given = {"context": 16, "embedding": 16, "objective": "denoise", **options}
    return LanguageModel(data=path, **given).prepare()


@pytest.fixture(scope="module")
def problem(text: str) -> DenoisingProblem:
    return prepare(text)


def train(problem: DenoisingProblem, model: keras.Model, **options: Any) -> Any:
    given: dict[str, Any] = {"epochs": 1, "steps_per_epoch": 80, "batch_size": 32, **options}
    return fit(
        model,
        problem.data("train", model),
        problem.data("validation", model),
        learning_rate=1e-2,
        averaging=0.9,
        **given,
        **problem.training(),
    )


@pytest.fixture(scope="module")
def trained(problem: DenoisingProblem) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = problem.build("t5", **SMALL)
    train(problem, model)
    return model


@pytest.fixture(scope="module")
def run(problem: DenoisingProblem, trained: keras.Model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    shipped = problem.deployable(trained)
    saving.save(shipped, folder / "model.keras", metadata=problem.metadata())
    return folder


def weights_of(model: keras.Model) -> dict[str, list[np.ndarray]]:
    return {a.name: [w.numpy() for w in a.weights] for a in model.layers if a.weights}


# ---- the task -----------------------------------------------------------------------------------


def test_it_is_for_encoder_decoders(text: str) -> None:
    task = make_task("language_model", {"data": text, "objective": "denoise"})
    assert set(expand("all", task)) == {
        "conv_seq2seq",
        "seq2seq",
        "seq2seq_attention",
        "seq2seq_transformer",
        "t5",
    }
    with pytest.raises(UserError, match=r"gpt cannot be trained .* it has no decoder"):
        expand("gpt", task)
    for objective in ("next", "masked"):
        other = make_task("language_model", {"data": text, "objective": objective})
        assert "t5" not in expand("all", other)
        with pytest.raises(UserError, match=r"t5 .*: it is .* which is for --objective denoise"):
            expand("t5", other)
        with pytest.raises(UserError, match="which is for --objective denoise"):
            other.prepare().build("t5", **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masked_span": 0.5}, "--masked-span is 0.5: give at least 1"),
        ({"masked_share": 1.0}, "--masked-share is 1.0"),
        ({"context": 1}, "--context is 1: give at least 2"),
        ({"stateful": True}, "--stateful goes with --objective next"),
        ({"stride": 4}, "--stride does not go with --objective denoise"),
        ({"score_context": 32}, "--score-context does not go with"),
        ({"variational": True}, "--variational does not go with"),
        ({"tied": False}, "--no-tied does not go with --objective denoise"),
        ({"context": 256}, "marks up to 13 spans in 256 tokens .* vocabulary has 9"),
        ({"context": 5000}, "a window wants 5001"),
        ({"init": "nowhere"}, "--init is nowhere"),
    ],
)
def test_bad_options(text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare(text, **options)


def test_windows_lose_the_same_spans_every_time(problem: DenoisingProblem, text: str) -> None:
    data, again = problem.data("test", None), prepare(text).data("test", None)
    x, y = data.batch(np.arange(len(data)))
    other, targets = again.batch(np.arange(len(data)))
    for a, b in ((x["source"], other["source"]), (x["tokens"], other["tokens"]), (y, targets)):
        np.testing.assert_array_equal(a, b)
    # By the pairs of the texts themselves: 16 tokens, 2 of them hidden in one span.
    ids = problem.streams.ids["test"]
    store = TokenStore.from_rows([ids[i : i + 16] for i in range(0, len(ids), 16)])
    pairs = SpanDenoising(store, problem.vocabulary, sentinels=1)
    for i in (0, 7, len(store) - 1):
        source, target = pairs.pair(i, 7, 0)
        assert x["source"][i][x["source"][i] > 0].tolist() == source.tolist()
        assert x["tokens"][i][: len(target) + 1].tolist() == [2, *target.tolist()]
        assert y[i][y[i] > 0].tolist() == [*(target + 1).tolist(), 4]
    train = problem.data("train", None)
    one, two = (list(train.batches(8, seed=s, steps=3)) for s in (0, 1))
    later = next(prepare(text).data("train", None).batches(8, seed=0, start_step=2, steps=1))
    np.testing.assert_array_equal(later[0]["source"], one[2][0]["source"])
    assert (one[0][0]["source"] != two[0][0]["source"]).any()


def test_masked_share_and_span_are_heard(text: str) -> None:
    x, y = prepare(text, masked_share=0.5, masked_span=2.0).data("test", None).batch([0])
    # 8 of 16 hidden in 4 spans: 8 + 4 of the source, 8 + 4 and the end of the target.
    assert x["source"].shape == (1, 12) and y.shape == (1, 13)
    assert sorted(t for t in x["source"][0] if t > 9) == [10, 11, 12, 13]


# ---- scores -------------------------------------------------------------------------------------


def test_a_small_t5_learns_what_is_hidden(problem: DenoisingProblem, trained: keras.Model) -> None:
    found = {name: problem.scores(p) for name, p, _, _ in problem.baselines()}
    assert set(found) == {"uniform", "unigram", "n_gram"} and problem.reference in found
    score = problem.scores(problem.predict(trained))
    assert set(score) == set(problem.labels) == {"cross_entropy", "perplexity"}
    assert score["perplexity"] == pytest.approx(np.exp(score["cross_entropy"]))
    assert score["cross_entropy"] < found["unigram"]["cross_entropy"] - 0.8
    assert score["cross_entropy"] < found["n_gram"]["cross_entropy"]


def test_baselines_count_target_tokens(problem: DenoisingProblem) -> None:
    data = problem.data("test", None)
    _, y = data.batch(np.arange(len(data)))
    target = y[y > 0] - 1
    train = np.concatenate([y[y > 0] - 1 for _, y in problem.data("train", None).batches(64)])
    share = np.bincount(train, minlength=problem.vocabulary) / len(train)
    found = {name: prediction["test"] for name, prediction, _, _ in problem.baselines()}
    np.testing.assert_allclose(found["uniform"], -np.log(problem.vocabulary), rtol=1e-6)
    # Counted on other draws of spans, and a little smoothed.
    np.testing.assert_allclose(np.exp(found["unigram"]), share[target], atol=0.02)
    assert {len(p) for p in found.values()} == {len(target)}
    # A quarter of the tokens each: the mark of the one span, and the end; half are letters.
    assert share[[13, 3]].tolist() == pytest.approx([0.25, 0.25], abs=0.01)
    notes = {name: note for name, _, _, note in problem.baselines()}
    assert "reads no source" in notes["n_gram"] and notes["uniform"] == ""


def test_prediction_is_that_of_the_logits(problem: DenoisingProblem, trained: keras.Model) -> None:
    data = problem.data("validation", trained)
    x, y = data.batch(np.arange(len(data)))
    logits = trained.predict(x, verbose=0)["logits"].astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = [logs[i, t, y[i, t] - 1] for i, t in zip(*np.nonzero(y), strict=True)]
    found = problem.predict(trained)
    np.testing.assert_allclose(found["validation"], wanted, atol=1e-4)
    assert found["test"] is found["validation"]  # one part here
    shipped = problem.deployable(trained)
    samples = problem.samples(shipped)
    assert set(samples) == {"source", "tokens"} and len(samples["source"]) == len(data) - 1
    score = problem.shipped_score(samples)(shipped.predict(samples, verbose=0))
    whole = [log for log, row in zip(wanted, np.nonzero(y)[0], strict=True) if row < len(data) - 1]
    assert score == pytest.approx(-np.mean(whole), abs=1e-4)
    assert problem.endpoints(shipped) == ()


def test_average_and_ensemble_agree(problem: DenoisingProblem, trained: keras.Model) -> None:
    other = problem.build("seq2seq", width=8)
    joined = problem.ensemble([trained, other])
    wanted = problem.average([problem.predict(trained), problem.predict(other)])
    np.testing.assert_allclose(problem.predict(joined)["test"], wanted["test"], atol=1e-4)


@pytest.mark.slow
def test_training_that_was_stopped_goes_on(problem: DenoisingProblem, tmp_path: Path) -> None:
    class Stop(keras.callbacks.Callback):
        seen = 0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.seen += 1
            if self.seen == 5:
                raise KeyboardInterrupt

    options = {"epochs": 2, "steps_per_epoch": 3, "batch_size": 8}

    def small() -> keras.Model:
        keras.utils.set_random_seed(3)
        return problem.build("seq2seq", width=8)

    whole, stopped, resumed = small(), small(), small()
    train(problem, whole, run_dir=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        train(problem, stopped, run_dir=tmp_path / "part", callbacks=[Stop()], **options)
    train(problem, resumed, run_dir=tmp_path / "part", **options)
    for ours, theirs in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_told(problem: DenoisingProblem) -> None:
    assert problem.title == "letters.txt: hidden spans, characters"
    assert problem.metadata()["objective"] == "denoise" and problem.metadata()["sentinels"] == 1
    assert "15% of the tokens of each window of 16" in problem.describe()["scores"]
    share = np.mean(problem.streams.ids["train"] == problem.vocabulary - 1)
    assert f"mark hidden spans: 1; {share:.2%} of the training tokens" in problem.notes[-1]


# ---- what it is the start of --------------------------------------------------------------------


def translation(folder: Path, **options: Any) -> Any:
    """Letters that become those behind them."""
    lines = [line for line in letters(2000, seed=1).splitlines() if line]
    (folder / "s.txt").write_text("\n".join(lines) + "\n")
    (folder / "t.txt").write_text("\n".join(line[::-1] for line in lines) + "\n")
    files = {"source": str(folder / "s.txt"), "target": str(folder / "t.txt")}
    small = {"embedding": 16, "max_length": 40, "beam": 1}
    return Translation(**files, **{**small, **options}).prepare()


def test_a_translation_begins_with_it(problem, trained, run, tmp_path) -> None:
    ours = translation(tmp_path, init=str(run), tokenizer="words", vocabulary=50)
    assert ours.tokenizers[0] is ours.tokenizers[1]
    assert ours.tokenizers[0] == problem.tokenizer
    assert ours.describe()["init"] == str(run)
    assert ours.describe()["tokenizer"] == "characters, 14 ids"
    assert f"tokenizer and weights of {run} are taken over" in ours.notes
    keras.utils.set_random_seed(5)
    model = ours.build("t5", **SMALL)
    before = weights_of(model)
    (note,) = ours.adapt(model)
    theirs, mine = weights_of(trained), weights_of(model)
    # Every layer, by its name: before the first step it is the network that was pretrained.
    assert list(theirs) == list(mine) and len(mine) > 5
    for name, values in theirs.items():
        assert f" {name}" in note
        for a, b in zip(values, mine[name], strict=True):
            np.testing.assert_array_equal(a, b)
    assert "anew" not in note
    assert np.abs(before["embedding"][0] - mine["embedding"][0]).max() > 0.01
    # It can be trained on, in the form that reads some of its own tokens too.
    sampled = translation(tmp_path, init=str(run), scheduled_sampling=0.2)
    model = sampled.build("t5", **SMALL)
    sampled.adapt(model)
    form = sampled.training_form(model)
    data = sampled.data("train", form), sampled.data("validation", form)
    fit(form, *data, epochs=1, steps_per_epoch=2, batch_size=8, **sampled.training())
    assert np.abs(model.get_layer("embedding").weights[0] - mine["embedding"][0]).max() > 1e-5


def test_what_does_not_fit_begins_anew_and_is_named(run, trained, tmp_path) -> None:
    ours = translation(tmp_path, init=str(run), embedding=12)
    model = ours.build("t5", **SMALL)
    (note,) = ours.adapt(model)
    taken, _, fresh = note.partition("; anew: ")
    assert "attention_block_0" in taken
    assert set(fresh.split(", ")) >= {"embedding", "source_project", "target_project"}
    values = zip(
        model.get_layer("alignment_0").weights,
        trained.get_layer("alignment_0").weights,
        strict=True,
    )
    for a, b in values:
        np.testing.assert_array_equal(a, b)
    with pytest.raises(UserError, match="none of its layers"):
        ours.adapt(ours.build("seq2seq", width=8))


def test_a_translation_begins_with_a_translation(tmp_path) -> None:
    first = translation(tmp_path, separate=True, tokenizer="characters")
    model = first.build("seq2seq_attention", width=8)
    (tmp_path / "run").mkdir()
    shipped = first.deployable(model)
    saving.save(shipped, tmp_path / "run" / "model.keras", metadata=first.metadata())
    run = str(tmp_path / "run")
    second = translation(tmp_path, init=run)
    assert second.tokenizers == first.tokenizers and second.head.shared == "target"
    other = second.build("seq2seq_attention", width=8)
    (note,) = second.adapt(other)
    assert "source_embedding" in note and "anew" not in note
    for a, b in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(UserError, match="a tokenizer for each side, and --shared all"):
        translation(tmp_path, init=run, shared="all")
    path = tmp_path / "s.txt"
    with pytest.raises(UserError, match="a tokenizer for each side, and --objective denoise"):
        prepare(str(path), init=run)
    # A classifier reads texts as the sources were read.
    head = Label(2, tokens=Tokens(first.tokenizers[0].size, 16))
    reader = keras_seq.build("gru", inputs={"tokens": (None,)}, head=head, width=7)
    assert WarmStart(run).apply(reader) == ("embedding",)
    np.testing.assert_array_equal(
        reader.get_layer("embedding").weights[0], model.get_layer("source_embedding").weights[0]
    )


def test_pretraining_goes_on_with_other_texts(run, problem, trained, tmp_path) -> None:
    path = tmp_path / "more.txt"
    path.write_text("hgfedcba\n" * 100)
    more = prepare(str(path), init=str(run), context=32)
    assert more.tokenizer == problem.tokenizer and more.describe()["init"] == str(run)
    model = more.build("t5", **SMALL)
    more.adapt(model)
    for a, b in zip(model.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_a_start_cannot_be(run, text, tmp_path) -> None:
    with pytest.raises(UserError, match="one tokenizer for both sides"):
        translation(tmp_path, init=str(run), separate=True)
    with pytest.raises(UserError, match=r"--init is nowhere: there is no model\.keras"):
        translation(tmp_path, init="nowhere")
    # Its tokenizer puts all into small letters: the references are what it can write.
    path = tmp_path / "upper.txt"
    path.write_text("ABCDEFG hi\n" * 200)
    small = prepare(str(path), lowercase=True, tokenizer="words", context=8)
    (tmp_path / "small").mkdir()
    shipped = small.deployable(small.build("t5", **SMALL))
    saving.save(shipped, tmp_path / "small" / "model.keras", metadata=small.metadata())
    lines = [f"{'HI ' * (i % 20)}ABCDEFG no" for i in range(80)]
    for name in "st":
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
    files = {"source": str(tmp_path / "s.txt"), "target": str(tmp_path / "t.txt")}
    ours = Translation(**files, init=str(tmp_path / "small")).prepare()
    assert set(ours.pairs["test"].target) <= {line.lower() for line in lines}
    assert any("lower case, and so are the references" in note for note in ours.notes)
    assert any(note.endswith("% of the target tokens are unknown to it") for note in ours.notes)
