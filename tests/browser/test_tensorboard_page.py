"""TensorBoard, opened in a headless Chromium, shows two runs side by side.

Needs Debian's packages chromium and chromium-driver. Without them the test is skipped, but not
where CI is set. KERAS_SEQ_SCREENSHOTS names a folder for pictures of the pages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_seq.callbacks import TensorBoard, log_scores, write_experiment
from keras_seq.figures import forecast_figure

# One worker trains the two runs and opens the page.
pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("browser")]

WAIT = 120  # seconds; a page takes 2 to 10, on a busy machine more
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1500,1200",
)
# TensorBoard is made of web components: what is seen lies in shadow roots within shadow roots.
# `all` collects every element, `own` the text that an element holds itself; hidden ones are out.
WALK = """
const all = [];
(function walk(node) {
  for (const child of node.children) {
    if (["STYLE", "SCRIPT", "NOSCRIPT", "TEMPLATE"].includes(child.tagName)) continue;
    all.push(child);
    if (child.shadowRoot) walk(child.shadowRoot);
    walk(child);
  }
})(document.body);
const shown = e => e.getClientRects().length > 0;
const own = e => [...e.childNodes].filter(n => n.nodeType === 3)
  .map(n => n.textContent.trim()).filter(t => t).join(" ");
"""
TEXTS = WALK + "return all.filter(shown).map(own).filter(t => t);"
CLICK = (
    WALK
    + """
const found = all.filter(shown).filter(e => own(e).toLowerCase() === arguments[0].toLowerCase());
if (found.length) found[found.length - 1].click();
return found.length > 0;
"""
)
# How many lines the view of parallel coordinates has drawn.
PATHS = WALK + "return all.filter(shown).filter(e => e.tagName === 'path').length;"


def without_browser() -> str:
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two networks trained for 3 epochs, and a baseline, in one comparison."""
    reason = without_browser()
    if reason:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("comparison")
    random = np.random.default_rng(0)
    wave = np.sin(np.arange(80) / 3) + 0.1 * random.normal(size=80)
    windows = np.lib.stride_tricks.sliding_window_view(wave, 16)[..., None].astype("float32")
    x, y = windows[:, :12], windows[:, 12:, 0]

    def pictures(model):
        forecast = model(x[-1:], training=False).numpy()[0]
        return {"forecast": forecast_figure(x[-1, :, 0], y[-1], forecast, title="last window")}

    for name, layer in (
        ("lstm", keras.layers.LSTM(8, name="lstm_0")),
        ("linear", keras.layers.Flatten(name="flat")),
    ):
        keras.utils.set_random_seed(0)
        series = keras.Input((12, 1), name="series")
        model = keras.Model(series, keras.layers.Dense(4, name="head")(layer(series)), name=name)
        model.compile("adam", "mse", metrics=["mae"])
        board = TensorBoard(
            folder / name / "0",
            gradient_batch=(x[:8], y[:8]),
            figures=pictures,
            hparams={"architecture": name, "parameters": model.count_params()},
            card=f"# {name}\n\nTrained on a wave.",
        )
        model.fit(x, y, validation_split=0.2, epochs=3, verbose=0, callbacks=[board])
        board.log_scores({"mse": 0.25 if name == "lstm" else 0.125, "mae": 0.5})
    log_scores(folder / "naive", {"architecture": "naive", "parameters": 0}, {"mse": 2, "mae": 1})
    options = {"architecture": ["lstm", "linear", "naive"], "parameters": int}
    write_experiment(folder, options, ["mse", "mae"])
    return folder


@pytest.fixture(scope="module")
def address(runs, tmp_path_factory):
    """The address of a TensorBoard that shows the comparison."""
    server = [sys.executable, "-m", "tensorboard.main", "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(
        [*server, "--logdir", str(runs)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A file of its own about running instances, not the one all users share.
        env=os.environ | {"TMPDIR": str(tmp_path_factory.mktemp("tensorboard"))},
    )
    # The pipe is read to its end, so that a full one never stops the server.
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stderr), daemon=True)
    reader.start()
    try:
        until = time.monotonic() + WAIT
        while not (found := re.search(r"at (http://127\.0\.0\.1:\d+)", "".join(said))):
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail("TensorBoard did not start:\n" + "".join(said))
            time.sleep(0.2)
        yield found[1]
    finally:
        process.terminate()
        process.wait(timeout=30)
        reader.join(timeout=30)
        process.stderr.close()


@pytest.fixture(scope="module")
def browser(runs, tmp_path_factory):
    """A Chromium with a profile of its own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_page_load_timeout(WAIT)
    driver.set_script_timeout(WAIT)
    yield driver
    driver.quit()


def show(browser, address: str, page: str) -> None:
    # A change of the fragment alone is no new page: leave first.
    browser.get("about:blank")
    browser.get(f"{address}/#{page}")


def texts(browser, *wanted: str) -> list[str]:
    """Waits until all that is wanted is seen on the page, and returns all that is seen."""
    until = time.monotonic() + WAIT
    while True:
        found = browser.execute_script(TEXTS)
        missing = [text for text in wanted if text not in found]
        if not missing:
            return found
        if time.monotonic() > until:
            pytest.fail(f"not on the page: {missing}; on it: {found}")
        time.sleep(0.5)


def click(browser, text: str) -> None:
    until = time.monotonic() + WAIT
    while not browser.execute_script(CLICK, text):
        if time.monotonic() > until:
            pytest.fail(f"nothing to click that says {text!r}")
        time.sleep(0.5)


def keep(browser, name: str) -> None:
    if folder := os.environ.get("KERAS_SEQ_SCREENSHOTS"):
        time.sleep(3)  # charts fade in
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def test_scalars_show_both_runs(browser, address):
    show(browser, address, "scalars")
    runs = [f"{name}/0/{part}" for name in ("lstm", "linear") for part in ("train", "validation")]
    found = texts(browser, "epoch_loss", "epoch_mae", "gradient_norm", "learning_rate", *runs)
    assert "throughput" in found and "score" in found
    keep(browser, "scalars")


def test_time_series_show_the_last_value_of_both_runs(browser, address):
    show(browser, address, "timeseries")
    texts(browser, "epoch_loss", "lstm/0/train", "linear/0/train")
    keep(browser, "timeseries")


def test_images_show_a_forecast_of_both_runs(browser, address):
    show(browser, address, "images")
    texts(browser, "forecast", "lstm/0", "linear/0")
    keep(browser, "images")


def rows_of_table(browser) -> str:
    """All that is seen from the heading of the table of trials on, in one line."""
    found = texts(browser, "Trial ID")
    return " ".join(found[found.index("Trial ID") :])


def test_table_of_options_and_scores_compares_architectures(browser, address):
    show(browser, address, "hparams")
    texts(browser, "architecture", "parameters", "lstm", "linear", "naive", "mse", "mae")
    # lstm 0.25, linear 0.125, naive 2: as the table writes them, in the row of each.
    rows = [
        rf" {name} [\d.]+ {re.escape(score)} "
        for name, score in (("lstm", "0.25000"), ("linear", "0.12500"), ("naive", "2.0000"))
    ]
    # The names stand in the filters beside the table before it has rows: wait for these too.
    until = time.monotonic() + WAIT
    while not all(re.search(row, rows_of_table(browser)) for row in rows):
        assert time.monotonic() < until, rows_of_table(browser)
        time.sleep(0.5)
    keep(browser, "hparams_table")
    click(browser, "Parallel Coordinates View")
    until = time.monotonic() + WAIT
    while browser.execute_script(PATHS) < 3:  # a line for each of the three
        assert time.monotonic() < until, "the view of parallel coordinates has no lines"
        time.sleep(0.5)
    keep(browser, "hparams_parallel")


def test_graph_is_drawn(browser, address):
    show(browser, address, "graphs")
    texts(browser, "Main Graph")
    keep(browser, "graph")
