"""How each kind of tokeniser learns its vocabulary. Used through `train_tokenizer`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from keras_seq.errors import UserError
from keras_seq.preprocessing.device_tokenizer import (
    SPECIAL,
    byte_letters,
    split_chunks,
    split_plain_words,
    split_words,
)

# What training returns: the parts of a configuration that it found.
Parts = dict[str, Any]
# Code points of a plane that no text uses, to stand in for others.
_PRIVATE = 0xF0000
_MISSING = "this tokeniser is trained by {}: pip install {0}, or take another kind"


def sample_of(
    texts: Iterable[str], kind: str, max_characters: int, max_seconds: float
) -> tuple[list[str], list[str]]:
    """An even sample of texts that memory and time allow: every one, every 2nd, every 4th, ...

    Args:
        texts: Strings, read once.
        kind: The tokeniser that is to learn from them: how fast its trainer is.
        max_characters: The largest sample.
        max_seconds: The longest training.

    Returns:
        The sample, and what to tell the user about it: nothing if it is all of the texts.

    Raises:
        UserError: Something is no string.

    Example:
        >>> sample_of(["ab", "cd", "ef", "gh"], "words", 5, 60)[0]
        ['ab', 'ef']
    """
    limit = max(1, min(max_characters, int(max_seconds * SPEEDS[kind])))
    kept: list[str] = []
    step, held, seen, count = 1, 0, 0, 0
    for count, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise UserError(f"text {count} is {type(text).__name__} ({text!r}): give a string")
        seen += len(text)
        if (count - 1) % step:
            continue
        kept.append(text[:limit])
        held += len(kept[-1])
        while held > limit and len(kept) > 1:
            kept, step = kept[::2], step * 2
            held = sum(map(len, kept))
    if held == seen:
        return kept, []
    why = "to stay within memory" if limit == max_characters else f"to learn in {max_seconds:g} s"
    return kept, [
        f"{kind}: learnt from {len(kept):,} of {count:,} texts ({held:,} of {seen:,} characters, "
        f"evenly spread) {why}"
    ]


def _commonest(counts: Counter[str], room: int) -> list[str]:
    """The most frequent first; of equals the first by code point, so that runs agree."""
    return sorted(counts, key=lambda token: (-counts[token], token))[:room]


def _words(texts: Iterator[str], vocabulary: int) -> Parts:
    counts = _count(texts, split_words)
    return {"vocabulary": [*SPECIAL, *_commonest(counts, vocabulary - len(SPECIAL))]}


def _characters(texts: Iterator[str], vocabulary: int) -> Parts:
    counts = _count(texts, str)
    return {"vocabulary": [*SPECIAL, *_commonest(counts, vocabulary - len(SPECIAL))]}


def _bytes(texts: Iterable[str], vocabulary: int) -> Parts:
    """Nothing to learn: the vocabulary is fixed."""
    return {"vocabulary": [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]}


def _count(texts: Iterator[str], split: Callable[[str], Iterable[str]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split(text))
    return counts


def _word_pieces(texts: Iterator[str], vocabulary: int) -> Parts:
    """Pieces found by joining pairs, then used by longest match.

    KerasHub's own trainer of word pieces needs minutes for a few million characters, and then
    stops far below the size that it was allowed, so the one of byte pairs is used: a letter
    within a word is another letter than the same at its head.
    """
    counts = _count(texts, split_plain_words)
    letters: Counter[str] = Counter()
    for word, count in counts.items():
        letters.update({word[0]: count})
        for letter in word[1:]:
            letters.update({"##" + letter: count})
    # At least half of the room is for pieces of more than one letter.
    room = vocabulary - len(SPECIAL)
    alphabet = sorted(_commonest(letters, max(1, room // 2)))
    inner = [letter for letter in alphabet if len(letter) > 1]
    stand_ins = {letter[2:]: chr(_PRIVATE + i) for i, letter in enumerate(inner)}
    back = {stand_in: letter for letter, stand_in in stand_ins.items()}
    known = set(alphabet)
    words = {
        word[0] + "".join(stand_ins[letter] for letter in word[1:]): count
        for word, count in counts.items()
        if word[0] in known and all(letter in stand_ins for letter in word[1:])
    }
    letters_used = [*(a for a in alphabet if len(a) == 1), *stand_ins.values()]
    found, _ = _joined_pairs(words, letters_used, room)
    pieces = [
        ("##" if token[0] in back else "") + "".join(back.get(c, c) for c in token)
        for token in found
    ]
    return {"vocabulary": [*SPECIAL, *pieces]}


def _byte_pairs(texts: Iterator[str], vocabulary: int) -> Parts:
    letters = byte_letters()
    if vocabulary < len(SPECIAL) + len(letters):
        raise UserError(f"byte pairs start from 261 ids: a vocabulary of {vocabulary} is too small")
    chunks = {
        "".join(letters[byte] for byte in chunk.encode("utf-8")): count
        for chunk, count in _count(texts, split_chunks).items()
    }
    found, merges = _joined_pairs(chunks, list(letters), vocabulary - len(SPECIAL))
    tokens = [*letters, *(token for token in found if len(token) > 1)]
    return {"vocabulary": [*SPECIAL, *tokens], "merges": merges}


def _joined_pairs(
    counts: dict[str, int], alphabet: list[str], size: int
) -> tuple[list[str], list[str]]:
    """Tokens by id, and merges as "left right", of the byte-pair trainer that KerasHub uses."""
    if not counts:
        return alphabet, []
    with _one_thread():
        try:
            import tokenizers
        except ImportError as error:
            raise UserError(_MISSING.format("tokenizers")) from error
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size, min_frequency=2, initial_alphabet=alphabet, show_progress=False
        )
        learner = tokenizers.Tokenizer(tokenizers.models.BPE())
        learner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        learner.train_from_iterator(_repeated(counts), trainer)
        model = json.loads(learner.to_str())["model"]
    found = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return found, [" ".join(pair) for pair in model["merges"]]


def _repeated(counts: dict[str, int]) -> Iterator[str]:
    """Each word as often as it was counted, in lines of a bounded length."""
    for word in sorted(counts):
        for start in range(0, counts[word], 10_000):
            yield (word + " ") * min(10_000, counts[word] - start)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keep the trainer's threads out of a process that may fork later."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _unigrams(texts: Iterator[str], vocabulary: int) -> Parts:
    """Pieces with scores, by SentencePiece's expectation maximisation."""
    counts = _count(texts, split_chunks)
    if not counts:
        return {"vocabulary": list(SPECIAL), "scores": [0] * len(SPECIAL)}
    try:
        import sentencepiece
    except ImportError as error:
        raise UserError(_MISSING.format("sentencepiece")) from error
    # What a file of lines and tabs cannot hold.
    away = {ord(letter): _PRIVATE + ord(letter) for letter in "\0\t\n\r"}
    back = {stand_in: letter for letter, stand_in in away.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "counts.tsv")
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{c.translate(away)}\t{counts[c]}\n" for c in sorted(counts))
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                input=str(path),
                input_format="tsv",
                model_writer=model,
                model_type="unigram",
                vocab_size=vocabulary - len(SPECIAL) + 1,  # one for its own "unknown"
                hard_vocab_limit=False,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                bos_id=-1,
                eos_id=-1,
                unk_id=0,
                num_threads=1,  # sums in one order: the same texts give the same scores
                minloglevel=3,
            )
        except RuntimeError as error:
            raise UserError(
                f"a vocabulary of {vocabulary} is too small for these texts' unigrams, which hold "
                f"every common character: give more ({str(error).splitlines()[0][-120:]})"
            ) from error
    learnt = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    found: dict[str, int] = {}
    for i in range(1, learnt.get_piece_size()):
        # Thousandths, whole: sums of them are the same on every machine.
        found.setdefault(learnt.id_to_piece(i).translate(back), round(learnt.get_score(i) * 1000))
    unknown = min(found.values()) - 10_000
    scores = [*[unknown] * len(SPECIAL), *found.values()]
    return {"vocabulary": [*SPECIAL, *found], "scores": scores}


TRAINERS: dict[str, Callable[..., Parts]] = {
    "words": _words,
    "characters": _characters,
    "bytes": _bytes,
    "word_pieces": _word_pieces,
    "byte_pairs": _byte_pairs,
    "unigrams": _unigrams,
}
# Characters a second, the lower end of what two busy cores do.
SPEEDS = {
    "words": 1_500_000,
    "characters": 3_000_000,
    "bytes": 3_000_000,
    "word_pieces": 500_000,
    "byte_pairs": 500_000,
    "unigrams": 500_000,
}
