"""Many architectures, one recipe, one leaderboard.

Fair by construction: the same data, split, preprocessing, loss, budget and seeds for every
architecture, and the same number of learning rates tried, chosen on the validation part. Each
architecture is sized to the parameter budget by solving for its width. What is finished is on the
disk: a comparison that was stopped goes on with `resume`.
"""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import keras_seq
from keras_seq.callable_module import make_callable
from keras_seq.errors import UserError
from keras_seq.leaderboard import Leaderboard, Row
from keras_seq.progress import Progress
from keras_seq.recipe import (
    FACTORS,
    Recipe,
    expand,
    make_task,
    plain,
    read_recipe,
    with_defaults,
)
from keras_seq.registry import PluginError, exporters, trackers

RECIPE = "recipe.toml"
ENSEMBLE = "ensemble"


def compare(
    task: str,
    *,
    out: str | Path,
    architectures: str | Sequence[str] = "all",
    resume: bool = False,
    export: Sequence[str] = ("saved_model", "litert", "keras"),
    track: Sequence[str] = ("tensorboard",),
    quiet: bool = False,
    command: str | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    parameters: int | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    seeds: int | None = None,
    learning_rate: float | None = None,
    learning_rates: int | None = None,
    schedule: str | None = None,
    warmup_steps: int | None = None,
    batch_size: int | None = None,
    accumulate: int | None = None,
    steps_per_epoch: int | None = None,
    patience: int | None = None,
    monitor: str | None = None,
    monitor_examples: int | None = None,
    averaging: float | None = None,
    average_last: int | None = None,
    ensemble: bool | None = None,
    deterministic: bool | None = None,
    jit_compile: bool | None = None,
    **options: Any,
) -> Comparison:
    """Trains every architecture under one budget and writes the leaderboard.

    Args:
        task: A registered task: classification, forecasting, language_model, tagging.
        out: The folder of the comparison; new, or with `resume` one that was begun.
        architectures: Names, or ``"all"`` that the task accepts.
        resume: Goes on with what is in `out`.
        export: Formats of the winner's artifact; none exports nothing.
        track: Trackers of each run.
        quiet: Whether nothing is printed.
        command: What is written into the leaderboard as the command that made it.
        overrides: As in `Recipe`, likewise all that follow; None takes the task's default.
        parameters: The parameter budget.
        epochs: The most epochs.
        minutes: The most minutes.
        seeds: How many seeds.
        learning_rate: The highest learning rate.
        learning_rates: How many are tried around it.
        schedule: Of the learning rate.
        warmup_steps: Of the learning rate.
        batch_size: Examples in a batch.
        accumulate: Batches for one update.
        steps_per_epoch: The most steps of an epoch.
        patience: Of early stopping.
        monitor: What early stopping goes by.
        monitor_examples: How many it is measured on.
        averaging: Of the weights.
        average_last: Epochs whose weights are averaged.
        ensemble: Whether there is a row for the average.
        deterministic: Whether deterministic kernels are forced.
        jit_compile: Whether XLA compiles the training step.
        **options: The task's options, such as those of `keras_seq.tasks.forecasting.Forecasting`.

    Returns:
        The finished comparison: ``.leaderboard``, ``.winner``, ``.artifact``.

    Raises:
        UserError: If an option, the data or the folder is wrong; nothing has been written then.
    """
    given = {
        "parameters": parameters,
        "epochs": epochs,
        "minutes": minutes,
        "seeds": seeds,
        "learning_rate": learning_rate,
        "learning_rates": learning_rates,
        "schedule": schedule,
        "warmup_steps": warmup_steps,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "steps_per_epoch": steps_per_epoch,
        "patience": patience,
        "monitor": monitor,
        "monitor_examples": monitor_examples,
        "averaging": averaging,
        "average_last": average_last,
        "ensemble": ensemble,
        "deterministic": deterministic,
        "jit_compile": jit_compile,
    }
    made = make_task(task, options)
    recipe = Recipe(
        task=task,
        options=options,
        architectures=expand(architectures, made, overrides),
        overrides=overrides or {},
        **with_defaults(task, {k: v for k, v in given.items() if v is not None}),
    )
    return Comparison(
        recipe, out, resume=resume, export=export, track=track, quiet=quiet, command=command
    ).run()


@dataclass
class Run:
    """One finished training.

    Args:
        architecture: Its name.
        seed: Its seed.
        folder: Its run folder.
        record: What ``metrics.json`` says.
    """

    architecture: str
    seed: int
    folder: Path
    record: dict[str, Any]


class Comparison:
    """One comparison, in one folder.

    Args:
        recipe: What is compared, and how.
        out: The folder.
        resume: Whether the folder may hold a part of this comparison already.
        export: Formats of the winner's artifact; none exports nothing.
        track: Trackers of each run.
        quiet: Whether nothing is printed.
        command: The command that made it, for the leaderboard.

    Raises:
        UserError: If the data, the recipe or the folder is wrong; nothing has been written then.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: str | Path,
        *,
        resume: bool = False,
        export: Sequence[str] = (),
        track: Sequence[str] = ("tensorboard",),
        quiet: bool = False,
        command: str | None = None,
    ) -> None:
        self.recipe = recipe
        self.out = Path(out)
        self.formats = tuple(export)
        self.track = tuple(track)
        self.quiet = quiet
        task = make_task(recipe.task, recipe.options)
        self._check_folder(resume)
        for name in self.track:
            trackers.get(name)
        for name in self.formats:
            if name != "litert:all":
                exporters.get(name)
        self.problem = task.prepare()
        self._check_monitor()
        self._resolve()
        self.command = command or " ".join(
            ["keras-seq", *(word for word in sys.argv[1:] if word != "--resume")]
            if sys.argv[0].endswith(("keras-seq", "__main__.py"))
            else [f"keras_seq.compare({recipe.task!r}, ...), see {RECIPE}"]
        )
        self.leaderboard = Leaderboard(
            title=self.problem.title,
            task=recipe.task,
            primary=self.problem.primary,
            lower_is_better=self.problem.lower_is_better,
            reference=self.problem.reference,
            labels=self.problem.labels,
            metadata=self._metadata(),
        )
        self.predictions: dict[tuple[str, int], Any] = {}
        self.winner: str | None = None
        self.artifact: Path | None = None
        self.report: dict[str, Any] = {}

    # ---- before anything is trained -----------------------------------------------------------

    def _check_folder(self, resume: bool) -> None:
        path = self.out / RECIPE
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"{self.out} is a file: choose another --out")
        if not self.out.exists() or not any(self.out.iterdir()):
            return
        if not path.exists():
            raise UserError(
                f"{self.out} holds files that are no comparison of ours: choose another --out"
            )
        usual = {f.name: f.default for f in fields(Recipe) if f.default is not MISSING}
        ours, theirs = plain(asdict(self.recipe)), {**usual, **read_recipe(path)}
        theirs["architectures"] = list(theirs.get("architectures", ()))
        # More architectures and seeds may be added to a comparison; the rest must be as it was.
        differing = [
            key
            for key in ours
            if key not in ("architectures", "seeds") and ours[key] != theirs.get(key)
        ]
        if differing:
            raise UserError(
                f"{self.out} holds another comparison ({', '.join(differing)} differ): choose "
                "another --out, or give the same options"
            )
        if not resume:
            raise UserError(
                f"{self.out} holds this comparison already: give --resume to go on with it, or "
                "another --out"
            )

    def _check_monitor(self) -> None:
        scores = {"loss": True}
        if self.recipe.monitor != "loss":
            scores |= self.problem.monitors
        if self.recipe.monitor not in scores:
            raise UserError(
                f"--monitor is {self.recipe.monitor!r}: choose one of "
                f"{', '.join(['loss', *self.problem.monitors])}"
            )
        self.less_is_better = scores[self.recipe.monitor]

    def _resolve(self) -> None:
        """Finds every architecture and checks its options, before anything is trained."""
        from keras_seq.models import resolve

        self.broken: dict[str, str] = {}
        for name, options in self.recipe.overrides.items():
            if name not in self.recipe.architectures:
                raise UserError(
                    f"options are set for {name!r}, which is not among the architectures "
                    f"{', '.join(self.recipe.architectures)}"
                )
            try:
                resolve(name, **options)
            except TypeError as error:
                raise UserError(str(error)) from error
        for name in self.recipe.architectures:
            try:
                resolve(name)
            except PluginError as error:
                self.broken[name] = str(error)

    def _metadata(self) -> dict[str, Any]:
        recipe = self.recipe
        return {
            "command": self.command,
            **self.problem.describe(),
            "budget": {
                "parameters": recipe.parameters or "default width of each",
                "epochs": recipe.epochs,
                "minutes": recipe.minutes or "no limit",
                "learning rates tried": recipe.learning_rates,
                "patience": recipe.patience,
                **({} if recipe.monitor == "loss" else {"best epoch by": recipe.monitor}),
                **self._averaging(),
                "batch": self.problem.batches or recipe.batch_size,
                **({"batches an update": recipe.accumulate} if recipe.accumulate > 1 else {}),
                "schedule": recipe.schedule
                + (f", {recipe.warmup_steps:,} updates of warm-up" if recipe.warmup_steps else ""),
            },
            "seeds": list(range(recipe.seeds)),
            "versions": versions(),
        }

    def _averaging(self) -> dict[str, Any]:
        if self.recipe.average_last:
            return {"weights averaged": f"of the last {self.recipe.average_last} epochs"}
        return {"averaging of the weights": self.recipe.averaging}

    # ---- the work -----------------------------------------------------------------------------

    def run(self) -> Comparison:
        """Trains what is not finished, scores, writes and exports.

        Returns:
            The comparison itself.

        Raises:
            UserError: If the disk is full or an export is not proved.
        """
        import tensorflow as tf

        if self.recipe.deterministic:
            tf.config.experimental.enable_op_determinism()
        self.out.mkdir(parents=True, exist_ok=True)
        self._write_text(self.out / RECIPE, self.recipe.to_toml(made_with=self._made_with()))
        each = self.recipe.epochs * (self.recipe.seeds + self.recipe.learning_rates - 1)
        with Progress(
            self.problem.title,
            {name: each for name in self.recipe.architectures},
            score=self.problem.primary,
            monitor=f"val_{self.recipe.monitor}",
            lower_is_better=self.less_is_better,
            max_seconds=self.recipe.minutes * 60 or None,
            quiet=self.quiet,
        ) as progress:
            for note in self.problem.notes:
                progress.note(note)
            self._baselines(progress)
            if "tensorboard" in self.track:
                self._experiment()
            for name in self.recipe.architectures:
                self._architecture(name, progress)
                self._write()
            if self.recipe.ensemble:
                self._ensemble(progress)
            self._tests()
            self._choose()
            if self.formats and self.winner:
                progress.note(f"exporting {self.winner}")
                self._export()
            self._write(final=True)
        return self

    def _experiment(self) -> None:
        """Tells TensorBoard's HParams page its columns, so that it sorts numbers as numbers."""
        from keras_seq.callbacks import write_experiment

        scores = [name for name in self.leaderboard.score_names() if name != self.problem.primary]
        write_experiment(
            self.out,
            {
                "architecture": str,
                "baseline": bool,
                "parameters": int,
                "seed": int,
                "learning_rate": float,
            },
            [self.problem.primary, *scores],
        )

    def _baselines(self, progress: Progress) -> None:
        from keras_seq.callbacks import log_scores

        for name, prediction, seconds, note in self.problem.baselines():
            scores = self.problem.scores(prediction)
            self.predictions[name, 0] = prediction
            row = Row(
                architecture=name,
                baseline=True,
                scores=scores,
                note=note,
                train_seconds=seconds,
                seeds=1,
            )
            self.leaderboard.rows.append(row)
            progress.baseline(name, scores[self.problem.primary])
            if "tensorboard" in self.track:
                log_scores(
                    self.out / "baselines" / name,
                    {"architecture": name, "baseline": True, "parameters": 0, "seed": 0},
                    scores,
                )

    def _architecture(self, name: str, progress: Progress) -> None:
        """Trains one architecture with every learning rate and seed; a failure is a row."""
        row = Row(architecture=name, status="running")
        self.leaderboard.rows.append(row)
        try:
            if name in self.broken:
                raise UserError(self.broken[name])
            runs = self._train_all(name, progress)
            self._fill(row, runs)
            for run in runs:
                progress.finish(name, run.seed, run.record["test"][self.problem.primary])
        except KeyboardInterrupt:
            row.status = "waiting"
            self._write()
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            row.status, row.note = "failed", _one_line(error)
            self._forget(name)
            folder = self.out / folder_name(name)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            progress.fail(name, row.note)

    def _forget(self, name: str) -> None:
        for key in [key for key in self.predictions if key[0] == name]:
            del self.predictions[key]

    def _train_all(self, name: str, progress: Progress) -> list[Run]:
        from keras_seq.models import resolve

        options = dict(self.recipe.overrides.get(name, {}))
        bound = resolve(name, **options)
        if self.recipe.parameters and "width" in bound.parameters and "width" not in options:
            options["width"] = self._width(name, options)
        rates = [
            float(f"{self.recipe.learning_rate * factor:.6g}")
            for factor in FACTORS[: self.recipe.learning_rates]
        ]
        base = self.out / folder_name(name)
        best = rates[0]
        if len(rates) > 1:
            chosen = _read(base / "0" / "metrics.json")
            if chosen:
                best = chosen["learning_rate"]
            else:
                tried = [
                    self._train(name, options, 0, rate, base / "search" / f"lr_{rate:g}", progress)
                    for rate in rates
                ]
                sign = 1 if self.less_is_better else -1
                run = min(tried, key=lambda run: sign * run.record["best"])
                best = run.record["learning_rate"]
                os.replace(run.folder, base / "0")
        return [
            self._train(name, options, seed, best, base / str(seed), progress)
            for seed in range(self.recipe.seeds)
        ]

    def _width(self, name: str, options: dict[str, Any]) -> int:
        import keras

        from keras_seq.models import solve_width

        def count(width: int) -> int:
            with keras.device("cpu:0"):
                model = self.problem.build(name, **{**options, "width": width})
            return int(sum(np.prod(v.shape) for v in model.trainable_variables))

        return solve_width(count, self.recipe.parameters)

    def _train(
        self,
        name: str,
        options: dict[str, Any],
        seed: int,
        rate: float,
        folder: Path,
        progress: Progress,
    ) -> Run:
        """Trains once, or reads what was trained; ends with model and metrics on the disk."""
        import keras

        from keras_seq import saving
        from keras_seq.training import fit, forget, steps_of_epoch

        problem, recipe = self.problem, self.recipe
        record = _read(folder / "metrics.json")
        if record is not None:
            shipped = saving.load(folder / "model.keras")
            model = inner_model(shipped)
            self.predictions[name, seed] = problem.predict(model)
            progress.start(name, seed, record["epochs"])
            progress.note(f"{name} seed {seed}: read from {folder}")
            return Run(name, seed, folder, record)
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        model = problem.build(name, **options)
        notes = problem.adapt(model)
        parameters = int(sum(np.prod(v.shape) for v in model.trainable_variables))
        hparams = {
            "architecture": name,
            "baseline": False,
            "parameters": parameters,
            "seed": seed,
            "learning_rate": rate,
            **{k: v for k, v in options.items() if isinstance(v, (bool, int, float, str))},
        }
        folder.mkdir(parents=True, exist_ok=True)
        self._write_text(folder / "config.toml", self._run_config(name, options, seed, rate))
        train = problem.data("train", model)
        x, y = train.batch(np.arange(min(len(train), recipe.batch_size)))
        how = problem.training()
        how_y = how.get("prepare_targets", lambda value: value)(y)
        loggers = [
            trackers.get(tracker)(
                run_dir=folder,
                hparams=hparams,
                card=f"# {name}\n\n```toml\n{(folder / 'config.toml').read_text()}```",
                gradient_batch=(x, how_y),
                figures=problem.figures,
                texts=problem.texts,
            )
            for tracker in self.track
        ]
        progress.start(name, seed, recipe.epochs)
        for note in notes:
            progress.note(note)
        reporter = _reporter(progress, name, seed)
        seconds = (
            recipe.minutes
            * 60
            * 0.9
            / (len(recipe.architectures) * (recipe.seeds + recipe.learning_rates - 1))
        )
        training: dict[str, Any] = {
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "learning_rate": rate,
            "schedule": recipe.schedule,
            "warmup_steps": recipe.warmup_steps,
            "accumulate": recipe.accumulate,
            "patience": recipe.patience,
            "monitor": recipe.monitor,
            "averaging": 0.0 if recipe.average_last else recipe.averaging,
            "average_last": recipe.average_last,
            "seed": seed,
            "jit_compile": recipe.jit_compile,
        }

        def score(net: Any) -> dict[str, float]:
            return problem.evaluate(net, recipe.monitor_examples)

        result = fit(
            problem.training_form(model),
            train,
            problem.data("validation", model),
            steps_per_epoch=steps_of_epoch(train, recipe.batch_size, recipe.steps_per_epoch, seed),
            lower_is_better=self.less_is_better,
            evaluate=None if recipe.monitor == "loss" else score,
            seconds=seconds or None,
            run_dir=folder,
            callbacks=[*loggers, reporter],
            **training,
            **how,
        )
        if result.stopped == "not finite" and not np.isfinite(result.best):
            raise UserError(
                f"the loss became {result.history[-1]['loss']} in epoch {len(result.history)}; "
                "try a smaller learning rate"
            )
        prediction = problem.predict(model)
        self.predictions[name, seed] = prediction
        test = problem.scores(prediction)
        shipped = problem.deployable(model)
        size, latency = self._cost(shipped)
        metrics = {
            "architecture": name,
            "options": options,
            "seed": seed,
            "learning_rate": rate,
            "parameters": parameters,
            "epochs": len(result.history),
            "best_epoch": result.best_epoch,
            "stopped": result.stopped,
            "training": {**training, "steps_per_epoch": recipe.steps_per_epoch},
            "seconds_per_epoch": result.seconds_per_epoch,
            "train_seconds": result.seconds,
            "latency_ms": latency,
            "size_kb": size,
            "best": result.best,
            "validation": {
                "loss": _loss(result),
                **problem.scores(prediction, "validation"),
            },
            "test": test,
        }
        saving.save(shipped, folder / "model.keras", metadata=problem.metadata())
        for logger in loggers:
            logger.log_scores(test)
        # Written last: a folder with metrics.json is a finished run.
        self._write_text(folder / "metrics.json", json.dumps(metrics, indent=1))
        forget(folder)
        return Run(name, seed, folder, metrics)

    def _cost(self, shipped: Any) -> tuple[float | None, float | None]:
        """Measures size and latency on the device runtime; None where it does not convert."""
        from keras_seq.export import ExportError, litert_size_and_latency

        try:
            return litert_size_and_latency(shipped, self.problem.samples(shipped, most=8))
        except ExportError as error:
            warnings.warn(f"{shipped.name}: no size and latency: {error}", stacklevel=2)
            return None, None

    def _run_config(self, name: str, options: dict[str, Any], seed: int, rate: float) -> str:
        recipe = Recipe(
            **{
                **{f.name: getattr(self.recipe, f.name) for f in fields(Recipe)},
                "architectures": (name,),
                "overrides": {name: options},
            }
        )
        return recipe.to_toml(made_with={"seed": seed, "learning_rate": rate, **self._made_with()})

    def _made_with(self) -> dict[str, Any]:
        return {
            "command": self.command,
            "data_sha256": self.problem.describe().get("sha256", ""),
            "versions": versions(),
        }

    def _fill(self, row: Row, runs: list[Run]) -> None:
        records = [run.record for run in runs]
        row.status = "ok"
        row.seeds = len(runs)
        row.parameters = records[0]["parameters"]
        row.options = records[0]["options"]
        row.learning_rate = records[0]["learning_rate"]
        row.scores, row.spreads = _mean_and_spread([r["test"] for r in records])
        row.seconds_per_epoch = float(np.median([r["seconds_per_epoch"] for r in records]))
        row.epochs = float(np.mean([r["epochs"] for r in records]))
        row.train_seconds = float(sum(r["train_seconds"] for r in records))
        latencies = [r["latency_ms"] for r in records if r["latency_ms"] is not None]
        row.latency_ms = float(np.median(latencies)) if latencies else None
        row.size_kb = records[0]["size_kb"]

    # ---- ensemble, tests, winner --------------------------------------------------------------

    def _trained(self) -> list[str]:
        names = [
            row.architecture
            for row in self.leaderboard.rows
            if row.status == "ok" and not row.baseline and not row.ensemble
        ]
        return [name for name in names if (name, 0) in self.predictions]

    def _ensemble(self, progress: Progress) -> None:
        names = self._trained()
        if len(names) < 2:
            return
        seeds = range(self.recipe.seeds)
        predicted = [[self.predictions[name, seed] for name in names] for seed in seeds]
        members = [self.problem.choose_members(every) for every in predicted]
        if all(len(chosen) == 1 for chosen in members):
            alone = ", ".join(dict.fromkeys(names[chosen[0]] for chosen in members))
            progress.note(f"no ensemble: {alone} alone is better on the validation part")
            return
        scores = []
        for seed, every, chosen in zip(seeds, predicted, members, strict=True):
            joined = self.problem.average([every[i] for i in chosen])
            self.predictions[ENSEMBLE, seed] = joined
            scores.append(self.problem.scores(joined))
        self.members = [names[i] for i in members[0]]
        model = self.problem.deployable(self._ensemble_model())
        size, latency = self._cost(model)
        rows = [self.leaderboard.row(name) for name in self.members]
        mean, spread = _mean_and_spread(scores)
        row = Row(
            architecture=ENSEMBLE,
            ensemble=True,
            scores=mean,
            spreads=spread,
            seeds=self.recipe.seeds,
            parameters=sum(r.parameters or 0 for r in rows if r),
            latency_ms=latency,
            size_kb=size,
            note="average of " + ", ".join(self.members),
        )
        self.leaderboard.rows.append(row)
        progress.finish(ENSEMBLE, 0, mean[self.problem.primary])
        if "tensorboard" in self.track:
            from keras_seq.callbacks import log_scores

            log_scores(
                self.out / ENSEMBLE,
                {
                    "architecture": ENSEMBLE,
                    "baseline": False,
                    "parameters": row.parameters or 0,
                    "seed": 0,
                },
                mean,
                row.note,
            )

    def _load(self, name: str) -> Any:
        from keras_seq import saving

        return inner_model(saving.load(self.out / folder_name(name) / "0" / "model.keras"))

    def _ensemble_model(self) -> Any:
        return self.problem.ensemble([self._load(name) for name in self.members])

    def _losses(self, name: str) -> np.ndarray:
        seeds = [p for (n, _), p in self.predictions.items() if n == name]
        return np.mean([self.problem.losses(p) for p in seeds], axis=0)

    def _tests(self) -> None:
        """Paired tests of each network against the best baseline and the next in the table."""
        ranked = [row for row in self.leaderboard.ranked() if row.status == "ok"]
        baselines = [row for row in ranked if row.baseline]
        losses = {row.architecture: self._losses(row.architecture) for row in ranked}
        networks = [row for row in ranked if not row.baseline]
        for index, row in enumerate(networks):
            others = {
                "vs_baseline": baselines[0] if baselines else None,
                "vs_runner_up": networks[index + 1] if index + 1 < len(networks) else None,
            }
            for key, other in others.items():
                if other is not None:
                    found = self.problem.paired_test(
                        losses[row.architecture], losses[other.architecture]
                    )
                    row.tests[key] = {"against": other.architecture, **found}

    def _choose(self) -> None:
        """Chooses the winner on the validation part: the test part decides nothing."""
        names = [*self._trained(), *([ENSEMBLE] if (ENSEMBLE, 0) in self.predictions else [])]
        if not names:
            return
        primary = self.problem.primary

        def value(name: str) -> float:
            seeds = [p for (n, _), p in self.predictions.items() if n == name]
            return float(np.mean([self.problem.scores(p, "validation")[primary] for p in seeds]))

        sign = 1 if self.problem.lower_is_better else -1
        self.winner = min(names, key=lambda name: sign * value(name))
        self.leaderboard.metadata["shipped"] = (
            f"{self.winner}: best {primary} on the validation part"
        )

    def _export(self) -> None:
        from keras_seq.export import export

        if self.winner is None:
            return
        core = self._ensemble_model() if self.winner == ENSEMBLE else self._load(self.winner)
        model = self.problem.deployable(core)
        samples = self.problem.samples(model)
        row = self.leaderboard.row(self.winner)
        folder = self.out / "export" / folder_name(self.winner)
        self.report = export(
            model,
            folder,
            formats=self.formats,
            samples=samples,
            calibration=self.problem.samples(model, "train", 512),
            score=self.problem.shipped_score(samples),
            card=self._card(row),
            metadata=self.problem.metadata(),
            endpoints=self.problem.endpoints(model),
            files=self.problem.side_files(),
            overwrite=True,
        )
        self.artifact = folder
        self.leaderboard.metadata["artifact"] = str(folder)

    def _card(self, row: Row | None) -> dict[str, Any]:
        if row is None:
            return {}
        best = next((r for r in self.leaderboard.ranked() if r.baseline), None)
        record = {
            "architecture": row.architecture,
            "parameters": row.parameters,
            "options": {**row.options, **({"members": row.note} if row.ensemble else {})},
            "test": row.scores,
        }
        baseline = {best.architecture: best.scores} if best else {}
        return self.problem.card(record, baseline, self.command)

    # ---- files --------------------------------------------------------------------------------

    def _write(self, final: bool = False) -> None:
        figures = self._figures() if final else None
        if figures and "tensorboard" in self.track:
            from keras_seq.callbacks import write_figures

            write_figures(self.out, figures)
        self.leaderboard.write(self.out, figures=figures)

    def _figures(self) -> dict[str, Any]:
        """The pictures of the html: curves from the run folders, and what the task draws."""
        from keras_seq import figures as draw

        first = {name: p for (name, seed), p in self.predictions.items() if seed == 0}
        ranked = [r.architecture for r in self.leaderboard.ranked() if r.architecture in first]
        found: dict[str, Any] = dict(self.problem.board_figures(first, ranked))
        curves = {}
        for name in self._trained():
            history = self.out / folder_name(name) / "0" / "history.csv"
            if history.exists():
                lines = [line.split(",") for line in history.read_text().splitlines()]
                if "val_loss" in lines[0]:
                    column = lines[0].index("val_loss")
                    curves[name] = [float(line[column]) for line in lines[1:]]
        if curves:
            found["Validation loss by epoch"] = draw.learning_curves_figure(curves, title="")
        points = {
            row.architecture: (row.latency_ms, row.scores[self.problem.primary])
            for row in self.leaderboard.rows
            if row.status == "ok" and row.latency_ms is not None
        }
        lines_of = {
            row.architecture: row.scores[self.problem.primary]
            for row in self.leaderboard.rows
            if row.baseline and row.status == "ok"
        }
        if points:
            found["Quality against latency on the device runtime"] = draw.quality_latency_figure(
                points,
                lines_of,
                score=self.problem.primary,
                lower_is_better=self.problem.lower_is_better,
                title="",
            )
        return found

    def _write_text(self, path: Path, text: str) -> None:
        from keras_seq.files import write_atomically

        write_atomically(path, text.encode())


def _reporter(progress: Progress, name: str, seed: int) -> Any:
    """Returns a callback that tells the terminal about each epoch."""
    import keras

    began = [time.monotonic()]

    def begin(epoch: int, logs: Any) -> None:
        began[0] = time.monotonic()

    def end(epoch: int, logs: Any) -> None:
        progress.epoch(name, seed, epoch + 1, dict(logs or {}), time.monotonic() - began[0])

    return keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end)


def inner_model(shipped: Any) -> Any:
    """Returns the trained network inside a deployable model.

    Args:
        shipped: From `deployable` of a problem, or loaded from a run folder.
    """
    import keras

    return next(layer for layer in shipped.layers if isinstance(layer, keras.Model))


def folder_name(name: str) -> str:
    """Returns an architecture's name as a folder's.

    Example:
        >>> folder_name("my_package.nets:Mixer")
        'my_package.nets.Mixer'
    """
    return "".join(c if c.isalnum() or c in "._-" else "." for c in name)


def versions() -> dict[str, str]:
    """Returns the versions that a result depends on."""
    found = {name: version(name) for name in ("tensorflow", "keras", "numpy")}
    return {"keras_seq": keras_seq.__version__, **found, "python": platform.python_version()}


def _mean_and_spread(
    scores: Sequence[Mapping[str, float]],
) -> tuple[dict[str, float], dict[str, float]]:
    names = scores[0]
    mean = {name: float(np.mean([s[name] for s in scores])) for name in names}
    if len(scores) < 2:
        return mean, {}
    return mean, {name: float(np.std([s[name] for s in scores], ddof=1)) for name in names}


def _loss(result: Any) -> float:
    """The validation loss of the best epoch."""
    rows = [row for row in result.history if row["epoch"] == result.best_epoch]
    return float(rows[0]["val_loss"]) if rows else math.inf


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): delete its folder to train again") from error


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    name = type(error).__name__
    return (text if isinstance(error, UserError) else f"{name}: {text}")[:300]


make_callable(__name__)
