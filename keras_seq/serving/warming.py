"""Requests that a SavedModel carries for its first seconds, played before it answers anybody."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from keras_seq.errors import UserError
from keras_seq.export.warmup import WARMUP
from keras_seq.serving.failures import ServingError
from keras_seq.serving.loaded import LoadedModel
from keras_seq.serving.values import from_protos

#: TensorFlow Serving plays no more, either.
_MOST = 1000
_MOST_BYTES = 2**30


def replay(model: LoadedModel, folder: Path) -> int:
    """Plays the requests of ``assets.extra/tf_serving_warmup_requests``, if there are any.

    Args:
        model: What was loaded.
        folder: Where from.

    Returns:
        How many requests were played.

    Raises:
        UserError: If a request fails: then the version is not fit to be served.
    """
    from tensorflow_serving.apis import prediction_log_pb2

    path = folder / WARMUP
    if not path.is_file():
        return 0
    played = 0
    try:
        # Read to the end at once: an iterator that is left early holds a file open.
        records = list(tf.data.TFRecordDataset(str(path)).take(_MOST).as_numpy_iterator())
        for record in records:
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            if not request.inputs:
                continue
            signature = model.signature(request.model_spec.signature_name)
            signature.run(from_protos(request.inputs, signature, _MOST_BYTES))
            played += 1
    except (ServingError, tf.errors.OpError, ValueError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"{path}: a warm-up request fails: {lines[0][:300]}") from error
    return played
