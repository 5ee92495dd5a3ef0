"""What can be done with a finished run: score it again, forecast with it, export it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tomlkit

from keras_seq.compare import inner_model
from keras_seq.errors import UserError
from keras_seq.recipe import read_recipe
from keras_seq.registry import tasks

if TYPE_CHECKING:
    import pandas
    from rich.table import Table


def read_run(run: str | Path) -> tuple[Any, dict[str, Any], Any]:
    """Opens a run folder.

    Args:
        run: ``runs/COMPARISON/ARCHITECTURE/SEED``.

    Returns:
        The problem (data read and split again), what ``metrics.json`` says, and the model: raw
        values in, raw values out.

    Raises:
        UserError: If the folder is not a finished run, or its data is gone or has changed.
    """
    from keras_seq import saving

    folder = Path(run)
    record = _metrics(folder)
    recipe = read_recipe(folder / "config.toml")
    problem = tasks.get(recipe["task"])(**_tuples(recipe.get("options", {}))).prepare()
    return problem, record, saving.load(folder / "model.keras")


def _metrics(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.json"
    if not path.exists():
        raise UserError(
            f"{folder} is no finished run: give a folder runs/COMPARISON/ARCHITECTURE/SEED that "
            "holds metrics.json"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def evaluate_run(run: str | Path, *, data: str | None = None, backtest: int = 0) -> Table:
    """Scores a run again and puts the figures beside those that it noted when it was trained.

    Args:
        run: A run folder.
        data: Another file with the same columns; its test part is scored.
        backtest: How many rolling origins the architecture is trained again on; 0 for none.

    Returns:
        A table of scores.

    Raises:
        UserError: If the folder or the data is wrong.
    """
    from rich.table import Table

    folder = Path(run)
    if data is None:
        problem, record, model = read_run(folder)
    else:
        from keras_seq import saving

        record = _metrics(folder)
        recipe = read_recipe(folder / "config.toml")
        options = {**_tuples(recipe.get("options", {})), "data": data}
        for name in ("validation", "test"):
            if isinstance(options.get(name), str):
                options[name] = ""  # other parts of the old data
        problem = tasks.get(recipe["task"])(**options).prepare()
        model = saving.load(folder / "model.keras")
        problem.check_fits(model, folder)
    now = problem.scores(problem.predict(inner_model(model)))
    columns: dict[str, dict[str, float]] = {"test part now": now}
    if data is None:
        columns["noted in metrics.json"] = record["test"]
    columns[problem.reference.replace("_", " ")] = next(
        problem.scores(prediction)
        for name, prediction, *_ in problem.baselines()
        if name == problem.reference
    )
    if backtest:
        for index, scores in enumerate(problem.backtest(record, folds=backtest)):
            columns[f"origin {index + 1}"] = scores
    table = Table("score", *columns, title=f"{record['architecture']}: {problem.title}", box=None)
    for name in now:
        table.add_row(name, *(f"{values.get(name, np.nan):.6g}" for values in columns.values()))
    return table


def predict_file(source: str | Path, *, data: str, out: str | Path) -> pandas.DataFrame:
    """Forecasts what comes after the end of a file, and writes it.

    Args:
        source: A run folder, an exported folder, or a ``.keras`` file.
        data: A file with the columns that the model was trained on.
        out: Where to: ``.csv`` or ``.parquet``.

    Returns:
        One row for each series and step: time, id where there are several, one column for each
        target, and ``TARGET_q10`` ... for quantiles.

    Raises:
        UserError: If the source is no model of ours, or the data does not fit.
    """
    target = Path(out)
    if target.suffix not in (".csv", ".parquet"):
        raise UserError(f"--out is {target}: give a name that ends in .csv or .parquet")
    if not target.parent.is_dir():
        raise UserError(f"--out is {target}: the folder {target.parent} does not exist")
    run, names, metadata = open_model(source)
    if "task" not in metadata:
        raise UserError(f"{source} was not written by a task of keras_seq: it has no metadata")
    frame = tasks.get(metadata["task"]).predict_file(run, names, metadata, data)
    temporary = target.with_name(f".{target.name}.tmp")
    if target.suffix == ".csv":
        frame.to_csv(temporary, index=False)
    else:
        frame.to_parquet(temporary, index=False)
    temporary.replace(target)
    return frame


def find_model(source: str | Path) -> tuple[str, Path, dict[str, Any]]:
    """Finds the model in what a run or an export left, without opening it.

    Args:
        source: As for `open_model`.

    Returns:
        ``"keras"``, ``"saved_model"`` or ``"litert"``; the file or version folder; the metadata.

    Raises:
        UserError: If there is no model.
    """
    path = Path(source)
    beside = path / "metadata.json"
    metadata = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    for file in (path, path / "model.keras", path / "keras" / "model.keras"):
        if file.suffix == ".keras" and file.is_file():
            from keras_seq import saving

            return "keras", file, metadata or saving.read_metadata(file)
    numbers = [p for p in path.glob("[0-9]*") if (p / "saved_model.pb").is_file()]
    if numbers:
        return "saved_model", max(numbers, key=lambda p: int(p.name)), metadata
    light = path / "litert" / "model_float32.tflite"
    if light.is_file():
        return "litert", light, metadata
    raise UserError(
        f"{path} holds no model: give a run folder, an exported folder, or a .keras file"
    )


def open_model(
    source: str | Path,
) -> tuple[Callable[[dict[str, Any]], Mapping[str, Any]], list[str], dict[str, Any]]:
    """Opens what a run or an export left, in the runtime that it was left for.

    Args:
        source: A run folder, an exported folder (its ``.keras`` file, SavedModel or float32
            LiteRT file, whichever comes first), or a ``.keras`` file.

    Returns:
        A function from named raw inputs (N, ...) to named outputs, the names of the inputs, and
        the metadata.

    Raises:
        UserError: If there is no model, or it is damaged.
    """
    kind, found, metadata = find_model(source)
    if kind == "keras":
        from keras_seq import saving

        model = saving.load(found)
        return lambda inputs: model.predict(inputs, verbose=0), list(model.input), metadata
    if kind == "saved_model":
        import tensorflow as tf

        _import_needed(found.parent / "parity.json")
        loaded = tf.saved_model.load(str(found))
        serve = loaded.signatures["serving_default"]
        specs = serve.structured_input_signature[1]
        names = list(specs)

        def run(inputs: dict[str, Any]) -> dict[str, Any]:
            given = {k: tf.constant(v, dtype=specs[k].dtype) for k, v in inputs.items()}
            return {name: value.numpy() for name, value in serve(**given).items()}

        # The loaded object owns the variables: it lives as long as the function.
        run.owner = loaded  # type: ignore[attr-defined]
        return run, names, metadata
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(found))
    call = interpreter.get_signature_runner("serving_default")
    details = call.get_input_details()

    def run_light(inputs: dict[str, Any]) -> dict[str, Any]:
        given = {k: np.asarray(v, dtype=details[k]["dtype"]) for k, v in inputs.items()}
        each = []
        for i in range(len(next(iter(given.values())))):
            # A recurrent operator may keep its state from call to call.
            interpreter.reset_all_variables()
            each.append(call(**{name: value[i : i + 1] for name, value in given.items()}))
        return {name: np.concatenate([row[name] for row in each]) for name in each[0]}

    return run_light, list(details), metadata


def _import_needed(report: Path) -> None:
    """Imports what brings the operators that an exported SavedModel needs."""
    if not report.is_file():
        return
    formats = json.loads(report.read_text(encoding="utf-8")).get("formats", {})
    for package in formats.get("saved_model", {}).get("needs", []):
        try:
            importlib.import_module(package)
        except ImportError as error:
            name = package.replace("_", "-")
            raise UserError(
                f"the SavedModel in {report.parent} needs {name}, which is not installed: pip "
                f"install {name}, or predict with the run or the .keras file"
            ) from error


def export_run(
    run: str | Path,
    *,
    formats: tuple[str, ...],
    out: str | Path | None = None,
    version: int = 1,
    overwrite: bool = False,
    streaming: bool = False,
    window: int | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Exports a run, with the proof and the model card beside it.

    Args:
        run: A run folder.
        formats: As in `keras_seq.export`.
        out: The folder; None is ``savedmodels/TASK/ARCHITECTURE``.
        version: The number of the version folder.
        overwrite: Whether that version may be replaced.
        streaming: Whether the files get a signature ``step``; see `keras_seq.export`.
        window: Steps that attention sees in a stream; see `keras_seq.export`.

    Returns:
        The folder and the report.

    Raises:
        UserError: If the run is not finished, or the export is not proved.
    """
    from keras_seq.export import export

    problem, record, model = read_run(run)
    samples = problem.samples(model)
    recipe = read_recipe(Path(run) / "config.toml")
    folder = Path(out) if out else Path("savedmodels") / recipe["task"] / record["architecture"]
    scored = {name: p for name, p, *_ in problem.baselines()}
    made_with = tomlkit.parse((Path(run) / "config.toml").read_text(encoding="utf-8"))["made_with"]
    commands = f"{made_with['command']}\nkeras-seq export {run} --to {','.join(formats)}"
    if streaming:
        commands += " --streaming" + ("" if window is None else f" --window {window}")
    sign = 1 if problem.lower_is_better else -1
    best = min(scored, key=lambda name: sign * problem.scores(scored[name])[problem.primary])
    report = export(
        model,
        folder,
        formats=formats,
        samples=samples,
        calibration=problem.samples(model, "train", 512),
        score=problem.shipped_score(samples),
        card=problem.card(record, {best: problem.scores(scored[best])}, commands),
        metadata=problem.metadata(),
        endpoints=problem.endpoints(model),
        files=problem.side_files(),
        version=version,
        overwrite=overwrite,
        streaming=streaming,
        window=window,
    )
    return folder, report
