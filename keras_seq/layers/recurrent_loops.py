"""The loops of recurrent layers over time in TensorFlow, with gradients written out by hand.

What TensorFlow derives for a loop adds one product to each weight's gradient at every step. Here
the steps keep what they computed, the local derivatives of all steps are computed at once, the loop
back has one product a step, and the weights' gradient is one large product behind it.

All tensors are time first. `drive` (T, B, gates * W) is what the inputs give to the gates, bias
included, which is one product for all steps before the loop; its gradient is derived as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

Loop = Callable[..., tuple[Any, Any]]


def lstm_loop(drive: Any, hidden: Any, cell: Any, recurrent: Any, real: Any = None) -> Any:
    """Runs an LSTM over time.

    Args:
        drive: (T, B, 4 W), for the input gate, the forget gate, the output gate and the new values,
            in this order: the three that are sigmoids lie side by side.
        hidden: The first states, (B, W).
        cell: The first cells, (B, W).
        recurrent: (W, 4 W), in the same order.
        real: (T, B, W) bool, True at real steps, others leave states as they are; None: all.

    Returns:
        The states after each step, (T, B, W), and the last cells, (B, W).

    Example:
        >>> drive = tf.zeros((5, 2, 12))
        >>> states, cell = lstm_loop(drive, tf.ones((2, 3)), tf.ones((2, 3)), tf.zeros((3, 12)))
        >>> states.shape, float(cell[0, 0])  # half is forgotten at each step
        (TensorShape([5, 2, 3]), 0.03125)

    Reference:
        Hochreiter and Schmidhuber 1997, Long Short-Term Memory.
    """
    width = recurrent.shape[0]

    @tf.custom_gradient
    def run(drive: Any, hidden: Any, cell: Any, recurrent: Any) -> Any:
        def step(states: list[Any], given: list[Any]) -> tuple[list[Any], list[Any]]:
            h, c = states
            gates = given[0] + tf.matmul(h, recurrent)
            shares = tf.sigmoid(gates[:, : 3 * width])
            i, f, o = tf.split(shares, 3, axis=1)
            new = tf.tanh(gates[:, 3 * width :])
            next_c = f * c + i * new
            next_h = o * tf.tanh(next_c)
            if real is not None:
                next_h, next_c = tf.where(given[1], next_h, h), tf.where(given[1], next_c, c)
            return [next_h, next_c], [next_h, next_c, shares, new]

        given = [drive] if real is None else [drive, real]
        (_, last), (states, cells, *gates) = _over_time(step, [hidden, cell], given, 4)

        def gradient(d_states: Any, d_last: Any) -> tuple[Any, ...]:
            i, f, o = tf.split(gates[0], 3, axis=-1)
            new, seen = gates[1], tf.tanh(cells)
            # Of the cell (three times) and of the state, by what stands before the activations.
            local = [
                new * i * (1 - i),
                _before(cell, cells) * f * (1 - f),
                seen * o * (1 - o),
                i * (1 - new * new),
            ]
            slopes = tf.concat(local, axis=-1)
            of_cell, kept = o * (1 - seen * seen), f
            if real is not None:
                slopes, of_cell = _only(real, slopes), _only(real, of_cell)
                kept = tf.where(real, kept, tf.ones_like(kept))
            back = tf.transpose(recurrent)

            def step(states: list[Any], given: list[Any]) -> tuple[list[Any], list[Any]]:
                d_h, d_c = states
                d_h = d_h + given[0]
                d_c = d_c + d_h * given[2]
                d_gates = tf.concat([d_c, d_c, d_h, d_c], axis=1) * given[1]
                d_before = tf.matmul(d_gates, back)
                if real is not None:
                    d_before += tf.where(given[4], tf.zeros_like(d_h), d_h)
                return [d_before, d_c * given[3]], [d_gates]

            given = [d_states, slopes, of_cell, kept] + ([] if real is None else [real])
            first = [tf.zeros_like(hidden), d_last]
            (d_hidden, d_cell), (d_drive,) = _over_time(step, first, given, 1, backwards=True)
            return d_drive, d_hidden, d_cell, _weight_gradient(_before(hidden, states), d_drive)

        return (states, last), gradient

    return run(drive, hidden, cell, recurrent)


def gru_loop(drive: Any, hidden: Any, recurrent: Any, bias: Any, real: Any = None) -> Any:
    """Runs a GRU over time, whose reset gate acts after the product.

    Args:
        drive: (T, B, 3 W), for the update gate, the reset gate and the new values, in this order.
        hidden: The first states, (B, W).
        recurrent: (W, 3 W), in the same order.
        bias: Of the product with the states, (3 W,).
        real: (T, B, W) bool, True at real steps, others leave states as they are; None: all.

    Returns:
        The states after each step, (T, B, W).

    Example:
        >>> gru_loop(tf.zeros((5, 1, 9)), tf.ones((1, 3)), tf.zeros((3, 9)), tf.zeros(9))[4, 0, 0]
        <tf.Tensor: shape=(), dtype=float32, numpy=0.03125>

    Reference:
        Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder.
    """
    width = recurrent.shape[0]
    # What the product adds to the two shares can as well be in the drive.
    drive = drive + tf.concat([bias[: 2 * width], tf.zeros_like(bias[2 * width :])], axis=0)

    @tf.custom_gradient
    def run(drive: Any, hidden: Any, recurrent: Any, bias: Any) -> Any:
        of_shares, of_new = tf.split(drive, [2 * width, width], axis=-1)

        def step(states: list[Any], given: list[Any]) -> tuple[list[Any], list[Any]]:
            (h,) = states
            inner, reset = tf.split(tf.matmul(h, recurrent), [2 * width, width], axis=1)
            reset = tf.nn.bias_add(reset, bias)
            shares = tf.sigmoid(given[0] + inner)
            z, r = tf.split(shares, 2, axis=1)
            new = tf.tanh(given[1] + r * reset)
            next_h = new + z * (h - new)
            if real is not None:
                next_h = tf.where(given[2], next_h, h)
            return [next_h], [next_h, shares, reset]

        given = [of_shares, of_new] + ([] if real is None else [real])
        _, (states, shares, reset) = _over_time(step, [hidden], given, 3)

        def gradient(d_states: Any) -> tuple[Any, ...]:
            z, r = tf.split(shares, 2, axis=-1)
            new = tf.tanh(of_new + r * reset)
            before = _before(hidden, states)
            by_new = (1 - z) * (1 - new * new)
            # Of the state, by what the product with the state before gives to each gate.
            slopes = tf.concat(
                [(before - new) * z * (1 - z), by_new * reset * r * (1 - r), by_new * r], axis=-1
            )
            if real is not None:
                slopes, by_new = _only(real, slopes), _only(real, by_new)
                z = tf.where(real, z, tf.ones_like(z))
            back = tf.transpose(recurrent)

            def step(states: list[Any], given: list[Any]) -> tuple[list[Any], list[Any]]:
                d_h = states[0] + given[0]
                d_inner = tf.concat([d_h, d_h, d_h], axis=1) * given[1]
                return [d_h * given[2] + tf.matmul(d_inner, back)], [d_inner, d_h]

            first = [tf.zeros_like(hidden)]
            given = [d_states, slopes, z]
            (d_hidden,), (d_inner, d_h) = _over_time(step, first, given, 2, backwards=True)
            d_drive = tf.concat([d_inner[..., : 2 * width], d_h * by_new], axis=-1)
            d_bias = tf.reduce_sum(d_inner[..., 2 * width :], axis=[0, 1])
            return d_drive, d_hidden, _weight_gradient(before, d_inner), d_bias

        return states, gradient

    return run(drive, hidden, recurrent, bias[2 * width :])


def rnn_loop(drive: Any, hidden: Any, recurrent: Any, real: Any = None) -> Any:
    """Runs an Elman network over time: the tanh of the drive and of a product with the state.

    Args:
        drive: (T, B, W).
        hidden: The first states, (B, W).
        recurrent: (W, W).
        real: (T, B, W) bool, True at real steps, others leave states as they are; None: all.

    Returns:
        The states after each step, (T, B, W).

    Example:
        >>> states = rnn_loop(tf.ones((2, 1, 1)), tf.zeros((1, 1)), tf.ones((1, 1)))
        >>> states[:, 0, 0].numpy().round(3)
        array([0.762, 0.943], dtype=float32)

    Reference:
        Elman 1990, Finding Structure in Time.
    """

    @tf.custom_gradient
    def run(drive: Any, hidden: Any, recurrent: Any) -> Any:
        def step(states: list[Any], given: list[Any]) -> tuple[list[Any], list[Any]]:
            h = tf.tanh(given[0] + tf.matmul(states[0], recurrent))
            if real is not None:
                h = tf.where(given[1], h, states[0])
            return [h], [h]

        given = [drive] if real is None else [drive, real]
        _, (states,) = _over_time(step, [hidden], given, 1)

        def gradient(d_states: Any) -> tuple[Any, ...]:
            slopes = 1 - states * states
            if real is not None:
                slopes = _only(real, slopes)
            back = tf.transpose(recurrent)

            def step(states: list[Any], given: list[Any]) -> tuple[list[Any], list[Any]]:
                d_h = states[0] + given[0]
                d_drive = d_h * given[1]
                d_before = tf.matmul(d_drive, back)
                if real is not None:
                    d_before += tf.where(given[2], tf.zeros_like(d_h), d_h)
                return [d_before], [d_drive]

            given = [d_states, slopes] + ([] if real is None else [real])
            first = [tf.zeros_like(hidden)]
            (d_hidden,), (d_drive,) = _over_time(step, first, given, 1, backwards=True)
            return d_drive, d_hidden, _weight_gradient(_before(hidden, states), d_drive)

        return states, gradient

    return run(drive, hidden, recurrent)


def _over_time(
    step: Callable[[list[Any], list[Any]], tuple[list[Any], list[Any]]],
    states: list[Any],
    given: list[Any],
    results: int,
    backwards: bool = False,
) -> tuple[list[Any], list[Any]]:
    """Runs `step(states, given at t) -> (states, results of t)` from the first t to the last.

    Returns the last states, and each result of all steps, (T, ...), in the order of time.
    """
    steps = tf.shape(given[0])[0]
    arrays = [tf.TensorArray(x.dtype, steps, element_shape=x.shape[1:]).unstack(x) for x in given]
    dtype = states[0].dtype
    found = [tf.TensorArray(dtype, steps, infer_shape=False) for _ in range(results)]

    def body(t: Any, states: list[Any], found: list[Any]) -> tuple[Any, list[Any], list[Any]]:
        place = steps - 1 - t if backwards else t
        after, new = step(states, [array.read(place) for array in arrays])
        for before, x in zip(states, after, strict=True):
            x.set_shape(before.shape)
        shapes.extend(x.shape for x in new[len(shapes) :])
        return t + 1, after, [a.write(place, x) for a, x in zip(found, new, strict=True)]

    shapes: list[Any] = []
    _, states, found = tf.while_loop(
        lambda t, *_: t < steps, body, (0, states, found), maximum_iterations=steps
    )
    stacked = []
    for array, shape in zip(found, shapes, strict=True):
        x = array.stack()
        stacked.append(tf.ensure_shape(x, tf.TensorShape([given[0].shape[0]]).concatenate(shape)))
    return states, stacked


def _before(first: Any, states: Any) -> Any:
    """The states before each step, (T, B, W)."""
    return tf.concat([first[None], states[:-1]], axis=0)


def _only(real: Any, x: Any) -> Any:
    """(T, B, n * W) where steps are real, else 0."""
    share = tf.cast(real, x.dtype)
    return x * tf.tile(share, [1, 1, x.shape[-1] // real.shape[-1]])


def _weight_gradient(before: Any, d_gates: Any) -> Any:
    """(W, gates * W), of all steps in one product."""
    before = tf.reshape(before, [-1, before.shape[-1]])
    return tf.matmul(before, tf.reshape(d_gates, [-1, d_gates.shape[-1]]), transpose_a=True)
