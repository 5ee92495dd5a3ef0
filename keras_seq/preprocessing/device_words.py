"""Words that are given to ids of words and of their characters, in plain Python: for taggers.

This file needs Python 3.10, its standard library and `tokenizer.py` beside it, nothing else. It is
what training used, and a copy of it lies beside every exported LiteRT model that tags words:

    words = GivenWords.from_file("tagger.json")
    sentence = words.split("What a film!")
    ids, characters = words.ids(sentence), words.characters(sentence)

The ids are one row of the input `tokens`; the characters one of the input `characters`. Number k
of the output is the tag `words.tags[k]`.
"""

from __future__ import annotations

import json
import sys

try:
    from keras_seq.preprocessing.device_tokenizer import END, START, UNKNOWN, lower, split_words
except ModuleNotFoundError:  # on a device: the copy that lies beside this file
    from tokenizer import END, START, UNKNOWN, lower, split_words  # type: ignore[import-not-found,no-redef]


class GivenWords:
    """Looks words and their characters up, by the configuration that `tagger.json` holds."""

    def __init__(self, config):
        self.config = config
        self.tags = config.get("tags", [])
        self._words = _table(config["words"])
        self._lowercase = bool(config["words"]["lowercase"])
        found = config.get("characters")
        self._characters = _table(found) if found else {}
        self.longest = int(config.get("longest", 0)) if found else 0

    @classmethod
    def from_file(cls, path):
        """Read a configuration."""
        with open(path, encoding="utf-8") as file:
            return cls(json.load(file))

    def split(self, text):
        """The words and signs of a sentence, where nobody has split it."""
        return split_words(text)

    def ids(self, words):
        """One id for each word; a word that training did not see is UNKNOWN."""
        if self._lowercase:
            words = [lower(word) for word in words]
        return [self._words.get(word, UNKNOWN) for word in words]

    def characters(self, words):
        """A row for each word: START, its characters, END, and 0 up to the longest.

        Of a longer word the middle is left out: its beginning and its end say more.
        """
        return [self._row(word) for word in words]

    def _row(self, word):
        row = [START, *(self._characters.get(letter, UNKNOWN) for letter in word), END]
        if len(row) > self.longest:
            head = self.longest // 2
            row = row[:head] + row[len(row) - (self.longest - head) :]
        return row + [0] * (self.longest - len(row))


def _table(tokenizer):
    """Token to id; the five special ones never come out of a text."""
    return {token: i for i, token in enumerate(tokenizer["vocabulary"]) if i >= 5}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python words.py tagger.json < sentences.txt")
    _words = GivenWords.from_file(sys.argv[1])
    for _line in sys.stdin:
        _sentence = _words.split(_line.rstrip("\r\n"))
        print(
            json.dumps(
                {"tokens": _words.ids(_sentence), "characters": _words.characters(_sentence)}
            )
        )
