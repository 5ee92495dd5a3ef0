"""Every format: the numbers, read by the real runtimes and not through our own report alone."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_seq.export import export, litert_size_and_latency
from keras_seq.export.runner import read_operators
from keras_seq.registry import exporters

LITERT = {"litert": 1e-5, "litert_float16": 5e-3, "litert_dynamic": 5e-2}


def relative(got, expected):
    return np.abs(got - expected).max() / np.abs(expected).max()


def test_report_and_layout(exported):
    folder, report, _, _ = exported
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {
        "1/saved_model.pb",
        "1/variables/variables.index",
        "litert/model_float32.tflite",
        "litert/model_float16.tflite",
        "litert/model_dynamic.tflite",
        "litert/model_int8.tflite",
        "keras/model.keras",
        "parity.json",
        "README.md",
        "manifest.sha256",
    } <= found
    assert json.loads((folder / "parity.json").read_text()) == report
    assert [path.name for path in folder.parent.iterdir()] == ["mixed"], "something was left"
    assert folder.stat().st_mode & 0o777 == 0o755, "a server runs as another user"
    for name in ("saved_model", "litert", "keras"):
        entry = report["formats"][name]
        assert entry["status"] == "passed"
        assert 0 <= entry["relative_difference"] <= 1e-5
        assert entry["latency_ms"] > 0
    for name in LITERT | {"litert_int8": None}:
        entry = report["formats"][name]
        assert entry["flex"] is False
        assert entry["tensorflow_loaded"] is False
        assert entry["peak_memory_mb"] > 1
        assert sum(entry["operators"].values()) > 5


def test_saved_model_has_named_tensors_and_any_batch_size(exported):
    import tensorflow as tf

    folder, report, samples, answers = exported
    function = tf.saved_model.load(str(folder / "1")).signatures["serving_default"]
    specs = function.structured_input_signature[1]
    assert {name: (spec.shape.as_list(), spec.dtype.name) for name, spec in specs.items()} == {
        "series": ([None, 9, 3], "float32"),
        "time_index": ([None], "int32"),
    }
    for size in (1, 3, 7):
        part = {name: tf.constant(value[:size]) for name, value in samples.items()}
        results = function(**part)
        assert set(results) == {"forecast", "quantiles"}
        for name, value in results.items():
            assert relative(value.numpy(), answers[name][:size]) <= 1e-5
    assert report["formats"]["saved_model"]["batch_sizes"] == [1, 7]


@pytest.mark.parametrize("name", LITERT)
def test_litert_agrees_with_keras(exported, name):
    from ai_edge_litert.interpreter import Interpreter

    folder, report, samples, answers = exported
    path = folder / report["formats"][name]["file"]
    call = Interpreter(str(path)).get_signature_runner("serving_default")
    for i in range(3):
        results = call(**{key: value[i : i + 1] for key, value in samples.items()})
        for key, value in results.items():
            assert (
                np.abs(value - answers[key][i]).max() <= LITERT[name] * np.abs(answers[key]).max()
            )


def test_litert_uses_builtin_operators_only(exported):
    folder, _, _, _ = exported
    for path in sorted((folder / "litert").iterdir()):
        operators, foreign, _ = read_operators(path)
        assert foreign == []
        # Loops stay loops for float; the int8 converter cannot take them.
        assert ("WHILE" in operators) == (path.name != "model_int8.tflite")


def test_quantised_files_are_smaller_where_weights_count():
    x = keras.Input((64,), name="x")
    model = keras.Model({"x": x}, {"y": keras.layers.Dense(256)(keras.layers.Dense(256)(x))})
    samples = {"x": np.random.default_rng(0).normal(size=(20, 64)).astype("float32")}
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        report = export(model, f"{folder}/m", formats="litert:all", samples=samples)
    size = {name: entry["size_bytes"] for name, entry in report["formats"].items()}
    assert size["litert_float16"] < 0.6 * size["litert"]
    assert size["litert_int8"] < 0.35 * size["litert"]
    floating = {n: entry["float_operators"] for n, entry in report["formats"].items()}
    assert floating["litert"] > 0
    assert floating["litert_int8"] == 0


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_int8_of_a_recurrent_layer_is_judged_by_the_score(tmp_path, cell):
    x = keras.Input((8, 3), name="series")
    recurrent = getattr(keras.layers, cell)(6)
    model = keras.Model({"series": x}, {"forecast": keras.layers.Dense(2)(recurrent(x))})
    samples = {"series": np.random.default_rng(1).normal(size=(32, 8, 3)).astype("float32")}
    report = export(
        model,
        tmp_path / "m",
        formats="litert_int8",
        samples=samples,
        score=lambda outputs: float(np.mean((outputs["forecast"] - 1.0) ** 2)),
    )
    entry = report["formats"]["litert_int8"]
    assert recurrent.unroll is False, "the layer must be put back as it was"
    assert recurrent.use_cudnn == "auto"
    assert entry["judged_by"] == "score"
    assert entry["status"] == "passed"
    assert abs(entry["score"]["relative_change"]) <= 0.03
    assert entry["relative_difference"] > 1e-5, "int8 that equals float is not int8"


def test_a_missed_score_is_reported_and_not_an_error(tmp_path, dense, rows):
    calls = iter([1.0, 1.1])
    report = export(
        dense, tmp_path / "m", formats="litert_int8", samples=rows, score=lambda _: next(calls)
    )
    entry = report["formats"]["litert_int8"]
    assert entry["status"] == "missed"
    assert entry["score"]["misses_by"] == pytest.approx(0.07)
    assert "missed (score +10.00%)" in (tmp_path / "m" / "README.md").read_text()


def test_open_length_stays_open_in_the_float_file(tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    x = keras.Input((None, 2), name="series")
    model = keras.Model({"series": x}, {"y": keras.layers.LSTM(3)(x)})
    samples = {"series": np.random.default_rng(0).normal(size=(3, 6, 2)).astype("float32")}
    export(model, tmp_path / "m", formats=("litert", "litert_int8"), samples=samples)
    longer = np.random.default_rng(1).normal(size=(1, 11, 2)).astype("float32")
    file = str(tmp_path / "m/litert/model_float32.tflite")
    got = Interpreter(file).get_signature_runner()(series=longer)["y"]
    assert relative(got, model({"series": longer})["y"].numpy()) <= 1e-5


def test_models_with_single_tensors_get_the_names_of_their_layers(tmp_path):
    x = keras.Input((3,), name="x")
    model = keras.Model(x, keras.layers.Dense(2, name="y")(x))
    report = export(model, tmp_path / "a", formats="saved_model", samples={"x": np.ones((2, 3))})
    assert set(report["inputs"]) == {"x"}
    assert set(report["outputs"]) == {"y"}
    plain = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2)])
    name = plain.inputs[0].name
    report = export(plain, tmp_path / "b", formats="keras", samples={name: np.ones((2, 3))})
    assert set(report["outputs"]) == {"output"}


def test_vocabularies_travel_with_the_saved_model(tmp_path):
    x = keras.Input((2,), dtype="string", name="words")
    lookup = keras.layers.StringLookup(vocabulary=["a", "b"])
    model = keras.Model({"words": x}, {"y": keras.layers.Embedding(3, 2)(lookup(x))})
    samples = {"words": np.array([["a", "b"], ["b", "z"]])}
    report = export(model, tmp_path / "m", formats=("saved_model", "keras"), samples=samples)
    assert report["formats"]["saved_model"]["relative_difference"] <= 1e-5


def test_the_card_can_be_followed(exported):
    """The Python of the card runs as it stands, in a process without TensorFlow."""
    folder, _, _, _ = exported
    text = (folder / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S).group(1)
    code += "import sys; assert 'tensorflow' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'forecast': (1, 4, 2)" in done.stdout
    assert len(code.splitlines()) <= 6
    for part in ("noise", "| mse | 1.25 |", "pytest", "## Licence", "(any, 9, 3)", ":predict"):
        assert part in text


def test_the_manifest_covers_every_file(exported):
    folder, _, _, _ = exported
    lines = (folder / "manifest.sha256").read_text().splitlines()
    listed = dict(reversed(line.split("  ", 1)) for line in lines)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(listed) == files - {"manifest.sha256"}
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_size_and_latency(dense, rows):
    size, latency = litert_size_and_latency(dense, rows)
    assert 0.5 < size < 10
    assert 0 < latency < 50


def test_onnx_without_the_extra_names_it(tmp_path, dense, rows, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'keras-seq\[onnx\]'"):
        export(dense, tmp_path / "m", formats="onnx", samples=rows)
    assert list(tmp_path.iterdir()) == []


def test_onnx_agrees_with_keras(tmp_path, mixed):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    model, samples = mixed
    report = export(model, tmp_path / "m", formats="onnx", samples=samples)
    entry = report["formats"]["onnx"]
    assert entry["relative_difference"] <= 1e-5
    assert set(entry["outputs"]) == {"forecast", "quantiles"}


def test_every_built_in_exporter_is_covered():
    built_in = {name for name in exporters.names() if exporters.origin(name) == "keras_seq"}
    assert built_in == {*LITERT, "litert_int8", "saved_model", "keras", "onnx"}


def test_a_relative_folder_is_that_of_now(tmp_path, monkeypatch):
    """The helping processes have been started already, in another folder."""
    inputs = keras.Input((4, 2), name="x")
    model = keras.Model({"x": inputs}, {"y": keras.layers.Dense(1)(inputs)})
    samples = {"x": np.ones((2, 4, 2), "float32")}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        export(model, "out", formats=("saved_model", "litert"), samples=samples)
        assert (tmp_path / name / "out" / "parity.json").is_file()
