"""What a server is asked to do, and the folders that it is asked to serve."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keras_seq.errors import UserError

#: Import name of what the extra brings, and what it is called where it is installed from.
_PACKAGES = {
    "aiohttp": "aiohttp",
    "grpc": "grpcio",
    "prometheus_client": "prometheus-client",
    "tensorflow_serving": "tensorflow-serving-api",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a server listens and where its limits are.

    Args:
        host: Address to listen on. Default: this machine only. There is no authentication.
        port: Port of REST; 0 takes a free one. Default 8501.
        grpc_port: Port of gRPC; 0 takes a free one. Default 8500.
        versions: ``"latest"`` (default), ``"all"``, or version numbers.
        labels: Model name to its labels, each a version number: ``{"co2": {"stable": 1}}``.
        poll_seconds: How often the folders are looked at for new versions. Default 2.
        max_body_bytes: The longest body of a request. Default 32 MiB.
        max_requests: Requests that are being answered at the same time; one more is told
            UNAVAILABLE. Default 128.
        max_connections: Open HTTP connections; one more is told UNAVAILABLE. Default 512.
        max_batch_rows: The most rows that requests are joined to; 1 joins none. Default 64.
        workers: Calls of TensorFlow at the same time. Default 4.
        client_timeout: Seconds that a client may take to send a request. Default 30.
        grace_seconds: Seconds that a stop waits for requests under way. Default 30.

    Example:
        >>> Options(port=0).host
        '127.0.0.1'
    """

    host: str = "127.0.0.1"
    port: int = 8501
    grpc_port: int = 8500
    versions: str | Sequence[int] = "latest"
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    poll_seconds: float = 2.0
    max_body_bytes: int = 32 * 2**20
    max_requests: int = 128
    max_connections: int = 512
    max_batch_rows: int = 64
    workers: int = 4
    client_timeout: float = 30.0
    grace_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuses numbers that cannot work."""
        for name in ("port", "grpc_port"):
            if not 0 <= getattr(self, name) < 2**16:
                raise UserError(f"{name} is {getattr(self, name)}: give a number from 0 to 65535")
        for name in ("max_body_bytes", "max_requests", "max_connections", "max_batch_rows"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: give a number from 1 upwards")
        for name in ("poll_seconds", "client_timeout", "grace_seconds", "workers"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}: give a number above 0")
        if isinstance(self.versions, str) and self.versions not in ("latest", "all"):
            raise UserError(f"versions is {self.versions!r}: give latest, all, or numbers")


def need_packages() -> None:
    """Checks that what the extra ``serve`` brings is installed.

    Raises:
        UserError: If a package is missing.
    """
    missing = [
        package for name, package in _PACKAGES.items() if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise UserError(f"serve needs {', '.join(missing)}: pip install 'keras-seq[serve]'")


def numbered(folder: Path) -> dict[int, Path]:
    """Lists the versions that lie in a folder: number to path.

    Args:
        folder: What TensorFlow Serving calls the model's base path.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     for name in ("1", "12", "litert"):
        ...         (Path(place) / name).mkdir()
        ...         _ = (Path(place) / name / "saved_model.pb").write_bytes(b"")
        ...     sorted(numbered(Path(place)))
        [1, 12]
    """
    try:
        names = [path for path in folder.iterdir() if path.name.isdecimal()]
    except OSError:
        return {}
    return {int(path.name): path for path in names if (path / "saved_model.pb").is_file()}


def named_folders(folders: Sequence[str | Path]) -> dict[str, Path]:
    """Gives each folder the name that clients ask for.

    Args:
        folders: Exported folders; the folder's name is the model's, ``NAME=FOLDER`` gives another.

    Returns:
        Name to folder.

    Raises:
        UserError: If there are none, one holds no version, or two have one name.
    """
    found: dict[str, Path] = {}
    for item in folders:
        name, equals, rest = str(item).partition("=")
        path = Path(rest if equals and not Path(str(item)).exists() else item).expanduser()
        name = name if equals and rest and path == Path(rest).expanduser() else path.resolve().name
        if not path.is_dir():
            raise UserError(f"no folder {path}: give an exported folder")
        if not numbered(path):
            hint = "it wants NUMBER/saved_model.pb inside"
            if (path / "saved_model.pb").is_file():
                hint = f"this is one version: give its parent, {path.resolve().parent.name}"
            raise UserError(f"{path} holds no SavedModel with a version: {hint}")
        if not name or set(name) & set("/: ?#"):
            raise UserError(f"{name!r} cannot be the name of a model: say NAME={path}")
        if name in found:
            raise UserError(f"two folders have the name {name!r}: give one of them as NAME={path}")
        found[name] = path
    if not found:
        raise UserError("no folder to serve: give exported folders, savedmodels/TASK/NAME")
    return found


def read_versions(text: str) -> str | tuple[int, ...]:
    """Reads ``latest``, ``all`` or ``1,2``.

    Raises:
        UserError: If it is something else.

    Example:
        >>> read_versions("latest"), read_versions("1,2")
        ('latest', (1, 2))
    """
    if text in ("latest", "all"):
        return text
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--versions is {text!r}: give latest, all, or numbers with commas, 1,2")
    return tuple(int(part) for part in parts)


def read_labels(texts: Sequence[str]) -> dict[str, dict[str, int]]:
    """Reads ``co2:stable=1`` into ``{"co2": {"stable": 1}}``.

    Raises:
        UserError: If one is not of that form.

    Example:
        >>> read_labels(["co2:stable=1", "co2:canary=2"])
        {'co2': {'stable': 1, 'canary': 2}}
    """
    found: dict[str, dict[str, int]] = {}
    for text in texts:
        model, colon, rest = text.rpartition(":")
        label, equals, number = rest.partition("=")
        if not (colon and equals and model and label and number.isdecimal()):
            raise UserError(f"--label is {text!r}: write it as MODEL:LABEL=VERSION, co2:stable=1")
        found.setdefault(model, {})[label] = int(number)
    return found
