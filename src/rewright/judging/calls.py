"""The judge `calls`: are the calls of a trajectory the gold calls of its task?

The calls are compared by the function for credit (`rewright.credit.match`), so that a trajectory is right exactly if
every call earns the full reward: each gold call is matched by a call of similarity 1, in any order, and no call is left
over. An argument that has its default according to the tool's schema may be left out or given. A task with an empty
list of gold calls is right without a call. The metrics are the share of the gold calls that were made
(`calls_recall`), the share of the calls that are gold calls (`calls_precision`), and the mean similarity of the matched
pairs over the larger number of calls (`calls_similarity`).

`task.metadata["compare"]` has other settings of the comparison (`rewright.credit.comparison.Comparison`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rewright.core.errors import InputError
from rewright.core.records import Task, Trajectory
from rewright.credit import match
from rewright.credit.comparison import Comparison
from rewright.judging.base import Judgement, TrajectoryJudge

__all__ = ["JUDGE", "comparison_of", "judge_calls"]

_NEEDS_CALLS: Final = "judge calls needs gold.calls (an empty list: no call is right)"
_DEFAULT: Final = Comparison(defaults=True)


def judge_calls(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    """Compare the calls of a trajectory with the gold calls. Raises InputError for a task without `gold.calls`."""
    golds = task.gold.calls
    if golds is None:
        raise InputError(f"task {task.id}: {_NEEDS_CALLS}")
    calls = [call for turn in trajectory.turns for call in turn.calls]
    if not calls or not golds:
        share = float(not calls and not golds)
        reason = "no call, as it should be" if share else _counts(len(calls), len(golds), 0)
        return Judgement(share, reason, _metrics(share, share, share))
    found = match(calls, golds, compare=comparison_of(task), tools=[tool.schema for tool in task.all_tools])
    similarities = [float(found.similarity_PG[pair]) for pair in found.pairs or ()]
    equal = sum(similarity == 1.0 for similarity in similarities)
    metrics = _metrics(equal / len(golds), equal / len(calls), sum(similarities) / max(len(calls), len(golds)))
    return Judgement(float(equal == len(calls) == len(golds)), _counts(len(calls), len(golds), equal), metrics)


def comparison_of(task: Task) -> Comparison:
    """Return the settings in `metadata.compare`, else those of the judge `calls`.

    Raises InputError for invalid settings, and for settings that name code, which a task file must not do.
    """
    given = task.metadata.get("compare")
    if given is None:
        return _DEFAULT
    if not isinstance(given, Mapping):
        raise InputError(f"task {task.id}: metadata.compare is {given!r:.60}: expected settings of a comparison")
    try:
        comparison = Comparison.of(given)
    except ValueError as problem:
        raise InputError(f"task {task.id}: metadata.compare: {problem}") from None
    if (code := next(comparison.code(), None)) is not None:
        raise InputError(f"task {task.id}: metadata.compare names code ({code}), which a task file must not do")
    return comparison


def _counts(calls: int, golds: int, equal: int) -> str:
    return f"{equal} of {golds} gold calls made, {calls - equal} other calls"


def _metrics(recall: float, precision: float, similarity: float) -> dict[str, float]:
    return {"calls_recall": recall, "calls_precision": precision, "calls_similarity": similarity}


def _problem(task: Task) -> str | None:
    if task.gold.calls is None:
        return _NEEDS_CALLS
    try:
        comparison_of(task)
    except InputError as problem:
        return str(problem).removeprefix(f"task {task.id}: ")
    return None


JUDGE: Final = TrajectoryJudge(judge_calls, reads_answer=False, self_contained=True, without_gold=str, problem=_problem)
