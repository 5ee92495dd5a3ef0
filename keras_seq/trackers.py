"""Trackers: where a run is written down besides its own folder.

A tracker is a function `(run_dir, hparams, card, **context) -> callback`: the callback is a Keras
callback that has one method more, `log_scores(scores)`. It is registered by one line,
`keras_seq.registry.trackers.add("name", "module:function")`, or as an entry point of the group
`keras_seq.trackers`. `context` may hold `gradient_batch`, `figures`, `graph`, `figure_every` and
`initial_step`, as `keras_seq.callbacks.TensorBoard` takes them, and later more: a tracker takes
what it knows and leaves the rest.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_seq.callbacks import TensorBoard
from keras_seq.errors import UserError


def tensorboard(
    run_dir: Path, hparams: Mapping[str, Any], card: str = "", **context: Any
) -> TensorBoard:
    """Writes TensorBoard event files into the run's folder.

    Args:
        run_dir: Folder of the run.
        hparams: Options of the run.
        card: A text in markdown about the run.
        **context: Options of `keras_seq.callbacks.TensorBoard`; others are left.

    Returns:
        The callback.

    Example:
        >>> import tempfile
        >>> tracker = tensorboard(tempfile.mkdtemp(), {"architecture": "naive"}, "A baseline.")
        >>> tracker.log_scores({"mse": 1.5})
    """
    known = inspect.signature(TensorBoard).parameters
    options = {name: value for name, value in context.items() if name in known}
    return TensorBoard(run_dir, hparams=hparams, card=card or None, **options)


def mlflow(
    run_dir: Path, hparams: Mapping[str, Any], card: str = "", **context: Any
) -> keras.callbacks.Callback:
    """Writes the run to MLflow: options, epoch curves, final scores, the card as its description.

    The server and the experiment are those of MLflow's own settings (`MLFLOW_TRACKING_URI`,
    `MLFLOW_EXPERIMENT_NAME`). The run's id is kept in `mlflow_run_id.txt`, so that a run that was
    interrupted goes on under it.

    Args:
        run_dir: Folder of the run; its last three names become the run's name.
        hparams: Options of the run.
        card: A text in markdown about the run.
        **context: Not used.

    Returns:
        The callback.

    Raises:
        UserError: If MLflow is not installed, or cannot write where its settings say.
    """
    try:
        library = importlib.import_module("mlflow")
    except ImportError as error:
        raise UserError(
            "the tracker 'mlflow' needs MLflow: pip install 'keras-seq[mlflow]'"
        ) from error
    try:
        return _MLflow(library, Path(run_dir), hparams, card)
    except library.exceptions.MlflowException as error:
        raise UserError(
            f"MLflow cannot write the run: {str(error).splitlines()[0]}; check MLFLOW_TRACKING_URI"
        ) from error


class _MLflow(keras.callbacks.Callback):
    def __init__(self, library: Any, run_dir: Path, hparams: Mapping[str, Any], card: str) -> None:
        super().__init__()
        # The client, not the "active run" of the module: that one is global to the process.
        self._client = library.MlflowClient()
        id_file = run_dir / "mlflow_run_id.txt"
        if id_file.exists():
            self._run_id = id_file.read_text().strip()
            return
        with library.start_run(
            run_name="/".join(run_dir.resolve().parts[-3:]), description=card or None
        ) as run:
            self._run_id = run.info.run_id
        for name, value in hparams.items():
            self._client.log_param(self._run_id, name, value)
        run_dir.mkdir(parents=True, exist_ok=True)
        id_file.write_text(self._run_id)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._client.set_terminated(self._run_id, status="RUNNING")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for name, value in (logs or {}).items():
            self._client.log_metric(self._run_id, f"epoch_{name}", float(value), step=epoch)

    def log_scores(self, scores: Mapping[str, float]) -> None:
        for name, value in scores.items():
            self._client.log_metric(self._run_id, f"score/{name}", float(value))
        self._client.set_terminated(self._run_id)
