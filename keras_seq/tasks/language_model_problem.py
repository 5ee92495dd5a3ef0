"""One language-model problem: text to streams of ids, windows, baselines, scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_seq import evaluation
from keras_seq.data import MOST_ROWS, MaskedBatches, StreamBatches, StreamRows
from keras_seq.errors import UserError
from keras_seq.explain import attention_figures
from keras_seq.heads import MaskedToken, NextToken, Tokens, Translation
from keras_seq.layers import can_carry, carry_states, forget_states
from keras_seq.losses import MaskedCrossentropy
from keras_seq.models import build, resolve
from keras_seq.tasks.problem import Problem, paired_record
from keras_seq.tasks.text import WarmStart, pad
from keras_seq.tasks.text_streams import Streams, read_units

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from keras_seq.export import Endpoint
    from keras_seq.tasks.language_model import LanguageModel

PARTS = ("validation", "test")
# A batch of scores over a large vocabulary is cut so that it holds about this many numbers.
MOST_SCORES = 2**25
# With carried states a text is scored in rows that begin without any, of at least so many tokens.
LEAST_ROW, MOST_SCORED_ROWS = 25_000, 8

# log p of the true tokens (N,) by part
Prediction = dict[str, np.ndarray]


def mean_log_loss(weights: Any, log_probability: Any) -> Any:
    """The mean of -log p over the places that count.

    Args:
        weights: (B, M), 1 where a place counts.
        log_probability: (B, M).

    Returns:
        A scalar, in nats.

    Example:
        >>> float(mean_log_loss(np.array([[1.0, 0.0]]), np.array([[-2.0, -9.0]])))
        2.0
    """
    weights = ops.cast(weights, log_probability.dtype)
    return -ops.sum(weights * log_probability) / ops.maximum(ops.sum(weights), 1.0)


class LanguageModelProblem(Problem):
    """Streams of ids and the scores of one language-model comparison. It knows no architecture.

    Args:
        options: What the user asked for.

    Raises:
        UserError: If the data or the options are wrong; nothing has been written then.
    """

    task = "language_model"
    lower_is_better = True
    primary = "cross_entropy"
    reference = "n_gram"

    def __init__(self, options: LanguageModel) -> None:
        self.options = options
        self.warm_start = WarmStart(options.init) if options.init else None
        self.streams = Streams.read(
            options.data,
            validation=options.validation,
            test=options.test,
            validation_fraction=options.validation_fraction,
            test_fraction=options.test_fraction,
            text_column=options.text_column,
            tokenizer=self.warm_start.tokenizer() if self.warm_start else options.tokenizer,
            vocabulary=options.vocabulary,
            lowercase=options.lowercase,
            clean=options.clean,
            cache=Path(options.cache) if options.cache else None,
        )
        self.tokenizer = self.streams.tokenizer
        self.vocabulary = self.tokenizer.size
        self.masked = options.objective == "masked"
        self.whole = options.objective == "next"  # every token of the text is scored
        short = options.context + 1
        for part, store in self.streams.ids.items():
            if len(store) < short:
                raise UserError(
                    f"the {part} part has {len(store):,} tokens, and a window wants {short}: give "
                    "more text or a smaller --context"
                )
        self.head = self._make_head(
            Tokens(self.vocabulary, options.embedding, dropout=options.embedding_dropout)
        )

    def _make_head(self, tokens: Tokens) -> MaskedToken | NextToken | Translation:
        """How ids become features and states become scores."""
        options = self.options
        if self.masked:
            return MaskedToken(tokens, dropout=options.dropout)
        return NextToken(
            tokens, tied=options.tied, dropout=options.dropout, variational=options.variational
        )

    # ---- what training needs ------------------------------------------------------------------

    def build(self, architecture: str | Callable[..., Any], **options: Any) -> keras.Model:
        """Builds the network that is trained: ids in, scores of tokens out.

        Args:
            architecture: As in `keras_seq.build`.
            **options: Its options.

        Returns:
            An uncompiled model; with ``--stateful`` a recurrent one carries its states.

        Raises:
            UserError: If the architecture does not suit the objective.
        """
        bound = resolve(architecture, **options)
        if reason := self.options.accepts(bound):
            raise UserError(f"{bound.name} cannot be trained under language_model: {reason}")
        model = build(architecture, inputs=self._inputs(), head=self.head, **options)
        return self._carrying(model)

    def _inputs(self) -> dict[str, Any]:
        """The inputs of a network, new ones each time."""
        inputs: dict[str, Any] = {"tokens": keras.Input((None,), name="tokens", dtype="int32")}
        return inputs | MaskedToken.inputs() if self.masked else inputs

    def _carrying(self, model: keras.Model) -> keras.Model:
        """The network that carries its states, where the user wants it and it has any."""
        if not self.options.stateful or "slots" in model.input or not can_carry(model):
            return model
        return carry_states(model, slots=2 * MOST_ROWS)

    def adapt(self, model: keras.Model) -> tuple[str, ...]:
        """Takes over the weights of ``--init``; counts targets, for the estimate of training.

        Args:
            model: A network made by `build`.

        Returns:
            What was taken over.
        """
        plain = forget_states(model)  # the same weights
        notes = (
            (self.warm_start.note(plain, self.warm_start.apply(plain)),) if self.warm_start else ()
        )
        if self.masked:
            model.get_layer("log_probability").adapt_counts(self.counts)
        return notes

    @cached_property
    def counts(self) -> np.ndarray:
        """(V,) how often each id stands in the training part."""
        return np.bincount(self.streams.ids["train"], minlength=self.vocabulary)

    def training(self) -> dict[str, Any]:
        """Returns the loss and how targets are paired with outputs, for `fit`."""
        if self.masked:
            return {
                "loss": {"log_probability": mean_log_loss, "logits": None},
                "prepare_targets": lambda y: {"log_probability": y, "logits": y},
            }
        return {
            "loss": {"logits": MaskedCrossentropy()},
            "prepare_targets": lambda y: {"logits": y},
        }

    def data(self, part: str, model: keras.Model) -> StreamBatches:
        """Returns the windows of a part.

        Args:
            part: ``train``, ``validation`` or ``test``.
            model: The model that will read them.
        """
        options, ids = self.options, self.streams.ids[part]
        if model is not None and "slots" in model.input:
            return StreamRows(ids, min(options.context, len(ids)))
        if self.masked:
            return MaskedBatches(
                ids, options.context, vocabulary=self.vocabulary, share=options.masked_share
            )
        if part == "train":
            return StreamBatches(ids, options.context)
        context = min(options.score_context or options.context, len(ids))
        return StreamBatches(ids, context, stride=min(options.stride, context) or None)

    # ---- predictions and scores ---------------------------------------------------------------

    def predict(self, model: keras.Model, batch_size: int = 64) -> Prediction:
        """Runs a trained network over the validation and the test part.

        With ``--stateful`` a recurrent one carries its states over the whole of a part, which is
        read in 1 to 8 rows of at least 25,000 tokens side by side.

        Args:
            model: A network made by `build`.
            batch_size: The most windows in a batch.

        Returns:
            log p of every true token that counts, in the order of the text, by part.
        """
        masked, model = self.masked, self._carrying(model)

        def true(x: Any, y: Any) -> Any:
            out = model(x, training=False)
            if masked:
                return out["log_probability"]
            logits = tf.cast(out["logits"], tf.float32)
            target = tf.maximum(y - 1, 0)
            return -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=target, logits=logits)

        run = tf.function(true, reduce_retracing=True)
        found: Prediction = {}
        for part in PARTS:
            if part == "test" and self.streams.same_test:
                found[part] = found["validation"]
                continue
            data = self.data(part, model)
            steps = _scored_steps(data)
            size = int(np.clip(MOST_SCORES // (steps * self.vocabulary), 1, batch_size))
            axis = 0
            if isinstance(data, StreamRows):  # what follows a batch stands beside it
                axis = 1
                size = int(np.clip(len(data.ids) // LEAST_ROW, 1, min(size, MOST_SCORED_ROWS)))
            logs, counts = [], []
            for x, y in data.batches(size):
                logs.append(run(_tensors(x), tf.convert_to_tensor(y)).numpy())
                counts.append(y > 0)
            there = np.concatenate(counts, axis)
            found[part] = np.concatenate(logs, axis)[there].astype(np.float32)
        return found

    @cached_property
    def truth(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Where the tokens that count stand in the stream, and their ids, by part."""
        found = {}
        for part in PARTS:
            ids = self.streams.ids[part]
            if not self.masked:
                found[part] = (np.arange(len(ids)), np.asarray(ids))
                continue
            data = self.data(part, None)
            first = np.arange(len(data))[:, None] * data.context
            x, y = data.batch(np.arange(len(data)))
            found[part] = ((first + x["places"])[y > 0], x["targets"][y > 0])
        return found

    def scores(self, prediction: Prediction, part: str = "test") -> dict[str, float]:
        """Scores a prediction on one part.

        Args:
            prediction: From `predict` or `baselines`.
            part: ``validation`` or ``test``.

        Returns:
            Every score by name.
        """
        characters = self.streams.characters[part] if self.whole else None
        # Of characters "a word" would be a number too large to say anything.
        words = self.streams.words[part] if self._in_words else None
        return evaluation.language_model_scores(
            prediction[part], characters=characters, words=words
        )

    @property
    def _in_words(self) -> bool:
        return self.whole and self.tokenizer.kind not in ("characters", "bytes")

    @property
    def labels(self) -> dict[str, str]:
        """Headings of the scores, in the order of the columns."""
        found = {"cross_entropy": "nats a token", "perplexity": "perplexity"}
        if self.whole:
            found["bits_per_character"] = "bits a character"
            if self._in_words:
                found["word_perplexity"] = "perplexity a word"
        return found

    def losses(self, prediction: Prediction, part: str = "test") -> np.ndarray:
        """Returns the mean loss of each block of the text, for paired tests.

        Args:
            prediction: From `predict` or `baselines`.
            part: ``validation`` or ``test``.

        Returns:
            (blocks,).
        """
        return evaluation.block_losses(prediction[part])

    def paired_test(self, ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
        """Tests whether one system's losses are lower than another's.

        Args:
            ours: From `losses`, or its mean over seeds.
            theirs: Likewise.

        Returns:
            ``test``, ``statistic`` (negative: ours is better), ``p``, ``difference``.
        """
        found = evaluation.paired_test(ours, theirs, horizon=1)
        return paired_record(found, f"paired t over {len(ours)} blocks of the text")

    def baselines(self) -> Iterator[tuple[str, Prediction, float, str]]:
        """Counts and runs each baseline.

        Yields:
            Name, prediction, seconds, and a note.
        """
        from keras_seq.baselines import NGram

        train = self._counted("train")
        orders = {"uniform": 0, "unigram": 1}
        orders["n_gram"] = 6 if self.tokenizer.kind in ("characters", "bytes") else 3
        for name, order in orders.items():
            begin = time.perf_counter()
            model = NGram(order, self.vocabulary).fit(train)
            found: Prediction = {}
            for part in PARTS:
                if part == "test" and self.streams.same_test:
                    found[part] = found["validation"]
                    continue
                ids, (places, _) = self._counted(part), self.truth[part]
                found[part] = model.log_probability(ids)[places].astype(np.float32)
            yield name, found, time.perf_counter() - begin, model.note

    def _counted(self, part: str) -> np.ndarray:
        """(N,) the stream that baselines count, and whose tokens they predict."""
        return np.asarray(self.streams.ids[part])

    # ---- the ensemble -------------------------------------------------------------------------

    def average(self, predictions: Sequence[Prediction]) -> Prediction:
        """Averages the probabilities of the true tokens.

        Args:
            predictions: At least one.
        """
        return {
            part: (
                np.logaddexp.reduce([p[part] for p in predictions]) - np.log(len(predictions))
            ).astype(np.float32)
            for part in PARTS
        }

    def ensemble(self, models: Sequence[keras.Model]) -> keras.Model:
        """Joins networks into one whose probabilities are the average of theirs.

        Args:
            models: Networks made by `build`.

        Returns:
            A functional model with the same inputs and outputs.
        """
        inputs = self._inputs()
        outputs: dict[str, list[Any]] = {}
        for index, model in enumerate(map(forget_states, models)):
            member = keras.Model(model.input, model.output, name=f"member_{index}_{model.name}")
            for name, tensor in member({key: inputs[key] for key in model.input}).items():
                outputs.setdefault(name, []).append(tensor)
        joined = {}
        for name, tensors in outputs.items():
            logs = tensors if name == "log_probability" else [ops.log_softmax(t) for t in tensors]
            mean = ops.logsumexp(ops.stack(logs), axis=0) - float(np.log(len(logs)))
            joined[name] = keras.layers.Identity(name=name)(mean)
        return keras.Model(inputs, joined, name="ensemble")

    # ---- what is shipped ----------------------------------------------------------------------

    def deployable(self, model: keras.Model) -> keras.Model:
        """Wraps a trained network: ids in, scores of every token at every step out.

        Args:
            model: A network made by `build` or `ensemble`.

        Returns:
            A functional model: ``tokens`` (B, T), with the objective ``masked`` also ``places``
            (B, M), to ``logits``. Carried states are left out: every call begins with none.
        """
        model = forget_states(model)
        inputs: dict[str, Any] = {"tokens": keras.Input((None,), name="tokens", dtype="int32")}
        given = dict(inputs)
        if self.masked:
            places = keras.Input((None,), name="places", dtype="int32")
            inputs["places"] = places
            given |= {"places": places, "targets": ops.zeros_like(places)}
        core = keras.Model(model.input, model.output, name=model.name)
        logits = core(given)["logits"]
        outputs = {"logits": keras.layers.Identity(name="logits")(logits)}
        return keras.Model(inputs, outputs, name=model.name)

    def samples(self, model: keras.Model, part: str = "test", most: int = 256) -> dict[str, Any]:
        """Returns windows for a deployable model, evenly spread over a part.

        Args:
            model: The deployable model.
            part: ``train``, ``validation`` or ``test``.
            most: The most windows; fewer where the vocabulary is large.

        Returns:
            Arrays by input name.
        """
        return {
            name: value
            for name, value in self._sampled(part, most)[0].items()
            if name in model.input
        }

    def _sampled(self, part: str, most: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        data = self._sample_windows(part)
        steps = _scored_steps(data)
        most = int(np.clip(MOST_SCORES // (steps * self.vocabulary), 1, most))
        whole = max(1, len(self.streams.ids[part]) // data.context)  # no padded window
        return data.batch(np.unique(np.linspace(0, whole - 1, most).astype(int)))

    def _sample_windows(self, part: str) -> StreamBatches:
        options, ids = self.options, self.streams.ids[part]
        if self.masked:
            return MaskedBatches(
                ids, options.context, vocabulary=self.vocabulary, share=options.masked_share
            )
        return StreamBatches(ids, options.context)

    def shipped_score(
        self, samples: dict[str, np.ndarray], part: str = "test"
    ) -> Callable[[dict[str, np.ndarray]], float]:
        """Returns what an exported file is scored by: nats a token on its samples.

        Args:
            samples: From `samples`.
            part: The part they are from.
        """
        x, y = self._sampled(part, len(samples["tokens"]))
        targets = x["targets"] if self.masked else np.maximum(y - 1, 0)

        def score(outputs: dict[str, np.ndarray]) -> float:
            logits = np.asarray(outputs["logits"], np.float64)
            logits = logits - logits.max(-1, keepdims=True)
            logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            return float(-np.take_along_axis(logs, targets[..., None], -1)[..., 0][y > 0].mean())

        return score

    def endpoints(self, model: keras.Model) -> tuple[Endpoint, ...]:
        """Returns the signature that takes raw text, and the step with a memory for generation.

        Args:
            model: The deployable model.
        """
        if self.masked:
            return ()
        from keras_seq.export import Endpoint
        from keras_seq.generation import step_endpoint

        context = self.options.context
        windows = self.samples(model, most=32)["tokens"]
        texts = [self.tokenizer.decode(row) for row in windows]
        tokens = [self.tokenizer.encode(text)[:context] for text in texts]
        graph = self.tokenizer.graph(context)
        serving = Endpoint(
            name="serving_text",
            call=lambda inputs: model({"tokens": graph(inputs["text"])}, training=False),
            inputs={"text": ((None,), "string")},
            samples={"text": np.array(texts, dtype=object)},
            expected=model.predict({"tokens": pad(tokens)}, verbose=0),
            tracked=(graph,),
            needs_tensorflow_text=self.tokenizer.needs_tensorflow_text,
        )
        step = step_endpoint(model, windows, length=context)
        return (serving,) if step is None else (serving, step)

    def side_files(self) -> dict[str, bytes]:
        """Returns the tokeniser for a device, beside the LiteRT file."""
        return {f"litert/{name}": data for name, data in self.tokenizer.device_files().items()}

    def metadata(self) -> dict[str, Any]:
        """Returns what a use of the model needs; it travels inside the model file."""
        return {
            "task": self.task,
            "tokenizer": self.tokenizer.config(),
            "objective": self.options.objective,
            "context": self.options.context,
            "lines": self.streams.lines,
            "text_column": list(self.options.text_column),
        }

    def describe(self) -> dict[str, Any]:
        """Returns what a reader needs to know to make the figures again."""
        streams, options = self.streams, self.options
        return {
            "data": streams.source,
            "sha256": streams.checksum,
            "tokenizer": f"{self.tokenizer.kind}, {self.vocabulary:,} ids",
            "tokens": {part: len(ids) for part, ids in streams.ids.items()},
            "characters": dict(streams.characters),
            "objective": options.objective,
            "context": options.context,
            **({"init": options.init} if options.init else {}),
            "scores": self._protocol(),
        }

    def _protocol(self) -> str:
        """How the scores come about."""
        options = self.options
        if self.masked:
            return (
                f"{options.masked_share:.0%} of the tokens of each window of {options.context} are "
                "hidden, the same ones for every model; mean over those"
            )
        context = options.score_context or options.context
        stride = options.stride or context
        carried = (
            "recurrent networks: the state is carried over the whole text, read in 1 to "
            f"{MOST_SCORED_ROWS} rows of at least {LEAST_ROW:,} tokens; others: "
        )
        return (carried if options.stateful else "") + (
            f"every token once, in windows of {context} with stride {stride}: a token has "
            f"{context - stride} to {context - 1} tokens to go by; "
            + ("line breaks are characters" if self.streams.breaks else "one </s> a line counts")
            + "; bits a character: nats of all tokens / ln 2 / characters with line breaks"
        )

    @property
    def title(self) -> str:
        """A title for tables."""
        what = "next token" if not self.masked else "hidden tokens"
        return f"{self.streams.source}: {what}, {self.tokenizer.kind}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the data."""
        if not self.options.stateful:
            return self.streams.notes
        return (
            *self.streams.notes,
            "--stateful: recurrent networks read the text in rows side by side, one for each "
            "example of a batch, and carry their states from batch to batch; others are trained "
            "on windows of it in any order",
        )

    # ---- looking ------------------------------------------------------------------------------

    def figures(self, model: keras.Model) -> dict[str, Figure]:
        """Draws the attention on one window, where there is any.

        Args:
            model: A network made by `build`.

        Returns:
            Figures by tag.
        """
        if "slots" in model.input:
            return {}  # a layer in two graphs has no one output
        x, _ = self._sample_windows("validation").batch(np.array([0]))
        return attention_figures(model, x)

    def check_fits(self, model: keras.Model, what: Any) -> None:
        """Refuses a model with another vocabulary.

        Args:
            model: A deployable model.
            what: What to call it in the message.

        Raises:
            UserError: If the vocabulary differs.
        """
        theirs = model.output["logits"].shape[-1]
        if theirs != self.vocabulary:
            raise UserError(
                f"{what} knows {theirs} ids, and the tokeniser gives {self.vocabulary}: take the "
                "tokeniser of that run with --init"
            )


def _scored_steps(data: StreamBatches) -> int:
    """The scores of a window, whether they count or not."""
    return int(data.batch(np.arange(1))[1].shape[1])


def _tensors(x: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: tf.convert_to_tensor(value) for name, value in x.items()}


def score_file(
    run: Callable[[dict[str, np.ndarray]], Mapping[str, Any]],
    names: Collection[str],
    metadata: Mapping[str, Any],
    data: str,
) -> pd.DataFrame:
    """Scores each line or document of a file by itself.

    Args:
        run: The model, in whatever runtime: named raw inputs to named outputs.
        names: The inputs that it has.
        metadata: From `LanguageModelProblem.metadata`, as it was stored with the model.
        data: The file.

    Returns:
        One row for each: ``text``, ``tokens``, ``cross_entropy`` (nats a token), ``perplexity``.

    Raises:
        UserError: If the model fills gaps, or the file cannot be read.
    """
    import pandas as pd

    from keras_seq.preprocessing import Tokenizer

    if metadata["objective"] != "next":
        raise UserError(
            "this model fills gaps and cannot score a text: take one trained with --objective next"
        )
    tokenizer = Tokenizer.from_config(metadata["tokenizer"])
    context = int(metadata["context"])
    rows = []
    for text in read_units(data, tuple(metadata["text_column"])):
        if not text.strip():
            continue
        ids = tokenizer.encode(text)
        windows = StreamBatches(ids, context)
        total = 0.0
        for x, y in windows.batches(1):
            logits = np.asarray(run(x)["logits"], np.float64)[0]
            logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
            there = y[0] > 0
            total -= logs[there, y[0][there] - 1].sum()
        mean = total / len(ids)
        rows.append((text, len(ids), mean, float(np.exp(mean))))
    return pd.DataFrame(rows, columns=["text", "tokens", "cross_entropy", "perplexity"])
