"""The forecasting task: its options, and the problem that they describe.

Light to import, so that the command line can print its help at once; the work is in
`forecasting_problem`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from keras_seq.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import pandas

    from keras_seq.tasks.forecasting_problem import ForecastingProblem


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Forecasting:
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

    data: str = _option(
        "", "File (.csv, .tsv, .parquet, .gz) or builtin:co2|el_nino|sunspots|waves."
    )
    time_column: str = _option("", "Column of timestamps (default: found).")
    target: tuple[str, ...] = _option((), "Column to forecast; repeat it (default: all numeric).")
    id_column: str = _option("", "Column that names the series of a row (long form).")
    lookback: int = _option(0, "Steps that a model sees (default: 4 horizons or 2 periods).")
    horizon: int = _option(-1, "Steps to forecast (default: one period).")
    covariate: tuple[str, ...] = _option((), "Column known for the future too; repeat it.")
    calendar: bool = _option(False, "Add calendar features as covariates.")
    gaps: str = _option("report", "Missing rows and values: report|error|interpolate|forward_fill.")
    quantiles: tuple[float, ...] = _option((), "Quantile levels, e.g. 0.1,0.9 (default: points).")
    split: str = _option("", "Fractions, row counts, two dates, or tail:V,T (default 0.7,0.1,0.2).")
    period: int = _option(0, "Seasonal period in steps (default: from the frequency).")
    loss: str = _option("huber", "huber|mse|mae, on the standardised scale.")
    normalize: str = _option("mean", "What a window is centred on: mean|last|none.")
    channel_independent: bool = _option(True, "Sequence architectures see each channel alone.")
    patch: int = _option(0, "Steps folded into one for sequence architectures (default: chosen).")
    dropout: float = _option(0.2, "On what the head reads of sequence architectures (default 0.2).")

    def __post_init__(self) -> None:
        if not self.data:
            raise UserError("--data is missing: give a file, or builtin:co2")
        for name in ("lookback", "horizon"):
            default = {"lookback": 0, "horizon": -1}[name]
            if getattr(self, name) != default and getattr(self, name) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}: give at least 1")
        for name, allowed in {
            "gaps": ("report", "error", "interpolate", "forward_fill"),
            "loss": ("huber", "mse", "mae"),
            "normalize": ("mean", "last", "none"),
        }.items():
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"--{name} is {getattr(self, name)!r}: choose one of {', '.join(allowed)}"
                )
        for name in ("patch", "period"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} is {getattr(self, name)}: give 1 or more, or leave it")
        if not 0 <= self.dropout < 1:
            raise UserError(f"--dropout is {self.dropout}: give 0 to less than 1")
        if any(not 0 < level < 1 for level in self.quantiles):
            raise UserError(f"--quantiles are {self.quantiles}: each must be between 0 and 1")

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Returns the default of every option by name."""
        return {f.name: f.default for f in fields(cls)}

    def prepare(self) -> ForecastingProblem:
        """Reads and checks the data.

        Returns:
            The problem: data, split, baselines and scores.

        Raises:
            UserError: If anything about the data or the options is wrong.
        """
        from keras_seq.tasks.forecasting_problem import ForecastingProblem

        return ForecastingProblem(self)

    @staticmethod
    def forecast(
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
