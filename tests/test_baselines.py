"""Baselines against statsmodels, scikit-learn's algebra, numbers by hand and published tables."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from keras_seq import baselines
from keras_seq.baselines import BASELINES, Ets, Ridge, Theta, holt_winters_forecast, theta_forecast
from keras_seq.evaluation import forecast_scores, seasonal_scale


def season(rows=400, period=12, noise=0.3, channels=2, level=20.0, seed=0):
    """Trend, a season and noise: (rows, channels)."""
    generator = np.random.default_rng(seed)
    step = np.arange(rows)[:, None]
    wave = 3 * np.sin(2 * np.pi * step / period + np.arange(channels))
    return level + 0.01 * step + wave + noise * generator.normal(size=(rows, channels))


def cut(values, starts, lookback, horizon):
    windows = np.stack([values[s : s + lookback + horizon] for s in starts])
    return windows[:, :lookback], windows[:, lookback:]


# --- the whole table


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline(name):
    values = season()
    lookback, horizon, starts = 36, 10, np.arange(250)
    inputs, _ = cut(values, np.arange(300, 340), lookback, horizon)
    baseline = BASELINES[name]()
    assert baseline.name == name
    with pytest.raises(ValueError, match="call fit first"):
        baseline.predict(inputs)
    assert baseline.fit(values, starts, lookback, horizon, 12) is baseline
    forecast = baseline.predict(inputs)
    assert forecast.shape == (40, horizon, 2) and forecast.dtype == np.float64
    assert np.isfinite(forecast).all()
    assert baseline.notes == ()
    assert baseline.predict(inputs.astype(np.float32)).dtype == np.float32
    # One window alone gives what it gives among others; the inputs stay as they were.
    np.testing.assert_allclose(baseline.predict(inputs[7:8])[0], forecast[7], rtol=1e-12)
    again, _ = cut(values, np.arange(300, 340), lookback, horizon)
    np.testing.assert_array_equal(inputs, again)
    assert baseline.predict(inputs[:0]).shape == (0, horizon, 2)
    with pytest.raises(ValueError, match="inputs have shape"):
        baseline.predict(inputs[:, 1:])


@pytest.mark.parametrize("name", BASELINES)
def test_rows_outside_the_training_windows_are_never_read(name):
    values = season()
    inputs, _ = cut(values, [300], 36, 10)
    starts = np.arange(100, 200)
    wanted = BASELINES[name]().fit(values, starts, 36, 10, 12).predict(inputs)
    spoilt = values.copy()
    spoilt[:100] = 1e9
    spoilt[199 + 46 :] = np.nan
    got = BASELINES[name]().fit(spoilt, starts, 36, 10, 12).predict(inputs)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", BASELINES)
def test_scale_and_shift(name):
    # In other units the forecast is the same in other units.
    values = season()
    inputs, _ = cut(values, np.arange(300, 310), 36, 10)
    wanted = BASELINES[name]().fit(values, np.arange(200), 36, 10, 12).predict(inputs)
    got = BASELINES[name]().fit(values * 1000, np.arange(200), 36, 10, 12).predict(inputs * 1000)
    np.testing.assert_allclose(got, wanted * 1000, rtol=1e-3)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize(
    ("lookback", "period"), [(1, 12), (1, None), (8, 12), (20, 12), (20, None)]
)
def test_small_lookback(name, lookback, period):
    values = season()
    baseline = BASELINES[name]().fit(values, np.arange(200), lookback, 5, period)
    inputs, _ = cut(values, np.arange(300, 304), lookback, 5)
    forecast = baseline.predict(inputs)
    assert np.isfinite(forecast).all()
    if lookback == 1:
        np.testing.assert_allclose(forecast, np.repeat(inputs, 5, axis=1), rtol=1e-9)


@pytest.mark.parametrize("name", BASELINES)
def test_fit_refusals(name):
    values = season(100)
    make = BASELINES[name]
    with pytest.raises(ValueError, match="no training window"):
        make().fit(values, [], 10, 5)
    with pytest.raises(ValueError, match="reach from row"):
        make().fit(values, [90], 10, 5)
    with pytest.raises(ValueError, match="across the end"):
        make().fit(values, [40], 10, 5, offsets=[0, 50, 100])
    with pytest.raises(ValueError, match="horizon 0"):
        make().fit(values, [0], 10, 0)
    with pytest.raises(ValueError, match="period is 0"):
        make().fit(values, [0], 10, 5, 0)
    with pytest.raises(ValueError, match="values have shape"):
        make().fit(values[:, 0], [0], 10, 5)


# --- simple ones, by hand


def test_naive_seasonal_drift_by_hand():
    window = np.array([[[1.0], [5.0], [2.0], [7.0]]])
    values = np.zeros((20, 1))

    def forecast(name, period):
        return BASELINES[name]().fit(values, [0], 4, 5, period).predict(window).ravel().tolist()

    assert forecast("naive", None) == [7.0] * 5
    assert forecast("seasonal_naive", 3) == [5.0, 2.0, 7.0, 5.0, 2.0]
    assert forecast("drift", None) == [9.0, 11.0, 13.0, 15.0, 17.0]


def test_seasonal_naive_says_when_it_is_not():
    window = np.array([[[1.0], [5.0]]])
    short = BASELINES["seasonal_naive"]().fit(np.zeros((20, 1)), [0], 2, 3, 12)
    assert short.predict(window).ravel().tolist() == [5.0] * 3
    assert len(short.notes) == 1 and "period of 12" in short.notes[0]
    unknown = BASELINES["seasonal_naive"]().fit(np.zeros((20, 1)), [0], 2, 3, None)
    assert "no seasonal period" in unknown.notes[0]


# --- ridge


def test_ridge_is_the_closed_form():
    values = season(120)
    starts = np.array([0, 1, 5, 20, 21, 60, 61, 70])
    ridge = Ridge().fit(values, starts, 12, 4)
    rows = np.unique(np.concatenate([np.arange(s, s + 16) for s in starts]))
    scaled = values / values[rows].std(axis=0)
    past, future = cut(scaled, starts, 12, 4)
    last = past[:, -1:]
    x = np.swapaxes(past - last, 1, 2).reshape(-1, 12)
    y = np.swapaxes(future - last, 1, 2).reshape(-1, 4)
    wanted = np.linalg.solve(x.T @ x + 1e-3 * len(x) * np.eye(12), x.T @ y)
    np.testing.assert_allclose(ridge.weights, wanted, rtol=1e-8, atol=1e-12)
    inputs, _ = cut(values, [90], 12, 4)
    by_hand = (inputs[0] - inputs[0, -1:]).T @ wanted
    np.testing.assert_allclose(ridge.predict(inputs)[0], by_hand.T + inputs[0, -1:], rtol=1e-9)


def test_ridge_blocks_and_gaps(monkeypatch):
    values = season(150)
    starts = np.arange(100)
    whole = Ridge().fit(values, starts, 12, 4).weights
    monkeypatch.setattr(baselines.forecasting, "_BLOCK", 16 * 2 * 7)
    twice = np.concatenate([starts, starts])
    np.testing.assert_allclose(Ridge().fit(values, twice, 12, 4).weights, whole, rtol=1e-9)
    # Every second window alone makes no run: window by window, and in several blocks.
    even = Ridge().fit(values, starts[::2], 12, 4).weights
    monkeypatch.undo()
    np.testing.assert_allclose(
        Ridge().fit(values, starts[::2], 12, 4).weights, even, rtol=1e-9, atol=1e-12
    )
    values[50, 0] = np.nan
    gaps = Ridge().fit(values, starts, 12, 4)
    assert np.isfinite(gaps.weights).all() and gaps.notes == ()
    values[:] = np.nan
    nothing = Ridge().fit(values, starts, 12, 4)
    assert "missing values" in nothing.notes[0] and not nothing.weights.any()


@pytest.mark.parametrize("level", [0.0, 1e6])
@pytest.mark.parametrize(("lookback", "horizon"), [(1, 1), (1, 4), (12, 1), (12, 4)])
def test_ridge_shortcut_over_runs_equals_window_by_window(lookback, horizon, level):
    values = season(200) + level
    span = lookback + horizon
    starts = np.concatenate([np.arange(5, 60), np.arange(100, 150)])
    part = [values[s : s + span].T for s in starts]
    windows = np.concatenate(part)
    windows = windows - windows[:, lookback - 1 : lookback]
    sums = sum(
        baselines.forecasting._run_products(values[a : b + span - 1], span, lookback - 1)
        for a, b in ((5, 60), (100, 150))
    )
    np.testing.assert_allclose(sums, windows.T @ windows, rtol=1e-7, atol=1e-6)


def test_ridge_learns_from_every_series_alike():
    small, large = season(200, channels=1, seed=1), season(200, channels=1, seed=2)
    starts = np.concatenate([np.arange(150), 200 + np.arange(150)])
    alike = Ridge().fit(np.concatenate([small, large]), starts, 24, 6, offsets=[0, 200, 400])
    sized = Ridge().fit(np.concatenate([small, large * 1e6]), starts, 24, 6, offsets=[0, 200, 400])
    np.testing.assert_allclose(sized.weights, alike.weights, rtol=1e-6, atol=1e-9)
    scale = np.repeat([small[:179].std(), 1e6 * large[:179].std()], 200)[:, None]
    given = Ridge().fit(np.concatenate([small, large * 1e6]), starts, 24, 6, scale=scale)
    np.testing.assert_allclose(given.weights, alike.weights, rtol=1e-6, atol=1e-9)


def test_ridge_continues_a_wave():
    values = season(600, noise=0.0)
    inputs, truth = cut(values, np.arange(480, 520), 48, 24)
    forecast = Ridge(penalty=1e-9).fit(values, np.arange(400), 48, 24).predict(inputs)
    np.testing.assert_allclose(forecast, truth, atol=1e-2)


# --- theta and ets, against statsmodels


def statsmodels_theta(window, horizon, period):
    """What statsmodels forecasts, and the parameter that it estimated."""
    theta = pytest.importorskip("statsmodels.tsa.forecasting.theta")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = theta.ThetaModel(window, period=period, deseasonalize=period > 1).fit()
        return np.asarray(result.forecast(horizon)), float(result.params["alpha"])


@pytest.mark.parametrize("period", [1, 2, 7, 12, 24])
@pytest.mark.parametrize("kind", ["positive", "signed", "noise", "growing", "dips"])
def test_theta_equals_statsmodels(kind, period):
    length, generator = 61, np.random.default_rng(period)
    step = np.arange(length)
    wave = np.sin(2 * np.pi * step / period)
    window = {
        "positive": 20 + 5 * wave + 0.1 * step,
        "signed": 5 * wave - 0.1 * step,
        "noise": 10 + 0 * wave,
        "growing": np.exp(0.02 * step) * (2 + wave),
        "dips": np.where(step % period == 0, 1e-3, 5.0 + wave),
    }[kind] + 0.3 * np.abs(generator.normal(size=length))
    wanted, alpha = statsmodels_theta(window, 30, period)
    got = theta_forecast(window[None], alpha, horizon=30, period=period)
    np.testing.assert_allclose(got[0], wanted, rtol=1e-6, atol=1e-6)
    # and among others, whatever they are
    others = np.stack([-window, window, np.ones(length), np.zeros(length)])
    rates = np.array([0.5, alpha, 0.2, 1.0])
    mixed = theta_forecast(others, rates, horizon=30, period=period)
    np.testing.assert_allclose(mixed[1], wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(mixed[2], 1.0)
    np.testing.assert_allclose(mixed[3], 0.0, atol=1e-12)


def test_theta_additive_window_of_a_signed_series_equals_statsmodels():
    theta = pytest.importorskip("statsmodels.tsa.forecasting.theta")
    window = season(60, channels=1)[:, 0]
    result = theta.ThetaModel(window, period=12, method="additive").fit()
    got = theta_forecast(
        window[None], result.params["alpha"], horizon=20, period=12, multiplicative=False
    )
    np.testing.assert_allclose(got[0], np.asarray(result.forecast(20)), rtol=1e-6)


@pytest.mark.parametrize("period", [1, 12])
def test_theta_parameter_is_the_one_of_statsmodels(period):
    generator = np.random.default_rng(9)
    walk = 100 + np.cumsum(generator.normal(size=300)) + 2 * generator.normal(size=300)
    values = (walk + 5 * np.sin(2 * np.pi * np.arange(300) / 12) * (period > 1))[:, None]
    _, alpha = statsmodels_theta(values[:280, 0], 1, period)
    theta = Theta().fit(values, np.arange(280 - 30 + 1), 24, 6, period)
    assert 0.1 < alpha < 0.9  # inside, so that equality says something
    assert theta.parameters[0, 0, 0] == pytest.approx(alpha, abs=2e-3)


@pytest.mark.parametrize("seasonal", [True, False])
def test_holt_winters_equals_statsmodels(seasonal):
    # Its state-space form, for `holtwinters.ExponentialSmoothing` (0.15) forgets the seasonal term
    # that the last observation has just updated: its forecast one period ahead is another.
    ets = pytest.importorskip("statsmodels.tsa.exponential_smoothing.ets")
    window = season(60, channels=1)[:, 0]
    period = 12 if seasonal else 1
    initial = np.linspace(-2, 2, 12) if seasonal else np.zeros(1)
    model = ets.ETSModel(
        window,
        trend="add",
        damped_trend=True,
        seasonal="add" if seasonal else None,
        seasonal_periods=12 if seasonal else None,
        initialization_method="known",
        initial_level=19.0,
        initial_trend=0.2,
        initial_seasonal=initial if seasonal else None,
    )
    # Its trend parameter is the product of the level's and the trend's: 0.4 * 0.2.
    fixed = {"smoothing_level": 0.4, "smoothing_trend": 0.08, "damping_trend": 0.9}
    if seasonal:
        fixed["smoothing_seasonal"] = 0.3
    with model.fix_params(fixed):
        result = model.fit(disp=False)
    got = holt_winters_forecast(
        np.stack([window, window * 2]),
        np.tile([0.4, 0.2, 0.3 if seasonal else 0.0, 0.9], (2, 1)),
        level=np.array([19.0, 38.0]),
        trend=np.array([0.2, 0.4]),
        season=np.stack([initial, 2 * initial]),
        horizon=20,
    )
    assert got.shape == (2, 20) and period == len(initial)
    np.testing.assert_allclose(got[0], np.asarray(result.forecast(20)), rtol=1e-9)
    np.testing.assert_allclose(got[1], 2 * got[0], rtol=1e-12)


@pytest.mark.parametrize("make", [Theta, Ets])
def test_smoothing_beats_naive_on_a_noisy_season(make):
    values = season(500, noise=1.0)
    inputs, truth = cut(values, np.arange(390, 440), 48, 12)
    scores = {}
    for baseline in (make(), BASELINES["naive"](), BASELINES["seasonal_naive"]()):
        forecast = baseline.fit(values, np.arange(300), 48, 12, 12).predict(inputs)
        scores[baseline.name] = forecast_scores(truth, forecast)["mse"]
    assert scores[make.name] < 0.8 * scores["seasonal_naive"] < scores["naive"]


@pytest.mark.parametrize("make", [Theta, Ets])
def test_smoothing_keeps_series_apart(make):
    rough = season(200, channels=1, noise=3.0, seed=1)
    walk = 500 + np.cumsum(np.random.default_rng(2).normal(size=(200, 1)), axis=0)
    both = np.concatenate([rough, walk])
    starts = np.concatenate([np.arange(150), 200 + np.arange(150)])
    inputs = np.stack([rough[150:186], walk[150:186]])
    joint = make().fit(both, starts, 36, 6, 12, offsets=[0, 200, 400])
    with pytest.raises(ValueError, match="say with series="):
        joint.predict(inputs)
    with pytest.raises(ValueError, match="series run from"):
        joint.predict(inputs, series=[0, 2])
    forecast = joint.predict(inputs, series=[0, 1])
    for index, values in enumerate((rough, walk)):
        alone = make().fit(values, np.arange(150), 36, 6, 12).predict(inputs[index : index + 1])
        np.testing.assert_allclose(forecast[index], alone[0], rtol=1e-9)
    swapped = joint.predict(inputs[::-1], series=[1, 0])
    np.testing.assert_allclose(swapped[::-1], forecast, rtol=1e-12)


@pytest.mark.parametrize("make", [Theta, Ets])
def test_smoothing_falls_back_and_says_so(make, monkeypatch):
    values = season(200)
    values[:, 1] = 4.0  # nothing to estimate
    inputs, _ = cut(values, [150], 36, 6)
    baseline = make().fit(values, np.arange(100), 36, 6, 12)
    assert "1 of 2 series and channels" in baseline.notes[0] and "constant" in baseline.notes[0]
    np.testing.assert_array_equal(baseline.predict(inputs)[..., 1], 4.0)
    assert (baseline.predict(inputs)[..., 0] != inputs[:, 24:30, 0]).all()

    short = make().fit(season(200), np.arange(100), 20, 6, 12)  # not two periods
    inputs, _ = cut(season(200), [150], 20, 6)
    np.testing.assert_array_equal(short.predict(inputs), inputs[:, 8:14])
    assert "two periods" in short.notes[0]

    def fails(*_):
        warnings.warn("did not converge", RuntimeWarning, stacklevel=1)
        raise np.linalg.LinAlgError("singular\nmatrix")

    monkeypatch.setattr(make, "_estimate", fails)
    broken = make().fit(season(200), np.arange(100), 36, 6, 12)
    inputs, _ = cut(season(200), [150], 36, 6)
    np.testing.assert_array_equal(broken.predict(inputs), inputs[:, 24:30])
    assert "2 of 2" in broken.notes[0] and "singular matrix" in broken.notes[0]


def test_many_series_share_the_median(monkeypatch):
    monkeypatch.setattr(baselines.forecasting, "_ESTIMATION_SERIES", 2)
    values = np.concatenate([season(100, channels=1, seed=seed) for seed in range(5)])
    starts = np.concatenate([100 * i + np.arange(50) for i in range(5)])
    theta = Theta().fit(values, starts, 24, 6, 12, offsets=np.arange(0, 501, 100))
    assert theta.notes == ("3 of 5 series share the median parameters",)
    assert np.isfinite(theta.parameters).all()
    assert theta.parameters[1] == np.median(theta.parameters[[0, 4]])


# --- published figures


@pytest.fixture(scope="module")
def etth1(data_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(data_path / "timeseries" / "ETTh1.csv")
    return frame.drop(columns="date").to_numpy(np.float64)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "mse", "mae"),
    [("naive", 1.294, 0.713), ("seasonal_naive", 0.512, 0.433), ("ridge", 0.370, 0.391)],
)
def test_etth1(etth1, name, mse, mae):
    lookback, horizon = 336, 96
    inputs, truth = cut(etth1, np.arange(11520 - lookback, 14400 - lookback - 95), 336, 96)
    assert len(inputs) == 2785
    train = np.arange(8640 - lookback - horizon + 1)
    baseline = BASELINES[name]().fit(etth1, train, lookback, horizon, 24)
    scores = forecast_scores(truth, baseline.predict(inputs), scale=etth1[:8640].std(axis=0))
    assert scores["mse_scaled"] == pytest.approx(mse, abs=2e-3)
    assert scores["mae_scaled"] == pytest.approx(mae, abs=2e-3)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["theta", "ets"])
def test_etth1_smoothing(etth1, name):
    # No published figure for this protocol: better than the last value, and quick (see the report).
    inputs, truth = cut(etth1, np.arange(11520 - 336, 14400 - 336 - 95, 7), 336, 96)
    baseline = BASELINES[name]().fit(etth1, np.arange(8640 - 431), 336, 96, 24)
    assert baseline.notes == ()
    scores = forecast_scores(truth, baseline.predict(inputs), scale=etth1[:8640].std(axis=0))
    assert scores["mse_scaled"] < 0.75


@pytest.mark.realdata
def test_m4_hourly_seasonal_naive(data_path):
    # The competition's report: mean MASE 1.193 and sMAPE 13.912 for the seasonal naive forecast.
    pandas = pytest.importorskip("pandas")
    folder = data_path / "timeseries"
    rows = pandas.read_csv(folder / "m4_hourly_train.csv").iloc[:, 1:].to_numpy(np.float64)
    truth = pandas.read_csv(folder / "m4_hourly_test.csv").iloc[:, 1:49].to_numpy(np.float64)
    series = [row[np.isfinite(row)] for row in rows]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in series])])
    values = np.concatenate(series)[:, None]
    scale = seasonal_scale(values, offsets, offsets[1:], 24)
    baseline = BASELINES["seasonal_naive"]().fit(values, offsets[:-1], 168, 48, 24, offsets=offsets)
    forecast = baseline.predict(np.stack([one[-168:] for one in series])[..., None])
    scores = forecast_scores(
        truth[..., None], forecast, mase_scale=scale.mae, series=np.arange(len(series))
    )
    assert scores["mase"] == pytest.approx(1.193, abs=1e-3)
    assert scores["smape"] == pytest.approx(13.912, abs=1e-2)
