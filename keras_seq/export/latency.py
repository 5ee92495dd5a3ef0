"""What a model costs on a device: kilobytes and milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keras_seq.export.exporter import workspace
from keras_seq.export.litert import float32, run_litert

if TYPE_CHECKING:
    import keras


def litert_size_and_latency(
    model: keras.Model, samples: dict[str, np.ndarray], *, repeats: int = 200
) -> tuple[float, float]:
    """Measures the float32 LiteRT form of a model, as it would run on a device.

    Args:
        model: A model with named inputs and outputs.
        samples: Name of each input to real values, (N, ...); one row is enough.
        repeats: Most calls to time.

    Returns:
        Size of the file in kilobytes (1000 bytes), and the median time of one call with one
        sample on one thread in milliseconds.

    Raises:
        ExportError: If the model cannot be converted, or needs operators that are not builtin.
    """
    from keras_seq.export.signature import Signature

    checked = Signature(model).check(samples)
    rows = {name: value[:1] for name, value in checked.items()}
    with workspace() as scratch:
        destination = scratch / "latency.tflite"
        float32.write(model, destination, rows)
        run = run_litert(destination, rows, repeats=repeats)
        size = destination.stat().st_size / 1000
    return size, float(run.latency_ms or 0.0)  # run_litert always measures
