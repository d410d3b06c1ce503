"""Select the trajectories of evaluations and RL that the page shows. The page states the selection rules.

- Evaluations: held-out tasks with the first trajectory of every evaluated model side by side. Tasks on which the models
  differ come first, in file order.
- RL: for the first and the last stored step, the first group with right and wrong rollouts (else the first group), with
  two right and two wrong rollouts and the group's credit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rewright.core.errors import InputError
from rewright.core.records import Task, Trajectory, Verdict
from rewright.core.storage import read_jsonl
from rewright.pipeline.registry import stages
from rewright.pipeline.rl_rollouts import rl_tasks, step_of
from rewright.pipeline.run_directory import Run
from rewright.recipe.schema import Recipe
from rewright.reports.examples import Attempt, credited_by_id, heads
from rewright.reports.run_credit import rollout_verdict, stored_of
from rewright.training.settings import RLSettings

__all__ = ["Shown", "read_evaluations", "read_rollouts"]

MAX_EVALUATION_TASKS: Final = 6
"""Number of held-out tasks."""
ROLLOUTS_PER_KIND: Final = 2
"""Number of right and of wrong rollouts per group."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Trajectories of one task to show side by side, each with a title."""

    label: str
    task: Task | None
    attempts: list[tuple[str, Attempt]]
    note: str = ""


def read_evaluations(run: Run, settings: RLSettings, dialect: str, count: int = MAX_EVALUATION_TASKS) -> list[Shown]:
    """Return at most `count` held-out tasks, each with a trajectory of every evaluated model."""
    folder = run.path / "evaluations"
    titles = {stage.evaluates: stage.title for stage in stages() if stage.evaluates is not None}
    files = {label: folder / f"{label}.jsonl" for label in titles if (folder / f"{label}.jsonl").exists()}
    first: dict[str, dict[str, str]] = {}
    for label, path in files.items():
        for head in heads(path):
            first.setdefault(head.task_id, {}).setdefault(label, head.id)
    verdicts = {label: _verdicts(folder / f"{label}.verdicts.jsonl") for label in files}

    def differ(ids: Mapping[str, str]) -> bool:
        right = {verdicts[label][key].correct for label, key in ids.items() if key in verdicts[label]}
        return len(right) > 1

    chosen = sorted(first, key=lambda key: not differ(first[key]))[:count]
    wanted = {first[key][label] for key in chosen for label in first[key]}
    whole = {
        trajectory.id: trajectory
        for path in files.values()
        for _, trajectory in read_jsonl(path, Trajectory)
        if trajectory.id in wanted
    }
    tasks = {task.id: task for task in run.eval_tasks if task.id in chosen}
    shown = []
    for key in chosen:
        attempts = []
        for label, identity in first[key].items():
            verdict = verdicts[label].get(identity)
            attempt_list = _attempts([whole[identity]], [verdict], tasks.get(key), settings, dialect, held_out=True)
            attempts += [(titles[label], attempt) for attempt in attempt_list]
        shown.append(Shown("evaluation", tasks.get(key), attempts))
    return shown


def read_rollouts(run: Run, settings: RLSettings, dialect: str) -> list[Shown]:
    """Return one group of rollouts of the first stored step of RL and one of the last."""
    steps = sorted({step for head in heads(run.rollouts.path) if (step := step_of(head.id)) is not None})
    if not steps:
        return []
    wanted = sorted({steps[0], steps[-1]})
    groups: dict[tuple[int, str], list[Trajectory]] = {}
    for rollout in run.rollouts:
        step = step_of(rollout.id)
        if step in wanted:
            groups.setdefault((step, rollout.task_id), []).append(rollout)
    ids = {task_id for _, task_id in groups}
    tasks = {task.id: task for task in rl_tasks(run.path, _recipe(run)) if task.id in ids}
    groups_shown = []
    for step in wanted:
        candidates = [
            (tasks.get(task_id), group) for (group_step, task_id), group in groups.items() if group_step == step
        ]
        judged = [
            (task, group, [rollout_verdict(trajectory, task, settings) for trajectory in group])
            for task, group in candidates
        ]
        mixed = (entry for entry in judged if len({verdict.correct for verdict in entry[2] if verdict is not None}) > 1)
        task, group, verdicts = next(mixed, judged[0])
        attempts = _attempts(group, verdicts, task, settings, dialect)
        right = [index for index, verdict in enumerate(verdicts) if verdict is not None and verdict.correct]
        right = right[:ROLLOUTS_PER_KIND]
        others = [index for index, verdict in enumerate(verdicts) if verdict is None or not verdict.correct]
        picked = sorted([*right, *others[: 2 * ROLLOUTS_PER_KIND - len(right)]])
        is_stored = all(trajectory.credit is not None for trajectory in group)
        source = "" if is_stored else ", computed for the page: RL stored no credit"
        note = f"step {step + 1} of {steps[-1] + 1}, {len(picked)} of {len(group)} rollouts{source}"
        shown = [(f"Rollout {index + 1}", attempts[index]) for index in picked]
        groups_shown.append(Shown("rollout", task, shown, note))
    return groups_shown


def _verdicts(path: Path) -> dict[str, Verdict]:
    return {verdict.trajectory_id: verdict for _, verdict in read_jsonl(path, Verdict)} if path.exists() else {}


def _recipe(run: Run) -> Recipe | None:
    try:
        return run.recipe()
    except InputError:  # a recipe of another version
        return None


def _attempts(
    trajectories: Sequence[Trajectory],
    verdicts: Sequence[Verdict | None],
    task: Task | None,
    settings: RLSettings,
    dialect: str,
    *,
    held_out: bool = False,
) -> list[Attempt]:
    """Return the trajectories of one task with their credit."""
    pairs = list(zip(trajectories, verdicts, strict=True))
    credited = credited_by_id(
        [stored_of(trajectory, task, verdict, dialect, held_out=held_out) for trajectory, verdict in pairs], settings
    )
    return [Attempt(trajectory, verdict, credited.get(trajectory.id)) for trajectory, verdict in pairs]
