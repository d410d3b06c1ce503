"""Load the tasks of a recipe's `tasks:` section."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from rewright.core.errors import InputError
from rewright.core.records import Task
from rewright.judging.base import missing_key
from rewright.judging.judges import check_judge, find_judge, judge_needs_consent
from rewright.tasks.formats import WorldFormat, find_format, judged
from rewright.tasks.loading import load_tasks
from rewright.tasks.settings import TaskSettings

__all__ = ["drawn_count", "draws_tasks", "load_recipe_tasks"]


def load_recipe_tasks(settings: TaskSettings, judges: Sequence[str] | None = None) -> list[Task]:
    """Load the tasks of a `tasks:` section.

    `judges` lists the packages whose functions the file may name as judges; None skips the check of judges. Raises
    InputError for a file that does not match the section.
    """
    tasks = _recipe_tasks(settings, judges)
    return tasks if settings.judge is None else [_judged_by(settings.judge, task, judges) for task in tasks]


def _judged_by(judge: str, task: Task, judges: Sequence[str] | None) -> Task:
    """Replace the task's judge by the recipe's. Raises InputError if the task lacks a key that the judge needs."""
    if judges is not None:
        check_judge(judge, judges)
    # Without a check of judges, a judge given as an import path is not trusted and must not be imported.
    needs = ("gold.answers",) if judges is None and ":" in judge else find_judge(judge).needs
    missing = missing_key(task, needs)
    if missing is not None:
        raise InputError(f"the recipe judges by {judge}, which needs {missing}, and task {task.id} has none")
    if judge != task.judge and judge_needs_consent(judge):
        raise InputError(f"the recipe judges by {judge}, which is for tasks of the format {judge}, not for {task.id}")
    return msgspec.structs.replace(task, judge=judge)


def _recipe_tasks(settings: TaskSettings, judges: Sequence[str] | None) -> list[Task]:
    chosen = find_format(settings.format, "tasks.format")
    if isinstance(chosen, WorldFormat):
        if settings.path is not None:
            raise InputError(
                f"tasks.path is {settings.path}, but tasks.format is {settings.format}, which makes its own tasks: "
                "expected tasks.format=rewright, or the published format that the file has"
            )
        drawn = chosen.generate(settings.split, drawn_count(settings), seed=settings.seed, profile=settings.profile)
        return list(judged(drawn, chosen))
    if settings.environment is not None:
        asked = {"name": settings.environment, "arguments": settings.arguments, "limit": settings.limit}
        return load_tasks(json.dumps(asked), format=settings.format, limit=settings.limit, judges=judges)
    if settings.path is None:
        if settings.format == "verifiers":
            raise InputError("tasks.environment is missing: expected the name of an installed environment")
        raise InputError(f"tasks.path is missing: expected a file in the format {settings.format}, as tasks=FILE")
    return load_tasks(settings.path, format=settings.format, limit=settings.limit, seed=settings.seed, judges=judges)


def draws_tasks(settings: TaskSettings) -> bool:
    """Return True if the tasks of a section are generated (`WorldFormat`). Raises InputError as `find_format` does."""
    return isinstance(find_format(settings.format, "tasks.format"), WorldFormat)


def drawn_count(settings: TaskSettings) -> int:
    """Return the number of tasks that a section with a `WorldFormat` generates."""
    return settings.count if settings.limit is None else min(settings.count, settings.limit)
