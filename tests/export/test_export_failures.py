"""What happens when something goes wrong: one line, nothing left behind, nothing lost."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq.errors import UserError
from keras_seq.export import Exporter, ExportError, Run, export, saved_model
from keras_seq.export.parity import compare, judge
from keras_seq.export.signature import all_layers, inference_form
from keras_seq.export.workers import Worker, WorkerCrash, shared_worker
from keras_seq.registry import exporters


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture()
def broken():
    """An exporter that scales the weights on the way: the parity check has to see it."""

    def write(model, destination, samples):
        for weight in model.weights:
            weight.assign(weight * 1.001)
        files = saved_model.write(model, destination, samples)
        for weight in model.weights:
            weight.assign(weight / 1.001)
        return files

    exporters.add("broken", replace(saved_model, name="broken", write=write), origin="test")
    yield "broken"
    exporters.remove("broken")


def test_a_difference_raises_and_leaves_nothing(tmp_path, dense, rows, broken):
    with pytest.raises(ExportError, match=r"broken differs from the model by 0\.0"):
        export(dense, tmp_path / "a" / "b" / "m", formats=("keras", broken), samples=rows)
    assert list(tmp_path.iterdir()) == []


def test_a_difference_within_a_wider_tolerance_passes(tmp_path, dense, rows, broken):
    report = export(dense, tmp_path / "m", formats=broken, samples=rows, tolerance={"broken": 2e-3})
    assert report["formats"]["broken"]["relative_difference"] == pytest.approx(1e-3, rel=0.1)


def test_a_failed_overwrite_keeps_what_was_there(tmp_path, dense, rows, broken):
    export(dense, tmp_path / "m", formats=("saved_model", "keras"), samples=rows)
    before = tree(tmp_path)
    with pytest.raises(ExportError):
        export(dense, tmp_path / "m", formats=("keras", broken), samples=rows, overwrite=True)
    assert tree(tmp_path) == before


def test_a_failed_rename_puts_everything_back(tmp_path, dense, rows, monkeypatch):
    export(dense, tmp_path / "m", formats=("saved_model", "keras"), samples=rows)
    before = tree(tmp_path)
    real, calls = os.replace, []

    def fails_late(source, target):
        calls.append(target)
        if len(calls) == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", fails_late)
    keras.utils.set_random_seed(5)
    with pytest.raises(UserError, match="the disk is full"):
        export(
            dense, tmp_path / "m", formats=("saved_model", "keras"), samples=rows, overwrite=True
        )
    assert tree(tmp_path) == before


@pytest.mark.parametrize("where", ["write_text", "mkdtemp", "save_model"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, dense, rows, monkeypatch, where):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "write_text":
        monkeypatch.setattr(Path, "write_text", full)
    elif where == "mkdtemp":
        monkeypatch.setattr("keras_seq.export.tempfile.mkdtemp", full)
    else:
        monkeypatch.setattr(keras.saving, "save_model", full)
    with pytest.raises(UserError, match="the disk is full") as caught:
        export(dense, tmp_path / "a" / "m", formats="keras", samples=rows)
    assert ".exporting-" not in str(caught.value), "the hidden folder is no business of the user"
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_version_that_is_there(tmp_path, dense, rows):
    first = export(dense, tmp_path / "m", formats=("saved_model", "keras"), samples=rows)
    for formats in ("saved_model", "keras"):
        with pytest.raises(UserError, match="raise the version"):
            export(dense, tmp_path / "m", formats=formats, samples=rows)
    # A new version stands beside the old one; what is not exported again keeps its line.
    second = export(dense, tmp_path / "m", formats="saved_model", samples=rows, version=2)
    assert {path.name for path in (tmp_path / "m").iterdir() if path.name.isdigit()} == {"1", "2"}
    assert second["formats"]["saved_model"]["version"] == 2
    assert second["formats"]["keras"] == first["formats"]["keras"]
    manifest = (tmp_path / "m" / "manifest.sha256").read_text()
    assert "  1/saved_model.pb" in manifest
    assert "  2/saved_model.pb" in manifest
    again = export(dense, tmp_path / "m", formats="saved_model", samples=rows, overwrite=True)
    assert again["formats"]["saved_model"]["version"] == 1
    assert (tmp_path / "m" / "2" / "saved_model.pb").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, dense, rows):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UserError, match="not an export"):
        export(dense, tmp_path, formats="keras", samples=rows, overwrite=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        export(dense, tmp_path / "file", formats="keras", samples=rows)
    assert tree(tmp_path) == {"README.md": b"mine", "file": b"mine"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": "savedmodel"}, "nearest name is 'saved_model'"),
        ({"formats": ()}, "no format"),
        ({"version": 0}, "from 1 upwards"),
        ({"version": True}, "from 1 upwards"),
        ({"samples": {"other": np.ones((2, 4, 2))}}, r"takes \['series'\]"),
        ({"samples": {"series": np.ones((2, 5, 2))}}, r"the model takes \(any, 4, 2\)"),
        ({"samples": {"series": np.ones((0, 4, 2))}}, "at least one sample"),
        ({"samples": {"series": np.full((2, 4, 2), "a")}}, "float32 is wanted"),
        ({"samples": {"series": np.full((2, 4, 2), np.nan)}}, "not finite on the samples"),
        ({"tolerance": {"onnx": 1.0}}, "not among the formats"),
        ({"tolerance": -1.0}, "from 0 upwards"),
    ],
)
def test_wrong_options(tmp_path, dense, rows, change, message):
    options = {"formats": "keras", "samples": rows} | change
    with pytest.raises(UserError, match=message):
        export(dense, tmp_path / "m", **options)
    assert list(tmp_path.iterdir()) == []


def test_not_a_model(tmp_path):
    with pytest.raises(UserError, match=r"wants a keras\.Model"):
        export("model.keras", tmp_path / "m", samples={})


def test_a_converter_that_crashes_names_model_and_format(tmp_path, dense, rows, monkeypatch):
    worker = shared_worker("converter")
    real = Worker.request

    def dies(self, message, **options):
        if message["operation"] == "convert":
            os.kill(self.pid, signal.SIGSEGV)
        return real(self, message, **options)

    export(dense, tmp_path / "before", formats="litert", samples=rows)
    monkeypatch.setattr(Worker, "request", dies)
    with pytest.raises(ExportError, match=r"'dense'.*litert float32.*SIGSEGV"):
        export(dense, tmp_path / "m", formats="litert", samples=rows)
    assert worker.pid is None
    monkeypatch.undo()
    report = export(dense, tmp_path / "m", formats="litert", samples=rows)
    assert report["formats"]["litert"]["status"] == "passed"


def test_an_operator_that_litert_has_not_is_named(tmp_path):
    x = keras.Input((3,), name="x")
    model = keras.Model({"x": x}, {"y": keras.ops.erfinv(keras.ops.tanh(x))}, name="special")
    with pytest.raises(ExportError, match=r"'special'.*litert float32.*Erfinv") as caught:
        export(model, tmp_path / "m", formats="litert", samples={"x": np.ones((1, 3)) / 2})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_takes_too_long_is_stopped(tmp_path):
    worker = Worker("keras_seq.export.runner")
    with pytest.raises(WorkerCrash, match="no answer within 0 s"):
        worker.request({"operation": "ping"}, timeout=0)
    assert worker.pid is None
    assert worker.request({"operation": "ping"})["tensorflow_loaded"] is False
    worker.close()


def test_a_module_that_cannot_start_says_why():
    worker = Worker("keras_seq.export.no_such_module")
    with pytest.raises(WorkerCrash, match="No module named"):
        worker.request({"operation": "ping"})
    worker.close()


def test_the_runner_has_neither_tensorflow_nor_keras(exported):
    answer = shared_worker("runner").request({"operation": "ping"})
    assert answer == {"tensorflow_loaded": False, "keras_loaded": False}


def test_importing_the_package_loads_no_tensorflow():
    code = (
        "import sys, keras_seq.export; "
        "assert not {'tensorflow', 'keras'} & set(sys.modules); "
        "import keras_seq; assert callable(keras_seq.export)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert callable(keras_seq.export)


def test_a_script_without_a_main_guard_runs_once(tmp_path):
    """The workers are not made by multiprocessing, which would run the script again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, warnings\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "print('started')\n"
        "from keras_seq.export.workers import shared_worker\n"
        "print(shared_worker('runner').request({'operation': 'ping'}))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.count("started") == 1


def test_compare_by_hand():
    found = compare(
        {"a": np.array([[1.0, -8.0]]), "b": np.array([3, 4]), "c": np.array([np.nan, 1.0])},
        {"a": np.array([[1.0, -6.0]]), "b": np.array([3, 5]), "c": np.array([np.nan, 1.0])},
    )
    assert found["a"]["largest_difference"] == 2.0
    assert found["a"]["scale"] == 8.0
    assert found["a"]["relative"] == 0.25
    assert found["a"]["rms_relative"] == pytest.approx(np.sqrt(4 / 65))
    assert found["b"]["relative"] == 0.25
    assert found["c"]["relative"] == 0.0
    lost = compare({"a": np.array([1.0, 2.0])}, {"a": np.array([1.0, np.nan])})
    assert lost["a"]["relative"] == np.inf
    tiny = compare({"a": np.zeros(2)}, {"a": np.full(2, 1e-6)})
    assert tiny["a"]["relative"] == pytest.approx(1.0)
    with pytest.raises(ExportError, match="outputs are"):
        compare({"a": np.ones(1)}, {"b": np.ones(1)})
    with pytest.raises(ExportError, match="has shape"):
        compare({"a": np.ones((1, 2))}, {"a": np.ones((1, 3))})


def test_a_wrong_batch_size_is_seen():
    mine = Exporter(name="mine", path="mine/m", write=print, run=print)
    run = Run(outputs={"y": np.ones(3)}, batches={1: {"y": np.array([1.5])}})
    with pytest.raises(ExportError, match=r"mine differs from the model by 0\.5"):
        judge(mine, {"y": np.ones(3)}, run)


@pytest.mark.parametrize("value", [np.nan, -1.0])
def test_a_useless_quantised_file_is_an_error(value):
    mine = Exporter(name="mine", path="mine/m", write=print, run=print, strict=False)
    assert judge(mine, {"y": np.ones(3)}, Run(outputs={"y": np.full(3, 1.4)}))["status"] == "missed"
    with pytest.raises(ExportError, match="of no use"):
        judge(mine, {"y": np.ones(3)}, Run(outputs={"y": np.full(3, value)}))


def test_inference_form_finds_inner_layers_and_puts_them_back():
    inner = keras.Sequential([keras.Input((4, 2)), keras.layers.GRU(2)])
    model = keras.Sequential([keras.layers.Bidirectional(keras.layers.LSTM(2)), inner])
    recurrent = [layer for layer in all_layers(model) if hasattr(layer, "use_cudnn")]
    assert len(recurrent) >= 3
    before = [(layer.unroll, layer.use_cudnn) for layer in recurrent]
    with pytest.raises(RuntimeError), inference_form(model, unroll=True):
        assert all(layer.unroll is True and layer.use_cudnn is False for layer in recurrent)
        raise RuntimeError
    assert [(layer.unroll, layer.use_cudnn) for layer in recurrent] == before
