"""Recurrent layers whose training is fast on a CPU, and stacks of them."""

from __future__ import annotations

import os
from typing import Any

import keras
from keras import ops

from keras_seq.layers.dropout import Dropout
from keras_seq.layers.masking import ApplyMask

_SPLIT_FROM = 32  # examples of a batch: halves of fewer leave products that are too small


class _Fast(keras.layers.Layer):
    """What the three layers share: when the fast loop takes over, and what comes around it.

    Keras's layers do everything but the loop: they call `inner_loop`, and where Keras should come
    to do without that method, these layers are Keras's own.
    """

    def __init__(self, *args: Any, split_batch: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.split_batch = split_batch

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "split_batch": self.split_batch}

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> tuple[Any, Any, list[Any]]:
        """Runs over time: the last output, all outputs and the last states.

        Args:
            sequences: (B, T, D).
            initial_state: The states before the first step, (B, W) each.
            mask: (B, T) bool, or None.
            training: Whether the loop whose gradient is written out takes over.
        """
        states = (
            list(initial_state) if isinstance(initial_state, (list, tuple)) else [initial_state]
        )
        if not (training is True and self._is_plain(sequences, states)):
            return super().inner_loop(sequences, initial_state, mask=mask, training=training)
        import tensorflow as tf

        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        x = tf.convert_to_tensor(sequences)
        if self.cell.dropout:
            x = x * tf.expand_dims(self.cell.get_dropout_mask(x[:, 0]), 1)
        kernel, recurrent, bias = self._weights(x.dtype)
        states = [tf.cast(state, x.dtype) for state in states]
        real = None if mask is None else tf.cast(mask, tf.bool)
        outputs, last = self._over_halves(x, states, real, kernel, recurrent, bias)
        if real is not None:
            # Before its first real step a row gives zeros, behind a real one what that gave.
            shown = tf.reverse(real, [1]) if self.go_backwards else real
            if not self.zero_output_for_mask:
                shown = tf.math.cumsum(tf.cast(shown, tf.int32), axis=1) > 0
            outputs = tf.where(shown[..., None], outputs, tf.zeros_like(outputs))
        return outputs[:, -1], outputs, last

    def _is_plain(self, sequences: Any, states: list[Any]) -> bool:
        """Whether nothing is asked of the loop that it does not do, on a machine where it helps."""
        cell = self.cell
        if keras.backend.backend() != "tensorflow" or self.unroll or cell.recurrent_dropout:
            return False
        if getattr(cell, "implementation", 2) == 1 and cell.dropout:
            return False  # another mask for each gate
        if cell.activation is not keras.activations.tanh:
            return False
        gate = getattr(cell, "recurrent_activation", keras.activations.sigmoid)
        if gate is not keras.activations.sigmoid or not getattr(cell, "reset_after", True):
            return False
        if len(sequences.shape) != 3 or any(len(state.shape) != 2 for state in states):
            return False
        import tensorflow as tf

        return not tf.config.list_logical_devices("GPU")  # cuDNN's loop is faster there

    def _weights(self, dtype: Any) -> tuple[Any, Any, Any]:
        """The input's kernel, the recurrent one and the bias, or None, in the type of the loop."""
        import tensorflow as tf

        cell = self.cell
        found = [cell.kernel, cell.recurrent_kernel, cell.bias if cell.use_bias else None]
        kernel, recurrent, bias = (
            None if w is None else tf.cast(ops.convert_to_tensor(w), dtype) for w in found
        )
        return kernel, recurrent, bias

    def _over_halves(
        self, x: Any, states: list[Any], real: Any, kernel: Any, recurrent: Any, bias: Any
    ) -> tuple[Any, list[Any]]:
        """Runs the loop, over two halves of the batch side by side where both are large enough."""
        import tensorflow as tf

        def run(x: Any, states: list[Any], real: Any) -> tuple[Any, list[Any]]:
            x = tf.transpose(x, [1, 0, 2])
            if self.go_backwards:
                x = tf.reverse(x, [0])
            if real is not None:
                real = tf.transpose(tf.reverse(real, [1]) if self.go_backwards else real)
                # As wide as the states: TensorFlow is slow to choose where it has to broadcast.
                real = tf.tile(real[..., None], [1, 1, recurrent.shape[0]])
            outputs, last = self._loop(x, states, real, kernel, recurrent, bias)
            return tf.transpose(outputs, [1, 0, 2]), last

        examples = x.shape[0]
        small = examples is not None and examples < _SPLIT_FROM
        if small or not self.split_batch or (os.cpu_count() or 1) < 2:
            return run(x, states, real)
        half = tf.shape(x)[0] // 2 if examples is None else examples // 2
        parts = []
        for cut in (slice(None, half), slice(half, None)):
            part = None if real is None else real[cut]
            parts.append(run(x[cut], [state[cut] for state in states], part))
        outputs = tf.concat([outputs for outputs, _ in parts], axis=0)
        last = [tf.concat(pair, axis=0) for pair in zip(*(last for _, last in parts), strict=True)]
        outputs = tf.ensure_shape(outputs, (x.shape[0], x.shape[1], self.units))
        return outputs, last

    def _loop(
        self, x: Any, states: list[Any], real: Any, kernel: Any, recurrent: Any, bias: Any
    ) -> tuple[Any, list[Any]]:
        """All outputs (T, B, W) and the last states, of inputs (T, B, D)."""
        raise NotImplementedError


def _drive(x: Any, kernel: Any, bias: Any) -> Any:
    """What all inputs (T, B, D) give to the gates: one product."""
    import tensorflow as tf

    flat = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), kernel)
    flat = flat if bias is None else tf.nn.bias_add(flat, bias)
    y = tf.reshape(flat, [tf.shape(x)[0], tf.shape(x)[1], kernel.shape[-1]])
    return tf.ensure_shape(y, (x.shape[0], x.shape[1], kernel.shape[-1]))


@keras.saving.register_keras_serializable(package="keras_seq")
class LSTM(_Fast, keras.layers.LSTM):
    """`keras.layers.LSTM`, faster to train on a CPU; arguments, weights and results are the same.

    In training on TensorFlow without a GPU the inputs' products are computed before the loop, the
    gradient is written out by hand, and two halves of the batch run side by side. With recurrent
    dropout, `unroll`, other activations, and outside of training, it is Keras's own loop.

    Args:
        units: Features of the state, W.
        split_batch: Whether two halves of a batch run side by side, each on a core. Leave it out
            in `keras.layers.Bidirectional`, whose two ways do so anyhow. Default True.
        **kwargs: As for `keras.layers.LSTM`.

    Call arguments:
        sequences: (B, T, D).
        initial_state: The first states, two (B, W), or None: zeros.
        mask: (B, T) bool, True at real steps, or None.

    Returns:
        (B, W), or with `return_sequences` (B, T, W); with `return_state` also the last states.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
        >>> ours, theirs = LSTM(4), keras.layers.LSTM(4)
        >>> _ = ours(x), theirs(x)
        >>> theirs.set_weights(ours.get_weights())
        >>> np.allclose(ours(x, training=True), theirs(x, training=True), atol=1e-6)
        True

    Reference:
        Hochreiter and Schmidhuber 1997, Long Short-Term Memory.
    """

    def _loop(
        self, x: Any, states: list[Any], real: Any, kernel: Any, recurrent: Any, bias: Any
    ) -> tuple[Any, list[Any]]:
        import tensorflow as tf

        from keras_seq.layers.recurrent_loops import lstm_loop

        def in_order(w: Any) -> Any:
            """From Keras's order to that of the loop: sigmoids first."""
            i, f, new, o = tf.split(w, 4, axis=-1)
            return tf.concat([i, f, o, new], axis=-1)

        drive = _drive(x, in_order(kernel), None if bias is None else in_order(bias))
        outputs, cell = lstm_loop(drive, states[0], states[1], in_order(recurrent), real)
        return outputs, [outputs[-1], cell]


@keras.saving.register_keras_serializable(package="keras_seq")
class GRU(_Fast, keras.layers.GRU):
    """`keras.layers.GRU`, faster to train on a CPU; arguments, weights and results are the same.

    As `LSTM` does it; also with `reset_after=False` it is Keras's own loop.

    Args:
        units: Features of the state, W.
        split_batch: See `LSTM`. Default True.
        **kwargs: As for `keras.layers.GRU`.

    Call arguments:
        sequences: (B, T, D).
        initial_state: The first state, (B, W), or None: zeros.
        mask: (B, T) bool, True at real steps, or None.

    Returns:
        (B, W), or with `return_sequences` (B, T, W); with `return_state` also the last state.

    Example:
        >>> import numpy as np
        >>> GRU(4, return_sequences=True)(np.ones((2, 5, 3), "float32"), training=True).shape
        TensorShape([2, 5, 4])

    Reference:
        Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder.
    """

    def _loop(
        self, x: Any, states: list[Any], real: Any, kernel: Any, recurrent: Any, bias: Any
    ) -> tuple[Any, list[Any]]:
        import tensorflow as tf

        from keras_seq.layers.recurrent_loops import gru_loop

        if bias is None:
            bias = tf.zeros((2, 3 * self.units), x.dtype)
        outputs = gru_loop(_drive(x, kernel, bias[0]), states[0], recurrent, bias[1], real)
        return outputs, [outputs[-1]]


@keras.saving.register_keras_serializable(package="keras_seq")
class SimpleRNN(_Fast, keras.layers.SimpleRNN):
    """`keras.layers.SimpleRNN`, faster to train on a CPU; all else is the same.

    As `LSTM` does it.

    Args:
        units: Features of the state, W.
        split_batch: See `LSTM`. Default True.
        **kwargs: As for `keras.layers.SimpleRNN`.

    Call arguments:
        sequences: (B, T, D).
        initial_state: The first state, (B, W), or None: zeros.
        mask: (B, T) bool, True at real steps, or None.

    Returns:
        (B, W), or with `return_sequences` (B, T, W); with `return_state` also the last state.

    Example:
        >>> import numpy as np
        >>> SimpleRNN(4)(np.ones((2, 5, 3), "float32"), training=True).shape
        TensorShape([2, 4])

    Reference:
        Elman 1990, Finding Structure in Time.
    """

    def _loop(
        self, x: Any, states: list[Any], real: Any, kernel: Any, recurrent: Any, bias: Any
    ) -> tuple[Any, list[Any]]:
        from keras_seq.layers.recurrent_loops import rnn_loop

        outputs = rnn_loop(_drive(x, kernel, bias), states[0], recurrent, real)
        return outputs, [outputs[-1]]


CELLS: dict[str, type[Any]] = {"rnn": SimpleRNN, "lstm": LSTM, "gru": GRU}


def recurrent_stack(
    x: Any,
    *,
    cell: str,
    mask: Any = None,
    width: int = 64,
    depth: int = 1,
    dropout: float = 0.0,
    variational: bool = False,
    bidirectional: bool = False,
    residual: bool = False,
    layer_norm: bool = False,
) -> Any:
    """Stacks recurrent layers that return every state.

    Each layer: recurrence, then layer normalisation, dropout and the residual, where asked for.
    The layers are `SimpleRNN`, `LSTM` or `GRU` in the functional graph, named ``{cell}_{i}``.

    Args:
        x: Symbolic features, (B, T, D).
        cell: ``"rnn"`` (Elman, tanh), ``"lstm"`` or ``"gru"``.
        mask: (B, T) bool, True at real steps, or None.
        width: Features of each state; with `bidirectional` half of them look each way.
        depth: Number of layers.
        dropout: After each layer, 0 to below 1.
        variational: Whether that dropout is the same at all steps of a sequence.
        bidirectional: Whether each layer reads both ways.
        residual: Whether each layer adds its input (projected where the width differs).
        layer_norm: Whether each layer's states are normalised.

    Returns:
        (B, T, width) states, zeros at masked steps.

    Raises:
        ValueError: If the cell is unknown, or `width` is odd with `bidirectional`.

    Example:
        >>> x = keras.Input((None, 3))
        >>> recurrent_stack(x, cell="gru", width=8, depth=2, bidirectional=True).shape
        (None, None, 8)

    Reference:
        Gal and Ghahramani 2016, A Theoretically Grounded Application of Dropout in Recurrent Neural
        Networks (`variational`).
    """
    if cell not in CELLS:
        raise ValueError(f"cell is {cell!r}: give one of {', '.join(CELLS)}")
    if bidirectional and width % 2:
        raise ValueError(
            f"width {width} is odd, and a bidirectional layer gives half to each way: take "
            f"{width + 1}"
        )
    # Keras draws orthogonal kernels by a QR decomposition, which has no 16-bit form.
    wide = keras.config.dtype_policy().variable_dtype in ("float32", "float64")
    recurrent_initializer = "orthogonal" if wide else "glorot_uniform"
    if mask is not None:
        x = ApplyMask(name="apply_mask")(x, mask=mask)
    for i in range(depth):
        name = f"{cell}_{i}"
        layer = CELLS[cell](
            width // 2 if bidirectional else width,
            return_sequences=True,
            recurrent_initializer=recurrent_initializer,
            split_batch=not bidirectional,  # both ways run side by side
            name=name,
        )
        if bidirectional:
            layer = keras.layers.Bidirectional(layer, name=f"{name}_both_ways")
        h = layer(x, mask=mask)
        if layer_norm:
            h = keras.layers.LayerNormalization(name=f"norm_{i}")(h)
        if dropout:
            kind = keras.layers.SpatialDropout1D if variational else Dropout
            h = kind(dropout, name=f"dropout_{i}")(h)
        if residual:
            if x.shape[-1] != width:
                x = keras.layers.Dense(width, name=f"shortcut_{i}")(x)
            h = keras.layers.Add(name=f"residual_{i}")([x, h])
        x = h
    if mask is not None:
        # Keras's recurrent layers attach the mask to what they return, others do not. It ends here,
        # so that a loss treats every architecture alike.
        x = ApplyMask(name="zero_padding")(x, mask=mask)
    return x
