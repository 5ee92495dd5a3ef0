"""The live view of a comparison in the terminal: one line an architecture, and the time left.

Where the output is not a terminal (a CI log, a file) every event is one plain line instead.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

STYLES = {
    "baseline": "cyan",
    "running": "bold yellow",
    "done": "green",
    "failed": "red",
    "interrupted": "magenta",
    "waiting": "dim",
}


def time_left(
    seconds: Mapping[str, Sequence[float]], remaining: Mapping[str, int]
) -> tuple[float | None, dict[str, float | None]]:
    """Seconds that are left, from the epochs that have finished.

    An architecture's epoch is taken to last as long as the median of its finished ones: the first
    one, which also traces and compiles, then does not count for more than it should. One that has
    not finished an epoch is taken to be as fast as the median architecture.

    Args:
        seconds: seconds of each finished epoch, by architecture.
        remaining: planned epochs that have not finished, by architecture.

    Returns:
        The seconds of all together, and by architecture; None where nothing is known yet. Early
        stopping makes them upper bounds.

    Example:
        >>> time_left({"lstm": [9.0, 2.0, 2.0], "gru": [4.0]}, {"lstm": 5, "gru": 1, "tcn": 2})
        (20.0, {'lstm': 10.0, 'gru': 4.0, 'tcn': 6.0})
        >>> time_left({}, {"lstm": 5})
        (None, {'lstm': None})
    """
    pace = {name: statistics.median(values) for name, values in seconds.items() if values}
    usual = statistics.median(pace.values()) if pace else None
    left: dict[str, float | None] = {}
    for name, epochs in remaining.items():
        each = pace.get(name, usual)
        left[name] = 0.0 if epochs <= 0 else None if each is None else each * epochs
    known = [value for value in left.values() if value is not None]
    total = sum(known) if len(known) == len(left) else None
    return total, left


def clock(seconds: float | None) -> str:
    """Seconds as people say them, in at most eight characters.

    Example:
        >>> [clock(s) for s in (None, 0.4, 59.6, 75, 3900, 200_000)]
        ['-', '0 s', '1:00', '1:15', '1 h 05', '2 d 07 h']
    """
    if seconds is None or not math.isfinite(seconds):
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d}"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


@dataclass
class _Run:
    """One training of an architecture: a seed, or a seed with a learning rate."""

    label: str
    planned: int
    done: int = 0
    open: bool = True


@dataclass
class _Line:
    """What the table shows of one architecture or baseline."""

    status: str = "waiting"
    planned: int | None = None  # epochs over all runs, where the caller knows them
    runs: dict[str, _Run] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    current: float | None = None
    best: float | None = None
    scores: list[float] = field(default_factory=list)
    message: str = ""
    logged: float = -math.inf  # when its last line went to the log

    @property
    def finished(self) -> bool:
        return self.status in ("done", "failed", "baseline")

    @property
    def budget(self) -> int:
        """Planned epochs of all runs."""
        return max(self.planned or 0, sum(run.planned for run in self.runs.values()))

    @property
    def remaining(self) -> int:
        """Epochs still to come; a run that stopped early owes nothing any more."""
        if self.finished:
            return 0
        to_come = self.budget - sum(run.planned for run in self.runs.values())
        return to_come + sum(run.planned - run.done for run in self.runs.values() if run.open)


class Progress:
    """A live table for `compare`: status, epochs, validation score, time used and left.

    Use it as a context manager. It never swallows an exception: on Ctrl-C the table stays as it
    was, with the unfinished lines marked.

    Args:
        title: heading of the table.
        total_budget: planned epochs of the whole comparison. A mapping gives them by architecture
            (over all seeds and learning rates) and also lists the architectures that wait; a
            number is the sum; None where nothing is known beforehand.
        console: rich console to write to; None for standard output.
        max_seconds: wall-clock budget of the comparison, which bounds the time left.
        score: heading of the test score that `baseline` and `finish` are given.
        monitor: key of `logs` that is the validation score.
        lower_is_better: which validation score counts as best.
        quiet: say nothing but failures.
        log_every: seconds between two epoch lines of one architecture in a plain log. The first
            and last epoch of a run are always logged.
        now: clock in seconds, for tests.

    Example:
        >>> import io
        >>> from rich.console import Console
        >>> with Progress("CO2", {"gru": 2}, Console(file=io.StringIO()), now=lambda: 0.0) as p:
        ...     p.baseline("naive", 0.5)
        ...     p.start("gru", 0, 2)
        ...     p.epoch("gru", 0, 1, {"val_loss": 0.4}, 1.5)
        ...     p.left()
        1.5
    """

    def __init__(
        self,
        title: str,
        total_budget: Mapping[str, int] | int | None = None,
        console: Console | None = None,
        *,
        max_seconds: float | None = None,
        score: str = "score",
        monitor: str = "val_loss",
        lower_is_better: bool = True,
        quiet: bool = False,
        log_every: float = 10.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        from rich.console import Console

        self.console = console or Console()
        self.title = title
        self.quiet = quiet
        self._score = score
        self._monitor = monitor
        self._sign = 1 if lower_is_better else -1
        self._max_seconds = max_seconds
        self._log_every = log_every
        self._now = now
        self._began = now()
        self._lines: dict[str, _Line] = {}
        self._total = total_budget if isinstance(total_budget, int) else None
        if isinstance(total_budget, Mapping):
            self._lines = {name: _Line(planned=n) for name, n in total_budget.items()}
        self._lock = threading.RLock()  # the screen is redrawn from another thread
        self._live: Any = None
        self._closing = False

    @property
    def is_live(self) -> bool:
        """Whether there is a terminal to draw the table on."""
        console = self.console
        return console.is_terminal and not console.is_dumb_terminal and not self.quiet

    def __enter__(self) -> Progress:
        self._began = self._now()
        if self.is_live:
            from rich.live import Live

            self._live = Live(
                get_renderable=self.render, console=self.console, refresh_per_second=4
            )
            self._live.start(refresh=True)
        else:
            count = len(self._lines)
            what = f": {count} architecture{'s' if count > 1 else ''}" if count else ""
            self._log(self.title + what)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._closing = True
            for line in self._lines.values():
                if line.status == "running":
                    line.status = "interrupted"
        if self._live is not None:
            self._live.stop()
            self._live = None
        else:
            lines = self._lines.values()
            count = {s: sum(line.status == s for line in lines) for s in STYLES if s != "baseline"}
            said = ", ".join(f"{number} {status}" for status, number in count.items() if number)
            self._log(f"{'stopped' if kind else 'ended'}: {said or 'nothing ran'}")

    # ---------------------------------------------------------------- events

    def baseline(self, name: str, score: float | None = None) -> None:
        """A baseline has been scored."""
        with self._lock:
            line = self._lines.setdefault(name, _Line())
            line.status = "baseline"
            line.scores = [] if score is None else [score]
        self._log(f"{name}: baseline, {self._score} {_number(score)}")

    def start(self, architecture: str, seed: int | str, epochs: int) -> None:
        """A run begins: `epochs` is how many it may take, `seed` what tells it from others."""
        with self._lock:
            line = self._lines.setdefault(architecture, _Line())
            line.status, line.message, line.current = "running", "", None
            line.runs[str(seed)] = _Run(str(seed), epochs)
        self._log(f"{architecture} seed {seed}: starts, at most {epochs} epochs")

    def epoch(
        self,
        architecture: str,
        seed: int | str,
        epoch: int,
        logs: Mapping[str, Any] | None,
        seconds: float,
    ) -> None:
        """An epoch has finished: `epoch` counts from 1; a resumed run goes on from its number."""
        with self._lock:
            line = self._lines.setdefault(architecture, _Line("running"))
            run = line.runs.setdefault(str(seed), _Run(str(seed), epoch))
            first = run.done == 0
            run.done, run.planned = epoch, max(run.planned, epoch)
            line.seconds.append(float(seconds))
            value = (logs or {}).get(self._monitor)
            line.current = None if value is None else float(value)
            better = [v for v in (line.best, line.current) if v is not None and math.isfinite(v)]
            line.best = min(better, key=lambda v: self._sign * v) if better else None
            quiet = self._now() - line.logged < self._log_every
            if quiet and not first and epoch < run.planned:
                return
            line.logged = self._now()
            said = f"epoch {epoch}/{run.planned}, {self._monitor} {_number(line.current)}"
            said += f" (best {_number(line.best)}), {seconds:.1f} s"
        left = self.left()
        more = "" if left is None else f", at most {clock(left)} left in all"
        self._log(f"{architecture} seed {seed}: {said}{more}")

    def finish(self, architecture: str, seed: int | str, score: float | None = None) -> None:
        """A run has ended, early or not; the line is done when nothing more is planned for it.

        The scores that are given are averaged: give that of a seed, not of every learning rate.
        """
        with self._lock:
            line = self._lines.setdefault(architecture, _Line())
            run = line.runs.setdefault(str(seed), _Run(str(seed), 0))
            run.open = False
            if score is not None:
                line.scores.append(float(score))
            still = any(run.open for run in line.runs.values()) or line.remaining
            line.status = "running" if still else "done"
            epochs = run.done
        said = "" if score is None else f", {self._score} {_number(score)}"
        self._log(f"{architecture} seed {seed}: done after {epochs} epochs{said}")

    def fail(self, architecture: str, message: str) -> None:
        """An architecture has failed; it shows why, and the others go on."""
        message = " ".join(str(message).split())
        with self._lock:
            line = self._lines.setdefault(architecture, _Line())
            line.status, line.message = "failed", message
            for run in line.runs.values():
                run.open = False
        self._log(f"{architecture}: FAILED: {message}", always=True)

    def note(self, text: str) -> None:
        """One line of text, above the table."""
        if self._live is not None:
            from rich.text import Text

            self.console.print(Text(text))
        else:
            self._log(text)

    # ---------------------------------------------------------------- what is shown

    def left(self) -> float | None:
        """Seconds left for everything planned, or None where that is not known yet."""
        with self._lock:
            total, _ = self._estimates()
            elapsed = self._now() - self._began
        if self._max_seconds is None:
            return total
        bound = max(self._max_seconds - elapsed, 0.0)
        return bound if total is None else min(total, bound)

    def _estimates(self) -> tuple[float | None, dict[str, float | None]]:
        lines = {name: line for name, line in self._lines.items() if line.status != "baseline"}
        seconds = {name: line.seconds for name, line in lines.items()}
        remaining = {name: line.remaining for name, line in lines.items()}
        remaining[""] = self._unnamed()
        return time_left(seconds, remaining)

    def _unnamed(self) -> int:
        """Epochs of the total that belong to architectures which have not been named yet."""
        named = sum(line.budget for line in self._lines.values())
        return max((self._total or 0) - named, 0)

    def _epochs(self) -> tuple[int, int]:
        """Epochs that are settled (trained, or spared by early stopping) and all that are known."""
        lines = self._lines.values()
        planned = sum(line.budget for line in lines) + self._unnamed()
        return planned - sum(line.remaining for line in lines) - self._unnamed(), planned

    def render(self) -> Group:
        """The table and the overall bar, as they stand now."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        with self._lock:
            lines = sorted(self._lines.items(), key=lambda item: item[1].status != "baseline")
            failed = sum(line.status == "failed" for _, line in lines)
            hidden = [] if self._closing else self._to_hide(lines, self.console.height - 6 - failed)
            table = self._table([(n, line) for n, line in lines if n not in hidden])
            settled, planned = self._epochs()
            used, left = self._now() - self._began, self.left()
        parts: list[Any] = [table]
        if hidden:
            parts.append(Text(f"... and {len(hidden)} more (no room on this screen)", "dim"))
        foot = Table.grid(padding=(0, 1))
        said = f"{settled}/{planned} epochs, {clock(used)} used"
        if not self._closing:
            said += f", at most {clock(left)} left" if left is not None else ""
        bar = ProgressBar(total=max(planned, 1), completed=settled, width=24)
        foot.add_row(bar, Text(said))
        return Group(*parts, foot)

    def _to_hide(self, lines: Sequence[tuple[str, _Line]], room: int) -> set[str]:
        """Names left out on a low screen: those that wait first, then those that are done."""
        over = len(lines) - max(room, 3)
        if over <= 0:
            return set()
        order = ("waiting", "done", "baseline", "failed", "running")
        spare = [
            name for status in order for name, line in reversed(lines) if line.status == status
        ]
        return set(spare[:over])

    def _table(self, lines: Sequence[tuple[str, _Line]]) -> Table:
        from rich.console import Console

        # a narrow terminal loses columns, never parts of a name
        wide, drop = Console(width=10_000), ["run", self._monitor, "used", "best", "epoch"]
        for count in range(len(drop) + 1):
            table = self._columns(lines, drop[:count])
            if wide.measure(table).maximum <= self.console.width:
                break
        failed = [f"{n} failed: {line.message}" for n, line in lines if line.status == "failed"]
        if failed:
            from rich.text import Text

            table.caption, table.caption_justify = Text("\n".join(failed), "red"), "left"
        return table

    def _columns(self, lines: Sequence[tuple[str, _Line]], drop: Sequence[str]) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        _, left = self._estimates()
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.title, table.title_justify = Text(self.title, "bold"), "left"
        table.add_column("architecture", overflow="fold")
        table.add_column("status", no_wrap=True)
        heads = ("run", "epoch", self._monitor, "best", self._score, "used", "left")
        for head in heads:
            if head not in drop:
                table.add_column(head, justify="right", no_wrap=True)
        for name, line in lines:
            run = next((run for run in line.runs.values() if run.open), None)
            busy = line.status in ("running", "waiting", "interrupted")
            cells = (
                run.label if run else "",
                f"{run.done}/{run.planned}" if run else "",
                _number(line.current) if run else "",
                _number(line.best),
                _number(statistics.fmean(line.scores) if line.scores else None),
                clock(sum(line.seconds)) if line.seconds else "",
                clock(left[name]) if busy and left[name] is not None else "",
            )
            texts = [Text(c) for head, c in zip(heads, cells, strict=True) if head not in drop]
            status = Text(line.status, STYLES[line.status])
            style = "italic cyan" if line.status == "baseline" else ""
            table.add_row(Text(name, style), status, *texts)
        return table

    def _log(self, text: str, *, always: bool = False) -> None:
        if self._live is not None or (self.quiet and not always):
            return
        from rich.text import Text

        # soft_wrap: a log line stays one line, however long it is
        self.console.print(
            Text(f"[{_stamp(self._now() - self._began)}] {text}"), soft_wrap=True, highlight=False
        )


def _stamp(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:d}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}" if abs(value) < 1e-3 else f"{value:.4f}"
