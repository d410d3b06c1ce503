"""The tasks of a `tasks:` section."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rewright.core.records import Task
from rewright.pipeline.context import _judged_by, _recipe_tasks
from rewright.tasks.settings import WORLD_FORMATS, TaskSettings
from rewright.tasks.worlds import almanac, town

__all__ = ["WORLDS", "load_recipe_tasks"]


WORLDS: dict[str, Callable[..., Iterator[Task]]] = dict(
    zip(WORLD_FORMATS, (town.generate, almanac.generate), strict=True)
)
"""Formats whose tasks are generated, not read."""


def load_recipe_tasks(settings: TaskSettings, judges: Sequence[str] | None = None) -> list[Task]:
    """The tasks of a `tasks:` section. Raises InputError for a file that is not what the section says.

    `judges`: packages of the user's own whose functions the file may name as judges; None: judges are not looked at.
    """
    tasks = _recipe_tasks(settings, judges)
    return tasks if settings.judge is None else [_judged_by(settings.judge, task, judges) for task in tasks]
