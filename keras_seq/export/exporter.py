"""The seam between `export` and the formats: what one format has to bring.

An exporter writes a model to a file and runs that file in its real runtime. `export` compares the
two, so an exporter never judges itself. A plugin makes an `Exporter` and names it as an entry
point of the group ``keras_seq.exporters``. Nothing here imports Keras or TensorFlow.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seq.errors import UserError

if TYPE_CHECKING:
    import keras

Samples = dict[str, np.ndarray]


class ExportError(UserError):
    """An artifact that could not be made, or that does not compute what the model computes.

    Example:
        >>> issubclass(ExportError, UserError)
        True
    """


@dataclass(frozen=True, kw_only=True)
class Run:
    """What came out when the real runtime ran an exported file.

    Args:
        outputs: Name of each output to its values for all samples, (N, ...).
        latency_ms: Median time of one call with one sample, milliseconds, or None.
        latency_p95_ms: 95th percentile of the same, or None.
        details: Anything worth keeping in ``parity.json`` (operators, versions, memory).
        batches: Outputs of the first rows at further batch sizes; each is compared as well.
    """

    outputs: dict[str, np.ndarray]
    latency_ms: float | None = None
    latency_p95_ms: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    batches: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """One format.

    Args:
        name: What users type.
        path: Where the artifact lies inside the export's folder; ``{version}`` is filled in.
        write: ``(model, destination, samples) -> written files``. The destination's parent exists.
        run: ``(destination, samples) -> Run``, by the real runtime, from what lies on disk.
        tolerance: Largest difference allowed, relative to the output's scale.
        strict: True: more than the tolerance is an error. False (quantised formats): it is
            reported, and an error only when the outputs are useless (over 50 % off, or NaN).
        by_score: Judge by the change of the test score, where there is one, and not by outputs.

    Example:
        >>> Exporter(name="mine", path="mine/model.bin", write=print, run=print).tolerance
        1e-05
    """

    name: str
    path: str
    write: Callable[[keras.Model, Path, Samples], list[Path]]
    run: Callable[[Path, Samples], Run]
    tolerance: float = 1e-5
    strict: bool = True
    by_score: bool = False


_workspace: ContextVar[Path | None] = ContextVar("keras_seq_export_workspace", default=None)


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A scratch folder that lasts as long as the outermost `with`.

    Several formats start from the same intermediate file (four LiteRT files from two SavedModels);
    inside one export they find what another has left here.

    Yields:
        The folder; it is removed at the end of the outermost `with`.

    Example:
        >>> with workspace() as outer, workspace() as inner:
        ...     outer == inner
        True
    """
    present = _workspace.get()
    if present is not None:
        yield present
        return
    with tempfile.TemporaryDirectory(prefix="keras_seq_export_") as folder:
        token = _workspace.set(Path(folder))
        try:
            yield Path(folder)
        finally:
            _workspace.reset(token)


def written_files(destination: Path) -> list[Path]:
    """Lists the files of an artifact, which is a file or a folder, in a fixed order."""
    if destination.is_file():
        return [destination]
    return sorted(path for path in destination.rglob("*") if path.is_file())
