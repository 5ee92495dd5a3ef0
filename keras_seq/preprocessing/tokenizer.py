"""The tokeniser of a run: one set of rules, in Python, in TensorFlow and on a device."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seq.errors import UserError
from keras_seq.preprocessing.device_tokenizer import CLEANING, KINDS, SPECIAL, DeviceTokenizer

if TYPE_CHECKING:
    from keras_seq.preprocessing.graph_tokenizer import GraphTokenizer

# What a configuration may hold beside the kind: which kinds need it, and of which type.
_PARTS = {"merges": ("byte_pairs",), "scores": ("unigrams",)}


class Tokenizer:
    """Texts to ids and back. Immutable; made by `train_tokenizer` or from a configuration.

    The ids 0 to 4 are padding, unknown, start, end and mask; real tokens start at 5. Neither
    start nor end is added by `encode`. A text without tokens becomes the unknown token alone, so
    that every row of a batch has one real step.

    Args:
        config: What `config()` gave, or `tokenizer.json` holds.
        report: Notes on how the tokeniser was made; not a part of what it is.

    Raises:
        UserError: The configuration is not one of a tokeniser.

    Example:
        >>> from keras_seq.preprocessing import train_tokenizer
        >>> tokenizer = train_tokenizer("words", ["What a film!", "A bad film."])
        >>> tokenizer.vocabulary[5:]
        ('a', 'film', '!', '.', 'bad', 'what')
        >>> tokenizer.encode("A good film")
        array([5, 1, 6], dtype=int32)
        >>> tokenizer.tokens("A good film")
        ['a', 'good', 'film']
    """

    def __init__(self, config: dict[str, Any], *, report: Sequence[str] = ()) -> None:
        self._config = _checked(config)
        self._device = DeviceTokenizer(self._config)
        self._vocabulary = tuple(self._config["vocabulary"])
        self.report = tuple(report)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Tokenizer:
        """Make the tokeniser of a configuration.

        Args:
            config: What `config()` gave, or what `tokenizer.json` holds.

        Returns:
            A tokeniser equal to the one that the configuration was taken from.

        Raises:
            UserError: The configuration is not one of a tokeniser.

        Example:
            >>> from keras_seq.preprocessing import Tokenizer, train_tokenizer
            >>> tokenizer = train_tokenizer("characters", ["abc"])
            >>> Tokenizer.from_config(tokenizer.config()) == tokenizer
            True
        """
        if isinstance(config, dict) and config.get("kind") == "hub":
            from keras_seq.preprocessing.hub_tokenizer import HubTokenizer

            pretrained: Any = HubTokenizer(config)
            return pretrained  # it has the same methods
        return cls(config)

    def config(self) -> dict[str, Any]:
        """Everything that the tokeniser is, as JSON can hold it.

        Returns:
            A dictionary for `from_config`: kind, lowercase, clean, vocabulary, and what the kind
            needs besides (the merges of byte pairs, the scores of unigrams).

        Example:
            >>> from keras_seq.preprocessing import train_tokenizer
            >>> sorted(train_tokenizer("bytes", []).config())
            ['clean', 'kind', 'lowercase', 'vocabulary']
        """
        return {k: list(v) if isinstance(v, list) else v for k, v in self._config.items()}

    @property
    def kind(self) -> str:
        """The name of the way to cut texts, one of `KINDS`."""
        return str(self._config["kind"])

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """All tokens by id, the five special ones first."""
        return self._vocabulary

    @property
    def size(self) -> int:
        """Number of ids."""
        return len(self._vocabulary)

    @property
    def lowercase(self) -> bool:
        """Whether texts are put into lower case."""
        return bool(self._config["lowercase"])

    @property
    def clean(self) -> str:
        """How texts are cleaned: "none", "html" or "web"."""
        return str(self._config["clean"])

    @property
    def needs_tensorflow_text(self) -> bool:
        """Whether `graph` needs the operators of tensorflow-text: none of the kinds does."""
        return False

    def encode(self, text: str) -> np.ndarray:
        """The ids of one text.

        Args:
            text: Any string.

        Returns:
            Ids `(T,)` int32, at least one, without start and end.

        Example:
            >>> from keras_seq.preprocessing import train_tokenizer
            >>> train_tokenizer("bytes", []).encode("ABC")
            array([102, 103, 104], dtype=int32)
        """
        return np.array(self._device.encode(text), np.int32)

    def encode_batch(self, texts: Iterable[str]) -> list[np.ndarray]:
        """The ids of many texts.

        Args:
            texts: Strings, read once.

        Returns:
            Ids `(T,)` int32 for each text, each of its own length.

        Example:
            >>> from keras_seq.preprocessing import train_tokenizer
            >>> train_tokenizer("bytes", []).encode_batch(["A", ""])
            [array([102], dtype=int32), array([1], dtype=int32)]
        """
        return [self.encode(text) for text in texts]

    def tokens(self, text: str) -> list[str]:
        """What each id of `encode(text)` stands for, as a reader sees it.

        Pieces of characters, byte pairs and unigrams, joined, are the (cleaned) text, unless a
        piece ends within a character.

        Args:
            text: Any string.

        Returns:
            As many strings as `encode` gives ids; of an unknown word the word itself.

        Example:
            >>> from keras_seq.preprocessing import train_tokenizer
            >>> train_tokenizer("words", []).tokens("Can't stop, 東京")
            ["can't", 'stop', ',', '東', '京']
        """
        return list(self._device.pieces(text))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids.

        Args:
            ids: Ids, of which padding, start and end are left out.

        Returns:
            The text: exact for characters, bytes, byte pairs and unigrams where nothing was
            unknown; with one blank between words for words and word pieces.

        Raises:
            UserError: An id is not in the vocabulary.

        Example:
            >>> from keras_seq.preprocessing import train_tokenizer
            >>> train_tokenizer("bytes", []).decode([2, 102, 103, 3, 0])
            'ab'
        """
        try:
            return str(self._device.decode(ids))
        except ValueError as error:
            raise UserError(f"{error}: these ids are of another tokeniser") from error

    def graph(self, max_tokens: int | None = None, *, keep: str = "head") -> GraphTokenizer:
        """The same tokeniser in TensorFlow's own operators, to go into a SavedModel.

        Args:
            max_tokens: Longer texts are cut to this many ids; None cuts none.
            keep: Of a longer text: its "head", or its "ends", the first quarter and the last
                three quarters of `max_tokens`.

        Returns:
            A `tf.Module` from strings `(B,)` to ids `(B, T)` int32, padded on the right with 0.

        Raises:
            UserError: `max_tokens` is below 1 or `keep` is not known.

        Example:
            >>> from keras_seq.preprocessing import train_tokenizer
            >>> graph = train_tokenizer("words", ["What a film!"]).graph(max_tokens=3)
            >>> graph(["What a film!", "a"]).numpy()
            array([[8, 6, 7],
                   [6, 0, 0]], dtype=int32)
        """
        from keras_seq.preprocessing.graph_tokenizer import GraphTokenizer

        return GraphTokenizer(self._config, max_tokens=max_tokens, keep=keep)

    def device_files(self, max_tokens: int | None = None, keep: str = "head") -> dict[str, bytes]:
        """What must lie beside a LiteRT file: the vocabulary, and the encoder's source.

        Args:
            max_tokens: The most ids of a text that the model reads; None: all.
            keep: Which stay of more: ``"head"``, or ``"ends"`` (a quarter from the front).

        Returns:
            `tokenizer.json` and `tokenizer.py`, which run with Python alone.

        Example:
            >>> from keras_seq.preprocessing import train_tokenizer
            >>> sorted(train_tokenizer("bytes", []).device_files())
            ['tokenizer.json', 'tokenizer.py']
        """
        here = importlib.resources.files("keras_seq.preprocessing")
        cut = {} if max_tokens is None else {"max_tokens": max_tokens, "keep": keep}
        text = json.dumps({**self._config, **cut}, ensure_ascii=False, indent=0)
        return {
            "tokenizer.json": text.encode("utf-8"),
            "tokenizer.py": here.joinpath("device_tokenizer.py").read_bytes(),
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self._config == other._config

    def __hash__(self) -> int:
        return hash((self.kind, self.lowercase, self.clean, self._vocabulary))

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self._config, self.report)

    def __repr__(self) -> str:
        return (
            f"Tokenizer(kind={self.kind!r}, size={self.size}, lowercase={self.lowercase}, "
            f"clean={self.clean!r})"
        )


def _remade(config: dict[str, Any], report: tuple[str, ...]) -> Tokenizer:
    """What pickle calls."""
    return Tokenizer(config, report=report)


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    """A copy of a configuration that is whole, or a UserError that says what is wrong."""
    if not isinstance(config, dict):
        raise UserError(f"a tokeniser's configuration is a dictionary, not {type(config).__name__}")
    missing = [key for key in ("kind", "lowercase", "clean", "vocabulary") if key not in config]
    if missing:
        raise UserError(f"this is no tokeniser's configuration: it has no {missing[0]!r}")
    kind = check_kind(config["kind"])
    check_clean(config["clean"])
    vocabulary = list(config["vocabulary"])
    if tuple(vocabulary[: len(SPECIAL)]) != SPECIAL:
        raise UserError(f"the vocabulary starts with {vocabulary[:5]}, not with {list(SPECIAL)}")
    if kind == "bytes" and len(vocabulary) != len(SPECIAL) + 256:
        raise UserError(f"the vocabulary of bytes has 261 tokens, not {len(vocabulary)}")
    checked = {
        "kind": kind,
        "lowercase": bool(config["lowercase"]),
        "clean": config["clean"],
        "vocabulary": vocabulary,
    }
    for part, kinds in _PARTS.items():
        if kind in kinds:
            if part not in config:
                raise UserError(f"the configuration of {kind} has no {part!r}")
            checked[part] = list(config[part])
    if len(checked.get("scores", vocabulary)) != len(vocabulary):
        raise UserError(f"{len(checked['scores'])} scores for {len(vocabulary)} tokens")
    return checked


def check_kind(kind: str) -> str:
    """The kind, if it is one.

    Args:
        kind: A name.

    Returns:
        The same name.

    Raises:
        UserError: It is not one of `KINDS`.

    Example:
        >>> check_kind("words")
        'words'
    """
    if kind not in KINDS:
        raise UserError(f"there is no tokeniser {kind!r}: take one of {', '.join(KINDS)}")
    return kind


def check_clean(clean: str) -> str:
    """The way of cleaning, if it is one.

    Args:
        clean: A name.

    Returns:
        The same name.

    Raises:
        UserError: It is not "none", "html" or "web".

    Example:
        >>> check_clean("html")
        'html'
    """
    if clean not in CLEANING:
        raise UserError(f"there is no cleaning {clean!r}: take one of {', '.join(CLEANING)}")
    return clean
