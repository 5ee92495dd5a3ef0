"""One TensorBoard callback for every architecture: the same tags, so that runs can be compared."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_seq.callbacks.events import GRAPH, drop, open_writer, tags, writing
from keras_seq.callbacks.gradients import GradientNorms, undisturbed
from keras_seq.callbacks.scores import CARD, log_scores, write_session_start

COMPARISON = "comparison/"

Figures = Callable[[keras.Model], Mapping[str, Any]]
Texts = Callable[[keras.Model], Mapping[str, str]]


class TensorBoard(keras.callbacks.Callback):
    """Logs a run for TensorBoard. The step of everything is the number of the epoch.

    - In `<log_dir>/train` and in `<log_dir>/validation`: `epoch_loss` and `epoch_<metric>`.
    - In `<log_dir>/train`: `learning_rate` (after the last step of the epoch),
      `gradient_norm/all`, `gradient_norm/<layer>`, `throughput/examples_per_second`,
      `throughput/steps_per_second` (validation is not counted), `weights/<layer>/<weight>`.
    - In `<log_dir>`: images by the names that `figures` gives, texts by those that `texts` gives,
      the graph, `card`, HParams, and `score/<name>` (see `log_scores`).

    It does not touch the training: weights come out the same, bit by bit, with and without it.
    A run that was killed is taken up by the same call: what an earlier attempt logged of epochs
    that are trained again is taken out first, so that each epoch stands there once.

    Args:
        log_dir: Folder of this run, such as `runs/etth1/lstm/0`.
        gradient_batch: `(x, y)` or `(x, y, sample_weight)`, on which the norm of the gradient is
            computed after each epoch, without dropout; None leaves the norms out.
        figures: `model -> {name: picture}`, called for the first and the last epoch and every
            `figure_every`-th between; a picture is a matplotlib Figure, or an array (H, W, 3) of
            uint8.
        texts: `model -> {name: text in markdown}`, called after each epoch.
        hparams: Options of the run for the HParams page (words, numbers, truth values).
        card: A text in markdown about the run.
        graph: Whether to write the graph: of the operations, and of the layers.
        figure_every: Epochs from one set of pictures to the next.
        histogram_every: Epochs from one set of weight histograms to the next; 0 means none.
        initial_step: Added to the epoch's number, for a `fit` that counts from 0 again. With
            `fit(initial_epoch=...)`, as it should be, leave it at 0.

    Raises:
        ValueError: If `figure_every` is under 1, or `histogram_every` under 0.

    Example:
        >>> import keras, numpy as np, tempfile
        >>> x, y = np.ones((8, 3)), np.ones((8, 1))
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> board = TensorBoard(tempfile.mkdtemp(), gradient_batch=(x, y), hparams={"depth": 1})
        >>> _ = model.fit(x, y, epochs=2, verbose=0, callbacks=[board])
        >>> board.log_scores({"mse": 0.5})
    """

    def __init__(
        self,
        log_dir: str | Path,
        *,
        gradient_batch: tuple[Any, ...] | None = None,
        figures: Figures | None = None,
        texts: Texts | None = None,
        hparams: Mapping[str, Any] | None = None,
        card: str | None = None,
        graph: bool = True,
        figure_every: int = 10,
        histogram_every: int = 0,
        initial_step: int = 0,
    ) -> None:
        super().__init__()
        if figure_every < 1:
            raise ValueError(f"figure_every is {figure_every}: give a number of epochs, 1 or more")
        if histogram_every < 0:
            raise ValueError(f"histogram_every is {histogram_every}: give 0 (none) or more epochs")
        self.log_dir = Path(log_dir)
        self.hparams = dict(hparams or {})
        self._gradient_batch = gradient_batch
        self._figures = figures
        self._texts = texts
        self._card = card
        self._graph = graph
        self._figure_every = figure_every
        self._histogram_every = histogram_every
        self._initial_step = initial_step
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self._norms: GradientNorms | None = None
        self._started = False
        self._first_step = 0
        self._last_step: int | None = None
        self._last_figures: int | None = None
        self._epoch_start = 0.0
        self._steps = 0  # of the epoch
        self._count_start: float | None = None
        self._measured: dict[str, float] = {}

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Writes the final scores of the run: see `keras_seq.callbacks.log_scores`.

        Args:
            scores: Numbers by name.
        """
        self._close()
        log_scores(self.log_dir, self.hparams, scores, self._card)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets what belongs to an earlier `fit`."""
        self._norms = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock, and the log before the first epoch."""
        if not self._started:
            self._start(epoch + self._initial_step)
        self._measured = {}
        self._count_start = None
        self._steps = 0
        self._epoch_start = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks how many examples the epoch begins with: not 0 if it is taken up in the middle."""
        if self._count_start is None:
            self._count_start = self._examples()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts the steps: the optimizer counts updates, of which several steps may make one."""
        self._steps = batch + 1

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Stops the clock: validation is no training time."""
        self._measure()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the numbers of the epoch."""
        step = epoch + self._initial_step
        self._measure()
        train, validation = _split(logs or {})
        with self._writing("train"):
            _scalars({f"epoch_{name}": value for name, value in train.items()}, step)
            _scalars(self._measured, step)
            if self._gradient_batch is not None:
                if self._norms is None:
                    self._norms = GradientNorms(self.model, self._gradient_batch)
                norms = self._norms()
                _scalars({f"gradient_norm/{name}": norm for name, norm in norms.items()}, step)
            if self._histogram_every and (step - self._first_step) % self._histogram_every == 0:
                for variable in self.model.trainable_variables:
                    tf.summary.histogram(f"weights/{variable.path}", variable.value, step=step)
        if validation:
            with self._writing("validation"):
                _scalars({f"epoch_{name}": value for name, value in validation.items()}, step)
        self._write_texts(step)
        self._last_step = step
        # Counted from 0, not from where this attempt began: a resumed run shows the same epochs.
        if step % self._figure_every == 0:
            self._write_figures(step)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Draws the last pictures and closes the files."""
        if self._last_step is not None and self._last_figures != self._last_step:
            self._write_figures(self._last_step)
        self._close()

    def _start(self, step: int) -> None:
        for name in ("", "train", "validation"):
            drop(self.log_dir / name, lambda old, tag: old >= step)
        known = tags(self.log_dir)
        with self._writing(""):
            if self.hparams:
                write_session_start(self.log_dir, self.hparams)
            if self._card is not None and CARD not in known:
                tf.summary.text(CARD, self._card, step=0)
            if self._graph and GRAPH not in known:
                self._write_graph()
        self._first_step = step
        self._started = True

    def _write_graph(self) -> None:
        specs = _input_specs(self.model, self._gradient_batch)
        if specs is None:
            return
        forward = tf.function(lambda x: self.model(x, training=False))
        tf.summary.graph(forward.get_concrete_function(specs).graph)
        with contextlib.suppress(NotImplementedError, TypeError, ValueError):
            # A model of a user's own need not be able to write itself down.
            layers = self.model.to_json()
            metadata = tf.compat.v1.SummaryMetadata()
            metadata.plugin_data.plugin_name = "graph_keras_model"
            metadata.plugin_data.content = b"1"
            tf.summary.write("keras", layers, step=0, metadata=metadata)

    def _write_figures(self, step: int) -> None:
        if self._figures is None:
            return
        with undisturbed(self.model):
            pictures = self._figures(self.model)
        with self._writing(""):
            for name, picture in pictures.items():
                tf.summary.image(name, _pixels(name, picture)[None], step=step)
        self._last_figures = step

    def _write_texts(self, step: int) -> None:
        if self._texts is None:
            return
        with undisturbed(self.model):
            texts = self._texts(self.model)
        with self._writing(""):
            for name, text in texts.items():
                tf.summary.text(name, text, step=step)

    def _measure(self) -> None:
        if self._measured:
            return
        seconds = max(time.perf_counter() - self._epoch_start, 1e-9)
        self._measured["throughput/steps_per_second"] = self._steps / seconds
        examples = self._examples() - (self._count_start or 0.0)
        self._measured["throughput/examples_per_second"] = examples / seconds
        rate = getattr(self.model.optimizer, "learning_rate", None)
        if rate is not None:
            self._measured["learning_rate"] = _number(rate)

    def _examples(self) -> float:
        # Keras counts the examples of the epoch in its own mean of the loss, and nowhere else.
        counts = [m.count for m in self.model.metrics if m.name == "loss" and hasattr(m, "count")]
        return _number(counts[0]) if counts else 0.0

    def _writing(self, name: str) -> Any:
        if name not in self._writers:
            self._writers[name] = open_writer(self.log_dir / name)
        return writing(self._writers[name])

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}


def write_figures(folder: str | Path, figures: Mapping[str, Any]) -> None:
    """Writes pictures of a whole comparison, beside those of its runs.

    Args:
        folder: Folder of the comparison, the one that `tensorboard --logdir` is given.
        figures: Name to a matplotlib figure or an image, as `TensorBoard(figures=...)` gives them;
            each becomes ``comparison/<name>``. Those of an earlier call are taken out.

    Example:
        >>> import tempfile
        >>> from keras_seq.figures import learning_curves_figure
        >>> write_figures(tempfile.mkdtemp(), {"loss": learning_curves_figure({"lstm": [2, 1]})})
    """
    folder = Path(folder)
    drop(folder, lambda step, tag: tag.startswith(COMPARISON))
    writer = open_writer(folder)
    with writing(writer):
        for name, picture in figures.items():
            tf.summary.image(COMPARISON + name, _pixels(name, picture)[None], step=0)
    writer.close()


def _number(value: Any) -> float:
    return float(tf.convert_to_tensor(value))


def _split(logs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parts Keras' logs into training and validation, both under the training name."""
    train, validation = {}, {}
    for name, value in logs.items():
        if name == "learning_rate":  # put there by a scheduler; logged under its own tag
            continue
        if name.startswith("val_"):
            validation[name.removeprefix("val_")] = value
        else:
            train[name] = value
    return train, validation


def _scalars(values: Mapping[str, Any], step: int) -> None:
    for name, value in values.items():
        tf.summary.scalar(name, float(value), step=step)


def _input_specs(model: keras.Model, batch: tuple[Any, ...] | None) -> Any:
    """Shapes and types to trace the model with, or None where nobody knows them."""

    def spec(tensor: Any) -> tf.TensorSpec:
        return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)

    if getattr(model, "inputs", None):
        # `input` has the structure of dicts; a Sequential has it only after it was called.
        return keras.tree.map_structure(spec, getattr(model, "input", model.inputs[0]))
    if batch is not None:
        return keras.tree.map_structure(spec, batch[0])
    return None


def _pixels(name: str, picture: Any) -> np.ndarray:
    """Returns a picture as uint8 numbers (H, W, 3)."""
    if hasattr(picture, "savefig"):
        # Drawn on a canvas of its own: pyplot keeps figures alive and is not safe with threads.
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas = FigureCanvasAgg(picture)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3]
    pixels = np.asarray(picture)
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
        raise ValueError(
            f"the picture {name!r} is {pixels.dtype} numbers of shape {pixels.shape}: give a "
            "matplotlib Figure, or uint8 numbers of shape (height, width, 3)"
        )
    return pixels
