"""The leaderboard of a comparison: rank the rows, say who won, write csv, md, html, tex and json.

Everything here is plain Python and needs no TensorFlow, so a leaderboard opens anywhere.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import importlib.resources
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_seq.errors import UserError

if TYPE_CHECKING:
    import pandas
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

STATUSES = ("ok", "running", "waiting", "failed")  # also the order of rows that have no rank
SIGNIFICANT = 0.05
FORMAT = 1
MAX_SVG_BYTES = 1_500_000  # a heavier drawing is embedded as PNG
_ACRONYMS = {n.lower(): n for n in ("MSE", "MAE", "RMSE", "MASE", "RMSSE", "sMAPE", "CRPS", "WAPE")}


@dataclass(kw_only=True)
class Row:
    """One line of a leaderboard: an architecture, a baseline or the ensemble.

    Args:
        architecture: name, as registered.
        baseline: True for a forecaster that is not trained by us (naive, ridge line, ETS ...).
        ensemble: True for the average of several architectures.
        status: "ok", "running", "waiting" or "failed".
        note: one line; for a failed row, why.
        parameters: number of trainable weights.
        options: configuration that was used, such as width, depth and learning rate.
        seeds: number of seeds (repetitions) behind the scores.
        learning_rate: the one that validation chose; falls back on `options["learning_rate"]`.
        scores: test score by name, mean over seeds.
        spreads: sample standard deviation over seeds (divisor n - 1) by score name. With one seed
            it is not known: leave it out or give NaN; it is then an empty cell, never 0.
        seconds_per_epoch: wall seconds of one training epoch, median.
        epochs: epochs trained, mean over seeds.
        train_seconds: wall seconds of training, all seeds and learning rates together.
        latency_ms: milliseconds of one prediction at batch 1.
        size_kb: kilobytes (1024 bytes) of the artifact for the device.
        tests: paired tests by name, for instance `{"vs_baseline": {"test": "Diebold-Mariano
            (HLN)", "against": "ridge", "statistic": -3.2, "p": 0.001}}`; a negative statistic
            means that this row has the smaller loss, `p` is two-sided.

    Raises:
        ValueError: where `status` is none of the four.

    Example:
        >>> Row(architecture="gru", scores={"mse_scaled": 0.4}).status
        'ok'
    """

    architecture: str
    baseline: bool = False
    ensemble: bool = False
    status: str = "ok"
    note: str = ""
    parameters: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    seeds: int = 0
    learning_rate: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    spreads: dict[str, float] = field(default_factory=dict)
    seconds_per_epoch: float | None = None
    epochs: float | None = None
    train_seconds: float | None = None
    latency_ms: float | None = None
    size_kb: float | None = None
    tests: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(
                f"status of row {self.architecture!r} is {self.status!r}: "
                f"give one of {', '.join(STATUSES)}"
            )
        if self.learning_rate is None:
            self.learning_rate = self.options.get("learning_rate")

    @property
    def kind(self) -> str:
        """The word for this row: "baseline", "ensemble" or "architecture"."""
        return "baseline" if self.baseline else "ensemble" if self.ensemble else "architecture"


@dataclass(frozen=True)
class _Cell:
    text: str
    value: float | None = None
    best: bool = False


@dataclass(frozen=True)
class _Column:
    key: str
    label: str
    cells: list[_Cell]
    keep: int = 0  # a narrow terminal drops the columns with the greatest number first
    better: str = "none"


@dataclass(kw_only=True)
class Leaderboard:
    """Rows of a comparison with the facts that make them comparable.

    Args:
        title: heading.
        task: name of the task, such as "forecasting".
        primary: name of the score that ranks the rows.
        lower_is_better: whether a smaller `primary` is better.
        reference: name of the baseline row that skill is measured against.
        rows: the rows, in any order.
        metadata: how it was made: command, data, sha256, split, lookback, horizon, windows,
            budget, seeds, versions ... Plain values, lists and dicts; every view prints them.
        labels: score name to heading, in the order of the columns. Scores that are not named
            here follow in order of appearance under a heading made from the name.
        better: score name to "lower", "higher" or "none" (no best, such as a coverage), where
            the usual meaning of the name is not right.

    Example:
        >>> board = Leaderboard(title="CO2", task="forecasting", primary="mse", rows=[
        ...     Row(architecture="seasonal_naive", baseline=True, scores={"mse": 0.5}),
        ...     Row(architecture="gru", scores={"mse": 0.4})])
        >>> [row.architecture for row in board.ranked()]
        ['gru', 'seasonal_naive']
        >>> print(board.verdict()[0])
        gru wins: MSE 0.4000, 20.0 % better than the best baseline, seasonal_naive (0.5000); \
no paired test was made.
    """

    title: str
    task: str
    primary: str
    lower_is_better: bool = True
    reference: str = "seasonal_naive"
    rows: list[Row] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    better: dict[str, str] = field(default_factory=dict)

    # ---------------------------------------------------------------- ranking

    def ranked(self) -> list[Row]:
        """Rows with a finite primary score, best first; then running, waiting and failed ones."""
        rest = [row for row in self.rows if not self._has_rank(row)]
        return self._scored() + sorted(rest, key=lambda row: STATUSES.index(row.status))

    def row(self, architecture: str) -> Row | None:
        """The row of that name, or None."""
        return next((row for row in self.rows if row.architecture == architecture), None)

    def skill(self, row: Row) -> float:
        """Share of the reference's error that `row` takes away: 1 - error / reference error.

        1 is perfect, 0 is as good as the reference, below 0 is worse. Where higher is better, the
        error of a share (0 to 1, such as accuracy) is what is missing to 1; of another score it is
        score / reference score - 1. NaN without a reference.
        """
        reference = self.row(self.reference)
        if reference is None or not self._has_rank(reference) or not self._has_rank(row):
            return math.nan
        base, score = reference.scores[self.primary], row.scores[self.primary]
        if not self.lower_is_better and min(base, score) >= 0 and max(base, score) <= 1:
            return 1 - (1 - score) / (1 - base) if base < 1 else math.nan
        if base == 0:
            return math.nan
        ratio = score / base
        return 1 - ratio if self.lower_is_better else ratio - 1

    def score_names(self) -> list[str]:
        """Names of the scores in the order of the columns."""
        found = dict.fromkeys(name for row in self.ranked() for name in row.scores)
        return [n for n in self.labels if n in found] + [n for n in found if n not in self.labels]

    def label(self, name: str) -> str:
        """Heading of a score: the one given in `labels`, or one made from its name."""
        words = [_ACRONYMS.get(word, word) for word in name.split("_")]
        return self.labels.get(name) or " ".join(words)

    def direction(self, name: str) -> str:
        """Which way a score is better: "lower", "higher" or "none"."""
        if name in self.better:
            return self.better[name]
        if name == self.primary:
            return "lower" if self.lower_is_better else "higher"
        if name.startswith(("coverage", "bias", "windows")):
            return "none"  # nearest to a nominal value is best, not an extreme
        higher = name.startswith(("skill", "r2", "bleu")) or any(
            word in ("accuracy", "f1", "auc", "precision", "recall") for word in name.split("_")
        )
        return "higher" if higher else "lower"

    def _has_rank(self, row: Row) -> bool:
        return row.status == "ok" and math.isfinite(row.scores.get(self.primary, math.nan))

    def _scored(self) -> list[Row]:
        sign = 1 if self.lower_is_better else -1
        rows = [row for row in self.rows if self._has_rank(row)]
        return sorted(rows, key=lambda row: (sign * row.scores[self.primary], row.architecture))

    # ---------------------------------------------------------------- verdict

    def verdict(self) -> list[str]:
        """Who won and whether it counts, as plain sentences.

        Says by how much the winner is ahead of the best baseline and of the runner-up and whether
        the paired test agrees (p below 0.05), which architectures do not beat the reference or
        the best baseline, and which rows are missing.
        """
        scored = self._scored()
        unfinished = [row for row in self.ranked() if not self._has_rank(row)]
        if not scored:
            return ["No row has finished: there is nothing to rank.", *self._missing(unfinished)]
        networks = [row for row in scored if not row.baseline]
        baselines = [row for row in scored if row.baseline]
        said = [self._headline(scored[0], networks, baselines)]
        if not scored[0].baseline and len(networks) > 1:
            said.append(self._second(networks))
        said += self._not_beaten(networks, baselines)
        trained = [row.seeds for row in networks if not row.ensemble and row.seeds]
        if trained and max(trained) == 1:
            said.append(
                "One seed only: a small difference between two networks may not last with another."
            )
        return said + self._missing(unfinished)

    def _headline(self, first: Row, networks: list[Row], baselines: list[Row]) -> str:
        name, score = first.architecture, f"{self.label(self.primary)} {self._number(first)}"
        if not networks:
            return f"Only baselines have finished; the best is {name}: {score}."
        if first.baseline:
            best = networks[0]
            return (
                f"The baseline wins: {name}, {score}. The best network, {best.architecture} "
                f"({self._number(best)}), is {self._gap(first, best, 'worse')}"
                f"{self._significance(best, first)}."
            ).replace("is level", "is level with it")
        who = "The ensemble" if first.ensemble else name
        if not baselines:
            return f"{who} comes first: {score}; the table has no baseline to hold it against."
        base = baselines[0]
        found = _paired(first, base)
        verb = "comes first" if found and not self._clear(found) else "wins"
        return (
            f"{who} {verb}: {score}, {self._gap(base, first, 'better')} than the best baseline, "
            f"{base.architecture} ({self._number(base)}){self._significance(first, base)}."
        ).replace("level than", "level with")

    def _second(self, networks: list[Row]) -> str:
        first, second = networks[0], networks[1]
        what = "Runner-up"
        if first.ensemble:
            what = "Best single network"
            second = next((row for row in networks[1:] if not row.ensemble), second)
        return (
            f"{what}: {second.architecture} ({self._number(second)}), "
            f"{self._gap(first, second, 'behind')}{self._significance(first, second)}."
        ).replace(", level", ", level with it")

    def _not_beaten(self, networks: list[Row], baselines: list[Row]) -> list[str]:
        said = []
        reference = self.row(self.reference)
        best = baselines[0] if baselines else None
        for base, what in ((reference, "the reference"), (best, "the best baseline")):
            again = base is reference and what != "the reference"
            if base is None or again or not self._has_rank(base) or not networks:
                continue
            name = f"{what}, {base.architecture} ({self._number(base)})"
            behind = [row for row in networks if not self._ahead(row, base)]
            if len(behind) == len(networks):
                said.append(f"No architecture beats {name}.")
            elif behind:
                listed = ", ".join(f"{row.architecture} ({self._number(row)})" for row in behind)
                said.append(f"{_do(behind)} NOT beat {name}: {listed}.")
            elif what == "the reference" and len(networks) > 1:
                said.append(f"Every architecture beats {name}.")
            elif what == "the reference" and base is not best:
                said.append(f"It beats {name}.")
        return said

    def _missing(self, rows: list[Row]) -> list[str]:
        said = []
        for row in rows:
            if row.status == "failed":
                said.append(f"{row.architecture} failed: {_one_line(row.note) or 'no reason'}")
            elif row.status == "ok":
                name = self.label(self.primary)
                said.append(f"{row.architecture} has no finite {name}, so it has no rank.")
        waiting = [row.architecture for row in rows if row.status in ("running", "waiting")]
        if waiting:
            said.append(f"Not finished yet: {', '.join(waiting)}.")
        return said

    def _number(self, row: Row) -> str:
        values = [r.scores[self.primary] for r in self._scored()]
        return f"{row.scores[self.primary]:.{_decimals(values)}f}"

    def _ahead(self, row: Row, other: Row) -> bool:
        difference = row.scores[self.primary] - other.scores[self.primary]
        return difference < 0 if self.lower_is_better else difference > 0

    def _gap(self, base: Row, row: Row, word: str) -> str:
        old, new = base.scores[self.primary], row.scores[self.primary]
        if old == new:
            return "level"
        if old == 0:
            return word
        percent = 100 * abs(old - new) / abs(old)
        return f"{'less than 0.1' if percent < 0.1 else f'{percent:.1f}'} % {word}"

    def _clear(self, found: Mapping[str, Any]) -> bool:
        # the sign must agree too: a test on another loss may point the other way
        return found["p"] < SIGNIFICANT and found["statistic"] < 0

    def _significance(self, row: Row, other: Row) -> str:
        """The end of a sentence: what the paired test says of the difference of two rows."""
        if not self._ahead(row, other):
            row, other = other, row
        found = _paired(row, other)
        if found is None:
            return "; no paired test was made"
        if not math.isfinite(found["p"]):
            return f"; the paired test, {found['test']}, could not be computed"
        by = f"by {found['test']}, p {_p(found['p'], equals=True)}"
        if self._clear(found):
            return f"; the difference is more than chance {by}"
        if found["p"] < SIGNIFICANT:
            return f", but the paired test points the other way {by}"
        return f", but the difference is within noise {by}: treat the two as equal"

    # ---------------------------------------------------------------- csv and json

    def to_csv(self) -> str:
        """All rows as csv: nine significant digits, empty cells where a value is not known.

        The columns: rank, architecture, baseline, status, parameters, every score followed by
        `<score>_spread`, seconds_per_epoch, latency_ms, size_kb, then seeds, epochs,
        learning_rate, train_seconds, ensemble, skill, the paired tests, options (json), note.
        """
        scores = self.score_names()
        tests = sorted({name for row in self.rows for name in row.tests})
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        head = ["rank", "architecture", "baseline", "status", "parameters"]
        head += [name for score in scores for name in (score, f"{score}_spread")]
        head += ["seconds_per_epoch", "latency_ms", "size_kb", "seeds", "epochs", "learning_rate"]
        head += ["train_seconds", "ensemble", "skill_vs_reference"]
        head += [f"{test}_{part}" for test in tests for part in ("against", "statistic", "p")]
        writer.writerow([*head, "options", "note"])
        for rank, row in enumerate(self.ranked(), 1):
            cells: list[Any] = [rank if self._has_rank(row) else None, row.architecture]
            cells += [row.baseline, row.status, row.parameters]
            for score in scores:
                cells += [row.scores.get(score), row.spreads.get(score)]
            cells += [row.seconds_per_epoch, row.latency_ms, row.size_kb, row.seeds, row.epochs]
            cells += [row.learning_rate, row.train_seconds, row.ensemble, self.skill(row)]
            for test in tests:
                cells += [row.tests.get(test, {}).get(p) for p in ("against", "statistic", "p")]
            options = json.dumps(row.options, sort_keys=True, default=str) if row.options else None
            writer.writerow([_csv(cell) for cell in [*cells, options, _one_line(row.note)]])
        return out.getvalue()

    def to_frame(self) -> pandas.DataFrame:
        """The csv as a pandas DataFrame."""
        import pandas

        return pandas.read_csv(io.StringIO(self.to_csv()), keep_default_na=False, na_values=[""])

    def to_json(self) -> str:
        """The whole record; `read` makes the same leaderboard of it again."""
        record = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.dumps(_no_nan(record), indent=1, allow_nan=False, default=str) + "\n"

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Leaderboard:
        """The leaderboard that `write` left in a folder (from `leaderboard.json`).

        Raises:
            UserError: where there is none, or it is damaged or of another version.
        """
        path = Path(folder) / "leaderboard.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            version = record.pop("format", None)
            if version != FORMAT:
                raise UserError(
                    f"{path} has format {version}, this version reads {FORMAT}: write it again"
                )
            rows = [Row(**{**row, **_floats(row)}) for row in record.pop("rows")]
            return cls(**record, rows=rows)
        except FileNotFoundError:
            raise UserError(
                f"no leaderboard.json in {folder}: give the folder of a comparison"
            ) from None
        except UserError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path} is damaged ({error}): write the leaderboard again") from error

    def write(
        self, folder: str | os.PathLike[str], figures: Mapping[str, Any] | None = None
    ) -> list[Path]:
        """Write leaderboard.csv, .md, .html, .tex and .json; each appears whole or not at all.

        Args:
            folder: made where it does not exist.
            figures: for the html, see `to_html`.

        Returns:
            The paths written.
        """
        texts = {
            "csv": self.to_csv(),
            "md": self.to_markdown(),
            "html": self.to_html(figures=figures),
            "tex": self.to_latex(),
            "json": self.to_json(),
        }
        base = Path(folder)
        base.mkdir(parents=True, exist_ok=True)
        paths = []
        for suffix, text in texts.items():
            path = base / f"leaderboard.{suffix}"
            part = path.with_name(f".{path.name}.{os.getpid()}.part")
            try:
                part.write_text(text, encoding="utf-8", newline="\n")
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)  # a full disk leaves no half file behind
            paths.append(path)
        return paths

    # ---------------------------------------------------------------- what people read

    def _columns(self, plus_minus: str = "±") -> list[_Column]:
        """The columns of every human view, formatted once, rows in ranked order."""
        rows = self.ranked()
        columns = []
        names = sorted(self.score_names(), key=lambda name: name != self.primary)  # primary first
        for i, name in enumerate(names):
            better = self.direction(name)
            ok = [row.scores.get(name, math.nan) for row in rows if row.status == "ok"]
            finite = [value for value in ok if math.isfinite(value)]
            best = (min if better == "lower" else max)(finite) if finite else math.nan
            digits = _decimals(finite)
            cells = []
            for row in rows:
                value = row.scores.get(name, math.nan)
                spread = row.spreads.get(name, math.nan)
                if row.status != "ok" or not math.isfinite(value):
                    cells.append(_Cell(""))
                    continue
                text = f"{value:.{digits}f}"
                if math.isfinite(spread):
                    text += f" {plus_minus}{spread:.{digits}f}"
                cells.append(_Cell(text, value, better != "none" and value == best))
            columns.append(_Column(name, self.label(name), cells, 6 + i if i else 0, better))
        at = min(1, len(columns))  # costs stand beside the primary score, other scores behind them
        skills = [_known(self.skill(row)) for row in rows]
        if any(value is not None for value in skills):
            cells = [_cell(value, lambda v: f"{100 * v:+.1f} %") for value in skills]
            columns.insert(at, _Column("skill_vs_reference", "skill", cells, 1, "higher"))
            at += 1
        tests = [row.tests.get("vs_baseline") for row in rows]
        against = {str(test.get("against", "baseline")) for test in tests if test}
        if against:
            name = against.pop() if len(against) == 1 else "baseline"
            columns.insert(at, _Column("vs_baseline", f"vs {name}", [_tested(t) for t in tests], 5))
            at += 1
        for key, label, keep in (
            ("parameters", "parameters", 2),
            ("seconds_per_epoch", "s per epoch", 4),
            ("latency_ms", "latency ms", 3),
            ("size_kb", "size KB", 4),
        ):
            values = [_known(getattr(row, key)) for row in rows]
            if any(value is not None for value in values):
                form = _whole if key == "parameters" else _cost
                columns.insert(at, _Column(key, label, [_cell(v, form) for v in values], keep))
                at += 1
        return columns

    def _caption(self) -> str:
        scored = self._scored()
        way = "lower" if self.lower_is_better else "higher"
        said = f"Ranked by {self.label(self.primary)} on the test part ({way} is better)"
        if "windows" in self.metadata:
            said += f", {_plain(self.metadata['windows'])} windows"
        seeds = {row.seeds for row in scored if not row.baseline and not row.ensemble}
        if seeds and max(seeds) > 1:
            said += f"; mean over {_span(seeds)} seeds ± standard deviation"
        if any(math.isfinite(self.skill(row)) for row in scored):
            said += f"; skill is the share of the error of {self.reference} that is taken away"
        if any("vs_baseline" in row.tests for row in scored):
            said += f"; better or worse than a baseline: paired test, p below {SIGNIFICANT:g}"
        return said + "."

    def _facts(self) -> list[tuple[str, str]]:
        order = ["command", "data", "sha256", "split", "windows", "lookback", "horizon", "budget"]
        keys = [k for k in order if k in self.metadata]
        keys += [k for k in self.metadata if k not in order]
        return [(key.replace("_", " "), _plain(self.metadata[key])) for key in keys]

    def to_markdown(self) -> str:
        """Heading, verdict, aligned table (best score bold, baselines in italics), how made."""
        rows, columns = self.ranked(), self._columns()
        head = ["rank", "architecture", *(column.label for column in columns)]
        body = []
        for i, row in enumerate(rows):
            name = _md(row.architecture)
            name = f"*{name}*" if row.baseline else name
            found = [column.cells[i] for column in columns]
            cells = [f"**{cell.text}**" if cell.best else cell.text for cell in found]
            if row.status != "ok" and cells:
                cells[0] = row.status
            body.append([str(i + 1) if self._has_rank(row) else "", name, *cells])
        lines = [f"# {self.title}", "", *(f"- {_md(text)}" for text in self.verdict()), ""]
        lines += [*_md_table(head, body), "", _md(self._caption())]
        lines[-1] += " Bold: best of its column. Italics: baseline."
        notes = [(row.architecture, _one_line(row.note)) for row in rows if row.note]
        if notes:
            lines += ["", "Notes:", "", *(f"- {_md(name)}: {_md(note)}" for name, note in notes)]
        if self.metadata:
            lines += ["", "## How this was made", ""]
            for key, value in self._facts():
                code = key in ("command", "sha256")
                lines.append(f"- {key}: `{value}`" if code else f"- {key}: {_md(value)}")
        return "\n".join(lines) + "\n"

    _repr_markdown_ = to_markdown  # notebooks show the table

    def to_latex(self) -> str:
        r"""A `table` environment with booktabs rules (`\usepackage{booktabs}` is needed)."""
        rows, columns = self.ranked(), self._columns()
        lines = [
            "% needs \\usepackage{booktabs}",
            "\\begin{table}[t]",
            "\\centering\\small",
            f"\\caption{{{_tex(self.title)}. {_tex(self._caption())} "
            "Bold: best of its column. Italics: baseline.}",
            f"\\begin{{tabular}}{{rl{'r' * len(columns)}}}",
            "\\toprule",
            " & ".join(["", "architecture", *(_tex(column.label) for column in columns)]) + " \\\\",
            "\\midrule",
        ]
        for i, row in enumerate(rows):
            name = _tex(row.architecture)
            cells = [column.cells[i] for column in columns]
            texts = [f"\\textbf{{{_tex(c.text)}}}" if c.best else _tex(c.text) for c in cells]
            if row.status != "ok" and texts:
                texts[0] = row.status
            name = f"\\textit{{{name}}}" if row.baseline else name
            rank = str(i + 1) if self._has_rank(row) else ""
            lines.append(" & ".join([rank, name, *texts]) + " \\\\")
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])

    def to_html(self, *, figures: Mapping[str, Any] | None = None) -> str:
        """One page that needs nothing else: verdict, sortable table, figures, how it was made.

        Args:
            figures: heading to a matplotlib Figure, PNG bytes or SVG text, or to a pair
                `(figure, caption)`; the caption is what a reader who cannot see it is told.

        Raises:
            TypeError: where a figure is none of these.
        """
        import jinja2

        source = importlib.resources.files("keras_seq") / "templates" / "leaderboard.html.jinja"
        environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string(source.read_text(encoding="utf-8"))
        pictures = [_picture(title, figure) for title, figure in (figures or {}).items()]
        tests = [(row, name, test) for row in self.ranked() for name, test in row.tests.items()]
        return template.render(
            board=self,
            rows=self.ranked(),
            columns=self._columns(),
            has_rank=self._has_rank,
            caption=self._caption(),
            verdict=self.verdict(),
            facts=self._facts(),
            pictures=pictures,
            tests=[(r.architecture, n.replace("_", " "), _test_cells(t)) for r, n, t in tests],
            options=[(r.architecture, _plain(r.options)) for r in self.ranked() if r.options],
        )

    def table(self, *, width: int | None = None, ascii_only: bool = False) -> Table:
        """The table for a terminal, with as many columns as fit.

        Args:
            width: columns of the terminal; None asks the terminal.
            ascii_only: "+/-" in place of "±", for an output that has no UTF-8.

        Returns:
            A `rich.table.Table`; names are never cut.
        """
        from rich.console import Console

        wide = Console(width=10_000)
        columns = self._columns("+/-" if ascii_only else "±")
        width = width or Console().width
        dropped: list[str] = []
        while True:
            table = self._rich(columns, dropped)
            if wide.measure(table).maximum <= width or not any(c.keep for c in columns):
                return table
            worst = max(columns, key=lambda column: column.keep)
            columns.remove(worst)
            dropped.append(worst.label)

    def _rich(self, columns: Sequence[_Column], dropped: Sequence[str]) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.title, table.title_justify = Text(self.title, "bold"), "left"
        table.caption_justify = "left"
        table.add_column("#", justify="right", no_wrap=True, style="dim")
        table.add_column("architecture", overflow="fold", min_width=12)
        for column in columns:
            head = Text(column.label.replace(" ", "\n", 1))
            table.add_column(head, justify="right", no_wrap=True, vertical="bottom")
        for i, row in enumerate(self.ranked()):
            failed = row.status == "failed"
            style = "italic cyan" if row.baseline else "red" if failed else ""
            found = [column.cells[i] for column in columns]
            cells = [Text(cell.text, "bold green" if cell.best else "") for cell in found]
            if row.status != "ok" and cells:
                cells[0] = Text(row.status, "red" if failed else "dim")
            rank = str(i + 1) if self._has_rank(row) else ""
            table.add_row(rank, Text(row.architecture, style), *cells)
        if dropped:
            names = ", ".join(reversed(dropped))
            table.caption = Text(f"Left out for width: {names} (leaderboard.csv has all).", "dim")
        return table

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """`rich.print(board)`: the table at the width at hand, then the verdict."""
        from rich.padding import Padding
        from rich.text import Text

        yield self.table(width=options.max_width, ascii_only=options.ascii_only)
        for i, sentence in enumerate(self.verdict()):
            yield Padding(Text(sentence, "" if i else "bold"), (0 if i else 1, 0, 0, 0))


# -------------------------------------------------------------------- small helpers


def _paired(row: Row, other: Row) -> dict[str, Any] | None:
    """The paired test between two rows from either side, its sign as seen from `row`."""
    for one, two, sign in ((row, other, 1), (other, row, -1)):
        for test in one.tests.values():
            if test.get("against") == two.architecture:
                values = {k: _known(test.get(k)) for k in ("statistic", "p")}
                numbers = {k: math.nan if v is None else v for k, v in values.items()}
                numbers["statistic"] *= sign
                return {"test": test.get("test", "paired test"), **numbers}
    return None


def _known(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _cell(value: float | None, form: Callable[[float], str]) -> _Cell:
    return _Cell("") if value is None else _Cell(form(value), value)


def _decimals(values: Sequence[float]) -> int:
    """Decimals that show the smallest magnitude of a column with four significant digits."""
    sizes = [abs(value) for value in values if value]
    return min(max(3 - math.floor(math.log10(min(sizes))), 0), 6) if sizes else 4


def _tested(test: Mapping[str, Any] | None) -> _Cell:
    """A paired test as a word and its p: "better < 0.001", "worse 0.012", "even 0.310"."""
    p, statistic = (_known((test or {}).get(part)) for part in ("p", "statistic"))
    if p is None or statistic is None:
        return _Cell("")
    word = "even" if p >= SIGNIFICANT else "better" if statistic < 0 else "worse"
    return _Cell(f"{word} {_p(p)}", statistic)


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _cost(value: float) -> str:
    if value >= 10:
        return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


def _p(value: float, *, equals: bool = False) -> str:
    text = "< 0.001" if value < 0.001 else f"{value:.3f}"
    return f"= {text}" if equals and not text.startswith("<") else text


def _csv(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.9g}" if math.isfinite(value) else ""
    return "" if value is None else value


def _no_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _no_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_no_nan(item) for item in value]
    if hasattr(value, "item"):  # a NumPy number
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _floats(row: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    return {
        key: {name: math.nan if v is None else v for name, v in row.get(key, {}).items()}
        for key in ("scores", "spreads")
    }


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _one_line(value)
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else f"{value:g}"


def _span(numbers: set[int]) -> str:
    return str(max(numbers)) if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"


def _do(rows: Sequence[Row]) -> str:
    return "Does" if len(rows) == 1 else "Do"


def _test_cells(test: Mapping[str, Any]) -> tuple[str, str, str, str]:
    statistic, p = _known(test.get("statistic")), _known(test.get("p"))
    return (
        str(test.get("test", "")),
        str(test.get("against", "")),
        "" if statistic is None else f"{statistic:.2f}",
        "" if p is None else _p(p),
    )


def _md(text: str) -> str:
    # only what would be read as mark-up: an underscore inside a name is not
    return re.sub(r"[|*`]|<(?=[\w/!])|(?<!\w)_|_(?!\w)", lambda found: f"\\{found[0]}", text)


def _md_table(head: list[str], body: list[list[str]]) -> list[str]:
    head = [_md(text) for text in head]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    left = 1  # the column of names; all others hold numbers

    def line(cells: list[str]) -> str:
        pairs = enumerate(zip(cells, widths, strict=True))
        return f"| {' | '.join(c.ljust(w) if i == left else c.rjust(w) for i, (c, w) in pairs)} |"

    marks = ["-" * (w + 2) if i == left else "-" * (w + 1) + ":" for i, w in enumerate(widths)]
    return [line(head), f"|{'|'.join(marks)}|", *map(line, body)]


def _tex(text: str) -> str:
    special = {c: f"\\{c}" for c in "&%$#_{}"}
    special |= {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    special |= {"±": "$\\pm$", "<": "$<$", ">": "$>$"}
    return "".join(special.get(c, c) for c in text)


def _picture(title: str, figure: Any) -> dict[str, Any]:
    """What the page needs of a figure; inside an `img` no ids or scripts of drawings can clash."""
    drawing, caption = figure if isinstance(figure, tuple) else (figure, "")
    drawn, wide = True, False
    if isinstance(drawing, str) and "<svg" in drawing:
        kind, data = "svg+xml", drawing.encode()
    elif isinstance(drawing, bytes) and drawing.startswith(b"\x89PNG"):
        kind, data, drawn = "png", drawing, False
    elif hasattr(drawing, "savefig"):
        kind, data = _draw(drawing)
        width, height = drawing.get_size_inches()
        wide = bool(width > 1.7 * height)  # half a page would make its text too small
    else:
        raise TypeError(
            f"figure {title!r} is {type(drawing).__name__}: give a matplotlib Figure, "
            "PNG bytes or SVG text"
        )
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    # drawn: lines on nothing, whose colours a dark page may turn round
    return {"title": title, "caption": caption, "drawn": drawn, "wide": wide, "source": source}


def _draw(figure: Any) -> tuple[str, bytes]:
    import matplotlib

    out = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": "keras_seq"}):  # same figure, same bytes
        figure.savefig(out, format="svg", bbox_inches="tight", transparent=True, metadata=nothing)
    if len(out.getvalue()) <= MAX_SVG_BYTES:
        return "svg+xml", out.getvalue()
    out = io.BytesIO()
    figure.savefig(out, format="png", bbox_inches="tight", transparent=True, dpi=144)
    return "png", out.getvalue()
