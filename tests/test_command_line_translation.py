"""Translation on the command line: a tiny run, what it translates, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_seq.__main__ import main
from keras_seq.recipe import read_recipe


def run(*words: object) -> tuple[int, str, str]:
    """Runs the command line in this process: exit code, what it printed, what it complained."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stopped,
    ):
        main([str(word) for word in words])
    return int(stopped.value.code or 0), out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def board(tmp_path_factory) -> Path:
    """Two small networks, hardly trained, on letters that become capitals."""
    folder = tmp_path_factory.mktemp("translation")
    lines = [f"{i:b}".replace("0", "a ").replace("1", "b ").strip() for i in range(64, 320)]
    (folder / "source.txt").write_text("\n".join(lines) + "\n")
    (folder / "target.txt").write_text("\n".join(lines).upper() + "\n")
    code, _, err = run(
        "compare", "translation", "--source", folder / "source.txt",
        "--target", folder / "target.txt", "--tokenizer", "words", "--embedding", 16,
        "--architectures", "seq2seq,seq2seq_attention", "--set", "seq2seq.width=16",
        "--set", "seq2seq_attention.width=16", "--epochs", 1, "--steps-per-epoch", 5,
        "--max-length", 10, "--beam", 2, "--export", "keras", "--track", "none",
        "--out", folder / "runs",
    )  # fmt: skip
    assert code == 0, err
    return folder


def test_the_leaderboard_has_networks_and_baselines(board):
    rows = json.loads((board / "runs" / "leaderboard.json").read_text())["rows"]
    names = {row["architecture"] for row in rows}
    assert {"seq2seq", "seq2seq_attention", "copy", "translation_memory", "word_table"} <= names
    for row in rows:
        assert row["status"] == "ok"
        assert 0 <= row["scores"]["bleu"] <= 100
    assert (board / "runs" / "seq2seq" / "0" / "model.keras").is_file()


def test_translate_a_file_and_standard_input(board, monkeypatch):
    (board / "new.txt").write_text("a b a\n\nb b\n")
    network = board / "runs" / "seq2seq_attention" / "0"
    code, out, err = run("translate", network, "--data", board / "new.txt")
    assert code == 0, err
    lines = out.split("\n")
    assert len(lines) == 4 and lines[1] == ""
    monkeypatch.setattr(sys, "stdin", io.StringIO("a b a\n\nb b\n"))
    assert run("translate", network)[:2] == (0, out)
    code, out, _ = run("translate", network, "--data", board / "new.txt", "--best", 2)
    scores = [float(line.partition("\t")[0]) for line in out.splitlines()]
    assert len(scores) == 6 and scores[0] >= scores[1]


def test_translations_drawn_by_chance(board):
    (board / "new.txt").write_text("a b a\n\nb b\n")
    network = board / "runs" / "seq2seq_attention" / "0"
    words = ["translate", network, "--data", board / "new.txt", "--sample", "--best", 4]
    code, out, err = run(*words, "--seed", 1)
    assert code == 0, err
    assert run(*words, "--seed", 1)[1] == out != run(*words, "--seed", 2)[1]
    assert len(out.splitlines()) == 12
    greedy = run("translate", network, "--data", board / "new.txt", "--beam", 1)[1]
    only = ["--sample", "--top-k", 1]
    assert run("translate", network, "--data", board / "new.txt", *only)[1] == greedy


def test_align_shows_a_table_and_writes_a_page(board):
    network = board / "runs" / "seq2seq_attention" / "0"
    code, out, err = run(
        "align", network, "--source", "a b b", "--html", board / "page.html", "--beam", 1
    )
    if code == 2:  # so little trained it may write nothing
        assert "there is no alignment" in err
    else:
        assert code == 0 and "1:a" in out
        assert "<html" in (board / "page.html").read_text()
    code, _, err = run("align", board / "runs" / "seq2seq" / "0", "--source", "a b")
    assert code == 2 and "the model has no attention" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--beam", 0], "--beam is 0: give at least 1"),
        (["--max-length", 0], "--max-length is 0: give at least 1"),
        (["--best", 3], "3 hypotheses of each source are wanted"),
        (["--length-penalty", -1], "length_penalty is -1"),
        (["--data", "missing.txt"], "missing.txt"),
        (["--top-p", 0.5], "give --sample too"),
        (["--sample", "--top-k", 0], "top_k is 0"),
        (["--sample", "--best", 0], "0 translations of each text are wanted"),
    ],
)
def test_what_translate_refuses(board, words, message):
    (board / "one.txt").write_text("a b\n")
    data = [] if "--data" in words else ["--data", board / "one.txt"]
    network = board / "runs" / "seq2seq_attention" / "0"
    code, out, err = run("translate", network, *data, *words)
    assert code == 2 and out == ""
    (line,) = [line for line in err.splitlines() if line.strip()]
    assert message in line


def test_a_source_that_is_too_long_is_told_or_cut(board):
    (board / "long.txt").write_text("a " * 101 + "\n")
    network = board / "runs" / "seq2seq_attention" / "0"
    code, _, err = run("translate", network, "--data", board / "long.txt")
    assert code == 2 and "text 1 has 101 tokens, and the model reads 100" in err
    assert run("translate", network, "--data", board / "long.txt", "--cut")[0] == 0


TRAINING = [
    "--batch-tokens", 200, "--schedule", "inverse_sqrt", "--warmup-steps", 3, "--accumulate", 2,
    "--average-last", 2, "--monitor", "bleu", "--monitor-examples", 8,
]  # fmt: skip


@pytest.mark.slow
def test_what_training_translation_needs(board):
    """All its options: what the log says, the curves, and the recipe that makes it again."""
    options = [
        "--source", board / "source.txt", "--target", board / "target.txt", "--tokenizer", "words",
        "--embedding", 16, "--epochs", 3, "--steps-per-epoch", 7, "--max-length", 10,
        "--beam", 1, "--learning-rate", 0.05, *TRAINING,
    ]  # fmt: skip
    out = board / "one"
    code, text, err = run(
        "train", "translation", "seq2seq", "--set", "width=16", *options, "--out", out,
        "--export", "none",
    )  # fmt: skip
    assert code == 0, err
    assert "batches of up to 200 tokens" in text and "val_bleu" in text and "padding is" in text
    budget = json.loads((out / "leaderboard.json").read_text())["metadata"]["budget"]
    assert budget["batch"] == "up to 200 tokens" and budget["best epoch by"] == "bleu"
    assert budget["schedule"] == "inverse_sqrt, 3 updates of warm-up"
    assert budget["weights averaged"] == "of the last 2 epochs"
    folder = out / "seq2seq" / "0"
    record = json.loads((folder / "metrics.json").read_text())
    history = pd.read_csv(folder / "history.csv")
    best = history.iloc[record["best_epoch"] - 1]
    assert record["best"] == best.val_bleu == history.val_bleu.max()
    assert record["validation"]["loss"] == pytest.approx(best.val_loss)
    assert record["options"] == {"width": 16}
    assert {p.name for p in folder.iterdir()} >= {"config.toml", "history.csv", "model.keras"}
    assert not (folder / "checkpoint.npz").exists() and not (folder / "last").exists()
    # Curves: BLEU, and the learning rate before the next update (7, 14, 21 batches: 3, 7, 10 done).
    rate = curve(folder / "train", "learning_rate")
    assert rate == pytest.approx([0.05 * (3 / n) ** 0.5 for n in (4, 8, 11)], rel=1e-5)
    assert curve(folder / "validation", "epoch_bleu") == pytest.approx(history.val_bleu.tolist())
    texts = events(folder).Tensors("translations")
    assert [event.step for event in texts] == [0, 1, 2]
    shown = events(out).Tags()["tensors"]
    assert "comparison/BLEU by length of the source" in shown
    # The recipe says all of it.
    recipe = read_recipe(out / "recipe.toml")
    assert (
        recipe["options"]["batch_tokens"] == 200 and recipe["overrides"]["seq2seq"]["width"] == 16
    )
    for flag, value in zip(TRAINING[2::2], TRAINING[3::2], strict=True):
        assert recipe[str(flag)[2:].replace("-", "_")] == value
    again = board / "again"
    code, _, err = run(
        "compare", "translation", "--recipe", out / "recipe.toml", "--out", again,
        "--export", "none", "--track", "none",
    )  # fmt: skip
    assert code == 0, err
    other = pd.read_csv(again / "seq2seq" / "0" / "history.csv")
    pd.testing.assert_frame_equal(
        history.drop(columns="seconds"), other.drop(columns="seconds"), rtol=1e-4
    )
    code, _, err = run(
        "compare", "translation", "--recipe", out / "recipe.toml", "--out", again, "--resume",
        "--accumulate", 3,
    )  # fmt: skip
    assert code == 2 and "another comparison (accumulate differ)" in err


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    return found.Reload()


def curve(folder: Path, tag: str) -> list[float]:
    return [float(tf.make_ndarray(e.tensor_proto)) for e in events(folder).Tensors(tag)]


SMALL = [
    "--tokenizer", "words", "--embedding", 16, "--set", "width=16", "--set", "depth=1",
    "--set", "heads=2", "--epochs", 1, "--steps-per-epoch", 2, "--track", "none",
]  # fmt: skip


@pytest.mark.slow
def test_pretraining_and_a_translation_that_begins_with_it(board):
    sides = ["--source", board / "source.txt", "--target", board / "target.txt"]
    texts = ["--data", board / "source.txt", "--data", board / "target.txt"]
    denoise = [
        "train", "language_model", "t5", "--objective", "denoise", *texts, *SMALL, "--context", 8,
        "--export", "keras", "--out", board / "pretrained",
    ]  # fmt: skip
    code, text, err = run(*denoise)
    assert code == 0, err
    assert "ids at the end of the vocabulary that mark hidden spans: 1" in " ".join(text.split())
    rows = json.loads((board / "pretrained" / "leaderboard.json").read_text())["rows"]
    assert {row["architecture"] for row in rows} == {"t5", "uniform", "unigram", "n_gram"}
    assert all(set(row["scores"]) == {"cross_entropy", "perplexity"} for row in rows)
    scores = {row["architecture"]: row["scores"] for row in rows}
    code, text, err = run(*denoise, "--export", "none", "--resume")
    assert code == 0, err
    again = json.loads((board / "pretrained" / "leaderboard.json").read_text())["rows"]
    for row in again:  # the model file says what the network said
        assert row["scores"] == pytest.approx(scores[row["architecture"]], rel=1e-5)
    network = board / "pretrained" / "t5" / "0"
    code, text, err = run(
        "train", "translation", "t5", *sides, *SMALL, "--max-length", 10, "--beam", 1, "--export",
        "none", "--init", network, "--out", board / "tuned",
    )  # fmt: skip
    assert code == 0, err
    assert "begins with the weights of" in text and "anew" not in text
    assert read_recipe(board / "tuned" / "recipe.toml")["options"]["init"] == str(network)
    told = json.loads((board / "tuned" / "leaderboard.json").read_text())
    assert told["metadata"]["init"] == str(network)
    for words, message in (
        (["generate", network, "--prompt", "a"], "fill gaps (--objective denoise)"),
        (["translate", network, "--data", board / "source.txt"], "task language_model"),
        (["train", "language_model", "t5", *texts], "which is for --objective denoise"),
        (["train", "language_model", "gpt", "--objective", "denoise", *texts], "has no decoder"),
        ([*denoise[:-1], board / "x", "--stride", 2], "--stride does not go with --objective"),
        (["train", "translation", "t5", *sides, "--init", "no"], "--init is no: there is no"),
        (
            ["train", "translation", "t5", *sides, "--init", network, "--separate"],
            "one tokenizer for both sides: leave --separate out",
        ),
    ):
        if words[0] == "train" and "--out" not in words:
            words += ["--out", board / "x"]
        code, text, err = run(*words)
        assert code == 2 and text == "", words
        (line,) = [line for line in err.splitlines() if line.strip()]
        assert message in line
        assert not (board / "x").exists()


DATES = ["--data", "builtin:dates"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*DATES, "--batch-tokens", -1], "--batch-tokens is -1"),
        ([*DATES, "--batch-tokens", 9], "9 tokens are too few for a batch"),
        ([*DATES, "--schedule", "linear"], "--schedule is 'linear': choose one of cosine"),
        ([*DATES, "--warmup-steps", -1], "--warmup-steps is -1"),
        ([*DATES, "--accumulate", 0], "--accumulate is 0: give at least 1"),
        ([*DATES, "--average-last", -2], "--average-last is -2"),
        ([*DATES, "--monitor", "accuracy"], "--monitor is 'accuracy': choose one of loss, bleu"),
        ([*DATES, "--monitor-examples", 0], "--monitor-examples is 0"),
        ([*DATES, "--set", "width=3"], "say which one, as in lstm.width=3"),
        (["--source", "a.txt"], "--target is missing"),
        (["--data", "builtin:dates", "--architectures", "gru"], "it has no decoder"),
        (["--data", "builtin:dates", "--beam", 0], "--beam is 0"),
        (["--data", "builtin:poems"], "no built-in pairs"),
    ],
)
def test_what_compare_refuses(tmp_path, options, message):
    code, out, err = run("compare", "translation", *options, "--out", tmp_path / "runs")
    assert code == 2 and out == ""
    assert message in err
    assert len([line for line in err.splitlines() if line.strip()]) == 1
    assert not (tmp_path / "runs").exists()


def test_not_utf8_names_the_byte(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"fine\nna\xefve\n")
    (tmp_path / "b.txt").write_text("one\ntwo\n")
    code, _, err = run(
        "compare", "translation", "--source", tmp_path / "a.txt",
        "--target", tmp_path / "b.txt", "--out", tmp_path / "runs",
    )  # fmt: skip
    assert code == 2 and "byte" in err and "a.txt" in err
