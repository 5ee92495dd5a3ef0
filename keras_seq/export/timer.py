"""The worker that times one file: ``python -m keras_seq.export.timer``.

A process holds one file and its runtime, nothing else, so that its memory is the file's. It
answers whenever it is asked for some more calls: several of them, asked in turns, share whatever
else the machine is doing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_seq.export.converter import call_times
from keras_seq.export.runner import keeps_state, peak_memory, reset_peak_memory
from keras_seq.export.workers import serve

Inputs = Mapping[str, Mapping[str, Any]]  # name -> {"shape": [1, None, 7], "dtype": "float32"}
_held: dict[str, Callable[[], Any]] = {}


def load(
    *, kind: str, path: str, signature: str, length: int, ids: int, imports: list[str]
) -> dict[str, Any]:
    """Loads a file, and calls it once.

    Args:
        kind: ``litert``, ``saved_model``, ``keras`` or ``onnx``.
        path: The file, or the SavedModel's folder.
        signature: Which signature is timed, where there are several.
        length: What open sizes are set to, in steps.
        ids: Whole numbers are drawn from 1 to below this.
        imports: Packages that bring operators along.

    Returns:
        ``memory_mb``, what loading and the first call took beyond the runtime itself (None where
        it cannot be read), ``inputs`` with the sizes that are timed, and ``seconds``.
    """
    runtime = _RUNTIMES[kind]()
    for package in imports:
        __import__(package)
    reset_peak_memory()
    before = peak_memory()
    started = time.perf_counter()
    call, described = runtime(path, signature)
    draw = np.random.default_rng(0)
    inputs = {name: _values(each, length, ids, draw) for name, each in described.items()}
    call(inputs)
    seconds = time.perf_counter() - started
    after = peak_memory()
    _held["call"] = lambda: call(inputs)
    return {
        "memory_mb": None if before is None or after is None else max(0.0, after - before),
        "inputs": {name: list(value.shape) for name, value in inputs.items()},
        "seconds": seconds,
    }


def measure(*, repeats: int, seconds: float) -> dict[str, Any]:
    """Times calls with one sample.

    Args:
        repeats: Most calls.
        seconds: Stops after about this long; at least three calls are made.

    Returns:
        ``times_ms`` of the calls, after three that are not counted.
    """
    return {"times_ms": call_times(_held["call"], repeats, seconds)}


def _values(
    each: Mapping[str, Any], length: int, ids: int, draw: np.random.Generator
) -> np.ndarray:
    # The batch is one sample; what else is open is a length.
    sizes = [length if size in (None, -1) else size for size in each["shape"]]
    if sizes and each["shape"][0] in (None, -1):
        sizes[0] = 1
    kind = np.dtype(each["dtype"]).kind if each["dtype"] != "string" else "S"
    if kind == "f":
        return draw.standard_normal(sizes).astype(each["dtype"])
    if kind in "iu":
        # Above 0, which stands for padding.
        return draw.integers(1, max(ids, 2), sizes).astype(each["dtype"])
    return np.ones(sizes, bool) if kind == "b" else np.full(sizes, b"a b c", object)


# ---- runtimes: each imports what it needs, and returns how a file is opened ---------------------


def _litert() -> Callable[[str, str], Any]:
    from ai_edge_litert.interpreter import Interpreter

    def open_file(path: str, signature: str) -> Any:
        interpreter = Interpreter(model_path=path, num_threads=1)
        if keeps_state(path):
            interpreter.allocate_tensors()
        function = interpreter.get_signature_runner(
            _chosen(interpreter.get_signature_list(), path, signature)
        )
        described = {
            name: {
                "shape": np.asarray(each.get("shape_signature", each["shape"])).tolist(),
                "dtype": np.dtype(each["dtype"]).name,
            }
            for name, each in function.get_input_details().items()
        }
        return (lambda inputs: function(**inputs)), described

    return open_file


def _saved_model() -> Callable[[str, str], Any]:
    import tensorflow as tf

    def open_file(path: str, signature: str) -> Any:
        loaded = tf.saved_model.load(path)
        function = loaded.signatures[_chosen(loaded.signatures, path, signature)]
        described = {
            name: {"shape": spec.shape.as_list(), "dtype": spec.dtype.name}
            for name, spec in function.structured_input_signature[1].items()
        }

        def call(inputs: Mapping[str, np.ndarray]) -> Any:
            found = function(**{name: tf.constant(value) for name, value in inputs.items()})
            return {name: value.numpy() for name, value in found.items()}

        call.loaded = loaded  # type: ignore[attr-defined]  # its variables live as long as it does
        return call, described

    return open_file


def _keras() -> Callable[[str, str], Any]:
    import tensorflow as tf

    from keras_seq.export.signature import Signature
    from keras_seq.saving import load as load_model

    def open_file(path: str, signature: str) -> Any:
        called = Signature(load_model(path))
        function = tf.function(called.call)
        described = {
            name: {"shape": list(shape), "dtype": dtype}
            for name, (shape, dtype) in called.inputs.items()
        }

        def call(inputs: Mapping[str, np.ndarray]) -> Any:
            found = function({name: tf.constant(value) for name, value in inputs.items()})
            return {name: value.numpy() for name, value in found.items()}

        return call, described

    return open_file


def _onnx() -> Callable[[str, str], Any]:
    import onnxruntime

    def open_file(path: str, signature: str) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        described = {
            each.name: {
                "shape": [size if isinstance(size, int) else None for size in each.shape],
                "dtype": each.type.removeprefix("tensor(").rstrip(")").replace("float", "float32")
                if each.type == "tensor(float)"
                else each.type.removeprefix("tensor(").rstrip(")"),
            }
            for each in session.get_inputs()
        }
        return (lambda inputs: session.run(None, dict(inputs))), described

    return open_file


def _chosen(found: Any, path: str, wanted: str) -> str:
    names = sorted(found)
    if wanted in names:
        return wanted
    if wanted != "serving_default" or len(names) != 1:
        raise ValueError(f"{Path(path).name} has the signatures {', '.join(names)}, not {wanted!r}")
    return names[0]


_RUNTIMES = {"litert": _litert, "saved_model": _saved_model, "keras": _keras, "onnx": _onnx}


if __name__ == "__main__":
    serve({"load": load, "measure": measure})
