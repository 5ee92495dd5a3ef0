"""Milliseconds a token: a language model that remembers beside one that reads all anew.

    python benchmarks/generation.py         # gpt, 4 layers, width 128, 256 tokens, one row

The cached loop computes one step a token and keeps keys and values; the uncached one runs the
whole model over all 256 places for each token, in a compiled loop too. Both write the same
tokens, which is checked. KerasHub's greedy loop over our step stands beside them where KerasHub
is installed. All cases run in one process, in turns, several times; the medians count, since a
shared machine drifts.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import keras_seq
from keras_seq.decoding import Stepper, generate, stepper, stream, whole_stepper
from keras_seq.heads import NextToken, Tokens

WANTED = 5.0
PROMPT = 8


def kerashub(step: Stepper, prompt: np.ndarray, length: int) -> Callable[[], np.ndarray] | None:
    """KerasHub's greedy sampler over our step; the prompt is read by our steps first."""
    try:
        from keras_hub.samplers import GreedySampler
    except ImportError:
        return None
    sampler = GreedySampler()

    def following(text, cache, index):
        token = tf.gather(text, index - 1, axis=1)
        logits, cache = step.step(token, cache, tf.fill(tf.shape(token), index - 1))
        # like ours, never the padding: the model would not look at it
        return logits - 1e9 * tf.one_hot(0, logits.shape[-1]), None, cache

    @tf.function
    def run(text):
        cache = step.start(text.shape[0])
        for index in range(1, prompt.shape[1]):
            _, _, cache = following(text, cache, tf.constant(index))
        return sampler(following, text, cache=cache, index=prompt.shape[1])

    text = tf.constant(np.pad(prompt, [(0, 0), (0, length)]).astype("int32"))
    return lambda: run(text).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--length", type=int, default=256, help="tokens, the prompt of 8 included")
    parser.add_argument("--vocabulary", type=int, default=65)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a file for the table, .md")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    model = keras_seq.build(
        "gpt",
        inputs={"tokens": (None,)},
        head=NextToken(Tokens(arguments.vocabulary, arguments.width)),
        width=arguments.width,
        depth=arguments.depth,
        heads=4,
    )
    rng = np.random.default_rng(0)
    for weight in model.weights:  # far from uniform, so that equal tokens mean something
        weight.assign(rng.normal(0, 0.1, weight.shape))
    prompt = rng.integers(5, arguments.vocabulary, (arguments.batch, PROMPT)).astype("int32")
    length = arguments.length - PROMPT
    cached = stepper(model, length=arguments.length)
    whole = whole_stepper(model, length=arguments.length)
    greedy = {"length": length, "end": None}
    draws = greedy | {"method": "sample", "temperature": 0.8, "top_k": 40, "top_p": 0.9}
    cases: dict[str, Callable[[], np.ndarray]] = {
        "uncached": lambda: generate(whole, prompt, **greedy),
        "uncached, XLA": lambda: generate(whole, prompt, compile=True, **greedy),
        "cached": lambda: generate(cached, prompt, **greedy),
        "cached, XLA": lambda: generate(cached, prompt, compile=True, **greedy),
        "uncached, sampled": lambda: generate(whole, prompt, **draws),
        "cached, sampled": lambda: generate(cached, prompt, **draws),
    }
    if arguments.batch == 1:
        cases["cached, sampled, streamed"] = lambda: np.array(
            [[*prompt[0], *stream(cached, prompt[0], **draws)]]
        )
    if theirs := kerashub(cached, prompt, length):
        cases["cached, KerasHub's loop"] = theirs
    first, times = {}, {name: [] for name in cases}
    found = {}
    for name, case in cases.items():
        begin = time.perf_counter()
        found[name] = case()
        first[name] = time.perf_counter() - begin
    for _ in range(arguments.repeats):
        for name, case in cases.items():
            begin = time.perf_counter()
            case()
            times[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in times.items()}
    lines = [
        f"gpt, {arguments.depth} layers, width {arguments.width}, vocabulary "
        f"{arguments.vocabulary}, batch {arguments.batch}, {PROMPT} + {length} tokens; "
        f"{os.cpu_count()} cores, {platform.machine()}, TensorFlow {tf.__version__}",
        "",
        f"| way | ms a token, median of {arguments.repeats} | times as fast as uncached | "
        "first call, s | same tokens as uncached |",
        "|---|---|---|---|---|",
    ]
    for name, median in medians.items():
        base = "uncached, sampled" if "sampled" in name else "uncached"
        same = np.mean(found[name] == found[base])
        lines.append(
            f"| {name} | {median / length * 1e3:.2f} | {medians[base] / median:.1f} | "
            f"{first[name]:.1f} | {same:.1%} |"
        )
    ratio = medians["uncached"] / medians["cached"]
    met = "met" if ratio >= WANTED else "NOT met"
    lines += ["", f"At least {WANTED:g} times as fast as uncached: {ratio:.1f}, {met}."]
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(["# Cached generation", "", *lines, ""]))


if __name__ == "__main__":
    main()
