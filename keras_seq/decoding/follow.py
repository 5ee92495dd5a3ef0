"""The step of a model and, for encoder-decoders, what comes before it: one graph, followed again.

A functional model is written once, for training: all steps of time in one call. Here its graph is
followed once more with one step of time. Layers that mix steps take their own step (see
`keras_seq.layers.steps`), all others are called as they are. What depends on the source alone is
cut off at the layers with the attribute ``once``, the names of their outputs, and is computed
before the first step.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_seq.errors import UserError
from keras_seq.layers.steps import Step, search_shapes, step_shapes

# Arguments of a layer that say which steps of its own sequence are real: in a step all are.
_OWN_MASKS = ("mask", "target_mask", "training")


@dataclass(frozen=True, eq=False)
class Followed:
    """A model in two parts.

    Args:
        encode: From ``source`` to what the steps take from it, by name; None without a source.
        step: One step; see `keras_seq.decoding.step_model`.
        states: Name of each state to whether it is put in order when hypotheses change.
        starts: Name of a state to that output of `encode` which is its first value; the others
            begin as zeros.
    """

    encode: keras.Model | None
    step: keras.Model
    states: Mapping[str, bool]
    starts: Mapping[str, str]


def follow(
    model: keras.Model, length: int, hypotheses: int | None = None, *, update: str = "choice"
) -> Followed:
    """Follows a model's graph with one step of time.

    Args:
        model: A functional model from ``tokens`` (B, T), and perhaps ``source`` (B, S), to
            ``logits`` (B, T, V).
        length: Most positions to remember.
        hypotheses: How many hypotheses of each example go side by side, K; None: one, without
            an axis for it.
        update: How memories are written to, one of `keras_seq.layers.steps.UPDATES`.

    Returns:
        The two parts, not checked.

    Raises:
        UserError: If a layer has no step, or the decoder takes something of the source that does
            not pass a layer with the attribute ``once``.
    """
    return _Follower(model, length, hypotheses, update).run()


class _Follower:
    def __init__(
        self, model: keras.Model, length: int, hypotheses: int | None, update: str
    ) -> None:
        self.update = update
        self.model = model
        self.length = length
        self.hypotheses = hypotheses
        count = hypotheses or 1
        self.tokens = keras.Input((count,), name="tokens", dtype="int32")
        self.position = keras.Input((), name="position", dtype="int32")
        self.ancestry = None
        if count > 1:
            self.ancestry = keras.Input((count, length), name="ancestry", dtype="int32")
        # What the steps take from the encoder: tensors by name, and their names by identity.
        self.memory: dict[str, Any] = {}
        self.memory_names: dict[int, str] = {}
        self.memory_of: dict[str, Any] = {}  # of each layer that is computed once
        self.read: set[str] = set()
        self.inputs: dict[str, dict[str, Any]] = {}  # states of each layer with a step
        self.ordered: dict[str, bool] = {}
        self.outputs: dict[str, Any] = {}
        self.starts: dict[str, str] = {}
        self.alignments: list[Any] = []
        self.called: set[str] = set()

    def run(self) -> Followed:
        encode_input: Any = None
        encoded: dict[str, Any] = {}
        late: set[str] | None = None
        if "source" in self.model.input:
            encode_input, encoded, late = self._cut()
        self._find_states(late)
        states = {f"{name}_{key}": x for name, of in self.inputs.items() for key, x in of.items()}
        given = {
            key: keras.Input(x.shape[1:], name=key, dtype=x.dtype)
            for key, x in self.model.input.items()
            if key != "tokens"
        }
        more = {"position": self.position, **states, **self.memory}
        if self.ancestry is not None:
            more["ancestry"] = self.ancestry
        stepped = _clone(self.model, {"tokens": self.tokens, **given}, more, self._call)
        logits = stepped["logits"]
        if self.hypotheses is None:
            logits = keras.layers.Flatten(name="step_logits")(logits)
        found = {"logits": logits, **self.outputs}
        if self.alignments:
            found["alignment"] = _Mean(name="mean_alignment")(self.alignments)
        given.pop("source", None)
        read = {name: x for name, x in self.memory.items() if name in self.read}
        inputs = {"tokens": self.tokens, "position": self.position, **states, **read, **given}
        if self.ancestry is not None:
            inputs["ancestry"] = self.ancestry
        try:
            step = keras.Model(inputs, found, name=f"{self.model.name}_step")
        except ValueError as error:
            raise UserError(
                f"the decoder of {self.model.name!r} takes something of the source that is not "
                "marked as computed once: pass it through keras_seq.layers.EncoderOutput "
                f"({error})"
            ) from None
        encode = None
        if encode_input is not None:
            kept = {k: v for k, v in encoded.items() if k in read or k in self.starts.values()}
            encode = keras.Model({"source": encode_input}, kept, name=f"{self.model.name}_encode")
        return Followed(encode, step, self.ordered, self.starts)

    def _cut(self) -> tuple[Any, dict[str, Any], set[str]]:
        """Finds what depends on the source alone: the encoder's input, its outputs, the rest."""
        source = self.model.input["source"]
        start = keras.Input(source.shape[1:], name="source", dtype=source.dtype)
        own = self.model.input["tokens"]
        tokens = keras.Input(own.shape[1:], name="tokens", dtype=own.dtype)
        reached = {id(tokens): tokens}  # what depends on the target; kept, so that ids stay
        late: set[str] = set()
        encoded: dict[str, Any] = {}

        def watch(layer: Any, *args: Any, **kwargs: Any) -> Any:
            result = layer(*args, **kwargs)
            if any(id(x) in reached for x in _tensors((args, kwargs))):
                reached.update({id(x): x for x in _tensors(result)})
                late.add(layer.name)
            elif getattr(layer, "once", False):
                parts = [f"{layer.name}_{part}" for part in layer.once]
                for name, x in zip(parts, _tensors(result), strict=True):
                    encoded[name] = x
                    self.memory[name] = keras.Input(x.shape[1:], name=name, dtype=x.dtype)
                    self.memory_names[id(self.memory[name])] = name
                made = [self.memory[name] for name in parts]
                self.memory_of[layer.name] = tuple(made) if isinstance(result, tuple) else made[0]
            return result

        _clone(self.model, {"tokens": tokens, "source": start}, {}, watch)
        return start, encoded, late

    def _find_states(self, late: set[str] | None) -> None:
        for layer in self.model.layers:
            if late is not None and layer.name not in late:
                continue
            try:
                if self.hypotheses is None:
                    plain = step_shapes(layer, self.length)
                    shapes = None if plain is None else {k: (v, True) for k, v in plain.items()}
                else:
                    shapes = search_shapes(layer, self.length, self.hypotheses)
            except ValueError as error:
                raise UserError(f"the model {self.model.name!r} cannot write on: {error}") from None
            if shapes is not None:
                self.inputs[layer.name] = {
                    key: keras.Input(shape, name=f"{layer.name}_{key}", dtype=layer.compute_dtype)
                    for key, (shape, _) in shapes.items()
                }
                self.ordered |= {f"{layer.name}_{k}": order for k, (_, order) in shapes.items()}

    def _call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """What a layer of the model becomes in the step."""
        if layer.name in self.memory_of:
            return self.memory_of[layer.name]
        others = kwargs
        if layer.name in self.inputs:
            others = dict(inspect.signature(layer.call).bind_partial(*args, **kwargs).arguments)
            others |= others.pop("kwargs", {})
            x = others.pop(next(iter(inspect.signature(layer.call).parameters)))
            first = others.pop("initial_state", None)
            takes = () if isinstance(layer, keras.layers.RNN) else _parameters(layer.step)
            others = {k: v for k, v in others.items() if v is not None}
            given = {k: v for k, v in others.items() if k in takes}
            if not set(others) - set(given) - set(_OWN_MASKS):
                self._note_read(given)
                return self._step(layer, x, first, given)
        self._note_read((args, kwargs))
        result = layer(*args, **kwargs)
        self._note_alignment(layer, result)
        return result

    def _step(self, layer: Any, x: Any, first: Any, given: dict[str, Any]) -> Any:
        if layer.name in self.called:
            raise UserError(
                f"the model {self.model.name!r} cannot write on step by step: it calls the layer "
                f"{layer.name!r} twice"
            )
        self.called.add(layer.name)
        if first is not None:
            first = first if isinstance(first, (list, tuple)) else [first]
            for key, tensor in zip(self.inputs[layer.name], first, strict=False):
                if id(tensor) not in self.memory_names:
                    raise UserError(
                        f"the first state of {layer.name!r} is not marked as computed once: pass "
                        "it through keras_seq.layers.EncoderOutput"
                    )
                self.starts[f"{layer.name}_{key}"] = self.memory_names[id(tensor)]
        # A recurrent layer goes on for ever; what is kept of each position has an end.
        bound = None if isinstance(layer, keras.layers.RNN) else self.length
        step = Step(layer, length=bound, search=self.hypotheses is not None, update=self.update)
        result, states = step(
            x, self.inputs[layer.name], self.position, ancestry=self.ancestry, given=given or None
        )
        self.outputs.update({f"{layer.name}_{key}": value for key, value in states.items()})
        self._note_alignment(layer, result)
        return result

    def _note_read(self, used: Any) -> None:
        names = (self.memory_names.get(id(x)) for x in _tensors(used))
        self.read.update(name for name in names if name is not None)

    def _note_alignment(self, layer: Any, result: Any) -> None:
        if layer.name.startswith("alignment") and isinstance(result, (tuple, list)):
            self.alignments.append(result[1])  # (B, K, S) or (B, heads, K, S)


class _Mean(keras.layers.Layer):
    """The mean of alignments over their heads and layers.

    A layer with a name, for Keras numbers operations, and a number may be taken in the model that
    is followed.
    """

    def call(self, alignments: list[Any]) -> Any:
        parts = [ops.mean(x, 1) if len(x.shape) == 4 else x for x in alignments]
        return sum(parts[1:], parts[0]) / float(len(parts))


def _parameters(function: Any) -> Iterable[str]:
    return inspect.signature(function).parameters


def _tensors(structure: Any) -> list[Any]:
    return [x for x in keras.tree.flatten(structure) if keras.backend.is_keras_tensor(x)]


def _clone(model: keras.Model, inputs: dict[str, Any], more: dict[str, Any], call: Any) -> Any:
    """The outputs of a model on other inputs, where `call` is called in place of each layer."""
    # Cloning wants every tensor that the copy reads among the inputs, so the model gets some that
    # it does not use.
    wide = keras.Model({**model.input, **more}, model.output)
    copied = keras.models.clone_model(
        wide,
        input_tensors={**inputs, **more},
        clone_function=lambda layer: layer,
        call_function=call,
    )
    return copied.output
