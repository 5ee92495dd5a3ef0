"""LSTM layers as the one operator that LiteRT has for them.

In int8 the steps of time are otherwise written out one by one, and then every small piece of every
step is rounded to 8 bits: the cell's store too, to which each step adds less than its rounding
error. The fused operator keeps the store in 16 bits and the gates in 32, and it is one node for
any number of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_seq.layers import LSTM

Loop = Callable[..., tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]]


def fused_loop(layer: Any) -> Loop | None:
    """Returns what computes a Keras LSTM so that the converter makes it the fused operator.

    The operator starts from zeros, takes one sequence a call and knows no mask. So the real steps
    are brought to the front first, and each masked step is given what the last real step before it
    gave, as Keras does. What does not fit goes through the layer's own loop.

    Args:
        layer: Any layer.

    Returns:
        A function to stand in for ``layer.inner_loop``, or None if the layer is no LSTM, or one
        that the operator cannot compute: other activations than Keras's own, states that are
        returned or kept, 16-bit numbers.

    Example:
        >>> fused_loop(keras.layers.LSTM(2)) is None, fused_loop(keras.layers.GRU(2)) is None
        (False, True)
        >>> fused_loop(keras.layers.LSTM(2, activation="relu")) is None
        True
    """
    if type(layer) not in (keras.layers.LSTM, LSTM):
        return None
    fits = (
        layer.activation is keras.activations.tanh
        and layer.recurrent_activation is keras.activations.sigmoid
        and layer.compute_dtype == "float32"
        and not layer.stateful
        and not layer.return_state
    )
    if not fits:
        return None
    step_by_step: Loop = layer.inner_loop
    # Read now: the form without the operator may have to change it.
    zero_masked: bool = layer.zero_output_for_mask

    def inner_loop(
        sequences: tf.Tensor, initial_state: Any, mask: Any = None, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        known = [tf.get_static_value(state) for state in initial_state]
        fixed = sequences.shape[0] == 1 and sequences.shape[1] is not None
        if not fixed or any(value is None or value.any() for value in known):
            return step_by_step(sequences, initial_state, mask=mask, training=training)
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        last, outputs = _one_sequence(layer, sequences, mask, zero_masked=zero_masked)
        return last, outputs, list(initial_state)

    return inner_loop


def _one_sequence(
    layer: Any, x: tf.Tensor, mask: tf.Tensor | None, *, zero_masked: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Last output, (1, U), and all outputs in the order of reading, (1, T, U)."""
    steps = x.shape[1]
    if mask is None:
        if layer.go_backwards:
            x = tf.reverse(x, [1])
        outputs = _operator(layer, x)
        return outputs[:, -1], outputs
    real = tf.cast(mask[0], tf.bool)  # (T,)
    if layer.go_backwards:
        real = tf.reverse(real, [0])
    time = tf.range(steps)
    # The numbers of the real steps in the order of reading, then those of the others.
    order = tf.math.top_k(tf.where(real, steps - time, -time), steps).indices
    outputs = _operator(
        layer, tf.gather(x, steps - 1 - order if layer.go_backwards else order, axis=1)
    )
    seen = tf.cumsum(tf.cast(real, tf.int32))  # real steps up to each
    each = tf.gather(outputs, tf.maximum(seen - 1, 0), axis=1)
    wanted = real if zero_masked else seen > 0
    last = tf.where(seen[-1:, None] > 0, each[:, -1], 0.0)
    return last, tf.where(wanted[None, :, None], each, 0.0)


def _operator(layer: Any, x: tf.Tensor) -> tf.Tensor:
    """All outputs of an LSTM that starts from zeros, (1, T, U)."""
    cell = layer.cell

    def standard_lstm(
        inputs: tf.Tensor,
        init_h: tf.Tensor,
        init_c: tf.Tensor,
        kernel: tf.Tensor,
        recurrent_kernel: tf.Tensor,
        bias: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        def step(states: tuple[tf.Tensor, tf.Tensor], x_t: tf.Tensor) -> tuple[tf.Tensor, ...]:
            h, c = states
            z = tf.matmul(x_t, kernel) + tf.matmul(h, recurrent_kernel) + bias
            i, f, g, o = tf.split(z, 4, axis=1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            return tf.sigmoid(o) * tf.tanh(c), c

        h, c = tf.scan(step, tf.transpose(inputs, [1, 0, 2]), (init_h, init_c))
        return h[-1], tf.transpose(h, [1, 0, 2]), h[-1], c[-1], tf.constant(1.0)

    # The converter knows the function by these marks, and by its arguments and results; what
    # stands inside it is for TensorFlow alone.
    function = tf.function(
        standard_lstm,
        autograph=False,
        experimental_attributes={
            "api_implements": f"lstm_{layer.name}",
            "api_preferred_device": "CPU",
            "time_major": False,
            "go_backwards": False,
        },
    )
    zeros = tf.zeros((1, cell.units))
    bias = tf.zeros(4 * cell.units) if cell.bias is None else tf.convert_to_tensor(cell.bias)
    weights = tf.convert_to_tensor(cell.kernel), tf.convert_to_tensor(cell.recurrent_kernel)
    return function(x, zeros, zeros, *weights, bias)[1]
