"""The checks of a layer."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_seq.testing.properties import common_checks, model_config, precision_checks
from keras_seq.testing.report import Arrays, CheckFailure, Checks, Report, require, run_checks
from keras_seq.testing.subject import Subject, by_name, dtype_policy, keras_inputs


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
        >>> from keras_seq.layers import TemporalBlock
        >>> report = check_layer(TemporalBlock(4), x, mask=np.arange(7) < [[5], [7]], causal=True,
        ...     export=False, skip=["mixed_float16"])
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
        tensors = keras_inputs(samples, steps if fixed_length else None, steps)
        named = {k: t for k, t in tensors.items() if not k.startswith("input_")}
        ordered = [tensors[f"input_{i}"] for i in range(len(positional))]
        return keras.Model(tensors, by_name(made(*ordered, **named, **constants)))

    subject = Subject(
        make=make,
        samples=samples,
        steps=steps,
        masked="mask" if mask is not None else None,
        causal=causal,
        fixed_length=fixed_length,
        modules=(type(_make_layer(layer, None)).__module__,) if fresh_process else (),
    )
    found: Checks = {"config": partial(_layer_config, layer, subject)}
    return {**found, **common_checks(subject, fresh_process, export), **precision_checks(subject)}


def _make_layer(layer: Any, policy: str | None) -> keras.layers.Layer:
    """A fresh, unbuilt layer under a dtype policy."""
    if not isinstance(layer, keras.layers.Layer):
        with dtype_policy(policy):
            return layer()
    config = layer.get_config()
    if policy is not None:
        config["dtype"] = policy
    return type(layer).from_config(config)


def _layer_config(layer: Any, subject: Subject) -> None:
    first = _make_layer(layer, None)
    config = first.get_config()
    names = inspect.signature(type(first).__init__).parameters
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    missing = [
        n for n, p in names.items() if n not in config and n != "self" and p.kind not in kinds
    ]
    require(not missing, f"get_config() leaves out {missing}")
    saved = keras.saving.serialize_keras_object(first)
    try:
        text = json.dumps(saved)
    except TypeError as error:
        raise CheckFailure(f"get_config() is not plain JSON: {error}") from error
    second = keras.saving.deserialize_keras_object(json.loads(text))
    require(type(second) is type(first), f"{type(first)} comes back as {type(second)}")
    require(
        json.dumps(second.get_config(), default=str) == json.dumps(config, default=str),
        f"the configuration changes: {config} becomes {second.get_config()}",
    )
    model_config(subject)
