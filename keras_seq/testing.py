"""Checkers for the authors of layers and architectures, ours and those of plugins.

`check_layer`, `check_model` and `check_architecture` try every property that the rest of the
package relies on, go on after a failure, and raise one `AssertionError` that lists them all. The
functions `*_checks` give the same properties one by one, for `pytest.mark.parametrize`.

Example:
    >>> import keras, numpy as np
    >>> from keras_seq.testing import check_layer
    >>> report = check_layer(keras.layers.Dense(4), np.ones((2, 5, 3), "float32"), checks=["rows"])
    >>> print(report)
    dense: 1 of 1 checks passed
      passed  rows
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_seq.heads import Forecast
from keras_seq.models import Architecture, build, resolve

Checks = dict[str, Callable[[], None]]
Arrays = dict[str, np.ndarray]


class CheckFailure(AssertionError):
    """One property does not hold; the message says where and by how much."""


@dataclass(frozen=True)
class Result:
    """What one check found.

    Args:
        check: The property's name.
        error: Why it does not hold, or None.
        seconds: How long the check took.
    """

    check: str
    error: str | None
    seconds: float


@dataclass(frozen=True)
class Report:
    """The results of all the checks of one subject.

    Args:
        subject: The name of the layer, model or architecture.
        results: One for each check, in order.
    """

    subject: str
    results: tuple[Result, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """The checks that did not pass."""
        return tuple(result for result in self.results if result.error is not None)

    def __str__(self) -> str:
        passed = len(self.results) - len(self.failures)
        lines = [f"{self.subject}: {passed} of {len(self.results)} checks passed"]
        for result in self.results:
            lines.append(
                f"  passed  {result.check}"
                if result.error is None
                else f"  FAILED  {result.check}: {result.error}"
            )
        return "\n".join(lines)


def check_layer(
    layer: keras.layers.Layer | Callable[[], keras.layers.Layer],
    inputs: Any,
    *,
    call_kwargs: Mapping[str, Any] | None = None,
    mask: np.ndarray | None = None,
    causal: bool = False,
    fixed_length: bool = False,
    fresh_process: bool = False,
    export: bool = True,
    checks: Iterable[str] | None = None,
    skip: Iterable[str] = (),
) -> Report:
    """Checks a layer: configuration, saving, masks, causality, graphs, precision, export.

    Args:
        layer: An unbuilt layer, or a function without arguments that makes one.
        inputs: One array (B, T, ...), or a tuple of them: the positional call arguments. T must
            differ from every other size, so that time axes in the outputs can be recognised.
        call_kwargs: Further call arguments by name; arrays among them become model inputs.
        mask: (B, T) bool, passed as the call argument ``mask``, or None where there is none.
        causal: Whether step t may depend on steps <= t only.
        fixed_length: Whether the layer is bound to the T that it was built with.
        fresh_process: Whether to load the saved layer in a new Python process too (slow).
        export: Whether to export to SavedModel and LiteRT and compare (slow).
        checks: Names of the checks to run; default all that apply.
        skip: Names of checks to leave out.

    Returns:
        The report; print it.

    Raises:
        AssertionError: If a check fails; the message lists all that fail.
        ValueError: If a name in `checks` or `skip` is unknown.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(2, 7, 3)).astype("float32")
        >>> report = check_layer(lambda: keras.layers.GRU(4, return_sequences=True), x,
        ...     mask=np.arange(7) < [[5], [7]], causal=True, export=False, skip=["mixed_float16"])
        >>> len(report.failures)
        0
    """
    found = layer_checks(
        layer,
        inputs,
        call_kwargs=call_kwargs,
        mask=mask,
        causal=causal,
        fixed_length=fixed_length,
        fresh_process=fresh_process,
        export=export,
    )
    return run_checks(_make_layer(layer, None).name, found, checks=checks, skip=skip)


def check_model(
    model: keras.Model,
    inputs: Any,
    *,
    mask: str | None = None,
    causal: bool = False,
    fresh_process: bool = False,
    export: bool = True,
    checks: Iterable[str] | None = None,
    skip: Iterable[str] = (),
) -> Report:
    """Checks a functional model: configuration, saving, masks, causality, graphs, export.

    Args:
        model: A functional model with named inputs.
        inputs: Arrays by input name, or one array for a model with one input.
        mask: The name of the input that is the (B, T) mask, if there is one.
        causal: Whether step t of the outputs may depend on steps <= t of the inputs only.
        fresh_process: Whether to load the saved model in a new Python process too (slow).
        export: Whether to export to SavedModel and LiteRT and compare (slow).
        checks: Names of the checks to run; default all that apply.
        skip: Names of checks to leave out.

    Returns:
        The report.

    Raises:
        AssertionError: If a check fails; the message lists all that fail.
        ValueError: If a name in `checks` or `skip` is unknown.

    Example:
        >>> import keras_seq
        >>> head = keras_seq.heads.Forecast(horizon=3)
        >>> model = keras_seq.build("linear", inputs=(8, 2), head=head)
        >>> x = np.random.default_rng(0).normal(size=(4, 8, 2)).astype("float32")
        >>> print(check_model(model, x, checks=["rows", "eager_equals_graph"]))
        linear: 2 of 2 checks passed
          passed  eager_equals_graph
          passed  rows
    """
    found = model_checks(
        model, inputs, mask=mask, causal=causal, fresh_process=fresh_process, export=export
    )
    return run_checks(model.name, found, checks=checks, skip=skip)


def check_architecture(
    architecture: str | Callable[..., Any],
    *,
    options: Mapping[str, Any] | None = None,
    lookback: int = 24,
    channels: int = 3,
    horizon: int = 5,
    fresh_process: bool = True,
    export: bool = True,
    checks: Iterable[str] | None = None,
    skip: Iterable[str] = (),
) -> Report:
    """Checks an architecture, alone and inside a forecasting model, by what its tags promise.

    Args:
        architecture: A registered name, ``"module:attribute"``, a function, or a Layer subclass.
        options: Its options; a small `width` keeps the checks quick.
        lookback: Steps that go in; must differ from the other sizes.
        channels: Features of a step.
        horizon: Steps to forecast.
        fresh_process: Whether to load the saved model in a new Python process too (seconds).
        export: Whether to export to SavedModel and LiteRT and compare (seconds).
        checks: Names of the checks to run; default all that apply.
        skip: Names of checks to leave out.

    Returns:
        The report.

    Raises:
        AssertionError: If a check fails; the message lists all that fail.
        ValueError: If a name in `checks` or `skip` is unknown.

    Example:
        >>> print(check_architecture("linear", checks=["signature", "unknown_option"]))
        linear: 2 of 2 checks passed
          passed  signature
          passed  unknown_option
    """
    found = architecture_checks(
        architecture,
        options=options,
        lookback=lookback,
        channels=channels,
        horizon=horizon,
        fresh_process=fresh_process,
        export=export,
    )
    return run_checks(_title(architecture), found, checks=checks, skip=skip)


def layer_checks(
    layer: keras.layers.Layer | Callable[[], keras.layers.Layer],
    inputs: Any,
    *,
    call_kwargs: Mapping[str, Any] | None = None,
    mask: np.ndarray | None = None,
    causal: bool = False,
    fixed_length: bool = False,
    fresh_process: bool = False,
    export: bool = True,
) -> Checks:
    """Returns the checks of a layer by name, for tests that want one case each.

    Args:
        layer: As in `check_layer`.
        inputs: As in `check_layer`.
        call_kwargs: As in `check_layer`.
        mask: As in `check_layer`.
        causal: As in `check_layer`.
        fixed_length: As in `check_layer`.
        fresh_process: As in `check_layer`.
        export: As in `check_layer`.

    Returns:
        Functions without arguments that raise `CheckFailure`.

    Example:
        >>> sorted(layer_checks(keras.layers.Dense(4), np.ones((2, 5, 3)), export=False))[:3]
        ['config', 'eager_equals_graph', 'gradients']
    """
    positional = inputs if isinstance(inputs, tuple) else (inputs,)
    samples: Arrays = {f"input_{i}": np.asarray(x) for i, x in enumerate(positional)}
    constants: dict[str, Any] = {}
    for key, value in (call_kwargs or {}).items():
        if isinstance(value, np.ndarray):
            samples[key] = value
        else:
            constants[key] = value
    if mask is not None:
        samples["mask"] = np.asarray(mask)
    # With a memory besides the query, the mask tells whose time axis the checks are about.
    timed = positional[0] if mask is None else mask
    steps = np.shape(timed)[1] if np.ndim(timed) > 1 else 0

    def make(policy: str | None) -> keras.Model:
        made = _make_layer(layer, policy)
        tensors = _inputs(samples, steps if fixed_length else None, steps)
        named = {k: t for k, t in tensors.items() if not k.startswith("input_")}
        ordered = [tensors[f"input_{i}"] for i in range(len(positional))]
        return keras.Model(tensors, _named(made(*ordered, **named, **constants)))

    subject = _Subject(
        make=make,
        samples=samples,
        steps=steps,
        masked="mask" if mask is not None else None,
        causal=causal,
        fixed_length=fixed_length,
        modules=(type(_make_layer(layer, None)).__module__,) if fresh_process else (),
    )
    found: Checks = {"config": partial(_layer_config, layer, subject)}
    return {**found, **_common(subject, fresh_process, export), **_precision(subject)}


def model_checks(
    model: keras.Model,
    inputs: Any,
    *,
    mask: str | None = None,
    causal: bool = False,
    fresh_process: bool = False,
    export: bool = True,
) -> Checks:
    """Returns the checks of a functional model by name.

    Args:
        model: As in `check_model`.
        inputs: As in `check_model`.
        mask: As in `check_model`.
        causal: As in `check_model`.
        fresh_process: As in `check_model`.
        export: As in `check_model`.

    Returns:
        Functions without arguments that raise `CheckFailure`.

    Example:
        >>> x = keras.Input((4, 2), name="x")
        >>> model = keras.Model({"x": x}, {"y": keras.layers.Dense(1)(x)})
        >>> list(model_checks(model, np.ones((3, 4, 2)), export=False))
        ['config', 'save', 'eager_equals_graph', 'rows', 'gradients']
    """
    if not isinstance(inputs, Mapping):
        inputs = {_input_names(model)[0]: inputs}
    samples: Arrays = {name: np.asarray(value) for name, value in inputs.items()}
    subject = _Subject(
        make=lambda policy: model,
        samples=samples,
        steps=next((x.shape[1] for k, x in samples.items() if k != mask and x.ndim > 1), 0),
        masked=mask,
        causal=causal,
        fixed_length=True,
        modules=tuple({type(found).__module__ for found in model.layers}),
    )
    return {"config": partial(_model_config, subject), **_common(subject, fresh_process, export)}


def architecture_checks(
    architecture: str | Callable[..., Any],
    *,
    options: Mapping[str, Any] | None = None,
    lookback: int = 24,
    channels: int = 3,
    horizon: int = 5,
    fresh_process: bool = True,
    export: bool = True,
) -> Checks:
    """Returns the checks of an architecture by name, chosen by its signature and its tags.

    Args:
        architecture: As in `check_architecture`.
        options: As in `check_architecture`.
        lookback: As in `check_architecture`.
        channels: As in `check_architecture`.
        horizon: As in `check_architecture`.
        fresh_process: As in `check_architecture`.
        export: As in `check_architecture`.

    Returns:
        Functions without arguments that raise `CheckFailure`.

    Example:
        >>> "causal" in architecture_checks("gru")
        True
    """
    chosen = dict(options or {})
    bound = resolve(architecture)
    if "width" in bound.parameters:
        chosen.setdefault("width", 16)
    bound = resolve(architecture, **chosen)
    generator = np.random.default_rng(0)
    samples: Arrays = {"series": generator.normal(size=(4, lookback, channels)).astype("float32")}
    sequence = not bound.forecaster and "vector" not in bound.tags
    masked = sequence or "mask" in bound.parameters
    if isinstance(bound.function, type):
        masked = "mask" in inspect.signature(bound.function.call).parameters
    if masked:
        # Padding at the end, one whole row, and one hole.
        samples["mask"] = np.arange(lookback) < np.array([[lookback], [lookback - 7], [9], [5]])
        samples["mask"][0, 3:5] = False
    if "time_index" in bound.parameters:
        samples["time_index"] = np.arange(4, dtype="int32")
    fixed = not sequence or "needs_fixed_length" in bound.tags

    def trunk(policy: str | None) -> keras.Model:
        with _policy(policy):
            tensors = _inputs(samples, lookback if fixed else None, lookback)
            context = {"horizon": horizon, "outputs": 2, "period": 4}
            if "time_index" in tensors:
                context["time_index"] = tensors["time_index"]
            y = bound(tensors["series"], mask=tensors.get("mask"), **context)
            return keras.Model(tensors, _named(y))

    subject = _Subject(
        make=trunk,
        samples=samples,
        steps=lookback,
        masked="mask" if masked else None,
        causal=sequence and _is_causal(bound),
        fixed_length=fixed,
        modules=(bound.function.__module__, "keras_seq.layers"),
    )
    series = (lookback, channels)
    make = partial(_forecasting_model, architecture, chosen, series, horizon, bound)
    found: Checks = {
        "signature": partial(_signature, bound),
        "unknown_option": partial(_unknown_option, architecture, bound, series, horizon),
        "output_shape": partial(_output_shape, bound, subject, horizon, channels, sequence),
        "config": partial(_model_config, subject),
    }
    if "width" in bound.parameters:
        found["width"] = partial(_width_grows, architecture, chosen, make)
    if "depth" in bound.parameters:
        found["depth"] = partial(_depth_grows, architecture, chosen, make)
    if "returns_attention" in bound.tags:
        found["attention"] = partial(_attention, subject)
    found |= _common(subject, fresh_process, export=False) | _precision(subject)
    found["learns"] = partial(_learns, make, series, horizon)
    if export:
        deployed = _Subject(
            make=lambda policy: make(),
            samples={k: v for k, v in samples.items() if k != "mask"},
            steps=lookback,
        )
        found |= _export_checks(deployed)
    return found


def run_checks(
    subject: str,
    found: Checks,
    *,
    checks: Iterable[str] | None = None,
    skip: Iterable[str] = (),
) -> Report:
    """Runs checks, goes on after a failure, and raises at the end if there was one.

    Args:
        subject: A name for the messages.
        found: Functions by name, from `layer_checks` and its sisters.
        checks: The names to run; default all.
        skip: Names to leave out.

    Returns:
        The report.

    Raises:
        AssertionError: If a check fails; the message lists all that fail.
        ValueError: If a name is unknown.

    Example:
        >>> print(run_checks("nothing", {"fine": lambda: None}))
        nothing: 1 of 1 checks passed
          passed  fine
    """
    wanted, unwanted = (None if checks is None else set(checks)), set(skip)
    if unknown := ((wanted or set()) | unwanted) - set(found):
        raise ValueError(
            f"unknown checks {sorted(unknown)} for {subject}: these apply to it: {sorted(found)}"
        )
    results = []
    for name, function in found.items():
        if name in unwanted or (wanted is not None and name not in wanted):
            continue
        error, start = None, time.perf_counter()
        try:
            function()
        except CheckFailure as failure:
            error = str(failure)
        except Exception as failure:  # a crash is a failed check like another
            error = f"{type(failure).__name__}: {failure}"
        results.append(Result(name, error, time.perf_counter() - start))
    report = Report(subject, tuple(results))
    if report.failures:
        raise AssertionError(str(report))
    return report


def outputs_in_fresh_process(
    folder: str | os.PathLike[str], *, modules: Iterable[str] = ("keras_seq.layers",)
) -> dict[str, Arrays]:
    """Loads every ``*.keras`` file of a folder in a new Python process and runs it.

    Args:
        folder: Holds ``NAME.keras`` and, beside each, ``NAME.npz`` with its inputs.
        modules: What the new process imports before it loads, so that classes are registered.

    Returns:
        The outputs by model name and output name.

    Raises:
        CheckFailure: If the new process fails; the message ends with its last words.
    """
    # The new process sees the same modules, also those that a test put on the path.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    command = [sys.executable, "-c", _FRESH, str(folder), *modules]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise CheckFailure(f"a fresh process cannot load it: {done.stderr.strip()[-600:]}")
    return {
        path.name.removesuffix(".out.npz"): dict(np.load(path))
        for path in sorted(Path(folder).glob("*.out.npz"))
    }


_FRESH = """
import importlib, pathlib, sys
import keras, numpy
for module in sys.argv[2:]:
    importlib.import_module(module)
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
    inputs = dict(numpy.load(path.with_suffix(".npz")))
    outputs = keras.saving.load_model(path)(inputs, training=False)
    numpy.savez(path.with_suffix(".out.npz"),
                **{name: keras.ops.convert_to_numpy(y) for name, y in outputs.items()})
"""


# ---------------------------------------------------------------------------------- the subject


@dataclass
class _Subject:
    """A functional model with dict inputs and outputs, and what it promises.

    `make` builds it under a dtype policy; `steps` is the size of the time axis T.
    """

    make: Callable[[str | None], keras.Model]
    samples: Arrays
    steps: int
    masked: str | None = None
    causal: bool = False
    fixed_length: bool = True
    modules: tuple[str, ...] = ()
    _cache: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def model(self) -> keras.Model:
        return self.make(None)

    @cached_property
    def outputs(self) -> Arrays:
        return self.run(self.samples)

    def run(self, samples: Arrays) -> Arrays:
        return _run(self.model, samples)

    def values(self) -> list[str]:
        """The inputs that carry values along time, the mask apart."""
        return [
            name
            for name, x in self.samples.items()
            if name != self.masked and x.ndim > 1 and x.shape[1] == self.steps
        ]

    def disturbed(self, where: np.ndarray) -> Arrays:
        """The samples with other values where `where` (B, T) is true."""
        generator = np.random.default_rng(1)
        changed = dict(self.samples)
        for name in self.values():
            x = self.samples[name]
            if np.issubdtype(x.dtype, np.floating):
                other = 30 * generator.normal(size=x.shape)
            else:
                other = generator.integers(x.min(), x.max() + 1, size=x.shape)
            spread = where.reshape(where.shape + (1,) * (x.ndim - 2))
            changed[name] = np.where(spread, other, x).astype(x.dtype)
        return changed

    def cut(self, y: np.ndarray, keep: Any) -> np.ndarray:
        """Keeps some steps of every time axis of one row's output (without the batch axis)."""
        for axis, size in enumerate(y.shape):
            if size == self.steps:
                y = np.take(y, keep, axis=axis)
        return y


def _run(model: Callable[..., Any], samples: Arrays) -> Arrays:
    outputs = model({k: keras.ops.convert_to_tensor(v) for k, v in samples.items()}, training=False)
    return _arrays(outputs)


def _arrays(outputs: Any) -> Arrays:
    return {name: np.asarray(keras.ops.convert_to_numpy(y)) for name, y in _named(outputs).items()}


def _named(outputs: Any) -> dict[str, Any]:
    if isinstance(outputs, Mapping):
        return dict(outputs)
    if isinstance(outputs, list | tuple):
        flat = keras.tree.flatten(outputs)
        return {f"output_{i}": y for i, y in enumerate(flat)}
    return {"output": outputs}


def _inputs(samples: Arrays, fixed: int | None, steps: int) -> dict[str, Any]:
    """Keras inputs for the samples; a time axis is left open unless its length is fixed."""
    return {
        name: keras.Input(
            tuple(
                fixed if i == 0 and size == steps else size for i, size in enumerate(x.shape[1:])
            ),
            name=name,
            dtype=x.dtype.name if x.dtype != np.float64 else "float32",
        )
        for name, x in samples.items()
    }


def _input_names(model: keras.Model) -> list[str]:
    return [tensor.name for tensor in model.inputs]


@contextmanager
def _policy(policy: str | None) -> Iterator[None]:
    before = keras.config.dtype_policy()
    if policy is not None:
        keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _make_layer(layer: Any, policy: str | None) -> keras.layers.Layer:
    """A fresh, unbuilt layer under a dtype policy."""
    if not isinstance(layer, keras.layers.Layer):
        with _policy(policy):
            return layer()
    config = layer.get_config()
    if policy is not None:
        config["dtype"] = policy
    return type(layer).from_config(config)


def _title(architecture: Any) -> str:
    return architecture if isinstance(architecture, str) else architecture.__name__


# ------------------------------------------------------------------------- checks of any subject


def _require(condition: Any, message: str) -> None:
    if not condition:
        raise CheckFailure(message)


def _close(got: np.ndarray, wanted: np.ndarray, tolerance: float, what: str) -> None:
    """Compares relative to the size of the values, not element by element."""
    _require(got.shape == wanted.shape, f"{what}: shapes {got.shape} and {wanted.shape} differ")
    if not wanted.size:
        return
    got, wanted = got.astype("float64"), wanted.astype("float64")
    scale = max(1.0, float(np.max(np.abs(wanted))))
    difference = float(np.max(np.abs(got - wanted))) / scale
    _require(
        difference <= tolerance,  # False for NaN
        f"{what}: they differ by {difference:.2g} of the largest value, {tolerance:.0e} is allowed",
    )


def _all_close(got: Arrays, wanted: Arrays, tolerance: float, what: str) -> None:
    _require(got.keys() == wanted.keys(), f"{what}: outputs {list(got)} and {list(wanted)}")
    for name, value in wanted.items():
        _close(got[name], value, tolerance, f"{what}, {name}")


def _common(subject: _Subject, fresh_process: bool, export: bool) -> Checks:
    found: Checks = {
        "save": partial(_save, subject),
        "eager_equals_graph": partial(_graph, subject),
        "rows": partial(_rows, subject),
        "gradients": partial(_gradients, subject),
    }
    if fresh_process:
        found["fresh_process"] = partial(_fresh_process, subject)
    if subject.masked:
        found["mask_values"] = partial(_mask_values, subject)
        if not subject.fixed_length:
            found["mask_padding"] = partial(_mask_padding, subject)
    if subject.causal:
        found["causal"] = partial(_causal, subject)
        if not subject.fixed_length:
            found["prefixes"] = partial(_prefixes, subject)
    return found | (_export_checks(subject) if export else {})


def _precision(subject: _Subject) -> Checks:
    return {
        policy: partial(_mixed, subject, policy) for policy in ("mixed_float16", "mixed_bfloat16")
    }


def _export_checks(subject: _Subject) -> Checks:
    return {
        "saved_model": partial(_export, subject, "saved_model"),
        "litert": partial(_export, subject, "litert"),
    }


def _layer_config(layer: Any, subject: _Subject) -> None:
    first = _make_layer(layer, None)
    config = first.get_config()
    names = inspect.signature(type(first).__init__).parameters
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    missing = [
        n for n, p in names.items() if n not in config and n != "self" and p.kind not in kinds
    ]
    _require(not missing, f"get_config() leaves out {missing}")
    saved = keras.saving.serialize_keras_object(first)
    try:
        text = json.dumps(saved)
    except TypeError as error:
        raise CheckFailure(f"get_config() is not plain JSON: {error}") from error
    second = keras.saving.deserialize_keras_object(json.loads(text))
    _require(type(second) is type(first), f"{type(first)} comes back as {type(second)}")
    _require(
        json.dumps(second.get_config(), default=str) == json.dumps(config, default=str),
        f"the configuration changes: {config} becomes {second.get_config()}",
    )
    _model_config(subject)


def _model_config(subject: _Subject) -> None:
    model = subject.model
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    again = keras.saving.deserialize_keras_object(config)
    shapes = [tuple(w.shape) for w in model.weights]
    _require(
        [tuple(w.shape) for w in again.weights] == shapes,
        f"the weights have other shapes after from_config(get_config()): {shapes} become "
        f"{[tuple(w.shape) for w in again.weights]}",
    )
    again.set_weights(model.get_weights())
    _all_close(_run(again, subject.samples), subject.outputs, 1e-6, "after a config round trip")


def _save(subject: _Subject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        subject.model.save(path)
        again = keras.saving.load_model(path)
    _all_close(_run(again, subject.samples), subject.outputs, 1e-6, "after save and load")


def _fresh_process(subject: _Subject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subject.model.save(Path(folder) / "model.keras")
        np.savez(Path(folder) / "model.npz", **subject.samples)  # type: ignore[arg-type]
        found = outputs_in_fresh_process(folder, modules=subject.modules)
    _all_close(found["model"], subject.outputs, 1e-5, "loaded in a fresh process")


def _graph(subject: _Subject) -> None:
    import tensorflow as tf

    graph = tf.function(lambda x: subject.model(x, training=False))
    inputs = {k: tf.convert_to_tensor(v) for k, v in subject.samples.items()}
    eager = subject.outputs
    _all_close(_arrays(graph(inputs)), eager, 1e-5, "tf.function and eager")


def _rows(subject: _Subject) -> None:
    """A row's output must not depend on the rows that happen to be in the same batch."""
    first = subject.run({name: x[:1] for name, x in subject.samples.items()})
    wanted = {name: y[:1] for name, y in subject.outputs.items()}
    _all_close(first, wanted, 1e-5, "a row alone and in a batch")


def _gradients(subject: _Subject) -> None:
    import tensorflow as tf

    model = subject.model
    inputs = {k: tf.convert_to_tensor(v) for k, v in subject.samples.items()}
    generator = np.random.default_rng(2)
    with tf.GradientTape() as tape:
        loss = 0.0
        for y in _named(model(inputs, training=True)).values():
            if y.dtype.is_floating:
                weights = generator.normal(size=y.shape).astype("float32")
                loss += tf.reduce_sum(tf.cast(y, "float32") * weights)
    variables = model.trainable_variables
    if not variables:
        return
    gradients = tape.gradient(loss, [v.value for v in variables])
    dead = [v.path for v, g in zip(variables, gradients, strict=True) if g is None]
    _require(not dead, f"no gradient reaches {dead}")
    wild = [
        v.path
        for v, g in zip(variables, gradients, strict=True)
        if not np.all(np.isfinite(tf.convert_to_tensor(g).numpy()))
    ]
    _require(not wild, f"the gradient is not finite at {wild}")


def _mixed(subject: _Subject, policy: str) -> None:
    model = subject.make(policy)
    lower = [
        v.path
        for v in model.trainable_variables
        if keras.backend.standardize_dtype(v.dtype) != "float32"
    ]
    _require(not lower, f"under {policy} weights must stay float32: {lower}")
    _require(
        len(model.weights) == len(subject.model.weights),
        f"under {policy} it has {len(model.weights)} weights, else {len(subject.model.weights)}",
    )
    model.set_weights(subject.model.get_weights())
    for name, y in _run(model, subject.samples).items():
        _require(np.all(np.isfinite(y.astype("float32"))), f"{policy}: {name} is not finite")
        _close(y.astype("float32"), subject.outputs[name], 5e-2, f"{policy} and float32, {name}")


def _mask_values(subject: _Subject) -> None:
    mask = subject.samples[str(subject.masked)].astype(bool)
    _require(not mask.all(), "the mask given hides nothing: give one with some False")
    disturbed = subject.run(subject.disturbed(~mask))
    for name, before in subject.outputs.items():
        for row in range(len(mask)):
            if not mask[row].any():
                continue
            keep = np.flatnonzero(mask[row])
            got, wanted = (subject.cut(y[row], keep) for y in (disturbed[name], before))
            _close(got, wanted, 1e-5, f"other values under the mask change {name}, row {row}")


def _mask_padding(subject: _Subject) -> None:
    """Padding changes nothing: the first n steps alone equal them with padding behind."""
    name, steps = str(subject.masked), subject.steps
    for n in sorted({max(2, steps // 3), steps - 1}):
        keep = np.arange(n)
        short = {
            key: x[:, :n] if x.ndim > 1 and x.shape[1] == steps else x
            for key, x in subject.samples.items()
        }
        short[name] = np.ones_like(short[name])
        behind = np.broadcast_to(np.arange(steps) >= n, subject.samples[name].shape)
        padded = subject.disturbed(behind)
        padded[name] = ~behind
        alone, together = subject.run(short), subject.run(padded)
        for key, wanted in alone.items():
            for row in range(len(wanted)):
                got = subject.cut(together[key][row], keep)
                _close(got, wanted[row], 1e-5, f"padding from {n} to {steps} steps changes {key}")


def _causal(subject: _Subject) -> None:
    batch = len(next(iter(subject.samples.values())))
    # Without the mask's help: every step is real.
    samples = dict(subject.samples)
    if subject.masked:
        samples[subject.masked] = np.ones_like(samples[subject.masked])
    before = subject.run(samples)
    for t in sorted({1, subject.steps // 2, subject.steps - 1}):
        later = np.broadcast_to(np.arange(subject.steps) >= t, (batch, subject.steps))
        changed = {**subject.disturbed(later)}
        if subject.masked:
            changed[subject.masked] = samples[subject.masked]
        after, keep, moved = subject.run(changed), np.arange(t), False
        for name, wanted in before.items():
            _require(
                subject.steps in wanted.shape[1:], f"{name} has no time axis of {subject.steps}"
            )
            moved = moved or not np.allclose(after[name], wanted)
            for row in range(batch):
                got = subject.cut(after[name][row], keep)
                expected = subject.cut(wanted[row], keep)
                _close(got, expected, 1e-5, f"a change from step {t} on changes {name} before it")
        _require(moved, f"a change from step {t} on changes nothing at all: is the input used?")


def _prefixes(subject: _Subject) -> None:
    """Fed with the first n steps only, it gives the first n outputs: what streaming rests on."""
    samples = {k: x for k, x in subject.samples.items() if k != subject.masked}
    whole_mask, steps = {}, subject.steps
    if subject.masked:
        whole_mask = {subject.masked: np.ones_like(subject.samples[subject.masked])}
    whole = subject.run({**samples, **whole_mask})
    for n in sorted({2, max(2, steps // 2)}):  # Keras warns of a softmax over a single step
        part = {
            k: x[:, :n] if x.ndim > 1 and x.shape[1] == steps else x
            for k, x in {**samples, **whole_mask}.items()
        }
        for name, got in subject.run(part).items():
            for row in range(len(got)):
                wanted = subject.cut(whole[name][row], np.arange(n))
                _close(got[row], wanted, 1e-5, f"{name} of the first {n} steps alone")


def _export(subject: _Subject, fmt: str) -> None:
    """Exports through `keras_seq.export`, which compares and raises where they differ."""
    export = importlib.import_module("keras_seq.export").export
    with tempfile.TemporaryDirectory() as folder:
        export(subject.model, Path(folder) / "export", formats=(fmt,), samples=subject.samples)


# -------------------------------------------------------------------- checks of architectures


def _forecasting_model(
    architecture: Any,
    options: Mapping[str, Any],
    series: tuple[int, int],
    horizon: int,
    bound: Architecture,
    **more: Any,
) -> keras.Model:
    inputs: dict[str, Any] = {"series": series}
    if "time_index" in bound.parameters:
        inputs["time_index"] = keras.Input((), dtype="int32", name="time_index")
    head = Forecast(horizon=horizon, period=4)
    return build(architecture, inputs=inputs, head=head, **{**options, **more})


def _is_causal(bound: Architecture) -> bool:
    """Tags describe the default options; these two are the ones that change causality."""
    chosen = bound.options.get("causal", "causal" in bound.tags)
    return bool(chosen) and not bound.options.get("bidirectional", False)


def _signature(bound: Architecture) -> None:
    if isinstance(bound.function, type):
        return  # a Layer subclass answers for itself: Keras layers take **kwargs
    parameters = list(inspect.signature(bound.function).parameters.values())
    _require(parameters, "it takes no arguments: the first one must be the features")
    for parameter in parameters[1:]:
        _require(
            parameter.kind is inspect.Parameter.KEYWORD_ONLY,
            f"{parameter} is not a keyword-only option: put it behind the *",
        )
        _require(
            parameter.default is not inspect.Parameter.empty or parameter.name == "horizon",
            f"the option {parameter.name!r} has no default",
        )
    _require(hasattr(bound.function, "tags"), "it declares no tags: decorate it with @architecture")


def _unknown_option(
    architecture: Any, bound: Architecture, series: tuple[int, int], horizon: int
) -> None:
    wrong = "no_such_option"
    calls: list[tuple[str, Callable[[], Any]]] = [
        (
            "build",
            lambda: build(
                architecture, inputs=series, head=Forecast(horizon=horizon), **{wrong: 1}
            ),
        )
    ]
    if not isinstance(bound.function, type):
        calls.append(("a call", lambda: bound.function(keras.Input(series), **{wrong: 1})))
    for what, call in calls:
        try:
            call()
        except TypeError as error:
            _require(wrong in str(error), f"{what}: the TypeError does not name it: {error}")
        else:
            raise CheckFailure(f"{what} takes an unknown option without a word")


def _output_shape(
    bound: Architecture, subject: _Subject, horizon: int, channels: int, sequence: bool
) -> None:
    (got,) = {y.shape for y in subject.outputs.values()}
    batch = len(subject.samples["series"])
    width = bound.options.get("width")
    if bound.forecaster:
        wanted: tuple[Any, ...] = (batch, horizon, channels, 2)
    elif sequence:
        wanted = (batch, subject.steps, width or got[-1])
    else:
        wanted = (batch, width or got[-1])
    _require(got == wanted, f"the output is {got}, the contract says {wanted}")
    (symbolic,) = (tuple(y.shape) for y in keras.tree.flatten(subject.model.output))
    told = tuple(got[i] if size is None else size for i, size in enumerate(symbolic))
    _require(told == got, f"the symbolic shape is {symbolic}, the real one is {got}")


def _width_grows(architecture: Any, options: Mapping[str, Any], make: Any) -> None:
    sizes = [make(width=width).count_params() for width in (16, 24, 32)]
    _require(
        sizes[0] < sizes[1] < sizes[2],
        f"parameters must grow with the width; at 16, 24 and 32 there are {sizes}",
    )


def _depth_grows(architecture: Any, options: Mapping[str, Any], make: Any) -> None:
    sizes = [make(depth=depth).count_params() for depth in (1, 2, 3)]
    _require(
        sizes[0] < sizes[1] < sizes[2],
        f"parameters must grow with the depth; at 1, 2 and 3 there are {sizes}",
    )


def _attention(subject: _Subject) -> None:
    model = subject.model
    layers = [found for found in model.layers if found.name.startswith("attention")]
    _require(layers, "tagged returns_attention, but no layer's name starts with 'attention'")
    for layer in layers:
        found = keras.Model(model.input, layer.output)
        outputs = found(
            {k: keras.ops.convert_to_tensor(v) for k, v in subject.samples.items()}, training=False
        )
        _require(
            isinstance(outputs, list | tuple) and len(outputs) == 2,
            f"the layer {layer.name} must return (output, weights)",
        )
        weights = keras.ops.convert_to_numpy(outputs[1])
        _require(weights.min() >= 0, f"{layer.name}: weights below 0")
        sums = weights.sum(axis=-1)
        # A query that no key is left for has weights 0, all others have weights that sum to 1.
        empty = np.all(weights == 0, axis=-1)
        _close(sums[~empty], np.ones_like(sums[~empty]), 1e-4, f"sums of weights of {layer.name}")


def _learns(make: Callable[..., keras.Model], series: tuple[int, int], horizon: int) -> None:
    """Trained for a moment on waves, it must be clearly better than at the start."""
    lookback, channels = series
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(3)
    start = generator.uniform(0, 2 * np.pi, size=(96, 1, channels))
    waves = np.sin(start + 2 * np.pi * np.arange(lookback + horizon)[:, None] / 12)
    x, y = waves[:, :lookback].astype("float32"), waves[:, lookback:].astype("float32")
    model = make()
    inputs = {"series": x}
    if "time_index" in _input_names(model):
        inputs["time_index"] = np.arange(len(x), dtype="int32") % 12
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    before = float(model.evaluate(inputs, {"forecast": y}, batch_size=32, verbose=0))
    model.fit(inputs, {"forecast": y}, epochs=12, batch_size=32, verbose=0)
    after = float(model.evaluate(inputs, {"forecast": y}, batch_size=32, verbose=0))
    _require(after < 0.6 * before, f"36 steps bring the loss from {before:.4f} to {after:.4f} only")
