"""Training: one `fit` for every model, by seed, that goes on exactly where it was killed.

`model.fit` of Keras does the work. What is added: data that is a pure function of the step, a
learning rate that warms up, early stopping on the validation part with the best weights kept, and
one state file, written atomically, that holds all that the next step depends on: weights, slots
of the optimizer, seed generators, running metrics and the early-stopping state. A run that is
killed and started again ends with the same weights, bit by bit, as one that was not (CPU).
"""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from keras_seq.data.numbered import NumberedBatches
from keras_seq.errors import UserError
from keras_seq.files import write_atomically

SCHEDULES = ("cosine", "inverse_sqrt", "constant")
CHECKPOINT = "checkpoint.npz"  # in a run's folder: all that the next step depends on
LAST = "last"  # a folder there: the weights at the ends of the last epochs


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


class ArrayData(NumberedBatches):
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

    def _steps_in_order(self, batch_size: int) -> int:
        return math.ceil(len(self) / batch_size)

    def _numbered(self, batch_size: int, seed: int | None) -> Callable[[int], tuple[Any, Any]]:
        per_pass = self._steps_in_order(batch_size)
        # Pass and its order: one name, as several iterators may read and change it.
        held = (-1, np.arange(len(self)))

        def batch(step: int) -> tuple[Any, Any]:
            nonlocal held
            number, place = divmod(step, per_pass)
            found = held
            if seed is not None and found[0] != number:
                order = np.random.default_rng([seed, number]).permutation(len(self))
                found = held = (number, order)
            rows = found[1][place * batch_size : (place + 1) * batch_size]
            x, y = keras.tree.map_structure(lambda a: a[rows], (self.x, self.y))
            return x, y

        return batch

    def _signature(self) -> Any:
        return keras.tree.map_structure(
            lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), (self.x, self.y)
        )


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


def steps_of_epoch(data: Any, batch_size: int, most: int = 500, seed: int | None = None) -> int:
    """Returns how many steps an epoch over training data has.

    Args:
        data: A `StepData`. Where its batches are made by a number of tokens (`batch_tokens` of
            `keras_seq.data.PairBatches`), an epoch is one pass; else see `epoch_steps`.
        batch_size: Examples in a batch.
        most: The most steps.
        seed: Of the order of the examples.

    Example:
        >>> steps_of_epoch(ArrayData(np.zeros(8209), np.zeros(8209)), 64)
        129
    """
    if getattr(data, "batch_tokens", None):
        return min(data.steps_of_pass(batch_size, seed), most)
    return epoch_steps(len(data), batch_size, most)


def learning_rates(
    schedule: str, highest: float, *, updates: int, warmup: int = 1, accumulate: int = 1
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns the learning rate of each batch: it climbs in a line, then goes on by the schedule.

    Args:
        schedule: ``cosine`` falls to 0 at the end of training; ``inverse_sqrt`` is, in update n
            after a warm-up of w, highest * sqrt(w / n), and knows no end; ``constant`` stays.
        highest: What the warm-up ends at.
        updates: Updates of the weights that are planned.
        warmup: Updates in which the learning rate climbs, 1 or more.
        accumulate: Batches that make one update. Keras asks with the number of the batch.

    Raises:
        UserError: If the schedule is unknown.

    Example:
        >>> rate = learning_rates("inverse_sqrt", 0.8, updates=100, warmup=4)
        >>> [round(float(rate(batch)), 3) for batch in (0, 1, 3, 15, 63)]  # updates 1, 2, 4, 16, 64
        [0.2, 0.4, 0.8, 0.4, 0.2]

    Reference:
        Loshchilov and Hutter 2017, SGDR (cosine); Vaswani et al. 2017, Attention Is All You Need
        (inverse square root).
    """
    if schedule not in SCHEDULES:
        raise UserError(f"the schedule is {schedule!r}: choose one of {', '.join(SCHEDULES)}")
    found: Any
    if schedule == "cosine":
        found = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=highest / warmup,
            decay_steps=max(1, updates - warmup),
            warmup_target=highest,
            warmup_steps=warmup,
        )
    else:
        found = _WarmUp(highest, warmup, falls=schedule == "inverse_sqrt")
    return _OfUpdates(found, accumulate) if accumulate > 1 else found


@keras.saving.register_keras_serializable(package="keras_seq")
class _WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A line up to the highest learning rate; it stays there, or falls as 1 / sqrt(update)."""

    def __init__(self, highest: float, warmup: int, falls: bool) -> None:
        self.highest = highest
        self.warmup = warmup
        self.falls = falls

    def __call__(self, step: Any) -> Any:
        update = keras.ops.cast(step, "float32") + 1
        rate = keras.ops.minimum(update / self.warmup, 1.0)
        if self.falls:
            rate = keras.ops.minimum(rate, keras.ops.sqrt(self.warmup / update))
        return self.highest * rate

    def get_config(self) -> dict[str, Any]:
        return {"highest": self.highest, "warmup": self.warmup, "falls": self.falls}


@keras.saving.register_keras_serializable(package="keras_seq")
class _OfUpdates(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule by the number of the update, asked with the number of the batch.

    The optimizers of Keras count updates where they accumulate gradients (`iterations`), but ask a
    schedule with the number of the batch: it would be over after a part of the training.
    """

    def __init__(self, schedule: Any, batches: int) -> None:
        saved = isinstance(schedule, dict)
        self.schedule = keras.optimizers.schedules.deserialize(schedule) if saved else schedule
        self.batches = batches

    def __call__(self, step: Any) -> Any:
        return self.schedule(keras.ops.floor_divide(step, self.batches))

    def get_config(self) -> dict[str, Any]:
        schedule = keras.optimizers.schedules.serialize(self.schedule)
        return {"schedule": schedule, "batches": self.batches}


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
    schedule: str = "cosine",
    warmup: float = 0.05,
    warmup_steps: int = 0,
    accumulate: int = 1,
    weight_decay: float = 1e-4,
    clipnorm: float | None = 1.0,
    patience: int | None = 5,
    averaging: float = 0.0,
    average_last: int = 0,
    monitor: str = "loss",
    lower_is_better: bool = True,
    evaluate: Callable[[keras.Model], Mapping[str, float]] | None = None,
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

    AdamW with a linear warm-up and, unless another schedule is chosen, a cosine decay to zero over
    the planned epochs. With `run_dir` the run can be killed at any moment: the same call goes on
    from the last checkpoint.

    Args:
        model: An uncompiled model.
        train: A `StepData` such as `keras_seq.data.Windows`, or ``(x, y)`` arrays.
        validation: Likewise, read in order; None monitors the training loss.
        loss: As in `model.compile`.
        metrics: As in `model.compile`.
        epochs: The most epochs.
        batch_size: Examples in a batch.
        learning_rate: The highest learning rate.
        schedule: How the learning rate goes on after its warm-up: ``cosine``, ``inverse_sqrt`` or
            ``constant``; see `learning_rates`.
        warmup: The part of all updates in which the learning rate climbs.
        warmup_steps: The updates in which it climbs; 0 takes the part.
        accumulate: Batches whose gradients are averaged before one update of the weights. Each
            batch counts alike, however many examples or labelled steps it has: where a loss is a
            mean over labelled steps (`keras_seq.losses.MaskedCrossentropy`), the update is that
            of one large batch only if its parts have equally many. Batches at the end of training
            that fill no update are lost; at the end of an epoch they are kept for the next.
        weight_decay: Of AdamW.
        clipnorm: The largest global norm of a gradient; None does not clip.
        patience: Epochs without a better value before it ends; None never ends early.
        averaging: Momentum of an exponential moving average of the weights, which is what is
            validated and kept; 0 keeps the weights as they are.
        average_last: The mean of the weights at the ends of so many last epochs (of all, while
            they are fewer) is what is validated and kept, in place of `averaging`: the weights
            that are left are the mean of the epochs up to the best one. Means are of trainable
            weights; others, such as those of batch normalisation, are as the last epoch left
            them. 0: off.
        monitor: What the best epoch and patience go by: ``loss``, or the name of a metric or of a
            score of `evaluate`. Where two epochs are alike, the loss decides.
        lower_is_better: Whether less of it is better.
        evaluate: Scores a model at the end of each epoch, with the weights in it that are
            validated; each score is in the history as ``val_NAME``. It must not change weights.
        steps_per_epoch: Batches of an epoch; None is one pass over the data.
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
        UserError: If there is no example, an option is out of range, nothing has the name of
            `monitor`, or the checkpoint in `run_dir` is of another model.

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
    for name, value, least in (
        ("accumulate", accumulate, 1),
        ("average_last", average_last, 0),
        ("warmup_steps", warmup_steps, 0),
    ):
        if value < least:
            raise UserError(f"{name} is {value}: give at least {least}")
    if averaging and average_last:
        raise UserError("averaging and average_last are two ways to one end: give one of them")
    per_epoch = steps_per_epoch or _steps_of_pass(data, batch_size, seed)
    updates = max(1, per_epoch * epochs // accumulate)
    warm = warmup_steps or max(1, round(warmup * updates))
    if warm > updates:
        warnings.warn(
            f"the warm-up of {warm:,} updates is longer than the training ({updates:,}): the "
            f"learning rate only gets to {learning_rate * updates / warm:.2g}",
            stacklevel=2,
        )
    optimizer = keras.optimizers.AdamW(
        learning_rates(
            schedule, learning_rate, updates=updates, warmup=warm, accumulate=accumulate
        ),
        weight_decay=weight_decay,
        global_clipnorm=clipnorm,
        gradient_accumulation_steps=accumulate if accumulate > 1 else None,
    )
    model.compile(optimizer=optimizer, loss=loss, metrics=metrics, jit_compile=jit_compile)
    optimizer.build(model.trainable_variables)
    validated = held_out is not None or (evaluate is not None and monitor != "loss")
    folder = Path(run_dir) if run_dir is not None else None
    judged: _Judged | None = None
    if averaging:
        judged = _Average(model, averaging)
    elif average_last:
        judged = _LastEpochs(model, average_last, folder / LAST if folder else None)
    state = _Training(
        model,
        monitor=f"val_{monitor}" if validated else monitor,
        lower_is_better=lower_is_better,
        per_epoch=per_epoch,
        accumulate=accumulate,
        patience=patience,
        judged=judged,
        seconds=seconds,
        run_dir=folder,
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
        "callbacks": [_Judge(judged, evaluate), *callbacks, state],
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


def forget(run_dir: str | Path) -> None:
    """Removes what a run needs to go on; its history stays.

    Args:
        run_dir: As for `fit`.
    """
    (Path(run_dir) / CHECKPOINT).unlink(missing_ok=True)
    shutil.rmtree(Path(run_dir) / LAST, ignore_errors=True)


def _steps_of_pass(data: Any, batch_size: int, seed: int) -> int:
    if hasattr(data, "steps_of_pass"):
        return int(data.steps_of_pass(batch_size, seed))
    return math.ceil(len(data) / batch_size)


class _Judge(keras.callbacks.Callback):
    """Puts in the weights that are judged, and scores them. It runs first among the callbacks.

    So what the others show of an epoch, numbers and pictures, is of the same weights.
    """

    def __init__(
        self,
        judged: _Judged | None,
        evaluate: Callable[[keras.Model], Mapping[str, float]] | None,
    ) -> None:
        super().__init__()
        self._judged = judged
        self._evaluate = evaluate

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._judged:
            self._judged.epoch = epoch + 1

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._judged:
            self._judged.put_in()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.on_test_begin()
        if self._evaluate is not None and logs is not None:
            # Not above: what trains without TensorBoard need not wait for its import.
            from keras_seq.callbacks.gradients import undisturbed

            with undisturbed(self.model):
                scores = self._evaluate(self.model)
            # The same dict goes to every callback.
            logs.update({f"val_{name}": float(value) for name, value in scores.items()})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.on_test_begin()


class _Training(keras.callbacks.Callback):
    """Early stopping and the state file. It runs last among the callbacks."""

    FORMAT = 1

    def __init__(
        self,
        model: keras.Model,
        *,
        monitor: str,
        lower_is_better: bool,
        per_epoch: int,
        accumulate: int,
        patience: int | None,
        judged: _Judged | None,
        seconds: float | None,
        run_dir: Path | None,
        checkpoint_seconds: float,
    ) -> None:
        super().__init__()
        self._net = model
        self.monitor = monitor
        self.sign = 1 if lower_is_better else -1
        self.per_epoch = per_epoch
        self.accumulate = accumulate
        self.patience = patience
        self.limit = seconds
        self.path = run_dir / CHECKPOINT if run_dir else None
        self.every = checkpoint_seconds
        self.result = FitResult(best=self.sign * math.inf)
        self.finished = False
        self.waited = 0
        self.best_weights: list[np.ndarray] | None = None
        self._judged = judged
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

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.result.steps += 1
        if self._judged and self.result.steps % self.accumulate == 0:
            self._judged.update(self.result.steps // self.accumulate)
        now = time.monotonic()
        if self.path and now - self._saved >= self.every and self.result.steps % self.per_epoch:
            values = [np.asarray(v) for v in self._net.metrics_variables]
            self.save(values, self._spent + now - self._started)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        spent = self._spent + time.monotonic() - self._started
        self._spent = 0.0
        logs = {name: float(value) for name, value in (logs or {}).items()}
        result = self.result
        result.history.append({"epoch": epoch + 1, "seconds": spent, **logs})
        if self._is_better(logs):
            result.best, result.best_epoch, self.waited = logs[self.monitor], epoch + 1, 0
            self.best_weights = [np.asarray(v) for v in self._model_variables()]
        else:
            self.waited += 1
        if self._judged:
            self._judged.take_out()
        if not math.isfinite(logs.get("loss", 0.0)):
            self._end("not finite")
        elif self.patience is not None and self.waited >= self.patience:
            self._end("patience")
        elif self.limit is not None and result.seconds >= self.limit:
            self._end("seconds")
        if self.path:
            if self._judged:
                self._judged.write()
            self.save([], 0.0)
            if self._judged:
                self._judged.tidy()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._judged:
            self._judged.take_out()

    def _is_better(self, logs: dict[str, float]) -> bool:
        if self.monitor not in logs:
            raise UserError(
                f"there is no {self.monitor} to choose the best epoch by: an epoch gives "
                f"{', '.join(logs)}"
            )
        value, best = self.sign * logs[self.monitor], self.sign * self.result.best
        if value != best or not self.result.best_epoch:
            return value < best
        # Scores of few examples are often alike: a BLEU of 0 while the first words are learned.
        loss = "val_loss" if "val_loss" in logs else "loss"
        return logs[loss] < self.result.history[self.result.best_epoch - 1][loss]

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
        averages = self._judged.variables if self._judged else []
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

        averages = self._judged.variables if self._judged else []
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


class _Judged:
    """What takes the place of the trainable weights when they are judged, and its exchange."""

    def __init__(self, model: keras.Model) -> None:
        self._weights = model.trainable_variables
        self._kept: list[np.ndarray] | None = None  # the weights, while others are in their place
        self.variables: list[tf.Variable] = []  # what the state file keeps of it
        self.epoch = 0  # the running one, from 1

    def values(self) -> Sequence[Any]:
        """Gives what is judged, one value for each weight."""
        raise NotImplementedError

    def update(self, number: int) -> None:
        """Takes note of an update of the weights, the first of which is number 1."""

    def write(self) -> None:
        """Writes what an epoch ended with and the state file does not hold."""

    def tidy(self) -> None:
        """Removes what is on the disk and the state file needs no more."""

    def put_in(self) -> None:
        if self._kept is None:
            values = self.values()
            self._kept = [np.asarray(v) for v in self._weights]
            for weight, value in zip(self._weights, values, strict=True):
                weight.assign(value)

    def take_out(self) -> None:
        if self._kept is not None:
            for weight, value in zip(self._weights, self._kept, strict=True):
                weight.assign(value)
            self._kept = None


class _Average(_Judged):
    """An exponential moving average of the trainable weights."""

    def __init__(self, model: keras.Model, momentum: float) -> None:
        super().__init__(model)
        self.variables = [
            tf.Variable(tf.convert_to_tensor(v), trainable=False) for v in self._weights
        ]
        self._momentum = momentum
        self._step = tf.function(self._move)

    def _move(self, keep: tf.Tensor) -> None:
        for average, weight in zip(self.variables, self._weights, strict=True):
            value = tf.cast(tf.convert_to_tensor(weight), average.dtype)
            average.assign_add((1 - tf.cast(keep, average.dtype)) * (value - average))

    def update(self, number: int) -> None:
        # The first updates count more, so that the weights at the start are soon forgotten.
        self._step(tf.constant(min(self._momentum, number / (number + 9)), tf.float32))

    def values(self) -> Sequence[Any]:
        return self.variables


class _LastEpochs(_Judged):
    """The mean of the trainable weights at the ends of the last epochs.

    A file for each of them, written once, and not in the state file: that one is written often.
    """

    def __init__(self, model: keras.Model, count: int, folder: Path | None) -> None:
        super().__init__(model)
        self._count = count
        self._folder = folder
        self._ends: dict[int, list[np.ndarray]] = {}  # by epoch

    def values(self) -> Sequence[Any]:
        if self.epoch not in self._ends:
            self._ends[self.epoch] = [np.asarray(v) for v in self._weights]
        first = max(1, self.epoch - self._count + 1)
        wanted = range(first, self.epoch + 1)
        self._ends = {n: self._ends[n] if n in self._ends else self._read(n) for n in wanted}
        columns = zip(*self._ends.values(), strict=True)
        return [np.mean(column, axis=0, dtype="float64") for column in columns]

    def _path(self, epoch: int) -> Path | None:
        return self._folder / f"epoch_{epoch}.npz" if self._folder else None

    def write(self) -> None:
        path = self._path(self.epoch)
        if path is None:
            return
        buffer = io.BytesIO()
        ends: dict[str, Any] = {str(i): end for i, end in enumerate(self._ends[self.epoch])}
        np.savez(buffer, allow_pickle=False, **ends)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())

    def _read(self, epoch: int) -> list[np.ndarray]:
        path = self._path(epoch)
        try:
            with np.load(str(path)) as file:
                return [file[str(i)] for i in range(len(file.files))]
        except Exception as error:
            raise UserError(
                f"the weights of epoch {epoch} cannot be read ({error}); delete the folder of "
                "this run to start it again"
            ) from error

    def tidy(self) -> None:
        if self._folder is not None:
            for path in self._folder.glob("epoch_*.npz"):
                if int(path.stem.removeprefix("epoch_")) <= self.epoch - self._count:
                    path.unlink(missing_ok=True)
