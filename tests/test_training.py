"""Training goes on exactly where it was killed, and keeps the best weights."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_seq.errors import UserError
from keras_seq.training import ArrayData, fit, write_atomically

# Everything that remembers something: dropout and recurrent dropout (seed generators), batch
# normalisation (moving averages), AdamW (slots), the schedule (iterations), early stopping.
SCRIPT = """
import os, sys, signal
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np, tensorflow as tf
from keras_seq.training import fit
folder, kill_at = sys.argv[1], int(sys.argv[2])
tf.config.experimental.enable_op_determinism()
keras.utils.set_random_seed(7)
r = np.random.default_rng(0)
x = r.normal(size=(160, 6, 3)).astype("float32"); y = x.sum((1, 2))[:, None]
model = keras.Sequential([keras.Input((6, 3)), keras.layers.LSTM(6, dropout=.1,
    recurrent_dropout=.1), keras.layers.BatchNormalization(), keras.layers.Dropout(.3),
    keras.layers.Dense(1)])
class Kill(keras.callbacks.Callback):
    seen = 0
    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == kill_at: os.kill(os.getpid(), signal.SIGKILL)
result = fit(model, (x, y), (x[:32], y[:32]), epochs=3, batch_size=16, learning_rate=1e-2,
             run_dir=folder, checkpoint_seconds=0.0, callbacks=[Kill()], metrics=["mae"])
np.savez(folder + "/end.npz", *[np.asarray(v) for v in model.variables],
         *[np.asarray(v) for v in model.optimizer.variables],
         np.array([[row["loss"], row["val_loss"], row["mae"]] for row in result.history]))
"""


def end_of(folder, *kills: int) -> list[np.ndarray]:
    folder.mkdir()
    for kill_at in (*kills, 0):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(folder), str(kill_at)],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == (-9 if kill_at else 0), done.stderr
    with np.load(folder / "end.npz") as file:
        return [file[name] for name in file.files]


@pytest.mark.slow
def test_killed_runs_end_bit_equal(tmp_path):
    whole = end_of(tmp_path / "whole")
    # In the middle of an epoch, then once more in the middle of the next.
    killed = end_of(tmp_path / "killed", 7, 9)
    assert len(whole) == len(killed)
    for ours, theirs in zip(whole, killed, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def small(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def line(rows: int = 64) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(rows, 2)).astype("float32")
    return x, (x @ np.array([[1.0], [-2.0]], "float32") + 0.5)


def test_it_finds_the_line():
    model = small()
    result = fit(model, line(), line(32), epochs=60, batch_size=16, learning_rate=0.1,
                 weight_decay=0.0)  # fmt: skip
    np.testing.assert_allclose(model.get_weights()[0], [[1.0], [-2.0]], atol=1e-2)
    np.testing.assert_allclose(model.get_weights()[1], [0.5], atol=1e-2)
    assert result.stopped in ("epochs", "patience")


def test_the_best_epoch_is_what_is_left():
    """With a learning rate that ruins the model, the best weights come back."""
    x, y = line()
    model = small()
    result = fit(model, (x, y), (x, y), epochs=12, batch_size=16, learning_rate=3.0, patience=None)
    left = float(np.mean((model.predict(x, verbose=0) - y) ** 2))
    losses = [row["val_loss"] for row in result.history]
    assert result.best_epoch == int(np.argmin(losses)) + 1
    np.testing.assert_allclose(left, min(losses), rtol=1e-5)


def test_patience_ends_it():
    x, y = line()
    result = fit(small(), (x, y), (x, -y), epochs=50, batch_size=64, learning_rate=0.1, patience=2)
    assert result.stopped == "patience"
    assert len(result.history) < 50
    assert len(result.history) - result.best_epoch == 2


def test_a_loss_that_is_not_finite_ends_it():
    x, y = line()
    y[3] = np.nan
    result = fit(small(), (x, y), epochs=5, batch_size=16)
    assert result.stopped == "not finite"
    assert len(result.history) == 1


def test_finished_runs_are_not_trained_again(tmp_path):
    first = fit(small(), line(), epochs=2, run_dir=tmp_path)
    model = small(seed=5)
    second = fit(model, line(), epochs=2, run_dir=tmp_path)
    assert second.history == first.history
    assert second.steps == first.steps


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    fit(small(), line(), epochs=1, run_dir=tmp_path)
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    with pytest.raises(UserError, match="another model"):
        fit(other, line(), epochs=1, run_dir=tmp_path)


def test_a_truncated_checkpoint_is_refused(tmp_path):
    fit(small(), line(), epochs=1, run_dir=tmp_path)
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="delete it"):
        fit(small(), line(), epochs=1, run_dir=tmp_path)


def test_no_examples():
    with pytest.raises(UserError, match="no training example"):
        fit(small(), (np.zeros((0, 2)), np.zeros((0, 1))))


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_atomically(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keras_seq.training.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_array_data_is_a_function_of_the_step():
    data = ArrayData(np.arange(10), np.arange(10))
    whole = [x.numpy().tolist() for x, _ in data.dataset(4, seed=1, steps=7)]
    rest = [x.numpy().tolist() for x, _ in data.dataset(4, seed=1, start_step=4, steps=3)]
    assert whole[4:] == rest
    assert sorted(row for batch in whole[:3] for row in batch) == list(range(10))
    assert sorted(row for batch in whole[3:6] for row in batch) == list(range(10))
    assert whole[:3] != whole[3:6]
