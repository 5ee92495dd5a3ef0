"""What unlabelled text is worth: word vectors learned from it, then the same network with them.

    pip install gensim
    python benchmarks/word_vectors.py --data ../shared/data/sentiment --runs runs/word_vectors

Skip-gram vectors (gensim) are learned from the texts of the training and the test part, without
their labels. Then each network is trained from scratch and from these vectors, with the same
options and seeds. What is finished lies under --runs: a second start goes on where the first one
stopped.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_seq
from keras_seq.compare import Comparison
from keras_seq.data import read_texts
from keras_seq.preprocessing import train_tokenizer

WANTED = 1.5
OVERRIDES: dict[str, dict[str, Any]] = {
    "text_cnn": {"width": 100},
    "lstm": {"bidirectional": True},
}
WIDTH, WINDOW, NEGATIVE = 128, 10, 8


def learn(files: list[Path], path: Path, epochs: int) -> float:
    """Learns the vectors; returns how many seconds that took."""
    try:
        from gensim.models import Word2Vec
    except ImportError:
        raise SystemExit("word vectors are learned by gensim: pip install gensim") from None
    texts = [t for file in files for t in read_texts(file, label_column=None).texts]
    tokenizer = train_tokenizer("words", texts, vocabulary=200_000, lowercase=True, clean="html")
    words = [tokenizer.tokens(text) for text in texts]
    start = time.perf_counter()
    model = Word2Vec(
        words,
        vector_size=WIDTH,
        sg=1,
        window=WINDOW,
        negative=NEGATIVE,
        epochs=epochs,
        min_count=2,
        workers=os.cpu_count() or 1,
        seed=0,
    )
    seconds = time.perf_counter() - start
    path.parent.mkdir(parents=True, exist_ok=True)
    model.wv.save_word2vec_format(str(path.with_suffix(".part")))
    path.with_suffix(".part").replace(path)
    return seconds


def compare(options: argparse.Namespace, name: str, vectors: str) -> Comparison:
    """Trains the networks, or takes up what is there already."""
    chosen = tuple(options.architectures.split(","))
    return keras_seq.compare(
        "classification",
        data=str(options.data / "imdb_train.tsv.gz"),
        test=str(options.data / "imdb_test.tsv.gz"),
        text_column=("text",),
        label_column="label",
        architectures=chosen,
        overrides={name: OVERRIDES[name] for name in chosen if name in OVERRIDES},
        epochs=options.epochs,
        seeds=options.seeds,
        embedding=WIDTH,
        vectors=vectors,
        export=(),
        track=(),
        ensemble=False,
        out=options.runs / name,
        resume=True,
    )


def accuracies(comparison: Comparison) -> dict[str, tuple[float, float]]:
    """Test accuracy by architecture: mean and standard deviation over the seeds, %."""
    return {
        row.architecture: (
            100 * row.scores["accuracy"],
            100 * row.spreads.get("accuracy", float("nan")),
        )
        for row in comparison.leaderboard.rows
        if not row.baseline and not row.ensemble
    }


def cell(mean: float, spread: float) -> str:
    """Mean and spread; of one seed there is no spread."""
    return f"{mean:.2f}" if math.isnan(spread) else f"{mean:.2f} ± {spread:.2f}"


def main() -> None:
    """Writes ``benchmarks/results/word_vectors.md``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of imdb_*.tsv.gz")
    parser.add_argument("--runs", type=Path, default=Path("runs/word_vectors"))
    parser.add_argument("--architectures", default="text_cnn")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=6, help="over the unlabelled text")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()

    path = options.runs / "imdb.vec"
    if not path.is_file():
        files = [options.data / f"imdb_{part}.tsv.gz" for part in ("train", "test")]
        seconds = learn(files, path, options.passes)
        path.with_suffix(".seconds").write_text(f"{seconds:.0f}\n")
    took = float(path.with_suffix(".seconds").read_text())
    plain = accuracies(compare(options, "scratch", ""))
    warm = accuracies(compare(options, "vectors", str(path)))
    lines = [
        "# IMDb: word vectors learned from the unlabelled texts, then the same network",
        "",
        f"Test accuracy, %; {options.epochs} epochs, mean over {options.seeds} seeds ± standard "
        "deviation; same options and seeds.",
        "",
        "| | from scratch | from word vectors | gain | wanted |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, (alone, spread) in plain.items():
        with_vectors, other = warm[name]
        lines.append(
            f"| {name} | {cell(alone, spread)} | {cell(with_vectors, other)} | "
            f"{with_vectors - alone:+.2f} | +{WANTED} |"
        )
    lines += [
        "",
        f"The vectors: skip-gram of gensim, {WIDTH} features, window {WINDOW}, {NEGATIVE} negative "
        f"words, {options.passes} passes over the 50,000 texts without their labels, {took:.0f} s "
        f"on {os.cpu_count()} shared cores; Python {platform.python_version()}, keras_seq "
        f"{keras_seq.__version__}.",
        "",
        "Made by `python benchmarks/word_vectors.py --data ../shared/data/sentiment "
        f"--architectures {options.architectures} --seeds {options.seeds}`.",
        "",
    ]
    (options.out / "word_vectors.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
