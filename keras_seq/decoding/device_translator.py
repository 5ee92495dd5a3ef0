"""Translation on a device: greedy and beam search in NumPy, over a LiteRT file.

This file needs Python 3.10, NumPy, ai-edge-litert and `tokenizer.py` beside it, nothing else. A
copy of it lies beside every exported LiteRT model that translates:

    translator = DeviceTranslator("model_float32.tflite")
    translator("Ein Mann schläft.")[0].text

or, from a shell, one translation for each line of text:

    python translate.py model_float32.tflite < texts.txt

The file has two signatures, and between them they do everything but the search:

    encode         source (1, S)  ->  what the decoder reads of the source, and its first states
    decode_step    all of that, tokens (K, 1), position (K,)  ->  logits (K, V), the next states
                   and, where the model attends, alignment (K, 1, S)

`encode` runs once. `decode_step` runs once for each token: it takes the last token of each of K
hypotheses, one a row. What it returns beside logits and alignment are states: they go into the
next call under the same names. A hypothesis that is dropped is a row that is left out, one that is
doubled a row that stands twice: this holds for every state. To write this in another language,
translate `greedy` first: it is all there is to know about the two signatures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

try:
    from keras_seq.preprocessing.device_tokenizer import (
        END,
        MASK,
        PADDING,
        START,
        DeviceTokenizer,
    )
except ModuleNotFoundError:  # on a device: the copy that lies beside this file
    from tokenizer import (  # type: ignore[import-not-found,no-redef]
        END,
        MASK,
        PADDING,
        START,
        DeviceTokenizer,
    )

NEVER = [PADDING, START, MASK]  # what no translation has in it


class Hypothesis(NamedTuple):
    """What has been written so far: ids, the sum of log p, and what each id attended to."""

    tokens: tuple = ()
    log: np.float32 = np.float32(0)
    attended: tuple = ()


class Translation(NamedTuple):
    """A translation, its score, its ids (the end among them), and its alignment (T, S) or None."""

    text: str
    score: float
    tokens: list
    alignment: np.ndarray | None


class DeviceTranslator:
    """A LiteRT file with the signatures `encode` and `decode_step`, and the files beside it.

    Args:
        model: The path of the file. `tokenizer.json` and `search.json` lie in its folder, and
            `target_tokenizer.json` where source and target do not share one.
        threads: Of the interpreter.
    """

    def __init__(self, model, threads=1):
        from ai_edge_litert.interpreter import Interpreter

        folder = Path(model).parent
        self.search = json.loads((folder / "search.json").read_text("utf-8"))
        self.source = DeviceTokenizer.from_file(folder / "tokenizer.json")
        other = folder / "target_tokenizer.json"
        self.target = DeviceTokenizer.from_file(other) if other.is_file() else self.source
        self._interpreter = Interpreter(str(model), num_threads=threads)
        self.encode = self._interpreter.get_signature_runner("encode")
        self.decode_step = self._interpreter.get_signature_runner("decode_step")

    def __call__(self, text, beam=None, best=1):
        """Translates one text; a longer one than the model reads is cut at its end.

        Args:
            text: The text.
            beam: How many hypotheses are followed; 1 is greedy, None as the model was measured.
            best: The most translations to return.

        Returns:
            Up to `best` translations, the best first. Of no text it is the empty one.
        """
        if not text.strip():
            return [Translation("", 0.0, [], None)] * best
        ids = np.array([self.source.encode(text)], np.int32)
        beam = beam or self.search["beam"]
        found = [self.greedy(ids)] if beam == 1 else self.beam_search(ids, beam, best)
        return [self._read(hypothesis, score) for score, hypothesis in found]

    def greedy(self, source):
        """Takes the likeliest token, again and again: (score, hypothesis)."""
        given = self.start(source)
        last, written = START, Hypothesis()
        for position in range(self.search["max_length"]):
            logs, given, attended = self.step(given, [last], position)
            last = int(np.argmax(logs[0]))
            written = _with(written, last, logs[0, last], attended, 0)
            if last == END:
                break
        return self.score(written), written

    def beam_search(self, source, beam, best=1):
        """Follows several hypotheses at once: [(score, hypothesis)], the best first.

        Those that have ended are kept apart from those that go on. It stops when as many have
        ended as are followed, or when none that goes on can still be among the best.
        """
        given = self.start(source)
        going, ended = [Hypothesis()], []
        for position in range(self.search["max_length"]):
            last = [h.tokens[-1] if h.tokens else START for h in going]
            logs, given, attended = self.step(given, last, position)

            # The best 2 K of all next tokens of all hypotheses. At most one token ends each of the
            # K hypotheses, so at least K candidates go on.
            candidates = []
            for row, hypothesis in enumerate(going):
                for token in _largest(logs[row], 2 * beam):
                    log = hypothesis.log + logs[row, token]
                    candidates.append((log, row, int(token)))
            candidates.sort(key=lambda candidate: -candidate[0])  # equal ones stay in order
            candidates = [c for c in candidates[: 2 * beam] if np.isfinite(c[0])]

            # Candidates that end count if they are among the best K.
            for _, row, token in candidates[:beam]:
                if token == END:
                    hypothesis = _with(going[row], token, logs[row, token], attended, row)
                    ended.append((self.score(hypothesis), hypothesis))
            ended.sort(key=lambda one: -one[0])
            del ended[beam:]

            # Of the others the best K go on, each with the states of the row that it comes from.
            others = [(row, token) for _, row, token in candidates if token != END][:beam]
            going = [
                _with(going[row], token, logs[row, token], attended, row) for row, token in others
            ]
            given = {name: value[[row for row, _ in others]] for name, value in given.items()}
            if not going or len(ended) == beam:
                break
            # As if all further tokens were certain.
            bound = going[0].log / self.penalty(self.search["max_length"])
            if len(ended) >= best and bound <= ended[best - 1][0]:
                break
        # Where too few have ended, those follow that were cut off.
        cut = [(float(h.log / self.penalty(self.search["max_length"])), h) for h in going]
        return (ended + cut)[:best]

    def start(self, source):
        """Reads the source: all that `decode_step` takes, but for tokens and position."""
        return self.encode(source=source)

    def step(self, given, tokens, position):
        """One token more: log p of the next tokens (K, V), what the next step takes, alignment.

        Args:
            given: From `start` or the step before, one row for each hypothesis.
            tokens: The last token of each of the K hypotheses.
            position: How many tokens have been written.
        """
        found = self.decode_step(
            tokens=np.array(tokens, np.int32)[:, None],
            position=np.full(len(tokens), position, np.int32),
            **given,
        )
        logs = found["logits"] - found["logits"].max(axis=-1, keepdims=True)
        logs = logs - np.log(np.exp(logs).sum(axis=-1, keepdims=True))
        logs[:, NEVER] = -np.inf
        alignment = found["alignment"][:, 0] if "alignment" in found else None
        # What is not returned, such as what the encoder gave, stays as it is.
        return logs, {name: found.get(name, value) for name, value in given.items()}, alignment

    def score(self, hypothesis):
        """What hypotheses are ranked by: log p, made comparable between lengths."""
        ended = hypothesis.tokens[-1] == END
        count = len(hypothesis.tokens) if ended else self.search["max_length"]
        return float(hypothesis.log / self.penalty(count))

    def penalty(self, count):
        """The length penalty of a hypothesis of so many tokens."""
        return np.float32(((5.0 + count) / 6.0) ** self.search["length_penalty"])

    def _read(self, hypothesis, score):
        alignment = np.stack(hypothesis.attended) if hypothesis.attended else None
        tokens = list(hypothesis.tokens)
        return Translation(self.target.decode(tokens), score, tokens, alignment)


def _with(hypothesis, token, log, attended, row):
    """The hypothesis with one token more."""
    seen = hypothesis.attended if attended is None else (*hypothesis.attended, attended[row])
    return Hypothesis((*hypothesis.tokens, token), hypothesis.log + log, seen)


def _largest(logs, count):
    """The tokens with the largest values, the largest first; of equal ones the lower id."""
    ids = np.arange(len(logs))
    if count < len(ids):  # all that are at least as large as the last one wanted
        ids = np.flatnonzero(logs >= np.partition(logs, -count)[-count])
    return ids[np.argsort(-logs[ids], kind="stable")][:count]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python translate.py MODEL.tflite < texts.txt")
    _translator = DeviceTranslator(sys.argv[1])
    for _line in sys.stdin:
        print(_translator(_line.rstrip("\r\n"))[0].text)
