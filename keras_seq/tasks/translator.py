"""Texts in, the best translations of each out, with scores and alignments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from keras_seq.errors import UserError
from keras_seq.tasks.text import pad

if TYPE_CHECKING:
    import keras

    from keras_seq.decoding import SearchModel
    from keras_seq.preprocessing import Tokenizer

#: The signatures of an exported encoder-decoder; a search goes on the last two.
TRANSLATE, ENCODE, STEP = "translate", "encode", "decode_step"

_TOGETHER = 64  # sources of like length that are searched together


@dataclass(frozen=True)
class Translated:
    """One translation of one text.

    Args:
        text: The translation.
        score: What the search ranks by, see `keras_seq.decoding.BeamOptions`.
        source: The tokens that were read.
        target: The tokens that were written.
        alignment: (T, S), what each token of the target attended to; None without attention.
    """

    text: str
    score: float
    source: tuple[str, ...]
    target: tuple[str, ...]
    alignment: np.ndarray | None


class Searchable(Protocol):
    """An encoder-decoder that is no Keras model: an exported file."""

    vocabulary: int

    def search_model(self, *, hypotheses: int, length: int) -> SearchModel:
        """Makes what a search goes on; see `keras_seq.decoding.search_model`."""


class Translator:
    """A trained encoder-decoder with its tokenizers.

    Args:
        model: A functional model from ``source`` and ``tokens`` to ``logits``, or an exported one.
        metadata: What was stored with it, see `TranslationProblem.metadata`.
        beam: Hypotheses of the search; None: as in training.
        length_penalty: Of the search; None: as in training.
        max_length: The most tokens of a translation; None: as in training.
        cut: Whether a source that is too long is cut at its end, and not refused.

    Raises:
        UserError: If an option is out of range.
    """

    def __init__(
        self,
        model: keras.Model | Searchable,
        metadata: dict[str, Any],
        *,
        beam: int | None = None,
        length_penalty: float | None = None,
        max_length: int | None = None,
        cut: bool = False,
    ) -> None:
        from keras_seq.decoding import BeamOptions
        from keras_seq.preprocessing import Tokenizer

        self.model = model
        self.beam = int(metadata["beam"] if beam is None else beam)
        self.max_length = int(metadata["max_length"] if max_length is None else max_length)
        for name, value in (("beam", self.beam), ("max-length", self.max_length)):
            if value < 1:
                raise UserError(f"--{name} is {value}: give at least 1")
        penalty = metadata["length_penalty"] if length_penalty is None else length_penalty
        self.options = BeamOptions(length_penalty=float(penalty))
        self.cut = cut
        self.max_tokens = int(metadata["max_tokens"])
        self.source_tokenizer: Tokenizer = Tokenizer.from_config(metadata["tokenizer"])
        target = metadata.get("target_tokenizer")
        self.target_tokenizer = Tokenizer.from_config(target) if target else self.source_tokenizer
        given: Any = model
        exported = hasattr(model, "search_model")
        size = given.vocabulary if exported else given.output["logits"].shape[-1]
        if size != self.target_tokenizer.size:
            raise UserError(
                f"the model knows {size} tokens of the target, and the tokenizer beside it has "
                f"{self.target_tokenizer.size}: they are not of one run"
            )

    @cached_property
    def _search(self) -> Any:
        return self._search_model(self.beam)

    @cached_property
    def _single(self) -> Any:
        return self._search if self.beam == 1 else self._search_model(1)

    def _search_model(self, hypotheses: int) -> Any:
        from keras_seq.decoding import search_model

        how: Any = {"hypotheses": hypotheses, "length": self.max_length}
        if hasattr(self.model, "search_model"):
            return self.model.search_model(**how)
        return search_model(self.model, **how)

    @property
    def separator(self) -> str:
        """What stands between the tokens of a translation where they are shown beside each other.

        Characters and bytes stand side by side, words and pieces of them apart.
        """
        return "" if self.target_tokenizer.kind in ("characters", "bytes") else " "

    def __call__(self, texts: Sequence[str], *, best: int = 1) -> list[list[Translated]]:
        """Translates texts.

        Args:
            texts: N texts. An empty one has the empty translation.
            best: How many translations of each, up to the beam.

        Returns:
            N lists of so many translations, the best first.

        Raises:
            UserError: If a text is too long, and is not to be cut.
        """
        from keras_seq.decoding import beam_search

        ids = [self._encode(text, number) for number, text in enumerate(texts, 1)]
        found: list[list[Translated]] = [[_nothing()] * best for _ in texts]
        order = sorted((i for i, row in enumerate(ids) if len(row)), key=lambda i: len(ids[i]))
        for start in range(0, len(order), _TOGETHER):
            rows = order[start : start + _TOGETHER]
            source = pad([ids[i] for i in rows])
            hypotheses = beam_search(self._search, source, options=self.options, best=best)
            for place, row in enumerate(rows):
                found[row] = [self._read(hypotheses, place, n, ids[row]) for n in range(best)]
        return found

    def sample(
        self,
        texts: Sequence[str],
        *,
        count: int = 1,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> list[list[Translated]]:
        """Draws translations, each token by its probability.

        Args:
            texts: As in a call.
            count: How many are drawn for each text.
            temperature: Below 1 bolder, above 1 wilder.
            top_k: Draws among this many likeliest tokens; None: all.
            top_p: Draws among the fewest likeliest tokens that have this share together; None: all.
            seed: Of the draws; the same draws the same.

        Returns:
            N lists of so many translations as they were drawn, scored by their log-probability.

        Raises:
            UserError: If a text is too long and is not to be cut, or an option is out of range.
        """
        from keras_seq.decoding import sample_search

        if count < 1:
            raise UserError(f"{count} translations of each text are wanted: give at least 1")
        ids = [self._encode(text, number) for number, text in enumerate(texts, 1)]
        rows = [i for i, row in enumerate(ids) if len(row)]
        found: list[list[Translated]] = [[_nothing()] * count for _ in texts]
        if not rows:
            return found
        drawn = sample_search(
            self._single,
            pad([ids[i] for i in rows]),
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            count=count,
        )
        for place, row in enumerate(rows):
            found[row] = [self._read(drawn, place, n, ids[row]) for n in range(count)]
        return found

    def _encode(self, text: str, number: int) -> np.ndarray:
        if not text.strip():
            return np.zeros(0, np.int32)
        ids = self.source_tokenizer.encode(text)
        if len(ids) > self.max_tokens and not self.cut:
            raise UserError(
                f"text {number} has {len(ids):,} tokens, and the model reads {self.max_tokens}: "
                f"split it, or give --cut to translate its beginning ({text[:40]!r} ...)"
            )
        return ids[: self.max_tokens]

    def _read(self, hypotheses: Any, row: int, place: int, source: np.ndarray) -> Translated:
        from keras_seq.decoding import strip

        tokens = hypotheses.tokens[row, place]
        ids = strip(tokens)
        alignment = None
        if hypotheses.alignments is not None:
            alignment = hypotheses.alignments[row, place, : len(ids), : len(source)]
        return Translated(
            text=self.target_tokenizer.decode(ids),
            score=float(hypotheses.scores[row, place]),
            source=_names(self.source_tokenizer, source),
            target=_names(self.target_tokenizer, ids),
            alignment=alignment,
        )


def _nothing() -> Translated:
    return Translated("", 0.0, (), (), None)


def _names(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray) -> tuple[str, ...]:
    """Tokens as people read them: bytes that stand for letters are put together where they can."""
    return tuple(tokenizer.decode([int(i)]) or tokenizer.vocabulary[int(i)] for i in ids)
