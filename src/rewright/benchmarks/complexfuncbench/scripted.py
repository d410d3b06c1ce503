"""The policy "gold with errors": makes the gold calls in order, some of them with a wrong argument first.

With `errors=0` it is the benchmark's ceiling. With errors the right value of every turn is known, so that signals of
turns can be checked: a wrong call obtains nothing, the right one behind it does.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, Final

from rewright.core.errors import EngineError
from rewright.core.records import Task, ToolCall
from rewright.engines.base import Generation, Request

__all__ = ["GoldWithErrors", "gold_with_errors"]

NAME: Final = "gold with errors"
_END: Final = "All calls are made."


def gold_with_errors(task: Task, errors: float = 0.0, *, again: bool = True, seed: int | str = 0) -> list[ToolCall]:
    """Return the calls of the policy for a task, one for each turn.

    Args:
        task: a task with gold calls.
        errors: probability that a gold call is made with one wrong argument, in [0, 1].
        again: whether the right call follows the wrong one; otherwise its result is never obtained.
        seed: of the draws. The same seed and task give the same calls.

    Raises ValueError for a probability outside [0, 1].
    """
    if not 0.0 <= errors <= 1.0:
        raise ValueError(f"errors is {errors}: expected a probability in [0, 1]")
    draw = random.Random(f"{seed} {task.id}")
    calls: list[ToolCall] = []
    for call in task.gold.calls or ():
        is_wrong = draw.random() < errors and bool(call.arguments)
        if is_wrong:
            name = draw.choice(sorted(call.arguments))
            calls.append(ToolCall(call.name, {**call.arguments, name: _wrong(call.arguments[name])}))
        if again or not is_wrong:
            calls.append(call)
    return calls


def _wrong(value: Any) -> Any:
    """Return another value of the same type, which no task has."""
    if isinstance(value, str):
        return f"{value}-0"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value + 1009
    return []


class GoldWithErrors:
    """The policy as an engine of the rollout loop, which takes messages.

    Args:
        tasks: the tasks that it knows, by their first message.
        errors: as for `gold_with_errors`, as are `again` and `seed`. Every session draws anew.
    """

    name = NAME
    tokens = False

    def __init__(self, tasks: Iterable[Task], errors: float = 0.0, *, again: bool = True, seed: int = 0) -> None:
        self._tasks = {_question(task.messages): task for task in tasks}
        self._settings: dict[str, Any] = {"errors": errors, "again": again}
        self._seed = seed

    async def generate(self, request: Request) -> Generation:
        """Return the next call of the session. Raises EngineError for a task that the engine does not know."""
        task = self._tasks.get(_question(request.messages))
        if task is None:
            raise EngineError(f"{NAME}: the question is of none of its tasks")
        calls = gold_with_errors(task, seed=f"{self._seed} {request.session}", **self._settings)
        turn = sum(message["role"] == "assistant" for message in request.messages)
        if turn < len(calls):
            return Generation("", calls=(calls[turn],))
        return Generation(_END)

    async def release(self, session: str) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing is open."""


def _question(messages: Iterable[Any]) -> str:
    return next((str(message["content"]) for message in messages if message["role"] == "user"), "")
