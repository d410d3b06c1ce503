"""`rw.load_tasks`: tasks from a file, a published set, an embedded world or a list of rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from rewright.api.settings import recipe_with
from rewright.core.errors import InputError
from rewright.core.records import Task
from rewright.core.registry import expected, find, known
from rewright.tasks.formats import RowFormat
from rewright.tasks.from_recipe import load_recipe_tasks, recipe_tasks_of_rows
from rewright.tasks.loading import DEFAULT_FORMAT
from rewright.tasks.rows import Row

__all__ = ["TasksLike", "as_task_list", "load_tasks"]

TasksLike: TypeAlias = str | Path | Iterable[Task | Mapping[str, Any]]
"""Tasks, rows in Rewright's task format, a task file, or the name of an embedded world."""


def load_tasks(
    source: TasksLike,
    format: str | None = None,  # noqa: A002
    *,
    limit: int | None = None,
    judge: str | None = None,
    judges: Sequence[str] = (),
    split: str | None = None,
    profile: str | None = None,
    count: int | None = None,
    seed: int | None = None,
) -> list[Task]:
    """Load and check tasks.

    Args:
        source: a task file (.jsonl, .json, .parquet), `hf:owner/name`, the name of an embedded world (`town`,
            `almanac`), or rows: dictionaries as they stand in a task file, a `datasets.Dataset`, or tasks.
        format: format of the file or of the rows, a registered name or an import path; default: Rewright's own.
        limit: maximum number of tasks.
        judge: judge of every task, instead of the one that the task or the format names.
        judges: packages whose functions the tasks may name as judges.
        split: of an embedded world: `train` or `heldout`.
        profile: of an embedded world: the difficulty.
        count: of an embedded world: the number of tasks.
        seed: seed of tasks that are drawn or generated.

    Returns:
        The tasks, in order.

    Raises:
        InputError: the first mistake, with file and line (or number of the row), key and what was expected.

    Example:
        ```python
        tasks = rw.load_tasks([
            {
                "id": "sum",
                "messages": [{"role": "user", "content": "What is 17 + 25?"}],
                "gold": {"answers": ["42"], "calls": [{"name": "add", "arguments": {"a": 17, "b": 25}}]},
            },
        ])
        drawn = rw.load_tasks("town", count=20, profile="short")
        ```
    """
    given = {"limit": limit, "judge": judge, "split": split, "profile": profile, "count": count, "seed": seed}
    section: dict[str, Any] = {f"tasks__{key}": value for key, value in given.items() if value is not None}
    if isinstance(source, str | Path):
        name = str(source)
        if format is None and name in known("task_format") and not isinstance(find("task_format", name), RowFormat):
            section["tasks__format"] = name
        elif format is None and re.fullmatch(r"[\w-]+", name) and not Path(name).exists():
            raise InputError(f"tasks: {name}: no such file, and no world: {expected('task_format', name)}")
        else:
            section |= {"tasks__format": format or DEFAULT_FORMAT, "tasks__path": name}
        return load_recipe_tasks(recipe_with(None, **section).tasks, tuple(judges))
    settings = recipe_with(None, **{"tasks__format": format or DEFAULT_FORMAT, **section}).tasks
    return recipe_tasks_of_rows(_rows(source), settings, tuple(judges))


def as_task_list(tasks: TasksLike) -> list[Task]:
    """Return tasks as they are, and load everything else as `load_tasks` does. Raises InputError for no task."""
    if isinstance(tasks, Task):
        raise InputError("tasks is a Task: expected a list of tasks")
    if not isinstance(tasks, str | Path | Mapping):
        found = list(tasks)
        if found and all(isinstance(task, Task) for task in found):
            known_tasks: list[Task] = found  # type: ignore[assignment]
            twice = [name for name, times in Counter(task.id for task in known_tasks).items() if times > 1]
            if twice:
                raise InputError(f"tasks: the id {twice[0]!r} is given twice: expected one of its own")
            return known_tasks
        if not found:
            raise InputError("tasks is empty: expected at least one task")
        tasks = found
    return load_tasks(tasks)


def _rows(source: Any) -> Iterable[Row]:
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise InputError(f"tasks is a {type(source).__name__}: expected a path, or a list of tasks")
    for index, value in enumerate(source):
        place = f"tasks[{index}]"
        if not isinstance(value, Mapping | Task):
            yield Row(index, place, {}, f"{place}: is a {type(value).__name__}, expected a task or a dictionary")
            continue
        try:
            values = msgspec.to_builtins(value if isinstance(value, Task) else dict(value))
        except (TypeError, ValueError, RecursionError) as problem:
            yield Row(index, place, {}, f"{place}: not a task: {problem}: expected values that JSON can hold")
            continue
        yield Row(index, place, values)
