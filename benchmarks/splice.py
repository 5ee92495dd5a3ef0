"""DNA splice junctions by 10-fold cross-validation: which of 60 letters are a border, and which.

    python benchmarks/splice.py --data ../shared/data/dna/splice.csv

Equal sequences never stand on both sides of a split, and every class is dealt evenly to the folds.
The architectures are compared on fold 0; the one that is best on the validation part of that fold
is trained on the others. Early stopping uses a validation part too, so that a test fold decides
nothing. What is finished lies under --runs: a second start goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import keras_seq
from keras_seq.compare import Comparison

WANTED = 0.95
BASELINES = ("majority", "naive_bayes", "nb_logistic_regression", "position_logistic_regression")
# Hardly tuned: a TCN of width 64 was tried on fold 0 too. Its four blocks see all 60 letters.
OVERRIDES: dict[str, dict[str, Any]] = {
    "tcn": {"width": 48},
    "gru": {"width": 48, "bidirectional": True},
    "text_cnn": {},
}
RECIPE: dict[str, Any] = {
    "tokenizer": "characters",
    "clean": "none",
    "max_tokens": 64,
    "embedding": 32,
    "embedding_dropout": 0.1,
    "token_dropout": 0.1,
    "dropout": 0.3,
    "learning_rate": 0.003,
    "batch_size": 64,
    "patience": 5,
}


def compare(options: argparse.Namespace, fold: int, architectures: tuple[str, ...]) -> Comparison:
    """Trains on one fold, or takes up what is there already."""
    return keras_seq.compare(
        "classification",
        data=str(options.data),
        text_column=("sequence",),
        label_column="class",
        folds=options.folds,
        fold=fold,
        architectures=architectures,
        overrides={name: OVERRIDES.get(name, {}) for name in architectures},
        epochs=options.epochs,
        ensemble=False,
        export=(),
        track=(),
        resume=True,
        out=options.runs / f"fold_{fold}",
        **RECIPE,
    )


def accuracies(comparison: Comparison, names: tuple[str, ...]) -> dict[str, float]:
    rows = {name: comparison.leaderboard.row(name) for name in names}
    return {name: row.scores["accuracy"] for name, row in rows.items() if row and row.scores}


def report(
    options: argparse.Namespace,
    name: str,
    chosen: dict[str, float],
    folds: list[dict[str, float]],
    seconds: float,
) -> str:
    """The table: a row for each fold, the mean and the spread."""
    columns = [name, *(b for b in BASELINES if b in folds[0])]
    values = np.array([[fold[column] for column in columns] for fold in folds])
    mean, spread = values.mean(axis=0), values.std(axis=0, ddof=1)
    part = f" {len(folds)} of {options.folds} folds so far." if len(folds) < options.folds else ""
    said = ", ".join(f"{n} {100 * v:.1f} %" for n, v in chosen.items())

    def row(head: object, cells: np.ndarray) -> str:
        return f"| {head} | " + " | ".join(f"{100 * cell:.2f}" for cell in cells) + " |"

    best = columns[1 + int(mean[1:].argmax())]
    against = int((values[:, 0] > values[:, columns.index(best)]).sum())
    lines = [
        "# DNA splice junctions",
        "",
        f"Accuracy on the test fold, %: {options.folds}-fold cross-validation, equal sequences on "
        f"one side, stratified.{part}",
        "",
        "| fold | " + " | ".join(columns) + " |",
        "|---:" * (len(columns) + 1) + "|",
        *(row(k, cells) for k, cells in enumerate(values)),
        row("**mean**", mean),
        row("spread over folds", spread),
        "",
        f"- Wanted: at least {100 * WANTED:.0f} %. {name}: {100 * mean[0]:.2f} %, "
        f"{'met' if mean[0] >= WANTED else 'NOT met'}.",
        f"- {name} is better than the best baseline, {best}, in {against} of {len(folds)} folds, "
        f"by {100 * (mean[0] - mean[columns.index(best)]):.2f} points on average.",
        f"- Chosen on the validation part of fold 0 ({said}) and then trained on every fold, one "
        "seed. Rows of that part are tested in other folds, so that the choice of the architecture "
        "has seen them; those that lost had the same epochs and were not tuned further.",
        "- Baselines learn from the training and the validation part, the network from the "
        "training part alone.",
        f"- {name}: {OVERRIDES.get(name, {})}; at most {options.epochs} epochs; "
        + ", ".join(f"{key} {value}" for key, value in RECIPE.items())
        + ".",
        f"- {seconds / 60:.0f} minutes of training in all on {os.cpu_count()} shared cores; Python "
        f"{platform.python_version()}, keras_seq {keras_seq.__version__}.",
        "",
        f"Made by `python benchmarks/splice.py --data {options.data} --folds {options.folds} "
        f"--epochs {options.epochs} --architectures {options.architectures}`.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="splice.csv")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=12, help="the most of a training")
    parser.add_argument("--architectures", default="tcn,gru,text_cnn", help="tried on fold 0")
    parser.add_argument("--runs", type=Path, default=Path("runs/splice"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/splice.md")
    options = parser.parse_args()
    tried = tuple(options.architectures.split(","))
    name, chosen, seconds = "", dict[str, float](), 0.0
    text = ""
    folds: list[dict[str, float]] = []
    for fold in range(options.folds):
        begin = time.monotonic()
        comparison = compare(options, fold, tried if not fold else (name,))
        if comparison.winner is None:
            raise SystemExit(f"nothing could be trained on fold {fold}")
        if not fold:
            name = comparison.winner
            for architecture in tried:
                given = comparison.predictions[architecture, 0]
                scores = comparison.problem.scores(given, "validation")
                chosen[architecture] = scores["accuracy"]
            print(f"chosen on the validation part of fold 0: {name} {chosen}", flush=True)
        folds.append(accuracies(comparison, (name, *BASELINES)))
        for row in comparison.leaderboard.rows:
            seconds += row.train_seconds or 0.0 if not row.baseline else 0.0
        mean = np.mean([found[name] for found in folds])
        print(
            f"fold {fold}: {name} {folds[-1][name]:.4f}, mean so far {mean:.4f}, "
            f"{time.monotonic() - begin:.0f} s",
            flush=True,
        )
        if len(folds) > 1:
            text = report(options, name, chosen, folds, seconds)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
