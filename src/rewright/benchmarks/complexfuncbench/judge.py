"""Judge `complexfuncbench`: does a trajectory have the results of all gold calls of its task?

This is the rule of the official evaluation alone, "rule-matched". Officially a call that misses the rule may still
count: if the live API returns the same for it, or if GPT-4o calls it equal. Neither works offline, so every number here
is a lower bound. Further calls do not count against a trajectory.
"""

from __future__ import annotations

from collections.abc import Hashable

from rewright.benchmarks.complexfuncbench.data import LOOKUPS
from rewright.benchmarks.complexfuncbench.progress import obtained, state_keys, turn_progress
from rewright.core.records import Task, Trajectory
from rewright.judging.base import Judgement, TrajectoryJudge

__all__ = ["JUDGE"]


def _judge(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    golds = task.gold.calls or ()
    found = obtained(task, trajectory)[-1]
    searches = {place for place, call in enumerate(golds) if call.name not in LOOKUPS}
    metrics = {
        "rule_matched_calls": len(found) / len(golds),
        "rule_matched_success_without_lookups": float(searches <= found),
    }
    reason = f"{len(found)} of {len(golds)} gold calls made"
    return Judgement(float(len(found) == len(golds)), reason, metrics)


def _scores(task: Task, trajectory: Trajectory) -> list[float | None] | None:
    return [*turn_progress(task, trajectory)] if task.gold.calls else None


def _states(task: Task, trajectory: Trajectory) -> list[Hashable]:
    return [*state_keys(task, trajectory)[:-1]]


JUDGE = TrajectoryJudge(
    _judge,
    needs=("gold.calls",),
    reads_answer=False,
    self_contained=True,
    scores=_scores,
    states=_states,
    without_gold=str,
)
