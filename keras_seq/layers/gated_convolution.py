"""The gated convolution of convolutional encoder-decoders."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers.dropout import Dropout
from keras_seq.layers.masking import zero_masked

Shape = tuple[Any, ...]


@keras.saving.register_keras_serializable(package="keras_seq")
class GatedConvolution(keras.layers.Layer):
    """A convolution over time of which one half gates the other (a gated linear unit).

    Masked steps are zeroed before the convolution, as the steps beyond both ends are, so padding
    leaves no trace. A causal one has a step: it remembers the last ``kernel_size - 1`` inputs.

    Args:
        width: Channels that come out, W.
        kernel_size: Steps of a kernel. Default 3.
        causal: Whether step t sees only steps up to t. Default False: as many on both sides.
        dropout: On the input, 0 to below 1. Default 0.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, D).
        mask: (B, T) bool, True at real steps; None: all.

    Returns:
        (B, T, width).

    Raises:
        ValueError: If a size is below 1.

    Example:
        >>> import numpy as np
        >>> layer = GatedConvolution(1, kernel_size=2, causal=True)
        >>> layer.build((None, None, 1))
        >>> kernel, bias = np.array([[[10.0, 0.0]], [[1.0, 0.0]]]), np.array([0.0, 100.0])
        >>> layer.set_weights([kernel, bias])  # 10 times the step before, and an open gate
        >>> np.asarray(layer(np.array([[[1.0], [2.0], [3.0]]], "float32")))[0, :, 0]
        array([ 1., 12., 23.], dtype=float32)

    Reference:
        Dauphin et al. 2017, Language Modeling with Gated Convolutional Networks; Gehring et al.
        2017, Convolutional Sequence to Sequence Learning (weight normalisation there, none here).
    """

    def __init__(
        self,
        width: int,
        kernel_size: int = 3,
        *,
        causal: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for what, value in (("width", width), ("kernel_size", kernel_size)):
            if value < 1:
                raise ValueError(f"{what} is {value}: give at least 1")
        self.width = width
        self.kernel_size = kernel_size
        self.causal = causal
        self.dropout = dropout
        self.supports_masking = True

    def build(self, x_shape: Shape) -> None:
        """Makes the convolution."""
        # A gate that is half open takes three quarters of the variance away, and dropout adds some.
        # The larger the input, the less: this holds for one of a spread well below 1.
        start = keras.initializers.VarianceScaling(
            4 * (1 - self.dropout), "fan_in", "untruncated_normal"
        )
        self.convolution = keras.layers.Conv1D(
            2 * self.width,
            self.kernel_size,
            padding="causal" if self.causal else "same",
            kernel_initializer=start,
            dtype=self.dtype_policy,
            name="convolution",
        )
        self.convolution.build(x_shape)
        self.dropout_layer = Dropout(self.dropout, dtype=self.dtype_policy)

    def call(self, x: Any, mask: Any = None, training: bool | None = None) -> Any:
        """Convolves and gates."""
        x = self.dropout_layer(zero_masked(x, mask), training=training)
        return _gate(self.convolution(x))

    def step_shapes(self, length: int) -> dict[str, Shape]:
        """Tells what one step has to remember; see `keras_seq.layers.steps`.

        Args:
            length: Most steps that can be remembered; it makes no difference here.

        Returns:
            ``past``: (kernel_size - 1, D), the inputs before, the latest last; nothing where a
            kernel has one step.

        Raises:
            ValueError: If a step sees what comes after it, so that it cannot be computed alone.
        """
        if not self.causal:
            raise ValueError(f"{self.name} sees what comes after a step: it has no step of its own")
        if self.kernel_size == 1:
            return {}
        return {"past": (self.kernel_size - 1, self.convolution.kernel.shape[1])}

    def step(self, x: Any, states: dict[str, Any], position: Any) -> tuple[Any, dict[str, Any]]:
        """Computes one step of a sequence; see `keras_seq.layers.steps`.

        Args:
            x: Features of that step, (B, 1, D).
            states: ``past`` (B, kernel_size - 1, D); zeros before the first step.
            position: Which step it is, (B,) int32; it makes no difference here.

        Returns:
            The output (B, 1, W), and the state for the next step.

        Example:
            >>> import numpy as np
            >>> layer = GatedConvolution(4, causal=True)
            >>> x = np.random.default_rng(0).normal(size=(1, 2, 3)).astype("float32")
            >>> whole = layer(x)
            >>> _, states = layer.step(x[:, :1], {"past": np.zeros((1, 2, 3))}, np.array([0]))
            >>> last, _ = layer.step(x[:, 1:], states, np.array([1]))
            >>> np.allclose(last[:, 0], whole[:, 1], atol=1e-6)
            True
        """
        x = ops.cast(x, self.compute_dtype)
        if self.kernel_size > 1:
            x = ops.concatenate([ops.cast(states["past"], x.dtype), x], axis=1)  # (B, k, D)
        kernel, bias = (
            ops.cast(ops.convert_to_tensor(w), x.dtype)
            for w in (self.convolution.kernel, self.convolution.bias)
        )
        size = kernel.shape[0] * kernel.shape[1]
        flat = ops.reshape(x, (-1, 1, size))
        h = ops.matmul(flat, ops.reshape(kernel, (size, kernel.shape[2]))) + bias
        return _gate(h), {"past": x[:, 1:]} if self.kernel_size > 1 else {}

    def compute_output_shape(self, x_shape: Shape) -> Shape:
        """Returns the shape of the output."""
        return (*x_shape[:-1], self.width)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "width": self.width,
            "kernel_size": self.kernel_size,
            "causal": self.causal,
            "dropout": self.dropout,
        }


def _gate(h: Any) -> Any:
    """(B, T, 2 W) -> (B, T, W)."""
    value, gate = ops.split(h, 2, axis=-1)
    return value * ops.sigmoid(gate)
