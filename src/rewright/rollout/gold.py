"""A scripted policy that plays the gold calls of tasks, so that real rollouts of them can be trained on.

It is a token engine for `rewright.rollout.loop.Rollout`: prompts, results, tokens and masks are those of a model that
makes the right calls. Calls of declared tools are one turn, which ends the trajectory. Calls of other tools are one
turn each, in order, since a call may need the result of the one before. The last turn is the gold answer. Without one
it is a fixed sentence: `NO_CALL` if no call is right, else `DONE`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from rewright.core.errors import EngineError
from rewright.core.records import Task, ToolCall, Trajectory
from rewright.dialects.base import Dialect, read_turn
from rewright.engines.base import Generation, Request
from rewright.rendering.renderer import Renderer
from rewright.sandbox.errors import error_kind
from rewright.tools.declared import KIND as DECLARED

__all__ = ["DONE", "NO_CALL", "GoldPolicy", "gold_problem", "plays_gold"]

TOOL_ANSWERS: Final = (None, "exception", "arguments", "other")
"""Kinds of errors that are a tool's answer to a call. (Some benchmarks have gold calls that fail by design.)"""

NO_CALL: Final = "None of the functions can be used for this."
"""Last turn of a task without right calls whose answer is not known."""
DONE: Final = "Done."
"""Last turn after calls, if the answer is not known."""


def plays_gold(task: Task) -> bool:
    """Whether the policy can play the task: its gold calls are known, and all of them belong to its first message."""
    return task.gold.calls is not None and not task.follow_ups


def gold_problem(task: Task, trajectory: Trajectory) -> str | None:
    """Why a trajectory of the policy must not be trained on; None if its calls are the gold calls as written."""
    if trajectory.failure is not None:
        return f"{trajectory.failure.kind} error"
    if trajectory.stop_reason not in ("called", "answered"):
        return f"ended by {trajectory.stop_reason}"
    if any(call.error is not None for call in trajectory.calls) or (
        _plain(trajectory.calls) != _plain(task.gold.calls or ())
    ):
        return "with a call that the dialect does not read back"
    if any(error_kind(result) not in TOOL_ANSWERS for result in trajectory.results):
        return "with a call that cannot be executed"
    return None


class GoldPolicy:
    """The policy, for the tasks of the given sessions (`Plan.id`)."""

    name = "gold"
    tokens = True

    def __init__(self, tasks: Mapping[str, Task], dialect: Dialect, renderer: Renderer) -> None:
        self._tasks, self._dialect, self._renderer = tasks, dialect, renderer
        self._played: Counter[str] = Counter()

    async def generate(self, request: Request) -> Generation:
        """Return the next turn of the session's task. Raises EngineError for a session without a task."""
        task = self._tasks.get(request.session)
        if task is None:
            raise EngineError(f"no gold calls for the session {request.session!r}")
        steps = _steps(task)
        number = self._played[request.session]
        self._played[request.session] += 1
        calls = steps[number] if number < len(steps) else ()
        text = self._renderer.with_calls("", calls) if calls else self._last(task)
        ids = self._renderer.encode_text(text)
        stopped = any(text.endswith(word) for word in request.sampling.stop)
        if not stopped:
            ids += self._renderer.end_ids(calls)
        if len(ids) > request.sampling.max_tokens:
            ids = ids[: request.sampling.max_tokens]
            return Generation(text=self._renderer.tokenizer.decode(ids), token_ids=tuple(ids), stop="length")
        return Generation(text=text, token_ids=tuple(ids), stop="stop" if stopped else "end")

    async def release(self, session: str) -> None:
        """Forget the session."""
        self._played.pop(session, None)

    async def close(self) -> None:
        """Nothing is held."""

    def _last(self, task: Task) -> str:
        """The last turn, in a form that the dialect reads as the answer."""
        answer = next(iter(task.gold.answers or ()), DONE if task.gold.calls else NO_CALL)
        for text in (answer, f"<answer>{answer}</answer>"):
            if read_turn(self._dialect, text, "end").answer == answer:
                return text
        return answer


def _steps(task: Task) -> list[tuple[ToolCall, ...]]:
    """The gold calls of each turn."""
    calls = task.gold.calls or ()
    declared = {tool.name for tool in task.all_tools if tool.kind == DECLARED}
    if calls and all(call.name in declared for call in calls):
        return [tuple(calls)]
    return [(call,) for call in calls]


def _plain(calls: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, call.arguments) for call in calls]
