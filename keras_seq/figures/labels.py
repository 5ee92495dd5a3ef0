"""Pictures of labels: what was taken for what, how far probabilities can be trusted, mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure

from keras_seq.figures.curves import BLACK, COLOURS, GREY, MARKERS

_MOST_CLASSES = 30  # beyond which counts cannot be read


class _Curve(Protocol):
    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def confusion_figure(matrix: np.ndarray, labels: Sequence[str], *, title: str) -> Figure:
    """Draws a confusion matrix: a row is the truth, a column the answer, a shade the row's share.

    Args:
        matrix: (K, K) counts.
        labels: Names of the K classes.
        title: Title.

    Returns:
        The figure. Of more than 30 classes the counts are left out.

    Raises:
        ValueError: If there are not as many labels as rows and columns.

    Example:
        >>> import numpy as np
        >>> figure = confusion_figure(np.array([[8, 2], [1, 9]]), ["bad", "good"], title="reviews")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['8', '2', '1', '9']
    """
    counts = np.asarray(matrix)
    size = len(labels)
    if counts.shape != (size, size):
        raise ValueError(f"a matrix of shape {counts.shape} came with {size} labels")
    side = min(max(2.6, 0.5 * size + 1.6), 12)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    shown = [label if len(label) <= 20 else label[:19] + "…" for label in labels]
    axes.set_xticks(range(size), shown, rotation=90 if size > 6 else 0, fontsize=8)
    axes.set_yticks(range(size), shown, fontsize=8)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    axes.set_title(title, loc="left")
    if size <= _MOST_CLASSES:
        for row in range(size):
            for column in range(size):
                dark = share[row, column] > 0.5
                axes.text(
                    column,
                    row,
                    f"{counts[row, column]:,}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if dark else BLACK,
                )
    return figure


def reliability_figure(curves: Mapping[str, _Curve], *, title: str) -> Figure:
    """Draws how often answers are right against how sure the model was of them.

    Args:
        curves: By name, what `keras_seq.evaluation.reliability` returns.
        title: Title.

    Returns:
        The figure. On the diagonal probabilities mean what they say; below it they are too sure.

    Example:
        >>> from keras_seq.evaluation import reliability
        >>> curve = reliability([True, False, True], [0.9, 0.8, 0.6])
        >>> len(reliability_figure({"gru": curve}, title="").axes[0].lines)  # and the diagonal
        2
    """
    figure = Figure(figsize=(4.2, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    for index, (name, curve) in enumerate(curves.items()):
        axes.plot(
            curve.confidence,
            curve.accuracy,
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=4,
            linewidth=1.2,
            label=name,
        )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="share that is right")
    axes.set_title(title, loc="left")
    if any(curves):
        axes.legend(frameon=False, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def mistakes_figure(
    mistakes: Sequence[tuple[str, str, str, float]], *, title: str, most: int = 160
) -> Figure:
    """Writes out examples that were labelled wrongly.

    Args:
        mistakes: Text, true label, answer, and confidence in it.
        title: Title.
        most: Characters of a text that are shown.

    Returns:
        The figure.

    Example:
        >>> figure = mistakes_figure([("Not bad.", "good", "bad", 0.9)], title="mistakes")
        >>> figure.axes[0].texts[0].get_text()
        'good, taken for bad (90 %)'
    """
    import textwrap

    figure = Figure(figsize=(8, 0.5 + 0.75 * max(len(mistakes), 1)), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(len(mistakes), 0))
    axes.set_title(title, loc="left")
    for row, (content, truth, answer, confidence) in enumerate(mistakes):
        said = f"{truth}, taken for {answer} ({confidence:.0%})".replace("%", " %")
        axes.text(0, row + 0.1, said, fontsize=8, weight="bold", va="top", parse_math=False)
        # What the font has no shape for would be a warning for each character.
        plain = "".join(c if c.isprintable() and ord(c) < 0x250 else "·" for c in content)
        short = textwrap.shorten(plain, most, placeholder=" ...") or "(empty)"
        axes.text(
            0,
            row + 0.4,
            textwrap.fill(short, 110),
            fontsize=8,
            va="top",
            parse_math=False,
        )
    return figure
