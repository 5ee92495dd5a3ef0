"""gRPC as TensorFlow Serving speaks it, on its own protocol buffers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_seq.errors import UserError
from keras_seq.serving.desk import Desk
from keras_seq.serving.failures import ServingError, as_serving_error, invalid
from keras_seq.serving.loaded import DEFAULT
from keras_seq.serving.replies import metadata_reply, status_reply
from keras_seq.serving.values import fill_proto, from_protos


class Rpc:
    """Answers gRPC requests.

    Args:
        desk: What both protocols share.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._server: Any = None

    async def start(self) -> int:
        """Listens.

        Returns:
            The port.

        Raises:
            UserError: If the port is taken.
        """
        options = self._desk.options
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", options.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                # Two servers on one port would share the requests, and nobody would notice.
                ("grpc.so_reuseport", 0),
            ],
            # What waits for a place is told so by the desk; this is the limit on the rest.
            maximum_concurrent_rpcs=options.max_requests + options.max_connections,
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            _Prediction(self._desk), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(self._desk), self._server)
        host = f"[{options.host}]" if ":" in options.host else options.host
        try:
            port: int = self._server.add_insecure_port(f"{host}:{options.grpc_port}")
        except RuntimeError as error:
            raise UserError(
                f"cannot listen on {options.host}:{options.grpc_port} for gRPC: is the port taken? "
                "--grpc-port gives another"
            ) from error
        await self._server.start()
        return port

    async def stop(self) -> None:
        """Takes no more requests and lets those under way end."""
        if self._server is not None:
            await self._server.stop(self._desk.options.grace_seconds)


@contextlib.asynccontextmanager
async def _told(desk: Desk, context: Any) -> AsyncIterator[None]:
    """Tells the client what went wrong, in gRPC's own form."""
    try:
        yield
    except ServingError as error:
        await context.abort(getattr(grpc.StatusCode, error.code), str(error))
    except grpc.aio.BaseError:
        raise
    except Exception as error:
        desk.log.exception("gRPC")
        failure = as_serving_error(error)
        await context.abort(getattr(grpc.StatusCode, failure.code), str(failure))


def _which(spec: Any) -> tuple[int | None, str]:
    """Version and label of a ModelSpec."""
    number = spec.version.value if spec.HasField("version") else None
    return number, spec.version_label


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; the others are answered with UNIMPLEMENTED."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def Predict(self, request: Any, context: Any) -> Any:
        """Answers with the outputs of a signature."""
        started, code, name = time.perf_counter(), "OK", request.model_spec.name
        async with _told(self._desk, context):
            try:
                return await self._predict(request, name)
            except ServingError as error:
                code = error.code
                raise
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except BaseException:
                code = "INTERNAL"
                raise
            finally:
                self._desk.answered(name, "GRPC", code, time.perf_counter() - started)

    async def _predict(self, request: Any, name: str) -> Any:
        spec = request.model_spec
        if not name:
            raise invalid("Missing ModelSpec")
        served = self._desk.catalog.find(name)
        with self._desk.place(), served.use(*_which(spec)) as version:
            if version.model is None:
                raise ServingError("UNAVAILABLE", f"version {version.number} of {name} is gone")
            if (spec.signature_name or DEFAULT) not in version.model.signature_defs:
                raise ServingError(
                    "FAILED_PRECONDITION",
                    f'Serving signature key "{spec.signature_name or DEFAULT}" not found.',
                )
            signature = version.model.signature(spec.signature_name)
            chosen = list(request.output_filter) or list(signature.outputs)
            for alias in chosen:
                if alias not in signature.outputs:
                    raise invalid(
                        f"output tensor alias not found in signature: {alias} Outputs expected to "
                        f"be in the set {{{','.join(signature.outputs)}}}."
                    )
                if chosen.count(alias) > 1:
                    raise invalid(f"duplicate output tensor alias: {alias}")
            values = from_protos(request.inputs, signature, self._desk.options.max_body_bytes)
            outputs = await served.predict(version, signature, values)
            reply = predict_pb2.PredictResponse()
            reply.model_spec.name = name
            reply.model_spec.version.value = version.number
            reply.model_spec.signature_name = signature.name
        for alias in chosen:
            fill_proto(reply.outputs[alias], outputs[alias])
        return reply

    async def GetModelMetadata(self, request: Any, context: Any) -> Any:
        """Answers with the signatures."""
        async with _told(self._desk, context):
            if list(request.metadata_field) != ["signature_def"]:
                wrong = ", ".join(request.metadata_field) or "none"
                raise invalid(f"Metadata field {wrong} is not supported")
            name = request.model_spec.name
            with self._desk.catalog.find(name).use(*_which(request.model_spec)) as version:
                return metadata_reply(name, version)


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def GetModelStatus(self, request: Any, context: Any) -> Any:
        """Answers with the states of the versions."""
        async with _told(self._desk, context):
            served = self._desk.catalog.find(request.model_spec.name, status=True)
            return status_reply(served.status(*_which(request.model_spec)))
