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
# # Sentiment: from counting words to Transformers
#
# Is this review good or bad? The oldest answer counts words, the newest attends to them. In this
# tutorial you
#
# 1. look at reviews in which the *order* of the words decides,
# 2. turn text into numbers, and see what a tokeniser costs,
# 3. train the road from bags of words over convolutions and recurrent networks to a Transformer,
# 4. ask a network which words its answer came from, and
# 5. run the exported model on raw strings, and on a device with a tokeniser of its own.
#
# It takes a few minutes on two CPU cores. To read it as a notebook:
# `jupytext --to ipynb tutorials/02_sentiment_from_words_to_transformers.py`.

# %%
import os
from pathlib import Path

import numpy as np

import keras_seq

# The tests run this file with settings that take seconds. You want the others.
FAST = os.environ.get("KERAS_SEQ_FAST") == "1"
OUT = Path(os.environ.get("KERAS_SEQ_OUT", "runs")) / "sentiment_tutorial"

# %% [markdown]
# ## 1. The reviews
#
# They are synthetic, written by a small grammar of ours, and say so. Every word stands as often in
# good reviews as in bad ones, so *which* words a review has tells nothing. "Not good but bad" and
# "not bad but good" have the same words: only their order differs.

# %%
from keras_seq.data import make_reviews

reviews = make_reviews(2000, seed=0)
for text, label in list(zip(reviews.texts, reviews.labels, strict=True))[:6]:
    print(f"{label:>8}  {text}")

# %% [markdown]
# ## 2. Text to numbers
#
# A network reads ids. Whole words give short sequences and a large vocabulary, characters the
# opposite, and subwords stand between. Five ids are the same everywhere: padding, unknown, start,
# end, mask.

# %%
from keras_seq.preprocessing import train_tokenizer

words = train_tokenizer("words", reviews.texts)
characters = train_tokenizer("characters", reviews.texts)
text = reviews.texts[0]
print(words.size, "words:     ", words.encode(text))
print(characters.size, "characters:", characters.encode(text)[:20], "...")
assert words.tokens(text) and len(characters.encode(text)) > len(words.encode(text))

# %% [markdown]
# On your own file, `keras-seq tokenizers --data reviews.tsv` makes a table of all kinds: tokens per
# text, unknown share, speed.
#
# ## 3. The road
#
# One recipe, one split, one number of epochs for all. Two baselines are not networks: the most
# frequent class, and naive Bayes. On real reviews, logistic regression on n-grams weighted by naive
# Bayes is so strong (91.8 % on IMDb) that few small networks pass it: it is in every table.
#
# ```
# keras-seq compare classification --data builtin:reviews \
#     --architectures bag_of_words,fasttext,text_cnn,lstm,transformer --out runs/sentiment_tutorial
# ```

# %%
road = "bag_of_words,text_cnn" if FAST else "bag_of_words,fasttext,text_cnn,lstm,transformer"
comparison = keras_seq.compare(
    "classification",
    data="builtin:reviews",
    architectures=road,
    epochs=1 if FAST else 6,
    steps_per_epoch=10 if FAST else 200,
    export=("saved_model", "litert"),
    ensemble=False,
    out=OUT,
    quiet=FAST,
)
board = comparison.leaderboard
print(board.to_markdown())
for sentence in board.verdict():
    print(sentence)

# %% [markdown]
# The bag of words stays near the coin: it cannot see order. Windows of three words see "not good",
# the recurrent network and the Transformer see how far a negation reaches.

# %%
scores = {row.architecture: row.scores["accuracy"] for row in board.ranked()}
for name, accuracy in scores.items():
    print(f"{name:24} {accuracy:.3f}")
if not FAST:
    assert scores["bag_of_words"] < 0.7 < scores["lstm"]

# %% [markdown]
# ## 4. Which words?
#
# Gradient times input says how much each word pushed the answer; models with attention show where
# they looked. `keras-seq explain RUN --text "..." --html why.html` writes the same as a page, and
# TensorBoard has it for a few validation texts at every run.

# %%
from keras_seq.explain import explain_text

name = road.split(",")[-1]
explanation = explain_text(OUT / name / "0", "the plot was not good but the ending was a joy")
print(explanation.label, explanation.kind)
for token, weight in zip(explanation.tokens, explanation.weights, strict=True):
    print(f"{token:>12} {weight:+.3f}")

# %% [markdown]
# ## 5. Shipping
#
# The SavedModel has two signatures: `serving_text` takes raw strings, because the tokeniser is
# inside, and `serving_default` takes ids. The LiteRT file takes ids; `tokenizer.py` and
# `tokenizer.json` beside it are plain Python and give a device the same ids.

# %%
import tensorflow as tf

artifact = Path(comparison.artifact)
(folder,) = (path.parent for path in artifact.rglob("saved_model.pb"))
served = tf.saved_model.load(str(folder))
answer = served.signatures["serving_text"](text=tf.constant(["not bad at all", "a bore"]))
print(np.round(answer["probabilities"].numpy(), 3))

# %%
import subprocess
import sys

from ai_edge_litert.interpreter import Interpreter

beside = artifact / "litert"
encoded = subprocess.run(
    [sys.executable, str(beside / "tokenizer.py"), str(beside / "tokenizer.json")],
    input="not bad at all\n",
    capture_output=True,
    text=True,
    check=True,
).stdout
ids = np.array([encoded.split()], "int32")
runner = Interpreter(str(beside / "model_float32.tflite")).get_signature_runner("serving_default")
on_device = runner(tokens=ids)["probabilities"]
print(ids, np.round(on_device, 3))
np.testing.assert_allclose(on_device[0], answer["probabilities"].numpy()[0], atol=1e-5)

# %% [markdown]
# ## Where to go from here
#
# - Your own file: `data="reviews.tsv", text_column=("text",), label_column="label"`.
# - DNA, clicks, anything made of symbols: `tokenizer="characters"`. Numeric series with a label are
#   the same task.
# - Text without labels helps: pretrain `bert` with `keras-seq train language_model bert
#   --objective masked`, then `--init` the classification with its run.
# - The next tutorial makes the network write.
