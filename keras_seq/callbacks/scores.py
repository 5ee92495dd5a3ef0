"""Final scores and options of a run, where TensorBoard's HParams page looks for them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hp
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hp_metadata
from tensorboard.plugins.hparams import summary as hp_summary

from keras_seq.callbacks.events import drop, open_writer, tags, writing

SCORE = "score/"
CARD = "card"


def log_scores(
    log_dir: str | Path,
    hparams: Mapping[str, Any],
    scores: Mapping[str, float],
    card: str | None = None,
) -> None:
    """Writes the final scores of a run, and closes it in the HParams table.

    Needs no model, so that a baseline stands in the same table. Written a second time, the scores
    replace the first ones.

    Args:
        log_dir: Folder of the run; the scores go to its root, where the HParams page reads them.
        hparams: Options of the run, such as `{"architecture": "lstm", "width": 64}`.
        scores: Numbers by name, such as `{"mse_scaled": 0.37}`; each becomes `score/<name>`.
        card: A text in markdown that tells what was run; None leaves an earlier one.

    Example:
        >>> import tempfile
        >>> log_scores(tempfile.mkdtemp(), {"architecture": "naive"}, {"mse": 1.5})
    """
    folder = Path(log_dir)
    drop(folder, lambda step, tag: _belongs_to_the_end(tag) or (card is not None and tag == CARD))
    writer = open_writer(folder)
    with writing(writer):
        write_session_start(folder, hparams)
        for name, value in scores.items():
            tf.summary.scalar(SCORE + name, float(value), step=0)
        if card is not None:
            tf.summary.text(CARD, card, step=0)
        _write(hp_summary.session_end_pb(api_pb2.STATUS_SUCCESS))
    writer.close()


def write_experiment(
    folder: str | Path,
    hparam_names: Iterable[str] | Mapping[str, type | Iterable[Any]],
    metric_names: Iterable[str],
) -> None:
    """Tells the HParams page which options and scores of the runs below are its columns.

    Args:
        folder: Folder of the comparison, the one that `tensorboard --logdir` is given.
        hparam_names: Names of options, better with what they are: `{name: values that occur}`, by
            which the page can filter, or `{name: type}`, one of bool, int, float and str. An
            option that is only named is shown as words, and its numbers are sorted as words.
        metric_names: Names of scores, as given to `log_scores`; without the `score/`.

    Example:
        >>> import tempfile
        >>> options = {"architecture": ["lstm", "naive"], "parameters": int}
        >>> write_experiment(tempfile.mkdtemp(), options, ["mse", "mae"])
    """
    folder = Path(folder)
    known = hparam_names if isinstance(hparam_names, Mapping) else {}
    what = {name: known.get(name, ()) for name in hparam_names}
    options = [
        hp.HParam(name, None if isinstance(value, type) else _domain(value))
        for name, value in what.items()
    ]
    columns = [hp.Metric(SCORE + name, display_name=name) for name in metric_names]
    message = hp.hparams_config_pb(options, columns)
    drop(folder, lambda step, tag: tag == hp_metadata.EXPERIMENT_TAG)
    writer = open_writer(folder)
    with writing(writer):
        _write(_with_types(message, what))
    writer.close()


def write_session_start(folder: Path, hparams: Mapping[str, Any]) -> None:
    """Opens the run in the HParams table with the current writer, unless an earlier part did."""
    if hp_metadata.SESSION_START_INFO_TAG not in tags(folder):
        plain = {name: _plain(value) for name, value in hparams.items()}
        # The page averages trials of one id, so each run has its own; its own default is a hash,
        # which tells a reader nothing.
        # The table cuts long ones off, so what tells runs apart comes first: 0 · lstm · etth1.
        trial = " · ".join(folder.resolve().parts[:0:-1][:3])
        _write(hp.hparams_pb(plain, trial_id=trial, start_time_secs=time.time()))


def _belongs_to_the_end(tag: str) -> bool:
    return tag.startswith(SCORE) or tag == hp_metadata.SESSION_END_INFO_TAG


def _write(message: Any) -> None:
    tf.summary.experimental.write_raw_pb(message.SerializeToString(), step=0)


def _plain(value: Any) -> bool | int | float | str:
    """The page knows truth values, numbers and words only."""
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, bool | int | float | str) else str(value)


def _with_types(message: Any, what: Mapping[str, Any]) -> Any:
    """Sets the types of options whose values are not known yet: `hp.HParam` has no word for it."""
    kinds = {
        bool: api_pb2.DATA_TYPE_BOOL,
        int: api_pb2.DATA_TYPE_FLOAT64,
        float: api_pb2.DATA_TYPE_FLOAT64,
        str: api_pb2.DATA_TYPE_STRING,
    }
    plugin = message.value[0].metadata.plugin_data
    content = plugin_data_pb2.HParamsPluginData.FromString(plugin.content)
    for info in content.experiment.hparam_infos:
        if isinstance(what[info.name], type):
            info.type = kinds[what[info.name]]
    plugin.content = content.SerializeToString()
    return message


def _domain(values: Iterable[Any]) -> hp.Discrete | None:
    distinct = {_plain(value) for value in values}
    if not distinct:
        return None
    kinds = {type(value) for value in distinct}
    if kinds == {int, float}:
        distinct = {float(value) for value in distinct}
    elif len(kinds) > 1:  # such as 3 and "auto": only words can hold both
        distinct = {str(value) for value in distinct}
    return hp.Discrete(sorted(distinct))
