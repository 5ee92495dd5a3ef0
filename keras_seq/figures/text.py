"""Pictures of texts, each token on a ground that says how much it counts."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from keras_seq.figures.curves import BLUE, ORANGE

_FONT = "DejaVu Sans Mono"  # comes with matplotlib; all its characters have one width
_SIZE = 9.0  # points
_ADVANCE = 0.64 * _SIZE  # of one character, in points: 0.602, rounded up to a pixel at 72 dpi
_LEADING = 1.9 * _SIZE


def text_figure(
    texts: Sequence[tuple[str, Sequence[str], np.ndarray]],
    *,
    title: str,
    separator: str = " ",
    columns: int = 100,
    most_lines: int = 14,
) -> Figure:
    """Draws texts with a ground of blue under what speaks for, of orange under what speaks against.

    Args:
        texts: A heading, T tokens and their weights (T,) of each text. The strongest colour goes to
            the largest absolute weight of its text.
        title: Title.
        separator: What stands between two tokens.
        columns: Characters of a line.
        most_lines: Lines of a text that are drawn; the rest is left out.

    Returns:
        The figure. A character that the font has not is drawn as a dot.

    Raises:
        ValueError: If there are not as many weights as tokens.

    Example:
        >>> import numpy as np
        >>> texts = [("good (90 %)", ["not", "bad"], np.array([0.5, -0.1]))]
        >>> [text.get_text() for text in text_figure(texts, title="").axes[0].texts]
        ['good (90 %)', 'not', 'bad']
    """
    placed: list[tuple[int, int, str, float | None]] = []  # line, column, text; None: heading
    line = 0
    for heading, tokens, weights in texts:
        if len(tokens) != len(weights):
            raise ValueError(f"{len(weights)} weights came with {len(tokens)} tokens")
        placed.append((line, 0, drawable(heading), None))
        line += 1
        first, column = line, 0
        for token, share in zip(tokens, shares(weights), strict=True):
            if separator and column and token.startswith("##") and len(token) > 2:
                token, column = token[2:], column - len(separator)  # the rest of a word
            for part in _parts(drawable(token), columns):
                if column and column + len(part) > columns:
                    line, column = line + 1, 0
                if line - first >= most_lines:
                    break
                placed.append((line, column, part, float(share)))
                column += len(part)
            column += len(separator) if column else 0
        line = min(line, first + most_lines - 1) + 2
    above = 2.4 if title else 1.0  # lines over the first
    figure = Figure(
        figsize=((columns + 3) * _ADVANCE / 72, (above + max(line, 2) - 0.5) * _LEADING / 72)
    )
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    # One unit is a character across, a line down.
    axes.set(xlim=(-1, columns + 2), ylim=(max(line, 2) - 0.5, -above))
    if title:
        figure.text(_ADVANCE / 72 / figure.get_figwidth(), 0.99, title, va="top", parse_math=False)
    for row, column, part, weight in placed:
        axes.text(
            column,
            row,
            part,
            family=_FONT,
            fontsize=_SIZE,
            weight="bold" if weight is None else "normal",
            va="baseline",
            parse_math=False,
            bbox=None
            if weight is None or abs(weight) < 0.02
            else {"facecolor": shade(weight), "edgecolor": "none", "pad": 1.2},
        )
    return figure


def shares(weights: np.ndarray) -> np.ndarray:
    """Scales weights so that the largest absolute one is 1.

    Args:
        weights: (T,), signed.

    Example:
        >>> shares(np.array([1.0, -2.0, 0.0])).tolist()
        [0.5, -1.0, 0.0]
    """
    weights = np.nan_to_num(np.asarray(weights, np.float64))
    largest = np.abs(weights).max(initial=0.0)
    return weights / largest if largest > 0 else weights


def shade(share: float) -> str:
    """Returns a colour that black text can be read on: blue above 0, orange below.

    Args:
        share: -1 to 1.

    Example:
        >>> shade(0.0), shade(1.0) != shade(-1.0)
        ('#ffffff', True)
    """
    colour = BLUE if share > 0 else ORANGE
    full = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    part = 0.7 * min(abs(share), 1.0)
    return "#" + "".join(f"{round(255 + (value - 255) * part):02x}" for value in full)


def _parts(text: str, columns: int) -> list[str]:
    """A token longer than a line is cut."""
    return [text[i : i + columns] for i in range(0, len(text), columns)]


def drawable(text: str) -> str:
    """Puts a dot for what matplotlib's font has no shape for: each would be a warning.

    Args:
        text: Any text.

    Returns:
        A text of the same length.

    Example:
        >>> drawable("déjà 東京")
        'déjà ··'
    """
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont(_FONT)).get_charmap()
    return "".join(
        c if ord(c) in known and unicodedata.category(c)[0] not in "CM" else "·" for c in text
    )


def printable(text: str) -> str:
    r"""Puts a dot for what would steer a terminal; joiners hold emoji together.

    Args:
        text: Any text.

    Example:
        >>> printable("red \x1b[31m")
        'red ·[31m'
    """
    return "".join(c if c.isprintable() or c in "\u200c\u200d" else "·" for c in text)
