"""Alignments hold the weights that were given, and odd tokens break nothing."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console

from keras_seq.figures import alignment as module
from keras_seq.figures import (
    alignment_figure,
    alignment_html,
    alignment_text,
    length_figure,
)

SOURCE = ["A", "man", "in", "an", "orange", "hat", "."]
TARGET = ["Ein", "Mann", "mit", "Hut", "."]
ODD = [
    "رجل",
    "גבר",
    "帽子",
    "हिन्दी",
    "$x$",
    "\\frac{$",
    "a\nb\t",
    "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}",
    "",
    "\x1b[31m",
    "\u202e",
    "<i>&\"'",
    "\ud800",
]


def some(rows: int, columns: int, *heads: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(columns), size=(*heads, rows))


def drawn(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()), canvas.get_renderer()


def printed(shown, width: int = 80, **options) -> str:
    file = io.StringIO()
    Console(width=width, file=file, **options).print(shown)
    return file.getvalue()


# --- the picture


@pytest.mark.parametrize("heads", [(), (1,), (3,), (6,)])
def test_the_picture_holds_the_weights(heads):
    weights = some(5, 7, *heads)
    figure = alignment_figure(SOURCE, TARGET, weights, title="a title")
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    count = heads[0] if heads else 1
    np.testing.assert_array_equal(np.stack(shown[:count]), weights.reshape(-1, 5, 7))
    first = figure.axes[0]
    assert [label.get_text() for label in first.get_xticklabels()] == SOURCE
    assert [label.get_text() for label in first.get_yticklabels()] == TARGET
    drawn(figure)


@pytest.mark.parametrize(("source", "target"), [(7, 5), (1, 1), (30, 45), (200, 90)])
def test_labels_do_not_overlap_and_are_not_cut(source, target):
    names = [f"word{i}" for i in range(source)], [f"Wort{i}" for i in range(target)]
    figure = alignment_figure(*names, some(target, source), title="long " * 30)
    figure.set_dpi(60)
    pixels, renderer = drawn(figure)
    height, width = pixels.shape[:2]
    axes = figure.axes[0]
    across = [t.get_window_extent(renderer) for t in axes.get_xticklabels() if t.get_text()]
    down = [t.get_window_extent(renderer) for t in axes.get_yticklabels() if t.get_text()]
    assert all(a.x1 <= b.x0 + 1 for a, b in pairwise(sorted(across, key=lambda box: box.x0)))
    assert all(a.y1 <= b.y0 + 1 for a, b in pairwise(sorted(down, key=lambda box: box.y0)))
    title = next(text for text in figure.texts if "long" in text.get_text())
    boxes = [*across, *down, title.get_window_extent(renderer)]
    assert all(b.x0 >= -1 and b.x1 <= width + 1 and b.y1 <= height + 1 for b in boxes)
    assert width <= 60 * 20 and height <= 60 * 22


def test_odd_tokens_are_drawn():
    weights = some(len(ODD), len(ODD))
    figure = alignment_figure(ODD, ODD, weights, title=" ".join(ODD))
    drawn(figure)  # a missing shape would be a warning, a broken formula an error
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[0] == ODD[0] and labels[1] == ODD[1]  # matplotlib's font has them
    assert labels[4] == r"\$x\$" and labels[6] == "a·b·"
    long = alignment_figure(["x" * 50], ["y"], np.ones((1, 1)))
    assert long.axes[0].get_xticklabels()[0].get_text() == "x" * 21 + "…"


def test_other_fonts_are_borrowed(monkeypatch):
    """The dot stands only for what no font has: here a sign of matplotlib's STIX fonts."""
    sign = "の"
    assert module._families("abc é") == ("DejaVu Sans",)
    families = module._families(f"a{sign}")
    assert families[0] == "DejaVu Sans" and len(families) == 2
    assert not any("last" in name.lower() for name in module._fonts())
    assert module._plain(sign, families) == sign
    assert module._plain(sign, families[:1]) == "·"
    drawn(alignment_figure([sign], ["a"], np.ones((1, 1))))


# --- by length


@dataclass
class Bucket:
    shortest: int
    longest: int
    count: int
    score: float
    low: float
    high: float


def test_scores_by_length():
    one = [Bucket(1, 9, 1200, 30.0, 28.0, 33.0), Bucket(10, 10, 80, 25.0, 20.0, 26.0)]
    two = [Bucket(1, 9, 1200, 20.0, 19.0, 21.0), Bucket(10, 10, 80, 5.0, 6.0, 7.0)]
    figure = length_figure({"gru": one, "$copy": two}, score="chrF", unit="tokens")
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1 to 9\nn = 1,200", "10\nn = 80"]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_ls() == "-"]
    assert [line.get_ydata().tolist() for line in lines] == [[30, 25], [20, 5]]
    assert axes.get_ylabel() == "chrF, higher is better" and "tokens" in axes.get_xlabel()
    bars = [c.get_segments() for c in axes.collections]
    np.testing.assert_allclose([s[:, 1] for s in bars[0]], [[28, 33], [20, 26]])
    np.testing.assert_allclose([s[:, 1] for s in bars[1]], [[19, 21], [5, 7]])
    pixels, renderer = drawn(figure)
    legend = axes.get_legend().get_window_extent(renderer)
    assert legend.x0 >= axes.get_window_extent(renderer).x1 and legend.x1 <= pixels.shape[1]
    drawn(length_figure({}))
    with pytest.raises(ValueError, match="different buckets"):
        length_figure({"a": one, "b": one[:1]})


# --- the terminal


def test_the_terminal_shows_the_weights():
    weights = np.array([[0.9, 0.1, 0.0], [0.0, 0.3, 0.7]])
    shown = printed(alignment_text(["a", "b", "c"], ["x", "yy"], weights, title="one"))
    lines = [line.rstrip() for line in shown.splitlines()]
    # Shares of the largest weight, 0.9: all, a ninth; a third, seven ninths.
    assert lines == [
        "one",
        "1:a  2:b  3:c",
        "",
        "    1 2 3",
        " x  ██░░    a 0.90",
        "yy    ▒▒██  c 0.70",
    ]
    heads = np.stack([weights, weights[:, ::-1]])
    mean = printed(alignment_text(["a", "b", "c"], ["x", "yy"], heads)).splitlines()
    assert mean[3].rstrip().endswith("a 0.45") and mean[4].rstrip().endswith("a 0.35")


def test_levels_of_shade():
    found = [module._level(share) for share in (0.0, 0.04, 0.05, 0.3, 0.5, 0.74, 0.75, 1.0)]
    assert found == [0, 0, 1, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("columns", [1, 24, 25, 60])
def test_rows_are_not_broken(columns):
    source = [f"w{i}" for i in range(columns)]
    lines = printed(alignment_text(source, TARGET, some(5, columns))).splitlines()
    assert all(len(line) <= 80 for line in lines)
    rows = [line for line in lines if line.lstrip().startswith(tuple(f"{t} " for t in TARGET))]
    assert len(rows) == 5
    wide = 2 if columns <= 24 else 1
    for row, weights in zip(rows, some(5, columns), strict=True):
        cells = row[6 : 6 + wide * columns]
        dark = int(weights.argmax()) * wide
        assert cells[dark] == max(cells, key=" ░▒▓█".index)


def test_odd_tokens_do_not_steer_the_terminal():
    shown = alignment_text(ODD, ODD, some(len(ODD), len(ODD)), title="\x1b[2J")
    text = printed(shown, force_terminal=True, color_system=None)
    assert "\x1b[31m" not in text and "\x1b[2J" not in text and "\u202e" not in text
    assert "帽子" in text and "·[31m" in text
    # Markup in a token is text.
    assert "[red]" in printed(alignment_text(["[red]"], ["[b]"], np.ones((1, 1))))


# --- the page


class Page(HTMLParser):
    """Collects cells, texts of the two lines, and what would be loaded from elsewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[dict[str, str | None]] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        found = dict(attributes)
        self.loads += [str(found[name]) for name in ("src", "href", "srcset") if name in found]
        if tag == "td":
            self.cells.append(found)

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "span" and data.strip():
            self.words.append(data)


def test_the_page_holds_the_weights_and_loads_nothing():
    weights = some(5, 7)
    page = alignment_html(SOURCE, TARGET, weights, title="gru")
    found = Page(page)
    assert found.loads == [] and not re.search(r"https?:|//[a-z]|@import|url\(", page)
    held = np.zeros((5, 7))
    for cell in found.cells:
        held[int(cell["data-t"]), int(cell["data-s"])] = float(cell["data-w"])
    np.testing.assert_allclose(held, weights, rtol=1e-3)
    assert found.words == [*SOURCE, *TARGET]
    assert found.cells[0]["title"] == f"Ein: A {weights[0, 0]:.3f}"
    # The strongest cell is the darkest.
    darkness = [sum(int(c["style"][-6:][i : i + 2], 16) for i in (0, 2, 4)) for c in found.cells]
    assert int(np.argmin(darkness)) == int(weights.argmax())
    mean = Page(alignment_html(SOURCE, TARGET, some(5, 7, 4)))
    assert float(mean.cells[9]["data-w"]) == pytest.approx(some(5, 7, 4).mean(0)[1, 2], rel=1e-3)


def test_odd_tokens_are_escaped(tmp_path):
    tokens = [*ODD, "</script>", '"><script>alert(1)</script>']
    page = alignment_html(tokens, tokens, some(15, 15), title="</title><b>", separator="<")
    found = Page(page)
    assert found.tags.count("script") == 1 and "b" not in found.tags[:5] and "i" not in found.tags
    assert len(found.cells) == 15 * 15
    (tmp_path / "page.html").write_text(page, encoding="utf-8")


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_pointing_at_a_token_shows_what_it_goes_with(tmp_path):
    """In Chromium: the page is told that the mouse is over a token, and prints what it became."""
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed")
        pytest.skip("chromium is not installed")
    weights = np.array([[1.0, 0.0], [0.25, 0.5]])
    page = alignment_html(["a", "cat"], ["eine", "Katze"], weights)
    enter = """<script>document.querySelectorAll(".target span")[1]
        .dispatchEvent(new MouseEvent("mouseenter"))</script></body>"""
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", enter), encoding="utf-8")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/c"]
    done = subprocess.run(
        [program, *flags, "--disable-dev-shm-usage", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    source = re.search(r'class="line source">.*?</p>', done.stdout, re.S)
    spans = re.findall(r"<span[^>]*>", source[0] if source else "")
    # 0.25 and 0.5 of the largest weight, times 0.7.
    assert [re.search(r"[\d.]+(?=\))", span)[0] for span in spans] == ["0.176", "0.35"]
    assert re.search(r'<span class="on"[^>]*>Katze', done.stdout)


# --- what is refused


@pytest.mark.parametrize("function", [alignment_figure, alignment_text, alignment_html])
@pytest.mark.parametrize("shape", [(7, 5), (5,), (2, 2, 5, 7), (0, 5, 7)])
def test_what_does_not_fit_is_refused(function, shape):
    with pytest.raises(ValueError, match="came with 5 target and 7 source tokens"):
        function(SOURCE, TARGET, np.zeros(shape))


@pytest.mark.parametrize("function", [alignment_figure, alignment_text, alignment_html])
def test_weights_without_any_weight(function):
    """A row of padding, or a network that has diverged."""
    for value in (0.0, np.nan):
        found = function(["a", "b"], ["c"], np.full((1, 2), value))
        if function is alignment_figure:
            drawn(found)
        elif function is alignment_text:
            assert "█" not in printed(found)
        else:
            assert Page(found).cells[0]["data-w"] == "0"
