"""Proof beyond ``serving_default`` at one length: further signatures, and rows without padding.

Both are the same thing: a named signature of the exported file is called on inputs of several
sizes by its real runtime, and each answer is compared with what the Keras model says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seq.errors import UserError
from keras_seq.export.exporter import Endpoint, Exporter, ExportError, Samples
from keras_seq.export.parity import SCALE_FLOOR, distances
from keras_seq.export.stream_loop import POSITION
from keras_seq.export.workers import as_bytes
from keras_seq.registry import exporters

if TYPE_CHECKING:
    from keras_seq.export.signature import Signature

#: The signature of an exported file that goes one step on.
STEP = "step"
#: Rows of one call where a file takes any number of them.
ROWS = 16
#: How many rows are tried without their padding.
UNPADDED = 6
TENSORFLOW_TEXT = "tensorflow_text"


def step_of(
    step: Any, calls: Sequence[Samples], states: Samples, *, formats: Sequence[str]
) -> Endpoint:
    """Describes the signature ``step`` of a model with explicit states, proved by a few calls.

    Args:
        step: A functional model: what each call takes, the states by name, and perhaps
            ``position`` (B,), the number of calls so far, to its outputs and the states.
        calls: What each of the calls takes, in their order, (B, ...).
        states: The states before the first call.
        formats: Names of the exporters that carry it.

    Returns:
        The endpoint; its samples are all calls, one after the other.
    """
    import keras
    import tensorflow as tf

    samples: dict[str, list[Any]] = {}
    expected: dict[str, list[Any]] = {}
    rows = len(next(iter(states.values())))
    for position, call in enumerate(calls):
        given = {**call, **states}
        if POSITION in step.input:
            given[POSITION] = np.full(rows, position, "int32")
        # On a GPU float32 may mean TF32.
        with tf.device("/CPU:0"):
            tensors = {name: tf.convert_to_tensor(value) for name, value in given.items()}
            found = {k: np.asarray(v) for k, v in step(tensors, training=False).items()}
        for where, values in ((samples, given), (expected, found)):
            for name, value in values.items():
                where.setdefault(name, []).append(value)
        states = {name: found[name] for name in states}
    return Endpoint(
        name=STEP,
        call=lambda inputs: step(inputs, training=False),
        inputs={
            name: (tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype))
            for name, tensor in step.input.items()
        },
        samples={name: np.concatenate(values) for name, values in samples.items()},
        expected={name: np.concatenate(values) for name, values in expected.items()},
        tracked=(step,),
        formats=tuple(formats),
    )


def check_endpoints(endpoints: Sequence[Endpoint], chosen: Sequence[Exporter]) -> list[Endpoint]:
    """Checks endpoints, and gives their samples the types of their inputs.

    Args:
        endpoints: What the caller wants beside ``serving_default``.
        chosen: The formats to be exported.

    Returns:
        The endpoints.

    Raises:
        UserError: If a name is taken or no name, a format unknown or without endpoints, or the
            samples do not fit the inputs.
    """
    taken = {"serving_default"}
    checked = []
    for endpoint in endpoints:
        name = endpoint.name
        if not name.isidentifier() or name in taken:
            raise UserError(f"the endpoint name {name!r} is taken or no identifier: choose another")
        taken.add(name)
        for form in endpoint.formats:
            exporters.get(form)
            if any(item.name == form and item.call_signature is None for item in chosen):
                raise UserError(
                    f"the format {form!r} has one signature only: take it from the formats of the "
                    f"endpoint {name!r}"
                )
        if set(endpoint.samples) != set(endpoint.inputs):
            raise UserError(
                f"the endpoint {name!r} takes {sorted(endpoint.inputs)} and has samples of "
                f"{sorted(endpoint.samples)}: give one array for each input"
            )
        samples = {
            key: _typed(f"{name}.samples[{key!r}]", endpoint.samples[key], shape, dtype)
            for key, (shape, dtype) in endpoint.inputs.items()
        }
        expected = {key: _plain(value) for key, value in endpoint.expected.items()}
        values = [*samples.values(), *expected.values()]
        counts = {len(value) for value in values if value.ndim}
        if not expected or len(counts) != 1 or 0 in counts:
            raise UserError(
                f"the endpoint {name!r} wants as many rows in each sample as in each expected "
                f"output, and at least one: there are {sorted(counts)}"
            )
        checked.append(replace(endpoint, samples=samples, expected=expected))
    return checked


def prove(exporter: Exporter, destination: Path, endpoint: Endpoint) -> dict[str, Any]:
    """Runs an endpoint of an exported file and compares it with what the Keras model says.

    Args:
        exporter: Its format.
        destination: The file.
        endpoint: A checked endpoint.

    Returns:
        The endpoint's part of ``parity.json``.

    Raises:
        ExportError: If the file answers something else (formats that are quantised: reported).
    """
    count = max(len(value) for value in endpoint.samples.values() if value.ndim)
    one_by_one = exporter.one_by_one and not endpoint.open_rows
    pieces = _pieces(endpoint, count, one_by_one=one_by_one)
    calls = [
        {name: value[piece] if value.ndim else value for name, value in endpoint.samples.items()}
        for piece in pieces
    ]
    expected = [
        {name: value[piece] if value.ndim else value for name, value in endpoint.expected.items()}
        for piece in pieces
    ]
    answers = _call(exporter, destination, endpoint.name, calls, imports_of([endpoint]))
    # A batch is as long as its longest row: a piece may be shorter than all rows together.
    for name, value in endpoint.expected.items():
        sizes = [answer[name].shape[1:] for answer in answers if name in answer]
        longest = tuple(np.max(sizes, axis=0).tolist()) if sizes else None
        if value.ndim and longest != value.shape[1:]:
            raise ExportError(
                f"{exporter.name}: the endpoint {endpoint.name!r} gives {sorted(answers[0])}, "
                f"{name!r} of shape {longest} a row, and the model's is {value.shape[1:]}; "
                "nothing was exported"
            )
    strict = exporter.tolerance <= 1e-5
    allowed = endpoint.tolerance if strict else max(endpoint.tolerance, exporter.tolerance)
    found = _differences(expected, answers, endpoint.expected)
    report = _verdict(exporter, f"endpoint {endpoint.name!r}", found, allowed)
    return report | {
        "samples": count,
        "calls": len(calls),
        "inputs": {
            name: {"shape": list(shape), "dtype": dtype}
            for name, (shape, dtype) in endpoint.inputs.items()
        },
        "outputs": sorted(endpoint.expected),
        "needs_tensorflow_text": endpoint.needs_tensorflow_text,
    }


@dataclass(frozen=True)
class Unpadded:
    """A few samples without their padding.

    Args:
        indices: Which samples they are.
        lengths: How many real steps each has.
        rows: Inputs of one row each.
    """

    indices: list[int]
    lengths: list[int]
    rows: list[Samples]


def unpadded_rows(signature: Signature, samples: Samples, padded: Sequence[str]) -> Unpadded:
    """Takes a few rows and cuts their padding off.

    Args:
        signature: The model's inputs.
        samples: Checked samples, padded on the right with 0.
        padded: Names of the inputs (whole numbers, open length) whose padding is cut off. Other
            inputs with an open length are cut to the same length.

    Returns:
        Rows of different lengths; none if the model has no such input or no sample has padding.
    """
    names = [
        name
        for name in padded
        if name in signature.inputs
        and len(signature.inputs[name][0]) == 2
        and signature.inputs[name][0][1] is None
        and samples[name].dtype.kind in "iu"
    ]
    if not names:
        return Unpadded([], [], [])
    steps = samples[names[0]].shape[1]
    real = np.any([samples[name] != 0 for name in names], axis=0)  # (N, T)
    lengths = np.maximum(steps - np.argmax(real[:, ::-1], axis=1), 1)
    lengths[~real.any(axis=1)] = 1
    different, first = np.unique(lengths, return_index=True)
    first = first[different < steps]
    chosen = first[np.unique(np.linspace(0, len(first) - 1, min(len(first), UNPADDED)).astype(int))]
    rows: list[Samples] = []
    for i in chosen.tolist():
        row: Samples = {}
        for name, (shape, _) in signature.inputs.items():
            value = samples[name][i : i + 1]
            is_open = len(shape) > 1 and shape[1] is None and value.shape[1] == steps
            row[name] = value[:, : lengths[i]] if is_open else value
        rows.append(row)
    return Unpadded(chosen.tolist(), lengths[chosen].tolist(), rows)


def prove_unpadded(
    exporter: Exporter,
    destination: Path,
    unpadded: Unpadded,
    expected: Sequence[Samples],
    whole: Samples,
    *,
    tolerance: float | None = None,
    imports: Sequence[str] = (),
) -> dict[str, Any]:
    """Runs rows without their padding, and compares with what the Keras model says to them.

    Args:
        exporter: The format.
        destination: The file.
        unpadded: From `unpadded_rows`.
        expected: The Keras model's answers to them.
        whole: Its answers to all samples, for the scale of each output.
        tolerance: Instead of the format's own.
        imports: Packages whose operators the file needs.

    Returns:
        The entry ``unpadded`` of ``parity.json``.

    Raises:
        ExportError: If the file answers something else (formats that are quantised: reported).
    """
    answers = _call(exporter, destination, "serving_default", unpadded.rows, imports)
    allowed = exporter.tolerance if tolerance is None else tolerance
    found = _differences(expected, answers, whole, exact=False)
    return _verdict(exporter, "a row without its padding", found, allowed) | {
        "lengths": unpadded.lengths
    }


def padding_difference(reference: Samples, unpadded: Unpadded, answers: Sequence[Samples]) -> float:
    """Tells how far the Keras model itself is moved by padding.

    Args:
        reference: Its answers to all samples, padded.
        unpadded: From `unpadded_rows`.
        answers: Its answers to those rows.

    Returns:
        The largest difference, relative to the scale of each output. A model that masks its
        padding is within rounding of 0.
    """
    worst = 0.0
    for i, answer in zip(unpadded.indices, answers, strict=True):
        for name, value in answer.items():
            if value.dtype.kind == "f":
                padded = _crop(reference[name][i : i + 1], value.shape)
                scale = max(float(np.abs(reference[name]).max(initial=0.0)), SCALE_FLOOR)
                worst = max(worst, float(distances(value, padded).max(initial=0.0)) / scale)
    return worst


def imports_of(endpoints: Iterable[Endpoint]) -> tuple[str, ...]:
    """Lists the packages whose operators some endpoints need."""
    return (TENSORFLOW_TEXT,) if any(e.needs_tensorflow_text for e in endpoints) else ()


def _call(
    exporter: Exporter,
    destination: Path,
    signature: str,
    calls: Sequence[Samples],
    imports: Sequence[str],
) -> list[Samples]:
    if exporter.call_signature is None:
        raise UserError(f"the format {exporter.name!r} has one signature only")
    return exporter.call_signature(destination, signature, calls, imports)


def _pieces(endpoint: Endpoint, count: int, *, one_by_one: bool) -> list[slice]:
    fixed = {shape[0] for shape, _ in endpoint.inputs.values() if shape and shape[0] is not None}
    if fixed:
        size = max(fixed)
        if count % size:
            raise UserError(
                f"the endpoint {endpoint.name!r} takes {size} rows a call, and there are {count} "
                "samples: give a multiple"
            )
        return [slice(i, i + size) for i in range(0, count, size)]
    singles = [slice(i, i + 1) for i in range(count if one_by_one else min(count, 4))]
    batches = [] if one_by_one else [slice(i, i + ROWS) for i in range(0, count, ROWS)]
    return batches + singles


def _differences(
    expected: Sequence[Samples], answers: Sequence[Samples], whole: Samples, exact: bool = True
) -> dict[str, dict[str, float]]:
    """Largest difference of each output over all calls, and relative to its scale."""
    found = {}
    for name, everything in whole.items():
        largest = 0.0
        for wanted, got in zip(expected, answers, strict=True):
            if set(wanted) != set(got):
                raise ExportError(
                    f"the artifact's outputs are {sorted(got)}, the model's {sorted(wanted)}"
                )
            value, right = _plain(got[name]), _crop(_plain(wanted[name]), got[name].shape)
            if value.shape != right.shape:
                raise ExportError(
                    f"the artifact's output {name!r} has shape {value.shape}, the model's "
                    f"{right.shape}"
                )
            largest = max(largest, float(distances(value, right).max(initial=0.0)))
        numbers = everything.dtype.kind == "f"
        finite = np.abs(everything[np.isfinite(everything)]) if numbers else np.ones(1)
        scale = max(float(finite.max(initial=0.0)), SCALE_FLOOR)
        # A whole number that differs is another token or label: there is no near miss.
        relative = largest / scale if numbers or not exact else float(largest > 0)
        found[name] = {"largest_difference": largest, "relative": relative}
    return found


def _verdict(
    exporter: Exporter, what: str, found: dict[str, dict[str, float]], allowed: float
) -> dict[str, Any]:
    worst = max(found, key=lambda name: found[name]["relative"])
    relative = found[worst]["relative"]
    passed = relative <= allowed
    if exporter.strict and not passed:
        raise ExportError(
            f"{exporter.name} differs from the model in {what}: by {relative:.3g} of the scale of "
            f"output {worst!r}, and {allowed:g} is allowed; nothing was exported"
        )
    return {
        "status": "passed" if passed else "missed",
        # JSON has no infinity; a value that is not finite is as wrong as can be.
        "relative_difference": relative if np.isfinite(relative) else None,
        "tolerance": allowed,
    }


def _typed(what: str, value: Any, shape: tuple[int | None, ...], dtype: str) -> np.ndarray:
    array = as_bytes(value) if dtype == "string" else np.asarray(value)
    # Samples are many rows also where one call takes a fixed number of them.
    wanted = (None, *shape[1:]) if shape else ()
    fits = array.ndim == len(wanted) and all(
        size in (None, has) for size, has in zip(wanted, array.shape, strict=True)
    )
    if not fits:
        raise UserError(f"{what} has shape {array.shape}, and {shape} is wanted, batch axis first")
    if dtype == "string":
        return array
    if array.dtype.kind not in "bfiu":
        raise UserError(f"{what} has type {array.dtype}, and {dtype} is wanted")
    return array.astype(dtype)


def _plain(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return as_bytes(value) if array.dtype.kind in "OSU" else array


def _crop(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if value.ndim != len(shape):
        return value
    return value[tuple(slice(0, size) for size in shape)]
