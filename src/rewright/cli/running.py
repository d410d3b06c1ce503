"""Run, redo and check the stages of a run for the commands, and print its results."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import msgspec

from rewright.cli.output import as_text, print_json, stdout_for_json
from rewright.cli.program import command
from rewright.core.errors import InputError, RewrightError, StorageError
from rewright.core.progress import format_counts, say
from rewright.pipeline.memory_plan import Hardware
from rewright.pipeline.registry import Stage, get_stage, recipe_stages, run_order
from rewright.recipe.consent import consent, imported_code, recipe_code
from rewright.recipe.schema import Recipe

__all__ = [
    "check_start",
    "complete_stage",
    "named_code",
    "new_run_directory",
    "print_plan",
    "print_report",
    "print_results",
    "redo_stage",
    "resumes",
    "say_next",
    "stage_of_round",
    "start_run",
    "stored_settings",
]


def new_run_directory(path: Path, *, resume: bool) -> Path:
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


def resumes(folders: Sequence[Path], *, resume: bool) -> list[bool]:
    """Say of each run of a command with several whether it is continued: with `resume`, those that have begun.

    A run that an interruption has kept from beginning is a new one. If none has begun, all are said to be continued,
    which `check_start` refuses.
    """
    begun = [(folder / "recipe.yaml").exists() for folder in folders]
    return [resume and (one or not any(begun)) for one in begun]


def stored_settings(folder: Path, overrides: Sequence[str], trusted: Sequence[str]) -> Recipe:
    """The recipe in a run directory, with overrides. Raises InputError for code in it that is not `trusted`."""
    from rewright.pipeline.migration import stored_recipe
    from rewright.pipeline.run_directory import Run

    run = Run.open(folder, trusted=trusted)
    run.check_code()
    return stored_recipe(folder, overrides, trusted=trusted)


def check_start(recipe: Recipe, folder: Path, *, resume: bool) -> Any:
    """Raise InputError for what a stage of the run in `folder` would refuse later. Returns the checked context."""
    from rewright.pipeline.contamination import check_contamination
    from rewright.pipeline.preflight import check_run, say_left_out
    from rewright.pipeline.run_directory import Run

    before, _ = Run.check_place(folder, recipe, resume=resume)
    missing = [one for one in recipe_stages(recipe) if not (resume and before.is_done(one.name))]
    checked = check_run(recipe, before, missing)
    if not before.file("tasks.jsonl").exists():
        check_contamination(checked, missing)
    say_left_out(recipe)
    return checked


def start_run(recipe: Recipe, folder: Path, *, resume: bool, as_json: bool) -> Any:
    """Run the stages of a recipe in `folder`. Returns the run. Nothing is written for a mistake that is found before.

    `as_json`: keep standard output free for JSON.
    """
    from rewright.pipeline.run_directory import Run
    from rewright.pipeline.runner import Pipeline

    checked = check_start(recipe, folder, resume=resume)
    run = Run.create(folder, recipe, resume=resume)
    with run.locked(), _resume_hint_on_error(run), stdout_for_json(as_json):
        Pipeline(run, checked=checked).run_all()
    return run


@contextmanager
def _resume_hint_on_error(run: Any) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, RewrightError) as problem:
        if run.is_untouched():
            # Nothing has been generated, so there is nothing to go on with: the same command starts anew.
            if not isinstance(problem, InputError):
                say("stopped before anything was generated")
        else:
            say(f"stopped; what was done is saved: {_resume_hint(run)}")
        raise


def _resume_hint(run: Any) -> str:
    flags = [word for code in named_code(run) for word in ("--trusted", code)]
    return f"go on with {command('run', run.path, '--resume', *flags)}"


def named_code(run: Any) -> list[str]:
    """The packages, functions and words that `--trusted` must name for the recipe of a run."""
    code = [*recipe_code(run.recipe()), *imported_code(msgspec.to_builtins(run.recipe()))]
    return list(dict.fromkeys(consent(key, what) for key, what in code))


def stage_of_round(run: Any, stage: Stage, number: int) -> Stage:
    """The stage of a round of the run's recipe. Raises InputError for a round that the recipe does not have."""
    rounds = run.recipe().repair.rounds
    if not 1 <= number <= rounds:
        raise InputError(f"--round is {number}: {run.path} has repair.rounds: {rounds}: expected 1 to {rounds}")
    return stage if number == 1 else get_stage(f"{stage.name}_{number}")


def redo_stage(run: Any, stage: Stage) -> None:
    """Run a finished stage again. Its earlier results are kept until the new ones are complete."""
    from rewright.pipeline.preflight import check_run
    from rewright.pipeline.redo import Redo
    from rewright.pipeline.runner import redo

    checked = check_run(run.recipe(), run, [stage])
    try:
        redo(run, stage, checked=checked)
    except (KeyboardInterrupt, RewrightError):
        kept = (
            f"stopped; the earlier results of {stage.name} are as they were" if run.is_done(stage.name) else "stopped"
        )
        begun = Redo.pending(run, stage) is not None
        say(f"{kept}, and what was done is saved: {_resume_hint(run)}" if begun else kept)
        raise


def complete_stage(run: Any, stage: Stage) -> None:
    """Complete a stage. If an error stops it before anything is generated, its state is restored."""
    from rewright.pipeline.preflight import check_run
    from rewright.pipeline.rounds import run_of_round
    from rewright.pipeline.runner import Pipeline

    checked = check_run(run.recipe(), run, [stage])
    made = run_of_round(run, stage.round).trajectories
    pipeline, state, before = Pipeline(run, checked=checked), run.state(), made.keys_in_order()
    run.undo(stage.name)  # before running it, because a stage marked as done must have all its records if killed
    try:
        with _resume_hint_on_error(run):
            pipeline.run_stage(stage.name)
    except (KeyboardInterrupt, RewrightError):
        if made.keys_in_order() == before:
            run.write_json("state.json", state)
        raise


def print_plan(recipe: Recipe, *, as_json: bool, hardware: Hardware | None = None, resumed: Path | None = None) -> None:
    """Check the recipe for the stages that would run, and print what they would do (`--dry-run`). Writes nothing.

    Args:
        recipe: the recipe.
        as_json: print one JSON object.
        hardware: the GPUs of another machine, on which the stages must fit, and where the models are.
        resumed: the run directory that is continued; None: a new run, which has all stages.
    """
    from rewright.engines.sizes import for_another_machine
    from rewright.pipeline.contamination import check_contamination
    from rewright.pipeline.memory_plan import check_memory
    from rewright.pipeline.preflight import check_run, say_left_out
    from rewright.pipeline.run_directory import Run

    run = Run(Path("runs") / recipe.name)
    named = list(_named(recipe, recipe_stages(recipe)))
    if resumed is not None:
        run, _ = Run.check_place(resumed, recipe, resume=True, lock=False)
        named = [(stage, name) for stage, name in named if not run.is_done(stage.name)]
    chosen = [stage for stage, _ in named]
    with for_another_machine() if hardware is not None else nullcontext():
        context = check_run(recipe, run, chosen)
        check_contamination(context, chosen, details=True)
    say_left_out(recipe)
    memory = {} if hardware is None else check_memory(recipe, hardware)
    plan: dict[str, Any] = {
        "tasks": len(context.load_tasks()) if any(stage.uses_tasks for stage in chosen) else 0,
        "candidates": 0,
        "evaluated": 0,
        "stages": [stage.name if ":" not in name else name for stage, name in named],
        "model": recipe.model.path,
    }
    if recipe.tools.mcp:
        listed = context.listed_mcp_tools()
        plan["mcp"] = {name: [tool.shown for tool in tools] for name, tools in listed.items()}
    for stage in chosen:
        plan |= stage.plan(context) if stage.plan is not None else {}
    if memory:
        plan["gib_per_gpu"] = memory
    if as_json:
        print_json(plan)
    else:
        servers = plan.pop("mcp", {})
        plan |= {f"tools.mcp.{name}": ", ".join(tools) or "no tools" for name, tools in servers.items()}
        shown = {key: format_counts(value) if isinstance(value, dict) else value for key, value in plan.items()}
        print("\n".join(f"{key}: {value}" for key, value in shown.items()))


def _named(recipe: Recipe, chosen: Sequence[Stage]) -> Iterator[tuple[Stage, str]]:
    """The stages with the names that the recipe has for them; a stage of a later round has its own."""
    names = iter(recipe.stages)
    for stage in chosen:
        yield stage, stage.name if stage.round > 1 else next(names)


def say_next(run: Any, done: Stage) -> None:
    """Say the command of the stage that follows `done` in the recipe of a run, or the one that exports its sets."""
    recipe = run.recipe()
    chosen = {stage.name for stage in recipe_stages(recipe)}
    order = run_order(recipe)
    later = order[next(index for index, one in enumerate(order) if one.name == done.name) + 1 :]
    following = next((stage for stage in later if stage.name in chosen), None)
    trains_next = following is not None and following.trains is not None
    if done.trains is None and done.evaluates is None and (following is None or trains_next):
        training = f", or train with {command('run', run.path, '--resume')}" if trains_next else ""
        say(f"go on with {command('export', run.path, 'out')}{training}")
    elif following is not None and following.evaluates is not None:
        say(f"go on with {command('eval', run.path, '--model', following.evaluates)}")
    elif following is not None and following.verb is not None:
        more = () if following.round == 1 else ("--round", following.round)
        say(f"go on with {command(following.verb, run.path, *more)}")


def print_report(run: Any, *, as_json: bool) -> None:
    """Write the report of a run and print its table, or with `as_json` its results."""
    print_results([run], as_json=as_json)


def print_results(runs: Sequence[Any], *, as_json: bool) -> None:
    """Write the reports of runs and print their tables, or with `as_json` the results (of several runs: a list)."""
    from rewright.reports.report import write_report
    from rewright.reports.summary import report as summary
    from rewright.reports.table import table

    line, found = as_text(as_json), []
    for run in runs:
        found.append(summary(run, parallel=True))
        line(table(found[-1]))
        try:
            for written in write_report(run, found[-1]):
                line(f"written: {written}")
        except StorageError as problem:  # a run that may only be read, a full disk: the results can still be shown
            say(f"warning: {problem}")
        line(f"run directory: {run.path}")
        say(f"look at the run with {command('view', run.path)}")
    if as_json:
        print_json(found[0] if len(found) == 1 else found)
