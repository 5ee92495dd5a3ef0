"""LiteRT files that run without TensorFlow: builtin operators only, recurrent layers included.

Two facts shape this file. A LiteRT file of a recurrent layer runs on a device only when its batch
size is fixed (otherwise the loop needs Flex operators, which no runtime of ours has); and the
int8 converter crashes on loops, so for int8 an LSTM is one fused operator, and the steps of other
recurrent layers are written out one by one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seq.export.exporter import Endpoint, Exporter, ExportError, Run, Samples, workspace
from keras_seq.export.saved_model import write_saved_model
from keras_seq.export.workers import (
    WorkerCrash,
    WorkerError,
    read_arrays,
    read_calls,
    shared_worker,
    write_arrays,
    write_calls,
)

if TYPE_CHECKING:
    import keras

# This module is read by processes that must not import TensorFlow: Keras is imported where used.

#: How many samples show the int8 converter the ranges of the values.
REPRESENTATIVE = 512


def _write(
    model: keras.Model,
    destination: Path,
    samples: Samples,
    endpoints: Sequence[Endpoint] = (),
    *,
    form: str,
) -> list[Path]:
    int8 = form == "int8"
    signatures = ["serving_default", *(endpoint.name for endpoint in endpoints)]
    with workspace() as scratch:
        # float32, float16 and dynamic start from the same SavedModel.
        source = scratch / "_".join(["unrolled" if int8 else "loop", str(id(model)), *signatures])
        if not source.exists():
            # An open length stays open in the loop form; unrolled needs a number.
            write_saved_model(
                model,
                source,
                batch=1,
                samples=samples if int8 else None,
                unroll=int8,
                fuse=int8,
                endpoints=endpoints,
            )
        count = len(next(iter(samples.values())))
        chosen = np.linspace(0, count - 1, min(count, REPRESENTATIVE)).astype(int)
        rows = {name: value[chosen] for name, value in samples.items()}
        try:
            shared_worker("converter").request(
                {
                    "operation": "convert",
                    "saved_model": str(source),
                    "form": form,
                    "samples": write_arrays(scratch / "representative.npz", rows),
                    "destination": str(destination),
                    "signatures": signatures,
                }
            )
        except WorkerCrash as error:
            raise ExportError(
                f"the LiteRT converter crashed on the model {model.name!r} in the format "
                f"litert {form}: {error}; leave this format out"
            ) from error
        except WorkerError as error:
            raise ExportError(
                f"the model {model.name!r} cannot be converted to litert {form}: {error}"
            ) from error
    return [destination]


def run_litert(
    destination: Path, samples: Samples, imports: Sequence[str] = (), *, repeats: int = 200
) -> Run:
    """Runs a LiteRT file in the process without TensorFlow.

    Args:
        destination: The ``.tflite`` file.
        samples: Inputs, (N, ...); each row is one call.
        imports: Nothing can be imported there; only for the seam that all formats share.
        repeats: Most calls to time.

    Returns:
        Outputs, latency at batch 1, operators, memory.

    Raises:
        ExportError: If it does not run there, or needs an operator that is not builtin.
    """
    with workspace() as scratch:
        outputs = scratch / "litert_outputs.npz"
        try:
            answer = shared_worker("runner").request(
                {
                    "operation": "run",
                    "model": str(destination),
                    "samples": write_arrays(scratch / "samples.npz", samples),
                    "outputs": str(outputs),
                    "repeats": repeats,
                }
            )
        except (WorkerCrash, WorkerError) as error:
            raise ExportError(
                f"{destination.name} does not run in LiteRT without TensorFlow: {error}"
            ) from error
        results = read_arrays(outputs)
    return Run(
        outputs=results,
        latency_ms=answer.pop("latency_ms"),
        latency_p95_ms=answer.pop("latency_p95_ms"),
        details=answer | {"runtime": "ai_edge_litert", "batch_sizes": [1]},
    )


def _call(
    destination: Path, signature: str, calls: Sequence[Samples], imports: Sequence[str]
) -> list[Samples]:
    with workspace() as scratch:
        outputs = scratch / "litert_answers.npz"
        try:
            shared_worker("runner").request(
                {
                    "operation": "call",
                    "model": str(destination),
                    "signature": signature,
                    "calls": write_calls(scratch / "calls.npz", calls),
                    "outputs": str(outputs),
                }
            )
        except (WorkerCrash, WorkerError) as error:
            raise ExportError(
                f"the signature {signature!r} of {destination.name} does not run in LiteRT "
                f"without TensorFlow: {error}"
            ) from error
        return read_calls(outputs)


def _stream(
    destination: Path,
    signature: str,
    inputs: Samples,
    states: dict[str, list[int]],
    most_position: int | None,
    imports: Sequence[str],
) -> tuple[Samples, dict[str, Any]]:
    with workspace() as scratch:
        outputs = scratch / "litert_stream.npz"
        try:
            details = shared_worker("runner").request(
                {
                    "operation": "stream",
                    "model": str(destination),
                    "signature": signature,
                    "inputs": write_arrays(scratch / "stream.npz", inputs),
                    "states": states,
                    "most_position": most_position,
                    "outputs": str(outputs),
                }
            )
        except (WorkerCrash, WorkerError) as error:
            raise ExportError(
                f"the signature {signature!r} of {destination.name} cannot be streamed in LiteRT "
                f"without TensorFlow: {error}"
            ) from error
        return read_arrays(outputs), details


def _exporter(name: str, form: str, tolerance: float, **judged: bool) -> Exporter:
    return Exporter(
        name=name,
        path=f"litert/model_{form}.tflite",
        write=functools.partial(_write, form=form),
        run=run_litert,
        tolerance=tolerance,
        # Every size is fixed in int8, and its converter wants samples for each signature.
        call_signature=None if form == "int8" else _call,
        stream=None if form == "int8" else _stream,
        one_by_one=True,
        **judged,
    )


float32 = _exporter("litert", "float32", 1e-5)
float16 = _exporter("litert_float16", "float16", 5e-3)
dynamic = _exporter("litert_dynamic", "dynamic", 5e-2, strict=False)
int8 = _exporter("litert_int8", "int8", 5e-2, strict=False, by_score=True)
