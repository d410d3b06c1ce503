"""Verdicts on stored trajectories. A judge error on one answer does not affect the verdicts on others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from rewright.core.errors import JudgeError
from rewright.core.records import Task, Trajectory, Verdict
from rewright.core.storage import RecordFile
from rewright.judging import judge_trajectory

__all__ = ["MAX_JUDGE_FAILURES", "judge_missing"]

MAX_JUDGE_FAILURES: Final = 20
"""Stop judging after this many judge errors, since the judge may be waiting for a dead server."""


def judge_missing(
    trajectories: Iterable[Trajectory],
    verdicts: RecordFile[Verdict],
    task_of: Callable[[Trajectory], Task],
    *,
    seconds: float,
    on_verdict: Callable[[], None] = lambda: None,
) -> None:
    """Judge every trajectory without a verdict and append to `verdicts`. One trajectory is in memory at a time.

    Args:
        trajectories: the trajectories.
        verdicts: file of verdicts.
        task_of: returns the task of a trajectory.
        seconds: time limit of a custom judge per answer.
        on_verdict: called after each new verdict.

    Raises JudgeError with the number of judge errors and the first one, after the other trajectories are judged or
    after `MAX_JUDGE_FAILURES` errors. A missing verdict must not be mistaken for a wrong answer.
    """
    known = verdicts.keys()
    failed: list[str] = []
    judged = 0
    for trajectory in trajectories:
        if trajectory.id in known:
            continue
        try:
            verdicts.append(judge_trajectory(task_of(trajectory), trajectory, seconds=seconds))
        except JudgeError as problem:
            failed.append(f"{trajectory.id}: {problem}")
            if len(failed) == MAX_JUDGE_FAILURES:
                break
        else:
            judged += 1
            on_verdict()
    if failed:
        raise JudgeError(f"{len(failed)} answers could not be judged ({judged} could), the first: {failed[0]}")
