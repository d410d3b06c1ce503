"""The command line. Results go to standard output, progress to standard error; user errors exit with code 2.

Commands only parse arguments and print results. The work is done by the stages, the pipeline and the libraries.
"""

from __future__ import annotations

import asyncio
import errno
import glob
import io
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

# By default, waiting OpenMP threads spin, which starves tool processes on machines with few cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Use the same matrix-product kernel for every shape, so that a row's result does not depend on its batch.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

import typer

from rewright import __version__
from rewright.cli import offline as commands
from rewright.cli import serve as serving
from rewright.cli import start as starting
from rewright.cli.benchmark_recipes import benchmark_recipe
from rewright.cli.offline import JsonOption, TrustedOption
from rewright.cli.program import command
from rewright.core.errors import InputError, RewrightError
from rewright.core.progress import format_counts, say
from rewright.core.registry import known
from rewright.pipeline.migration import written_recipe
from rewright.pipeline.registry import Stage, recipe_stages, stages
from rewright.recipe.loader import load_recipe
from rewright.recipe.schema import Recipe

__all__ = ["app", "main"]

app = typer.Typer(
    name="rewright",
    help="Trajectories, repair and turn-level credit for language models that use tools.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

USER_FIXABLE_ERRNOS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO, errno.EINVAL),
}
"""errno values that the user can fix with another path or permission; the exit code is then 2."""

RunOption = Annotated[Path | None, typer.Option("--run", help="Run directory (default: runs/<recipe name>).")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value …")]
LimitOption = Annotated[int | None, typer.Option(help="Maximum number of tasks (for training and held-out each).")]
ModelOption = Annotated[str | None, typer.Option(help="Model: pico, smollm2, a folder, or a Hugging Face id.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check recipe and tasks, print the plan and exit.")]
RunArgument = Annotated[Path, typer.Argument(help="Run directory.")]


@app.command()
def quickstart(
    overrides: Overrides = None,
    *,
    run: RunOption = None,
    seed: Annotated[int, typer.Option(help="Seed of the whole run.")] = 0,
    limit: LimitOption = None,
    model: ModelOption = None,
    resume: ResumeOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the whole pipeline, from tasks to RL, with the bundled pico model. Works offline and takes minutes."""
    recipe = load_recipe(_packaged("quickstart.yaml"), [*_settings(seed, limit, model), *(overrides or [])])
    if dry_run:
        _dry_run(recipe, as_json=as_json)
        return
    folder = run or _new_run_directory(Path("runs") / "quickstart", resume=resume)
    _run(recipe, folder, resume=resume, as_json=as_json)


@app.command(name="run")
def run_recipe(
    recipe: Annotated[Path, typer.Argument(help="Recipe file (YAML).")],
    overrides: Overrides = None,
    *,
    run: RunOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the whole run (default: the recipe's).")] = None,
    limit: LimitOption = None,
    model: ModelOption = None,
    resume: ResumeOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run all stages of a recipe."""
    settings = written_recipe(recipe, [*_settings(seed, limit, model), *(overrides or [])])
    if dry_run:
        _dry_run(settings, as_json=as_json)
        return
    _run(settings, run or Path("runs") / settings.name, resume=resume, as_json=as_json)


def _stage_verb(stage: Stage) -> None:
    def run_stage(run: RunArgument, trusted: TrustedOption = None, as_json: JsonOption = False) -> None:
        from rewright.pipeline.run_directory import Run

        opened = Run.open(run, trusted=trusted or ())
        opened.check_code()
        with opened.locked():
            if stage.redone:
                _redo(opened, stage)
            else:
                _complete_stage(opened, stage)
        _print_report(opened, as_json=as_json)

    app.command(name=stage.verb, help=stage.help)(run_stage)


for _stage in stages():
    if _stage.verb is not None:
        _stage_verb(_stage)


@app.command(name="eval")
def evaluate(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Run directory; with --benchmark: section.key=value …")
    ] = None,
    *,
    model: Annotated[
        str | None, typer.Option(help="Model of the run: base, sft or rl. With --benchmark: any model.")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="Name of a benchmark. The model is evaluated on it in a new run.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="With --benchmark: maximum number of tasks.")] = None,
    run: RunOption = None,
    resume: ResumeOption = False,
    trusted: TrustedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model of a run on the held-out tasks, or any model on a benchmark."""
    if benchmark is not None:
        if trusted:
            raise InputError("--trusted of eval is for a run directory: the recipe of --benchmark is Rewright's")
        recipe = benchmark_recipe(benchmark, model, limit, arguments or [])
        _run(
            recipe, run or _new_run_directory(Path("runs") / recipe.name, resume=resume), resume=resume, as_json=as_json
        )
        return
    if run is not None or limit is not None or resume:
        raise InputError("--run, --limit and --resume of eval need --benchmark")
    if arguments is None or len(arguments) != 1:
        raise InputError(
            f"eval: expected one run directory, or --benchmark with one of {', '.join(known('benchmark'))}"
        )
    _evaluate_run(Path(arguments[0]), model or "base", trusted or (), as_json=as_json)


def _evaluate_run(run: Path, model: str, trusted: Sequence[str], *, as_json: bool) -> None:
    from rewright.pipeline.run_directory import Run

    evaluations = {stage.evaluates: stage for stage in stages() if stage.evaluates is not None}
    if model not in evaluations:
        *others, last = evaluations
        raise InputError(f"--model is {model!r}: expected {', '.join(others)} or {last}")
    opened = Run.open(run, trusted=trusted)
    opened.check_code()
    with opened.locked():
        _redo(opened, evaluations[model])
    _print_report(opened, as_json=as_json)


@app.command()
def report(run: RunArgument, as_json: JsonOption = False) -> None:
    """Print the results table of a run."""
    from rewright.pipeline.run_directory import Run

    _print_report(Run.open(run), as_json=as_json)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


commands.register(app)
serving.register(app)
starting.register(app)


def _settings(seed: int | None, limit: int | None, model: str | None) -> list[str]:
    """Convert command-line options to recipe overrides."""
    if limit is not None and limit < 1:
        raise InputError(f"--limit is {limit}: expected at least 1")
    given = {"seed": seed, "tasks.limit": limit, "eval.tasks.limit": limit, "model.path": model}
    return [f"{key}={value}" for key, value in given.items() if value is not None]


def _packaged(name: str) -> Path:
    return Path(str(files("rewright.recipe"))) / name


def _new_run_directory(path: Path, *, resume: bool) -> Path:
    """Return `path`, with a numeric suffix if it exists. With `resume`, return the latest existing one."""
    numbered = [
        (one.name.removeprefix(f"{path.name}-"), one) for one in path.parent.glob(f"{glob.escape(path.name)}-*")
    ]
    taken = {int(number): one for number, one in numbered if number.isdecimal()}
    if path.exists():
        taken[1] = path
    if resume or not taken:
        return taken[max(taken)] if taken else path
    return path.with_name(f"{path.name}-{max(taken) + 1}")


def _run(recipe: Recipe, folder: Path, *, resume: bool, as_json: bool) -> None:
    from rewright.pipeline.preflight import check_stages
    from rewright.pipeline.run_directory import Run
    from rewright.pipeline.runner import Pipeline

    done = Run(folder)
    check_stages(recipe, [one for one in recipe_stages(recipe) if not (resume and done.is_done(one.name))])
    run = Run.create(folder, recipe, resume=resume)
    with run.locked(), _resume_hint_on_error(run):
        Pipeline(run).run_all()
    _print_report(run, as_json=as_json)


@contextmanager
def _resume_hint_on_error(run: Any) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, RewrightError) as problem:
        if not (isinstance(problem, InputError) and run.is_untouched()):
            say(f"stopped; what was done is saved: {_resume_hint(run)}")
        raise


def _resume_hint(run: Any) -> str:
    return f"go on with {command('run', run.path / 'recipe.yaml', '--run', run.path, '--resume')}"


def _redo(run: Any, stage: Stage) -> None:
    """Run a finished stage again. Its earlier results are kept until the new ones are complete."""
    from rewright.pipeline.preflight import check_stages
    from rewright.pipeline.redo import Redo
    from rewright.pipeline.runner import redo

    check_stages(run.recipe(), [stage])
    try:
        redo(run, stage)
    except (KeyboardInterrupt, RewrightError):
        kept = (
            f"stopped; the earlier results of {stage.name} are as they were" if run.is_done(stage.name) else "stopped"
        )
        begun = Redo.pending(run, stage) is not None
        say(f"{kept}, and what was done is saved: {_resume_hint(run)}" if begun else kept)
        raise


def _complete_stage(run: Any, stage: Stage) -> None:
    """Complete a stage. If an error stops it before anything is generated, its state is restored."""
    from rewright.pipeline.runner import Pipeline

    pipeline, state, before = Pipeline(run), run.state(), run.trajectories.keys_in_order()
    run.undo(stage.name)  # before running it, because a stage marked as done must have all its records if killed
    try:
        with _resume_hint_on_error(run):
            pipeline.run_stage(stage.name)
    except (KeyboardInterrupt, RewrightError):
        if run.trajectories.keys_in_order() == before:
            run.write_json("state.json", state)
        raise


def _dry_run(recipe: Recipe, *, as_json: bool) -> None:
    from rewright.pipeline.context import Context
    from rewright.pipeline.preflight import check_stages
    from rewright.pipeline.run_directory import Run

    context = Context(Run(Path(recipe.name)), recipe)  # validates estimator, dimensions and judges
    chosen = recipe_stages(recipe)
    check_stages(recipe, chosen)
    if any(stage.uses_tools for stage in chosen):
        asyncio.run(context.open_tools().close())  # fails for an invalid search index or server address
    plan: dict[str, Any] = {
        "tasks": len(context.load_tasks()) if any(stage.uses_tasks for stage in chosen) else 0,
        "candidates": 0,
        "evaluated": 0,
        "stages": list(recipe.stages),
        "model": recipe.model.path,
    }
    for stage in chosen:
        plan |= stage.plan(context) if stage.plan is not None else {}
        if stage.prepare is not None:
            stage.prepare(context)
    shown = {key: format_counts(value) if isinstance(value, dict) else value for key, value in plan.items()}
    print(json.dumps(plan) if as_json else "\n".join(f"{key}: {value}" for key, value in shown.items()))


def _print_report(run: Any, *, as_json: bool) -> None:
    from rewright.reports.report import write_report
    from rewright.reports.summary import report as summary
    from rewright.reports.table import table

    found = summary(run)
    print(table(found))
    for written in write_report(run, found):
        print(f"written: {written}")
    print(f"run directory: {run.path}")
    say(f"look at the run with {command('view', run.path)}")
    if as_json:
        print(json.dumps(found))


def main() -> None:
    """Console script. Errors print one line; the exit code is 2 for user errors, 1 for failures, 130 for Ctrl-C."""
    # Escape text that the encoding of standard output can't represent. `sys.stdout` is None if it is closed.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - open until the process ends
    try:
        _main()
    except OSError as problem:  # for example standard output on a full disk, or a missing permission
        what = problem.filename if problem.filename is not None else "standard output or a file"
        _print_error(f"{what}: {problem.strerror or problem}")
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - its buffer must not be flushed again at exit
        sys.exit(_exit_code(problem))


def _exit_code(problem: OSError) -> int:
    """Return exit code 2 if the user can fix the error, and 1 for a failure of the disk or machine."""
    return 2 if problem.errno in USER_FIXABLE_ERRNOS else 1


def _reject_empty(arguments: list[str]) -> None:
    """Raise InputError for an empty argument, as from an unset variable. As a path it would be the current folder."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if not argument.strip():
            raise InputError(f"the argument after {before or 'rewright'} is empty: expected a value")
        if re.fullmatch(r"--[\w-]+=\s*", argument):
            raise InputError(f"{argument.strip()} is empty: expected a value")


def _main() -> None:

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: the run continues without its terminal
        signal.signal(signal.SIGHUP, stop)
    # Like `python -m`, allow imports of custom judges, dimensions and tools from the current directory. It is appended
    # last, so that it does not shadow installed packages.
    with suppress(OSError):  # the current directory has been deleted
        if not {"", str(Path.cwd())} & set(sys.path):
            sys.path.append(str(Path.cwd()))
    started = time.monotonic()
    try:
        _reject_empty(sys.argv[1:])
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except InputError as problem:
        _print_error(problem)
        sys.exit(2)
    except RewrightError as problem:
        _print_error(problem)
        sys.exit(_exit_code(problem.__cause__) if isinstance(problem.__cause__, OSError) else 1)
    except Exception as problem:
        # Usage errors of click, such as an unknown command or a missing argument.
        if hasattr(problem, "format_message"):
            _print_error(problem.format_message() or "no command: expected one of those above")
            sys.exit(2)
        raise
    # Commands return None; an integer is an exit code, which typer returns for typer.Exit and Ctrl-C (130).
    if code == 130:
        say(f"interrupted after {time.monotonic() - started:.0f} s")
    sys.exit(code if isinstance(code, int) else 0)


def _print_error(problem: object) -> None:
    line = str(problem).splitlines()[0] if str(problem) else repr(problem)
    print(f"error: {line}", file=sys.stderr)
