"""State spaces with a diagonal matrix, which are linear recurrences without gates."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seq.layers.linear_recurrence import (
    Parts,
    linear_scan,
    times,
    wide_dtype,
    zero_before_first,
)
from keras_seq.layers.masking import zero_masked

Shape = tuple[Any, ...]
_CHUNK = 64


@keras.saving.register_keras_serializable(package="keras_seq")
class DiagonalStateSpace(keras.layers.Layer):
    """Linear differential equations that each feature drives, sampled at the steps (S4D).

    Each of the D features has states of its own, ``s' = A s + x`` with a diagonal A, a readout C
    and a skip: ``y = 2 Re(C s) + skip * x``. A and the length of a step are learned, and the
    equations are solved for an input that is constant within a step (zero-order hold). With `units`
    an activation and a dense layer follow, which mix the features.

    Complex numbers are pairs of real ones, and all that is large is a product of matrices: within
    chunks of 64 steps, and from chunk to chunk a `linear_scan`. There is no Fourier transform, so
    the layer converts to LiteRT, and time grows with the number of steps alone.

    Masked steps keep the state and give what the last real step gave, or zeros before the first,
    as with Keras's recurrent layers. States are computed in float32 in mixed precision.

    A, as well as the length of a step, is often trained with a smaller learning rate and without
    weight decay: these weights are ``log_decay``, ``frequency`` and ``log_step``.

    Args:
        units: Features that come out; None: the D of the input, without activation and dense layer.
        states: Numbers remembered of each feature, N. Default 32.
        initialization: ``"lin"``: N / 2 complex pairs that decay alike and turn at frequencies pi n
            (S4D-Lin); ``"real"``: N real states that decay by n + 1 (S4D-Real). Default ``"lin"``.
        min_step: Shortest step that a feature starts with, in the time of the equations. Default
            0.001.
        max_step: Longest one. Default 0.1.
        activation: Before the dense layer: a name or a function. Default ``"gelu"``.
        use_bias: Whether the dense layer has a bias. Default True.
        return_sequences: Whether all outputs are returned, and not the last alone. Default False.
        return_state: Whether the last state is returned besides. Default False.
        go_backwards: Whether it reads from the end, and returns that order. Default False.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: (B, T, D).
        mask: (B, T) bool, True at real steps, or None.
        initial_state: The state before the first step, (B, D, N), or None: zeros. With ``"lin"``
            real parts first, then imaginary ones.

    Returns:
        (B, W), or with `return_sequences` (B, T, W), W being `units` or D; with `return_state` also
        the last state (B, D, N).

    Raises:
        ValueError: If a size is below 1, `states` odd with ``"lin"``, the steps are not positive
            and in order, or the initialisation is unknown.

    Example:
        >>> layer = DiagonalStateSpace(8, states=4, return_sequences=True)
        >>> layer(keras.ops.ones((2, 100, 3))).shape
        TensorShape([2, 100, 8])

    Reference:
        Gu et al. 2022, On the Parameterization and Initialization of Diagonal State Space Models.
    """

    # A step takes the hypotheses of a search side by side; see `keras_seq.layers.steps`.
    hypotheses = True

    def __init__(
        self,
        units: int | None = None,
        states: int = 32,
        *,
        initialization: str = "lin",
        min_step: float = 0.001,
        max_step: float = 0.1,
        activation: Any = "gelu",
        use_bias: bool = True,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if states < 1 or (units is not None and units < 1):
            raise ValueError(f"units is {units} and states {states}: give at least 1")
        if initialization not in ("lin", "real"):
            raise ValueError(f"initialization is {initialization!r}: give 'lin' or 'real'")
        if initialization == "lin" and states % 2:
            raise ValueError(
                f"states is {states}, and initialization='lin' has pairs of them: take {states + 1}"
            )
        if not 0 < min_step <= max_step:
            raise ValueError(
                f"min_step is {min_step} and max_step {max_step}: give 0 < min_step <= max_step"
            )
        self.units = units
        self.states = states
        self.initialization = initialization
        self.min_step = min_step
        self.max_step = max_step
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.stateful = False  # `keras.layers.Bidirectional` asks
        self.supports_masking = True

    def build(self, x_shape: Shape) -> None:
        """Makes the weights of the equations, and of the dense layer."""
        features = x_shape[-1]
        count = self.states // 2 if self.initialization == "lin" else self.states
        n = np.arange(count)
        turning = self.initialization == "lin"

        def rows(values: Any) -> Any:
            """An initialiser that gives each feature the same numbers."""
            return lambda shape, dtype=None: ops.cast(
                ops.broadcast_to(ops.convert_to_tensor(values, "float32"), shape), dtype
            )

        self.log_step = self.add_weight(
            shape=(features,),
            initializer=keras.initializers.RandomUniform(
                math.log(self.min_step), math.log(self.max_step)
            ),
            name="log_step",
        )
        decay = np.full(count, 0.5) if turning else n + 1.0
        self.log_decay = self.add_weight(
            shape=(features, count), initializer=rows(np.log(decay)), name="log_decay"
        )
        self.frequency = None
        if turning:
            self.frequency = self.add_weight(
                shape=(features, count), initializer=rows(math.pi * n), name="frequency"
            )
        self.readout = self.add_weight(
            shape=(2 if turning else 1, features, count),
            initializer=keras.initializers.RandomNormal(stddev=math.sqrt(0.5)),
            name="readout",
        )
        self.skip = self.add_weight(shape=(features,), initializer="ones", name="skip")
        self.dense = None
        if self.units is not None:
            self.dense = keras.layers.Dense(
                self.units, use_bias=self.use_bias, dtype=self.dtype_policy, name="dense"
            )
            self.dense.build((*x_shape[:-1], features))

    # -------------------------------------------------------------------------------- all steps

    def call(
        self, x: Any, mask: Any = None, initial_state: Any = None, training: bool | None = None
    ) -> Any:
        """Computes all steps in chunks."""
        x = zero_masked(x, mask)
        if self.go_backwards:
            x = ops.flip(x, axis=1)
        inputs = ops.cast(x, wide_dtype(self.compute_dtype))
        if isinstance(initial_state, (list, tuple)):
            (initial_state,) = initial_state
        first = None if initial_state is None else ops.cast(initial_state, inputs.dtype)
        if mask is None:
            found = self._outputs(inputs, first)
        else:
            mask = ops.cast(mask, "bool")
            mask = ops.flip(mask, axis=1) if self.go_backwards else mask
            # Without the masked steps between them real ones follow each other: the state is kept.
            place = ops.cumsum(ops.cast(mask, "int32"), axis=1) - 1
            found = self._outputs(_gather(inputs, _in_front(mask)), first)
            found = _gather(found, ops.maximum(place, 0))
        if not self.return_sequences:
            found = found[:, -1:]
        outputs = self._mixed(ops.cast(found, self.compute_dtype))
        if mask is not None and self.return_sequences:
            outputs = zero_before_first(outputs, mask)
        elif mask is not None:
            some = ops.any(mask, axis=1)[:, None, None]
            outputs = ops.where(some, outputs, ops.zeros_like(outputs))
        outputs = outputs if self.return_sequences else ops.squeeze(outputs, 1)
        if not self.return_state:
            return outputs
        return outputs, ops.cast(self._last(inputs, mask, first), self.compute_dtype)

    def _equations(self) -> tuple[Parts, Parts, Parts]:
        """The decay of a step, what an input adds to a state, and the readout, (D, P) each."""
        dtype = wide_dtype(self.compute_dtype)
        length = ops.expand_dims(ops.exp(ops.cast(self.log_step, dtype)), 1)
        slope = ops.exp(ops.cast(self.log_decay, dtype))
        readout = [2 * part for part in ops.unstack(ops.cast(self.readout, dtype), axis=0)]
        less = ops.expm1(-length * slope)
        if self.frequency is None:
            return [less + 1], [-less / slope], readout
        frequency = ops.cast(self.frequency, dtype)
        angle = length * frequency
        cosine, sine = ops.cos(angle), ops.sin(angle)
        share = less + 1
        # exp(A) - 1 for small A, without a difference of numbers that are almost equal.
        grown = [less * cosine - 2 * ops.square(ops.sin(angle / 2)), share * sine]
        size = ops.square(slope) + ops.square(frequency)
        drive = times(grown, [-slope / size, -frequency / size])
        return [share * cosine, share * sine], drive, readout

    def _outputs(self, x: Any, first: Any) -> Any:
        """The outputs (B, T, D) in front of the dense layer, of inputs (B, T, D)."""
        decay, drive, readout = self._equations()
        steps, features = x.shape[1], x.shape[2]
        size = _CHUNK if steps is None else min(_CHUNK, steps)
        powers, of_chunk = _powers(decay, size)
        into = _into(powers, drive)
        chunks = _chunks(x, size)  # (D, B, M, size)
        batch, count = ops.shape(chunks)[1], ops.shape(chunks)[2]
        # What each chunk's inputs give to its outputs, and to the state behind it: one product.
        kernel = _real(readout, times(_last_axis(drive), powers))
        both = ops.concatenate([_shifted(kernel), into], axis=-1)
        flat = ops.reshape(chunks, (features, -1, size))
        outputs, ends = ops.split(ops.matmul(flat, both), [size], axis=-1)
        before, _ = _carried(ends, of_chunk, first, batch, count)
        # What the state before a chunk gives to its outputs.
        seen = times(_last_axis(times(readout, decay)), powers)
        seen = ops.concatenate([seen[0], *(-part for part in seen[1:])], axis=1)
        outputs = outputs + ops.matmul(before, seen)
        outputs = ops.reshape(outputs, (features, batch, -1))
        outputs = outputs[:, :, : ops.shape(x)[1] if steps is None else steps]
        outputs = ops.transpose(outputs, (1, 2, 0))
        return outputs + ops.cast(self.skip, x.dtype) * x

    def _last(self, x: Any, mask: Any, first: Any) -> Any:
        """The state after the last real step, (B, D, N)."""
        decay, drive, _ = self._equations()
        steps, features = x.shape[1], x.shape[2]
        size = _CHUNK if steps is None else min(_CHUNK, steps)
        if mask is not None:
            x = _gather(x, _in_front(ops.logical_not(mask)))
        # The real steps end with the last chunk, so that the state does not decay behind them.
        powers, of_chunk = _powers(decay, size)
        chunks = _chunks(x, size, at_front=True)
        batch, count = ops.shape(chunks)[1], ops.shape(chunks)[2]
        flat = ops.reshape(chunks, (features, -1, size))
        ends = ops.matmul(flat, _into(powers, drive))
        _, last = _carried(ends, of_chunk, None, batch, count)
        if first is None:
            return last
        # The first state decays by as many steps as are real.
        real = ops.ones_like(x[:, :, 0]) if mask is None else ops.cast(mask, x.dtype)
        whole = ops.sum(real, axis=1)[:, None, None]
        time = ops.exp(ops.cast(self.log_step, x.dtype))[:, None] * whole  # (B, D, 1)
        share = ops.exp(-ops.exp(ops.cast(self.log_decay, x.dtype)) * time)
        left = [share]
        if self.frequency is not None:
            angle = ops.cast(self.frequency, x.dtype) * time
            left = [share * ops.cos(angle), share * ops.sin(angle)]
        kept = times(left, ops.split(first, len(left), axis=-1))
        return last + ops.concatenate(kept, axis=-1)

    def _mixed(self, y: Any) -> Any:
        return y if self.dense is None else self.dense(self.activation(y))

    # --------------------------------------------------------------------------------- one step

    def step_shapes(self, length: int) -> dict[str, Shape]:
        """Tells what one step has to remember; see `keras_seq.layers.steps`.

        Args:
            length: Most steps that can be remembered; it makes no difference here.

        Returns:
            ``hidden``: (D, N), the state.

        Raises:
            ValueError: If it reads from the end, so that a step cannot be computed alone.
        """
        if self.go_backwards:
            raise ValueError(f"{self.name} reads from the end: it has no step of its own")
        return {"hidden": (self.skip.shape[0], self.states)}

    def step(
        self, x: Any, states: dict[str, Any], position: Any = None
    ) -> tuple[Any, dict[str, Any]]:
        """Computes one step of a sequence; see `keras_seq.layers.steps`.

        Args:
            x: Features of that step, (B, 1, D); of K hypotheses of a search, (B, K, D).
            states: ``hidden`` (B, D, N), or (B, K, D, N) in a search; zeros before the first step.
            position: Which step it is, (B,) int32; it makes no difference here.

        Returns:
            The output (B, 1, W) or (B, K, W), without `return_sequences` (B, W), and the state for
            the next step.

        Example:
            >>> import numpy as np
            >>> layer = DiagonalStateSpace(4, states=2)
            >>> x = np.random.default_rng(0).normal(size=(1, 2, 3)).astype("float32")
            >>> whole = layer(x)
            >>> _, states = layer.step(x[:, :1], {"hidden": np.zeros((1, 3, 2), "float32")})
            >>> last, _ = layer.step(x[:, 1:], states)
            >>> np.allclose(last, whole, atol=1e-5)
            True
        """
        decay, drive, readout = self._equations()
        x = ops.cast(x, decay[0].dtype)
        before = ops.convert_to_tensor(states["hidden"])
        search = len(before.shape) == 4
        hidden = ops.cast(before, x.dtype)
        hidden = hidden if search else ops.expand_dims(hidden, 1)  # (B, K, D, N)
        kept = times(decay, ops.split(hidden, len(decay), axis=-1))
        given = ops.expand_dims(x, -1)
        new = [part + given * share for part, share in zip(kept, drive, strict=True)]
        seen = ops.sum(times(readout, new)[0], axis=-1) + ops.cast(self.skip, x.dtype) * x
        output = self._mixed(ops.cast(seen, self.compute_dtype))
        after = ops.concatenate(new, axis=-1)
        after = ops.cast(after if search else ops.squeeze(after, 1), before.dtype)
        if not (self.return_sequences or search):
            output = ops.squeeze(output, 1)
        return output, {"hidden": after}

    def compute_mask(self, x: Any, mask: Any = None, **kwargs: Any) -> Any:
        """Ends an implicit mask; masks are handed over here."""
        return None

    def compute_output_shape(self, x_shape: Shape) -> Shape:
        """Returns the shape of the output, and of the state where it is returned."""
        width = x_shape[-1] if self.units is None else self.units
        result = (*x_shape[:2], width) if self.return_sequences else (x_shape[0], width)
        if not self.return_state:
            return result
        return result, (x_shape[0], x_shape[-1], self.states)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "units": self.units,
            "states": self.states,
            "initialization": self.initialization,
            "min_step": self.min_step,
            "max_step": self.max_step,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
        }


# Parts below are those of (D, P) numbers, see `times`; P is half of the states if they are complex.


def _last_axis(parts: Parts) -> Parts:
    return [ops.expand_dims(part, -1) for part in parts]


def _powers(decay: Parts, size: int) -> tuple[Parts, Parts]:
    """The decays by 0 to size - 1 steps, (D, P, size), and by size steps, (D, P).

    Made by doubling: the error of a power is that of as many products, and not that of a large
    angle.
    """
    one = ops.ones_like(decay[0])
    table = [_last_axis([one])[0], *_last_axis([ops.zeros_like(part) for part in decay[1:]])]
    top, count = decay, 1
    while count < size:
        grown = times(_last_axis(top), table)
        table = [ops.concatenate(pair, axis=-1) for pair in zip(table, grown, strict=True)]
        top, count = times(top, top), 2 * count
    table = [part[:, :, :size] for part in table]
    return table, times(decay, [part[:, :, -1] for part in table])


def _into(powers: Parts, drive: Parts) -> Any:
    """What the steps of a chunk give to the state behind it, (D, size, N)."""
    given = times(_last_axis(drive), [ops.flip(part, axis=-1) for part in powers])
    return ops.transpose(ops.concatenate(given, axis=1), (0, 2, 1))


def _real(readout: Parts, values: Parts) -> Any:
    """The output of states (D, P, size), (D, size)."""
    return ops.sum(times(_last_axis(readout), values)[0], axis=1)


def _shifted(kernel: Any) -> Any:
    """(D, size) -> (D, size, size): row t is the kernel from column t on, zeros before it."""
    features, size = kernel.shape
    row = ops.concatenate([kernel, ops.zeros_like(kernel)], axis=-1)
    # Rows that are one number short move on by one; their gradient is a plain sum, unlike that of
    # a table of places.
    many = ops.tile(row, (1, size))[:, : size * (2 * size - 1)]
    return ops.reshape(many, (features, size, 2 * size - 1))[:, :, :size]


def _chunks(x: Any, size: int, at_front: bool = False) -> Any:
    """(B, T, D) -> (D, B, M, size), zeros behind the end or before the beginning."""
    x = ops.transpose(x, (2, 0, 1))
    steps = x.shape[2]
    if steps is None or steps % size:
        missing = -(ops.shape(x)[2] if steps is None else steps) % size
        x = ops.pad(x, [[0, 0], [0, 0], [missing, 0] if at_front else [0, missing]])
    return ops.reshape(x, (x.shape[0], ops.shape(x)[1], -1, size))


def _carried(ends: Any, of_chunk: Parts, first: Any, batch: Any, count: Any) -> tuple[Any, Any]:
    """The states before each chunk (D, B M, N), and behind the last one (B, D, N).

    Takes what the chunks give, (D, B M, N), the decay of one, and the first state (B, D, N).
    """
    features, _, states = ends.shape
    n = len(of_chunk)
    given = ops.split(ops.reshape(ends, (features, batch, count, states)), n, axis=-1)
    if first is None:
        before = [ops.zeros_like(part[:, :, 0]) for part in given]
    else:
        before = ops.split(ops.transpose(first, (1, 0, 2)), n, axis=-1)
    decays = [part[:, None, None, :] for part in of_chunk]
    after = linear_scan(tuple(decays), tuple(given), tuple(before), axis=2)
    after = ops.concatenate([after] if n == 1 else list(after), axis=-1)
    start = ops.expand_dims(ops.concatenate(before, axis=-1), 2)
    all_before = ops.concatenate([start, after[:, :, :-1]], axis=2)
    return (
        ops.reshape(all_before, (features, -1, states)),
        ops.transpose(after[:, :, -1], (1, 0, 2)),
    )


def _in_front(mask: Any) -> Any:
    """(B, T) int32: in which order the steps stand when the masked ones go behind the others."""
    steps = ops.shape(mask)[1] if mask.shape[1] is None else mask.shape[1]
    # As floats, which converters can sort; different ones, so that no order is lost.
    place = ops.cast(ops.arange(steps, dtype="int32"), "float32")
    behind = ops.cast(ops.logical_not(mask), "float32") * ops.cast(steps, "float32")
    return ops.cast(ops.argsort(place + behind, axis=1), "int32")


def _gather(x: Any, place: Any) -> Any:
    """(B, T, D), the steps of each row that `place` (B, T) names."""
    rows, steps, features = ops.shape(x)[0], ops.shape(x)[1], x.shape[2]
    first = ops.expand_dims(ops.arange(rows, dtype="int32") * steps, 1)
    found = ops.take(ops.reshape(x, (-1, features)), ops.reshape(place + first, (-1,)), axis=0)
    return ops.reshape(found, (rows, steps if x.shape[1] is None else x.shape[1], features))
