"""Scores, intervals and backtests for forecasts: NumPy, no TensorFlow.

Everything here takes plain arrays in the units of the data: truth and forecast of shape (N, H, C)
= (windows, horizon, channels). A NaN in the truth is a value that was never observed: it counts in
no score. A forecast that is not finite is an error.

Shapes in axis letters: N windows, H horizon, C channels, Q quantile levels, S series, R rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_seq.errors import UserError
from keras_seq.evaluation.significance import group_codes

__all__ = [
    "Fold",
    "SeasonalScale",
    "conformal_intervals",
    "conformal_quantiles",
    "forecast_scores",
    "per_channel",
    "per_horizon",
    "quantile_coverage",
    "rolling_origin",
    "seasonal_scale",
    "skill",
    "window_losses",
]

Floats = NDArray[np.float64]
Metric = Literal["mse", "mae"]

# Values worked on at once: big enough for NumPy to be quick, small enough (some 30 MB a copy) that
# ten thousand windows of 21 channels and 9 quantiles do not fill the memory with temporaries.
_BLOCK = 4_000_000


# --- point and quantile scores --------------------------------------------------------------------


def forecast_scores(
    truth: ArrayLike,
    forecast: ArrayLike,
    *,
    scale: ArrayLike | None = None,
    mase_scale: ArrayLike | None = None,
    rmsse_scale: ArrayLike | None = None,
    series: ArrayLike | None = None,
    quantiles: ArrayLike | None = None,
    quantile_levels: Sequence[float] | None = None,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    level: float = 0.8,
) -> dict[str, float]:
    """Score forecasts by every usual name; a score whose ingredients are not given is left out.

    All errors are averaged over every window, step and channel alike, except where said:

    - ``mse``, ``mae``, ``rmse``, ``bias`` (mean of forecast minus truth): units of the data.
    - ``mse_scaled``, ``mae_scaled``: errors divided by `scale` first (the published LTSF scale
      when `scale` is the standard deviation of each channel in the training part).
    - ``smape``: mean of 200 |error| / (|truth| + |forecast|), from 0 to 200; 0/0 counts as 0.
    - ``wape``: sum of |error| over sum of |truth|, pooled over everything (left out if that is 0).
    - ``mase``: mean |error| of a window and channel over the in-sample mean absolute error of the
      seasonal naive forecast (`mase_scale`). ``rmsse``: root of the window's mean squared error
      over `rmsse_scale`. With `series`, these two and ``smape`` are averaged in each series first
      and every series then weighs the same, however many windows it has.
    - ``pinball``: mean over the levels of max(t * d, (t - 1) * d), d = truth - quantile.
      ``crps``: twice that mean, which tends to the continuous ranked probability score as
      evenly spaced levels grow in number. ``pinball_scaled``, ``crps_scaled`` likewise.
    - ``coverage_80``, ``width_80``, ``winkler_80`` (interval score: width + 2 / (1 - level) times
      what the truth sticks out by), and ``width_80_scaled``: for `lower` and `upper`, or for the
      two levels of `quantiles` that enclose `level`. The number in the name is 100 * `level`.

    Args:
        truth: (N, H, C); NaN where nothing was observed.
        forecast: (N, H, C), finite.
        scale: Positive divisor: a number, (C,), (N, C) or (N, 1, C).
        mase_scale: The same shapes; see `seasonal_scale`.
        rmsse_scale: The same shapes; see `seasonal_scale`.
        series: (N,) id of the series that each window belongs to. Default: one series.
        quantiles: (N, H, C, Q).
        quantile_levels: Q numbers between 0 and 1.
        lower: (N, H, C) lower end of an interval that should hold `level` of the truth.
        upper: (N, H, C) upper end.
        level: What the interval promises.

    Returns:
        Name to value.

    Raises:
        ValueError: Shapes that do not fit, a forecast that is not finite, no observed truth.

    Example:
        >>> truth, forecast = [[[1.0], [3.0]]], [[[2.0], [1.0]]]
        >>> scores = forecast_scores(truth, forecast, scale=2.0, mase_scale=3.0)
        >>> scores["mse"], scores["mae"], scores["mse_scaled"], scores["mase"]
        (2.5, 1.5, 0.625, 0.5)

    Source:
        Hyndman and Koehler (2006), "Another look at measures of forecast accuracy"; Gneiting and
        Raftery (2007), "Strictly proper scoring rules, prediction, and estimation".
    """
    truth, forecast = _pair(truth, forecast)
    windows, _, channels = truth.shape
    deviation = None if scale is None else _divisor("scale", scale, windows, channels)
    levels, grid = _quantile_grid(quantiles, quantile_levels, truth.shape)
    low, high = _interval(lower, upper, grid, levels, level, truth.shape)

    sums: dict[str, float] = {}
    seen = np.zeros((windows, channels))
    absolute, squared, relative = (np.zeros((windows, channels)) for _ in range(3))

    def add(name: str, values: Floats, known: NDArray[np.bool_]) -> None:
        sums[name] = sums.get(name, 0.0) + float(np.sum(values, where=known))

    for block in _blocks(truth.shape, width=1 if grid is None else len(levels)):
        actual = truth[block].astype(np.float64)
        guess = forecast[block].astype(np.float64)
        if not np.isfinite(guess).all():
            raise ValueError(
                f"the forecast of windows {block.start} to {block.stop - 1} holds values that are "
                "not finite: nothing can be scored; look for a training that diverged"
            )
        known = np.isfinite(actual)
        error = np.where(known, guess - actual, 0.0)
        size = np.abs(error)
        seen[block] = known.sum(axis=1)
        absolute[block] = size.sum(axis=1)
        squared[block] = (error**2).sum(axis=1)
        whole = np.abs(actual) + np.abs(guess)
        ratio = np.divide(size, whole, out=np.zeros_like(size), where=known & (whole > 0))
        relative[block] = 200 * ratio.sum(axis=1)
        add("error", error, known)
        add("magnitude", np.abs(actual), known)
        unit = None if deviation is None else _part(deviation, block)
        if unit is not None:
            add("mse_scaled", (error / unit) ** 2, known)
            add("mae_scaled", size / unit, known)
        if grid is not None:
            quantile = grid[block].astype(np.float64)
            _check_finite(quantile, "quantiles", block)
            gap = np.where(known, actual, 0.0)[..., None] - np.where(known[..., None], quantile, 0)
            loss = np.maximum(levels * gap, (levels - 1) * gap).mean(axis=-1)
            add("pinball", loss, known)
            if unit is not None:
                add("pinball_scaled", loss / unit, known)
        if low is not None and high is not None:
            bottom, top = low[block].astype(np.float64), high[block].astype(np.float64)
            _check_finite(bottom, "lower", block)
            _check_finite(top, "upper", block)
            outside = np.maximum(bottom - actual, 0) + np.maximum(actual - top, 0)
            width = top - bottom
            add("coverage", ((actual >= bottom) & (actual <= top)).astype(np.float64), known)
            add("width", width, known)
            add("winkler", width + 2 / (1 - level) * outside, known)
            if unit is not None:
                add("width_scaled", width / unit, known)

    count = float(seen.sum())
    if count == 0:
        raise ValueError("no value of the truth was observed (all are NaN): nothing can be scored")
    mse = float(squared.sum()) / count
    cell = np.where(seen > 0, seen, np.nan)  # a window's channel with no truth has no mean
    scores = {
        "mse": mse,
        "mae": float(absolute.sum()) / count,
        "rmse": math.sqrt(mse),
        "bias": sums["error"] / count,
        "smape": _series_mean(relative / cell, series),
    }
    if sums["magnitude"] > 0:
        scores["wape"] = float(absolute.sum()) / sums["magnitude"]
    if mase_scale is not None:
        divisor = _divisor("mase_scale", mase_scale, windows, channels)[:, 0]
        scores["mase"] = _series_mean(absolute / cell / divisor, series)
    if rmsse_scale is not None:
        divisor = _divisor("rmsse_scale", rmsse_scale, windows, channels)[:, 0]
        scores["rmsse"] = _series_mean(np.sqrt(squared / cell) / divisor, series)
    for name in ("mse_scaled", "mae_scaled"):
        if name in sums:
            scores[name] = sums[name] / count
    for ending in ("", "_scaled"):
        if "pinball" + ending in sums:
            scores["pinball" + ending] = sums["pinball" + ending] / count
            scores["crps" + ending] = 2 * sums["pinball" + ending] / count
    percent = f"{100 * level:g}".replace(".", "_")
    for name in ("coverage", "width", "winkler"):
        if name in sums:
            scores[f"{name}_{percent}"] = sums[name] / count
    if "width_scaled" in sums:
        scores[f"width_{percent}_scaled"] = sums["width_scaled"] / count
    return scores


def per_horizon(
    truth: ArrayLike,
    forecast: ArrayLike,
    scale: ArrayLike | None = None,
    *,
    metric: Metric = "mse",
) -> Floats:
    """Give the error of each step ahead, averaged over windows and channels.

    Args:
        truth: (N, H, C); NaN where nothing was observed.
        forecast: (N, H, C).
        scale: Divisor of the errors: None, a number, (C,), (N, C) or (N, 1, C).
        metric: "mse" or "mae".

    Returns:
        (H,) curve; NaN at a step that has no observed truth.

    Raises:
        ValueError: Shapes that do not fit or an unknown metric.

    Example:
        >>> per_horizon([[[1.0], [3.0]]], [[[2.0], [1.0]]]).tolist()
        [1.0, 4.0]
    """
    return _mean_loss(truth, forecast, scale, metric, keep=1)


def per_channel(
    truth: ArrayLike,
    forecast: ArrayLike,
    scale: ArrayLike | None = None,
    *,
    metric: Metric = "mse",
) -> Floats:
    """Give the error of each channel, averaged over windows and steps.

    Args:
        truth: (N, H, C); NaN where nothing was observed.
        forecast: (N, H, C).
        scale: Divisor of the errors: None, a number, (C,), (N, C) or (N, 1, C).
        metric: "mse" or "mae".

    Returns:
        (C,) errors; NaN for a channel that has no observed truth.

    Raises:
        ValueError: Shapes that do not fit or an unknown metric.

    Example:
        >>> per_channel([[[1.0, 0.0]]], [[[2.0, 0.5]]], metric="mae").tolist()
        [1.0, 0.5]
    """
    return _mean_loss(truth, forecast, scale, metric, keep=2)


def window_losses(
    truth: ArrayLike,
    forecast: ArrayLike,
    scale: ArrayLike | None = None,
    *,
    metric: Metric = "mse",
) -> Floats:
    """Give the error of each window, averaged over steps and channels: what the tests compare.

    Args:
        truth: (N, H, C); NaN where nothing was observed.
        forecast: (N, H, C).
        scale: Divisor of the errors: None, a number, (C,), (N, C) or (N, 1, C).
        metric: "mse" or "mae".

    Returns:
        (N,) losses; NaN for a window that has no observed truth.

    Raises:
        ValueError: Shapes that do not fit or an unknown metric.

    Example:
        >>> truth, forecast = [[[1.0], [3.0]], [[0.0], [0.0]]], [[[2.0], [1.0]], [[0.0], [2.0]]]
        >>> window_losses(truth, forecast).tolist()
        [2.5, 2.0]
    """
    return _mean_loss(truth, forecast, scale, metric, keep=0)


def quantile_coverage(
    truth: ArrayLike, quantiles: ArrayLike, levels: Sequence[float] | None = None
) -> Floats:
    """Give the share of the truth at or below each quantile: a reliability plot's vertical axis.

    Args:
        truth: (N, H, C); NaN where nothing was observed.
        quantiles: (N, H, C, Q).
        levels: Q numbers; only checked for their count.

    Returns:
        (Q,) shares; a calibrated forecast gives the levels themselves.

    Raises:
        ValueError: Shapes that do not fit or no observed truth.

    Example:
        >>> quantile_coverage([[[1.0], [2.0]]], [[[[0.5, 1.5]], [[1.0, 2.5]]]], [0.1, 0.9]).tolist()
        [0.0, 1.0]
    """
    truth = _three("truth", truth)
    grid = np.asarray(quantiles)
    count = grid.shape[-1] if levels is None else len(levels)
    if grid.shape != (*truth.shape, count):
        raise ValueError(f"quantiles have shape {grid.shape}; wanted {(*truth.shape, count)}")
    below, seen = np.zeros(count), 0
    for block in _blocks(truth.shape, width=count):
        known = np.isfinite(truth[block])
        below += (truth[block][known][:, None] <= grid[block][known]).sum(axis=0)
        seen += int(known.sum())
    if seen == 0:
        raise ValueError("no value of the truth was observed (all are NaN)")
    return below / seen


def skill(score: float, reference: float) -> float:
    """Say what part of the reference's error a score takes away: 1 - score / reference.

    Args:
        score: An error, lower is better.
        reference: The same error of the reference, usually the seasonal naive forecast.

    Returns:
        1 is perfect, 0 as good as the reference, negative worse. With a reference of 0: 0 for a
        score of 0, else minus infinity.

    Example:
        >>> skill(0.75, 1.0), skill(2.0, 1.0), skill(0.0, 0.0)
        (0.25, -1.0, 0.0)
    """
    if reference == 0:
        return 0.0 if score == 0 else -math.inf
    return 1.0 - score / reference


# --- the scale of MASE ----------------------------------------------------------------------------


@dataclass(frozen=True)
class SeasonalScale:
    """How wrong the seasonal naive forecast is in the training part.

    Args:
        mae: (S, C) mean |y[t] - y[t - m]|: the divisor of MASE.
        rmse: (S, C) root of the mean square of the same differences: the divisor of RMSSE.
        periods: (S,) the m that was used for each series.
        notes: What was done where the plain definition does not work, one sentence each.
    """

    mae: Floats
    rmse: Floats
    periods: NDArray[np.int64]
    notes: tuple[str, ...] = ()


def seasonal_scale(
    values: ArrayLike,
    offsets: ArrayLike | None,
    end_rows: ArrayLike | int,
    period: int | None,
) -> SeasonalScale:
    """Measure the seasonal naive forecast one step ahead in the training part of each series.

    A series of `period` rows or fewer is measured against the value before (m = 1). A scale of
    zero (a constant series) would divide by zero, so it becomes 1. Both are said in the notes.

    Args:
        values: (R, C) rows of all series, one series after another; NaN where not observed.
        offsets: (S + 1,) first row of each series, and R; None for one series.
        end_rows: (S,) or a number: row of `values` just after each series' training part.
        period: Seasonal period m in steps; None or 1 for none.

    Returns:
        The scales, per series and channel.

    Raises:
        ValueError: Offsets or end rows that do not fit the values, or a period under 1.

    Example:
        >>> scale = seasonal_scale([[1.0], [2.0], [4.0], [7.0], [90.0]], None, 4, 1)
        >>> scale.mae.tolist()
        [[2.0]]
        >>> seasonal_scale([[5.0], [5.0]], None, 2, 1).notes
        ('1 of 1 scales is zero (constant in the training part): 1 is used',)
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"values have shape {rows.shape}; wanted (rows, channels)")
    starts = np.array([0, len(rows)]) if offsets is None else np.asarray(offsets, dtype=np.int64)
    if starts.ndim != 1 or len(starts) < 2 or starts[0] < 0 or starts[-1] > len(rows):
        raise ValueError(
            f"offsets must be the first row of each series and then {len(rows)}; got {offsets!r}"
        )
    count = len(starts) - 1
    ends = np.broadcast_to(np.asarray(end_rows, dtype=np.int64), (count,))
    if (ends < starts[:-1]).any() or (ends > starts[1:]).any():
        raise ValueError("end_rows must lie within their series: offsets[s] <= end <= offsets[s+1]")
    step = 1 if period is None else int(period)
    if step < 1:
        raise ValueError(f"period is {period}; wanted at least 1 step, or None")

    channels = rows.shape[1]
    mae, rmse = np.ones((count, channels)), np.ones((count, channels))
    periods = np.full(count, step, dtype=np.int64)
    unknown = zero = 0
    for index in range(count):
        part = rows[starts[index] : ends[index]]
        if len(part) <= step:
            periods[index] = 1
        lag = int(periods[index])
        change = part[lag:] - part[:-lag]
        known = np.isfinite(change)
        seen = known.sum(axis=0)
        held = np.where(known, change, 0.0)
        absolute = np.abs(held).sum(axis=0) / np.maximum(seen, 1)
        root = np.sqrt((held**2).sum(axis=0) / np.maximum(seen, 1))
        unknown += int((seen == 0).sum())
        zero += int(((seen > 0) & (absolute == 0)).sum())
        mae[index] = np.where(absolute > 0, absolute, 1.0)
        rmse[index] = np.where(root > 0, root, 1.0)

    notes = []
    short = int((periods < step).sum())
    if short:
        notes.append(
            f"{short} of {count} series {_is(short)} no longer than the period of {step} steps: "
            "measured against the value before"
        )
    if unknown:
        notes.append(
            f"{unknown} of {mae.size} scales {_is(unknown)} unknown (too few rows in the training "
            "part): 1 is used"
        )
    if zero:
        notes.append(
            f"{zero} of {mae.size} scales {_is(zero)} zero (constant in the training part): "
            "1 is used"
        )
    return SeasonalScale(mae, rmse, periods, tuple(notes))


# --- intervals ------------------------------------------------------------------------------------


def conformal_intervals(calibration_residuals: ArrayLike, level: float = 0.8) -> Floats:
    """Turn the errors on a calibration part into half widths of intervals (split conformal).

    For each step and channel the half width is the k-th smallest |residual|, k = ceil((n + 1) *
    level): with calibration and test errors exchangeable, forecast +- half width then holds the
    truth with probability at least `level`. Errors of neighbouring windows are not quite
    exchangeable, so look at the coverage on the test part as well.

    Args:
        calibration_residuals: (N, H, C) truth minus forecast on windows that the model was not
            fitted on; NaN where the truth was not observed.
        level: Share of the truth that the interval shall hold, between 0 and 1.

    Returns:
        (H, C) half widths, in the units of the residuals.

    Raises:
        UserError: Too few calibration windows for the level (80 % needs 4).
        ValueError: A level outside (0, 1).

    Example:
        >>> conformal_intervals([[[1.0]], [[-2.0]], [[3.0]], [[-4.0]]], level=0.8).tolist()
        [[4.0]]

    Source:
        Lei, G'Sell, Rinaldo, Tibshirani and Wasserman (2018), "Distribution-free predictive
        inference for regression".
    """
    return _conformal(np.abs(_three("calibration_residuals", calibration_residuals)), level)


def conformal_quantiles(
    truth: ArrayLike, lower: ArrayLike, upper: ArrayLike, level: float = 0.8
) -> Floats:
    """Say by how much a quantile forecast's interval must be widened to keep its promise.

    Conformalised quantile regression: add the result to the upper end and take it from the lower
    end. Negative where the interval was too wide.

    Args:
        truth: (N, H, C) calibration windows; NaN where not observed.
        lower: (N, H, C) lower quantile forecast of the same windows.
        upper: (N, H, C) upper quantile forecast.
        level: Share of the truth that the interval shall hold, between 0 and 1.

    Returns:
        (H, C) widths to add at each end.

    Raises:
        UserError: Too few calibration windows for the level (80 % needs 4).
        ValueError: Shapes that do not fit, or a level outside (0, 1).

    Example:
        >>> truth = [[[0.0]], [[1.0]], [[2.0]], [[9.0]]]
        >>> conformal_quantiles(truth, [[[1.0]]] * 4, [[[5.0]]] * 4, level=0.6).tolist()
        [[1.0]]

    Source:
        Romano, Patterson and Candes (2019), "Conformalized quantile regression".
    """
    actual, bottom = _pair(truth, lower, "lower")
    _, top = _pair(truth, upper, "upper")
    return _conformal(np.maximum(bottom - actual, actual - top), level)


def _conformal(nonconformity: NDArray[np.floating], level: float) -> Floats:
    """Give the finite-sample quantile over windows, NaN left out: (N, H, C) -> (H, C)."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; wanted a share between 0 and 1, such as 0.8")
    ordered = np.sort(np.asarray(nonconformity, dtype=np.float64), axis=0)  # NaN goes last
    seen = np.isfinite(ordered).sum(axis=0)
    # 9.999999999 ranks are 10: (n + 1) * level is exact in decimals, not in floating point.
    rank = np.ceil(np.round((seen + 1) * level, 9)).astype(np.int64)
    if (rank > seen).any():
        least = math.ceil(round(level / (1 - level), 9))
        raise UserError(
            f"an interval of level {level:g} needs at least {least} calibration windows for each "
            f"step and channel; got {int(seen.min())}. Give more windows or a lower level"
        )
    return np.take_along_axis(ordered, rank[None] - 1, axis=0)[0]


# --- backtests ------------------------------------------------------------------------------------


class Fold(NamedTuple):
    """One origin of a backtest: fit on the rows of `train`, score on those of `test`."""

    train: range
    test: range


def rolling_origin(
    rows: int,
    *,
    folds: int,
    horizon: int,
    window: Literal["expanding", "sliding"] = "expanding",
    gap: int = 0,
    minimum: int = 1,
    step: int | None = None,
) -> list[Fold]:
    """Cut a series into a backtest: train before, test after, never the other way round.

    The last test part ends with the last row; each earlier one starts `step` rows before. Training
    windows must lie wholly in `train`; test windows may look back into it.

    Args:
        rows: Length of the series.
        folds: How many origins.
        horizon: Rows of each test part.
        window: "expanding" trains on all rows before the gap, "sliding" on the last `minimum`.
        gap: Rows left out between train and test, for values that arrive late.
        minimum: The fewest training rows allowed.
        step: Rows between two origins. Default: `horizon`, so that test parts do not overlap.

    Returns:
        Folds in the order of time.

    Raises:
        UserError: The series is too short for so many folds.
        ValueError: An argument is out of range.

    Example:
        >>> for train, test in rolling_origin(10, folds=2, horizon=3, minimum=3, gap=1):
        ...     print(train, test)
        range(0, 3) range(4, 7)
        range(0, 6) range(7, 10)
    """
    stride = horizon if step is None else step
    limits = {"folds": (folds, 1), "horizon": (horizon, 1), "gap": (gap, 0),
              "minimum": (minimum, 1), "step": (stride, 1)}  # fmt: skip
    for name, (value, least) in limits.items():
        if value < least:
            raise ValueError(f"{name} is {value}; wanted at least {least}")
    if window not in ("expanding", "sliding"):
        raise ValueError(f"window is {window!r}; wanted 'expanding' or 'sliding'")
    wanted = minimum + gap + horizon + (folds - 1) * stride
    if rows < wanted:
        fit = max(0, (rows - minimum - gap - horizon) // stride + 1)
        raise UserError(
            f"{folds} folds need {wanted} rows (minimum {minimum} + gap {gap} + horizon {horizon} "
            f"+ {folds - 1} x step {stride}); the series has {rows}, enough for {fit}"
        )
    result = []
    for index in range(folds):
        first = rows - horizon - (folds - 1 - index) * stride
        end = first - gap
        result.append(
            Fold(
                range(end - minimum if window == "sliding" else 0, end),
                range(first, first + horizon),
            )
        )
    return result


# --- small helpers --------------------------------------------------------------------------------


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _three(name: str, values: ArrayLike) -> NDArray[np.floating]:
    array = np.asarray(values)
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"{name} has shape {array.shape}; wanted (windows, horizon, channels)")
    return array


def _pair(
    truth: ArrayLike, forecast: ArrayLike, name: str = "forecast"
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    actual, guess = _three("truth", truth), _three(name, forecast)
    if actual.shape != guess.shape:
        raise ValueError(
            f"truth has shape {actual.shape} and {name} {guess.shape}; they must be the same"
        )
    return actual, guess


def _check_finite(values: Floats, name: str, block: slice) -> None:
    if not np.isfinite(values).all():
        raise ValueError(
            f"{name} of windows {block.start} to {block.stop - 1} holds values that are not finite"
        )


def _divisor(name: str, values: ArrayLike, windows: int, channels: int) -> Floats:
    """Bring a number, (C,), (N, C) or (N, 1, C) to (1 or N, 1, C), and check that it divides."""
    array = np.asarray(values, dtype=np.float64)
    given = array.shape
    if array.ndim == 2:
        array = array[:, None, :]
    while array.ndim < 3:
        array = array[None]
    fits = (
        array.ndim == 3
        and array.shape[0] in (1, windows)
        and array.shape[1] == 1
        and array.shape[2] in (1, channels)
    )
    if not fits:
        raise ValueError(
            f"{name} has shape {given}; wanted a number, ({channels},), ({windows}, {channels}) "
            f"or ({windows}, 1, {channels})"
        )
    if not (array > 0).all():
        raise ValueError(f"{name} must be positive everywhere; its least value is {array.min():g}")
    return np.broadcast_to(array, (array.shape[0], 1, channels))


def _part(divisor: Floats, block: slice) -> Floats:
    return divisor[block] if len(divisor) > 1 else divisor


def _quantile_grid(
    quantiles: ArrayLike | None, levels: Sequence[float] | None, shape: tuple[int, ...]
) -> tuple[Floats, NDArray[np.floating] | None]:
    if quantiles is None:
        return np.zeros(0), None
    if levels is None:
        raise ValueError("quantiles were given without quantile_levels: say which levels they are")
    grid, ranks = np.asarray(quantiles), np.asarray(levels, dtype=np.float64)
    if grid.shape != (*shape, len(ranks)):
        raise ValueError(f"quantiles have shape {grid.shape}; wanted {(*shape, len(ranks))}")
    if not ((ranks > 0) & (ranks < 1)).all():
        raise ValueError(f"quantile_levels must lie between 0 and 1; got {list(levels)}")
    return ranks, grid


def _interval(
    lower: ArrayLike | None,
    upper: ArrayLike | None,
    grid: NDArray[np.floating] | None,
    levels: Floats,
    level: float,
    shape: tuple[int, ...],
) -> tuple[NDArray[np.floating] | None, NDArray[np.floating] | None]:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; wanted a share between 0 and 1, such as 0.8")
    if (lower is None) != (upper is None):
        raise ValueError("lower and upper belong together: give both or neither")
    if lower is not None and upper is not None:
        low, high = np.asarray(lower), np.asarray(upper)
        for name, end in (("lower", low), ("upper", high)):
            if end.shape != shape:
                raise ValueError(f"{name} has shape {end.shape}; wanted {shape}")
        return low, high
    if grid is not None:
        bottom = np.flatnonzero(np.isclose(levels, (1 - level) / 2, atol=1e-6))
        top = np.flatnonzero(np.isclose(levels, (1 + level) / 2, atol=1e-6))
        if len(bottom) and len(top):
            return grid[..., bottom[0]], grid[..., top[0]]
    return None, None


def _blocks(shape: tuple[int, ...], width: int = 1) -> Iterator[slice]:
    size = max(1, _BLOCK // max(1, math.prod(shape[1:]) * width))
    for start in range(0, shape[0], size):
        yield slice(start, min(start + size, shape[0]))


def _mean_loss(
    truth: ArrayLike, forecast: ArrayLike, scale: ArrayLike | None, metric: Metric, keep: int
) -> Floats:
    """Average the loss over all axes but `keep`, with values that were not observed left out."""
    actual, guess = _pair(truth, forecast)
    if metric not in ("mse", "mae"):
        raise ValueError(f"metric is {metric!r}; wanted 'mse' or 'mae'")
    windows, _, channels = actual.shape
    divisor = None if scale is None else _divisor("scale", scale, windows, channels)
    total, seen = np.zeros(actual.shape[keep]), np.zeros(actual.shape[keep])
    others = tuple(axis for axis in range(3) if axis != keep)
    for block in _blocks(actual.shape):
        known = np.isfinite(actual[block])
        error = np.where(known, guess[block].astype(np.float64) - actual[block], 0.0)
        if divisor is not None:
            error /= _part(divisor, block)
        loss = error**2 if metric == "mse" else np.abs(error)
        where = block if keep == 0 else slice(None)
        total[where] += loss.sum(axis=others)
        seen[where] += known.sum(axis=others)
    return np.divide(total, seen, out=np.full(len(total), np.nan), where=seen > 0)


def _series_mean(cells: Floats, series: ArrayLike | None) -> float:
    """Average (N, C) cells, NaN left out; with series ids, first within each series."""
    known = np.isfinite(cells)
    held = np.where(known, cells, 0.0)
    if series is None:
        return float(held.sum() / known.sum())
    code, count = group_codes(series, len(cells))
    total = np.bincount(code, weights=held.sum(axis=1), minlength=count)
    seen = np.bincount(code, weights=known.sum(axis=1), minlength=count)
    return float(np.mean(total[seen > 0] / seen[seen > 0]))
