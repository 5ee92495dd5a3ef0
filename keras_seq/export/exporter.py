"""The seam between `export` and the formats: what one format has to bring.

An exporter writes a model to a file and runs that file in its real runtime. `export` compares the
two, so an exporter never judges itself. A plugin makes an `Exporter` and names it as an entry
point of the group ``keras_seq.exporters``. Nothing here imports Keras or TensorFlow.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seq.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

Samples = dict[str, np.ndarray]
#: Runs a named signature of a file on each of several inputs: (file, signature, inputs, imports).
CallSignature = Callable[[Path, str, Sequence[Samples], Sequence[str]], list[Samples]]
#: Streams sequences through a named signature of a file: (file, signature, inputs (N, S, ...),
#: shapes of the states, last count of the steps or None, imports).
StreamSignature = Callable[
    [Path, str, Samples, dict[str, list[int]], int | None, Sequence[str]],
    tuple[Samples, dict[str, Any]],
]


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
class Endpoint:
    """One more signature of an exported file, beside ``serving_default``.

    Args:
        name: What callers ask for: ``"serving_text"``, ``"step"``.
        call: Named tensors in, named tensors out, in TensorFlow operators.
        inputs: Name to (shape with the batch axis, dtype). A size of None is open; a batch of
            None becomes 1 in LiteRT. An input of shape ``()`` is the same for all samples.
        samples: Real inputs, (N, ...); text as arrays of str or bytes.
        expected: What the Keras model says to the samples, (N, ...). Whole numbers, truth values
            and text must come out exactly.
        tracked: Layers, modules and lookup tables that `call` uses.
        formats: Names of the exporters that carry it.
        tolerance: Largest difference, relative to the scale of the output.
        needs_tensorflow_text: Whether `call` uses operators of tensorflow-text.
        open_rows: Whether LiteRT too takes any number of rows. A call without a loop over time
            converts so; its rows may be the hypotheses of a search.

    Example:
        >>> Endpoint(name="step", call=dict, inputs={"x": ((None, 2), "float32")},
        ...          samples={"x": np.ones((1, 2))}, expected={"x": np.ones((1, 2))}).formats
        ('saved_model',)
    """

    name: str
    call: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]
    inputs: dict[str, tuple[tuple[int | None, ...], str]]
    samples: Samples
    expected: Samples
    tracked: tuple[Any, ...] = ()
    formats: tuple[str, ...] = ("saved_model",)
    tolerance: float = 1e-5
    needs_tensorflow_text: bool = False
    open_rows: bool = False


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
        by_score: Judge by the labels or the test score, where there are any, and not by outputs.
        call_signature: If given, the format can hold several signatures and inputs of any length.
            `write` then also takes ``endpoints=`` and `run` takes ``imports=`` (packages whose
            operators the file needs), both only where there are any.
        one_by_one: Whether the file takes one sample a call.
        stream: If given, the format can hold a step with explicit states. Gives the outputs
            (N, S, ...) and what is worth keeping in ``parity.json``.

    Example:
        >>> Exporter(name="mine", path="mine/model.bin", write=print, run=print).tolerance
        1e-05
    """

    name: str
    path: str
    write: Callable[..., list[Path]]
    run: Callable[..., Run]
    tolerance: float = 1e-5
    strict: bool = True
    by_score: bool = False
    call_signature: CallSignature | None = None
    one_by_one: bool = False
    stream: StreamSignature | None = None


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
