"""REST as TensorFlow Serving speaks it, and beside it health and what Prometheus reads."""

from __future__ import annotations

import asyncio
import json
import re
import time
from functools import partial
from typing import Any

import aiohttp
from aiohttp import web
from google.protobuf import json_format

from keras_seq.serving.desk import Desk
from keras_seq.serving.failures import ServingError, as_serving_error, invalid
from keras_seq.serving.metrics import CONTENT_TYPE
from keras_seq.serving.models import Version
from keras_seq.serving.replies import metadata_reply, status_reply
from keras_seq.serving.values import inputs_of, read_json, write_json

_WHICH = r"(?:/versions/(\d+)|/labels/([^/:]+))?"
_PREDICT = re.compile(rf"/v1/models/([^/:]+){_WHICH}:(classify|regress|predict)", re.IGNORECASE)
_STATUS = re.compile(rf"/v1/models(?:/([^/:]+))?{_WHICH}(?:/(metadata))?", re.IGNORECASE)
#: Bodies above this are parsed on a thread, so that the others are not held up.
_SMALL = 2**16
_JSON = "application/json"
_LINGERING = 3.0


class Rest:
    """Answers HTTP requests.

    Args:
        desk: What both protocols share.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._options = desk.options
        # Connections that have sent no request yet, each with its alarm.
        self._silent: dict[Any, asyncio.TimerHandle] = {}
        self._server: web.Server | None = None
        self._runner: web.ServerRunner | None = None
        self._listener: asyncio.Server | None = None

    async def start(self) -> int:
        """Listens.

        Returns:
            The port.
        """
        # A refused body is still read for a moment: a client that sends all of it before it listens
        # would otherwise find a broken connection, and not the answer.
        lingering = min(self._options.client_timeout, _LINGERING)
        self._server = web.Server(self._handle, access_log=None, lingering_time=lingering)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=self._options.grace_seconds)
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            self._connect, self._options.host, self._options.port
        )
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Takes no more connections, lets requests under way end, and closes the others."""
        if self._listener is not None:
            self._listener.close()
        for alarm in self._silent.values():
            alarm.cancel()
        self._silent.clear()
        if self._runner is not None:
            await self._runner.cleanup()

    # Connections --------------------------------------------------------------------------------

    def _connect(self) -> asyncio.Protocol:
        """Makes what handles a connection, with a limit on their number and on silence."""
        if self._server is None or len(self._server.connections) >= self._options.max_connections:
            return _Full()
        protocol = self._server()
        # The library closes connections that are silent between requests, but would wait for the
        # first one for ever.
        self._silent[protocol] = asyncio.get_running_loop().call_later(
            self._options.client_timeout, self._close_silent, protocol
        )
        return protocol

    def _close_silent(self, protocol: Any) -> None:
        self._silent.pop(protocol, None)
        protocol.force_close()

    async def _body(self, request: web.BaseRequest) -> bytes:
        """Reads the body, and no more of it than is allowed, for no longer than is allowed."""
        most = self._options.max_body_bytes
        too_long = ServingError(
            "RESOURCE_EXHAUSTED", f"the body of the request is longer than {most} bytes", 413
        )
        if (request.content_length or 0) > most:
            raise too_long
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._options.client_timeout):
                async for part in request.content.iter_any():
                    size += len(part)
                    if size > most:
                        raise too_long
                    parts.append(part)
        except TimeoutError:
            raise ServingError(
                "DEADLINE_EXCEEDED",
                f"the body did not arrive within {self._options.client_timeout:g} seconds",
                408,
            ) from None
        except (aiohttp.ClientError, aiohttp.http.HttpProcessingError) as error:
            raise invalid(f"the body cannot be read: {type(error).__name__}") from None
        return b"".join(parts)

    # Requests -----------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        alarm = self._silent.pop(request.protocol, None)
        if alarm is not None:
            alarm.cancel()
        try:
            return await self._answer(request)
        except ServingError as error:
            return _error(error)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            self._desk.log.exception("%s %s", request.method, request.path)
            return _error(as_serving_error(error))

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        path, method = request.path, request.method
        if method == "POST" and (match := _PREDICT.fullmatch(path)):
            name, number, label, verb = match.groups()
            return await self._predict(request, name, _number(number), label or "", verb.lower())
        if method == "GET" and (match := _STATUS.fullmatch(path)):
            name, number, label, metadata = match.groups()
            return self._describe(name, _number(number), label or "", bool(metadata))
        if method in ("GET", "HEAD"):
            if path in ("/monitoring/prometheus/metrics", "/metrics"):
                page = self._desk.metrics.page()
                return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE})
            if path in ("/health/live", "/v2/health/live"):
                return web.json_response({"live": True})
            if path in ("/health/ready", "/v2/health/ready"):
                ready = self._desk.ready
                return web.json_response({"ready": ready}, status=200 if ready else 503)
        if path.lower().startswith("/v1/"):
            raise invalid(f"Malformed request: {method} {path}")
        raise ServingError("NOT_FOUND", f"Not Found: {method} {path}")

    def _describe(
        self, name: str | None, number: int | None, label: str, metadata: bool
    ) -> web.Response:
        if not name:
            raise invalid("Missing model name in request.")
        if metadata:
            with self._desk.catalog.find(name).use(number, label) as version:
                reply = metadata_reply(name, version)
                packed = reply.metadata["signature_def"]
            body = {
                "model_spec": _plain(reply.model_spec),
                "metadata": {"signature_def": _plain(unpacked(packed))},
            }
        else:
            found = self._desk.catalog.find(name, status=True).status(number, label)
            body = _plain(status_reply(found))
        return web.Response(text=json.dumps(body, indent=1), content_type=_JSON)

    async def _predict(
        self, request: web.BaseRequest, name: str, number: int | None, label: str, verb: str
    ) -> web.Response:
        started, code = time.perf_counter(), "OK"
        try:
            body = await self._body(request)
            started = time.perf_counter()
            # Not before the body is here: a slow client must not take a place from the others.
            with self._desk.place(), self._desk.catalog.find(name).use(number, label) as version:
                answer = await self._compute(version, body, verb, name)
            return web.Response(body=answer, content_type=_JSON)
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
            self._desk.answered(name, "REST", code, time.perf_counter() - started)

    async def _compute(self, version: Version, body: bytes, verb: str, name: str) -> bytes:
        model = version.model
        if model is None:
            raise ServingError("UNAVAILABLE", f"version {version.number} of {name} is gone")
        loop = asyncio.get_running_loop()
        threads = self._desk.executor
        large = len(body) > _SMALL
        document = (
            await loop.run_in_executor(threads, read_json, body) if large else read_json(body)
        )
        signature = model.signature(document.get("signature_name", ""))
        if verb != "predict":
            raise invalid(
                f"Expected {verb} signature method_name to be tensorflow/serving/{verb}. "
                f"Was: tensorflow/serving/predict"
            )
        truths = b"true" in body or b"false" in body
        read = partial(inputs_of, document, signature, truths=truths)
        values, rows = await loop.run_in_executor(threads, read) if large else read()
        signature.check(values)
        outputs = await self._desk.catalog.find(name).predict(version, signature, values)
        if sum(value.size for value in outputs.values()) * 8 > _SMALL:
            return await loop.run_in_executor(threads, partial(write_json, outputs, rows=rows))
        return write_json(outputs, rows=rows)


class _Full(asyncio.Protocol):
    """Tells one client too many that there are too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        body = b'{"error": "the server has as many connections as it takes"}'
        head = (
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        if isinstance(transport, asyncio.Transport):
            transport.write(head + body)
            transport.close()


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if int(text) >= 2**63:
        raise invalid(f"Failed to convert version: {text} to numeric.")
    return int(text)


def _plain(message: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return plain


def unpacked(packed: Any) -> Any:
    """Takes the signatures out of the envelope that gRPC sends them in."""
    from tensorflow_serving.apis import get_model_metadata_pb2

    found = get_model_metadata_pb2.SignatureDefMap()
    packed.Unpack(found)
    return found


def _error(error: ServingError) -> web.Response:
    text = json.dumps({"error": str(error)})
    response = web.Response(text=text, status=error.status, content_type=_JSON)
    if error.status in (408, 413):
        response.force_close()  # the rest of the body is not worth waiting for
    return response
