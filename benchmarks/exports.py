"""Exports every architecture of a finished comparison in every format, and writes what it found.

    keras-seq compare forecasting ... --out runs/etth1
    python benchmarks/exports.py runs/etth1

Writes benchmarks/results/exports.md: the difference of each file from the Keras model, relative to
the output's scale, the change of the test score under int8, size and latency at batch 1.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path

from keras_seq.errors import UserError
from keras_seq.runs import export_run

FORMATS = ("saved_model", "litert", "litert_float16", "litert_dynamic", "litert_int8")


def line(name: str, report: dict) -> str:
    """Returns the row of one architecture."""
    found = report["formats"]
    cells = [f"{found[key]['relative_difference']:.1e}" for key in FORMATS[:4]]
    int8 = found["litert_int8"]
    cells.append(f"{int8['score']['relative_change']:+.1%} ({int8['status']})")
    for key in ("litert", "litert_int8"):
        cells.append(f"{found[key]['size_bytes'] / 1024:.0f}")
        cells.append(f"{found[key]['latency_ms']:.3g}")
    flex = any(found[key].get("flex") for key in FORMATS)
    return f"| {name} | {' | '.join(cells)} | {'yes' if flex else 'none'} |"


def main() -> None:
    """Exports and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="the --out of a comparison")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/exports.md")
    options = parser.parse_args()
    folders = sorted(options.runs.glob("*/0/metrics.json"))
    lines = [
        f"# Exports of {options.runs}",
        "",
        f"{os.cpu_count()} cores, Python {platform.python_version()}. Differences are relative to "
        "the output's scale; int8: change of the test MSE on 256 windows.",
        "",
        "| architecture | SavedModel | LiteRT float32 | float16 | dynamic range | int8 test MSE "
        "| float32 KB | float32 ms | int8 KB | int8 ms | Flex operators |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for path in folders:
        name = path.parent.parent.name
        with tempfile.TemporaryDirectory() as place:
            try:
                _, report = export_run(path.parent, formats=FORMATS, out=Path(place) / name)
                lines.append(line(name, report))
            except UserError as error:
                lines.append(f"| {name} | failed: {error} |" + " |" * 9)
        print(lines[-1], flush=True)
    lines += ["", f"Made by `python benchmarks/exports.py {options.runs}`.", ""]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
