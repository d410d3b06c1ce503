"""A scripted policy that plays the gold calls of tasks: the token engine of `sft.source: gold`.

Prompts, results, tokens and masks are those of a model that makes the right calls (`rewright.tasks.gold_turns`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from rewright.core.errors import EngineError
from rewright.core.records import Task, Trajectory
from rewright.dialects.base import Dialect, read_turn
from rewright.engines.base import Generation, Request
from rewright.rendering.renderer import Renderer
from rewright.sandbox.errors import error_kind
from rewright.tasks.gold_turns import gold_turns

__all__ = ["GoldPolicy", "gold_problem"]

TOOL_ANSWERS: Final = (None, "exception", "arguments", "other")
"""Kinds of errors that are a tool's answer to a call. (Some benchmarks have gold calls that fail by design.)"""


def gold_problem(task: Task, trajectory: Trajectory) -> str | None:
    """Why a trajectory of the policy must not be trained on; None if its calls are the gold calls as written."""
    if trajectory.failure is not None:
        return f"{trajectory.failure.kind} error"
    ended_by_user = trajectory.stop_reason == "no_answer" and trajectory.ending is not None
    if trajectory.stop_reason not in ("called", "answered") and not ended_by_user:
        return f"ended by {trajectory.stop_reason}"
    if any(turn.stop == "length" for turn in trajectory.turns):
        return "with a turn longer than limits.turn_tokens or what is left of limits.trajectory_tokens"
    expected = [call for turn in gold_turns(task) for call in turn.calls]
    if any(call.error is not None for call in trajectory.calls) or _plain(trajectory.calls) != _plain(expected):
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
        turns = gold_turns(task)
        number = self._played[request.session]
        self._played[request.session] += 1
        calls, said = turns[min(number, len(turns) - 1)]
        text = self._renderer.with_calls("", calls) if calls else self._as_answer(said)
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

    def _as_answer(self, answer: str) -> str:
        """A turn without a call, in a form that the dialect reads as the answer."""
        for text in (answer, f"<answer>{answer}</answer>"):
            if read_turn(self._dialect, text, "end").answer == answer:
                return text
        return answer


def _plain(calls: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, call.arguments) for call in calls]
