"""One comparison, the whole way: leaderboard, run folders, TensorBoard, export, resume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tomlkit
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import keras_seq
from keras_seq.compare import Comparison, folder_name
from keras_seq.errors import UserError
from keras_seq.recipe import Recipe, expand, make_task, read_recipe, with_defaults
from keras_seq.runs import evaluate_run, export_run, predict_file
from keras_seq.tasks.forecasting_problem import ForecastingProblem

# One worker makes the comparison, once.
pytestmark = pytest.mark.xdist_group("compare")

OPTIONS = {"lookback": 48, "horizon": 12, "quantiles": (0.1, 0.9), "calendar": True}
NAMES = ("linear", "gru", "broken")
EPOCHS = 2


def broken(x, *, width: int = 8):
    """An architecture that cannot be built."""
    raise RuntimeError("this one\nis broken")


def make_csv(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    step = np.arange(400)
    frame = pd.DataFrame({"time": pd.date_range("2024-01-01", periods=400, freq="h")})
    for i, name in enumerate(("load", "heat")):
        wave = 10 * (i + 1) + 3 * np.sin(2 * np.pi * step / 24 + i)
        frame[name] = wave + 0.2 * generator.normal(size=400)
    path = folder / "series.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished comparison of two architectures and one that fails; two seeds, two rates."""
    folder = tmp_path_factory.mktemp("compare")
    data = make_csv(folder)
    keras_seq.architectures.add("broken", broken, origin="test")
    try:
        with pytest.MonkeyPatch.context() as patch:
            # The validation part would choose one of them alone here.
            patch.setattr(ForecastingProblem, "choose_members", lambda self, every: [0, 1])
            yield keras_seq.compare(
                "forecasting", data=str(data), out=folder / "run", architectures=NAMES,
                epochs=EPOCHS, seeds=2, learning_rates=2, parameters=4000, batch_size=32,
                quiet=True, export=("saved_model", "litert", "keras"),
                overrides={"gru": {"depth": 1}}, **OPTIONS,
            )  # fmt: skip
    finally:
        keras_seq.architectures.remove("broken")


def test_the_csv_has_the_columns_that_were_promised(done):
    frame = pd.read_csv(done.out / "leaderboard.csv")
    assert list(frame.columns[:5]) == ["rank", "architecture", "baseline", "status", "parameters"]
    wanted = {"mse_scaled", "mae_scaled", "mase", "smape", "crps", "coverage_80", "pinball",
              "mse_scaled_spread", "seconds_per_epoch", "latency_ms", "size_kb"}  # fmt: skip
    assert wanted <= set(frame.columns)
    ok = frame[frame.status == "ok"]
    assert set(ok.architecture) >= {"linear", "gru", "ensemble", "ridge", "seasonal_naive"}
    assert ok["rank"].tolist() == sorted(ok["rank"])
    assert ok.mse_scaled.is_monotonic_increasing
    networks = frame[frame.architecture.isin(["linear", "gru"])]
    assert networks[["latency_ms", "size_kb", "seconds_per_epoch"]].notna().all(axis=None)
    assert (networks.parameters <= 4000).all()
    assert (networks.mse_scaled_spread >= 0).all()


def test_a_failure_is_a_row_that_says_why(done):
    row = done.leaderboard.row("broken")
    assert row.status == "failed"
    assert row.note == "RuntimeError: this one is broken"
    assert "RuntimeError" in (done.out / "broken" / "error.txt").read_text()


def test_run_folders_hold_what_makes_them_again(done):
    for name in ("linear", "gru"):
        for seed in (0, 1):
            folder = done.out / name / str(seed)
            names = {p.name for p in folder.iterdir()}
            assert {"config.toml", "history.csv", "metrics.json", "model.keras"} <= names
            record = json.loads((folder / "metrics.json").read_text())
            made = tomlkit.parse((folder / "config.toml").read_text())["made_with"]
            assert made["seed"] == record["seed"] == seed
            assert made["learning_rate"] == record["learning_rate"]
            assert len(made["data_sha256"]) == 64
            history = pd.read_csv(folder / "history.csv")
            assert len(history) == EPOCHS
    # The rate that lost stays beside; the one that won became seed 0.
    assert len(list((done.out / "gru" / "search").iterdir())) == 1


def test_scores_are_those_of_the_saved_model(done):
    """The figures in the table can be made again from the run folder: raw units, by hand."""
    row = done.leaderboard.row("linear")
    problem = done.problem
    errors = []
    for seed in (0, 1):
        model = keras_seq.load(done.out / "linear" / str(seed) / "model.keras")
        starts = problem.starts["test"]
        samples = problem._raw_inputs(starts, set(model.input))
        forecast = model.predict(samples, verbose=0)["forecast"]
        rows = starts[:, None] + 48 + np.arange(12)
        truth = problem.table.values[rows]
        train = problem.table.values[: int(0.7 * 400)]
        errors.append(np.mean(((forecast - truth) / train.std(0)) ** 2))
    np.testing.assert_allclose(row.scores["mse_scaled"], np.mean(errors), rtol=1e-4)
    np.testing.assert_allclose(row.spreads["mse_scaled"], np.std(errors, ddof=1), rtol=2e-2)


def test_scaling_is_fitted_on_the_training_part_only(done, tmp_path):
    """Whatever happens in the test part, the standardisation stays."""
    frame = pd.read_csv(done.recipe.options["data"])
    frame.loc[350:, ["load", "heat"]] *= 100
    path = tmp_path / "changed.csv"
    frame.to_csv(path, index=False)
    from keras_seq.tasks.forecasting import Forecasting

    changed = Forecasting(data=str(path), **OPTIONS).prepare()
    np.testing.assert_array_equal(changed.mean, done.problem.mean)
    np.testing.assert_array_equal(changed.std, done.problem.std)


def test_ensemble_is_the_average_of_its_members(done):
    members = done.members
    assert members == ["linear", "gru"]
    models = [done._load(name) for name in members]
    joined = done.problem.predict(done.problem.ensemble(models)).forecast["test"]
    alone = [done.problem.predict(model).forecast["test"] for model in models]
    np.testing.assert_allclose(joined, np.mean(alone, axis=0), rtol=1e-5)


def test_of_one_member_there_is_no_ensemble(done, tmp_path, monkeypatch):
    out = shutil.copytree(done.out, tmp_path / "run")
    monkeypatch.setattr(type(done.problem), "choose_members", lambda self, predictions: [0])
    again = Comparison(done.recipe, out, resume=True, export=(), quiet=True).run()
    names = {row.architecture for row in again.leaderboard.rows}
    assert names >= {"linear", "gru", "ridge"} and "ensemble" not in names
    assert again.winner in {"linear", "gru"}


def test_artifact_is_proved(done):
    report = json.loads((done.artifact / "parity.json").read_text())
    for name in ("saved_model", "litert", "keras"):
        assert report["formats"][name]["status"] == "passed"
        assert report["formats"][name]["relative_difference"] <= 1e-5
    assert report["formats"]["litert"]["tensorflow_loaded"] is False
    assert (done.artifact / "1" / "saved_model.pb").exists()
    card = (done.artifact / "README.md").read_text()
    assert "ridge" in card
    assert done.winner in card


def test_winner_is_chosen_on_validation(done):
    values = {}
    for name in ("linear", "gru"):
        records = [json.loads((done.out / name / str(s) / "metrics.json").read_text())
                   for s in (0, 1)]  # fmt: skip
        values[name] = np.mean([r["validation"]["mse_scaled"] for r in records])
    if done.winner != "ensemble":
        assert done.winner == min(values, key=values.get)


def test_every_run_logs_the_same_tags(done):
    tags = []
    for name in ("linear", "gru"):
        events = EventAccumulator(str(done.out / name / "0" / "train"), {"tensors": 0})
        events.Reload()
        found = set(events.Tags()["tensors"])
        tags.append({t for t in found if not t.startswith(("gradient_norm/", "keras"))})
        assert any(t.startswith("gradient_norm/") for t in found)
    assert tags[0] == tags[1]
    assert {"epoch_loss", "learning_rate"} <= tags[0]


def test_html_is_whole_and_self_contained(done):
    html = (done.out / "leaderboard.html").read_text()
    for name in ("linear", "gru", "broken", "ensemble", "ridge"):
        assert name in html
    assert html.count("<img") + html.count("<svg") >= 4
    assert 'src="http' not in html


def test_resume_trains_only_what_is_missing(done, tmp_path):
    """A run taken away is trained again to the same scores; the others are read."""
    copy = tmp_path / "run"
    shutil.copytree(done.out, copy)
    shutil.rmtree(copy / "linear" / "1")
    kept = (copy / "gru" / "0" / "model.keras").stat().st_mtime_ns
    again = Comparison(done.recipe, copy, resume=True, export=(), quiet=True).run()
    assert (copy / "linear" / "1" / "model.keras").exists()
    assert (copy / "gru" / "0" / "model.keras").stat().st_mtime_ns == kept
    scores = [{r.architecture: r.scores for r in c.leaderboard.rows} for c in (done, again)]
    assert scores[0] == scores[1]


def test_recipe_makes_the_same_comparison(done):
    recipe = read_recipe(done.out / "recipe.toml")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in recipe.pop("options").items()}
    assert Recipe(options=options, **recipe) == done.recipe


def test_a_recipe_that_sets_something_unknown(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("epoch = 3\n")
    with pytest.raises(UserError, match="sets epoch"):
        read_recipe(path)
    path.write_text("epochs = = 3\n")
    with pytest.raises(UserError, match="cannot be read"):
        read_recipe(path)


def test_predict_continues_the_file(done, tmp_path):
    out = tmp_path / "forecast.csv"
    light, served = tmp_path / "light", tmp_path / "served"
    shutil.copytree(done.artifact, light, ignore=lambda f, n: {"keras", "1"} & set(n))
    shutil.copytree(done.artifact, served, ignore=lambda f, n: {"keras", "litert"} & set(n))
    for source in (done.out / "linear" / "0", done.artifact, light, served):
        frame = predict_file(source, data=done.recipe.options["data"], out=out)
        read = pd.read_csv(out, parse_dates=["time"])
        assert len(frame) == len(read) == 12
        history = pd.read_csv(done.recipe.options["data"], parse_dates=["time"])
        steps = read.time.diff().dropna().unique()
        assert read.time[0] - history.time.iloc[-1] == pd.Timedelta("1h")
        assert list(steps) == [pd.Timedelta("1h")]
        assert (read.load_q10 <= read.load).all()
        assert (read.load <= read.load_q90).all()
        # A clean wave: the forecast must be near what comes next.
        truth = 10 + 3 * np.sin(2 * np.pi * np.arange(400, 412) / 24)
        assert np.abs(read.load - truth).mean() < 1.5


def test_predict_refuses_another_file(done, tmp_path):
    frame = pd.read_csv(done.recipe.options["data"]).rename(columns={"load": "other"})
    path = tmp_path / "other.csv"
    frame.to_csv(path, index=False)
    with pytest.raises(UserError, match="load"):
        predict_file(done.out / "linear" / "0", data=str(path), out=tmp_path / "y.csv")
    assert not (tmp_path / "y.csv").exists()


def test_evaluate_gives_the_noted_scores(done):
    table = evaluate_run(done.out / "linear" / "0")
    cells = [list(column.cells) for column in table.columns]
    for now, noted in zip(cells[1], cells[2], strict=True):
        np.testing.assert_allclose(float(now), float(noted), rtol=1e-4, atol=1e-6)


def test_backtest_trains_at_each_origin(done):
    table = evaluate_run(done.out / "linear" / "0", backtest=2)
    headers = [column.header for column in table.columns]
    assert headers[-2:] == ["origin 1", "origin 2"]
    # The last origin's test part is the problem's own; the first lies before it.
    last = dict(zip(table.columns[0].cells, table.columns[-1].cells, strict=True))
    assert float(last["mse_scaled"]) < 1.0


def test_export_run(done, tmp_path):
    folder, report = export_run(
        done.out / "gru" / "0", formats=("litert", "litert_int8"), out=tmp_path / "gru"
    )
    assert (folder / "litert" / "model_int8.tflite").exists()
    assert report["formats"]["litert"]["relative_difference"] <= 1e-5
    assert report["formats"]["litert_int8"]["flex"] is False
    with pytest.raises(UserError, match="overwrite"):
        export_run(done.out / "gru" / "0", formats=("litert",), out=tmp_path / "gru")


def test_fresh_keras_loads_it_after_one_import(done):
    import subprocess
    import sys

    path = done.out / "gru" / "0" / "model.keras"
    code = f"import keras, keras_seq.layers; keras.saving.load_model({str(path)!r}).summary()"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_expand():
    assert expand("all") == keras_seq.architectures.names()
    assert expand(["lstm", "gru"]) == ("lstm", "gru")
    assert folder_name("a.b:C/d") == "a.b.C.d"


class UsersOwn(keras.layers.Layer):
    """A user's architecture, given by its import path."""

    def __init__(self, width: int = 8, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(width)

    def call(self, x):
        return self.dense(x)


def test_all_are_those_that_the_task_accepts():
    reviews = make_task("classification", {"data": "builtin:reviews"})
    waves = make_task("forecasting", {"data": "builtin:waves"})
    for_text, for_series = expand("all", reviews), expand("all", waves)
    assert {"lstm", "fasttext", "text_cnn"} <= set(for_text)
    assert "nhits" not in for_text
    assert "nhits" in for_series
    assert "fasttext" not in for_series
    with pytest.raises(UserError, match="nhits cannot be trained under classification"):
        expand("lstm,nhits", reviews)


def test_what_a_task_sets_and_what_a_user_sets():
    assert with_defaults("classification", {})["epochs"] == 5
    assert with_defaults("classification", {"epochs": 9})["epochs"] == 9
    assert with_defaults("forecasting", {}) == {}


def test_long_form_trains_one_global_model(tmp_path):
    """Series of very different size, in long form: the global model beats the naive forecast."""
    generator = np.random.default_rng(0)
    parts = []
    for i, size in enumerate((1.0, 50.0, 3000.0)):
        step = np.arange(150 + 10 * i)
        values = size * (
            5 + np.sin(2 * np.pi * step / 12) + 0.05 * generator.normal(size=len(step))
        )
        parts.append(pd.DataFrame({"id": f"s{i}", "step": step, "value": values}))
    path = tmp_path / "long.csv"
    pd.concat(parts).to_csv(path, index=False)
    result = keras_seq.compare(
        "forecasting", data=str(path), out=tmp_path / "run", architectures=("linear",),
        id_column="id", time_column="step", target=("value",), lookback=36, horizon=12, period=12,
        epochs=3, quiet=True, export=("keras",), track=(),
    )  # fmt: skip
    row, naive = (result.leaderboard.row(name) for name in ("linear", "naive"))
    assert result.leaderboard.primary == "mase"
    assert row.scores["mase"] < 0.5 * naive.scores["mase"]
    frame = predict_file(result.artifact, data=str(path), out=tmp_path / "next.csv")
    assert len(frame) == 36
    assert frame.groupby("id").value.mean().round(-1).to_dict()["s2"] == pytest.approx(
        15000, rel=0.1
    )
