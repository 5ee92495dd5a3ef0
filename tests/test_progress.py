from __future__ import annotations

import io

import pytest
from rich.console import Console

from keras_seq.progress import Progress, clock, time_left


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def shown(progress: Progress, width: int = 160, height: int = 60) -> str:
    """What the table looks like on a terminal of that size."""
    progress.console = Console(width=width, height=height, record=True, file=io.StringIO())
    progress.console.print(progress.render())
    return progress.console.export_text()


def line(text: str, name: str) -> list[str]:
    return next(row.split() for row in text.splitlines() if row.startswith(name + " "))


def test_time_left_by_hand():
    seconds = {"a": [30.0, 2.0, 4.0], "b": [10.0]}  # medians 4 and 10, so 7 for the unknown
    total, each = time_left(seconds, {"a": 5, "b": 0, "c": 2})
    assert each == {"a": 20.0, "b": 0.0, "c": 14.0}
    assert total == 34.0


def test_time_left_is_unknown_before_the_first_epoch_and_zero_at_the_end():
    assert time_left({"a": []}, {"a": 3, "b": 0}) == (None, {"a": None, "b": 0.0})
    assert time_left({"a": [1.0]}, {"a": 0}) == (0.0, {"a": 0.0})
    assert time_left({}, {}) == (0.0, {})


def test_clock_is_never_wider_than_its_column():
    assert all(len(clock(s)) <= 9 for s in (0, 59.5, 3599, 3600, 86399, 9 * 86400))
    assert clock(float("nan")) == "-"


def test_early_stopping_failure_and_other_seeds_change_what_is_left():
    with Progress("t", {"a": 20, "b": 20}, Console(file=io.StringIO()), now=Clock()) as p:
        assert p.left() is None
        p.start("a", 0, 10)
        for epoch in (1, 2, 3):
            p.epoch("a", 0, epoch, {"val_loss": 1.0}, 2.0)
        assert p.left() == 2.0 * (7 + 10 + 20)
        p.finish("a", 0, 0.5)  # stopped early: 7 epochs are spared, another seed is to come
        assert p.left() == 2.0 * (10 + 20)
        p.start("b", 0, 10)
        p.fail("b", "no memory")
        assert p.left() == 2.0 * 10
        p.start("a", 1, 10)
        p.epoch("a", 1, 10, {"val_loss": 1.0}, 2.0)  # resumed: only its last epoch was left
        assert p.left() == 0.0
        p.finish("a", 1, 0.7)
        text = shown(p)
    assert line(text, "a") == ["a", "done", "1.0000", "0.6000", "8", "s"]
    assert "40/40 epochs" in text


def test_a_number_as_budget_counts_architectures_that_are_not_named_yet():
    with Progress("t", 30, Console(file=io.StringIO()), now=Clock()) as p:
        p.start("a", 0, 10)
        p.epoch("a", 0, 1, {}, 3.0)
        assert p.left() == 3.0 * 29
        assert "1/30 epochs" in shown(p)


def test_a_wall_clock_budget_bounds_the_time_left():
    now = Clock()
    with Progress("t", {"a": 100}, Console(file=io.StringIO()), max_seconds=60, now=now) as p:
        assert p.left() == 60.0
        p.start("a", 0, 100)
        p.epoch("a", 0, 1, {}, 5.0)
        now.time = 20.0
        assert p.left() == 40.0
        p.epoch("a", 0, 98, {}, 5.0)
        assert p.left() == 10.0


def test_best_follows_the_direction_and_passes_over_nan():
    with Progress(
        "t", None, Console(file=io.StringIO()), monitor="val_accuracy", lower_is_better=False
    ) as p:
        p.start("a", 0, 9)
        for epoch, value in enumerate((0.5, 0.75, float("nan"), 0.625), 1):
            p.epoch("a", 0, epoch, {"val_accuracy": value}, 1.0)
        row = line(shown(p), "a")
    assert row[3:6] == ["4/9", "0.6250", "0.7500"]


NAMES = ["seasonal_naive", "attention_rnn", "inverted_transformer", "patch_transformer"]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_table_fits_and_cuts_no_name(width: int):
    with Progress("t", dict.fromkeys(NAMES[1:], 60), Console(file=io.StringIO())) as p:
        p.baseline("seasonal_naive", 0.512)
        p.start("inverted_transformer", "2, lr 0.0003", 20)
        p.epoch("inverted_transformer", "2, lr 0.0003", 13, {"val_loss": 12345.678}, 4000.0)
        p.fail("attention_rnn", "[64, 7] is [bold]no mark-up[/bold] " + "x" * 200)
        text = shown(p, width)
    assert all(len(row.rstrip()) <= width for row in text.splitlines())
    assert all(name in text for name in NAMES)
    assert "[64, 7] is [bold]no" in text
    assert "…" not in text


def test_a_low_screen_shows_what_runs_and_counts_the_rest():
    names = {f"waiting_{i}": 5 for i in range(20)}
    with Progress("t", {**names, "busy": 5}, Console(file=io.StringIO())) as p:
        p.start("busy", 0, 5)
        text = shown(p, height=15)
        assert len(text.splitlines()) <= 15
        assert "busy" in text and "and 12 more" in text
    assert "waiting_19" in shown(p, height=15)  # when all is over the whole table is left


def test_a_log_has_one_line_an_event_and_few_epochs():
    now, out = Clock(), io.StringIO()
    with Progress("CO2", {"gru": 40}, Console(file=out, width=40), score="MASE", now=now) as p:
        p.baseline("naive", 1.5)
        p.start("gru", 0, 40)
        for epoch in range(1, 41):
            now.time += 1.0
            p.epoch("gru", 0, epoch, {"val_loss": 1 / epoch}, 1.0)
        p.finish("gru", 0, 0.75)
        p.note("wrote [runs/x]")
    rows = out.getvalue().splitlines()
    assert rows[0] == "[0:00:00] CO2: 1 architecture"
    assert rows[1] == "[0:00:00] naive: baseline, MASE 1.5000"
    assert rows[2] == "[0:00:00] gru seed 0: starts, at most 40 epochs"
    assert rows[3] == (
        "[0:00:01] gru seed 0: epoch 1/40, val_loss 1.0000 (best 1.0000), 1.0 s, "
        "at most 39 s left in all"
    )
    assert [row.split(",")[0].split()[-1] for row in rows[3:-3]] == [
        "1/40", "11/40", "21/40", "31/40", "40/40",
    ]  # fmt: skip
    assert rows[-3:] == [
        "[0:00:40] gru seed 0: done after 40 epochs, MASE 0.7500",
        "[0:00:40] wrote [runs/x]",
        "[0:00:40] ended: 1 done",
    ]


def test_quiet_says_failures_only():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with Progress("t", {"a": 1}, console, quiet=True, now=Clock()) as p:
        p.start("a", 0, 1)
        p.epoch("a", 0, 1, {"val_loss": 1.0}, 1.0)
        p.fail("b", "two\nlines")
    assert out.getvalue().splitlines() == ["[0:00:00] b: FAILED: two lines"]


def test_ctrl_c_passes_through_and_the_table_stays():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, height=40, color_system=None)
    with pytest.raises(KeyboardInterrupt), Progress("t", {"a": 4, "b": 4}, console) as p:
        assert p.is_live
        p.start("a", 0, 4)
        p.note("a note")
        p.epoch("a", 0, 1, {"val_loss": 0.25}, 2.0)
        raise KeyboardInterrupt
    last = out.getvalue()[out.getvalue().rindex("architecture") :]
    assert line(last, "a")[1:4] == ["interrupted", "0", "1/4"]
    assert line(last, "b")[1] == "waiting"
    assert "1/8 epochs" in last
    assert "a note" in out.getvalue()
    assert out.getvalue().endswith("\x1b[?25h")  # the cursor is back


def test_an_interrupted_log_says_so():
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Progress("t", {"a": 4}, Console(file=out)) as p:
        p.start("a", 0, 4)
        raise KeyboardInterrupt
    assert out.getvalue().endswith("stopped: 1 interrupted\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_an_output_without_unicode_does_not_end_the_comparison(terminal: bool):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    console = Console(file=file, force_terminal=terminal, width=100, height=40)
    with Progress("t", {"a": 1}, console) as p:
        p.start("a", 0, 1)
        p.epoch("a", 0, 1, {"val_loss": 1.0}, 1.0)
        p.finish("a", 0, 1.0)
    assert b"1.0000" in raw.getvalue()
