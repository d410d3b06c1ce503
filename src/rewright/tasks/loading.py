"""Task files, and everything else that tasks are loaded from, by the name of its format.

`load_tasks("tasks.jsonl")` · `load_tasks("test.parquet", "my_format")` · `load_tasks("hf:owner/set", "my_format")`.
Formats are registered (`rewright.tasks.formats`). Every mistake in a file is one `InputError` line with file, line or
row, key, and what was expected. What needs the tools to run is checked by `rewright.tasks.validation`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from rewright.core.errors import InputError
from rewright.core.records import Task
from rewright.tasks.formats import PackageFormat, RowFormat, WorldFormat, find_format, judged
from rewright.tasks.rows import Row, read_rows

__all__ = ["DEFAULT_FORMAT", "Loaded", "check_tasks", "iterate_tasks", "load_tasks", "save_tasks"]

DEFAULT_FORMAT = "rewright"


def load_tasks(
    path: Path | str,
    format: str | None = None,  # noqa: A002
    limit: int | None = None,
    *,
    check: bool = True,
    seed: int = 0,
    judges: Sequence[str] | None = None,
) -> list[Task]:
    """The tasks of a file, at most the first `limit`.

    `format` is the name of a registered one or an import path; None means our own. `path` may be `hf:<id>[:<split>]`.
    With `check`, the gold of a file must fit the tools, and with `judges` its judges must be among them (see
    `check_tasks`). `seed` is for tasks that a package makes. Raises InputError for the first mistake.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}, expected at least 1")
    tasks: list[Task] = []
    places: list[str] = []
    for loaded in iterate_tasks(path, format, seed):
        if isinstance(loaded.task, InputError):
            raise loaded.task
        tasks.append(loaded.task)
        places.append(loaded.place)
        if len(tasks) == limit:
            break
    if not tasks:
        raise InputError(f"{path}: holds no task in the format {format or DEFAULT_FORMAT!r}")
    if check and isinstance(find_format(format or DEFAULT_FORMAT), RowFormat):
        check_tasks(tasks, places, judges=judges)
    return tasks


class Loaded(msgspec.Struct, frozen=True):
    """What one row of a file is: a task, or what is wrong with it. `row` counts from 0, `place` names it."""

    row: int
    place: str
    task: Task | InputError


def iterate_tasks(
    path: Path | str,
    format: str | None = None,  # noqa: A002
    seed: int = 0,
) -> Iterator[Loaded]:
    """Every row of a file. A mistake in a row is its `task`; a file that can't be read raises InputError."""
    name = format or DEFAULT_FORMAT
    chosen = find_format(name)
    if isinstance(chosen, WorldFormat):
        raise InputError(f"{path}: format {name} draws its own tasks and reads no file: expected the file's format")
    if isinstance(chosen, PackageFormat):
        for number, made in enumerate(judged(chosen.tasks(str(path), seed), chosen)):
            yield Loaded(number, f"{name} {path}: task {number}", made)
        return
    for row in _hub_rows(str(path), chosen) if str(path).startswith("hf:") else read_rows(path, chosen.columns):
        try:
            task = chosen.to_task(row) if row.problem is None else InputError(row.problem)
        except InputError as problem:
            task = problem
        if task is not None:
            yield Loaded(row.index, row.place, next(judged([task], chosen)) if isinstance(task, Task) else task)


def check_tasks(
    tasks: Sequence[Task], places: Sequence[str] | None = None, *, judges: Sequence[str] | None = None
) -> None:
    """Raise InputError for the first mistake that needs nothing but the records to be seen.

    That is: an id used twice, a tool name used twice in one task, a gold call to an unknown tool, a gold argument
    against the tool's schema, expected outputs of an unknown tool, a target that no file may name. With `judges`, the
    user's own packages: a judge that is neither ours nor a function of one of these.
    """
    from rewright.judging.judges import check_judge
    from rewright.tasks.schemas import record_problems, target_problems

    first: dict[str, int] = {}
    for number, task in enumerate(tasks):
        place = places[number] if places else f"task {task.id}"
        if task.id in first:
            earlier = places[first[task.id]] if places else f"task number {first[task.id]}"
            raise InputError(f"{place}: the id {task.id!r} is used already by {earlier}; expected one of its own")
        first[task.id] = number
        for _, message in (*target_problems(task), *record_problems(task)):
            raise InputError(f"{place}: {message}")
        if judges is not None:
            try:
                check_judge(task.judge, judges)
            except InputError as problem:
                raise InputError(f"{place}: {problem}") from None


def save_tasks(path: Path | str, tasks: Sequence[Task]) -> None:
    """Write tasks in our own format, one JSON object a line."""
    encoder = msgspec.json.Encoder()
    Path(path).write_bytes(b"".join(encoder.encode(task) + b"\n" for task in tasks))


def _hub_rows(path: str, chosen: RowFormat) -> Iterator[Row]:
    """Rows of a data set of the Hugging Face hub (package `datasets`, from its cache or online)."""
    identity, _, split = path.removeprefix("hf:").partition(":")
    configuration = None
    if chosen.hub is not None and identity in ("", chosen.hub[0]):
        identity, configuration = chosen.hub[0], chosen.hub[1]
        split = split or chosen.hub[2]
    if not identity:
        raise InputError(f"{path}: expected hf:<owner>/<name>, this format has no default")
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(f"{path}: reading from the hub needs the package datasets: pip install datasets") from None
    try:
        rows = load_dataset(identity, configuration, split=split or "test")
    except Exception as problem:
        lines = str(problem).splitlines() or [type(problem).__name__]
        raise InputError(f"{path}: could not be loaded from the hub: {lines[0]}") from problem
    for index, values in enumerate(rows):
        yield Row(index, f"{path}: row {index}", json.loads(json.dumps(values, default=str)))
