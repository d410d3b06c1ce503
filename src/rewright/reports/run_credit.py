"""Read the trajectories of a run as input of credit computation, for `rewright credit RUN` and the page.

`group_of` defines which trajectories are compared with each other. The values that RL used are read from the stored
rollouts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rewright.core.errors import InputError, RewrightError
from rewright.core.records import Task, Trajectory, Verdict
from rewright.core.storage import read_strict
from rewright.credit import CreditTrajectory
from rewright.dialects.format_check import format_problem
from rewright.dialects.split import split_turn
from rewright.judging.judges import is_self_contained
from rewright.pipeline.migration import stored_recipe
from rewright.pipeline.registry import stages
from rewright.pipeline.rl_rollouts import rl_tasks, step_of
from rewright.recipe.schema import Recipe
from rewright.reports.stored_credit import Stored, prompt_text
from rewright.training.group_credit import verdict_for
from rewright.training.settings import RLSettings

__all__ = ["group_of", "read_run", "rollout_verdict", "stored_of"]


def group_of(trajectory: Trajectory, *, held_out: bool = False) -> str | None:
    """Return the group label of a trajectory: its task, and in RL also its step.

    Returns None for a trajectory without a group: a repair, an evaluation (`held_out`), and a trajectory with an
    infrastructure failure.
    """
    if held_out or trajectory.failure is not None or trajectory.provenance.parent is not None:
        return None
    step = step_of(trajectory.id)
    return trajectory.task_id if step is None else f"step {step + 1}, {trajectory.task_id}"


def stored_of(
    trajectory: Trajectory,
    task: Task | None,
    verdict: Verdict | None,
    dialect: str,
    *,
    held_out: bool = False,
    metric: str | None = None,
) -> Stored:
    """Convert one of Rewright's trajectories. `metric` names a verdict metric to use instead of its outcome.

    Raises InputError if the verdict has no such metric.
    """
    kept = trajectory.credit
    verdict = kept.verdict if kept is not None and kept.verdict is not None else verdict
    problem = format_problem(trajectory, dialect) if kept is None else kept.format_problem
    return Stored(
        id=trajectory.id,
        group=group_of(trajectory, held_out=held_out),
        turns=[list(turn.calls) for turn in trajectory.turns],
        texts=[" ".join(map(str.strip, split_turn(turn.opening + turn.text)[:2])).strip() for turn in trajectory.turns],
        prompt=prompt_text(list(task.messages)) if task is not None else "",
        golds=None if task is None or task.gold.calls is None else list(task.gold.calls),
        outcome=None if verdict is None else _outcome(verdict, metric),
        stage=trajectory.stage,
        task_id=trajectory.task_id,
        broken=trajectory.failure is not None,
        format_ok=problem is None,
        reward_model=None if kept is None else kept.reward_model,
        kept=kept,
        whole=CreditTrajectory.of(trajectory, task),
    )


def read_run(path: Path, *, metric: str | None = None) -> Iterator[Stored]:
    """Yield the candidates, repairs, evaluations and RL rollouts of a run directory or of one of its files.

    Gold calls come from the tasks, and outcomes from the verdicts beside the file (`metric` names another metric to
    use). Rollouts store their verdicts; those of older versions are judged here with built-in judges only. Raises
    InputError if files can't be read or there are no trajectories.
    """
    folder = path if path.is_dir() else path.parent.parent if path.parent.name == "evaluations" else path.parent
    evaluations = [
        folder / "evaluations" / f"{stage.evaluates}.jsonl" for stage in stages() if stage.evaluates is not None
    ]
    files = [folder / "trajectories.jsonl", *evaluations, folder / "rollouts.jsonl"] if path.is_dir() else [path]
    files = [file for file in files if file.exists()]
    if not files:
        raise InputError(f"{path}: has no trajectories.jsonl: expected a run directory or a file")
    recipe = stored_recipe(folder) if (folder / "recipe.yaml").exists() else Recipe()
    for file in files:
        if file.name == "rollouts.jsonl":
            yield from _rollouts(file, folder, recipe, metric)
            continue
        held_out = file.parent.name == "evaluations"
        tasks = _by_id(_read(folder / ("eval_tasks.jsonl" if held_out else "tasks.jsonl"), Task))
        verdict_file = file.with_name(f"{file.stem}.verdicts.jsonl" if held_out else "verdicts.jsonl")
        verdicts = {verdict.trajectory_id: verdict for verdict in _read(verdict_file, Verdict)}
        for trajectory in _read(file, Trajectory):
            verdict = verdicts.get(trajectory.id)
            yield stored_of(
                trajectory, tasks.get(trajectory.task_id), verdict, recipe.dialect, held_out=held_out, metric=metric
            )


def rollout_verdict(trajectory: Trajectory, task: Task | None, settings: RLSettings) -> Verdict | None:
    """Return the verdict that RL used. Rollouts of older versions are judged by built-in judges, if possible."""
    if trajectory.credit is not None:
        return trajectory.credit.verdict
    if task is None or trajectory.failure is not None:
        return None
    if settings.outcome == "judge" and not is_self_contained(task.judge):
        return None
    try:
        return verdict_for(task, trajectory, settings)
    except RewrightError:
        return None


def _rollouts(file: Path, folder: Path, recipe: Recipe, metric: str | None) -> Iterator[Stored]:
    tasks = _by_id(rl_tasks(folder, recipe))
    for trajectory in _read(file, Trajectory):
        task = tasks.get(trajectory.task_id)
        yield stored_of(trajectory, task, rollout_verdict(trajectory, task, recipe.rl), recipe.dialect, metric=metric)


def _outcome(verdict: Verdict, metric: str | None) -> float:
    if metric is None or metric == "outcome":
        return verdict.outcome
    if metric not in verdict.metrics:
        metrics = ", ".join(sorted(verdict.metrics)) or "none"
        raise InputError(f"the verdict of {verdict.trajectory_id} has no metric {metric!r}: it has {metrics}")
    return verdict.metrics[metric]


def _by_id(tasks: Iterable[Task]) -> Mapping[str, Task]:
    return {task.id: task for task in tasks}


def _read(path: Path, kind: type[Any]) -> Iterator[Any]:
    """Yield the records of a file. Yields nothing if the file does not exist."""
    if path.exists():
        yield from (record for _, record in read_strict(path, kind))
