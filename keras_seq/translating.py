"""Opening what a run of translation left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seq.errors import UserError
from keras_seq.runs import find_model
from keras_seq.tasks.translator import ENCODE, STEP, Translator

if TYPE_CHECKING:
    from keras_seq.decoding import SearchModel


def open_translator(run: str | Path, **options: Any) -> Translator:
    """Opens the translator that a run or an export left.

    Args:
        run: A run folder of the task translation, an exported folder (its ``.keras`` file,
            SavedModel or float32 LiteRT file, whichever comes first), or a ``.keras`` file.
        **options: As for `Translator`.

    Raises:
        UserError: If there is none.
    """
    from keras_seq import saving
    from keras_seq.compare import inner_model

    kind, path, metadata = find_model(run)
    if metadata.get("task") != "translation":
        raise UserError(
            f"{run} is of the task {metadata.get('task') or 'unknown'}: give a run of translation"
        )
    if kind == "keras":
        return Translator(inner_model(saving.load(path)), metadata, **options)
    longest = int(metadata["max_length"])
    model = (_of_saved_model if kind == "saved_model" else _of_litert)(path, longest)
    return Translator(model, metadata, **options)


@dataclass(frozen=True)
class ExportedModel:
    """An encoder-decoder in an exported file, for a search over its two signatures.

    Args:
        encode: ``source (B, S) -> all that a decoder starts from``, by name.
        step: ``(inputs by name) -> logits (B, V), states, alignment (B, 1, S)``; B is the number
            of all hypotheses.
        states: Names of the states.
        vocabulary: V.
        longest: The most tokens of a target that the file remembers.
        aligned: Whether there is an alignment.
    """

    encode: Callable[[Any], dict[str, Any]]
    step: Callable[[dict[str, Any]], dict[str, Any]]
    states: tuple[str, ...]
    vocabulary: int
    longest: int
    aligned: bool

    def search_model(self, *, hypotheses: int, length: int) -> SearchModel:
        """Makes what a search goes on: hypotheses become rows for each step.

        Args:
            hypotheses: How many are followed of each source, K.
            length: The most tokens of a target.

        Raises:
            UserError: If the file does not remember so many.
        """
        import tensorflow as tf

        from keras_seq.decoding import SearchModel

        if length > self.longest:
            raise UserError(
                f"--max-length is {length}, and the exported file remembers {self.longest} tokens: "
                f"give at most {self.longest}, or the run"
            )
        names = self.states

        def encode(source: Any) -> dict[str, Any]:
            found = self.encode(source)
            return {
                name: tf.tile(x[:, None], [1, hypotheses, *[1] * (len(x.shape) - 1)])
                for name, x in found.items()
            }

        def step(
            tokens: Any, memory: Any, states: Any, position: Any, ancestry: Any = None
        ) -> tuple[Any, dict[str, Any], Any]:
            given = {name: _fold(x) for name, x in {**memory, **states}.items()}
            given["tokens"] = tf.reshape(tokens, (-1, 1))
            given["position"] = tf.repeat(position, hypotheses)
            found = {name: _unfold(x, hypotheses) for name, x in self.step(given).items()}
            after = {name: tf.ensure_shape(found[name], states[name].shape) for name in names}
            alignment = found["alignment"][:, :, 0] if self.aligned else None
            return found["logits"], after, alignment

        return SearchModel(
            encode=encode,
            step=step,
            start=lambda memory: {name: memory[name] for name in names},
            ordered=dict.fromkeys(names, True),
            hypotheses=hypotheses,
            length=length,
            vocabulary=self.vocabulary,
            aligned=self.aligned,
        )


def _fold(x: Any) -> Any:
    """(B, K, ...) -> (B K, ...)."""
    import tensorflow as tf

    sizes = [tf.shape(x)[i] if n is None else n for i, n in enumerate(x.shape)]
    return tf.reshape(x, [-1, *sizes[2:]])


def _unfold(x: Any, count: int) -> Any:
    """(B K, ...) -> (B, K, ...)."""
    import tensorflow as tf

    sizes = [tf.shape(x)[i] if n is None else n for i, n in enumerate(x.shape)]
    return tf.reshape(x, [-1, count, *sizes[1:]])


def _of_saved_model(folder: Path, longest: int) -> ExportedModel:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    _check_signatures(folder, loaded.signatures)
    encode, step = loaded.signatures[ENCODE], loaded.signatures[STEP]
    outputs = step.structured_outputs

    def run(given: dict[str, Any]) -> dict[str, Any]:
        return step(**given)

    # The loaded object owns the variables: it lives as long as the function.
    run.owner = loaded  # type: ignore[attr-defined]
    return ExportedModel(
        encode=lambda source: encode(source=source),
        step=run,
        states=tuple(sorted(set(step.structured_input_signature[1]) & set(outputs))),
        vocabulary=int(outputs["logits"].shape[-1]),
        longest=longest,
        aligned="alignment" in outputs,
    )


def _of_litert(file: Path, longest: int) -> ExportedModel:
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    _check_signatures(file, interpreter.get_signature_list())
    encode, step = (interpreter.get_signature_runner(name) for name in (ENCODE, STEP))
    inputs, outputs = step.get_input_details(), step.get_output_details()
    vocabulary = int(outputs["logits"]["shape"][-1])
    shapes: dict[str, list[int | None]] = {
        name: [None if n < 0 else int(n) for n in item["shape_signature"]]
        for name, item in inputs.items()
    }
    shapes |= {"logits": [None, vocabulary], "alignment": [None, 1, None]}
    types = {name: tf.as_dtype(item["dtype"]) for name, item in {**outputs, **inputs}.items()}
    encoded, stepped = sorted(encode.get_output_details()), sorted(outputs)

    def shaped(names: list[str], function: Any, given: list[Any]) -> dict[str, Any]:
        """Calls a function of arrays inside a graph."""
        found = tf.numpy_function(function, given, [types[name] for name in names], stateful=False)
        for name, value in zip(names, found, strict=True):
            value.set_shape(shapes[name])
        return dict(zip(names, found, strict=True))

    def encode_rows(source: np.ndarray) -> list[np.ndarray]:
        # The file takes one source at a time.
        rows = [encode(source=source[i : i + 1]) for i in range(len(source))]
        return [np.concatenate([row[name] for row in rows]) for name in encoded]

    def run(given: dict[str, Any]) -> dict[str, Any]:
        order = sorted(given)

        def call(*values: np.ndarray) -> list[np.ndarray]:
            found = step(**dict(zip(order, values, strict=True)))
            return [found[name] for name in stepped]

        return shaped(stepped, call, [given[name] for name in order])

    return ExportedModel(
        encode=lambda source: shaped(encoded, encode_rows, [source]),
        step=run,
        states=tuple(sorted(set(inputs) & set(outputs))),
        vocabulary=vocabulary,
        longest=longest,
        aligned="alignment" in outputs,
    )


def _check_signatures(path: Path, signatures: Any) -> None:
    missing = [name for name in (ENCODE, STEP) if name not in signatures]
    if missing:
        raise UserError(
            f"{path} has no signature {missing[0]!r}: export the run again, or give the run"
        )
