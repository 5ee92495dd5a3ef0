"""Opening what a run of translation left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_seq.errors import UserError
from keras_seq.runs import find_model
from keras_seq.tasks.translator import Translator


def open_translator(run: str | Path, **options: Any) -> Translator:
    """Opens the translator that a run or an export left.

    Args:
        run: A run folder of the task translation, an exported folder with a ``.keras`` file, or
            that file.
        **options: As for `Translator`.

    Raises:
        UserError: If there is none.
    """
    from keras_seq import saving
    from keras_seq.compare import inner_model

    kind, path, metadata = find_model(run)
    if metadata.get("task") != "translation":
        raise UserError(
            f"{run} is of the task {metadata.get('task') or 'unknown'}: give a run of translation"
        )
    if kind != "keras":
        raise UserError(
            f"{run} has no .keras file: give the run folder, or export it with --to keras"
        )
    return Translator(inner_model(saving.load(path)), metadata, **options)
