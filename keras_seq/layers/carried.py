"""States that are carried from batch to batch: stateful training of recurrent networks."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

# Slots for states, unless it is said otherwise.
SLOTS = 1024

_KINDS = (keras.layers.SimpleRNN, keras.layers.LSTM, keras.layers.GRU)


@keras.saving.register_keras_serializable(package="keras_seq")
class CarriedStates(keras.layers.Layer):
    """A recurrent layer that begins where an earlier batch ended.

    The last state of each row is kept in a weight that is not trained, in the slot that the data
    names, and is the first state of the row that names the same slot in a later batch. Gradients
    end at the border of a batch. As the data says where a row goes on and where it begins anew,
    training, validation in the midst of it and other uses do not meet if they name other slots,
    and a checkpoint of all weights is a checkpoint of the states too.

    Args:
        layer: One of Keras's recurrent layers that returns sequences. Its weights are shared.
        slots: How many states are kept.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: Features, (B, T, D).
        slots: Where the state of each row is kept, (B,) int32, no number twice.
        fresh: (B,) int32, 1 where a row begins with the state zero, 0 where it goes on.
        mask: (B, T) bool, True at real steps, or None; the state stays as it is at the others.

    Returns:
        What the recurrent layer returns, (B, T, units).

    Example:
        >>> import numpy as np
        >>> layer = keras.layers.GRU(4, return_sequences=True)
        >>> x = np.ones((1, 6, 3), "float32")
        >>> whole, carried = layer(x), CarriedStates(layer, slots=2)
        >>> first = carried(x[:, :4], np.array([1]), np.array([1]))
        >>> second = carried(x[:, 4:], np.array([1]), np.array([0]))
        >>> np.allclose(second, whole[:, 4:], atol=1e-6)
        True

    Reference:
        Mikolov et al. 2010, Recurrent Neural Network Based Language Model (truncated
        back-propagation through time, with the state carried on).
    """

    def __init__(self, layer: Any, *, slots: int = SLOTS, **kwargs: Any) -> None:
        if not isinstance(layer, _KINDS) or not layer.return_sequences or layer.go_backwards:
            raise ValueError(
                f"{layer.name} is not one of Keras's SimpleRNN, GRU and LSTM that reads forwards "
                "and returns sequences"
            )
        kwargs.setdefault("name", layer.name)
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(**kwargs)
        self.layer = layer
        self.slots = slots

    def build(
        self,
        x_shape: tuple[Any, ...],
        slots_shape: tuple[Any, ...] | None = None,
        fresh_shape: tuple[Any, ...] | None = None,
    ) -> None:
        """Makes the weights that keep the states, and those of the layer if it has none yet."""
        if not self.layer.built:
            self.layer.build(x_shape)
        sizes = self.layer.cell.state_size
        sizes = sizes if isinstance(sizes, (list, tuple)) else [sizes]
        self.kept = [
            self.add_weight(
                shape=(self.slots, size), initializer="zeros", trainable=False, name=f"kept_{i}"
            )
            for i, size in enumerate(sizes)
        ]

    def call(self, x: Any, slots: Any, fresh: Any, mask: Any = None, training: Any = None) -> Any:
        """Runs the layer on from the kept states, and keeps the new ones."""
        slots = ops.cast(slots, "int32")
        going_on = ops.expand_dims(ops.equal(fresh, 0), 1)  # (B, 1)
        before = [ops.take(kept, slots, axis=0) for kept in self.kept]
        # Not by a product: what is kept where nothing was written yet may be anything.
        before = [ops.where(going_on, state, ops.zeros_like(state)) for state in before]
        before = [ops.cast(state, self.compute_dtype) for state in before]
        # The layer belongs to a network that asks for sequences alone, too.
        self.layer.return_state = True
        try:
            result, *after = self.layer(x, initial_state=before, mask=mask, training=training)
        finally:
            self.layer.return_state = False
        for kept, state in zip(self.kept, after, strict=True):
            new = ops.cast(ops.stop_gradient(state), kept.dtype)
            kept.assign(ops.scatter_update(kept, ops.expand_dims(slots, 1), new))
        return result

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask; masks are handed over here."""
        return None

    def compute_output_shape(self, x_shape: tuple[Any, ...], *others: Any) -> tuple[Any, ...]:
        """Returns the shape of the sequences."""
        return (*x_shape[:2], self.layer.units)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer, "slots": self.slots}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CarriedStates:
        """Makes the layer from its configuration."""
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})


def can_carry(model: keras.Model) -> bool:
    """Tells whether `carry_states` finds recurrent layers in a model, all of them reading forwards.

    Args:
        model: Any model.

    Example:
        >>> x = keras.Input((None, 3))
        >>> can_carry(keras.Model(x, keras.layers.GRU(4, return_sequences=True)(x)))
        True
        >>> can_carry(keras.Model(x, keras.layers.Dense(4)(x)))
        False
    """
    recurrent = [layer for layer in model.layers if isinstance(layer, keras.layers.RNN)]
    both_ways = any(isinstance(layer, keras.layers.Bidirectional) for layer in model.layers)
    known = all(
        isinstance(layer, _KINDS) and layer.return_sequences and not layer.go_backwards
        for layer in recurrent
    )
    return bool(recurrent) and known and not both_ways


def carry_states(model: keras.Model, *, slots: int = SLOTS) -> keras.Model:
    """Makes a network with the same layers and weights that carries its states between batches.

    Args:
        model: A functional model with a dict of inputs, for which `can_carry` is true.
        slots: How many states are kept.

    Returns:
        A functional model with two more inputs, ``slots`` and ``fresh`` (B,) int32, see
        `CarriedStates`. It shares all weights with `model`.

    Raises:
        ValueError: If there is nothing in the model that could be carried.

    Example:
        >>> x = keras.Input((None, 3), name="x")
        >>> y = keras.layers.GRU(4, return_sequences=True)(x)
        >>> sorted(carry_states(keras.Model({"x": x}, y)).input)
        ['fresh', 'slots', 'x']
    """
    if not can_carry(model):
        raise ValueError(f"the model {model.name!r} has no recurrent layers that read forwards")
    where = {name: keras.Input((), name=name, dtype="int32") for name in ("slots", "fresh")}

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(layer, _KINDS):
            return layer(*args, **kwargs)
        carried = CarriedStates(layer, slots=slots)
        return carried(args[0], where["slots"], where["fresh"], mask=kwargs.get("mask"))

    # Cloning wants every tensor that the copy reads among the inputs, so the model gets some that
    # it does not use.
    wide = keras.Model({**model.input, **where}, model.output)
    inputs = {name: keras.Input(x.shape[1:], name=name, dtype=x.dtype) for name, x in
              model.input.items()}  # fmt: skip
    found = keras.models.clone_model(
        wide,
        input_tensors={**inputs, **where},
        clone_function=lambda layer: layer,
        call_function=call,
    )
    return keras.Model({**inputs, **where}, found.output, name=model.name)


def forget_states(model: keras.Model) -> keras.Model:
    """Makes the network that begins every batch with the state zero: undoes `carry_states`.

    Args:
        model: From `carry_states`; one without carried states is returned as it is.

    Returns:
        A functional model that shares all weights with `model`.

    Example:
        >>> x = keras.Input((None, 3), name="x")
        >>> y = keras.layers.GRU(4, return_sequences=True)(x)
        >>> sorted(forget_states(carry_states(keras.Model({"x": x}, y))).input)
        ['x']
    """
    if not any(isinstance(layer, CarriedStates) for layer in model.layers):
        return model

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(layer, CarriedStates):
            return layer(*args, **kwargs)
        return layer.layer(args[0], mask=kwargs.get("mask"))

    inputs = {
        name: keras.Input(x.shape[1:], name=name, dtype=x.dtype) for name, x in model.input.items()
    }
    found = keras.models.clone_model(
        model, input_tensors=inputs, clone_function=lambda layer: layer, call_function=call
    )
    kept = {name: x for name, x in inputs.items() if name not in ("slots", "fresh")}
    return keras.Model(kept, found.output, name=model.name)
