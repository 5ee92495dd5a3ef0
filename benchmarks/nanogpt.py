"""Milliseconds a training step and loss: our gpt beside its twin in PyTorch, on Tiny Shakespeare.

    python benchmarks/nanogpt.py --data ../shared/data/lm/tinyshakespeare.txt --torch PYTHON

PYTHON is an interpreter that has torch (and NumPy); it may be one of another environment. The
budget is the one that nanoGPT publishes for a CPU: 4 layers, 4 heads, width 128, context 64,
2,000 steps of 12 windows, no dropout; its validation loss is 1.88 there. The two train in turns, a
block of steps each, so that a shared machine drifts for both; the medians over the blocks count.
Data, gradient clipping, optimizer and, on our side, callbacks and the average of the weights are
within the time. Our gpt is compiled by XLA, as by ``--jit-compile``; that is in its first block,
whose time is told apart. The loss is over the whole last tenth of the text, in windows of 64 side
by side.

Writes benchmarks/results/nanogpt.md.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from sides import Side, blocks, conclude, keras_turns, report

LAYERS, HEADS, WIDTH, CONTEXT, BATCH = 4, 4, 128, 64, 12
WANTED_LOSS, WANTED_RATIO = 1.85, 1.0


# ---- ours ---------------------------------------------------------------------------------------


def train_keras(data: str, steps: int, rounds: int, architecture: str) -> None:
    """Trains by `fit`, a block of steps whenever it is told to."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from keras_seq.tasks.language_model import LanguageModel
    from keras_seq.training import fit

    problem = LanguageModel(data=data, context=CONTEXT, tokenizer="characters").prepare()
    keras.utils.set_random_seed(0)
    shape = {"width": WIDTH, "depth": LAYERS, "heads": HEADS}
    if architecture != "gpt":
        shape = {"width": WIDTH, "depth": 2}
    model = problem.build(architecture, **shape)
    report("ready", model.count_params())
    fit(
        model,
        problem.data("train", model),
        epochs=rounds,
        steps_per_epoch=steps,
        batch_size=BATCH,
        learning_rate=1e-3 if architecture == "gpt" else 3e-3,
        averaging=0.99,
        patience=None,
        jit_compile=architecture == "gpt",
        callbacks=[keras_turns(steps)],
        **problem.training(),
    )
    report(problem.scores(problem.predict(model), "validation")["cross_entropy"])


# ---- the twin -----------------------------------------------------------------------------------


def train_torch(data: str, steps: int, rounds: int) -> None:
    """Trains the same shape with nanoGPT's settings: learned positions, betas 0.9 and 0.99."""
    import torch
    from torch import nn
    from torch.nn import functional

    text = Path(data).read_text(encoding="utf-8")
    letters = {letter: i for i, letter in enumerate(sorted(set(text)))}
    ids = torch.tensor([letters[letter] for letter in text])
    cut = int(0.9 * len(ids))
    train, held_out = ids[:cut], ids[cut:]

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.three = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
            self.mix = nn.Linear(WIDTH, WIDTH, bias=False)
            self.expand = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
            self.contract = nn.Linear(4 * WIDTH, WIDTH, bias=False)

        def forward(self, x: Any) -> Any:
            b, t, _ = x.shape
            parts = self.three(self.first(x)).view(b, t, 3, HEADS, WIDTH // HEADS)
            q, k, v = parts.permute(2, 0, 3, 1, 4)
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.mix(y.transpose(1, 2).reshape(b, t, WIDTH))
            return x + self.contract(functional.gelu(self.expand(self.second(x))))

    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(len(letters), WIDTH)
            self.positions = nn.Embedding(CONTEXT, WIDTH)
            self.blocks = nn.Sequential(*[Block() for _ in range(LAYERS)])
            self.norm = nn.LayerNorm(WIDTH)
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=0.02)

        def forward(self, x: Any, y: Any) -> Any:
            h = self.tokens(x) + self.positions.weight[: x.shape[1]]
            logits = self.norm(self.blocks(h)) @ self.tokens.weight.T  # tied
            return functional.cross_entropy(logits.flatten(0, 1), y.flatten())

    torch.manual_seed(0)
    model = Twin()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    total = steps * rounds
    warm = max(1, total // 20)
    places = torch.arange(CONTEXT)
    report("ready", sum(p.numel() for p in model.parameters()))
    step = 0
    for _ in blocks():
        began = time.perf_counter()
        for _ in range(steps):
            done = max(0, step - warm) / max(1, total - warm)
            rate = 1e-4 + 0.5 * (1 + math.cos(math.pi * done)) * 9e-4
            optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / warm)
            starts = torch.randint(len(train) - CONTEXT, (BATCH, 1))
            loss = model(train[starts + places], train[starts + places + 1])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
        report(time.perf_counter() - began)
        if step == total:
            break
    with torch.no_grad():
        rows = (len(held_out) - 1) // CONTEXT
        x = held_out[: rows * CONTEXT].view(rows, CONTEXT)
        y = held_out[1 : rows * CONTEXT + 1].view(rows, CONTEXT)
        losses = [
            model(x[i : i + 64], y[i : i + 64]) * len(x[i : i + 64]) for i in range(0, rows, 64)
        ]
        report(float(sum(losses)) / rows)


# ---- side by side -------------------------------------------------------------------------------


def finish(side: Side, steps: int) -> tuple[float, float]:
    """Returns the median milliseconds of a step, the first block apart, and the loss."""
    loss = float(side.answer()[0])
    side.end()
    return 1000 * statistics.median(side.seconds[1:]) / steps, loss


def main() -> None:
    """Trains both in turns, or is one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="tinyshakespeare.txt")
    parser.add_argument("--torch", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--steps", type=int, default=100, help="of a block")
    parser.add_argument("--rounds", type=int, default=20, help="blocks")
    parser.add_argument("--recurrent", action="store_true", help="a 2-layer lstm as well")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/nanogpt.md")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = (options.data, options.steps, options.rounds)
    if options.side == "torch":
        train_torch(*shape)
        return
    if options.side:
        train_keras(*shape, options.side)
        return

    def start(name: str, python: str, side: str) -> Side:
        numbers = ["--steps", str(options.steps), "--rounds", str(options.rounds)]
        command = [python, __file__, "--data", options.data, "--side", side, *numbers]
        return Side(name, command)

    sides = [start("keras_seq gpt", sys.executable, "gpt")]
    sides.append(start("PyTorch twin", options.torch, "torch"))
    if options.recurrent:
        sides.append(start("keras_seq lstm, 2 layers", sys.executable, "lstm"))
    for _ in range(options.rounds):
        for side in sides:
            side.block()
    found = {side.name: (int(side.about[1]), *finish(side, options.steps)) for side in sides}
    ratio = found["keras_seq gpt"][1] / found["PyTorch twin"][1]
    pairs = zip(sides[0].seconds[1:], sides[1].seconds[1:], strict=True)
    each = np.sort([ours / theirs for ours, theirs in pairs])
    lines = [
        "# Tiny Shakespeare, characters: 2,000 steps of 12 windows of 64",
        "",
        f"{os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{options.steps * options.rounds:,} steps in blocks of {options.steps}, in turns.",
        "",
        "| | parameters | validation loss, nats | ms a step (median) |",
        "|---|---|---|---|",
        *(
            f"| {name} | {parameters:,} | {loss:.3f} | {milliseconds:.1f} |"
            for name, (parameters, milliseconds, loss) in found.items()
        ),
        "",
        f"Time a step against PyTorch: {ratio:.2f} (blocks: {each[0]:.2f} to {each[-1]:.2f}); "
        f"wanted: at most {WANTED_RATIO:.2f}. Loss wanted: at most {WANTED_LOSS}.",
        "",
        f"The first block, with the compiling by XLA: {sides[0].seconds[0]:.0f} s; PyTorch's: "
        f"{sides[1].seconds[0]:.0f} s.",
        "",
    ]
    good = ratio <= WANTED_RATIO and found["keras_seq gpt"][2] <= WANTED_LOSS
    conclude(lines, options.out, good)


if __name__ == "__main__":
    main()
