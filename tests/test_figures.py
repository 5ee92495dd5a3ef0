"""The figures hold the numbers that were given, and can be drawn."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from keras_seq.figures import (
    attention_figure,
    forecast_figure,
    forecast_grid,
    learning_curves_figure,
    quality_latency_figure,
)

PAST, TRUTH, FORECAST = np.arange(8.0), np.arange(8.0, 12.0), np.full(4, 8.5)


def drawn(figure):
    """Returns the pixels, and every text box that was drawn, by its text."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()), canvas.get_renderer()


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.lines}


def test_forecast_is_where_it_belongs():
    figure = forecast_figure(PAST, TRUTH, FORECAST, title="t", unit="MW")
    found = lines(figure.axes[0])
    np.testing.assert_array_equal(found["history"][:, 1], PAST)
    # The truth begins at the last known value, one step before the forecast.
    np.testing.assert_array_equal(found["truth"], [[-1, 7], [0, 8], [1, 9], [2, 10], [3, 11]])
    np.testing.assert_array_equal(found["forecast"][:, 0], [0, 1, 2, 3])
    assert figure.axes[0].get_ylabel() == "value [MW]"


def test_interval_and_times():
    times = np.datetime64("2024-01-01") + np.arange(12) * np.timedelta64(1, "D")
    figure = forecast_figure(
        PAST, TRUTH, FORECAST, lower=FORECAST - 1, upper=FORECAST + 2, times=times, title="t"
    )
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 7.5 and band[:, 1].max() == 10.5
    drawn(figure)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((PAST, TRUTH, FORECAST[:3]), {}),
        ((PAST, TRUTH, FORECAST), {"lower": FORECAST}),
        ((PAST, TRUTH, FORECAST), {"times": np.arange(5)}),
    ],
)
def test_what_does_not_fit_is_refused(arguments, options):
    with pytest.raises(ValueError, match="came"):
        forecast_figure(*arguments, title="t", **options)


def test_grid_puts_channels_in_rows():
    values = np.arange(2 * 8 * 3.0).reshape(2, 8, 3)
    figure = forecast_grid(
        values, values[:, :4], values[:, :4], channels=["a", "b", "c"], units={"b": "K"}, title="t"
    )
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["a", "b [K]", "c"]
    np.testing.assert_array_equal(lines(figure.axes[3])["history"][:, 1], values[1, :, 1])
    with pytest.raises(ValueError, match="give 3 and 2"):
        forecast_grid(values, values, values, channels=["a"], title="t")


@pytest.mark.parametrize("heads", [None, 1, 4, 6])
def test_attention_shows_the_weights(heads):
    shape = (5, 7) if heads is None else (heads, 5, 7)
    weights = np.random.default_rng(0).dirichlet(np.ones(7), size=shape[:-1])
    figure = attention_figure(weights, title="t")
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    # The colour bar is an axes without an image of its own; a spare panel is empty.
    np.testing.assert_array_equal(np.stack(shown[: heads or 1]), weights.reshape(-1, 5, 7))
    drawn(figure)


def test_attention_refuses_other_shapes():
    with pytest.raises(ValueError, match="heads, T, S"):
        attention_figure(np.zeros((2, 3, 4, 5)), title="t")


def test_learning_curves_mark_the_lowest_point():
    figure = learning_curves_figure({"a": [3.0, 1.0, 2.0], "b": [np.nan, 4.0], "empty": []})
    axes = figure.axes[0]
    rings = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "o"]
    assert rings == [[[2.0, 1.0]], [[2.0, 4.0]]]
    assert axes.get_yscale() == "linear"
    assert learning_curves_figure({"a": [30.0, 1.0]}).axes[0].get_yscale() == "log"


def test_front_of_quality_and_latency():
    points = {"slow": (9.0, 0.5), "good": (2.0, 0.3), "fast": (1.0, 0.4), "broken": (1.0, np.nan)}
    figure = quality_latency_figure(points, {"naive": 0.9})
    found = lines(figure.axes[0])
    np.testing.assert_array_equal(found["best up to that latency"], [[1.0, 0.4], [2.0, 0.3]])
    assert not any(label.startswith("broken") for label in found)
    assert any(label.startswith("naive") for label in found)
    assert figure.axes[0].get_ylabel().endswith("lower is better")
    # Where high is good, the front holds the slower one that is better, and not the worse.
    up = quality_latency_figure(
        {"fast": (1.0, 0.8), "slow": (2.0, 0.9), "worse": (3.0, 0.7)},
        score="accuracy",
        lower_is_better=False,
    )
    (front,) = [x for x in up.axes[0].lines if x.get_label() == "best up to that latency"]
    assert list(front.get_ydata()) == [0.8, 0.9]
    assert up.axes[0].get_ylabel() == "accuracy, higher is better"
    drawn(quality_latency_figure({}))


def test_labels_do_not_overlap():
    names = [f"architecture_{i}" for i in range(15)]
    for figure in (
        quality_latency_figure({n: (0.02 * 1.5**i, 0.4) for i, n in enumerate(names)}, {"n": 0.5}),
        learning_curves_figure({n: [1.0, 0.5] for n in names}),
    ):
        pixels, renderer = drawn(figure)
        axes = figure.axes[0]
        legend = axes.get_legend().get_window_extent(renderer)
        inside = axes.get_window_extent(renderer)
        assert legend.x0 >= inside.x1  # beside the picture, not on it
        assert legend.y0 >= 0 and legend.x1 <= pixels.shape[1]  # and not cut off
        boxes = [tick.get_window_extent(renderer) for tick in axes.get_xticklabels()]
        boxes = sorted((box for box in boxes if box.width), key=lambda box: box.x0)
        assert all(a.x1 <= b.x0 for a, b in pairwise(boxes))
