"""Series that need no file: three that statsmodels ships, and waves with known answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_seq.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BUILTIN", "Builtin", "builtin_info", "load_builtin", "make_waves"]


@dataclass(frozen=True)
class Builtin:
    """What is known about a built-in series.

    Args:
        name: its name, as in "builtin:co2".
        title: one line for the user.
        time_column: name of the time column.
        target: names of the value columns.
        frequency: pandas frequency name.
        period: seasonal period in steps.
        source: where the numbers come from.
        note: what was done to them, empty where nothing.
    """

    name: str
    title: str
    time_column: str
    target: tuple[str, ...]
    frequency: str
    period: int
    source: str
    note: str = ""


BUILTIN = {
    info.name: info
    for info in (
        Builtin(
            "co2",
            "carbon dioxide in the air at Mauna Loa, parts per million, weekly, 1958 to 2001",
            "date",
            ("co2",),
            "W-SAT",
            52,
            "C. D. Keeling and T. P. Whorf, Scripps Institution of Oceanography, through "
            "statsmodels.datasets.co2 (public domain)",
            "59 weeks without a measurement are filled by linear interpolation",
        ),
        Builtin(
            "el_nino",
            "sea surface temperature in the eastern Pacific (Nino 1+2), degrees C, monthly, "
            "1950 to 2010",
            "date",
            ("temperature",),
            "MS",
            12,
            "NOAA National Weather Service, ERSST.V3B, through statsmodels.datasets.elnino "
            "(public domain)",
        ),
        Builtin(
            "sunspots",
            "sunspot activity, yearly, 1700 to 2008",
            "date",
            ("activity",),
            "YS",
            11,
            "NOAA National Geophysical Data Center, through statsmodels.datasets.sunspots "
            "(public domain)",
        ),
        Builtin(
            "waves",
            "two sums of a daily and a weekly wave, hourly, with a little noise",
            "date",
            ("a", "b"),
            "h",
            24,
            "keras_seq.data.builtin.make_waves with its defaults",
        ),
    )
}


def builtin_info(name: str) -> Builtin:
    """Metadata of a built-in series.

    Args:
        name: one of the names in `BUILTIN`.

    Returns:
        The metadata.

    Raises:
        UserError: no such name.

    Example:
        >>> builtin_info("co2").period
        52
    """
    try:
        return BUILTIN[name]
    except KeyError:
        import difflib

        near = difflib.get_close_matches(name, BUILTIN, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(
            f"no built-in data {name!r}: {hint}there are {', '.join(BUILTIN)}"
        ) from None


def load_builtin(name: str) -> pd.DataFrame:
    """A built-in series as a frame: a `date` column, then the values, no gaps.

    Args:
        name: "co2", "el_nino", "sunspots" or "waves".

    Returns:
        The frame; `builtin_info(name)` tells its period, frequency and source.

    Raises:
        UserError: no such name.

    Example:
        >>> load_builtin("sunspots").head(2)
                date  activity
        0 1700-01-01       5.0
        1 1701-01-01      11.0
    """
    info = builtin_info(name)
    if name == "waves":
        return make_waves()[0]
    import pandas as pd

    # each data set by its own module: statsmodels.api would load all of statsmodels
    if name == "co2":
        from statsmodels.datasets import co2

        frame = co2.load_pandas().data
        values, dates = frame["co2"].interpolate().to_numpy(), frame.index
    elif name == "el_nino":
        from statsmodels.datasets import elnino

        frame = elnino.load_pandas().data
        years = frame["YEAR"].astype(int)
        values = frame.drop(columns="YEAR").to_numpy(float).reshape(-1)  # (years, 12) -> months
        dates = pd.date_range(f"{years.iloc[0]}-01-01", periods=len(values), freq="MS")
    else:
        from statsmodels.datasets import sunspots

        frame = sunspots.load_pandas().data
        values = frame["SUNACTIVITY"].to_numpy(float)
        dates = pd.to_datetime(frame["YEAR"].astype(int).astype(str) + "-01-01")
    dates = np.asarray(dates, "datetime64[ns]")
    return pd.DataFrame({info.time_column: dates, info.target[0]: values})


def make_waves(
    steps: int = 2000,
    *,
    periods: Sequence[float] = (24, 168),
    channels: Sequence[str] = ("a", "b"),
    trend: float = 0.0,
    noise: float = 0.1,
    seed: int = 0,
    frequency: str = "h",
    start: str = "2020-01-01",
) -> tuple[pd.DataFrame, np.ndarray]:
    """Sums of seasonal waves whose noise-free values are known.

    Args:
        steps: number of rows.
        periods: periods of the waves in steps; every channel holds all of them, with its own
            amplitudes (0.5 to 1.5) and phases.
        channels: names of the columns.
        trend: rise for each step.
        noise: standard deviation of the normal noise added.
        seed: decides amplitudes, phases and noise.
        frequency: pandas frequency name of the rows.
        start: first date.

    Returns:
        The frame (a `date` column and the channels), and the same values without noise
        (steps, channels): the best forecast there is.

    Raises:
        UserError: no steps, periods or channels, or a period or noise out of range.

    Example:
        >>> frame, truth = make_waves(48, noise=0.0)
        >>> bool((frame[["a", "b"]].to_numpy() == truth).all())
        True
    """
    import pandas as pd

    if steps < 1 or not len(periods) or min(periods) <= 0 or not len(channels) or noise < 0:
        raise UserError(
            f"waves need steps >= 1, periods > 0, a channel and noise >= 0, got steps {steps}, "
            f"periods {tuple(periods)}, channels {tuple(channels)}, noise {noise}"
        )
    rng = np.random.default_rng(seed)
    amplitude = rng.uniform(0.5, 1.5, (len(periods), len(channels)))
    phase = rng.uniform(0, 2 * np.pi, (len(periods), len(channels)))
    t = np.arange(steps)[:, None]
    truth = trend * t + sum(
        amplitude[i] * np.sin(2 * np.pi * t / period + phase[i]) for i, period in enumerate(periods)
    )
    noisy = truth + noise * rng.standard_normal(truth.shape)
    dates = pd.date_range(start, periods=steps, freq=frequency)
    frame = pd.DataFrame(noisy, columns=list(channels))
    frame.insert(0, "date", np.asarray(dates, "datetime64[ns]"))
    return frame, truth
