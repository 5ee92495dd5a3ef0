"""The checks of an encoder-decoder: on pairs of token ids, with the head of translation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_seq.decoding import search_model
from keras_seq.errors import UserError
from keras_seq.heads import Tokens, Translation
from keras_seq.losses import MaskedCrossentropy
from keras_seq.models import build
from keras_seq.testing.properties import (
    common_checks,
    export_checks,
    model_config,
    precision_checks,
)
from keras_seq.testing.report import CheckFailure, Checks, all_close, close, require
from keras_seq.testing.subject import Subject, dtype_policy, run_model

VOCABULARY, START, END = 20, 2, 3
SOURCE_STEPS = 9


def pair_checks(
    architecture: Any,
    options: dict[str, Any],
    *,
    steps: int = 24,
    modules: tuple[str, ...] = (),
    aligned: bool = False,
    fresh_process: bool = True,
    export: bool = True,
) -> Checks:
    """Returns the checks of an architecture as a translator of token sequences.

    Args:
        architecture: As in `keras_seq.testing.check_architecture`; an encoder-decoder.
        options: Its options.
        steps: Tokens of a target; other than 9, those of a source.
        modules: What a fresh process imports.
        aligned: Whether it promises to return its attention.
        fresh_process: Whether to load the saved model in a new Python process too.
        export: Whether to export to SavedModel and LiteRT and compare.

    Returns:
        Functions without arguments that raise `CheckFailure`.

    Example:
        >>> checks = pair_checks("seq2seq", {"width": 8}, export=False)
        >>> "steps" in checks and "causal" in checks
        True
    """
    plain = partial(_translator, architecture, options)

    def make(policy: str | None) -> keras.Model:
        with dtype_policy(policy):
            model = plain()
        generator = np.random.default_rng(4)
        for variable in model.trainable_variables:
            variable.assign_add(generator.normal(0, 0.05, variable.shape).astype("float32"))
        return model

    generator = np.random.default_rng(0)
    source = generator.integers(5, VOCABULARY, size=(4, SOURCE_STEPS)).astype("int32")
    for row, length in enumerate((SOURCE_STEPS, 6, 3, 1)):
        source[row, length:] = 0
    tokens = generator.integers(5, VOCABULARY, size=(4, steps)).astype("int32")
    tokens[:, 0] = START
    subject = Subject(
        make=make,
        samples={"source": source, "tokens": tokens},
        steps=steps,
        causal=True,
        fixed_length=False,
        modules=modules,
    )
    found: Checks = {
        "logits": partial(_logits, subject),
        "config": partial(model_config, subject),
        "padding": partial(_padding, subject),
        "reads_source": partial(_reads_source, subject),
        "steps": partial(_steps, subject),
        **common_checks(subject, fresh_process, export=False),
        **precision_checks(subject),
        "learns": partial(_learns, plain),
    }
    if aligned:
        found["attention"] = partial(_alignment, subject)
    return found | (export_checks(subject) if export else {})


def _translator(architecture: Any, options: dict[str, Any], **more: Any) -> keras.Model:
    tokens = Tokens(VOCABULARY, width=8)
    inputs = {"source": (None,), "tokens": (None,)}
    head = Translation(tokens, tokens, shared="all")
    return build(architecture, inputs=inputs, head=head, **{**options, **more})


def _logits(subject: Subject) -> None:
    shapes = {name: y.shape for name, y in subject.outputs.items()}
    wanted = {"logits": (len(subject.samples["tokens"]), subject.steps, VOCABULARY)}
    require(shapes == wanted, f"the outputs are {shapes}, the head says {wanted}")


def _padding(subject: Subject) -> None:
    """More padding behind a source changes nothing, nor do its neighbours in the batch."""
    source, tokens = subject.samples["source"], subject.samples["tokens"]
    longer = subject.run({"source": np.pad(source, [(0, 0), (0, 5)]), "tokens": tokens})
    all_close(longer, subject.outputs, 1e-5, "five steps of padding more")
    for row, target in zip(source, tokens, strict=True):
        count = np.count_nonzero(row)
        alone = subject.run({"source": row[None, :count], "tokens": target[None]})
        padded = subject.run({"source": row[None], "tokens": target[None]})
        all_close(alone, padded, 1e-5, f"{count} source tokens alone and padded")


def _reads_source(subject: Subject) -> None:
    """Another source gives another translation: every token of it is seen."""
    for place in range(SOURCE_STEPS):
        other = subject.samples["source"][:1].copy()
        other[0, place] = 5 if other[0, place] != 5 else 6
        tokens = subject.samples["tokens"][:1]
        changed = subject.run({"source": other, "tokens": tokens})["logits"]
        far = float(np.abs(changed - subject.outputs["logits"][:1]).max())
        require(far > 1e-7, f"source token {place} changes nothing")


def _steps(subject: Subject) -> None:
    """One step after another, of one hypothesis or several, gives the whole."""
    for count in (1, 3):
        try:
            search_model(subject.model, hypotheses=count, length=6)  # compares them itself
        except UserError as error:
            raise CheckFailure(f"with {count} hypotheses: {error}") from None


def _alignment(subject: Subject) -> None:
    model = subject.model
    layers = [found for found in model.layers if found.name.startswith("alignment")]
    require(layers, "tagged returns_attention, but no layer's name starts with 'alignment'")
    real = subject.samples["source"] > 0
    for layer in layers:
        found = keras.Model(model.input, layer.output)
        outputs = found(
            {k: keras.ops.convert_to_tensor(v) for k, v in subject.samples.items()}, training=False
        )
        require(
            isinstance(outputs, list | tuple) and len(outputs) == 2,
            f"the layer {layer.name} must return (output, weights)",
        )
        weights = keras.ops.convert_to_numpy(outputs[1])
        weights = weights if weights.ndim == 4 else weights[:, None]  # (B, heads, T, S)
        require(
            weights.shape[2:] == (subject.steps, SOURCE_STEPS),
            f"{layer.name}: weights of {weights.shape}, not target by source",
        )
        require(weights.min() >= 0, f"{layer.name}: weights below 0")
        close(weights.sum(-1), np.ones_like(weights[..., 0]), 1e-4, f"sums of {layer.name}")
        padding = np.broadcast_to(~real[:, None, None], weights.shape)
        require(not weights[padding].any(), f"{layer.name}: padding gets weight")


def _learns(make: Callable[..., keras.Model]) -> None:
    """Trained for a moment to tell the first token, it must be clearly better than at the start."""
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(3)
    source = generator.integers(5, 9, size=(96, 5)).astype("int32")
    target = np.repeat(source[:, :1], 4, axis=1)
    fed = np.concatenate([np.full((96, 1), START, "int32"), target[:, :-1]], axis=1)
    x = {"source": source, "tokens": fed}
    model, loss = make(), MaskedCrossentropy()
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss={"logits": loss})
    model.optimizer.build(model.trainable_variables)  # or the step is traced twice

    def value() -> float:
        return float(loss(target + 1, run_model(model, x)["logits"]))

    before = value()
    model.fit(x, {"logits": target + 1}, epochs=12, batch_size=32, verbose=0)
    after = value()
    require(after < 0.6 * before, f"36 steps bring the loss from {before:.4f} to {after:.4f} only")
