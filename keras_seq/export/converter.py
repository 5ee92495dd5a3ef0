"""The worker that has TensorFlow and no Keras model: ``python -m keras_seq.export.converter``.

It turns a SavedModel into LiteRT or ONNX, and it runs a SavedModel the way TF Serving does: from
disk, in a process that has never seen the Python code that made it.
"""

from __future__ import annotations

import copy
import importlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_seq.export.stream_loop import POSITION, stream
from keras_seq.export.workers import read_arrays, read_calls, serve, write_arrays, write_calls

#: LiteRT's operators that move the bytes of their first input, whatever scale they have.
_MOVERS = (
    "BROADCAST_TO",
    "EXPAND_DIMS",
    "GATHER",
    "GATHER_ND",
    "RESHAPE",
    "REVERSE_SEQUENCE",
    "REVERSE_V2",
    "SLICE",
    "SQUEEZE",
    "STRIDED_SLICE",
    "TILE",
    "TRANSPOSE",
)


def convert(
    *, saved_model: str, form: str, samples: str, destination: str, signatures: list[str]
) -> dict[str, Any]:
    """Turns a SavedModel with a static signature into one LiteRT file.

    Args:
        saved_model: Folder of the SavedModel.
        form: ``float32``, ``float16``, ``dynamic`` or ``int8``.
        samples: Arrays file with the rows that show int8 the ranges of the values.
        destination: Where the file goes.
        signatures: Which of the SavedModel's signatures the file is to have.

    Returns:
        ``seconds``.
    """
    import tensorflow as tf

    started = time.perf_counter()

    def run(operators: list[Any]) -> bytes:
        converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=signatures)
        # Builtin operators only, never SELECT_TF_OPS: no runtime of ours has the Flex delegate.
        converter.target_spec.supported_ops = operators
        if form != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if form == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if form == "int8":
            converter.representative_dataset = lambda: _rows(read_arrays(samples))
        return converter.convert()

    builtins = tf.lite.OpsSet.TFLITE_BUILTINS
    try:
        if form == "int8":
            try:
                content = run([tf.lite.OpsSet.TFLITE_BUILTINS_INT8])
            except Exception:
                # Some builtin operators have no int8 kernel; those may stay in float.
                content = run([tf.lite.OpsSet.TFLITE_BUILTINS_INT8, builtins])
            content = mend_int8(content)
        else:
            content = run([builtins])
    except Exception as error:
        raise RuntimeError(_shorten(str(error))) from error
    Path(destination).write_bytes(content)
    return {"seconds": time.perf_counter() - started}


def mend_int8(content: bytes) -> bytes:
    """Mends three faults of the converter (TensorFlow 2.21) in an int8 file.

    An operator that only moves bytes may have another scale on either side, where another operator
    wanted one: Keras's `Bidirectional` turns the backward states round and joins them to the
    forward ones, and they come out stretched and shifted. The bytes are rescaled before.

    The fused LSTM operator copies the bytes of its output into its state, and the state has a scale
    of its own: every step would read it stretched and shifted. It is given the output's.

    The range of the operator's store (16 bits) is that of the last steps, and the steps before may
    go beyond. It is given 16 to either side, which is more than the 10 where the operator cuts.

    Args:
        content: A LiteRT file.

    Returns:
        The file; the very same bytes where there is nothing to mend.
    """
    import flatbuffers  # type: ignore[import-untyped]
    from ai_edge_litert import schema_py_generated as schema

    codes, int8 = schema.BuiltinOperator, schema.TensorType.INT8
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    kinds = [code.builtinCode for code in model.operatorCodes]
    movers = {getattr(codes, name) for name in _MOVERS}
    mended = False
    for graph in model.subgraphs:
        operators = []
        for operator in graph.operators:
            kind = kinds[operator.opcodeIndex]
            output = graph.tensors[operator.outputs[0]]
            if kind == codes.UNIDIRECTIONAL_SEQUENCE_LSTM and output.type == int8:
                # Input 18 is the state. The fifth intermediate is the output before a projection,
                # of which there is none.
                for number in (operator.inputs[18], operator.intermediates[4]):
                    graph.tensors[number].quantization = output.quantization
                store = graph.tensors[operator.inputs[19]].quantization
                store.scale = np.array([2.0**-11], np.float32)  # the kernel wants a power of two
                mended = True
            if kind in movers and output.type == int8:
                given = graph.tensors[operator.inputs[0]]
                scales = _scale(given), _scale(output)
                if given.type == int8 and all(s[0] for s in scales) and scales[0] != scales[1]:
                    rescaled = copy.copy(given)
                    rescaled.name = given.name + b"_rescaled"
                    rescaled.buffer = 0  # nothing is stored in it
                    rescaled.quantization = output.quantization
                    graph.tensors.append(rescaled)
                    if codes.QUANTIZE not in kinds:
                        added = schema.OperatorCodeT()
                        added.builtinCode = added.deprecatedBuiltinCode = codes.QUANTIZE
                        added.version = 1
                        model.operatorCodes.append(added)
                        kinds.append(codes.QUANTIZE)
                    rescale = schema.OperatorT()
                    rescale.opcodeIndex = kinds.index(codes.QUANTIZE)
                    rescale.inputs = [operator.inputs[0]]
                    rescale.outputs = [len(graph.tensors) - 1]
                    operators.append(rescale)
                    operator.inputs = [len(graph.tensors) - 1, *operator.inputs[1:]]
                    mended = True
            operators.append(operator)
        graph.operators = operators
    if not mended:
        return content
    builder = flatbuffers.Builder(len(content) + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _scale(tensor: Any) -> tuple[list[float], list[int]]:
    """The scale and the zero point of a tensor; empty where it has none."""
    found = tensor.quantization
    if found is None or found.scale is None or found.zeroPoint is None:
        return [], []
    return list(found.scale), list(found.zeroPoint)


def convert_onnx(*, saved_model: str, destination: str) -> dict[str, Any]:
    """Turns a SavedModel into an ONNX file whose inputs and outputs keep their names.

    Args:
        saved_model: Folder of the SavedModel.
        destination: Where the file goes.

    Returns:
        ``seconds``.
    """
    started = time.perf_counter()
    if not hasattr(np, "cast"):  # tf2onnx 1.17 still uses two names that NumPy 2 took away
        np.cast = _Cast()  # type: ignore[attr-defined]
        np.object = object  # type: ignore[attr-defined]
    import onnx
    import tensorflow as tf
    import tf2onnx

    loaded = tf.saved_model.load(saved_model)
    function = loaded.signatures["serving_default"]
    inputs = function.structured_input_signature[1]
    outputs = sorted(function.structured_outputs)

    @tf.function(input_signature=[inputs[name] for name in sorted(inputs)], autograph=False)
    def flat(*values: Any) -> list[Any]:
        results = function(**dict(zip(sorted(inputs), values, strict=True)))
        return [tf.identity(results[name], name=f"output_{i}") for i, name in enumerate(outputs)]

    signature = [
        tf.TensorSpec(inputs[name].shape, inputs[name].dtype, name=name) for name in sorted(inputs)
    ]
    proto, _ = tf2onnx.convert.from_function(flat, input_signature=signature, opset=17)
    # tf2onnx freezes variables, but leaves constants that the model has captured as inputs.
    concrete = flat.get_concrete_function()
    captured = concrete.captured_inputs
    placeholders = concrete.inputs[len(concrete.inputs) - len(captured) :]
    constants = {
        placeholder.name: value
        for placeholder, value in zip(placeholders, captured, strict=True)
        if value.dtype != tf.resource
    }
    for entry in [value for value in proto.graph.input if value.name in constants]:
        array = constants[entry.name].numpy()
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, entry.name))
        proto.graph.input.remove(entry)
    # tf2onnx names outputs "Identity:0", "Identity_1:0" ...; consumers want the model's names.
    for values, wanted in ((proto.graph.output, outputs), (proto.graph.input, sorted(inputs))):
        for old, new in zip([value.name for value in values], wanted, strict=True):
            _rename(proto.graph, old, new)
    onnx.checker.check_model(proto)
    Path(destination).write_bytes(proto.SerializeToString())
    return {"seconds": time.perf_counter() - started}


def run_saved_model(
    *, folder: str, samples: str, outputs: str, repeats: int, imports: list[str]
) -> dict[str, Any]:
    """Runs the signature ``serving_default`` from disk, at batch sizes 7 and 1.

    Args:
        folder: The SavedModel.
        samples: Arrays file with the inputs, (N, ...).
        outputs: Prefix of the arrays files to write: ``PREFIX_7.npz`` (all rows) and
            ``PREFIX_1.npz`` (the first rows one by one).
        repeats: Most calls to time at batch 1.
        imports: Packages whose operators the SavedModel needs.

    Returns:
        Signature, latency, size of the process and versions.
    """
    import tensorflow as tf

    loaded = _load(folder, imports)
    function = loaded.signatures["serving_default"]
    rows = read_arrays(samples)
    count = len(next(iter(rows.values())))

    def call(indices: np.ndarray) -> dict[str, np.ndarray]:
        results = function(**{name: tf.constant(value[indices]) for name, value in rows.items()})
        return {name: value.numpy() for name, value in results.items()}

    sevens: list[dict[str, np.ndarray]] = []
    for start in range(0, count, 7):
        keep = min(7, count - start)
        # Rows repeat to fill the last batch up, so that each call really has seven.
        results = call(np.arange(start, start + 7) % count)
        sevens.append({name: value[:keep] for name, value in results.items()})
    ones = [call(np.array([i])) for i in range(min(count, 4))]
    for size, parts in ((7, sevens), (1, ones)):
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        write_arrays(Path(f"{outputs}_{size}.npz"), joined)
    first = {name: tf.constant(value[:1]) for name, value in rows.items()}
    half, most = latencies(lambda: function(**first), repeats)
    return {
        "signatures": sorted(loaded.signatures),
        "inputs": {
            name: {"shape": spec.shape.as_list(), "dtype": spec.dtype.name}
            for name, spec in function.structured_input_signature[1].items()
        },
        "outputs": {
            name: {"shape": spec.shape.as_list(), "dtype": spec.dtype.name}
            for name, spec in function.structured_outputs.items()
        },
        "latency_ms": half,
        "latency_p95_ms": most,
        "versions": {"tensorflow": tf.__version__},
    }


def call_saved_model(
    *, folder: str, signature: str, calls: str, outputs: str, imports: list[str]
) -> dict[str, Any]:
    """Calls a signature of a SavedModel on several inputs, of any sizes.

    Args:
        folder: The SavedModel.
        signature: Its signature.
        calls: File with the inputs of each call.
        outputs: File to write with the outputs of each call.
        imports: Packages whose operators the SavedModel needs.

    Returns:
        Nothing more.
    """
    import tensorflow as tf

    loaded = _load(folder, imports)
    function = loaded.signatures[signature]
    answers = []
    for call in read_calls(calls):
        results = function(**{name: tf.constant(value) for name, value in call.items()})
        answers.append({name: value.numpy() for name, value in results.items()})
    write_calls(Path(outputs), answers)
    return {}


def latencies(
    call: Callable[[], Any], repeats: int = 200, seconds: float = 0.5
) -> tuple[float, float]:
    """Times a call after a short warm-up.

    Args:
        call: What to time.
        repeats: Most calls.
        seconds: Stops after about this long (at least three calls).

    Returns:
        Median and 95th percentile, milliseconds.
    """
    times = call_times(call, repeats, seconds)
    return float(np.median(times)), float(np.percentile(times, 95))


def call_times(call: Callable[[], Any], repeats: int = 200, seconds: float = 0.5) -> list[float]:
    """Times a call after a short warm-up; see `latencies`.

    Args:
        call: What to time.
        repeats: Most calls.
        seconds: Stops after about this long (at least three calls).

    Returns:
        Milliseconds of each call.
    """
    for _ in range(3):
        call()
    times: list[float] = []
    while len(times) < max(repeats, 3) and (len(times) < 3 or sum(times) < 1000 * seconds):
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
    return times


def stream_saved_model(
    *,
    folder: str,
    signature: str,
    inputs: str,
    states: dict[str, list[int]],
    most_position: int | None,
    outputs: str,
    imports: list[str],
) -> dict[str, Any]:
    """Streams sequences through a signature that takes and gives its states, from disk.

    Args:
        folder: The SavedModel.
        signature: Its signature.
        inputs: Arrays file with what each call gets, (N, S, ...).
        states: Name of each state to its shape without the batch.
        most_position: Where the steps are counted no further; None: nowhere.
        outputs: Arrays file to write, (N, S, ...) for each output.
        imports: Packages whose operators the SavedModel needs.

    Returns:
        ``latency_ms`` and ``memory_growth_mb``, see `keras_seq.export.stream_loop`.
    """
    import tensorflow as tf

    loaded = _load(folder, imports)
    function = loaded.signatures[signature]
    rows = read_arrays(inputs)
    batch = len(next(iter(rows.values())))

    def call(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = function(**{name: tf.constant(value) for name, value in given.items()})
        return {name: value.numpy() for name, value in found.items()}

    found, details = stream(
        call,
        rows,
        {name: np.zeros((batch, *shape), "float32") for name, shape in states.items()},
        position=POSITION in function.structured_input_signature[1],
        most_position=most_position,
    )
    write_arrays(Path(outputs), found)
    return details


def _load(folder: str, imports: list[str]) -> Any:
    import tensorflow as tf

    for package in imports:
        importlib.import_module(package)
    return tf.saved_model.load(folder)


def _rows(arrays: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    count = len(next(iter(arrays.values())))
    for i in range(count):
        yield {name: value[i : i + 1] for name, value in arrays.items()}


def _shorten(text: str) -> str:
    """Keeps the useful line of a converter's pages of MLIR."""
    missing = sorted(set(re.findall(r"(?:Flex|Custom) ops: ([^\n]+)", text)))
    if missing:
        return f"LiteRT has no builtin operator for {'; '.join(missing)}"
    lines = [line.strip() for line in text.splitlines() if "error:" in line]
    return (lines[0] if lines else (text.strip().splitlines() or ["no message"])[0])[:400]


def _rename(graph: Any, old: str, new: str) -> None:
    if old == new:
        return
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        if value.name == old:
            value.name = new


class _Cast(dict):
    def __missing__(self, dtype: Any) -> Callable[[Any], np.ndarray]:
        return lambda value: np.asarray(value).astype(dtype)


if __name__ == "__main__":
    serve(
        {
            "stream_saved_model": stream_saved_model,
            "convert": convert,
            "convert_onnx": convert_onnx,
            "run_saved_model": run_saved_model,
            "call_saved_model": call_saved_model,
        }
    )
