"""Find texts that stand, word for word or nearly, in two collections (train and test)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from keras_seq.errors import UserError

__all__ = ["near_duplicates"]

_HASHES = 96  # of a signature: an estimate of the similarity with a deviation of at most 0.05
_BANDS = (1, 2, 3, 4, 6, 8, 12, 16)  # hashes in a band; all divide _HASHES
_RECALL = 0.999  # of the pairs at the threshold, these share a band
_SLACK = 0.15  # a signature may say so much less than the threshold: three deviations and more
_MOST = 32  # candidates that a band gives a text
_BLOCK = 1 << 16  # shingles hashed together: they stay in the cache
_WORDS = re.compile(r"\w+")


def near_duplicates(
    first: Sequence[str], second: Sequence[str], *, threshold: float = 0.9
) -> list[tuple[int, int, float]]:
    """For each text of `second` the text of `first` that is most alike, if it is alike enough.

    Equal texts are found by a table. For the others the similarity is that of Jaccard between
    their sets of 5-word pieces (3 words where a text has few; characters where it has no words, as
    in DNA or Chinese), case and punctuation apart. MinHash signatures in bands find the candidates
    without looking at all pairs, and each candidate is then computed exactly. The result depends
    on nothing but the texts. See Broder 1997, "On the resemblance and containment of documents".

    Args:
        first: Texts, such as the training part.
        second: Texts, such as the test part.
        threshold: The least similarity, over 0 and at most 1.

    Returns:
        (number in `first`, number in `second`, similarity), at most one for each text of
        `second`, in the order of `second`. Empty texts are not alike. Swap the collections to
        know it for each text of the other one.

    Raises:
        UserError: The threshold is out of range.

    Example:
        >>> first = ["a fine film for everyone", "dull from beginning to end, and long"]
        >>> near_duplicates(first, ["no", "Dull from beginning to end -- and long!"])
        [(1, 1, 1.0)]
    """
    if not 0 < threshold <= 1:
        raise UserError(f"the similarity is {threshold}: give a number over 0 and at most 1")
    known: dict[str, int] = {}
    for number, text in enumerate(first):
        known.setdefault(text, number)
    best: dict[int, tuple[float, int]] = {}
    for number, text in enumerate(second):
        if text in known and text.strip():
            best[number] = (1.0, known[text])
    rest = [number for number in range(len(second)) if number not in best]
    units = _Units()
    ours = [units.of(text) for text in first]
    theirs = [units.of(second[number]) for number in rest]
    # Both groups hold the texts in between, so that a pair is never torn apart.
    for size, low, high in ((5, 20, None), (3, 1, 25)):
        a = _Shingles(ours, size, low, high, units)
        b = _Shingles(theirs, size, low, high, units)
        for i, j in _candidates(a, b, threshold):
            similarity = a.jaccard(i, b, j)
            pair = (similarity, int(a.rows[i]))
            number = rest[int(b.rows[j])]
            # The most alike; of equals the first.
            old = best.get(number, (0.0, 0))
            if similarity >= threshold and (-pair[0], pair[1]) < (-old[0], old[1]):
                best[number] = pair
    return [(row, number, similarity) for number, (similarity, row) in sorted(best.items())]


class _Units:
    """Words (or characters) to numbers in the order in which they come."""

    def __init__(self) -> None:
        self._numbers: defaultdict[str, int] = defaultdict()
        self._numbers.default_factory = self._numbers.__len__

    def of(self, text: str) -> np.ndarray:
        text = text.lower()
        words = _WORDS.findall(text)
        if len(text) > 20 * len(words) + 20:
            words = ["".join(words)[i] for i in range(sum(map(len, words)))] if words else []
        found = np.fromiter(map(self._numbers.__getitem__, words), np.int32, len(words))
        return found

    def hashes(self) -> np.ndarray:
        """One random number for each unit."""
        return _mix(np.arange(1, len(self._numbers) + 1, dtype=np.uint64))


def _mix(numbers: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64: a fixed permutation of 64-bit numbers that looks random."""
    z = numbers * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class _Shingles:
    """The hashed pieces of the texts that have from `low` to `high` words, and signatures."""

    def __init__(
        self, texts: list[np.ndarray], size: int, low: int, high: int | None, units: _Units
    ) -> None:
        lengths = np.array([len(t) for t in texts], np.int64)
        there = lengths >= low
        if high is not None:
            there &= lengths < high
        self.rows = np.flatnonzero(there)
        lengths = lengths[self.rows]
        counts = np.maximum(lengths - size + 1, 1)  # a text of fewer words is one piece
        self.offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.hashes = np.zeros(int(self.offsets[-1]), np.uint64)
        self.signatures = np.zeros((len(self.rows), _HASHES), np.uint32)
        table = units.hashes()
        first = 0
        while first < len(self.rows):
            reach = self.offsets[first] + _BLOCK
            last = max(first + 1, int(np.searchsorted(self.offsets, reach, "right")) - 1)
            block = slice(int(self.offsets[first]), int(self.offsets[last]))
            part = [texts[row] for row in self.rows[first:last]]
            self.hashes[block] = _pieces(part, counts[first:last], size, table)
            starts = self.offsets[first:last] - self.offsets[first]
            self._sign(first, last, self.hashes[block], starts)
            first = last

    def _sign(self, first: int, last: int, hashes: np.ndarray, starts: np.ndarray) -> None:
        # Multiply-shift hashing (Dietzfelbinger et al. 1997); the factors must be odd.
        factors = _mix(np.arange(1000, 1000 + _HASHES, dtype=np.uint64)) | np.uint64(1)
        for k, factor in enumerate(factors):
            values = ((hashes * factor) >> np.uint64(32)).astype(np.uint32)
            self.signatures[first:last, k] = np.minimum.reduceat(values, starts)

    def jaccard(self, i: int, other: _Shingles, j: int) -> float:
        a = np.unique(self.hashes[self.offsets[i] : self.offsets[i + 1]])
        b = np.unique(other.hashes[other.offsets[j] : other.offsets[j + 1]])
        both = len(np.intersect1d(a, b, assume_unique=True))
        return both / (len(a) + len(b) - both)


def _pieces(
    texts: list[np.ndarray], counts: np.ndarray, size: int, table: np.ndarray
) -> np.ndarray:
    """The hashes of all pieces of `size` units, text after text."""
    # Zeros behind each text: pieces that reach into them belong to texts shorter than a piece.
    lengths = np.array([len(t) for t in texts], np.int64)
    room = np.maximum(lengths, size)
    ends = np.cumsum(room)
    flat = np.zeros(int(ends[-1]) + size, np.uint64)
    places = np.arange(int(lengths.sum())) + np.repeat(
        (ends - room) - (np.cumsum(lengths) - lengths), lengths
    )
    flat[places] = table[np.concatenate(texts)]
    weights = _mix(np.arange(1, size + 1, dtype=np.uint64)) | np.uint64(1)
    total = len(flat) - size + 1
    sums = np.zeros(total, np.uint64)
    for k, weight in enumerate(weights):
        sums += flat[k : k + total] * weight
    at = np.arange(int(counts.sum())) + np.repeat(
        (ends - room) - (np.cumsum(counts) - counts), counts
    )
    return _mix(sums[at])


def _candidates(a: _Shingles, b: _Shingles, threshold: float) -> list[tuple[int, int]]:
    """Pairs that share a band and whose signatures say that they may be alike enough."""
    if not len(a.rows) or not len(b.rows):
        return []
    width = max(
        (r for r in _BANDS if 1 - (1 - threshold**r) ** (_HASHES // r) >= _RECALL), default=1
    )
    # Texts with one signature are one candidate: what stands a thousand times is looked at once.
    _, once = np.unique(a.signatures, axis=0, return_index=True)
    once = np.sort(once)
    found: list[np.ndarray] = []
    weights = _mix(np.arange(1, width + 1, dtype=np.uint64)) | np.uint64(1)
    for band in range(0, _HASHES, width):
        ours, theirs = (
            _mix((part[:, band : band + width].astype(np.uint64) * weights).sum(1))
            for part in (a.signatures[once], b.signatures)
        )
        order = np.argsort(ours, kind="stable")
        ours = ours[order]
        start = np.searchsorted(ours, theirs, "left")
        count = np.minimum(np.searchsorted(ours, theirs, "right") - start, _MOST)
        j = np.repeat(np.arange(len(theirs)), count)
        within = np.arange(len(j)) - np.repeat(np.cumsum(count) - count, count)
        i = once[order[start[j] + within]]
        found.append(np.stack([i, j], 1))
    pairs = np.unique(np.concatenate(found), axis=0)
    likely = [np.zeros(0, bool)]
    for part in np.array_split(pairs, len(pairs) // 10_000 + 1):
        same = a.signatures[part[:, 0]] == b.signatures[part[:, 1]]
        likely.append(same.mean(1) >= threshold - _SLACK)
    return [(int(i), int(j)) for i, j in pairs[np.concatenate(likely)]]
