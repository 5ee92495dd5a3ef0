"""Streams: a causal model as one step with explicit states, and the proof that it is the model.

The graph of a functional model is followed once more with one step of time. Layers that mix steps
take their own step (see `keras_seq.layers.steps`), all others are called as they are. Attention
remembers a window of the last steps. Everything starts as zeros, and nothing grows.

Whatever is overlooked in the graph shows up in numbers: the steps have to add up to the outputs
of the whole model on real samples, in Keras and in each exported file, or there is no export.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_seq.errors import UserError
from keras_seq.export.endpoints import STEP, step_of
from keras_seq.export.exporter import Endpoint, Exporter, ExportError, Samples
from keras_seq.export.parity import SCALE_FLOOR, distances
from keras_seq.export.signature import Signature, inference_form
from keras_seq.export.stream_loop import POSITION, stream
from keras_seq.layers import (
    CRFMarginals,
    LearnedPositions,
    ReversibleNormalization,
    SinusoidalPositions,
    ViterbiDecode,
)
from keras_seq.layers.steps import Step, step_shapes

#: What attention remembers of a model with an open length, where nothing is said.
WINDOW = 256
# Sequences that prove a stream, how far they go at most, and how far beyond that windows fill.
_ROWS = 4
_STEPS = 512
_BEYOND = 512

# Arguments of a layer that say which steps are real: in a stream all are.
_OWN_MASKS = ("mask", "training")

_REASONS: tuple[tuple[type, str], ...] = (
    (
        ReversibleNormalization,
        "it normalises a window by the mean and the variance of all its steps, the later ones "
        "too; train a forecaster with --normalize none",
    ),
    (
        LearnedPositions,
        "it has learned a vector for each position of a sequence, and a stream has no end; take "
        "positions that are relative, such as rotary ones",
    ),
    (ViterbiDecode, "the best sequence of tags is known only at the end; train without a CRF"),
    (CRFMarginals, "probabilities of a CRF look at the whole sequence; train without a CRF"),
    (
        keras.layers.Flatten,
        "it maps all steps of a sequence at once; train with the pooling last, mean or max",
    ),
)
# Keras's own layers that look at more than one step, and have no step here.
_MIXES = (
    "Attention",
    "AdditiveAttention",
    "AveragePooling1D",
    "Conv1DTranspose",
    "Cropping1D",
    "GlobalAveragePooling1D",
    "GlobalMaxPooling1D",
    "GroupQueryAttention",
    "MaxPooling1D",
    "MultiHeadAttention",
    "SeparableConv1D",
    "DepthwiseConv1D",
    "UpSampling1D",
    "ZeroPadding1D",
)


@dataclass(frozen=True, eq=False)
class Stream:
    """A model as one step.

    Args:
        step: A functional model. Inputs: those of the model with `patch` steps of time in place of
            all; the states by name, float32, batch first, which start as zeros; and, if `counts`,
            ``position`` (B,) int32, the number of calls so far. Outputs: those of the model for
            the steps so far (of a sequence the newest one, without an axis of time), and the
            states under the same names.
        states: Name of each state to its shape without the batch.
        timed: Names of the outputs that the model gives for each step.
        patch: Steps of time that a call takes.
        window: Steps that attention sees, its own among them; None: there is none.
        counts: Whether it takes ``position``.
        most_steps: Most calls; None: any number.

    Example:
        >>> x = keras.Input((None, 3), name="series")
        >>> y = keras.layers.GRU(4, return_sequences=True, name="gru")(x)
        >>> found = stream_model(keras.Model({"series": x}, {"y": y}))
        >>> found.states, sorted(found.step.output)
        ({'gru_hidden': (4,)}, ['gru_hidden', 'y'])
    """

    step: keras.Model
    states: Mapping[str, tuple[int, ...]]
    timed: frozenset[str]
    patch: int
    window: int | None
    counts: bool
    most_steps: int | None

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what comes out beside the states."""
        return tuple(name for name in self.step.output if name not in self.states)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what goes in beside the states and the count."""
        return tuple(n for n in self.step.input if n not in self.states and n != POSITION)

    @property
    def most_position(self) -> int | None:
        """Where a caller may stop counting: later steps are all alike. None: never."""
        return None if self.most_steps is not None else self.window

    def start(self, batch: int) -> Samples:
        """Returns the states before the first step: zeros.

        Args:
            batch: Number of rows.
        """
        return {name: np.zeros((batch, *s), "float32") for name, s in self.states.items()}

    def pieces(self, values: Samples) -> Samples:
        """Cuts sequences into what each call takes.

        Args:
            values: Name of each input to (B, T, ...).

        Returns:
            (B, T / patch, patch, ...); steps that fill no patch are left out.
        """
        found = {}
        for name in self.inputs:
            value = np.asarray(values[name])
            count = value.shape[1] // self.patch
            whole = value[:, : count * self.patch]
            found[name] = whole.reshape(len(value), count, self.patch, *value.shape[2:])
        return found

    @cached_property
    def _compiled(self) -> Any:
        # Traced once, on the CPU: on a GPU float32 may mean TF32.
        return tf.function(lambda given: self.step(given, training=False), autograph=False)

    def run(self, values: Samples) -> Samples:
        """Streams sequences through the step in Keras.

        Args:
            values: Name of each input to (B, T, ...).

        Returns:
            The outputs of each call, (B, T / patch, ...).
        """
        pieces = self.pieces(values)
        rows = len(next(iter(pieces.values())))

        def call(given: Samples) -> dict[str, Any]:
            with tf.device("/CPU:0"):
                return self._compiled({n: tf.convert_to_tensor(v) for n, v in given.items()})

        with inference_form(self.step):
            found, _ = stream(
                call,
                pieces,
                self.start(rows),
                position=self.counts,
                most_position=self.most_position,
            )
        return found


def stream_model(model: keras.Model, *, window: int | None = None) -> Stream:
    """Makes the step of a causal model; `plan_stream` also checks it.

    Args:
        model: A functional model whose inputs all have an axis of time behind the batch, (B, T) or
            (B, T, ...); a boolean input ``mask`` is left out, for every step of a stream is real.
        window: Steps that attention sees; None: the model's own T, or 256 where T is open.

    Returns:
        The step.

    Raises:
        UserError: If an input has no axis of time, or a layer has no step; it says which and why.

    Example:
        >>> import keras_seq
        >>> head = keras_seq.heads.Label(classes=2)
        >>> model = keras_seq.build("tcn", inputs={"features": (None, 3)}, head=head, width=4)
        >>> found = stream_model(model)
        >>> found.states["block_3_past_1"], found.counts, found.window
        ((16, 4), False, None)

    Reference:
        Shazeer 2019, Fast Transformer Decoding (keys and values that are kept); Paine et al. 2016,
        Fast Wavenet Generation Algorithm (inputs of dilated convolutions that are kept).
    """
    given = Signature(model).inputs
    for name, (shape, _) in given.items():
        if len(shape) < 2:
            raise UserError(
                f"the model {model.name!r} cannot be streamed: its input {name!r} has no axis of "
                "time, so it belongs to no step"
            )
    times = {shape[1] for shape, _ in given.values()}
    if len(times) > 1 or times == {1}:
        raise UserError(
            f"the model {model.name!r} cannot be streamed: its inputs have "
            f"{sorted(str(t) for t in times)} steps, and one number above 1 is wanted"
        )
    if window is not None and window < 1:
        raise UserError(f"window is {window}: give at least 1 step")
    own = times.pop()
    plan = _Plan(model, own, window)
    found = plan.follow(model)
    names = [name for name in given if not _is_mask(name, given[name][1])]
    if not names:
        raise UserError(f"the model {model.name!r} cannot be streamed: it has no input but a mask")
    inputs = {
        name: keras.Input((plan.patch, *given[name][0][2:]), name=name, dtype=given[name][1])
        for name in names
    }
    states = {name: keras.Input(shape, name=name) for name, shape in found.states.items()}
    counts = found.counts or (list(given) == ["tokens"] and "logits" in model.output_names)
    more = {POSITION: keras.Input((), name=POSITION, dtype="int32")} if counts else {}
    first = next(iter(inputs.values()))
    while len(first.shape) > 2:
        first = first[..., 0]
    tensors = [
        inputs[name] if name in inputs else ops.ones_like(first, dtype="bool")  # every step is real
        for name in given
    ]
    position = more.get(POSITION)
    outputs, after = found.apply(tensors, states, position)
    results, timed = {}, set()
    whole = Signature(model).outputs
    for name, y in zip(whole, keras.tree.flatten(_in_order(model, outputs, whole)), strict=True):
        shape = whole[name][0]
        if len(shape) > 1 and shape[1] == own and y.shape[1] == 1:
            timed.add(name)
            y = ops.squeeze(y, 1)
        results[name] = y
    clash = sorted(set(results) & set(after) | set(inputs) & set(states))
    if clash:
        raise UserError(f"the model {model.name!r} has names that states have too: {clash}")
    attends = plan.window is not None
    return Stream(
        step=keras.Model({**inputs, **states, **more}, {**results, **after}, name="stream_step"),
        states=dict(found.states),
        timed=frozenset(timed),
        patch=plan.patch,
        window=plan.window if attends else None,
        counts=counts,
        most_steps=plan.most_steps,
    )


def _in_order(model: keras.Model, flat: list[Any], whole: Mapping[str, Any]) -> list[Any]:
    """The outputs in the order of their names."""
    packed = keras.tree.pack_sequence_as(model.output, flat)
    if isinstance(packed, dict):
        return [packed[name] for name in whole]
    return keras.tree.flatten(packed)


def _is_mask(name: str, dtype: str) -> bool:
    return name == "mask" and dtype == "bool"


@dataclass(frozen=True, eq=False)
class _Followed:
    """A model, or a model inside of it, as a step on lists of tensors."""

    core: keras.Model
    states: dict[str, tuple[int, ...]]
    counts: bool
    count: int  # outputs

    def apply(
        self, tensors: Sequence[Any], states: Mapping[str, Any], position: Any
    ) -> tuple[list[Any], dict[str, Any]]:
        """Calls it: its outputs in the order of their structure, and the states after it."""
        given = [*tensors, *(states[name] for name in self.states)]
        found = self.core([*given, position] if self.counts else given)
        return found[: self.count], dict(zip(self.states, found[self.count :], strict=True))


class _Plan:
    """What all parts of a model share while they are followed."""

    def __init__(self, model: keras.Model, steps: int | None, window: int | None) -> None:
        self.model = model
        self.steps = steps
        self.wanted = window
        self.window: int | None = None  # set by the first layer that has one
        self.most_steps: int | None = None
        self.patch = 1
        self.folds: dict[int, int] = {}  # layers whose batch holds several series of each example
        self.names: set[str] = set()
        if steps is not None:
            self._measure(model)

    @property
    def length(self) -> int:
        """How many steps attention remembers."""
        return self.wanted or (self.steps // self.patch if self.steps else WINDOW)

    def refuse(self, layer: Any, reason: str) -> UserError:
        """Returns the error that says why there is no stream."""
        return UserError(
            f"the model {self.model.name!r} cannot be streamed: {layer.name!r} "
            f"({type(layer).__name__}) has no step of its own: {reason}"
        )

    # ------------------------------------------------------------------ patches and folded series

    def _measure(self, model: keras.Model) -> None:
        """Finds how many steps become one, and where a series becomes an example of its own."""
        for layer in model.layers:
            if isinstance(layer, keras.Model):
                self._measure(layer)
        reshapes = [op for op in model.operations if _is_reshape(op)]
        if not reshapes:
            return
        for op in reshapes:
            before, after = op.input.shape, tuple(op.newshape)
            if len(before) != 3 or len(after) != 3 or after[0] != -1:
                continue
            steps, parts = self.steps or 0, after[1]
            if steps in before[1:] and isinstance(parts, int) and steps % parts == 0:
                self.patch = max(self.patch, steps // parts)
        folds: dict[int, tuple[Any, int]] = {}

        def watch(op: Any, *args: Any, **kwargs: Any) -> Any:
            result = op(*args, **kwargs)
            given = _tensors((args, kwargs))
            fold = max((folds[id(x)][1] for x in given if id(x) in folds), default=1)
            self.folds[id(op)] = fold
            if _is_reshape(op) and op.newshape[0] == -1:
                inside, behind = given[0].shape[1:], result.shape[1:]
                if None not in inside and None not in behind:
                    fold = max(1, fold * int(np.prod(inside)) // int(np.prod(behind)))
            folds.update({id(x): (x, fold) for x in _tensors(result)})
            return result

        inputs = {n: keras.Input(x.shape[1:], name=n, dtype=x.dtype) for n, x in _given(model)}
        _clone(model, inputs, {}, watch)

    # ------------------------------------------------------------------------------ one step

    def follow(self, model: keras.Model) -> _Followed:
        """Follows the graph of a model with one step."""
        return _Follower(self, model).run()

    def name(self, model: keras.Model, layer: Any, key: str) -> str:
        """Names a state, and remembers the name."""
        name = f"{layer.name}_{key}"
        if name in self.names:  # several models in one, whose layers are called alike
            name = f"{model.name}_{name}"
        if name in self.names:
            raise self.refuse(layer, "another layer has its name")
        self.names.add(name)
        return name


class _Follower:
    def __init__(self, plan: _Plan, model: keras.Model) -> None:
        self.plan = plan
        self.model = model
        self.inner: dict[str, _Followed] = {}
        self.shapes: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {}  # by layer and key
        self.states: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        self.called: set[str] = set()
        self.counts = False
        self.position = keras.Input((), name=POSITION, dtype="int32")

    def run(self) -> _Followed:
        inputs = {}
        for name, x in _given(self.model):
            shape = list(x.shape[1:])
            if shape and shape[0] == self.plan.steps:
                shape[0] = self.plan.patch
            inputs[name] = keras.Input(shape, name=name, dtype=x.dtype)
        for layer in self.model.layers:
            self._prepare(layer)
        more = {POSITION: self.position, **self.states}
        outputs = keras.tree.flatten(_clone(self.model, inputs, more, self._call))
        missing = sorted(set(self.states) - set(self.after))
        if missing:
            raise UserError(f"the layers of {missing} take no part in {self.model.name!r}")
        shapes = {name: tuple(x.shape[1:]) for name, x in self.states.items()}
        given = [*inputs.values(), *self.states.values()]
        found = [*outputs, *(self.after[name] for name in self.states)]
        if self.counts:
            given.append(self.position)
        core = keras.Model(given, found, name=f"{self.model.name}_core")
        return _Followed(core, shapes, self.counts, len(outputs))

    def _prepare(self, layer: Any) -> None:
        """Refuses a layer that cannot be streamed, and makes the states of one that can."""
        plan = self.plan
        if isinstance(layer, keras.Model):
            found = plan.follow(layer)
            self.inner[layer.name] = found
            self.counts |= found.counts
            for name, shape in found.states.items():
                self.states[name] = keras.Input(shape, name=name)
            return
        steps = (plan.steps, plan.steps and plan.steps // plan.patch)
        for kind, reason in _REASONS:
            if not isinstance(layer, kind):
                continue
            if not isinstance(layer, keras.layers.Flatten) or layer.input.shape[1] in steps:
                raise plan.refuse(layer, reason)
        mixes = type(layer).__module__.startswith("keras.") and type(layer).__name__ in _MIXES
        if mixes or (isinstance(layer, keras.layers.Conv1D) and _sees_more(layer)):
            raise plan.refuse(layer, "it looks at other steps than those before it")
        try:
            shapes = step_shapes(layer, plan.length)
            if shapes is not None and shapes != step_shapes(layer, plan.length - 1 or 2):
                self._check_window(layer)
        except ValueError as error:
            raise plan.refuse(layer, str(error)) from None
        if shapes is None:
            return
        if getattr(layer, "return_state", False):
            raise plan.refuse(layer, "it returns its state besides")
        if isinstance(layer, SinusoidalPositions):
            plan.most_steps = min(plan.most_steps or layer.max_length, layer.max_length)
        fold = plan.folds.get(id(layer), 1)
        self.shapes[layer.name] = {}
        for key, shape in shapes.items():
            shape = (fold, *shape) if fold > 1 else tuple(shape)
            name = plan.name(self.model, layer, key)
            self.shapes[layer.name][key] = (name, shape)
            self.states[name] = keras.Input(shape, name=name)

    def _check_window(self, layer: Any) -> None:
        """What a layer with a memory of steps must be able to do."""
        if not getattr(layer, "slides", False):
            raise ValueError("it remembers every step of a sequence, and a stream has no end")
        self.plan.window = self.plan.length

    def _call(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        """What an operation of the model becomes in the step."""
        if op.name in self.inner:
            return self._call_model(op, *args)
        if op.name in self.shapes:
            return self._call_step(op, *args, **kwargs)
        if _is_reshape(op):
            return self._reshape(op, args[0])
        try:
            return op(*args, **kwargs)
        except Exception as error:
            text = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise self.plan.refuse(op, f"it cannot be computed for one step ({text})") from None

    def _once(self, op: Any) -> None:
        if op.name in self.called:
            raise self.plan.refuse(op, "the model calls it twice")
        self.called.add(op.name)

    def _call_model(self, model: Any, given: Any, *more: Any) -> Any:
        self._once(model)
        found = self.inner[model.name]
        if isinstance(model.input, dict):
            tensors = [given[name] for name in model.input]
        else:
            tensors = keras.tree.flatten(given)
        outputs, after = found.apply(tensors, self.states, self.position)
        self.after.update(after)
        return keras.tree.pack_sequence_as(model.output, outputs)

    def _call_step(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        self._once(layer)
        bound = dict(inspect.signature(layer.call).bind_partial(*args, **kwargs).arguments)
        bound |= bound.pop("kwargs", {})
        x = bound.pop(next(iter(inspect.signature(layer.call).parameters)))
        own = not isinstance(layer, (keras.layers.RNN, keras.layers.Conv1D))
        takes = set(inspect.signature(layer.step).parameters) if own else set()
        bound = {k: v for k, v in bound.items() if v is not None and k not in _OWN_MASKS}
        if left := sorted(set(bound) - takes):
            raise self.plan.refuse(layer, f"it is given {left} besides")
        position = None
        if own and inspect.signature(layer.step).parameters["position"].default is not None:
            position, self.counts = self.position, True
        fold = self.plan.folds.get(id(layer), 1)
        of_layer = self.shapes[layer.name]
        states = {key: self.states[name] for key, (name, _) in of_layer.items()}
        if fold > 1:
            states = {k: ops.reshape(v, (-1, *v.shape[2:])) for k, v in states.items()}
            position = None if position is None else ops.repeat(position, fold, axis=0)
        step = Step(layer, length=self.plan.length, update="window")
        result, after = step(x, states, position, given=bound or None)
        for key, value in after.items():
            name, shape = of_layer[key]
            # States stay in 32 bits under every policy: their types do not change on the way.
            value = ops.cast(value, "float32")
            self.after[name] = ops.reshape(value, (-1, *shape)) if fold > 1 else value
        return result

    def _reshape(self, op: Any, x: Any) -> Any:
        """The reshape of a step: sizes that hold the time of a whole sequence shrink."""
        whole, new = op.input.shape, list(op.newshape)
        axes = [a for a, (w, s) in enumerate(zip(whole, x.shape, strict=True)) if a and w != s]
        if not axes:
            return op(x)
        total, here = whole[axes[0]], x.shape[axes[0]]
        fits = (
            len(axes) == 1
            and len(new) > 1
            and new[0] == -1
            and isinstance(new[1], int)
            and total
            and new[1] > 0
            and new[1] * here % total == 0
        )
        if not fits:
            raise self.plan.refuse(
                op, "it moves steps into features; take patches that divide the sequence"
            )
        return ops.reshape(x, (-1, new[1] * here // total, *new[2:]))


def _is_reshape(op: Any) -> bool:
    return type(op).__name__ == "Reshape" and hasattr(op, "newshape")


def _sees_more(convolution: Any) -> bool:
    """Whether a convolution of Keras sees anything but the steps before, or gives fewer."""
    size = convolution.kernel_size[0]
    plain = tuple(convolution.strides) == (1,) and convolution.data_format == "channels_last"
    return not plain or (size > 1 and convolution.padding != "causal")


def _tensors(structure: Any) -> list[Any]:
    return [x for x in keras.tree.flatten(structure) if keras.backend.is_keras_tensor(x)]


def _given(model: keras.Model) -> list[tuple[str, Any]]:
    """The inputs with their names, in the order of their structure."""
    if isinstance(model.input, dict):
        return list(model.input.items())
    return [(x.name, x) for x in model.inputs]


def _clone(model: keras.Model, inputs: dict[str, Any], more: dict[str, Any], call: Any) -> Any:
    """The outputs of a model on other inputs, where `call` is called in place of each layer."""
    # Cloning wants every tensor that the copy reads among the inputs, so the model gets some that
    # it does not use.
    wide = keras.Model({**dict(_given(model)), **more}, model.output)
    copied = keras.models.clone_model(
        wide,
        input_tensors={**inputs, **more},
        clone_function=lambda layer: layer,
        call_function=call,
    )
    return copied.output


# ---------------------------------------------------------------------------------------- the proof


@dataclass(frozen=True, eq=False)
class StreamPlan:
    """A stream with the samples that prove it, and what the model says to them.

    Args:
        stream: The step.
        values: Inputs, (N, S * patch, ...): real sequences, which begin again where they end.
        lengths: Calls of each row that the whole model has an answer to.
        whole: The whole model's answers by output: (N, calls, ...) of one that it gives for each
            step, else (N, ...), which belongs to the last of those calls.
        steps: The step's own answers, (N, S, ...).
        difference: How far the step in Keras is from the whole model, relative to each output's
            scale.
    """

    stream: Stream
    values: Samples
    lengths: np.ndarray
    whole: Samples
    steps: Samples
    difference: float

    def endpoint(self, formats: Sequence[str]) -> Endpoint:
        """Describes the signature ``step`` with a few samples of its own.

        Args:
            formats: Names of the exporters that carry it.
        """
        pieces = self.stream.pieces(self.values)
        count = min(3, next(iter(pieces.values())).shape[1])
        calls = [{name: value[:, t] for name, value in pieces.items()} for t in range(count)]
        start = self.stream.start(len(self.lengths))
        return step_of(self.stream.step, calls, start, formats=formats)

    def prove(
        self,
        exporter: Exporter,
        destination: Path,
        *,
        imports: Sequence[str] = (),
        tolerance: float | None = None,
    ) -> dict[str, Any]:
        """Streams the samples through an exported file, and compares with the whole model.

        Args:
            exporter: Its format, one with `Exporter.stream`.
            destination: The file.
            imports: Packages whose operators the file needs.
            tolerance: Instead of the format's own.

        Returns:
            The entry ``streaming`` of ``parity.json``.

        Raises:
            ExportError: If the file differs from the whole model, or from the step in Keras where
                the whole model has no answer (formats that are quantised: reported).
        """
        if exporter.stream is None:
            raise UserError(f"the format {exporter.name!r} cannot be streamed")
        answers, details = exporter.stream(
            destination,
            STEP,
            self.stream.pieces(self.values),
            {name: list(shape) for name, shape in self.stream.states.items()},
            self.stream.most_position,
            imports,
        )
        allowed = exporter.tolerance if tolerance is None else tolerance
        name, apart = _from_whole(self.stream, answers, self.whole, self.lengths)
        beyond = max(_relative(answers[key], value) for key, value in self.steps.items())
        passed = apart <= allowed and beyond <= allowed
        if exporter.strict and not passed:
            far = f"the whole model by {apart:.3g} of the scale of output {name!r}"
            if apart <= allowed:
                far = f"the step in Keras by {beyond:.3g} of an output's scale"
            raise ExportError(
                f"{exporter.name}: the stream of {STEP!r} differs from {far}, and {allowed:g} is "
                "allowed; nothing was exported"
            )
        return {
            "status": "passed" if passed else "missed",
            # JSON has no infinity.
            "relative_difference": apart if np.isfinite(apart) else None,
            "relative_difference_to_step": beyond if np.isfinite(beyond) else None,
            "tolerance": allowed,
            "sequences": len(self.lengths),
            "lengths": self.lengths.tolist(),
            "steps": int(next(iter(self.steps.values())).shape[1]),
            **details,
        }

    def describe(self) -> dict[str, Any]:
        """Returns the entry ``streaming`` of the whole report."""
        found = self.stream
        shapes = {name: list(shape) for name, shape in found.states.items()}
        return {
            "signature": STEP,
            "relative_difference": self.difference,
            "steps_of_a_call": found.patch,
            "window": found.window,
            "most_calls": found.most_steps,
            "counts": found.counts,
            "inputs": {
                name: {
                    "shape": list(found.step.input[name].shape),
                    "dtype": keras.backend.standardize_dtype(found.step.input[name].dtype),
                }
                for name in found.inputs
            },
            "outputs": list(found.outputs),
            "states": shapes,
            "state_bytes": int(sum(4 * np.prod(shape, dtype=int) for shape in shapes.values())),
        }


def plan_stream(
    model: keras.Model,
    samples: Samples,
    *,
    window: int | None = None,
    padded: Sequence[str] = ("tokens",),
    tolerance: float = 1e-5,
) -> StreamPlan:
    """Makes the step of a model, and checks that its steps add up to the whole.

    Args:
        model: As for `stream_model`.
        samples: Name of each input to real values, (N, T, ...).
        window: As for `stream_model`.
        padded: Inputs of token ids with 0 on the right.
        tolerance: Largest difference, relative to the scale of each output.

    Returns:
        The stream, and what proves it.

    Raises:
        UserError: As `stream_model`, or if no sample has two real steps.
        ExportError: If the steps do not add up to the whole.

    Example:
        >>> x = keras.Input((6, 3), name="series")
        >>> y = keras.layers.LSTM(4, return_sequences=True, name="lstm")(x)
        >>> model = keras.Model({"series": x}, {"y": y})
        >>> plan_stream(model, {"series": np.ones((2, 6, 3))}).difference < 1e-6
        True
    """
    signature = Signature(model)
    rows = signature.check(samples)
    found = stream_model(model, window=window)
    values, calls, lengths = _chosen(signature, rows, found, padded)
    answers = signature.answers(calls)
    whole = {
        name: np.concatenate([_filled(answer[name], lengths, name, found) for answer in answers])
        for name in found.outputs
    }
    steps = found.run(values)
    name, apart = _from_whole(found, steps, whole, lengths)
    if not apart <= tolerance:
        raise ExportError(
            f"the steps of the model {model.name!r} do not add up to the whole: they differ by "
            f"{apart:.2g} of the scale of {name!r}, and {tolerance:g} is allowed; a layer looks at "
            "later steps, or mixes steps and has no step of its own (see keras_seq.layers.steps)"
            + (f"; or the window of {found.window} steps is too short" if found.window else "")
        )
    return StreamPlan(found, values, lengths, whole, steps, apart)


def _chosen(
    signature: Signature, rows: Samples, found: Stream, padded: Sequence[str]
) -> tuple[Samples, list[Samples], np.ndarray]:
    """Sequences of real steps: what is streamed, what the whole model is asked, and the lengths."""
    total = next(iter(rows.values())).shape[1]
    count = len(next(iter(rows.values())))
    lengths = np.full(count, total)
    for name, value in rows.items():
        real = None
        if _is_mask(name, signature.inputs[name][1]):
            real = value
        elif name in padded and value.ndim == 2 and value.dtype.kind in "iu":
            real = value != 0
        if real is not None:
            # Up to the first step that is not there.
            lengths = np.minimum(lengths, np.where(real.all(axis=1), total, real.argmin(axis=1)))
    fixed = next(iter(signature.inputs.values()))[0][1] is not None
    most = _STEPS if not fixed else total
    if found.window is not None:
        most = min(most, found.window * found.patch)
    if found.most_steps is not None:
        most = min(most, found.most_steps * found.patch)
    if fixed and most < total and found.timed != frozenset(found.outputs):
        raise UserError(
            f"the window of {found.window} steps is shorter than the {total // found.patch} steps "
            f"that the model {signature.model.name!r} sees: give --window {total // found.patch} "
            "or more"
        )
    lengths = np.minimum(lengths, most) // found.patch
    best = np.argsort(-lengths, kind="stable")[:_ROWS]
    best = best[lengths[best] >= 2]
    if not len(best):
        raise UserError("no sample has two real steps: give longer samples to prove the stream")
    lengths = lengths[best]
    if not fixed:
        # An answer for a whole sequence is known at its end only: sequences of several lengths.
        shares = np.linspace(1.0, 1.0 / len(best), len(best))
        lengths = np.maximum(np.ceil(lengths * shares).astype(int), 2)
    longest = int(lengths.max())
    end = longest + min(found.window or longest, _BEYOND)
    if found.most_steps is not None:
        end = min(end, found.most_steps)
    values: Samples = {}
    for name in found.inputs:
        parts = [
            np.take(rows[name][i], np.arange(end * found.patch) % (n * found.patch), axis=0)
            for i, n in zip(best, lengths, strict=True)
        ]
        values[name] = np.stack(parts)
    calls = []
    for i, n in zip(best, lengths, strict=True):
        stop = total if fixed else int(n) * found.patch
        calls.append({name: value[i : i + 1, :stop] for name, value in rows.items()})
    return values, calls, lengths


def _filled(value: np.ndarray, lengths: np.ndarray, name: str, found: Stream) -> np.ndarray:
    """Brings the answers to sequences of several lengths to one."""
    if name not in found.timed:
        return value
    longest = int(lengths.max())
    missing = [(0, 0), (0, max(0, longest - value.shape[1])), *[(0, 0)] * (value.ndim - 2)]
    return np.pad(value, missing)[:, :longest]


def _from_whole(
    found: Stream, answers: Samples, whole: Samples, lengths: np.ndarray
) -> tuple[str, float]:
    """The output that is farthest from the whole model, and how far, by its scale."""
    worst = ("", -1.0)
    for name, expected in whole.items():
        if name in found.timed:
            there = np.arange(expected.shape[1])[None] < lengths[:, None]  # (N, calls)
            given, wanted = answers[name][:, : expected.shape[1]][there], expected[there]
        else:
            given, wanted = answers[name][np.arange(len(lengths)), lengths - 1], expected
        worst = max(worst, (name, _relative(given, wanted)), key=lambda entry: entry[1])
    return worst


def _relative(value: np.ndarray, expected: np.ndarray) -> float:
    if value.shape != expected.shape:
        raise ExportError(f"a stream gives the shape {value.shape}, and {expected.shape} is wanted")
    apart = float(distances(value, expected).max(initial=0.0))
    if expected.dtype.kind != "f":
        return apart
    finite = np.abs(expected[np.isfinite(expected)])
    return apart / max(float(finite.max(initial=0.0)), SCALE_FLOOR)
