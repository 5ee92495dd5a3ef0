"""A model under test: how it is built and run, here and in a new process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_seq.testing.report import Arrays, CheckFailure


@dataclass
class Subject:
    """A functional model with dict inputs and outputs, and what it promises.

    `make` builds it under a dtype policy; `steps` is the size of the time axis T.
    """

    make: Callable[[str | None], keras.Model]
    samples: Arrays
    steps: int
    masked: str | None = None
    causal: bool = False
    fixed_length: bool = True
    modules: tuple[str, ...] = ()

    @cached_property
    def model(self) -> keras.Model:
        """The model, built once."""
        return self.make(None)

    @cached_property
    def outputs(self) -> Arrays:
        """What the model makes of the samples."""
        return self.run(self.samples)

    def run(self, samples: Arrays) -> Arrays:
        """Returns the outputs by name."""
        return run_model(self.model, samples)

    def values(self) -> list[str]:
        """The inputs that carry values along time, the mask apart."""
        return [
            name
            for name, x in self.samples.items()
            if name != self.masked and x.ndim > 1 and x.shape[1] == self.steps
        ]

    def disturbed(self, where: np.ndarray) -> Arrays:
        """The samples with other values where `where` (B, T) is true."""
        generator = np.random.default_rng(1)
        changed = dict(self.samples)
        for name in self.values():
            x = self.samples[name]
            other: np.ndarray
            if np.issubdtype(x.dtype, np.floating):
                other = 30 * generator.normal(size=x.shape)
            else:
                other = generator.integers(x.min(), x.max() + 1, size=x.shape)
            spread = where.reshape(where.shape + (1,) * (x.ndim - 2))
            changed[name] = np.where(spread, other, x).astype(x.dtype)
        return changed

    def cut(self, y: np.ndarray, keep: Any) -> np.ndarray:
        """Keeps some steps of every time axis of one row's output (without the batch axis)."""
        for axis, size in enumerate(y.shape):
            if size == self.steps:
                y = np.take(y, keep, axis=axis)
        return y


def run_model(model: Callable[..., Any], samples: Arrays) -> Arrays:
    """Runs a model without training and returns its outputs by name."""
    outputs = model({k: keras.ops.convert_to_tensor(v) for k, v in samples.items()}, training=False)
    return to_arrays(outputs)


def to_arrays(outputs: Any) -> Arrays:
    """Returns outputs of any structure as arrays by name."""
    return {name: np.asarray(keras.ops.convert_to_numpy(y)) for name, y in by_name(outputs).items()}


def by_name(outputs: Any) -> dict[str, Any]:
    """Returns outputs of any structure by name."""
    if isinstance(outputs, Mapping):
        return dict(outputs)
    if isinstance(outputs, list | tuple):
        flat = keras.tree.flatten(outputs)
        return {f"output_{i}": y for i, y in enumerate(flat)}
    return {"output": outputs}


def keras_inputs(samples: Arrays, fixed: int | None, steps: int) -> dict[str, Any]:
    """Keras inputs for the samples; a time axis is left open unless its length is fixed."""
    return {
        name: keras.Input(
            tuple(
                fixed if i == 0 and size == steps else size for i, size in enumerate(x.shape[1:])
            ),
            name=name,
            dtype=x.dtype.name if x.dtype != np.float64 else "float32",
        )
        for name, x in samples.items()
    }


def input_names(model: keras.Model) -> list[str]:
    """Returns the names of a functional model's inputs."""
    return [tensor.name for tensor in model.inputs]


@contextmanager
def dtype_policy(policy: str | None) -> Iterator[None]:
    """Sets the global dtype policy for a while; None leaves it as it is."""
    before = keras.config.dtype_policy()
    if policy is not None:
        keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


_FRESH = """
import importlib, pathlib, sys
import keras, numpy
for module in sys.argv[2:]:
    importlib.import_module(module)
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
    inputs = dict(numpy.load(path.with_suffix(".npz")))
    outputs = keras.saving.load_model(path)(inputs, training=False)
    numpy.savez(path.with_suffix(".out.npz"),
                **{name: keras.ops.convert_to_numpy(y) for name, y in outputs.items()})
"""


def outputs_in_fresh_process(
    folder: str | os.PathLike[str], *, modules: Iterable[str] = ("keras_seq.layers",)
) -> dict[str, Arrays]:
    """Loads every ``*.keras`` file of a folder in a new Python process and runs it.

    Args:
        folder: Holds ``NAME.keras`` and, beside each, ``NAME.npz`` with its inputs.
        modules: What the new process imports before it loads, so that classes are registered.

    Returns:
        The outputs by model name and output name.

    Raises:
        CheckFailure: If the new process fails; the message ends with its last words.
    """
    # The new process sees the same modules, also those that a test put on the path.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    command = [sys.executable, "-c", _FRESH, str(folder), *modules]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise CheckFailure(f"a fresh process cannot load it: {done.stderr.strip()[-600:]}")
    return {
        path.name.removesuffix(".out.npz"): dict(np.load(path))
        for path in sorted(Path(folder).glob("*.out.npz"))
    }
