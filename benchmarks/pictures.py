"""Makes the pictures of the README from finished runs, in a headless Chromium.

    keras-seq compare forecasting ... --out runs/etth1
    python recipes/sentiment.py --data builtin:reviews
    python recipes/translation.py
    python benchmarks/pictures.py runs/etth1 --explain runs/sentiment/lstm/0 \\
        --align runs/translation/seq2seq_attention/0

Needs Debian's packages chromium and chromium-driver, and the dev extra (selenium). Writes
benchmarks/results/pictures/: leaderboard.png, tensorboard_curves.png, tensorboard_hparams.png;
explanation.png; alignment.png. Each of the three kinds of run may be left out.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import matplotlib.image
import numpy as np
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

HERE = Path(__file__).parent
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def browser(width: int, height: int, profile: str) -> webdriver.Chrome:
    """Starts Chromium with a profile of its own."""
    options = Options()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--window-size={width},{height}", f"--user-data-dir={profile}"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))


def serve(runs: Path) -> tuple[subprocess.Popen[str], str]:
    """Starts TensorBoard on a free port of this machine."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs),
         "--host", "127.0.0.1", "--port", "0"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    said: list[str] = []
    threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True).start()
    for _ in range(600):
        if found := re.search(r"at (http://127\.0\.0\.1:\d+)", "".join(said)):
            return process, found[1]
        time.sleep(0.2)
    raise SystemExit("TensorBoard did not start:\n" + "".join(said))


def crop(path: Path, height: int) -> None:
    """Cuts a picture to its upper part and writes it small."""
    from PIL import Image

    picture = matplotlib.image.imread(path)[:height, :, :3]
    image = Image.fromarray((picture * 255).astype("uint8"))
    image.quantize(64).save(path, optimize=True)


def trim(path: Path) -> None:
    """Cuts off the empty margin at the right and below, and writes it small."""
    picture = matplotlib.image.imread(path)[:, :, :3]
    used = np.argwhere((picture != picture[-1, -1]).any(axis=-1))
    height, width = (used.max(axis=0) + 24).tolist()
    matplotlib.image.imsave(path, picture[:height, :width])
    crop(path, height)


def comparison_pictures(window: webdriver.Chrome, runs: Path, out: Path, profile: Path) -> None:
    """The leaderboard's page, and two views of TensorBoard."""
    window.get((runs / "leaderboard.html").resolve().as_uri())
    time.sleep(1)
    window.save_screenshot(out / "leaderboard.png")
    crop(out / "leaderboard.png", 1400)
    # TensorBoard ticks no run where there are more than 40: the curves are shown from the
    # validation folders alone.
    curves = profile / "curves"
    for folder in runs.glob("*/0/validation"):
        shutil.copytree(folder, curves / folder.parts[-3])
    for name, folder, page, width in (
        ("curves", curves, "#scalars&tagFilter=epoch_loss", 1280),
        ("hparams", runs, "#hparams", 1700),
    ):
        process, address = serve(folder)
        try:
            window.set_window_size(width, 1100)
            window.get("about:blank")
            window.get(address + "/" + page)
            time.sleep(15)
            window.save_screenshot(out / f"tensorboard_{name}.png")
            crop(out / f"tensorboard_{name}.png", 900)
        finally:
            process.terminate()
            process.wait(timeout=30)


def page_picture(window: webdriver.Chrome, page: Path, out: Path) -> None:
    """A page of ours, without its empty margin."""
    window.set_window_size(1100, 900)
    window.get(page.resolve().as_uri())
    time.sleep(1)
    window.save_screenshot(out)
    trim(out)


def main() -> None:
    """Makes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="?", help="the --out of a comparison")
    parser.add_argument("--explain", type=Path, help="a run of classification")
    parser.add_argument("--text", default="not bad at all , the film was a joy")
    parser.add_argument("--align", type=Path, help="a run of translation, with attention")
    parser.add_argument("--source", default="Wednesday the 3rd of March 2021")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        window = browser(1280, 1500, profile)
        page = Path(profile) / "page.html"
        try:
            if options.runs:
                comparison_pictures(window, options.runs, options.out, Path(profile))
            if options.explain:
                from keras_seq.explain import explain_text

                explain_text(options.explain, options.text).write_html(page)
                page_picture(window, page, options.out / "explanation.png")
            if options.align:
                from keras_seq.figures import alignment_html
                from keras_seq.translating import open_translator

                translator = open_translator(options.align)
                best = translator([options.source])[0][0]
                found = alignment_html(
                    best.source,
                    best.target,
                    best.alignment,
                    title=best.text,
                    separator=translator.separator,
                )
                page.write_text(found, encoding="utf-8")
                page_picture(window, page, options.out / "alignment.png")
        finally:
            window.quit()
    for path in sorted(options.out.glob("*.png")):
        print(path, path.stat().st_size // 1024, "KB")


if __name__ == "__main__":
    main()
