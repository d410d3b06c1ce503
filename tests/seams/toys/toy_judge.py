"""Two judges in one file: one of answers (how near is a number?), one of whole trajectories (how few calls were made?).

A judge of answers is a function; a judge of trajectories says which keys of a task it needs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from rewright.core.records import Task, Trajectory
from rewright.core.registry import register
from rewright.judging import Judgement, TrajectoryJudge


def near(answer: str, golds: Sequence[str]) -> Judgement:
    """1 for the gold number, less the farther the answer is away; 0 for a text that is not a number."""
    try:
        distance = min(abs(float(answer) - float(gold)) for gold in golds)
    except ValueError:
        return Judgement(0.0, f"{answer!r} is not a number")
    return Judgement(1 / (1 + distance), f"{distance:g} away", {"toy_process": float(os.getpid())})


def few_calls(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    """1 with at most `metadata.calls` calls, else 0."""
    made = len(trajectory.calls)
    return Judgement(float(made <= task.metadata["calls"]), f"{made} calls", {"calls": float(made)})


register("judge", "toy_near", near)
register("judge", "toy_few_calls", TrajectoryJudge(few_calls, needs=("metadata.calls",), reads_answer=False))
