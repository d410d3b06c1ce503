"""The command line. Results go to standard output, progress to standard error; user errors exit with code 2.

Commands only parse arguments and print results. The work is done by the stages, the pipeline and the libraries.
"""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import sys
import time
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

# By default, waiting OpenMP threads spin, which starves tool processes on machines with few cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Use the same matrix-product kernel for every shape, so that a row's result does not depend on its batch.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

import typer

from rewright import __version__
from rewright.cli import audit as auditing
from rewright.cli import check_batch, compare, doctor, evaluate
from rewright.cli import offline as commands
from rewright.cli import plan as planning
from rewright.cli import probe as probing
from rewright.cli import serve as serving
from rewright.cli import start as starting
from rewright.cli import view as viewing
from rewright.cli.offline import JsonOption, TrustedOption
from rewright.cli.plan import GpuMemoryOption, GpusOption
from rewright.cli.running import (
    complete_stage,
    new_run_directory,
    print_plan,
    print_report,
    redo_stage,
    say_next,
    stage_of_round,
    start_run,
    stored_settings,
)
from rewright.cli.shards import RayOption, is_sharded_run, redo_shards, with_ray_address
from rewright.core.errors import InputError, RewrightError
from rewright.core.progress import say
from rewright.pipeline.migration import written_recipe
from rewright.pipeline.registry import Stage, stages
from rewright.recipe.loader import load_recipe
from rewright.recipe.overrides import override_of
from rewright.recipe.schema import Recipe

__all__ = ["app", "main"]

app = typer.Typer(
    name="rewright",
    no_args_is_help=True,
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
RoundOption = Annotated[int, typer.Option("--round", help="The round, of a run with repair.rounds.", metavar="N")]
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
        print_plan(recipe, as_json=as_json)
        return
    folder = run or new_run_directory(Path("runs") / "quickstart", resume=resume)
    print_report(start_run(recipe, folder, resume=resume, as_json=as_json), as_json=as_json)


@app.command(name="run")
def run_recipe(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE|RUN", help="Recipe file (YAML), or a run directory.")],
    overrides: Overrides = None,
    *,
    run: RunOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the whole run (default: the recipe's).")] = None,
    limit: LimitOption = None,
    model: ModelOption = None,
    resume: ResumeOption = False,
    trusted: TrustedOption = None,
    dry_run: DryRunOption = False,
    gpus: GpusOption = None,
    gpu_memory: GpuMemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run all stages of a recipe. `run RUN --resume` continues a run with the recipe in its directory."""
    stored = recipe.is_dir() and (recipe / "recipe.yaml").exists()
    if trusted and not stored:
        raise InputError("--trusted of run is for a run directory, whose recipe may name code: a recipe file is yours")

    def load(*more: str) -> Recipe:
        settings = [*_settings(seed, limit, model), *more, *(overrides or [])]
        return stored_settings(recipe, settings, trusted or ()) if stored else written_recipe(recipe, settings)

    chosen = load()
    if limit is not None and chosen.rl.tasks is not None:  # RL has training tasks of its own
        chosen = load(f"rl.tasks.limit={limit}")
    folder = run or (recipe if stored else Path("runs") / chosen.name)
    other_machine = gpus is not None or gpu_memory is not None
    if other_machine and not dry_run:
        raise InputError("--gpus and --gpu-memory describe another machine: they need --dry-run")
    if dry_run:
        hardware = planning.hardware_of(chosen, gpus, gpu_memory) if other_machine else None
        print_plan(chosen, as_json=as_json, hardware=hardware, resumed=folder if resume or stored else None)
        return
    print_report(start_run(chosen, folder, resume=resume, as_json=as_json), as_json=as_json)


def _stage_verb(stage: Stage) -> None:
    def run_stage(run: RunArgument, trusted: TrustedOption = None, as_json: JsonOption = False) -> None:
        on_run(run, trusted, as_json=as_json)

    def run_round(
        run: RunArgument, number: RoundOption = 1, trusted: TrustedOption = None, as_json: JsonOption = False
    ) -> None:
        on_run(run, trusted, number=number, as_json=as_json)

    def run_shards(
        run: RunArgument,
        number: RoundOption = 1,
        trusted: TrustedOption = None,
        ray: RayOption = None,
        as_json: JsonOption = False,
    ) -> None:
        on_run(run, trusted, ray, number=number, as_json=as_json)

    def on_run(run: Path, trusted: list[str] | None, ray: str | None = None, *, number: int = 1, as_json: bool) -> None:
        from rewright.pipeline.run_directory import Run

        opened = Run.open(run, trusted=trusted or ())
        opened.check_code()
        chosen = stage_of_round(opened, stage, number)
        sharded = is_sharded_run(run, ray)
        with opened.locked():
            if sharded:
                redo_shards(opened, str(stage.verb), trusted or (), ray, as_json=as_json)
                return
            if chosen.redone:
                redo_stage(opened, chosen)
            else:
                complete_stage(opened, chosen)
        print_report(opened, as_json=as_json)
        say_next(opened, chosen)

    verb = run_shards if stage.verb in {"judge", "score"} else run_round if stage.repeated else run_stage
    app.command(name=stage.verb, help=stage.help)(verb)


for _stage in stages():
    if _stage.verb is not None:
        _stage_verb(_stage)


@app.command()
def report(run: RunArgument, as_json: JsonOption = False) -> None:
    """Print the results table of a run."""
    from rewright.pipeline.run_directory import Run

    print_report(Run.open(run), as_json=as_json)


def _print_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Trajectories, repair and turn-level credit for language models that use tools."""


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


commands.register(app)
check_batch.register(app)
auditing.register(app)
viewing.register(app)
serving.register(app)
starting.register(app)
evaluate.register(app)
compare.register(app)
planning.register(app)
probing.register(app)
doctor.register(app)


def _settings(seed: int | None, limit: int | None, model: str | None) -> list[str]:
    """Convert command-line options to recipe overrides."""
    if limit is not None and limit < 1:
        raise InputError(f"--limit is {limit}: expected at least 1")
    given = {"seed": seed, "tasks.limit": limit, "eval.tasks.limit": limit, "model.path": model}
    return [override_of(key, value) for key, value in given.items() if value is not None]


def _packaged(name: str) -> Path:
    return Path(str(files("rewright.recipe"))) / name


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
        # As Ctrl-C, which an event loop takes for the end of its main task. Raised in the middle of another task, it
        # would be printed as that task's error.
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):  # ignored, as in the background
            raise KeyboardInterrupt
        interrupt(signal.SIGINT, frame)

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
        code = app(with_ray_address(sys.argv[1:]), prog_name="rewright", standalone_mode=False)
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
            words = " ".join(str(problem.format_message()).split()) or "no command: expected one of those above"
            _print_error(f"{words}{_about_settings(words)}")
            sys.exit(2)
        raise
    # Commands return None; an integer is an exit code, which typer returns for typer.Exit and Ctrl-C (130).
    if code == 130:
        say(f"interrupted after {time.monotonic() - started:.0f} s")
    sys.exit(code if isinstance(code, int) else 0)


def _about_settings(words: str) -> str:
    """What to do instead of giving a setting to a command that takes none, such as `rewright repair RUN KEY=VALUE`."""
    _, found, rest = words.partition("unexpected extra argument")
    return ": the settings of a run are in its recipe.yaml; change them there" if found and "=" in rest else ""


def _print_error(problem: object) -> None:
    line = str(problem).splitlines()[0] if str(problem) else repr(problem)
    print(f"error: {line}", file=sys.stderr)
