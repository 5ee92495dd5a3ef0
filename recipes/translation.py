"""Compare encoder-decoders on pairs of texts, read translations, look at alignments, ship.

    python recipes/translation.py                    # dates as people write them -> ISO, 2 minutes
    python recipes/translation.py --source train.en --target train.de --tokenizer byte_pairs \
        --validation val.en,val.de --test test.en,test.de --width 256 --max-length 60

Copy this file and change it: everything it does is a call of the public API.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras_seq
from keras_seq.figures import alignment_html
from keras_seq.translating import open_translator


def arguments() -> argparse.Namespace:
    """Reads the command line; `keras-seq compare translation --help` has all that there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="", help="a table with the columns source and target")
    parser.add_argument("--source", default="", help="a file of sources, one a line")
    parser.add_argument("--target", default="", help="the file of their targets")
    parser.add_argument("--validation", default="", help="SOURCE,TARGET; else a part of the pairs")
    parser.add_argument("--test", default="", help="SOURCE,TARGET; else a part of the pairs")
    parser.add_argument("--tokenizer", default="characters")
    parser.add_argument("--max-length", type=int, default=12, help="tokens of a translation")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--architectures", default="seq2seq_attention")
    parser.add_argument("--out", type=Path, default=Path("runs/translation"))
    return parser.parse_args()


def main() -> None:
    """The whole way: compare, read the table, translate, look, translate from the artifact."""
    options = arguments()
    data = options.data or ("" if options.source else "builtin:dates")
    names = options.architectures.split(",")
    result = keras_seq.compare(
        "translation",
        data=data,
        source=options.source,
        target=options.target,
        validation=options.validation,
        test=options.test,
        tokenizer=options.tokenizer,
        embedding=max(32, options.width // 2),
        max_length=options.max_length,
        beam=1 if data == "builtin:dates" else 5,
        architectures=names,
        overrides={name: {"width": options.width} for name in names},
        epochs=options.epochs,
        learning_rate=3e-3,
        out=options.out,
        resume=True,  # go on with what an earlier call left
    )

    # Copying the source, the nearest known sentence, and a table of words stand in it too.
    print(result.leaderboard.to_markdown())
    for sentence in result.leaderboard.verdict():
        print(sentence)

    # The artifact was run by its own runtime and compared with the Keras model before this line.
    print(f"{result.winner} -> {result.artifact}")
    for name, found in result.report["formats"].items():
        print(f"  {name}: differs by {found['relative_difference']:.1e}")

    # New texts, the best translations of each with their scores, and what was looked at.
    texts = ["3rd of March 2021", "mercredi 5 mai 1999", "24. Dezember 2030"]
    if data != "builtin:dates":
        texts = ["a man is sleeping .", "two dogs run ."]
    translator = open_translator(options.out / result.winner / "0", beam=3)
    for text, found in zip(texts, translator(texts, best=2), strict=True):
        print(text, "->", ", ".join(f"{one.text} ({one.score:.2f})" for one in found))
        if found[0].alignment is not None:
            page = alignment_html(found[0].source, found[0].target, found[0].alignment)
            (options.out / "alignment.html").write_text(page, encoding="utf-8")

    # The same from the exported folder: no run, no code of the model.
    shipped = open_translator(result.artifact, beam=3)
    print("exported:", [best.text for (best,) in shipped(texts)])


if __name__ == "__main__":
    main()
