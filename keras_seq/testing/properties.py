"""The properties that every model must have, whatever it is made of."""

from __future__ import annotations

import importlib
import json
import tempfile
from functools import partial
from pathlib import Path

import keras
import numpy as np

from keras_seq.testing.report import Checks, all_close, close, require
from keras_seq.testing.subject import (
    Subject,
    by_name,
    outputs_in_fresh_process,
    run_model,
    to_arrays,
)


def common_checks(subject: Subject, fresh_process: bool, export: bool) -> Checks:
    """Returns the checks that apply to any subject, chosen by what it promises."""
    found: Checks = {
        "save": partial(_save, subject),
        "eager_equals_graph": partial(_graph, subject),
        "rows": partial(_rows, subject),
        "gradients": partial(_gradients, subject),
    }
    if fresh_process:
        found["fresh_process"] = partial(_fresh_process, subject)
    if subject.masked:
        found["mask_values"] = partial(_mask_values, subject)
        if not subject.fixed_length:
            found["mask_padding"] = partial(_mask_padding, subject)
    if subject.causal:
        found["causal"] = partial(_causal, subject)
        if not subject.fixed_length:
            found["prefixes"] = partial(_prefixes, subject)
    return found | (export_checks(subject) if export else {})


def precision_checks(subject: Subject) -> Checks:
    """Returns the checks of what can be built again under another dtype policy."""
    return {
        policy: partial(_mixed, subject, policy) for policy in ("mixed_float16", "mixed_bfloat16")
    }


def export_checks(subject: Subject) -> Checks:
    """Returns the checks of what is deployed."""
    return {
        "saved_model": partial(_export, subject, "saved_model"),
        "litert": partial(_export, subject, "litert"),
    }


def model_config(subject: Subject) -> None:
    """Checks that the configuration alone gives the same model again, but for the weights."""
    model = subject.model
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    again = keras.saving.deserialize_keras_object(config)
    shapes = [tuple(w.shape) for w in model.weights]
    require(
        [tuple(w.shape) for w in again.weights] == shapes,
        f"the weights have other shapes after from_config(get_config()): {shapes} become "
        f"{[tuple(w.shape) for w in again.weights]}",
    )
    again.set_weights(model.get_weights())
    all_close(run_model(again, subject.samples), subject.outputs, 1e-6, "after a config round trip")


def _save(subject: Subject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        subject.model.save(path)
        again = keras.saving.load_model(path)
    all_close(run_model(again, subject.samples), subject.outputs, 1e-6, "after save and load")


def _fresh_process(subject: Subject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subject.model.save(Path(folder) / "model.keras")
        np.savez(Path(folder) / "model.npz", **subject.samples)  # type: ignore[arg-type]
        found = outputs_in_fresh_process(folder, modules=subject.modules)
    all_close(found["model"], subject.outputs, 1e-5, "loaded in a fresh process")


def _graph(subject: Subject) -> None:
    import tensorflow as tf

    graph = tf.function(lambda x: subject.model(x, training=False))
    inputs = {k: tf.convert_to_tensor(v) for k, v in subject.samples.items()}
    eager = subject.outputs
    all_close(to_arrays(graph(inputs)), eager, 1e-5, "tf.function and eager")


def _rows(subject: Subject) -> None:
    """A row's output must not depend on the rows that happen to be in the same batch."""
    first = subject.run({name: x[:1] for name, x in subject.samples.items()})
    wanted = {name: y[:1] for name, y in subject.outputs.items()}
    all_close(first, wanted, 1e-5, "a row alone and in a batch")


def _gradients(subject: Subject) -> None:
    import tensorflow as tf

    model = subject.model
    inputs = {k: tf.convert_to_tensor(v) for k, v in subject.samples.items()}
    generator = np.random.default_rng(2)
    with tf.GradientTape() as tape:
        loss = 0.0
        for y in by_name(model(inputs, training=True)).values():
            if y.dtype.is_floating:
                weights = generator.normal(size=y.shape).astype("float32")
                loss += tf.reduce_sum(tf.cast(y, "float32") * weights)
    variables = model.trainable_variables
    if not variables:
        return
    gradients = tape.gradient(loss, [v.value for v in variables])
    dead = [v.path for v, g in zip(variables, gradients, strict=True) if g is None]
    require(not dead, f"no gradient reaches {dead}")
    wild = [
        v.path
        for v, g in zip(variables, gradients, strict=True)
        if not np.all(np.isfinite(tf.convert_to_tensor(g).numpy()))
    ]
    require(not wild, f"the gradient is not finite at {wild}")


def _mixed(subject: Subject, policy: str) -> None:
    model = subject.make(policy)
    lower = [
        v.path
        for v in model.trainable_variables
        if keras.backend.standardize_dtype(v.dtype) != "float32"
    ]
    require(not lower, f"under {policy} weights must stay float32: {lower}")
    require(
        len(model.weights) == len(subject.model.weights),
        f"under {policy} it has {len(model.weights)} weights, else {len(subject.model.weights)}",
    )
    model.set_weights(subject.model.get_weights())
    for name, y in run_model(model, subject.samples).items():
        require(np.all(np.isfinite(y.astype("float32"))), f"{policy}: {name} is not finite")
        close(y.astype("float32"), subject.outputs[name], 5e-2, f"{policy} and float32, {name}")


def _mask_values(subject: Subject) -> None:
    mask = subject.samples[str(subject.masked)].astype(bool)
    require(not mask.all(), "the mask given hides nothing: give one with some False")
    disturbed = subject.run(subject.disturbed(~mask))
    for name, before in subject.outputs.items():
        for row in range(len(mask)):
            if not mask[row].any():
                continue
            keep = np.flatnonzero(mask[row])
            got, wanted = (subject.cut(y[row], keep) for y in (disturbed[name], before))
            close(got, wanted, 1e-5, f"other values under the mask change {name}, row {row}")


def _mask_padding(subject: Subject) -> None:
    """Padding changes nothing: the first n steps alone equal them with padding behind."""
    name, steps = str(subject.masked), subject.steps
    for n in sorted({max(2, steps // 3), steps - 1}):
        keep = np.arange(n)
        short = {
            key: x[:, :n] if x.ndim > 1 and x.shape[1] == steps else x
            for key, x in subject.samples.items()
        }
        short[name] = np.ones_like(short[name])
        behind = np.broadcast_to(np.arange(steps) >= n, subject.samples[name].shape)
        padded = subject.disturbed(behind)
        padded[name] = ~behind
        alone, together = subject.run(short), subject.run(padded)
        for key, wanted in alone.items():
            for row in range(len(wanted)):
                got = subject.cut(together[key][row], keep)
                close(got, wanted[row], 1e-5, f"padding from {n} to {steps} steps changes {key}")


def _causal(subject: Subject) -> None:
    batch = len(next(iter(subject.samples.values())))
    # Without the mask's help: every step is real.
    samples = dict(subject.samples)
    if subject.masked:
        samples[subject.masked] = np.ones_like(samples[subject.masked])
    before = subject.run(samples)
    for t in sorted({1, subject.steps // 2, subject.steps - 1}):
        later = np.broadcast_to(np.arange(subject.steps) >= t, (batch, subject.steps))
        changed = {**subject.disturbed(later)}
        if subject.masked:
            changed[subject.masked] = samples[subject.masked]
        after, keep, moved = subject.run(changed), np.arange(t), False
        for name, wanted in before.items():
            require(
                subject.steps in wanted.shape[1:], f"{name} has no time axis of {subject.steps}"
            )
            moved = moved or not np.allclose(after[name], wanted)
            for row in range(batch):
                got = subject.cut(after[name][row], keep)
                expected = subject.cut(wanted[row], keep)
                close(got, expected, 1e-5, f"a change from step {t} on changes {name} before it")
        require(moved, f"a change from step {t} on changes nothing at all: is the input used?")


def _prefixes(subject: Subject) -> None:
    """Fed with the first n steps only, it gives the first n outputs: what streaming rests on."""
    samples = {k: x for k, x in subject.samples.items() if k != subject.masked}
    whole_mask, steps = {}, subject.steps
    if subject.masked:
        whole_mask = {subject.masked: np.ones_like(subject.samples[subject.masked])}
    whole = subject.run({**samples, **whole_mask})
    for n in sorted({2, max(2, steps // 2)}):  # Keras warns of a softmax over a single step
        part = {
            k: x[:, :n] if x.ndim > 1 and x.shape[1] == steps else x
            for k, x in {**samples, **whole_mask}.items()
        }
        for name, got in subject.run(part).items():
            for row in range(len(got)):
                wanted = subject.cut(whole[name][row], np.arange(n))
                close(got[row], wanted, 1e-5, f"{name} of the first {n} steps alone")


def _export(subject: Subject, fmt: str) -> None:
    """Exports through `keras_seq.export`, which compares and raises where they differ."""
    export = importlib.import_module("keras_seq.export").export
    with tempfile.TemporaryDirectory() as folder:
        export(subject.model, Path(folder) / "export", formats=(fmt,), samples=subject.samples)
