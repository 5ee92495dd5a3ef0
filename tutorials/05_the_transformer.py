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
# # The Transformer
#
# Attention can look anywhere, so why read one step after another at all? The Transformer keeps the
# attention and drops the recurrence. In this tutorial you
#
# 1. put a Transformer together from three layers, and see what each is for,
# 2. train it beside the attention model of the last tutorial,
# 3. look at its heads,
# 4. see why writing with it needs a cache, and that the cache changes nothing, and
# 5. ship it.
#
# It takes a few minutes on two CPU cores. To read it as a notebook:
# `jupytext --to ipynb tutorials/05_the_transformer.py`.

# %%
import os
from pathlib import Path

import keras
import numpy as np

import keras_seq

# The tests run this file with settings that take seconds. You want the others.
FAST = os.environ.get("KERAS_SEQ_FAST") == "1"
OUT = Path(os.environ.get("KERAS_SEQ_OUT", "runs")) / "transformer_tutorial"

# %% [markdown]
# ## 1. Three layers
#
# *Positions*: attention treats a sequence as a set. What tells first from last is added to the
# features. *Self-attention* mixes the steps of one sequence; a decoder's may not look ahead.
# *Cross-attention* lets the decoder look at what the encoder made.

# %%
from keras_seq.layers import DecoderBlock, MemoryProjection, SinusoidalPositions, TransformerBlock

rng = np.random.default_rng(0)
source, target = (rng.normal(size=(1, steps, 16)).astype("float32") for steps in (5, 3))
x, seen = TransformerBlock(16, heads=2)(SinusoidalPositions()(source))
key, value = MemoryProjection(heads=2, width=16)(x)
y, aligned = DecoderBlock(16, heads=2)(SinusoidalPositions()(target), key, value)
print("encoder", x.shape, "looks at", seen.shape, "| decoder", y.shape, "looks at", aligned.shape)

# %% [markdown]
# A decoder in training reads the whole target at once, and yet step 1 must not see step 2. Change
# the last step of the target, and nothing before it moves:

# %%
block = DecoderBlock(16, heads=2)
before, _ = block(target, key, value)
changed = target.copy()
changed[:, -1] += 1.0
after, _ = block(changed, key, value)
print("moved:", np.abs(np.asarray(after - before)).max(axis=(0, 2)).round(3))

# %% [markdown]
# ## 2. Beside the recurrent model
#
# All target steps train at once, which is what made Transformers fast. They want a warm-up of the
# learning rate, and more examples than a recurrent model.
#
# ```
# keras-seq compare translation --data builtin:dates --tokenizer characters --beam 1 \
#     --max-length 12 --architectures seq2seq_attention,seq2seq_transformer --out runs/...
# ```

# %%
comparison = keras_seq.compare(
    "translation",
    data="builtin:dates",
    tokenizer="characters",
    embedding=16 if FAST else 64,
    beam=1,
    max_length=12,
    architectures="seq2seq_attention,seq2seq_transformer",
    overrides={
        "seq2seq_attention": {"width": 16 if FAST else 64},
        "seq2seq_transformer": {"width": 16 if FAST else 64, "depth": 1 if FAST else 2, "heads": 4},
    },
    learning_rate=3e-3,
    epochs=1 if FAST else 10,
    steps_per_epoch=2 if FAST else 150,
    export=("saved_model",),
    out=OUT,
    quiet=FAST,
)
print(comparison.leaderboard.to_markdown())
for sentence in comparison.leaderboard.verdict():
    print(sentence)

# %% [markdown]
# ## 3. The heads
#
# The alignment of a Transformer is the mean over the heads and layers of its cross-attention. Each
# head by itself often has a trade of its own: one reads the year, one the month.

# %%
from keras_seq.translating import open_translator

translator = open_translator(OUT / "seq2seq_transformer" / "0")
text = "Friday the 3rd of March 2021"
best = translator([text])[0][0]
looked = best.alignment.argmax(axis=1)
print(text, "->", best.text)
print([(written, best.source[i]) for written, i in zip(best.target, looked, strict=True)])

# %% [markdown]
# ## 4. The cache
#
# To write step 10, the decoder attends to steps 1 to 9, whose keys and values have not changed
# since they were written. `search_model` takes a trained model apart: the encoder runs once, then
# one step for each token, with keys and values kept. It is checked against the whole model, here
# by hand: greedy writing with and without the cache.

# %%
from keras_seq.decoding import greedy_search, search_model

model = translator.model
ids = translator.source_tokenizer.encode(text)[None]
cached = greedy_search(search_model(model, length=12), ids).tokens[0, 0]
again = [2]  # the start
for _ in range(12):
    tokens = np.array([again], "int32")
    scores = np.array(model({"source": ids, "tokens": tokens}, training=False)["logits"][0, -1])
    scores[[0, 2, 4]] = -np.inf  # padding, start and mask are never written
    again.append(int(scores.argmax()))
    if again[-1] == 3:  # the end
        break
assert again[1:] == [int(i) for i in cached if i]
print("the same", len(again) - 1, "tokens; parameters:", model.count_params())

# %% [markdown]
# ## 5. Shipping
#
# The exported SavedModel takes strings, and gives translations, scores and alignments: tokenizer
# and beam search are inside. For devices there are `encode` and `decode_step` in one LiteRT file,
# with a loop in NumPy beside it to read (`--export litert`).

# %%
shipped = open_translator(comparison.artifact)
print(shipped([text])[0][0].text)
print(keras.version(), sorted(path.name for path in comparison.artifact.iterdir()))

# %% [markdown]
# ## Where to go from here
#
# - `positions="rotary" | "relative" | "alibi"`, `norm="post"`, `glu=True`, `kv_heads=2`: options of
#   `seq2seq_transformer`, each named as in the papers.
# - `t5` and `conv_seq2seq` are two other ways to go without recurrence.
# - Real translation: `--source train.en --target train.de --tokenizer byte_pairs --batch-tokens
#   4096`.
