"""A trained language model that writes: from a run or an export to text on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seq.errors import UserError
from keras_seq.export.endpoints import STEP, step_of
from keras_seq.export.exporter import Endpoint
from keras_seq.runs import find_model

if TYPE_CHECKING:
    import keras

    from keras_seq.decoding import Stepper
    from keras_seq.preprocessing import Tokenizer

PADDING, UNKNOWN, START, END, MASK = range(5)


def generate_text(
    source: str | Path,
    prompt: str = "",
    *,
    length: int = 200,
    method: str = "sample",
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    write: Callable[[str], Any] | None = None,
) -> str:
    """Lets a trained language model write on.

    A text that was read line by line goes on after the end of a line; a document ends.

    Args:
        source: A run folder of the task language_model, a ``.keras`` file, or an exported folder
            (its ``.keras`` file, or a SavedModel or LiteRT file with the signature ``step``).
        prompt: How the text begins; "" begins where a line or a document begins.
        length: Most tokens to write.
        method: ``"sample"`` draws, ``"greedy"`` takes the likeliest.
        temperature: Below 1 bolder, above 1 wilder.
        top_k: Draws among this many likeliest tokens; None: all.
        top_p: Draws among the fewest likeliest tokens that have this share together; None: all.
        seed: Of the draws; the same gives the same text.
        write: Called with each piece of text as it comes, the prompt first; None: nothing.

    Returns:
        The whole text, prompt included.

    Raises:
        UserError: If the source is no language model that predicts the next token, or an option
            is out of range.
    """
    from keras_seq.decoding import stream
    from keras_seq.preprocessing import Tokenizer

    stepper, metadata = open_stepper(source)
    tokenizer = Tokenizer.from_config(metadata["tokenizer"])
    lines = bool(metadata.get("lines", True))
    ids = _prompt_ids(tokenizer, prompt)
    # Checks the options before anything is written.
    tokens = stream(
        stepper,
        ids,
        length=length,
        method=method,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        end=None if lines else END,
        never=(PADDING, UNKNOWN, START, MASK),
    )
    pieces = [prompt]
    if write is not None and prompt:
        write(prompt)
    for piece in _pieces(tokenizer, ids if prompt else [], tokens):
        pieces.append(piece)
        if write is not None:
            write(piece)
    return "".join(pieces)


def _prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    if prompt:
        return [int(i) for i in tokenizer.encode(prompt)]
    if tokenizer.kind in ("characters", "bytes"):
        first = [int(i) for i in tokenizer.encode("\n")]
        if first != [UNKNOWN]:
            return first
    return [END]  # what stands before a line or a document


def _pieces(tokenizer: Tokenizer, ids: list[int], tokens: Iterator[int]) -> Iterator[str]:
    """What each token adds to the text; half of a character waits for its other half."""
    line = list(ids)
    shown = tokenizer.decode(line) if line else ""
    for token in tokens:
        if token == END:
            line, shown = [], ""
            yield "\n"
            continue
        line.append(token)
        text = tokenizer.decode(line)
        if not text.endswith("\ufffd"):
            yield text[len(shown) :]
            shown = text


def open_stepper(source: str | Path) -> tuple[Stepper, dict[str, Any]]:
    """Opens what a run or an export left, ready to write on.

    Args:
        source: As for `generate_text`.

    Returns:
        The step of the model, and the metadata.

    Raises:
        UserError: If there is no language model that predicts the next token.
    """
    kind, found, metadata = find_model(source)
    _check_metadata(source, metadata)
    if kind == "keras":
        from keras_seq import saving

        return model_stepper(saving.load(found), length=metadata.get("context")), metadata
    if kind == "saved_model":
        return _of_saved_model(found, metadata), metadata
    return _of_litert(found, metadata), metadata


def _check_metadata(source: str | Path, metadata: dict[str, Any]) -> None:
    if metadata.get("task") != "language_model" or "tokenizer" not in metadata:
        raise UserError(
            f"{source} is no language model (its task is {metadata.get('task', 'not known')}): "
            "give a run of keras-seq compare language_model"
        )
    if metadata.get("objective", "next") != "next":
        raise UserError(
            f"{source} was trained to fill gaps (--objective {metadata['objective']}): writing "
            "wants a model trained with --objective next"
        )


def model_stepper(model: keras.Model, *, length: int | None = None) -> Stepper:
    """Makes a step of a language model, with a memory where its layers allow it.

    Args:
        model: From ids to logits at each step; the trained network, or what was shipped with that
            network inside.
        length: The most positions that attention sees: those it was trained on.

    Returns:
        The step; without a memory, and slow, where a layer has no step of its own.

    Raises:
        UserError: If the model is no language model.
    """
    from keras_seq.decoding import stepper, whole_stepper

    inner = _network(model)
    own = inner.input["tokens"].shape[1] if isinstance(inner.input, dict) else None
    length = min(length or own or 256, own or length or 256)
    try:
        return stepper(inner, length=length)
    except UserError:
        return whole_stepper(inner, length=length)


def _network(model: keras.Model) -> keras.Model:
    """The trained network inside a shipped model that only passes its logits on, or the model."""
    import keras

    found = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    others = [
        layer
        for layer in model.layers
        if layer not in found
        and not isinstance(layer, (keras.layers.InputLayer, keras.layers.Identity))
    ]
    return found[0] if len(found) == 1 and not others else model


def step_endpoint(
    model: keras.Model, tokens: np.ndarray, *, length: int | None = None
) -> Endpoint | None:
    """Describes one step of a language model as a signature of what is exported.

    Args:
        model: As for `model_stepper`.
        tokens: Real ids, (N, T), that prove it; without padding in the first steps.
        length: Most positions that attention remembers: the size of the exported memory.

    Returns:
        The endpoint ``step``: ``tokens`` (B, 1), ``position`` (B,) and the states to ``logits``
        (B, V) and the states; for SavedModel and LiteRT. None for a model without a step.
    """
    from keras import ops

    from keras_seq.decoding import step_model, stepper

    try:
        step = step_model(_network(model), length=length)
    except UserError:
        return None
    rows = [row for row in np.asarray(tokens) if np.all(row[:4] > 0) and len(row) >= 4][:8]
    if not rows:
        return None
    text = np.stack([row[:4] for row in rows]).astype("int32")
    states = {k: ops.convert_to_numpy(v) for k, v in stepper(step).start(len(rows)).items()}
    calls = [{"tokens": text[:, t : t + 1]} for t in range(min(text.shape[1], length or 4))]
    return step_of(step, calls, states, formats=("saved_model", "litert"))


def _context(states: dict[str, tuple[tuple[int, ...], str]], metadata: dict[str, Any]) -> Any:
    """A memory of one vector each has no end; one of keys and values does."""
    if all(len(shape) == 1 for shape, _ in states.values()):
        return None
    sizes = [shape[1] for shape, _ in states.values() if len(shape) == 3]
    return min([*sizes, *([metadata["context"]] if "context" in metadata else [])], default=None)


def _of_saved_model(folder: Path, metadata: dict[str, Any]) -> Stepper:
    import tensorflow as tf

    from keras_seq.decoding import Stepper

    loaded = tf.saved_model.load(str(folder))
    if STEP not in loaded.signatures:
        raise UserError(
            f"{folder} has no signature {STEP!r}: export the run again, or give the run"
        )
    call = loaded.signatures[STEP]
    states = {
        name: (tuple(spec.shape[1:]), spec.dtype.name)
        for name, spec in call.structured_input_signature[1].items()
        if name not in ("tokens", "position")
    }

    def step(tokens: Any, states: dict[str, Any], position: Any) -> tuple[Any, dict[str, Any]]:
        found = dict(call(tokens=tokens[:, None], position=position, **states))
        return found.pop("logits"), found

    # The loaded object owns the variables: it lives as long as the function.
    step.owner = loaded  # type: ignore[attr-defined]
    return Stepper(step, states, _context(states, metadata))


def _of_litert(file: Path, metadata: dict[str, Any]) -> Stepper:
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from keras_seq.decoding import Stepper

    interpreter = Interpreter(str(file))
    if STEP not in interpreter.get_signature_list():
        raise UserError(f"{file} has no signature {STEP!r}: export the run again, or give the run")
    call = interpreter.get_signature_runner(STEP)
    details = call.get_input_details()
    states = {
        name: (tuple(int(size) for size in item["shape"][1:]), np.dtype(item["dtype"]).name)
        for name, item in details.items()
        if name not in ("tokens", "position")
    }
    order = sorted(states)

    def run(tokens: np.ndarray, position: np.ndarray, *values: np.ndarray) -> list[np.ndarray]:
        rows = []
        for i in range(len(tokens)):  # the file takes one row at a time
            given = {name: value[i : i + 1] for name, value in zip(order, values, strict=True)}
            rows.append(call(tokens=tokens[i : i + 1, None], position=position[i : i + 1], **given))
        return [np.concatenate([row[name] for row in rows]) for name in ("logits", *order)]

    def step(tokens: Any, states: dict[str, Any], position: Any) -> tuple[Any, dict[str, Any]]:
        types = [tf.float32, *(states[name].dtype for name in order)]
        given = [tokens, position, *(states[name] for name in order)]
        logits, *after = tf.numpy_function(run, given, types, stateful=False)
        for name, value in zip(order, after, strict=True):
            value.set_shape(states[name].shape)
        logits.set_shape((tokens.shape[0], vocabulary))
        return logits, dict(zip(order, after, strict=True))

    vocabulary = int(call.get_output_details()["logits"]["shape"][-1])
    return Stepper(step, states, _context(states, metadata))
