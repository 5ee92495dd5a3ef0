"""Classifiers that every network must beat: counts, naive Bayes, and linear models on n-grams.

All have one interface: `fit` on the examples and a (N, K) table of their labels, `predict` to
(N, K) probabilities, so that a row of the leaderboard is made the same way for a baseline and for
a network. Texts come as token ids (`keras_seq.data.TokenStore`), numeric sequences as features.

Shapes in axis letters: N examples, K classes or labels, F features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from keras_seq.data import TokenStore

__all__ = [
    "FEATURE_BASELINES",
    "TEXT_BASELINES",
    "Classifier",
    "Logistic",
    "Majority",
    "NaiveBayes",
    "NaiveBayesLogistic",
    "NearestNeighbours",
    "PositionLogistic",
    "ngram_features",
    "sequence_features",
]

Floats = NDArray[np.float64]

# Ids from here on would make the number of a 3-gram overflow 63 bits.
_MOST_IDS = 2**20


class Classifier:
    """What all baselines share. A subclass sets `name` and implements `_fit` and `_predict`.

    Attributes:
        name: As in the leaderboard.
        notes: After `fit`: what had to be done otherwise than the name says, a sentence each.

    Example:
        >>> baseline = Majority().fit([0, 0, 0, 0], [[1, 0], [1, 0], [1, 0], [0, 1]])
        >>> baseline.predict([0]).tolist()
        [[0.75, 0.25]]
    """

    name = "classifier"

    def __init__(self) -> None:
        self.notes: tuple[str, ...] = ()
        self.exclusive = True
        self.classes = 0

    def fit(self, examples: Any, targets: ArrayLike, *, exclusive: bool = True) -> Self:
        """Learns from the training part.

        Args:
            examples: N examples: a `TokenStore` or (N, F) features, as the baseline takes them.
            targets: (N, K) 1 where an example has the label, else 0.
            exclusive: Whether each example has exactly one label.

        Returns:
            Itself.

        Raises:
            ValueError: If there are not as many examples as targets.
        """
        table = np.asarray(targets, np.float64)
        if table.ndim != 2 or len(examples) != len(table) or not len(table):
            raise ValueError(f"{len(examples)} examples and targets {table.shape}; wanted (N, K)")
        self.notes = ()
        self.exclusive, self.classes = exclusive, table.shape[1]
        self._fit(examples, table)
        return self

    def predict(self, examples: Any) -> Floats:
        """Gives probabilities.

        Args:
            examples: As for `fit`.

        Returns:
            (N, K); rows sum to 1 where the labels exclude each other.
        """
        return self._predict(examples)

    def _fit(self, examples: Any, targets: Floats) -> None:
        raise NotImplementedError

    def _predict(self, examples: Any) -> Floats:
        raise NotImplementedError

    def _problems(self) -> list[int]:
        """The labels that are learned: of two that exclude each other the second alone."""
        return [1] if self.exclusive and self.classes == 2 else list(range(self.classes))

    def _join(self, columns: list[Floats]) -> Floats:
        """Probabilities of all labels from those of `_problems`."""
        if self.exclusive and self.classes == 2:
            return np.stack([1 - columns[0], columns[0]], axis=1)
        found = np.stack(columns, axis=1)
        if not self.exclusive:
            return found
        total = found.sum(axis=1, keepdims=True)
        return np.divide(found, total, out=np.full_like(found, 1 / self.classes), where=total > 0)


class Majority(Classifier):
    """The share of each label in the training part, for every example."""

    name = "majority"

    def _fit(self, examples: Any, targets: Floats) -> None:
        self._share = targets.mean(axis=0)

    def _predict(self, examples: Any) -> Floats:
        return np.tile(self._share, (len(examples), 1))


class NaiveBayes(Classifier):
    """Multinomial naive Bayes on the counts of single tokens, with add-one smoothing.

    Reference:
        McCallum and Nigam 1998, A comparison of event models for naive Bayes text classification.
    """

    name = "naive_bayes"

    def _fit(self, examples: TokenStore, targets: Floats) -> None:
        counts, self._keys = ngram_features(examples, 1, binary=False)
        sums = np.asarray(counts.T @ targets)  # (F, K)
        if self.exclusive:
            self._prior = np.log(targets.mean(axis=0) + 1e-12)
            self._weights = np.log(sums + 1) - np.log((sums + 1).sum(axis=0))
            return
        share = targets.mean(axis=0)
        self._prior = np.log(share + 1e-12) - np.log(1 - share + 1e-12)
        rest = sums.sum(axis=0) * 0 + np.asarray(counts.sum(axis=0)).reshape(-1, 1) - sums
        yes, no = ((a + 1) / (a + 1).sum(axis=0) for a in (sums, rest))
        self._weights = np.log(yes) - np.log(no)

    def _predict(self, examples: TokenStore) -> Floats:
        counts, _ = ngram_features(examples, 1, keys=self._keys, binary=False)
        score = np.asarray(counts @ self._weights) + self._prior
        if not self.exclusive:
            return _sigmoid(score)
        score -= score.max(axis=1, keepdims=True)
        return np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)


class NaiveBayesLogistic(Classifier):
    """Logistic regression on n-grams that are there or not, weighted by naive Bayes.

    A feature is 1 where the text holds the n-gram; it is multiplied by the log of how much more
    often texts with the label hold it than texts without. One regression for each label.

    Args:
        orders: N-grams of 1 up to this many tokens.
        smoothing: Added to the counts of texts.
        strength: C of the regression: the inverse of its penalty.

    Reference:
        Wang and Manning 2012, Baselines and Bigrams: Simple, Good Sentiment and Topic
        Classification; Mesnil et al. 2015, Ensemble of Generative and Discriminative Techniques
        for Sentiment Analysis of Movie Reviews (1-3-grams, logistic regression).
    """

    name = "nb_logistic_regression"

    def __init__(self, orders: int = 3, smoothing: float = 1.0, strength: float = 1.0) -> None:
        super().__init__()
        self.orders = orders
        self.smoothing = smoothing
        self.strength = strength

    def _fit(self, examples: TokenStore, targets: Floats) -> None:
        features, self._keys = ngram_features(examples, self.orders)
        self._models = []
        everywhere = np.asarray(features.sum(axis=0)).ravel()
        for k in self._problems():
            ours = np.asarray(features.T @ targets[:, k]).ravel()
            theirs = everywhere - ours + self.smoothing
            ours += self.smoothing
            ratio = np.log(ours / ours.sum()) - np.log(theirs / theirs.sum())
            scaled = features.multiply(ratio[None]).tocsr()
            weights, bias = self._regress(scaled, targets[:, k])
            self._models.append((ratio * weights, bias))

    def _regress(self, features: Any, target: Floats) -> tuple[Floats, float]:
        found = _fit_logistic(features, target, self.strength, dual=True)
        self.notes = (*self.notes, *found[2])
        return found[:2]

    def _predict(self, examples: TokenStore) -> Floats:
        features, _ = ngram_features(examples, self.orders, keys=self._keys)
        return self._join(
            [_sigmoid(np.asarray(features @ weights).ravel() + b) for weights, b in self._models]
        )


class PositionLogistic(Classifier):
    """Logistic regression on which token stands where: for sequences that are aligned.

    Args:
        strength: C of the regression: the inverse of its penalty.
    """

    name = "position_logistic_regression"

    def __init__(self, strength: float = 0.1) -> None:
        super().__init__()
        self.strength = strength

    def _features(self, examples: TokenStore) -> Any:
        from scipy.sparse import csr_array

        lengths = np.minimum(examples.lengths, self._steps)
        rows = np.repeat(np.arange(len(examples)), lengths)
        place = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        ids = examples.ids[np.repeat(examples.offsets[:-1], lengths) + place]
        known = ids < self._ids
        shape = (len(examples), self._steps * self._ids)
        where = (rows[known], (place * self._ids + ids)[known])
        return csr_array((np.ones(int(known.sum())), where), shape=shape)

    def _fit(self, examples: TokenStore, targets: Floats) -> None:
        self._steps, self._ids = int(examples.lengths.max()), int(examples.ids.max()) + 1
        features = self._features(examples)
        self._models = []
        for k in self._problems():
            weights, bias, notes = _fit_logistic(features, targets[:, k], self.strength)
            self._models.append((weights, bias))
            self.notes = (*self.notes, *notes)

    def _predict(self, examples: TokenStore) -> Floats:
        features = self._features(examples)
        return self._join(
            [_sigmoid(np.asarray(features @ weights).ravel() + b) for weights, b in self._models]
        )


class Logistic(Classifier):
    """Logistic regression on standardised features.

    Args:
        strength: C of the regression: the inverse of its penalty.
    """

    name = "logistic_regression"

    def __init__(self, strength: float = 0.1) -> None:
        super().__init__()
        self.strength = strength

    def _fit(self, examples: Floats, targets: Floats) -> None:
        self._mean, self._std = _scale(examples)
        features = (examples - self._mean) / self._std
        self._models = []
        for k in self._problems():
            weights, bias, notes = _fit_logistic(features, targets[:, k], self.strength)
            self._models.append((weights, bias))
            self.notes = (*self.notes, *notes)

    def _predict(self, examples: Floats) -> Floats:
        features = (examples - self._mean) / self._std
        return self._join([_sigmoid(features @ weights + b) for weights, b in self._models])


class NearestNeighbours(Classifier):
    """The labels of the nearest examples, on standardised features.

    Args:
        neighbours: How many are asked.
    """

    name = "nearest_neighbours"

    def __init__(self, neighbours: int = 5) -> None:
        super().__init__()
        self.neighbours = neighbours

    def _fit(self, examples: Floats, targets: Floats) -> None:
        from sklearn.neighbors import NearestNeighbors

        self._mean, self._std = _scale(examples)
        self._targets = targets
        count = min(self.neighbours, len(examples))
        self._index = NearestNeighbors(n_neighbors=count).fit((examples - self._mean) / self._std)

    def _predict(self, examples: Floats) -> Floats:
        found = self._index.kneighbors((examples - self._mean) / self._std, return_distance=False)
        # A class that none of them has is unlikely, not impossible.
        votes = self._targets[found].sum(axis=1) + self._targets.mean(axis=0)
        return votes / (found.shape[1] + 1)


#: By name, the baselines of token ids, the quick ones first.
TEXT_BASELINES: dict[str, Callable[[], Classifier]] = {
    cls.name: cls for cls in (Majority, NaiveBayes, NaiveBayesLogistic)
}
#: By name, the baselines of numeric sequences, on `sequence_features`.
FEATURE_BASELINES: dict[str, Callable[[], Classifier]] = {
    cls.name: cls for cls in (Majority, Logistic, NearestNeighbours)
}


# --- features -------------------------------------------------------------------------------------


def ngram_features(
    store: TokenStore,
    orders: int = 3,
    *,
    keys: list[NDArray[np.int64]] | None = None,
    binary: bool = True,
) -> tuple[Any, list[NDArray[np.int64]]]:
    """Counts the n-grams of each text, without a loop over tokens.

    Args:
        store: The ids of N texts.
        orders: N-grams of 1 up to this many tokens, at most 3.
        keys: The n-grams of the training part, as returned; None takes those that occur here.
        binary: 1 where an n-gram occurs at all, instead of how often.

    Returns:
        A sparse table (N, F), and the sorted n-grams of each order.

    Raises:
        ValueError: If the ids are too large to be joined to n-grams, or `orders` is.

    Example:
        >>> from keras_seq.data import TokenStore
        >>> table, keys = ngram_features(TokenStore.from_rows([[5, 6, 5], [6]]), 2)
        >>> table.toarray().astype(int).tolist()  # 5, 6, then "5 6" and "6 5"
        [[1, 1, 1, 1], [0, 1, 0, 0]]
    """
    from scipy.sparse import csr_array, hstack

    if not 1 <= orders <= 3 or (len(store.ids) and int(store.ids.max()) >= _MOST_IDS):
        raise ValueError(f"orders is {orders}: 1 to 3, of ids below {_MOST_IDS}")
    rows = np.repeat(np.arange(len(store), dtype=np.int32), store.lengths)
    ids = store.ids.astype(np.int64)
    parts, known = [], []
    for order in range(1, orders + 1):
        count = max(len(ids) - order + 1, 0)
        grams = np.zeros(count, np.int64)
        for shift in range(order):
            grams = grams * _MOST_IDS + ids[shift : shift + count]
        whole = rows[:count] == rows[order - 1 : order - 1 + count]  # none across two texts
        grams, place = grams[whole], rows[:count][whole]
        # Searching for sorted n-grams, each once, is four times faster: neighbours are in cache.
        names, columns = np.unique(grams, return_inverse=True)
        if keys is not None:
            found = np.searchsorted(keys[order - 1], names)
            there = found < len(keys[order - 1])
            there[there] = keys[order - 1][found[there]] == names[there]
            seen = there[columns]
            columns, place = found[columns[seen]], place[seen]
            names = keys[order - 1]
        ones = np.ones(len(columns), np.float32)
        shape = (len(store), len(names))
        table = csr_array((ones, (place, columns.astype(np.int32))), shape=shape)
        table.sum_duplicates()
        if binary:
            table.data[:] = 1.0
        parts.append(table)
        known.append(names)
    return hstack(parts, format="csr"), known


def sequence_features(values: list[NDArray[Any]]) -> Floats:
    """Makes a row of features of each numeric sequence.

    Args:
        values: N sequences, each (T, C).

    Returns:
        (N, F): all values in order where all sequences have the same length; else mean, standard
        deviation, least, greatest, first and last value, and slope of each channel, and the length.

    Example:
        >>> import numpy as np
        >>> sequence_features([np.ones((3, 2)), np.zeros((3, 2))]).shape
        (2, 6)
        >>> sequence_features([np.ones((3, 1)), np.zeros((4, 1))]).shape
        (2, 8)
    """
    if len({len(value) for value in values}) == 1:
        return np.stack([np.asarray(value, np.float64).ravel() for value in values])
    rows = []
    for value in values:
        x = np.asarray(value, np.float64)
        time = np.arange(len(x)) - (len(x) - 1) / 2
        slope = time @ x / max(float(time @ time), 1.0)
        ends = (x.mean(0), x.std(0), x.min(0), x.max(0), x[0], x[-1], slope, [len(x)])
        rows.append(np.concatenate(ends))
    return np.stack(rows)


# --- small helpers --------------------------------------------------------------------------------


def _scale(examples: Floats) -> tuple[Floats, Floats]:
    std = examples.std(axis=0)
    return examples.mean(axis=0), np.where(std > 0, std, 1.0)


def _sigmoid(score: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(score, np.float64)))  # no overflow at either end


def _fit_logistic(
    features: Any, target: Floats, strength: float, *, dual: bool = False
) -> tuple[Floats, float, tuple[str, ...]]:
    """Weights, bias, and what went wrong, of one yes-or-no logistic regression."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if target.min() == target.max():
        # A label that all or none have: nothing to learn, and a sure answer.
        return np.zeros(features.shape[1]), 10.0 if target.max() else -10.0, ()
    how: dict[str, Any] = {"solver": "liblinear", "dual": True} if dual else {"solver": "lbfgs"}
    model = LogisticRegression(C=strength, max_iter=1000, random_state=0, **how)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(features, target)
    stopped = any(issubclass(w.category, ConvergenceWarning) for w in caught)
    notes = ("the logistic regression stopped before it had converged",) if stopped else ()
    return model.coef_[0], float(model.intercept_[0]), notes
