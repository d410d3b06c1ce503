"""The policy "gold with errors": makes the gold calls in order, some of them with a wrong argument first.

With `errors=0` it is the benchmark's ceiling. With errors the right value of every turn is known, so that signals of
turns can be checked: a wrong call obtains nothing, the right one behind it does.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rewright.core.errors import EngineError
from rewright.core.records import Message, Task, ToolCall
from rewright.engines.base import Generation, Request

__all__ = ["GoldWithErrors", "gold_with_errors"]

NAME: Final = "gold with errors"
_END: Final = "All calls are made."


def gold_with_errors(task: Task, errors: float = 0.0, *, again: float = 1.0, seed: int | str = 0) -> list[ToolCall]:
    """Return the calls of the policy for a task, one for each turn.

    Args:
        task: a task with gold calls.
        errors: probability that a gold call is made with one wrong argument, in [0, 1].
        again: probability that the right call follows the wrong one, in [0, 1]; otherwise the policy goes on with the
            next gold call, and the result of this one is never obtained.
        seed: of the draws. The same seed and task give the same calls.

    Raises ValueError for a probability outside [0, 1].
    """
    draw = random.Random(f"{seed} {task.id}")
    made: list[ToolCall] = []
    while (call := _next_call(task, made, draw, errors, again)) is not None:
        made.append(call)
    return made


class GoldWithErrors:
    """The policy as an engine of the rollout loop, which takes messages.

    A turn depends on the calls of the conversation alone, so that the policy continues what another session has begun.

    Args:
        tasks: the tasks that it knows, by their first message.
        errors: as for `gold_with_errors`, as are `again` and `seed`. Every turn is drawn by the request's seed, or
            where it has none, by its session.
    """

    name = NAME
    tokens = False

    def __init__(self, tasks: Iterable[Task], errors: float = 0.0, *, again: float = 1.0, seed: int = 0) -> None:
        self._tasks = {_question(task.messages): task for task in tasks}
        self._errors, self._again, self._seed = errors, again, seed

    async def generate(self, request: Request) -> Generation:
        """Return the next call. Raises EngineError for a task that the engine does not know."""
        task = self._tasks.get(_question(request.messages))
        if task is None:
            raise EngineError(f"{NAME}: the question is of none of its tasks")
        made = [call for message in request.messages for call in _calls(message)]
        of_turn = request.session if request.sampling.seed is None else request.sampling.seed
        draw = random.Random(f"{self._seed} {task.id} {of_turn} {len(made)}")
        call = _next_call(task, made, draw, self._errors, self._again)
        return Generation(_END) if call is None else Generation("", calls=(call,))

    async def release(self, session: str) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing is open."""


def _next_call(
    task: Task, made: Sequence[ToolCall], draw: random.Random, errors: float, again: float
) -> ToolCall | None:
    """Return the call that follows those that were made, None at the end. Calls of other policies are ignored."""
    for name, value in (("errors", errors), ("again", again)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} is {value}: expected a probability in [0, 1]")
    golds, due, failed = list(task.gold.calls or ()), 0, False
    for call in made:
        places = range(due, len(golds))
        right = next((place for place in places if golds[place] == call), None)
        wrong = next((place for place in places if _is_wrong(call, golds[place])), None)
        if right is not None:
            due, failed = right + 1, False
        elif wrong is not None:
            due, failed = wrong, True
    if failed:
        if draw.random() < again:
            return golds[due]
        due += 1
    if due >= len(golds):
        return None
    call = golds[due]
    if draw.random() >= errors or not call.arguments:
        return call
    name = draw.choice(sorted(call.arguments))
    return ToolCall(call.name, {**call.arguments, name: _wrong(call.arguments[name])})


def _is_wrong(call: ToolCall, gold: ToolCall) -> bool:
    """Whether a call is a gold call with one argument that the policy has made wrong."""
    if call.name != gold.name or call.arguments.keys() != gold.arguments.keys():
        return False
    others = [name for name, value in call.arguments.items() if value != gold.arguments[name]]
    return len(others) == 1 and call.arguments[others[0]] == _wrong(gold.arguments[others[0]])


def _wrong(value: Any) -> Any:
    """Return another value of the same type, which no task has."""
    if isinstance(value, str):
        return f"{value}-0"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value + 1009
    return []


def _calls(message: Message) -> list[ToolCall]:
    """The calls of a message of the policy."""
    found = []
    for call in message.get("tool_calls") or ():
        arguments = call["function"]["arguments"]
        found.append(
            ToolCall(call["function"]["name"], json.loads(arguments) if isinstance(arguments, str) else arguments)
        )
    return found


def _question(messages: Iterable[Any]) -> str:
    return next((str(message["content"]) for message in messages if message["role"] == "user"), "")
