"""The judge `logged`: the outcome that the log of an imported trajectory has.

`task.metadata["outcomes"]` has the outcome by trajectory id. A trajectory that is not in it, such as a repair, is
compared with the answers that the log calls right (`metadata["right_answers"]`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rewright.core.records import Task, Trajectory
from rewright.judging.base import Judgement, TrajectoryJudge
from rewright.judging.exact import exact

__all__ = ["JUDGE"]


def logged(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    """Return the logged outcome, bounded to [0, 1], or compare with the answers that the log calls right."""
    outcomes = task.metadata.get("outcomes")
    found = outcomes.get(trajectory.id) if isinstance(outcomes, Mapping) else None
    if isinstance(found, (int, float)):
        return Judgement(min(1.0, max(0.0, float(found))), f"the log's outcome is {found:g}")
    right = [str(one) for one in task.metadata.get("right_answers") or () if str(one).strip()]
    if not right:
        return Judgement(0.0, "the log has no outcome for it, and no right answer to compare with")
    if not answer:
        return Judgement(0.0, "no answer")
    same = exact(answer, right)
    return Judgement(same.outcome, f"{'as' if same.outcome else 'not as'} an answer that the log calls right")


def _problem(task: Task) -> str | None:
    outcomes, right = task.metadata.get("outcomes"), task.metadata.get("right_answers")
    if not isinstance(outcomes, Mapping):
        return f"metadata.outcomes is {outcomes!r:.60}: expected the outcome of each trajectory by its id"
    wrong = next((key for key, one in outcomes.items() if not isinstance(one, (int, float))), None)
    if wrong is not None:
        return f"metadata.outcomes: {wrong!r:.60} has {outcomes[wrong]!r:.60}: expected a number"
    if right is not None and not isinstance(right, (list, tuple)):
        return f"metadata.right_answers is {right!r:.60}: expected a list of answers"
    return None


JUDGE: Final = TrajectoryJudge(
    logged,
    needs=("metadata.outcomes",),
    reads_answer=False,
    self_contained=True,
    without_gold=str,
    problem=_problem,
)
