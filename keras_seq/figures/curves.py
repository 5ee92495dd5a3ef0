"""Pictures of forecasts, attention and leaderboards, as matplotlib Figures.

Nothing here touches pyplot: a Figure is a plain value that belongs to nobody, can be drawn in any
thread, and is gone when nobody holds it. Colours are those of Okabe and Ito (2008), which people
with every kind of colour vision can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

BLACK, GREY = "#000000", "#8a8a8a"
BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
COLOURS = (BLUE, RED, GREEN, "#cc79a7", ORANGE, "#56b4e9", BLACK, GREY)
STYLES = ("-", "--", "-.", ":")
MARKERS = "osD^vPpXhd"


def forecast_figure(
    history: np.ndarray,
    truth: np.ndarray,
    forecast: np.ndarray,
    *,
    lower: np.ndarray | None = None,
    upper: np.ndarray | None = None,
    times: Any = None,
    title: str,
    unit: str | None = None,
) -> Figure:
    """Draws a forecast against what came true.

    Args:
        history: The values that the model saw, (L,).
        truth: The values that came, (H,).
        forecast: The values forecast, (H,).
        lower: Lower end of the interval, (H,); given together with `upper`.
        upper: Upper end of the interval, (H,).
        times: The L + H times (numbers or datetimes); None counts steps, 0 is the first forecast.
        title: Title.
        unit: Unit of the values, for the axis.

    Returns:
        The figure.

    Raises:
        ValueError: If the shapes do not fit together.

    Example:
        >>> import numpy as np
        >>> past, truth = np.arange(8.0), np.arange(8.0, 12.0)
        >>> figure = forecast_figure(past, truth, np.full(4, 8.0), title="a line")
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['history', 'truth', 'forecast']
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    _forecast(axes, history, truth, forecast, lower, upper, times)
    axes.set_title(title, loc="left")
    axes.set_ylabel(f"value [{unit}]" if unit else "value")
    axes.set_xlabel("steps from the first forecast" if times is None else "time")
    _legend(figure, axes)
    return figure


def forecast_grid(
    history: np.ndarray,
    truth: np.ndarray,
    forecast: np.ndarray,
    *,
    lower: np.ndarray | None = None,
    upper: np.ndarray | None = None,
    channels: Sequence[str] | None = None,
    windows: Sequence[str] | None = None,
    title: str,
    units: Mapping[str, str] | None = None,
) -> Figure:
    """Draws several forecasts: a row for each channel, a column for each window.

    Args:
        history: (N, L, C), or (N, L) for one channel.
        truth: (N, H, C), or (N, H).
        forecast: Like `truth`.
        lower: Lower end of the interval, like `truth`; None draws none.
        upper: Upper end of the interval.
        channels: Names of the C channels.
        windows: Names of the N windows, such as the time of the first forecast.
        title: Title.
        units: Units by channel name.

    Returns:
        The figure.

    Raises:
        ValueError: If the shapes do not fit together.

    Example:
        >>> import numpy as np
        >>> past, truth = np.zeros((2, 8, 3)), np.zeros((2, 4, 3))
        >>> figure = forecast_grid(past, truth, truth + 1, title="two windows, three channels")
        >>> len(figure.axes)
        6
    """
    past, future, guess = (_with_channels(a) for a in (history, truth, forecast))
    low = None if lower is None else _with_channels(lower)
    high = None if upper is None else _with_channels(upper)
    count, _, width = past.shape
    channels = list(channels or (f"channel {i}" for i in range(width)))
    windows = list(windows or (f"window {i}" for i in range(count)))
    if len(channels) != width or len(windows) != count:
        raise ValueError(
            f"{len(channels)} names of channels and {len(windows)} of windows came for values of "
            f"shape {past.shape}: give {width} and {count}"
        )
    figure = Figure(figsize=(max(4.0, 3.2 * count), 0.9 + 1.6 * width), layout="constrained")
    grid = figure.subplots(width, count, sharex=True, sharey="row", squeeze=False)
    for row in range(width):
        for column in range(count):
            axes = grid[row, column]
            at = (column, slice(None), row)
            ends = (None if low is None else low[at], None if high is None else high[at])
            _forecast(axes, past[at], future[at], guess[at], *ends, None)
            if row == 0:
                axes.set_title(windows[column], fontsize=9)
            if column == 0:
                unit = (units or {}).get(channels[row])
                axes.set_ylabel(f"{channels[row]} [{unit}]" if unit else channels[row], fontsize=9)
    figure.suptitle(title, x=0.01, ha="left")
    figure.supxlabel("steps from the first forecast", fontsize=9)
    _legend(figure, grid[0, 0])
    return figure


def attention_figure(
    weights: np.ndarray,
    *,
    title: str,
    query_labels: Sequence[str] | None = None,
    key_labels: Sequence[str] | None = None,
) -> Figure:
    """Draws attention weights: a row asks, a column is asked; each row sums to 1.

    Args:
        weights: (T, S), or (heads, T, S): a panel for each head, on one scale of colours.
        title: Title.
        query_labels: Words for the T rows, such as tokens; None numbers the steps.
        key_labels: Words for the S columns.

    Returns:
        The figure.

    Raises:
        ValueError: If `weights` has another number of axes.

    Example:
        >>> import numpy as np
        >>> len(attention_figure(np.eye(5), title="identity").axes)  # the map, and its colour bar
        2
    """
    stack = np.asarray(weights)
    if stack.ndim not in (2, 3):
        raise ValueError(
            f"attention weights of shape {stack.shape} came: give (T, S), or (heads, T, S)"
        )
    stack = stack[None] if stack.ndim == 2 else stack
    heads, rows, keys = stack.shape
    columns = min(heads, 4)
    lines = -(-heads // columns)
    tall = 2.6 * np.clip(rows / keys, 0.35, 1.6)
    figure = Figure(
        figsize=(max(4.2, 2.6 * columns + 1.2), tall * lines + 1.2), layout="constrained"
    )
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for head, axes in enumerate(grid):
        if head >= heads:
            axes.set_axis_off()
            continue
        axes.imshow(
            stack[head],
            cmap="cividis",
            vmin=0.0,
            vmax=float(stack.max()) or 1.0,
            aspect="auto",
            interpolation="nearest",
        )
        if heads > 1:
            axes.set_title(f"head {head}", fontsize=9)
        for axis, labels in ((axes.xaxis, key_labels), (axes.yaxis, query_labels)):
            if labels is None:
                axis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
            else:
                axis.set_ticks(range(len(labels)), labels, fontsize=8)
        if key_labels is not None:
            axes.tick_params(axis="x", rotation=90)
    figure.suptitle(title, x=0.01, ha="left")
    figure.supxlabel("attended step (key)", fontsize=9)
    figure.supylabel("asking step (query)", fontsize=9)
    figure.colorbar(grid[0].images[0], ax=grid.tolist(), label="weight", shrink=0.9)
    return figure


def learning_curves_figure(
    curves: Mapping[str, Sequence[float]],
    *,
    title: str = "Learning curves",
    label: str = "validation loss",
    steps: str = "epoch",
    ring: bool = True,
) -> Figure:
    """Draws one curve for each run.

    Args:
        curves: Values by epoch (or other step), the first is number 1, by the run's name.
        title: Title.
        label: What the values are, with their unit.
        steps: What the steps are.
        ring: Whether a ring marks the lowest point of each.

    Returns:
        The figure. The values have a logarithmic axis if they are positive and span over 10 times.

    Example:
        >>> figure = learning_curves_figure({"lstm": [0.9, 0.5, 0.6], "linear": [0.7, 0.6]})
        >>> figure.axes[0].get_xlabel()
        'epoch'
    """
    figure = Figure(figsize=(8, max(3.6, 0.24 * len(curves) + 1.2)), layout="constrained")
    axes = figure.subplots()
    everything = np.concatenate([np.asarray(c, float) for c in curves.values()] or [np.zeros(0)])
    finite = everything[np.isfinite(everything)]
    if finite.size and finite.min() > 0 and finite.max() > 10 * finite.min():
        axes.set_yscale("log")
    for number, (name, curve) in enumerate(curves.items()):
        values = np.asarray(curve, float)
        epochs = np.arange(1, len(values) + 1)
        colour = COLOURS[number % len(COLOURS)]
        style = STYLES[number // len(COLOURS) % len(STYLES)]
        axes.plot(epochs, values, style, color=colour, lw=1.6, label=name)
        if ring and np.isfinite(values).any():
            best = int(np.nanargmin(values))
            axes.plot(epochs[best], values[best], "o", mfc="white", mec=colour, ms=6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=steps, ylabel=label)
    axes.set_title(title, loc="left")
    _quiet(axes)
    _legend(figure, axes)
    return figure


def quality_latency_figure(
    points: Mapping[str, tuple[float, float]],
    baselines: Mapping[str, float] | None = None,
    *,
    score: str = "MSE",
    lower_is_better: bool = True,
    title: str = "Quality against latency",
) -> Figure:
    """Draws each architecture as a point: milliseconds a prediction, and its score.

    A grey step joins those that no other beats in both.

    Args:
        points: `{name: (latency in ms, score)}`.
        baselines: `{name: score}`, drawn as horizontal lines.
        score: What the score is, with its unit.
        lower_is_better: Whether a low score is good.
        title: Title.

    Returns:
        The figure.

    Example:
        >>> points = {"lstm": (0.8, 0.40), "linear": (0.1, 0.37)}
        >>> figure = quality_latency_figure(points, {"naive": 1.3})
        >>> figure.axes[0].get_ylabel()
        'MSE, lower is better'
    """
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    names = [n for n, p in points.items() if np.isfinite(p).all() and p[0] > 0]
    sign = 1 if lower_is_better else -1
    ordered = sorted(names, key=lambda n: (points[n][0], sign * points[n][1]))
    best, front = np.inf, []
    for name in ordered:
        if sign * points[name][1] < best:
            best = sign * points[name][1]
            front.append(points[name])
    if len(front) > 1:
        axes.step(
            *zip(*front, strict=True),
            where="post",
            color=GREY,
            lw=1,
            label="best up to that latency",
        )
    for number, name in enumerate(ordered):
        # Named in the legend, not beside the point: names beside points lie on each other.
        milliseconds, value = points[name]
        axes.plot(
            milliseconds,
            value,
            MARKERS[number % len(MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            ms=8,
            mec="white",
            mew=0.5,
            label=f"{name}  ({value:.3g}, {milliseconds:.2g} ms)",
        )
    for number, (name, value) in enumerate((baselines or {}).items()):
        axes.axhline(
            value, color=BLACK, lw=1, ls=STYLES[1:][number % 3], label=f"{name}  ({value:.3g})"
        )
    if names:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    way = "lower" if lower_is_better else "higher"
    axes.set(xlabel="latency of one prediction [ms]", ylabel=f"{score}, {way} is better")
    axes.set_title(title, loc="left")
    _quiet(axes)
    _legend(figure, axes)
    return figure


def _forecast(
    axes: Axes,
    history: np.ndarray,
    truth: np.ndarray,
    forecast: np.ndarray,
    lower: np.ndarray | None,
    upper: np.ndarray | None,
    times: Any,
) -> None:
    history, truth, forecast = (np.asarray(a, float) for a in (history, truth, forecast))
    length, horizon = len(history), len(truth)
    if history.ndim != 1 or truth.shape != (horizon,) or forecast.shape != (horizon,):
        raise ValueError(
            f"history {history.shape}, truth {truth.shape} and forecast {forecast.shape} came: "
            "give (L,), (H,) and (H,)"
        )
    if (lower is None) != (upper is None):
        raise ValueError("one end of the interval came: give lower and upper, or neither")
    x = np.arange(-length, horizon) if times is None else np.asarray(times)
    if len(x) != length + horizon:
        raise ValueError(f"{len(x)} times came: give L + H = {length + horizon}")
    past, future = x[:length], x[length:]
    # The last known value begins the truth, so that the line has no hole.
    joined = np.concatenate([history[-1:], truth])
    axes.plot(past, history, color=GREY, lw=1.2, label="history")
    axes.plot(x[max(length - 1, 0) :], joined, color=BLACK, lw=1.3, label="truth")
    if lower is not None and upper is not None:
        axes.fill_between(
            future,
            np.asarray(lower, float),
            np.asarray(upper, float),
            color=BLUE,
            alpha=0.22,
            lw=0,
            label="interval",
        )
    marker = "o" if horizon <= 24 else None
    axes.plot(future, forecast, color=RED, lw=1.6, marker=marker, ms=3, label="forecast")
    axes.axvline(future[0], color=GREY, lw=0.8, ls=":")
    axes.margins(x=0.01)
    _quiet(axes)
    if np.issubdtype(x.dtype, np.datetime64):
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(maxticks=8)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _quiet(axes: Axes) -> None:
    axes.grid(color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _legend(figure: Figure, axes: Axes) -> None:
    """Names the lines to the right of the picture, where they cover nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    if len(figure.axes) > 1:
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
    else:
        axes.legend(
            handles, labels, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8
        )


def _with_channels(values: np.ndarray) -> np.ndarray:
    array = np.asarray(values, float)
    if array.ndim not in (2, 3):
        raise ValueError(f"values of shape {array.shape} came: give (N, T) or (N, T, C)")
    return array[..., None] if array.ndim == 2 else array
