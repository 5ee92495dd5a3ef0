"""How large the gradient is, layer by layer, on one fixed batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf


@contextlib.contextmanager
def undisturbed(model: keras.Model) -> Iterator[None]:
    """Puts back everything but the weights in training that the block changes in `model`.

    These are seed generators, moving averages, states of stateful layers and metrics: a run that
    is looked at must train exactly as one that is not.

    Args:
        model: A built model.
    """
    variables = [*model.non_trainable_variables, *model.metrics_variables]
    before = [(variable, variable.numpy()) for variable in variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def trainable_layers(model: keras.Model, prefix: str = "") -> dict[str, list[Any]]:
    """Returns the trainable variables of each layer, by the layer's name.

    Args:
        model: A built model. A model inside it is opened: its layers are named `model/layer`.
        prefix: What stands before each name.

    Returns:
        `{layer name: variables}`, in the order of the graph. What no layer owns is `weights`.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="last")])
        >>> {name: len(variables) for name, variables in trainable_layers(model).items()}
        {'last': 2}
    """
    groups: dict[str, list[Any]] = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            groups |= trainable_layers(layer, f"{prefix}{layer.name}/")
        elif layer.trainable_variables:
            groups[f"{prefix}{layer.name}"] = list(layer.trainable_variables)
    owned = {id(variable) for variables in groups.values() for variable in variables}
    rest = [variable for variable in model.trainable_variables if id(variable) not in owned]
    if rest:
        groups[f"{prefix}weights"] = rest
    return groups


class GradientNorms:
    """The Euclidean norm of the loss's gradient, for each layer and for all of them together.

    The forward pass is the one of inference (`training=False`, no dropout), so that the numbers
    are a function of weights and batch alone.

    Args:
        model: A built and compiled model.
        batch: `(x, y)` or `(x, y, sample_weight)`; arrays, or dicts of arrays, as `fit` takes them.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="line")])
        >>> model.set_weights([np.array([[1.0]]), np.array([0.0])])
        >>> model.compile("sgd", "mse")
        >>> norms = GradientNorms(model, (np.array([[3.0]]), np.array([[1.0]])))()
        >>> round(norms["line"], 3)  # d/dw (3w + b - 1)^2 = 12, d/db = 4
        12.649
    """

    def __init__(self, model: keras.Model, batch: tuple[Any, ...]) -> None:
        self._batch = keras.tree.map_structure(tf.convert_to_tensor, tuple(batch))
        self._model = model
        self._groups = trainable_layers(model)
        self._function = tf.function(self._norms)

    def _norms(self, x: Any, y: Any, sample_weight: Any = None) -> dict[str, tf.Tensor]:
        variables = self._model.trainable_variables
        with tf.GradientTape() as tape:
            y_pred = self._model(x, training=False)
            loss = self._model.compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=False
            )
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        squares = {}
        for variable, gradient in zip(variables, gradients, strict=True):
            if gradient is None:  # the loss does not depend on it
                squares[id(variable)] = tf.zeros(())
                continue
            # An embedding's gradient is sparse and may name a row twice: densify, then square.
            dense = tf.cast(tf.convert_to_tensor(gradient), tf.float32)
            squares[id(variable)] = tf.reduce_sum(tf.square(dense))
        norms = {
            name: tf.sqrt(tf.add_n([squares[id(variable)] for variable in group]))
            for name, group in self._groups.items()
        }
        norms["all"] = tf.sqrt(tf.add_n(list(squares.values())))
        return norms

    def __call__(self) -> dict[str, float]:
        """Returns `{layer: norm}` for the weights as they are now, and `all`."""
        with undisturbed(self._model):
            return {name: float(norm) for name, norm in self._function(*self._batch).items()}
