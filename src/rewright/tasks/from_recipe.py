"""Load the tasks of a recipe's `tasks:` section: those of one source, or of a mixture of several."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

import msgspec

from rewright.core.errors import InputError, MissingDataError
from rewright.core.records import CLUSTER, Task, label_of
from rewright.judging.base import how_to_give, missing_key
from rewright.judging.judges import check_judge, find_judge, judge_needs_consent
from rewright.tasks.formats import WorldFormat, find_format, judged
from rewright.tasks.loading import checked_tasks, tasks_of_rows
from rewright.tasks.rows import Row
from rewright.tasks.settings import SourceSettings, TaskSettings, task_sources

__all__ = [
    "MIXTURE_SOURCE",
    "cluster_label",
    "drawn_count",
    "draws_tasks",
    "each_recipe_task",
    "judged_by",
    "load_recipe_tasks",
    "mixture_order",
    "recipe_tasks_of_rows",
    "source_counts",
]

MIXTURE_SOURCE: Final = "mixture_source"
"""The key of a task's `metadata` with the name of its source in a mixture."""


def load_recipe_tasks(
    settings: TaskSettings, judges: Sequence[str] | None = None, *, where: str = "tasks"
) -> list[Task]:
    """Load the tasks of a `tasks:` section.

    In a mixture the id of a task is `SOURCE/ID`, and its `metadata.mixture_source` is the name of the source. The tasks
    are in the order of `mixture_order`, and `limit` takes the first ones.

    `judges` lists the packages whose functions the file may name as judges; None skips the check of judges. `where` is
    the name of the section in errors. Raises InputError for a file that does not match the section, and for a source of
    a mixture that contributes no task.
    """
    return list(each_recipe_task(settings, judges, where=where))


def each_recipe_task(
    settings: TaskSettings, judges: Sequence[str] | None = None, *, where: str = "tasks"
) -> Iterable[Task]:
    """Same as `load_recipe_tasks`, one by one if they are the tasks of one file."""
    if not settings.sources:
        return _source_tasks(settings, judges, where)
    loaded = [list(_source_tasks(source, judges, place)) for place, source in task_sources(settings, where)]
    order = mixture_order([len(tasks) for tasks in loaded], [source.weight for source in settings.sources])
    contributing = {source for source, _ in order}
    for number in range(len(loaded)):
        if number not in contributing:
            raise InputError(
                f"{where}.sources[{number}] contributes no task: its weight is {settings.sources[number].weight:g}, a "
                f"share of less than one of {len(order)} tasks: expected a larger weight, or more tasks of the others"
            )
    found = [_of_source(settings.sources[source].label, loaded[source][index]) for source, index in order]
    found = found[: settings.limit]
    if settings.judge is None:
        return found
    own = {source.label for source in settings.sources if source.judge is not None}
    return [task if task.metadata[MIXTURE_SOURCE] in own else judged_by(settings.judge, task, judges) for task in found]


def mixture_order(sizes: Sequence[int], weights: Sequence[float | None]) -> list[tuple[int, int]]:
    """Return the order of a mixture as (source, index of the task in its source). Every task occurs at most once.

    With weights, the source that is used up first, relative to its weight, contributes all of its tasks, and the others
    in proportion, rounded. Without weights, every source contributes all of its tasks. The tasks of each source are in
    order and evenly spread, so that every beginning of the mixture has nearly the same proportions.
    """
    shares = [
        Fraction(size) if weight is None else Fraction(repr(weight))
        for size, weight in zip(sizes, weights, strict=True)
    ]
    end = min(size / share for size, share in zip(sizes, shares, strict=True))
    # The middle of the j-th task of a source, on a scale on which all sources have the same length.
    places = [
        ((index + Fraction(1, 2)) / share, source, index)
        for source, (size, share) in enumerate(zip(sizes, shares, strict=True))
        for index in range(size)
    ]
    return [(source, index) for place, source, index in sorted(places) if place <= end]


def cluster_label(metadata: Mapping[str, Any]) -> str:
    """Return the cluster of a task by its `metadata`; "": none.

    Numbers are counted by each source of a mixture for itself, so that equal ones of two sources are two clusters.
    Names, such as those of a benchmark whose categories are variants of the same tasks, are one.
    """
    label, source = label_of(metadata, CLUSTER), metadata.get(MIXTURE_SOURCE)
    return f"{source}/{label}" if source is not None and label.isdecimal() else label


def source_counts(tasks: Sequence[Task]) -> dict[str, int]:
    """Return the number of tasks of each source of a mixture; empty if `tasks` are of one source."""
    return dict(Counter(str(task.metadata[MIXTURE_SOURCE]) for task in tasks if MIXTURE_SOURCE in task.metadata))


def _of_source(name: str, task: Task) -> Task:
    return msgspec.structs.replace(
        task,
        id=f"{name}/{task.id}",
        source=task.source or name,
        metadata={**task.metadata, MIXTURE_SOURCE: name},
    )


def _source_tasks(settings: SourceSettings, judges: Sequence[str] | None, where: str) -> Iterator[Task]:
    for task in _recipe_tasks(settings, judges, where):
        yield task if settings.judge is None else judged_by(settings.judge, task, judges)


def recipe_tasks_of_rows(
    rows: Iterable[Row], settings: TaskSettings, judges: Sequence[str] | None = None
) -> list[Task]:
    """Convert rows that are in no file, as `load_recipe_tasks` does with the file of the section."""
    tasks = tasks_of_rows(rows, settings.format, settings.limit, judges=judges)
    return tasks if settings.judge is None else [judged_by(settings.judge, task, judges) for task in tasks]


def judged_by(judge: str, task: Task, judges: Sequence[str] | None = None) -> Task:
    """Replace the task's judge by the recipe's. Raises InputError if the task lacks a key that the judge needs."""
    if judges is not None:
        check_judge(judge, judges)
    # Without a check of judges, a judge given as an import path is not trusted and must not be imported.
    needs = ("gold.answers",) if judges is None and ":" in judge else find_judge(judge).needs
    missing = missing_key(task, needs)
    if missing is not None:
        what = f"the recipe judges by {judge}, which needs {missing}, and task {task.id} has none"
        raise InputError(what + how_to_give(task, missing))
    if judge != task.judge and judge_needs_consent(judge):
        raise InputError(f"the recipe judges by {judge}, which is for tasks of the format {judge}, not for {task.id}")
    return msgspec.structs.replace(task, judge=judge)


def _recipe_tasks(settings: SourceSettings, judges: Sequence[str] | None, where: str) -> Iterable[Task]:
    chosen = find_format(settings.format, f"{where}.format")
    if isinstance(chosen, WorldFormat):
        if settings.path is not None:
            raise InputError(
                f"{where}.path is {settings.path}, but {where}.format is {settings.format}, which makes its own tasks: "
                f"expected {where}.format=rewright, or the published format that the file has"
            )
        drawn = chosen.generate(settings.split, drawn_count(settings), seed=settings.seed, profile=settings.profile)
        return judged(drawn, chosen)
    if settings.environment is not None:
        asked = {"name": settings.environment, "arguments": settings.arguments, "limit": settings.limit}
        return checked_tasks(json.dumps(asked), settings.format, settings.limit, judges=judges)
    if settings.path is None:
        if settings.format == "verifiers":
            raise InputError(f"{where}.environment is missing: expected the name of an installed environment")
        raise MissingDataError(
            f"{where}.path is missing: expected a file in the format {settings.format}, as {where}=FILE"
        )
    return checked_tasks(settings.path, settings.format, settings.limit, seed=settings.seed, judges=judges)


def draws_tasks(settings: TaskSettings) -> bool:
    """Return True if the tasks of a section are generated (`WorldFormat`); False for a mixture.

    Raises like `find_format`.
    """
    return not settings.sources and isinstance(find_format(settings.format, "tasks.format"), WorldFormat)


def drawn_count(settings: SourceSettings) -> int:
    """Return the number of tasks that a section with a `WorldFormat` generates."""
    return settings.count if settings.limit is None else min(settings.count, settings.limit)
