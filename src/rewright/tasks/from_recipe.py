"""The tasks of a `tasks:` section."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rewright.core.errors import InputError
from rewright.core.records import Task
from rewright.judging.base import lacking
from rewright.judging.judges import check_judge, find_judge
from rewright.tasks.formats import WorldFormat, find_format, judged
from rewright.tasks.loading import load_tasks
from rewright.tasks.settings import TaskSettings

__all__ = ["drawn_count", "draws_tasks", "load_recipe_tasks"]


def load_recipe_tasks(settings: TaskSettings, judges: Sequence[str] | None = None) -> list[Task]:
    """The tasks of a `tasks:` section. Raises InputError for a file that is not what the section says.

    `judges`: packages of the user's own whose functions the file may name as judges; None: judges are not looked at.
    """
    tasks = _recipe_tasks(settings, judges)
    return tasks if settings.judge is None else [_judged_by(settings.judge, task, judges) for task in tasks]


def _judged_by(judge: str, task: Task, judges: Sequence[str] | None) -> Task:
    """The task with the judge that the recipe names. Raises InputError where that judge has nothing to compare with."""
    if judges is not None:
        check_judge(judge, judges)
    # Where judges are not looked at, nobody has allowed the import of one that is code.
    needs = ("gold.answers",) if judges is None and ":" in judge else find_judge(judge).needs
    missing = lacking(task, needs)
    if missing is not None:
        raise InputError(f"the recipe judges by {judge}, which needs {missing}, and task {task.id} has none")
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
    if settings.path is None:
        raise InputError(f"tasks.path is missing: expected a file in the format {settings.format}, as tasks=FILE")
    return load_tasks(settings.path, format=settings.format, limit=settings.limit, seed=settings.seed, judges=judges)


def draws_tasks(settings: TaskSettings) -> bool:
    """Whether the tasks of a section are drawn (`WorldFormat`): then it has no path. Raises as `find_format`."""
    return isinstance(find_format(settings.format, "tasks.format"), WorldFormat)


def drawn_count(settings: TaskSettings) -> int:
    """How many tasks a section draws, where its tasks are drawn."""
    return settings.count if settings.limit is None else min(settings.count, settings.limit)
