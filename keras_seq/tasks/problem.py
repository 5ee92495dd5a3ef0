"""What a comparison asks of a task: data, loss, scores, baselines and the thing that is shipped.

`keras_seq.compare` knows this class and nothing of any task. A task of your own subclasses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_seq.errors import UserError

if TYPE_CHECKING:
    from keras_seq.export import Endpoint


def paired_record(found: Any, name: str | None = None) -> dict[str, Any]:
    """Returns a paired test as a row of the leaderboard keeps it.

    Args:
        found: From `keras_seq.evaluation`: has name, statistic, p_value, mean_difference, note.
        name: What to call it; None: as it calls itself.
    """
    return {
        "test": name or found.name,
        "statistic": found.statistic,
        "p": found.p_value,
        "difference": found.mean_difference,
        "note": found.note,
    }


class Problem:
    """One data set under one task. It knows no architecture.

    What predictions are is the task's own affair: `predict` and `baselines` make them, `scores`,
    `losses` and `average` take them. Parts are ``"train"``, ``"validation"`` and ``"test"``.
    """

    task: str
    lower_is_better: bool = True  # of the primary score
    batches: str = ""  # how large batches are, where it is not for --batch-size to say

    @property
    def title(self) -> str:
        """A title for tables."""
        raise NotImplementedError

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the data, a line each."""
        return ()

    @property
    def primary(self) -> str:
        """The score that ranks."""
        raise NotImplementedError

    @property
    def reference(self) -> str:
        """The baseline that must be beaten."""
        raise NotImplementedError

    @property
    def labels(self) -> dict[str, str]:
        """Headings of the scores, in the order of the columns."""
        raise NotImplementedError

    # ---- training -----------------------------------------------------------------------------

    def build(self, architecture: Any, **options: Any) -> keras.Model:
        """Builds the network that is trained, uncompiled."""
        raise NotImplementedError

    def adapt(self, model: keras.Model) -> tuple[str, ...]:
        """Fits what is not learned by steps, on the training part, before the first step.

        Returns:
            What the user should know about it, a line each.
        """
        return ()

    def training_form(self, model: keras.Model) -> keras.Model:
        """Returns the form of a network that is trained; its weights are the network's own.

        Args:
            model: A network made by `build`.
        """
        return model

    def training(self) -> dict[str, Any]:
        """Returns loss, metrics and ``prepare_targets`` for `keras_seq.training.fit`."""
        raise NotImplementedError

    @property
    def monitors(self) -> dict[str, bool]:
        """Scores beside the loss that --monitor can name: whether less of each is better.

        Here it is the accuracy, where `training` measures it.
        """
        found = keras.tree.flatten(self.training().get("metrics") or {})
        return {"accuracy": False} if any(_name(m) == "accuracy" for m in found) else {}

    def evaluate(self, model: keras.Model, most: int) -> dict[str, float]:
        """Scores a network at the end of an epoch: those of `monitors` that no metric measures.

        Args:
            model: A network made by `build`.
            most: The most validation examples to score it on, the same ones each time.
        """
        return {}

    def data(self, part: str, model: keras.Model) -> Any:
        """Returns a part as `keras_seq.training.StepData`, with the inputs that a model has."""
        raise NotImplementedError

    # ---- predictions and scores ---------------------------------------------------------------

    def predict(self, model: keras.Model) -> Any:
        """Runs a network made by `build` over the validation and the test part."""
        raise NotImplementedError

    def scores(self, prediction: Any, part: str = "test") -> dict[str, float]:
        """Scores a prediction on one part."""
        raise NotImplementedError

    def losses(self, prediction: Any, part: str = "test") -> np.ndarray:
        """Returns one loss for each example, (N,), for paired tests."""
        raise NotImplementedError

    def paired_test(self, ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
        """Returns ``test``, ``statistic`` (negative: ours is better), ``p``, ``difference``."""
        raise NotImplementedError

    def baselines(self) -> Iterator[tuple[str, Any, float, str]]:
        """Yields name, prediction, seconds, and a note for each baseline."""
        raise NotImplementedError

    # ---- the ensemble -------------------------------------------------------------------------

    def choose_members(self, predictions: Sequence[Any], most: int = 6) -> list[int]:
        """Chooses which networks to average: so many of the best on the validation part.

        Of the sets of the best 1, 2, ... the largest one is taken whose validation score is within
        half a percent of the best set's: what is gained by fewer is within noise there, and an
        average over more varies less.

        Args:
            predictions: One for each trained network.
            most: The most members.

        Returns:
            Their indices, best first, at least one.
        """
        sign = 1 if self.lower_is_better else -1

        def value(prediction: Any) -> float:
            return sign * self.scores(prediction, "validation")[self.primary]

        alone = [value(prediction) for prediction in predictions]
        order = sorted(range(len(predictions)), key=lambda i: alone[i])[:most]
        joined = [
            value(self.average([predictions[i] for i in order[:count]]))
            for count in range(1, len(order) + 1)
        ]
        best = min(joined)
        within = [
            count for count, error in enumerate(joined, 1) if error <= best + 0.005 * abs(best)
        ]
        return order[: max(within)]

    def average(self, predictions: Sequence[Any]) -> Any:
        """Averages predictions with equal weights."""
        raise NotImplementedError

    def ensemble(self, models: Sequence[keras.Model]) -> keras.Model:
        """Joins networks into one that gives their average."""
        raise NotImplementedError

    # ---- what is shipped ----------------------------------------------------------------------

    def deployable(self, model: keras.Model) -> keras.Model:
        """Wraps a trained network, as a nested model, into what a user calls."""
        raise NotImplementedError

    def samples(self, model: keras.Model, part: str = "test", most: int = 256) -> dict[str, Any]:
        """Returns real inputs for a deployable model, evenly spread over a part."""
        raise NotImplementedError

    def shipped_score(
        self, samples: dict[str, np.ndarray], part: str = "test"
    ) -> Callable[[dict[str, np.ndarray]], float]:
        """Returns what an exported file is scored by on its samples: an error, lower is better."""
        raise NotImplementedError

    def endpoints(self, model: keras.Model) -> tuple[Endpoint, ...]:
        """Returns further signatures of the exported model."""
        return ()

    def side_files(self) -> dict[str, bytes]:
        """Returns what must lie beside the exported files, by path inside the export."""
        return {}

    def metadata(self) -> dict[str, Any]:
        """Returns what a use of the model needs; it travels inside the model file (JSON)."""
        return {"task": self.task}

    def describe(self) -> dict[str, Any]:
        """Returns what a reader needs to make the figures again; ``scores`` is the protocol."""
        raise NotImplementedError

    def card(
        self, record: Mapping[str, Any], baseline: Mapping[str, Any], command: str
    ) -> dict[str, Any]:
        """Returns what the model card says beside what the export measures.

        Args:
            record: ``architecture``, ``parameters``, ``test`` (scores) and ``options``.
            baseline: Scores of the best baseline by name.
            command: The command that makes the artifact again.
        """
        facts = self.describe()
        protocol = facts.pop("scores")
        return {
            "data": facts,
            "scores": record["test"],
            "protocol": protocol,
            "baseline": baseline,
            "command": command,
            "architecture": {
                "name": record["architecture"],
                "parameters": record.get("parameters"),
                **record.get("options", {}),
            },
        }

    # ---- looking ------------------------------------------------------------------------------

    def figures(self, model: keras.Model) -> dict[str, Any]:
        """Draws pictures of a network for TensorBoard, matplotlib figures by tag."""
        return {}

    def texts(self, model: keras.Model) -> dict[str, str]:
        """Shows what a network makes of validation examples, after each epoch, for TensorBoard.

        Args:
            model: A network made by `build`.

        Returns:
            Texts in markdown, by tag.
        """
        return {}

    def board_figures(self, predictions: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """Draws the pictures of the leaderboard, by heading."""
        return {}

    # ---- finished runs ------------------------------------------------------------------------

    def check_fits(self, model: keras.Model, what: Any) -> None:
        """Refuses, with a UserError, a model whose inputs are not those of this problem."""

    def backtest(self, record: Mapping[str, Any], folds: int) -> Iterator[dict[str, float]]:
        """Yields the scores of trainings at rolling origins, where the task knows time."""
        raise UserError(f"a backtest needs time: the task {self.task} has none")


def _name(metric: Any) -> str:
    return metric if isinstance(metric, str) else str(getattr(metric, "name", ""))
