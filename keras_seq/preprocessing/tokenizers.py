"""Tokenisers by name: train one, or compare all of them in a table."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_seq.errors import UserError
from keras_seq.preprocessing.device_tokenizer import KINDS, SPECIAL, UNKNOWN, DeviceTokenizer
from keras_seq.preprocessing.tokenizer import Tokenizer, check_clean, check_kind
from keras_seq.preprocessing.trainers import TRAINERS, sample_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KINDS", "Tokenizer", "tokenizer_table", "train_tokenizer"]

# So many held-out texts say how long texts become.
_MEASURED = 5_000


def train_tokenizer(
    kind: str,
    texts: Iterable[str],
    *,
    vocabulary: int = 30_000,
    lowercase: bool = True,
    clean: str = "none",
    max_seconds: float = 300.0,
    max_characters: int = 50_000_000,
) -> Tokenizer:
    """Make a tokeniser from the texts of the training part. The same texts give the same one.

    Args:
        kind: "words", "characters", "bytes" (which learns nothing), "word_pieces", "byte_pairs"
            or "unigrams"; or "hub:PRESET", the tokenizer of a pretrained model, which only `clean`
            has a say in.
        texts: The texts, read once; they may come from a file larger than memory.
        vocabulary: At most so many ids, the five special ones counted. What is rarer is unknown,
            or is cut into pieces.
        lowercase: Put the texts into lower case, here and whenever the tokeniser is used.
        clean: "none"; "html": tags out (a break becomes a blank), the common entities read;
            "web": that, and no web addresses.
        max_seconds: About how long training may take. Counting is fast; for the slower trainers
            of pieces the sample is made smaller.
        max_characters: No more text than this is held in memory: of a larger corpus an even
            sample is taken, and `report` says so.

    Returns:
        The tokeniser; its `report` holds what a user should know about how it was made.

    Raises:
        UserError: The kind or the cleaning is not known, the vocabulary too small, a limit not
            positive, or something that is no string came.

    References:
        Kudo and Richardson, "SentencePiece", EMNLP 2018; Sennrich et al., "Neural machine
        translation of rare words with subword units", ACL 2016; Kudo, "Subword regularization",
        ACL 2018; Schuster and Nakajima, "Japanese and Korean voice search", ICASSP 2012.

    Example:
        >>> from keras_seq.preprocessing import train_tokenizer
        >>> tokenizer = train_tokenizer("words", ["a b a", "a c"], vocabulary=7)
        >>> tokenizer.vocabulary
        ('<pad>', '<unk>', '<s>', '</s>', '<mask>', 'a', 'b')
    """
    if kind.startswith("hub:"):
        from keras_seq.preprocessing.hub_tokenizer import hub_tokenizer

        pretrained: Tokenizer = hub_tokenizer(kind.removeprefix("hub:"), clean=clean)
        return pretrained
    check_kind(kind)
    check_clean(clean)
    if vocabulary <= len(SPECIAL):
        raise UserError(f"a vocabulary of {vocabulary} leaves no room: give at least 6")
    if max_characters < 1 or max_seconds <= 0:
        raise UserError(f"{max_characters} characters, {max_seconds} seconds: give more than 0")
    rules = {"kind": kind, "lowercase": lowercase, "clean": clean, "vocabulary": list(SPECIAL)}
    train = TRAINERS[kind]
    notes: list[str] = []
    if kind != "bytes":
        # A tokeniser without a vocabulary knows how to clean and to split already.
        empty = DeviceTokenizer({**rules, "merges": [], "scores": [0] * len(SPECIAL)})
        texts, notes = sample_of(texts, kind, max_characters, max_seconds)
        parts = train((empty.normalise(text) for text in texts), vocabulary)
    else:
        parts = train((), vocabulary)
    tokenizer = Tokenizer({**rules, **parts})
    if kind != "bytes" and tokenizer.size < vocabulary:
        notes.append(f"{kind}: {tokenizer.size} ids, all that there are; {vocabulary} were allowed")
    return Tokenizer(tokenizer.config(), report=notes)


def tokenizer_table(
    texts: Sequence[str],
    *,
    kinds: Sequence[str] = KINDS,
    vocabulary: int = 30_000,
    lowercase: bool = True,
    clean: str = "none",
    held_out: Sequence[str] | None = None,
    max_seconds: float = 300.0,
    max_characters: int = 50_000_000,
) -> pd.DataFrame:
    """What each kind of tokeniser would make of these texts: one row a kind.

    Everything is measured on texts that were not trained on, at most 5,000 of them.

    Args:
        texts: The texts to learn from.
        kinds: Which tokenisers, of `KINDS`.
        vocabulary: At most so many ids. Byte pairs take at least 261, bytes always.
        lowercase: Put the texts into lower case.
        clean: "none", "html" or "web".
        held_out: The texts to measure on; without them every 10th of `texts` is set aside.
        max_seconds: About how long one training may take.
        max_characters: No more text than this is held for a training.

    Returns:
        A DataFrame with the columns tokenizer, vocabulary, "mean tokens", "median tokens",
        "95 % tokens" (of a text), "characters per token", "unknown %" (of the tokens), "seconds
        to train" and "microseconds a text". `attrs["report"]` holds the notes of the training.

    Raises:
        UserError: There are fewer than two texts, or an option is not known.

    Example:
        >>> from keras_seq.preprocessing import tokenizer_table
        >>> table = tokenizer_table(["a film", "a book"], kinds=["words", "bytes"])
        >>> table[["tokenizer", "vocabulary", "mean tokens", "unknown %"]]
          tokenizer  vocabulary  mean tokens  unknown %
        0     words           7          2.0       50.0
        1     bytes         261          6.0        0.0
    """
    import pandas as pd

    for kind in kinds:
        check_kind(kind)
    texts = list(texts)
    if held_out is None:
        if len(texts) < 2:
            raise UserError(f"{len(texts)} texts: give at least 2, one to learn and one to measure")
        step = min(10, len(texts))
        held_out = texts[step - 1 :: step]
        texts = [text for i, text in enumerate(texts) if i % step != step - 1]
    if not held_out:
        raise UserError("held_out is empty: give at least one text to measure on")
    measured = held_out[:: -(-len(held_out) // _MEASURED)]
    rows: list[dict[str, object]] = []
    report: list[str] = []
    for kind in kinds:
        start = time.perf_counter()
        tokenizer = train_tokenizer(
            kind,
            texts,
            vocabulary=max(vocabulary, 261) if kind == "byte_pairs" else vocabulary,
            lowercase=lowercase,
            clean=clean,
            max_seconds=max_seconds,
            max_characters=max_characters,
        )
        trained = time.perf_counter()
        encoded = tokenizer.encode_batch(measured)
        seconds = time.perf_counter() - trained
        lengths = np.array([len(ids) for ids in encoded])
        unknown = sum(int((ids == UNKNOWN).sum()) for ids in encoded)
        report += tokenizer.report
        rows.append(
            {
                "tokenizer": kind,
                "vocabulary": tokenizer.size,
                "mean tokens": float(lengths.mean()),
                "median tokens": float(np.median(lengths)),
                "95 % tokens": float(np.quantile(lengths, 0.95)),
                "characters per token": sum(map(len, measured)) / int(lengths.sum()),
                "unknown %": 100 * unknown / int(lengths.sum()),
                "seconds to train": trained - start,
                "microseconds a text": 1e6 * seconds / len(measured),
            }
        )
    table = pd.DataFrame(rows)
    table.attrs["report"] = tuple(report)
    return table
