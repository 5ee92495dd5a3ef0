"""The server: starts, looks after its folders, and stops without dropping a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_seq.errors import UserError
from keras_seq.serving.options import Options, named_folders, need_packages

if TYPE_CHECKING:
    from keras_seq.serving.models import Catalog

log = logging.getLogger("keras_seq.serving")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Server:
    """Serves exported folders over REST and gRPC. It lives in one event loop.

    Args:
        folders: Exported folders, each ``PATH`` or ``NAME=PATH``.
        options: Ports and limits.

    Raises:
        UserError: If a folder cannot be served, or a package is missing.
    """

    def __init__(self, folders: Sequence[str | Path], options: Options | None = None) -> None:
        self.options = options or Options()
        self.folders = named_folders(folders)
        need_packages()
        #: The ports that it listens on, once it does.
        self.port = self.grpc_port = 0
        self.catalog: Catalog | None = None
        self._stack = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Loads every model, and listens when they answer.

        Raises:
            UserError: If a model cannot be loaded or a port is taken.
        """
        from keras_seq.serving.desk import Desk
        from keras_seq.serving.metrics import Metrics
        from keras_seq.serving.models import Catalog, ServedModel, check_labels
        from keras_seq.serving.rest import Rest
        from keras_seq.serving.rpc import Rpc

        options, metrics = self.options, Metrics()
        labels = {name: dict(each) for name, each in options.labels.items()}
        check_labels(list(self.folders), labels)
        async with contextlib.AsyncExitStack() as stack:
            executor = stack.enter_context(ThreadPoolExecutor(options.workers, "keras-seq-call"))
            loader = stack.enter_context(ThreadPoolExecutor(1, "keras-seq-load"))
            self.catalog = catalog = Catalog(
                {
                    name: ServedModel(
                        name, path, options, labels.get(name, {}), executor, loader, metrics
                    )
                    for name, path in self.folders.items()
                }
            )
            stack.push_async_callback(catalog.close)
            await catalog.refresh()
            for name, model in catalog.models.items():
                if not model.ready:
                    why = "; ".join(model.problems) or "none of the versions asked for is there"
                    raise UserError(f"the model {name!r} cannot be served: {why}")
                for label, number in model.labels.items():
                    if number not in model.available:
                        raise UserError(
                            f"the label {name}:{label} stands for version {number}, which is not "
                            f"available: there are {model.available}"
                        )
            desk = Desk(catalog, options, metrics, executor)
            rpc, rest = Rpc(desk), Rest(desk)
            stack.push_async_callback(rpc.stop)
            self.grpc_port = await rpc.start()
            stack.push_async_callback(rest.stop)
            try:
                self.port = await rest.start()
            except OSError as error:
                raise UserError(
                    f"cannot listen on {options.host}:{options.port} for REST: "
                    f"{error.strerror or error}; --port gives another"
                ) from error
            poller = asyncio.create_task(self._poll(catalog))
            stack.push_async_callback(_cancel, poller)

            def stopping() -> None:
                desk.stopping = True

            stack.callback(stopping)
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        """Takes no more requests, lets those under way end, and gives everything back."""
        await self._stack.aclose()

    async def _poll(self, catalog: Catalog) -> None:
        while True:
            await asyncio.sleep(self.options.poll_seconds)
            try:
                await catalog.refresh()
            except Exception:
                # Whatever a disk may do: what is loaded goes on answering.
                log.exception("the folders cannot be looked at")


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def serve(
    folders: Sequence[str | Path],
    options: Options | None = None,
    say: Callable[[str], Any] | None = None,
) -> None:
    """Serves until it is told to stop (Ctrl-C, SIGTERM), then lets requests under way end.

    Args:
        folders: Exported folders, each ``PATH`` or ``NAME=PATH``.
        options: Ports and limits.
        say: Is given the lines for the user; None: they are printed.

    Raises:
        UserError: If a folder cannot be served, a port is taken, or a package is missing.
    """
    asyncio.run(_serve(Server(folders, options), say or partial(print, flush=True)))


async def _serve(server: Server, say: Callable[[str], Any]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    host = server.options.host
    catalog = server.catalog
    for name, model in (catalog.models if catalog else {}).items():
        versions = ", ".join(map(str, model.available))
        say(f"Serving      {name} version {versions}")
    say(f"REST         http://{host}:{server.port}/v1/models/NAME:predict")
    say(f"gRPC         {host}:{server.grpc_port}")
    if host not in _LOOPBACK:
        say("Warning      everybody who reaches this address may ask: there is no authentication")
    try:
        await stop.wait()
        say("Stopping     requests under way are answered first")
    finally:
        await server.stop()


@contextlib.contextmanager
def serving(folders: Sequence[str | Path], options: Options | None = None) -> Iterator[Server]:
    """Serves on a thread for as long as the `with` lasts: for notebooks and tests.

    Args:
        folders: Exported folders, each ``PATH`` or ``NAME=PATH``.
        options: Ports and limits; ``port=0, grpc_port=0`` take free ones.

    Yields:
        The server, listening.

    Raises:
        UserError: If it cannot start.
    """
    server = Server(folders, options)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="keras-seq-serve", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
