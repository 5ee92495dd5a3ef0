"""Recurrent decoders with attention: Bahdanau's order, Luong's, and the conditional one."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_seq.layers.alignment import Alignment, Prepared
from keras_seq.layers.dropout import Dropout
from keras_seq.layers.recurrent import CELLS

Shape = tuple[Any, ...]
States = dict[str, Any]

ORDERS = ("bahdanau", "luong", "conditional")
_PARTS = {"rnn": ("hidden",), "gru": ("hidden",), "lstm": ("hidden", "cell")}


class _Weights(NamedTuple):
    """One recurrent layer's weights, cast once for a whole loop."""

    kernel: Any  # (D, G), of what is known before the loop
    fed: Any  # (F, G), of what attention feeds back, or None
    recurrent: Any  # (W, G)
    bias: Any  # (G,), or (2, G) for the two products of a GRU


@keras.saving.register_keras_serializable(package="keras_seq")
class AttentionDecoder(keras.layers.Layer):
    """A recurrent network over the target that attends to the source at each step.

    In Bahdanau's order a step attends by the state before it, and the context goes into the cell:
    c_t = attend(h_{t-1}), h_t = cell([x_t; c_t], h_{t-1}), output tanh(W [h_t; c_t; x_t] + b). In
    Luong's order it attends by its own state: h_t = cell([x_t; a_{t-1}], h_{t-1}),
    c_t = attend(h_t), output a_t = tanh(W [c_t; h_t] + b); a_{t-1} is left out without
    `input_feeding`, and then all steps attend at once. In the conditional order there are two cells
    a step with one state, and attention between them: g_t = cell(x_t, h_{t-1}), c_t = attend(g_t),
    h_t = cell'(c_t, g_t), output as Bahdanau's; unlike his, what is looked for depends on x_t.

    What does not depend on the step before is computed for all steps in one product: the input's
    part of the first layer, and what comes after the loop. Scheduled sampling is not done here, as
    it needs the layer that chooses the tokens.

    Args:
        width: Features of the states and of the output, W.
        cell: ``"gru"``, ``"lstm"`` or ``"rnn"`` (Elman, tanh). Default ``"gru"``.
        score: See `Alignment`. Default ``"bahdanau"``.
        order: ``"bahdanau"``, ``"luong"`` or ``"conditional"``; None: Bahdanau's with his score,
            else Luong's.
        input_feeding: Whether Luong's order gives the output of a step to the cell of the next.
            The others always feed the context. Default True.
        depth: Layers on top of each other. What attention feeds goes into the first, the query is
            the last one's state, and it is the last one's that the conditional order goes on with.
            Default 1.
        dropout: Between the layers and on the output, not on what is fed back; 0 to below 1.
            Default 0.
        coverage: Whether the score knows what was attended to before, see `Alignment`.
        window: See `Alignment`.
        predictive: See `Alignment`.
        max_length: See `Alignment`.
        **kwargs: As for every Keras layer.

    Call arguments:
        x: Features of the target so far, (B, T, D).
        keys: (B, S, U), from `AlignmentKeys` with the same score.
        memory: (B, S, Dm), what is attended to.
        mask: (B, S) bool, True at real source steps, or None: all.
        initial_state: The states of the cells before the first step, (B, W) each, in the order of
            `step_shapes`: ``hidden`` (and ``cell``) of each layer; None: zeros.

    Returns:
        The output (B, T, W) and the weights (B, T, S), before any dropout. Step t depends on
        target steps up to t.

    Raises:
        ValueError: If an option is unknown, options contradict each other, or the number of
            initial states is wrong.

    Example:
        >>> import numpy as np
        >>> from keras_seq.layers import AlignmentKeys
        >>> memory = np.random.default_rng(0).normal(size=(1, 3, 4)).astype("float32")
        >>> mask = np.array([[True, True, False]])
        >>> keys = AlignmentKeys(5)(memory, mask=mask)
        >>> decoder = AttentionDecoder(6)
        >>> output, weights = decoder(np.ones((1, 2, 3), "float32"), keys, memory, mask=mask)
        >>> output.shape, np.asarray(weights)[0, :, 2].tolist()
        (TensorShape([1, 2, 6]), [0.0, 0.0])

    Reference:
        Bahdanau, Cho and Bengio 2015, Neural Machine Translation by Jointly Learning to Align and
        Translate; Luong, Pham and Manning 2015, Effective Approaches to Attention-based Neural
        Machine Translation; See, Liu and Manning 2017, Get To The Point (coverage); Sennrich et al.
        2017, Nematus: a Toolkit for Neural Machine Translation (the conditional GRU).
    """

    hypotheses = True  # of a search: a step takes (B, K, D)

    def __init__(
        self,
        width: int,
        *,
        cell: str = "gru",
        score: str = "bahdanau",
        order: str | None = None,
        input_feeding: bool = True,
        depth: int = 1,
        dropout: float = 0.0,
        coverage: bool = False,
        window: int | None = None,
        predictive: bool = False,
        max_length: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if cell not in CELLS:
            raise ValueError(f"cell is {cell!r}: give one of {', '.join(CELLS)}")
        if order not in (*ORDERS, None):
            raise ValueError(f"order is {order!r}: give one of {', '.join(ORDERS)}, or None")
        if width < 1 or depth < 1:
            raise ValueError(f"width is {width} and depth is {depth}: give at least 1")
        self.width = width
        self.cell = cell
        self.score = score
        self.order = order
        self.input_feeding = input_feeding
        self.depth = depth
        self.dropout = dropout
        self.coverage = coverage
        self.window = window
        self.predictive = predictive
        self.max_length = max_length
        self.supports_masking = True
        chosen = order or ("bahdanau" if score == "bahdanau" else "luong")
        self._luong, self._conditional = chosen == "luong", chosen == "conditional"
        if not self._luong and not input_feeding:
            raise ValueError(
                f"in the order {chosen!r} the context always goes into the cell: leave "
                "input_feeding True, or set order to 'luong'"
            )
        # Names of the states of each layer: hidden and cell, hidden_1 and cell_1 ...
        self._names = [
            tuple(f"{part}_{i}" if i else part for part in _PARTS[cell]) for i in range(depth)
        ]
        self.alignment = Alignment(
            score,
            window=window,
            predictive=predictive,
            coverage=coverage,
            max_length=max_length,
            dtype=self.dtype_policy,
            name="alignment",
        )

    def build(self, x_shape: Shape, keys_shape: Shape, memory_shape: Shape) -> None:
        """Makes the cells, the alignment and the layer of the output."""
        batch, steps, features = x_shape
        self._source_steps = memory_shape[1]
        context = memory_shape[-1]
        fed = context
        if self._conditional or (self._luong and not self.input_feeding):
            fed = 0
        elif self._luong:
            fed = self.width
        # Keras draws orthogonal kernels by a QR decomposition, which has no 16-bit form.
        wide = self.variable_dtype in ("float32", "float64")
        self.recurrent_layers = []
        inputs = [features + fed, *[self.width] * (self.depth - 1)]
        if self._conditional:
            inputs.append(context)  # of the cell after attention
        for i, size in enumerate(inputs):
            layer = CELLS[self.cell](
                self.width,
                return_sequences=True,
                recurrent_initializer="orthogonal" if wide else "glorot_uniform",
                dtype=self.dtype_policy,
                name=f"{self.cell}_{i}",
            )
            layer.build((batch, steps, size))
            self.recurrent_layers.append(layer)
        self.alignment.build((batch, steps, self.width), keys_shape, memory_shape)
        self.readout = keras.layers.Dense(
            self.width, activation="tanh", dtype=self.dtype_policy, name="readout"
        )
        self._input_width = features
        width = self.width + context + (0 if self._luong else features)
        self.readout.build((batch, steps, width))
        self.dropout_layer = Dropout(self.dropout, dtype=self.dtype_policy)

    def call(
        self,
        x: Any,
        keys: Any,
        memory: Any,
        mask: Any = None,
        initial_state: Any = None,
        training: bool | None = None,
    ) -> tuple[Any, Any]:
        """Decodes all target steps."""
        prepared = self.alignment.prepare(keys, memory, mask)
        start = self._start(x, initial_state)
        if not self._luong or self.input_feeding or self.coverage:
            output, weights = self._loop(x, prepared, start, training)
        else:
            # Nothing that attention finds goes back into the cells: one loop over the cells, which
            # Keras has a fast form of, and one attention of all steps.
            h = x
            for names, layer in zip(self._names, self.recurrent_layers, strict=True):
                h = h if h is x else self.dropout_layer(h, training=training)
                h = layer(h, initial_state=[start[name] for name in names], training=training)
            context, weights = self.alignment.attend(h, prepared, training=training)
            output = self.readout(ops.concatenate([context, h], axis=-1))
        return self.dropout_layer(output, training=training), weights

    def _start(self, x: Any, initial_state: Any) -> States:
        """The states of the cells before the first step, by name, (B, W) each."""
        names = [name for layer in self._names for name in layer]
        batch = ops.shape(x)[0]
        if initial_state is None:
            given = [ops.zeros((batch, self.width), self.compute_dtype) for _ in names]
        else:
            several = isinstance(initial_state, (list, tuple))
            given = list(initial_state) if several else [initial_state]
        if len(given) != len(names):
            raise ValueError(
                f"{self.name} got {len(given)} initial states: give {len(names)}, a list of "
                f"{', '.join(names)}"
            )
        return {
            name: ops.cast(state, self.compute_dtype)
            for name, state in zip(names, given, strict=True)
        }

    def _loop(
        self, x: Any, prepared: Prepared, start: States, training: bool | None
    ) -> tuple[Any, Any]:
        """Step after step, with as little as possible in a step."""
        batch, steps = ops.shape(x)[:2]
        weights = self._weights()
        # Time first; one product for all steps.
        drives = self._drive(ops.transpose(x, (1, 0, 2)), weights[0])  # (T, B, G)
        inputs = {"drive": drives, "position": ops.arange(steps, dtype="int32")}
        if self.dropout and training and self.depth > 1:
            # What the layers keep of each other, drawn before the loop: 0 or 1 / (1 - dropout).
            ones = ops.ones((steps, batch, self.depth - 1, self.width), self.compute_dtype)
            inputs["kept"] = self.dropout_layer(ones, training=True)
        carry = dict(start)
        if self.coverage:
            none = ops.zeros((batch, 1, ops.shape(prepared.memory)[1]), self.compute_dtype)
            carry |= {"coverage": none, "weights": none}
        else:
            features = prepared.memory.shape[-1]
            carry["context"] = ops.zeros((batch, 1, features), prepared.memory.dtype)
        if self._luong and self.input_feeding:
            carry["attentional"] = ops.zeros((batch, self.width), self.compute_dtype)

        if self._conditional:
            carry["query"] = start[self._names[-1][0]]  # what attended, between the cells

        def body(carry: States, given: States) -> States:
            position = ops.reshape(given["position"], (1,))
            states, found, context = self._advance(
                given["drive"], carry, prepared, weights, position, 1, given.get("kept"), training
            )
            more = {"weights": found} if self.coverage else {"context": context}
            return {**states, **more}

        every = _scan(body, carry, inputs)
        top = self._names[-1][0]
        h = ops.transpose(every[top], (1, 0, 2))  # (B, T, W)
        if self.coverage:
            found = ops.transpose(every["weights"][:, :, 0], (1, 0, 2))  # (B, T, S)
            context = ops.matmul(found, prepared.memory)
        else:
            # The loop keeps what has a known size; the weights are computed again, all at once,
            # where somebody wants them.
            query = h
            if self._conditional:
                query = ops.transpose(every["query"], (1, 0, 2))
            elif not self._luong:
                query = ops.concatenate([start[top][:, None], h[:, :-1]], axis=1)
            _, found = self.alignment.attend(query, prepared, training=training)
            context = ops.transpose(every["context"][:, :, 0], (1, 0, 2))
        if "attentional" in every:
            return ops.transpose(every["attentional"], (1, 0, 2)), found
        return self._read(h, context, x), found

    def step_shapes(self, length: int) -> dict[str, Shape]:
        """Tells what one step has to remember.

        Args:
            length: Most steps that can be remembered; it makes no difference here.

        Returns:
            Shapes without the batch: ``hidden`` (and ``cell``) of each layer, (W,), the further
            layers' with a number behind (``hidden_1``); ``attentional`` (W,), the output that is
            fed to the next step, in Luong's order; ``coverage`` (S,), the sum of the weights so
            far, None where S is open. The first are what `initial_state` gives; all others start
            as zeros.
        """
        shapes: dict[str, Shape] = {name: (self.width,) for layer in self._names for name in layer}
        if self._luong and self.input_feeding:
            shapes["attentional"] = (self.width,)
        if self.coverage:
            shapes["coverage"] = (self._source_steps,)
        return shapes

    def step(
        self, x: Any, states: States, position: Any, keys: Any, memory: Any, mask: Any = None
    ) -> tuple[tuple[Any, Any], States]:
        """Decodes one step, of one or of several hypotheses of each source.

        Args:
            x: Features of that step, (B, 1, D); of K hypotheses of a search, (B, K, D).
            states: What the step before left, by the names of `step_shapes`: (B, ...), in a search
                (B, K, ...).
            position: Which step it is, counted from 0, (B,) int32.
            keys: (B, S, U), as in the call.
            memory: (B, S, Dm), as in the call.
            mask: (B, S) bool, as in the call.

        Returns:
            The output (B, K, W) and the weights (B, K, S); and the states for the next step.

        Example:
            >>> import numpy as np
            >>> rng = np.random.default_rng(0)
            >>> x, memory = rng.normal(size=(2, 1, 2, 4)).astype("float32")
            >>> decoder = AttentionDecoder(4, score="dot")
            >>> whole, _ = decoder(x, memory, memory)
            >>> states = {k: np.zeros((1, *s)) for k, s in decoder.step_shapes(2).items()}
            >>> _, states = decoder.step(x[:, :1], states, np.array([0]), memory, memory)
            >>> (last, _), _ = decoder.step(x[:, 1:], states, np.array([1]), memory, memory)
            >>> np.allclose(last[:, 0], whole[:, 1], atol=1e-6)
            True
        """
        beams = ops.shape(x)[1]
        alone = len(states["hidden"].shape) == 2  # no axis of hypotheses
        prepared = self.alignment.prepare(keys, memory, mask)
        weights = self._weights()
        x = ops.cast(x, self.compute_dtype)
        drive = self._drive(ops.reshape(x, (-1, self._input_width)), weights[0])
        before = {}
        for name, state in states.items():
            state = ops.cast(state, self.compute_dtype)
            if name != "coverage":
                state = ops.reshape(state, (-1, self.width))
            elif alone:
                state = ops.expand_dims(state, 1)
            before[name] = state
        after, found, context = self._advance(drive, before, prepared, weights, position, beams)
        after.pop("query", None)  # the whole sequence wants it, the next step does not
        split = {
            name: state if name == "coverage" else ops.reshape(state, (-1, beams, self.width))
            for name, state in after.items()
        }
        if "attentional" in split:
            output = split["attentional"]
        else:
            output = self._read(split[self._names[-1][0]], context, x)
        return (output, found), {k: ops.squeeze(s, 1) if alone else s for k, s in split.items()}

    def _advance(
        self,
        drive: Any,
        states: States,
        prepared: Prepared,
        weights: list[_Weights],
        position: Any,
        beams: Any,
        kept: Any = None,
        training: bool | None = None,
    ) -> tuple[States, Any, Any]:
        """One step of B sources with K hypotheses each, in B * K rows.

        `drive` (B * K, G) is what the input gives to the first layer. Returns the next states, the
        weights (B, K, S) and the context (B, K, Dm).
        """
        after: States = {}

        def attend(query: Any) -> tuple[Any, Any]:
            query = ops.reshape(query, (-1, beams, self.width))
            coverage = states.get("coverage")
            context, found = self.alignment.attend(query, prepared, coverage, position, training)
            if coverage is not None:
                after["coverage"] = coverage + found
            return context, found

        if not self._luong and not self._conditional:
            context, found = attend(states[self._names[-1][0]])
            flat = ops.reshape(context, (-1, context.shape[-1]))
            drive = drive + ops.matmul(flat, weights[0].fed)
        elif self._luong and self.input_feeding:
            drive = drive + ops.matmul(states["attentional"], weights[0].fed)
        h: Any = None
        for i, names in enumerate(self._names):
            if i:
                drive = self._drive(h if kept is None else h * kept[:, i - 1], weights[i])
            before = [states[name] for name in names]
            now = _CELLS[self.cell](drive, before, weights[i])
            after.update(zip(names, now, strict=True))
            h = now[0]
        if self._conditional:
            context, found = attend(h)
            after["query"] = h
            drive = self._drive(ops.reshape(context, (-1, context.shape[-1])), weights[-1])
            now = _CELLS[self.cell](drive, now, weights[-1])
            after.update(zip(self._names[-1], now, strict=True))
        elif self._luong:
            context, found = attend(h)
            if self.input_feeding:
                flat = ops.reshape(context, (-1, context.shape[-1]))
                after["attentional"] = self.readout(ops.concatenate([flat, h], axis=-1))
        return after, found, context

    def _read(self, h: Any, context: Any, x: Any) -> Any:
        """The output of states (B, T, W) and contexts (B, T, Dm)."""
        parts = [context, h] if self._luong else [h, context, x]
        return self.readout(ops.concatenate(parts, axis=-1))

    def _drive(self, x: Any, weights: _Weights) -> Any:
        """What an input gives to a cell: (..., D) -> (..., G)."""
        bias = weights.bias if len(weights.bias.shape) == 1 else weights.bias[0]
        return ops.matmul(x, weights.kernel) + bias

    def _weights(self) -> list[_Weights]:
        found = []
        for i, layer in enumerate(self.recurrent_layers):
            cell = layer.cell
            kernel, recurrent, bias = (
                ops.cast(ops.convert_to_tensor(w), self.compute_dtype)
                for w in (cell.kernel, cell.recurrent_kernel, cell.bias)
            )
            # Of the first layer what is fed comes after what is known before the loop.
            size = kernel.shape[0] if i else self._input_width
            fed = kernel[size:] if kernel.shape[0] > size else None
            found.append(_Weights(kernel[:size], fed, recurrent, bias))
        return found

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask: it is handed over by hand."""
        return None

    def compute_output_shape(
        self, x_shape: Shape, keys_shape: Shape, memory_shape: Shape
    ) -> tuple[Shape, Shape]:
        """Returns the shapes of the output and of the weights."""
        batch, steps = x_shape[:2]
        return (batch, steps, self.width), (batch, steps, memory_shape[1])

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "width": self.width,
            "cell": self.cell,
            "score": self.score,
            "order": self.order,
            "input_feeding": self.input_feeding,
            "depth": self.depth,
            "dropout": self.dropout,
            "coverage": self.coverage,
            "window": self.window,
            "predictive": self.predictive,
            "max_length": self.max_length,
        }


# The cells of Keras's layers, whose input's part is computed already. (N, G), [(N, W) ...] -> the
# new states.


def _rnn(drive: Any, states: list[Any], weights: _Weights) -> list[Any]:
    return [ops.tanh(drive + ops.matmul(states[0], weights.recurrent))]


def _gru(drive: Any, states: list[Any], weights: _Weights) -> list[Any]:
    (h,) = states
    inner = ops.matmul(h, weights.recurrent) + weights.bias[1]
    z, r, n = ops.split(drive, 3, axis=-1)
    z_inner, r_inner, n_inner = ops.split(inner, 3, axis=-1)
    z, r = ops.sigmoid(z + z_inner), ops.sigmoid(r + r_inner)
    n = ops.tanh(n + r * n_inner)
    return [z * h + (1 - z) * n]


def _lstm(drive: Any, states: list[Any], weights: _Weights) -> list[Any]:
    h, c = states
    gates = drive + ops.matmul(h, weights.recurrent)
    i, f, new, o = ops.split(gates, 4, axis=-1)
    c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(new)
    return [ops.sigmoid(o) * ops.tanh(c), c]


_CELLS = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}


def _scan(body: Any, carry: States, inputs: States) -> States:
    """What each step leaves, (T, ...), of any number of steps."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Keras's scan wants to know the number of steps here, and a batch of targets is as long as
        # its longest one.
        return tf.scan(body, inputs, initializer=carry)

    def twice(carry: States, given: States) -> tuple[States, States]:
        carry = body(carry, given)
        return carry, carry

    return ops.scan(twice, carry, xs=inputs)[1]
