"""SavedModel for TF Serving: raw values in, raw values out, named, for any batch size."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_seq.export.exporter import (
    Endpoint,
    Exporter,
    ExportError,
    Run,
    Samples,
    workspace,
    written_files,
)
from keras_seq.export.warmup import write_warmup
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


def write_saved_model(
    model: keras.Model,
    destination: Path,
    *,
    batch: int | None = None,
    samples: Samples | None = None,
    unroll: bool | None = None,
    fuse: bool = False,
    endpoints: Sequence[Endpoint] = (),
) -> None:
    """Writes a SavedModel whose signature ``serving_default`` has named inputs and outputs.

    Args:
        model: A functional model.
        destination: The folder to write.
        batch: Fixed batch size, or None for any.
        samples: If given, fixes the sizes that the model leaves open.
        unroll: If given, the form of recurrent layers (see `inference_form`).
        fuse: Whether LSTM layers take the form of LiteRT's operator (see `inference_form`).
        endpoints: Further signatures; they share the variables with ``serving_default``.
    """
    import keras

    from keras_seq.export.signature import (
        Signature,
        endpoint_specs,
        inference_form,
        lookup_tables,
        resources,
    )

    signature = Signature(model)
    absl, level = logging.getLogger("absl"), logging.getLogger("absl").level
    with inference_form(model, unroll=unroll, fuse=fuse), warnings.catch_warnings():
        # TensorFlow's own deprecations while it walks the objects; nothing a user can act on.
        warnings.simplefilter("ignore")
        absl.setLevel(logging.ERROR)
        try:
            archive = keras.export.ExportArchive()
            # Variables are found through the endpoint. Tracking the whole model would trace it a
            # second time, with a free batch size, which is slow and fails on unrolled layers.
            for table in lookup_tables(model) + resources(endpoints):
                archive.track(table)
            archive.add_endpoint(
                name="serving_default",
                fn=signature.call,
                input_signature=[signature.specs(batch, samples)],
            )
            for endpoint in endpoints:
                archive.add_endpoint(
                    name=endpoint.name,
                    fn=endpoint.call,
                    input_signature=[endpoint_specs(endpoint, batch)],
                )
            archive.write_out(str(destination), verbose=False)
        finally:
            absl.setLevel(level)


def _write(
    model: keras.Model, destination: Path, samples: Samples, endpoints: Sequence[Endpoint] = ()
) -> list[Path]:
    write_saved_model(model, destination, endpoints=endpoints)
    write_warmup(destination, samples, endpoints)
    return written_files(destination)


def _run(destination: Path, samples: Samples, imports: Sequence[str] = ()) -> Run:
    with workspace() as scratch:
        prefix = scratch / "saved_model_outputs"
        try:
            answer = shared_worker("converter", imports).request(
                {
                    "operation": "run_saved_model",
                    "folder": str(destination),
                    "samples": write_arrays(scratch / "samples.npz", samples),
                    "outputs": str(prefix),
                    "repeats": 200,
                    "imports": list(imports),
                }
            )
        except (WorkerCrash, WorkerError) as error:
            raise _does_not_run(error) from error
        sevens, ones = (read_arrays(f"{prefix}_{size}.npz") for size in (7, 1))
    return Run(
        outputs=sevens,
        batches={1: ones},
        latency_ms=answer.pop("latency_ms"),
        latency_p95_ms=answer.pop("latency_p95_ms"),
        details=answer | {"runtime": "tensorflow", "batch_sizes": [1, 7]},
    )


def _call(
    destination: Path, signature: str, calls: Sequence[Samples], imports: Sequence[str]
) -> list[Samples]:
    with workspace() as scratch:
        outputs = scratch / "saved_model_answers.npz"
        try:
            shared_worker("converter", imports).request(
                {
                    "operation": "call_saved_model",
                    "folder": str(destination),
                    "signature": signature,
                    "calls": write_calls(scratch / "calls.npz", calls),
                    "outputs": str(outputs),
                    "imports": list(imports),
                }
            )
        except (WorkerCrash, WorkerError) as error:
            raise _does_not_run(error, signature) from error
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
        outputs = scratch / "saved_model_stream.npz"
        try:
            details = shared_worker("converter", imports).request(
                {
                    "operation": "stream_saved_model",
                    "folder": str(destination),
                    "signature": signature,
                    "inputs": write_arrays(scratch / "stream.npz", inputs),
                    "states": states,
                    "most_position": most_position,
                    "outputs": str(outputs),
                    "imports": list(imports),
                }
            )
        except (WorkerCrash, WorkerError) as error:
            raise _does_not_run(error, signature) from error
        return read_arrays(outputs), details


def _does_not_run(error: Exception, signature: str = "serving_default") -> ExportError:
    # TensorFlow's messages run over many lines; the last one that is no list of nodes says why.
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith(("[[", "[Op:"))]
    text = lines[-1][:400] if lines else type(error).__name__
    hint = ""
    if "Op type not registered" in text:
        hint = "; an endpoint of tensorflow-text operators must say needs_tensorflow_text=True"
    return ExportError(f"the SavedModel's {signature!r} does not run from disk: {text}{hint}")


saved_model = Exporter(
    name="saved_model",
    path="{version}",
    write=_write,
    run=_run,
    call_signature=_call,
    stream=_stream,
)
