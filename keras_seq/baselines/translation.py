"""Translators that every network must beat: the source itself, a memory, and a table of words.

Each has `fit(sources, targets)` and `predict(sources)`, on lists of sentences as people write them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["TRANSLATORS", "CopySource", "TranslationMemory", "Translator", "WordTable"]

# Chinese and Japanese, with their punctuation: written without blanks, so each is a word.
_CJK = "\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uff65\U00020000-\U0003ffff"
_PARTS = re.compile(rf"[{_CJK}]|[^{_CJK}]+")
_ONE_CJK = re.compile(rf"[{_CJK}]")
_LOOSE = "\"'&/@#*\\¿¡"  # signs that do not lean on the word before them
_MOST_PAIRS = 200_000  # sentence pairs in a memory
_MOST_LINKS = 20_000_000  # pairs of words, of all sentence pairs: half a gigabyte
_CHUNK = 256  # sentences that are looked up at once


class Translator(Protocol):
    """A baseline of translation.

    Attributes:
        note: After `fit`: what had to be done otherwise than the name says, or "".
    """

    note: str

    def fit(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        """Learns from sentences and their translations."""

    def predict(self, sources: Sequence[str]) -> list[str]:
        """Returns a translation of each sentence."""


class CopySource:
    """Gives the source itself: names, numbers and full stops are right in it.

    Example:
        >>> CopySource().predict(["Berlin, 1989"])
        ['Berlin, 1989']
    """

    def __init__(self) -> None:
        self.note = ""

    def fit(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        """Learns nothing.

        Args:
            sources: N sentences.
            targets: Their translations.
        """
        _check(sources, targets)

    def predict(self, sources: Sequence[str]) -> list[str]:
        """Returns the sentences.

        Args:
            sources: M sentences.
        """
        return list(sources)


class TranslationMemory:
    """Gives the translation of the most similar sentence of the training part.

    Similar is what has a high cosine of TF-IDF vectors of words and pairs of neighbouring words, in
    small letters; of equally similar ones the first. A sentence without any word of the training
    part is copied.

    Example:
        >>> memory = TranslationMemory()
        >>> memory.fit(["a man sleeps", "a dog runs"], ["ein Mann schläft", "ein Hund rennt"])
        >>> memory.predict(["the dog runs", "xyz"])
        ['ein Hund rennt', 'xyz']
    """

    def __init__(self) -> None:
        self.note = ""

    def fit(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        """Stores the training part.

        Args:
            sources: N sentences.
            targets: Their translations.

        Raises:
            ValueError: If there are not as many of both, or none.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer

        _check(sources, targets)
        stride = -(-len(sources) // _MOST_PAIRS)
        self.note = _strided(stride, len(sources))
        self._targets = list(targets[::stride])
        self._vectors = TfidfVectorizer(analyzer=_grams, sublinear_tf=True, dtype=np.float32)
        self._rows = self._vectors.fit_transform(sources[::stride]).T.tocsr()  # (F, N)

    def predict(self, sources: Sequence[str]) -> list[str]:
        """Returns the translation of the nearest sentence to each.

        Args:
            sources: M sentences.
        """
        found: list[str] = []
        for start in range(0, len(sources), _CHUNK):
            chunk = sources[start : start + _CHUNK]
            near = (self._vectors.transform(chunk) @ self._rows).toarray()  # (m, N)
            best = near.argmax(axis=1)
            for source, row, place in zip(chunk, near, best.tolist(), strict=True):
                found.append(self._targets[place] if row[place] > 0 else source)
        return found


class WordTable:
    """Translates word by word, in the order of the source, by the table of IBM model 1.

    Expectation maximisation finds which words of the two languages go together: t(f | e), how often
    a source word e becomes the target word f. The source has an empty word besides, for what comes
    from nothing. Each word becomes its likeliest one; a word that training has not is copied. Words
    are learned in small letters and written as they are written most often within a sentence; the
    first letter is large where that of the source is.

    Args:
        iterations: Of expectation maximisation.

    Example:
        >>> table = WordTable()
        >>> table.fit(["the house", "the book", "a book"], ["das Haus", "das Buch", "ein Buch"])
        >>> table.predict(["A house", "the Zugspitze"])
        ['Ein Haus', 'das Zugspitze']

    Reference:
        Brown et al. 1993, The Mathematics of Statistical Machine Translation: Parameter Estimation.
    """

    def __init__(self, iterations: int = 10) -> None:
        if iterations < 1:
            raise ValueError(f"iterations is {iterations}; wanted at least 1")
        self.iterations = iterations
        self.note = ""
        self._best: dict[str, tuple[str, float]] = {}

    def fit(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        """Learns the table.

        Args:
            sources: N sentences.
            targets: Their translations.

        Raises:
            ValueError: If there are not as many of both, or none.
        """
        _check(sources, targets)
        ours = [[word.lower() for word in _words(text)] for text in sources]
        written = [list(_words(text)) for text in targets]
        links = sum((len(a) + 1) * len(b) for a, b in zip(ours, written, strict=True))
        stride = max(1, -(-links // _MOST_LINKS))
        self.note = _strided(stride, len(sources))
        ours, written = ours[::stride], written[::stride]
        theirs = [[word.lower() for word in row] for row in written]
        # The empty word is source word 0 of every sentence.
        source_words, source_ids, source_lengths = _numbered([["", *row] for row in ours])
        target_words, target_ids, target_lengths = _numbered(theirs)
        self._best = {}
        if not len(target_ids):
            return
        # One link for each target word and each source word of its sentence; those of one target
        # word stand side by side.
        width = np.repeat(source_lengths, target_lengths)
        first = np.repeat(np.cumsum(source_lengths) - source_lengths, target_lengths)
        ends = np.cumsum(width)
        begin = ends - width
        place = np.arange(ends[-1]) - np.repeat(begin - first, width)
        names = len(target_words)
        keys, link = np.unique(
            source_ids[place] * names + np.repeat(target_ids, width), return_inverse=True
        )
        del place
        source, target = np.divmod(keys, names)
        table = np.ones(len(keys))
        for _ in range(self.iterations):
            share = table[link]
            share /= np.repeat(np.add.reduceat(share, begin), width)
            counts = np.bincount(link, share, minlength=len(keys))
            table = counts / np.bincount(source, counts)[source]
        order = np.lexsort((target, -table, source))
        _, best = np.unique(source[order], return_index=True)
        spelled = _spelling(written)
        for i in order[best].tolist():
            word = spelled[target_words[target[i]]]
            self._best[source_words[source[i]]] = word, float(table[i])

    def translate(self, word: str) -> tuple[str, float]:
        """Looks a word up.

        Args:
            word: A word of the source language; "" is the empty word.

        Returns:
            Its likeliest translation, and how likely that is; the word and 0.0 if it is unknown.
        """
        return self._best.get(word.lower(), (word, 0.0))

    def predict(self, sources: Sequence[str]) -> list[str]:
        """Returns the sentences word by word.

        Args:
            sources: M sentences.
        """
        found = []
        for source in sources:
            text = _joined([self.translate(word)[0] for word in _words(source)])
            large = source.lstrip()[:1].isupper()
            found.append(text[:1].upper() + text[1:] if large else text)
        return found


#: By name, the baselines of translation, the quick ones first.
TRANSLATORS: dict[str, Callable[[], Translator]] = {
    "copy": CopySource,
    "translation_memory": TranslationMemory,
    "word_table": WordTable,
}


# --- words ----------------------------------------------------------------------------------------


def _words(text: str) -> Iterator[str]:
    """What stands between blanks, without the punctuation around it; each sign is a word too.

    What is within a word stays: don't, T-Shirt, 3.5. So no list of letters is needed, which would
    have to know the vowel signs of every script.
    """
    for chunk in text.split():
        begin, end = 0, len(chunk)
        while begin < end and _is_sign(chunk[begin]):
            begin += 1
        while end > begin and _is_sign(chunk[end - 1]):
            end -= 1
        yield from chunk[:begin]
        yield from _PARTS.findall(chunk[begin:end])
        yield from chunk[end:]


def _is_sign(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"


def _joined(words: Sequence[str]) -> str:
    """The way back from `_words`, nearly: it cannot know which way a straight quote looks."""
    text = ""
    for word in words:
        last = text[-1:]
        kind, before = (unicodedata.category(c) if c else "" for c in (word[:1], last))
        closes = kind in ("Pe", "Pf") or (kind == "Po" and word[0] not in _LOOSE)
        opens = before in ("Ps", "Pi") or last in "¿¡"  # nothing before opens too
        whole = _ONE_CJK.match(last) or _ONE_CJK.match(word)
        text += word if (closes and len(word) == 1) or opens or whole else " " + word
    return text


def _grams(text: str) -> list[str]:
    words = [word.lower() for word in _words(text)]
    return [*words, *(f"{a} {b}" for a, b in pairwise(words))]


def _numbered(
    rows: Sequence[Sequence[str]],
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """The words by number, the numbers of all rows one behind the other, and the rows' lengths."""
    numbers: dict[str, int] = {}
    ids = [numbers.setdefault(word, len(numbers)) for row in rows for word in row]
    return list(numbers), np.array(ids, np.int64), np.array([len(row) for row in rows], np.int64)


def _spelling(rows: Sequence[Sequence[str]]) -> dict[str, str]:
    """How each word in small letters is written most often where it does not begin a sentence."""
    inside: dict[str, Counter[str]] = defaultdict(Counter)
    first: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for i, word in enumerate(row):
            (inside if i else first)[word.lower()][word] += 1
    return {word: seen.most_common(1)[0][0] for word, seen in (first | inside).items()}


def _strided(stride: int, pairs: int) -> str:
    if stride == 1:
        return ""
    return f"learned from one of {stride} pairs, {-(-pairs // stride):,} of {pairs:,}"


def _check(sources: Sequence[str], targets: Sequence[str]) -> None:
    if len(sources) != len(targets) or not len(sources):
        raise ValueError(
            f"{len(sources)} sources and {len(targets)} targets came; wanted as many of both, at "
            "least one"
        )
