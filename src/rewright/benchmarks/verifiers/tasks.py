"""Format `verifiers`: the tasks and tools of an installed environment of verifiers (0.4), judged by its rubric.

    tasks: {format: verifiers, environment: my_env, arguments: {split: train}}

`tasks.path=my_env` is the same without arguments. The tools of each trajectory run in a worker process of its own. What
the environment is, is code: it runs because the recipe or the command line names it. A task file cannot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.core.records import Gold, Task, ToolSpec
from rewright.tasks.formats import PackageFormat
from rewright.workers import pool

__all__ = ["FORMAT", "INSTALL", "TARGET", "WORKER", "tasks"]

INSTALL: Final = "pip install verifiers"
TARGET: Final = "rewright.benchmarks.verifiers.world:call"
WORKER: Final = "rewright.benchmarks.verifiers.worker"
LOAD_SECONDS: Final = 600.0
"""Time limit of loading an environment, which may download its data."""


def tasks(name: str, arguments: Mapping[str, Any] | None = None, limit: int | None = None) -> Iterator[Task]:
    """Yield the tasks of the environment `name`, at most `limit`; 100 of one without an end if there is no limit.

    `arguments` are the fields of its configuration. Raises InputError if verifiers or the environment is not installed,
    for an invalid argument, and for an environment that needs more than prompt, tools and rubric.
    """
    given = dict(arguments or {})
    try:
        reply = pool.call_unguarded(
            WORKER, {"ask": "load", "name": name, "arguments": given, "limit": limit}, LOAD_SECONDS
        )
    except pool.RequestError as problem:
        raise InputError(f"environment {name!r} of verifiers cannot be loaded: {problem}") from None
    if "missing" in reply:
        raise InputError(f"format verifiers needs the package verifiers ({reply['missing']}): {INSTALL}")
    problem_text = reply.get("problem", reply.get("raised"))
    if problem_text is not None:
        raise InputError(f"environment {name!r} of verifiers cannot be used: {problem_text}")
    for number, row in enumerate(reply["tasks"]):
        identity = {"environment": name, "arguments": given, "task": row["data"]}
        yield Task(
            id=f"verifiers-{name}-{number}",
            messages=tuple(row["messages"]),
            tools=tuple(
                ToolSpec(schema, target=TARGET, data={**identity, "tool": schema["function"]["name"]})
                for schema in row["tools"]
            ),
            gold=Gold(answers=None if row["answer"] is None else (row["answer"],)),
            source=f"verifiers/{name}",
            judge="verifiers",
            metadata=identity,
        )


def _selected(selection: str, seed: int) -> Iterator[Task]:
    """Yield the tasks of an environment, given its name or the JSON of the recipe's keys."""
    if not selection.startswith("{"):
        return tasks(selection)
    return tasks(**json.loads(selection))


FORMAT = PackageFormat(_selected)
