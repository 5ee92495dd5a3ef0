"""The worker that stands for the edge device: ``python -m keras_seq.export.runner``.

It has ``ai_edge_litert`` and NumPy, and no TensorFlow: it refuses to work if TensorFlow has been
imported, so what it runs is known to run without.
"""

from __future__ import annotations

import contextlib
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from keras_seq.export.converter import latencies
from keras_seq.export.stream_loop import POSITION
from keras_seq.export.stream_loop import stream as run_stream
from keras_seq.export.workers import read_arrays, read_calls, serve, write_arrays, write_calls


def run(*, model: str, samples: str, outputs: str, repeats: int) -> dict[str, Any]:
    """Runs a LiteRT file on samples, one at a time, through its named signature.

    Args:
        model: The ``.tflite`` file.
        samples: Arrays file with the inputs, (N, ...).
        outputs: Arrays file to write, (N, ...) for each output.
        repeats: Most calls to time.

    Returns:
        Operators, signature, whether it keeps a state from call to call, latency, memory,
        versions, and ``tensorflow_loaded``.

    Raises:
        RuntimeError: If the file needs Flex or custom operators, or TensorFlow is loaded.
    """
    from ai_edge_litert.interpreter import Interpreter

    reset_peak_memory()
    operators, foreign, floating = read_operators(model)
    if foreign:
        raise RuntimeError(f"it needs operators that are not builtin: {', '.join(foreign)}")
    interpreter = Interpreter(model_path=model, num_threads=1)
    keeps = keeps_state(model)
    if keeps:
        interpreter.allocate_tensors()  # there is nothing to reset before
    signatures = interpreter.get_signature_list()
    name = "serving_default" if "serving_default" in signatures else next(iter(signatures))
    function = interpreter.get_signature_runner(name)
    rows = read_arrays(samples)
    wanted = function.get_input_details()
    if set(wanted) != set(rows):
        raise RuntimeError(f"its signature takes {sorted(wanted)}, the samples have {sorted(rows)}")
    results: list[dict[str, np.ndarray]] = []
    for i in range(len(next(iter(rows.values())))):
        # The fused LSTM operator keeps its state from call to call; each sample is a new sequence.
        interpreter.reset_all_variables()
        part = function(**{key: value[i : i + 1] for key, value in rows.items()})
        results.append({key: np.array(value) for key, value in part.items()})
    write_arrays(
        Path(outputs), {key: np.concatenate([part[key] for part in results]) for key in results[0]}
    )
    first = {key: value[:1] for key, value in rows.items()}
    half, most = latencies(lambda: function(**first), repeats)
    if "tensorflow" in sys.modules:
        raise RuntimeError("TensorFlow was imported in the process that must do without it")
    return {
        "operators": operators,
        "float_operators": floating,
        "keeps_state": keeps,
        "flex": False,
        "signatures": sorted(signatures),
        "inputs": _describe(wanted),
        "outputs": _describe(function.get_output_details()),
        "latency_ms": half,
        "latency_p95_ms": most,
        "peak_memory_mb": peak_memory(),
        "tensorflow_loaded": "tensorflow" in sys.modules,
        "versions": {"ai-edge-litert": version("ai-edge-litert")},
    }


def call(*, model: str, signature: str, calls: str, outputs: str) -> dict[str, Any]:
    """Calls a signature of a LiteRT file on several inputs, of any sizes that are open.

    Args:
        model: The ``.tflite`` file.
        signature: Its signature.
        calls: File with the inputs of each call.
        outputs: File to write with the outputs of each call.

    Returns:
        Nothing more.

    Raises:
        RuntimeError: If the file has no such signature, or TensorFlow is loaded.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=model, num_threads=1)
    if keeps_state(model):
        interpreter.allocate_tensors()  # there is nothing to reset before
    signatures = sorted(interpreter.get_signature_list())
    if signature not in signatures:
        raise RuntimeError(f"it has the signatures {signatures}, and not {signature!r}")
    function = interpreter.get_signature_runner(signature)
    answers = []
    for inputs in read_calls(calls):
        interpreter.reset_all_variables()
        answers.append({key: np.array(value) for key, value in function(**inputs).items()})
    write_calls(Path(outputs), answers)
    if "tensorflow" in sys.modules:
        raise RuntimeError("TensorFlow was imported in the process that must do without it")
    return {}


def stream(
    *,
    model: str,
    signature: str,
    inputs: str,
    states: dict[str, list[int]],
    most_position: int | None,
    outputs: str,
) -> dict[str, Any]:
    """Streams sequences through a signature that takes and gives its states, one by one.

    Args:
        model: The ``.tflite`` file.
        signature: Its signature.
        inputs: Arrays file with what each call gets, (N, S, ...).
        states: Name of each state to its shape without the batch.
        most_position: Where the steps are counted no further; None: nowhere.
        outputs: Arrays file to write, (N, S, ...) for each output.

    Returns:
        ``latency_ms`` and ``memory_growth_mb``, see `keras_seq.export.stream_loop`.

    Raises:
        RuntimeError: If the file has no such signature, or TensorFlow is loaded.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=model, num_threads=1)
    if signature not in interpreter.get_signature_list():
        raise RuntimeError(f"it has no signature {signature!r}")
    function = interpreter.get_signature_runner(signature)
    counts = POSITION in function.get_input_details()
    rows = read_arrays(inputs)
    zeros = {name: np.zeros((1, *shape), "float32") for name, shape in states.items()}
    parts, details = [], []
    for i in range(len(next(iter(rows.values())))):
        given = {name: value[i : i + 1] for name, value in rows.items()}
        found, detail = run_stream(
            lambda values: function(**values),
            given,
            zeros,
            position=counts,
            most_position=most_position,
        )
        parts.append(found)
        details.append(detail)
    write_arrays(
        Path(outputs), {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    )
    if "tensorflow" in sys.modules:
        raise RuntimeError("TensorFlow was imported in the process that must do without it")
    return details[-1]


def read_operators(model: str | Path) -> tuple[dict[str, int], list[str], int]:
    """Reads the operators from the file itself, without running it.

    Args:
        model: The ``.tflite`` file.

    Returns:
        How often each operator is used in all subgraphs; the names of those that are not builtin
        (Flex operators start with ``Flex``); and how many operators compute in float.
    """
    from ai_edge_litert import schema_py_generated as schema

    builtin = {
        number: name
        for name, number in vars(schema.BuiltinOperator).items()
        if isinstance(number, int)
    }
    content = schema.Model.GetRootAs(Path(model).read_bytes(), 0)
    names: list[str] = []
    foreign: set[str] = set()
    for i in range(content.OperatorCodesLength()):
        code = content.OperatorCodes(i)
        # Old files keep the number in the deprecated one-byte field.
        name = builtin[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        if name == "CUSTOM":
            name = code.CustomCode().decode()
            foreign.add(name)
        names.append(name)
    counts: dict[str, int] = {}
    floating = 0
    for i in range(content.SubgraphsLength()):
        graph = content.Subgraphs(i)
        for j in range(graph.OperatorsLength()):
            operator = graph.Operators(j)
            name = names[operator.OpcodeIndex()]
            counts[name] = counts.get(name, 0) + 1
            results = [graph.Tensors(operator.Outputs(k)) for k in range(operator.OutputsLength())]
            if name != "DEQUANTIZE" and any(t.Type() in _float_types(schema) for t in results):
                floating += 1
    return dict(sorted(counts.items())), sorted(foreign), floating


def keeps_state(model: str | Path) -> bool:
    """Tells whether the file has tensors that a runtime keeps from call to call.

    The fused LSTM operator has. Who runs such a file sets them to zero before each sequence.

    Args:
        model: The ``.tflite`` file.
    """
    from ai_edge_litert import schema_py_generated as schema

    content = schema.Model.GetRootAs(Path(model).read_bytes(), 0)
    graphs = [content.Subgraphs(i) for i in range(content.SubgraphsLength())]
    return any(
        graph.Tensors(i).IsVariable() for graph in graphs for i in range(graph.TensorsLength())
    )


def ping() -> dict[str, Any]:
    """Tells which heavy packages this process has loaded."""
    return {f"{package}_loaded": package in sys.modules for package in ("tensorflow", "keras")}


def _float_types(schema: Any) -> tuple[int, ...]:
    return schema.TensorType.FLOAT32, schema.TensorType.FLOAT16


def _describe(details: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {
            "shape": np.asarray(detail.get("shape_signature", detail["shape"])).tolist(),
            "dtype": np.dtype(detail["dtype"]).name,
        }
        for name, detail in details.items()
    }


def reset_peak_memory() -> None:
    """Sets this process's high-water mark of memory back, where the system lets it."""
    with contextlib.suppress(OSError):  # Linux only: 5 sets the high-water mark back
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float | None:
    """Most memory that the process had since the reset, MiB."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        line = next(line for line in lines if line.startswith("VmHWM"))
        return round(int(line.split()[1]) / 1024, 1)
    with contextlib.suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / (1024 if sys.platform != "darwin" else 1024**2), 1)
    return None


if __name__ == "__main__":
    serve({"run": run, "call": call, "stream": stream, "ping": ping})
