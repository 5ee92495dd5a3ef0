# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your first comparison
#
# Which architecture forecasts *your* series best? Papers cannot say: they use other data, another
# split, and more hours of tuning for the model that they propose. So let us ask the data.
#
# In this tutorial you
#
# 1. look at a real series,
# 2. train several architectures under one recipe, beside baselines that need no training,
# 3. read the leaderboard, and learn when not to believe it,
# 4. forecast with the winner, and
# 5. run the exported file, as a device would, without Keras.
#
# It takes two minutes on two CPU cores. To read it as a notebook:
# `jupytext --to ipynb tutorials/01_your_first_comparison.py`.

# %%
import os
from pathlib import Path

import numpy as np

import keras_seq

# The tests run this file with settings that take seconds. You want the others.
FAST = os.environ.get("KERAS_SEQ_FAST") == "1"
OUT = Path(os.environ.get("KERAS_SEQ_OUT", "runs")) / "first_comparison"

# %% [markdown]
# ## 1. The series
#
# Carbon dioxide in the air over Mauna Loa, one number a week since 1958. It comes with
# statsmodels, so there is nothing to download. `builtin:el_nino` and `builtin:sunspots` are there
# too; for your own data, put the name of a CSV or Parquet file in place of `builtin:co2` below.

# %%
from keras_seq.data import load_builtin

series = load_builtin("co2")
print(series.tail(3))

# %% [markdown]
# ## 2. The comparison
#
# Each model sees two years (104 weeks) and forecasts half a year (26 weeks), all steps at once.
#
# What makes it fair: all get the same windows, the same split in time (the test part is the most
# recent, and nobody sees it before the end), the same number of epochs, and the same number of
# parameters: each architecture is made as wide as the budget allows. What is measured is the
# architecture, and not who had the larger network. (`linear` has no width: its size is given.)
#
# From the command line, the same comparison is
#
# ```
# keras-seq compare forecasting --data builtin:co2 --lookback 104 --horizon 26 \
#     --architectures linear,mlp,tcn,lstm,transformer --parameters 20000 --out runs/first_comparison
# ```

# %%
comparison = keras_seq.compare(
    "forecasting",
    data="builtin:co2",
    lookback=104,
    horizon=26,
    architectures="linear,mlp" if FAST else "linear,mlp,tcn,lstm,transformer",
    parameters=20_000,
    epochs=1 if FAST else 15,
    steps_per_epoch=4 if FAST else 500,
    export=("saved_model", "litert"),
    out=OUT,
    quiet=FAST,
)

# %% [markdown]
# ## 3. The leaderboard
#
# The table has two kinds of rows. *Baselines* are not trained: the last value again (`naive`), the
# same week of last year again (`seasonal_naive`), a straight line fitted in closed form. A network
# that cannot beat them is not worth its electricity, and the sentences below the table say so.
#
# Look at the costs as well as at the score: parameters, seconds an epoch, milliseconds a forecast,
# kilobytes of the exported file. Second place at a tenth of the latency is often the better model.

# %%
board = comparison.leaderboard
print(board.to_markdown())
for sentence in board.verdict():
    print(sentence)

# %% [markdown]
# Two scores deserve a word.
#
# *MASE* divides the mean absolute error by that of the seasonal naive forecast on the training
# part: below 1 you are better than repeating last year. It has no unit, so it can be averaged over
# series of different size.
#
# *MSE and MAE, scaled* are computed after dividing by the spread of the training part. They are the
# figures that papers print.
#
# And one warning. With one seed, two neighbours in the table may change places when you run it
# again. `seeds=3` shows the spread; the significance test in the verdict is paired over the same
# test windows, so it sees a difference that the spread hides.

# %%
rows = {row.architecture: row for row in board.ranked()}
networks = [name for name in ("linear", "mlp", "tcn", "lstm", "transformer") if name in rows]
assert networks, "no network has finished"
print("best network:", min(networks, key=lambda name: rows[name].scores["mse_scaled"]))

# %% [markdown]
# Everything is also on disk: `leaderboard.html` opens in a browser and needs no network,
# `recipe.toml` runs the comparison again, and
#
# ```
# keras-seq tensorboard runs/first_comparison
# ```
#
# shows the learning curves of all runs on one page, forecasts against the truth, and the HParams
# table with the scores.

# %%
for path in sorted(OUT.iterdir()):
    print(path.relative_to(OUT))

# %% [markdown]
# ## 4. A forecast
#
# The winner has been exported. Its files take raw values in parts per million and give raw values
# back: the scaling is inside. So the input is simply the last 104 weeks of the series. (What is
# exported is what was best on the *validation* part, often the ensemble; choosing by the test part
# would make the test score a promise that nobody can keep.)

# %%
artifact = Path(comparison.artifact)
print("winner:", comparison.winner, "->", artifact)

# %%
import tensorflow as tf

(folder,) = (path.parent for path in artifact.rglob("saved_model.pb"))
served = tf.saved_model.load(str(folder)).signatures["serving_default"]
print("inputs ", {name: spec.shape for name, spec in served.structured_input_signature[1].items()})
print("outputs", {name: spec.shape for name, spec in served.structured_outputs.items()})

# %%
window = series["co2"].to_numpy("float32")[-104:]
inputs = {"series": window[None, :, None]}  # (batch, time, channels)
if "time_index" in served.structured_input_signature[1]:
    # Where the window begins on the calendar, in steps: for architectures with a learned cycle.
    inputs["time_index"] = np.array([len(series) - 104], "int32")
outputs = served(**{name: tf.constant(value) for name, value in inputs.items()})
forecast = outputs["forecast"].numpy()  # (1, 26, 1)
assert forecast.shape == (1, 26, 1)
print(np.round(forecast.ravel(), 1))

# %%
import matplotlib.pyplot as plt

plt.plot(np.arange(-104, 0), window, label="the last two years")
plt.plot(np.arange(26), forecast.ravel(), label=f"forecast ({comparison.winner})")
plt.xlabel("weeks from now")
plt.ylabel("CO2, parts per million")
plt.legend()
plt.show()

# %% [markdown]
# ## 5. The same on a device
#
# The LiteRT file runs without TensorFlow; `ai_edge_litert` is a few megabytes. The export has
# compared the two already and refuses to leave a file that differs (`parity.json` beside it has the
# figures), but it is good to see it once with your own eyes.

# %%
from ai_edge_litert.interpreter import Interpreter

(file, *_) = sorted(artifact.rglob("*.tflite"))
runner = Interpreter(model_path=str(file)).get_signature_runner()
on_device = runner(**inputs)["forecast"]
difference = float(np.max(np.abs(on_device - forecast)))
print(f"{file.name}: {file.stat().st_size / 1000:.0f} kB, largest difference {difference:.1e} ppm")
assert difference < 1e-5 * float(np.max(forecast))

# %% [markdown]
# ## Where to go from here
#
# - Your own file: `data="my.csv"`, and `target=("load",)` if not all numeric columns are meant.
# - Intervals and not only points: `quantiles=(0.1, 0.9)`.
# - More than one try for each: `seeds=3, learning_rates=3`.
# - An architecture of your own: see CONTRIBUTING.md, "Add an architecture".
