r"""Expert demonstrations of almanac tasks in the `tags` dialect, built from the gold calls.

They have the same three styles as the town's (demonstrations.py). All are correct and differ in verbosity. Used only to
train the pico models.
"""

from __future__ import annotations

import random
from typing import Final

from rewright.core.errors import InputError
from rewright.core.records import Task, ToolCall, ToolResult, Trajectory, Turn
from rewright.dialects.tags import Tags
from rewright.tasks.worlds.almanac import Almanac, almanac
from rewright.tasks.worlds.demonstrations import LAST_THOUGHT

__all__ = ["demonstrate"]


def demonstrate(
    task: Task, *, style: str = "concise", rng: random.Random | None = None, edition: int = 0
) -> Trajectory:
    """Return a correct trajectory for a generated task. With `rng`, hedging varies from turn to turn."""
    book, calls = almanac(task.split, edition), task.gold.calls or ()
    turns: list[Turn] = []
    for index, call in enumerate(calls):
        now = "concise" if rng is not None and style == "hedging" and index > 0 and rng.random() < 0.5 else style
        text = f"<think>{_thought(calls, index, now)}</think>" + Tags().write("", (call,))
        turns.append(Turn(text=text, calls=(call,), results=(_result(book, call, task),), stop="stop"))
    answer = f"\\boxed{{{(task.gold.answers or ('',))[0]}}}"
    turns.append(Turn(text=f"<think>{LAST_THOUGHT[style]}</think><answer>{answer}</answer>", stop="stop"))
    return Trajectory(
        id=f"{task.id}/demonstration/{style}",
        task_id=task.id,
        stage="demonstration",
        index=0,
        turns=tuple(turns),
        answer=answer,
        stop_reason="answered",
    )


def _result(book: Almanac, call: ToolCall, task: Task) -> ToolResult:
    """Compute the tool's result for a gold call without running the tool. A test checks that both agree."""
    if call.name == "python":
        return ToolResult((task.gold.answers or ("",))[0])  # a program is always the last gold call
    field, separator, name = str(call.arguments["query"]).partition(" of ")
    if not separator:
        raise InputError(f"task {task.id}: the query {call.arguments['query']!r} is not one of the almanac's")
    return ToolResult(book.passage(field, name))


def _aim(call: ToolCall) -> str:
    return "the result" if call.name == "python" else str(call.arguments["query"])


def _plan(calls: tuple[ToolCall, ...]) -> list[str]:
    return ["code" if call.name == "python" else _aim(call).partition(" ")[0] for call in calls]


WORDS: Final = {
    "concise": (("Plan: {plan}. First {aim}.", ", "), "Next {aim}."),
    "wordy": (
        (
            "The question asks for several things in order: the {plan}. First I need {aim}, so I call the tool.",
            ", then the ",
        ),
        "The result is there. Now I need {aim}, so I call the tool.",
    ),
    "hedging": (("Maybe the plan is {plan}. I guess first {aim}.", ", "), "Next is probably {aim}."),
}


def _thought(calls: tuple[ToolCall, ...], index: int, style: str) -> str:
    (first, between), later = WORDS[style]
    aim = _aim(calls[index])
    return first.format(plan=between.join(_plan(calls)), aim=aim) if index == 0 else later.format(aim=aim)
