"""Ship a model with proof: every artifact is run by its real runtime before it is put in place.

Importing this package loads neither Keras nor TensorFlow.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seq.callable_module import make_callable
from keras_seq.errors import UserError
from keras_seq.export import card as _card
from keras_seq.export import endpoints as _endpoints
from keras_seq.export import parity as _parity
from keras_seq.export.exporter import Endpoint, Exporter, ExportError, Run, workspace

# The names of the registry's built-in exporters. They stand in for the submodules of the same
# name on purpose: `keras_seq.export:litert` is an exporter, `keras_seq.export.litert` its module.
from keras_seq.export.keras_file import keras_file
from keras_seq.export.latency import litert_size_and_latency
from keras_seq.export.litert import dynamic as litert_dynamic
from keras_seq.export.litert import float16 as litert_float16
from keras_seq.export.litert import float32 as litert
from keras_seq.export.litert import int8 as litert_int8
from keras_seq.export.onnx import onnx
from keras_seq.export.saved_model import saved_model
from keras_seq.export.workers import close_workers
from keras_seq.registry import exporters

if TYPE_CHECKING:
    import keras

    from keras_seq.export.streaming import StreamPlan

__all__ = [
    "Endpoint",
    "ExportError",
    "Exporter",
    "Run",
    "close_workers",
    "export",
    "keras_file",
    "litert",
    "litert_dynamic",
    "litert_float16",
    "litert_int8",
    "litert_size_and_latency",
    "onnx",
    "saved_model",
]

make_callable(__name__)  # keras_seq.export(...) is keras_seq.export.export(...)

_FORMAT = "keras_seq.export/1"
_FULL = "the disk is full"
_OWN = ("parity.json", "README.md", "metadata.json", "manifest.sha256")
_ALIASES = {
    "litert:all": ("litert", "litert_float16", "litert_dynamic", "litert_int8"),
    "litert_float32": ("litert",),
}


def export(
    model: keras.Model,
    folder: str | Path,
    *,
    formats: str | Sequence[str] = ("saved_model", "litert", "keras"),
    samples: dict[str, np.ndarray],
    calibration: dict[str, np.ndarray] | None = None,
    tolerance: float | Mapping[str, float] | None = None,
    score: _parity.Score | None = None,
    card: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    version: int = 1,
    overwrite: bool = False,
    endpoints: Sequence[Endpoint] = (),
    files: Mapping[str, bytes] | None = None,
    padded: Sequence[str] = ("tokens",),
    streaming: bool = False,
    window: int | None = None,
) -> dict[str, Any]:
    """Exports a model, runs every artifact in its real runtime, and compares.

    Everything is made and proved in a hidden folder beside ``folder`` and then renamed into
    place, so a failure leaves what was there as it was.

    Args:
        model: A functional model, raw values in and raw values out, with dict inputs and outputs.
        folder: Where it goes: ``VERSION/`` (SavedModel), ``litert/``, ``keras/``, ``onnx/``,
            ``parity.json``, ``README.md`` (the model card), ``manifest.sha256``. The folder's
            name is the model's name in TF Serving.
        formats: Names of exporters; ``litert`` is float32, ``litert:all`` all four LiteRT forms.
        samples: Name of each input to real values, (N, ...), for the comparison.
        calibration: Others like them, from the training part, of which up to 512 show int8 the
            ranges of the values; None: the samples do.
        tolerance: Largest difference relative to each output's scale, for all formats or by
            name; default 1e-5 for float32, 5e-3 for float16, 5e-2 for dynamic range and int8.
        score: Test score of named outputs for all samples, lower is better. With it int8 is
            judged by how much the score changes (target: 3 %); where there is an output
            ``probabilities``, by how many labels differ (target: 1 %). A miss is reported, not an
            error.
        card: For the model card: ``data``, ``scores``, ``baseline``, ``command`` and others.
        metadata: What a task needs to use the artifact (JSON values), for ``metadata.json``.
        version: Number of the SavedModel's folder, at least 1.
        overwrite: Replace a version that is already there.
        endpoints: Further signatures, each proved like ``serving_default``; a format that is not
            named in ``Endpoint.formats`` goes without.
        files: What else belongs to the artifacts: path inside the folder to content. What lies in
            the folder of a format (``litert/tokenizer.json``) is written with that format only.
        padded: Inputs of token ids, (N, T) with 0 on the right. Where their length is open, files
            are also proved on rows without the padding.
        streaming: Whether files also get the signature ``step``: one step of time with explicit
            states, proved equal to the whole sequence (see `keras_seq.export.streaming`). An
            endpoint of that name is replaced.
        window: Steps that attention sees in a stream; None: as many as the model, or 256.

    Returns:
        The report, as written to ``parity.json``.

    Raises:
        ExportError: If an artifact cannot be made or computes something else.
        UserError: If an option is wrong, the version is there already, the folder holds something
            else, the disk is full, or the model cannot be streamed.

    Example:
        >>> import keras, tempfile
        >>> x = keras.Input((4, 2), name="series")
        >>> model = keras.Model({"series": x}, {"mean": keras.layers.GlobalAveragePooling1D()(x)})
        >>> with tempfile.TemporaryDirectory() as place:
        ...     report = export(model, f"{place}/toy", formats="keras",
        ...                     samples={"series": np.ones((3, 4, 2))})
        >>> report["formats"]["keras"]["status"]
        'passed'
    """
    from keras_seq.export.signature import Signature

    # Absolute: the processes that convert and run it keep the folder in which they were started.
    folder = Path(folder).expanduser().absolute()
    chosen = _chosen(formats)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise UserError(f"version is {version!r}: TF Serving wants a whole number from 1 upwards")
    allowed = _tolerances(tolerance, chosen)
    signature = Signature(model)
    rows = signature.check(samples)
    shown = rows if calibration is None else _as_long_as(rows, signature.check(calibration))
    targets = {item.name: item.path.format(version=version) for item in chosen}
    previous = _previous(folder, targets, version, overwrite)
    stream = _planned(model, rows, chosen, window, padded) if streaming else None
    if stream is not None:
        names = [item.name for item in chosen if item.stream is not None]
        step = stream.endpoint(names)
        endpoints = [*(each for each in endpoints if each.name != step.name), step]
    wanted = _endpoints.check_endpoints(endpoints, chosen)
    beside = _beside(files or {}, targets, previous, folder)
    report: dict[str, Any] = {
        "format": _FORMAT,
        "model": model.name,
        "version": version,
        "parameters": int(model.count_params()),
        "samples": len(next(iter(rows.values()))),
        "inputs": _described(signature.inputs),
        "outputs": _described(signature.outputs),
        "versions": _versions(),
        "formats": {},
    }
    if stream is not None:
        report["streaming"] = stream.describe()
    with _staged(folder) as stage, workspace():
        reference = signature.reference(rows)
        for name, value in reference.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ExportError(
                    f"the model's own output {name!r} is not finite on the samples: "
                    "train again, or give samples without missing values"
                )
        unpadded = _endpoints.unpadded_rows(signature, rows, padded)
        answers = signature.answers(unpadded.rows) if unpadded.rows else []
        if unpadded.rows:
            moved = _endpoints.padding_difference(reference, unpadded, answers)
            report["padding"] = {"lengths": unpadded.lengths, "relative_difference": moved}
        real = next((rows[name] != 0 for name in padded if name in rows), None)
        for item in chosen:
            destination = stage / targets[item.name]
            destination.parent.mkdir(parents=True, exist_ok=True)
            started = time.perf_counter()
            mine = [endpoint for endpoint in wanted if item.name in endpoint.formats]
            imports = _endpoints.imports_of(mine)
            made = item.write(
                model,
                destination,
                shown if item.by_score else rows,
                **({"endpoints": mine} if mine else {}),
            )
            written = time.perf_counter()
            run = item.run(destination, rows, **({"imports": imports} if imports else {}))
            limit = allowed.get(item.name)
            entry = _parity.judge(item, reference, run, tolerance=limit, score=score, real=real)
            if unpadded.rows and item.call_signature is not None:
                entry["unpadded"] = _endpoints.prove_unpadded(
                    item,
                    destination,
                    unpadded,
                    answers,
                    reference,
                    tolerance=limit,
                    imports=imports,
                )
            if mine:
                entry["endpoints"] = {
                    each.name: _endpoints.prove(item, destination, each) for each in mine
                }
            if stream is not None and item.stream is not None:
                entry["streaming"] = stream.prove(
                    item, destination, imports=imports, tolerance=limit
                )
            if imports:
                entry["needs"] = list(imports)
            report["versions"].update(run.details.pop("versions", {}))
            report["formats"][item.name] = {
                "file": targets[item.name],
                "version": version,
                **entry,
                "size_bytes": sum(Path(file).stat().st_size for file in made),
                "latency_ms": run.latency_ms,
                "latency_p95_ms": run.latency_p95_ms,
                "seconds_to_write": written - started,
                "seconds_to_prove": time.perf_counter() - written,
                **run.details,
            }
        # Artifacts of earlier exports that stay keep their own lines, with their own version.
        for name, entry in previous.get("formats", {}).items():
            if name not in report["formats"] and (folder / entry["file"]).exists():
                report["formats"][name] = entry
        for path, content in beside.items():
            target = stage / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        name = folder.resolve().name
        _write_text(stage / "parity.json", json.dumps(report, indent=2, allow_nan=False) + "\n")
        _write_text(stage / "README.md", _card.model_card(name, report, card or {}))
        if metadata is not None:
            _write_text(stage / "metadata.json", json.dumps(metadata, indent=2) + "\n")
        _write_text(stage / "manifest.sha256", _manifest(stage, folder))
        _put_in_place(stage, folder)
    return report


def _planned(
    model: keras.Model,
    rows: dict[str, np.ndarray],
    chosen: Sequence[Exporter],
    window: int | None,
    padded: Sequence[str],
) -> StreamPlan:
    """The step of the model, checked against the whole in Keras before a file is written."""
    from keras_seq.export.streaming import plan_stream

    if all(item.stream is None for item in chosen):
        able = [name for name in exporters.names() if _streams(exporters.get(name))]
        raise UserError(
            f"none of the formats {', '.join(item.name for item in chosen)} holds a step with "
            f"states: choose from {', '.join(able)}"
        )
    return plan_stream(model, rows, window=window, padded=padded)


def _streams(item: object) -> bool:
    return isinstance(item, Exporter) and item.stream is not None


def _as_long_as(
    samples: dict[str, np.ndarray], others: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Cuts the others, or pads them with zeros, to the sizes of the samples."""
    found = {}
    for name, value in others.items():
        sizes = samples[name].shape[1:]
        made = np.zeros((len(value), *sizes), value.dtype)
        kept = tuple(slice(0, min(a, b)) for a, b in zip(sizes, value.shape[1:], strict=True))
        made[(slice(None), *kept)] = value[(slice(None), *kept)]
        found[name] = made
    return found


def _chosen(formats: str | Sequence[str]) -> list[Exporter]:
    names = [formats] if isinstance(formats, str) else list(formats)
    flat: list[str] = []
    for name in names:
        flat += [each for each in _ALIASES.get(name, (name,)) if each not in flat]
    if not flat:
        raise UserError(f"no format to export: choose from {', '.join(exporters.names())}")
    chosen = [exporters.get(name) for name in flat]
    for name, item in zip(flat, chosen, strict=True):
        if not isinstance(item, Exporter):
            raise UserError(
                f"the exporter {name!r} is a {type(item).__name__}, and a "
                "keras_seq.export.Exporter is wanted"
            )
    return chosen


def _tolerances(
    tolerance: float | Mapping[str, float] | None, chosen: list[Exporter]
) -> dict[str, float]:
    if tolerance is None:
        return {}
    if isinstance(tolerance, Mapping):
        given = {n: value for key, value in tolerance.items() for n in _ALIASES.get(key, (key,))}
        unknown = sorted(set(given) - {item.name for item in chosen})
        if unknown:
            raise UserError(f"tolerance names {unknown}, which are not among the formats exported")
    else:
        given = {item.name: tolerance for item in chosen}
    if not all(value >= 0 for value in given.values()):
        raise UserError(f"tolerance is {tolerance!r}: give numbers from 0 upwards")
    return {name: float(value) for name, value in given.items()}


def _previous(
    folder: Path, targets: dict[str, str], version: int, overwrite: bool
) -> dict[str, Any]:
    """Refuses to harm what is there; returns the report of the last export to this folder."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose a folder for the export")
    if not folder.is_dir() or not any(folder.iterdir()):
        return {}
    previous: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        previous = json.loads((folder / "parity.json").read_text("utf-8"))
    if not isinstance(previous, dict) or previous.get("format") != _FORMAT:
        raise UserError(
            f"{folder} holds files that are not an export: choose an empty or a new folder"
        )
    for name, path in targets.items():
        entry = previous["formats"].get(name, {})
        same = "{version}" not in path and entry.get("version", version) >= version
        numbered = path == str(version)
        if (folder / path).exists() and (numbered or same) and not overwrite:
            raise UserError(
                f"{folder / path} is there already: raise the version (it is {version}) or "
                "overwrite it (overwrite=True)"
            )
    return previous


def _beside(
    files: Mapping[str, bytes], targets: dict[str, str], previous: dict[str, Any], folder: Path
) -> dict[str, bytes]:
    """Chooses the files that go with the formats exported now; refuses paths that are taken."""
    others = {Path(exporters.get(name).path).parts[0] for name in exporters.names()}
    mine = {Path(path).parts[0] for path in targets.values()}
    chosen = {}
    for path, content in files.items():
        parts = Path(path).parts
        wrong = not parts or Path(path).is_absolute() or ".." in parts or parts[0].startswith(".")
        if wrong or path in _OWN or path in targets.values() or parts[0].isdigit():
            raise UserError(f"files has the path {path!r}: give another path inside the folder")
        if len(parts) > 1 and parts[0] in others - mine:
            continue
        chosen[path] = content
        old = folder / path
        stays = [
            name
            for name, entry in previous.get("formats", {}).items()
            if name not in targets and len(parts) > 1 and Path(entry["file"]).parts[0] == parts[0]
        ]
        if stays and old.is_file() and old.read_bytes() != content:
            raise UserError(
                f"{old} changes, and {', '.join(stays)} of the last export needs the old one: "
                "export these formats too, or choose a new folder"
            )
    return chosen


@contextlib.contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A hidden folder beside the target; whatever happens, nothing of it stays."""
    made: list[Path] = []
    stage: Path | None = None
    done = False
    try:
        for parent in reversed([folder.parent, *folder.parent.parents]):
            if not parent.exists():
                parent.mkdir()
                made.append(parent)
        stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}.exporting-", dir=folder.parent))
        stage.chmod(0o755)  # mkdtemp makes it private, and servers run as other users
        yield stage
        done = True
    except Exception as error:
        text = _disk_trouble(error)
        full = text is not None and text.startswith(_FULL)
        if text is None or (isinstance(error, UserError) and not full):
            raise
        raise UserError(f"cannot write the export to {folder}: {text}") from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
        if not done:
            for parent in reversed(made):
                with contextlib.suppress(OSError):
                    parent.rmdir()


def _disk_trouble(error: BaseException | None) -> str | None:
    """Says in words what is wrong with the disk, or None if it is something else."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
            return f"{_FULL}; make room and export again"
        if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            return f"{os.strerror(number or 0).lower()}; choose another folder"
        error = error.__cause__ or error.__context__
    return None


def _put_in_place(stage: Path, folder: Path) -> None:
    """Renames the staged items into the folder; on failure all that was there is back."""
    if not folder.exists():
        os.replace(stage, folder)
        return
    backup = Path(tempfile.mkdtemp(prefix=f".{folder.name}.before-", dir=folder.parent))
    moved: list[tuple[Path, Path | None]] = []
    # File by file inside litert/ and keras/, so that a format not exported now stays. The version
    # folder goes last: a server that sees it may load it at once.
    items = [path for path in stage.rglob("*") if path.is_file()]
    numbered = {path.relative_to(stage).parts[0] for path in items}
    numbered = {part for part in numbered if part.isdigit() and (stage / part).is_dir()}
    units = [p for p in items if p.relative_to(stage).parts[0] not in numbered]
    units += [stage / part for part in sorted(numbered)]
    try:
        for unit in units:
            target = folder / unit.relative_to(stage)
            target.parent.mkdir(parents=True, exist_ok=True)
            kept: Path | None = None
            if target.exists():
                kept = backup / unit.relative_to(stage)
                kept.parent.mkdir(parents=True, exist_ok=True)
                os.replace(target, kept)
            moved.append((target, kept))
            os.replace(unit, target)
    except BaseException:
        for target, kept in reversed(moved):
            if target.is_dir():
                shutil.rmtree(target, ignore_errors=True)
            else:
                target.unlink(missing_ok=True)
            if kept is not None:
                os.replace(kept, target)
        raise
    finally:
        shutil.rmtree(backup, ignore_errors=True)


def _manifest(stage: Path, folder: Path) -> str:
    """Lines for ``sha256sum --check``; what stays from earlier exports keeps its old line."""
    sums: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in (folder / "manifest.sha256").read_text("utf-8").splitlines():
            digest, _, name = line.partition("  ")
            replaced = {path.name for path in stage.iterdir() if path.name.isdigit()}
            if (folder / name).is_file() and Path(name).parts[0] not in replaced:
                sums[name] = digest
    for path in sorted(stage.rglob("*")):
        if path.is_file():
            name = path.relative_to(stage).as_posix()
            sums[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _described(entries: dict[str, tuple[tuple[int | None, ...], str]]) -> dict[str, Any]:
    return {n: {"shape": list(shape), "dtype": dtype} for n, (shape, dtype) in entries.items()}


def _versions() -> dict[str, str]:
    import keras
    import tensorflow as tf

    from keras_seq import __version__

    return {
        "keras_seq": __version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": installed_version("numpy"),
        "python": platform.python_version(),
    }
