"""The command line: list, compare, train, evaluate, predict, explain, generate, export ..."""

from __future__ import annotations

import inspect
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_seq.errors import UserError
from keras_seq.registry import PluginWarning, architectures, tasks

app = typer.Typer(
    name="keras-seq",
    help="Sequence models in Keras: compare every architecture on your data, ship the winner.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
compare_app = typer.Typer(help="Train many architectures under one budget.", no_args_is_help=True)
train_app = typer.Typer(help="Train one architecture.", no_args_is_help=True)
app.add_typer(compare_app, name="compare")
app.add_typer(train_app, name="train")

# How a comparison is made, whatever the task: name -> (type, help). Unset options keep the
# defaults of `keras_seq.recipe.Recipe`, or what --recipe says.
_SHARED: dict[str, tuple[Any, str]] = {
    "parameters": (int, "Parameter budget that widths are solved for; 0: each its own width."),
    "epochs": (int, "The most epochs of a training."),
    "minutes": (float, "The most minutes of all trainings together; 0: no limit."),
    "seeds": (int, "How many seeds."),
    "learning_rate": (float, "The highest learning rate of a training."),
    "learning_rates": (int, "How many learning rates, around that one, are tried for each."),
    "schedule": (str, "Of the learning rate: cosine, inverse_sqrt or constant."),
    "warmup_steps": (int, "Updates in which the learning rate climbs; 0: a twentieth."),
    "batch_size": (int, "Examples in a batch."),
    "accumulate": (int, "Batches whose gradients are averaged for one update."),
    "steps_per_epoch": (int, "The most steps of an epoch."),
    "patience": (int, "Epochs without improvement before a training ends."),
    "monitor": (str, "What patience and best epoch go by: loss, or bleu, accuracy."),
    "monitor_examples": (int, "The most validation examples for such a score."),
    "averaging": (float, "Momentum of the moving average of the weights."),
    "average_last": (int, "Average the weights of so many last epochs instead; 0: no."),
    "deterministic": (bool, "Force deterministic kernels."),
    "jit_compile": (bool, "Compile the step by XLA: for long runs of small Transformers."),
}

_USUAL: dict[str, Any] = {
    "parameters": 0,
    "epochs": 10,
    "minutes": 0,
    "seeds": 1,
    "learning_rate": 0.001,
    "learning_rates": 1,
    "schedule": "cosine",
    "warmup_steps": 0,
    "batch_size": 64,
    "accumulate": 1,
    "steps_per_epoch": 500,
    "patience": 5,
    "monitor": "loss",
    "monitor_examples": 200,
    "averaging": 0.99,
    "average_last": 0,
}


def _parse_value(text: str) -> Any:
    import tomlkit

    try:
        return tomlkit.value(text).unwrap()
    except ValueError:
        return text


def _parse_settings(settings: list[str] | None, only: str = "") -> dict[str, dict[str, Any]]:
    """Reads ``lstm.depth=2`` into ``{"lstm": {"depth": 2}}``; ``depth=2`` is of the only one."""
    found: dict[str, dict[str, Any]] = {}
    for setting in settings or []:
        path, equals, value = setting.partition("=")
        name, dot, option = path.rpartition(".")
        if not dot:
            name = only
        if equals and not dot and option and not only:
            raise UserError(
                f"--set is {setting!r}, and there are several architectures: say which one, as in "
                f"lstm.{setting}"
            )
        if not (equals and name and option):
            raise UserError(f"--set is {setting!r}: write it as lstm.depth=2")
        found.setdefault(name, {})[option] = _parse_value(value)
    return found


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UserError(f"--{option} is {text!r}: give numbers with commas, 0.1,0.9") from error


def _task_parameters(task: Any) -> list[inspect.Parameter]:
    """The task's options as parameters of a command; all are unset by default."""
    found = []
    for option in fields(task):
        kind: Any = {bool: bool, int: int, float: float}.get(type(option.default), str)
        if isinstance(option.default, tuple) and "levels" not in option.metadata["help"]:
            kind = list[str]
        found.append(_parameter(option.name, kind, option.metadata["help"]))
    return found


def _parameter(name: str, kind: Any, help: str, default: Any = None) -> inspect.Parameter:
    flag = name.replace("_", "-")
    flags = [f"--{flag}/--no-{flag}"] if kind is bool else [f"--{flag}"]
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind | None, typer.Option(*flags, help=help, show_default=False)],
    )


def _given(task: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The task's options that were set, in the types of the task."""
    found: dict[str, Any] = {}
    for option in fields(task):
        value = values.get(option.name)
        if value is None:
            continue
        if isinstance(option.default, tuple):
            value = tuple(value) if isinstance(value, list) else _numbers(value, option.name)
            if not value:
                continue
        found[option.name] = value
    return found


def _make_compare(name: str, task: Any, *, single: bool) -> Callable[..., None]:
    """Makes the command that compares, or trains, under one task."""

    def command(**values: Any) -> None:
        from rich.console import Console

        from keras_seq.compare import Comparison
        from keras_seq.recipe import Recipe, expand, make_task, read_recipe, with_defaults

        _import_tensorflow()
        recipe = read_recipe(values["recipe"]) if values.get("recipe") else {}
        recipe.pop("task", None)
        options = {**recipe.pop("options", {}), **_given(task, values)}
        for key, value in options.items():
            if isinstance(value, list):
                options[key] = tuple(value)
        recipe.update({k: values[k] for k in _SHARED if values.get(k) is not None})
        asked: Any = values.get("architectures") or recipe.get("architectures") or "all"
        if single:
            asked = (values["architecture"],)
            recipe["ensemble"] = False
        elif values.get("ensemble") is not None:
            recipe["ensemble"] = values["ensemble"]
        names = asked.split(",") if isinstance(asked, str) else list(asked)
        only = names[0].strip() if len(names) == 1 and names != ["all"] else ""
        settings = _parse_settings(values.get("set"), only)
        overrides = {**recipe.pop("overrides", {}), **settings}
        recipe["architectures"] = expand(asked, make_task(name, options), overrides)
        formats = tuple(f for f in (values.get("export") or "").split(",") if f and f != "none")
        comparison = Comparison(
            Recipe(task=name, options=options, overrides=overrides, **with_defaults(name, recipe)),
            values["out"],
            resume=bool(values.get("resume")),
            export=formats,
            track=tuple(t for t in values["track"].split(",") if t and t != "none"),
        )
        try:
            comparison.run()
        except KeyboardInterrupt:
            print("keras-seq: stopped; what is finished is kept, --resume goes on", file=sys.stderr)
            raise typer.Exit(130) from None
        Console().print(comparison.leaderboard)
        _print_outcome(comparison)
        if comparison.winner is None:
            print("keras-seq: error: no architecture could be trained", file=sys.stderr)
            raise typer.Exit(1)

    parameters = [
        _parameter("recipe", str, "A TOML recipe that stands for the options."),
        *_task_parameters(task),
    ]
    if single:
        parameters.insert(
            0,
            inspect.Parameter(
                "architecture",
                inspect.Parameter.KEYWORD_ONLY,
                annotation=Annotated[str, typer.Argument(help="Its name: see keras-seq list.")],
            ),
        )
    else:
        parameters.append(_parameter("architectures", str, "a,b,c or all (default all)."))
        parameters.append(_parameter("ensemble", bool, "A row for the average of the best."))
    # Written out here, so that --help does not import what trains.
    usual = {**_USUAL, **getattr(task, "defaults", {})}
    for key, (kind, help) in _SHARED.items():
        shown = f"{help[:-1]} (default {usual[key]})." if key in usual else help
        parameters.append(_parameter(key, kind, shown))
    parameters += [
        _parameter(
            "set",
            list[str],
            "Option of an architecture: lstm.depth=2 (of the only one: depth=2); repeat it.",
        ),
        _parameter("out", str, "Folder of the comparison.", default=f"runs/{name}"),
        _parameter("resume", bool, "Go on with what is in the folder."),
        _parameter("track", str, "Trackers, or none (default tensorboard).", default="tensorboard"),
        _parameter(
            "export",
            str,
            "Formats of the winner, or none (default saved_model,litert,keras).",
            default="saved_model,litert,keras",
        ),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    verb = "Train one architecture on" if single else "Compare architectures on"
    command.__doc__ = f"{verb} a {name} problem."
    return command


def _print_outcome(comparison: Any) -> None:
    out = comparison.out
    print(f"\nLeaderboard  {out / 'leaderboard.html'} (also .csv .md .tex)")
    if "tensorboard" in comparison.track:
        print(f"TensorBoard  keras-seq tensorboard {out}")
    if comparison.artifact:
        print(f"Exported     {comparison.winner} -> {comparison.artifact}")
        for line in parity_lines(comparison.report):
            print(f"             {line}")


def parity_lines(report: dict[str, Any]) -> list[str]:
    """Returns one line for each exported format: what the proof found.

    Args:
        report: From `keras_seq.export`.
    """
    lines = []
    for name, found in report["formats"].items():
        line = (
            f"{name:15} {found['status']}: differs by {found['relative_difference']:.1e} of the "
            f"output's scale, {found['size_bytes'] / 1024:.0f} KB"
        )
        if found.get("latency_ms") is not None:
            line += f", {found['latency_ms']:.3g} ms"
        change = (found.get("score") or {}).get("relative_change")
        if change is not None and abs(change) >= 5e-4:
            line += f", test score {change:+.1%}"
        stream = found.get("streaming")
        if stream is not None:
            far = stream["relative_difference"]
            line += "; streamed " + (
                "infinitely far off" if far is None else f"{far:.1e} from the whole sequence"
            )
        lines.append(line)
    return lines


def _add_tasks() -> None:
    for name in tasks.names():
        try:
            task = tasks.get(name)
        except UserError as error:
            warnings.warn(str(error), PluginWarning, stacklevel=2)
            continue
        compare_app.command(name)(_make_compare(name, task, single=False))
        train_app.command(name)(_make_compare(name, task, single=True))


@app.command("list")
def list_architectures(
    tag: Annotated[
        list[str] | None, typer.Option(help="Only those that have this tag; repeat it.")
    ] = None,
) -> None:
    """List the architectures with their tags."""
    from rich.console import Console
    from rich.table import Table

    _import_tensorflow()
    table = Table("architecture", "tags", "what it is", box=None)
    for name, function in architectures.load_all().items():
        tags = frozenset(getattr(function, "tags", ()))
        if set(tag or ()) <= tags:
            line = (inspect.getdoc(function) or "").split("\n")[0]
            table.add_row(name, " ".join(sorted(tags)), line)
    Console().print(table)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder: runs/NAME/ARCHITECTURE/SEED.")],
    data: Annotated[str | None, typer.Option(help="Another file with the same columns.")] = None,
    backtest: Annotated[
        int, typer.Option(help="Rolling-origin folds, each trained again (default 0).")
    ] = 0,
) -> None:
    """Score a trained run again, from its folder alone; with --backtest over rolling origins."""
    from rich.console import Console

    from keras_seq.runs import evaluate_run

    _import_tensorflow()
    Console().print(evaluate_run(run, data=data, backtest=backtest))


@app.command()
def predict(
    source: Annotated[Path, typer.Argument(help="A run folder or an exported folder.")],
    data: Annotated[str, typer.Option(help="A file like the one it was trained on.")],
    out: Annotated[Path, typer.Option(help="Where the predictions go: .csv or .parquet.")],
) -> None:
    """Forecast what comes after the end of a file, or label what is in it."""
    from keras_seq.runs import predict_file

    _import_tensorflow()
    frame = predict_file(source, data=data, out=out)
    print(f"{len(frame)} rows -> {out}")


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(help="A run folder: runs/NAME/ARCHITECTURE/SEED.")],
    text: Annotated[str, typer.Option(help="The text to explain the label of.")],
    html: Annotated[Path | None, typer.Option(help="Also write it here, as html.")] = None,
) -> None:
    """Show which tokens a label came from: attention, or gradient times input."""
    from rich.console import Console

    from keras_seq.explain import explain_text

    _import_tensorflow()
    explanation = explain_text(run, text)
    Console().print(explanation)
    if html is not None:
        explanation.write_html(html)
        print(f"-> {html}")


@app.command()
def generate(
    run: Annotated[Path, typer.Argument(help="A run folder of the task language_model.")],
    prompt: Annotated[str, typer.Option(help="How the text begins.")] = "",
    length: Annotated[int, typer.Option(help="Tokens to write.")] = 200,
    greedy: Annotated[bool, typer.Option(help="Always take the likeliest token.")] = False,
    temperature: Annotated[float, typer.Option(help="Below 1: safer, above 1: wilder.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Draw among the k likeliest.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw among the likeliest that have this share together.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    """Let a language model write, token by token."""
    from keras_seq.generation import generate_text

    _import_tensorflow()

    def write(piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    generate_text(
        run,
        prompt,
        length=length,
        method="greedy" if greedy else "sample",
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        write=write,
    )
    print()


@app.command()
def translate(
    run: Annotated[Path, typer.Argument(help="A run, an export, or a .keras file.")],
    data: Annotated[
        str, typer.Option(help="A file of texts, one a line (default: standard input).")
    ] = "-",
    beam: Annotated[int | None, typer.Option(help="Hypotheses (default: as trained).")] = None,
    best: Annotated[int, typer.Option(help="How many translations, with scores.")] = 1,
    length_penalty: Annotated[float | None, typer.Option(help="Of the search.")] = None,
    max_length: Annotated[int | None, typer.Option(help="The most tokens of one.")] = None,
    cut: Annotated[bool, typer.Option(help="Cut what is too long for the model.")] = False,
    sample: Annotated[bool, typer.Option(help="Draw by chance, do not search.")] = False,
    temperature: Annotated[float, typer.Option(help="Of --sample; below 1 bolder.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="--sample among so many tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="--sample among this share.")] = None,
    seed: Annotated[int, typer.Option(help="Of --sample.")] = 0,
) -> None:
    """Translate texts, line by line."""
    from keras_seq.data import iter_lines
    from keras_seq.translating import open_translator

    chance = {"--temperature": temperature != 1, "--top-k": top_k, "--top-p": top_p}
    if not sample and (given := [name for name, value in chance.items() if value]):
        raise UserError(f"{given[0]} is for draws by chance: give --sample too, or leave it out")
    _import_tensorflow()
    options = {"beam": beam, "length_penalty": length_penalty, "max_length": max_length}
    translator = open_translator(run, cut=cut, **options)
    if data == "-":
        texts = [line.rstrip("\r\n") for line in sys.stdin]
    else:
        texts = list(iter_lines(Path(data)))
    if sample:
        translated = translator.sample(
            texts, count=best, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
        )
    else:
        translated = translator(texts, best=best)
    for found in translated:
        for one in found:
            print(one.text if best == 1 else f"{one.score:.4f}\t{one.text}")


@app.command()
def align(
    run: Annotated[Path, typer.Argument(help="A run, an export, or a .keras file.")],
    source: Annotated[str, typer.Option(help="The text to translate.")],
    html: Annotated[Path | None, typer.Option(help="Write a page as well.")] = None,
    beam: Annotated[int | None, typer.Option(help="Hypotheses (default: as trained).")] = None,
) -> None:
    """Show what each word of a translation looked at."""
    from rich.console import Console

    from keras_seq.figures import alignment_html, alignment_text
    from keras_seq.translating import open_translator

    _import_tensorflow()
    translator = open_translator(run, beam=beam)
    best = translator([source])[0][0]
    print(best.text)
    if best.alignment is None or not best.alignment.size:
        raise UserError(
            "there is no alignment: the model has no attention, or source or translation is empty"
        )
    Console().print(alignment_text(best.source, best.target, best.alignment))
    if html is not None:
        page = alignment_html(
            best.source, best.target, best.alignment, separator=translator.separator
        )
        html.write_text(page, encoding="utf-8")
        print(f"-> {html}")


@app.command()
def tokenizers(
    data: Annotated[str, typer.Option(help="A file with texts, or builtin:reviews.")],
    text_column: Annotated[str, typer.Option(help="Its column of texts.")] = "text",
    kinds: Annotated[str, typer.Option(help="Which ones, with commas (default all).")] = "all",
    vocabulary: Annotated[int, typer.Option(help="The most tokens of each.")] = 30_000,
    lowercase: Annotated[bool, typer.Option(help="Lower the case first.")] = True,
    clean: Annotated[str, typer.Option(help="none, or html: tags out.")] = "none",
) -> None:
    """Compare tokenisers on your texts: lengths, unknown tokens, speed."""
    from rich.console import Console

    from keras_seq.tasks.text import compare_tokenizers

    _import_tensorflow()
    Console().print(
        compare_tokenizers(
            data,
            text_column=text_column,
            kinds=None if kinds == "all" else tuple(kinds.split(",")),
            vocabulary=vocabulary,
            lowercase=lowercase,
            clean=clean,
        )
    )


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run folder: runs/NAME/ARCHITECTURE/SEED.")],
    to: Annotated[
        str,
        typer.Option(
            help="saved_model, litert, litert_float16, litert_dynamic, "
            "litert_int8, keras, onnx; with commas."
        ),
    ] = "saved_model,litert,keras",
    out: Annotated[
        Path | None, typer.Option(help="Folder (default savedmodels/TASK/ARCHITECTURE).")
    ] = None,
    version: Annotated[int, typer.Option(help="Version number, as TF Serving wants.")] = 1,
    overwrite: Annotated[bool, typer.Option(help="Replace that version.")] = False,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Also a step with explicit states, for streams.")
    ] = False,
    window: Annotated[
        int | None, typer.Option(help="Steps that attention sees in a stream.")
    ] = None,
) -> None:
    """Export a trained run, and prove that what ships computes what was trained."""
    from keras_seq.runs import export_run

    _import_tensorflow()
    if window is not None and not streaming:
        raise UserError("--window is that of a stream: give --streaming too, or leave it out")
    folder, report = export_run(
        run,
        formats=tuple(to.split(",")),
        out=out,
        version=version,
        overwrite=overwrite,
        streaming=streaming,
        window=window,
    )
    print(f"Exported     {folder}")
    for line in parity_lines(report):
        print(f"             {line}")


@app.command()
def benchmark(
    exports: Annotated[list[Path], typer.Argument(help="Folders that were exported.")],
    forms: Annotated[
        str, typer.Option(help="Which of saved_model, litert, litert_int8 ...; with commas.")
    ] = "all",
    signature: Annotated[str, typer.Option(help="Which signature.")] = "serving_default",
    length: Annotated[int | None, typer.Option(help="Steps of inputs of open length.")] = None,
    repeats: Annotated[int, typer.Option(help="Most calls of a form in a turn.")] = 200,
    rounds: Annotated[int, typer.Option(help="Turns of each form.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Folder for table and picture.")] = None,
) -> None:
    """Time exported forms: latency, memory, size, and their error beside it."""
    from rich.console import Console
    from rich.table import Table

    from keras_seq.benchmark import benchmark as run_benchmark

    found = run_benchmark(
        exports,
        forms=None if forms == "all" else tuple(forms.split(",")),
        signature=signature,
        length=length,
        repeats=repeats,
        rounds=rounds,
        tell=lambda line: print(line, file=sys.stderr),
    )
    head, body = found.table()
    table = Table(*head)
    for cells in body:
        table.add_row(*cells)
    Console().print(table)
    for line in found.notes():
        print(line)
    if out is not None:
        for path in found.write(out):
            print(f"-> {path}")


@app.command()
def serve(
    folders: Annotated[list[str], typer.Argument(help="Exported folders; or NAME=FOLDER.")],
    host: Annotated[str, typer.Option(help="Address (no authentication!).")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Of REST; 0 takes a free one.")] = 8501,
    grpc_port: Annotated[int, typer.Option(help="Of gRPC; 0 takes a free one.")] = 8500,
    versions: Annotated[str, typer.Option(help="latest, all, or numbers: 1,2.")] = "latest",
    label: Annotated[list[str] | None, typer.Option(help="MODEL:LABEL=VERSION; repeat it.")] = None,
    poll_seconds: Annotated[float, typer.Option(help="Between looks for new versions.")] = 2.0,
    max_body_mb: Annotated[int, typer.Option(help="The longest request, in MiB.")] = 32,
    max_requests: Annotated[int, typer.Option(help="Answered at the same time.")] = 128,
    max_batch: Annotated[int, typer.Option(help="Rows of requests joined; 1: none.")] = 64,
    workers: Annotated[int, typer.Option(help="TensorFlow's calls at the same time.")] = 4,
    grace_seconds: Annotated[float, typer.Option(help="A stop waits for requests.")] = 30.0,
) -> None:
    """Serve exports by TensorFlow Serving's protocols: for a laptop and small use."""
    from keras_seq.serving import Options
    from keras_seq.serving import serve as run
    from keras_seq.serving.options import need_packages, read_labels, read_versions

    need_packages()
    _import_tensorflow()
    run(
        folders,
        Options(
            host=host,
            port=port,
            grpc_port=grpc_port,
            versions=read_versions(versions),
            labels=read_labels(label or []),
            poll_seconds=poll_seconds,
            max_body_bytes=max_body_mb * 2**20,
            max_requests=max_requests,
            max_batch_rows=max_batch,
            workers=workers,
            grace_seconds=grace_seconds,
        ),
    )


@app.command()
def tensorboard(
    runs: Annotated[Path, typer.Argument(help="A comparison's folder.")] = Path("runs"),
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes a free one.")] = 6006,
) -> None:
    """Open TensorBoard on a folder of runs (this machine only)."""
    if not runs.is_dir():
        raise UserError(f"no folder {runs}: give the --out of a comparison")
    arguments = ["-m", "tensorboard.main", "--logdir", str(runs), "--host", "127.0.0.1"]
    os.execv(sys.executable, [sys.executable, *arguments, "--port", str(port)])


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line.

    Args:
        arguments: Words after the program's name; None takes those it was called with.
    """
    # Before TensorFlow is imported: its start-up lines are noise beside one-line errors.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    warnings.formatwarning = lambda message, *_: f"keras-seq: warning: {message}\n"
    _add_tasks()
    try:
        app(args=arguments, prog_name="keras-seq", standalone_mode=True)
    except UserError as error:
        _stop(" ".join(str(error).split()))
    except (FileNotFoundError, PermissionError, OSError) as error:
        _stop(f"{error.strerror or error}: {error.filename or 'a file'}")


def _import_tensorflow() -> None:
    """Imports TensorFlow without the lines that its libraries print before logging is set up.

    They come from C++ and heed no option, so the file descriptor is turned away meanwhile; what
    was printed is shown if the import fails.
    """
    with tempfile.TemporaryFile() as printed:
        kept = os.dup(2)
        try:
            sys.stderr.flush()
            os.dup2(printed.fileno(), 2)
            import tensorflow  # noqa: F401
        except BaseException:
            printed.seek(0)
            os.write(kept, printed.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    # Retracing is told to the terminal as if it were the user's fault.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def _stop(message: str) -> None:
    print(f"keras-seq: error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
