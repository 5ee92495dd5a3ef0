"""Compare architectures on texts with a label, look at the table, explain, ship the winner.

    python recipes/sentiment.py                      # IMDb where there is a network, else synthetic
    python recipes/sentiment.py --data builtin:reviews                # synthetic reviews, 2 minutes
    python recipes/sentiment.py --data reviews.tsv --text-column text --label-column label

Copy this file and change it: everything it does is a call of the public API.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import pandas as pd

import keras_seq
from keras_seq.explain import explain_text
from keras_seq.runs import predict_file


def arguments() -> argparse.Namespace:
    """Reads the command line; `keras-seq compare classification --help` has all that there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="", help="csv, tsv, parquet, jsonl, folder or builtin")
    parser.add_argument("--test", default="", help="a second file; else a part of the first")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--max-tokens", type=int, default=400, help="longer texts are cut")
    parser.add_argument("--epochs", type=int, default=0, help="0: 5, of synthetic reviews 12")
    parser.add_argument("--architectures", default="fasttext,text_cnn,lstm,transformer")
    parser.add_argument("--out", type=Path, default=Path("runs/sentiment"))
    return parser.parse_args()


def imdb(folder: Path) -> str:
    """Writes Keras's IMDb reviews as a table of words and labels.

    Returns:
        The file's name; without a network ``builtin:reviews``, synthetic reviews in which word
        order and negation decide.
    """
    path = folder / "imdb.tsv"
    if path.exists():
        return str(path)
    try:
        (ids, labels), _ = keras.datasets.imdb.load_data(index_from=3)
        words = {i + 3: word for word, i in keras.datasets.imdb.get_word_index().items()}
    except Exception as error:  # whatever a missing network raises
        print(f"no IMDb ({type(error).__name__}): synthetic reviews instead")
        return "builtin:reviews"
    texts = [" ".join(words.get(i, "") for i in row[1:]) for row in ids]
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"label": labels, "text": texts}).to_csv(path, sep="\t", index=False)
    return str(path)


def main() -> None:
    """The whole way: compare, read the table, explain one label, label a file."""
    options = arguments()
    data = options.data or imdb(Path("runs"))
    synthetic = data == "builtin:reviews"
    result = keras_seq.compare(
        "classification",
        data=data,
        test=options.test,
        text_column=(options.text_column,),
        label_column=options.label_column,
        max_tokens=options.max_tokens,
        architectures=options.architectures,
        overrides={"lstm": {"bidirectional": True}} if "lstm" in options.architectures else {},
        epochs=options.epochs or (12 if synthetic else 5),
        learning_rate=3e-3 if synthetic else 1e-3,
        out=options.out,
        resume=True,  # go on with what an earlier call left
    )

    # The table knows when naive Bayes on n-grams is better, and says so.
    print(result.leaderboard.to_markdown())
    for sentence in result.leaderboard.verdict():
        print(sentence)

    # The artifact was run by its own runtime and compared with the Keras model before this line.
    print(f"{result.winner} -> {result.artifact}")
    for name, found in result.report["formats"].items():
        print(f"  {name}: differs by {found['relative_difference']:.1e}")

    # Which words the label of one text came from.
    name = options.architectures.split(",")[-1]
    explanation = explain_text(options.out / name / "0", "not bad at all , the film was a joy")
    explanation.write_html(options.out / "explanation.html")
    print(explanation.label, list(zip(explanation.tokens, explanation.weights, strict=True)))

    # Labels for a file of texts, from the exported folder.
    texts = options.out / "texts.csv"
    pd.DataFrame({options.text_column: ["a joy from the first minute", "what a bore"]}).to_csv(
        texts, index=False
    )
    print(predict_file(result.artifact, data=str(texts), out=options.out / "labels.csv"))


if __name__ == "__main__":
    main()
