"""Model files that say what they are: `.keras`, written whole or not at all, read with care.

The file is an ordinary `.keras` archive with one more member, ``keras_seq.json``, so plain
`keras.saving.load_model` opens it too after ``import keras_seq.layers``.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import keras

from keras_seq import __version__
from keras_seq.errors import UserError
from keras_seq.registry import architectures, tasks

_MEMBER = "keras_seq.json"
_FORMAT = 1


def save(model: keras.Model, path: str | Path, metadata: dict[str, Any] | None = None) -> Path:
    """Writes a model to one `.keras` file, whole or not at all.

    Args:
        model: Any Keras model.
        path: The file; its name must end in ``.keras``. One that is there is replaced.
        metadata: What to keep with it (JSON values): task, scaling, names of columns.

    Returns:
        The path.

    Raises:
        UserError: If the name does not end in ``.keras``, the metadata is not JSON, or the file
            cannot be written (the disk is full, no permission); what was there is untouched.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save(model, f"{folder}/model.keras", {"task": "toy"})
        ...     read_metadata(path), load(path).count_params()
        ({'task': 'toy'}, 3)
    """
    path = Path(path).expanduser()
    if path.suffix != ".keras":
        raise UserError(f"{path}: the name of a model file ends in .keras")
    try:
        header = json.dumps(
            {
                "format": _FORMAT,
                "keras_seq": __version__,
                "keras": keras.__version__,
                "needs": _foreign_classes(model),
                "metadata": metadata or {},
            },
            indent=2,
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"metadata must be JSON values: {error}") from error
    partial: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(
            prefix=f".{path.stem}-", suffix=".keras", dir=path.parent
        )
        os.close(handle)
        keras.saving.save_model(model, partial, overwrite=True)
        with zipfile.ZipFile(partial, "a") as archive:
            archive.writestr(_MEMBER, header)
        os.chmod(partial, 0o644)  # mkstemp makes it private
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left on device" in str(error):
            reason = "the disk is full; make room and save again"
        elif isinstance(error, (PermissionError, NotADirectoryError, FileExistsError)):
            reason = (error.strerror or "not allowed").lower()
        else:
            raise
        raise UserError(f"cannot write {path}: {reason}") from error
    finally:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
    return path


def load(path: str | Path, *, compile: bool = False) -> keras.Model:
    """Opens a model file of ours, of a plugin, or of plain Keras.

    Args:
        path: A `.keras` file.
        compile: Also restore the loss and the optimiser, to train on.

    Returns:
        The model.

    Raises:
        UserError: One line that says what is wrong: no such file, a damaged file, a file from
            another version, or a class that no loaded module has.
    """
    path = Path(path).expanduser()
    header = _read_header(path)
    if header:
        _check_version(path, header)
    importlib.import_module("keras_seq.layers")
    # Plugins register their layers when they are imported; a broken one is a warning.
    for registry in (architectures, tasks):
        for name in registry.names():
            if registry.origin(name) != "keras_seq":
                _load_plugin(registry, name)
    _import_known(header)
    try:
        model: keras.Model = keras.saving.load_model(path, compile=compile)
    except Exception as error:
        missing = _missing_classes(path, header)
        if missing:
            raise UserError(f"{path} needs {'; '.join(missing)}, then load it again") from error
        raise UserError(f"{path} cannot be loaded: {_first_line(error)}") from error
    return model


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Reads the metadata of a model file without building the model.

    Args:
        path: A `.keras` file.

    Returns:
        What `save` was given; empty for a file of plain Keras.

    Raises:
        UserError: If the file is missing, damaged, or from another version.
    """
    path = Path(path).expanduser()
    header = _read_header(path)
    if header:
        _check_version(path, header)
    metadata: dict[str, Any] = header.get("metadata", {})
    return metadata


def _read_header(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path} is a folder, and a .keras file is wanted")
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
            names = archive.namelist()
            if bad is not None or "config.json" not in names:
                raise UserError(
                    f"{path} is damaged ({'checksum of ' + bad if bad else 'no config.json'}): "
                    "copy or save it again"
                )
            header = json.loads(archive.read(_MEMBER)) if _MEMBER in names else {}
    except UserError:
        raise
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{path} is not a whole .keras file (truncated, or something else): copy or save it "
            "again"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return header if isinstance(header, dict) else {}


def _check_version(path: Path, header: dict[str, Any]) -> None:
    theirs, form = str(header.get("keras_seq", "0")), header.get("format", _FORMAT)
    if not isinstance(form, int) or form > _FORMAT:
        raise UserError(
            f"{path} was written by keras_seq {theirs} in file format {form}, and this is "
            f"keras_seq {__version__}, which reads up to {_FORMAT}: upgrade keras_seq"
        )
    if theirs.split(".")[0] != __version__.split(".")[0]:
        raise UserError(
            f"{path} was written by keras_seq {theirs}, and this is keras_seq {__version__}: "
            f"install keras_seq {theirs.split('.')[0]}.x to read it, or make the model again"
        )


def _load_plugin(registry: Any, name: str) -> None:
    import warnings

    from keras_seq.registry import PluginError, PluginWarning

    try:
        registry.get(name)
    except PluginError as error:
        warnings.warn(str(error), PluginWarning, stacklevel=3)


def _import_known(header: dict[str, Any]) -> None:
    """Imports KerasHub where a file has classes of it; what else a file needs, its user imports."""
    if any(name.startswith("keras_hub>") for name in header.get("needs", {})):
        with contextlib.suppress(ImportError):  # what is missing is said when loading fails
            importlib.import_module("keras_hub")


def _foreign_classes(model: keras.Model) -> dict[str, str]:
    """Names the classes that are neither Keras' nor ours, and who has them."""
    distributions: Any = None
    found: dict[str, str] = {}
    for entry in _entries(keras.saving.serialize_keras_object(model)):
        module = str(entry.get("module") or "")
        name = entry.get("registered_name")
        if not name or module.split(".")[0] in ("", "keras", "builtins"):
            instance = keras.saving.get_registered_object(name) if name else None
            module = getattr(instance, "__module__", "")
        top = module.split(".")[0]
        if top in ("", "keras", "builtins", "keras_seq"):
            continue
        if distributions is None:
            distributions = packages_distributions()
        packages = distributions.get(top, [])
        found[str(name)] = packages[0] if packages else module
    return found


def _missing_classes(path: Path, header: dict[str, Any]) -> list[str]:
    """Says which classes of the file are not loaded, and what to import for them."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    missing = []
    for entry in _entries(config):
        name, module = entry.get("registered_name"), entry.get("module")
        # A registered class is found by its name; one without is found only inside Keras.
        if not name or keras.saving.get_registered_object(name) is not None:
            continue
        if str(module or "").split(".")[0] == "keras":
            continue
        source = header.get("needs", {}).get(name)
        hint = (
            f"import the module that defines it ({source})"
            if source
            else (f"import {module}" if module else "import the module that defines it")
        )
        text = f"the class {name!r}, which is not loaded: {hint}, or install its plugin"
        if text not in missing:
            missing.append(text)
    return missing


def _entries(config: Any) -> Iterator[dict[str, Any]]:
    if isinstance(config, dict):
        if "class_name" in config and "config" in config:
            yield config
        for value in config.values():
            yield from _entries(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from _entries(value)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {(lines or ['no message'])[0][:300]}"
