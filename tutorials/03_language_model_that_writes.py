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
# # A language model that writes
#
# Guess the next character, again and again: that is all that a language model does. In this
# tutorial you
#
# 1. make a text to learn from,
# 2. train a recurrent network and a small GPT beside an n-gram model,
# 3. read perplexity and bits per character,
# 4. let the winner write: greedily, by chance, and by cautious chance, and
# 5. see why a cache makes writing fast.
#
# It takes a few minutes on two CPU cores. To read it as a notebook:
# `jupytext --to ipynb tutorials/03_language_model_that_writes.py`.

# %%
import os
from pathlib import Path

import keras_seq

# The tests run this file with settings that take seconds. You want the others.
FAST = os.environ.get("KERAS_SEQ_FAST") == "1"
OUT = Path(os.environ.get("KERAS_SEQ_OUT", "runs")) / "language_model_tutorial"

# %% [markdown]
# ## 1. The text
#
# Any text file will do: put the name of your own in place of `text`. Ours is made of the synthetic
# reviews of the last tutorial, one a line, so that there is nothing to download.

# %%
from keras_seq.data import make_reviews

OUT.parent.mkdir(parents=True, exist_ok=True)
text = OUT.parent / "reviews.txt"
text.write_text("\n".join(make_reviews(600 if FAST else 6000, seed=1).texts) + "\n")
print(text.read_text()[:200])

# %% [markdown]
# ## 2. The comparison
#
# `lstm` carries a state from character to character; `gpt` attends to the last characters (64
# here). Both are trained to give each next character a high probability. The n-gram model only
# counts, and is a baseline to respect.
#
# ```
# keras-seq compare language_model --data reviews.txt --tokenizer characters --context 64 \
#     --architectures lstm,gpt --out runs/language_model_tutorial
# ```

# %%
comparison = keras_seq.compare(
    "language_model",
    data=str(text),
    tokenizer="characters",
    context=64,
    architectures="lstm,gpt",
    overrides={"gpt": {"width": 64, "depth": 2}, "lstm": {"width": 64}},
    epochs=1 if FAST else 4,
    steps_per_epoch=10 if FAST else 300,
    export=("saved_model",),
    ensemble=False,
    out=OUT,
    quiet=FAST,
)
board = comparison.leaderboard
print(board.to_markdown())
for sentence in board.verdict():
    print(sentence)

# %% [markdown]
# ## 3. What the numbers mean
#
# *Cross-entropy* is the mean of minus the logarithm of the probability that the model gave to what
# really came next. *Perplexity* is its exponential: a perplexity of 4 is as unsure as a fair choice
# among four. *Bits per character* is the same in bits, and can be compared between tokenisers.

# %%
import math

rows = {row.architecture: row.scores for row in board.ranked()}
for name, scores in rows.items():
    print(f"{name:16} {scores['cross_entropy']:.3f} nats, perplexity {scores['perplexity']:.2f}")
    assert math.isclose(scores["perplexity"], math.exp(scores["cross_entropy"]), rel_tol=1e-6)

# %% [markdown]
# ## 4. Writing
#
# Greedy writing takes the likeliest character each time, and soon repeats itself. Drawing by chance
# is lively and wrong; a *temperature* below 1, or drawing only among the likeliest (`top_k`,
# `top_p`), is between the two. From the command line:
# `keras-seq generate runs/language_model_tutorial/gpt/0 --prompt "the " --temperature 0.7`.

# %%
from keras_seq.generation import generate_text

length = 20 if FAST else 150
for how in (
    {"method": "greedy"},
    {"method": "sample", "temperature": 1.0},
    {"method": "sample", "temperature": 0.7, "top_p": 0.9},
):
    print(how, "->", repr(generate_text(OUT / "gpt" / "0", "the ", length=length, **how)))

# %% [markdown]
# ## 5. The cache
#
# To write character 200, an attention model looks at the 199 before it. Computed afresh each time,
# the work grows with the square of the length; with keys and values kept, each step costs the
# same few products. `generate_text` keeps them, the exported model has them as states (signature
# `step`), and `benchmarks/generation.py` measures what it gains.

# %%
again = generate_text(OUT / "gpt" / "0", "the ", length=length, method="greedy")
assert again == generate_text(OUT / "gpt" / "0", "the ", length=length, method="greedy")

# %% [markdown]
# ## Where to go from here
#
# - States that are carried from batch to batch: `stateful=True` (recurrent networks).
# - Words or subwords in place of characters: `tokenizer="words"`, `tokenizer="byte_pairs"`.
# - Pretraining: `objective="masked"` trains `bert` to fill gaps; `init=` then starts a
#   classification or a tagger from it.
