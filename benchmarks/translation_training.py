"""Target tokens a second in training: our Transformer beside its twin in PyTorch.

    python benchmarks/translation_training.py --torch PYTHON

PYTHON is an interpreter that has torch; it may be one of another environment. 3 encoder and 3
decoder layers, width 256, 4 heads, 1,024 hidden units, post-norm, 8,000 tokens (one embedding for
source, target and output), batches of 64 pairs of 32 tokens, label smoothing 0.1, gradients
clipped, Adam with decoupled decay, float32, dropout 0.1. The two train in turns, a block of steps
each, so that a shared machine drifts for both; the medians over the blocks count. Our side is
`fit`, with its data, callbacks and average of the weights.

Writes benchmarks/results/translation_training.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from sides import Side, blocks, conclude, in_turns, keras_turns, report

BATCH, STEPS, WIDTH, HEADS, HIDDEN, VOCABULARY, DEPTH = 64, 32, 256, 4, 1024, 8000, 3
DROPOUT, SMOOTHING = 0.1, 0.1
WANTED = 1.3


def pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, S) and (N, T) ids."""
    rng = np.random.default_rng(0)
    source = rng.integers(5, VOCABULARY, (count, STEPS)).astype("int32")
    return source, rng.integers(5, VOCABULARY, (count, STEPS)).astype("int32")


def train_keras(steps: int, rounds: int, compiled: bool) -> None:
    """Trains by `fit`, a block of steps whenever it is told to."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    import keras_seq
    from keras_seq.heads import Tokens, Translation
    from keras_seq.losses import MaskedCrossentropy
    from keras_seq.training import fit

    keras.utils.set_random_seed(0)
    tokens = Tokens(VOCABULARY, WIDTH)
    model = keras_seq.build(
        "seq2seq_transformer",
        inputs={"source": (None,), "tokens": (None,)},
        head=Translation(tokens, tokens, shared="all"),
        width=WIDTH,
        depth=DEPTH,
        heads=HEADS,
        hidden=HIDDEN,
        norm="post",
        dropout=DROPOUT,
        attention_dropout=DROPOUT,
        hidden_dropout=DROPOUT,
    )
    source, target = pairs(steps * BATCH)
    before = np.concatenate([np.full((len(target), 1), 2, "int32"), target[:, :-1]], axis=1)
    report("ready", model.count_params())
    fit(
        model,
        ({"source": source, "tokens": before}, {"logits": target + 1}),
        loss={"logits": MaskedCrossentropy(label_smoothing=SMOOTHING)},
        epochs=rounds,
        batch_size=BATCH,
        averaging=0.99,
        patience=None,
        jit_compile=compiled,
        callbacks=[keras_turns(steps)],
    )


def train_torch(steps: int, rounds: int) -> None:
    """Trains the twin, made of PyTorch's own layers."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(VOCABULARY, WIDTH)
            self.positions = nn.Parameter(torch.randn(STEPS, WIDTH) * 0.02, requires_grad=False)
            self.dropout = nn.Dropout(DROPOUT)
            self.transformer = nn.Transformer(
                WIDTH,
                HEADS,
                DEPTH,
                DEPTH,
                HIDDEN,
                DROPOUT,
                activation="gelu",
                batch_first=True,
            )

        def forward(self, source: Any, before: Any, mask: Any) -> Any:
            x, y = (
                self.dropout(self.tokens(ids) * WIDTH**0.5 + self.positions)
                for ids in (source, before)
            )
            h = self.transformer(x, y, tgt_mask=mask, tgt_is_causal=True)
            return h @ self.tokens.weight.T

    torch.manual_seed(0)
    model = Twin().train()
    nn.init.normal_(model.tokens.weight, std=WIDTH**-0.5)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-4)
    source, target = (torch.tensor(part).long() for part in pairs(steps * BATCH))
    before = torch.cat([torch.full((len(target), 1), 2), target[:, :-1]], dim=1)
    mask = nn.Transformer.generate_square_subsequent_mask(STEPS)
    report("ready", sum(p.numel() for p in model.parameters() if p.requires_grad))
    for number, _ in enumerate(blocks(), 1):
        order = torch.randperm(len(source))
        began = time.perf_counter()
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            logits = model(source[rows], before[rows], mask)
            loss = functional.cross_entropy(
                logits.flatten(0, 1), target[rows].flatten(), label_smoothing=SMOOTHING
            )
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        report(time.perf_counter() - began)
        if number == rounds:
            break


def main() -> None:
    """Trains both in turns, or is one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--steps", type=int, default=20, help="of a block")
    parser.add_argument("--rounds", type=int, default=6, help="blocks, the first does not count")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results/translation_training.md"
    )
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side == "torch":
        train_torch(options.steps, options.rounds)
        return
    if options.side:
        train_keras(options.steps, options.rounds, options.side == "compiled")
        return
    numbers = ["--steps", str(options.steps), "--rounds", str(options.rounds)]
    kinds = {
        "keras_seq": ("plain", sys.executable),
        "keras_seq, `--jit-compile`": ("compiled", sys.executable),
        "PyTorch": ("torch", options.torch),
    }
    sides = {
        name: Side(name, [python, __file__, *numbers, "--side", side])
        for name, (side, python) in kinds.items()
    }
    seconds = in_turns(sides, options.rounds)
    per_block = options.steps * BATCH * STEPS
    rates = {name: per_block / taken for name, taken in seconds.items()}
    lines = [
        f"# Training a Transformer of {DEPTH} + {DEPTH} layers, width {WIDTH}, float32",
        "",
        f"{os.cpu_count()} cores, Python {platform.python_version()}; batches of {BATCH} pairs of "
        f"{STEPS} tokens, vocabulary {VOCABULARY:,}; {options.rounds - 1} blocks of "
        f"{options.steps} steps in turns, medians.",
        "",
        "| | parameters | target tokens a second | against PyTorch |",
        "|---|---|---|---|",
        *(
            f"| {name} | {int(side.about[1]):,} | {rates[name]:,.0f} | "
            f"{rates[name] / rates['PyTorch']:.2f} |"
            for name, side in sides.items()
        ),
        "",
        f"Wanted: at least {WANTED} times PyTorch.",
        "",
    ]
    conclude(lines, options.out, max(rates.values()) >= WANTED * rates["PyTorch"])


if __name__ == "__main__":
    main()
