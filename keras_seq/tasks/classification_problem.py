"""One classification problem: data read and split, baselines, scores, what is shipped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_seq import evaluation
from keras_seq.data import SequenceBatches, TokenBatches, TokenStore
from keras_seq.errors import UserError
from keras_seq.heads import Label, Tokens
from keras_seq.metrics import WeightedCrossentropy
from keras_seq.models import build, resolve
from keras_seq.tasks import text
from keras_seq.tasks.classification_files import FixedBatches, UnmaskedBatches, read_examples
from keras_seq.tasks.problem import Problem, paired_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_seq.baselines.classification import Classifier
    from keras_seq.data import LengthBatches
    from keras_seq.export import Endpoint
    from keras_seq.preprocessing.tokenizer import Tokenizer
    from keras_seq.tasks.classification import Classification
    from keras_seq.tasks.classification_files import Examples

PARTS = ("validation", "test")
KEEP = "ends"  # what of a longer text is read: openings and, above all, endings tell
_ENDPOINT_SAMPLES = 64
_EXPLAINED = 3  # validation texts that are coloured by what their labels came from
_LEAST = 1e-7  # of a probability before its logarithm


@dataclass(frozen=True)
class Prediction:
    """What a model or a baseline says about the validation and the test part.

    Args:
        probabilities: (N, K), by part.
    """

    probabilities: dict[str, np.ndarray]


class ClassificationProblem(Problem):
    """Data, split and scores of one classification comparison. It knows no architecture.

    Args:
        options: What the user asked for.

    Raises:
        UserError: If the data or the options are wrong; nothing has been written then.
    """

    task = "classification"
    lower_is_better = False

    def __init__(self, options: Classification) -> None:
        self.options = options
        self.exclusive = not options.multi_label
        self.is_text = options.inputs == "text"
        self.warm_start = text.WarmStart(options.init) if options.init else None
        self.vectors: text.WordVectors | None = None
        first = read_examples(options, options.data)
        second = read_examples(options, options.test) if options.test else None
        self.items = first.items + (second.items if second else [])
        self.labels_of_rows = first.labels + (second.labels if second else [])
        self.checksum = first.checksum + (f" {second.checksum}" if second else "")
        self.channels = first.channels
        self._report = first.report
        if second:
            if second.channels != first.channels:
                raise UserError(
                    f"{options.data} has the columns {', '.join(first.channels)} and "
                    f"{options.test} has {', '.join(second.channels)}: give the same"
                )
            self._report += tuple(f"{options.test}: {line}" for line in second.report)
        self.rows = self._split(first, len(self.items))
        self.classes = self._classes()
        self.targets = self._targets()
        self._check_classes()
        if self.is_text:
            self._tokenise()
        else:
            self._standardise()

    # ---- reading ------------------------------------------------------------------------------

    def _split(self, first: Examples, total: int) -> dict[str, np.ndarray]:
        """Rows of each part; like rows stand together, labels are spread evenly."""
        options, count = self.options, len(first.items)
        same = [item if self.is_text else item.tobytes() for item in first.items]
        groups = text.same_side(same, *([first.groups] if first.groups else []))
        every = np.arange(count)
        if options.test:
            test = np.arange(count, total)
            rest = every
        else:
            if options.folds:
                fold = text.fold_of(first.labels, options.folds, groups=groups)
                held = fold == options.fold
            else:
                held = text.hold_out(first.labels, options.test_fraction, groups=groups)
            test, rest = every[held], every[~held]
        labels = [first.labels[i] for i in rest]
        held = text.hold_out(labels, options.validation, groups=groups[rest], seed=1)
        found = {"train": rest[~held], "validation": rest[held], "test": test}
        for part, rows in found.items():
            if not len(rows):
                raise UserError(
                    f"{options.data} has {count} examples ({len(set(groups.tolist()))} that "
                    f"differ), too few for a {part} part: give more, "
                    "or larger shares with --validation and --test-fraction"
                )
        return found

    def _names_of(self, row: int) -> list[str]:
        label = self.labels_of_rows[row]
        if self.exclusive:
            return [label]
        parts = (part.strip() for part in label.split(self.options.multi_label))
        return [part for part in parts if part]

    def _classes(self) -> tuple[str, ...]:
        names = {name for row in self.rows["train"] for name in self._names_of(row)}
        if len(names) < 2 and self.exclusive:
            raise UserError(
                f"the training part holds one class only ({', '.join(names)}): at least two are "
                "needed; give more data, or another --label-column"
            )
        if not names:
            raise UserError(f"no example of {self.options.data} has a label")
        whole = all(name.lstrip("-").isdigit() for name in names)
        return tuple(sorted(names, key=(lambda n: (int(n), n)) if whole else None))

    def _targets(self) -> np.ndarray:
        """(N,) class numbers, -1 for one that training does not have; or (N, K) 0 and 1."""
        numbers = {name: k for k, name in enumerate(self.classes)}
        if self.exclusive:
            return np.array([numbers.get(name, -1) for name in self.labels_of_rows], np.int32)
        table = np.zeros((len(self.items), len(self.classes)), np.float32)
        for row in range(len(self.items)):
            for name in self._names_of(row):
                if name in numbers:
                    table[row, numbers[name]] = 1.0
        return table

    def _check_classes(self) -> None:
        """Refuses a class that is tested and was never learned."""
        for part in PARTS:
            names = {name for row in self.rows[part] for name in self._names_of(row)}
            unknown = sorted(names - set(self.classes))
            if unknown:
                where = self.options.test or self.options.data
                several = len(unknown) > 1
                raise UserError(
                    f"{where}: the class{'es' if several else ''} {', '.join(unknown[:5])} "
                    f"{'are' if several else 'is'} in the {part} part and not in the training "
                    "part: give examples to learn from, or leave those rows out"
                )

    def _tokenise(self, tokenizer: Tokenizer | None = None) -> None:
        """Makes the tokenizer, from the training part only, and encodes every text."""
        from keras_seq.preprocessing import train_tokenizer

        options = self.options
        if tokenizer is None and self.warm_start:
            tokenizer = self.warm_start.tokenizer()
        if tokenizer is None:
            tokenizer = train_tokenizer(
                options.tokenizer,
                (self.items[row] for row in self.rows["train"]),
                vocabulary=options.vocabulary,
                lowercase=options.lowercase,
                clean=options.clean,
            )
        self.tokenizer = tokenizer
        self.vectors = text.WordVectors(options.vectors, tokenizer) if options.vectors else None
        self.store = text.encode(tokenizer, self.items)

    def _standardise(self) -> None:
        """Fits the scale of each channel, on the training part only."""
        lengths = {len(value) for value in self.items}
        self.steps = lengths.pop() if len(lengths) == 1 else None
        known = np.concatenate([self.items[row] for row in self.rows["train"]]).astype(np.float64)
        std = known.std(axis=0)
        self.mean, self.std = known.mean(axis=0), np.where(std > 0, std, 1.0)
        self.values = [((value - self.mean) / self.std).astype(np.float32) for value in self.items]

    # ---- what training needs ------------------------------------------------------------------

    @property
    def head(self) -> Label:
        """What turns the states of an architecture into class scores."""
        options = self.options
        tokens = None
        if self.is_text:
            tokens = Tokens(
                self.tokenizer.size,
                width=self.vectors.width if self.vectors else options.embedding,
                dropout=options.embedding_dropout,
                token_dropout=options.token_dropout,
            )
        return Label(
            len(self.classes),
            pooling=options.pooling or None,
            dropout=options.dropout,
            tokens=tokens,
            exclusive=self.exclusive,
        )

    def build(self, architecture: str | Callable[..., Any], **options: Any) -> keras.Model:
        """Builds the network that is trained: ids or standardised values in, class scores out.

        Args:
            architecture: As in `keras_seq.build`.
            **options: Its options.

        Returns:
            An uncompiled model.
        """
        fixed = "needs_fixed_length" in resolve(architecture, **options).tags
        inputs: dict[str, Any]
        if self.is_text:
            inputs = {"tokens": (self.options.max_tokens if fixed else None,)}
        else:
            inputs = {"features": (self.steps, len(self.channels))}
            if self.steps is None:
                if fixed:
                    raise UserError(
                        "it needs sequences of one length, and these have several: leave it out"
                    )
                inputs["mask"] = keras.Input((None,), name="mask", dtype="bool")
        return build(architecture, inputs=inputs, head=self.head, **options)

    def adapt(self, model: keras.Model) -> tuple[str, ...]:
        """Takes over what ``--init`` or ``--vectors`` names, and counts what layers want counted.

        Args:
            model: A network made by `build`.

        Returns:
            What was taken over.
        """
        notes: tuple[str, ...] = ()
        taken: tuple[str, ...] = ()
        if self.warm_start is not None:
            same = self.warm_start.metadata.get("labels") == list(self.classes)
            taken = self.warm_start.apply(model, skip=() if same else ("logits",))
            notes = (self.warm_start.note(model, taken),)
        elif self.vectors is not None:
            notes = self.vectors.apply(model)
        for layer in model.layers:
            ours = not type(layer).__module__.startswith("keras.")
            if ours and hasattr(layer, "adapt") and layer.name not in taken:
                layer.adapt(self._labelled_ids())
        return notes

    def _labelled_ids(self) -> Iterator[tuple[np.ndarray, Any]]:
        for row in self.rows["train"]:
            ids = text.cut(self.store[row], self.options.max_tokens, KEEP)
            target = self.targets[row]
            yield ids, int(target) if self.exclusive else np.flatnonzero(target)

    def training(self) -> dict[str, Any]:
        """Returns loss, metrics and how targets are paired with outputs, for `fit`."""
        loss: Any
        metric: Any
        if not self.exclusive:
            loss = keras.losses.BinaryCrossentropy(from_logits=True)
            metric = keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
        else:
            metric = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            if self.options.class_weights == "balanced":
                known = self.targets[self.rows["train"]]
                counts = np.bincount(known, minlength=len(self.classes)).tolist()
                loss = WeightedCrossentropy(WeightedCrossentropy.balanced(counts))
        return {
            "loss": {"logits": loss},
            "metrics": {"logits": [metric]},
            "prepare_targets": lambda y: {"logits": y},
        }

    def data(self, part: str, model: keras.Model) -> LengthBatches:
        """Returns the examples of a part, with the inputs that a model has.

        Args:
            part: ``train``, ``validation`` or ``test``.
            model: The model that will read them.
        """
        rows = self.rows[part]
        if self.is_text:
            fixed = model.input["tokens"].shape[1] is not None
            kind = FixedBatches if fixed else TokenBatches
            most = self.options.max_tokens
            return kind(self.store, self.targets, rows=rows, max_tokens=most, keep=KEEP)
        series = SequenceBatches if "mask" in model.input else UnmaskedBatches
        return series(self.values, self.targets, rows=rows)

    # ---- predictions and scores ---------------------------------------------------------------

    def predict(self, model: keras.Model, batch_size: int = 128) -> Prediction:
        """Runs a trained network over the validation and the test part.

        Args:
            model: A network made by `build`.
            batch_size: Examples in a batch.

        Returns:
            Probabilities.
        """
        found = {}
        for part in PARTS:
            data = self.data(part, model)
            batches = data.dataset(batch_size).map(lambda x, y: x)
            logits = model.predict(batches, verbose=0)["logits"]
            out = np.empty_like(logits)
            out[data.order()] = logits
            found[part] = self._probabilities(out)
        return Prediction(found)

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Softmax, or a sigmoid of each, in float64."""
        x = logits.astype(np.float64)
        if not self.exclusive:
            return 0.5 * (1 + np.tanh(0.5 * x))
        x = np.exp(x - x.max(axis=1, keepdims=True))
        return x / x.sum(axis=1, keepdims=True)

    @cached_property
    def truth(self) -> dict[str, np.ndarray]:
        """The class numbers (N,), or labels (N, K), by part."""
        return {part: self.targets[rows] for part, rows in self.rows.items()}

    def baselines(self) -> Iterator[tuple[str, Prediction, float, str]]:
        """Fits and runs each baseline: on training and validation rows for the test part.

        Yields:
            Name, predictions, seconds, and a note (empty if all went as it should).
        """
        from keras_seq.baselines import (
            FEATURE_BASELINES,
            TEXT_BASELINES,
            PositionLogistic,
            sequence_features,
        )

        rows, table = self.rows, dict[str, Any]()
        if self.is_text:
            table.update(TEXT_BASELINES)
            if len(set(self.store.lengths.tolist())) == 1:
                table[PositionLogistic.name] = PositionLogistic
        else:
            table.update(FEATURE_BASELINES)
            features = sequence_features(self.values)

        def examples(chosen: np.ndarray) -> Any:
            if self.is_text:
                return TokenStore.from_rows(self.store[row] for row in chosen)
            return features[chosen]

        def run(factory: Callable[[], Classifier], known: np.ndarray, part: str) -> np.ndarray:
            targets = self.targets[known]
            if self.exclusive:
                targets = np.eye(len(self.classes))[targets]
            model = factory().fit(examples(known), targets, exclusive=self.exclusive)
            notes.extend(model.notes)
            return model.predict(examples(rows[part]))

        for name, factory in table.items():
            begin, notes = time.perf_counter(), list[str]()
            # A baseline stops and chooses nothing by the validation part, so that it may learn
            # from it what it says about the test part: held to less it would look too weak.
            every = np.concatenate([rows["train"], rows["validation"]])
            found = {
                "validation": run(factory, rows["train"], "validation"),
                "test": run(factory, every, "test"),
            }
            seconds = time.perf_counter() - begin
            yield name, Prediction(found), seconds, "; ".join(dict.fromkeys(notes))

    def scores(self, prediction: Prediction, part: str = "test") -> dict[str, float]:
        """Scores a prediction on one part.

        Args:
            prediction: From `predict` or `baselines`.
            part: ``validation`` or ``test``.

        Returns:
            Every score by name.
        """
        given = prediction.probabilities[part]
        if self.exclusive:
            return evaluation.classification_scores(self.truth[part], given)
        return evaluation.multi_label_scores(self.truth[part], given)

    @property
    def primary(self) -> str:
        """The score that ranks."""
        return "accuracy" if self.exclusive else "macro_f1"

    @property
    def reference(self) -> str:
        """The baseline that must be beaten."""
        return "naive_bayes" if self.is_text else "logistic_regression"

    @property
    def labels(self) -> dict[str, str]:
        """Headings of the scores, in the order of the columns."""
        if self.exclusive:
            first = {
                "accuracy": "accuracy",
                "accuracy_low": "95 % from",
                "accuracy_high": "to",
                "macro_f1": "macro F1",
            }
        else:
            first = {
                "macro_f1": "macro F1",
                "macro_f1_low": "95 % from",
                "macro_f1_high": "to",
                "micro_f1": "micro F1",
                "accuracy": "all labels right",
            }
        rest = {"auc": "AUC", "log_loss": "log loss", "calibration_error": "calibration error"}
        return {**first, **rest}

    def losses(self, prediction: Prediction, part: str = "test") -> np.ndarray:
        """Returns one loss for each example, for paired tests.

        Args:
            prediction: From `predict` or `baselines`.
            part: ``validation`` or ``test``.

        Returns:
            (N,) 1 where the answer is wrong, else 0; of several labels the share of wrong ones.
        """
        return self._errors(prediction.probabilities[part], self.truth[part])

    def _errors(self, probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
        if self.exclusive:
            return (probabilities.argmax(axis=1) != truth).astype(np.float64)
        return ((probabilities >= 0.5) != (truth == 1)).mean(axis=1)

    def paired_test(self, ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
        """Tests whether one system's errors are fewer: McNemar's test, or a paired bootstrap.

        Args:
            ours: From `losses`, or its mean over seeds.
            theirs: Likewise.

        Returns:
            ``test``, ``statistic`` (negative: ours is better), ``p``, ``difference``.
        """
        found = evaluation.example_test(ours, theirs)
        return paired_record(found)

    # ---- the ensemble -------------------------------------------------------------------------

    def average(self, predictions: Sequence[Prediction]) -> Prediction:
        """Averages probabilities with equal weights.

        Args:
            predictions: At least one.
        """
        return Prediction(
            {p: np.mean([x.probabilities[p] for x in predictions], axis=0) for p in PARTS}
        )

    def ensemble(self, models: Sequence[keras.Model]) -> keras.Model:
        """Joins networks into one whose class scores give the average of their probabilities.

        Args:
            models: Networks made by `build`.

        Returns:
            One functional model.
        """
        shapes: dict[str, Any] = {}
        for model in models:
            for name, tensor in model.input.items():
                # One that needs a fixed length decides for all: the others take any.
                if name not in shapes or None in shapes[name].shape[1:]:
                    shapes[name] = tensor
        inputs = {
            name: keras.Input(tensor.shape[1:], name=name, dtype=tensor.dtype)
            for name, tensor in shapes.items()
        }
        each = []
        for index, model in enumerate(models):
            member = keras.Model(model.input, model.output, name=f"member_{index}_{model.name}")
            logits = member({key: inputs[key] for key in model.input})["logits"]
            logits = ops.cast(logits, "float32")
            each.append(ops.softmax(logits) if self.exclusive else ops.sigmoid(logits))
        mean = ops.clip(ops.mean(ops.stack(each), axis=0), _LEAST, 1 - _LEAST)
        logits = ops.log(mean)
        if not self.exclusive:
            logits = logits - ops.log(1 - mean)
        outputs = {"logits": keras.layers.Identity(name="logits")(logits)}
        return keras.Model(inputs, outputs, name="ensemble")

    # ---- what is shipped ----------------------------------------------------------------------

    def deployable(self, model: keras.Model) -> keras.Model:
        """Wraps a trained network so that probabilities come out, and raw values go in.

        Args:
            model: A network made by `build` or `ensemble`.

        Returns:
            A functional model with named inputs and the output ``probabilities`` (B, K).
        """
        inputs = {
            name: keras.Input(tensor.shape[1:], name=name, dtype=tensor.dtype)
            for name, tensor in model.input.items()
        }
        given = dict(inputs)
        if not self.is_text:
            given["features"] = keras.layers.Normalization(
                axis=-1,
                mean=self.mean.tolist(),
                variance=np.square(self.std).tolist(),
                name="standardise",
            )(inputs["features"])
        # Without its loss: the file of a model must not need the classes of its training.
        logits = keras.Model(model.input, model.output, name=model.name)(given)["logits"]
        last = "softmax" if self.exclusive else "sigmoid"
        found = keras.layers.Activation(last, name="probabilities", dtype="float32")(logits)
        return keras.Model(inputs, {"probabilities": found}, name=model.name)

    def _sample_rows(self, part: str, most: int) -> np.ndarray:
        rows = self.rows[part]
        return rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))]

    def samples(self, model: keras.Model, part: str = "test", most: int = 256) -> dict[str, Any]:
        """Returns real inputs for a deployable model, evenly spread over a part.

        Args:
            model: The deployable model.
            part: ``train``, ``validation`` or ``test``.
            most: The most examples.

        Returns:
            Arrays by input name.
        """
        rows = self._sample_rows(part, most)
        if self.is_text:
            return {"tokens": self._padded([self.store[row] for row in rows], model)}
        longest = max(len(self.items[row]) for row in rows)
        values = np.zeros((len(rows), longest, len(self.channels)), np.float32)
        mask = np.zeros((len(rows), longest), bool)
        for i, row in enumerate(rows):
            values[i, : len(self.items[row])] = self.items[row]
            mask[i, : len(self.items[row])] = True
        return {"features": values, **({"mask": mask} if "mask" in model.input else {})}

    def _padded(self, rows: Sequence[np.ndarray], model: keras.Model) -> np.ndarray:
        """Ids as a deployable model wants them: cut, and padded on the right."""
        most = self.options.max_tokens
        steps = model.input["tokens"].shape[1]
        return text.pad([text.cut(row, most, KEEP) for row in rows], steps)

    def shipped_score(
        self, samples: dict[str, np.ndarray], part: str = "test"
    ) -> Callable[[dict[str, np.ndarray]], float]:
        """Returns what an exported file is scored by: the share of wrong answers.

        Args:
            samples: From `samples`.
            part: The part they are from.
        """
        truth = self.targets[self._sample_rows(part, len(next(iter(samples.values()))))]

        def score(outputs: dict[str, np.ndarray]) -> float:
            return float(self._errors(outputs["probabilities"], truth).mean())

        return score

    def endpoints(self, model: keras.Model) -> tuple[Endpoint, ...]:
        """Returns the signature that takes raw text.

        Args:
            model: The deployable model.
        """
        if not self.is_text:
            return ()
        import tensorflow as tf

        from keras_seq.export import Endpoint

        graph = self.tokenizer.graph(self.options.max_tokens, keep=KEEP)
        steps = model.input["tokens"].shape[1]

        def call(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            tokens = graph(inputs["text"])
            if steps is not None:
                tokens = tf.pad(tokens, [[0, 0], [0, steps - tf.shape(tokens)[1]]])
                tokens = tf.ensure_shape(tokens, (None, steps))
            return model({"tokens": tokens}, training=False)

        rows = self._sample_rows("test", _ENDPOINT_SAMPLES)
        texts = np.array([self.items[row] for row in rows], dtype=object)
        tokens = self._padded([self.store[row] for row in rows], model)
        return (
            Endpoint(
                name="serving_text",
                call=call,
                inputs={"text": ((None,), "string")},
                samples={"text": texts},
                expected=model.predict({"tokens": tokens}, verbose=0),
                tracked=(graph,),
                needs_tensorflow_text=self.tokenizer.needs_tensorflow_text,
            ),
        )

    def side_files(self) -> dict[str, bytes]:
        """Returns the labels, and of text the tokenizer that runs beside a LiteRT file."""
        found = {"labels.json": text.json_bytes(list(self.classes))}
        if self.is_text:
            for name, content in self.tokenizer.device_files(self.options.max_tokens, KEEP).items():
                found[f"litert/{name}"] = content
        return found

    def metadata(self) -> dict[str, Any]:
        """Returns what labels another file; it travels inside the model file."""
        options = self.options
        found: dict[str, Any] = {
            "task": self.task,
            "labels": list(self.classes),
            "multi_label": options.multi_label,
            "inputs": options.inputs,
        }
        if self.is_text:
            return {
                **found,
                "tokenizer": self.tokenizer.config(),
                "max_tokens": options.max_tokens,
                "keep": KEEP,
                "text_columns": list(options.text_column),
            }
        return {
            **found,
            "channels": list(self.channels),
            "steps": self.steps,
            "value_columns": list(options.value_column),
            "id_column": options.id_column,
            "time_column": options.time_column,
        }

    def check_fits(self, model: keras.Model, what: Any) -> None:
        """Refuses a model of other labels; takes over its tokenizer, so that ids mean the same.

        Args:
            model: A deployable model.
            what: Its run folder.

        Raises:
            UserError: If labels or inputs differ.
        """
        from keras_seq import saving

        path = Path(what) / "model.keras"
        known = saving.read_metadata(path) if path.is_file() else {}
        wanted = "tokens" if self.is_text else "features"
        if wanted not in model.input:
            raise UserError(f"{what} reads {', '.join(model.input)}, and the data gives {wanted}")
        if known.get("labels", list(self.classes)) != list(self.classes):
            raise UserError(
                f"{what} knows the labels {', '.join(known['labels'])}, and the data has "
                f"{', '.join(self.classes)}: give data with the same labels"
            )
        if self.is_text and "tokenizer" in known:
            from keras_seq.preprocessing import Tokenizer

            theirs = Tokenizer.from_config(known["tokenizer"])
            if theirs != self.tokenizer:
                self._tokenise(theirs)
        elif not self.is_text and model.input["features"].shape[-1] != len(self.channels):
            raise UserError(
                f"{what} wants {model.input['features'].shape[-1]} channels, and the data has "
                f"{len(self.channels)}: choose them with --value-column"
            )

    # ---- looking ------------------------------------------------------------------------------

    def figures(self, model: keras.Model, most: int = 500) -> dict[str, Figure]:
        """Draws the confusion matrix, the calibration and the worst mistakes on validation.

        Args:
            model: A network made by `build`.
            most: Examples that are looked at, evenly spread.

        Returns:
            Figures by tag.
        """
        data = self.data("validation", model)
        index = np.unique(np.linspace(0, len(data) - 1, min(most, len(data))).astype(int))
        logits = np.concatenate(
            [
                model.predict_on_batch(data.batch(index[i : i + 100])[0])["logits"]
                for i in range(0, len(index), 100)
            ]
        )
        given, truth = self._probabilities(logits), self.truth["validation"][index]
        found = self._pictures(given, truth)
        if self.is_text:
            from keras_seq.explain import explanation_figures

            rows = self.rows["validation"][index[:: max(len(index) // _EXPLAINED, 1)]]
            found |= explanation_figures(
                model,
                self.tokenizer,
                [self.items[row] for row in rows[:_EXPLAINED]],
                self.classes,
                max_tokens=self.options.max_tokens,
                keep=KEEP,
                exclusive=self.exclusive,
            )
        if self.is_text and self.exclusive:
            from keras_seq.figures import mistakes_figure

            answer = given.argmax(axis=1)
            sure = np.where(answer != truth, given.max(axis=1), 0.0)
            worst = [i for i in np.argsort(-sure)[:8] if sure[i] > 0]
            mistakes = [
                (
                    self.items[self.rows["validation"][index[i]]],
                    self.classes[truth[i]],
                    self.classes[answer[i]],
                    float(sure[i]),
                )
                for i in worst
            ]
            if mistakes:
                found["mistakes"] = mistakes_figure(mistakes, title="the most confident mistakes")
        return found

    def _pictures(self, given: np.ndarray, truth: np.ndarray) -> dict[str, Figure]:
        from keras_seq.figures import confusion_figure, reliability_figure

        if self.exclusive:
            answer = given.argmax(axis=1)
            matrix = evaluation.confusion_matrix(truth, answer, len(self.classes))
            curve = evaluation.reliability(answer == truth, given.max(axis=1))
            return {
                "confusion": confusion_figure(matrix, self.classes, title="confusion matrix"),
                "calibration": reliability_figure({"": curve}, title="calibration"),
            }
        curve = evaluation.reliability(truth.ravel() == 1, given.ravel())
        return {"calibration": reliability_figure({"": curve}, title="calibration")}

    def board_figures(
        self, predictions: Mapping[str, Prediction], names: Sequence[str]
    ) -> dict[str, Figure]:
        """Draws the pictures of the leaderboard: confusion matrices of the best, calibration.

        Args:
            predictions: One for each row, by architecture.
            names: The rows to draw, best first.

        Returns:
            Figures by heading.
        """
        from keras_seq.figures import confusion_figure, reliability_figure

        truth, found = self.truth["test"], {}
        curves = {}
        for place, name in enumerate(names[:6]):
            given = predictions[name].probabilities["test"]
            if not self.exclusive:
                curves[name] = evaluation.reliability(truth.ravel() == 1, given.ravel())
                continue
            answer = given.argmax(axis=1)
            curves[name] = evaluation.reliability(answer == truth, given.max(axis=1))
            if place < 3:
                matrix = evaluation.confusion_matrix(truth, answer, len(self.classes))
                found[f"{name}: what was taken for what"] = confusion_figure(
                    matrix, self.classes, title=""
                )
        found["Calibration: how often an answer of some confidence is right"] = reliability_figure(
            curves, title=""
        )
        return found

    # ---- words --------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """A title for tables."""
        kind = "labels" if self.options.multi_label else "classes"
        return f"{Path(self.options.data).name}: {len(self.classes)} {kind}"

    @cached_property
    def _data_notes(self) -> tuple[str, ...]:
        said = list(self._report)
        labels = {
            part: [name for row in rows for name in self._names_of(row)]
            for part, rows in self.rows.items()
        }
        said += text.class_notes({part: labels[part] for part in labels})
        if not self.is_text:
            return tuple(said)
        said += self.tokenizer.report
        said.append(text.length_note(self.store.lengths, self.options.max_tokens))
        train = TokenBatches(
            self.store, None, rows=self.rows["train"], max_tokens=self.options.max_tokens
        )
        size = int(type(self.options).defaults["batch_size"])
        said.append(f"padding: {train.waste(size):.1%} of the steps in batches of {size}")
        if self.warm_start is not None:
            said.append(f"tokenizer and weights of {self.warm_start.run} are taken over")
        known = np.concatenate([self.rows["train"], self.rows["validation"]])
        test = self.rows["test"]
        said += text.duplicate_notes(
            [self.items[row] for row in known],
            [self.items[row] for row in test],
            train_rows=known.tolist(),
            # Rows of a test file are counted on from those of the first one.
            test_rows=(test - (test[0] if self.options.test else 0)).tolist(),
        )
        return tuple(said)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the data."""
        return self._data_notes

    def describe(self) -> dict[str, Any]:
        """Returns what a reader needs to know to make the figures again."""
        options = self.options
        if options.test:
            split = f"{options.test} is the test part; {options.validation:g} of the rest validates"
        elif options.folds:
            split = f"fold {options.fold} of {options.folds} is the test part"
        else:
            split = f"{options.test_fraction:g} test, {options.validation:g} of the rest validates"
        counts = Counter(name for row in self.rows["train"] for name in self._names_of(row))
        found: dict[str, Any] = {
            "data": options.data,
            "sha256": self.checksum,
            "examples": {part: len(rows) for part, rows in self.rows.items()},
            "classes": {name: counts[name] for name in self.classes},
            "split": f"{split}; stratified, equal rows"
            + (f" and rows of equal {options.group_column}" if options.group_column else "")
            + " on one side",
        }
        if self.is_text:
            found["tokenizer"] = f"{self.tokenizer.kind}, {self.tokenizer.size} ids"
            found["max_tokens"] = options.max_tokens
        else:
            found["channels"] = list(self.channels)
        if options.init:
            found["init"] = options.init
        found["scores"] = (
            "on the whole test part, read once; the 95 % interval is a bootstrap over examples; "
            "calibration error in 15 bins of equal width; baselines learn from the validation "
            "part too, by which they choose nothing"
        )
        return found
