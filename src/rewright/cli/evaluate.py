"""The command eval: a model on the held-out tasks of a run, on a task file, or on benchmarks."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from rewright.cli.benchmark_recipes import benchmark_recipe, saying_where_to_get
from rewright.cli.offline import JsonOption, TrustedOption
from rewright.cli.running import check_start, new_run_directory, print_results, redo_stage, resumes, start_run
from rewright.cli.suites import evaluate_suite
from rewright.core.errors import InputError
from rewright.core.registry import known
from rewright.engines.pico import PICO_MODELS
from rewright.engines.settings import ModelSettings
from rewright.pipeline.registry import stages
from rewright.recipe.loader import load_recipe
from rewright.recipe.overrides import override_of
from rewright.recipe.schema import Recipe

if TYPE_CHECKING:  # importing it takes time that other commands need not wait for
    from rewright.pipeline.run_directory import Run

__all__ = ["register"]

SHIPPED = (*PICO_MODELS, "smollm2")


def register(app: typer.Typer) -> None:
    """Add the command of this module to the app."""
    app.command(name="eval")(evaluate)


def evaluate(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN|TASKFILE] [section.key=value]...",
            help="Run directory, or task file (also hf:owner/name); then settings of the new run.",
        ),
    ] = None,
    *,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE|PATH|NAME",
            help="A stage of the run (base, sft, rl), a folder, pico, smollm2, a Hugging Face id or a served model. "
            "stage:NAME and name:NAME say which of two readings is meant. Default: base of the run, else pico.",
        ),
    ] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="Name of a benchmark, evaluated in a new run. Repeatable.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="All benchmarks of a paper and its table: matchtir or autotraj.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="BENCHMARK=PATH", help="File of a benchmark of --suite, also FORMAT:PATH. Repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Maximum number of tasks of each new run.")] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Directory of the new run (default: runs/NAME).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted evaluation.")] = False,
    trusted: TrustedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model on the held-out tasks of a run, on a task file, on benchmarks, or on a suite of them.

    `eval RUN --model sft` evaluates a stage of the run on its held-out tasks again. A task file, a benchmark or another
    model makes a new run. `--trusted` of a task file stands for `sandbox.trusted` and `judges` of that run.
    """
    from rewright.pipeline.run_directory import Run

    place, overrides = _place(what or [])
    opened = Run.open(place, trusted=trusted or ()) if isinstance(place, Path) else None
    if trusted and place is None:
        raise InputError("--trusted of eval is for a run directory or a task file, which may name code")
    if limit is not None and limit < 1:
        raise InputError(f"--limit is {limit}: expected at least 1")
    stage, chosen = _model(model, opened)
    names = benchmark or []
    if isinstance(place, str) and names:
        raise InputError(f"eval: {place} and --benchmark {names[0]}: expected a task file or benchmarks, not both")
    if suite is not None and (names or isinstance(place, str)):
        raise InputError(f"eval: --suite {suite} and {names[0] if names else place}: expected one of them")
    if data and suite is None:
        raise InputError(f"--data {data[0]} is for --suite: expected eval.tasks.path=PATH for a single benchmark")
    if suite is not None:
        settings = _model_settings(opened, stage, chosen)
        evaluate_suite(
            suite, settings, overrides, data=data or (), limit=limit, run=run, resume=resume, as_json=as_json
        )
        return
    if not names and place is None:
        raise InputError(
            "eval: nothing to evaluate on: expected a run directory, a task file, or --benchmark with one of "
            f"{', '.join(known('benchmark'))}"
        )
    if opened is not None and not names and stage is not None:
        _again(opened, stage, overrides, new=run is not None or limit is not None or resume, as_json=as_json)
        return
    if len(names) > 1 and run is not None:
        raise InputError(
            f"eval: --run {run} is one directory, and there are {len(names)} benchmarks: expected one each"
        )
    if len({*names}) < len(names):
        raise InputError("eval: a --benchmark is given twice: expected each once")
    settings = _model_settings(opened, stage, chosen)
    if trusted and opened is None:  # a task file, whose tools and judges may be code
        settings += [override_of(key, list(trusted)) for key in ("sandbox.trusted", "judges")]
    recipes = [benchmark_recipe(name, None, limit, [*settings, *overrides]) for name in names]
    if not names:
        recipes = [_recipe(place, opened, limit, [*settings, *overrides])]
    folders = [run or new_run_directory(Path("runs") / recipe.name, resume=resume) for recipe in recipes]
    chosen_runs = list(zip(recipes, folders, resumes(folders, resume=resume), strict=True))
    for recipe, folder, begun in chosen_runs:
        with saying_where_to_get(recipe.eval.benchmark):
            check_start(recipe, folder, resume=begun)  # of all, before the first one runs
    runs = [start_run(recipe, folder, resume=begun, as_json=as_json) for recipe, folder, begun in chosen_runs]
    print_results(runs, as_json=as_json)


def _place(arguments: Sequence[str]) -> tuple[Path | str | None, list[str]]:
    """The run directory (a Path) or the task file (a text) of the arguments, and the settings behind it."""
    if not arguments:
        return None, []
    first, *others = arguments
    is_setting = "=" in first and not first.startswith("hf:")
    if is_setting and Path(first).exists():
        key, _, value = first.partition("=")
        raise InputError(
            f"eval: {first} is the file {first} and the setting {key} with the value {value}: expected ./{first} for "
            f"the file, or {key}={value!r} where no such file is"
        )
    if is_setting:
        return None, list(arguments)
    other = next((one for one in others if "=" not in one), None)
    if other is not None:
        raise InputError(f"eval: {first} and {other}: expected one run directory or task file, then settings")
    if first.startswith("hf:"):
        return first, others
    path = Path(first)
    if path.is_dir():
        return path, others
    if path.exists():
        return first, others
    if first in known("benchmark"):
        raise InputError(f"eval: there is no file or run {first}, and it is a benchmark: expected --benchmark {first}")
    if path.suffix:
        raise InputError(f"eval: {first}: no such file: expected a run directory or a task file")
    raise InputError(f"eval: {first} is not a run directory: there is none: expected a run directory or a task file")


def _model(model: str | None, run: Run | None) -> tuple[str | None, str | None]:
    """(stage of the run, path or name) that `--model` says; one of them is None, or both without `--model`.

    Raises InputError for a word with two readings, with both.
    """
    rounds = 1 if run is None else run.rounds
    labels = [str(stage.evaluates) for stage in stages(rounds) if stage.evaluates is not None]
    *others, last = labels
    if model is None:
        return (labels[0], None) if run is not None else (None, None)
    kind, colon, name = model.partition(":")
    if colon and kind == "stage":
        if run is None:
            raise InputError(f"--model {model} names a stage, and there is no run: expected eval RUN --model {name}")
        if name not in labels:
            raise InputError(f"--model is {model!r}: expected stage: with {', '.join(others)} or {last}")
        return name, None
    if colon and kind == "name":
        return None, name
    is_folder = Path(model).is_dir()
    if model in SHIPPED and is_folder:
        raise InputError(
            f"--model {model} is the model {model} that Rewright names and the folder ./{model}: expected "
            f"name:{model} or ./{model}"
        )
    if model in labels and run is not None:
        if is_folder:
            raise InputError(
                f"--model {model} is the stage {model} of {run.path} and the folder ./{model}: expected stage:{model} "
                f"or ./{model}"
            )
        return model, None
    if model in labels and not is_folder:
        raise InputError(
            f"--model {model} is a stage of a run, and there is no run: expected eval RUN --model {model}, a folder, "
            f"or name:{model}"
        )
    if run is not None and not is_folder and difflib.get_close_matches(model, labels, n=1, cutoff=0.7):
        raise InputError(
            f"--model is {model!r}: expected {', '.join(others)} or {last}, or name:{model} for a model of that name"
        )
    return None, model


def _again(run: Run, label: str, overrides: Sequence[str], *, new: bool, as_json: bool) -> None:
    """Evaluate a stage of a run again on its held-out tasks."""
    if new:
        raise InputError("--run, --limit and --resume of eval are for a new run: expected --benchmark, or a task file")
    if overrides:
        raise InputError(f"eval: {overrides[0]}: the held-out tasks of {run.path} are evaluated with its own recipe")
    stage = next(stage for stage in run.stages() if stage.evaluates == label)
    run.check_code()
    with run.locked():
        redo_stage(run, stage)
    print_results([run], as_json=as_json)


def _model_settings(run: Run | None, stage: str | None, chosen: str | None) -> list[str]:
    """The overrides of a new run that set its model, and what the run with the model says of it."""
    if chosen is not None and run is None:
        return [override_of("model.path", chosen)]
    if run is None:
        return []
    recipe = run.recipe()
    if chosen is None:
        model = msgspec.to_builtins(recipe.model if stage is None else _trained(run, stage))
    elif recipe.model.engine == "hf" or Path(chosen).is_dir():
        model = {"path": chosen}
    else:  # another model on the same server
        model = {**msgspec.to_builtins(recipe.model), "path": chosen, "tokenizer": None}
    return [override_of("model", model), override_of("dialect", recipe.dialect)]


def _trained(run: Run, stage: str) -> ModelSettings:
    from rewright.pipeline.context import Context
    from rewright.pipeline.stages.policy import policy

    if stage != "base" and not run.is_done(stage):
        raise InputError(f"{run.path}: no model of stage {stage} to evaluate: run that stage first")
    return policy(Context(run, run.recipe()), stage)


def _recipe(place: Path | str | None, run: Run | None, limit: int | None, settings: Sequence[str]) -> Recipe:
    """The recipe of one evaluation: of a task file, or of another model on the held-out tasks of a run."""
    limited = [] if limit is None else [f"eval.tasks.limit={limit}"]
    if run is not None:
        from rewright.pipeline.migration import stored_recipe

        run.check_code()
        own = [override_of("name", f"{run.path.resolve().name}-eval"), "stages=[eval_base]"]
        return stored_recipe(run.path, [*own, *limited, *settings], trusted=run.trusted)
    name = Path(str(place).removeprefix("hf:")).name.partition(".")[0].lstrip(".") or "tasks"
    file = [
        override_of("name", f"{name}-eval"),
        "stages=[eval_base]",
        "model.path=pico",
        override_of("eval.tasks", {"path": str(place)}),
    ]
    return load_recipe(None, [*file, *limited, *settings])
