"""`rw.load_logs`: logs from anywhere as tasks and trajectories."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rewright.api.in_memory import as_arguments, caller_level, row_file
from rewright.core.errors import InputError
from rewright.core.records import Task, Trajectory
from rewright.pipeline.imports import LogOptions, import_trajectories
from rewright.pipeline.run_directory import Run
from rewright.recipe.overrides import override_of

__all__ = ["Logs", "load_logs"]


class Logs(NamedTuple):
    """The tasks of a log, its trajectories, and their dialect."""

    tasks: list[Task]
    trajectories: list[Trajectory]
    dialect: str


def load_logs(
    logs: str | Path | Iterable[Mapping[str, Any]],
    *,
    tasks: str | Path | None = None,
    gold: str | Path | None = None,
    answer: str | None = None,
    outcome: str | Sequence[str] | None = None,
    format: str | None = None,  # noqa: A002
    strip_prefix: Sequence[str] = (),
) -> Logs:
    """Load logs of any source as trajectories, so that they can be judged, scored, repaired and built into sets.

    Args:
        logs: a file or folder that `rewright import` reads, or the rows of such a file.
        tasks: the file of the known tasks, in Rewright's format; default: tasks are made from the first messages and
            the tools seen, whose calls replay the recorded results.
        gold: a file of gold calls and answers, by id or question.
        answer: column of the gold answer; default: `answer`, `target` …; `none`: there is none.
        outcome: column of the outcome; several are summed; `none`: there is none. Default: `reward`.
        format: a registered importer or an import path; default: found by itself.
        strip_prefix: prefixes to remove from the names of tools, such as `functions.`.

    Returns:
        `tasks`, `trajectories` and their `dialect`. What a user should know about them is a `UserWarning`.

    Raises:
        InputError: a log that is not understood, with file and row.

    Example:
        ```python
        tasks, trajectories, _ = rw.load_logs("logs.jsonl", gold="gold.jsonl")
        cases = await rw.repair(trajectories, tasks, model="NAME", base_url=url, tools=[get_price])
        ```
    """
    options = LogOptions(
        [outcome] if isinstance(outcome, str) else list(outcome or ()),
        answer,
        None if gold is None else Path(gold),
        list(strip_prefix),
    )
    changes = [] if tasks is None else [override_of("tasks.path", str(tasks)), "tasks.format=rewright"]
    with tempfile.TemporaryDirectory(prefix="rewright-") as folder, row_file(logs, "logs") as path:
        try:
            found = import_trajectories(
                path, Path(folder) / "run", changes=changes, file_format=format, options=options, compare=False
            )
        except InputError as problem:
            raise InputError(as_arguments(str(problem))) from None
        run = Run.open(Path(folder) / "run")
        loaded = Logs(list(run.tasks), list(run.trajectories), run.recipe().dialect)
    for remark in found.remarks:
        warnings.warn(
            as_arguments(remark.removeprefix("warning: ").removeprefix("note: ")),
            UserWarning,
            stacklevel=caller_level(),
        )
    return loaded
