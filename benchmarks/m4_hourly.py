"""Reshapes the M4 competition's hourly files into the long form that keras-seq reads.

    python benchmarks/m4_hourly.py FOLDER runs/m4_hourly.csv
    keras-seq compare forecasting --data runs/m4_hourly.csv --id-column id --time-column step \
        --lookback 168 --horizon 48 --parameters 200000 \
        --architectures linear,gru,nhits,segment_rnn --out runs/m4_hourly

FOLDER holds m4_hourly_train.csv and m4_hourly_test.csv: a series in a row, its name first. The
test part is the last 48 hours of each series, as in the competition; the 48 before are validation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd


def main() -> None:
    """Writes one row for each series and hour."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    parts = [pd.read_csv(options.folder / f"m4_hourly_{part}.csv") for part in ("train", "test")]
    frames = []
    for (_, train), (_, test) in zip(*(part.iterrows() for part in parts), strict=True):
        if train.iloc[0] != test.iloc[0]:
            raise SystemExit(f"the files differ in order: {train.iloc[0]} and {test.iloc[0]}")
        values = np.concatenate([row.iloc[1:].dropna().to_numpy(float) for row in (train, test)])
        step = np.arange(1, len(values) + 1)
        frames.append(pd.DataFrame({"id": train.iloc[0], "step": step, "value": values}))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(frames).to_csv(options.out, index=False)
    print(f"{len(frames)} series -> {options.out}")


if __name__ == "__main__":
    main()
