"""A series cut into patches, and learned positions for them."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_seq")
class Patches(keras.layers.Layer):
    """Cuts the last axis into patches, overlapping if the stride is shorter than a patch.

    Args:
        length: Steps of a patch, P; at most the steps of the series.
        stride: Steps from one patch to the next, at most ``length``.
        padding: ``"start"`` repeats the first value as often as needed for the patches to cover
            the series exactly, so that the newest step ends the last patch; ``"end"`` repeats the
            last value ``stride`` times and leaves out a remainder, as PatchTST does.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T).

    Returns:
        (B, N, P).

    Example:
        >>> import numpy as np
        >>> x = np.arange(5.0, dtype="float32")[None]
        >>> Patches(2, 2)(x).numpy().tolist()
        [[[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]]]
        >>> Patches(4, 2, padding="end")(x).numpy().tolist()
        [[[0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 4.0]]]
    """

    def __init__(self, length: int, stride: int, *, padding: str = "start", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        if length < 1 or not 1 <= stride <= length:
            raise ValueError(
                f"length is {length} and stride {stride}: give a length of at least 1 and a "
                "stride between 1 and the length"
            )
        if padding not in ("start", "end"):
            raise ValueError(f"padding is {padding!r}: give 'start' or 'end'")
        self.length = int(length)
        self.stride = int(stride)
        self.padding = padding

    def count(self, steps: int) -> int:
        """Returns how many patches a series of so many steps has.

        Args:
            steps: Steps of the series.
        """
        rest = max(steps - self.length, 0)
        if self.padding == "end":
            return rest // self.stride + 2
        return -(-rest // self.stride) + 1

    def call(self, x: Any) -> Any:
        """Cuts the series."""
        steps = x.shape[1]
        count = self.count(steps)
        pieces = -(-self.length // self.stride)  # strides that a patch spans, rounded up
        total = (count - 1 + pieces) * self.stride
        covered = (count - 1) * self.stride + self.length
        if self.padding == "start":
            before, after = covered - steps, total - covered
        else:
            before, after = 0, total - steps
        parts = [ops.tile(x[:, :1], (1, before))] if before > 0 else []
        parts.append(x)
        if after > 0:
            parts.append(ops.tile(x[:, -1:], (1, after)))
        padded = ops.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        # Reshape and join instead of gathering: the gradient is then as cheap as the cut.
        cut = ops.reshape(padded, (-1, count - 1 + pieces, self.stride))  # (B, N + pieces - 1, S)
        if pieces == 1:
            return cut
        patches = ops.concatenate([cut[:, i : i + count] for i in range(pieces)], axis=-1)
        return patches[..., : self.length]

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Ends an implicit mask: masks are passed by hand."""
        return None

    def compute_output_spec(self, x: Any) -> keras.KerasTensor:
        """Returns (B, N, P)."""
        shape = (x.shape[0], self.count(x.shape[1]), self.length)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "length": self.length,
            "stride": self.stride,
            "padding": self.padding,
        }


@keras.saving.register_keras_serializable(package="keras_seq")
class LearnedOffset(keras.layers.Layer):
    """Adds one learned number for each position and feature: learned position embeddings.

    Args:
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, N, W), N fixed.

    Returns:
        (B, N, W).

    Example:
        >>> import numpy as np
        >>> layer = LearnedOffset()
        >>> layer.build((None, 2, 3))
        >>> layer.count_params()
        6
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the table."""
        self.offset = self.add_weight(
            shape=input_shape[1:],
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="offset",
        )

    def call(self, x: Any) -> Any:
        """Adds the table."""
        return x + ops.cast(self.offset, self.compute_dtype)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Ends an implicit mask: masks are passed by hand."""
        return None

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the input's shape."""
        return input_shape


@keras.saving.register_keras_serializable(package="keras_seq")
class SegmentQueries(keras.layers.Layer):
    """Learned queries for the segments of a forecast, each beside the state that answers it.

    A query is made of one half for the segment's position and one half for the channel.

    Args:
        segments: Segments of the forecast, M.
        channels: Channels whose series are folded into the batch, C.
        **kwargs: As for every Keras layer.

    Call arguments:
        state: (B * C, W), the channels of a window side by side.

    Returns:
        ``(queries, states)``: (B * C * M, 1, W) and (B * C * M, W).

    Example:
        >>> import numpy as np
        >>> queries, states = SegmentQueries(segments=2, channels=3)(np.ones((6, 4), "float32"))
        >>> queries.shape, states.shape
        (TensorShape([12, 1, 4]), TensorShape([12, 4]))

    Reference:
        Lin et al. 2023, SegRNN: Segment Recurrent Neural Network for Long-Term Forecasting.
    """

    def __init__(self, segments: int, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.segments = int(segments)
        self.channels = int(channels)

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Makes the two tables."""
        width = input_shape[-1]
        self.position = self.add_weight(
            shape=(self.segments, width // 2),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            name="position",
        )
        self.channel = self.add_weight(
            shape=(self.channels, width - width // 2),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            name="channel",
        )

    def call(self, state: Any) -> tuple[Any, Any]:
        """Lines up queries and states."""
        width, m, c = state.shape[-1], self.segments, self.channels
        position = ops.cast(self.position, self.compute_dtype)[None]
        channel = ops.cast(self.channel, self.compute_dtype)[:, None]
        table = ops.concatenate(
            [ops.tile(position, (c, 1, 1)), ops.tile(channel, (1, m, 1))], axis=-1
        )  # (C, M, W)
        batch = ops.shape(state)[0] // c
        queries = ops.tile(ops.reshape(table, (1, c * m * width)), (batch, 1))
        states = ops.tile(state[:, None], (1, m, 1))  # (B * C, M, W)
        return ops.reshape(queries, (-1, 1, width)), ops.reshape(states, (-1, width))

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Ends an implicit mask: masks are passed by hand."""
        return None

    def compute_output_spec(self, state: Any) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Returns (B * C * M, 1, W) and (B * C * M, W)."""
        rows = None if state.shape[0] is None else state.shape[0] * self.segments
        width = state.shape[-1]
        return (
            keras.KerasTensor((rows, 1, width), dtype=self.compute_dtype),
            keras.KerasTensor((rows, width), dtype=self.compute_dtype),
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "segments": self.segments, "channels": self.channels}
