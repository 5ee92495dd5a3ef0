"""Compare architectures on one file of time series, look at the table, forecast, ship the winner.

    python recipes/time_series.py                                 # built-in data, 2 minutes
    python recipes/time_series.py --data load.csv --horizon 24    # your own

Copy this file and change it: everything it does is a call of the public API.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras_seq
from keras_seq.runs import predict_file


def arguments() -> argparse.Namespace:
    """Reads the command line; `keras-seq compare forecasting --help` has all that there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="builtin:el_nino", help="csv, tsv, parquet or builtin")
    parser.add_argument("--lookback", type=int, default=48, help="steps that a model sees")
    parser.add_argument("--horizon", type=int, default=12, help="steps that it forecasts")
    parser.add_argument("--parameters", type=int, default=20_000, help="budget of each model")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--architectures", default="linear,mlp,gru,tcn,nhits")
    parser.add_argument("--out", type=Path, default=Path("runs/time_series"))
    return parser.parse_args()


def main() -> None:
    """The whole way: compare, read the table, forecast what comes next."""
    options = arguments()
    result = keras_seq.compare(
        "forecasting",
        data=options.data,
        lookback=options.lookback,
        horizon=options.horizon,
        quantiles=(0.1, 0.9),  # forecasts with an interval; leave it out for points
        architectures=options.architectures,
        parameters=options.parameters,  # every width is solved for this budget
        epochs=options.epochs,
        out=options.out,
        resume=True,  # go on with what an earlier call left
    )

    # The table knows when a baseline is better, and says so.
    for row in result.leaderboard.ranked():
        print(
            f"{row.architecture:16} {row.scores.get(result.leaderboard.primary, float('nan')):.4f}"
        )
    for sentence in result.leaderboard.verdict():
        print(sentence)

    # The artifact was run by its own runtime and compared with the Keras model before this line.
    print(f"{result.winner} -> {result.artifact}")
    for name, found in result.report["formats"].items():
        print(f"  {name}: differs by {found['relative_difference']:.1e}")

    # What comes after the end of the file, from the exported folder.
    forecast = predict_file(result.artifact, data=options.data, out=options.out / "forecast.csv")
    print(forecast.head())


if __name__ == "__main__":
    main()
