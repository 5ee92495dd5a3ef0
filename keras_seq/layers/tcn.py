"""The residual block of temporal convolutional networks."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers.masking import zero_masked
from keras_seq.layers.steps import convolve_step, past_shapes

Shape = tuple[Any, ...]


def receptive_field(*, depth: int, kernel_size: int) -> int:
    """Counts the steps that the output of a stack of `TemporalBlock`s sees, its own included.

    The dilation doubles from block to block (1, 2, 4, ...), and each block has two convolutions.

    Args:
        depth: Number of blocks.
        kernel_size: Steps of a kernel.

    Returns:
        1 + 2 (kernel_size - 1) (2^depth - 1).

    Example:
        >>> receptive_field(depth=4, kernel_size=3)
        61
    """
    return 1 + 2 * (kernel_size - 1) * (2**depth - 1)


@keras.saving.register_keras_serializable(package="keras_seq")
class TemporalBlock(keras.layers.Layer):
    """Two dilated causal convolutions with normalisation, activation and dropout, and a residual.

    Step t sees steps t - 2 (kernel_size - 1) dilation to t. Masked steps are zeroed before each
    convolution, as the steps before the first one are, so padding leaves no trace.

    Args:
        width: Channels that come out, W.
        kernel_size: Steps of a kernel. Default 3.
        dilation: Distance of the steps that a kernel sees. Default 1.
        dropout: Share of whole channels dropped in training, 0 to below 1. Default 0.
        activation: Name or function. Default ``"relu"``.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, D).
        mask: (B, T) bool, True at real steps; None: all.

    Returns:
        (B, T, width). Where D is not `width`, the residual goes through a 1x1 convolution.

    Raises:
        ValueError: If a size is below 1.

    Example:
        >>> import numpy as np
        >>> TemporalBlock(8, dilation=2)(np.ones((1, 5, 3), "float32")).shape
        TensorShape([1, 5, 8])

    Reference:
        Bai, Kolter and Koltun 2018, An Empirical Evaluation of Generic Convolutional and Recurrent
        Networks for Sequence Modeling (weight normalisation there, layer normalisation here).
    """

    def __init__(
        self,
        width: int,
        kernel_size: int = 3,
        *,
        dilation: int = 1,
        dropout: float = 0.0,
        activation: Any = "relu",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for what, value in (("width", width), ("kernel_size", kernel_size), ("dilation", dilation)):
            if value < 1:
                raise ValueError(f"{what} is {value}: give at least 1")
        self.width = width
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.dropout = dropout
        self.activation = keras.activations.get(activation)
        self.supports_masking = True

    def build(self, x_shape: Shape) -> None:
        """Makes the convolutions and normalisations."""
        policy = {"dtype": self.dtype_policy}
        self.convolutions, self.norms, self.dropouts = [], [], []
        shape = tuple(x_shape)
        for i in range(2):
            convolution = keras.layers.Conv1D(
                self.width,
                self.kernel_size,
                padding="causal",
                dilation_rate=self.dilation,
                name=f"convolution_{i}",
                **policy,
            )
            convolution.build(shape)
            shape = (*shape[:-1], self.width)
            norm = keras.layers.LayerNormalization(name=f"norm_{i}", **policy)
            norm.build(shape)
            self.convolutions.append(convolution)
            self.norms.append(norm)
            self.dropouts.append(keras.layers.SpatialDropout1D(self.dropout, **policy))
        self.shortcut = None
        if x_shape[-1] != self.width:
            self.shortcut = keras.layers.Dense(self.width, name="shortcut", **policy)
            self.shortcut.build(x_shape)

    def call(self, x: Any, mask: Any = None, training: bool | None = None) -> Any:
        """Convolves twice and adds the residual."""
        x = zero_masked(x, mask)
        h = x
        for convolution, norm, dropout in zip(
            self.convolutions, self.norms, self.dropouts, strict=True
        ):
            h = norm(convolution(zero_masked(h, mask)))
            h = dropout(self.activation(h), training=training)
        return self.activation(h + (x if self.shortcut is None else self.shortcut(x)))

    def step_shapes(self, length: int) -> dict[str, Shape]:
        """Tells what one step has to remember; see `keras_seq.layers.steps`.

        Args:
            length: Most steps that can be remembered; it makes no difference here.

        Returns:
            ``past_0`` and ``past_1``: ((kernel_size - 1) dilation, channels), what each of the
            convolutions still needs of its inputs; nothing where a kernel has one step.
        """
        shapes = [past_shapes(convolution) for convolution in self.convolutions]
        return {f"past_{i}": shape for i, of in enumerate(shapes) for shape in of.values()}

    def step(
        self, x: Any, states: dict[str, Any], position: Any = None
    ) -> tuple[Any, dict[str, Any]]:
        """Computes one step of a sequence; see `keras_seq.layers.steps`.

        Args:
            x: Features of that step, (B, 1, D).
            states: As `step_shapes` says; zeros before the first step.
            position: Which step it is; it makes no difference here.

        Returns:
            The output (B, 1, width), and the states for the next step.

        Example:
            >>> import numpy as np
            >>> layer = TemporalBlock(4, kernel_size=2)
            >>> x = np.random.default_rng(0).normal(size=(1, 2, 3)).astype("float32")
            >>> whole = layer(x)
            >>> zeros = {k: np.zeros((1, *s), "float32") for k, s in layer.step_shapes(2).items()}
            >>> _, states = layer.step(x[:, :1], zeros)
            >>> last, _ = layer.step(x[:, 1:], states)
            >>> np.allclose(last[:, 0], whole[:, 1], atol=1e-6)
            True
        """
        x = ops.cast(x, self.compute_dtype)
        h, after = x, {}
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            past = {"past": states[f"past_{i}"]} if f"past_{i}" in states else {}
            h, left = convolve_step(convolution, h, past)
            after.update({f"past_{i}": value for value in left.values()})
            h = self.activation(norm(h))
        return self.activation(h + (x if self.shortcut is None else self.shortcut(x))), after

    def compute_output_shape(self, x_shape: Shape) -> Shape:
        """Returns the shape of the output."""
        return (*x_shape[:-1], self.width)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "width": self.width,
            "kernel_size": self.kernel_size,
            "dilation": self.dilation,
            "dropout": self.dropout,
            "activation": keras.activations.serialize(self.activation),
        }
