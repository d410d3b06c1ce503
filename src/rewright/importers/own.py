"""Import trajectories in Rewright's own JSON Lines format, as stored by a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rewright.core.errors import InputError
from rewright.core.records import Task, Trajectory
from rewright.core.storage import read_strict
from rewright.core.strict_json import NestingError, nested_deeper
from rewright.importers.base import Importer
from rewright.importers.log_files import log_files_in
from rewright.tasks.rows import read_rows

__all__ = ["IMPORTER", "OWN", "is_own", "read_trajectories"]

OWN: Final = "rewright"
"""Name of this format."""


def is_own(path: Path) -> bool:
    """Whether a path is a run directory, or a file of Rewright's own trajectories.

    Raises InputError for a file that cannot be read.
    """
    if path.is_dir():
        return not log_files_in(path)
    if path.suffix.lower() == ".eval":
        return False
    first = next(iter(read_rows(path, lists="messages")))
    if first.problem is not None:
        raise InputError(first.problem)
    return "turns" in first.values and "task_id" in first.values


def read_trajectories(path: Path, tasks: Sequence[Task]) -> Iterator[Trajectory]:
    """Yield every trajectory of a file.

    Raises InputError for an invalid row, a task that is not in `tasks`, a duplicate id, and call arguments that are
    nested too deeply.
    """
    known = {task.id for task in tasks}
    first: dict[str, int] = {}
    for number, trajectory in read_strict(path, Trajectory):
        if trajectory.task_id not in known:
            raise InputError(f"{path}:{number}: unknown task {trajectory.task_id}: expected one of the recipe's tasks")
        if first.setdefault(trajectory.id, number) != number:
            raise InputError(
                f"{path}:{number}: the id {trajectory.id!r} is already used in line {first[trajectory.id]}"
            )
        if any(nested_deeper(call.arguments) for call in trajectory.calls):
            raise InputError(f"{path}:{number}: arguments of a call are {NestingError()}")
        yield trajectory


IMPORTER: Final = Importer(trajectories=read_trajectories)
