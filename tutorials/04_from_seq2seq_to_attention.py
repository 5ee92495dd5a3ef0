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
# # From seq2seq to attention
#
# An encoder-decoder reads one sequence and writes another. The first ones squeezed all that they
# had read into one vector. In this tutorial you
#
# 1. make pairs to learn from, short ones and long ones,
# 2. train an encoder-decoder with the one vector, and one with attention,
# 3. see by length where the vector is too small,
# 4. look at what attention looked at, and
# 5. search for the best translation instead of taking the first.
#
# It takes about ten minutes on two CPU cores. To read it as a notebook:
# `jupytext --to ipynb tutorials/04_from_seq2seq_to_attention.py`.

# %%
import os
from pathlib import Path

import pandas as pd

import keras_seq

# The tests run this file with settings that take seconds. You want the others.
FAST = os.environ.get("KERAS_SEQ_FAST") == "1"
OUT = Path(os.environ.get("KERAS_SEQ_OUT", "runs")) / "attention_tutorial"

# %% [markdown]
# ## 1. The pairs
#
# Dates as people write them, in four languages, and the same dates as ISO 8601: a translation that
# can be checked to the letter. One date is short. To see what length does, one, two or three of
# them in turn are joined into one source (`--join 3` does that to any pairs).

# %%
from keras_seq.data import join_pairs, make_dates

OUT.mkdir(parents=True, exist_ok=True)
joined = join_pairs(make_dates(300 if FAST else 24_000, seed=1), 3)
table = pd.DataFrame({"source": joined.source, "target": joined.target})
pairs = OUT / "pairs.csv"
table.to_csv(pairs, index=False)
print(table.head(6).to_string())

# %% [markdown]
# ## 2. One vector, or attention
#
# `seq2seq` hands the decoder the encoder's last state, and nothing else (Sutskever et al. 2014).
# `seq2seq_attention` keeps all states of the encoder, and lets each step of the decoder choose
# among them (Bahdanau et al. 2015). Both have the same width and the same budget.
#
# ```
# keras-seq compare translation --data runs/attention_tutorial/pairs.csv --tokenizer characters \
#     --architectures seq2seq,seq2seq_attention --out runs/attention_tutorial/compared
# ```

# %%
comparison = keras_seq.compare(
    "translation",
    data=str(pairs),
    tokenizer="characters",
    embedding=32,
    beam=1,
    max_length=36,
    test_fraction=0.1,
    architectures="seq2seq,seq2seq_attention",
    overrides={name: {"width": 16 if FAST else 128} for name in ("seq2seq", "seq2seq_attention")},
    learning_rate=3e-3,
    epochs=1 if FAST else 20,
    steps_per_epoch=2 if FAST else 200,
    export=("saved_model",),
    out=OUT / "compared",
    quiet=FAST,
)
board = comparison.leaderboard
print(board.to_markdown())
for sentence in board.verdict():
    print(sentence)

# %% [markdown]
# ## 3. The vector is too small
#
# The longer the source, the more has to go through the one vector. We count whole dates that are
# right, on fresh pairs of one, two and three dates. (When this was written: 97, 80 and 35 % with
# the one vector; 99 % and more with attention, at every length.) TensorBoard has the same picture
# under *images*, as *BLEU by length of the source*.

# %%
from keras_seq.translating import open_translator

fresh = join_pairs(make_dates(30 if FAST else 600, seed=2), 3)
found = {}
for name in ("seq2seq", "seq2seq_attention"):
    translator = open_translator(OUT / "compared" / name / "0")
    right = {size: [] for size in (1, 2, 3)}
    for (best,), target in zip(translator(fresh.source), fresh.target, strict=True):
        wanted, said = target.split(), best.text.split()
        same = sum(a == b for a, b in zip(said, wanted, strict=False))
        right[len(wanted)].append(same / len(wanted))
    found[name] = {f"{size} dates": sum(share) / len(share) for size, share in right.items()}
print(pd.DataFrame(found).T.round(3))

# %% [markdown]
# ## 4. What it looked at
#
# Attention gives each written character a weight on each read character. Year, month and day are
# looked up where they stand in the source, in whatever order that is. `keras-seq align RUN
# --source "..." --html page.html` shows the same in the terminal and as a page; TensorBoard has it
# under *images*.

# %%
from keras_seq.figures import alignment_html

attention = open_translator(OUT / "compared" / "seq2seq_attention" / "0")
best = attention(["3rd of March 2021"])[0][0]
print(best.text)
page = OUT / "alignment.html"
page.write_text(alignment_html(best.source, best.target, best.alignment), encoding="utf-8")
looked = best.alignment.argmax(axis=1)
print([(written, best.source[i]) for written, i in zip(best.target, looked, strict=True)])

# %% [markdown]
# ## 5. Searching
#
# Greedy decoding takes the likeliest character each time, and cannot take it back. Beam search
# follows several hypotheses, and ranks them at their end. The scores are log-probabilities over a
# length penalty; more than one translation can be asked for.

# %%
for one in open_translator(OUT / "compared" / "seq2seq_attention" / "0", beam=4)(
    ["le 03/04/05" if FAST else "mercredi 5 mai 1999"], best=3
)[0]:
    print(f"{one.score:8.3f}  {one.text}")

# %% [markdown]
# ## Where to go from here
#
# - Other scores: `overrides={"seq2seq_attention": {"score": "luong_general"}}`, `"dot"`,
#   `"location"`.
# - The next tutorial puts attention in place of the recurrence: the Transformer.
