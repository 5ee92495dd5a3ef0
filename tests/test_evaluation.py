"""Scores, intervals, folds and tests of significance, against numbers from elsewhere."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from keras_seq import evaluation
from keras_seq.evaluation import (
    conformal_intervals,
    conformal_quantiles,
    diebold_mariano,
    forecast_scores,
    paired_bootstrap,
    paired_test,
    per_channel,
    per_horizon,
    quantile_coverage,
    rolling_origin,
    seasonal_scale,
    skill,
    window_losses,
)


def arrays(*shape, count=2, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=shape) for _ in range(count)]


def test_needs_no_tensorflow():
    code = (
        "import sys, keras_seq.evaluation, keras_seq.baselines; "
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'scipy', 'statsmodels')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- forecast_scores


def test_point_scores_by_hand():
    truth = np.array([[[1.0, 10.0], [3.0, 20.0]]])  # one window, two steps, two channels
    forecast = np.array([[[2.0, 10.0], [1.0, 14.0]]])
    # errors: +1, 0, -2, -6
    scores = forecast_scores(
        truth, forecast, scale=[1.0, 2.0], mase_scale=[3.0, 6.0], rmsse_scale=[1.0, 3.0]
    )
    assert scores["mse"] == pytest.approx(41 / 4)
    assert scores["rmse"] == pytest.approx(math.sqrt(41 / 4))
    assert scores["mae"] == pytest.approx(9 / 4)
    assert scores["bias"] == pytest.approx(-7 / 4)
    assert scores["mse_scaled"] == pytest.approx((1 + 0 + 4 + 9) / 4)
    assert scores["mae_scaled"] == pytest.approx((1 + 0 + 2 + 3) / 4)
    assert scores["smape"] == pytest.approx(200 * (1 / 3 + 0 + 2 / 4 + 6 / 34) / 4)
    assert scores["wape"] == pytest.approx(9 / 34)
    assert scores["mase"] == pytest.approx((1.5 / 3 + 3 / 6) / 2)
    assert scores["rmsse"] == pytest.approx((math.sqrt(2.5) + math.sqrt(18) / 3) / 2)
    assert not any(name.startswith(("pinball", "crps", "coverage")) for name in scores)


def test_perfect_and_zero():
    truth = np.zeros((2, 3, 1))
    scores = forecast_scores(truth, truth, mase_scale=1.0)
    assert scores["smape"] == 0 and scores["mase"] == 0 and scores["mse"] == 0
    assert "wape" not in scores


def test_like_sklearn():
    metrics = pytest.importorskip("sklearn.metrics")
    truth, forecast = arrays(7, 5, 3)
    levels = [0.1, 0.5, 0.9]
    quantiles = np.sort(arrays(7, 5, 3, 3, count=1)[0], axis=-1)
    scores = forecast_scores(truth, forecast, quantiles=quantiles, quantile_levels=levels)
    flat = truth.ravel(), forecast.ravel()
    assert scores["mse"] == pytest.approx(metrics.mean_squared_error(*flat))
    assert scores["mae"] == pytest.approx(metrics.mean_absolute_error(*flat))
    pinball = np.mean(
        [
            metrics.mean_pinball_loss(flat[0], quantiles[..., i].ravel(), alpha=level)
            for i, level in enumerate(levels)
        ]
    )
    assert scores["pinball"] == pytest.approx(pinball)
    assert scores["crps"] == pytest.approx(2 * pinball)


def test_crps_of_a_normal_forecast():
    # Closed form (Gneiting and Raftery 2007, eq. 21) against 999 evenly spaced quantiles.
    mean, deviation = 1.5, 2.0
    truth = np.linspace(-4, 7, 23).reshape(-1, 1, 1)
    levels = (np.arange(999) + 0.5) / 999
    quantiles = np.broadcast_to(stats.norm.ppf(levels, mean, deviation), (23, 1, 1, 999))
    z = (truth - mean) / deviation
    exact = deviation * (
        z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / math.sqrt(math.pi)
    )
    scores = forecast_scores(
        truth, np.full_like(truth, mean), quantiles=quantiles, quantile_levels=levels, scale=4.0
    )
    assert scores["crps"] == pytest.approx(exact.mean(), rel=1e-3)
    assert scores["crps_scaled"] == pytest.approx(scores["crps"] / 4)


def test_interval_scores_by_hand():
    truth = np.array([[[0.0], [5.0], [-3.0], [1.0]]])
    lower, upper = np.full_like(truth, -1.0), np.full_like(truth, 2.0)
    scores = forecast_scores(truth, truth, lower=lower, upper=upper, scale=2.0)
    assert scores["coverage_80"] == 0.5
    assert scores["width_80"] == 3.0
    assert scores["width_80_scaled"] == 1.5
    assert scores["winkler_80"] == pytest.approx(3 + 2 / 0.2 * (3 + 2) / 4)
    other = forecast_scores(truth, truth, lower=lower, upper=upper, level=0.975)
    assert "coverage_97_5" in other


def test_interval_from_quantiles():
    truth = np.array([[[0.0], [5.0]]])
    quantiles = np.array([[[[-1.0, 0.0, 2.0]], [[-1.0, 0.0, 2.0]]]])
    scores = forecast_scores(truth, truth, quantiles=quantiles, quantile_levels=[0.1, 0.5, 0.9])
    assert scores["coverage_80"] == 0.5 and scores["width_80"] == 3.0
    without = forecast_scores(truth, truth, quantiles=quantiles, quantile_levels=[0.2, 0.5, 0.8])
    assert "coverage_80" not in without


def test_every_series_weighs_the_same():
    truth = np.zeros((4, 2, 1))
    forecast = np.array([1.0, 1.0, 1.0, 8.0]).reshape(4, 1, 1).repeat(2, axis=1)
    scale = np.array([1.0, 1.0, 1.0, 2.0])[:, None]
    ids = np.array(["a", "a", "a", "b"])
    scores = forecast_scores(truth, forecast, mase_scale=scale, rmsse_scale=scale, series=ids)
    assert scores["mase"] == pytest.approx((1 + 4) / 2)
    assert scores["rmsse"] == pytest.approx((1 + 4) / 2)
    assert forecast_scores(truth, forecast, mase_scale=scale)["mase"] == pytest.approx(7 / 4)
    assert scores["mae"] == pytest.approx(11 / 4)


def test_scale_shapes_agree():
    truth, forecast = arrays(4, 3, 2)
    wanted = forecast_scores(truth, forecast, scale=[2.0, 4.0], mase_scale=[2.0, 4.0])
    wide = np.tile([2.0, 4.0], (4, 1))
    for given in (wide, wide[:, None, :]):
        got = forecast_scores(truth, forecast, scale=given, mase_scale=given)
        assert got == pytest.approx(wanted)


def test_missing_truth_counts_nowhere():
    truth, forecast = arrays(6, 4, 2)
    quantiles = np.stack([forecast - 1, forecast + 1], axis=-1)
    options = {"scale": 2.0, "quantile_levels": [0.1, 0.9]}
    wanted = forecast_scores(truth, forecast, quantiles=quantiles, mase_scale=3.0, **options)
    more = [np.concatenate([a, np.ones_like(a[:2])]) for a in (truth, forecast, quantiles)]
    more[0][6:] = np.nan
    got = forecast_scores(more[0], more[1], quantiles=more[2], mase_scale=3.0, **options)
    assert got == pytest.approx(wanted)
    with pytest.raises(ValueError, match="no value of the truth"):
        forecast_scores(np.full((2, 2, 1), np.nan), np.zeros((2, 2, 1)))


def test_blocks_make_no_difference(monkeypatch):
    truth, forecast = arrays(11, 4, 2)
    quantiles = np.sort(arrays(11, 4, 2, 3, count=1)[0], axis=-1)
    scale = np.random.uniform(1, 2, size=(11, 2))
    options = {
        "scale": scale,
        "mase_scale": scale,
        "quantiles": quantiles,
        "quantile_levels": [0.1, 0.5, 0.9],
    }
    whole = forecast_scores(truth, forecast, **options)
    curve = per_horizon(truth, forecast, scale)
    losses = window_losses(truth, forecast, scale)
    monkeypatch.setattr(evaluation.forecasting, "_BLOCK", 60)
    assert forecast_scores(truth, forecast, **options) == pytest.approx(whole)
    np.testing.assert_allclose(per_horizon(truth, forecast, scale), curve)
    np.testing.assert_allclose(window_losses(truth, forecast, scale), losses)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"forecast": np.zeros((2, 3, 2))}, "must be the same"),
        ({"truth": np.zeros((2, 3))}, "truth has shape"),
        ({"forecast": np.full((2, 3, 1), np.nan)}, "not finite"),
        ({"scale": [1.0, 2.0]}, "scale has shape"),
        ({"scale": 0.0}, "positive"),
        ({"mase_scale": [[1.0], [np.nan]]}, "positive"),
        ({"quantiles": np.zeros((2, 3, 1, 2))}, "quantile_levels"),
        ({"quantiles": np.zeros((2, 3, 1, 2)), "quantile_levels": [0.5]}, "quantiles have shape"),
        ({"quantiles": np.zeros((2, 3, 1, 1)), "quantile_levels": [1.5]}, "between 0 and 1"),
        ({"lower": np.zeros((2, 3, 1))}, "belong together"),
        ({"lower": np.zeros((2, 3, 1)), "upper": np.zeros((2, 3))}, "upper has shape"),
        ({"level": 80}, "level is 80"),
        ({"series": [1, 2, 3]}, "series has shape"),
    ],
)
def test_refusals(change, message):
    given = {"truth": np.zeros((2, 3, 1)), "forecast": np.zeros((2, 3, 1)), **change}
    with pytest.raises(ValueError, match=message):
        forecast_scores(given.pop("truth"), given.pop("forecast"), **given)


# --- curves, skill, scale


def test_curves_by_hand():
    truth, forecast = arrays(5, 4, 3)
    scale = np.array([1.0, 2.0, 3.0])
    error = (forecast - truth) / scale
    np.testing.assert_allclose(per_horizon(truth, forecast, scale), (error**2).mean((0, 2)))
    np.testing.assert_allclose(
        per_channel(truth, forecast, scale, metric="mae"), np.abs(error).mean((0, 1))
    )
    np.testing.assert_allclose(window_losses(truth, forecast, scale), (error**2).mean((1, 2)))
    truth[:, 1] = np.nan
    curve = per_horizon(truth, forecast, scale)
    assert np.isnan(curve[1]) and np.isfinite(np.delete(curve, 1)).all()
    with pytest.raises(ValueError, match="metric is 'rmse'"):
        per_horizon(truth, forecast, metric="rmse")


def test_quantile_coverage():
    truth = np.random.default_rng(0).uniform(size=(4000, 2, 1))
    levels = [0.1, 0.5, 0.9]
    got = quantile_coverage(truth, np.broadcast_to(levels, (4000, 2, 1, 3)), levels)
    np.testing.assert_allclose(got, levels, atol=0.02)


def test_skill():
    assert skill(0.5, 1.0) == 0.5
    assert skill(2.0, 1.0) == -1.0
    assert skill(1.0, 0.0) == -math.inf


def test_seasonal_scale_per_series():
    first = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 999.0])  # the last row is not in the training part
    second = np.array([5.0, 5.0, 5.0, 5.0])
    third = np.array([1.0, 4.0])  # no longer than the period
    values = np.concatenate([first, second, third])[:, None]
    offsets = np.array([0, 6, 10, 12])
    scale = seasonal_scale(values, offsets, np.array([5, 10, 12]), 2)
    assert scale.mae[:, 0] == pytest.approx([(3 + 6 + 12) / 3, 1.0, 3.0])
    assert scale.rmse[:, 0] == pytest.approx([math.sqrt((9 + 36 + 144) / 3), 1.0, 3.0])
    assert scale.periods.tolist() == [2, 2, 1]
    assert len(scale.notes) == 2
    assert "1 of 3 series" in scale.notes[0] and "1 of 3 scales" in scale.notes[1]


def test_seasonal_scale_with_gaps_and_refusals():
    values = np.array([[1.0], [np.nan], [4.0], [6.0]])
    assert seasonal_scale(values, None, 4, None).mae.item() == pytest.approx(2.0)
    assert "unknown" in seasonal_scale(values, None, 1, None).notes[-1]
    with pytest.raises(ValueError, match="end_rows"):
        seasonal_scale(values, None, 5, 1)
    with pytest.raises(ValueError, match="period is 0"):
        seasonal_scale(values, None, 4, 0)
    with pytest.raises(ValueError, match="offsets"):
        seasonal_scale(values, [0, 9], 4, 1)


# --- intervals


def test_conformal_rank_by_hand():
    residuals = np.array([3.0, -1.0, 4.0, -1.5, 9.0, 2.0, -6.0, 5.0, 3.5]).reshape(9, 1, 1)
    # n = 9: rank ceil(10 * 0.8) = 8 of 1 1.5 2 3 3.5 4 5 6 9
    assert conformal_intervals(residuals, 0.8).item() == 6.0
    assert conformal_intervals(residuals, 0.9).item() == 9.0
    with pytest.raises(ValueError, match="at least 19 calibration windows"):
        conformal_intervals(residuals, 0.95)
    gaps = np.concatenate([residuals, np.full((5, 1, 1), np.nan)])
    assert conformal_intervals(gaps, 0.8).item() == 6.0


@pytest.mark.parametrize("calibration", [9, 50])
def test_conformal_coverage_on_exchangeable_noise(calibration):
    generator = np.random.default_rng(1)
    covered = []
    for _ in range(300):
        noise = generator.standard_t(3, size=(calibration + 100, 2, 2))
        half = conformal_intervals(noise[:calibration], 0.8)
        assert half.shape == (2, 2)
        covered.append((np.abs(noise[calibration:]) <= half).mean())
    # Exactly ceil((n + 1) 0.8) / (n + 1) in expectation.
    expected = math.ceil((calibration + 1) * 0.8) / (calibration + 1)
    assert np.mean(covered) == pytest.approx(expected, abs=0.012)
    assert expected >= 0.8


def test_conformal_quantiles_mend_intervals_both_ways():
    generator = np.random.default_rng(2)
    truth = generator.normal(size=(4000, 1, 1))
    for half in (0.5, 3.0):  # too narrow, too wide: 80 % needs 1.2816
        low, high = np.full_like(truth, -half), np.full_like(truth, half)
        add = conformal_quantiles(truth[:2000], low[:2000], high[:2000], 0.8)
        assert half + add.item() == pytest.approx(stats.norm.ppf(0.9), abs=0.06)


# --- backtests


@pytest.mark.parametrize("gap", [0, 3])
def test_rolling_origin_like_sklearn(gap):
    selection = pytest.importorskip("sklearn.model_selection")
    wanted = list(selection.TimeSeriesSplit(4, test_size=7, gap=gap).split(np.zeros(60)))
    folds = rolling_origin(60, folds=4, horizon=7, gap=gap)
    assert len(folds) == len(wanted)
    for fold, (train, test) in zip(folds, wanted, strict=True):
        assert list(fold.train) == train.tolist() and list(fold.test) == test.tolist()


def test_rolling_origin_never_leaks():
    for window in ("expanding", "sliding"):
        for gap in (0, 2):
            for step in (1, 5):
                folds = rolling_origin(
                    50, folds=5, horizon=5, gap=gap, minimum=10, step=step, window=window
                )
                assert folds[-1].test.stop == 50
                for fold in folds:
                    assert fold.train.stop + gap == fold.test.start
                    assert len(fold.test) == 5 and len(fold.train) >= 10
                    assert (len(fold.train) == 10) if window == "sliding" else not fold.train.start
                assert np.diff([fold.test.start for fold in folds]).tolist() == [step] * 4


def test_rolling_origin_refusals():
    with pytest.raises(ValueError, match=r"need 38 rows .* has 30, enough for 2"):
        rolling_origin(30, folds=4, horizon=7, minimum=10)
    assert len(rolling_origin(30, folds=2, horizon=7, minimum=10)) == 2
    with pytest.raises(ValueError, match="folds is 0"):
        rolling_origin(30, folds=0, horizon=7)
    with pytest.raises(ValueError, match="window is 'both'"):
        rolling_origin(30, folds=1, horizon=7, window="both")


# --- significance


def test_diebold_mariano_by_hand():
    # d = 1 2 3 0 4: mean 2, g0 = 2, g1 = -6/5, Bartlett 1/2 -> 0.8; 2 / sqrt(0.8 / 5) = 5;
    # HLN: sqrt((5 + 1 - 4 + 2/5) / 5) = sqrt(0.48)
    loss_b = np.array([1.0, 1.0, 1.0, 1.0, 1.0])
    loss_a = loss_b + np.array([1.0, 2.0, 3.0, 0.0, 4.0])
    result = diebold_mariano(loss_a, loss_b, horizon=2)
    assert result.statistic == pytest.approx(5 * math.sqrt(0.48))
    assert result.p_value == pytest.approx(2 * stats.t.sf(5 * math.sqrt(0.48), 4))
    assert result.mean_difference == pytest.approx(2.0)
    assert result.note == ""
    swapped = diebold_mariano(loss_b, loss_a, horizon=2)
    assert swapped.statistic == -result.statistic and swapped.p_value == result.p_value


def test_diebold_mariano_at_horizon_one_is_the_paired_t_test():
    loss_a, loss_b = arrays(40)
    wanted = stats.ttest_rel(loss_a, loss_b)
    result = diebold_mariano(loss_a, loss_b, horizon=1)
    assert result.statistic == pytest.approx(wanted.statistic)
    assert result.p_value == pytest.approx(wanted.pvalue)


def test_diebold_mariano_degenerate():
    same = np.arange(10.0)
    result = diebold_mariano(same, same, 3)
    assert (result.statistic, result.p_value, result.mean_difference) == (0.0, 1.0, 0.0)
    constant = diebold_mariano(same, same + 1, 3)
    assert constant.statistic == -math.inf and constant.p_value == 0.0 and constant.note
    few = diebold_mariano([1.0, 2.0, 4.0], [0.0, 3.0, 1.0], 3)
    assert (few.statistic, few.p_value) == (0.0, 1.0) and "too few" in few.note
    one = diebold_mariano([1.0], [2.0], 1)
    assert one.p_value == 1.0 and one.mean_difference == -1.0
    with pytest.raises(ValueError, match="losses have shapes"):
        diebold_mariano([1.0], [1.0, 2.0], 1)
    with pytest.raises(ValueError, match="finite"):
        diebold_mariano([1.0, np.nan], [1.0, 2.0], 1)
    with pytest.raises(ValueError, match="horizon is 0"):
        diebold_mariano(same, same, 0)


def test_diebold_mariano_keeps_its_level_where_a_t_test_does_not():
    # Two equally good forecasters, losses over windows that overlap by 5 of 6 steps.
    generator = np.random.default_rng(3)
    mine = naive = 0
    for _ in range(400):
        steps = generator.normal(size=505)
        difference = np.convolve(steps, np.ones(6) / 6, mode="valid")  # (500,)
        mine += diebold_mariano(difference, np.zeros(500), 6).p_value < 0.05
        naive += stats.ttest_1samp(difference, 0).pvalue < 0.05
    assert mine / 400 < 0.15  # Bartlett's weights leave it a little too bold
    assert naive / 400 > 0.35


def test_bootstrap_interval():
    loss_a, loss_b = arrays(400)
    difference = loss_a - loss_b
    result = paired_bootstrap(loss_a, loss_b, block=1, resamples=4000, seed=5)
    half = 1.96 * difference.std() / 20
    assert result.mean_difference == pytest.approx(difference.mean())
    assert result.lower == pytest.approx(difference.mean() - half, abs=0.1 * half)
    assert result.upper == pytest.approx(difference.mean() + half, abs=0.1 * half)
    again = paired_bootstrap(loss_a, loss_b, block=1, resamples=4000, seed=5)
    assert again == result
    swapped = paired_bootstrap(loss_b, loss_a, block=1, resamples=4000, seed=5)
    assert swapped.lower == pytest.approx(-result.upper)


def test_bootstrap_blocks_keep_the_correlation():
    steps = np.random.default_rng(4).normal(size=1023)
    slow = np.convolve(steps, np.ones(24) / 24, mode="valid")  # 1000 overlapping windows
    zeros = np.zeros(len(slow))
    single = paired_bootstrap(slow, zeros, block=1)
    blocks = paired_bootstrap(slow, zeros, block=96)
    # The mean of sums of 24 varies about sqrt(24) times as much as independence would have it.
    ratio = (blocks.upper - blocks.lower) / (single.upper - single.lower)
    assert 3.0 < ratio < 6.0


def test_bootstrap_sees_a_difference_and_block_ends():
    loss_b = np.random.default_rng(6).normal(size=101)
    result = paired_bootstrap(loss_b + 1, loss_b, block=7)  # 101 = 14 * 7 + 3
    assert result.lower == pytest.approx(1) and result.upper == pytest.approx(1)
    assert result.p_value == pytest.approx(2 / 2001)
    assert paired_bootstrap(loss_b, loss_b).p_value == 1.0
    with pytest.raises(ValueError, match="block is 0"):
        paired_bootstrap(loss_b, loss_b, block=0)


def test_paired_test_chooses():
    generator = np.random.default_rng(7)
    loss_b = generator.uniform(1, 2, size=240)
    loss_a = loss_b - 0.3 + 0.2 * generator.normal(size=240)

    one = paired_test(loss_a, loss_b, horizon=4)
    wanted = diebold_mariano(loss_a, loss_b, 4)
    assert one.name == "Diebold-Mariano (HLN)" and one.observations == 240
    assert (one.statistic, one.p_value) == (wanted.statistic, wanted.p_value)

    ids = np.tile(np.arange(12), 20)  # windows of the series lie interleaved
    many = paired_test(loss_a, loss_b, horizon=4, series=ids)
    means = [[loss[ids == i].mean() for i in range(12)] for loss in (loss_a, loss_b)]
    expected = stats.ttest_rel(*means)
    assert many.name == "paired t over 12 series" and many.observations == 12
    assert many.statistic == pytest.approx(expected.statistic)
    assert many.p_value == pytest.approx(expected.pvalue)

    few = paired_test(loss_a, loss_b, horizon=4, series=ids % 3)
    assert few.name == "block bootstrap in 3 series" and few.p_value < 0.01
    assert few.mean_difference == pytest.approx((loss_a - loss_b).mean())
    assert math.isnan(few.statistic)

    for series in (None, ids, ids % 3):
        same = paired_test(loss_b, loss_b, horizon=4, series=series)
        assert (same.statistic, same.p_value) == (0.0, 1.0)
    short = paired_test(loss_a[:6], loss_b[:6], horizon=4, series=ids[:6] % 3)
    assert short.p_value == 1.0 and "too few" in short.note
