"""One translation problem: pairs read and tokenised, baselines, scores, what is shipped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from keras_seq import evaluation
from keras_seq.callbacks import markdown_table
from keras_seq.data import (
    PairBatches,
    Pairs,
    TokenStore,
    filter_pairs,
    find_leaks,
    join_pairs,
    read_pairs,
)
from keras_seq.errors import UserError
from keras_seq.heads import Tokens, scheduled_sampling, unscheduled
from keras_seq.heads import Translation as Head
from keras_seq.losses import MaskedCrossentropy
from keras_seq.models import build
from keras_seq.preprocessing import SubwordSampler, Tokenizer, train_tokenizer
from keras_seq.tasks import text
from keras_seq.tasks.problem import Problem, paired_record
from keras_seq.tasks.translation import TOKENIZERS
from keras_seq.tasks.translator import Translator

if TYPE_CHECKING:
    from keras_seq.export import Endpoint
    from keras_seq.tasks.translation import Translation

PARTS = ("validation", "test")
_DRAWN = 3  # validation sources whose alignments are drawn
_MANY = 0.001  # of tokens that are unknown: worth a note
_WRITTEN = 5  # validation pairs that are shown with their translations


@dataclass(frozen=True)
class Prediction:
    """What a model or a baseline makes of the validation and the test part.

    Args:
        texts: N translations, by part.
        log_probabilities: (M,) of the true tokens, end included, by part; None of a baseline.
    """

    texts: dict[str, list[str]]
    log_probabilities: dict[str, np.ndarray] | None = None


class TranslationProblem(Problem):
    """Pairs, split and scores of one translation comparison. It knows no architecture.

    Args:
        options: What the user asked for.

    Raises:
        UserError: If the data or the options are wrong; nothing has been written then.
    """

    task = "translation"
    lower_is_better = False
    primary = "bleu"

    def __init__(self, options: Translation) -> None:
        self.options = options
        self.warm_start = text.WarmStart(options.init) if options.init else None
        self.taken = self._taken_tokenizers()
        # References are what the tokenizer of the target can write.
        self.lowercase = options.lowercase or (bool(self.taken) and self.taken[1].lowercase)
        self.pairs = self._read()
        self.tokenizers = self._train_tokenizers()
        self.stores = {
            part: tuple(
                text.encode(tokenizer, texts)
                for tokenizer, texts in zip(
                    self.tokenizers, (pairs.source, pairs.target), strict=True
                )
            )
            for part, pairs in self.pairs.items()
        }
        self._notes = [note for pairs in self.pairs.values() for note in pairs.notes]
        self._notes += self._taken_notes()
        self.rows = self._trained_rows()
        self._notes += self._length_notes()
        self.sampler = None
        if options.sampling:
            self.sampler = tuple(
                SubwordSampler(t, dropout=options.sampling, alpha=options.sampling)
                for t in self.tokenizers
            )
        self._watching: Translator | None = None
        self._notes += self._batch_notes()

    # ---- reading ------------------------------------------------------------------------------

    def _read(self) -> dict[str, Pairs]:
        options = self.options
        columns = {
            "source_column": options.source_column,
            "target_column": options.target_column,
        }

        def read(name: str) -> Pairs:
            left, _, right = name.partition(",")
            return read_pairs(left, right or None, **columns)

        if options.data:
            train = read_pairs(options.data, **columns)
        else:
            train = read_pairs(options.source, options.target)
        self.source_name = train.origin or options.data
        self.checksum = train.checksum
        parts = {}
        for part in PARTS:
            if given := getattr(options, part):
                parts[part] = read(given)
                self.checksum += f" {parts[part].checksum}"
        for part in reversed(PARTS):
            if part not in parts:
                share = getattr(options, f"{part}_fraction")
                train, parts[part] = _split(train, share, seed=PARTS.index(part))
        train = filter_pairs(train, max_ratio=options.max_ratio or None)
        train = find_leaks(train, parts, drop=options.drop_leaks)
        longest = {"train": options.join, "validation": options.join}
        longest["test"] = options.join_test or options.join
        found = {"train": train, **{part: parts[part] for part in PARTS}}
        found = {part: join_pairs(pairs, longest[part]) for part, pairs in found.items()}
        if self.lowercase:
            found = {
                part: replace(
                    pairs,
                    source=[s.lower() for s in pairs.source],
                    target=[t.lower() for t in pairs.target],
                )
                for part, pairs in found.items()
            }
        return found

    def _taken_tokenizers(self) -> tuple[Tokenizer, ...]:
        """Those of source and target of ``--init``: the same words must have the same ids."""
        if self.warm_start is None:
            return ()
        options = self.options
        source, target = self.warm_start.tokenizers()
        for tokenizer in (source, target):
            if tokenizer.kind not in TOKENIZERS:
                raise UserError(
                    f"--init is {options.init}: its tokenizer is {tokenizer.kind}, and a "
                    f"translation is written in one of {', '.join(TOKENIZERS)}"
                )
        if options.separate and source is target:
            raise UserError(
                f"--init is {options.init}: it has one tokenizer for both sides: leave --separate "
                "out"
            )
        if options.shared == "all" and source is not target:
            raise UserError(
                f"--init is {options.init}: it has a tokenizer for each side, and --shared all "
                "needs one vocabulary: leave --shared out"
            )
        return source, target

    def _taken_notes(self) -> list[str]:
        """What the tokenizers of ``--init`` do to these texts."""
        if not self.taken:
            return []
        found = [f"tokenizer and weights of {self.options.init} are taken over"]
        if self.lowercase and not self.options.lowercase:
            found.append("its tokenizer puts texts into lower case, and so are the references")
        for side, store in zip(("source", "target"), self.stores["train"], strict=True):
            unknown = float(np.mean(store.ids == text.UNKNOWN))
            if unknown >= _MANY:
                found.append(f"{unknown:.1%} of the {side} tokens are unknown to it")
        return found

    def _train_tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        if self.taken:
            source, target = self.taken
            return source, target
        options, train = self.options, self.pairs["train"]
        how: dict[str, Any] = {"vocabulary": options.vocabulary, "lowercase": options.lowercase}
        if options.separate:
            source = train_tokenizer(options.tokenizer, train.source, **how)
            return source, train_tokenizer(options.tokenizer, train.target, **how)
        joint = train_tokenizer(options.tokenizer, [*train.source, *train.target], **how)
        return joint, joint

    def _trained_rows(self) -> np.ndarray:
        """The training pairs that are short enough."""
        source, target = self.stores["train"]
        most = self.options.max_tokens
        long = (source.lengths > most) | (target.lengths + 1 > most)
        if long.all():
            raise UserError(
                f"no training pair has at most {most} tokens on both sides: give a larger "
                "--max-tokens"
            )
        if long.any():
            self._notes.append(
                f"{long.sum():,} of {len(long):,} training pairs have over {most} tokens on a "
                "side and are left out"
            )
        return np.flatnonzero(~long)

    def _length_notes(self) -> list[str]:
        options, found = self.options, []
        for part in PARTS:
            source, target = self.stores[part]
            cut = int((source.lengths > options.max_tokens).sum())
            if cut:
                found.append(
                    f"{cut:,} sources of the {part} part are cut at {options.max_tokens} tokens"
                )
            over = int((target.lengths + 1 > options.max_length).sum())
            if over:
                found.append(
                    f"{over:,} targets of the {part} part are longer than a translation can get "
                    f"({options.max_length} tokens): give a larger --max-length"
                )
        return found

    def _batch_notes(self) -> list[str]:
        """What batches by tokens come to; a number that is too small is refused here."""
        if not self.options.batch_tokens:
            return []
        data = self.data("train", None)
        count = data.steps_of_pass(1)
        return [
            f"a pass has {count:,} batches of up to {self.options.batch_tokens:,} tokens, "
            f"{len(data) / count:.1f} pairs each"
        ]

    # ---- what training needs ------------------------------------------------------------------

    @property
    def batches(self) -> str:  # type: ignore[override]
        """How large batches are, where it is not for ``--batch-size`` to say."""
        most = self.options.batch_tokens
        return f"up to {most:,} tokens" if most else ""

    @cached_property
    def head(self) -> Head:
        """How ids become features and states become scores."""
        options = self.options
        joint = self.tokenizers[0] is self.tokenizers[1]
        shared = options.shared or ("all" if joint else "target")
        source, target = (
            Tokens(t.size, options.embedding, dropout=options.embedding_dropout)
            for t in self.tokenizers
        )
        return Head(source, target, shared=shared, dropout=options.dropout)

    def build(self, architecture: str | Callable[..., Any], **options: Any) -> keras.Model:
        """Builds the network that is trained: ids of both sides in, scores of tokens out.

        Args:
            architecture: As in `keras_seq.build`; an encoder-decoder.
            **options: Its options.

        Returns:
            An uncompiled model.
        """
        inputs = {"source": (None,), "tokens": (None,)}
        return build(architecture, inputs=inputs, head=self.head, **options)

    def adapt(self, model: keras.Model) -> tuple[str, ...]:
        """Takes over the weights of ``--init``.

        Args:
            model: A network made by `build`.

        Returns:
            What was taken over.
        """
        if self.warm_start is None:
            return ()
        return (self.warm_start.note(model, self.warm_start.apply(model)),)

    def training_form(self, model: keras.Model) -> keras.Model:
        """Returns a network as it is trained: one that reads some of its own tokens, if asked.

        Args:
            model: A network made by `build`.
        """
        share = self.options.scheduled_sampling
        return scheduled_sampling(model, share) if share else model

    def training(self) -> dict[str, Any]:
        """Returns the loss and how targets are paired with outputs, for `fit`."""
        return {
            "loss": {"logits": MaskedCrossentropy(label_smoothing=self.options.label_smoothing)},
            "prepare_targets": lambda y: {"logits": y},
        }

    def data(self, part: str, model: keras.Model) -> PairBatches:
        """Returns the pairs of a part.

        Args:
            part: ``train``, ``validation`` or ``test``.
            model: The model that will read them.
        """
        source, target = self.stores[part]
        if part != "train":
            return PairBatches(source, target, max_source=self.options.max_tokens)
        return PairBatches(
            source,
            target,
            rows=self.rows,
            batch_tokens=self.options.batch_tokens or None,
            segment=self._segment if self.sampler else None,
        )

    def _segment(self, seed: int, number: int) -> tuple[TokenStore, TokenStore]:
        """The training pairs, cut into tokens another way."""
        pairs, draw = self.pairs["train"], {"seed": seed, "number": number}
        source, target = self.sampler or ()
        return source.store(pairs.source, **draw), target.store(pairs.target, **draw, side="target")

    @property
    def monitors(self) -> dict[str, bool]:
        """Scores beside the loss that ``--monitor`` can name: whether less of each is better."""
        return {"bleu": False}

    def evaluate(self, model: keras.Model, most: int) -> dict[str, float]:
        """Scores greedy translations of some validation sources.

        Args:
            model: A network made by `build`.
            most: The most pairs; they are spread evenly over the part, and always the same.
        """
        rows = self._spread(most)
        pairs = self.pairs["validation"]
        found = self._greedy(model)([pairs.source[i] for i in rows])
        counts = evaluation.sentence_statistics(
            [best.text for (best,) in found], [pairs.target[i] for i in rows]
        )
        return {"bleu": evaluation.corpus_score(counts)}

    def _greedy(self, model: keras.Model) -> Translator:
        """A greedy translator: kept while a network is trained, as it takes seconds to trace.

        It reads the weights when it is called.
        """
        model = unscheduled(model)
        if self._watching is None or self._watching.model is not model:
            self._watching = Translator(model, self.metadata(), beam=1, cut=True)
        return self._watching

    def _spread(self, most: int) -> np.ndarray:
        """Rows of the validation part, evenly spread."""
        count = len(self.pairs["validation"])
        return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int))

    # ---- predictions and scores ---------------------------------------------------------------

    def predict(self, model: keras.Model) -> Prediction:
        """Translates the validation and the test part, and scores the true targets.

        Args:
            model: A network made by `build`.
        """
        translator = Translator(model, self.metadata(), cut=True)
        texts = {
            part: [best.text for (best,) in translator(self.pairs[part].source)] for part in PARTS
        }
        logs = {part: self._true_logs(model, part) for part in PARTS}
        return Prediction(texts, logs)

    def _true_logs(self, model: keras.Model, part: str) -> np.ndarray:
        """(M,) log p of the tokens of the true targets."""
        ids = tf.TensorSpec((None, None), tf.int32)

        @tf.function(input_signature=[{"source": ids, "tokens": ids}, ids])
        def true(x: Any, y: Any) -> Any:
            logits = tf.cast(model(x, training=False)["logits"], tf.float32)
            label = tf.maximum(y - 1, 0)
            return -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=label, logits=logits)

        found = []
        for x, y in self.data(part, model).batches(64):
            x = {name: tf.constant(value, tf.int32) for name, value in x.items()}
            found.append(true(x, tf.constant(y, tf.int32)).numpy()[y > 0])
        return np.concatenate(found)

    def scores(self, prediction: Prediction, part: str = "test") -> dict[str, float]:
        """Scores a prediction on one part.

        Args:
            prediction: From `predict` or `baselines`.
            part: ``validation`` or ``test``.

        Returns:
            Every score by name.
        """
        found = evaluation.translation_scores(prediction.texts[part], self.pairs[part].target)
        if prediction.log_probabilities is not None:
            found["perplexity"] = float(np.exp(-prediction.log_probabilities[part].mean()))
        return found

    @property
    def labels(self) -> dict[str, str]:
        """Headings of the scores, in the order of the columns."""
        return {
            "bleu": "BLEU",
            "bleu_lowercase": "BLEU, small letters",
            "chrf": "chrF",
            "ter": "TER",
            "rouge_l": "ROUGE-L",
            "exact_match": "exact",
            "token_accuracy": "token accuracy",
            "perplexity": "perplexity a token",
        }

    @property
    def reference(self) -> str:
        """The baseline that must be beaten."""
        return "word_table"

    def losses(self, prediction: Prediction, part: str = "test") -> np.ndarray:
        """Returns the counts that BLEU is made of for each sentence, for paired tests.

        Args:
            prediction: From `predict` or `baselines`.
            part: ``validation`` or ``test``.

        Returns:
            (N, K), see `keras_seq.evaluation.sentence_statistics`.
        """
        return evaluation.sentence_statistics(prediction.texts[part], self.pairs[part].target)

    def paired_test(self, ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
        """Tests whether one system's BLEU is higher than another's.

        Args:
            ours: From `losses`, or its mean over seeds.
            theirs: Likewise.

        Returns:
            ``test``, ``statistic`` (negative: ours is better), ``p``, ``difference``.
        """
        return paired_record(evaluation.corpus_test(ours, theirs))

    def baselines(self) -> Iterator[tuple[str, Prediction, float, str]]:
        """Fits and runs each baseline.

        Yields:
            Name, prediction, seconds, and a note.
        """
        from keras_seq.baselines.translation import TRANSLATORS

        train = self.pairs["train"]
        for name, make in TRANSLATORS.items():
            begin = time.perf_counter()
            translator = make()
            translator.fit(train.source, train.target)
            texts = {part: translator.predict(self.pairs[part].source) for part in PARTS}
            yield name, Prediction(texts), time.perf_counter() - begin, translator.note

    # ---- what is shipped ----------------------------------------------------------------------

    def deployable(self, model: keras.Model) -> keras.Model:
        """Wraps a trained network: ids of both sides in, scores of every token out.

        Args:
            model: A network made by `build`.
        """
        inputs = {
            name: keras.Input((None,), name=name, dtype="int32") for name in ("source", "tokens")
        }
        core = keras.Model(model.input, model.output, name=model.name)
        logits = keras.layers.Identity(name="logits")(core(inputs)["logits"])
        return keras.Model(inputs, {"logits": logits}, name=model.name)

    def samples(self, model: keras.Model, part: str = "test", most: int = 64) -> dict[str, Any]:
        """Returns pairs for a deployable model, evenly spread over a part.

        Args:
            model: The deployable model.
            part: ``train``, ``validation`` or ``test``.
            most: The most pairs.
        """
        return self._sampled(part, most)[0]

    def _sampled(self, part: str, most: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        data = self.data(part, None)
        return data.batch(np.unique(np.linspace(0, len(data) - 1, min(most, 64)).astype(int)))

    def shipped_score(
        self, samples: dict[str, np.ndarray], part: str = "test"
    ) -> Callable[[dict[str, np.ndarray]], float]:
        """Returns what an exported file is scored by: nats a token on its samples.

        Args:
            samples: From `samples`.
            part: The part they are from.
        """
        _, y = self._sampled(part, len(samples["tokens"]))

        def score(outputs: dict[str, np.ndarray]) -> float:
            logits = np.asarray(outputs["logits"], np.float64)
            logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
            picked = np.take_along_axis(logs, np.maximum(y - 1, 0)[..., None], -1)[..., 0]
            return float(-picked[y > 0].mean())

        return score

    def endpoints(self, model: keras.Model) -> tuple[Endpoint, ...]:
        """Returns the signatures that translate texts, encode a source, and step on.

        Args:
            model: The deployable model.
        """
        from keras_seq.tasks.translation_export import translation_endpoints

        network = next(layer for layer in model.layers if isinstance(layer, keras.Model))
        texts = self.pairs["test"].source
        chosen = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), 64)).astype(int))
        return translation_endpoints(
            network, self.tokenizers, self.metadata(), [texts[i] for i in chosen]
        )

    def side_files(self) -> dict[str, bytes]:
        """Returns the tokenizers and the search for a device, beside the LiteRT file."""
        from keras_seq.tasks.translation_export import device_files

        found = device_files(self.tokenizers, self.metadata())
        return {f"litert/{name}": content for name, content in found.items()}

    def card(
        self, record: Mapping[str, Any], baseline: Mapping[str, Any], command: str
    ) -> dict[str, Any]:
        """Returns what the model card says; see `Problem.card`."""
        from keras_seq.tasks.translation_export import card_lines

        found = super().card(record, baseline, command)
        return {**found, "translating": card_lines(self.metadata())}

    def metadata(self) -> dict[str, Any]:
        """Returns what a use of the model needs; it travels inside the model file."""
        source, target = self.tokenizers
        options = self.options
        return {
            "task": self.task,
            "tokenizer": source.config(),
            **({} if source is target else {"target_tokenizer": target.config()}),
            "max_tokens": options.max_tokens,
            "max_length": options.max_length,
            "beam": options.beam,
            "length_penalty": options.length_penalty,
        }

    def describe(self) -> dict[str, Any]:
        """Returns what a reader needs to know to make the figures again."""
        options = self.options
        signature = evaluation.translation_signatures()["bleu"]
        way = f"beam {options.beam}, length penalty {options.length_penalty:g}"
        return {
            "data": self.source_name,
            "sha256": self.checksum,
            "tokenizer": f"{self.tokenizers[0].kind}, "
            + " and ".join(f"{t.size:,}" for t in dict.fromkeys(self.tokenizers))
            + " ids",
            "pairs": {part: len(pairs) for part, pairs in self.pairs.items()},
            **({"init": options.init} if options.init else {}),
            "scores": f"BLEU {signature}; "
            + (way if options.beam > 1 else "greedy")
            + f", at most {options.max_length} tokens",
        }

    @property
    def title(self) -> str:
        """A title for tables."""
        return f"{self.source_name}: translation"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the data."""
        waste = self.data("train", None).waste()
        padding = f"padding is {waste:.0%} of the steps that are trained"
        latency = "latency is that of one pass over a pair of source and target, not of a search"
        return (*self._notes, *self.tokenizers[0].report, padding, latency)

    # ---- looking ------------------------------------------------------------------------------

    def figures(self, model: keras.Model) -> dict[str, Any]:
        """Draws what translations of validation sources looked at, where there is attention.

        Args:
            model: A network made by `build`.

        Returns:
            Figures by tag, the translation over each.
        """
        from keras_seq.figures import alignment_figure

        found = {}
        sources = [self.pairs["validation"].source[i] for i in self._shown(_DRAWN)]
        for number, (one, *_) in enumerate(self._greedy(model)(sources)):
            if one.alignment is not None and one.alignment.size:
                found[f"alignment/{number}"] = alignment_figure(
                    one.source, one.target, one.alignment, title=one.text[:80]
                )
        return found

    def texts(self, model: keras.Model) -> dict[str, str]:
        """Shows greedy translations of validation sources.

        Args:
            model: A network made by `build`.

        Returns:
            A table in markdown: source, reference, translation.
        """
        pairs, rows = self.pairs["validation"], self._shown(_WRITTEN)
        found = self._greedy(model)([pairs.source[i] for i in rows])
        lines = [
            (pairs.source[i], pairs.target[i], best.text)
            for i, (best,) in zip(rows, found, strict=True)
        ]
        return {"translations": markdown_table(("source", "reference", "translation"), lines)}

    def _shown(self, count: int) -> list[int]:
        """Rows of the validation part with sources of different length, always the same."""
        lengths = [len(source) for source in self.pairs["validation"].source]
        order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
        places = [len(order) * n // (count + 1) for n in range(1, 1 + count)]
        return [order[place] for place in dict.fromkeys(places)]

    def check_fits(self, model: keras.Model, what: Any) -> None:
        """Refuses a model with another vocabulary.

        Args:
            model: A deployable model.
            what: What to call it in the message.

        Raises:
            UserError: If the vocabulary differs.
        """
        theirs, ours = model.output["logits"].shape[-1], self.tokenizers[1].size
        if theirs != ours:
            raise UserError(
                f"{what} knows {theirs} tokens of the target, and the tokenizer gives {ours}"
            )

    def board_figures(self, predictions: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """Draws BLEU by the length of the source.

        Args:
            predictions: By row of the leaderboard.
            names: The rows to draw, best first.
        """
        from keras_seq.figures import length_figure

        lengths = [len(source.split()) for source in self.pairs["test"].source]
        found = {
            name: evaluation.bleu_by_length(
                predictions[name].texts["test"], self.pairs["test"].target, lengths
            )
            for name in names
            if name in predictions
        }
        return {"BLEU by length of the source": length_figure(found)} if found else {}


def _split(pairs: Pairs, share: float, *, seed: int) -> tuple[Pairs, Pairs]:
    """Cuts off a share of pairs; equal sources stay together."""
    groups = text.same_side(pairs.source)
    held = text.hold_out([""] * len(pairs), share, groups=groups, seed=seed)

    def part(rows: np.ndarray) -> Pairs:
        where = np.flatnonzero(rows)
        return Pairs([pairs.source[i] for i in where], [pairs.target[i] for i in where])

    if not held.any() or held.all():
        raise UserError(
            f"{len(pairs)} pairs are too few to cut off a share of {share:g}: give more, or the "
            "other parts as files"
        )
    return replace(part(~held), notes=pairs.notes), part(held)
