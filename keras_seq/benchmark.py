"""Time what was exported: each form in a process of its own, in turns, with its error beside it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_seq.errors import UserError
from keras_seq.export.exporter import written_files
from keras_seq.export.workers import Worker, WorkerCrash, WorkerError
from keras_seq.files import write_atomically

_LENGTH = 64  # steps, where nothing says how long inputs are


@dataclass(frozen=True)
class Form:
    """One exported file, and what it costs and is worth.

    Args:
        export: The export's folder, as it was given.
        name: ``saved_model``, ``litert``, ``litert_int8`` and so on.
        file: Its path in that folder.
        size_kb: Size on disk, kilobytes (1000 bytes).
        p50_ms: Median time of one call with one sample, milliseconds.
        p95_ms: 95th percentile.
        calls: Calls that were timed.
        memory_mb: What loading it and the first call took beyond its runtime, MiB, or None.
        inputs: Name to the shape that was timed.
        score: Error on the samples it was exported with, lower is better, or None.
        labels_differ: Share of labels that are not the model's, or None.
        difference: Largest difference from the model's outputs, relative to their scale.
        status: What the export said of it: ``passed``, or that it missed a target.
    """

    export: str
    name: str
    file: str
    size_kb: float
    p50_ms: float
    p95_ms: float
    calls: int
    memory_mb: float | None
    inputs: Mapping[str, Sequence[int]]
    score: float | None
    labels_differ: float | None
    difference: float | None
    status: str


@dataclass(frozen=True)
class Benchmark:
    """The forms of several exports, timed in one run.

    Args:
        forms: Fastest first.
        samples: How many samples the errors are of, by export.
        tasks: What each export was trained for; errors of different tasks do not compare.
        skipped: What could not be timed, and why.
        signature: Which signature was timed.
        rounds: How often each form had its turn.
    """

    forms: tuple[Form, ...]
    samples: Mapping[str, int]
    tasks: Mapping[str, str]
    skipped: tuple[str, ...]
    signature: str
    rounds: int

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Returns the head and the rows of the table, as text."""
        several = len({form.export for form in self.forms}) > 1
        head = ["export"] if several else []
        head += ["form", "p50 ms", "p95 ms", "memory MB", "size kB"]
        head += ["error", "labels differ", "difference", "proof"]
        body = []
        for form in self.forms:
            differ = form.labels_differ
            cells = [Path(form.export).name] if several else []
            cells += [form.name]
            cells += [f"{form.p50_ms:.3g}", f"{form.p95_ms:.3g}"]
            cells += ["" if form.memory_mb is None else f"{form.memory_mb:.1f}"]
            cells += [f"{form.size_kb:,.0f}", "" if form.score is None else f"{form.score:.4g}"]
            cells += ["" if differ is None else f"{100 * differ:.1f} %"]
            cells += ["" if form.difference is None else f"{form.difference:.1e}", form.status]
            body.append(cells)
        return head, body

    def notes(self) -> list[str]:
        """Returns what has to be said about the figures."""
        shapes = sorted(
            {
                ", ".join(f"{name} {tuple(shape)}" for name, shape in form.inputs.items())
                for form in self.forms
            }
        )
        counts = ", ".join(f"{Path(k).name} {n}" for k, n in self.samples.items())
        return [
            f"One sample a call through `{self.signature}`, inputs {'; '.join(shapes)}; each form "
            f"in a process of its own, in {self.rounds} turns; LiteRT and ONNX on one thread, "
            "TensorFlow on as many as it takes.",
            "Memory: what the file and its first call took beyond the runtime. Error, labels and "
            f"difference: as the export proved them on its samples ({counts}), lower is better.",
            f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}.",
            *(f"Not timed: {line}." for line in self.skipped),
        ]

    def to_markdown(self) -> str:
        """Returns the table with its notes, as a page."""
        head, body = self.table()
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(map(str.ljust, cells, widths)) + " |"

        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        rows = [line(head), rule, *map(line, body)]
        return "\n".join(["# What the exported forms cost", "", *rows, "", *self.notes()]) + "\n"

    def write(self, folder: str | Path) -> list[Path]:
        """Writes ``benchmark.md``, ``.csv``, ``.json`` and the picture ``benchmark.png``.

        Args:
            folder: Where to; it is made if it is not there.

        Returns:
            The files. There is no picture where no form has an error, or tasks differ.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        records = [asdict(form) for form in self.forms]
        text = io.StringIO()
        table = csv.DictWriter(text, list(records[0]))
        table.writeheader()
        table.writerows(record | {"inputs": json.dumps(record["inputs"])} for record in records)
        everything = {**asdict(self), "notes": self.notes()}
        contents = {
            "benchmark.md": self.to_markdown().encode(),
            "benchmark.csv": text.getvalue().encode(),
            "benchmark.json": (json.dumps(everything, indent=2) + "\n").encode(),
        }
        picture = self._picture()
        if picture is not None:
            contents["benchmark.png"] = picture
        for name, content in contents.items():
            write_atomically(folder / name, content)
        return [folder / name for name in contents]

    def _picture(self) -> bytes | None:
        from keras_seq.figures import quality_latency_figure

        several = len({form.export for form in self.forms}) > 1
        points = {
            f"{Path(form.export).name} {form.name}" if several else form.name: (
                form.p50_ms,
                form.score,
            )
            for form in self.forms
            if form.score is not None
        }
        if not points or len(set(self.tasks.values())) > 1:
            return None
        drawn = io.BytesIO()
        figure = quality_latency_figure(points, score="error on the export's samples")
        figure.savefig(drawn, format="png", dpi=120)
        return drawn.getvalue()


def benchmark(
    exports: Sequence[str | Path],
    *,
    forms: Sequence[str] | None = None,
    signature: str = "serving_default",
    length: int | None = None,
    repeats: int = 200,
    rounds: int = 5,
    seconds: float = 0.4,
    tell: Callable[[str], None] = lambda line: None,
) -> Benchmark:
    """Times every form of every export.

    Args:
        exports: Folders that `keras_seq.export` made.
        forms: Names of forms to time; None: all there are.
        signature: Which signature is timed.
        length: What open sizes are set to, in steps; None: as long as the export's own samples in
            the median, or 64.
        repeats: Most calls of a form in a turn.
        rounds: Turns of each form, at least 1. A machine that slows down does so for all.
        seconds: About how long a turn lasts.
        tell: Called with a line about each form that is ready.

    Returns:
        What was measured.

    Raises:
        UserError: If a folder is no export, a form is not in any of them, an option is out of
            range, or nothing can be timed.
    """
    for name, value in (("rounds", rounds), ("repeats", repeats), ("length", length or 1)):
        if value < 1:
            raise UserError(f"{name} is {value}: give at least 1")
    if not exports:
        raise UserError("no export to time: give folders that keras-seq export has made")
    reports = {str(folder): _report(Path(folder)) for folder in exports}
    known = sorted({name for report in reports.values() for name in report["formats"]})
    unknown = sorted(set(forms or ()) - set(known))
    if unknown:
        raise UserError(f"no export has the form {', '.join(unknown)}: there is {', '.join(known)}")
    with contextlib.ExitStack() as stack:
        loaded: list[tuple[str, str, dict[str, Any], Worker, dict[str, Any]]] = []
        skipped = []
        for folder, report in reports.items():
            for name, entry in report["formats"].items():
                if forms is not None and name not in forms:
                    continue
                worker = Worker("keras_seq.export.timer")
                stack.callback(worker.close)
                try:
                    about = worker.request(
                        {
                            "operation": "load",
                            "kind": _kind(name),
                            "path": str(Path(folder) / entry["file"]),
                            "signature": signature,
                            "length": length or _usual_length(report),
                            "ids": _vocabulary(Path(folder)),
                            "imports": entry.get("needs", []),
                        }
                    )
                except (WorkerCrash, WorkerError) as error:
                    skipped.append(f"{Path(folder).name} {name}: {' '.join(str(error).split())}")
                    tell(f"{name} of {folder} cannot be timed: {skipped[-1]}")
                    continue
                loaded.append((folder, name, entry, worker, about))
                tell(f"{name} of {folder} is loaded, {about['seconds']:.1f} s")
        if not loaded:
            raise UserError(f"nothing can be timed: {'; '.join(skipped)}")
        times: list[list[float]] = [[] for _ in loaded]
        for turn in range(rounds):
            for place, (*_, worker, _about) in enumerate(loaded):
                answer = worker.request(
                    {"operation": "measure", "repeats": repeats, "seconds": seconds}
                )
                times[place] += answer["times_ms"]
            tell(f"turn {turn + 1} of {rounds}")
    found = [
        _form(folder, name, entry, about, measured)
        for (folder, name, entry, _, about), measured in zip(loaded, times, strict=True)
    ]
    return Benchmark(
        forms=tuple(sorted(found, key=lambda form: form.p50_ms)),
        samples={folder: int(report["samples"]) for folder, report in reports.items()},
        tasks={folder: str(_metadata(Path(folder)).get("task", "")) for folder in reports},
        skipped=tuple(skipped),
        signature=signature,
        rounds=rounds,
    )


def _report(folder: Path) -> dict[str, Any]:
    path = folder / "parity.json"
    try:
        report: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if not report["formats"]:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder} is no export: there is no parity.json with formats in it; give the folder "
            "that keras-seq export or compare wrote"
        ) from None
    missing = [e["file"] for e in report["formats"].values() if not (folder / e["file"]).exists()]
    if missing:
        raise UserError(f"{folder} is not whole: {', '.join(missing)} is missing; export it again")
    return report


def _kind(name: str) -> str:
    return "litert" if name.startswith("litert") else name


def _usual_length(report: Mapping[str, Any]) -> int:
    lengths = report.get("padding", {}).get("lengths")
    return round(float(np.median(lengths))) if lengths else _LENGTH


def _metadata(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "metadata.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _vocabulary(folder: Path) -> int:
    """How many ids every tokenizer of an export has; 2 where there is none."""
    metadata = _metadata(folder)
    found = [metadata.get(name) for name in ("tokenizer", "target_tokenizer")]
    sizes = [len(each["vocabulary"]) for each in found if each and "vocabulary" in each]
    return min(sizes, default=2)


def _form(
    folder: str,
    name: str,
    entry: Mapping[str, Any],
    about: Mapping[str, Any],
    times: Sequence[float],
) -> Form:
    files = written_files(Path(folder) / entry["file"])
    return Form(
        export=folder,
        name=name,
        file=entry["file"],
        size_kb=sum(file.stat().st_size for file in files) / 1000,
        p50_ms=float(np.median(times)),
        p95_ms=float(np.percentile(times, 95)),
        calls=len(times),
        memory_mb=about["memory_mb"],
        inputs=about["inputs"],
        score=entry.get("score", {}).get("artifact"),
        labels_differ=entry.get("labels", {}).get("differ"),
        difference=entry.get("relative_difference"),
        status=entry["status"],
    )
