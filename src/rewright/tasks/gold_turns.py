"""The gold calls of a task as the turns of a right trajectory.

`gold_turns` says how a task is solved in the rollout loop. `rewright probe-reward` plays these turns as texts, and
`sft.source: gold` as token ids. Calls are one turn each, in order, since a call may need the result of the one before.
A call of a declared tool ends the trajectory, so the calls from the first one on are one turn. Otherwise the last turn
is the gold answer. Without one it is a fixed sentence: `NO_CALL` if no call is right, else `DONE`.

Three keys of a task's `metadata` say more:

- `calls_per_message`: numbers, how many of `gold.calls` belong to the prompt and to each follow-up. After the calls of
  a message comes a turn without a call. Without it, a task with gold calls and follow-ups cannot be played.
- `ends_with_call`: the name of a declared tool that is called without arguments at the end (`done` of tau2).
- `last_message`: the text of the last turn of a task without gold answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from rewright.core.errors import InputError
from rewright.core.records import Task, ToolCall
from rewright.tools.declared import declared_names

__all__ = [
    "DONE",
    "NO_CALL",
    "GoldTurn",
    "as_turns",
    "closing_call",
    "gold_turns",
    "plays_gold",
]

NO_CALL: Final = "None of the functions can be used for this."
"""Last turn of a task without right calls whose answer is not known."""
DONE: Final = "Done."
"""Last turn after calls, if the answer is not known."""


class GoldTurn(NamedTuple):
    """A turn: its calls, or else its text (`calls` is empty)."""

    calls: tuple[ToolCall, ...] = ()
    text: str = ""


def plays_gold(task: Task) -> bool:
    """Whether the gold calls are known, and which message of the user each belongs to.

    Raises InputError for metadata that do not fit the task.
    """
    return task.gold.calls is not None and _per_message(task) is not None


def closing_call(task: Task) -> ToolCall | None:
    """The call that ends a trajectory of the task (`metadata.ends_with_call`); None: a turn without a call does.

    Raises InputError if the task has no such declared tool.
    """
    name = task.metadata.get("ends_with_call")
    if name is None:
        return None
    if not isinstance(name, str) or name not in declared_names(task):
        raise InputError(
            f"task {task.id}: metadata.ends_with_call is {name!r:.60}: expected the name of a declared tool"
        )
    return ToolCall(name, {})


def as_turns(task: Task, calls: Sequence[ToolCall]) -> list[GoldTurn]:
    """Calls as turns: one each, and those from the first call of a declared tool on in one."""
    declared = declared_names(task)
    first = next((number for number, call in enumerate(calls) if call.name in declared), len(calls))
    turns = [GoldTurn((call,)) for call in calls[:first]]
    return [*turns, GoldTurn(tuple(calls[first:]))] if calls[first:] else turns


def gold_turns(task: Task, answer: str | None = None) -> list[GoldTurn]:
    """The turns of a right trajectory. `answer` replaces the text of the last turn, if that has no call.

    Gold calls that are unknown (None) are played as none. Raises InputError for a task whose calls cannot be played
    (`plays_gold`), and for metadata that do not fit the task.
    """
    calls, numbers, closing = task.gold.calls or (), _per_message(task), closing_call(task)
    if numbers is None:
        raise InputError(f"task {task.id}: which follow-up do its gold calls belong to? Expected {_EXPECTED}")
    declared, turns = declared_names(task), list[GoldTurn]()
    for number, count in enumerate(numbers):
        turns += as_turns(task, calls[:count])
        calls = calls[count:]
        if turns and any(call.name in declared for call in turns[-1].calls):
            return turns
        if number < len(numbers) - 1:
            turns.append(GoldTurn(text=DONE))
    if closing is not None:
        return [*turns, GoldTurn((closing,))]
    return [*turns, GoldTurn(text=_last_text(task) if answer is None else answer)]


_EXPECTED: Final = "metadata.calls_per_message, the number of gold calls of the prompt and of each follow-up"


def _per_message(task: Task) -> list[int] | None:
    """The number of gold calls of each message of the user; None if it is not known."""
    given, calls = task.metadata.get("calls_per_message"), task.gold.calls or ()
    if given is None:
        return None if calls and task.follow_ups else [len(calls), *(0 for _ in task.follow_ups)]
    fits = isinstance(given, list | tuple) and all(type(one) is int and one >= 0 for one in given)
    if not fits or len(given) != len(task.follow_ups) + 1 or sum(given) != len(calls):
        raise InputError(
            f"task {task.id}: metadata.calls_per_message is {given!r:.60}: expected {len(task.follow_ups) + 1} numbers "
            f"with the sum {len(calls)}, {_EXPECTED.partition(', ')[2]}"
        )
    return list(given)


def _last_text(task: Task) -> str:
    known = next(iter(task.gold.answers or ()), task.metadata.get("last_message"))
    return str(known) if known is not None else DONE if task.gold.calls else NO_CALL
