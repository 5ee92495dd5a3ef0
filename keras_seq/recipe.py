"""What decides what a comparison computes: a recipe, and who takes part in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import tomlkit

from keras_seq.errors import UserError
from keras_seq.registry import PluginError, architectures, tasks

# Of --learning-rate, tried in this order: itself first, then around it.
FACTORS = (1.0, 0.3, 3.0, 0.1, 10.0)
_COUNTS = (
    "epochs",
    "seeds",
    "learning_rates",
    "batch_size",
    "accumulate",
    "steps_per_epoch",
    "monitor_examples",
)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a comparison computes.

    Args:
        task: The task's name.
        options: The task's options by name.
        architectures: Names, in the order of training.
        overrides: Options of single architectures: ``{"lstm": {"depth": 2}}``.
        parameters: The budget that widths are solved for; 0 keeps each architecture's default.
        epochs: The most epochs of a training.
        minutes: The most minutes of all trainings together; 0 is no limit.
        seeds: How many seeds: 0, 1, ...
        learning_rate: The highest of a training.
        learning_rates: How many learning rates, around that one, are tried for each architecture.
        schedule: How the learning rate goes on after its warm-up: ``cosine``, ``inverse_sqrt`` or
            ``constant``.
        warmup_steps: Updates in which the learning rate climbs; 0 is a twentieth of them all.
        batch_size: Examples in a batch.
        accumulate: Batches whose gradients are averaged for one update.
        steps_per_epoch: The most steps (batches) of an epoch; it is one pass over the data, and
            100 steps at least.
        patience: Epochs without a better validation loss before a training ends.
        monitor: What patience, the best epoch and the best learning rate go by: ``loss``, or a
            score that the task offers, such as ``bleu`` or ``accuracy``.
        monitor_examples: The most validation examples for such a score.
        averaging: Momentum of the moving average of the weights that is validated and kept.
        average_last: The mean of the weights of so many last epochs is validated and kept, in
            place of the moving average; 0: off. See `keras_seq.training.fit`.
        ensemble: Whether the average of the best networks is a row.
        deterministic: Whether TensorFlow's deterministic kernels are forced.
        jit_compile: Whether XLA compiles the training step.
    """

    task: str
    options: Mapping[str, Any] = field(default_factory=dict)
    architectures: tuple[str, ...] = ()
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    parameters: int = 0
    epochs: int = 10
    minutes: float = 0.0
    seeds: int = 1
    learning_rate: float = 1e-3
    learning_rates: int = 1
    schedule: str = "cosine"
    warmup_steps: int = 0
    batch_size: int = 64
    accumulate: int = 1
    steps_per_epoch: int = 500
    patience: int = 5
    monitor: str = "loss"
    monitor_examples: int = 200
    averaging: float = 0.99
    average_last: int = 0
    ensemble: bool = True
    deterministic: bool = False
    jit_compile: bool = False

    def __post_init__(self) -> None:
        if not self.architectures:
            raise UserError("no architecture was named: give --architectures a,b,c or all")
        for name in _COUNTS:
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise UserError(f"--{flag} is {getattr(self, name)}: give at least 1")
        for name in ("parameters", "minutes", "warmup_steps", "average_last"):
            if getattr(self, name) < 0:
                flag = name.replace("_", "-")
                raise UserError(f"--{flag} is {getattr(self, name)}: give a positive number")
        from keras_seq.training import SCHEDULES

        if self.schedule not in SCHEDULES:
            raise UserError(
                f"--schedule is {self.schedule!r}: choose one of {', '.join(SCHEDULES)}"
            )
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"--learning-rate is {self.learning_rate}: give a number above 0")
        if not 0 <= self.averaging < 1:
            raise UserError(f"--averaging is {self.averaging}: give 0 (none) to 0.999")
        if self.learning_rates > len(FACTORS):
            most = len(FACTORS)
            raise UserError(f"--learning-rates is {self.learning_rates}: give at most {most}")

    def to_toml(self, **more: Any) -> str:
        """Writes the recipe as TOML; `read_recipe` reads it.

        Args:
            **more: Tables that stand behind it (versions, checksums); they are not read.
        """
        document = tomlkit.document()
        document.add(tomlkit.comment("keras-seq compare TASK --recipe FILE makes this again"))
        for key, value in plain(asdict(self)).items():
            document[key] = value
        for key, value in plain(more).items():
            document[key] = value
        return tomlkit.dumps(document)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Reads a recipe file.

    Args:
        path: A TOML file with the fields of `Recipe`; the options of the task stand in a table
            ``[options]``, those of single architectures in ``[overrides.NAME]``.

    Returns:
        The fields that it sets.

    Raises:
        UserError: If it is missing, is no TOML, or sets something unknown.
    """
    try:
        found = tomlkit.parse(Path(path).read_text(encoding="utf-8")).unwrap()
    except FileNotFoundError as error:
        raise UserError(f"no recipe file {path}") from error
    except (ValueError, OSError) as error:
        raise UserError(f"the recipe {path} cannot be read: {error}") from error
    found.pop("made_with", None)
    known = {f.name for f in fields(Recipe)}
    if unknown := sorted(set(found) - known):
        raise UserError(
            f"the recipe {path} sets {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    if "architectures" in found:
        found["architectures"] = tuple(found["architectures"])
    return found


def refusal(task: Any, architecture: Any) -> str:
    """Says why an architecture cannot be trained under a task; "" if it can.

    Args:
        task: The task, with its options; None takes all.
        architecture: The architecture, with its options.

    Example:
        >>> from keras_seq.models import resolve
        >>> refusal(make_task("forecasting", {"data": "builtin:co2"}), resolve("seq2seq"))
        'it is an encoder-decoder: it turns one sequence into another'
    """
    if task is None:
        return ""
    if architecture.encoder_decoder and not getattr(task, "pairs", False):
        return "it is an encoder-decoder: it turns one sequence into another"
    return str(task.accepts(architecture)) if hasattr(task, "accepts") else ""


def make_task(name: str, options: Mapping[str, Any]) -> Any:
    """Returns a task with its options; no data is read yet.

    Args:
        name: The task's name.
        options: Its options by name.

    Raises:
        UserError: If the name or an option is unknown, or a value is out of range.
    """
    task = tasks.get(name)
    known = task.options()
    if unknown := sorted(set(options) - set(known)):
        raise UserError(
            f"the task {name} has no option {', '.join(unknown)}; it has {', '.join(known)}"
        )
    return task(**options)


def with_defaults(task: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Adds what a task's recipe sets by itself to what a user set.

    Args:
        task: The task's name.
        given: Fields of `Recipe`.

    Returns:
        Fields of `Recipe`; the user's win.
    """
    return {**getattr(tasks.get(task), "defaults", {}), **given}


def expand(
    names: str | Sequence[str],
    task: Any = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[str, ...]:
    """Returns the architectures that a word or a list stands for.

    Args:
        names: ``"all"``, ``"lstm,gru"``, or a sequence of names.
        task: The task, with its options, that they are to be trained under; ``"all"`` are those
            that it accepts.
        overrides: Options of single architectures, which may change what a task accepts.

    Raises:
        UserError: If a name is unknown, stands twice, cannot be imported, or is not for the task.
            Among ``"all"`` the plugins that cannot be imported become failed rows instead.

    Example:
        >>> expand("lstm,gru")
        ('lstm', 'gru')
    """
    from keras_seq.models import resolve

    listed = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
    every = listed == ["all"]
    if every:
        listed = list(architectures.names())
    for name in listed:
        if ":" not in name and name not in architectures:
            architectures.get(name)  # raises, with the nearest name
        if listed.count(name) > 1:
            raise UserError(f"the architecture {name!r} stands twice in {', '.join(listed)}")
    chosen = []
    for name in listed:
        try:
            bound = resolve(name, **(overrides or {}).get(name, {}))
        except PluginError:
            if not every:
                raise  # a plugin that was asked for by name must load
            chosen.append(name)  # a row says that it cannot be loaded
            continue
        except TypeError as error:
            raise UserError(str(error)) from error
        why = refusal(task, bound)
        if why and not every:
            raise UserError(f"{name} cannot be trained under {task.name}: {why}")
        if not why:
            chosen.append(name)
    if not chosen:
        raise UserError(f"no architecture is for the task {getattr(task, 'name', '')}")
    return tuple(chosen)


def plain(value: Any) -> Any:
    """Turns tuples to lists and paths to strings and drops every None: what TOML can hold.

    Args:
        value: A value, lists and tables of them too.

    Example:
        >>> plain({"a": (1, 2), "b": None})
        {'a': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
