"""One forecasting problem: data read and split, baselines, scores, figures, what is shipped."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from keras_seq import evaluation
from keras_seq.baselines import BASELINES
from keras_seq.data import (
    Windows,
    calendar_features,
    default_split,
    future_times,
    parse_split,
    read_series,
)
from keras_seq.errors import UserError
from keras_seq.explain import attention_figures
from keras_seq.heads import Forecast
from keras_seq.metrics import PinballLoss
from keras_seq.models import build, resolve
from keras_seq.tasks.problem import Problem, paired_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_seq.tasks.forecasting import Forecasting

PARTS = ("validation", "test")
LEVEL = 0.8  # of the intervals that every row of a leaderboard gets


@dataclass(frozen=True)
class Prediction:
    """What a model or a baseline says about the windows of the validation and the test part.

    Args:
        forecast: (N, H, C) raw units, by part.
        quantiles: (N, H, C, Q) raw units, by part; empty for point forecasts.
    """

    forecast: dict[str, np.ndarray]
    quantiles: dict[str, np.ndarray]


class ForecastingProblem(Problem):
    """Data, split and scores of one forecasting comparison. It knows no architecture.

    Args:
        options: What the user asked for.

    Raises:
        UserError: If the data or the options are wrong; nothing has been written then.
    """

    task = "forecasting"
    lower_is_better = True

    def __init__(self, options: Forecasting) -> None:
        table = read_series(
            options.data,
            time_column=options.time_column or None,
            target=options.target,
            id_column=options.id_column or None,
            covariates=options.covariate,
            gaps=options.gaps,
            calendar=options.calendar,
        )
        self.options = options
        self.table = table
        self.period = options.period or table.period
        self.horizon = options.horizon if options.horizon > 0 else max(1, self.period)
        self.lookback = options.lookback or max(4 * self.horizon, 2 * self.period)
        self.channels = len(table.names)
        self.panel = len(table.ids) > 1
        if options.split:
            self.split = parse_split(options.split)
        else:
            self.split = default_split(table, self.horizon)
        self.starts = self.split.starts(table, self.lookback, self.horizon)
        self.head = Forecast(
            horizon=self.horizon,
            quantiles=options.quantiles,
            normalize=None if options.normalize == "none" else options.normalize,
            # On standardised values a window that hardly moves keeps its size, so that it does not
            # set the range of an int8 file. A panel is not standardised.
            least_variance=1e-5 if self.panel else 1e-3,
            channel_independent=options.channel_independent,
            patch=options.patch or None,
            dropout=options.dropout,
            period=self.period if self.period > 1 else None,
        )
        self._standardise()

    # ---- scales -------------------------------------------------------------------------------

    def _standardise(self) -> None:
        """Fits the scales, on the rows of the training part only."""
        table = self.table
        parts = self.split.parts(table)
        ranges = parts["train"]
        ids = np.repeat(np.arange(len(table.ids)), np.diff(table.offsets))
        means = np.stack([table.values[a:b].mean(0) for a, b in ranges])  # (S, C)
        stds = np.stack([table.values[a:b].std(0) for a, b in ranges])
        self.series_of_row = ids
        self.mean, self.std = means, np.where(stds > 0, stds, 1.0)
        before_test = np.array([start for start, _ in parts["test"]])
        seasonal = evaluation.seasonal_scale(
            table.values, table.offsets, before_test, self.period or None
        )
        self.mase_scale, self.rmsse_scale = seasonal.mae, seasonal.rmse  # (S, C)
        self.scale_notes = seasonal.notes
        if self.panel and self.options.normalize == "none":
            rows = np.concatenate([table.values[a:b] for a, b in ranges])
            mean, std = rows.mean(0), rows.std(0)
            self.center, self.scale = mean[None], np.where(std > 0, std, 1.0)[None]
        elif self.panel:
            # Windows are normalised one by one, so a scale of its own for each series changes only
            # how much each weighs in the loss: as much as in the mean of the scaled errors.
            self.center, self.scale = np.zeros_like(self.mean), self.mase_scale
        else:
            self.center, self.scale = self.mean, self.std
        each = len(self.center) > 1
        rows = ids if each else np.zeros_like(ids)
        self.values = ((table.values - self.center[rows]) / self.scale[rows]).astype(np.float32)
        self._scale_row = rows
        self._covariates = table.covariates.astype(np.float32)

    def _windows(self, starts: np.ndarray, model: keras.Model) -> Windows:
        """Windows of the standardised values, with the inputs that a model has."""
        names = set(model.input)
        return Windows(
            self.values,
            starts,
            self.lookback,
            self.horizon,
            time_index=self.table.time_index if "time_index" in names else None,
            covariates=self._covariates if "covariates" in names else None,
        )

    # ---- what training needs ------------------------------------------------------------------

    @property
    def input_shapes(self) -> dict[str, Any]:
        """The inputs of a model, without the batch axis."""
        shapes: dict[str, Any] = {"series": (self.lookback, self.channels)}
        if self.table.covariate_names:
            steps = self.lookback + self.horizon
            shapes["covariates"] = (steps, len(self.table.covariate_names))
        return shapes

    def build(self, architecture: str | Callable[..., Any], **options: Any) -> keras.Model:
        """Builds the network that is trained: standardised values in and out.

        Args:
            architecture: As in `keras_seq.build`.
            **options: Its options.

        Returns:
            An uncompiled model.
        """
        inputs: dict[str, Any] = dict(self.input_shapes)
        if "time_index" in resolve(architecture, **options).parameters:
            inputs["time_index"] = keras.Input((), name="time_index", dtype="int32")
        return build(architecture, inputs=inputs, head=self.head, **options)

    def training(self) -> dict[str, Any]:
        """Returns loss, metrics and how targets are paired with outputs, for `fit`."""
        losses = {
            "huber": keras.losses.Huber(),
            "mse": keras.losses.MeanSquaredError(),
            "mae": keras.losses.MeanAbsoluteError(),
        }
        # Not by name: their variables would be made by the first step, which TensorFlow then traces
        # once more without them.
        mse, mae = keras.metrics.MeanSquaredError("mse"), keras.metrics.MeanAbsoluteError("mae")
        metrics = {"forecast": [mse, mae]}
        if self.head.levels:
            return {
                "loss": {"forecast": None, "quantiles": PinballLoss(self.head.levels)},
                "metrics": metrics,
                "prepare_targets": lambda y: {"forecast": y, "quantiles": y},
            }
        return {
            "loss": {"forecast": losses[self.options.loss]},
            "metrics": metrics,
            "prepare_targets": lambda y: {"forecast": y},
        }

    def data(self, part: str, model: keras.Model) -> Windows:
        """Returns the windows of a part, with the inputs that a model has.

        Args:
            part: ``train``, ``validation`` or ``test``.
            model: The model that will read them.
        """
        return self._windows(self.starts[part], model)

    # ---- predictions and scores ---------------------------------------------------------------

    def predict(self, model: keras.Model, batch_size: int = 256) -> Prediction:
        """Runs a trained network over the validation and test windows.

        Args:
            model: A network made by `build`.
            batch_size: Windows in a batch.

        Returns:
            Forecasts in raw units.
        """
        forecast, quantiles = {}, {}
        for part in PARTS:
            data = self.data(part, model).dataset(batch_size).map(lambda x, y: x)
            out = model.predict(data, verbose=0)
            center, scale = self._window_scale(part)
            forecast[part] = out["forecast"] * scale + center
            if self.head.levels:
                quantiles[part] = out["quantiles"] * scale[..., None] + center[..., None]
        return Prediction(forecast, quantiles)

    def _window_scale(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        rows = self._scale_row[self.starts[part]]
        return self.center[rows][:, None], self.scale[rows][:, None]  # (N, 1, C)

    @cached_property
    def truth(self) -> dict[str, np.ndarray]:
        """What happened in each window, raw units, by part."""
        found = {}
        for part in PARTS:
            rows = self.starts[part][:, None] + self.lookback + np.arange(self.horizon)
            found[part] = self.table.values[rows]
        return found

    def baselines(self) -> Iterator[tuple[str, Prediction, float, str]]:
        """Fits and runs each baseline.

        Yields:
            Name, predictions, seconds, and a note (empty if all went as it should).
        """
        for name, factory in BASELINES.items():
            begin = time.perf_counter()
            baseline = factory()
            baseline.fit(
                self.table.values,
                self.starts["train"],
                self.lookback,
                self.horizon,
                self.period or None,
                offsets=self.table.offsets,
                scale=self.scale[self._scale_row],
            )
            forecast = {}
            for part in PARTS:
                rows = self.starts[part]
                inputs = self.table.values[rows[:, None] + np.arange(self.lookback)]
                forecast[part] = baseline.predict(inputs, series=self.series_of_row[rows])
            seconds = time.perf_counter() - begin
            yield name, Prediction(forecast, {}), seconds, "; ".join(baseline.notes)

    def scores(self, prediction: Prediction, part: str = "test") -> dict[str, float]:
        """Scores a prediction on one part.

        Args:
            prediction: From `predict` or `baselines`.
            part: ``validation`` or ``test``.

        Returns:
            Every score by name.
        """
        series = self.series_of_row[self.starts[part]]
        low, high = self.intervals(prediction, part)
        levels = self.head.levels
        return evaluation.forecast_scores(
            self.truth[part],
            prediction.forecast[part],
            scale=self.std[series],
            mase_scale=self.mase_scale[series],
            rmsse_scale=self.rmsse_scale[series],
            quantiles=prediction.quantiles.get(part),
            quantile_levels=levels if part in prediction.quantiles else None,
            lower=low,
            upper=high,
            series=series if self.panel else None,
        )

    def intervals(
        self, prediction: Prediction, part: str
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Returns the 80 % interval: the model's quantiles, or split-conformal ones.

        Args:
            prediction: From `predict` or `baselines`.
            part: ``validation`` or ``test``.

        Returns:
            Lower and upper ends, (N, H, C) raw units; None where there are too few validation
            windows to tell.
        """
        levels = self.head.levels
        sides = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
        if part in prediction.quantiles and all(
            any(abs(level - side) < 1e-9 for level in levels) for side in sides
        ):
            index = [int(np.argmin([abs(level - side) for level in levels])) for side in sides]
            found = prediction.quantiles[part]
            return found[..., index[0]], found[..., index[1]]
        if len(self.starts["validation"]) * (1 - LEVEL) < LEVEL:
            return None, None
        # Residuals in each window's own scale, so that one width serves series of any size.
        _, scale = self._window_scale("validation")
        residuals = (self.truth["validation"] - prediction.forecast["validation"]) / scale
        half = evaluation.conformal_intervals(residuals, level=LEVEL)  # (H, C)
        _, scale = self._window_scale(part)
        middle = prediction.forecast[part]
        return middle - half * scale, middle + half * scale

    @property
    def primary(self) -> str:
        """The score that ranks: the one that the loss aims at."""
        if self.panel:
            return "mase"
        return "mse_scaled"

    reference = "seasonal_naive"

    @property
    def labels(self) -> dict[str, str]:
        """Headings of the scores, in the order of the columns."""
        scaled = {"mse_scaled": "MSE scaled", "mae_scaled": "MAE scaled"}
        mase = {"mase": "MASE", "smape": "sMAPE"}
        first = {**mase, **scaled} if self.panel else {**scaled, **mase}
        return {**first, "coverage_80": "coverage 80 %", "mse": "MSE", "mae": "MAE"}

    def losses(self, prediction: Prediction, part: str = "test") -> np.ndarray:
        """Returns one loss for each window, for paired tests: the primary score's parts.

        Args:
            prediction: From `predict` or `baselines`.
            part: ``validation`` or ``test``.

        Returns:
            (N,).
        """
        error = self.truth[part] - prediction.forecast[part]
        series = self.series_of_row[self.starts[part]]
        if self.panel:
            return np.abs(error / self.mase_scale[series][:, None]).mean((1, 2))
        return np.square(error / self.std[0]).mean((1, 2))

    def paired_test(self, ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
        """Tests whether one system's losses are lower than another's.

        Args:
            ours: From `losses`, or its mean over seeds.
            theirs: Likewise.

        Returns:
            ``test``, ``statistic`` (negative: ours is better), ``p``, ``difference``.
        """
        series = self.series_of_row[self.starts["test"]] if self.panel else None
        found = evaluation.paired_test(ours, theirs, horizon=self.horizon, series=series)
        return paired_record(found)

    # ---- the ensemble -------------------------------------------------------------------------

    def average(self, predictions: Sequence[Prediction]) -> Prediction:
        """Averages predictions with equal weights.

        Args:
            predictions: At least one.
        """
        return Prediction(
            {p: np.mean([x.forecast[p] for x in predictions], axis=0) for p in PARTS},
            {
                p: np.mean([x.quantiles[p] for x in predictions], axis=0)
                for p in PARTS
                if p in predictions[0].quantiles
            },
        )

    def ensemble(self, models: Sequence[keras.Model]) -> keras.Model:
        """Joins networks into one that gives their average.

        Args:
            models: Networks made by `build`.

        Returns:
            One functional model with the inputs that any of them has.
        """
        wanted = {name for model in models for name in model.input}
        inputs = self._inputs(wanted)
        outputs: dict[str, list[Any]] = {}
        for index, model in enumerate(models):
            member = keras.Model(model.input, model.output, name=f"member_{index}_{model.name}")
            for name, tensor in member({key: inputs[key] for key in model.input}).items():
                outputs.setdefault(name, []).append(tensor)
        # Not keras.layers.Average: on one channel the LiteRT converter moves the members'
        # transposes past its sum, to a wrong rank.
        joined = {
            name: keras.layers.Identity(name=name)(ops.mean(ops.stack(tensors), axis=0))
            for name, tensors in outputs.items()
        }
        return keras.Model(inputs, joined, name="ensemble")

    def _inputs(self, names: Any) -> dict[str, Any]:
        tensors = {
            name: keras.Input(shape, name=name)
            for name, shape in self.input_shapes.items()
            if name in names
        }
        if "time_index" in names:
            tensors["time_index"] = keras.Input((), name="time_index", dtype="int32")
        return tensors

    # ---- what is shipped ----------------------------------------------------------------------

    def deployable(self, model: keras.Model) -> keras.Model:
        """Wraps a trained network so that raw values go in and raw values come out.

        Args:
            model: A network made by `build` or `ensemble`.

        Returns:
            A functional model with named inputs and outputs.
        """
        inputs = self._inputs(set(model.input))
        if len(self.center) > 1:  # each window is normalised on its own: nothing to put in front
            mean, variance = np.zeros(self.channels), np.ones(self.channels)
        else:
            mean, variance = self.center[0], np.square(self.scale[0])
        stats = {"mean": mean.tolist(), "variance": variance.tolist()}
        scaled = dict(inputs)
        scaled["series"] = keras.layers.Normalization(axis=-1, name="standardise", **stats)(
            inputs["series"]
        )
        # Without its loss: the file of a model must not need the classes of its training.
        outputs = keras.Model(model.input, model.output, name=model.name)(scaled)
        raw = {"forecast": outputs["forecast"], **outputs}
        for name in raw:
            axis = 2 if name == "quantiles" else -1
            undo = keras.layers.Normalization(axis=axis, invert=True, name=f"raw_{name}", **stats)
            raw[name] = undo(raw[name])
        return keras.Model(inputs, raw, name=model.name)

    def samples(self, model: keras.Model, part: str = "test", most: int = 256) -> dict[str, Any]:
        """Returns real inputs for a deployable model, evenly spread over a part.

        Args:
            model: The deployable model.
            part: ``train``, ``validation`` or ``test``.
            most: The most windows.

        Returns:
            Arrays by input name.
        """
        starts = self.starts[part]
        chosen = starts[np.unique(np.linspace(0, len(starts) - 1, most).astype(int))]
        return self._raw_inputs(chosen, set(model.input))

    def _raw_inputs(self, starts: np.ndarray, names: set[str]) -> dict[str, np.ndarray]:
        rows = starts[:, None]
        found: dict[str, np.ndarray] = {
            "series": self.table.values[rows + np.arange(self.lookback)].astype(np.float32)
        }
        if "covariates" in names:
            steps = np.arange(self.lookback + self.horizon)
            found["covariates"] = self.table.covariates[rows + steps].astype(np.float32)
        if "time_index" in names:
            found["time_index"] = self.table.time_index[starts].astype(np.int32)
        return found

    def shipped_score(
        self, samples: dict[str, np.ndarray], part: str = "test"
    ) -> Callable[[dict[str, np.ndarray]], float]:
        """Returns what an exported file is scored by: the squared error on its samples.

        Args:
            samples: From `samples`.
            part: The part they are from.
        """
        starts = self.starts[part]
        chosen = starts[
            np.unique(np.linspace(0, len(starts) - 1, len(samples["series"])).astype(int))
        ]
        rows = chosen[:, None] + self.lookback + np.arange(self.horizon)
        scale = (self.std if self.panel else self.scale)[
            self.series_of_row[chosen] if self.panel else np.zeros(len(chosen), int)
        ][:, None]
        truth = self.table.values[rows]

        def score(outputs: dict[str, np.ndarray]) -> float:
            return float(np.square((outputs["forecast"] - truth) / scale).mean())

        return score

    def figures(self, model: keras.Model, windows: int = 3) -> dict[str, Figure]:
        """Draws forecasts against truth on fixed validation windows, and attention, if any.

        Args:
            model: A network made by `build`.
            windows: How many windows.

        Returns:
            Figures by tag.
        """
        from keras_seq.figures import forecast_figure

        starts = self.figure_starts(windows, "validation")
        inputs, _ = self._windows(starts, model).batch(np.arange(len(starts)))
        out = model.predict_on_batch(inputs)
        found = {}
        for i, start in enumerate(starts):
            row = self._scale_row[start]
            center, scale = self.center[row], self.scale[row]
            forecast = out["forecast"][i] * scale + center
            bounds: dict[str, Any] = {}
            if self.head.levels:
                ends = out["quantiles"][i][:, :, [0, -1]] * scale[:, None] + center[:, None]
                bounds = {"lower": ends[:, -1, 0], "upper": ends[:, -1, 1]}
            values = self.table.values[start : start + self.lookback + self.horizon, -1]
            found[f"forecast/window_{i}"] = forecast_figure(
                values[: self.lookback][-4 * self.horizon :],
                values[self.lookback :],
                forecast[:, -1],
                title=f"{self.title_of(start)}",
                **bounds,
            )
        return {**found, **attention_figures(model, inputs)}

    def board_figures(
        self, predictions: Mapping[str, Prediction], names: Sequence[str]
    ) -> dict[str, Figure]:
        """Draws the pictures of the leaderboard: forecasts with intervals, error by step ahead.

        Args:
            predictions: One for each row, by architecture.
            names: The rows to draw, best first.

        Returns:
            Figures by heading.
        """
        from keras_seq.figures import forecast_grid, learning_curves_figure

        starts = self.figure_starts(3)
        index = np.searchsorted(self.starts["test"], starts)
        shown = min(self.lookback, 3 * self.horizon)
        rows = starts[:, None] + self.lookback + np.arange(-shown, 0)
        history = self.table.values[rows][..., -1]
        found: dict[str, Figure] = {}
        for name in names[:3]:
            low, high = self.intervals(predictions[name], "test")
            found[f"{name}: forecasts of {self.table.names[-1]}, with {LEVEL:.0%} intervals"] = (
                forecast_grid(
                    history,
                    self.truth["test"][index][..., -1],
                    predictions[name].forecast["test"][index][..., -1],
                    lower=None if low is None else low[index][..., -1],
                    upper=None if high is None else high[index][..., -1],
                    windows=[self.title_of(start) for start in starts],
                    channels=[self.table.names[-1]],
                    title="",
                )
            )
        scale = self.std[self.series_of_row[self.starts["test"]]]
        curves = {
            name: evaluation.per_horizon(
                self.truth["test"], predictions[name].forecast["test"], scale
            ).tolist()
            for name in names[:8]
        }
        found["Error by step ahead"] = learning_curves_figure(
            curves,
            title="",
            label="squared error, standardised",
            steps="steps ahead",
            ring=False,
        )
        return found

    def figure_starts(self, windows: int, part: str = "test") -> np.ndarray:
        """Returns the same few windows for every model: evenly spread over a part."""
        starts = self.starts[part]
        return starts[np.unique(np.linspace(0, len(starts) - 1, windows).astype(int))]

    def title_of(self, start: int) -> str:
        """Names the window that starts at a row: series, column and first forecast step."""
        first = self.table.times[start + self.lookback]
        when = str(first)[:16].replace("T", " ")
        name = self.table.ids[self.series_of_row[start]]
        return f"{name + ' ' if name else ''}{self.table.names[-1]} from {when}"

    def metadata(self) -> dict[str, Any]:
        """Returns what a forecast from another file needs; it travels inside the model file."""
        options = self.options
        return {
            "task": self.task,
            "names": list(self.table.names),
            "lookback": self.lookback,
            "horizon": self.horizon,
            "frequency": self.table.frequency,
            "levels": list(self.head.levels),
            "time_column": self.table.time_column,
            "id_column": self.table.id_column,
            "covariates": list(options.covariate),
            "calendar": options.calendar,
            "gaps": options.gaps,
        }

    def check_fits(self, model: keras.Model, what: Any) -> None:
        """Refuses a model whose windows are not those of this problem.

        Args:
            model: A deployable model.
            what: What to call it in the message.

        Raises:
            UserError: If lookback, horizon or channels differ.
        """
        lookback, channels = model.input["series"].shape[1:]
        if (lookback, channels) != (self.lookback, self.channels):
            raise UserError(
                f"{what} wants {lookback} steps of {channels} columns, and the data gives "
                f"{self.lookback} of {self.channels}: choose the columns with --target"
            )

    def backtest(self, record: Mapping[str, Any], folds: int) -> Iterator[dict[str, float]]:
        """Trains the architecture again at rolling origins and scores each.

        Each origin has a test part of the same length just after it; the rows before it are split
        into training and validation as the problem's own.

        Args:
            record: From ``metrics.json``: architecture, options, seed, training.
            folds: How many origins.

        Yields:
            The scores of one origin.

        Raises:
            UserError: If the series are too short, or there are several.
        """
        from keras_seq.training import epoch_steps, fit

        if self.panel:
            raise UserError("a backtest wants one series; choose one with --id-column left out")
        parts = self.split.parts(self.table)
        (begin, end), (held, stop) = parts["test"][0], parts["validation"][0]
        test, validation = end - begin, stop - held
        try:
            origins = evaluation.rolling_origin(
                int(end),
                folds=folds,
                horizon=int(test),
                gap=0,
                minimum=int(validation) + self.lookback + self.horizon,
            )
        except ValueError as error:
            raise UserError(f"--backtest {folds}: {error}") from error
        for origin in origins:
            rows = (len(origin.train) - int(validation), int(validation), int(test))
            options = replace(self.options, split=",".join(map(str, rows)))
            problem = ForecastingProblem(options)
            keras.utils.set_random_seed(record["seed"])
            model = problem.build(record["architecture"], **record["options"])
            train = problem.data("train", model)
            training = dict(record["training"])
            steps = epoch_steps(len(train), training["batch_size"], training.pop("steps_per_epoch"))
            fit(
                model,
                train,
                problem.data("validation", model),
                steps_per_epoch=steps,
                **training,
                **problem.training(),
            )
            yield problem.scores(problem.predict(model))

    def describe(self) -> dict[str, Any]:
        """Returns what a reader needs to know to make the figures again."""
        table = self.table
        return {
            "data": table.source,
            "sha256": table.checksum,
            "series": len(table.ids),
            "channels": list(table.names),
            "frequency": table.frequency or "none",
            "period": self.period,
            "lookback": self.lookback,
            "horizon": self.horizon,
            "split": self.options.split or ("tail" if self.panel else "0.7,0.1,0.2"),
            "windows": {part: len(starts) for part, starts in self.starts.items()},
            "scores": "windows of stride 1, none dropped; *_scaled on values standardised with the "
            "mean and standard deviation of the training part",
        }

    @property
    def title(self) -> str:
        """A title for tables."""
        return f"{self.table.source}: {self.lookback} steps in, {self.horizon} steps ahead"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the data."""
        return (*self.table.report, *self.scale_notes)


def forecast_file(
    run: Callable[[dict[str, np.ndarray]], Mapping[str, Any]],
    names: Collection[str],
    metadata: Mapping[str, Any],
    data: str,
) -> pd.DataFrame:
    """Forecasts what comes after the end of every series in a file.

    Args:
        run: The model, in whatever runtime: named raw inputs to named outputs.
        names: The inputs that it has.
        metadata: From `ForecastingProblem.metadata`, as it was stored with the model.
        data: The file.

    Returns:
        One row for each series and step ahead.

    Raises:
        UserError: If the columns, the frequency or the length do not fit.
    """
    lookback, horizon = metadata["lookback"], metadata["horizon"]
    if metadata["covariates"]:
        raise UserError(
            f"this model wants the future values of {', '.join(metadata['covariates'])}: call it "
            "from Python with the input 'covariates' (lookback + horizon steps)"
        )
    table = read_series(
        data,
        time_column=metadata["time_column"],
        target=tuple(metadata["names"]),
        id_column=metadata["id_column"],
        gaps=metadata["gaps"],
        calendar=metadata["calendar"],
    )
    if table.frequency != metadata["frequency"]:
        raise UserError(
            f"{data} has the frequency {table.frequency}; the model was trained on "
            f"{metadata['frequency']}"
        )
    lengths = np.diff(table.offsets)
    if lengths.min() < lookback:
        short = int(np.argmin(lengths))
        name = f" of {table.ids[short]!r}" if table.ids[short] else ""
        raise UserError(f"{data} has {lengths[short]} rows{name}; the model wants {lookback}")
    starts = table.offsets[1:] - lookback
    rows = starts[:, None] + np.arange(lookback)
    times = np.stack(future_times(table, horizon))  # (S, H)
    inputs: dict[str, Any] = {"series": table.values[rows].astype(np.float32)}
    if "time_index" in names:
        inputs["time_index"] = table.time_index[starts].astype(np.int32)
    if "covariates" in names:
        ahead = calendar_features(times.reshape(-1), table.frequency)
        ahead = ahead.reshape(len(starts), horizon, -1)
        inputs["covariates"] = np.concatenate([table.covariates[rows], ahead], 1).astype(np.float32)
    outputs = run(inputs)
    columns: dict[str, Any] = {metadata["time_column"] or "step": times.reshape(-1)}
    if metadata["id_column"]:
        columns[metadata["id_column"]] = np.repeat(table.ids, horizon)
    for c, name in enumerate(metadata["names"]):
        columns[name] = outputs["forecast"][:, :, c].reshape(-1)
        for q, level in enumerate(metadata["levels"]):
            columns[f"{name}_q{100 * level:g}"] = outputs["quantiles"][:, :, c, q].reshape(-1)
    return pd.DataFrame(columns)
