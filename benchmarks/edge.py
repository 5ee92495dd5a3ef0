"""Milliseconds of one prediction on one thread: what we export beside onnxruntime and PyTorch.

    python benchmarks/edge.py --torch PYTHON

PYTHON is an interpreter that has torch; it may be one of another environment. onnxruntime comes
with ``pip install keras-seq[onnx]``. An LSTM of width 64 over 96 steps of 7 features, and a small
Transformer (2 blocks of width 64, 4 heads, 128 hidden units) over the same; one sample a call,
random weights. onnxruntime has the LSTM as its own operator, and the Transformer converted from our
model. All go in turns, a block of calls each, so that a shared machine drifts for all; medians of
the blocks count.

Writes benchmarks/results/edge.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sides import Side, blocks, conclude, in_turns, report

STEPS, FEATURES, WIDTH, DEPTH, HEADS, HIDDEN = 96, 7, 64, 2, 4, 128
# Name of a side: what tables say.
SIDES = {
    "lstm_litert": "LiteRT, float32",
    "lstm_litert_dynamic": "LiteRT, dynamic int8",
    "lstm_litert_int8": "LiteRT, int8",
    "lstm_saved_model": "SavedModel",
    "lstm_operator": "onnxruntime, LSTM operator",
    "lstm_torch": "PyTorch",
    "transformer_litert": "LiteRT, float32",
    "transformer_litert_dynamic": "LiteRT, dynamic int8",
    "transformer_saved_model": "SavedModel",
    "transformer_onnx": "onnxruntime, the same model",
    "transformer_torch": "PyTorch",
}
# Ours, another, and the most that ours may take of the other's time.
WANTED = (
    ("lstm_litert", "lstm_torch", 1.0),
    ("lstm_litert_dynamic", "lstm_operator", 1.0),
    ("transformer_litert", "transformer_onnx", 0.65),
    ("transformer_litert", "transformer_torch", 0.4),
)
WANTED_SIZE, WANTED_SAVED_MODEL = 0.45, 0.3  # of the float file; ms


def make(kind: str, folder: Path) -> dict[str, Path]:
    """Exports our model, and returns its files."""
    import keras

    import keras_seq
    from keras_seq.export.workers import close_workers

    keras.utils.set_random_seed(0)
    x = keras.Input((STEPS, FEATURES), name="series")
    if kind == "lstm":
        y = keras_seq.layers.LSTM(WIDTH)(x)
        formats = ["saved_model", "litert", "litert_dynamic", "litert_int8"]
    else:
        y = keras.layers.Dense(WIDTH)(x)
        for _ in range(DEPTH):
            block = keras_seq.layers.TransformerBlock(
                WIDTH, HEADS, hidden=HIDDEN, activation="relu"
            )
            y, _weights = block(y)
        y = keras.ops.mean(y, axis=1)
        formats = ["saved_model", "litert", "litert_dynamic", "onnx"]
    model = keras.Model({"series": x}, {"y": keras.layers.Dense(FEATURES)(y)}, name=kind)
    draw = np.random.default_rng(0)
    samples = {"series": draw.standard_normal((32, STEPS, FEATURES)).astype("float32")}
    found = keras_seq.export(model, folder / kind, formats=formats, samples=samples)
    close_workers()
    return {name: folder / kind / entry["file"] for name, entry in found["formats"].items()}


def operator(path: Path) -> None:
    """Writes the LSTM as onnxruntime's own operator."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> Any:
        values = (0.1 * draw.standard_normal(shape)).astype("float32")
        return numpy_helper.from_array(values, name)

    weights = [
        weight("W", 1, 4 * WIDTH, FEATURES),
        weight("R", 1, 4 * WIDTH, WIDTH),
        weight("B", 1, 8 * WIDTH),
        weight("K", WIDTH, FEATURES),
        numpy_helper.from_array(np.array([-1, WIDTH]), "rows"),
    ]
    nodes = [
        helper.make_node("Transpose", ["series"], ["x"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["x", "W", "R", "B"], ["", "last"], hidden_size=WIDTH),
        helper.make_node("Reshape", ["last", "rows"], ["h"]),
        helper.make_node("MatMul", ["h", "K"], ["y"]),
    ]
    one = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "lstm",
        [one("series", TensorProto.FLOAT, [1, STEPS, FEATURES])],
        [one("y", TensorProto.FLOAT, [1, FEATURES])],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    onnx.save(made, str(path))


def with_litert(path: str) -> Callable[[np.ndarray], Any]:
    """The file in LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    function = interpreter.get_signature_runner("serving_default")
    return lambda x: function(series=x)


def with_tensorflow(path: str) -> Callable[[np.ndarray], Any]:
    """The SavedModel's signature, on one thread too."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = tf.saved_model.load(path)
    function = loaded.signatures["serving_default"]

    def call(x: np.ndarray) -> Any:
        return function(series=tf.constant(x))["y"].numpy()

    call.loaded = loaded  # type: ignore[attr-defined]
    return call


def with_onnxruntime(path: str) -> Callable[[np.ndarray], Any]:
    """The file in onnxruntime."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"series": x})


def with_torch(side: str) -> Callable[[np.ndarray], Any]:
    """The same shape in PyTorch."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if side.startswith("lstm"):
        recurrent, last = nn.LSTM(FEATURES, WIDTH, batch_first=True), nn.Linear(WIDTH, FEATURES)

        def run(x: Any) -> Any:
            return last(recurrent(x)[1][0][0])

    else:
        first, last = nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, FEATURES)
        layers = [
            nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, 0.0, batch_first=True, norm_first=True)
            for _ in range(DEPTH)
        ]
        body = nn.Sequential(*layers).eval()

        def run(x: Any) -> Any:
            return last(body(first(x)).mean(1))

    def call(x: np.ndarray) -> Any:
        with torch.inference_mode():
            return run(torch.from_numpy(x)).numpy()

    return call


def take_turns(side: str, path: str, calls: int) -> None:
    """Runs blocks of calls whenever it is told to."""
    if side.endswith("torch"):
        call = with_torch(side)
    elif side.endswith(("operator", "onnx")):
        call = with_onnxruntime(path)
    elif side.endswith("saved_model"):
        call = with_tensorflow(path)
    else:
        call = with_litert(path)
    x = np.random.default_rng(1).standard_normal((1, STEPS, FEATURES)).astype("float32")
    for _ in range(20):
        call(x)
    report("ready")
    for _ in blocks():
        began = time.perf_counter()
        for _ in range(calls):
            call(x)
        report((time.perf_counter() - began) / calls)


def main() -> None:
    """Measures all, or is one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--calls", type=int, default=300, help="of a block")
    parser.add_argument("--rounds", type=int, default=12, help="blocks, the first does not count")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/edge.md")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--path", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        take_turns(options.side, options.path, options.calls)
        return
    with tempfile.TemporaryDirectory() as place:
        files = {
            f"{kind}_{name}": path
            for kind in ("lstm", "transformer")
            for name, path in make(kind, Path(place)).items()
        }
        files["lstm_operator"] = Path(place) / "operator.onnx"
        operator(files["lstm_operator"])
        sizes = {name: path.stat().st_size for name, path in files.items() if path.is_file()}
        sides = {}
        for name in SIDES:
            python = options.torch if name.endswith("torch") else sys.executable
            command = [python, __file__, "--calls", str(options.calls), "--side", name]
            sides[name] = Side(name, [*command, "--path", str(files.get(name, ""))])
        seconds = in_turns(sides, options.rounds)
    lines = [
        f"# One prediction on one thread: {STEPS} steps of {FEATURES} features",
        "",
        f"{os.cpu_count()} cores, Python {platform.python_version()}; {options.rounds - 1} blocks "
        f"of {options.calls} calls in turns, medians. An LSTM of width {WIDTH}; a Transformer of "
        f"{DEPTH} blocks, width {WIDTH}, {HEADS} heads, {HIDDEN} hidden units.",
        "",
        "| | | ms | file, kB |",
        "|---|---|---|---|",
    ]
    for name, label in SIDES.items():
        size = f"{sizes[name] / 1000:.0f}" if name in sizes else ""
        kind = name.split("_")[0].replace("lstm", "LSTM").replace("tr", "Tr")
        lines.append(f"| {kind} | {label} | {1000 * seconds[name]:.3f} | {size} |")
    lines += ["", "| | against | share of its time | wanted, at most |", "|---|---|---|---|"]
    fell_short = False

    def judge(first: str, second: str, share: float, most: float) -> None:
        nonlocal fell_short
        fell_short |= share > most
        verdict = "" if share <= most else ", **not met**"
        lines.append(f"| {first} | {second} | {share:.2f} | {most}{verdict} |")

    for ours, other, most in WANTED:
        kind = ours.split("_")[0].replace("lstm", "LSTM").replace("tr", "Tr")
        judge(f"{kind}, {SIDES[ours]}", SIDES[other], seconds[ours] / seconds[other], most)
    share = sizes["lstm_litert_int8"] / sizes["lstm_litert"]
    judge("LSTM, file of LiteRT int8", "file of LiteRT float32", share, WANTED_SIZE)
    share = 1000 * seconds["lstm_saved_model"] / WANTED_SAVED_MODEL
    judge("LSTM, SavedModel", f"{WANTED_SAVED_MODEL} ms", share, 1.0)
    lines += ["", "Made by `python benchmarks/edge.py --torch PYTHON`.", ""]
    conclude(lines, options.out, not fell_short)


if __name__ == "__main__":
    main()
