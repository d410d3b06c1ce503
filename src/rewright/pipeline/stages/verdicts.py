"""Verdicts on stored trajectories: what one answer does to a judge costs nothing but the verdict on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from rewright.core.errors import JudgeError
from rewright.core.records import Task, Trajectory, Verdict
from rewright.core.storage import RecordFile
from rewright.judging import judge_trajectory

__all__ = ["MAX_JUDGE_FAILURES", "judge_missing"]

MAX_JUDGE_FAILURES: Final = 20
"""So many answers may a judge fail on before the stage stops at once: it may be one that waits for a dead server."""


def judge_missing(
    trajectories: Iterable[Trajectory],
    verdicts: RecordFile[Verdict],
    task_of: Callable[[Trajectory], Task],
    *,
    seconds: float,
    on_verdict: Callable[[], None] = lambda: None,
) -> None:
    """A verdict for every trajectory that has none, into `verdicts`. One trajectory in memory at a time.

    Where a judge fails on an answer, the others are judged all the same; at the end `JudgeError` counts the failures
    and names the first, so that no missing verdict is taken for a wrong answer.
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
