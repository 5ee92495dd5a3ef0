"""A plugin for keras_seq: one architecture, `demo_gated_mlp`, and the layer that it is made of.

Copy this package to start your own. Its author's tests are one line:
`keras_seq.testing.check_architecture("demo_gated_mlp")`.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.registry import architecture


# The name of your own package, so that your classes never collide with another plugin's.
@keras.saving.register_keras_serializable(package="keras_seq_plugin_demo")
class SpatialGate(keras.layers.Layer):
    """Gates one half of the features with a mixture over time of the other half.

    Args:
        **kwargs: `name`, `dtype` and what else every Keras layer takes.

    Call arguments:
        x: (B, T, 2 * W); T is fixed by the first call.
        mask: (B, T) bool, True at real steps, or None.

    Reference:
        Liu et al. 2021, Pay Attention to MLPs.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # It takes masks by hand; without this Keras warns that a mask ends here.
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights of the mixture over time."""
        steps, features = input_shape[1], input_shape[2]
        if steps is None:
            raise ValueError("SpatialGate needs a fixed number of steps; the time axis is None")
        if features % 2:
            raise ValueError(f"SpatialGate halves its features: {features} is odd")
        # Near 0 and 1: at the start the gate is open and the layer hands its input through.
        self.mix = self.add_weight(
            name="mix", shape=(steps, steps), initializer=keras.initializers.RandomNormal(0, 1e-3)
        )
        self.bias = self.add_weight(name="bias", shape=(steps, 1), initializer="ones")

    def call(self, x: Any, mask: Any = None) -> Any:
        """Returns (B, T, W)."""
        value, gate = ops.split(x, 2, axis=-1)  # (B, T, W) each
        if mask is not None:
            gate = gate * ops.cast(mask, gate.dtype)[..., None]
        gate = ops.einsum("st,btw->bsw", ops.cast(self.mix, gate.dtype), gate)
        return value * (gate + ops.cast(self.bias, gate.dtype))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape with half the features."""
        return (*input_shape[:-1], input_shape[-1] // 2)


@architecture("needs_fixed_length")
def gated_mlp(x: Any, *, mask: Any = None, width: int = 64, depth: int = 2) -> Any:
    """Blocks of a gated MLP with residuals.

    Args:
        x: (B, T, D) features.
        mask: (B, T) bool, True at real steps, or None.
        width: Features of a step.
        depth: Blocks.

    Returns:
        (B, T, width).
    """
    x = keras.layers.Dense(width, name="project")(x)
    for i in range(depth):
        y = keras.layers.LayerNormalization(name=f"normalize_{i}")(x)
        y = keras.layers.Dense(2 * width, activation="silu", name=f"expand_{i}")(y)
        y = SpatialGate(name=f"gate_{i}")(y, mask=mask)
        x = x + keras.layers.Dense(width, name=f"contract_{i}")(y)
    return x
