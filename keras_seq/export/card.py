"""The model card: one README beside the artifacts, for whoever receives them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

_KNOWN = ("title", "description", "data", "scores", "baseline", "command")


def model_card(name: str, report: dict[str, Any], card: dict[str, Any]) -> str:
    """Writes the card as Markdown.

    Args:
        name: Name of the model, as TF Serving will know it (the folder's name).
        report: What `export` found, as in ``parity.json``.
        card: What only the caller knows. ``title``, ``description``, ``data``, ``scores``,
            ``baseline`` and ``command`` have a place of their own (text, or a dict that becomes a
            table); everything else follows under its own heading.

    Returns:
        The text.

    Example:
        >>> report = {"version": 1, "parameters": 12, "versions": {}, "formats": {},
        ...           "inputs": {"x": {"shape": [None, 3], "dtype": "float32"}}, "outputs": {}}
        >>> "| x | (any, 3) | float32 |" in model_card("toy", report, {"data": "none"})
        True
    """
    lines = [f"# {card.get('title', name)}", ""]
    if card.get("description"):
        lines += [str(card["description"]), ""]
    lines += [f"Version {report['version']}, {report['parameters']:,} parameters.", ""]
    for key in ("data", "scores", "baseline"):
        lines += [f"## {key.capitalize()}", "", *_block(card.get(key, "Not given.")), ""]
    lines += ["## Inputs and outputs", "", "Raw values in, raw values out.", ""]
    for kind in ("inputs", "outputs"):
        rows = (
            (key, _shape(entry["shape"]), entry["dtype"]) for key, entry in report[kind].items()
        )
        lines += [*_table((kind[:-1], "shape", "dtype"), rows), ""]
    lines += [
        "## Artifacts",
        "",
        "Each was run by its own runtime and compared with the Keras model; the difference is",
        "relative to the largest value of the output. `parity.json` has all of it.",
        "",
        *_table(
            ("format", "file", "size (kB)", "difference", "allowed", "latency (ms)", "verdict"),
            (_row(key, entry) for key, entry in report["formats"].items()),
        ),
        "",
        "Latency: median of one call with one sample on the machine that exported.",
        "",
        *_lengths(report),
        *_endpoints(report),
        *_streaming(report),
        *_use(name, report),
    ]
    if card.get("command"):
        lines += ["## Made by", "", "```sh", str(card["command"]), "```", ""]
    for key, value in card.items():
        if key not in _KNOWN:
            lines += [f"## {key.replace('_', ' ').capitalize()}", "", *_block(value), ""]
    lines += ["## Versions", "", *_block(report["versions"]), ""]
    return "\n".join(lines)


def _use(name: str, report: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    inputs = report["inputs"]
    light = [entry for entry in report["formats"].values() if entry["file"].endswith(".tflite")]
    keeping = [entry["file"] for entry in light if entry.get("keeps_state")]
    if light:
        file = light[0]["file"]
        opened = [f"model = Interpreter({file!r}).get_signature_runner('serving_default')"]
        if file in keeping:
            opened = _opened(file)
        # Sizes that the model leaves open may be fixed in this file (-1 is LiteRT's open size).
        own = light[0].get("inputs", inputs)
        values = ", ".join(
            f"{key}=np.zeros({_some(own[key]['shape'])}, {entry['dtype']!r})"
            for key, entry in inputs.items()
        )
        lines += [
            "## Use without TensorFlow",
            "",
            "`pip install ai-edge-litert`, then, one sample a call:",
            "",
            "```python",
            "import numpy as np",
            "from ai_edge_litert.interpreter import Interpreter",
            *opened,
            f"outputs = model({values})",
            "print({name: value.shape for name, value in outputs.items()})",
            "```",
            "",
        ]
    for file in keeping:
        lines += [
            f"`{file}` remembers: its LSTM goes on where the last call ended, unless it is set",
            "back before the next:",
            "",
            "```python",
            *_opened(file),
            "```",
            "",
        ]
    if "saved_model" in report["formats"]:
        example = {
            key: _zeros([1, *entry["shape"][1:]], "" if entry["dtype"] == "string" else 0)
            for key, entry in inputs.items()
        }
        body = json.dumps({"inputs": example})
        # Thousands of zeros help nobody: say what goes there instead.
        if len(body) > 400:
            example = {
                key: f"VALUES OF SHAPE {_shape([1, *entry['shape'][1:]])}"
                for key, entry in inputs.items()
            }
            body = json.dumps({"inputs": example})
        needs = report["formats"]["saved_model"].get("needs", [])
        lines += [
            "## Serve",
            "",
            "The numbered folders are what TensorFlow Serving polls:",
            "",
            "```sh",
            f"docker run -p 8501:8501 -v $PWD:/models/{name} -e MODEL_NAME={name} \\",
            "    tensorflow/serving",
            f"curl -d '{body}' http://localhost:8501/v1/models/{name}:predict",
            "```",
            "",
        ]
        if needs:
            lines += [
                f"It needs the operators of {', '.join(needs).replace('_', '-')}: in Python, "
                + "; ".join(f"`import {package}`" for package in needs)
                + " before `tf.saved_model.load`; a server must have them built in.",
                "",
            ]
    return lines


def _opened(file: str) -> list[str]:
    """Python that opens a file whose LSTM is one operator; nothing can be reset before."""
    return [
        f"interpreter = Interpreter({file!r})",
        "interpreter.allocate_tensors()",
        "model = interpreter.get_signature_runner('serving_default')",
        "interpreter.reset_all_variables()  # before each sequence",
    ]


def _lengths(report: dict[str, Any]) -> list[str]:
    """Says which files want a length of their own, and what padding does."""
    lines = []
    for entry in report["formats"].values():
        for key, own in entry.get("inputs", {}).items():
            wanted = report["inputs"].get(key, {}).get("shape", own["shape"])
            # -1 is how LiteRT writes an open size.
            fixed = [
                a is None and b not in (None, -1)
                for a, b in zip(wanted, own["shape"], strict=False)
            ]
            if any(fixed[1:]):
                lines.append(
                    f"`{entry['file']}` takes `{key}` of exactly {_shape(own['shape'])}: pad with "
                    "0 on the right, cut what is longer."
                )
    padding = report.get("padding")
    if padding and padding["relative_difference"] > 1e-4:
        lines.append(
            f"The model does not ignore padding: it moves the outputs by up to "
            f"{padding['relative_difference']:.1e} of their scale. Give rows without padding."
        )
    return [*lines, ""] if lines else []


def _endpoints(report: dict[str, Any]) -> list[str]:
    rows = [
        (
            key,
            name,
            ", ".join(
                f"{k} {_shape(v['shape'])} {v['dtype']}" for k, v in endpoint["inputs"].items()
            ),
            ", ".join(endpoint["outputs"]),
            "infinite"
            if endpoint["relative_difference"] is None
            else f"{endpoint['relative_difference']:.1e}",
            endpoint["status"],
        )
        for key, entry in report["formats"].items()
        for name, endpoint in entry.get("endpoints", {}).items()
    ]
    if not rows:
        return []
    text = {
        name
        for entry in report["formats"].values()
        for name, endpoint in entry.get("endpoints", {}).items()
        if endpoint["needs_tensorflow_text"]
    }
    return [
        "## Further signatures",
        "",
        "Each was run on real inputs and compared with the Keras model too.",
        "",
        *_table(("format", "signature", "inputs", "outputs", "difference", "verdict"), rows),
        "",
        *(f"`{name}` needs tensorflow-text operators.\n" for name in sorted(text)),
    ]


def _streaming(report: dict[str, Any]) -> list[str]:
    """How to go step by step, and how far that is from the whole sequence."""
    own = report.get("streaming")
    if not own:
        return []
    proofs = {
        key: entry["streaming"]
        for key, entry in report["formats"].items()
        if "streaming" in entry and entry["version"] == report["version"]
    }
    steps = own["steps_of_a_call"]
    lines = [
        "## Streaming",
        "",
        f"The signature `{own['signature']}` takes {'one step' if steps == 1 else f'{steps} steps'}"
        " of time and the states of the step before, and gives the outputs for the steps so far",
        "and the next states. All states begin as zeros, float32, and together take "
        f"{own['state_bytes'] / 1024:.1f} KB a sequence, however long it is.",
        "",
    ]
    if own["window"]:
        lines += [
            f"Attention sees the last {own['window']} {'steps' if steps == 1 else 'calls'}. Up to "
            "there the outputs are those of the whole sequence.",
            "",
        ]
    if own["counts"]:
        text = "`position` counts the calls, from 0"
        if own["most_calls"]:
            text += f", up to {own['most_calls'] - 1}: the model knows no later positions"
        elif own["window"]:
            text += f"; it may stay at {own['window']} or more once it is there"
        lines += [text + ".", ""]
    rows = [
        (
            key,
            *(
                "infinite" if proof[name] is None else f"{proof[name]:.1e}"
                for name in ("relative_difference", "relative_difference_to_step")
            ),
            f"{proof['tolerance']:g}",
            str(proof["steps"]),
            f"{proof['latency_ms']:.3f}",
            proof["status"],
        )
        for key, proof in proofs.items()
    ]
    head = ("format", "to the whole", "to Keras's step", "allowed", "calls", "ms a call", "verdict")
    lines += [
        f"Streamed over {max((p['sequences'] for p in proofs.values()), default=0)} real "
        "sequences, the largest differences relative to the scale of the output:",
        "",
        *_table(head, rows),
        "",
    ]
    file = next((report["formats"][k]["file"] for k in proofs if k.startswith("litert")), None)
    if file is None:
        return lines
    zeros = ", ".join(f"{k!r}: {tuple(shape)}" for k, shape in own["states"].items())
    values = "".join(
        f"{key}=np.zeros({_some(entry['shape'])}, {entry['dtype']!r}), "
        for key, entry in own["inputs"].items()
    )
    count = "position=np.array([t], 'int32'), " if own["counts"] else ""
    return [
        *lines,
        "```python",
        "import numpy as np",
        "from ai_edge_litert.interpreter import Interpreter",
        f"step = Interpreter({file!r}).get_signature_runner({own['signature']!r})",
        f"shapes = {{{zeros}}}",
        "states = {name: np.zeros((1, *shape), 'float32') for name, shape in shapes.items()}",
        "for t in range(3):",
        f"    found = step({values}{count}**states)",
        "    states = {name: found[name] for name in states}",
        f"    print({{name: found[name] for name in {own['outputs']!r}}})",
        "```",
        "",
    ]


def _row(key: str, entry: dict[str, Any]) -> tuple[str, ...]:
    latency = entry.get("latency_ms")
    verdict = entry["status"]
    if "labels" in entry:
        verdict += f" (labels that differ {entry['labels']['differ']:.2%})"
    if entry["judged_by"] == "score":
        verdict += f" (score {entry['score']['relative_change']:+.2%})"
    return (
        key,
        f"`{entry['file']}`",
        f"{entry['size_bytes'] / 1000:.1f}",
        f"{entry['relative_difference']:.1e}",
        f"{entry['tolerance']:g}",
        "" if latency is None else f"{latency:.3f}",
        verdict,
    )


def _block(value: Any) -> list[str]:
    if isinstance(value, dict):
        return _table(("name", "value"), ((str(k), _number(v)) for k, v in value.items()))
    if isinstance(value, (list, tuple)):
        return [f"- {_number(item)}" for item in value]
    return [str(value)]


def _number(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_number(item)}" for key, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _shape(shape: list[int | None]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"


def _some(shape: list[int | None]) -> tuple[int, ...]:
    """A size for every axis: 1 where it is open."""
    return tuple(1 if size in (None, -1) else int(size or 1) for size in shape)


def _zeros(shape: list[int | None], value: Any = 0) -> Any:
    if not shape:
        return value
    return [_zeros(shape[1:], value) for _ in range(shape[0] or 1)]
