"""The step of a model: one position in, what comes next out, and what to remember."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_seq.decoding.follow import follow
from keras_seq.errors import UserError
from keras_seq.layers.steps import Step

StepFunction = Callable[[Any, dict[str, Any], Any], tuple[Any, dict[str, Any]]]

# What a model with an open length remembers, where nothing is said.
OPEN_LENGTH = 256


@dataclass(frozen=True, eq=False)
class Stepper:
    """One step of a model, and what it starts from.

    Args:
        step: ``(tokens (B,) int32, states, position (B,) int32) -> (logits (B, V), states)``, in
            TensorFlow operations. The states are a dict of tensors, batch first, so that a search
            can reorder them.
        states: Name of each state to its shape without the batch and its type.
        context: Most positions that the model can see; None: any number.

    Example:
        >>> from keras_seq.decoding import generate
        >>> def count(tokens, states, position):  # after n comes n + 1
        ...     return tf.one_hot(tokens + 1, 8), states
        >>> generate(Stepper(count, {}, None), [[5]], length=2, end=None).tolist()
        [[5, 6, 7]]
    """

    step: StepFunction
    states: Mapping[str, tuple[tuple[int, ...], str]]
    context: int | None
    # The loops traced so far, by their settings: tracing costs more than a short text.
    traced: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def start(self, batch: int) -> dict[str, tf.Tensor]:
        """Returns the states before the first token: zeros.

        Args:
            batch: Number of rows.
        """
        return {k: tf.zeros((batch, *shape), dtype) for k, (shape, dtype) in self.states.items()}


def stepper(model: keras.Model, *, length: int | None = None) -> Stepper:
    """Makes what `generate` and `stream` go on: the step of a model, with its memory.

    Args:
        model: As for `step_model`, or what `step_model` returned.
        length: As for `step_model`.

    Returns:
        The step and its states. Recurrent models see any number of positions.

    Raises:
        UserError: As `step_model`.

    Example:
        >>> import keras_seq
        >>> from keras_seq.heads import NextToken, Tokens
        >>> head = NextToken(Tokens(vocabulary=20, width=8))
        >>> model = keras_seq.build("gru", inputs={"tokens": (None,)}, head=head, width=8)
        >>> stepper(model).states, stepper(model).context
        ({'gru_0_hidden': ((8,), 'float32')}, None)
    """
    if "position" not in model.input:
        model = step_model(model, length=length)
    states = {
        name: (tuple(tensor.shape[1:]), keras.backend.standardize_dtype(tensor.dtype))
        for name, tensor in model.input.items()
        if name not in ("tokens", "position")
    }
    lengths = [layer.length for layer in model.layers if isinstance(layer, Step) and layer.length]

    def step(tokens: Any, states: dict[str, Any], position: Any) -> tuple[Any, dict[str, Any]]:
        outputs = dict(model({"tokens": tokens[:, None], "position": position, **states}))
        return outputs.pop("logits"), outputs

    return Stepper(step, states, min(lengths, default=None))


def whole_stepper(model: keras.Model, *, length: int | None = None) -> Stepper:
    """Makes a step of any causal model by running the whole of it for each token.

    It remembers nothing but the tokens: slow, and the measure of what `stepper` must give. It is
    also the way to write on with a model whose layers have no step.

    Args:
        model: As for `step_model`; its layers need no step.
        length: Most positions; None: the model's own T, or 256 where T is open.

    Returns:
        The step and its states.

    Raises:
        UserError: If the model does not go from ``tokens`` to ``logits`` for each of them.

    Example:
        >>> import keras_seq
        >>> from keras_seq.heads import NextToken, Tokens
        >>> head = NextToken(Tokens(vocabulary=20, width=8))
        >>> model = keras_seq.build("tcn", inputs={"tokens": (16,)}, head=head, width=8)
        >>> whole_stepper(model).context
        16
    """
    length = _length(model, length)

    def step(tokens: Any, states: dict[str, Any], position: Any) -> tuple[Any, dict[str, Any]]:
        here = tf.range(length)[None] == position[:, None]  # (B, L)
        text = tf.where(here, tokens[:, None], states["text"])
        logits = model({"tokens": text}, training=False)["logits"]  # (B, L, V)
        return tf.gather(logits, position, axis=1, batch_dims=1), {"text": text}

    return Stepper(step, {"text": ((length,), "int32")}, length)


def step_model(model: keras.Model, *, length: int | None = None) -> keras.Model:
    """Makes the model of one step: the same layers and weights, with what they remember.

    The graph of the model is followed once more with one step of time (see `follow`). The result
    is checked against the whole model before it is returned.

    Args:
        model: A functional model from ``tokens`` (B, T) to ``logits`` (B, T, V) that sees nothing
            after a step: one with the head `NextToken`.
        length: Most positions to remember; None: the model's own T, or 256 where T is open.

    Returns:
        A functional model. Inputs: ``tokens`` (B, 1) int32, ``position`` (B,) int32, counted from
        0, and the states by name, (B, ...), which start as zeros. Outputs: ``logits`` (B, V) and
        the states under the same names. It exports as it is, to LiteRT too.

    Raises:
        UserError: If a layer has no step, the length is longer than the positions the model
            knows, or the steps do not add up to the whole.

    Example:
        >>> import keras_seq
        >>> from keras_seq.heads import NextToken, Tokens
        >>> head = NextToken(Tokens(vocabulary=20, width=8))
        >>> model = keras_seq.build("lstm", inputs={"tokens": (None,)}, head=head, width=8)
        >>> sorted(step_model(model, length=16).output)
        ['logits', 'lstm_0_cell', 'lstm_0_hidden']

    Reference:
        Shazeer 2019, Fast Transformer Decoding (the memory of keys and values).
    """
    length = _length(model, length)
    found = follow(model, length).step
    _check_step(model, found, length)
    return found


def _length(model: Any, length: int | None) -> int:
    """Checks what model this is, and returns how many positions it is to go through."""
    given, results = getattr(model, "input", None), getattr(model, "output", None)
    if not isinstance(given, dict) or "tokens" not in given or not isinstance(results, dict):
        raise UserError(
            "what writes on is a functional model with the input 'tokens' and the output 'logits', "
            "as keras_seq.heads.NextToken makes it"
        )
    if "logits" not in results or len(results["logits"].shape) != 3:
        raise UserError(
            f"the model {model.name!r} has no score of the next token at each step, (B, T, V) "
            "logits: train it under the task language_model"
        )
    own = given["tokens"].shape[1]
    if length is not None and (length < 1 or (own and length > own)):
        raise UserError(
            f"length is {length}: give {f'1 to {own}' if own else 'at least 1'} positions"
            + (f", as many as the model {model.name!r} was built for" if own else "")
        )
    return length or own or OPEN_LENGTH


def _check_step(model: keras.Model, step: keras.Model, length: int) -> None:
    """Refuses a step that does not compute what the whole model computes."""
    count = min(length, 6)
    own = model.input["tokens"].shape[1]
    vocabulary = model.output["logits"].shape[-1]
    tokens = np.random.default_rng(0).integers(min(5, vocabulary - 1), vocabulary, (2, count))
    text = np.zeros((2, own or count), "int32")
    text[:, :count] = tokens
    whole = ops.convert_to_numpy(model({"tokens": text}, training=False)["logits"])[:, :count]
    one = stepper(step)
    states = one.start(2)
    parts = []
    for i in range(count):
        logits, states = one.step(tf.constant(text[:, i]), states, tf.fill((2,), i))
        parts.append(ops.convert_to_numpy(logits))
    far = float(np.max(np.abs(np.stack(parts, 1) - whole)) / max(1e-6, np.max(np.abs(whole))))
    narrow = keras.backend.standardize_dtype(step.output["logits"].dtype) != "float32" or any(
        layer.compute_dtype != "float32" for layer in model.layers
    )
    if not far <= (0.1 if narrow else 1e-3):
        raise UserError(
            f"the steps of the model {model.name!r} do not add up to the whole (they differ by "
            f"{far:.2g} of the largest score): a layer of it mixes steps and has no step of its "
            "own; use whole_stepper, or give that layer step and step_shapes (see "
            "keras_seq.layers.steps)"
        )
