"""Whether a trajectory keeps to its dialect's format."""

from __future__ import annotations

from rewright.core.records import Trajectory
from rewright.dialects import get_dialect
from rewright.dialects.base import is_answer_truncated

__all__ = ["format_problem"]


def format_problem(trajectory: Trajectory, dialect: str) -> str | None:
    """What is wrong with a trajectory's format, or None. It must end with an answer, its calls must be readable."""
    if trajectory.stop_reason != "answered" or not trajectory.answer:
        return f"no answer ({trajectory.stop_reason.replace('_', ' ')})"
    if is_answer_truncated(trajectory):
        return "no answer (a limit cut it off)"
    return get_dialect(dialect).format_problem(trajectory)
