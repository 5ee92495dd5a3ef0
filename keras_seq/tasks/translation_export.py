"""What an exported encoder-decoder can do: translate texts, and encode and step for a search."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from keras_seq.tasks.text import json_bytes, pad
from keras_seq.tasks.translator import ENCODE, STEP, TRANSLATE

if TYPE_CHECKING:
    import keras

    from keras_seq.decoding import Hypotheses, SearchModel
    from keras_seq.export import Endpoint
    from keras_seq.preprocessing import Tokenizer

_STEPPED = ("saved_model", "litert", "litert_float16", "litert_dynamic")
_TEXTS = 24  # that prove `translate`
_SOURCES = 8  # that prove `encode` and `decode_step`
_STEPS = 4
# Logits are shaken by so much to find the texts whose translation does not hang on rounding.
_SHAKEN = (1e-4, 1e-5)

# What `str.strip` takes away: a text of these alone is empty.
_EMPTY = (
    r"[\t-\r\x1c-\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]*"
)


def translation_endpoints(
    model: keras.Model,
    tokenizers: tuple[Tokenizer, Tokenizer],
    metadata: dict[str, Any],
    texts: Sequence[str],
) -> tuple[Endpoint, ...]:
    """Describes what an exported encoder-decoder can do beside its teacher-forced graph.

    ``translate`` takes raw texts (B,) and returns ``translations`` (B, N), ``scores`` (B, N),
    ``tokens`` (B, N, T), ``source_tokens`` (B, S) and, where the model has attention,
    ``alignments`` (B, N, T, S): the N of its beam, the best first, by the search that the model was
    measured with. An empty text has empty translations.

    ``encode`` takes ``source`` (B, S) and returns all that a decoder starts from; ``decode_step``
    takes that, ``tokens`` (B, 1) and ``position`` (B,), and returns ``logits`` (B, V), the next
    states under the names of the last ones and ``alignment`` (B, 1, S): a search over them is in
    `keras_seq.decoding.device_translator`.

    Args:
        model: A network from ``source`` and ``tokens`` to ``logits``.
        tokenizers: Of source and target.
        metadata: See `TranslationProblem.metadata`.
        texts: Real sources, which prove the signatures.

    Returns:
        The endpoints; `decode_step` takes any number of rows in LiteRT too.
    """
    from keras_seq.decoding import search_model

    length = int(metadata["max_length"])
    most = int(metadata["max_tokens"])
    texts = [text for text in dict.fromkeys(texts) if text.strip()][:_TEXTS]
    texts += [" ".join([text] * (most + 1)) for text in texts[:1]]  # one that is cut
    one = search_model(model, length=length, in_place=False)
    many = search_model(model, hypotheses=int(metadata["beam"]), length=length)
    ids = [tokenizers[0].encode(text)[:most] for text in texts]
    # On a GPU float32 may mean TF32 (10-bit mantissa); what proves must not be the rough one.
    with tf.device("/CPU:0"):
        return (
            _translate(many, tokenizers, metadata, texts, ids),
            *_steps(one, pad(ids[:_SOURCES])),
        )


def device_files(
    tokenizers: tuple[Tokenizer, Tokenizer], metadata: dict[str, Any]
) -> dict[str, bytes]:
    """Returns what lies beside a LiteRT file that translates, by name.

    Args:
        tokenizers: Of source and target.
        metadata: See `TranslationProblem.metadata`.
    """
    source, target = tokenizers
    found = source.device_files(int(metadata["max_tokens"]), "head")
    if target is not source:
        found["target_tokenizer.json"] = target.device_files()["tokenizer.json"]
    names = ("beam", "length_penalty", "max_length")
    found["search.json"] = json_bytes({name: metadata[name] for name in names})
    here = importlib.resources.files("keras_seq.decoding")
    found["translate.py"] = here.joinpath("device_translator.py").read_bytes()
    return found


def card_lines(metadata: dict[str, Any]) -> list[str]:
    """Returns what a model card says of the use of an exported encoder-decoder.

    Args:
        metadata: See `TranslationProblem.metadata`.
    """
    beam = int(metadata["beam"])
    search = f"beam search over {beam} hypotheses" if beam > 1 else "greedy search"
    return [
        f"SavedModel, signature `{TRANSLATE}`: `text` (B,) to `translations` (B, {beam}), the best "
        f"first, `scores` (B, {beam}), `tokens` (B, {beam}, T) and `source_tokens` (B, S); where "
        f"the model has attention, `alignments` (B, {beam}, T, S). The search is that of the "
        f"scores above: {search}, length penalty {metadata['length_penalty']:g}, at most "
        f"{metadata['max_length']} tokens.",
        f"A source of more than {metadata['max_tokens']} tokens is cut at its end; a text of "
        "blanks alone has empty translations.",
        f"LiteRT, signatures `{ENCODE}` and `{STEP}`: `litert/translate.py` searches over them in "
        "NumPy, greedily or with a beam; it needs NumPy and ai-edge-litert. The int8 file has the "
        "whole pass alone and does not translate.",
        "Latencies are those of one pass over a pair of source and target, not of a search.",
    ]


def _translate(
    search: SearchModel,
    tokenizers: tuple[Tokenizer, Tokenizer],
    metadata: dict[str, Any],
    texts: Sequence[str],
    ids: Sequence[np.ndarray],
) -> Endpoint:
    from keras_seq.decoding import BeamOptions, search_function
    from keras_seq.export import Endpoint
    from keras_seq.preprocessing import GraphDetokenizer

    options = BeamOptions(length_penalty=float(metadata["length_penalty"]))
    most = int(metadata["max_tokens"])
    read, write = tokenizers[0].graph(most), GraphDetokenizer(tokenizers[1].config())
    find = search_function(search, options, best=search.hypotheses)

    def call(inputs: dict[str, Any]) -> dict[str, Any]:
        text = inputs["text"]
        # What is no UTF-8 is made so first: regular expressions would stumble over it.
        clean = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
        empty = tf.strings.regex_full_match(clean, _EMPTY)
        source = tf.ensure_shape(read(text), (None, None))
        found = find(source, tf.zeros((tf.shape(source)[0], 0), tf.int32))
        source = tf.where(empty[:, None], 0, source)
        tokens = tf.where(empty[:, None, None], 0, found["tokens"])
        longest = tf.reduce_max(tf.reduce_sum(tf.cast(tokens > 0, tf.int32), axis=-1))
        tokens = tokens[:, :, : tf.maximum(longest, 1)]
        results = {
            "translations": write(tokens),
            "scores": tf.where(empty[:, None], 0.0, found["scores"]),
            "tokens": tokens,
            "source_tokens": source,
        }
        if search.aligned:
            alignments = found["alignments"][:, :, : tf.shape(tokens)[2]]
            results["alignments"] = tf.where(empty[:, None, None, None], 0.0, alignments)
        return results

    found = _found(search, options, ids)
    kept: list[int] = []
    for size in _SHAKEN:
        kept = kept or _steady(search, options, ids, found, size)
    # An empty text too.
    shown = [*(texts[i] for i in kept), " \t"]
    return Endpoint(
        name=TRANSLATE,
        call=call,
        inputs={"text": ((None,), "string")},
        samples={"text": np.array(shown, dtype=object)},
        expected=_expected(found, ids, kept, tokenizers[1]),
        tracked=(read, write),
        needs_tensorflow_text=tokenizers[0].needs_tensorflow_text,
    )


def _found(search: SearchModel, options: Any, ids: Sequence[np.ndarray]) -> Hypotheses:
    from keras_seq.decoding import beam_search

    return beam_search(search, pad(ids), options=options, best=search.hypotheses)


def _steady(
    search: SearchModel, options: Any, ids: Sequence[np.ndarray], found: Hypotheses, size: float
) -> list[int]:
    """The rows whose translations stay what they are when all logits move a little.

    Where two hypotheses are as good as each other, rounding decides: that proves nothing.
    """
    exact = search.step

    def step(*given: Any, **more: Any) -> Any:
        logits, states, attended = exact(*given, **more)
        noise = size * tf.sin(12.9898 * tf.range(search.vocabulary, dtype=tf.float32))
        return tf.cast(logits, tf.float32) + noise, states, attended

    moved = _found(replace(search, step=step), options, ids)
    return np.flatnonzero((moved.tokens == found.tokens).all(axis=(1, 2))).tolist()


def _expected(
    found: Hypotheses, ids: Sequence[np.ndarray], kept: list[int], target: Tokenizer
) -> dict[str, np.ndarray]:
    """What the Keras model says to the kept rows of Python's tokens, and to an empty text."""
    from keras_seq.decoding import strip

    source = pad([*(ids[i] for i in kept), np.zeros(1, np.int32)])

    def with_empty(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values[kept], np.zeros_like(values[:1])])

    tokens = with_empty(found.tokens)
    longest = max(1, int((tokens > 0).sum(axis=-1).max()))
    tokens = tokens[:, :, :longest]
    texts = [[target.decode(strip(row)) for row in of_text] for of_text in tokens]
    expected = {
        "translations": np.array(texts, dtype=object),
        "scores": with_empty(found.scores),
        "tokens": tokens,
        "source_tokens": source,
    }
    if found.alignments is not None:
        alignments = with_empty(found.alignments)
        expected["alignments"] = alignments[:, :, :longest, : source.shape[1]]
    return expected


def _steps(search: SearchModel, source: np.ndarray) -> tuple[Endpoint, Endpoint]:
    """The two signatures, with what the Keras model says to the first tokens of real sources."""
    from keras_seq.export import Endpoint
    from keras_seq.preprocessing.device_tokenizer import START

    def encode_all(inputs: dict[str, Any]) -> dict[str, Any]:
        memory = search.encode(inputs["source"])
        return _plain({**memory, **search.start(memory)})

    def step(inputs: dict[str, Any]) -> dict[str, Any]:
        given = dict(inputs)
        tokens, position = given.pop("tokens"), given.pop("position")
        states = {name: given.pop(name) for name in search.ordered}
        logits, states, attended = search.step(tokens, given, states, position)
        results = {"logits": logits[:, 0], **states}
        if attended is not None:
            results["alignment"] = attended
        return _plain(results)

    everything = encode_all({"source": tf.constant(source)})
    longer = encode_all({"source": tf.constant(np.pad(source, [[0, 0], [0, 1]]))})
    inputs: dict[str, tuple[tuple[int | None, ...], str]] = {
        "tokens": ((None, 1), "int32"),
        "position": ((None,), "int32"),
    }
    for name, x in everything.items():
        # A size is open where it is that of the source.
        sizes = zip(x.shape[1:], longer[name].shape[1:], strict=True)
        inputs[name] = ((None, *(a if a == b else None for a, b in sizes)), x.dtype.name)
    inputs = _read(step, inputs)

    def encode(inputs: dict[str, Any]) -> dict[str, Any]:
        return {name: x for name, x in encode_all(inputs).items() if name in wanted}

    wanted = set(inputs)
    begin = {name: x.numpy() for name, x in everything.items() if name in wanted}
    count, given = len(source), dict(begin)
    tokens = np.full((count, 1), START, np.int32)
    samples: dict[str, list[np.ndarray]] = {}
    expected: dict[str, list[np.ndarray]] = {}
    for place in range(min(_STEPS, search.length)):
        more = {"tokens": tokens, "position": np.full(count, place, np.int32), **given}
        found = {k: x.numpy() for k, x in step(_tensors(more)).items()}
        for where, values in ((samples, more), (expected, found)):
            for name, value in values.items():
                where.setdefault(name, []).append(value)
        tokens = found["logits"].argmax(axis=-1).astype(np.int32)[:, None]
        given |= {name: value for name, value in found.items() if name in given}
    return (
        Endpoint(
            name=ENCODE,
            call=encode,
            inputs={"source": ((None, None), "int32")},
            samples={"source": source},
            expected=begin,
            formats=_STEPPED,
        ),
        Endpoint(
            name=STEP,
            call=step,
            inputs=inputs,
            samples={name: np.concatenate(values) for name, values in samples.items()},
            expected={name: np.concatenate(values) for name, values in expected.items()},
            formats=_STEPPED,
            open_rows=True,
        ),
    )


def _read(call: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs that a call reads: some of what is encoded is there for the first states only."""
    specs = {name: tf.TensorSpec(shape, dtype) for name, (shape, dtype) in inputs.items()}
    graph = tf.function(call, autograph=False).get_concrete_function(specs)
    read = {
        name
        for name, tensor in zip(sorted(inputs), graph.inputs[: len(inputs)], strict=True)
        if tensor.consumers()
    }
    return {name: value for name, value in inputs.items() if name in read | {"tokens", "position"}}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """In float32, whatever the network computes in: a caller need not know."""
    return {
        name: tf.cast(x, tf.float32) if x.dtype.is_floating else tf.identity(x)
        for name, x in values.items()
    }


def _tensors(values: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: tf.constant(value) for name, value in values.items()}
