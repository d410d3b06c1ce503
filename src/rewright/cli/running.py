"""Run, redo and check the stages of a run for the commands, and print its results."""

from __future__ import annotations

import glob
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rewright.core.errors import InputError, RewrightError
from rewright.core.progress import say
from rewright.pipeline.registry import Stage, recipe_stages
from rewright.recipe.schema import Recipe

__all__ = ["complete_stage", "new_run_directory", "print_plan", "print_report", "redo_stage", "start_run"]


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


def start_run(recipe: Recipe, folder: Path, *, resume: bool, as_json: bool) -> None:
    """Run the stages of a recipe in `folder` and print the results. Nothing is written for a mistake found before."""
    from rewright.pipeline.preflight import check_run
    from rewright.pipeline.run_directory import Run
    from rewright.pipeline.runner import Pipeline

    before = Run(folder)
    missing = [one for one in recipe_stages(recipe) if not (resume and before.is_done(one.name))]
    checked = check_run(recipe, before, missing)
    run = Run.create(folder, recipe, resume=resume)
    with run.locked(), _resume_hint_on_error(run):
        Pipeline(run, checked=checked).run_all()
    print_report(run, as_json=as_json)


@contextmanager
def _resume_hint_on_error(run: Any) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, RewrightError) as problem:
        if not (isinstance(problem, InputError) and run.is_untouched()):
            say(f"stopped; what was done is saved: {_resume_hint(run)}")
        raise


def _resume_hint(run: Any) -> str:
    recipe, folder = shlex.quote(str(run.path / "recipe.yaml")), shlex.quote(str(run.path))
    return f"go on with rewright run {recipe} --run {folder} --resume"


def redo_stage(run: Any, stage: Stage) -> None:
    """Run a finished stage again. Its earlier results are kept until the new ones are complete."""
    from rewright.pipeline.preflight import check_run
    from rewright.pipeline.redo import Redo
    from rewright.pipeline.runner import redo

    check_run(run.recipe(), run, [stage])
    try:
        redo(run, stage)
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
    from rewright.pipeline.runner import Pipeline

    check_run(run.recipe(), run, [stage])
    pipeline, state, before = Pipeline(run), run.state(), run.trajectories.keys_in_order()
    run.undo(stage.name)  # before running it, because a stage marked as done must have all its records if killed
    try:
        with _resume_hint_on_error(run):
            pipeline.run_stage(stage.name)
    except (KeyboardInterrupt, RewrightError):
        if run.trajectories.keys_in_order() == before:
            run.write_json("state.json", state)
        raise


def print_plan(recipe: Recipe, *, as_json: bool) -> None:
    """Check the recipe for all of its stages and print what they would do (`--dry-run`)."""
    from rewright.pipeline.preflight import check_run
    from rewright.pipeline.run_directory import Run

    chosen = recipe_stages(recipe)
    context = check_run(recipe, Run(Path("runs") / recipe.name), chosen)
    plan: dict[str, Any] = {
        "tasks": len(context.load_tasks()) if any(stage.uses_tasks for stage in chosen) else 0,
        "candidates": 0,
        "evaluated": 0,
        "stages": list(recipe.stages),
        "model": recipe.model.path,
    }
    for stage in chosen:
        plan |= stage.plan(context) if stage.plan is not None else {}
    print(json.dumps(plan) if as_json else "\n".join(f"{key}: {value}" for key, value in plan.items()))


def print_report(run: Any, *, as_json: bool) -> None:
    """Write the report of a run and print its table."""
    from rewright.reports.report import write_report
    from rewright.reports.summary import report as summary
    from rewright.reports.table import table

    found = summary(run)
    print(table(found))
    for written in write_report(run, found):
        print(f"written: {written}")
    print(f"run directory: {run.path}")
    if as_json:
        print(json.dumps(found))
