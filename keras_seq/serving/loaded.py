"""One version of a model in memory: a SavedModel in a session, as TensorFlow Serving holds it.

A session takes arrays and gives arrays, and finds signatures by the names that stand in the file,
so that any SavedModel is served as the official server does it. It is also quicker to load and to
call than the objects that `tf.saved_model.load` makes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_seq.errors import UserError
from keras_seq.serving.failures import ServingError, invalid

Values = dict[str, np.ndarray]
DEFAULT = "serving_default"
#: Packages with operators that an export may need. Nothing else is imported because a file says so.
_OPERATORS = ("tensorflow_text",)


@dataclass(frozen=True)
class TensorInfo:
    """What a signature says of one tensor.

    Args:
        name: Its name in the graph.
        dtype: Type of its values.
        shape: Sizes, None where open; None if not even their number is known.
    """

    name: str
    dtype: Any
    shape: tuple[int | None, ...] | None

    def described(self) -> str:
        """Writes the shape as TensorFlow Serving does, open sizes as -1."""
        if self.shape is None:
            return "[?]"
        return "[" + ",".join("-1" if size is None else str(size) for size in self.shape) + "]"


class Signature:
    """A named signature, ready to be called.

    Args:
        name: What clients ask for.
        inputs: Name to what the file says of each.
        outputs: The same.
        call: Takes the inputs in the order of their names, returns the outputs in theirs.
    """

    def __init__(
        self,
        name: str,
        inputs: dict[str, TensorInfo],
        outputs: dict[str, TensorInfo],
        call: Callable[..., list[np.ndarray]],
    ) -> None:
        self.name = name
        self.inputs = inputs
        self.outputs = outputs
        self._call = call

    @property
    def joinable(self) -> bool:
        """Whether rows of different requests may be put into one call.

        Only where each row is known to stand for itself: the default signature, whose export is
        proved at several batch sizes. Texts are left alone, since their tokens are padded to the
        longest row, and so are further signatures, which may carry states from row to row.
        """
        every = [*self.inputs.values(), *self.outputs.values()]
        open_rows = all(info.shape and info.shape[0] is None for info in every)
        texts = any(info.dtype == tf.string for info in self.inputs.values())
        return self.name == DEFAULT and bool(self.inputs) and open_rows and not texts

    def check(self, values: Values) -> Values:
        """Checks what a client sent.

        Args:
            values: Name to array, in the types of the signature.

        Returns:
            The same.

        Raises:
            ServingError: If a name is missing or unknown, or a shape does not fit.
        """
        if set(values) != set(self.inputs):
            sent, wanted = set(values), set(self.inputs)
            raise invalid(
                f"input size does not match signature: {len(sent)}!={len(wanted)} "
                f"len({{{_names(sent)}}}) != len({{{_names(wanted)}}}). "
                f"Sent extra: {{{_names(sent - wanted)}}}. "
                f"Missing but required: {{{_names(wanted - sent)}}}."
            )
        for name, info in self.inputs.items():
            shape = values[name].shape
            if info.shape is not None and (
                len(shape) != len(info.shape)
                or any(
                    wanted not in (None, size)
                    for wanted, size in zip(info.shape, shape, strict=True)
                )
            ):
                sizes = ",".join(map(str, shape))
                raise invalid(
                    f"input {name} has shape [{sizes}], and the signature takes {info.described()}"
                )
        return values

    def run(self, values: Values) -> Values:
        """Computes the outputs; may be called from several threads at once.

        Args:
            values: Checked inputs.

        Returns:
            Name of each output to its values.
        """
        answers = self._call(*(values[name] for name in self.inputs))
        return dict(zip(self.outputs, answers, strict=True))


class LoadedModel:
    """A SavedModel that was loaded from disk.

    Args:
        folder: The version's folder, with ``saved_model.pb``.

    Raises:
        UserError: If the folder is no SavedModel that can be served.
    """

    def __init__(self, folder: Path) -> None:
        _import_operators(folder)
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        self._lock = threading.Lock()
        try:
            with graph.as_default(), _quiet():
                meta = tf.compat.v1.saved_model.load(
                    self._session, [tf.saved_model.SERVING], str(folder)
                )
            #: The signatures as protocol buffers, for the metadata.
            self.signature_defs = dict(meta.signature_def)
            # The rest of the graph's description is large, and is not needed any more.
            graph.finalize()
        except Exception as error:
            self._session.close()
            lines = [line for line in str(error).splitlines() if line.strip()]
            text = lines[0][:300] if lines else type(error).__name__
            raise UserError(f"{folder} cannot be loaded: {text}") from error
        self._signatures: dict[str, Signature] = {}

    def signature(self, name: str) -> Signature:
        """Finds a signature.

        Args:
            name: Its name; an empty one stands for ``serving_default``.

        Raises:
            ServingError: If there is none of that name.
        """
        name = name or DEFAULT
        found = self._signatures.get(name)
        if found is not None:
            return found
        with self._lock:
            if name not in self._signatures:
                self._signatures[name] = self._make(name)
            return self._signatures[name]

    def _make(self, name: str) -> Signature:
        definition = self.signature_defs.get(name)
        if definition is None:
            raise invalid(f'Serving signature name: "{name}" not found in signature def')
        inputs = {key: _info(definition.inputs[key]) for key in sorted(definition.inputs)}
        outputs = {key: _info(definition.outputs[key]) for key in sorted(definition.outputs)}
        every = [*inputs.values(), *outputs.values()]
        if not outputs or any(":" not in info.name for info in every):
            raise ServingError("UNIMPLEMENTED", f"the signature {name!r} cannot be called")
        call = self._session.make_callable(
            [info.name for info in outputs.values()],
            feed_list=[info.name for info in inputs.values()],
        )
        return Signature(name, inputs, outputs, call)

    def prepare(self) -> None:
        """Makes every signature that can be called ready, which takes TensorFlow a while."""
        for name in self.signature_defs:
            with contextlib.suppress(ServingError):
                self.signature(name)

    def close(self) -> None:
        """Gives the memory back; nothing may be called any more."""
        self._signatures.clear()
        self._session.close()


def _info(proto: Any) -> TensorInfo:
    shape = None
    if not proto.tensor_shape.unknown_rank:
        shape = tuple(None if dim.size < 0 else int(dim.size) for dim in proto.tensor_shape.dim)
    name = proto.name if proto.WhichOneof("encoding") in (None, "name") else ""
    dtype = tf.dtypes.as_dtype(proto.dtype) if proto.dtype else None
    return TensorInfo(name, dtype, shape)


def _names(names: set[str]) -> str:
    return ",".join(sorted(names))


def _import_operators(folder: Path) -> None:
    """Imports the operators that the export's report says the file needs."""
    try:
        report = json.loads((folder.parent / "parity.json").read_text("utf-8"))
        needs = report["formats"]["saved_model"].get("needs", [])
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return
    for package in _OPERATORS:
        if package in needs:
            try:
                __import__(package)
            except ImportError as error:
                raise UserError(
                    f"{folder} needs the operators of {package}: pip install "
                    f"{package.replace('_', '-')}"
                ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TensorFlow from logging that sessions are old: they are what its server runs, too."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
