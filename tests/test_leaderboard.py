from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from keras_seq.errors import UserError
from keras_seq.leaderboard import Leaderboard, Row

DM = "Diebold-Mariano (HLN)"


def paired(against: str, statistic: float, p: float) -> dict:
    return {"test": DM, "against": against, "statistic": statistic, "p": p}


def make(*rows: Row, **options) -> Leaderboard:
    options = {"title": "Tiny", "task": "forecasting", "primary": "mse_scaled", **options}
    return Leaderboard(rows=list(rows), **options)


def scored(name: str, mse: float, **options) -> Row:
    return Row(architecture=name, scores={"mse_scaled": mse}, **options)


NAIVE = scored("seasonal_naive", 0.5, baseline=True)
RIDGE = scored("ridge", 0.4, baseline=True)


@pytest.fixture
def board() -> Leaderboard:
    return make(
        Row(
            architecture="lstm",
            parameters=12345,
            options={"width": 64, "learning_rate": 0.001},
            seeds=2,
            scores={"mse_scaled": 1 / 3, "mae_scaled": 0.5, "coverage_80": 0.9},
            spreads={"mse_scaled": 0.0125, "mae_scaled": 0.25},
            seconds_per_epoch=2.5,
            epochs=10.5,
            train_seconds=100,
            latency_ms=0.125,
            size_kb=1234.5,
            tests={"vs_baseline": paired("ridge", -3.25, 0.0004)},
        ),
        Row(
            architecture="a|b_<c>",
            status="failed",
            note="ValueError: 50 % of\n[x] & $y$ | <script>alert(1)</script>",
        ),
        Row(
            architecture="seasonal_naive",
            baseline=True,
            parameters=0,
            scores={"mse_scaled": 0.5, "mae_scaled": 0.4, "coverage_80": 0.99},
        ),
        Row(architecture="ridge", baseline=True, scores={"mse_scaled": 0.375}),
        metadata={"command": "keras-seq compare --out a_b", "windows": 2785, "seeds": [0, 1]},
        labels={"mse_scaled": "MSE"},
    )


# ------------------------------------------------------------------ ranking


def test_rows_are_ranked_by_the_primary_score_and_failed_ones_come_last():
    board = make(
        Row(architecture="broken", status="failed", note="why"),
        Row(architecture="later", status="waiting"),
        scored("b", 2.0),
        scored("nan", math.nan),
        scored("a", 2.0),
        scored("c", 1.0),
    )
    assert [r.architecture for r in board.ranked()] == ["c", "a", "b", "nan", "later", "broken"]
    board.lower_is_better = False
    assert [r.architecture for r in board.ranked()][:3] == ["a", "b", "c"]


def test_skill_is_the_share_of_the_reference_error_taken_away():
    row = scored("gru", 0.2)
    assert make(row, NAIVE).skill(row) == pytest.approx(1 - 0.2 / 0.5)
    assert math.isnan(make(row).skill(row))
    # Accuracy: of the half that the reference has wrong, 0.9 has four fifths right.
    good = scored("gru", 0.9)
    assert make(good, NAIVE, lower_is_better=False).skill(good) == pytest.approx(0.8)
    # A score without an upper end.
    high = scored("gru", 1.5)
    assert make(high, NAIVE, lower_is_better=False).skill(high) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("name", "way"),
    [("macro_f1", "higher"), ("auc", "higher"), ("known_accuracy", "higher"), ("mae", "lower")],
)
def test_which_way_a_score_is_better(name: str, way: str):
    assert make().direction(name) == way


def test_a_wrong_status_is_refused():
    with pytest.raises(ValueError, match=r"'lost'.*ok, running, waiting, failed"):
        Row(architecture="gru", status="lost")


# ------------------------------------------------------------------ verdict


def test_verdict_when_a_network_wins_clearly():
    winner = scored("tcn", 0.38, seeds=3, tests={"vs_baseline": paired("ridge", -3.2, 0.0012)})
    second = scored("gru", 0.45, tests={"x": paired("tcn", 2.5, 0.02)})
    assert make(winner, second, RIDGE, NAIVE).verdict() == [
        "tcn wins: MSE scaled 0.3800, 5.0 % better than the best baseline, ridge (0.4000); "
        f"the difference is more than chance by {DM}, p = 0.001.",
        f"Runner-up: gru (0.4500), 18.4 % behind; the difference is more than chance by {DM}, "
        "p = 0.020.",
        "Every architecture beats the reference, seasonal_naive (0.5000).",
        "Does NOT beat the best baseline, ridge (0.4000): gru (0.4500).",
    ]


def test_verdict_when_the_lead_is_within_noise():
    winner = scored("tcn", 0.39, seeds=1, tests={"vs_baseline": paired("ridge", -0.5, 0.62)})
    assert make(winner, RIDGE, NAIVE).verdict() == [
        "tcn comes first: MSE scaled 0.3900, 2.5 % better than the best baseline, ridge (0.4000), "
        f"but the difference is within noise by {DM}, p = 0.620: treat the two as equal.",
        "It beats the reference, seasonal_naive (0.5000).",
        "One seed only: a small difference between two networks may not last with another.",
    ]


def test_verdict_when_the_baseline_wins():
    rows = [
        scored("gru", 0.6, tests={"vs_baseline": paired("ridge", 4.0, 1e-6)}),
        scored("tcn", 0.44, tests={"vs_baseline": paired("ridge", 2.5, 0.014)}),
    ]
    assert make(*rows, RIDGE, NAIVE).verdict() == [
        "The baseline wins: ridge, MSE scaled 0.4000. The best network, tcn (0.4400), is "
        f"10.0 % worse; the difference is more than chance by {DM}, p = 0.014.",
        "Does NOT beat the reference, seasonal_naive (0.5000): gru (0.6000).",
        "No architecture beats the best baseline, ridge (0.4000).",
    ]


def test_verdict_when_the_test_contradicts_or_is_missing_or_undefined():
    for test, end in (
        ({}, "; no paired test was made."),
        ({"t": paired("ridge", 2.4, 0.01)}, ", but the paired test points the other way by"),
        ({"t": paired("ridge", math.nan, math.nan)}, f"; the paired test, {DM}, could not be"),
    ):
        first = make(scored("tcn", 0.3, tests=test), RIDGE).verdict()[0]
        assert f"25.0 % better than the best baseline, ridge (0.4000){end}" in first
        assert first.startswith("tcn wins") == (not test)


def test_verdict_of_an_ensemble_names_the_best_single_network():
    ensemble = scored("ensemble", 0.36, ensemble=True, tests={"t": paired("gru", -1.0, 0.32)})
    said = make(ensemble, scored("gru", 0.375), RIDGE).verdict()
    assert said[0].startswith("The ensemble wins: MSE scaled 0.3600, 10.0 % better than")
    assert said[1].startswith("Best single network: gru (0.3750), 4.2 % behind, but the difference")


def test_verdict_of_small_boards():
    assert make(scored("gru", 0.4)).verdict() == [
        "gru comes first: MSE scaled 0.4000; the table has no baseline to hold it against."
    ]
    assert make(RIDGE).verdict() == [
        "Only baselines have finished; the best is ridge: MSE scaled 0.4000."
    ]
    assert make().verdict() == ["No row has finished: there is nothing to rank."]
    assert make(scored("gru", 0.6), NAIVE).verdict() == [
        "The baseline wins: seasonal_naive, MSE scaled 0.5000. The best network, gru (0.6000), "
        "is 20.0 % worse; no paired test was made.",
        "No architecture beats the reference, seasonal_naive (0.5000).",
    ]
    assert make(scored("gru", 0.5), NAIVE).verdict()[0].startswith("gru comes first") is False


def test_an_exact_tie_counts_as_not_beaten():
    said = make(scored("zebra", 0.5), NAIVE).verdict()
    assert "zebra (0.5000), is level with it; no paired test" in said[0]
    assert said[1] == "No architecture beats the reference, seasonal_naive (0.5000)."


def test_verdict_names_failed_and_unfinished_rows():
    said = make(
        scored("gru", 0.3),
        NAIVE,
        Row(architecture="tcn", status="failed", note="out of\nmemory"),
        Row(architecture="cnn", status="running"),
        Row(architecture="mlp", status="waiting"),
        scored("rnn", math.inf),
    ).verdict()
    assert said[-3:] == [
        "rnn has no finite MSE scaled, so it has no rank.",
        "tcn failed: out of memory",
        "Not finished yet: cnn, mlp.",
    ]


def test_verdict_where_higher_is_better():
    said = make(
        Row(architecture="gru", scores={"accuracy": 0.9}),
        Row(architecture="majority", baseline=True, scores={"accuracy": 0.6}),
        primary="accuracy",
        lower_is_better=False,
        reference="majority",
    ).verdict()
    assert said == [
        "gru wins: accuracy 0.9000, 50.0 % better than the best baseline, majority (0.6000); "
        "no paired test was made."
    ]


# ------------------------------------------------------------------ csv, json, files


def test_csv_reads_back_with_pandas(board: Leaderboard):
    frame = board.to_frame()
    assert list(frame.columns[:14]) == [
        "rank",
        "architecture",
        "baseline",
        "status",
        "parameters",
        "mse_scaled",
        "mse_scaled_spread",
        "mae_scaled",
        "mae_scaled_spread",
        "coverage_80",
        "coverage_80_spread",
        "seconds_per_epoch",
        "latency_ms",
        "size_kb",
    ]
    assert list(frame["architecture"]) == ["lstm", "ridge", "seasonal_naive", "a|b_<c>"]
    assert list(frame["baseline"]) == [False, True, True, False]
    assert list(frame["rank"][:3]) == [1, 2, 3] and math.isnan(frame["rank"][3])
    assert frame["mse_scaled"][0] == pytest.approx(1 / 3, rel=1e-9)
    assert frame["learning_rate"][0] == 0.001 and frame["epochs"][0] == 10.5
    assert frame["skill_vs_reference"][1] == 0.25
    assert frame["vs_baseline_against"][0] == "ridge" and frame["vs_baseline_p"][0] == 0.0004
    assert json.loads(frame["options"][0]) == {"width": 64, "learning_rate": 0.001}
    assert frame["note"][3] == "ValueError: 50 % of [x] & $y$ | <script>alert(1)</script>"
    assert frame["mse_scaled_spread"].isna().tolist() == [False, True, True, True]


def test_csv_does_not_depend_on_the_order_in_which_rows_finished(board: Leaderboard):
    again = make(*reversed(board.rows), metadata=board.metadata, labels=board.labels)
    assert again.to_csv() == board.to_csv()
    assert ",true,ok,," in board.to_csv() and "\r" not in board.to_csv()


def test_write_and_read_give_the_same_board(board: Leaderboard, tmp_path: Path):
    board.rows[0].spreads["coverage_80"] = math.nan
    paths = board.write(tmp_path / "new" / "folder")
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == sorted(
        p.name for p in paths
    )
    assert {p.suffix for p in paths} == {".csv", ".md", ".html", ".tex", ".json"}
    again = Leaderboard.read(tmp_path / "new" / "folder")
    assert math.isnan(again.rows[0].spreads["coverage_80"])
    for make_text in (Leaderboard.to_csv, Leaderboard.to_markdown, Leaderboard.to_html):
        assert make_text(again) == make_text(board)
    before = {p: p.read_bytes() for p in paths}
    again.write(tmp_path / "new" / "folder")
    assert {p: p.read_bytes() for p in paths} == before


def test_numpy_scores_are_written_like_floats(tmp_path: Path):
    import numpy as np

    row = Row(architecture="gru", parameters=np.int64(7), scores={"mse_scaled": np.float32(0.25)})
    board = make(row)
    board.write(tmp_path)
    assert Leaderboard.read(tmp_path).rows[0].parameters == 7
    assert "1,gru,false,ok,7,0.25," in board.to_csv()


def test_a_failing_write_keeps_the_old_file_and_leaves_nothing_half(
    board: Leaderboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    board.write(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    real = Path.write_text

    def full_disk(self, text, **options):
        real(self, text[:10], **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    board.title = "other"
    with pytest.raises(OSError, match="No space left"):
        board.write(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_read_says_what_is_wrong(board: Leaderboard, tmp_path: Path):
    with pytest.raises(UserError, match=r"no leaderboard\.json in .*: give the folder"):
        Leaderboard.read(tmp_path)
    text = board.to_json()
    for damaged in (text[:100], "[]", "", text.replace('"primary"', '"first"')):
        (tmp_path / "leaderboard.json").write_text(damaged)
        with pytest.raises(UserError, match="damaged"):
            Leaderboard.read(tmp_path)
    (tmp_path / "leaderboard.json").write_text(text.replace('"format": 1', '"format": 9'))
    with pytest.raises(UserError, match="format 9, this version reads 1"):
        Leaderboard.read(tmp_path)


# ------------------------------------------------------------------ what people read


def test_markdown_of_a_tiny_board_is_exactly_this(board: Leaderboard):
    want = r"""# Tiny

- lstm wins: MSE 0.3333, 11.1 % better than the best baseline, ridge (0.3750); the difference is more than chance by Diebold-Mariano (HLN), p < 0.001.
- It beats the reference, seasonal_naive (0.5000).
- a\|b\_\<c> failed: ValueError: 50 % of [x] & $y$ \| \<script>alert(1)\</script>

| rank | architecture     |                MSE |   skill |       vs ridge | parameters | s per epoch | latency ms | size KB |     MAE scaled | coverage 80 |
|-----:|------------------|-------------------:|--------:|---------------:|-----------:|------------:|-----------:|--------:|---------------:|------------:|
|    1 | lstm             | **0.3333 ±0.0125** | +33.3 % | better < 0.001 |     12,345 |        2.50 |       0.12 |   1,234 | 0.5000 ±0.2500 |      0.9000 |
|    2 | *ridge*          |             0.3750 | +25.0 % |                |            |             |            |         |                |             |
|    3 | *seasonal_naive* |             0.5000 |  +0.0 % |                |          0 |             |            |         |     **0.4000** |      0.9900 |
|      | a\|b\_\<c>       |             failed |         |                |            |             |            |         |                |             |

Ranked by MSE on the test part (lower is better), 2785 windows; mean over 2 seeds ± standard deviation; skill is the share of the error of seasonal_naive that is taken away; better or worse than a baseline: paired test, p below 0.05. Bold: best of its column. Italics: baseline.

Notes:

- a\|b\_\<c>: ValueError: 50 % of [x] & $y$ \| \<script>alert(1)\</script>

## How this was made

- command: `keras-seq compare --out a_b`
- windows: 2785
- seeds: 0, 1
"""  # noqa: E501
    assert board.to_markdown() == want


def test_latex_has_booktabs_rules_and_nothing_unescaped(board: Leaderboard):
    lines = board.to_latex().splitlines()
    rules = [line for line in lines if line in ("\\toprule", "\\midrule", "\\bottomrule")]
    assert rules == ["\\toprule", "\\midrule", "\\bottomrule"]
    body = lines[lines.index("\\midrule") + 1 : lines.index("\\bottomrule")]
    columns = lines[lines.index("\\toprule") - 1].rstrip("}").split("{")[-1]
    assert [row.replace("\\&", "").count("&") for row in body] == [len(columns) - 1] * 4
    assert body[0].startswith(
        "1 & lstm & \\textbf{0.3333 $\\pm$0.0125} & +33.3 \\% & better $<$ 0."
    )
    assert body[2].startswith("3 & \\textit{seasonal\\_naive} & 0.5000 & +0.0 \\%")
    assert body[3].startswith(" & a|b\\_$<$c$>$ & failed & ")


class Page(HTMLParser):
    """Checks that tags close in order, and keeps what matters."""

    VOID = ("meta", "img", "link", "br", "hr", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        if "id" in found:
            self.ids.append(found["id"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


def parse(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    return page


@pytest.fixture
def figures() -> dict:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2))
    figure.subplots().plot([0, 1], [1, 0])
    out = io.BytesIO()
    figure.savefig(out, format="png")
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><rect id="board"/></svg>'
    return {"Curves": (figure, 'of "all" & more'), "A picture": out.getvalue(), "A drawing": svg}


def test_html_is_whole_well_formed_and_loads_nothing(board: Leaderboard, figures: dict):
    html = board.to_html(figures=figures)
    page = parse(html)
    assert html.startswith("<!doctype html>")
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed")
        for name, value in attributes.items():
            assert name != "srcset" and not name.startswith("on")
            if name in ("src", "href"):
                assert value.startswith("data:image/")
    assert "http://" not in html and "https://" not in html  # drawings are packed as base64
    assert "@import" not in html and "url(" not in html
    assert [a for t, a in page.tags if t == "script"] == [{}]
    assert len(page.ids) == len(set(page.ids))
    pictures = [a for t, a in page.tags if t == "img"]
    assert [a["alt"] for a in pictures] == ['of "all" & more', "A picture", "A drawing"]
    kinds = ["svg+xml", "png", "svg+xml"]
    assert [a["src"].split(";")[0] for a in pictures] == [f"data:image/{kind}" for kind in kinds]
    text = " ".join("".join(page.text).split())
    for row in board.rows:
        assert row.architecture in text
    assert "ValueError: 50 % of [x] & $y$ | <script>alert(1)</script>" in text
    assert "lstm wins: MSE 0.3333" in text and "keras-seq compare --out a_b" in text


def test_html_table_is_accessible_and_sortable(board: Leaderboard):
    page = parse(board.to_html())
    heads = [a for t, a in page.tags if t == "th" and "aria-sort" in a]
    assert all(a["scope"] == "col" for a in heads) and len(heads) == 11
    assert sum(a.get("scope") == "row" for t, a in page.tags if t == "th") == 4 + 1 + 1
    assert all(a.get("scope") for t, a in page.tags if t == "th")
    assert sum(t == "caption" for t, _ in page.tags) == 3
    values = [float(a["data-value"]) for t, a in page.tags if t == "td" and "data-value" in a]
    assert values[:2] == [1.0, 1 / 3]


def test_html_is_the_same_twice_and_refuses_what_is_no_figure(board: Leaderboard, figures: dict):
    assert board.to_html(figures=figures) == board.to_html(figures=figures)
    with pytest.raises(TypeError, match="'Wrong' is int: give a matplotlib Figure"):
        board.to_html(figures={"Wrong": 3})


def test_every_view_takes_an_empty_board_and_one_without_scores():
    for board in (make(), make(Row(architecture="gru", status="failed", note="why"))):
        parse(board.to_html())
        assert board.to_markdown().startswith("# Tiny")
        assert "\\bottomrule" in board.to_latex()
        assert board.to_csv().startswith("rank,architecture,baseline,status,parameters,")
        console = Console(width=100, record=True, file=io.StringIO())
        console.print(board)
        assert board.verdict()[0] in " ".join(console.export_text().split())


NAMES = [
    "linear",
    "mlp",
    "tcn",
    "lstm",
    "attention_rnn",
    "patch_transformer",
    "inverted_transformer",
]


@pytest.mark.parametrize("width", [60, 80, 100, 160, 250])
def test_the_terminal_table_fits_and_cuts_no_name(width: int):
    scores = {name: 0.4 for name in ("mse_scaled", "mae_scaled", "mase", "smape", "crps")}
    rows = [
        Row(
            architecture=name,
            parameters=200_000 + i,
            scores={k: v + i / 10 for k, v in scores.items()},
            spreads=dict.fromkeys(scores, 0.01),
            seconds_per_epoch=12.0,
            latency_ms=1.0,
            size_kb=800.0,
            tests={"vs_baseline": paired("seasonal_naive", -2.0, 0.04)},
        )
        for i, name in enumerate(NAMES)
    ]
    rows.append(Row(architecture="gru", status="failed", note="[bold]no mark-up[/bold]"))
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(make(*rows, scored("seasonal_naive", 2.0, baseline=True)))
    text = console.export_text()
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    rank = {line.split()[1]: line.split()[0] for line in text.splitlines()[4:12]}
    assert [rank[name] for name in [*NAMES, "seasonal_naive"]] == list("12345678")
    assert "…" not in text and "[bold]no mark-up[/bold]" in " ".join(text.split())
    assert "0.4000 ±0.0100" in text
    assert ("Left out for width" in text) == (width < 250)
    assert ("latency" in text.split("Left out")[0]) == (width >= 80)  # costs stay beside quality


def test_an_output_without_unicode_is_no_error(board: Leaderboard):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    Console(file=file, width=120).print(board)
    assert b"0.3333 +/-0.0125" in raw.getvalue()


def test_a_leaderboard_opens_without_tensorflow():
    code = (
        "import sys, keras_seq.leaderboard, keras_seq.progress; "
        "sys.exit(str([m for m in ('tensorflow', 'keras', 'pandas') if m in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""
