"""The checks of an architecture, by its signature and by its tags."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_seq.heads import Forecast, Label, Tokens, Translation
from keras_seq.models import CONTEXT, Architecture, build, resolve
from keras_seq.testing.pairs import pair_checks
from keras_seq.testing.properties import (
    common_checks,
    export_checks,
    model_config,
    precision_checks,
)
from keras_seq.testing.report import (
    Arrays,
    CheckFailure,
    Checks,
    Report,
    close,
    require,
    run_checks,
)
from keras_seq.testing.subject import (
    Subject,
    by_name,
    dtype_policy,
    input_names,
    keras_inputs,
    run_model,
)
from keras_seq.testing.tokens import token_checks


def check_architecture(
    architecture: str | Callable[..., Any],
    *,
    options: Mapping[str, Any] | None = None,
    lookback: int = 24,
    channels: int = 3,
    horizon: int = 5,
    tokens: bool | None = None,
    fresh_process: bool = True,
    export: bool = True,
    checks: Iterable[str] | None = None,
    skip: Iterable[str] = (),
) -> Report:
    """Checks an architecture, alone and inside a model, by what its tags promise.

    One that reads token ids is checked as a classifier of token sequences, an encoder-decoder as a
    translator, every other one alone and as a forecaster; with `tokens` it is checked on embedded
    tokens instead.

    Args:
        architecture: A registered name, ``"module:attribute"``, a function, or a Layer subclass.
        options: Its options; a small `width` keeps the checks quick.
        lookback: Steps that go in; must differ from the other sizes.
        channels: Features of a step.
        horizon: Steps to forecast.
        tokens: Whether to check it as a classifier of token sequences; None: where it reads ids.
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
        tokens=tokens,
        fresh_process=fresh_process,
        export=export,
    )
    return run_checks(_title(architecture), found, checks=checks, skip=skip)


def architecture_checks(
    architecture: str | Callable[..., Any],
    *,
    options: Mapping[str, Any] | None = None,
    lookback: int = 24,
    channels: int = 3,
    horizon: int = 5,
    tokens: bool | None = None,
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
        tokens: As in `check_architecture`.
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
    if bound.encoder_decoder:
        return _on_pairs(architecture, bound, lookback, fresh_process, export)
    if bound.reads_tokens if tokens is None else tokens:
        return _on_tokens(architecture, bound, lookback, fresh_process, export)
    generator = np.random.default_rng(0)
    samples: Arrays = {"series": generator.normal(size=(4, lookback, channels)).astype("float32")}
    sequence = not bound.forecaster and "vector" not in bound.tags
    masked = sequence or "mask" in bound.parameters
    if isinstance(bound.function, type):
        call = getattr(bound.function, "call")  # noqa: B009 (a Layer, which mypy sees as Any)
        masked = "mask" in inspect.signature(call).parameters
    if masked:
        # Padding at the end, one whole row, and one hole.
        samples["mask"] = np.arange(lookback) < np.array([[lookback], [lookback - 7], [9], [5]])
        samples["mask"][0, 3:5] = False
    if "time_index" in bound.parameters:
        samples["time_index"] = np.arange(4, dtype="int32")
    fixed = bound.forecaster or "needs_fixed_length" in bound.tags

    def trunk(policy: str | None) -> keras.Model:
        with dtype_policy(policy):
            tensors = keras_inputs(samples, lookback if fixed else None, lookback)
            context = {"horizon": horizon, "outputs": 2, "period": 4}
            if "time_index" in tensors:
                context["time_index"] = tensors["time_index"]
            y = bound(tensors["series"], mask=tensors.get("mask"), **context)
            return keras.Model(tensors, by_name(y))

    subject = Subject(
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
        "config": partial(model_config, subject),
    }
    if "width" in bound.parameters:
        found["width"] = partial(_width_grows, architecture, chosen, make)
    if "depth" in bound.parameters:
        found["depth"] = partial(_depth_grows, architecture, chosen, make)
    if "returns_attention" in bound.tags:
        found["attention"] = partial(_attention, subject)
    found |= common_checks(subject, fresh_process, export=False) | precision_checks(subject)
    found["learns"] = partial(_learns, make, series, horizon)
    if export:
        deployed = Subject(
            make=lambda policy: make(),
            samples={k: v for k, v in samples.items() if k != "mask"},
            steps=lookback,
        )
        found |= export_checks(deployed)
    return found


def _on_tokens(
    architecture: Any, bound: Architecture, steps: int, fresh_process: bool, export: bool
) -> Checks:
    """The checks of its signature, and those of a classifier of token sequences."""
    options = dict(bound.options)
    found = token_checks(
        architecture,
        options,
        steps=steps,
        modules=(bound.function.__module__, "keras_seq.layers"),
        fresh_process=fresh_process,
        export=export,
    )

    def model(**more: Any) -> keras.Model:
        head = Label(classes=3, tokens=Tokens(40, width=8))
        return build(architecture, inputs={"tokens": (None,)}, head=head, **{**options, **more})

    first: Checks = {"signature": partial(_signature, bound)}
    # What gives class scores itself may have no use for a width.
    if "width" in bound.parameters and "logits" not in bound.tags:
        first["width"] = partial(_width_grows, architecture, options, model)
    if "depth" in bound.parameters:
        first["depth"] = partial(_depth_grows, architecture, options, model)
    return {**first, **found}


def _on_pairs(
    architecture: Any, bound: Architecture, steps: int, fresh_process: bool, export: bool
) -> Checks:
    """The checks of its signature, and those of a translator of token sequences."""
    options = dict(bound.options)

    def model(**more: Any) -> keras.Model:
        tokens = Tokens(40, width=8)
        inputs = {"source": (None,), "tokens": (None,)}
        head = Translation(tokens, tokens)
        return build(architecture, inputs=inputs, head=head, **{**options, **more})

    first: Checks = {"signature": partial(_signature, bound)}
    if "width" in bound.parameters:
        first["width"] = partial(_width_grows, architecture, options, model)
    if "depth" in bound.parameters:
        first["depth"] = partial(_depth_grows, architecture, options, model)
    return first | pair_checks(
        architecture,
        options,
        steps=steps,
        modules=(bound.function.__module__, "keras_seq.layers"),
        aligned="returns_attention" in bound.tags,
        fresh_process=fresh_process,
        export=export,
    )


def _title(architecture: Any) -> str:
    return architecture if isinstance(architecture, str) else architecture.__name__


def _is_causal(bound: Architecture) -> bool:
    """Tags describe the default options; these two are the ones that change causality."""
    chosen = bound.options.get("causal", "causal" in bound.tags)
    return bool(chosen) and not bound.options.get("bidirectional", False)


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


def _signature(bound: Architecture) -> None:
    if isinstance(bound.function, type):
        return  # a Layer subclass answers for itself: Keras layers take **kwargs
    parameters = list(inspect.signature(bound.function).parameters.values())
    require(parameters, "it takes no arguments: the first one must be the features")
    for parameter in parameters[1:]:
        require(
            parameter.kind is inspect.Parameter.KEYWORD_ONLY,
            f"{parameter} is not a keyword-only option: put it behind the *",
        )
        require(
            parameter.default is not inspect.Parameter.empty or parameter.name in CONTEXT,
            f"the option {parameter.name!r} has no default",
        )
    require(hasattr(bound.function, "tags"), "it declares no tags: decorate it with @architecture")


def _unknown_option(
    architecture: Any, bound: Architecture, series: tuple[int, int], horizon: int
) -> None:
    wrong: dict[str, Any] = {"no_such_option": 1}
    calls: list[tuple[str, Callable[[], Any]]] = [
        (
            "build",
            lambda: build(architecture, inputs=series, head=Forecast(horizon=horizon), **wrong),
        )
    ]
    if not isinstance(bound.function, type):
        calls.append(("a call", lambda: bound.function(keras.Input(series), **wrong)))
    for what, call in calls:
        try:
            call()
        except TypeError as error:
            require(
                "no_such_option" in str(error), f"{what}: the TypeError does not name it: {error}"
            )
        else:
            raise CheckFailure(f"{what} takes an unknown option without a word")


def _output_shape(
    bound: Architecture, subject: Subject, horizon: int, channels: int, sequence: bool
) -> None:
    (got,) = {y.shape for y in subject.outputs.values()}
    batch = len(subject.samples["series"])
    width = bound.options.get("width")
    if bound.forecaster:
        wanted: tuple[Any, ...] = (batch, horizon, channels, 2)
    elif sequence:
        wanted = (batch, subject.steps, width or got[-1])
    else:
        # A vector may join several of the width, one for each kind of thing it looks for.
        fits = not width or got[-1] % width == 0
        wanted = (batch, got[-1] if fits else width)
    require(got == wanted, f"the output is {got}, the contract says {wanted}")
    (symbolic,) = (tuple(y.shape) for y in keras.tree.flatten(subject.model.output))
    told = tuple(got[i] if size is None else size for i, size in enumerate(symbolic))
    require(told == got, f"the symbolic shape is {symbolic}, the real one is {got}")


def _width_grows(architecture: Any, options: Mapping[str, Any], make: Any) -> None:
    sizes = [make(width=width).count_params() for width in (16, 24, 32)]
    require(
        sizes[0] < sizes[1] < sizes[2],
        f"parameters must grow with the width; at 16, 24 and 32 there are {sizes}",
    )


def _depth_grows(architecture: Any, options: Mapping[str, Any], make: Any) -> None:
    sizes = [make(depth=depth).count_params() for depth in (1, 2, 3)]
    require(
        sizes[0] < sizes[1] < sizes[2],
        f"parameters must grow with the depth; at 1, 2 and 3 there are {sizes}",
    )


def _attention(subject: Subject) -> None:
    model = subject.model
    layers = [found for found in model.layers if found.name.startswith("attention")]
    require(layers, "tagged returns_attention, but no layer's name starts with 'attention'")
    for layer in layers:
        found = keras.Model(model.input, layer.output)
        outputs = found(
            {k: keras.ops.convert_to_tensor(v) for k, v in subject.samples.items()}, training=False
        )
        require(
            isinstance(outputs, list | tuple) and len(outputs) == 2,
            f"the layer {layer.name} must return (output, weights)",
        )
        weights = keras.ops.convert_to_numpy(outputs[1])
        require(weights.min() >= 0, f"{layer.name}: weights below 0")
        sums = weights.sum(axis=-1)
        # A query that no key is left for has weights 0, all others have weights that sum to 1.
        empty = np.all(weights == 0, axis=-1)
        close(sums[~empty], np.ones_like(sums[~empty]), 1e-4, f"sums of weights of {layer.name}")


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
    if "time_index" in input_names(model):
        inputs["time_index"] = np.arange(len(x), dtype="int32") % 12
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    model.optimizer.build(model.trainable_variables)  # or the step is traced twice

    def loss() -> float:
        # Not `evaluate`: for one batch, compiling it would take longer than the training.
        return float(np.mean((run_model(model, inputs)["forecast"] - y) ** 2))

    before = loss()
    model.fit(inputs, {"forecast": y}, epochs=12, batch_size=32, verbose=0)
    after = loss()
    require(after < 0.6 * before, f"36 steps bring the loss from {before:.4f} to {after:.4f} only")
