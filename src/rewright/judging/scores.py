"""Scores and names of the states of a trajectory, before its turns and after each.

Scores, for the credit signal `score`, say how far it is. They come from the task's judge, if it has them
(`TrajectoryJudge.scores`), else from the expected tool outputs of the task (`gold.outputs`): the share of the expected
answers that a result of their own tool contains, by FTRL's rule. Names, for estimators with `state_key: own`, are those
of the task's judge (`TrajectoryJudge.states`).
"""

from __future__ import annotations

from collections.abc import Hashable

from rewright.core.records import Task, Trajectory
from rewright.core.registry import find, known
from rewright.core.trust import is_builtin_path
from rewright.judging.base import TrajectoryJudge
from rewright.judging.solve import solves

__all__ = ["own_states", "turn_scores"]


def turn_scores(task: Task, trajectory: Trajectory) -> list[float | None] | None:
    """Return T + 1 scores, before the first turn and after each; None if nothing scores the task's states.

    Only Rewright's own judges are asked. Raises as they do.
    """
    judge = _trajectory_judge(task)
    if judge is not None and judge.scores is not None and is_builtin_path(judge.scores.__module__):
        return judge.scores(task, trajectory)
    return _shares(task, trajectory) if any((task.gold.outputs or {}).values()) else None


def own_states(task: Task, trajectory: Trajectory) -> list[Hashable] | None:
    """Return the environment's names of the states before each turn, T; None if nothing names the task's states.

    Only Rewright's own judges are asked. Raises as they do.
    """
    judge = _trajectory_judge(task)
    if judge is None or judge.states is None or not is_builtin_path(judge.states.__module__):
        return None
    return judge.states(task, trajectory)


def _trajectory_judge(task: Task) -> TrajectoryJudge | None:
    judge = find("judge", task.judge) if ":" not in task.judge and task.judge in known("judge") else None
    return judge if isinstance(judge, TrajectoryJudge) else None


def _shares(task: Task, trajectory: Trajectory) -> list[float | None]:
    """The share of the expected outputs that have been obtained."""
    left = [(tool, answer) for tool, answers in (task.gold.outputs or {}).items() for answer in answers]
    total = len(left)
    shares: list[float | None] = [0.0]
    for turn in trajectory.turns:
        told = [(call.name, result.content) for call, result in zip(turn.calls, turn.results, strict=False)]
        left = [
            (tool, answer)
            for tool, answer in left
            if not any(name == tool and solves(text, answer) for name, text in told)
        ]
        shares.append((total - len(left)) / total)
    return shares
