"""Compare the training tasks of a run with the test questions of benchmarks, before the first stage.

Compared are questions (`rewright.tasks.contamination`) and, for environments such as tau2's, the names of the tools: a
training task that has most of a domain's tools is of that domain. Tasks of the official train split of tau2 are not
compared with tau2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from rewright.benchmarks.test_splits import TestSplits, read_test_splits
from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.core.records import Task
from rewright.pipeline.context import Context
from rewright.pipeline.registry import Stage
from rewright.tasks.contamination import find_overlaps
from rewright.tasks.from_recipe import draws_tasks

__all__ = ["check_contamination", "contamination_lines"]

TOOL_SHARE: Final = 0.5
MIN_TOOLS: Final = 4
"""A task is of a domain if it has at least this share of the domain's tools, and at least this number of them."""


def check_contamination(
    context: Context, stages: Iterable[Stage], *, details: bool = False, tasks: Sequence[Task] | None = None
) -> None:
    """Warn of training tasks that are test questions of a benchmark, as `tasks.contamination` wants it.

    With `details`, what was compared and what could not be is said also if nothing was found. `tasks` are those of the
    section `tasks`, if they are in no file yet.

    Nothing is compared for stages that only evaluate, and for the embedded worlds, which make tasks of their own.
    Raises InputError with `error`, if there are any.
    """
    recipe = context.recipe
    if all(stage.evaluates is not None for stage in stages):
        return
    for where, settings in (("tasks", recipe.tasks), ("rl.tasks", recipe.rl.tasks)):
        if settings is None or settings.contamination == "off" or draws_tasks(settings):
            continue
        given = tasks if where == "tasks" else None
        found, compared = contamination_lines(context.load(settings, where) if given is None else given, where)
        if found and settings.contamination == "error":
            raise InputError(f"{found[0]}: expected other tasks, or {where}.contamination=warn")
        for line in [*found, *(compared if found or details else ())]:
            say(line)


def contamination_lines(tasks: Sequence[Task], where: str) -> tuple[list[str], list[str]]:
    """Return one line for each benchmark whose test questions are among `tasks`, and what was compared."""
    splits = read_test_splits()
    pools: dict[str, list[Task]] = {name: [] for name in ("tau2", "others")}
    for name, each in splits.questions.items():
        pool = pools["tau2" if name == "tau2" else "others"]
        pool += (msgspec.structs.replace(task, id=f"{name}\0{task.id}", source=name) for task in each)
    outside = [task for task in tasks if not _is_for_training(task, splits)]
    overlaps = [*find_overlaps(tasks, pools["others"]), *find_overlaps(outside, pools["tau2"])]
    counts: Counter[str] = Counter()
    exact: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for overlap in overlaps:
        name, _, identity = overlap.test_id.partition("\0")
        counts[name] += 1
        exact[name] += overlap.kind == "exact"
        examples.setdefault(name, f"test task {identity} and task {overlap.train_id}")
    found = [
        f"{where}: contamination: {count} of {len(splits.questions[name])} test questions of {name} are among the "
        f"{len(tasks)} tasks ({exact[name]} word for word), such as {examples[name]}"
        for name, count in counts.items()
    ]
    for domain, names in splits.toolsets.items():
        same = [task for task in outside if _has_tools(task, names)]
        if same:
            found.append(
                f"{where}: contamination: {len(same)} of the {len(tasks)} tasks have the tools of {domain}, such as "
                f"task {same[0].id}: do not report this benchmark after training on them"
            )
    compared = [f"{where}: compared with the test questions of {', '.join(splits.questions) or 'no benchmark'}"]
    if splits.missing:
        compared[0] += f"; without data on this machine: {', '.join(splits.missing)} (docs/contamination.md)"
    return found, [*compared, *(f"{where}: not compared: {line}" for line in splits.unread)]


def _is_for_training(task: Task, splits: TestSplits) -> bool:
    """Whether a task is of tau2's official train split."""
    domain, identity = task.metadata.get("domain"), task.metadata.get("task")
    return task.source == "tau2" and f"{domain}/{identity}" in splits.trained


def _has_tools(task: Task, names: frozenset[str]) -> bool:
    shared = len(names & {tool.name for tool in task.all_tools})
    return shared >= max(MIN_TOOLS, TOOL_SHARE * len(names))
