"""Model files: whole or not at all, and one line when they cannot be read."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_seq import __version__
from keras_seq.errors import UserError
from keras_seq.saving import load, read_metadata, save

ROOT = Path(__file__).parents[2]


@pytest.fixture()
def model():
    x = keras.Input((3,), name="x")
    return keras.Model({"x": x}, {"y": keras.layers.Dense(2)(x)})


def with_header(path: Path, **changes) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(members["keras_seq.json"]) | changes
    members["keras_seq.json"] = json.dumps(header).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_round_trip_in_a_fresh_process(tmp_path, model):
    path = save(model, tmp_path / "new" / "model.keras", {"task": "toy", "columns": ["a"]})
    assert [p.name for p in path.parent.iterdir()] == ["model.keras"]
    rows = np.arange(6, dtype="float32").reshape(2, 3)
    expected = model({"x": rows})["y"].numpy()
    np.save(tmp_path / "expected.npy", expected)
    code = f"""
import numpy as np, keras_seq
from keras_seq.saving import read_metadata
assert read_metadata({str(path)!r}) == {{"task": "toy", "columns": ["a"]}}
model = keras_seq.load({str(path)!r})
rows = np.arange(6, dtype="float32").reshape(2, 3)
expected = np.load({str(tmp_path / "expected.npy")!r})
np.testing.assert_array_equal(model({{"x": rows}})["y"], expected)
import keras, keras_seq.layers
plain = keras.saving.load_model({str(path)!r})
np.testing.assert_array_equal(plain({{"x": rows}})["y"], model({{"x": rows}})["y"])
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_plain_keras_files_open_too(tmp_path, model):
    model.save(tmp_path / "plain.keras")
    assert read_metadata(tmp_path / "plain.keras") == {}
    assert load(tmp_path / "plain.keras").count_params() == 8


def test_compiled_models_can_be_trained_on(tmp_path, model):
    model.compile("adam", {"y": "mse"})
    model.train_on_batch({"x": np.ones((2, 3))}, {"y": np.ones((2, 2))})
    path = save(model, tmp_path / "m.keras")
    assert getattr(load(path), "optimizer", None) is None
    again = load(path, compile=True)
    assert int(again.optimizer.iterations) == 1


@pytest.mark.parametrize("keep", [0, 10, 200, -40])
def test_a_truncated_file(tmp_path, model, keep):
    path = save(model, tmp_path / "m.keras")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"not a whole \.keras file") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_flipped_byte(tmp_path, model):
    path = save(model, tmp_path / "m.keras")
    content = bytearray(path.read_bytes())
    position = content.index(b"Functional")
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load(path)


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "m.keras")
    with pytest.raises(UserError, match="is a folder"):
        load(tmp_path)


def test_not_a_model_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("other.txt", "x")
    with pytest.raises(UserError, match=r"no config\.json"):
        load(tmp_path / "m.keras")


def test_other_versions_say_which_and_what_to_do(tmp_path, model):
    path = save(model, tmp_path / "m.keras")
    with_header(path, format=9, keras_seq="7.1.0")
    with pytest.raises(
        UserError, match=rf"keras_seq 7\.1\.0 in file format 9.*{__version__}.*upgrade"
    ):
        load(path)
    with_header(path, format=1, keras_seq="7.1.0")
    with pytest.raises(UserError, match=r"install keras_seq 7\.x"):
        load(path)
    with pytest.raises(UserError, match=r"install keras_seq 7\.x"):
        read_metadata(path)


def test_an_unknown_class_says_what_to_import(tmp_path):
    class Twice(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    Twice.__module__ = "my_layers"
    keras.saving.register_keras_serializable(package="mine")(Twice)
    x = keras.Input((3,), name="x")
    path = save(keras.Model({"x": x}, {"y": Twice()(x)}), tmp_path / "m.keras")
    assert load(path).count_params() == 0
    # What a fresh process knows that has not imported the module.
    del keras.saving.get_custom_objects()["mine>Twice"]
    with pytest.raises(UserError, match=r"the class 'mine>Twice'.*\(my_layers\)") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_keeps_the_old_file(tmp_path, model, monkeypatch):
    path = save(model, tmp_path / "m.keras", {"turn": 1})
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(UserError, match="disk is full"):
        save(model, path, {"turn": 2})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.keras"]


def test_wrong_names_and_metadata(tmp_path, model):
    with pytest.raises(UserError, match=r"ends in \.keras"):
        save(model, tmp_path / "m.h5")
    with pytest.raises(UserError, match="JSON"):
        save(model, tmp_path / "m.keras", {"bad": object()})
    assert list(tmp_path.iterdir()) == []
