"""Compare the training tasks of a run with test questions and its own evaluation tasks, before the first stage.

Compared are questions (`rewright.tasks.contamination`) and, for environments such as tau2's, the names of the tools: a
training task that has most of a domain's tools is of that domain. Tasks of the official train split of tau2 are not
compared with tau2. An evaluation task of the recipe is among the training tasks if it is the same task.
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
from rewright.pipeline.context import Context, eval_settings
from rewright.pipeline.registry import Stage
from rewright.recipe.schema import Recipe
from rewright.tasks.contamination import find_overlaps, same_tasks
from rewright.tasks.from_recipe import draws_tasks
from rewright.tasks.settings import TaskSettings

__all__ = ["check_contamination", "contamination_lines"]

TOOL_SHARE: Final = 0.5
MIN_TOOLS: Final = 4
"""A task is of a domain if it has at least this share of the domain's tools, and at least this number of them."""


def check_contamination(
    context: Context, stages: Iterable[Stage], *, details: bool = False, tasks: Sequence[Task] | None = None
) -> None:
    """Warn of training tasks that are test questions of a benchmark or of `eval.tasks`, as `tasks.contamination` says.

    With `details`, what was compared and what could not be is said also if nothing was found. `tasks` are those of the
    section `tasks`, if they are in no file yet.

    Nothing is compared for stages that only evaluate. Tasks of the embedded worlds are compared with those of the same
    split in `eval.tasks` alone.
    Raises InputError with `error`, if there are any.
    """
    recipe, stages = context.recipe, list(stages)
    if all(stage.evaluates is not None for stage in stages):
        return
    for where, settings in (("tasks", recipe.tasks), ("rl.tasks", recipe.rl.tasks)):
        if settings is None or settings.contamination == "off":
            continue
        loaded = tasks if where == "tasks" else None
        found, compared = list[str](), list[str]()
        if _is_evaluated(recipe, stages, where, settings):
            loaded = context.load(settings, where) if loaded is None else loaded
            found += _evaluated_lines(loaded, context.load_eval_tasks(), where)
        if not draws_tasks(settings):
            loaded = context.load(settings, where) if loaded is None else loaded
            lines, compared = contamination_lines(loaded, where)
            found += lines
        if found and settings.contamination == "error":
            raise InputError(f"{found[0]}: expected other tasks, or {where}.contamination=warn")
        for line in [*found, *(compared if found or details else ())]:
            say(line)


def _is_evaluated(recipe: Recipe, stages: Sequence[Stage], where: str, settings: TaskSettings) -> bool:
    """Whether a policy is trained on the tasks of this section and evaluated on tasks that may be the same."""
    trained = {stage.base for stage in stages if stage.trains == "policy"}
    if recipe.rl.tasks is not None:  # `tasks` is not for RL
        trained = trained & {"rl"} if where == "rl.tasks" else trained - {"rl"}
    if recipe.sft.source == "demonstrations":
        trained -= {"sft"}
    if not trained or all(stage.evaluates is None for stage in stages):
        return False
    held_out = eval_settings(recipe)
    drawn = draws_tasks(settings), draws_tasks(held_out)
    same_split = (settings.format, settings.split) == (held_out.format, held_out.split)
    return same_split if any(drawn) else True


def _evaluated_lines(tasks: Sequence[Task], evaluated: Sequence[Task], where: str) -> list[str]:
    same = same_tasks(tasks, evaluated)
    if not same:
        return []
    one, other = same[0]
    return [
        f"{where}: contamination: {len(same)} of {len(evaluated)} tasks of eval.tasks are among the {len(tasks)} tasks "
        f"(word for word), such as evaluation task {one.id} and task {other.id}"
    ]


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
