"""Training: one `fit` for every model, by seed, that goes on exactly where it was killed.

`model.fit` of Keras does the work. What is added: data that is a pure function of the step, a
warm-up and cosine schedule, early stopping on the validation part with the best weights kept, and
one state file, written atomically, that holds all that the next step depends on: weights, slots
of the optimizer, seed generators, running metrics and the early-stopping state. A run that is
killed and started again ends with the same weights, bit by bit, as one that was not (CPU).
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from keras_seq.errors import UserError


class StepData(Protocol):
    """Training data whose batch number k is a pure function of k (`keras_seq.data.Windows`)."""

    def __len__(self) -> int:
        """Returns the number of examples."""

    def dataset(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        start_step: int = 0,
        steps: int | None = None,
    ) -> tf.data.Dataset:
        """Returns batches from `start_step` on; shuffled by `seed`, in order without one."""


class ArrayData:
    """Arrays (or dicts of arrays) as `StepData`.

    Args:
        x: Inputs, an array or a dict of arrays, first axis the examples.
        y: Targets, likewise.

    Example:
        >>> import numpy as np
        >>> data = ArrayData(np.arange(5.0), np.arange(5.0))
        >>> [len(x) for x, y in data.dataset(2)]
        [2, 2, 1]
    """

    def __init__(self, x: Any, y: Any) -> None:
        self.x = keras.tree.map_structure(np.asarray, x)
        self.y = keras.tree.map_structure(np.asarray, y)
        self._length = len(keras.tree.flatten(self.x)[0])

    def __len__(self) -> int:
        """Returns the number of examples."""
        return self._length

    def dataset(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        start_step: int = 0,
        steps: int | None = None,
    ) -> tf.data.Dataset:
        """Returns batches from a step on.

        Args:
            batch_size: Examples in a batch; the last one of a pass may be smaller.
            seed: Shuffles each pass in its own order; None keeps the order.
            start_step: The first batch.
            steps: How many batches; None is one pass without a seed, endless with one.
        """
        per_pass = math.ceil(len(self) / batch_size)
        if steps is None:
            steps = per_pass if seed is None else 2**40

        def batches() -> Any:
            order, of = np.arange(len(self)), -1
            for step in range(start_step, start_step + steps):
                number, batch = divmod(step, per_pass)
                if seed is not None and number != of:
                    order, of = np.random.default_rng([seed, number]).permutation(len(self)), number
                rows = order[batch * batch_size : (batch + 1) * batch_size]
                yield keras.tree.map_structure(lambda a, rows=rows: a[rows], (self.x, self.y))

        signature = keras.tree.map_structure(
            lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), (self.x, self.y)
        )
        found = tf.data.Dataset.from_generator(batches, output_signature=signature)
        # Without a known number Keras takes the end of the data for a mishap, and warns.
        return found.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2)


def epoch_steps(examples: int, batch_size: int, most: int = 500) -> int:
    """Returns how many steps an epoch has: one pass over the data, but at least 100.

    What is short is read again, so that the same epochs train on 200 windows and on 200,000.

    Args:
        examples: How many there are.
        batch_size: Examples in a batch.
        most: The most steps.

    Example:
        >>> epoch_steps(200, 64), epoch_steps(8209, 64), epoch_steps(10**6, 64)
        (100, 129, 500)
    """
    return min(max(math.ceil(examples / batch_size), 100), most)


@dataclass
class FitResult:
    """What a training run came to.

    Args:
        history: One dict an epoch: ``epoch``, ``seconds``, ``loss``, ``val_loss`` ...
        best_epoch: The epoch (from 1) whose weights the model has now; 0 if none was better than
            the weights at the start.
        best: The monitored value there.
        stopped: Why it ended: ``epochs``, ``patience`` or ``seconds``.
        steps: Training steps done.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best: float = math.inf
    stopped: str = "epochs"
    steps: int = 0

    @property
    def seconds(self) -> float:
        """Seconds of all epochs together, validation included."""
        return float(sum(row["seconds"] for row in self.history))

    @property
    def seconds_per_epoch(self) -> float:
        """The median over the epochs."""
        return float(np.median([row["seconds"] for row in self.history])) if self.history else 0.0


def fit(
    model: keras.Model,
    train: StepData | tuple[Any, Any],
    validation: StepData | tuple[Any, Any] | None = None,
    *,
    loss: Any = "mse",
    metrics: Any = None,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    warmup: float = 0.05,
    weight_decay: float = 1e-4,
    clipnorm: float | None = 1.0,
    patience: int | None = 5,
    averaging: float = 0.0,
    steps_per_epoch: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    run_dir: str | Path | None = None,
    checkpoint_seconds: float = 20.0,
    jit_compile: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    prepare_targets: Callable[[Any], Any] | None = None,
    verbose: int = 0,
) -> FitResult:
    """Trains a model; the best weights by validation loss are in it afterwards.

    AdamW with a linear warm-up and a cosine decay to zero over the planned epochs. With `run_dir`
    the run can be killed at any moment: the same call goes on from the last checkpoint.

    Args:
        model: An uncompiled model.
        train: A `StepData` such as `keras_seq.data.Windows`, or ``(x, y)`` arrays.
        validation: Likewise, read in order; None monitors the training loss.
        loss: As in `model.compile`.
        metrics: As in `model.compile`.
        epochs: The most epochs.
        batch_size: Examples in a batch.
        learning_rate: The highest learning rate.
        warmup: The part of all steps in which the learning rate climbs.
        weight_decay: Of AdamW.
        clipnorm: The largest global norm of a gradient; None does not clip.
        patience: Epochs without a better value before it ends; None never ends early.
        averaging: Momentum of an exponential moving average of the weights, which is what is
            validated and kept; 0 keeps the weights as they are.
        steps_per_epoch: Steps of an epoch; None is one pass over the data.
        seconds: The most seconds of training; None is no limit. A run ended by the clock cannot
            be made again exactly.
        seed: Of the order of the examples. Set the seed of the weights before the model is built
            (`keras.utils.set_random_seed`).
        run_dir: Where ``checkpoint.npz`` and ``history.csv`` are written; None writes nothing.
        checkpoint_seconds: Seconds between two checkpoints within an epoch.
        jit_compile: Whether XLA compiles the step: tens of seconds once for each shape of a batch,
            then up to a third less for small Transformers, and nothing for much else on a CPU.
        callbacks: More Keras callbacks.
        prepare_targets: Maps the targets of a batch to what the outputs are compared with, for
            models with several outputs.
        verbose: As in `model.fit`.

    Returns:
        The history and the best epoch.

    Raises:
        UserError: If there is no example, or the checkpoint in `run_dir` is of another model.

    Example:
        >>> import keras, numpy as np
        >>> keras.utils.set_random_seed(0)
        >>> x = np.linspace(0, 1, 64, dtype="float32")[:, None]
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> result = fit(model, (x, 3 * x + 1), epochs=60, learning_rate=0.1, batch_size=16)
        >>> bool(result.history[-1]["loss"] < 0.01)
        True
    """
    data = ArrayData(*train) if isinstance(train, tuple) else train
    held_out = ArrayData(*validation) if isinstance(validation, tuple) else validation
    if len(data) == 0:
        raise UserError("there is no training example: give more data or a shorter window")
    per_epoch = steps_per_epoch or math.ceil(len(data) / batch_size)
    total = per_epoch * epochs
    warm = max(1, round(warmup * total))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=learning_rate / warm,
        decay_steps=max(1, total - warm),
        warmup_target=learning_rate,
        warmup_steps=warm,
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=weight_decay, global_clipnorm=clipnorm
    )
    model.compile(optimizer=optimizer, loss=loss, metrics=metrics, jit_compile=jit_compile)
    optimizer.build(model.trainable_variables)
    state = _Training(
        model,
        monitor="loss" if held_out is None else "val_loss",
        per_epoch=per_epoch,
        patience=patience,
        averaging=averaging,
        seconds=seconds,
        run_dir=Path(run_dir) if run_dir is not None else None,
        checkpoint_seconds=checkpoint_seconds,
    )
    state.restore()

    def batches(source: StepData, **where: Any) -> tf.data.Dataset:
        found = source.dataset(batch_size, **where)
        if prepare_targets is None:
            return found
        return found.map(lambda x, y: (x, prepare_targets(y)), num_parallel_calls=1)

    val = None if held_out is None else batches(held_out)
    options = {
        "validation_data": val,
        "callbacks": [*callbacks, state],
        "verbose": verbose,
        "shuffle": False,  # the data has its own order
    }
    epoch, within = divmod(state.result.steps, per_epoch)
    if within and not state.finished:
        # The rest of the epoch in which it was killed.
        rest = per_epoch - within
        stream = batches(data, seed=seed, start_step=state.result.steps)
        # Keras makes the variables of metrics at the first batch: one is evaluated, so that the
        # running means of the interrupted epoch can be put into them. Recurrent dropout draws a
        # mask even there, so the state is read once more.
        model.evaluate(stream, steps=1, verbose=0)
        state.restore()
        model.fit(stream, initial_epoch=epoch, epochs=epoch + 1, steps_per_epoch=rest, **options)
        epoch += 1
    if epoch < epochs and not state.finished:
        stream = batches(data, seed=seed, start_step=epoch * per_epoch)
        model.fit(stream, initial_epoch=epoch, epochs=epochs, steps_per_epoch=per_epoch, **options)
    state.put_best_weights()
    return state.result


class _Training(keras.callbacks.Callback):
    """Early stopping and the state file. It runs last among the callbacks."""

    FORMAT = 1

    def __init__(
        self,
        model: keras.Model,
        *,
        monitor: str,
        per_epoch: int,
        patience: int | None,
        averaging: float,
        seconds: float | None,
        run_dir: Path | None,
        checkpoint_seconds: float,
    ) -> None:
        super().__init__()
        self._net = model
        self.monitor = monitor
        self.per_epoch = per_epoch
        self.patience = patience
        self.limit = seconds
        self.path = run_dir / "checkpoint.npz" if run_dir else None
        self.every = checkpoint_seconds
        self.result = FitResult()
        self.finished = False
        self.waited = 0
        self.best_weights: list[np.ndarray] | None = None
        self._average = _Average(model, averaging) if averaging else None
        self._spent = 0.0  # seconds of the running epoch before it was interrupted
        self._metric_values: list[np.ndarray] | None = None
        self._started = self._saved = time.monotonic()

    def _model_variables(self) -> list[Any]:
        # Seed generators are in here; Keras saves them in no format of its own.
        running = {id(v) for v in self._net.metrics_variables}
        return [v for v in self._net.variables if id(v) not in running]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._started = time.monotonic()
        if self._metric_values is not None:
            for variable, value in zip(
                self._net.metrics_variables, self._metric_values, strict=True
            ):
                variable.assign(value)
            self._metric_values = None
        else:
            self._spent = 0.0

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._average:
            self._average.put_in()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.result.steps += 1
        if self._average:
            self._average.update(self.result.steps)
        now = time.monotonic()
        if self.path and now - self._saved >= self.every and self.result.steps % self.per_epoch:
            values = [np.asarray(v) for v in self._net.metrics_variables]
            self.save(values, self._spent + now - self._started)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        spent = self._spent + time.monotonic() - self._started
        self._spent = 0.0
        if self._average:
            self._average.put_in()
        logs = {name: float(value) for name, value in (logs or {}).items()}
        result = self.result
        result.history.append({"epoch": epoch + 1, "seconds": spent, **logs})
        value = logs.get(self.monitor, math.nan)
        if value < result.best:
            result.best, result.best_epoch, self.waited = value, epoch + 1, 0
            self.best_weights = [np.asarray(v) for v in self._model_variables()]
        else:
            self.waited += 1
        if self._average:
            self._average.take_out()
        if not math.isfinite(logs.get("loss", 0.0)):
            self._end("not finite")
        elif self.patience is not None and self.waited >= self.patience:
            self._end("patience")
        elif self.limit is not None and result.seconds >= self.limit:
            self._end("seconds")
        if self.path:
            self.save([], 0.0)

    def _end(self, why: str) -> None:
        self.finished = True
        self.result.stopped = why
        self._net.stop_training = True

    def put_best_weights(self) -> None:
        """Puts the weights of the best epoch into the model."""
        if self.best_weights is not None:
            for variable, value in zip(self._model_variables(), self.best_weights, strict=True):
                variable.assign(value)

    def save(self, metric_values: list[np.ndarray], spent: float) -> None:
        """Writes the state file and the history: to a temporary name, then renamed."""
        if self.path is None:
            return
        arrays = {f"model_{i}": np.asarray(v) for i, v in enumerate(self._model_variables())}
        slots = self._net.optimizer.variables
        arrays |= {f"optimizer_{i}": np.asarray(v) for i, v in enumerate(slots)}
        averages = self._average.variables if self._average else []
        arrays |= {f"average_{i}": np.asarray(v) for i, v in enumerate(averages)}
        arrays |= {f"metric_{i}": v for i, v in enumerate(metric_values)}
        arrays |= {f"best_{i}": v for i, v in enumerate(self.best_weights or [])}
        about = {
            "format": self.FORMAT,
            "result": asdict(self.result),
            "finished": self.finished,
            "waited": self.waited,
            "spent": spent,
        }
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, buffer.getvalue())
        if self.result.history:
            text = io.StringIO()
            names = dict.fromkeys(name for row in self.result.history for name in row)
            table = csv.DictWriter(text, list(names))
            table.writeheader()
            table.writerows(self.result.history)
            write_atomically(self.path.parent / "history.csv", text.getvalue().encode())
        self._saved = time.monotonic()

    def restore(self) -> None:
        """Reads the state file, if there is one."""
        if self.path is None or not self.path.exists():
            return
        try:
            with open(self.path, "rb") as opened, np.load(opened) as file:
                about = json.loads(str(file["about"]))
                arrays = {name: file[name] for name in file.files if name != "about"}
        except Exception as error:
            raise UserError(
                f"the checkpoint {self.path} cannot be read ({error}); delete it to start this "
                "run again"
            ) from error

        def part(name: str) -> list[np.ndarray]:
            return [arrays[f"{name}_{i}"] for i in range(sum(k.startswith(name) for k in arrays))]

        averages = self._average.variables if self._average else []
        targets = [*self._model_variables(), *self._net.optimizer.variables, *averages]
        values = [*part("model"), *part("optimizer"), *part("average")]
        shapes = [tuple(v.shape) for v in targets]
        if about.get("format") != self.FORMAT or shapes != [v.shape for v in values]:
            raise UserError(
                f"the checkpoint {self.path} is of another model or version; delete it to start "
                "this run again, or choose another folder"
            )
        for variable, value in zip(targets, values, strict=True):
            variable.assign(value)
        self.result = FitResult(**about["result"])
        self.finished, self.waited = about["finished"], about["waited"]
        self._spent = about["spent"]
        self._metric_values = part("metric") or None
        self.best_weights = part("best") or None


class _Average:
    """An exponential moving average of the trainable weights, and its exchange with them."""

    def __init__(self, model: keras.Model, momentum: float) -> None:
        self._weights = model.trainable_variables
        self.variables = [
            tf.Variable(tf.convert_to_tensor(v), trainable=False) for v in self._weights
        ]
        self._momentum = momentum
        self._kept: list[np.ndarray] | None = None  # the weights, while the average is in place
        self._step = tf.function(self._move)

    def _move(self, keep: tf.Tensor) -> None:
        for average, weight in zip(self.variables, self._weights, strict=True):
            value = tf.cast(tf.convert_to_tensor(weight), average.dtype)
            average.assign_add((1 - tf.cast(keep, average.dtype)) * (value - average))

    def update(self, step: int) -> None:
        # The first steps count more, so that the weights at the start are soon forgotten.
        self._step(tf.constant(min(self._momentum, step / (step + 9)), tf.float32))

    def put_in(self) -> None:
        if self._kept is None:
            self._kept = [np.asarray(v) for v in self._weights]
            for weight, average in zip(self._weights, self.variables, strict=True):
                weight.assign(average)

    def take_out(self) -> None:
        if self._kept is not None:
            for weight, value in zip(self._weights, self._kept, strict=True):
                weight.assign(value)
            self._kept = None


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old content or the new one, never a part.

    Args:
        path: Where to; the folder must exist.
        content: The bytes.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
        >>> write_atomically(path, b"whole")
        >>> path.read_text()
        'whole'
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
