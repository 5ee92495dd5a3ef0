"""Taggers that every network must beat: counts, and a linear model on features of the word.

Each has `fit(words, tags)` and `predict(words)`, where words and tags are lists of sentences and
the answer is (M, K), the probability of each tag for each of the M tokens, sentence by sentence.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

__all__ = ["TAGGERS", "FeatureTagger", "FrequentTag", "MajorityTag", "Tagger"]

Sentences = Sequence[Sequence[str]]


class Tagger(Protocol):
    """A baseline of the tagging task."""

    def fit(self, words: Sentences, tags: Sequence[np.ndarray], classes: int) -> None:
        """Learns from sentences and their tags, numbers from 0 to `classes` - 1."""

    def predict(self, words: Sentences) -> np.ndarray:
        """Returns the probabilities of the tags, (M, K)."""


class MajorityTag:
    """Gives every word the tag that is most frequent in training.

    Example:
        >>> tagger = MajorityTag()
        >>> tagger.fit([["a", "b", "c"]], [np.array([1, 0, 1])], 2)
        >>> tagger.predict([["x"]]).argmax(1).tolist()
        [1]
    """

    def fit(self, words: Sentences, tags: Sequence[np.ndarray], classes: int) -> None:
        """Counts the tags.

        Args:
            words: The words of each sentence.
            tags: (T,) the tag numbers of each sentence.
            classes: How many tags there are.
        """
        counts = np.bincount(np.concatenate(tags), minlength=classes)
        self._shares = counts / counts.sum()

    def predict(self, words: Sentences) -> np.ndarray:
        """Returns the shares of the tags for every word, (M, K).

        Args:
            words: The words of each sentence.
        """
        return np.tile(self._shares, (sum(map(len, words)), 1))


class FrequentTag:
    """Gives each word the tag that it has most often; a word never seen that of its ending.

    The endings are those of the words that training has but once, 5 letters or fewer: of an
    unknown word the longest ending that was seen at least 5 times decides.

    Example:
        >>> tagger = FrequentTag()
        >>> tagger.fit([["the", "dog", "the"]], [np.array([0, 1, 0])], 2)
        >>> tagger.predict([["The", "dog"]]).argmax(1).tolist()
        [0, 1]

    Reference:
        Samuelsson 1993, Morphological tagging based entirely on Bayesian inference (endings).
    """

    _LONGEST, _LEAST = 5, 5

    def fit(self, words: Sentences, tags: Sequence[np.ndarray], classes: int) -> None:
        """Counts the tags of each word.

        Args:
            words: The words of each sentence.
            tags: (T,) the tag numbers of each sentence.
            classes: How many tags there are.
        """
        self._classes = classes
        counts: dict[str, Counter[int]] = defaultdict(Counter)
        for row, row_tags in zip(words, tags, strict=True):
            for word, tag in zip(row, row_tags.tolist(), strict=True):
                counts[word.lower()][tag] += 1
        self._words = {word: self._shares(found) for word, found in counts.items()}
        endings: dict[str, Counter[int]] = defaultdict(Counter)
        for word, found in counts.items():
            if found.total() == 1:
                for size in range(min(self._LONGEST, len(word)) + 1):
                    endings[word[len(word) - size :]].update(found)
        self._endings = {
            ending: self._shares(found)
            for ending, found in endings.items()
            if found.total() >= self._LEAST or not ending
        }
        every: Counter[int] = Counter()
        for found in counts.values():
            every.update(found)
        self._endings.setdefault("", self._shares(every))

    def predict(self, words: Sentences) -> np.ndarray:
        """Returns the shares of the tags of each word or ending, (M, K).

        Args:
            words: The words of each sentence.
        """
        return np.array([self._look(word.lower()) for row in words for word in row])

    def _look(self, word: str) -> np.ndarray:
        if word in self._words:
            return self._words[word]
        for size in range(min(self._LONGEST, len(word)), 0, -1):
            if word[len(word) - size :] in self._endings:
                return self._endings[word[len(word) - size :]]
        return self._endings[""]

    def _shares(self, counts: Counter[int]) -> np.ndarray:
        found = np.zeros(self._classes)
        for tag, count in counts.items():
            found[tag] = count
        return found / found.sum()


class FeatureTagger:
    """Logistic regression on features of the word, its spelling and its neighbours.

    Features: the word, in small letters too, its first and last 1 to 4 letters, its shape, and two
    words to each side with the endings of the next ones; hashed into a sparse vector. One averaged
    stochastic-gradient model a tag.

    Args:
        epochs: Passes over the training part.
        alpha: Weight of the squared weights.
        seed: Of the order.

    Example:
        >>> tagger = FeatureTagger()
        >>> tagger.fit([["a", "dog", "runs"], ["a", "cat"]], [np.array([0, 1, 2])] * 1 + [
        ...     np.array([0, 1])], 3)
        >>> tagger.predict([["a", "cat"]]).argmax(1).tolist()
        [0, 1]

    Reference:
        Ratnaparkhi 1996, A maximum entropy model for part-of-speech tagging (the features).
    """

    def __init__(self, *, epochs: int = 4, alpha: float = 1e-6, seed: int = 0) -> None:
        self.epochs = epochs
        self.alpha = alpha
        self.seed = seed

    def fit(self, words: Sentences, tags: Sequence[np.ndarray], classes: int) -> None:
        """Fits one linear model a tag.

        Args:
            words: The words of each sentence.
            tags: (T,) the tag numbers of each sentence.
            classes: How many tags there are.
        """
        from sklearn.feature_extraction import FeatureHasher
        from sklearn.linear_model import SGDClassifier

        self._classes = classes
        self._hasher = FeatureHasher(2**20, input_type="string", alternate_sign=False)
        y = np.concatenate(tags)
        self._only = int(y[0]) if (y == y[0]).all() else None
        if self._only is not None:
            return
        self._model = SGDClassifier(
            loss="log_loss",
            alpha=self.alpha,
            max_iter=self.epochs,
            tol=None,
            average=True,
            random_state=self.seed,
        )
        self._model.fit(self._features(words), y)

    def predict(self, words: Sentences) -> np.ndarray:
        """Returns the probabilities of the tags, (M, K).

        Args:
            words: The words of each sentence.
        """
        found = np.zeros((sum(map(len, words)), self._classes))
        if self._only is not None:
            found[:, self._only] = 1.0
        elif len(found):
            given = self._model.predict_proba(self._features(words))
            found[:, self._model.classes_] = given
        return found

    def _features(self, words: Sentences) -> object:
        return self._hasher.transform(found for row in words for found in _sentence_features(row))


def _sentence_features(row: Sequence[str]) -> Iterator[list[str]]:
    small = ["<1", "<0", *(word.lower() for word in row), "0>", "1>"]
    for i, word in enumerate(row):
        here = small[i + 2]
        yield [
            "w " + word,
            "l " + here,
            *(f"s{n} {here[-n:]}" for n in range(1, 5)),
            *(f"p{n} {here[:n]}" for n in range(1, 5)),
            "x " + _shape(word),
            f"x0 {_shape(word)} {i == 0}",
            "-1 " + small[i + 1],
            "-2 " + small[i],
            "+1 " + small[i + 3],
            "+2 " + small[i + 4],
            "-1s " + small[i + 1][-3:],
            "+1s " + small[i + 3][-3:],
            f"-10 {small[i + 1]} {here}",
            f"0+1 {here} {small[i + 3]}",
            f"-1+1 {small[i + 1]} {small[i + 3]}",
            f"-2-1 {small[i]} {small[i + 1]}",
            f"-1s0 {small[i + 1][-3:]} {here[-3:]}",
            f"0+1s {here[-3:]} {small[i + 3][-3:]}",
            "bias",
        ]


def _shape(word: str) -> str:
    """Xx for Word, d for 12, X for USA: letters by case, digits, signs; runs shortened."""
    found = ""
    for letter in word[:20]:
        kind = (
            "d"
            if letter.isdigit()
            else "X"
            if letter.isupper()
            else "x"
            if letter.isalpha()
            else letter
        )
        if not found.endswith(kind):
            found += kind
    return found


TAGGERS: dict[str, Callable[[], Tagger]] = {
    "majority": MajorityTag,
    "word_majority": FrequentTag,
    "feature_tagger": FeatureTagger,
}
