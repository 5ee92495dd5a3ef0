"""Another way to cut the same text each time: what makes small training sets go further."""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seq.data import TokenStore
from keras_seq.errors import UserError
from keras_seq.preprocessing.device_tokenizer import (
    REMEMBERED,
    SPECIAL,
    UNKNOWN,
    DeviceTokenizer,
    byte_letters,
    split_chunks,
)

if TYPE_CHECKING:
    from keras_seq.preprocessing.tokenizer import Tokenizer

__all__ = ["SubwordSampler"]

_STATES = 200_000  # half-merged chunks that are remembered, about 100 MB


class SubwordSampler:
    """Cuts texts into byte pairs or unigrams at random, so that a model sees many cuts of a word.

    For the training part alone; validation, test and use have the tokenizer's own cut. The ids
    are the tokenizer's, and `Tokenizer.decode` gives the same text back.

    Byte pairs (BPE dropout): at every step each possible merge is left out with probability
    `dropout`. Unigrams (subword regularisation): a cut is drawn from all cuts of a chunk, with
    probability in proportion to its likelihood to the power of `alpha`.

    Args:
        tokenizer: Of the kind byte_pairs or unigrams.
        dropout: Of byte pairs: 0 is the tokenizer's own cut, 1 cuts into single bytes.
        alpha: Of unigrams: 0 takes every cut as often as any other, large values nearly always
            the best. Means nothing for byte pairs, as `dropout` does for unigrams.

    Raises:
        UserError: The tokenizer has one way to cut, or a number is out of range.

    Example:
        >>> from keras_seq.preprocessing import train_tokenizer
        >>> tokenizer = train_tokenizer("byte_pairs", ["low lower lowest"] * 9, vocabulary=280)
        >>> draw = random.Random(0)
        >>> sampler = SubwordSampler(tokenizer, dropout=0.3)
        >>> cuts = [sampler.encode("lowest", draw) for _ in range(4)]
        >>> [[tokenizer.vocabulary[i] for i in ids] for ids in cuts][2:]
        [['low', 'e', 'st'], ['low', 'e', 's', 't']]
        >>> {tokenizer.decode(ids) for ids in cuts}
        {'lowest'}

        Another cut in each pass over the training part:

        >>> from keras_seq.data import PairBatches
        >>> source, target = ["low lowest", "lower"], ["lowest", "low lower"]
        >>> def segment(seed, number):
        ...     draw = {"seed": seed, "number": number}
        ...     return sampler.store(source, **draw), sampler.store(target, **draw, side="target")
        >>> plain = [TokenStore.from_rows(tokenizer.encode_batch(t)) for t in (source, target)]
        >>> data = PairBatches(*plain, segment=segment)
        >>> [int((x["source"] > 0).sum()) for x, _ in data.batches(2, seed=0, steps=3)]
        [7, 6, 7]

    References:
        Provilkov et al. 2020, BPE-Dropout: Simple and Effective Subword Regularization; Kudo 2018,
        Subword Regularization: Improving Neural Network Translation Models with Multiple Subword
        Candidates.
    """

    def __init__(self, tokenizer: Tokenizer, *, dropout: float = 0.1, alpha: float = 0.1) -> None:
        config = tokenizer.config()
        if config["kind"] not in ("byte_pairs", "unigrams"):
            raise UserError(
                f"a tokenizer of {config['kind']} has one way to cut a text: take byte_pairs or "
                "unigrams to draw from several"
            )
        if not 0 <= dropout <= 1:
            raise UserError(f"the dropout of merges is {dropout}: give 0 to 1, such as 0.1")
        if not 0 <= alpha < math.inf:
            raise UserError(f"alpha is {alpha}: give 0 or more, such as 0.1")
        self.dropout = dropout
        self.alpha = alpha
        self._rules = DeviceTokenizer(config)
        self._cutter: Any = (
            _Merges(config, dropout) if config["kind"] == "byte_pairs" else _Cuts(config, alpha)
        )

    def encode(self, text: str, draw: random.Random) -> np.ndarray:
        """The ids of one text, cut at random.

        Args:
            text: Any string.
            draw: Where the random numbers come from.

        Returns:
            Ids (T,) int32, at least one, without start and end.
        """
        ids: list[int] = []
        for chunk in split_chunks(self._rules.normalise(text)):
            self._cutter.cut(chunk, draw.random, ids)
        return np.array(ids or [UNKNOWN], np.int32)

    def store(self, texts: Iterable[str], *, seed: int, number: int, side: str = "") -> TokenStore:
        """The ids of texts in one pass over them; text i depends on nothing but these and i.

        Args:
            texts: Strings, read once.
            seed: Of the training.
            number: Of the pass.
            side: A word that tells source from target, so that they are cut independently.

        Returns:
            The ids.

        Example:
            >>> from keras_seq.preprocessing import train_tokenizer
            >>> tokenizer = train_tokenizer("byte_pairs", ["low lower lowest"] * 9, vocabulary=280)
            >>> sampler = SubwordSampler(tokenizer, dropout=0.5)
            >>> one, two = (sampler.store(["lowest lower"], seed=0, number=n) for n in (0, 1))
            >>> one[0].tolist() == two[0].tolist()
            False
        """
        return TokenStore.from_rows(
            self.encode(text, random.Random(f"{seed} {number} {side} {row}"))
            for row, text in enumerate(texts)
        )


class _State:
    """A chunk in parts, with the merges that are possible and what was made of it before."""

    __slots__ = ("following", "ids", "merges", "parts")

    def __init__(self, parts: tuple[str, ...], merges: list[tuple[int, int]]) -> None:
        self.parts = parts
        self.merges = merges  # (rank, place), the first merge of training first
        self.ids: list[int] | None = None
        self.following: dict[tuple[int, ...], _State] = {}


class _Merges:
    """Byte pairs with some merges left out. What a state becomes is remembered, not drawn anew."""

    def __init__(self, config: dict[str, Any], dropout: float) -> None:
        self._ids = {t: i for i, t in enumerate(config["vocabulary"]) if i >= len(SPECIAL)}
        pairs = (tuple(merge.split(" ")) for merge in config["merges"])
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._letters = byte_letters()
        self._dropout = dropout
        self._states: dict[tuple[str, ...], _State] = {}
        self._first: dict[str, _State] = {}

    def cut(self, chunk: str, draw: Any, ids: list[int]) -> None:
        dropout = self._dropout
        state = self._first.get(chunk)
        if state is None:
            if len(self._states) > _STATES:
                self._states.clear()
                self._first.clear()
            parts = tuple(self._letters[byte] for byte in chunk.encode("utf-8"))
            state = self._first[chunk] = self._state(parts)
        while state.merges:
            merges, kept = state.merges, 0
            while kept < len(merges) and draw() < dropout:
                kept += 1
            if kept == len(merges):
                break
            rank, place = merges[kept]
            places = [place]
            # The same pair may stand at other places too, each with a draw of its own.
            for other, place in merges[kept + 1 :]:
                if other != rank:
                    break
                if draw() >= dropout:
                    places.append(place)
            key = tuple(places)
            after = state.following.get(key)
            if after is None:
                after = state.following[key] = self._state(_merged(state.parts, places))
            state = after
        if state.ids is None:
            state.ids = [self._ids[part] for part in state.parts]
        ids += state.ids

    def _state(self, parts: tuple[str, ...]) -> _State:
        found = self._states.get(parts)
        if found is None:
            ranks = (self._ranks.get(pair) for pair in itertools.pairwise(parts))
            merges = sorted((rank, i) for i, rank in enumerate(ranks) if rank is not None)
            found = self._states[parts] = _State(parts, merges)
        return found


def _merged(parts: tuple[str, ...], places: list[int]) -> tuple[str, ...]:
    """Joins each part at these places (rising) to the next; of places side by side the first."""
    found: list[str] = []
    i = 0
    wanted = set(places)
    while i < len(parts):
        if i in wanted:
            found.append(parts[i] + parts[i + 1])
            i += 2
        else:
            found.append(parts[i])
            i += 1
    return tuple(found)


class _Cuts:
    """Unigrams: forward sums over all cuts of a chunk, remembered; a cut is drawn backwards."""

    def __init__(self, config: dict[str, Any], alpha: float) -> None:
        self._ids = {t: i for i, t in enumerate(config["vocabulary"]) if i >= len(SPECIAL)}
        self._longest = max((len(t) for t in self._ids), default=1)
        # Scores are thousandths of logarithms.
        self._scores = [alpha * score / 1000 for score in config["scores"]]
        # Of each chunk, for each place: sums of shares, and the size and id that each stands for.
        self._known: dict[str, list[tuple[list[float], list[tuple[int, int]]]]] = {}

    def cut(self, chunk: str, draw: Any, ids: list[int]) -> None:
        ways = self._known.get(chunk)
        if ways is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            ways = self._known[chunk] = self._ways(chunk.replace(" ", "\u2581"))
        found = []
        end = len(ways)
        while end:
            sums, pieces = ways[end - 1]
            size, token = pieces[bisect.bisect_right(sums, draw())] if sums else pieces[0]
            found.append(token)
            end -= size
        ids += found[::-1]

    def _ways(self, text: str) -> list[tuple[list[float], list[tuple[int, int]]]]:
        total = [0.0]  # log of the sum over all cuts up to each place
        found = []
        for end in range(1, len(text) + 1):
            pieces, logs = [], []
            for size in range(1, min(end, self._longest) + 1):
                token = self._ids.get(text[end - size : end])
                if token is None and size == 1:
                    token = UNKNOWN
                if token is not None:
                    pieces.append((size, token))
                    logs.append(total[end - size] + self._scores[token])
            top = max(logs)
            shares = [math.exp(value - top) for value in logs]
            whole = sum(shares)
            total.append(top + math.log(whole))
            # The last share is what is left, so that no draw lies beyond.
            sums = list(itertools.accumulate(share / whole for share in shares[:-1]))
            found.append((sums, pieces))
        return found
