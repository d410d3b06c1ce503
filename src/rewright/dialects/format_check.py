"""Check the format of a trajectory."""

from __future__ import annotations

from rewright.core.records import Trajectory
from rewright.dialects import get_dialect
from rewright.dialects.base import is_answer_truncated

__all__ = ["format_problem"]


def format_problem(trajectory: Trajectory, dialect: str) -> str | None:
    """Describe a format error of a trajectory; None if it follows its dialect's rules.

    It must end with an answer, with calls of declared tools, or by a simulated user.
    """
    if trajectory.stop_reason == "called" or trajectory.ending is not None:
        return get_dialect(dialect).format_problem(trajectory)
    if trajectory.stop_reason != "answered" or not trajectory.answer:
        return f"no answer ({trajectory.stop_reason.replace('_', ' ')})"
    if is_answer_truncated(trajectory):
        return "no answer (truncated by a limit)"
    return get_dialect(dialect).format_problem(trajectory)
