"""Is one system better than another? Paired tests on losses: NumPy and SciPy, no TensorFlow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "DieboldMariano",
    "PairedBootstrap",
    "PairedTest",
    "diebold_mariano",
    "group_codes",
    "paired_bootstrap",
    "paired_test",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DieboldMariano:
    """The outcome of `diebold_mariano`.

    Args:
        statistic: Negative when A has the lower loss.
        p_value: Two-sided.
        mean_difference: Mean of loss A minus loss B.
        note: Why there is no real statistic, or "".
    """

    statistic: float
    p_value: float
    mean_difference: float
    note: str = ""


def diebold_mariano(loss_a: ArrayLike, loss_b: ArrayLike, horizon: int) -> DieboldMariano:
    """Test whether two forecasters of ONE series differ in mean loss.

    Losses of windows that start one step apart share all but one of their steps, so they are
    correlated: the variance of the mean difference takes in `horizon` - 1 autocovariances with
    Bartlett's falling weights (which keep it from being negative). The statistic carries the
    small-sample correction of Harvey, Leybourne and Newbold and is read from Student's t with
    N - 1 degrees of freedom.

    Args:
        loss_a: (N,) loss of each test window under A, in the order of time (see `window_losses`).
        loss_b: (N,) the same windows under B.
        horizon: Windows that overlap: the horizon in steps over the stride of the windows,
            rounded up.

    Returns:
        Statistic, p-value and mean difference. Identical losses, and windows no more than
        `horizon`, give a statistic of 0 and a p-value of 1, with a note; a difference that is
        constant gives an infinite statistic, with a note.

    Raises:
        ValueError: Losses of different length or not finite, or a horizon under 1.

    Example:
        >>> result = diebold_mariano([1.0, 2.0, 1.0, 2.0], [2.0, 2.0, 2.0, 2.0], horizon=1)
        >>> round(result.statistic, 4), round(result.p_value, 4), result.mean_difference
        (-1.7321, 0.1817, -0.5)

    Source:
        Diebold and Mariano (1995), "Comparing predictive accuracy"; Harvey, Leybourne and Newbold
        (1997), "Testing the equality of prediction mean squared errors".
    """
    difference = _difference(loss_a, loss_b)
    if horizon < 1:
        raise ValueError(f"horizon is {horizon}; wanted at least 1")
    count = len(difference)
    mean = float(difference.mean())
    if not difference.any():
        return DieboldMariano(0.0, 1.0, 0.0, "the losses are identical")
    if count <= max(horizon, 1):
        return DieboldMariano(
            0.0, 1.0, mean, f"{count} windows are too few for a test at horizon {horizon}"
        )
    centred = difference - mean
    variance = float(centred @ centred) / count
    for lag in range(1, horizon):
        weight = 1 - lag / horizon
        variance += 2 * weight * float(centred[lag:] @ centred[:-lag]) / count
    if variance <= (8 * np.finfo(np.float64).eps * np.abs(difference).max()) ** 2:
        if mean == 0:
            return DieboldMariano(0.0, 1.0, 0.0, "the differences do not vary")
        return DieboldMariano(
            math.copysign(math.inf, mean), 0.0, mean, "the difference is the same in every window"
        )
    statistic = mean / math.sqrt(variance / count)
    statistic *= math.sqrt((count + 1 - 2 * horizon + horizon * (horizon - 1) / count) / count)
    return DieboldMariano(statistic, _two_sided(statistic, count - 1), mean)


@dataclass(frozen=True)
class PairedBootstrap:
    """The outcome of `paired_bootstrap`.

    Args:
        mean_difference: Mean of loss A minus loss B.
        lower: Lower end of its confidence interval.
        upper: Upper end.
        p_value: Two-sided: twice the share of resamples on the far side of zero, plus one.
        block: Length of the blocks that were drawn.
        resamples: How many resamples were drawn.
    """

    mean_difference: float
    lower: float
    upper: float
    p_value: float
    block: int
    resamples: int


def paired_bootstrap(
    loss_a: ArrayLike,
    loss_b: ArrayLike,
    *,
    block: int | None = None,
    series: ArrayLike | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedBootstrap:
    """Give a confidence interval of the difference in mean loss, by resampling blocks of windows.

    Whole blocks of neighbouring windows are drawn, so that their correlation stays in the
    resample; blocks wrap round at the end, so that every window is drawn equally often.

    Args:
        loss_a: (N,) loss of each test window under A; in the order of time within each series.
        loss_b: (N,) the same windows under B.
        block: Windows in a block; at least the number of windows that overlap. Default: the cube
            root of N, which is right only for windows that do not overlap.
        series: (N,) id of each window's series: blocks are drawn within series, and every series
            weighs the same. Default: one series.
        resamples: How many resamples.
        level: Of the confidence interval, between 0 and 1.
        seed: Of the draw.

    Returns:
        The mean difference, its percentile interval and a p-value.

    Raises:
        ValueError: Losses of different length or not finite, or an argument out of range.

    Example:
        >>> result = paired_bootstrap([1.0, 2.0, 1.0, 2.0], [3.0, 3.0, 3.0, 3.0], block=1)
        >>> result.mean_difference, result.lower, result.upper
        (-1.5, -2.0, -1.0)

    Source:
        Kuensch (1989), "The jackknife and the bootstrap for general stationary observations";
        Politis and Romano (1992) for the circular form.
    """
    difference = _difference(loss_a, loss_b)
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; wanted at least 1")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; wanted a share between 0 and 1, such as 0.95")
    length = round(len(difference) ** (1 / 3)) if block is None else int(block)
    if block is not None and block < 1:
        raise ValueError(f"block is {block}; wanted at least 1 window")
    length = max(length, 1)
    groups = _groups(difference, series)
    generator = np.random.default_rng(seed)
    drawn = np.zeros(resamples)
    for group in groups:
        drawn += _circular_means(group, min(length, len(group)), resamples, generator)
    drawn /= len(groups)
    mean = float(np.mean([group.mean() for group in groups]))
    tail = (1 - level) / 2
    lower, upper = np.quantile(drawn, [tail, 1 - tail])
    far = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p_value = min(1.0, 2 * (far + 1) / (resamples + 1))
    return PairedBootstrap(mean, float(lower), float(upper), p_value, length, resamples)


def _circular_means(
    values: Floats, block: int, resamples: int, generator: np.random.Generator
) -> Floats:
    """Means of resamples made of circular blocks, through running sums: no resample is built."""
    count = len(values)
    running = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values]))])
    whole, rest = divmod(count, block)
    starts = generator.integers(count, size=(resamples, whole + (rest > 0)))
    total = (running[starts[:, :whole] + block] - running[starts[:, :whole]]).sum(axis=1)
    if rest:
        total += running[starts[:, whole] + rest] - running[starts[:, whole]]
    return total / count


@dataclass(frozen=True)
class PairedTest:
    """The outcome of `paired_test`.

    Args:
        name: The test that was chosen, in words.
        statistic: Negative when A has the lower loss; NaN for a bootstrap, which has none.
        p_value: Two-sided.
        mean_difference: Mean of loss A minus loss B, every series weighing the same.
        observations: What the test counts: windows of the one series, or series.
        note: Why there is no real test, or "".
    """

    name: str
    statistic: float
    p_value: float
    mean_difference: float
    observations: int
    note: str = ""


def paired_test(
    loss_a: ArrayLike,
    loss_b: ArrayLike,
    *,
    horizon: int,
    series: ArrayLike | None = None,
    seed: int = 0,
) -> PairedTest:
    """Test whether A and B differ in mean loss, with the test that suits the data.

    - one series: Diebold-Mariano (see `diebold_mariano`);
    - ten series or more: Student's paired t over the series' mean losses, so that the thousands of
      overlapping windows of one series count once (series that move together make it too sure);
    - two to nine: a bootstrap of blocks of `horizon` windows within each series, for a t test over
      so few would see nothing.

    Args:
        loss_a: (N,) loss of each test window under A; in the order of time within each series.
        loss_b: (N,) the same windows under B.
        horizon: Windows that overlap: the horizon in steps over the stride of the windows,
            rounded up.
        series: (N,) id of each window's series. Default: one series.
        seed: Of the bootstrap.

    Returns:
        Which test, its statistic and p-value, the mean difference.

    Raises:
        ValueError: Losses of different length or not finite, or a horizon under 1.

    Example:
        >>> import numpy as np
        >>> a, b = np.arange(20.0), np.arange(20.0) + 1 + np.arange(20) % 2
        >>> result = paired_test(a, b, horizon=1, series=np.arange(20))
        >>> result.name, result.mean_difference, result.p_value < 0.01
        ('paired t over 20 series', -1.5, True)
    """
    difference = _difference(loss_a, loss_b)
    if horizon < 1:
        raise ValueError(f"horizon is {horizon}; wanted at least 1")
    groups = _groups(difference, series)
    count = len(groups)
    if count == 1:
        result = diebold_mariano(loss_a, loss_b, horizon)
        return PairedTest(
            "Diebold-Mariano (HLN)", result.statistic, result.p_value, result.mean_difference,
            len(difference), result.note,
        )  # fmt: skip
    means = np.array([group.mean() for group in groups])
    mean = float(means.mean())
    name = f"paired t over {count} series" if count >= 10 else f"block bootstrap in {count} series"
    if not difference.any():
        return PairedTest(name, 0.0, 1.0, 0.0, count, "the losses are identical")
    if count < 10:
        drawn = paired_bootstrap(loss_a, loss_b, block=horizon, series=series, seed=seed)
        shortest = min(len(group) for group in groups)
        if shortest <= horizon:
            note = f"{shortest} windows in a series are too few for a test at horizon {horizon}"
            return PairedTest(name, math.nan, 1.0, mean, count, note)
        return PairedTest(name, math.nan, drawn.p_value, mean, count)
    deviation = float(means.std(ddof=1))
    if deviation <= 8 * np.finfo(np.float64).eps * np.abs(means).max():
        note = "the difference is the same in every series"
        if mean == 0:
            return PairedTest(name, 0.0, 1.0, 0.0, count, note)
        return PairedTest(name, math.copysign(math.inf, mean), 0.0, mean, count, note)
    statistic = mean / (deviation / math.sqrt(count))
    return PairedTest(name, statistic, _two_sided(statistic, count - 1), mean, count)


# --- small helpers --------------------------------------------------------------------------------


def _two_sided(statistic: float, degrees: int) -> float:
    from scipy import stats  # half a second to import, and needed only here

    return float(2 * stats.t.sf(abs(statistic), degrees))


def group_codes(series: ArrayLike, windows: int) -> tuple[NDArray[np.intp], int]:
    """Number the series, one number for each window.

    Args:
        series: (N,) an id for each window.
        windows: N.

    Returns:
        (N,) numbers from 0, and how many series there are.

    Raises:
        ValueError: If there is not one id for each window.

    Example:
        >>> group_codes(["b", "a", "b"], 3)
        (array([1, 0, 1]), 2)
    """
    ids = np.asarray(series)
    if ids.shape != (windows,):
        raise ValueError(f"series has shape {ids.shape}; wanted one id a window, ({windows},)")
    names, code = np.unique(ids, return_inverse=True)
    return code, len(names)


def _groups(difference: Floats, series: ArrayLike | None) -> list[Floats]:
    """Split into series, each in the order in which its windows came."""
    if series is None:
        return [difference]
    code, count = group_codes(series, len(difference))
    order = np.argsort(code, kind="stable")
    ends = np.cumsum(np.bincount(code, minlength=count))[:-1]
    return np.split(difference[order], ends)


def _difference(loss_a: ArrayLike, loss_b: ArrayLike) -> Floats:
    first = np.asarray(loss_a, dtype=np.float64)
    second = np.asarray(loss_b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or len(first) == 0:
        raise ValueError(
            f"losses have shapes {first.shape} and {second.shape}; wanted one loss for each "
            "window, the same windows for both"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("losses must be finite; leave out windows that could not be scored")
    return first - second
