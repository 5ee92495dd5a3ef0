"""The translation task: its options, and the problem that they describe.

Light to import, so that the command line can print its help at once; the work is in
`translation_problem`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from keras_seq.errors import UserError
from keras_seq.tasks.task import Task, flag, option

if TYPE_CHECKING:
    from keras_seq.models import Architecture
    from keras_seq.tasks.translation_problem import TranslationProblem

TOKENIZERS = ("byte_pairs", "unigrams", "word_pieces", "words", "characters", "bytes")


@dataclass(frozen=True)
class Translation(Task):
    """One sequence of text into another: a language, a summary, a date, a pronunciation.

    Args:
        data: A table with a column of sources and one of targets, or ``builtin:dates``
            (synthetic); or give `source` and `target`.
        source: A file of sources, one a line (may be ``.gz``).
        target: The file with their targets, line by line.
        validation: A table like `data`, or two files with a comma between them; without it a
            share of the training pairs.
        test: Likewise.
        source_column: Of tables.
        target_column: Of tables.
        validation_fraction: The share of the pairs, where no file is given.
        test_fraction: Likewise.
        tokenizer: byte_pairs, unigrams, word_pieces, words, characters or bytes, made from the
            training part.
        vocabulary: The most different tokens, of both sides together where they are joint.
        separate: Whether source and target have a tokenizer each.
        lowercase: Whether all text is put into lower case, the references too.
        sampling: Byte pairs: the share of merges left out at random in training; unigrams: how
            sharp the draw is. 0 draws nothing.
        max_tokens: Longer pairs are left out of training, and counted; a longer source is cut.
        batch_tokens: The most padded tokens of a training batch, source and target together, in
            place of ``--batch-size``; an epoch is then one pass. 0: batches of so many pairs.
        max_ratio: Training pairs of which a side is so many times as long as the other are left
            out; 0 keeps all.
        drop_leaks: Whether training pairs whose source is in another part are left out.
        join: Up to so many neighbouring pairs become one longer pair, see
            `keras_seq.data.join_pairs`; 1 joins none.
        join_test: The same for the test part, to see what length does; 0: as `join`.
        embedding: Features of a token.
        embedding_dropout: On them.
        dropout: On the states that the output layer reads.
        shared: Which embeddings are one: none, target (with the output layer) or all; empty takes
            all with a joint vocabulary.
        label_smoothing: The share of a target that is spread over all tokens.
        scheduled_sampling: The share of the target's tokens that a decoder in training reads as it
            would have written them itself; see `keras_seq.heads.scheduled_sampling`.
        beam: How many hypotheses a translation is chosen from; 1 is greedy.
        length_penalty: Of beam search, see `keras_seq.decoding.BeamOptions`.
        max_length: The most tokens of a translation.
        init: A run whose weights are the start, layer by layer, and whose tokenizers are taken:
            of this task, or of the task language_model with the objective denoise. What is asked
            for of a tokenizer then means nothing.

    Example:
        >>> Translation(source="train.en")
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: --target is missing: give the file with the targets of ...
    """

    name: ClassVar[str] = "translation"
    pairs: ClassVar[bool] = True
    # What of the recipe differs for this task. An average of translations is no translation.
    defaults: ClassVar[dict[str, Any]] = {"epochs": 20, "batch_size": 64, "ensemble": False}

    data: str = option("", "Table of two columns (.csv, .tsv, .jsonl, .parquet), builtin:dates.")
    source: str = option("", "File of sources, one a line.")
    target: str = option("", "File of their targets.")
    validation: str = option("", "Table, or SOURCE,TARGET (default: split off).")
    test: str = option("", "Table, or SOURCE,TARGET (default: split off).")
    source_column: str = option("source", "Of tables (default source).")
    target_column: str = option("target", "Of tables (default target).")
    validation_fraction: float = option(0.05, "Share of pairs without --validation (0.05).")
    test_fraction: float = option(0.05, "Share of pairs without --test (default 0.05).")
    tokenizer: str = option("byte_pairs", f"{'|'.join(TOKENIZERS)} (byte_pairs).")
    vocabulary: int = option(8_000, "The most different tokens (default 8000).")
    separate: bool = option(False, "A tokenizer for each side, not a joint one.")
    lowercase: bool = option(False, "Put all text into lower case, references too.")
    sampling: float = option(0.0, "Cut words another way in each pass (BPE dropout; 0: no).")
    max_tokens: int = option(100, "Longer training pairs are left out (default 100).")
    batch_tokens: int = option(0, "Padded tokens of a batch, both sides, not --batch-size pairs.")
    max_ratio: float = option(0.0, "Leave out pairs so unequal in length (default: keep).")
    drop_leaks: bool = option(False, "Leave out training pairs with a source of other parts.")
    join: int = option(1, "Join up to so many neighbouring pairs to one (default 1: none).")
    join_test: int = option(0, "The same for the test part (default: as --join).")
    embedding: int = option(256, "Features of a token (default 256).")
    embedding_dropout: float = option(0.1, "On the features of a token (default 0.1).")
    dropout: float = option(0.0, "On what the output layer reads.")
    shared: str = option("", "Embeddings that are one: none|target|all (default: all if joint).")
    label_smoothing: float = option(0.1, "Share of a target spread over all tokens (0.1).")
    scheduled_sampling: float = option(0.0, "Share of tokens read as it would write them (0).")
    beam: int = option(5, "Hypotheses of beam search; 1: greedy (default 5).")
    length_penalty: float = option(1.0, "Of beam search; 0 prefers short ones (default 1).")
    max_length: int = option(64, "The most tokens of a translation (default 64).")
    init: str = option("", "Run whose weights and tokenizers are the start.")

    def __post_init__(self) -> None:
        if self.data and (self.source or self.target):
            raise UserError("--data and --source name the training pairs twice: give one of them")
        if not self.data and not self.source and not self.target:
            raise UserError("--data is missing: give a table, builtin:dates, or --source, --target")
        for given, other in (("source", "target"), ("target", "source")):
            if getattr(self, given) and not getattr(self, other):
                raise UserError(
                    f"{flag(other)} is missing: give the file with the {other}s of "
                    f"{getattr(self, given)}"
                )
        self.check_choice(tokenizer=TOKENIZERS, shared=("", "none", "target", "all"))
        self.check_least(vocabulary=6, max_tokens=2, embedding=1, beam=1, max_length=1)
        self.check_least(batch_tokens=0, join=1, join_test=0)
        self.check_share("embedding_dropout", "dropout", "label_smoothing", "sampling")
        self.check_share("scheduled_sampling")
        self.check_share("validation_fraction", "test_fraction", zero=False)
        for name in ("length_penalty", "max_ratio"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{flag(name)} is {getattr(self, name)}: give 0 or more")
        if self.sampling and self.tokenizer not in ("byte_pairs", "unigrams"):
            raise UserError(
                f"--sampling is {self.sampling}, and --tokenizer {self.tokenizer} has one way to "
                "cut a text: take byte_pairs or unigrams"
            )
        if self.separate and self.shared == "all":
            raise UserError("--shared all needs one vocabulary: leave --separate out")
        for name in ("validation", "test"):
            if getattr(self, name).count(",") > 1:
                raise UserError(
                    f"{flag(name)} is {getattr(self, name)!r}: give a table, or two files as "
                    "SOURCE,TARGET"
                )

    def prepare(self) -> TranslationProblem:
        """Reads and checks the data.

        Returns:
            The problem: data, split, baselines and scores.

        Raises:
            UserError: If anything about the data or the options is wrong.
        """
        from keras_seq.tasks.translation_problem import TranslationProblem

        return TranslationProblem(self)

    def accepts(self, architecture: Architecture) -> str:
        """Says why an architecture cannot be trained under this task; "" if it can.

        Args:
            architecture: The architecture, with its options.
        """
        return "" if architecture.encoder_decoder else "it has no decoder"
