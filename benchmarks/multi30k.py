"""Scores translations of Multi30k as the papers do, and with capitals, beside sacreBLEU's own.

    keras-seq compare translation --source DATA/train.en.gz --target DATA/train.de.gz ... \
        --lowercase --out runs/multi30k
    pip install sacremoses
    python benchmarks/multi30k.py runs/multi30k DATA

Three BLEU scores of the same translations of test_2016_flickr:

- ``13a``: sacreBLEU's, on small letters, as the leaderboard has it.
- ``tokenised``: on small letters with punctuation normalised and tokens by Moses' rules, which is
  what papers on Multi30k print (with and without ``-a``, which parts words at hyphens).
- ``cased``: sacreBLEU's on detokenised text. The networks write small letters; a table of the most
  frequent form of each word in the targets of training puts the capitals back.

Writes benchmarks/results/multi30k/published.md.
"""

from __future__ import annotations

import argparse
import gzip
import re
from collections import Counter, defaultdict
from pathlib import Path

import sacrebleu
import sacremoses

from keras_seq.translating import open_translator

WORD = re.compile(r"\w+")
BATCH = 100  # sentences decoded at once


def read(path: Path) -> list[str]:
    """Returns the lines of a gzip file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file]


def capitals(texts: list[str]) -> dict[str, str]:
    """Maps each word in small letters to its most frequent form; first words do not count."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for text in texts:
        for word in WORD.findall(text)[1:]:
            seen[word.lower()][word] += 1
    return {small: forms.most_common(1)[0][0] for small, forms in seen.items()}


def recase(text: str, forms: dict[str, str]) -> str:
    """Puts capitals back; a text begins with one."""
    text = WORD.sub(lambda found: forms.get(found[0], found[0]), text)
    return text[:1].upper() + text[1:]


def tokenised(texts: list[str], hyphens: bool) -> list[str]:
    """Normalises punctuation and splits into tokens, as the published figures were made."""
    normalise = sacremoses.MosesPunctNormalizer(lang="de").normalize
    split = sacremoses.MosesTokenizer(lang="de").tokenize
    how = {"aggressive_dash_splits": hyphens, "escape": False, "return_str": True}
    return [split(normalise(text.lower()), **how) for text in texts]


def bleu(hypotheses: list[str], references: list[str], tokenize: str) -> float:
    """Returns sacreBLEU's score of a corpus."""
    metric = sacrebleu.BLEU(tokenize=tokenize, force=True)
    return float(metric.corpus_score(hypotheses, [references]).score)


def main() -> None:
    """Translates with each trained network, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="the --out of the comparison")
    parser.add_argument("data", type=Path, help="the folder of Multi30k's files")
    out = Path(__file__).parent / "results" / "multi30k" / "published.md"
    parser.add_argument("--out", type=Path, default=out)
    options = parser.parse_args()
    sources = read(options.data / "test_2016_flickr.en.gz")
    references = read(options.data / "test_2016_flickr.de.gz")
    forms = capitals(read(options.data / "train.de.gz"))
    small = [text.lower() for text in references]
    again = bleu([recase(text, forms) for text in small], references, "13a")
    lines = [
        "# Multi30k, test_2016_flickr, by every way to count",
        "",
        "| architecture | 13a, small letters | Moses tokens | Moses tokens, hyphens parted "
        "| 13a, cased |",
        "|---|---:|---:|---:|---:|",
    ]
    for path in sorted(options.runs.glob("*/0/model.keras")):
        translate = open_translator(path.parent)
        found: list[str] = []
        for i in range(0, len(sources), BATCH):
            found += [best[0].text for best in translate(sources[i : i + BATCH])]
        cells = [bleu(found, small, "13a")]
        for hyphens in (False, True):
            cells.append(bleu(tokenised(found, hyphens), tokenised(small, hyphens), "none"))
        cells.append(bleu([recase(text, forms) for text in found], references, "13a"))
        line = f"| {path.parent.parent.name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |"
        print(line, flush=True)
        lines.append(line)
    lines += [
        "",
        "Cased: the networks write small letters, a table of the training targets puts the "
        f"capitals back. The references themselves, treated so, have {again:.2f}: what casing by "
        "such a table costs at most.",
        "",
        f"`python benchmarks/multi30k.py {options.runs} DATA`, sacreBLEU {sacrebleu.__version__}, "
        f"sacremoses {sacremoses.__version__}.",
        "",
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
