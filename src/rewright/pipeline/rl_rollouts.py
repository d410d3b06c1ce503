"""The stored RL rollouts of a run: their tasks and steps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rewright.core.errors import RewrightError
from rewright.core.records import Task
from rewright.core.storage import read_strict
from rewright.recipe.schema import Recipe
from rewright.tasks.from_recipe import load_recipe_tasks

__all__ = ["rl_tasks", "step_of"]


def rl_tasks(folder: Path, recipe: Recipe | None) -> Iterable[Task]:
    """Return the tasks that RL trained on: those of the run, or of `rl.tasks` if they can be loaded."""
    settings = None if recipe is None else recipe.rl.tasks
    # A format given as an import path is code, which must not run without consent.
    if settings is not None and ":" not in settings.format:
        try:
            return load_recipe_tasks(settings)
        except RewrightError:
            pass
    path = folder / "tasks.jsonl"
    return [task for _, task in read_strict(path, Task)] if path.exists() else []


def step_of(identity: str) -> int | None:
    """Return the step (from 0) of an RL rollout, whose id is rl/TASK/STEP/PLACE, or None for any other id."""
    parts = identity.rsplit("/", 2)
    if len(parts) == 3 and identity.startswith("rl/") and parts[1].isdecimal():
        return int(parts[1])
    return None
