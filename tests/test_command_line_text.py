"""Text on the command line: bad input is one line and exit code 2; strange text goes through."""

from __future__ import annotations

import contextlib
import gzip
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from keras_seq.__main__ import main

MILLION = 1_000_000

STRANGE = (
    "",
    "   ",
    "مرحبا بالعالم، فيلم جميل",
    "סרט נפלא, לא משעמם",
    "👍🏽👨‍👩‍👧‍👦 film ❤️🏳️‍🌈",
    "a\u202eright to left override\u202c",
    "x" * 5000,
    "<br /><br />",
    "\u200b\ufeff",
    "$a_b^{c} \\frac{1}{2} % & #",
    "映画はとても良かった",
)


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


def refused(folder: Path, words: Sequence[object], *fragments: str) -> None:
    """Exit code 2, one line that holds the fragments, nothing else printed, nothing written."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    code, out, err = run(*words)
    assert code == 2, err
    assert out == ""
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("keras-seq: error: ")
    for fragment in fragments:
        assert fragment in lines[0], lines[0]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def rows(count: int = 60) -> list[tuple[str, ...]]:
    return [(f"a {('dull', 'fine')[i % 2]} film number {i}", str(i % 2)) for i in range(count)]


def write(
    folder: Path,
    lines: Sequence[Sequence[str]],
    header: Sequence[str] = ("text", "label"),
    name: str = "data.tsv",
) -> Path:
    path = folder / name
    text = "".join("\t".join(line) + "\n" for line in [header, *lines])
    path.write_text(text, encoding="utf-8")
    return path


def compare(
    data: object, out: Path, *more: object, architectures: str = "text_cnn"
) -> list[object]:
    return [
        "compare", "classification", "--data", data, "--architectures", architectures,
        "--embedding", "8", "--max-tokens", "16", "--epochs", "1", "--parameters", "20000",
        "--track", "none", "--export", "none", "--out", out, *more,
    ]  # fmt: skip


# ---- files that will not do ---------------------------------------------------------------------


def test_wrong_encoding_names_the_byte(tmp_path: Path):
    path = write(tmp_path, rows())
    content = path.read_bytes()
    at = content.index(b"number 7")
    wrong = content[:at] + b"\xe9" + content[at:]
    path.write_bytes(wrong)
    refused(tmp_path, compare(path, tmp_path / "out"), "UTF-8", f"byte {at} is 0xe9")
    packed = tmp_path / "packed.tsv.gz"
    packed.write_bytes(gzip.compress(wrong))
    refused(tmp_path, compare(packed, tmp_path / "out"), f"byte {at} of the unpacked text is 0xe9")
    path.write_text("text\tlabel\na\t1\n", encoding="utf-16")
    refused(tmp_path, compare(path, tmp_path / "out"), "byte 0 is 0xff", "UTF-16")


def test_wrong_encoding_of_the_test_file(tmp_path: Path):
    path, test = write(tmp_path, rows()), tmp_path / "test.tsv"
    test.write_bytes(b"text\tlabel\ncaf\xe9\t1\nb\t0\n")
    words = compare(path, tmp_path / "out", "--test", test)
    refused(tmp_path, words, "test.tsv", "byte 14 is 0xe9")


def test_label_column_with_one_class(tmp_path: Path):
    path = write(tmp_path, [(text, "yes") for text, _ in rows()])
    refused(tmp_path, compare(path, tmp_path / "out"), "'label'", "one class only", "'yes'")


@pytest.mark.parametrize("blank", ["", "  "])
def test_label_column_with_blanks(tmp_path: Path, blank: str):
    lines = [(text, blank if i in (3, 9) else label) for i, (text, label) in enumerate(rows())]
    path = write(tmp_path, lines)
    refused(tmp_path, compare(path, tmp_path / "out"), "'label' is blank in rows 4, 10")


def test_text_column_of_numbers(tmp_path: Path):
    lines = [(str(i / 7), label, text) for i, (text, label) in enumerate(rows())]
    path = write(tmp_path, lines, ("text", "label", "review"))
    refused(tmp_path, compare(path, tmp_path / "out"), "'text' holds numbers", "'review'")


def test_class_that_is_only_tested(tmp_path: Path):
    path = write(tmp_path, rows())
    test = write(tmp_path, [*rows(10), ("odd", "2")], name="test.tsv")
    words = compare(path, tmp_path / "out", "--test", test)
    refused(tmp_path, words, "test.tsv: the class 2 is in the test part and not in the training")


@pytest.mark.parametrize(
    ("more", "fragments"),
    [
        (("--text-column", "txet"), ("'txet'", "did you mean 'text'?")),
        (("--label-column", "lable"), ("'lable'", "did you mean 'label'?")),
        (("--group-column", "film"), ("'film'", "text, label")),
    ],
)
def test_missing_column_names_the_nearest(tmp_path: Path, more, fragments):
    path = write(tmp_path, rows())
    refused(tmp_path, compare(path, tmp_path / "out", *more), "data.tsv", *fragments)


@pytest.mark.parametrize(
    ("lines", "fragments"),
    [
        ([], ("a header but no rows",)),
        (rows(2), ("2 examples", "too few")),
        ([*rows(), ("a", "b", "c")], ("row 61", "3 fields", "header has 2")),
        ([("", label) for _, label in rows()], ("too few",)),
    ],
)
def test_rows_that_will_not_do(tmp_path: Path, lines, fragments):
    path = write(tmp_path, lines)
    refused(tmp_path, compare(path, tmp_path / "out"), *fragments)


def test_what_is_no_table(tmp_path: Path):
    out = tmp_path / "out"
    refused(tmp_path, compare(tmp_path / "data.tsb", out), "no such file")
    refused(tmp_path, compare("builtin:review", out), "'review'", "reviews")
    refused(tmp_path, compare(tmp_path, out), "LABEL/*.txt")
    (tmp_path / "a.doc").write_text("x")
    refused(tmp_path, compare(tmp_path / "a.doc", out), ".tsv", ".parquet")
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": 1}\n{"text": \n')
    refused(tmp_path, compare(tmp_path / "a.jsonl", out), "line 2 is not JSON")
    (tmp_path / "empty.csv").write_text("")
    refused(tmp_path, compare(tmp_path / "empty.csv", out), "empty")


# ---- options that will not do -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "fragments"),
    [
        (("--tokenizer", "wordz"), ("'wordz'", "words", "byte_pairs", "unigrams")),
        (("--clean", "xml"), ("--clean", "'xml'", "html")),
        (("--inputs", "images"), ("'images'", "text", "series")),
        (("--class-weights", "some"), ("'some'", "balanced")),
        (("--vocabulary", "2"), ("--vocabulary is 2", "at least")),
        (("--max-tokens", "0"), ("--max-tokens is 0", "at least")),
        (("--embedding", "0"), ("--embedding is 0",)),
        (("--dropout", "1.5"), ("--dropout is 1.5",)),
        (("--folds", "5", "--fold", "5"), ("--fold is 5", "0 to 4")),
        (("--init", "nowhere"), ("--init is nowhere", "model.keras")),
        (("--set", "text_cnn.widht=3"), ("'widht'", "'width'")),
        (("--architectures", "text_cn"), ("'text_cn'", "'text_cnn'")),
        (("--architectures", "nhits"), ("nhits", "classification", "forecaster")),
        (("--architectures", "hub:nothing_here"), ("hub:nothing_here", "save_to_preset")),
    ],
)
def test_bad_options(tmp_path: Path, more, fragments):
    path = write(tmp_path, rows())
    refused(tmp_path, compare(path, tmp_path / "out", *more), *fragments)


def test_unknown_pooling(tmp_path: Path):
    path = write(tmp_path, rows())
    words = compare(path, tmp_path / "out", "--pooling", "meen")
    refused(tmp_path, words, "'meen'", "mean")


@pytest.mark.parametrize(
    ("task", "architecture", "fragments"),
    [
        ("forecasting", "fasttext", ("token ids", "measurements")),
        ("forecasting", "bag_of_words", ("token ids",)),
        ("tagging", "nhits", ("forecaster",)),
        ("tagging", "text_cnn", ("one vector", "each word")),
        ("language_model", "fasttext", ("no state for each step",)),
        ("language_model", "tcnn", ("'tcnn'", "'tcn'")),
    ],
)
def test_architectures_of_another_task(tmp_path: Path, task, architecture, fragments):
    path = write(tmp_path, rows())
    words = ["compare", task, "--data", path, "--architectures", architecture]
    if task == "forecasting":
        words += ["--lookback", "24", "--horizon", "6"]
    refused(tmp_path, [*words, "--out", tmp_path / "out"], architecture, *fragments)


@pytest.mark.parametrize(
    ("more", "fragments"),
    [
        (("--kinds", "wordz"), ("'wordz'", "words")),
        (("--text-column", "txet"), ("'txet'", "'text'")),
        (("--clean", "xml"), ("'xml'", "html")),
        (("--vocabulary", "1"), ("at least 6",)),
    ],
)
def test_tokenizers_table(tmp_path: Path, more, fragments):
    path = write(tmp_path, rows())
    refused(tmp_path, ["tokenizers", "--data", path, *more], *fragments)


def test_runs_that_are_none(tmp_path: Path):
    refused(tmp_path, ["generate", tmp_path], "holds no model")
    refused(tmp_path, ["explain", tmp_path, "--text", "a"], "model.keras")


# ---- what is strange and goes through -----------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """A network that was trained on strange texts, and what the terminal said meanwhile."""

    out: Path
    run: Path
    printed: str
    seconds: float


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Empty texts, emoji, right-to-left, a million tokens, and more room than there are words."""
    folder = tmp_path_factory.mktemp("strange")
    lines = rows(80) + [(text, str(i % 2)) for i, text in enumerate(STRANGE * 2)]
    lines += [("word " * MILLION, "0")]
    path = write(folder, lines)
    test = write(folder, [*rows(12), ("", "1"), ("👍🏽", "1")], name="test.tsv")
    began = time.monotonic()
    code, out, err = run(
        *compare(path, folder / "out", "--test", test, "--vocabulary", "50000", "--epochs", "2")
    )
    assert code == 0, err
    assert "Traceback" not in err
    return Trained(
        folder / "out",
        folder / "out" / "text_cnn" / "0",
        " ".join(out.split()),
        time.monotonic() - began,
    )


def test_empty_texts_are_kept_and_counted(trained: Trained):
    assert "4 empty texts kept: rows 81, 82, 92, 93" in trained.printed
    assert "test.tsv: 1 empty text kept: row 13" in trained.printed
    assert "test: 14 examples" in trained.printed


def test_a_million_tokens_take_seconds(trained: Trained):
    assert "longest 1,000,000" in trained.printed
    assert "are cut" in trained.printed
    # A few seconds on an idle machine; the suite may share it with other tests.
    assert trained.seconds < 120


def test_a_vocabulary_larger_than_the_corpus_is_what_the_corpus_has(trained: Trained):
    from keras_seq import saving

    found = saving.read_metadata(trained.run / "model.keras")["tokenizer"]["vocabulary"]
    assert 100 < len(found) < 200
    assert f"{len(found)} ids, all that there are; 50000 were allowed" in trained.printed


def test_strange_texts_are_labelled(trained: Trained, tmp_path: Path):
    path = write(tmp_path, [(text,) for text in [*STRANGE, "word " * MILLION, "!"]], ("text",))
    out = tmp_path / "labels.csv"
    began = time.monotonic()
    code, printed, err = run("predict", trained.run, "--data", path, "--out", out)
    assert code == 0, err
    assert time.monotonic() - began < 60
    table = pd.read_csv(out)
    assert len(table) == len(STRANGE) + 2
    shares = table[["probability_0", "probability_1"]].to_numpy()
    assert np.isfinite(shares).all() and shares.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert f"{len(table)} rows" in printed


def test_strange_texts_are_explained(trained: Trained, tmp_path: Path):
    for text in ("", STRANGE[2], STRANGE[4]):
        page = tmp_path / "page.html"
        code, printed, err = run("explain", trained.run, "--text", text, "--html", page)
        assert code == 0, err
        assert printed.strip()
        page.unlink()


@pytest.mark.parametrize(
    ("ids", "fragments"),
    [
        ([[5, 6, 0], [5, 60_000, 0]], ("60000", "row 2", "ids 0 to")),
        ([[-1, 5]], ("-1", "row 1")),
        ([[0.5, 1.0]], ("float64", "whole numbers")),
        ([1, 2, 3], ("(3,)", "(texts, tokens)")),
    ],
)
def test_ids_out_of_range(trained: Trained, tmp_path: Path, ids, fragments):
    np.save(tmp_path / "ids.npy", np.array(ids))
    words = ["predict", trained.run, "--data", tmp_path / "ids.npy", "--out", tmp_path / "x.csv"]
    refused(tmp_path, words, *fragments)


def test_what_cannot_be_labelled(trained: Trained, tmp_path: Path):
    def words(path: Path, out: str = "x.csv") -> list[object]:
        return ["predict", trained.run, "--data", path, "--out", tmp_path / out]

    path = write(tmp_path, [("a film",)], ("review",))
    refused(tmp_path, words(path), "'text'", "review")
    (tmp_path / "latin.tsv").write_bytes(b"text\ncaf\xe9\n")
    refused(tmp_path, words(tmp_path / "latin.tsv"), "byte 8 is 0xe9")
    refused(tmp_path, words(path, "x.txt"), ".csv or .parquet")
    (tmp_path / "ids.npy").write_bytes(b"not an array")
    refused(tmp_path, words(tmp_path / "ids.npy"), "ids.npy cannot be read")


def test_labels_of_another_data_set(trained: Trained, tmp_path: Path):
    path = write(tmp_path, [(text, ("no", "yes")[int(label)]) for text, label in rows()])
    words = ["evaluate", trained.run, "--data", path]
    refused(tmp_path, words, "knows the labels 0, 1", "no, yes")


def test_a_classifier_writes_no_text(trained: Trained, tmp_path: Path):
    refused(tmp_path, ["generate", trained.run], "language_model")
