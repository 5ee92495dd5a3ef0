"""The classification task: its options, and the problem that they describe.

Light to import, so that the command line can print its help at once; the work is in
`classification_problem`.
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
    from keras_seq.tasks.classification_problem import ClassificationProblem


POOLINGS = ("last", "first", "mean", "max", "attention", "class_token")
TOKENIZERS = ("words", "characters", "bytes", "word_pieces", "byte_pairs", "unigrams")


@dataclass(frozen=True)
class Classification(Task):
    """A label, or several, for each text or numeric sequence; every field is an option.

    Args:
        data: A ``.csv``, ``.tsv``, ``.jsonl`` (each may be ``.gz``) or ``.parquet`` file, a folder
            with LABEL/*.txt, or ``builtin:reviews`` (synthetic).
        test: A file like it that is the test part; without it one is split off.
        inputs: ``text``, or ``series``: numeric sequences with a label.
        text_column: The columns of the text; several are joined.
        label_column: The column of the label.
        group_column: Rows with the same value never stand on both sides of a split.
        multi_label: What stands between the labels of one example; then an example may have any
            number of them. Empty: exactly one.
        id_column: Of ``series`` in long form: the sequence that a row is of.
        time_column: Of ``series`` in long form: what rows of a sequence are sorted by.
        value_column: Of ``series``: the columns of the values; none means all numeric ones.
        validation: The share of the training rows that stops training and chooses.
        test_fraction: The share of all rows that is the test part, where there is no test file.
        folds: Of a cross-validation; 0 is none. The test part is then one fold of all rows.
        fold: Which fold, from 0.
        tokenizer: words, characters, bytes, word_pieces, byte_pairs or unigrams, made from the
            training part; or hub:PRESET, that of a KerasHub preset.
        vocabulary: The most different tokens.
        lowercase: Whether texts are put into lower case.
        clean: none, html (tags out, breaks to blanks), or web (addresses out too).
        max_tokens: Of a longer text the first quarter and the last three quarters of so many
            tokens are read.
        class_weights: none, or balanced: every class weighs the same in the loss.
        pooling: How the states of a sequence become one: last, first, mean, max, attention, some
            joined by +, or class_token; empty takes what suits the architecture.
        embedding: Features of a token.
        embedding_dropout: On them.
        token_dropout: The share of tokens that training hides.
        dropout: On the pooled features.
        init: A run folder whose tokenizer and weights training begins with.
        vectors: Word vectors that the embedding begins with; its width is theirs then.

    Example:
        >>> Classification(data="reviews.csv", class_weights="some")
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: --class-weights is 'some': choose one of none, balanced
    """

    name: ClassVar[str] = "classification"
    # What of the recipe differs for this task.
    defaults: ClassVar[dict[str, Any]] = {"epochs": 5, "batch_size": 64}

    data: str = option("", "File (.csv, .tsv, .jsonl, .parquet, .gz), folder or builtin:reviews.")
    test: str = option("", "File like it that is the test part (default: split off).")
    inputs: str = option("text", "text|series (numeric sequences with a label).")
    text_column: tuple[str, ...] = option(("text",), "Column of the text; repeat it (text).")
    label_column: str = option("label", "Column of the label (default label).")
    group_column: str = option("", "Rows with the same value stay on one side of a split.")
    multi_label: str = option("", "What stands between the labels of one example, e.g. '|'.")
    id_column: str = option("", "Of series in long form: the sequence that a row is of.")
    time_column: str = option("", "Of series in long form: what rows are sorted by.")
    value_column: tuple[str, ...] = option((), "Of series: column of values; repeat it.")
    validation: float = option(0.1, "Share of training rows for validation (default 0.1).")
    test_fraction: float = option(0.1, "Share of rows for test without --test (default 0.1).")
    folds: int = option(0, "Of a cross-validation: the test part is one fold (default none).")
    fold: int = option(0, "Which fold, from 0.")
    tokenizer: str = option(
        "words", "words|characters|bytes|word_pieces|byte_pairs|unigrams|hub:PRESET (words)."
    )
    vocabulary: int = option(30_000, "The most different tokens (default 30000).")
    lowercase: bool = option(True, "Put texts into lower case (default yes).")
    clean: str = option("html", "none|html|web (default html: tags out).")
    max_tokens: int = option(512, "Tokens of a text that are read (default 512; both ends stay).")
    class_weights: str = option("none", "none|balanced.")
    pooling: str = option("", "last|first|mean|max|attention|class_token, or joined by +.")
    embedding: int = option(128, "Features of a token (default 128).")
    embedding_dropout: float = option(0.3, "On the features of a token (default 0.3).")
    token_dropout: float = option(0.3, "Share of tokens that training hides (default 0.3).")
    dropout: float = option(0.5, "On the pooled features (default 0.5).")
    init: str = option("", "Run folder whose tokenizer and weights training begins with.")
    vectors: str = option("", "File of word vectors (.txt, .vec, .gz) the embedding begins with.")

    def __post_init__(self) -> None:
        if not self.data:
            raise UserError("--data is missing: give a file, a folder, or builtin:reviews")
        self.check_choice(
            inputs=("text", "series"),
            clean=("none", "html", "web"),
            class_weights=("none", "balanced"),
        )
        if self.tokenizer not in TOKENIZERS and not self.tokenizer.startswith("hub:"):
            raise UserError(
                f"--tokenizer is {self.tokenizer!r}: choose one of {', '.join(TOKENIZERS)}, or "
                "hub:PRESET"
            )
        for part in self.pooling.split("+") if self.pooling else ():
            if part not in POOLINGS:
                raise UserError(
                    f"--pooling is {self.pooling!r}: join any of {', '.join(POOLINGS)} by +"
                )
        self.check_least(vocabulary=6, max_tokens=8, embedding=1)
        self.check_share("embedding_dropout", "token_dropout", "dropout")
        self.check_share("validation", "test_fraction", zero=False)
        if self.folds == 1 or self.folds < 0:
            raise UserError(f"--folds is {self.folds}: give at least 2, or leave it")
        if not 0 <= self.fold < max(self.folds, 1):
            last = f"0 to {self.folds - 1}" if self.folds else "it together with --folds"
            raise UserError(f"--fold is {self.fold}: give {last}")
        if self.test and self.folds:
            raise UserError("--test and --folds both choose the test part: give one of them")
        if self.multi_label and self.class_weights != "none":
            raise UserError("--class-weights balanced needs one label for each example")
        if self.inputs == "series" and self.init:
            raise UserError("--init takes over a tokenizer, and series have none: leave it out")
        if self.inputs == "series" and self.vectors:
            raise UserError("--vectors is for words, and series have none: leave it out")
        if self.init and self.vectors:
            raise UserError("--init and --vectors both fill the embedding: give one of them")
        if not self.text_column and self.inputs == "text":
            raise UserError("--text-column is missing: name the column of the text")

    def prepare(self) -> ClassificationProblem:
        """Reads and checks the data.

        Returns:
            The problem: data, split, baselines and scores.

        Raises:
            UserError: If anything about the data or the options is wrong.
        """
        from keras_seq.tasks.classification_problem import ClassificationProblem

        return ClassificationProblem(self)

    def accepts(self, architecture: Architecture) -> str:
        """Says why an architecture cannot be trained under this task; "" if it can.

        Args:
            architecture: The architecture.
        """
        if architecture.forecaster:
            return "it is a forecaster: it maps a lookback to a horizon and gives no label"
        if self.inputs == "series" and architecture.reads_tokens:
            return "it reads token ids, and series have measurements"
        if architecture.name.startswith("hub:") and self.tokenizer != architecture.name:
            return f"it reads the ids of its own tokenizer: give --tokenizer {architecture.name}"
        longest = getattr(architecture.function, "max_tokens", None)
        if longest is not None and self.max_tokens > longest:
            return f"it reads at most {longest} tokens of a text: give --max-tokens {longest}"
        return ""

    @staticmethod
    def predict_file(
        run: Callable[[dict[str, Any]], Mapping[str, Any]],
        names: Collection[str],
        metadata: Mapping[str, Any],
        data: str,
    ) -> pandas.DataFrame:
        """Labels what is in a file.

        Args:
            run: The model, in whatever runtime: named raw inputs to named outputs.
            names: The inputs that it has.
            metadata: What was stored with it.
            data: The file.

        Returns:
            One row for each example: its label, and the probability of each class.
        """
        from keras_seq.tasks.classification_files import label_file

        return label_file(run, names, metadata, data)
