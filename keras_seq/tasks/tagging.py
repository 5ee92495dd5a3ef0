"""The tagging task: its options, and the problem that they describe.

Light to import, so that the command line can print its help at once; the work is in
`tagging_problem`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from keras_seq.errors import UserError
from keras_seq.tasks.task import Task, option

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import pandas

    from keras_seq.models import Architecture
    from keras_seq.tasks.tagging_problem import TaggingProblem


@dataclass(frozen=True)
class Tagging(Task):
    """A tag for each word of a sentence: parts of speech, names, chunks; fields are options.

    Args:
        data: The training part: CoNLL-U, or two columns (word and tag) with a blank line between
            sentences; may be ``.gz``.
        validation: A file like it that stops training and chooses; without it a part of `data`.
        test: A file like it that is the test part; without it a part of `data`.
        validation_fraction: The share of the sentences of `data`, where there is no file.
        test_fraction: The share of the sentences of `data`, where there is no file.
        tag_column: Of CoNLL-U: upos, xpos or feats.
        vocabulary: The most different words.
        min_count: Rarer words are unknown: what is learned for them serves for words never seen.
        lowercase: Whether words are looked up in small letters; the characters keep theirs.
        max_tokens: Longer sentences are cut into pieces of so many words.
        characters: Features of a word from its characters; 0 leaves them out.
        embedding: Features of a word.
        embedding_dropout: On them, and on those from the characters.
        token_dropout: The share of words that training hides.
        dropout: On the states that the tags are made from.
        both_ways: Whether recurrent architectures read both ways where their own options leave it
            open: a tag depends on what follows, too.
        crf: Whether neighbouring tags get a score of their own, and whole sequences are chosen.
        init: A run folder whose words and weights training begins with.
        vectors: Word vectors that the embedding begins with; its width is theirs then.

    Example:
        >>> Tagging(data="train.conllu", tag_column="pos")
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: --tag-column is 'pos': choose one of upos, xpos, feats
    """

    name: ClassVar[str] = "tagging"
    # What of the recipe differs for this task.
    defaults: ClassVar[dict[str, Any]] = {
        "epochs": 10,
        "batch_size": 32,
        "learning_rate": 3e-3,
    }

    data: str = option("", "CoNLL-U file, or word and tag in two columns (.gz too).")
    validation: str = option("", "File like it for validation (default: split off).")
    test: str = option("", "File like it that is the test part (default: split off).")
    validation_fraction: float = option(0.1, "Share of sentences without --validation (0.1).")
    test_fraction: float = option(0.1, "Share of sentences without --test (default 0.1).")
    tag_column: str = option("upos", "Of CoNLL-U: upos|xpos|feats (default upos).")
    vocabulary: int = option(30_000, "The most different words (default 30000).")
    min_count: int = option(2, "Rarer words are unknown (default 2).")
    lowercase: bool = option(True, "Look words up in small letters (default yes).")
    max_tokens: int = option(256, "Longer sentences are cut into such pieces (default 256).")
    characters: int = option(64, "Features of a word's characters; 0: none (default 64).")
    embedding: int = option(128, "Features of a word (default 128).")
    embedding_dropout: float = option(0.3, "On the features of a word (default 0.3).")
    token_dropout: float = option(0.2, "Share of words that training hides (default 0.2).")
    dropout: float = option(0.3, "On what tags are made from (default 0.3).")
    both_ways: bool = option(True, "Recurrent architectures read both ways (default yes).")
    crf: bool = option(False, "Choose whole sequences of tags (default no).")
    init: str = option("", "Run folder whose words and weights training begins with.")
    vectors: str = option("", "File of word vectors (.txt, .vec, .gz) the embedding begins with.")

    def __post_init__(self) -> None:
        if not self.data:
            raise UserError("--data is missing: give a CoNLL-U file, or one of words and tags")
        self.check_choice(tag_column=("upos", "xpos", "feats"))
        self.check_least(vocabulary=6, min_count=1, max_tokens=8, characters=0, embedding=1)
        self.check_share("embedding_dropout", "token_dropout", "dropout")
        self.check_share("validation_fraction", "test_fraction", zero=False)
        if self.init and self.vectors:
            raise UserError("--init and --vectors both fill the embedding: give one of them")

    def prepare(self) -> TaggingProblem:
        """Reads and checks the data.

        Returns:
            The problem: data, split, baselines and scores.

        Raises:
            UserError: If anything about the data or the options is wrong.
        """
        from keras_seq.tasks.tagging_problem import TaggingProblem

        return TaggingProblem(self)

    def accepts(self, architecture: Architecture) -> str:
        """Says why an architecture cannot be trained under this task; "" if it can.

        Args:
            architecture: The architecture.
        """
        if architecture.forecaster:
            return "it is a forecaster: it maps a lookback to a horizon and tags no words"
        if architecture.reads_tokens or "vector" in architecture.tags:
            return "it gives one vector for a whole sentence, and each word needs a state"
        if "needs_fixed_length" in architecture.tags:
            return "it needs sentences of one length"
        return ""

    @staticmethod
    def predict_file(
        run: Callable[[dict[str, Any]], Mapping[str, Any]],
        names: Collection[str],
        metadata: Mapping[str, Any],
        data: str,
    ) -> pandas.DataFrame:
        """Tags the words of a file.

        Args:
            run: The model, in whatever runtime: named raw inputs to named outputs.
            names: The inputs that it has.
            metadata: What was stored with it.
            data: The file: CoNLL-U, two columns, or plain text with a sentence in each line.

        Returns:
            One row for each word: sentence, word, tag, and the probability of the tag.
        """
        from keras_seq.tasks.tagging_problem import tag_file

        return tag_file(run, names, metadata, data)
