"""What a format of tasks is: where tasks come from, and how they are made. Registered as kind `task_format`.

A format is one object, in a file of its own, under the name that `tasks.format` and `rewright validate --format` take:

    register("task_format", "mine", RowFormat(to_task, columns=("question", "answer"), judge="exact"))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from rewright.core.errors import InputError
from rewright.core.records import Task
from rewright.core.registry import find
from rewright.tasks.rows import Row

__all__ = ["PackageFormat", "RowFormat", "TaskFormat", "WorldFormat", "find_format", "judged"]


class RowFormat(msgspec.Struct, frozen=True):
    """Tasks in a file (JSON Lines, JSON, parquet) or a data set of the Hugging Face hub, one in each row."""

    to_task: Callable[[Row], Task | None]
    """The task of a row; None leaves the row out. A mistake is raised as `row.fail(message)`."""
    columns: tuple[str, ...] = ()
    """Columns that a parquet file must have."""
    hub: tuple[str, str | None, str] | None = None
    """Hugging Face id, configuration and split of the published set, for `hf:` without an id."""
    judge: str | None = None
    """The judge of every task; None: `to_task` says."""


class PackageFormat(msgspec.Struct, frozen=True):
    """Tasks that an installed package brings. `tasks.path` says which; they are not checked against their tools."""

    tasks: Callable[[str, int], Iterable[Task]]
    """The tasks of a selection (`tasks.path`) and a seed (`tasks.seed`). Raises InputError for an unknown one."""
    judge: str | None = None


class WorldFormat(msgspec.Struct, frozen=True):
    """Tasks that are drawn, as many as the recipe asks for (`tasks.count`); there is no `tasks.path`."""

    generate: Callable[..., Iterator[Task]]
    """`generate(split, count, seed=…, profile=…)`, from the keys of the `tasks` section."""
    judge: str | None = None


TaskFormat = RowFormat | PackageFormat | WorldFormat


def find_format(name: str, setting: str | None = None) -> TaskFormat:
    """The format of that name or import path. A bare function is that of a `RowFormat`.

    `setting`: what an error names as the place. Raises InputError for an unknown name, and for what is no format.
    """
    found = find("task_format", name, setting=setting)
    if isinstance(found, TaskFormat):
        return found
    if not callable(found) or isinstance(found, type):
        where = f"{setting}: " if setting else ""
        raise InputError(f"{where}task format {name!r} is {found!r:.60}: expected a RowFormat or a function of rows")
    return RowFormat(found)


def judged(tasks: Iterable[Task], chosen: TaskFormat) -> Iterator[Task]:
    """The tasks with the judge of their format, where it names one."""
    for task in tasks:
        yield task if chosen.judge is None else msgspec.structs.replace(task, judge=chosen.judge)
