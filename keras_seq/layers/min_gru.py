"""A gated recurrent unit whose gates look at the input alone, so that it is a parallel scan."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers.linear_recurrence import linear_scan, wide_dtype, zero_before_first
from keras_seq.layers.masking import zero_masked

Shape = tuple[Any, ...]


@keras.saving.register_keras_serializable(package="keras_seq")
class MinGRU(keras.layers.Layer):
    """A GRU without the state in its gates: ``h[t] = (1 - z[t]) * h[t - 1] + z[t] * new[t]``.

    The gate z and the new values come from the input of step t only, so all steps are computed at
    once by `linear_scan`. What a GRU sees of the past within one layer takes a second layer here.
    Masked steps keep the state, and give what the last real step gave, or zeros before the first,
    as with Keras's recurrent layers. In mixed precision the states are summed up in float32.

    Args:
        units: Features of the state, W.
        return_sequences: Whether all states are returned, and not the last alone. Default False.
        return_state: Whether the last state is returned besides. Default False.
        go_backwards: Whether it reads from the end, and returns that order. Default False.
        activation: Of the new values: a name or a function. Default ``"linear"``, as in the paper.
        use_bias: Whether gate and new values have a bias. Default True.
        kernel_initializer: Of the kernel (D, 2 W). Default ``"glorot_uniform"``.
        bias_initializer: Of the bias (2 W), the gate's half first; a gate that starts below zero
            remembers longer. Default ``"zeros"``.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, D).
        mask: (B, T) bool, True at real steps, or None.
        initial_state: The state before the first step, (B, W), or None: zeros.

    Returns:
        (B, W), or with `return_sequences` (B, T, W); with `return_state` also the last state.

    Raises:
        ValueError: If `units` is below 1.

    Example:
        >>> import numpy as np
        >>> layer = MinGRU(1, return_sequences=True)
        >>> layer.build((None, None, 1))
        >>> layer.set_weights([np.array([[0.0, 1.0]]), np.zeros(2)])  # a gate of one half
        >>> np.asarray(layer(np.array([[[8.0], [8.0], [8.0]]], "float32")))[0, :, 0]
        array([4., 6., 7.], dtype=float32)

    Reference:
        Feng et al. 2024, Were RNNs All We Needed?
    """

    # A step takes the hypotheses of a search side by side; see `keras_seq.layers.steps`.
    hypotheses = True

    def __init__(
        self,
        units: int,
        *,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        activation: Any = "linear",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"units is {units}: give at least 1")
        self.units = units
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.stateful = False  # `keras.layers.Bidirectional` asks
        self.supports_masking = True

    def build(self, x_shape: Shape) -> None:
        """Makes the kernel and the bias."""

        def halves(shape: Shape, dtype: Any = None) -> Any:
            """Each half by itself: a fan-out of 2 W would make both too small."""
            half = (shape[0], shape[1] // 2)
            return ops.concatenate([self.kernel_initializer(half, dtype) for _ in range(2)], -1)

        self.kernel = self.add_weight(
            shape=(x_shape[-1], 2 * self.units), initializer=halves, name="kernel"
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(2 * self.units,), initializer=self.bias_initializer, name="bias"
            )

    def call(
        self, x: Any, mask: Any = None, initial_state: Any = None, training: bool | None = None
    ) -> Any:
        """Computes all states at once."""
        x = zero_masked(x, mask)
        if self.go_backwards:
            x = ops.flip(x, axis=1)
            mask = None if mask is None else ops.flip(ops.cast(mask, "bool"), axis=1)
        keep, new = self._shares(x)
        if mask is not None:
            real = ops.expand_dims(ops.cast(mask, "bool"), -1)
            keep = ops.where(real, keep, ops.ones_like(keep))
            new = ops.where(real, new, ops.zeros_like(new))
        if isinstance(initial_state, (list, tuple)):
            (initial_state,) = initial_state
        if initial_state is not None:
            initial_state = ops.cast(initial_state, new.dtype)
        states = ops.cast(linear_scan(keep, new, initial_state), self.compute_dtype)
        last = states[:, -1]
        outputs = states if mask is None else zero_before_first(states, mask)
        result = outputs if self.return_sequences else outputs[:, -1]
        return (result, last) if self.return_state else result

    def _shares(self, x: Any) -> tuple[Any, Any]:
        """What stays of the state before, and what comes to it, in 32 bits or more."""
        drive = ops.matmul(x, ops.cast(self.kernel, x.dtype))
        if self.bias is not None:
            drive = drive + ops.cast(self.bias, drive.dtype)
        gate, new = ops.split(ops.cast(drive, wide_dtype(self.compute_dtype)), 2, axis=-1)
        # Not 1 - sigmoid(gate): what is lost in a step may be a very small share.
        return ops.sigmoid(-gate), ops.sigmoid(gate) * self.activation(new)

    def step_shapes(self, length: int) -> dict[str, Shape]:
        """Tells what one step has to remember; see `keras_seq.layers.steps`.

        Args:
            length: Most steps that can be remembered; it makes no difference here.

        Returns:
            ``hidden``: (W,), the state.

        Raises:
            ValueError: If it reads from the end, so that a step cannot be computed alone.
        """
        if self.go_backwards:
            raise ValueError(f"{self.name} reads from the end: it has no step of its own")
        return {"hidden": (self.units,)}

    def step(
        self, x: Any, states: dict[str, Any], position: Any = None
    ) -> tuple[Any, dict[str, Any]]:
        """Computes one step of a sequence; see `keras_seq.layers.steps`.

        Args:
            x: Features of that step, (B, 1, D); of K hypotheses of a search, (B, K, D).
            states: ``hidden`` (B, W), or (B, K, W) in a search; zeros before the first step.
            position: Which step it is, (B,) int32; it makes no difference here.

        Returns:
            The output (B, 1, W) or (B, K, W), without `return_sequences` (B, W), and the state for
            the next step.

        Example:
            >>> import numpy as np
            >>> layer = MinGRU(4)
            >>> x = np.random.default_rng(0).normal(size=(1, 2, 3)).astype("float32")
            >>> whole = layer(x)
            >>> _, states = layer.step(x[:, :1], {"hidden": np.zeros((1, 4), "float32")})
            >>> last, _ = layer.step(x[:, 1:], states)
            >>> np.allclose(last, whole, atol=1e-6)
            True
        """
        keep, new = self._shares(ops.cast(x, self.compute_dtype))
        before = ops.convert_to_tensor(states["hidden"])
        search = len(before.shape) == 3
        hidden = ops.cast(before, keep.dtype)
        hidden = keep * (hidden if search else ops.expand_dims(hidden, 1)) + new
        output = ops.cast(hidden, self.compute_dtype)
        after = ops.cast(hidden if search else ops.squeeze(hidden, 1), before.dtype)
        if not (self.return_sequences or search):
            output = ops.squeeze(output, 1)
        return output, {"hidden": after}

    def compute_mask(self, x: Any, mask: Any = None, **kwargs: Any) -> Any:
        """Ends an implicit mask; masks are handed over here."""
        return None

    def compute_output_shape(self, x_shape: Shape) -> Shape:
        """Returns the shape of the output, and of the state where it is returned."""
        last = (x_shape[0], self.units)
        result = (*x_shape[:2], self.units) if self.return_sequences else last
        return (result, last) if self.return_state else result

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "units": self.units,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }
