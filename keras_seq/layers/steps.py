"""One step of a layer that mixes steps: what it remembers, and how it goes on.

A layer offers a step by two methods. ``step_shapes(length)`` names what it has to remember, with
the shapes of one example; ``step(x, states, position)`` takes the features of one step (B, 1, D),
that memory and the position (B,), and returns what its call returns, for this step, and the
memory for the next. Keras's recurrent layers and causal convolutions get theirs here.

A search follows K hypotheses of each example, at one position: then the features of a step are
(B, K, D), and a state is (B, K, ...). A layer whose step takes that has the class attribute
``hypotheses``; for the others K B rows are made of it here. Where ``step_shapes`` takes the number
of hypotheses too, as self-attention's does, its states hold all of them side by side and stay in
place when hypotheses are dropped and doubled, which a search does at every step: ``ancestry``,
(B, K, L), tells then whose entry at each position is that of hypothesis k.
"""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

# What the states of Keras's recurrent layers are called.
_STATES = ("hidden", "cell")

#: How a step writes into a memory of all positions. "choice" chooses at each position, as every
#: converter knows it; "in_place" writes where the memory stands, in a loop of TensorFlow; "slice"
#: is for a loop that XLA compiles, and needs all rows at one position. "window" is for a stream
#: without an end: the memory is that of the last steps, and what is older falls out. Only layers
#: with the attribute ``slides`` know it.
UPDATES = ("choice", "in_place", "slice", "window")

_UPDATE: ContextVar[str] = ContextVar("update", default="choice")


def update() -> str:
    """Tells how the step that is being computed writes into its states, one of `UPDATES`.

    Example:
        >>> update()
        'choice'
    """
    return _UPDATE.get()


def write_at(state: Any, new: Any, position: Any) -> Any:
    """Puts what one step leaves into the memory of all steps.

    By default it is a choice at every position, which every converter knows, and which costs a
    pass over the whole memory. Within a `Step` that is told so it is cheaper, see `UPDATES`. In
    place, the state that came in is the same as the one that goes out: do not use it again.

    Args:
        state: (B, H, L, W).
        new: (B, H, 1, W), of the state's type.
        position: (B,) int32, which of the L it is, for each row.

    Returns:
        The state with it.

    Example:
        >>> import numpy as np
        >>> new = np.ones((1, 1, 1, 2), "float32")
        >>> np.asarray(write_at(np.zeros((1, 1, 3, 2), "float32"), new, np.array([1]))).tolist()
        [[[[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]]]
    """
    position = ops.cast(position, "int32")
    if update() == "slice":
        return ops.slice_update(state, (0, 0, position[0], 0), new)
    if update() == "choice" or keras.backend.backend() != "tensorflow":
        place = ops.arange(state.shape[2], dtype="int32")[None, None, :, None]
        return ops.where(ops.equal(place, position[:, None, None, None]), new, state)
    import tensorflow as tf

    # An update by scatter copies the memory in TensorFlow's loops, 10 times the work of a step.
    _, heads, length, width = state.shape
    first = ops.arange(ops.shape(state)[0] * heads, dtype="int32") * length
    rows = tf.raw_ops.InplaceUpdate(
        x=ops.reshape(state, (-1, width)),
        i=first + ops.repeat(position, heads),
        v=ops.reshape(new, (-1, width)),
    )
    return ops.reshape(rows, (-1, heads, length, width))


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
    if _is_causal_convolution(layer):
        return past_shapes(layer)
    return None


def _is_causal_convolution(layer: Any) -> bool:
    if not isinstance(layer, keras.layers.Conv1D) or layer.padding != "causal":
        return False
    return layer.data_format == "channels_last" and tuple(layer.strides) == (1,)


def past_shapes(convolution: Any) -> dict[str, tuple[int, ...]]:
    """Tells what a causal convolution remembers: the inputs that its next kernel sees.

    Args:
        convolution: A built `keras.layers.Conv1D`.

    Returns:
        ``past``: ((kernel size - 1) * dilation, D); nothing where a kernel has one step.

    Example:
        >>> layer = keras.layers.Conv1D(4, 3, padding="causal", dilation_rate=2)
        >>> layer.build((None, None, 5))
        >>> past_shapes(layer)
        {'past': (4, 5)}
    """
    size = (convolution.kernel_size[0] - 1) * convolution.dilation_rate[0]
    features = convolution.kernel.shape[1] * convolution.groups
    return {"past": (size, features)} if size else {}


def convolve_step(convolution: Any, x: Any, states: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Computes one step of a causal convolution.

    Args:
        convolution: A built `keras.layers.Conv1D` with causal padding.
        x: Features of that step, (B, 1, D).
        states: As `past_shapes` says, the latest input last; zeros before the first step.

    Returns:
        The output (B, 1, W), and the state for the next step.

    Example:
        >>> import numpy as np
        >>> layer = keras.layers.Conv1D(1, 2, padding="causal", dilation_rate=2)
        >>> x = np.arange(4, dtype="float32").reshape(1, 4, 1)
        >>> whole = layer(x)
        >>> last, _ = convolve_step(layer, x[:, 3:], {"past": x[:, 1:3]})
        >>> np.allclose(last[:, 0], whole[:, 3], atol=1e-6)
        True
    """
    x = ops.cast(x, convolution.compute_dtype)
    after: dict[str, Any] = {}
    if states:
        seen = ops.concatenate([ops.cast(states["past"], x.dtype), x], axis=1)
        after = {"past": seen[:, 1:]}
        x = seen[:, :: convolution.dilation_rate[0]]  # (B, kernel size, D)
    kernel = ops.cast(ops.convert_to_tensor(convolution.kernel), x.dtype)
    if convolution.groups > 1:
        y = ops.conv(x, kernel, padding="valid", data_format="channels_last")
    else:
        size = kernel.shape[0] * kernel.shape[1]
        flat = ops.reshape(x, (-1, 1, size))
        y = ops.matmul(flat, ops.reshape(kernel, (size, kernel.shape[2])))
    if convolution.use_bias:
        y = y + ops.cast(ops.convert_to_tensor(convolution.bias), y.dtype)
    return (y if convolution.activation is None else convolution.activation(y)), after


def search_shapes(
    layer: Any, length: int, hypotheses: int
) -> dict[str, tuple[tuple[Any, ...], bool]] | None:
    """Tells what a layer remembers from step to step of a search.

    Args:
        layer: As for `step_shapes`.
        length: As for `step_shapes`.
        hypotheses: How many are followed of each example, K.

    Returns:
        Name of each state to its shape without the batch, and whether its second axis is that of
        the hypotheses, so that it is put in order when they change; None as `step_shapes`.

    Raises:
        ValueError: As `step_shapes`.

    Example:
        >>> layer = keras.layers.GRU(4, return_sequences=True)
        >>> search_shapes(layer, 16, hypotheses=3)
        {'hidden': ((3, 4), True)}
    """
    if _in_place(layer):
        shapes = layer.step_shapes(length, hypotheses)
        return {name: (tuple(shape), False) for name, shape in shapes.items()}
    found = step_shapes(layer, length)
    if found is None:
        return None
    return {name: ((hypotheses, *shape), True) for name, shape in found.items()}


def _in_place(layer: Any) -> bool:
    """Whether a layer's states stay where they are when hypotheses change."""
    if isinstance(layer, keras.layers.RNN) or not hasattr(layer, "step_shapes"):
        return False
    return "hypotheses" in inspect.signature(layer.step_shapes).parameters


def _state_name(index: int) -> str:
    return _STATES[index] if index < len(_STATES) else f"state_{index}"


@keras.saving.register_keras_serializable(package="keras_seq")
class Step(keras.layers.Layer):
    """One step of a layer, as a layer of its own that shares the weights.

    Padding is no step: there is no mask here.

    Args:
        layer: A built layer with a step, or one of Keras's recurrent layers or causal convolutions.
        length: Most positions it can go through, for whom it concerns; None: any number.
        search: Whether x and the states have an axis of hypotheses.
        update: How memories of all positions are written to, one of `UPDATES`. Default
            ``"choice"``.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: Features of one step, (B, 1, D); in a search (B, K, D).
        states: Name of each state to its value, (B, ...), as `step_shapes` says.
        position: Which step it is, counted from 0, (B,) int32.
        ancestry: In a search of more than one hypothesis, (B, K, L) int32, see above.
        given: What else the layer's step takes by name, such as a source's keys; or None.

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

    def __init__(
        self,
        layer: Any,
        *,
        length: int | None = None,
        search: bool = False,
        update: str = "choice",
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("name", f"{layer.name}_step")
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(**kwargs)
        self.layer = layer
        self.length = length
        self.search = search
        self.update = update
        self.built = layer.built

    def call(
        self,
        x: Any,
        states: dict[str, Any],
        position: Any,
        ancestry: Any = None,
        given: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Goes one step on."""
        before = _UPDATE.set(self.update)
        try:
            return self._go_on(x, states, position, ancestry, given or {})
        finally:
            _UPDATE.reset(before)

    def _go_on(
        self, x: Any, states: dict[str, Any], position: Any, ancestry: Any, given: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        if not self.search:
            return self._one(x, states, position, **given)
        if _in_place(self.layer):
            return self.layer.step(x, states, position, ancestry=ancestry, **given)
        if getattr(self.layer, "hypotheses", False):
            return self._one(x, states, position, **given)
        count = x.shape[1]
        rows = {name: _fold(state) for name, state in states.items()}
        result, rows = self._one(
            ops.expand_dims(_fold(x), 1), rows, ops.repeat(position, count, axis=0), **given
        )
        result = keras.tree.map_structure(lambda part: _unfold(part, count), result)
        states = {name: _unfold(state, count, step=False) for name, state in rows.items()}
        return result, states

    def _one(
        self, x: Any, states: dict[str, Any], position: Any, **given: Any
    ) -> tuple[Any, dict[str, Any]]:
        """A step of rows that know nothing of each other."""
        if isinstance(self.layer, keras.layers.RNN):
            before = [states[_state_name(i)] for i in range(len(states))]
            output, after = self.layer.cell(ops.squeeze(x, 1), before, training=False)
            after = after if isinstance(after, (list, tuple)) else [after]
            if self.layer.return_sequences:
                output = ops.expand_dims(output, 1)
            return output, {_state_name(i): state for i, state in enumerate(after)}
        if _is_causal_convolution(self.layer):
            return convolve_step(self.layer, x, states)
        return self.layer.step(x, states, position, **given)

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
        own = {"layer": layer, "length": self.length, "search": self.search}
        return {**super().get_config(), **own, "update": self.update}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Step:
        """Makes the layer from its configuration."""
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})


def _fold(x: Any) -> Any:
    """(B, K, ...) -> (B K, ...)."""
    return ops.reshape(x, (-1, *x.shape[2:]))


def _unfold(x: Any, count: int, *, step: bool = True) -> Any:
    """(B K, 1, ...) -> (B, K, ...); a state has no axis of time."""
    return ops.reshape(x, (-1, count, *x.shape[2 if step else 1 :]))
