"""The forecasting task: its options, and the problem that they describe.

Light to import, so that the command line can print its help at once; the work is in
`forecasting_problem`.
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
    from keras_seq.tasks.forecasting_problem import ForecastingProblem


@dataclass(frozen=True)
class Forecasting(Task):
    """Many steps ahead, from one file of time series; every field is an option.

    Args:
        data: A ``.csv``, ``.tsv`` or ``.parquet`` file (or ``.gz``), or ``builtin:NAME`` with NAME
            one of co2, el_nino, sunspots, waves. Wide: a time column and value columns; long: an
            id column too, and one global model for all series.
        time_column: The column of timestamps; found where there is only one candidate.
        target: The columns to forecast; none means all numeric ones.
        id_column: The column that says which series a row is of.
        lookback: Steps that a model sees.
        horizon: Steps that it forecasts.
        covariate: Columns that are known for the future too.
        calendar: Whether hour, weekday and day of the year are added to the covariates.
        gaps: What is done about missing timestamps and values: report, error, interpolate or
            forward_fill.
        quantiles: Levels to forecast beside the median; none forecasts points.
        split: Fractions ``0.7,0.1,0.2``, row counts ``8640,2880,2880``, two dates, or
            ``tail:V,T`` (the last T rows of each series are the test part, the V before them
            validation).
        period: The seasonal period in steps; 0 takes what the frequency says.
        loss: huber, mse or mae, on the standardised scale.
        normalize: What each window is centred on: mean, last or none.
        channel_independent: Whether sequence architectures see each channel alone.
        patch: Steps that become one step of a sequence architecture; 0 chooses.
        dropout: On the features that the head reads from a sequence architecture.

    Example:
        >>> Forecasting(data="builtin:co2", lookback=104, horizon=0)
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: --horizon is 0: give at least 1
    """

    name: ClassVar[str] = "forecasting"

    data: str = option(
        "", "File (.csv, .tsv, .parquet, .gz) or builtin:co2|el_nino|sunspots|waves."
    )
    time_column: str = option("", "Column of timestamps (default: found).")
    target: tuple[str, ...] = option((), "Column to forecast; repeat it (default: all numeric).")
    id_column: str = option("", "Column that names the series of a row (long form).")
    lookback: int = option(0, "Steps that a model sees (default: 4 horizons or 2 periods).")
    horizon: int = option(-1, "Steps to forecast (default: one period).")
    covariate: tuple[str, ...] = option((), "Column known for the future too; repeat it.")
    calendar: bool = option(False, "Add calendar features as covariates.")
    gaps: str = option("report", "Missing rows and values: report|error|interpolate|forward_fill.")
    quantiles: tuple[float, ...] = option((), "Quantile levels, e.g. 0.1,0.9 (default: points).")
    split: str = option("", "Fractions, row counts, two dates, or tail:V,T (default 0.7,0.1,0.2).")
    period: int = option(0, "Seasonal period in steps (default: from the frequency).")
    loss: str = option("huber", "huber|mse|mae, on the standardised scale.")
    normalize: str = option("mean", "What a window is centred on: mean|last|none.")
    channel_independent: bool = option(True, "Sequence architectures see each channel alone.")
    patch: int = option(0, "Steps folded into one for sequence architectures (default: chosen).")
    dropout: float = option(0.2, "On what the head reads of sequence architectures (default 0.2).")

    def __post_init__(self) -> None:
        if not self.data:
            raise UserError("--data is missing: give a file, or builtin:co2")
        for name in ("lookback", "horizon"):
            default = {"lookback": 0, "horizon": -1}[name]
            if getattr(self, name) != default and getattr(self, name) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}: give at least 1")
        self.check_choice(
            gaps=("report", "error", "interpolate", "forward_fill"),
            loss=("huber", "mse", "mae"),
            normalize=("mean", "last", "none"),
        )
        for name in ("patch", "period"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} is {getattr(self, name)}: give 1 or more, or leave it")
        self.check_share("dropout")
        if any(not 0 < level < 1 for level in self.quantiles):
            raise UserError(f"--quantiles are {self.quantiles}: each must be between 0 and 1")

    def prepare(self) -> ForecastingProblem:
        """Reads and checks the data.

        Returns:
            The problem: data, split, baselines and scores.

        Raises:
            UserError: If anything about the data or the options is wrong.
        """
        from keras_seq.tasks.forecasting_problem import ForecastingProblem

        return ForecastingProblem(self)

    def accepts(self, architecture: Architecture) -> str:
        """Says why an architecture cannot be trained under this task; "" if it can.

        Args:
            architecture: The architecture.
        """
        if architecture.reads_tokens:
            return f"{architecture.name} reads token ids, and forecasting has measurements"
        return ""

    @staticmethod
    def predict_file(
        run: Callable[[dict[str, Any]], Mapping[str, Any]],
        names: Collection[str],
        metadata: Mapping[str, Any],
        data: str,
    ) -> pandas.DataFrame:
        """Forecasts what comes after the end of a file.

        Args:
            run: The model, in whatever runtime: named raw inputs to named outputs.
            names: The inputs that it has.
            metadata: What was stored with it.
            data: The file.

        Returns:
            One row for each series and step ahead.
        """
        from keras_seq.tasks.forecasting_problem import forecast_file

        return forecast_file(run, names, metadata, data)
