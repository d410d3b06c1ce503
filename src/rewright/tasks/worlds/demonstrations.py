"""Expert demonstrations of town tasks, built from the gold calls. Used only to train the pico models.

Every style is correct. They differ in verbosity: `concise` plans and acts, `wordy` explains, `hedging` expresses doubt.
The variation gives a policy trained on the demonstrations quality differences that the repair stage can improve.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Final

from rewright.core.records import Task, ToolCall, ToolResult, ToolSpec, Trajectory, Turn
from rewright.tasks.worlds.town import CACHED, calculate, look_up, plan_of

__all__ = ["STYLES", "demonstrate", "execute"]

STYLES: Final = ("concise", "wordy", "hedging")


def execute(task: Task, call: ToolCall) -> ToolResult:
    """Run a call to one of the town's tools in this process. Must not be used for calls of a model."""
    spec = next((spec for spec in task.tools if spec.name == call.name), None)
    if spec is None:
        return ToolResult(content=f"Error: unknown tool {call.name}", error="unknown tool")
    function = calculate if spec.target == "rewright.tasks.worlds.town:calculate" else look_up
    try:
        return ToolResult(content=function(spec.data, **call.arguments))
    except (TypeError, LookupError, RuntimeError) as problem:
        return ToolResult(content=f"Error: {type(problem).__name__}: {problem}", error=type(problem).__name__)


def _field(call: ToolCall) -> str:
    return call.name.removesuffix(CACHED).partition("_")[2] or call.name


def _values(call: ToolCall) -> str:
    return " and ".join(str(value) for value in call.arguments.values())


def _concise(task: Task, index: int, calls: tuple[ToolCall, ...]) -> str:
    steps = plan_of(task)
    words = " and ".join(f"{_field(call)} of {_values(call)}" for call in calls)
    if index == 0:
        plan = ", ".join(_field(step[0]) for step in steps)
        return f"Plan: {plan}. First {words}."
    return f"Next {words}."


def _wordy(task: Task, index: int, calls: tuple[ToolCall, ...]) -> str:
    names = " and ".join(f"the tool {call.name} with {_values(call)}" for call in calls)
    wanted = " and ".join(f"the {_field(call)} of {_values(call)}" for call in calls)
    if index == 0:
        plan = ", then the ".join(_field(step[0]) for step in plan_of(task))
        return f"The question asks for several things in order: the {plan}. First I need {wanted}, so I call {names}."
    return f"The result is there. Now I need {wanted}, so I call {names}."


def _hedging(task: Task, index: int, calls: tuple[ToolCall, ...]) -> str:
    words = " and ".join(f"{_field(call)} of {_values(call)}" for call in calls)
    if index == 0:
        plan = ", ".join(_field(step[0]) for step in plan_of(task))
        return f"Maybe the plan is {plan}. I guess first {words}."
    return f"Next is probably {words}."


THINK: Final[dict[str, Callable[[Task, int, tuple[ToolCall, ...]], str]]] = {
    "concise": _concise,
    "wordy": _wordy,
    "hedging": _hedging,
}
LAST_THOUGHT: Final = {
    "concise": "Done.",
    "wordy": "All results are there, so I can give the answer now.",
    "hedging": "Perhaps this is the answer.",
}


def _turn(thought: str, calls: tuple[ToolCall, ...], results: tuple[ToolResult, ...]) -> Turn:
    written = []
    for call in calls:
        raw = json.dumps({"name": call.name, "arguments": call.arguments})
        written.append(ToolCall(name=call.name, arguments=call.arguments, raw=raw))
    text = f"<think>{thought}</think>" + "".join(f"<tool_call>{call.raw}</tool_call>" for call in written)
    return Turn(text=text, calls=tuple(written), results=results)


def _moved_tool(task: Task, call: ToolCall) -> ToolSpec | None:
    return next((spec for spec in task.tools if (spec.data or {}).get("moved") == call.name), None)


def _from_cache(task: Task, call: ToolCall) -> ToolCall | None:
    """Return the equivalent call to the cache if there is one with the right answer, else None."""
    cached = ToolCall(name=call.name + CACHED, arguments=call.arguments)
    result = execute(task, cached)
    return cached if result.error is None and result.content == execute(task, call).content else None


def demonstrate(
    task: Task, *, style: str = "concise", rng: random.Random | None = None, cached: float = 0.0
) -> Trajectory:
    """Return a correct trajectory for a generated task. With `rng`, hedging varies from turn to turn.

    `cached` is the probability (needs `rng`) of calling a cache if it has the right entry. If a tool has moved, the
    demonstration includes the call that fails, because the question does not reveal the move.
    """
    turns: list[Turn] = []
    think = THINK[style]
    for index, step in enumerate(plan_of(task)):
        moved, calls = _moved_tool(task, step[0]), step
        if cached and rng is not None and moved is None and len(calls) == 1 and rng.random() < cached:
            calls = (_from_cache(task, calls[0]) or calls[0],)
        thought = think(task, index, calls)
        if rng is not None and style == "hedging" and index > 0 and rng.random() < 0.5:
            thought = _concise(task, index, calls)
        if moved is not None:
            first = tuple(ToolCall(name=moved.name, arguments=call.arguments) for call in calls)
            turns.append(_turn(thought, first, tuple(execute(task, call) for call in first)))
            thought = f"Moved, use {calls[0].name}."
        turns.append(_turn(thought, calls, tuple(execute(task, call) for call in calls)))
    answer = (task.gold.answers or ("",))[0]
    final = f"<think>{LAST_THOUGHT[style]}</think><answer>{answer}</answer>"
    turns.append(Turn(text=final))
    return Trajectory(
        id=f"{task.id}/demonstration/{style}",
        task_id=task.id,
        stage="demonstration",
        index=0,
        turns=tuple(turns),
        answer=answer,
        stop_reason="answered",
    )
