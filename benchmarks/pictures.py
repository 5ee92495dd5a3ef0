"""Makes the pictures of the README from a finished comparison, in a headless Chromium.

    keras-seq compare forecasting ... --out runs/etth1
    python benchmarks/pictures.py runs/etth1

Needs Debian's packages chromium and chromium-driver, and the dev extra (selenium). Writes
benchmarks/results/pictures/: leaderboard.png, tensorboard_curves.png, tensorboard_hparams.png.
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


def main() -> None:
    """Makes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="the --out of a comparison")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        window = browser(1280, 1500, profile)
        try:
            window.get((options.runs / "leaderboard.html").resolve().as_uri())
            time.sleep(1)
            window.save_screenshot(options.out / "leaderboard.png")
            crop(options.out / "leaderboard.png", 1400)
            # TensorBoard ticks no run where there are more than 40: the curves are shown from the
            # validation folders alone.
            curves = Path(profile) / "curves"
            for folder in options.runs.glob("*/0/validation"):
                shutil.copytree(folder, curves / folder.parts[-3])
            for name, runs, page, width in (
                ("curves", curves, "#scalars&tagFilter=epoch_loss", 1280),
                ("hparams", options.runs, "#hparams", 1700),
            ):
                process, address = serve(runs)
                try:
                    window.set_window_size(width, 1100)
                    window.get("about:blank")
                    window.get(address + "/" + page)
                    time.sleep(15)
                    window.save_screenshot(options.out / f"tensorboard_{name}.png")
                    crop(options.out / f"tensorboard_{name}.png", 900)
                finally:
                    process.terminate()
                    process.wait(timeout=30)
        finally:
            window.quit()
    for path in sorted(options.out.glob("*.png")):
        print(path, path.stat().st_size // 1024, "KB")


if __name__ == "__main__":
    main()
