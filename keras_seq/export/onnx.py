"""ONNX, by the extra ``pip install keras-seq[onnx]``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_seq.errors import UserError
from keras_seq.export.exporter import Exporter, ExportError, Run, Samples, workspace
from keras_seq.export.saved_model import write_saved_model
from keras_seq.export.workers import WorkerCrash, WorkerError, shared_worker

if TYPE_CHECKING:
    import keras

# This module is read by processes that must not import TensorFlow: Keras is imported where used.


def _need(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"the format 'onnx' needs {', '.join(missing)}: pip install 'keras-seq[onnx]'"
        )


def _write(model: keras.Model, destination: Path, samples: Samples) -> list[Path]:
    _need("onnx", "tf2onnx", "onnxruntime")
    with workspace() as scratch:
        source = scratch / f"any_batch_{id(model)}"
        write_saved_model(model, source)
        try:
            shared_worker("converter").request(
                {
                    "operation": "convert_onnx",
                    "saved_model": str(source),
                    "destination": str(destination),
                }
            )
        except (WorkerCrash, WorkerError) as error:
            raise ExportError(
                f"the model {model.name!r} cannot be converted to onnx: {error}"
            ) from error
    return [destination]


def _run(destination: Path, samples: Samples) -> Run:
    _need("onnxruntime")
    import onnxruntime

    from keras_seq.export.converter import latencies

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(destination), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]

    def call(rows: Samples) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, rows), strict=True))

    count = len(next(iter(samples.values())))
    sevens = [
        call({name: value[start : start + 7] for name, value in samples.items()})
        for start in range(0, count, 7)
    ]
    first = {name: value[:1] for name, value in samples.items()}
    half, most = latencies(lambda: call(first))
    return Run(
        outputs={name: np.concatenate([part[name] for part in sevens]) for name in names},
        batches={1: call(first)},
        latency_ms=half,
        latency_p95_ms=most,
        details={
            "runtime": "onnxruntime",
            "batch_sizes": [1, 7],
            "versions": {"onnxruntime": onnxruntime.__version__},
        },
    )


onnx = Exporter(name="onnx", path="onnx/model.onnx", write=_write, run=_run)
