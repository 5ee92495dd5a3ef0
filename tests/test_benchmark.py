"""Exported forms are timed by their own runtimes, beside the error that the export proved."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from keras_seq.benchmark import benchmark
from keras_seq.errors import UserError
from keras_seq.export import timer

EXPORT = Path(__file__).parents[1] / "savedmodels/forecasting/tiny_gru_co2"
REPORT = json.loads((EXPORT / "parity.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def found():
    lines = []
    result = benchmark([EXPORT], rounds=2, repeats=4, tell=lines.append)
    assert lines[-1] == "turn 2 of 2"
    return result


def test_each_form_is_measured_and_has_its_score(found):
    assert {form.name for form in found.forms} == set(REPORT["formats"])
    assert [f.p50_ms for f in found.forms] == sorted(f.p50_ms for f in found.forms)
    for form in found.forms:
        entry = REPORT["formats"][form.name]
        assert form.score == entry["score"]["artifact"]
        assert form.difference == entry["relative_difference"]
        assert form.calls == 8  # two turns of four
        assert 0 < form.p50_ms <= form.p95_ms
        assert form.inputs == {"series": [1, 104, 1]}
        path = EXPORT / form.file
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        assert form.size_kb == sum(p.stat().st_size for p in files) / 1000
        assert form.memory_mb is None or form.memory_mb >= 0
    # A call of the interpreter costs less than one of TensorFlow; by far, so chance is no matter.
    times = {form.name: form.p50_ms for form in found.forms}
    assert times["litert"] < times["saved_model"]


def test_files(found, tmp_path):
    files = found.write(tmp_path / "made")
    assert [f.name for f in files] == [f"benchmark.{x}" for x in ("md", "csv", "json", "png")]
    page = files[0].read_text()
    with open(files[1]) as opened:
        rows = list(csv.DictReader(opened))
    data = json.loads(files[2].read_text())
    assert len(rows) == len(data["forms"]) == len(found.forms)
    for form, row in zip(found.forms, rows, strict=True):
        assert f"| {form.name}" in page
        assert float(row["p50_ms"]) == form.p50_ms
    assert "series (1, 104, 1)" in page
    assert files[3].read_bytes().startswith(b"\x89PNG")


def test_a_broken_file_is_told_and_the_rest_goes_on(tmp_path):
    copy = tmp_path / "broken"
    shutil.copytree(EXPORT, copy)
    (copy / "litert/model_float32.tflite").write_bytes(b"no model")
    result = benchmark([copy], rounds=1, repeats=3, forms=["litert", "keras"])
    assert [form.name for form in result.forms] == ["keras"]
    assert len(result.skipped) == 1 and result.skipped[0].startswith("broken litert: ")
    assert "Not timed: broken litert" in result.to_markdown()
    with pytest.raises(UserError, match="nothing can be timed"):
        benchmark([copy], rounds=1, forms=["litert"])


def test_bad_input_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(UserError, match="is no export"):
        benchmark([tmp_path])
    with pytest.raises(UserError, match=r"no export has the form onnxx: there is .*litert"):
        benchmark([EXPORT], forms=["onnxx"])
    with pytest.raises(UserError, match="rounds is 0: give at least 1"):
        benchmark([EXPORT], rounds=0)
    with pytest.raises(UserError, match="no export to time"):
        benchmark([])
    copy = tmp_path / "half"
    shutil.copytree(EXPORT, copy)
    (copy / "keras/model.keras").unlink()
    with pytest.raises(UserError, match=r"not whole: keras/model.keras is missing"):
        benchmark([copy])


def test_a_missing_signature_names_those_that_are_there():
    with pytest.raises(UserError, match=r"has the signatures serving_default, not 'step'"):
        benchmark([EXPORT], forms=["litert"], signature="step")


def test_values_fit_the_signature():
    draw = np.random.default_rng(0)

    def values(shape, dtype, ids=5):
        return timer._values({"shape": shape, "dtype": dtype}, 7, ids, draw)

    assert values([None, None, 3], "float32").shape == (1, 7, 3)
    ids = values([-1, 500], "int32")
    assert ids.shape == (1, 500) and ids.dtype == np.int32
    assert set(np.unique(ids)) == {1, 2, 3, 4}  # 0 is padding, 5 is no token
    assert values([1, None], "bool").tolist() == [[True] * 7]
    assert values([None], "string").tolist() == [b"a b c"]
    assert values([], "int32").shape == ()


def test_command_line(capsys, tmp_path):
    from keras_seq.__main__ import main

    with pytest.raises(SystemExit) as stop:
        main(["benchmark", str(tmp_path)])
    assert stop.value.code == 2
    assert "is no export" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        words = ["--rounds", "1", "--repeats", "3", "--forms", "litert", "--out", str(tmp_path)]
        main(["benchmark", str(EXPORT), *words])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "litert" in out and "p95 ms" in out and "benchmark.md" in out
