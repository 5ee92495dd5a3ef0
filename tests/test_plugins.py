"""A plugin is listed, checked, compared and exported; a broken one harms nobody."""

from __future__ import annotations

import csv
import importlib
import json
import subprocess
import sys
import warnings
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

import keras_seq
from keras_seq.registry import PluginWarning

NAME = "demo_gated_mlp"


def installed() -> bool:
    try:
        distribution("keras-seq-plugin-demo")
    except PackageNotFoundError:
        return False
    return True


needs_plugin = pytest.mark.skipif(
    not installed(), reason="not installed: pip install --no-deps -e tests/plugin_demo"
)


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "keras_seq", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        timeout=300,
    )


@needs_plugin
def test_plugin_is_listed_beside_ours(capsys):
    from keras_seq.__main__ import main

    assert NAME in keras_seq.architectures
    assert keras_seq.architectures.origin(NAME) == "keras-seq-plugin-demo"
    with pytest.raises(SystemExit) as stopped:
        main(["list", "--tag", "needs_fixed_length"])
    assert not stopped.value.code
    said = capsys.readouterr().out
    assert NAME in said
    assert "linear" in said
    assert "lstm " not in said


@needs_plugin
@pytest.mark.slow
def test_plugin_passes_the_checks_of_its_author():
    """All of it, the fresh process and the export included."""
    from keras_seq import testing

    report = testing.check_architecture(NAME, options={"width": 16})
    names = {result.check for result in report.results}
    assert {"fresh_process", "saved_model", "litert", "mask_values", "learns"} <= names


@needs_plugin
@pytest.mark.slow
def test_plugin_is_compared_and_exported(tmp_path, series_csv):
    """Through the command line, as a user of the plugin would."""
    from keras_seq.__main__ import main

    words = [
        "compare", "forecasting", "--data", str(series_csv), "--lookback", "24", "--horizon", "4",
        "--architectures", NAME, "--epochs", "1", "--steps-per-epoch", "4", "--no-ensemble",
        "--out", str(tmp_path / "run"), "--export", "saved_model,litert", "--track", "none",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert not stopped.value.code
    with open(tmp_path / "run" / "leaderboard.csv", newline="") as file:
        rows = {row["architecture"]: row for row in csv.DictReader(file)}
    assert rows[NAME]["status"] == "ok", rows[NAME]
    assert 0 < float(rows[NAME]["mae_scaled"]) < 10
    proofs = list(tmp_path.rglob("parity.json"))
    assert proofs, "nothing was exported"
    assert list(tmp_path.rglob("saved_model.pb"))
    assert list(tmp_path.rglob("*.tflite"))
    assert json.loads(proofs[0].read_text())


@needs_plugin
@pytest.mark.slow
def test_a_plugin_model_opens_in_a_new_process(tmp_path):
    """`keras_seq.load` finds the plugin's layers without being told of the plugin."""
    import numpy as np

    head = keras_seq.heads.Forecast(horizon=4)
    model = keras_seq.build(NAME, inputs=(24, 2), head=head, width=8)
    keras_seq.save(model, tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(2, 24, 2)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", model({"series": x})["forecast"])
    code = (
        "import keras_seq, numpy as np\n"
        "y = keras_seq.load('model.keras')({'series': np.load('x.npy')})['forecast']\n"
        "np.testing.assert_allclose(y, np.load('y.npy'), atol=1e-6)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr


# -------------------------------------------------- plugins made up on the spot, not installed


@pytest.fixture()
def plugin(tmp_path, monkeypatch):
    """Makes a distribution with one entry point and a module, and puts it on the path."""

    def make(distribution: str, name: str, code: str, *, group: str = "architectures") -> Path:
        module = distribution.replace("-", "_")
        folder = tmp_path / distribution
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(f"[keras_seq.{group}]\n{name} = {module}:make\n")
        (folder / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        keras_seq.architectures.refresh()
        made.append(module)
        return folder

    made: list[str] = []
    yield make
    monkeypatch.undo()
    for module in made:
        sys.modules.pop(module, None)
    importlib.invalidate_caches()
    keras_seq.architectures.refresh()


GOOD = "def make(x, *, mask=None, width=8):\n    return x\nmake.tags = frozenset()\n"


def test_a_plugin_needs_nothing_but_its_entry_point(plugin):
    plugin("quiet-plugin", "quiet", GOOD)
    assert "quiet" in keras_seq.architectures.names()
    assert keras_seq.architectures.get("quiet").__module__ == "quiet_plugin"
    assert keras_seq.architectures.origin("quiet") == "quiet-plugin"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no licence found')", "no licence found"),
        ("import a_module_that_is_not_there", "a_module_that_is_not_there"),
        ("wrong = 1", "make"),
        ("def make(:", "SyntaxError"),
    ],
)
def test_a_broken_plugin_is_one_warning(plugin, code, reason):
    plugin("broken-plugin", "broken", code)
    with pytest.warns(PluginWarning, match="broken-plugin") as caught:
        found = keras_seq.architectures.load_all()
    assert len(caught) == 1
    assert reason in str(caught[0].message)
    assert "\n" not in str(caught[0].message)
    assert "broken" not in found
    assert "lstm" in found
    # Who does not ask for it does not hear of it.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert callable(keras_seq.architectures.get("lstm"))
    # Who asks for it by name is told whose it is.
    with pytest.raises(keras_seq.UserError, match="broken-plugin"):
        keras_seq.architectures.get("broken")


def test_a_broken_plugin_on_the_command_line(plugin, tmp_path, monkeypatch):
    folder = plugin("broken-plugin", "broken", "raise RuntimeError('no licence found')")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    done = command("list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "lstm" in done.stdout
    about = [line for line in done.stderr.splitlines() if "broken-plugin" in line]
    assert len(about) == 1
    assert "Traceback" not in done.stderr


def test_a_name_taken_from_us_is_an_error(plugin):
    plugin("greedy-plugin", "lstm", GOOD)
    with pytest.raises(keras_seq.UserError, match=r"taken twice.*greedy-plugin"):
        keras_seq.architectures.get("lstm")
    assert callable(keras_seq.architectures.get("gru"))


def test_a_name_taken_by_two_plugins_is_an_error(plugin):
    plugin("first-plugin", "shared", GOOD)
    plugin("second-plugin", "shared", GOOD)
    with pytest.raises(keras_seq.UserError, match="taken twice") as caught:
        keras_seq.architectures.get("shared")
    assert "first-plugin" in str(caught.value)
    assert "second-plugin" in str(caught.value)


def test_a_name_added_twice_is_an_error():
    keras_seq.architectures.add("mine", "os.path:join", origin="a test")
    try:
        with pytest.raises(keras_seq.UserError, match="taken twice"):
            keras_seq.architectures.add("mine", "os.path:split", origin="another test")
        with pytest.raises(keras_seq.UserError, match="taken twice"):
            keras_seq.architectures.add("gru", "os.path:split", origin="a test")
    finally:
        keras_seq.architectures.remove("mine")


def test_your_own_layer_is_an_architecture():
    """Through the registry, without a plugin and without touching our files."""
    import keras
    import numpy as np

    class Halve(keras.layers.Layer):
        """Half of everything."""

        def call(self, x):
            return x / 2

        def compute_output_shape(self, shape):
            return shape

    keras_seq.architectures.add("halve", Halve, origin="a test")
    try:
        head = keras_seq.heads.Forecast(horizon=3)
        model = keras_seq.build("halve", inputs=(12, 2), head=head)
        x = np.random.default_rng(0).normal(size=(16, 12, 2)).astype("float32")
        model.compile("adam", "mse")
        model.fit({"series": x}, {"forecast": x[:, :3]}, epochs=1, verbose=0)
        assert model({"series": x})["forecast"].shape == (16, 3, 2)
    finally:
        keras_seq.architectures.remove("halve")
