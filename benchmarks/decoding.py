"""Milliseconds to decode a batch: our greedy and beam search beside four other programs.

    python benchmarks/decoding.py --torch PYTHON

PYTHON is an interpreter that has torch, transformers and ctranslate2; it may be one of another
environment. The model is a Transformer of 3 encoder and 3 decoder layers, width 256, 4 heads, 1,024
hidden units, 8,000 tokens, with random weights; 32 sources of 64 tokens, 64 tokens written for each
(the end is forbidden, so that all write as much). The others: the decoder run again over the whole
target for each token, as tutorials do (called eagerly, and by `predict`); KerasHub's BART with its
own cache; a Marian model by Hugging Face's `generate` on PyTorch; CTranslate2 in float32. All go
in turns, so that a shared machine drifts for all; medians of the rounds count.

Writes benchmarks/results/decoding.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sides import Side, blocks, conclude, report

BATCH, STEPS, WIDTH, HEADS, HIDDEN, VOCABULARY, DEPTH = 32, 64, 256, 4, 1024, 8000, 3
# Side: what it is called, how wide its beam, whether PyTorch's interpreter runs it.
SIDES = {
    "ours": ("keras_seq", 1, False),
    "ours_beam": ("keras_seq", 4, False),
    "eager": ("the decoder run again for each token, eagerly", 1, False),
    "predict": ("the decoder run again for each token, `predict`", 1, False),
    "hub": ("KerasHub BART", 1, False),
    "hub_beam": ("KerasHub BART", 4, False),
    "marian": ("Hugging Face Marian, PyTorch", 1, True),
    "marian_beam": ("Hugging Face Marian, PyTorch", 4, True),
    "ctranslate2": ("CTranslate2, float32", 1, True),
    "ctranslate2_beam": ("CTranslate2, float32", 4, True),
}
# How many times as fast we are to be.
WANTED = {
    ("eager", 1): 40.0,
    ("hub", 1): 3.0,
    ("marian", 1): 2.2,
    ("ctranslate2", 1): 1.0,
    ("marian_beam", 4): 2.3,
    ("hub_beam", 4): 10.0,
}


def sources() -> np.ndarray:
    """(B, S) ids."""
    return np.random.default_rng(0).integers(5, VOCABULARY, (BATCH, STEPS)).astype("int32")


def our_model() -> Any:
    """The network, with random weights."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    import keras_seq
    from keras_seq.heads import Tokens, Translation

    keras.utils.set_random_seed(0)
    head = Translation(Tokens(VOCABULARY, WIDTH), Tokens(VOCABULARY, WIDTH))
    return keras_seq.build(
        "seq2seq_transformer",
        inputs={"source": (None,), "tokens": (None,)},
        head=head,
        width=WIDTH,
        depth=DEPTH,
        heads=HEADS,
        hidden=HIDDEN,
        norm="post",
        activation="relu",
        dropout=0.0,
    )


def ours(beam: int) -> Callable[[], Any]:
    """Our search."""
    from keras_seq.decoding import BeamOptions, beam_search, search_model

    search = search_model(our_model(), hypotheses=beam, length=STEPS, compile=beam == 1)
    x, options = sources(), BeamOptions(min_length=STEPS)

    def run() -> None:
        found = beam_search(search, x, options=options)
        if (found.tokens[:, 0] > 0).sum() != BATCH * STEPS:
            raise RuntimeError("not all were written")

    return run


def again(how: str) -> Callable[[], Any]:
    """The whole model called for each token."""
    import tensorflow as tf

    model, x = our_model(), sources()

    def run() -> None:
        y = np.zeros((BATCH, STEPS + 1), "int32")
        y[:, 0] = 2
        for t in range(STEPS):
            inputs = {"source": x, "tokens": y[:, :STEPS]}
            if how == "eager":
                inputs = {name: tf.constant(value) for name, value in inputs.items()}
                logits = model(inputs, training=False)["logits"].numpy()
            else:
                logits = model.predict(inputs, verbose=0)["logits"]
            y[:, t + 1] = logits[:, t, 5:].argmax(-1) + 5

    return run


def hub(beam: int) -> Callable[[], Any]:
    """KerasHub's sampler over BART."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras_hub

    backbone = keras_hub.models.BartBackbone(
        VOCABULARY, DEPTH, HEADS, WIDTH, HIDDEN, max_sequence_length=STEPS, dropout=0.0
    )
    model = keras_hub.models.BartSeq2SeqLM(backbone)
    model.compile(sampler="greedy" if beam == 1 else keras_hub.samplers.BeamSampler(beam))
    model.preprocessor = None
    x = sources()
    start, real = np.zeros_like(x), np.zeros_like(x)
    start[:, 0], real[:, 0] = 2, 1
    inputs = {
        "encoder_token_ids": x,
        "encoder_padding_mask": np.ones_like(x),
        "decoder_token_ids": start,
        "decoder_padding_mask": real,
    }
    return lambda: model.generate(inputs, stop_token_ids=None)


def marian(beam: int) -> Callable[[], Any]:
    """Hugging Face's `generate`."""
    import torch
    import transformers

    model = transformers.MarianMTModel(
        transformers.MarianConfig(
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            encoder_layers=DEPTH,
            decoder_layers=DEPTH,
            encoder_attention_heads=HEADS,
            decoder_attention_heads=HEADS,
            encoder_ffn_dim=HIDDEN,
            decoder_ffn_dim=HIDDEN,
            max_position_embeddings=2 * STEPS,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=3,
            decoder_start_token_id=1,
            forced_eos_token_id=None,
            scale_embedding=False,
        )
    ).eval()
    x = torch.tensor(sources()).long()

    def run() -> None:
        with torch.inference_mode():
            y = model.generate(
                x, max_new_tokens=STEPS, min_new_tokens=STEPS, num_beams=beam, do_sample=False
            )
        if y.shape[1] != STEPS + 1:
            raise RuntimeError(f"{y.shape} was written")

    return run


def ctranslate2(beam: int) -> Callable[[], Any]:
    """CTranslate2's own engine."""
    import ctranslate2
    from ctranslate2.specs import TransformerSpec

    rng = np.random.default_rng(1)
    spec = TransformerSpec.from_config((DEPTH, DEPTH), HEADS, pre_norm=False)

    def random(*shape: int) -> np.ndarray:
        return (0.05 * rng.normal(size=shape)).astype("float32")

    def linear(layer: Any, inputs: int, outputs: int) -> None:
        layer.weight, layer.bias = random(outputs, inputs), np.zeros(outputs, "float32")

    def norm(layer: Any) -> None:
        layer.gamma, layer.beta = np.ones(WIDTH, "float32"), np.zeros(WIDTH, "float32")

    def rest(layer: Any) -> None:
        linear(layer.ffn.linear_0, WIDTH, HIDDEN)
        linear(layer.ffn.linear_1, HIDDEN, WIDTH)
        norm(layer.ffn.layer_norm)
        linear(layer.self_attention.linear[0], WIDTH, 3 * WIDTH)
        linear(layer.self_attention.linear[1], WIDTH, WIDTH)
        norm(layer.self_attention.layer_norm)

    for layer in spec.encoder.layer:
        rest(layer)
    for layer in spec.decoder.layer:
        rest(layer)
        for part, (inputs, outputs) in enumerate(((1, 1), (1, 2), (1, 1))):
            linear(layer.attention.linear[part], inputs * WIDTH, outputs * WIDTH)
        norm(layer.attention.layer_norm)
    embeddings = spec.encoder.embeddings
    embeddings = embeddings[0] if isinstance(embeddings, list) else embeddings
    embeddings.weight = spec.decoder.embeddings.weight = random(VOCABULARY, WIDTH)
    for side in (spec.encoder, spec.decoder):
        side.position_encodings.encodings = random(2 * STEPS, WIDTH)
    linear(spec.decoder.projection, WIDTH, VOCABULARY)
    spec.decoder.scale_embeddings = False
    words = ["<unk>", "<s>", "<blank>", "</s>"] + [f"t{i}" for i in range(VOCABULARY - 4)]
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    spec.validate()
    spec.optimize(quantization=None)
    folder = tempfile.mkdtemp()
    spec.save(folder)
    translator = ctranslate2.Translator(
        folder, "cpu", compute_type="float32", inter_threads=1, intra_threads=os.cpu_count() or 1
    )
    texts = [[words[i] for i in row] for row in sources()]

    def run() -> None:
        found = translator.translate_batch(
            texts,
            beam_size=beam,
            max_decoding_length=STEPS,
            min_decoding_length=STEPS,
            max_batch_size=0,
        )
        if len(found[0].hypotheses[0]) < STEPS - 1:
            raise RuntimeError(f"{len(found[0].hypotheses[0])} tokens were written")

    return run


def serve(side: str) -> None:
    """Is one side: makes its program, and runs it whenever it is told to."""
    beam = SIDES[side][1]
    kind = side.removesuffix("_beam")
    made = {"ours": ours, "hub": hub, "marian": marian, "ctranslate2": ctranslate2}
    run = again(kind) if kind in ("eager", "predict") else made[kind](beam)
    run()
    report("ready")
    for _ in blocks():
        began = time.perf_counter()
        run()
        report(time.perf_counter() - began)


def main() -> None:
    """Runs all sides in turns, or is one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", default="", help="a Python that has torch; without: not run")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sides", default=",".join(SIDES), help="which, by name")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/decoding.md")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        serve(options.side)
        return
    names = [n for n in options.sides.split(",") if options.torch or not SIDES[n][2]]
    sides = {}
    for name in names:
        python = options.torch if SIDES[name][2] else sys.executable
        sides[name] = Side(name, [python, __file__, "--side", name])
    for number in range(options.rounds):
        for name, side in sides.items():
            # What takes minutes is run in the first rounds only.
            if number < 3 or name not in ("eager", "predict", "hub_beam"):
                side.block()
    for side in sides.values():
        side.end()
    times = {name: 1000 * statistics.median(side.seconds) for name, side in sides.items()}
    lines = [
        f"# Decoding: {BATCH} sources of {STEPS} tokens, {STEPS} tokens written for each",
        "",
        f"{os.cpu_count()} cores, Python {platform.python_version()}; {DEPTH} + {DEPTH} layers, "
        f"width {WIDTH}, vocabulary {VOCABULARY:,}, random weights, float32; {options.rounds} "
        "rounds in turns, medians (least and most).",
        "",
        "| | beam | ms | we are faster by | wanted |",
        "|---|---|---|---|---|",
    ]
    short = False
    for name, side in sides.items():
        label, beam, _ = SIDES[name]
        low, high = 1000 * min(side.seconds), 1000 * max(side.seconds)
        own = times.get("ours" if beam == 1 else "ours_beam")
        shown = mark = ""
        if own and not name.startswith("ours"):
            ratio, wanted = times[name] / own, WANTED.get((name, beam))
            shown = f"{ratio:.2f}"
            if wanted is not None:
                short |= ratio < wanted
                mark = f"{wanted:g}" + (", **not met**" if ratio < wanted else "")
        lines.append(
            f"| {label} | {beam} | {times[name]:,.0f} ({low:,.0f} to {high:,.0f}) | {shown} | "
            f"{mark} |"
        )
    conclude([*lines, ""], options.out, not short)


if __name__ == "__main__":
    main()
