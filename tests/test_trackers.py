"""Trackers are found by name, take what they know, and log scores."""

from __future__ import annotations

import sys

import keras
import numpy as np
import pytest

from keras_seq.callbacks import TensorBoard
from keras_seq.errors import UserError
from keras_seq.registry import trackers


def fit(callback, **options):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0, callbacks=[callback], **options)


def test_tensorboard_takes_what_it_knows(tmp_path):
    tracker = trackers.get("tensorboard")(
        tmp_path, {"architecture": "lstm"}, "text", figure_every=3, later_addition=object()
    )
    assert isinstance(tracker, TensorBoard)
    fit(tracker, epochs=1)
    tracker.log_scores({"mse": 1.0})
    assert list((tmp_path / "train").iterdir())


def test_mlflow_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match=r"pip install 'keras-seq\[mlflow\]'"):
        trackers.get("mlflow")(tmp_path, {})


@pytest.mark.filterwarnings("ignore")  # what MLflow warns of is not ours
def test_mlflow_goes_on_under_the_same_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra keras-seq[mlflow] is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    folder = tmp_path / "runs" / "lstm" / "0"
    fit(trackers.get("mlflow")(folder, {"width": 8}, "A card."), epochs=2)
    tracker = trackers.get("mlflow")(folder, {"width": 8}, "A card.")
    fit(tracker, epochs=3, initial_epoch=2)
    tracker.log_scores({"mse": 0.5})
    client = mlflow.MlflowClient()
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED" and run.info.run_name == "runs/lstm/0"
    assert run.data.params == {"width": "8"}
    assert run.data.metrics["score/mse"] == 0.5
    history = client.get_metric_history(run.info.run_id, "epoch_loss")
    assert [metric.step for metric in history] == [0, 1, 2]
