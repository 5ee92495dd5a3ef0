"""One tagging problem: sentences read and split, baselines, scores, what is shipped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from keras_seq.baselines.tagging import TAGGERS
from keras_seq.data import TokenBatches, TokenStore, iter_lines, read_conllu
from keras_seq.data.tokens import gather
from keras_seq.errors import UserError
from keras_seq.evaluation import example_test
from keras_seq.evaluation.tagging import are_spans, sentence_errors, tagging_scores
from keras_seq.heads import Tokens
from keras_seq.heads.tagging import Characters, TokenLabels
from keras_seq.layers.crf import CRFMarginals, ViterbiDecode
from keras_seq.losses import CRFLoss, MaskedAccuracy, MaskedCrossentropy
from keras_seq.models import build, resolve
from keras_seq.preprocessing import Tokenizer, device_words, train_tokenizer
from keras_seq.preprocessing.device_tokenizer import SPECIAL, lower
from keras_seq.preprocessing.device_words import GivenWords
from keras_seq.tasks import text
from keras_seq.tasks.problem import Problem, paired_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_seq.data import TaggedTable
    from keras_seq.tasks.tagging import Tagging

PARTS = ("validation", "test")
LONGEST_WORD = 20  # characters of a word that are read, start and end included
LEAST = 1e-7  # a probability of 0 has no logarithm
MOST_SHOWN = 30  # tags in a picture
SAMPLE_STEPS = 40  # sentences that are longer make no samples: a fixed length costs all of them


@dataclass(frozen=True)
class Prediction:
    """What a model or a baseline says about the words of the validation and the test part.

    Args:
        probabilities: (M, K) of each tag for each word, sentence by sentence, by part.
        tags: (M,) the tags that are chosen, by part.
    """

    probabilities: dict[str, np.ndarray]
    tags: dict[str, np.ndarray]


@dataclass(frozen=True)
class Part:
    """The sentences of one part.

    Args:
        words: The words of each of N sentences.
        labels: (M,) tag numbers, sentence by sentence; K where training has no such tag.
        ids: The word ids.
        spelling: (M,) which row of the table of spellings each word has.
    """

    words: list[list[str]]
    labels: np.ndarray
    ids: TokenStore
    spelling: TokenStore


class TaggingProblem(Problem):
    """Sentences, split and scores of one tagging comparison. It knows no architecture.

    Args:
        options: What the user asked for.

    Raises:
        UserError: If the data or the options are wrong; nothing has been written then.
    """

    task = "tagging"
    lower_is_better = False

    def __init__(self, options: Tagging) -> None:
        self.options = options
        tables, self._checksums, self._report = _read_parts(options)
        self.tables = tables
        train_words, train_tags = tables["train"]
        self.tags = sorted({tag for row in train_tags for tag in row})
        if len(self.tags) < 2:
            raise UserError(
                f"{options.data} has the one tag {self.tags[0]!r} only: there is nothing to learn; "
                "choose another with --tag-column"
            )
        self.warm_start = text.WarmStart(options.init) if options.init else None
        self.words = self._word_table(train_words)
        self.vectors = text.WordVectors(options.vectors, self.words) if options.vectors else None
        self.characters = (
            train_tokenizer("characters", (w for row in train_words for w in row), lowercase=False)
            if options.characters
            else None
        )
        self.given = GivenWords(self._configuration())
        self.known = {self._key(word) for row in train_words for word in row}
        # The spelling of each different word once: row 0 is padding.
        numbers: dict[str, int] = {}
        self.parts = {
            part: self._part(words, tags, numbers) for part, (words, tags) in tables.items()
        }
        rows = self.given.characters(list(numbers)) if self.characters else []
        self._spellings = np.zeros((len(numbers) + 1, self.given.longest), np.int32)
        if rows:
            self._spellings[1:] = rows
        self._check_tags()
        self.head = TokenLabels(
            classes=len(self.tags),
            tokens=Tokens(
                vocabulary=self.words.size,
                width=self.vectors.width if self.vectors else options.embedding,
                dropout=options.embedding_dropout,
                token_dropout=options.token_dropout,
            ),
            characters=Characters(vocabulary=self.characters.size, width=options.characters)
            if self.characters
            else None,
            dropout=options.dropout,
            crf=options.crf,
        )

    # ---- words and tags -----------------------------------------------------------------------

    def _key(self, word: str) -> str:
        return lower(word) if self.options.lowercase else word

    def _word_table(self, words: list[list[str]]) -> Tokenizer:
        """The words that have ids of their own, as the tokenizer that says so."""
        options = self.options
        if self.warm_start is not None:
            found = self.warm_start.tokenizer()
            if found.kind != "words":
                raise UserError(
                    f"--init is {options.init}: its tokens are {found.kind}, and tags are given to "
                    "words; take a run with --tokenizer words"
                )
            return found
        counts = Counter(self._key(word) for row in words for word in row)
        order = sorted(counts, key=lambda word: (-counts[word], word))
        kept = [word for word in order if counts[word] >= options.min_count]
        kept = [word for word in kept if word not in SPECIAL][: options.vocabulary - len(SPECIAL)]
        if not kept:
            raise UserError(
                f"--min-count is {options.min_count}: no word of {options.data} is that frequent; "
                "give a smaller one"
            )
        return Tokenizer.from_config(
            {
                "kind": "words",
                "lowercase": options.lowercase,
                "clean": "none",
                "vocabulary": [*SPECIAL, *kept],
            }
        )

    def _configuration(self) -> dict[str, Any]:
        """What `GivenWords` needs, and what lies beside a device file."""
        return {
            "words": self.words.config(),
            "characters": self.characters.config() if self.characters else None,
            "longest": LONGEST_WORD,
            "tags": self.tags,
        }

    def _part(self, words: list[list[str]], tags: list[list[str]], numbers: dict[str, int]) -> Part:
        number = {tag: i for i, tag in enumerate(self.tags)}
        return Part(
            words=words,
            labels=np.array([number.get(t, len(number)) for row in tags for t in row], np.int32),
            ids=TokenStore.from_rows(np.array(self.given.ids(row), np.int32) for row in words),
            spelling=TokenStore.from_rows(
                np.array([numbers.setdefault(w, len(numbers) + 1) for w in row], np.int32)
                for row in words
            ),
        )

    def _check_tags(self) -> None:
        """Refuses a part whose tags are others; a rare tag that training lacks is a note."""
        for part in PARTS:
            labels = self.parts[part].labels
            missing = labels == len(self.tags)
            if not missing.any():
                continue
            names = sorted({t for row in self.tables[part][1] for t in row} - set(self.tags))
            shown = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
            if missing.mean() > 0.05:
                raise UserError(
                    f"the {part} part has tags that the training part has not ({shown}; "
                    f"{missing.mean():.0%} of its words): give files with the same tags"
                )
            self._report.append(
                f"{part}: {missing.sum()} words have {len(names)} tags that the training part has "
                f"not ({shown}): no answer is right there"
            )

    # ---- what training needs ------------------------------------------------------------------

    @property
    def input_shapes(self) -> dict[str, Any]:
        """The inputs of a model, without the batch axis."""
        shapes: dict[str, Any] = {"tokens": (None,)}
        if self.characters:
            shapes["characters"] = (None, LONGEST_WORD)
        return shapes

    def build(self, architecture: str | Callable[..., Any], **options: Any) -> keras.Model:
        """Builds the network that is trained: ids in, scores of tags out.

        Args:
            architecture: As in `keras_seq.build`.
            **options: Its options.

        Returns:
            An uncompiled model.
        """
        if self.options.both_ways and "bidirectional" in resolve(architecture).parameters:
            options = {"bidirectional": True, **options}
        return build(architecture, inputs=self.input_shapes, head=self.head, **options)

    def adapt(self, model: keras.Model) -> tuple[str, ...]:
        """Takes over the weights of another run, or word vectors, where they were named.

        Args:
            model: A network made by `build`.

        Returns:
            What was taken over.
        """
        if self.vectors is not None:
            return self.vectors.apply(model)
        if self.warm_start is None:
            return ()
        taken = self.warm_start.apply(model, skip=("logits", "scores", "potentials"))
        return (self.warm_start.note(model, taken),)

    def training(self) -> dict[str, Any]:
        """Returns loss, metrics and how targets are paired with outputs, for `fit`."""
        if self.options.crf:
            return {
                "loss": {"potentials": CRFLoss()},
                "prepare_targets": lambda y: {"potentials": y},
            }
        return {
            "loss": {"logits": MaskedCrossentropy()},
            "metrics": {"logits": [MaskedAccuracy()]},
            "prepare_targets": lambda y: {"logits": y},
        }

    def data(self, part: str, model: keras.Model) -> TokenBatches:
        """Returns the sentences of a part, with the inputs that a model has.

        Args:
            part: ``train``, ``validation`` or ``test``.
            model: The model that will read them.
        """
        found = self.parts[part]
        # 0 is no label, and what training cannot know is none for the loss.
        targets = np.where(found.labels < len(self.tags), found.labels + 1, 0)
        extra = {}
        if "characters" in model.input:
            spelling = TokenBatches(found.spelling, None)

            def spelt(rows: np.ndarray, steps: int) -> np.ndarray:
                places, there = spelling.places(rows, steps)
                return self._spellings[gather(spelling.store.ids, places, there)]

            extra["characters"] = spelt
        return TokenBatches(
            found.ids, TokenStore(targets.astype(np.int32), found.ids.offsets), extra=extra
        )

    # ---- predictions and scores ---------------------------------------------------------------

    def predict(
        self, model: keras.Model, batch_size: int = 64, parts: Sequence[str] = PARTS
    ) -> Prediction:
        """Runs a trained network over the validation and test sentences.

        Args:
            model: A network made by `build` or `ensemble`.
            batch_size: Sentences in a batch.
            parts: Which parts.

        Returns:
            Probabilities and tags of every word.
        """
        shipped = self.deployable(model)
        probabilities, tags = {}, {}
        for part in parts:
            data = self.data(part, model)
            order = data.order()
            found = np.zeros((len(self.parts[part].labels), len(self.tags)), np.float32)
            chosen = np.zeros(len(found), np.int32)
            for i, (x, _) in enumerate(data.batches(batch_size)):
                rows = order[i * batch_size : (i + 1) * batch_size]
                places, there = data.places(rows, x["tokens"].shape[1])
                out = shipped.predict_on_batch(x)
                found[places[there]] = out["probabilities"][there]
                if "tags" in out:
                    chosen[places[there]] = out["tags"][there]
            probabilities[part] = found
            tags[part] = chosen if self.options.crf else found.argmax(1).astype(np.int32)
        return Prediction(probabilities, tags)

    @cached_property
    def _known(self) -> dict[str, np.ndarray]:
        return {
            part: np.array(
                [self._key(w) in self.known for row in self.parts[part].words for w in row]
            )
            for part in PARTS
        }

    def scores(self, prediction: Prediction, part: str = "test") -> dict[str, float]:
        """Scores a prediction on one part.

        Args:
            prediction: From `predict` or `baselines`.
            part: ``validation`` or ``test``.

        Returns:
            Every score by name.
        """
        found = self.parts[part]
        return tagging_scores(
            found.labels,
            prediction.tags[part],
            found.ids.offsets,
            tags=self.tags,
            known=self._known[part],
        )

    @property
    def primary(self) -> str:
        """The score that ranks: of spans their F1, as O is right almost everywhere."""
        return "span_f1" if are_spans(self.tags) else "accuracy"

    reference = "feature_tagger"

    @property
    def labels(self) -> dict[str, str]:
        """Headings of the scores, in the order of the columns."""
        spans = {"span_f1": "span F1"} if are_spans(self.tags) else {}
        return {
            **spans,
            "accuracy": "accuracy",
            "accuracy_low": "95 % from",
            "accuracy_high": "95 % to",
            "macro_f1": "macro F1",
            "known_accuracy": "known words",
            "unknown_accuracy": "unknown words",
            "sentence_accuracy": "sentences",
        }

    def losses(self, prediction: Prediction, part: str = "test") -> np.ndarray:
        """Returns the wrong tags of each sentence over the mean length of one.

        Their mean is the share of wrong tags, and sentences are what is independent.

        Args:
            prediction: From `predict` or `baselines`.
            part: ``validation`` or ``test``.

        Returns:
            (N,).
        """
        found = self.parts[part]
        errors = sentence_errors(found.labels, prediction.tags[part], found.ids.offsets)
        return errors * (len(errors) / len(found.labels))

    def paired_test(self, ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
        """Tests whether one system makes fewer errors than another, over sentences.

        Args:
            ours: From `losses`, or its mean over seeds.
            theirs: Likewise.

        Returns:
            ``test``, ``statistic`` (negative: ours is better), ``p``, ``difference``.
        """
        found = example_test(ours, theirs)
        return paired_record(found, found.name.replace("examples", "sentences"))

    def baselines(self) -> Iterator[tuple[str, Prediction, float, str]]:
        """Fits and runs each baseline.

        Yields:
            Name, predictions, seconds, and a note.
        """
        train = self.parts["train"]
        tags = np.split(train.labels, train.ids.offsets[1:-1])
        for name, factory in TAGGERS.items():
            begin = time.perf_counter()
            tagger = factory()
            tagger.fit(train.words, tags, len(self.tags))
            found = {part: tagger.predict(self.parts[part].words) for part in PARTS}
            seconds = time.perf_counter() - begin
            yield name, _argmax(found), seconds, ""

    # ---- the ensemble -------------------------------------------------------------------------

    def average(self, predictions: Sequence[Prediction]) -> Prediction:
        """Averages probabilities with equal weights; the most probable tag is chosen.

        Args:
            predictions: At least one.
        """
        return _argmax(
            {p: np.mean([x.probabilities[p] for x in predictions], axis=0) for p in PARTS}
        )

    def ensemble(self, models: Sequence[keras.Model]) -> keras.Model:
        """Joins networks into one that gives the logarithm of their mean probabilities.

        Args:
            models: Networks made by `build`.

        Returns:
            One functional model.
        """
        inputs = self._inputs()
        found = []
        for index, model in enumerate(models):
            member = keras.Model(model.input, model.output, name=f"member_{index}_{model.name}")
            found.append(
                _decoded(inputs["tokens"], member(inputs), name=f"_{index}")["probabilities"]
            )
        mean = ops.mean(ops.stack(found), axis=0)
        logits = keras.layers.Identity(name="logits")(ops.log(ops.maximum(mean, LEAST)))
        return keras.Model(inputs, {"logits": logits}, name="ensemble")

    def _inputs(self) -> dict[str, Any]:
        return {
            name: keras.Input(shape, name=name, dtype="int32")
            for name, shape in self.input_shapes.items()
        }

    # ---- what is shipped ----------------------------------------------------------------------

    def deployable(self, model: keras.Model) -> keras.Model:
        """Wraps a trained network so that probabilities come out, and with a CRF tags.

        Args:
            model: A network made by `build` or `ensemble`.

        Returns:
            A functional model: ``tokens`` (B, T) and ``characters`` (B, T, 20) in;
            ``probabilities`` (B, T, K) and, of a CRF, ``tags`` (B, T) out.
        """
        inputs = self._inputs()
        # Without its loss: the file of a model must not need the classes of its training.
        scores = keras.Model(model.input, model.output, name=model.name)(inputs)
        return keras.Model(inputs, _decoded(inputs["tokens"], scores), name=model.name)

    def _sample_rows(self, part: str, most: int) -> np.ndarray:
        lengths = self.parts[part].ids.lengths
        rows = np.flatnonzero(lengths <= max(SAMPLE_STEPS, int(lengths.min())))
        return rows[np.unique(np.linspace(0, len(rows) - 1, most).astype(int))]

    def samples(self, model: keras.Model, part: str = "test", most: int = 256) -> dict[str, Any]:
        """Returns real inputs for a deployable model, evenly spread over a part.

        Args:
            model: The deployable model.
            part: ``train``, ``validation`` or ``test``.
            most: The most sentences.

        Returns:
            Arrays by input name.
        """
        return self.data(part, model).batch(self._sample_rows(part, most))[0]

    def shipped_score(
        self, samples: dict[str, np.ndarray], part: str = "test"
    ) -> Callable[[dict[str, np.ndarray]], float]:
        """Returns what an exported file is scored by: the share of wrong tags on its samples.

        Args:
            samples: From `samples`.
            part: The part they are from.
        """
        found = self.parts[part]
        rows = self._sample_rows(part, len(samples["tokens"]))
        steps = samples["tokens"].shape[1]
        places, there = TokenBatches(found.ids, None).places(rows, steps)
        truth = found.labels[places[there]]

        def score(outputs: dict[str, np.ndarray]) -> float:
            tags = outputs["tags"] if "tags" in outputs else outputs["probabilities"].argmax(-1)
            return float((tags[there] != truth).mean())

        return score

    def side_files(self) -> dict[str, bytes]:
        """Returns what a device needs beside the model: words and characters to ids, and tags."""
        return {
            "litert/tokenizer.py": self.words.device_files()["tokenizer.py"],
            "litert/words.py": Path(device_words.__file__).read_bytes(),
            "litert/tagger.json": text.json_bytes(self._configuration()),
        }

    def metadata(self) -> dict[str, Any]:
        """Returns what tagging another file needs; it travels inside the model file."""
        return {
            "task": self.task,
            "tokenizer": self.words.config(),
            "characters": self.characters.config() if self.characters else None,
            "longest": LONGEST_WORD,
            "tags": self.tags,
            "tag_column": self.options.tag_column,
            "max_tokens": self.options.max_tokens,
        }

    # ---- looking ------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """A title for tables."""
        return f"{Path(self.options.data).name}: {len(self.tags)} tags ({self.options.tag_column})"

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the data."""
        said = list(self._report)
        for part, found in self.parts.items():
            line = f"{part}: {len(found.words):,} sentences, {len(found.labels):,} words"
            if part in PARTS:
                line += f", {1 - self._known[part].mean():.1%} of them not seen in training"
            said.append(line)
        ids = self.parts["train"].ids.ids
        said.append(
            f"{self.words.size - len(SPECIAL):,} words have an id of their own; "
            f"{(ids == text.UNKNOWN).mean():.1%} of the training part are unknown"
        )
        seen = {tuple(row) for row in self.parts["train"].words if len(row) > 3}
        long = [row for row in self.parts["test"].words if len(row) > 3]
        same = sum(tuple(row) in seen for row in long)
        if same:
            said.append(
                f"{same} of {len(long):,} test sentences of over 3 words stand in the training "
                "part too"
            )
        return tuple(said)

    def describe(self) -> dict[str, Any]:
        """Returns what a reader needs to know to make the figures again."""
        options = self.options
        return {
            "data": options.data,
            "validation": options.validation or f"{options.validation_fraction} of data",
            "test": options.test or f"{options.test_fraction} of data",
            "sha256": "-".join(self._checksums.values()),
            "sentences": {part: len(found.words) for part, found in self.parts.items()},
            "words": {part: len(found.labels) for part, found in self.parts.items()},
            "tag_column": options.tag_column,
            "tags": self.tags,
            "vocabulary": self.words.size,
            "scores": "every word counts once, words are as in the file; a word is known if "
            "training has it"
            + (" in any case" if options.lowercase else "")
            + "; spans as in conlleval",
        }

    def figures(self, model: keras.Model) -> dict[str, Figure]:
        """Draws which tags are taken for which, on the validation part.

        Args:
            model: A network made by `build`.

        Returns:
            Figures by tag.
        """
        prediction = self.predict(model, parts=("validation",))
        return {"confusion/validation": self._confusion(prediction, "validation", "")}

    def board_figures(
        self, predictions: Mapping[str, Prediction], names: Sequence[str]
    ) -> dict[str, Figure]:
        """Draws the pictures of the leaderboard: which tags are taken for which.

        Args:
            predictions: One for each row, by architecture.
            names: The rows to draw, best first.

        Returns:
            Figures by heading.
        """
        return {
            f"{name}: tags of the test part": self._confusion(predictions[name], "test", name)
            for name in names[:2]
        }

    def _confusion(self, prediction: Prediction, part: str, title: str) -> Figure:
        """Of many tags the most frequent 30, and the rest as one."""
        from keras_seq.evaluation import confusion_matrix
        from keras_seq.figures import confusion_figure

        truth, answer = self.parts[part].labels, prediction.tags[part]
        counts = np.bincount(self.parts["train"].labels, minlength=len(self.tags) + 1)
        chosen = np.sort(np.argsort(-counts[:-1], kind="stable")[:MOST_SHOWN])
        place = np.full(len(self.tags) + 1, len(chosen))  # the last row is what was left out
        place[chosen] = np.arange(len(chosen))
        shown = [self.tags[k] for k in chosen]
        if len(chosen) < len(self.tags) or (truth == len(self.tags)).any():
            shown.append("others")
        return confusion_figure(
            confusion_matrix(place[truth], place[answer], len(shown)), shown, title=title
        )

    def check_fits(self, model: keras.Model, what: Any) -> None:
        """Refuses a model whose inputs or tags are not those of this problem.

        Args:
            model: A deployable model.
            what: What to call it in the message.

        Raises:
            UserError: If they differ.
        """
        wanted, has = set(self.input_shapes), set(model.input)
        if wanted != has:
            raise UserError(
                f"{what} reads {', '.join(sorted(has))} and the data gives "
                f"{', '.join(sorted(wanted))}: choose with --characters"
            )
        count = model.output["probabilities"].shape[-1]
        if count != len(self.tags):
            raise UserError(
                f"{what} gives {count} tags and the data has {len(self.tags)}: choose the data "
                "that it was trained on, or another --tag-column"
            )


# ---- reading ------------------------------------------------------------------------------------

Sentences = tuple[list[list[str]], list[list[str]]]


def _read_parts(
    options: Tagging,
) -> tuple[dict[str, Sentences], dict[str, str], list[str]]:
    """The sentences of the three parts, the checksums of their files, and notes."""
    files = {"train": options.data, "validation": options.validation, "test": options.test}
    read = {
        part: read_conllu(path, column=options.tag_column) for part, path in files.items() if path
    }
    report = [f"{table.source}: {line}" for table in read.values() for line in table.report]
    checksums = {part: table.checksum for part, table in read.items()}
    parts: dict[str, Sentences] = {
        part: (list(table.words), list(table.tags)) for part, table in read.items()
    }
    rest = parts["train"]
    for part, fraction in (
        ("test", options.test_fraction),
        ("validation", options.validation_fraction),
    ):
        if part in parts:
            continue
        rest, parts[part] = _hold_out(rest, fraction, part)
    parts["train"] = rest
    for part, (words, tags) in parts.items():
        longest = max(map(len, words))
        if longest > options.max_tokens:
            count = sum(len(row) > options.max_tokens for row in words)
            report.append(
                f"{part}: {count} sentences are longer than {options.max_tokens} words (the "
                f"longest has {longest:,}): they are read in pieces"
            )
            parts[part] = (_pieces(words, options.max_tokens), _pieces(tags, options.max_tokens))
    return parts, checksums, report


def _hold_out(rows: Sentences, fraction: float, part: str) -> tuple[Sentences, Sentences]:
    """The same sentence, word for word, never stands on both sides."""
    words, tags = rows
    groups = text.same_side([tuple(row) for row in words])
    out = text.hold_out([""] * len(words), fraction, groups=groups)
    if not out.any() or out.all():
        raise UserError(
            f"{len(words)} sentences are too few to split a {part} part of {fraction:g} off: give "
            f"more, or a file with --{part}"
        )

    def chosen(which: np.ndarray) -> Sentences:
        index = np.flatnonzero(which).tolist()
        return [words[i] for i in index], [tags[i] for i in index]

    return chosen(~out), chosen(out)


def _pieces(rows: list[list[str]], most: int) -> list[list[str]]:
    return [row[i : i + most] for row in rows for i in range(0, len(row), most)]


def _argmax(probabilities: dict[str, np.ndarray]) -> Prediction:
    return Prediction(
        {part: found.astype(np.float32) for part, found in probabilities.items()},
        {part: found.argmax(1).astype(np.int32) for part, found in probabilities.items()},
    )


def _decoded(tokens: Any, scores: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """Probabilities from the scores of a network, and of a CRF the best sequence of tags."""
    if "potentials" not in scores:
        layer = keras.layers.Softmax(name=f"probabilities{name}", dtype="float32")
        return {"probabilities": layer(scores["logits"])}
    mask = ops.not_equal(tokens, 0)
    return {
        "probabilities": CRFMarginals(name=f"probabilities{name}")(scores["potentials"], mask=mask),
        "tags": ViterbiDecode(name=f"tags{name}")(scores["potentials"], mask=mask),
    }


# ---- other files --------------------------------------------------------------------------------


def tag_file(
    run: Callable[[dict[str, np.ndarray]], Mapping[str, Any]],
    names: Collection[str],
    metadata: Mapping[str, Any],
    data: str,
) -> pd.DataFrame:
    """Tags the words of a file.

    Args:
        run: The model, in whatever runtime: named raw inputs to named outputs.
        names: The inputs that it has.
        metadata: From `TaggingProblem.metadata`, as it was stored with the model.
        data: CoNLL-U or two columns (``.conllu``, ``.conll``, ``.tsv``, also ``.gz``); of any
            other name plain text, one sentence a line, which is split into words first.

    Returns:
        One row for each word: ``sentence`` (from 1), ``word``, ``tag``, ``probability``; and
        ``truth`` where the file has tags.

    Raises:
        UserError: If the file cannot be read or has no words.
    """
    given = GivenWords({**metadata, "words": metadata["tokenizer"]})
    truth: list[list[str]] | None = None
    if Path(data.removesuffix(".gz")).suffix in (".conllu", ".conll", ".tsv"):
        table: TaggedTable = read_conllu(data, column=metadata["tag_column"])
        sentences, truth = table.words, table.tags
    else:
        sentences = [given.split(line) for line in iter_lines(data)]
        sentences = [row for row in sentences if row]
    if not sentences:
        raise UserError(f"{data} holds no words")
    rows = []
    most = metadata["max_tokens"]
    for number, words in enumerate(sentences, 1):
        tags: list[str] = []
        sure: list[float] = []
        for start in range(0, len(words), most):
            piece = words[start : start + most]
            x = {"tokens": np.array([given.ids(piece)], np.int32)}
            if "characters" in names:
                x["characters"] = np.array([given.characters(piece)], np.int32)
            out = run(x)
            probabilities = np.asarray(out["probabilities"])[0]
            chosen = np.asarray(out["tags"])[0] if "tags" in out else probabilities.argmax(-1)
            tags += [given.tags[k] for k in chosen]
            sure += probabilities[np.arange(len(piece)), chosen].tolist()
        found: dict[str, Any] = {
            "sentence": number, "word": words, "tag": tags, "probability": sure,
        }  # fmt: skip
        if truth is not None:
            found["truth"] = truth[number - 1]
        rows.append(pd.DataFrame(found))
    return pd.concat(rows, ignore_index=True)
