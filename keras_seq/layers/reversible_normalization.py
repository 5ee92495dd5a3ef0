"""Normalise each window by its own level and spread, and take that back on the forecast."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

# softplus(_UNIT_GAIN) == 1: a learned gain starts as no gain.
_UNIT_GAIN = float(np.log(np.e - 1.0))


def last_observed(x: Any, mask: Any = None) -> Any:
    """Returns the last real step of each sequence, as a plain function for use inside layers.

    Args:
        x: (B, T, C).
        mask: (B, T) or (B, T, C) bool, True at real steps, or None: all are real.

    Returns:
        (B, 1, C); zero where a sequence has no real step.
    """
    if mask is None:
        return x[:, -1:]
    if len(mask.shape) == 2:
        mask = mask[:, :, None]
    # No gather at a computed index: a comparison and a sum run on every edge runtime.
    steps = ops.reshape(ops.arange(1, ops.shape(x)[1] + 1, dtype="int32"), (1, -1, 1))
    steps = ops.where(mask, steps, ops.zeros_like(steps))
    is_last = ops.logical_and(mask, ops.equal(steps, ops.max(steps, axis=1, keepdims=True)))
    return ops.sum(ops.where(is_last, x, ops.zeros_like(x)), axis=1, keepdims=True)


@keras.saving.register_keras_serializable(package="keras_seq")
class ReversibleNormalization(keras.layers.Layer):
    """Normalises each window and channel by its own level and spread (RevIN).

    The layer returns what `ReverseNormalization` needs to take it back. The learned gain and
    shift, if any, are folded into these two, so the reverse layer has no weights and the two
    layers need not know each other.

    Args:
        center: ``"mean"`` takes the window's mean off, ``"last"`` its last real value.
        scale: Whether to divide by the window's standard deviation (about its mean).
        affine: Whether to learn a positive gain and a shift for each channel. The gain is a
            softplus, so that quantiles keep their order on the way back.
        epsilon: The least variance, in squared units of the input. Windows that vary less are
            divided by its square root, so a constant window becomes zeros. In full int8 the
            largest reciprocal sets the precision of all: for series that are standardised before
            and stand still at times (rain), 1e-2 keeps int8 close to float32, 1e-5 does not.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, C).
        mask: (B, T) or (B, T, C) bool, True at real values, or None. Values under the mask do not
            enter the statistics and come out as 0; they may be NaN.

    Returns:
        The normalised window (B, T, C), and location and scale (B, 1, C), both float32, such that
        ``normalised * scale + location`` is the window.

    Example:
        >>> import numpy as np
        >>> x = np.array([[[1.0], [3.0]]], "float32")
        >>> y, location, scale = ReversibleNormalization()(x)
        >>> y.numpy().ravel().tolist(), float(location[0, 0, 0]), float(scale[0, 0, 0])
        ([-1.0, 1.0], 2.0, 1.0)
        >>> ReverseNormalization()(y, location, scale).numpy().ravel().tolist()
        [1.0, 3.0]

    Reference:
        Kim et al. 2022, Reversible Instance Normalization for Accurate Time-Series Forecasting
        against Distribution Shift.
    """

    def __init__(
        self,
        *,
        center: str = "mean",
        scale: bool = True,
        affine: bool = False,
        epsilon: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        # Raw values may be large: they must not be rounded to float16 before the mean is off.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.supports_masking = True
        if center not in ("mean", "last"):
            raise ValueError(f"center is {center!r}: give 'mean' or 'last'")
        if not epsilon > 0:
            raise ValueError(f"epsilon is {epsilon}: give a positive least variance")
        self.center = center
        self.scale = bool(scale)
        self.affine = bool(affine)
        self.epsilon = float(epsilon)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the gain and the shift of each channel, if they are learned."""
        if self.affine:
            channels = (input_shape[-1],)
            self.raw_gain = self.add_weight(
                shape=channels,
                initializer=keras.initializers.Constant(_UNIT_GAIN),
                dtype="float32",
                name="raw_gain",
            )
            self.shift = self.add_weight(
                shape=channels, initializer="zeros", dtype="float32", name="shift"
            )

    def call(self, x: Any, mask: Any = None) -> tuple[Any, Any, Any]:
        """Normalises the window."""
        x = ops.cast(x, "float32")
        if mask is None:
            weight = None
            mean = ops.mean(x, axis=1, keepdims=True)  # (B, 1, C)
        else:
            if len(mask.shape) == 2:
                mask = mask[:, :, None]
            x = ops.where(mask, x, ops.zeros_like(x))
            weight = ops.cast(mask, "float32")
            count = ops.maximum(ops.sum(weight, axis=1, keepdims=True), 1.0)
            mean = ops.sum(x, axis=1, keepdims=True) / count
        # Two passes: the deviations, then their squares. One pass (mean of squares less square of
        # the mean) loses all digits where the level is large against the spread.
        deviation = x - mean if weight is None else (x - mean) * weight
        if self.center == "mean":
            location, y = mean, deviation
        else:
            location = last_observed(x, mask)
            y = x - location if weight is None else (x - location) * weight
        if self.scale:
            square = ops.square(deviation)
            if weight is None:
                variance = ops.mean(square, axis=1, keepdims=True)
            else:
                variance = ops.sum(square, axis=1, keepdims=True) / count
            # A floor and not a sum: above it, scaling the input scales the forecast exactly.
            spread = ops.sqrt(ops.maximum(variance, self.epsilon))
            y = y / spread
        else:
            spread = ops.ones_like(location)
        if self.affine:
            gain = ops.softplus(ops.cast(self.raw_gain, "float32"))
            shift = ops.cast(self.shift, "float32")
            y = y * gain + shift
            if weight is not None:
                y = y * weight
            spread = spread / gain
            location = location - shift * spread
        return ops.cast(y, self.compute_dtype), location, spread

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Ends an implicit mask: masks are passed by hand."""
        return None

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "center": self.center,
            "scale": self.scale,
            "affine": self.affine,
            "epsilon": self.epsilon,
        }


@keras.saving.register_keras_serializable(package="keras_seq")
class ReverseNormalization(keras.layers.Layer):
    """Takes `ReversibleNormalization` back: ``forecast * scale + location``, in float32.

    Args:
        **kwargs: As for every Keras layer.

    Call arguments:
        forecast: (B, H, C), or (B, H, C, Q) with Q numbers for each step and channel.
        location: (B, 1, C), as `ReversibleNormalization` returned it.
        scale: (B, 1, C), likewise.

    Returns:
        The shape of ``forecast``, in the units of the series.

    Example:
        >>> import numpy as np
        >>> two = np.full((1, 1, 1), 2.0, "float32")
        >>> ReverseNormalization()(np.ones((1, 3, 1), "float32"), two, two).numpy().ravel().tolist()
        [4.0, 4.0, 4.0]
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, forecast: Any, location: Any, scale: Any) -> Any:
        """Scales and shifts the forecast."""
        forecast = ops.cast(forecast, "float32")
        if len(forecast.shape) == 4:
            location, scale = location[..., None], scale[..., None]  # (B, 1, C, 1)
        return forecast * scale + location

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Ends an implicit mask: masks are passed by hand."""
        return None

    def compute_output_spec(self, forecast: Any, location: Any, scale: Any) -> keras.KerasTensor:
        """Returns the forecast's shape, in float32."""
        return keras.KerasTensor(forecast.shape, dtype="float32")


@keras.saving.register_keras_serializable(package="keras_seq")
class LastObserved(keras.layers.Layer):
    """The last real value of each channel, whatever the padding.

    Args:
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, C).
        mask: (B, T) or (B, T, C) bool, True at real values, or None.

    Returns:
        (B, 1, C).

    Example:
        >>> import numpy as np
        >>> x = np.array([[[1.0], [2.0], [9.0]]], "float32")
        >>> mask = np.array([[True, True, False]])
        >>> LastObserved()(x, mask=mask).numpy().ravel().tolist()
        [2.0]
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x: Any, mask: Any = None) -> Any:
        """Finds it."""
        return last_observed(x, mask)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Ends an implicit mask: masks are passed by hand."""
        return None
