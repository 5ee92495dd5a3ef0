"""Persistent helper processes that talk in JSON lines.

Converting can crash the interpreter (the int8 converter dies of SIGSEGV on some graphs), and the
proof that a LiteRT file needs no TensorFlow wants a process that has none. Both run in processes
of their own; they stay alive, so that TensorFlow's import is paid once and not once a model.

`multiprocessing` with "spawn" is not used on purpose: it runs the user's script again, and a
script without a ``__main__`` guard would train a second time.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_ROOT = Path(__file__).resolve().parents[2]


class WorkerError(Exception):
    """The worker is well, but it could not do what was asked; the text says why."""


class WorkerCrash(Exception):
    """The worker died or did not answer in time; the next request starts a new one."""


class Worker:
    """One helper process: ``python -m MODULE``, started at the first request.

    Args:
        module: A module that calls `serve` when it is run.

    Example:
        >>> worker = Worker("keras_seq.export.runner")
        >>> worker.request({"operation": "ping"})["tensorflow_loaded"]
        False
        >>> worker.close()
    """

    def __init__(self, module: str) -> None:
        self.module = module
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._log: Any = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Process id of the running worker, or None."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if running and self._process is not None else None

    def request(self, message: dict[str, Any], *, timeout: float = 900.0) -> dict[str, Any]:
        """Sends one request and waits for its answer.

        Args:
            message: JSON values; ``operation`` says what to do.
            timeout: Seconds to wait; a worker that takes longer is stopped.

        Returns:
            The answer.

        Raises:
            WorkerError: If the worker answers with an error.
            WorkerCrash: If the worker dies, or does not answer in time.
        """
        with self._lock:
            process = self._running()
            try:
                process.stdin.write(json.dumps(message) + "\n")  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
                line = self._answers.get(timeout=timeout)
            except (BrokenPipeError, queue.Empty) as error:
                late = isinstance(error, queue.Empty)
                reason = f"no answer within {timeout:g} s" if late else self._ending(process)
                self._stop()
                raise WorkerCrash(reason) from error
            except BaseException:  # Ctrl-C: the answer would be read as that of the next request
                self._stop()
                raise
            if line is None:
                reason = self._ending(process)
                self._stop()
                raise WorkerCrash(reason)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def close(self) -> None:
        """Stops the process; a later request starts a new one."""
        with self._lock:
            self._stop()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        self._log = tempfile.TemporaryFile("w+", prefix="keras_seq_worker_", errors="replace")  # noqa: SIM115
        self._answers = queue.Queue()
        self._process = subprocess.Popen(
            # -P: the current folder is not searched, so a user's json.py cannot get in the way.
            [sys.executable, "-P", "-m", self.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            env=_environment(),
            # Ctrl-C is for the main process; closing our end of the pipe ends the worker.
            start_new_session=True,
        )
        threading.Thread(
            target=_forward, args=(self._process.stdout, self._answers), daemon=True
        ).start()
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()  # type: ignore[union-attr]
        if self._log is not None:
            self._log.close()
            self._log = None

    def _ending(self, process: subprocess.Popen[str]) -> str:
        try:
            code = process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"its process was ended by {signal.Signals(-code).name}"
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        return f"its process ended with code {code}" + (f" ({lines[-1][:200]})" if lines else "")


def serve(operations: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Answers requests from standard input until it closes (run inside the worker).

    Args:
        operations: Name to function; the request's other entries are its keyword arguments.
    """
    # Converters print to standard output, some from C++: only we may write to the pipe.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        message = json.loads(line)
        try:
            answer = operations[message.pop("operation")](**message)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


_workers: dict[tuple[int, str], Worker] = {}


def shared_worker(name: str, imports: Sequence[str] = ()) -> Worker:
    """Returns this process's worker ``converter`` or ``runner`` (a fork gets its own).

    Args:
        name: The module.
        imports: Packages that bring operators along. A worker that has them is another worker, so
            that a file said to do without them is proved without them.
    """
    key = (os.getpid(), "+".join([name, *imports]))
    return _workers.setdefault(key, Worker(f"keras_seq.export.{name}"))


@atexit.register
def close_workers() -> None:
    """Stops the shared workers; the next request starts new ones."""
    for (process, _), worker in list(_workers.items()):
        if process == os.getpid():
            worker.close()


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> str:
    """Writes named arrays for the other side; names may hold any character, and so may text.

    Text (str, bytes, or objects that are) is written as UTF-8 with the ends of the strings beside
    it: NumPy's own text types lose NULs at the end, and objects need pickle.
    """
    values: dict[str, np.ndarray] = {}
    for i, value in enumerate(map(np.asarray, arrays.values())):
        if value.dtype.kind not in "OSU":
            values[f"array_{i}"] = value
            continue
        parts = as_bytes(value).ravel().tolist()
        values[f"text_{i}"] = np.frombuffer(b"".join(parts), np.uint8)
        values[f"ends_{i}"] = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        values[f"shape_{i}"] = np.array(value.shape, dtype=np.int64)
    # The names as bytes too, for the same reason.
    names = np.frombuffer("\0".join(arrays).encode(), np.uint8)
    np.savez(path, names=names, count=len(arrays), allow_pickle=False, **values)
    return str(path)


def as_bytes(text: Any) -> np.ndarray:
    r"""Turns text into an array of bytes objects, the form in which TensorFlow gives it back.

    Args:
        text: str or bytes, or an array of them.

    Example:
        >>> as_bytes(["a\0", b"b"]).tolist()
        [b'a\x00', b'b']
    """
    given = np.asarray(text, dtype=object)
    flat = [part.encode() if isinstance(part, str) else bytes(part) for part in given.ravel()]
    found = np.empty(len(flat), dtype=object)
    found[:] = flat
    return found.reshape(given.shape)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Reads what `write_arrays` wrote; text comes as arrays of bytes objects."""
    found: dict[str, np.ndarray] = {}
    with np.load(path, allow_pickle=False) as archive:
        names = archive["names"].tobytes().decode().split("\0")
        for i, name in enumerate(names[: int(archive["count"])]):
            if f"array_{i}" in archive:
                found[name] = archive[f"array_{i}"]
                continue
            text, ends = archive[f"text_{i}"].tobytes(), archive[f"ends_{i}"].tolist()
            parts = np.empty(len(ends) - 1, dtype=object)
            parts[:] = [text[a:b] for a, b in itertools.pairwise(ends)]
            found[name] = parts.reshape(archive[f"shape_{i}"])
    return found


def write_calls(path: Path, calls: Sequence[dict[str, np.ndarray]]) -> str:
    """Writes the named arrays of several calls for the other side."""
    flat = {f"{i}/{name}": value for i, call in enumerate(calls) for name, value in call.items()}
    return write_arrays(path, flat)


def read_calls(path: str | Path) -> list[dict[str, np.ndarray]]:
    """Reads what `write_calls` wrote."""
    calls: dict[int, dict[str, np.ndarray]] = {}
    for key, value in read_arrays(path).items():
        i, _, name = key.partition("/")
        calls.setdefault(int(i), {})[name] = value
    return [calls[i] for i in sorted(calls)]


def _forward(stream: Any, answers: queue.Queue[str | None]) -> None:
    with stream:
        for line in stream:
            answers.put(line)
    answers.put(None)


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    # The worker must find this very package, also from a checkout that is not installed.
    if _ROOT.name not in ("site-packages", "dist-packages"):
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *([known] if known else [])])
    environment["CUDA_VISIBLE_DEVICES"] = "-1"  # converting needs no GPU, and training may have it
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    environment.pop("PYTHONWARNINGS", None)
    return environment
