"""Files of the classification task: what is read to train on, and what is labelled later."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from keras_seq.data import SequenceBatches, TokenBatches, read_sequences, read_texts
from keras_seq.errors import UserError
from keras_seq.tasks import text

if TYPE_CHECKING:
    from keras_seq.tasks.classification import Classification


@dataclass(frozen=True)
class Examples:
    """What was read: texts or numeric sequences, one label each (several joined by a separator).

    Args:
        items: N texts, or N arrays (T, C).
        labels: N labels as they stood in the file.
        groups: N values that must not stand on both sides of a split; None if there are none.
        checksum: Of the file.
        report: Lines for the user.
        channels: Names of the C channels of numeric sequences.
    """

    items: list[Any]
    labels: list[str]
    groups: list[str] | None
    checksum: str
    report: tuple[str, ...]
    channels: tuple[str, ...] = ()


class FixedBatches(TokenBatches):
    """Every batch is padded to `max_tokens`, for architectures that need one length."""

    def padded(self, longest: int) -> int:
        """The same steps for every batch."""
        return self.max_steps or longest


class UnmaskedBatches(SequenceBatches):
    """Without the mask: all sequences have one length."""

    def inputs(self, rows: np.ndarray, steps: int) -> dict[str, np.ndarray]:
        """{"features": (B, T, C) float32} of sequences."""
        return {"features": super().inputs(rows, steps)["features"]}


def read_examples(options: Classification, path: str) -> Examples:
    """Reads a file of texts or of numeric sequences."""
    if options.inputs == "series":
        if options.group_column:
            raise UserError("--group-column is for texts: leave it out, equal series stay together")
        series = read_sequences(
            path,
            label_column=options.label_column,
            id_column=options.id_column,
            time_column=options.time_column,
            value_columns=options.value_column,
        )
        return Examples(
            list(series.values), list(series.labels or []), None, series.checksum, series.report,
            tuple(series.names),
        )  # fmt: skip
    found = read_texts(path, text_columns=options.text_column, label_column=options.label_column)
    groups = None
    if options.group_column:
        groups = read_texts(
            path, text_columns=options.text_column, label_column=options.group_column
        ).labels
    return Examples(found.texts, found.labels or [], groups, found.checksum, found.report)


def label_file(
    run: Callable[[dict[str, np.ndarray]], Mapping[str, Any]],
    names: Collection[str],
    metadata: Mapping[str, Any],
    data: str,
) -> pd.DataFrame:
    """Labels every example of a file.

    Args:
        run: The model, in whatever runtime: named raw inputs to named outputs.
        names: The inputs that it has.
        metadata: From `ClassificationProblem.metadata`, as it was stored with the model.
        data: A file of texts or sequences like those of the training; or a ``.npy`` file of token
            ids, (texts, tokens).

    Returns:
        One row for each example: ``label``, and ``probability_LABEL`` of each label.

    Raises:
        UserError: If the file does not fit the model.
    """
    labels = metadata["labels"]
    if metadata["inputs"] == "series":
        inputs = _series_inputs(names, metadata, data)
        order = [np.arange(len(inputs["features"]))]
        parts = [run(inputs)["probabilities"]]
    else:
        rows = _ids_of(metadata, data)
        # Rows of like length together, so that little is padded.
        every = np.argsort([len(row) for row in rows], kind="stable")
        order = np.split(every, np.arange(256, len(every), 256))
        parts, steps = [], None
        for index in order:
            chosen = [rows[i] for i in index]
            try:
                found = run({"tokens": text.pad(chosen, steps)})
            except ValueError:
                if steps:
                    raise
                # A model of one length says so only when it is called with another.
                steps = metadata["max_tokens"]
                found = run({"tokens": text.pad(chosen, steps)})
            parts.append(found["probabilities"])
    given = np.empty((sum(map(len, order)), len(labels)), np.float32)
    given[np.concatenate(order)] = np.concatenate(parts)
    if metadata["multi_label"]:
        chosen = [
            metadata["multi_label"].join(labels[k] for k in np.flatnonzero(row >= 0.5))
            for row in given
        ]
    else:
        chosen = [labels[k] for k in given.argmax(axis=1)]
    columns = {f"probability_{label}": given[:, k] for k, label in enumerate(labels)}
    return pd.DataFrame({"label": chosen, **columns})


def _ids_of(metadata: Mapping[str, Any], data: str) -> list[np.ndarray]:
    """The ids of every text of a file, cut as in the training."""
    from keras_seq.preprocessing.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_config(metadata["tokenizer"])
    if data.endswith(".npy"):
        try:
            given = np.load(data, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{data} cannot be read as an array of ids: {error}") from error
        return list(text.check_ids(given, tokenizer.size))
    found = read_texts(
        data, text_columns=metadata["text_columns"], label_column=None, need_labels=False
    )
    rows = text.encode(tokenizer, found.texts)
    return [text.cut(row, metadata["max_tokens"], metadata["keep"]) for row in rows]


def _series_inputs(
    names: Collection[str], metadata: Mapping[str, Any], data: str
) -> dict[str, np.ndarray]:
    found = read_sequences(
        data,
        label_column=None,
        id_column=metadata["id_column"],
        time_column=metadata["time_column"],
        value_columns=metadata["value_columns"],
        need_labels=False,
    )
    if list(found.names) != metadata["channels"]:
        raise UserError(
            f"{data} has the channels {', '.join(found.names)}; the model was trained on "
            f"{', '.join(metadata['channels'])}"
        )
    lengths = {len(value) for value in found.values}
    if metadata["steps"] and lengths != {metadata["steps"]}:
        raise UserError(
            f"{data} has sequences of {min(lengths)} to {max(lengths)} steps; the model was "
            f"trained on {metadata['steps']} steps each"
        )
    batches = SequenceBatches(found.values, None)
    inputs, _ = batches.batch(np.arange(len(batches)))
    return {name: value for name, value in inputs.items() if name in names}
