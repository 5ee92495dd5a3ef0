"""The checks of an architecture on token ids: embedded, or read as they are, with a label head."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_seq.heads import Label, Tokens
from keras_seq.models import build
from keras_seq.testing.properties import (
    common_checks,
    export_checks,
    model_config,
    precision_checks,
)
from keras_seq.testing.report import Checks, all_close, require
from keras_seq.testing.subject import Subject, dtype_policy, run_model

VOCABULARY, CLASSES, MARKS = 40, 3, 5  # ids 5, 6 and 7 are the marks of the three classes


def token_checks(
    architecture: Any,
    options: dict[str, Any],
    *,
    steps: int = 24,
    modules: tuple[str, ...] = (),
    fresh_process: bool = True,
    export: bool = True,
) -> Checks:
    """Returns the checks of an architecture as a classifier of token sequences.

    Args:
        architecture: As in `keras_seq.testing.check_architecture`.
        options: Its options.
        steps: Tokens of a sequence.
        modules: What a fresh process imports.
        fresh_process: Whether to load the saved model in a new Python process too.
        export: Whether to export to SavedModel and LiteRT and compare.

    Returns:
        Functions without arguments that raise `CheckFailure`.

    Example:
        >>> sorted(token_checks("gru", {"width": 8}, export=False))[:3]
        ['config', 'eager_equals_graph', 'fresh_process']
    """
    plain = partial(_classifier, architecture, options)

    def make(policy: str | None) -> keras.Model:
        with dtype_policy(policy):
            model = plain()
        _adapt(model, *_marked(64, steps, seed=5))
        _disturb(model)
        return model

    tokens = _marked(4, steps, seed=0)[0]
    for row, length in enumerate((steps, steps - 7, 9, 1)):
        tokens[row, length:] = 0
    subject = Subject(
        make=make,
        samples={"tokens": tokens},
        steps=steps,
        fixed_length=False,
        modules=modules,
    )
    found: Checks = {
        "logits": partial(_logits, subject),
        "config": partial(model_config, subject),
        "padding": partial(_padding, subject),
        **common_checks(subject, fresh_process, export=False),
        **precision_checks(subject),
        "learns": partial(_learns, plain, steps),
    }
    if _adapted(plain()):
        found["adapt"] = partial(_adapt_survives, plain, steps)
    return found | (export_checks(subject) if export else {})


def _classifier(architecture: Any, options: dict[str, Any], **more: Any) -> keras.Model:
    head = Label(classes=CLASSES, tokens=Tokens(VOCABULARY, width=8))
    return build(architecture, inputs={"tokens": (None,)}, head=head, **{**options, **more})


def _marked(count: int, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens among which those that mark the class stand a few times."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(MARKS + CLASSES, VOCABULARY, size=(count, steps)).astype("int32")
    labels = generator.integers(0, CLASSES, size=count).astype("int32")
    tokens[:, 0] = MARKS + labels
    tokens[:, steps // 4 :: steps // 4] = (MARKS + labels)[:, None]
    return tokens, labels


def _adapted(model: keras.Model) -> list[Any]:
    return [layer for layer in model.layers if hasattr(layer, "adapt")]


def _adapt(model: keras.Model, tokens: np.ndarray, labels: np.ndarray) -> None:
    for layer in _adapted(model):
        layer.adapt(zip(tokens, labels.tolist(), strict=True))


def _logits(subject: Subject) -> None:
    shapes = {name: y.shape for name, y in subject.outputs.items()}
    wanted = {"logits": (len(subject.samples["tokens"]), CLASSES)}
    require(shapes == wanted, f"the outputs are {shapes}, the label head says {wanted}")


def _padding(subject: Subject) -> None:
    """More padding behind changes nothing, and a text with one token is enough."""
    tokens = subject.samples["tokens"]
    longer = subject.run({"tokens": np.pad(tokens, [(0, 0), (0, 9)])})
    all_close(longer, subject.outputs, 1e-5, "nine steps of padding more")
    for row in tokens:
        alone = subject.run({"tokens": row[None, : np.count_nonzero(row)]})
        padded = subject.run({"tokens": row[None]})
        all_close(alone, padded, 1e-5, f"{np.count_nonzero(row)} tokens alone and padded")


def _adapt_survives(plain: Callable[..., keras.Model], steps: int) -> None:
    """What `adapt` finds has an effect, does not depend on the order, and is saved."""
    tokens, labels = _marked(64, steps, seed=6)
    sample = {"tokens": tokens[:4]}
    model, twin = plain(), plain()
    _disturb(model)
    twin.set_weights(model.get_weights())
    weights, before = model.get_weights(), run_model(model, sample)
    _adapt(model, tokens, labels)
    _adapt(twin, tokens[::-1], labels[::-1])
    after = run_model(model, sample)
    all_close(run_model(twin, sample), after, 1e-6, "adapted to the texts in another order")
    kept = all(map(np.array_equal, weights, model.get_weights()))
    same = all(np.allclose(after[name], before[name]) for name in after)
    require(kept or not same, "adapt changes weights that have no effect")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        again = keras.saving.load_model(path)
    all_close(run_model(again, sample), after, 1e-6, "adapted, saved and loaded")


def _disturb(model: keras.Model) -> None:
    """Weights that start at zero would hide what is wrong."""
    generator = np.random.default_rng(4)
    for variable in model.trainable_variables:
        variable.assign_add(generator.normal(0, 0.05, variable.shape).astype("float32"))


def _learns(make: Callable[..., keras.Model], steps: int) -> None:
    """Trained for a moment on marked texts, it must be clearly better than at the start."""
    keras.utils.set_random_seed(0)
    tokens, labels = _marked(96, steps, seed=3)
    model = make()
    _adapt(model, tokens, labels)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss={"logits": loss})
    model.optimizer.build(model.trainable_variables)  # or the step is traced twice

    def value() -> float:
        logits = run_model(model, {"tokens": tokens})["logits"]
        return float(loss(labels, logits))

    before = value()
    model.fit({"tokens": tokens}, {"logits": labels}, epochs=12, batch_size=32, verbose=0)
    after = value()
    require(after < 0.6 * before, f"36 steps bring the loss from {before:.4f} to {after:.4f} only")
