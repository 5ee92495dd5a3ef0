"""The language-model task: its options, and the problem that they describe.

Light to import, so that the command line can print its help at once; the work is in
`language_model_problem`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from keras_seq.errors import UserError
from keras_seq.tasks.task import Task, flag, option

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import pandas

    from keras_seq.models import Architecture
    from keras_seq.tasks.language_model_problem import LanguageModelProblem

OBJECTIVES = ("next", "masked", "denoise")
# Options of texts of which every token is scored, or of another output layer.
_NOT_DENOISED = ("stride", "score_context", "variational")


@dataclass(frozen=True)
class LanguageModel(Task):
    """Text that continues, or with gaps to fill: trained on plain text without labels.

    Args:
        data: The training text: a ``.txt`` file, read line by line, or a table of documents
            (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``, a folder, or any of these as ``.gz``);
            several files one after the other.
        validation: A file; none cuts the last part off the training text.
        test: A file; none takes `test_fraction`, or where that is 0 the validation part.
        validation_fraction: Part of the characters of `data`.
        test_fraction: Part of the characters of `data`, behind the validation part.
        text_column: Column of the text in a table; repeat it to join several.
        objective: ``next`` predicts the next token at every step (generation); ``masked`` predicts
            hidden tokens from both sides (pretraining for classification and tagging); ``denoise``
            writes hidden spans with an encoder-decoder (T5's pretraining, for translation).
        tokenizer: words, characters, bytes, word_pieces, byte_pairs or unigrams.
        vocabulary: The most ids.
        lowercase: Whether letters are made small.
        clean: What is taken out of the text: none, html or web.
        context: Steps of a training window.
        stride: Steps from one scored window to the next; 0: the context. Smaller is slower, and
            gives every token more to go by.
        score_context: Steps of a scored window; 0: the context. Recurrent and convolutional
            architectures can use more than they were trained on.
        stateful: Whether recurrent architectures carry their states from batch to batch, in
            training and over the whole of the scored text; others are trained as without it.
        masked_share: Part of the tokens that ``masked`` and ``denoise`` hide.
        masked_span: Tokens of a span that ``denoise`` hides, on average.
        embedding: Features of an embedded token.
        tied: Whether the output layer is the embedding, turned round.
        embedding_dropout: On the embedded features, the same at all steps.
        dropout: On what the output layer reads.
        variational: Whether `dropout`, too, is the same at all steps.
        init: A run whose weights are the start, layer by layer, and whose tokeniser is taken.
        cache: A folder for the ids, for text larger than memory; none keeps them in memory.

    Example:
        >>> LanguageModel(data="a.txt", objective="left")
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: --objective is 'left': choose one of next, masked, denoise
    """

    name: ClassVar[str] = "language_model"
    pairs: ClassVar[bool] = True  # of the objective denoise; `accepts` refuses them for others
    defaults: ClassVar[dict[str, Any]] = {"epochs": 10, "ensemble": False}

    data: tuple[str, ...] = option((), "Training text (.txt, .gz, or a table); repeat it.")
    validation: str = option("", "Validation text (default: cut off the training text).")
    test: str = option("", "Test text (default: --test-fraction, or the validation part).")
    validation_fraction: float = option(0.1, "Part of the training text (default 0.1).")
    test_fraction: float = option(0.0, "Part of the training text, at its end (default 0).")
    text_column: tuple[str, ...] = option(("text",), "Column of the text in a table.")
    objective: str = option("next", "next (generation), masked or denoise (pretraining).")
    tokenizer: str = option("characters", "words|characters|bytes|word_pieces|byte_pairs|unigrams.")
    vocabulary: int = option(30_000, "The most ids (default 30000).")
    lowercase: bool = option(False, "Make letters small.")
    clean: str = option("none", "Take out of the text: none|html|web.")
    context: int = option(128, "Steps of a training window (default 128).")
    stride: int = option(0, "Steps between scored windows (default: the context).")
    score_context: int = option(0, "Steps of a scored window (default: the context).")
    stateful: bool = option(False, "Recurrent networks carry states from batch to batch.")
    masked_share: float = option(0.15, "Part of the tokens that masked, denoise hide (0.15).")
    masked_span: float = option(3.0, "Tokens of a span that denoise hides, on average (3).")
    embedding: int = option(128, "Features of an embedded token (default 128).")
    tied: bool = option(True, "The output layer is the embedding, turned round.")
    embedding_dropout: float = option(0.0, "On embedded features, the same at all steps.")
    dropout: float = option(0.0, "On what the output layer reads.")
    variational: bool = option(False, "That dropout, too, is the same at all steps.")
    init: str = option("", "Run whose weights and tokeniser are the start.")
    cache: str = option("", "Folder for the ids of text larger than memory.")

    def __post_init__(self) -> None:
        for name in ("data", "text_column"):  # one name may come alone
            value: Any = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, (value,) if value else ())
        if not self.data:
            raise UserError("--data is missing: give a text file")
        self.check_choice(objective=OBJECTIVES)
        self.check_least(context=1, embedding=1, vocabulary=1)
        for name in ("stride", "score_context"):
            if getattr(self, name) < 0:
                value = getattr(self, name)
                raise UserError(f"{flag(name)} is {value}: give 1 or more, or leave it")
        if self.stride > (self.score_context or self.context):
            raise UserError(
                f"--stride is {self.stride}: give at most the scored window, "
                f"{self.score_context or self.context}, or tokens would be left out"
            )
        if self.stateful and self.objective != "next":
            raise UserError(
                f"--stateful goes with --objective next, and it is {self.objective}: leave one out"
            )
        self.check_share("validation_fraction", "test_fraction", "embedding_dropout", "dropout")
        if not 0 < self.masked_share < 1:
            raise UserError(f"--masked-share is {self.masked_share}: give 0 to 1, such as 0.15")
        if not self.masked_span >= 1:
            raise UserError(f"--masked-span is {self.masked_span}: give at least 1, such as 3")
        if self.objective == "denoise":
            self._check_denoise()
        if not self.validation and not self.validation_fraction:
            raise UserError("there is no validation text: give --validation or a fraction")
        if self.validation_fraction + self.test_fraction >= 1:
            raise UserError(
                "--validation-fraction and --test-fraction leave nothing to train on: give less"
            )

    def _check_denoise(self) -> None:
        for name in _NOT_DENOISED:
            if getattr(self, name):
                raise UserError(f"{flag(name)} does not go with --objective denoise: leave it out")
        if not self.tied:
            raise UserError(
                "--no-tied does not go with --objective denoise, which has one embedding for the "
                "source, the target and the output layer: leave it out"
            )
        self.check_least(context=2)

    def prepare(self) -> LanguageModelProblem:
        """Reads the text, trains the tokeniser and encodes.

        Returns:
            The problem: streams of ids, baselines and scores.

        Raises:
            UserError: If anything about the data or the options is wrong.
        """
        if self.objective == "denoise":
            from keras_seq.tasks.denoising_problem import DenoisingProblem

            return DenoisingProblem(self)
        from keras_seq.tasks.language_model_problem import LanguageModelProblem

        return LanguageModelProblem(self)

    def accepts(self, architecture: Architecture) -> str:
        """Says why an architecture cannot be trained under this task; "" if it can.

        Args:
            architecture: The architecture.
        """
        if self.objective == "denoise":
            return "" if architecture.encoder_decoder else "it has no decoder"
        if architecture.encoder_decoder:
            return "it is an encoder-decoder, which is for --objective denoise"
        if architecture.forecaster or architecture.reads_tokens or "vector" in architecture.tags:
            return "it gives no state for each step, which a language model needs"
        if "needs_fixed_length" in architecture.tags:
            return "it wants sequences of one length"
        options = architecture.options
        causal = "causal" in architecture.tags or bool(options.get("causal"))
        if self.objective == "next" and (not causal or options.get("bidirectional")):
            return "it sees what comes after a step, and --objective next must not"
        return ""

    @staticmethod
    def predict_file(
        run: Callable[[dict[str, Any]], Mapping[str, Any]],
        names: Collection[str],
        metadata: Mapping[str, Any],
        data: str,
    ) -> pandas.DataFrame:
        """Scores each line or document of a file: how probable is it?

        Args:
            run: The model, in whatever runtime: named raw inputs to named outputs.
            names: The inputs that it has.
            metadata: What was stored with it.
            data: The file.

        Returns:
            One row for each line: its tokens, cross-entropy and perplexity.
        """
        from keras_seq.tasks.language_model_problem import score_file

        return score_file(run, names, metadata, data)
