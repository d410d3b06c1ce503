"""Read the trajectories of a run as input of credit computation, for `rewright credit RUN` and the page.

`group_of` defines which trajectories are compared with each other. The values that RL used are read from the stored
rollouts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rewright.core.errors import InputError, RewrightError
from rewright.core.records import Task, Trajectory, Turn, Verdict
from rewright.core.storage import read_strict
from rewright.credit import CreditTrajectory
from rewright.dialects.format_check import format_problem
from rewright.dialects.split import split_turn
from rewright.judging.judges import is_self_contained
from rewright.judging.scores import own_states, turn_scores
from rewright.pipeline.migration import stored_recipe
from rewright.pipeline.rl_rollouts import rl_tasks, step_of
from rewright.pipeline.rounds import all_rounds
from rewright.pipeline.run_directory import Run
from rewright.recipe.schema import Recipe
from rewright.reports.stored_credit import Stored, prompt_text
from rewright.rollout.rewards import verdict_for
from rewright.tasks.sharing import SharedTools
from rewright.tasks.stored import StoredTasks
from rewright.training.settings import RLSettings

__all__ = ["Source", "group_of", "read_run", "rollout_verdict", "run_sources", "stored_of"]


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
    texts: bool = True,
    check_format: bool = True,
) -> Stored:
    """Convert one of Rewright's trajectories. `metric` names a verdict metric to use instead of its outcome.

    `texts`, `check_format`: False leaves out the texts of the turns or the check of the format, which take long.
    Raises InputError if the verdict has no such metric.
    """
    kept = trajectory.credit
    verdict = kept.verdict if kept is not None and kept.verdict is not None else verdict
    problem = None if kept is None else kept.format_problem
    if kept is None and check_format:
        problem = format_problem(trajectory, dialect)
    return Stored(
        id=trajectory.id,
        group=group_of(trajectory, held_out=held_out),
        turns=[list(turn.calls) for turn in trajectory.turns],
        texts=[_said(turn) if texts else "" for turn in trajectory.turns],
        prompt=prompt_text(list(task.messages)) if task is not None else "",
        golds=None if task is None else task.gold.calls,  # the same object for a group: they are read once
        outcome=None if verdict is None else _outcome(verdict, metric),
        stage=trajectory.stage,
        task_id=trajectory.task_id,
        broken=trajectory.failure is not None,
        is_repair=trajectory.provenance.parent is not None,
        format_ok=problem is None,
        reward_model=None if kept is None else kept.reward_model,
        kept=kept,
        whole=CreditTrajectory.of(
            trajectory,
            task,
            scores=None if task is None else partial(turn_scores, task, trajectory),
            own_states=None if task is None else partial(own_states, task, trajectory),
        ),
    )


def _said(turn: Turn) -> str:
    return " ".join(map(str.strip, split_turn(turn.opening + turn.text)[:2])).strip()


class Source(NamedTuple):
    """A file of trajectories, their tasks by id, and the file of their verdicts; None if they store them (rollouts)."""

    file: Path
    tasks: Mapping[str, Task]
    verdicts: Path | None
    held_out: bool

    def verdict(self, trajectory: Trajectory, stored: Verdict | None, settings: RLSettings) -> Verdict | None:
        """The verdict on a trajectory, given the one in the file of verdicts."""
        if self.verdicts is not None:
            return stored
        return rollout_verdict(trajectory, self.tasks.get(trajectory.task_id), settings)


def run_sources(path: Path) -> tuple[Recipe, Iterator[Source]]:
    """Return the recipe of a run directory, or of the run of one of its files, and the files of trajectories.

    Raises InputError if there are none.
    """
    folder = path if path.is_dir() else path.parent.parent if path.parent.name == "evaluations" else path.parent
    if folder.parent.name == "rounds":  # rounds/2/trajectories.jsonl
        folder = folder.parent.parent
    run = Run(folder)
    evaluations = [
        folder / "evaluations" / f"{stage.evaluates}.jsonl" for stage in run.stages() if stage.evaluates is not None
    ]
    candidates = [one.file("trajectories.jsonl") for one in all_rounds(run)]
    files = [*candidates, *evaluations, folder / "rollouts.jsonl"] if path.is_dir() else [path]
    files = [file for file in files if file.exists()]
    if not files:
        raise InputError(f"{path}: has no trajectories.jsonl: expected a run directory or a file")
    recipe = stored_recipe(folder) if (folder / "recipe.yaml").exists() else Recipe()

    def sources() -> Iterator[Source]:
        for file in files:
            if file.name == "rollouts.jsonl":
                yield Source(file, _by_id(rl_tasks(folder, recipe)), None, held_out=False)
                continue
            held_out = file.parent.name == "evaluations"
            tasks = StoredTasks(folder / ("eval_tasks.jsonl" if held_out else "tasks.jsonl"))
            verdicts = file.with_name(f"{file.stem}.verdicts.jsonl" if held_out else "verdicts.jsonl")
            yield Source(file, tasks, verdicts, held_out)

    return recipe, sources()


def read_run(path: Path, *, metric: str | None = None) -> Iterator[Stored]:
    """Yield the candidates, repairs, evaluations and RL rollouts of a run directory or of one of its files.

    Gold calls come from the tasks, and outcomes from the verdicts beside the file (`metric` names another metric to
    use). Rollouts store their verdicts; those of older versions are judged here with built-in judges only. Raises
    InputError if files can't be read or there are no trajectories.
    """
    recipe, sources = run_sources(path)
    for source in sources:
        verdicts = (
            {} if source.verdicts is None else {one.trajectory_id: one for one in _read(source.verdicts, Verdict)}
        )
        for trajectory in _read(source.file, Trajectory):
            verdict = source.verdict(trajectory, verdicts.get(trajectory.id), recipe.rl)
            yield stored_of(
                trajectory,
                source.tasks.get(trajectory.task_id),
                verdict,
                recipe.dialect,
                held_out=source.held_out,
                metric=metric,
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


def _outcome(verdict: Verdict, metric: str | None) -> float:
    if metric is None or metric == "outcome":
        return verdict.outcome
    if metric not in verdict.metrics:
        metrics = ", ".join(sorted(verdict.metrics)) or "none"
        raise InputError(f"the verdict of {verdict.trajectory_id} has no metric {metric!r}: it has {metrics}")
    return verdict.metrics[metric]


def _by_id(tasks: Iterable[Task]) -> Mapping[str, Task]:
    shared = SharedTools()
    return {task.id: shared.of(task) for task in tasks}


def _read(path: Path, kind: type[Any]) -> Iterator[Any]:
    """Yield the records of a file. Yields nothing if the file does not exist."""
    if path.exists():
        yield from (record for _, record in read_strict(path, kind))
