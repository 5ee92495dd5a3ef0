"""Training goes on exactly where it was killed, and keeps the best weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_seq.data import PairBatches, TokenStore
from keras_seq.errors import UserError
from keras_seq.files import write_atomically
from keras_seq.losses import MaskedCrossentropy
from keras_seq.training import (
    ArrayData,
    fit,
    forget,
    learning_rates,
    steps_of_epoch,
)

# Runs a script once for each folder and step at which it is killed, 0 for not at all: each in a
# process of its own, forked when everything is imported and before TensorFlow has begun anything.
FORKS = """
import json, os, sys, signal
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np, tensorflow as tf
from keras_seq.data import PairBatches, TokenStore
from keras_seq.losses import MaskedCrossentropy
from keras_seq.training import fit
script, runs = json.load(sys.stdin)
for folder, kill_at in runs:
    child = os.fork()
    if not child:
        exec(script)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (-signal.SIGKILL if kill_at else 0), (folder, kill_at, status)
"""


# Everything that remembers something: dropout and recurrent dropout (seed generators), batch
# normalisation (moving averages), AdamW (slots), the schedule (iterations), early stopping.
SCRIPT = """
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


# What translation needs, all at once: batches by tokens with ids drawn anew in each pass, several
# for one update (an epoch has no whole number of updates), a schedule, the mean of the last
# epochs, and a score that decides.
PAIRS = """
tf.config.experimental.enable_op_determinism()
keras.utils.set_random_seed(7)
r = np.random.default_rng(0)
rows = [r.integers(5, 20, n) for n in r.integers(2, 12, 60)]
store = TokenStore.from_rows(rows)
def draw(seed, number):
    found = TokenStore.from_rows([np.roll(row, number)[: len(row) - number % 2] for row in rows])
    return found, found
data = PairBatches(store, store, batch_tokens=120, segment=draw)
source, tokens = (keras.Input((None,), name=n, dtype="int32") for n in ("source", "tokens"))
embed = keras.layers.Embedding(20, 6)
x = keras.layers.Dropout(.2)(embed(source) + 0)
x = keras.ops.mean(x, 1, keepdims=True) + embed(tokens)
model = keras.Model({"source": source, "tokens": tokens}, keras.layers.Dense(20)(x))
seen = []
class Kill(keras.callbacks.Callback):
    seen = 0
    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == kill_at: os.kill(os.getpid(), signal.SIGKILL)
steps = data.steps_of_pass(1, 3)
assert steps % 3, steps
result = fit(model, data, PairBatches(store, store), epochs=4, batch_size=16, seed=3,
             learning_rate=1e-2, loss=MaskedCrossentropy(), run_dir=folder, checkpoint_seconds=0.0,
             callbacks=[Kill()], accumulate=3, schedule="inverse_sqrt", warmup_steps=4,
             average_last=2, monitor="spread", lower_is_better=False,
             evaluate=lambda m: {"spread": np.std(m.get_weights()[0])})
assert result.steps == 4 * steps, (result.steps, steps)
np.savez(folder + "/end.npz", *[np.asarray(v) for v in model.variables],
         *[np.asarray(v) for v in model.optimizer.variables],
         np.array([[row["loss"], row["val_loss"], row["val_spread"]] for row in result.history]))
"""


def ends_of(script: str, folder: Path, *kills: int) -> tuple[list[np.ndarray], ...]:
    """What is left of a run as a whole, and of one that was killed and went on."""
    whole, killed = folder / "whole", folder / "killed"
    whole.mkdir()
    killed.mkdir()
    runs = [(str(whole), 0), *((str(killed), kill_at) for kill_at in (*kills, 0))]
    done = subprocess.run(
        [sys.executable, "-c", FORKS], input=json.dumps([script, runs]),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ends = []
    for path in (whole, killed):
        with np.load(path / "end.npz") as file:
            ends.append([file[name] for name in file.files])
    return tuple(ends)


@pytest.mark.slow
def test_killed_runs_end_bit_equal(tmp_path):
    # In the middle of an epoch, then once more in the middle of the next.
    whole, killed = ends_of(SCRIPT, tmp_path, 7, 9)
    assert len(whole) == len(killed)
    for ours, theirs in zip(whole, killed, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_killed_runs_of_pairs_end_bit_equal(tmp_path):
    # In the first epoch, in the second with gradients waiting, and in the last.
    whole, killed = ends_of(PAIRS, tmp_path, 2, 15, 25)
    assert len(whole) == len(killed)
    for ours, theirs in zip(whole, killed, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    left = sorted(p.name for p in (tmp_path / "killed" / "last").iterdir())
    assert left == ["epoch_3.npz", "epoch_4.npz"]
    forget(tmp_path / "killed")
    assert {p.name for p in (tmp_path / "killed").iterdir()} == {"end.npz", "history.csv"}


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

    monkeypatch.setattr("keras_seq.files.os.fsync", full)
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


# ---- the learning rate --------------------------------------------------------------------------


def test_inverse_square_root_by_hand():
    """The formula of Vaswani et al. 2017, whose width and factor are one number: the highest."""
    rate = learning_rates("inverse_sqrt", 0.002, updates=999, warmup=40)
    n = np.arange(1, 400)
    factor = 0.002 * 40**0.5
    wanted = factor * np.minimum(n**-0.5, n * 40.0**-1.5)
    found = [float(rate(step)) for step in range(399)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert np.argmax(found) == 39 and found[39] == pytest.approx(0.002)
    assert found[159] == pytest.approx(0.001)  # four times as many updates: half


def test_the_other_schedules_by_hand():
    constant = learning_rates("constant", 0.5, updates=10, warmup=4)
    assert [float(constant(n)) for n in (0, 1, 3, 4, 900)] == [0.125, 0.25, 0.5, 0.5, 0.5]
    cosine = learning_rates("cosine", 1.0, updates=12, warmup=2)
    found = [float(cosine(n)) for n in (0, 1, 2, 7, 12, 20)]
    np.testing.assert_allclose(found, [0.5, 0.75, 1, 0.5, 0, 0], atol=1e-6)
    with pytest.raises(UserError, match="choose one of cosine, inverse_sqrt, constant"):
        learning_rates("linear", 1.0, updates=9)


@pytest.mark.parametrize("schedule", ["cosine", "inverse_sqrt", "constant"])
def test_a_schedule_counts_updates_and_survives_its_config(schedule):
    alone = learning_rates(schedule, 0.1, updates=20, warmup=4)
    rate = learning_rates(schedule, 0.1, updates=20, warmup=4, accumulate=3)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(rate))
    for batch in (0, 1, 2, 3, 11, 12, 40, 59):
        assert float(rate(batch)) == float(again(batch)) == float(alone(batch // 3))


def test_the_warm_up_is_a_share_or_a_number():
    def rates(**options):
        model = small()
        fit(
            model, line(), epochs=4, batch_size=8, learning_rate=0.2, schedule="constant", **options
        )
        schedule = model.optimizer._learning_rate
        return [round(float(schedule(n)), 4) for n in range(0, 32, 4)]

    assert rates(warmup=0.25) == [0.025, 0.125, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]
    assert rates(warmup_steps=16) == [0.0125, 0.0625, 0.1125, 0.1625, 0.2, 0.2, 0.2, 0.2]
    with pytest.warns(UserWarning, match=r"warm-up of 64 updates is longer .*\(32\).* gets to 0.1"):
        rates(warmup_steps=64)


# ---- several batches for one update -------------------------------------------------------------


def trained(batch_size: int, accumulate: int, data=None, make=small, **options) -> keras.Model:
    model = make()
    fit(model, data or line(96), line(32) if data is None else None, epochs=3,
        batch_size=batch_size, accumulate=accumulate, learning_rate=0.05, seed=5,
        warmup_steps=3, **options)  # fmt: skip
    return model


@pytest.mark.parametrize("options", [
    {"schedule": "cosine"},
    {"schedule": "inverse_sqrt", "averaging": 0.8, "weight_decay": 0.1},
    {"schedule": "constant", "clipnorm": 0.05, "average_last": 2},
])  # fmt: skip
def test_batches_together_are_one_large_batch(options):
    """24 rows at once, and 3 times 8: schedule, clipping, averages and decay by the update."""
    whole = trained(24, 1, **options)
    parts = trained(8, 3, **options)
    for ours, theirs in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)
    other = trained(8, 1, **options)
    assert np.abs(other.get_weights()[0] - parts.get_weights()[0]).max() > 1e-3


def reader() -> keras.Model:
    """An embedding's gradient is sparse: it is accumulated too."""
    keras.utils.set_random_seed(0)
    ids = keras.Input((None,), dtype="int32")
    return keras.Model(ids, keras.layers.Dense(9)(keras.layers.Embedding(9, 4)(ids)))


def test_masked_losses_are_averaged_batch_by_batch():
    """Each batch counts alike: equal to one large batch where all have as many labels."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (48, 6)).astype("int32")
    y = rng.integers(1, 10, (48, 6)).astype("int32")
    y[:, 4:] = 0
    options = {"make": reader, "loss": MaskedCrossentropy()}
    whole = trained(24, 1, (x, y), **options)
    parts = trained(8, 3, (x, y), **options)
    for ours, theirs in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)
    # One update, by plain gradients of two batches of which one has many more labels.
    y[:8, 1:] = 0
    model = reader()
    before = [v.numpy() for v in model.trainable_variables]
    wanted = []
    for rows in (slice(0, 8), slice(8, 16)):
        with tf.GradientTape() as tape:
            loss = MaskedCrossentropy()(y[rows], model(x[rows]))
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        wanted.append([tf.convert_to_tensor(g) for g in gradients])

    class InOrder(ArrayData):
        def dataset(self, batch_size, *, seed=None, **options):
            return super().dataset(batch_size, **options)

    fit(model, InOrder(x[:16], y[:16]), epochs=1, batch_size=8, accumulate=2, clipnorm=None,
        weight_decay=0.0, learning_rate=0.1, warmup_steps=1, schedule="constant",
        loss=MaskedCrossentropy())  # fmt: skip
    for start, end, one, two in zip(before, model.trainable_variables, *wanted, strict=True):
        mean = (one.numpy() + two.numpy()) / 2
        # The first update of Adam: gradient / (|gradient| + epsilon), with its corrected moments.
        np.testing.assert_allclose(
            end.numpy() - start, -0.1 * mean / (np.abs(mean) + 1e-7 / 0.001**0.5), atol=1e-3
        )


# ---- the weights that are judged ----------------------------------------------------------------


class Ends(keras.callbacks.Callback):
    """What training had at the end of each epoch's last step."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last, self.found, self.judged = last, [], []

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.last:
            self.found.append([np.array(v) for v in self.model.trainable_variables])

    def on_epoch_end(self, epoch, logs=None):
        self.judged.append(self.model.get_weights())


def test_the_mean_of_the_last_epochs():
    ends = Ends(last=3)
    model = small()
    x, y = line(64)
    result = fit(model, (x, y), (x, y), epochs=6, batch_size=16, learning_rate=0.05,
                 average_last=3, patience=None, callbacks=[ends])  # fmt: skip
    for epoch in range(6):
        window = ends.found[max(0, epoch - 2) : epoch + 1]
        mean = [np.mean(each, axis=0) for each in zip(*window, strict=True)]
        for ours, theirs in zip(ends.judged[epoch], mean, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
        loss = np.mean((x @ mean[0] + mean[1] - y) ** 2)
        assert result.history[epoch]["val_loss"] == pytest.approx(loss, rel=1e-4)
    best = result.best_epoch - 1
    for ours, theirs in zip(model.get_weights(), ends.judged[best], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert result.best_epoch == 6  # it learns to the end: the mean of epochs 4, 5 and 6
    # What training goes on from is not the mean.
    assert np.abs(ends.found[5][0] - ends.judged[5][0]).max() > 1e-4


def test_missing_weights_of_an_epoch_are_told(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    options = {"epochs": 4, "run_dir": tmp_path, "average_last": 2}
    with pytest.raises(KeyboardInterrupt):
        fit(small(), line(), line(32), callbacks=[Stop()], **options)
    (tmp_path / "last" / "epoch_2.npz").unlink()
    with pytest.raises(UserError, match="weights of epoch 2 cannot be read"):
        fit(small(), line(), line(32), **options)


@pytest.mark.parametrize("how", [{"averaging": 0.9}, {"average_last": 2}, {}])
def test_a_score_decides_and_is_of_the_weights_that_are_kept(how):
    """The score falls from epoch 2 on: epoch 2 is kept, and patience counts from there."""
    seen = []

    def evaluate(net):
        seen.append(net.get_weights())
        return {"made_up": [0.1, 0.7, 0.6, 0.2, 0.5, 0.0][len(seen) - 1]}

    model = small()
    result = fit(model, line(), line(32), epochs=6, batch_size=16, learning_rate=0.05, patience=3,
                 monitor="made_up", lower_is_better=False, evaluate=evaluate, **how)  # fmt: skip
    assert (result.best_epoch, result.best, result.stopped) == (2, 0.7, "patience")
    assert [row["val_made_up"] for row in result.history] == [0.1, 0.7, 0.6, 0.2, 0.5]
    for ours, theirs in zip(model.get_weights(), seen[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_loss_decides_between_equal_scores():
    result = fit(small(), line(), line(32), epochs=5, batch_size=16, learning_rate=0.05,
                 patience=2, monitor="made_up", lower_is_better=False,
                 evaluate=lambda net: {"made_up": 0.0})  # fmt: skip
    losses = [row["val_loss"] for row in result.history]
    assert losses == sorted(losses, reverse=True)
    assert result.best_epoch == len(losses) == 5


def test_a_metric_can_decide():
    model = small()
    result = fit(model, line(), line(32), epochs=3, metrics=["mae"], monitor="mae")
    assert result.best == min(row["val_mae"] for row in result.history)
    with pytest.raises(
        UserError, match=r"there is no val_accuracy .* an epoch gives loss, val_loss"
    ):
        fit(small(), line(), line(32), epochs=3, monitor="accuracy")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "accumulate is 0: give at least 1"),
        ({"average_last": -1}, "average_last is -1"),
        ({"warmup_steps": -1}, "warmup_steps is -1"),
        ({"averaging": 0.9, "average_last": 2}, "give one of them"),
        ({"schedule": "linear"}, "the schedule is 'linear'"),
    ],
)
def test_what_fit_refuses(options, message):
    with pytest.raises(UserError, match=message):
        fit(small(), line(), **options)


def test_an_epoch_of_batches_by_tokens_is_one_pass():
    store = TokenStore.from_rows([[5] * 7] * 10)
    data = PairBatches(store, store, batch_tokens=64)
    assert steps_of_epoch(data, 2) == 3
    assert steps_of_epoch(data, 2, 2) == 2
    assert steps_of_epoch(PairBatches(store, store), 2) == 100
    source, tokens = (keras.Input((None,), name=n, dtype="int32") for n in ("source", "tokens"))
    model = keras.Model({"source": source, "tokens": tokens}, reader()(tokens) + 0.0)
    assert fit(model, data, epochs=2, loss=MaskedCrossentropy()).steps == 6
