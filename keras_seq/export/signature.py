"""How an exporter sees a Keras model: named tensors in, named tensors out, no training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_seq.errors import UserError
from keras_seq.export.exporter import Endpoint, Samples
from keras_seq.export.fused_lstm import fused_loop
from keras_seq.export.workers import as_bytes


class Signature:
    """The named inputs and outputs of a functional or sequential model.

    Args:
        model: A built model. Dict inputs and outputs keep their keys; single tensors and lists
            take the names of their `Input` layers and output layers.

    Raises:
        UserError: If the model's inputs are not known, or nested deeper than one dict.

    Example:
        >>> x = keras.Input((4, 2), name="series")
        >>> model = keras.Model({"series": x}, {"mean": keras.ops.mean(x, axis=1)})
        >>> Signature(model).inputs
        {'series': ((None, 4, 2), 'float32')}
    """

    def __init__(self, model: keras.Model) -> None:
        if keras.backend.backend() != "tensorflow":
            raise UserError(
                f"export needs the TensorFlow backend, and Keras runs on "
                f"{keras.backend.backend()!r}: set KERAS_BACKEND=tensorflow, load the model there"
            )
        if not isinstance(model, keras.Model):
            raise UserError(f"export wants a keras.Model, and got a {type(model).__name__}")
        self.model = model
        sequential = isinstance(model, keras.Sequential)
        try:
            # A Sequential that was only built has no `.input`.
            given = model.inputs[0] if sequential else model.input
            results = model.outputs[0] if sequential else model.output
        except (AttributeError, TypeError, ValueError, IndexError) as error:
            raise UserError(
                f"the model {model.name!r} has no known inputs: build it as a functional model, "
                "keras.Model({'series': x}, {'forecast': y})"
            ) from error
        self._given = given
        tensors = _named(given, [getattr(t, "name", "input") for t in _flat(given)])
        self.inputs: dict[str, tuple[tuple[int | None, ...], str]] = {
            name: (tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype))
            for name, tensor in tensors.items()
        }
        names = ["output"] if sequential else list(model.output_names)
        self._outputs = names
        self.outputs: dict[str, tuple[tuple[int | None, ...], str]] = {
            name: (tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype))
            for name, tensor in _named(results, names).items()
        }

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Calls the model on named tensors, without training, and names what comes out."""
        if isinstance(self._given, dict):
            given: Any = dict(inputs)
        elif isinstance(self._given, (list, tuple)):
            given = [inputs[name] for name in self.inputs]
        else:
            given = next(iter(inputs.values()))
        return _named(self.model(given, training=False), self._outputs)

    def specs(self, batch: int | None, samples: Samples | None = None) -> dict[str, tf.TensorSpec]:
        """Returns the tensor specifications of the inputs.

        Args:
            batch: Fixed batch size, or None for any.
            samples: If given, sizes that the model leaves open are taken from here.
        """
        return {
            name: tf.TensorSpec(
                (batch, *(samples[name].shape[1:] if samples else shape[1:])), dtype, name=name
            )
            for name, (shape, dtype) in self.inputs.items()
        }

    def check(self, samples: Samples) -> Samples:
        """Checks samples against the inputs and gives them the inputs' types.

        Args:
            samples: Name of each input to real values, (N, ...).

        Returns:
            The samples, in the order of the model's inputs.

        Raises:
            UserError: If a name is missing or unknown, or a shape or type does not fit.
        """
        if set(samples) != set(self.inputs):
            raise UserError(
                f"samples have the names {sorted(samples)} and the model takes "
                f"{sorted(self.inputs)}: give one array for each input"
            )
        checked: Samples = {}
        for name, (shape, dtype) in self.inputs.items():
            value = np.asarray(samples[name])
            fits = value.ndim == len(shape) and all(
                wanted in (None, size) for wanted, size in zip(shape, value.shape, strict=False)
            )
            if not fits or len(value) == 0:
                wanted = ", ".join("any" if size is None else str(size) for size in shape)
                raise UserError(
                    f"samples[{name!r}] has shape {value.shape} and the model takes ({wanted}): "
                    "give at least one sample, batch axis first"
                )
            if dtype == "string":
                checked[name] = as_bytes(samples[name])
            elif value.dtype.kind not in "bfiu":
                raise UserError(f"samples[{name!r}] has type {value.dtype}, and {dtype} is wanted")
            else:
                checked[name] = value.astype(dtype)
        counts = {name: len(value) for name, value in checked.items()}
        if len(set(counts.values())) > 1:
            raise UserError(f"samples differ in their number of rows: {counts}")
        return checked

    def reference(self, samples: Samples, batch: int = 64) -> dict[str, np.ndarray]:
        """Computes what the Keras model itself answers; every artifact is compared with this.

        Args:
            samples: Checked samples, (N, ...).
            batch: Rows at a time.

        Returns:
            Name of each output to its values, (N, ...).
        """
        function = tf.function(self.call, autograph=False)
        count = len(next(iter(samples.values())))
        parts = []
        # On a GPU float32 may mean TF32 (10-bit mantissa); the reference must not be the rough one.
        with inference_form(self.model), tf.device("/CPU:0"):
            # One concrete function: TensorFlow warns of retracing when many models pass by.
            concrete = function.get_concrete_function(self.specs(None, samples))
            for start in range(0, count, batch):
                rows = {k: tf.constant(v[start : start + batch]) for k, v in samples.items()}
                parts.append({name: value.numpy() for name, value in concrete(rows).items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def answers(self, calls: Sequence[Samples]) -> list[Samples]:
        """Computes what the Keras model answers to inputs of different sizes.

        Args:
            calls: Inputs of each call; sizes that the model leaves open may differ.

        Returns:
            Outputs of each call.
        """
        function = tf.function(self.call, autograph=False)
        with inference_form(self.model), tf.device("/CPU:0"):
            concrete = function.get_concrete_function(self.specs(None))
            return [
                {
                    name: value.numpy()
                    for name, value in concrete(
                        {name: tf.constant(value) for name, value in call.items()}
                    ).items()
                }
                for call in calls
            ]


def endpoint_specs(endpoint: Endpoint, batch: int | None) -> dict[str, tf.TensorSpec]:
    """Returns the tensor specifications of an endpoint's inputs, with the batch filled in."""
    batch = None if endpoint.open_rows else batch
    return {
        name: tf.TensorSpec(
            (batch if shape[0] is None else shape[0], *shape[1:]) if shape else (), dtype, name=name
        )
        for name, (shape, dtype) in endpoint.inputs.items()
    }


def resources(endpoints: Sequence[Endpoint]) -> list[Any]:
    """Lists what a SavedModel has to carry for its endpoints beside the variables."""
    found: dict[int, Any] = {}
    for endpoint in endpoints:
        for item in endpoint.tracked:
            if isinstance(item, keras.layers.Layer):
                # Not the layer itself: that would trace it once more (see `write_saved_model`).
                inside = [
                    value
                    for layer in all_layers(item)
                    for value in vars(layer).values()
                    if isinstance(value, tf.Module | _RESOURCE)
                    and not isinstance(value, keras.layers.Layer)
                ]
            elif isinstance(item, keras.Variable | tf.Variable):
                inside = []  # variables are found through the endpoint
            else:
                inside = [item]
            found |= {id(each): each for each in inside}
    return list(found.values())


_RESOURCE = tf.saved_model.experimental.TrackableResource


@contextlib.contextmanager
def inference_form(
    model: keras.Model, *, unroll: bool | None = None, fuse: bool = False
) -> Iterator[None]:
    """Sets recurrent layers up for export and puts everything back afterwards.

    cuDNN kernels are switched off, because a graph traced with them runs on NVIDIA only.

    Args:
        model: The model; nested layers are found too.
        unroll: If given, also sets `unroll`. The int8 converter crashes on loops, so there the
            steps of time must stand in the graph one by one.
        fuse: Whether LSTM layers take the form that LiteRT has one operator for, where they can.

    Yields:
        Nothing.
    """
    changed: list[tuple[Any, str, Any]] = []
    fused: list[Any] = []
    try:
        for layer in all_layers(model):
            loop = fused_loop(layer) if fuse else None
            if loop is not None:
                layer.inner_loop = loop
                fused.append(layer)
            wanted: dict[str, Any] = {"use_cudnn": False}
            if unroll is not None:
                wanted["unroll"] = unroll
                # Keras 3.15 zeroes the unrolled outputs of a layer that reads backwards by the mask
                # in forward order (`Bidirectional` asks for the zeros). Without it padding on the
                # right still gives zeros, because the backward layer has seen nothing there.
                if unroll and getattr(layer, "go_backwards", False):
                    wanted["zero_output_for_mask"] = False
            for attribute, value in wanted.items():
                before = getattr(layer, attribute, None)
                if (isinstance(before, bool) or before == "auto") and before is not value:
                    setattr(layer, attribute, value)
                    changed.append((layer, attribute, before))
        yield
    finally:
        for layer, attribute, before in reversed(changed):
            setattr(layer, attribute, before)
        for layer in fused:
            del layer.inner_loop  # what its class says shows again


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Lists a model's layers, and the layers inside those (wrappers, composites, sub-models).

    Example:
        >>> both = keras.layers.Bidirectional(keras.layers.GRU(2))
        >>> [type(layer).__name__ for layer in all_layers(keras.Sequential([both]))].count("GRU")
        2
    """
    found: dict[int, keras.layers.Layer] = {}
    visited: set[int] = set()
    stack: list[Any] = [model]
    while stack:
        item = stack.pop()
        if id(item) in visited:
            continue
        visited.add(id(item))
        if isinstance(item, keras.layers.Layer):
            found[id(item)] = item
            # Keras has no public list of nested layers; attributes are how layers hold layers.
            stack.extend(vars(item).values())
            stack.extend(getattr(item, "layers", ()))
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)
    return list(found.values())


def lookup_tables(model: keras.Model) -> list[Any]:
    """Lists the tables (of vocabularies) that a SavedModel has to carry beside the variables."""
    return [
        value
        for layer in all_layers(model)
        for value in vars(layer).values()
        if isinstance(value, _RESOURCE)
    ]


def _flat(structure: Any) -> list[Any]:
    if isinstance(structure, dict):
        return list(structure.values())
    return list(structure) if isinstance(structure, (list, tuple)) else [structure]


def _named(structure: Any, names: list[str]) -> dict[str, Any]:
    if isinstance(structure, dict):
        named = dict(structure)
    else:
        named = dict(zip(names, _flat(structure), strict=False))
    if any(isinstance(value, (dict, list, tuple)) for value in named.values()):
        raise UserError("inputs and outputs must be one dict of tensors, not nested deeper")
    return named
