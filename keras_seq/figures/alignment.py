"""Which source tokens a target token looked at: as a figure, for a terminal, and as a page.

Weights have a row for each target token and a column for each source token: (T, S), or
(heads, T, S). Tokens may be of any script. Figures borrow an installed font for characters that
matplotlib's own lacks; what no font has is a dot.
"""

from __future__ import annotations

import html
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
from matplotlib.figure import Figure

from keras_seq.figures.curves import BLUE, COLOURS, MARKERS, attention_figure
from keras_seq.figures.text import printable, shade

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["alignment_figure", "alignment_html", "alignment_text", "length_figure"]

_FONT = "DejaVu Sans"  # comes with matplotlib
_LIKELY = ("cjk", "han", "noto", "unicode", "gothic", "hei", "ping", "malgun")  # wide ones
_STEP = 0.2  # inches from one token to the next
_LONGEST = 16.0  # inches of a panel; of more tokens only some are named
_NAME = 22  # characters of a token that are shown
_LEVELS = " ░▒▓█"  # a terminal that has no colours shows these
_COLUMNS = 24  # source tokens that have two characters of a terminal each


class _Bucket(Protocol):
    @property
    def shortest(self) -> int: ...

    @property
    def longest(self) -> int: ...

    @property
    def count(self) -> int: ...

    @property
    def score(self) -> float: ...

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


# ---- pictures -----------------------------------------------------------------------------------


def alignment_figure(
    source: Sequence[str], target: Sequence[str], weights: np.ndarray, *, title: str = ""
) -> Figure:
    """Draws an alignment: a row for each target token, a column for each source token.

    Args:
        source: S tokens.
        target: T tokens.
        weights: (T, S), or (heads, T, S) for a panel each. The darkest colour is 0, the lightest
            the largest weight.
        title: Title.

    Returns:
        The figure. A panel is at most 16 inches wide or high: of more tokens every second, third,
        ... is named.

    Raises:
        ValueError: If there are not as many weights as tokens.

    Example:
        >>> import numpy as np
        >>> figure = alignment_figure(["a", "cat"], ["eine", "Katze"], np.eye(2))
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['eine', 'Katze']
    """
    heads = _heads(source, target, weights)
    families = _families("".join([*source, *target, title]))
    figure = attention_figure(heads, title="")
    count = len(heads)
    columns = min(count, 4)
    lines = -(-count // columns)
    wide, high = (float(np.clip(_STEP * len(x), 1.2, _LONGEST)) for x in (source, target))
    longest = [max((len(_name(token)) for token in row), default=0) for row in (source, target)]
    # Room for the names, which stand above the columns and left of the rows, and the colour bar.
    figure.set_size_inches(
        columns * (wide + 0.2) + 0.08 * longest[1] + 1.7,
        lines * (high + 0.4) + 0.09 * longest[0] + 0.9,
    )
    every = [axes for axes in figure.axes if axes.images][:count]
    for panel, axes in enumerate(every):
        for axis, tokens in ((axes.xaxis, source), (axes.yaxis, target)):
            stride = -(-len(tokens) * _STEP // _LONGEST) if len(tokens) else 1
            places = range(0, len(tokens), int(max(stride, 1)))
            names = [_plain(_name(tokens[i]), families) for i in places]
            axis.set_ticks(places, names, fontsize=8, family=list(families))
        # Only the first row of panels has names above it; the axes are shared.
        axes.tick_params(
            axis="x", rotation=90, top=True, bottom=False,
            labeltop=panel < columns, labelbottom=False,
        )  # fmt: skip
    figure.supxlabel("source", fontsize=9)
    figure.supylabel("target", fontsize=9)
    if title:
        shown = textwrap.fill(_plain(title, families), int(11 * figure.get_figwidth()))
        figure.suptitle(shown, x=0.01, ha="left", fontsize=10, family=list(families))
    return figure


def length_figure(
    systems: Mapping[str, Sequence[_Bucket]],
    *,
    title: str = "Short and long sentences",
    score: str = "BLEU",
    unit: str = "words",
) -> Figure:
    r"""Draws a score by the length of the source, a line for each system.

    Args:
        systems: By name, what `keras_seq.evaluation.bleu_by_length` returns, for the same sources.
        title: Title.
        score: What the score is.
        unit: What the source was counted in.

    Returns:
        The figure. A bar at a point is its 95 % interval; below each bucket stands how many
        sentences are in it.

    Raises:
        ValueError: If the systems have different buckets.

    Example:
        >>> from keras_seq.evaluation import bleu_by_length
        >>> lines = ["a b c d", "a b c d e", "a b c d e f g h i j"]
        >>> found = bleu_by_length(lines, lines, [4, 5, 10], starts=(0, 6))
        >>> figure = length_figure({"copy": found})
        >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
        ['4 to 5\nn = 2', '10\nn = 1']
    """
    kinds = {tuple((b.shortest, b.longest, b.count) for b in found) for found in systems.values()}
    if len(kinds) > 1:
        raise ValueError(
            f"{', '.join(systems)} have different buckets: score them on the same sources, with "
            "the same starts"
        )
    buckets = next(iter(kinds), ())
    size = (max(5.0, 0.95 * len(buckets) + 2.8), max(3.6, 0.24 * len(systems) + 1.2))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    # Side by side, so that the intervals of two systems do not hide each other.
    spread = min(0.5, 0.09 * max(len(systems) - 1, 0))
    for number, (name, found) in enumerate(systems.items()):
        shift = spread * (number / (len(systems) - 1) - 0.5) if len(systems) > 1 else 0.0
        values = np.array([b.score for b in found], float)
        ends = np.array([[b.low for b in found], [b.high for b in found]], float).reshape(2, -1)
        # A percentile interval need not hold the score itself.
        bars = np.maximum(np.stack([values - ends[0], ends[1] - values]), 0)
        axes.errorbar(
            np.arange(len(values)) + shift,
            values,
            yerr=bars,
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            ms=5,
            lw=1.4,
            elinewidth=0.8,
            capsize=2,
            label=_plain(name, _families(name)),
        )
    names = [
        f"{low} to {high}\nn = {count:,}" if low < high else f"{low}\nn = {count:,}"
        for low, high, count in buckets
    ]
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_xlim(-0.5, max(len(names), 1) - 0.5)
    axes.set_ylim(bottom=0)
    axes.set(xlabel=f"{unit} of the source, and sentences", ylabel=f"{score}, higher is better")
    axes.set_title(title, loc="left")
    axes.grid(axis="y", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if systems:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    return figure


# ---- terminals ----------------------------------------------------------------------------------


def alignment_text(
    source: Sequence[str], target: Sequence[str], weights: np.ndarray, *, title: str = ""
) -> RenderableType:
    """Shows an alignment in a terminal: a row for each target token, shaded by weight.

    Args:
        source: S tokens; they are numbered, and their numbers stand above the columns.
        target: T tokens. Behind each stands the source token with the largest weight.
        weights: (T, S), or (heads, T, S), which are averaged.
        title: Title.

    Returns:
        What a rich console prints. It can be read without colours, and in 80 columns up to about
        24 source tokens; more have one character each instead of two.

    Raises:
        ValueError: If there are not as many weights as tokens.

    Example:
        >>> import numpy as np
        >>> from rich.console import Console
        >>> shown = alignment_text(["a", "cat"], ["eine", "Katze"], np.eye(2))
        >>> Console(width=40, no_color=True).print(shown)
        1:a  2:cat
        <BLANKLINE>
               1 2
         eine  ██    a 1.00
        Katze    ██  cat 1.00
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    mean = _heads(source, target, weights).mean(axis=0)
    largest = float(mean.max(initial=0.0)) or 1.0
    wide = 2 if len(source) <= _COLUMNS else 1
    legend = Text()
    for i, token in enumerate(source):
        legend.append(f"{'  ' if i else ''}{i + 1}:", style="dim")
        legend.append(printable(token))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True, overflow="ellipsis", max_width=_NAME)
    table.add_column(no_wrap=True, min_width=wide * len(source), overflow="crop")
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=_NAME + 6, style="dim")
    # Numbers that have no room for all their digits show the last one.
    numbers = "".join(f"{(i + 1) % (100 if wide == 2 else 10):<{wide}}" for i in range(len(source)))
    table.add_row("", Text(numbers, style="dim"), "")
    for token, row in zip(target, mean, strict=True):
        cells = Text(style=BLUE)
        for share in row / largest:
            cells.append(_LEVELS[_level(float(share))] * wide)
        best = int(row.argmax()) if row.size and row.max() > 0 else None
        said = "" if best is None else f"{printable(source[best])} {row[best]:.2f}"
        table.add_row(Text(printable(token)), cells, Text(said))
    parts: list[RenderableType] = [Text(printable(title), style="bold")] if title else []
    return Group(*parts, legend, Text(""), table)


def _level(share: float) -> int:
    """0 to 4: below a twentieth of the largest weight nothing is shown."""
    if share < 0.05:
        return 0
    return min(1 + int(share * (len(_LEVELS) - 1)), len(_LEVELS) - 1)


# ---- pages --------------------------------------------------------------------------------------

_STYLE = """
body{font:16px/1.6 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em;
  color:#000;background:#fff}
.line{margin:.4em 0}.line b{display:inline-block;min-width:4em;font-weight:normal;color:#555}
.line span{padding:.1em .25em;border-radius:3px;white-space:pre;cursor:default}
.frame{overflow-x:auto}table{border-collapse:collapse;margin:1em 0}
td{width:1.7em;min-width:1.7em;height:1.7em;border:1px solid #eee}
th{font-weight:normal;text-align:right;padding:0 .5em;white-space:pre}
thead th{writing-mode:vertical-rl;transform:rotate(180deg);text-align:left;
  vertical-align:middle;padding:.5em 0}
.on{outline:2px solid #000}
"""
# The weights are in the cells; the script only reads them from there. Without it the cells still
# have their colours and say their weights.
_SCRIPT = """
(function () {
  const cells = [...document.querySelectorAll("td")], words = {};
  for (const kind of ["source", "target"])
    words[kind] = [...document.querySelectorAll("." + kind + " span")];
  const heads = [...document.querySelectorAll("th[data-i]")];
  const largest = Math.max(1e-9, ...cells.map(c => +c.dataset.w));
  function clear() {
    for (const e of document.querySelectorAll(".on")) e.classList.remove("on");
    for (const e of [...words.source, ...words.target]) e.style.background = "";
  }
  function show(t, s) {  // either may be null: then all cells of the other's row or column count
    clear();
    for (const c of cells) {
      if ((t !== null && c.dataset.t !== t) || (s !== null && c.dataset.s !== s)) continue;
      const other = t !== null ? words.source[+c.dataset.s] : words.target[+c.dataset.t];
      other.style.background = "rgba(0,114,178," + 0.7 * c.dataset.w / largest + ")";
      if (t !== null && s !== null) c.classList.add("on");
    }
    if (t !== null) words.target[+t].classList.add("on");
    if (s !== null) words.source[+s].classList.add("on");
  }
  function listen(e, t, s) {
    e.addEventListener("mouseenter", () => show(t, s));
    e.addEventListener("mouseleave", clear);
  }
  for (const c of cells) listen(c, c.dataset.t, c.dataset.s);
  words.target.forEach((e, i) => listen(e, "" + i, null));
  words.source.forEach((e, i) => listen(e, null, "" + i));
  for (const e of heads)
    e.dataset.k === "t" ? listen(e, e.dataset.i, null) : listen(e, null, e.dataset.i);
})();
"""


def alignment_html(
    source: Sequence[str],
    target: Sequence[str],
    weights: np.ndarray,
    *,
    title: str = "Alignment",
    separator: str = " ",
) -> str:
    """Makes a page of an alignment: a token that is pointed at shows what it goes with.

    Args:
        source: S tokens.
        target: T tokens.
        weights: (T, S), or (heads, T, S), which are averaged.
        title: Title.
        separator: What stands between two tokens of a sentence.

    Returns:
        One HTML page that needs nothing else.

    Raises:
        ValueError: If there are not as many weights as tokens.

    Example:
        >>> import numpy as np
        >>> page = alignment_html(["a", "cat"], ["eine", "Katze"], np.eye(2))
        >>> page.count("<td"), 'title="Katze: cat 1.000"' in page
        (4, True)
    """
    mean = _heads(source, target, weights).mean(axis=0)
    largest = float(mean.max(initial=0.0)) or 1.0
    ours, theirs = ([html.escape(_clean(token)) for token in row] for row in (source, target))

    def line(kind: str, tokens: Sequence[str]) -> str:
        spans = html.escape(separator).join(f"<span>{token}</span>" for token in tokens)
        return f'<p class="line {kind}"><b lang="en">{kind}</b><bdi>{spans}</bdi></p>\n'

    top = "".join(
        f'<th data-k="s" data-i="{i}" scope="col"><bdi>{name}</bdi></th>'
        for i, name in enumerate(ours)
    )
    rows = []
    for t, (name, row) in enumerate(zip(theirs, mean, strict=True)):
        cells = "".join(
            f'<td data-t="{t}" data-s="{s}" data-w="{weight:.4g}"'
            f' title="{name}: {ours[s]} {weight:.3f}"'
            f' style="background:{shade(float(weight) / largest)}"></td>'
            for s, weight in enumerate(row)
        )
        head = f'<th data-k="t" data-i="{t}" scope="row"><bdi>{name}</bdi></th>'
        rows.append(f"<tr>{head}{cells}</tr>\n")
    heading = html.escape(_clean(title))
    return (
        '<!doctype html>\n<html lang="und"><head><meta charset="utf-8">'
        f"<title>{heading}</title><style>{_STYLE}</style></head><body>\n<h1>{heading}</h1>\n"
        f"{line('source', ours)}{line('target', theirs)}"
        '<p lang="en">The darker, the more weight. Point at a token or a cell.</p>\n'
        f'<div class="frame"><table><thead><tr><th></th>{top}</tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div>\n"
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def _clean(text: str) -> str:
    """A lone surrogate cannot be written to a file, and control signs have no shape."""
    return printable(text).encode("utf-8", "replace").decode("utf-8")


# ---- small helpers ------------------------------------------------------------------------------


def _heads(source: Sequence[str], target: Sequence[str], weights: np.ndarray) -> np.ndarray:
    """(heads, T, S) in float64; what is not a number counts as 0."""
    stack = np.asarray(weights, np.float64)
    stack = stack[None] if stack.ndim == 2 else stack
    if stack.ndim != 3 or stack.shape[1:] != (len(target), len(source)) or not stack.size:
        raise ValueError(
            f"weights of shape {np.shape(weights)} came with {len(target)} target and "
            f"{len(source)} source tokens: give (T, S) or (heads, T, S), T and S at least 1"
        )
    return np.nan_to_num(stack)


def _name(token: str) -> str:
    return token if len(token) <= _NAME else token[: _NAME - 1] + "…"


def _plain(text: str, families: Sequence[str]) -> str:
    """As it can be drawn: a dot for what no font has, and a dollar is no formula."""
    known = [_charmap(_fonts()[family]) for family in families]
    shown = "".join(
        c if unicodedata.category(c)[0] != "C" and any(ord(c) in m for m in known) else "·"
        for c in text
    )
    return shown.replace("$", r"\$")


@lru_cache(maxsize=64)
def _families(text: str) -> tuple[str, ...]:
    """The fonts that a text needs: matplotlib's own, and installed ones for what it lacks."""
    found = [_FONT]
    missing = {ord(c) for c in text if unicodedata.category(c)[0] not in "CZ"}
    missing -= _charmap(_fonts()[_FONT])
    for name, path in _fonts().items():
        if not missing:
            break
        covered = missing & _charmap(path)
        if covered:
            found.append(name)
            missing -= covered
    return tuple(found)


@lru_cache(maxsize=1)
def _fonts() -> dict[str, str]:
    """Files of the upright fonts by name, those first that have many characters."""
    from matplotlib.font_manager import fontManager

    found = {f.name: f.fname for f in fontManager.ttflist if f.style == "normal" == f.variant}
    plain = {f.name for f in fontManager.ttflist if f.weight in (400, "normal", "regular")}
    # The last resort has a box for everything, which says less than a dot.
    names = [n for n in found if n in plain and "last" not in n.lower()]
    names.sort(key=lambda n: (not any(part in n.lower() for part in _LIKELY), n))
    return {name: str(found[name]) for name in names}


@lru_cache(maxsize=4096)
def _charmap(path: str) -> frozenset[int]:
    from matplotlib.font_manager import get_font

    return frozenset(get_font(path).get_charmap())
