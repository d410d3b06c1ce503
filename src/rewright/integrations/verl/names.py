"""Names under which Rewright registers its parts with verl."""

from typing import Final

__all__ = ["ESTIMATOR", "TASK_AGENT", "TOOL_AGENT"]

ESTIMATOR: Final = "rewright"
"""The advantage estimator."""
TASK_AGENT: Final = "rewright_task_agent"
"""The agent loop that plays a row's own task."""
TOOL_AGENT: Final = "rewright_tool_agent"
"""verl's tool agent loop with turn rewards."""
