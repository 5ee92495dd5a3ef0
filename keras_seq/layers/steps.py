"""One step of a layer that mixes steps: what it remembers, and how it goes on.

A layer offers a step by two methods. ``step_shapes(length)`` names what it has to remember, with
the shapes of one example; ``step(x, states, position)`` takes the features of one step (B, 1, D),
that memory and the position (B,), and returns what its call returns, for this step, and the
memory for the next. Keras's recurrent layers get theirs here.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

# What the states of Keras's recurrent layers are called.
_STATES = ("hidden", "cell")


def step_shapes(layer: Any, length: int) -> dict[str, tuple[int, ...]] | None:
    """Tells what a layer remembers from step to step.

    Args:
        layer: A built layer, or another operation of a functional model.
        length: Most steps that can be remembered.

    Returns:
        Name of each state to its shape without the batch; None for a layer without a step: it
        treats each step by itself, or it cannot be computed step by step.

    Raises:
        ValueError: If the layer sees what comes after a step, or knows fewer positions.

    Example:
        >>> layer = keras.layers.LSTM(4, return_sequences=True)
        >>> step_shapes(layer, 16), step_shapes(keras.layers.Dense(4), 16)
        ({'hidden': (4,), 'cell': (4,)}, None)
    """
    if isinstance(layer, keras.layers.Bidirectional):
        raise ValueError(f"{layer.name} reads from the end too: it has no step of its own")
    if isinstance(layer, keras.layers.RNN):
        if layer.go_backwards:
            raise ValueError(f"{layer.name} reads from the end: it has no step of its own")
        sizes = layer.cell.state_size
        sizes = sizes if isinstance(sizes, (list, tuple)) else [sizes]
        return {_state_name(i): (size,) for i, size in enumerate(sizes)}
    if hasattr(layer, "step") and hasattr(layer, "step_shapes"):
        return dict(layer.step_shapes(length))
    return None


def _state_name(index: int) -> str:
    return _STATES[index] if index < len(_STATES) else f"state_{index}"


@keras.saving.register_keras_serializable(package="keras_seq")
class Step(keras.layers.Layer):
    """One step of a layer, as a layer of its own that shares the weights.

    Padding is no step: there is no mask here.

    Args:
        layer: A built layer with a step, or one of Keras's recurrent layers.
        length: Most positions it can go through, for whom it concerns; None: any number.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: Features of one step, (B, 1, D).
        states: Name of each state to its value, (B, ...), as `step_shapes` says.
        position: Which step it is, counted from 0, (B,) int32.

    Returns:
        What the layer returns for that step, and the states for the next one.

    Example:
        >>> import numpy as np
        >>> layer = keras.layers.GRU(4, return_sequences=True)
        >>> x = np.ones((1, 2, 3), "float32")
        >>> whole, step = layer(x), Step(layer)
        >>> _, states = step(x[:, :1], {"hidden": np.zeros((1, 4), "float32")}, np.array([0]))
        >>> last, _ = step(x[:, 1:], states, np.array([1]))
        >>> np.allclose(last[:, 0], whole[:, 1], atol=1e-6)
        True
    """

    def __init__(self, layer: Any, *, length: int | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("name", f"{layer.name}_step")
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(**kwargs)
        self.layer = layer
        self.length = length
        self.built = layer.built

    def call(self, x: Any, states: dict[str, Any], position: Any) -> tuple[Any, dict[str, Any]]:
        """Goes one step on."""
        if isinstance(self.layer, keras.layers.RNN):
            before = [states[_state_name(i)] for i in range(len(states))]
            output, after = self.layer.cell(ops.squeeze(x, 1), before, training=False)
            after = after if isinstance(after, (list, tuple)) else [after]
            if self.layer.return_sequences:
                output = ops.expand_dims(output, 1)
            return output, {_state_name(i): state for i, state in enumerate(after)}
        return self.layer.step(x, states, position)

    def get_build_config(self) -> dict[str, Any]:
        """Returns what the layer inside was built with."""
        return {"layer": self.layer.get_build_config()}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Builds the layer inside."""
        if config["layer"] and not self.layer.built:
            self.layer.build_from_config(config["layer"])
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer, "length": self.length}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Step:
        """Makes the layer from its configuration."""
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})
