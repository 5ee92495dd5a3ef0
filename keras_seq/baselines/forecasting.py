"""Forecasters that every network must beat: nothing here is trained by gradient, or needs Keras.

All have one interface: `fit` on the training windows, `predict` from raw lookback windows to raw
forecasts, so that a row of the leaderboard is made the same way for a baseline and for a network.

Shapes in axis letters: R rows, C channels, S series, B windows, L lookback, H horizon.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "BASELINES",
    "Baseline",
    "Drift",
    "Ets",
    "Naive",
    "Ridge",
    "SeasonalNaive",
    "Theta",
    "holt_winters_forecast",
    "theta_forecast",
]

Floats = NDArray[np.float64]

# Values a block of windows may hold: a few tens of megabytes for each temporary array.
_BLOCK = 4_000_000
# Longest stretch, and most series, that statsmodels estimates smoothing parameters on: there are
# only one to four of them, which thousands of rows settle; the rest would cost time alone.
_ESTIMATION_ROWS = 10_000
_ESTIMATION_SERIES = 1_000
# SciPy's default, L-BFGS-B, spends nine tenths of its time in threads of the linear algebra library
# that wait for one another when a problem has four unknowns (measured: 9 times slower on 2 cores).
_OPTIMISER = "SLSQP"
# Up to so many series and channels, ETS looks for its starting point on a grid: four times the
# time for some 4 % less in-sample error.
_GRID_SEARCHES = 100


class Baseline:
    """What all baselines share: checks, bookkeeping of series, blocks of windows.

    A subclass sets `name` and implements `_predict`; `_fit` where it learns something.

    Attributes:
        name: As in the leaderboard.
        notes: After `fit`: what this baseline had to do otherwise than its name says, one sentence
            each. Empty when nothing.

    Example:
        >>> import numpy as np
        >>> values = np.arange(20.0)[:, None]
        >>> baseline = BASELINES["drift"]().fit(values, np.arange(10), 4, 2, None)
        >>> baseline.predict(np.array([[[1.0], [2.0], [3.0], [4.0]]])).tolist()
        [[[5.0], [6.0]]]
    """

    name = "baseline"

    def __init__(self) -> None:
        self.notes: tuple[str, ...] = ()
        self.lookback = self.horizon = 0
        self.period: int | None = None
        self.series_count = 1

    def fit(
        self,
        values: ArrayLike,
        starts: ArrayLike,
        lookback: int,
        horizon: int,
        period: int | None = None,
        *,
        offsets: ArrayLike | None = None,
        scale: ArrayLike | None = None,
    ) -> Self:
        """Learn from the training windows; rows outside them are never looked at.

        Args:
            values: (R, C) raw values, one series after another.
            starts: (n,) first row of each training window of `lookback` + `horizon` rows.
            lookback: L, steps that a forecast may look at.
            horizon: H, steps to forecast.
            period: Seasonal period in steps; None or 1 for none.
            offsets: (S + 1,) first row of each series, and R. Default: one series.
            scale: What values are divided by where series or channels of different size are learnt
                from together: (C,), (R, 1) or (R, C). Default: the standard deviation of each
                series and channel over its training rows.

        Returns:
            Itself.

        Raises:
            ValueError: Windows outside the values or across two series, or no window.
        """
        rows = np.asarray(values, dtype=np.float64)
        first = np.asarray(starts, dtype=np.int64)
        if rows.ndim != 2:
            raise ValueError(f"values have shape {rows.shape}; wanted (rows, channels)")
        if lookback < 1 or horizon < 1:
            raise ValueError(
                f"lookback is {lookback} and horizon {horizon}; wanted at least 1 of each"
            )
        if period is not None and period < 1:
            raise ValueError(f"period is {period}; wanted at least 1 step, or None")
        if first.ndim != 1 or len(first) == 0:
            raise ValueError("no training window: give the first row of at least one")
        span = lookback + horizon
        if first.min() < 0 or first.max() + span > len(rows):
            raise ValueError(
                f"training windows of {span} rows reach from row {first.min()} to "
                f"{first.max() + span}; there are rows 0 to {len(rows)}"
            )
        bounds = np.array([0, len(rows)]) if offsets is None else np.asarray(offsets, np.int64)
        owner = np.searchsorted(bounds, first, side="right") - 1
        if owner.min() < 0 or (first + span > bounds[np.minimum(owner + 1, len(bounds) - 1)]).any():
            raise ValueError("a training window reaches across the end of its series")
        self.notes = ()
        self.lookback, self.horizon = int(lookback), int(horizon)
        self.period = None if period is None or period == 1 else int(period)
        self.series_count = len(bounds) - 1
        self._fit(rows, first, owner, bounds, scale)
        return self

    def predict(self, inputs: ArrayLike, *, series: ArrayLike | None = None) -> NDArray[Any]:
        """Forecast raw windows.

        Args:
            inputs: (B, L, C) raw lookback windows.
            series: (B,) position of each window's series in `offsets`. Only baselines that learn
                something for each series need it, and only when there are several.

        Returns:
            (B, H, C), in the type of `inputs` if that is floating, else float64.

        Raises:
            ValueError: Not fitted, a lookback other than in `fit`, or `series` missing.
        """
        windows = np.asarray(inputs)
        if self.horizon == 0:
            raise ValueError(f"{self.name} is not fitted: call fit first")
        if windows.ndim != 3 or windows.shape[1] != self.lookback:
            raise ValueError(
                f"inputs have shape {windows.shape}; wanted (windows, {self.lookback}, channels)"
            )
        owner = np.zeros(len(windows), np.int64)
        if series is not None:
            owner = np.asarray(series, dtype=np.int64)
            if owner.shape != (len(windows),):
                raise ValueError(f"series has shape {owner.shape}; wanted ({len(windows)},)")
            if len(owner) and not (owner.min() >= 0 and owner.max() < self.series_count):
                raise ValueError(
                    f"series run from {owner.min()} to {owner.max()}; fitted were 0 to "
                    f"{self.series_count - 1}"
                )
        elif self.series_count > 1 and self._per_series:
            raise ValueError(
                f"{self.name} was fitted on {self.series_count} series: say with series= which one "
                "each window belongs to"
            )
        kind = windows.dtype if np.issubdtype(windows.dtype, np.floating) else np.float64
        shape = (len(windows), self.horizon, windows.shape[2])
        result = np.empty(shape, dtype=kind)
        size = max(1, _BLOCK // max(1, (self.lookback + self.horizon) * shape[2]))
        for begin in range(0, len(windows), size):
            block = slice(begin, begin + size)
            result[block] = self._predict(windows[block].astype(np.float64), owner[block])
        return result

    _per_series = False

    def _fit(
        self,
        values: Floats,
        starts: NDArray[np.int64],
        owner: NDArray[np.int64],
        offsets: NDArray[np.int64],
        scale: ArrayLike | None,
    ) -> None:
        """Learn; `owner` is each window's series. Nothing to learn unless overridden."""

    def _predict(self, windows: Floats, series: NDArray[np.int64]) -> Floats:
        raise NotImplementedError

    def _note(self, sentence: str) -> None:
        self.notes = (*self.notes, sentence)


class Naive(Baseline):
    """The last value, for ever."""

    name = "naive"

    def _predict(self, windows: Floats, series: NDArray[np.int64]) -> Floats:
        return np.repeat(windows[:, -1:], self.horizon, axis=1)


class SeasonalNaive(Baseline):
    """The last period of the window, over and over.

    Without a period, or with a lookback shorter than one, it is the naive forecast, and `notes`
    says so.
    """

    name = "seasonal_naive"

    def _fit(self, *_: Any) -> None:
        if self.period is None:
            self._note("no seasonal period is known: the last value is repeated")
        elif self.lookback < self.period:
            self._note(
                f"the lookback of {self.lookback} steps does not hold the period of "
                f"{self.period}: the last value is repeated"
            )

    def _predict(self, windows: Floats, series: NDArray[np.int64]) -> Floats:
        return _repeat_period(windows, self.horizon, self.period)


class Drift(Baseline):
    """The line through the first and the last value of the window, drawn on."""

    name = "drift"

    def _predict(self, windows: Floats, series: NDArray[np.int64]) -> Floats:
        last = windows[:, -1:]
        slope = (last - windows[:, :1]) / max(1, self.lookback - 1)
        return last + slope * np.arange(1, self.horizon + 1)[:, None]


class Ridge(Baseline):
    """One linear map from lookback to horizon, shared by all channels and series, in closed form.

    Windows are divided by their series' standard deviation and their last value is taken off (and
    put back), so what is learnt is the shape of what follows. The penalty is 0.001 for each
    training window of a channel. On long benchmark series this stands beside networks a thousand
    times its cost.

    Args:
        penalty: Ridge penalty for each window and channel.

    Example:
        >>> import numpy as np
        >>> wave = np.sin(np.arange(200.0) / 5)[:, None]
        >>> ridge = Ridge(penalty=1e-9).fit(wave, np.arange(100), 20, 5)
        >>> bool(np.allclose(ridge.predict(wave[None, 150:170]), wave[170:175], atol=1e-3))
        True
    """

    name = "ridge"

    def __init__(self, *, penalty: float = 1e-3) -> None:
        super().__init__()
        self.penalty = penalty
        self.weights: Floats = np.zeros((0, 0))

    def _fit(
        self,
        values: Floats,
        starts: NDArray[np.int64],
        owner: NDArray[np.int64],
        offsets: NDArray[np.int64],
        scale: ArrayLike | None,
    ) -> None:
        span, channels = self.lookback + self.horizon, values.shape[1]
        divisor = (
            _training_deviation(values, starts, span, offsets)
            if scale is None
            else np.asarray(scale, dtype=np.float64)
        )
        scaled = values / np.where(divisor > 0, divisor, 1.0)
        first = np.unique(starts)  # a window given twice teaches nothing more
        runs = np.split(first, np.flatnonzero(np.diff(first) != 1) + 1)
        total = np.zeros((span, span))  # sum over windows of window times window, last value off
        count, others = 0, []
        for run in runs:
            part = scaled[run[0] : run[-1] + span]
            if len(run) >= span and np.isfinite(part).all():
                total += _run_products(part, span, self.lookback - 1)
                count += len(run) * channels
            else:
                others.append(run)
        if others:
            rest = np.concatenate(others)
            view = np.lib.stride_tricks.sliding_window_view(scaled, span, axis=0)  # (., C, L + H)
            size = max(1, _BLOCK // (span * channels))
            for begin in range(0, len(rest), size):
                rows = view[rest[begin : begin + size]].reshape(-1, span)  # (b * C, L + H), a copy
                rows -= rows[:, self.lookback - 1 : self.lookback].copy()
                rows = rows[np.isfinite(rows).all(axis=1)]
                total += rows.T @ rows
                count += len(rows)
        if count == 0:
            self._note("every training window holds missing values: the last value is repeated")
            self.weights = np.zeros((self.lookback, self.horizon))
            return
        from scipy.linalg import solve

        gram = total[: self.lookback, : self.lookback]
        gram[np.diag_indices_from(gram)] += self.penalty * count
        self.weights = solve(gram, total[: self.lookback, self.lookback :], assume_a="pos")

    def _predict(self, windows: Floats, series: NDArray[np.int64]) -> Floats:
        last = windows[:, -1:]
        # The map has no constant term, so the scale that `fit` divided by falls out here. All rows
        # in one product: one small product a window costs a hundred times more.
        rows = np.swapaxes(windows - last, 1, 2).reshape(-1, self.lookback)  # (B * C, L)
        future = (rows @ self.weights).reshape(len(windows), -1, self.horizon)
        return np.swapaxes(future, 1, 2) + last


class _Smoothing(Baseline):
    """Smoothing whose few parameters statsmodels estimates once for each series and channel.

    Fitting a model to each of thousands of windows would take hours; the parameters hardly
    change from window to window, so the training part settles them and NumPy applies them.
    """

    _per_series = True
    parameter_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.parameters: Floats = np.zeros((0, 0, 0))  # (S, C, parameters); NaN: seasonal naive
        self.multiplicative: NDArray[np.bool_] = np.zeros((0, 0), dtype=bool)  # (S, C)
        self._grid = True

    def _seasonal_period(self) -> int:
        """Give the period that windows can be taken apart by, or 1."""
        whole = self.period is not None and self.lookback >= 2 * self.period
        return self.period if whole and self.period is not None else 1

    def _estimate(self, part: Floats, period: int) -> tuple[float, ...]:
        raise NotImplementedError

    def _apply(
        self, windows: Floats, parameters: Floats, multiplicative: NDArray[np.bool_]
    ) -> Floats:
        """Forecast (M, L) windows with (M, parameters) to (M, H)."""
        raise NotImplementedError

    def _fit(
        self,
        values: Floats,
        starts: NDArray[np.int64],
        owner: NDArray[np.int64],
        offsets: NDArray[np.int64],
        scale: ArrayLike | None,
    ) -> None:
        channels, span = values.shape[1], self.lookback + self.horizon
        shape = (self.series_count, channels, len(self.parameter_names))
        self.parameters = np.full(shape, np.nan)
        self.multiplicative = np.zeros(shape[:2], dtype=bool)
        period = self._seasonal_period()
        if self.period is not None and period == 1:
            # Smoothing without its season would lose to the seasonal naive forecast by far.
            self._note(
                f"the lookback of {self.lookback} steps does not hold two periods of "
                f"{self.period}: the seasonal naive forecast is given"
                + ("" if self.lookback >= self.period else ", here the last value")
            )
            return
        failures: list[str] = []
        known = np.unique(owner)
        picked = known
        if len(known) > _ESTIMATION_SERIES:
            picked = known[np.linspace(0, len(known) - 1, _ESTIMATION_SERIES).astype(np.int64)]
        ends = np.zeros(self.series_count, dtype=np.int64)
        begins = np.full(self.series_count, len(values), dtype=np.int64)
        np.maximum.at(ends, owner, starts + span)
        np.minimum.at(begins, owner, starts)
        for index in known:
            part = values[begins[index] : ends[index]]
            self.multiplicative[index] = (~(part <= 0)).all(axis=0)  # a missing value is no reason
        tried = len(picked) * channels
        self._grid = tried <= _GRID_SEARCHES
        for index in picked:
            part = values[max(begins[index], ends[index] - _ESTIMATION_ROWS) : ends[index]]
            for channel in range(channels):
                try:
                    self.parameters[index, channel] = self._quietly(part[:, channel], period)
                except (ValueError, ArithmeticError, np.linalg.LinAlgError, IndexError) as error:
                    failures.append(f"series {index} channel {channel}: {error}")
        if failures:
            self._note(
                f"statsmodels could not estimate {len(failures)} of {tried} series and channels, "
                f"which get the seasonal naive forecast (first: {_one_line(failures[0])})"
            )
        others = np.setdiff1d(np.arange(self.series_count), picked)
        if len(others) and len(failures) < tried:
            self.parameters[others] = np.nanmedian(
                self.parameters[picked].reshape(-1, shape[2]), axis=0
            )
            self._note(f"{len(others)} of {self.series_count} series share the median parameters")

    def _quietly(self, part: Floats, period: int) -> tuple[float, ...]:
        if not np.isfinite(part).all():
            raise ValueError("missing values in the training part")
        if part.min() == part.max():
            raise ValueError("constant in the training part")
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # Convergence and frequency warnings say nothing that the score will not.
            warnings.simplefilter("ignore")
            result = self._estimate(part, period)
        if not np.isfinite(result).all():
            raise ValueError(f"estimated parameters are not finite: {result}")
        return result

    def _predict(self, windows: Floats, series: NDArray[np.int64]) -> Floats:
        count, lookback, channels = windows.shape
        if channels != self.parameters.shape[1]:
            raise ValueError(
                f"inputs have {channels} channels; {self.name} was fitted on "
                f"{self.parameters.shape[1]}"
            )
        result = _repeat_period(windows, self.horizon, self.period)
        flat = np.swapaxes(windows, 1, 2).reshape(-1, lookback)  # (B * C, L)
        parameters = self.parameters[series].reshape(count * channels, -1)
        usable = np.isfinite(parameters).all(axis=1) & np.isfinite(flat).all(axis=1)
        if not usable.any():
            return result
        forecast = self._apply(
            flat[usable], parameters[usable], self.multiplicative[series].reshape(-1)[usable]
        )
        merged = np.swapaxes(result, 1, 2).reshape(-1, self.horizon)
        # A window that blows a recursion up is a failure of the method too.
        fine = np.isfinite(forecast).all(axis=1)
        merged[np.flatnonzero(usable)[fine]] = forecast[fine]
        return np.swapaxes(merged.reshape(count, channels, self.horizon), 1, 2)


class Theta(_Smoothing):
    """The Theta method: half a linear trend plus simple exponential smoothing, season taken off.

    statsmodels estimates the smoothing parameter of each series and channel on the training part;
    slope, level, seasonality test and seasonal indices come from each window. The season is
    multiplicative where the training part is positive throughout, else additive.

    Example:
        >>> import numpy as np
        >>> wave = np.tile([10.0, 13.0], 30)[:, None]
        >>> theta = Theta().fit(wave, np.arange(20), 12, 4, 2)
        >>> theta.predict(wave[None, 20:32]).round(3).ravel().tolist()
        [10.0, 13.0, 10.0, 13.0]

    Source:
        Assimakopoulos and Nikolopoulos (2000), "The theta model: a decomposition approach to
        forecasting".
    """

    name = "theta"
    parameter_names = ("alpha",)

    def _estimate(self, part: Floats, period: int) -> tuple[float, ...]:
        from statsmodels.tsa.holtwinters import SimpleExpSmoothing

        flat = part
        if period > 1 and len(part) >= 2 * period:
            flat, _, _ = _deseasonalise(part[None], period, np.array([part.min() > 0]))
            flat = flat[0]
        flat = flat / max(float(flat.std()), 1e-300)
        # What `ThetaModel` minimises too, by another optimiser: see _OPTIMISER.
        model = SimpleExpSmoothing(flat, initialization_method="known", initial_level=flat[0])
        found = model.fit(method=_OPTIMISER).params["smoothing_level"]
        return (float(np.clip(found, 0.0, 1.0)),)

    def _apply(
        self, windows: Floats, parameters: Floats, multiplicative: NDArray[np.bool_]
    ) -> Floats:
        return theta_forecast(
            windows,
            parameters[:, 0],
            horizon=self.horizon,
            period=self._seasonal_period(),
            multiplicative=multiplicative,
        )


class Ets(_Smoothing):
    """Holt-Winters smoothing: level, damped trend and additive season.

    The four smoothing parameters of each series and channel come from statsmodels'
    `ExponentialSmoothing` on the last part of the training rows; each window starts from its own
    classical decomposition.

    Source:
        Hyndman, Koehler, Ord and Snyder (2008), "Forecasting with exponential smoothing".
    """

    name = "ets"
    parameter_names = ("level", "trend", "season", "damping")

    def _estimate(self, part: Floats, period: int) -> tuple[float, ...]:
        from statsmodels.tsa.holtwinters import ExponentialSmoothing

        part = part[-max(500, 12 * period) :]
        seasonal = period > 1 and len(part) >= 2 * period
        result = ExponentialSmoothing(
            part / max(float(part.std()), 1e-300),  # its optimiser's bounds assume moderate numbers
            trend="add",
            damped_trend=True,
            seasonal="add" if seasonal else None,
            seasonal_periods=period if seasonal else None,
            initialization_method="heuristic" if len(part) >= max(10, 2 * period) else "estimated",
        ).fit(method=_OPTIMISER, use_brute=self._grid)
        found = result.params
        return (
            float(found["smoothing_level"]),
            float(found["smoothing_trend"]),
            float(found["smoothing_seasonal"]) if seasonal else 0.0,
            float(found["damping_trend"]),
        )

    def _apply(
        self, windows: Floats, parameters: Floats, multiplicative: NDArray[np.bool_]
    ) -> Floats:
        period = self._seasonal_period()
        season, _ = _decompose(windows, period, np.zeros(len(windows), dtype=bool))
        # Level as if just before the first step: the mean of the first period without its season
        # (which adds up to zero over a period), brought back by no trend.
        level = windows[:, :period].mean(axis=1)
        return holt_winters_forecast(
            windows,
            parameters,
            level=level,
            trend=np.zeros(len(windows)),
            season=season,
            horizon=self.horizon,
        )


BASELINES: dict[str, Callable[[], Baseline]] = {
    "naive": Naive,
    "seasonal_naive": SeasonalNaive,
    "drift": Drift,
    "theta": Theta,
    "ets": Ets,
    "ridge": Ridge,
}
"""Name to what makes a fresh, unfitted baseline."""


# --- the recursions, over all windows at once -----------------------------------------------------


def theta_forecast(
    windows: Floats,
    alpha: ArrayLike,
    *,
    horizon: int,
    period: int = 1,
    multiplicative: ArrayLike | None = None,
) -> Floats:
    """Forecast many windows by the Theta method (theta = 2) with given smoothing parameters.

    For a window it gives what statsmodels' `ThetaModel(window, period=period)` gives with the same
    parameter: the same test for seasonality, classical decomposition, trend and smoothing.

    Args:
        windows: (M, L) finite values, L at least two periods.
        alpha: (M,) or a number, smoothing parameter between 0 and 1.
        horizon: Steps to forecast.
        period: Seasonal period in steps, 1 for none.
        multiplicative: (M,) or a bool, where the season multiplies; windows that are not positive
            throughout, or get a seasonal index that is not, are taken apart additively. Default:
            everywhere, as in statsmodels' "auto".

    Returns:
        (M, horizon).

    Raises:
        ValueError: A window of fewer than two periods.

    Example:
        >>> import numpy as np
        >>> theta_forecast(np.array([[1.0, 2.0, 3.0, 4.0]]), 1.0, horizon=2).round(6).tolist()
        [[4.5, 5.0]]
    """
    count, length = windows.shape
    if period > 1 and length < 2 * period:
        raise ValueError(f"windows of {length} steps do not hold two periods of {period}")
    rate = np.broadcast_to(np.asarray(alpha, dtype=np.float64), (count,))
    wanted = True if multiplicative is None else np.asarray(multiplicative, dtype=bool)
    product = np.broadcast_to(wanted, (count,)) & (windows.min(axis=1) > 0)

    flat, season, product = _deseasonalise(windows, period, product)
    time = np.arange(length) - (length - 1) / 2
    slope = flat @ time / max(float(time @ time), 1.0)  # (M,) least squares
    level = flat[:, 0].copy()
    for step in range(length):
        level += rate * (flat[:, step] - level)
    # What the smoothed level lags behind the trend; at alpha 0 statsmodels leaves it out.
    safe = np.where(rate > 0, rate, 1.0)
    lag = np.where(rate > 0, (1 - (1 - rate) ** length) / safe, 0.0)
    ahead = np.arange(horizon)
    forecast = level[:, None] + slope[:, None] / 2 * (ahead + lag[:, None])  # (M, H)
    later = season[:, (length + ahead) % period]
    return np.where(product[:, None], forecast * later, forecast + later)


def holt_winters_forecast(
    windows: Floats,
    parameters: Floats,
    *,
    level: Floats,
    trend: Floats,
    season: Floats,
    horizon: int,
) -> Floats:
    """Run additive Holt-Winters with a damped trend over many windows, and forecast.

    Args:
        windows: (M, L) values.
        parameters: (M, 4): smoothing of level, trend and season, and damping of the trend.
        level: (M,) level just before the first step.
        trend: (M,) trend just before the first step.
        season: (M, period) seasonal terms of the steps 0 to period - 1; (M, 1) of zeros for none.
        horizon: Steps to forecast.

    Returns:
        (M, horizon).

    Example:
        >>> import numpy as np
        >>> holt_winters_forecast(
        ...     np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 1.0, 0.0, 1.0]]), level=np.zeros(1),
        ...     trend=np.zeros(1), season=np.zeros((1, 1)), horizon=2,
        ... ).tolist()
        [[4.0, 5.0]]
    """
    alpha, beta, gamma, damping = np.asarray(parameters, dtype=np.float64).T
    level, trend, season = level.copy(), trend.copy(), season.copy()
    length, period = windows.shape[1], season.shape[1]
    for step in range(length):
        place = step % period
        before = level + damping * trend
        observed = windows[:, step]
        season_now = season[:, place].copy()
        season[:, place] = gamma * (observed - before) + (1 - gamma) * season_now
        new_level = alpha * (observed - season_now) + (1 - alpha) * before
        trend = beta * (new_level - level) + (1 - beta) * damping * trend
        level = new_level
    growth = np.cumsum(damping[:, None] ** np.arange(1, horizon + 1), axis=1)  # (M, H)
    return (
        level[:, None] + growth * trend[:, None] + season[:, (length + np.arange(horizon)) % period]
    )


def _decompose(
    windows: Floats, period: int, multiplicative: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Take (M, L) windows apart classically: (M, period) seasonal indices, and which multiply.

    Indices come from the ratio to, or difference from, a centred moving average of one period;
    where a ratio is not positive the window is taken apart additively after all.
    """
    count = len(windows)
    if period == 1:
        return np.where(multiplicative, 1.0, 0.0)[:, None], multiplicative
    half = period // 2
    running = np.concatenate([np.zeros((count, 1)), np.cumsum(windows, axis=1)], axis=1)
    trend = (running[:, period:] - running[:, :-period]) / period  # (M, L - period + 1)
    if period % 2 == 0:  # the centre of an even period lies between two steps
        trend = (trend[:, 1:] + trend[:, :-1]) / 2
    inner = windows[:, half : half + trend.shape[1]]
    phase = (half + np.arange(trend.shape[1])) % period

    def indices(rest: Floats) -> Floats:
        return np.stack([rest[:, phase == p].mean(axis=1) for p in range(period)], axis=1)

    season = indices(inner - trend)
    season -= season.mean(axis=1, keepdims=True)
    product = multiplicative.copy()
    if product.any():
        # Rounding can leave no trend where huge and tiny values meet; such a ratio is not > 0.
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = indices(inner[product] / trend[product])
            ratio /= ratio.mean(axis=1, keepdims=True)
        product[product] = ratio.min(axis=1) > 0
        season[product] = ratio[ratio.min(axis=1) > 0]
    return season, product


def _deseasonalise(
    windows: Floats, period: int, multiplicative: NDArray[np.bool_]
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Take the season off (M, L) windows that have one.

    Gives the windows without it, the (M, period) indices that were taken off (neutral ones where
    there is no season) and which of them divide.
    """
    season, product = _decompose(windows, period, multiplicative)
    neutral = np.where(product, 1.0, 0.0)[:, None]
    season = np.where(_is_seasonal(windows, period)[:, None], season, neutral)
    whole = season[:, np.arange(windows.shape[1]) % period]
    divisor = np.where(product[:, None], whole, 1.0)
    return np.where(product[:, None], windows / divisor, windows - whole), season, product


def _is_seasonal(windows: Floats, period: int) -> NDArray[np.bool_]:
    """Test the autocorrelation at the period at 10 %, as the Theta literature does: (M,)."""
    count, length = windows.shape
    if period == 1:
        return np.zeros(count, dtype=bool)
    centred = windows - windows.mean(axis=1, keepdims=True)
    width = 1 << (2 * length - 1).bit_length()
    power = np.abs(np.fft.rfft(centred, width, axis=1)) ** 2
    correlation = np.fft.irfft(power, width, axis=1)[:, : period + 1]
    zero = correlation[:, :1]
    correlation = np.divide(correlation, zero, out=np.zeros_like(correlation), where=zero > 0)
    spread = (correlation[:, :-1] ** 2).sum(axis=1)
    statistic = length * correlation[:, -1] ** 2 / np.where(spread > 0, spread, 1.0)
    return statistic > 1.6448536269514722**2


# --- small helpers --------------------------------------------------------------------------------


def _repeat_period(windows: Floats, horizon: int, period: int | None) -> Floats:
    """Repeat the last period of (B, L, C), or the last value if there is no whole period."""
    length = windows.shape[1]
    step = period if period is not None and period <= length else 1
    return windows[:, length - step + np.arange(horizon) % step]


def _run_products(part: Floats, span: int, last: int) -> Floats:
    """Sum z z' over all windows z of consecutive rows and all channels: (span, span).

    z is a window minus its value at `last`. Neighbouring windows share all but one row, so each
    entry of the sum follows from the one before it on the diagonal: the work is that of the first
    row alone, some `span` times less than over the windows one by one.
    """
    part = part - part.mean(axis=0)  # falls out of z; keeps large levels from eating the digits
    count = len(part) - span + 1
    products = np.empty((span, span))
    for lag in range(span):
        products[0, lag] = np.vdot(part[:count], part[lag : lag + count])
    products[:, 0] = products[0]
    head, tail = part[: span - 1], part[count:]
    change = tail @ tail.T - head @ head.T
    for row in range(1, span):
        products[row, 1:] = products[row - 1, :-1] + change[row - 1]
    at_last = products[last]
    return products - at_last[:, None] - at_last[None, :] + at_last[last]


def _training_deviation(
    values: Floats, starts: NDArray[np.int64], span: int, offsets: NDArray[np.int64]
) -> Floats:
    """Give the standard deviation of each series and channel over its training rows: (R, C)."""
    edge = np.zeros(len(values) + 1, dtype=np.int64)
    np.add.at(edge, starts, 1)
    np.add.at(edge, starts + span, -1)
    used = np.cumsum(edge)[:-1] > 0
    result = np.ones_like(values)
    for begin, end in _spans(offsets):
        part = values[begin:end][used[begin:end]]
        known = np.isfinite(part)
        seen = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, part, 0.0).sum(axis=0) / seen
        result[begin:end] = np.sqrt((np.where(known, part - mean, 0.0) ** 2).sum(axis=0) / seen)
    return result


def _spans(offsets: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    for begin, end in pairwise(offsets):
        yield int(begin), int(end)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:120]
