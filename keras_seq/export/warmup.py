"""Warm-up requests inside a SavedModel, which servers play before they let anybody in.

The first call of a model is slower than the others, by tens of times. TensorFlow Serving therefore
reads requests from ``assets.extra/tf_serving_warmup_requests``: a TFRecord of the protocol buffer
PredictionLog. That message is defined in tensorflow-serving-api, which exporting does not need
otherwise, and its few fields are written here by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keras_seq.export.exporter import Samples

if TYPE_CHECKING:
    from keras_seq.export.exporter import Endpoint

#: Where servers look for it, inside the SavedModel.
WARMUP = "assets.extra/tf_serving_warmup_requests"

# Numbers of the fields in tensorflow_serving/apis: PredictionLog.predict_log, PredictLog.request,
# PredictRequest.model_spec and .inputs, ModelSpec.signature_name, and key and value of a map.
_PREDICT_LOG, _REQUEST, _MODEL_SPEC, _INPUTS, _SIGNATURE, _KEY, _VALUE = 6, 1, 1, 2, 3, 1, 2


def write_warmup(folder: Path, samples: Samples, endpoints: Sequence[Endpoint] = ()) -> Path:
    """Writes one request of one row for each signature.

    Args:
        folder: The SavedModel.
        samples: Of ``serving_default``, (N, ...).
        endpoints: Its further signatures, which bring samples of their own.

    Returns:
        The file.
    """
    import tensorflow as tf

    path = folder / WARMUP
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(prediction_log("serving_default", samples))
        for endpoint in endpoints:
            sizes = (shape[0] for shape, _ in endpoint.inputs.values() if shape)
            rows = max((size for size in sizes if size is not None), default=1)
            writer.write(prediction_log(endpoint.name, endpoint.samples, rows))
    return path


def prediction_log(signature: str, samples: Mapping[str, object], rows: int = 1) -> bytes:
    r"""Writes a PredictionLog with one request.

    Args:
        signature: The signature that it asks for.
        samples: Name of each input to an array, of which the first rows are taken; an array without
            axes goes as it is.
        rows: How many. Default 1.

    Returns:
        The serialised message.

    Example:
        >>> import numpy as np
        >>> prediction_log("step", {"x": np.zeros((3, 2), "float32")})[:12]
        b"2'\n%\n\x06\x1a\x04step"
    """
    import numpy as np
    import tensorflow as tf

    inputs = b""
    for name, value in samples.items():
        array = np.asarray(value)
        proto = tf.make_tensor_proto(array[:rows] if array.ndim else array)
        entry = _field(_KEY, name.encode()) + _field(_VALUE, proto.SerializeToString())
        inputs += _field(_INPUTS, entry)
    request = _field(_MODEL_SPEC, _field(_SIGNATURE, signature.encode())) + inputs
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """A field that holds a message or text: its number and kind, its length, itself."""
    length, size = b"", len(content)
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content
