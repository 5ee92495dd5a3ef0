"""The folders that are served: their versions come and go without a request being dropped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from keras_seq.errors import UserError
from keras_seq.serving.batching import Lane
from keras_seq.serving.failures import ServingError, as_serving_error, invalid
from keras_seq.serving.loaded import LoadedModel, Signature, Values
from keras_seq.serving.metrics import Metrics
from keras_seq.serving.options import Options, numbered
from keras_seq.serving.warming import replay

log = logging.getLogger("keras_seq.serving")
#: Versions that are gone stay in the status for a while; so many of them.
_REMEMBERED = 20


@dataclass
class Version:
    """A version and where it stands.

    Args:
        number: Its number.
        path: Its folder.
        state: START, LOADING, AVAILABLE, UNLOADING or END, as in TensorFlow Serving.
        code: OK, or the code of what went wrong.
        message: What went wrong.
        model: What was loaded, while it is.
        users: Requests that are using it.
        lanes: Queue of each signature whose rows may be joined.
        seen: What lay in the folder when it could not be loaded.
    """

    number: int
    path: Path
    state: str = "START"
    code: str = "OK"
    message: str = ""
    model: LoadedModel | None = None
    users: int = 0
    lanes: dict[str, Lane] = field(default_factory=dict)
    seen: tuple[tuple[str, int, int], ...] = ()


class ServedModel:
    """One model: a folder whose versions are looked at again and again. Lives in one event loop.

    Args:
        name: What clients call it.
        folder: Where ``NUMBER/saved_model.pb`` lie.
        options: Of the server.
        labels: Label to version.
        executor: Threads for calls of TensorFlow.
        loader: A thread of its own for loading, so that a load holds up no call.
        metrics: Of the server.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        options: Options,
        labels: dict[str, int],
        executor: Executor,
        loader: Executor,
        metrics: Metrics,
    ) -> None:
        self.name = name
        self.labels = labels
        self._folder = folder
        self._options = options
        self._executor = executor
        self._loader = loader
        self._metrics = metrics
        self._versions: dict[int, Version] = {}
        self._closing: set[asyncio.Task[None]] = set()

    # What clients ask ---------------------------------------------------------------------------

    def status(self, number: int | None = None, label: str = "") -> list[Version]:
        """Lists the versions that are known, the newest first.

        Args:
            number: Only this one.
            label: Only the one of this label.

        Raises:
            ServingError: If there is no such version.
        """
        if label:
            number = self._labelled(label)
        number = self._or_latest(number)
        if number is not None and number not in self._versions:
            raise ServingError("NOT_FOUND", f"Could not find version {number} of model {self.name}")
        if number is not None:
            return [self._versions[number]]
        if not self._versions:
            raise ServingError("NOT_FOUND", f"Could not find any versions of model {self.name}")
        return [self._versions[each] for each in sorted(self._versions, reverse=True)]

    @contextlib.contextmanager
    def use(self, number: int | None = None, label: str = "") -> Iterator[Version]:
        """Holds a version for as long as the `with` lasts: it is not unloaded meanwhile.

        Args:
            number: Which one; None: the latest that is available.
            label: The one of this label.

        Yields:
            The version.

        Raises:
            ServingError: If it is not available.
        """
        if label:
            number = self._labelled(label)
        number = self._or_latest(number)
        ready = [each.number for each in self._versions.values() if each.state == "AVAILABLE"]
        if (number not in ready) if number is not None else not ready:
            what = f"Latest({self.name})" if number is None else f"Specific({self.name}, {number})"
            raise ServingError("NOT_FOUND", f"Servable not found for request: {what}")
        version = self._versions[max(ready) if number is None else number]
        version.users += 1
        try:
            yield version
        finally:
            version.users -= 1
            if version.state == "UNLOADING" and not version.users:
                self._close(version)

    async def predict(self, version: Version, signature: Signature, values: Values) -> Values:
        """Computes, joined with others where that is right.

        Args:
            version: One that is held.
            signature: Of this version.
            values: Checked inputs.

        Returns:
            Name of each output to its values.

        Raises:
            ServingError: If TensorFlow cannot.
        """
        observe = partial(self._metrics.called, self.name)
        try:
            if self._options.max_batch_rows > 1 and signature.joinable:
                lane = version.lanes.get(signature.name)
                if lane is None:
                    lane = version.lanes[signature.name] = Lane(
                        signature.run, self._executor, self._options.max_batch_rows, observe
                    )
                return await lane(values)
            observe(max((len(v) for v in values.values() if v.ndim), default=1))
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, signature.run, values)
        except ServingError:
            raise
        except Exception as error:
            raise as_serving_error(error) from error

    def _labelled(self, label: str) -> int:
        if label not in self.labels:
            raise invalid(f"Unrecognized servable version label: {label}")
        return self.labels[label]

    def _or_latest(self, number: int | None) -> int | None:
        """Version 0 is how OpenVINO's clients ask for the latest."""
        return None if number == 0 and 0 not in self._versions else number

    # How versions come and go -------------------------------------------------------------------

    async def refresh(self) -> None:
        """Looks at the folder, loads what is new, then lets go of what is old."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._loader, numbered, self._folder)
        wanted = self._wanted(found)
        for number in wanted:
            known = self._versions.get(number)
            if known is not None and known.state in ("AVAILABLE", "LOADING", "UNLOADING"):
                continue
            if known is not None and known.state == "END" and known.code != "OK":
                now = await loop.run_in_executor(self._loader, _contents, found[number])
                if now == known.seen:
                    continue  # it is as broken as it was
            await self._load(number, found[number])
        ready = {n for n in wanted if n in self._versions and self._is_ready(n)}
        # An empty folder, or a new version that does not load, takes nothing away: what answers
        # goes on answering until something else does.
        if ready and (self._options.versions != "latest" or max(wanted) in ready):
            for version in list(self._versions.values()):
                if version.state == "AVAILABLE" and version.number not in wanted:
                    self._unload(version)
        self._forget(found)

    def _is_ready(self, number: int) -> bool:
        return self._versions[number].state == "AVAILABLE"

    def _wanted(self, found: dict[int, Path]) -> list[int]:
        chosen = self._options.versions
        if chosen == "all":
            return sorted(found)
        if isinstance(chosen, str):
            latest = [max(found)] if found else []
            return sorted({*latest, *(n for n in self.labels.values() if n in found)})
        return sorted(n for n in {*chosen, *self.labels.values()} if n in found)

    async def _load(self, number: int, path: Path) -> None:
        loop = asyncio.get_running_loop()
        version = self._versions[number] = Version(number, path, "LOADING")
        seen = await loop.run_in_executor(self._loader, _contents, path)
        try:
            version.model = await loop.run_in_executor(self._loader, _load_and_warm, path)
        except Exception as error:
            failure = as_serving_error(error)
            version.state, version.code, version.message = "END", failure.code, str(failure)
            version.seen = seen
            self._metrics.loaded(self.name, "failed")
            log.warning("model %s version %d: %s", self.name, number, failure)
            return
        version.state = "AVAILABLE"
        self._metrics.loaded(self.name, "ok")
        self._metrics.available(self.name, number, True)
        log.info("model %s version %d is available", self.name, number)

    def _unload(self, version: Version) -> None:
        version.state = "UNLOADING"
        self._metrics.available(self.name, version.number, False)
        if not version.users:
            self._close(version)

    def _close(self, version: Version) -> None:
        model, version.model = version.model, None
        version.lanes.clear()
        version.state = "END"
        log.info("model %s version %d is gone", self.name, version.number)
        if model is not None:
            task = asyncio.ensure_future(_in_thread(self._loader, model.close))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _forget(self, found: dict[int, Path]) -> None:
        gone = [n for n, v in self._versions.items() if v.state == "END" and n not in found]
        for number in sorted(gone)[:-_REMEMBERED]:
            del self._versions[number]

    async def close(self) -> None:
        """Lets go of all versions. Nobody may be using one any more."""
        for version in self._versions.values():
            if version.state == "AVAILABLE":
                self._unload(version)
        while self._closing:
            await asyncio.wait(set(self._closing))

    @property
    def ready(self) -> bool:
        """Whether at least one version answers."""
        return any(version.state == "AVAILABLE" for version in self._versions.values())

    @property
    def available(self) -> list[int]:
        """Numbers of the versions that answer."""
        return sorted(n for n, v in self._versions.items() if v.state == "AVAILABLE")

    @property
    def problems(self) -> list[str]:
        """What could not be loaded."""
        return [version.message for version in self._versions.values() if version.message]


class Catalog:
    """All models of a server, by name.

    Args:
        models: Name to model.
    """

    def __init__(self, models: dict[str, ServedModel]) -> None:
        self.models = models

    def __getitem__(self, name: str) -> ServedModel | None:
        """The model of that name, or None."""
        return self.models.get(name)

    def find(self, name: str, *, status: bool = False) -> ServedModel:
        """Finds a model.

        Args:
            name: Its name.
            status: Whether it is asked how it is, and not to predict.

        Raises:
            ServingError: If there is none of that name.
        """
        model = self.models.get(name)
        if model is None and status:
            raise ServingError("NOT_FOUND", f"Could not find any versions of model {name}")
        if model is None:
            raise ServingError("NOT_FOUND", f"Servable not found for request: Latest({name})")
        return model

    @property
    def ready(self) -> bool:
        """Whether every model answers."""
        return all(model.ready for model in self.models.values())

    async def refresh(self) -> None:
        """Looks at all folders."""
        for model in self.models.values():
            await model.refresh()

    async def close(self) -> None:
        """Lets go of everything."""
        for model in self.models.values():
            await model.close()


def check_labels(names: Sequence[str], labels: dict[str, dict[str, int]]) -> None:
    """Refuses labels of models that are not served.

    Args:
        names: Those that are.
        labels: Model name to its labels.

    Raises:
        UserError: If a label belongs to no model.
    """
    for name in labels:
        if name not in names:
            raise UserError(f"labels name the model {name!r}, and there are {sorted(names)}")


def _load_and_warm(path: Path) -> LoadedModel:
    model = LoadedModel(path)
    try:
        # Here, and not when the first request comes: that would hold up everybody.
        model.prepare()
        replay(model, path)
    except BaseException:
        model.close()
        raise
    return model


async def _in_thread(executor: Executor, call: Callable[[], None]) -> None:
    await asyncio.get_running_loop().run_in_executor(executor, call)


def _contents(path: Path) -> tuple[tuple[str, int, int], ...]:
    """What tells a folder that is still being copied from one that is complete."""
    found = []
    for file in sorted(path.rglob("*")):
        with contextlib.suppress(OSError):
            facts = file.stat()
            found.append((str(file), facts.st_size, facts.st_mtime_ns))
    return tuple(found)
