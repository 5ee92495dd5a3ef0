"""The checks of a functional model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_seq.testing.properties import common_checks, model_config
from keras_seq.testing.report import Arrays, Checks, Report, run_checks
from keras_seq.testing.subject import Subject, input_names


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
        inputs = {input_names(model)[0]: inputs}
    samples: Arrays = {name: np.asarray(value) for name, value in inputs.items()}
    subject = Subject(
        make=lambda policy: model,
        samples=samples,
        steps=next((x.shape[1] for k, x in samples.items() if k != mask and x.ndim > 1), 0),
        masked=mask,
        causal=causal,
        fixed_length=True,
        modules=tuple({type(found).__module__ for found in model.layers}),
    )
    return {
        "config": partial(model_config, subject),
        **common_checks(subject, fresh_process, export),
    }
