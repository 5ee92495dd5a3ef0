"""Answers that are the same in both protocols: how a model is, and what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from keras_seq.serving.failures import ServingError, code_number
from keras_seq.serving.models import Version


def status_reply(versions: Sequence[Version]) -> Any:
    """Writes a GetModelStatusResponse.

    Args:
        versions: The newest first.
    """
    reply = get_model_status_pb2.GetModelStatusResponse()
    for version in versions:
        entry = reply.model_version_status.add()
        entry.version = version.number
        entry.state = get_model_status_pb2.ModelVersionStatus.State.Value(version.state)
        entry.status.error_code = code_number(version.code)
        entry.status.error_message = version.message
    return reply


def metadata_reply(name: str, version: Version) -> Any:
    """Writes a GetModelMetadataResponse with the signatures.

    Args:
        name: The model's.
        version: One that is held.

    Raises:
        ServingError: If it has been unloaded.
    """
    if version.model is None:
        raise ServingError("UNAVAILABLE", f"version {version.number} of {name} is gone")
    found = get_model_metadata_pb2.SignatureDefMap()
    for key, definition in version.model.signature_defs.items():
        found.signature_def[key].CopyFrom(definition)
    reply = get_model_metadata_pb2.GetModelMetadataResponse()
    reply.model_spec.name = name
    reply.model_spec.version.value = version.number
    reply.metadata["signature_def"].Pack(found)
    return reply
