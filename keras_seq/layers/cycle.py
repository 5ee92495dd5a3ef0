"""A learned periodic pattern, read off at calendar positions."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_seq")
class LearnedCycle(keras.layers.Layer):
    """One learned value for each position of the cycle and each channel; starts at zero.

    Args:
        period: Steps of the cycle.
        channels: Channels of the series, C.
        **kwargs: As for every Keras layer.

    Call arguments:
        time_index: (B,) integers, the calendar position of each window's first step, in steps.
        offset: Steps from there to the first value wanted.
        length: Steps wanted.

    Returns:
        (B, length, C): the values at positions ``(time_index + offset + 0, 1, ...) mod period``.

    Example:
        >>> import numpy as np
        >>> layer = LearnedCycle(period=3, channels=1)
        >>> layer.build((None,))
        >>> layer.set_weights([np.array([[10.0], [20.0], [30.0]])])
        >>> layer(np.array([2]), offset=0, length=4).numpy().ravel().tolist()
        [30.0, 10.0, 20.0, 30.0]

    Reference:
        Lin et al. 2024, CycleNet: Enhancing Time Series Forecasting through Modeling Periodic
        Patterns.
    """

    def __init__(self, period: int, channels: int, **kwargs: Any) -> None:
        # Positions are integers: a cast to float16 would lose them beyond 2048.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.supports_masking = True
        if period < 1:
            raise ValueError(f"period is {period}: give at least 1 step")
        self.period = int(period)
        self.channels = int(channels)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the table."""
        self.table = self.add_weight(
            shape=(self.period, self.channels), initializer="zeros", name="table"
        )

    def call(self, time_index: Any, offset: int = 0, length: int = 1) -> Any:
        """Reads the table."""
        start = ops.mod(ops.cast(time_index, "int32") + offset, self.period)  # (B,)
        steps = ops.arange(length, dtype="int32")
        positions = ops.mod(start[:, None] + steps[None, :], self.period)  # (B, length)
        return ops.take(ops.cast(self.table, self.compute_dtype), positions, axis=0)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Ends an implicit mask: masks are passed by hand."""
        return None

    def compute_output_spec(
        self, time_index: Any, offset: int = 0, length: int = 1
    ) -> keras.KerasTensor:
        """Returns (B, length, C)."""
        return keras.KerasTensor(
            (time_index.shape[0], length, self.channels), dtype=self.compute_dtype
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "period": self.period, "channels": self.channels}
