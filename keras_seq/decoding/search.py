"""What a search over an encoder-decoder goes on: the encoder, one step, and their memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_seq.decoding.follow import follow
from keras_seq.errors import UserError
from keras_seq.heads.translation import check_encoder_decoder
from keras_seq.preprocessing.device_tokenizer import END, START

Tensors = dict[str, Any]


@dataclass(frozen=True, eq=False)
class SearchModel:
    """An encoder-decoder taken apart for a search that follows K hypotheses of each source.

    Args:
        encode: ``source (B, S) -> memory``, tensors by name, (B, ...).
        step: ``(tokens (B, K), memory, states, position (B,), ancestry (B, K, L) or None) ->
            (logits (B, K, V), states, alignment (B, K, S) or None)``, in TensorFlow operations.
        start: ``memory -> states`` before the first token.
        ordered: Name of each state to whether its second axis is that of the hypotheses, so that
            it is put in order when they change; the others hold all of them side by side.
        hypotheses: K.
        length: The most positions, L.
        vocabulary: V.
        aligned: Whether the step tells what it attends to.
        compile: Whether XLA compiles the searches.
    """

    encode: Callable[[Any], Tensors]
    step: Callable[..., tuple[Any, Tensors, Any]]
    start: Callable[[Tensors], Tensors]
    ordered: Mapping[str, bool]
    hypotheses: int
    length: int
    vocabulary: int
    aligned: bool
    compile: bool = False
    # The searches traced so far, by their settings: tracing costs more than a batch of sentences.
    traced: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def function(self, search: Callable[..., Any]) -> Any:
        """Makes a graph of a whole search, compiled where this is asked for.

        Args:
            search: A function of tensors.
        """
        return tf.function(
            search,
            autograph=False,
            jit_compile=self.compile or None,
            # XLA wants to know every size.
            reduce_retracing=not self.compile,
        )


def search_model(
    model: keras.Model,
    *,
    hypotheses: int = 1,
    length: int = 64,
    in_place: bool = True,
    compile: bool = False,
) -> SearchModel:
    """Takes an encoder-decoder apart: the encoder runs once, then one step for each token.

    Args:
        model: A functional model from ``source`` (B, S) and ``tokens`` (B, T) to ``logits``
            (B, T, V), made with the head `Translation`.
        hypotheses: How many are followed of each source: 1 for greedy search and sampling, the
            beam for beam search.
        length: The most tokens of a target, with its end.
        in_place: Whether a step writes into the states that it is given, which is faster; a step
            that is exported by itself must not.
        compile: Whether XLA compiles the searches: seconds for each shape of a batch, and then
            greedy ones take two thirds of the time. Wide beams do not gain.

    Returns:
        The parts, checked against the whole model.

    Raises:
        UserError: If the model is no encoder-decoder, a layer has no step, or the steps do not add
            up to the whole.

    Example:
        >>> import keras_seq
        >>> from keras_seq.heads import Tokens, Translation
        >>> head = Translation(Tokens(20, width=8), Tokens(20, width=8))
        >>> inputs = {"source": (None,), "tokens": (None,)}
        >>> model = keras_seq.build("seq2seq", inputs=inputs, head=head, width=8)
        >>> sorted(search_model(model, hypotheses=2, length=6).ordered)
        ['decoder_lstm_0_cell', 'decoder_lstm_0_hidden']

    Reference:
        Shazeer 2019, Fast Transformer Decoding (the memory of keys and values).
    """
    if hypotheses < 1:
        raise UserError(f"the beam is {hypotheses}: give at least 1")
    if length < 1:
        raise UserError(f"the most tokens of a target is {length}: give at least 1")
    check_encoder_decoder(model, "a search")
    update = "slice" if compile else "in_place" if in_place else "choice"
    parts = follow(model, length, hypotheses, update=update)
    encode: Any = parts.encode
    one = parts.step
    shapes = {
        name: (tuple(one.input[name].shape[1:]), one.input[name].dtype) for name in parts.states
    }
    memory_names = [n for n in encode.output if n in one.input]

    def step(
        tokens: Any, memory: Tensors, states: Tensors, position: Any, ancestry: Any = None
    ) -> tuple[Any, Tensors, Any]:
        inputs = {"tokens": tokens, "position": position, **states}
        inputs |= {name: memory[name] for name in memory_names}
        if hypotheses > 1:
            inputs["ancestry"] = ancestry
        outputs = dict(one(inputs, training=False))
        return outputs.pop("logits"), outputs, outputs.pop("alignment", None)

    def start(memory: Tensors) -> Tensors:
        first = next(iter(memory.values()))
        batch = tf.shape(first)[0]
        states = {}
        for name, (shape, dtype) in shapes.items():
            if name in parts.starts:
                states[name] = tf.repeat(memory[parts.starts[name]][:, None], hypotheses, axis=1)
                continue
            # An open axis is that of the source's steps.
            sizes = [_source_steps(memory) if n is None else n for n in shape]
            if update != "in_place":
                states[name] = tf.zeros([batch, *sizes], dtype)
                continue
            # Steps write into it where it stands: it must be new memory at every search, and no
            # constant, which all searches would share.
            states[name] = tf.raw_ops.Empty(shape=[batch, *sizes], dtype=dtype, init=True)
        return states

    found = SearchModel(
        encode=lambda source: dict(encode({"source": source}, training=False)),
        step=step,
        start=start,
        ordered=dict(parts.states),
        hypotheses=hypotheses,
        length=length,
        vocabulary=int(model.output["logits"].shape[-1]),
        aligned="alignment" in one.output,
        compile=compile,
    )
    _check(model, found)
    return found


def _source_steps(memory: Tensors) -> Any:
    masks = [x for x in memory.values() if x.dtype == tf.bool and len(x.shape) == 2]
    if not masks:
        raise UserError(
            "a state of the decoder is as long as the source, whose mask the decoder does not read"
        )
    return tf.shape(masks[0])[1]


def average(models: Sequence[SearchModel]) -> SearchModel:
    """Joins search models: each token has the mean of the probabilities that they give it.

    Args:
        models: Of one vocabulary, number of hypotheses and length.

    Returns:
        One search model; its alignment is the mean of those that have one.

    Raises:
        UserError: If they do not fit together.

    Example:
        >>> import keras_seq
        >>> from keras_seq.heads import Tokens, Translation
        >>> head = Translation(Tokens(20, width=8), Tokens(20, width=8))
        >>> inputs = {"source": (None,), "tokens": (None,)}
        >>> model = keras_seq.build("seq2seq", inputs=inputs, head=head, width=8)
        >>> average([search_model(model, length=6), search_model(model, length=9)])
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: the models of an ensemble differ in length: 6 and 9
    """
    first = models[0]
    for other in models[1:]:
        for name in ("hypotheses", "length", "vocabulary"):
            if getattr(other, name) != getattr(first, name):
                raise UserError(
                    f"the models of an ensemble differ in {name}: {getattr(first, name)} and "
                    f"{getattr(other, name)}"
                )

    def split(joined: Tensors, index: int) -> Tensors:
        mark = f"{index}/"
        return {k[len(mark) :]: v for k, v in joined.items() if k.startswith(mark)}

    def join(parts: Sequence[Tensors]) -> Tensors:
        return {f"{i}/{name}": x for i, part in enumerate(parts) for name, x in part.items()}

    def step(
        tokens: Any, memory: Tensors, states: Tensors, position: Any, ancestry: Any = None
    ) -> tuple[Any, Tensors, Any]:
        each = [
            m.step(tokens, split(memory, i), split(states, i), position, ancestry)
            for i, m in enumerate(models)
        ]
        logs = [tf.nn.log_softmax(tf.cast(logits, tf.float32)) for logits, _, _ in each]
        mean = tf.reduce_logsumexp(tf.stack(logs), axis=0) - float(np.log(len(models)))
        aligned = [alignment for _, _, alignment in each if alignment is not None]
        alignment = tf.add_n(aligned) / len(aligned) if aligned else None
        return mean, join([after for _, after, _ in each]), alignment

    return SearchModel(
        encode=lambda source: join([m.encode(source) for m in models]),
        step=step,
        start=lambda memory: join([m.start(split(memory, i)) for i, m in enumerate(models)]),
        ordered={f"{i}/{k}": v for i, m in enumerate(models) for k, v in m.ordered.items()},
        hypotheses=first.hypotheses,
        length=first.length,
        vocabulary=first.vocabulary,
        aligned=any(m.aligned for m in models),
        compile=first.compile,
    )


def _check(model: keras.Model, found: SearchModel) -> None:
    """Refuses a step that does not compute what the whole model computes."""
    rng = np.random.default_rng(0)
    count, k = min(found.length, 5), found.hypotheses
    sources = int(model.input["source"].shape[1] or 6)
    highest = min(found.vocabulary, 100)
    source = rng.integers(min(END + 1, highest - 1), highest, (2, sources)).astype("int32")
    source[1, sources // 2 :] = 0
    target = rng.integers(min(END + 1, highest - 1), highest, (2, k, count)).astype("int32")
    target[:, :, 0] = START
    memory = found.encode(tf.constant(source))
    states = found.start(memory)
    ancestry = tf.tile(tf.range(k)[None, :, None], (2, 1, found.length)) if k > 1 else None
    parts = []
    for t in range(count):
        tokens, place = tf.constant(target[:, :, t]), tf.fill((2,), t)
        logits, states, _ = found.step(tokens, memory, states, place, ancestry)
        parts.append(keras.ops.convert_to_numpy(logits))
    own = int(model.input["tokens"].shape[1] or count)
    padded = np.zeros((2 * k, own), "int32")
    padded[:, :count] = target.reshape(2 * k, count)
    whole = model({"source": np.repeat(source, k, 0), "tokens": padded}, training=False)["logits"]
    whole = keras.ops.convert_to_numpy(whole).reshape(2, k, own, -1)[:, :, :count]
    found_logits = np.stack(parts, 2)
    far = float(np.max(np.abs(found_logits - whole)) / max(1e-6, np.max(np.abs(whole))))
    narrow = any(layer.compute_dtype != "float32" for layer in model.layers)
    if not far <= (0.1 if narrow else 1e-3):
        raise UserError(
            f"the steps of the model {model.name!r} do not add up to the whole (they differ by "
            f"{far:.2g} of the largest score): a layer of it mixes steps and has no step of its "
            "own; give it step and step_shapes (see keras_seq.layers.steps)"
        )
