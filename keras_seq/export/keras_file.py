"""The `.keras` file: for Python, for training on, and for `keras_seq.load`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keras_seq.export.exporter import Exporter, Run, Samples

if TYPE_CHECKING:
    import keras

# This module is read by processes that must not import TensorFlow: Keras is imported where used.


def _write(model: keras.Model, destination: Path, samples: Samples) -> list[Path]:
    from keras_seq.saving import save

    save(model, destination)
    return [destination]


def _run(destination: Path, samples: Samples) -> Run:
    import keras

    from keras_seq.export.converter import latencies
    from keras_seq.export.signature import Signature
    from keras_seq.saving import load

    model = load(destination)
    signature = Signature(model)
    first = {name: value[:1] for name, value in samples.items()}
    half, most = latencies(lambda: signature.call(first), repeats=20)
    return Run(
        outputs=signature.reference(samples),
        latency_ms=half,
        latency_p95_ms=most,
        details={"runtime": "keras", "versions": {"keras": keras.__version__}},
    )


keras_file = Exporter(name="keras", path="keras/model.keras", write=_write, run=_run)
