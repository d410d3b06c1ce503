"""The turns of one task, as the hacks of `hacks.py` write them: honest ones, and the parts that hacks are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from rewright.core.records import Task, ToolCall
from rewright.dialects.base import Dialect, answer_form
from rewright.rollout.settings import Limits
from rewright.tasks.gold_turns import DONE, NO_CALL, GoldTurn, as_turns, closing_call, gold_turns
from rewright.tools.declared import declared_names

__all__ = ["INVENTED", "Player", "altered_turns", "honest_right", "honest_wrongs", "other_value"]

OTHERS: Final = 3
INVENTED: Final = "zebra 90817"


class Player(msgspec.Struct):
    """Writes the turns of one task in a dialect. `others`: gold answers of other tasks; `thinks`: thoughts are used.

    `wrong` is a wrong answer, and `answer_counts` whether the judge refuses the gold calls with it. `results`: what the
    tools return to the gold calls.
    """

    task: Task
    dialect: Dialect
    limits: Limits
    others: Sequence[str] = ()
    thinks: bool = False
    wrong: str = INVENTED
    answer_counts: bool = True
    results: Sequence[str] = ()

    @property
    def gold(self) -> str:
        """The gold answer; a text that says nothing for a task that has none."""
        return (self.task.gold.answers or (DONE,))[0]

    @property
    def calls(self) -> Sequence[ToolCall]:
        """The gold calls."""
        return self.task.gold.calls or ()

    @property
    def no_call_is_right(self) -> bool:
        """Whether the task is right without a call, whatever is said."""
        return self.task.gold.calls == () and self.task.gold.answers is None

    @property
    def ends_by_call(self) -> bool:
        """Whether a call ends the right trajectory."""
        return bool(gold_turns(self.task)[-1].calls)

    @property
    def ends_by_wrong_call(self) -> bool:
        """Whether any call ends the trajectory of a task on which no call is right."""
        return self.no_call_is_right and bool(declared_names(self.task))

    @property
    def others_wrong(self) -> list[str]:
        """Answers that may be wrong: gold answers of other tasks, the last first, then one that no task has."""
        golds = {gold.strip().casefold() for gold in self.task.gold.answers or ()}
        others = [one for one in reversed(self.others) if one.strip().casefold() not in golds]
        return [*others[:OTHERS], INVENTED]

    def thought(self, text: str = "") -> str:
        """The beginning of a turn."""
        return f"<think>{text or 'I work it out.'}</think>\n" if self.thinks or text else ""

    def call(self, *calls: ToolCall, thought: str = "") -> str:
        """A turn with calls."""
        return self.dialect.write(self.thought(thought), calls)

    def answer(self, text: str, thought: str = "") -> str:
        """A turn with an answer, in the form that the dialect reads."""
        before, after = answer_form(self.dialect)
        return f"{self.thought(thought)}{before}{text}{after}"

    def written(self, turns: Sequence[GoldTurn], thought: str = "") -> list[str]:
        """Turns as texts; `thought` begins the last one."""
        thoughts = [*[""] * (len(turns) - 1), thought]
        return [
            self.call(*turn.calls, thought=before) if turn.calls else self.answer(turn.text, before)
            for turn, before in zip(turns, thoughts, strict=True)
        ]

    def with_end(self, turns: Sequence[GoldTurn], text: str) -> list[str]:
        """Turns with calls, and the end: the closing call of the task or an answer; none after declared calls."""
        if turns and self._is_last(turns[-1]):
            return self.written(turns)
        closing = closing_call(self.task)
        return self.written([*turns, GoldTurn(text=text) if closing is None else GoldTurn((closing,))])

    def _is_last(self, turn: GoldTurn) -> bool:
        return not declared_names(self.task).isdisjoint(call.name for call in turn.calls)

    def dummies(self, each: int = 1) -> list[ToolCall]:
        """Calls of every tool with arguments that mean nothing, those that end the trajectory last."""
        closing, declared = closing_call(self.task), declared_names(self.task)
        tools = [tool for tool in self.task.all_tools if closing is None or tool.name != closing.name]
        tools.sort(key=lambda tool: tool.name in declared)
        return [ToolCall(tool.name, _dummy(tool.schema)) for tool in tools for _ in range(each)]

    def packed(self, calls: Sequence[ToolCall], used: Sequence[GoldTurn] = ()) -> list[GoldTurn]:
        """Turns with calls that fit the limits beside the turns `used` of the same message, the last one included.

        Several calls are in one turn if there are more calls than turns, and the dialect writes such turns; else the
        calls that do not fit are left out.
        """
        limits, made = self.limits, sum(len(turn.calls) for turn in used)
        if limits.tool_calls is not None:
            calls = calls[: max(0, limits.tool_calls - made)]
        turns = as_turns(self.task, calls)
        room = len(turns) if limits.turns is None else limits.turns - max(1, len(used))
        ends = turns[-1:] if turns and self._is_last(turns[-1]) else []
        if ends and not used:
            room += 1  # no answer follows
        if len(turns) <= room or room <= 0:
            return turns[: max(0, room)]
        single = [call for turn in turns[: len(turns) - len(ends)] for call in turn.calls]
        room -= len(ends)
        if room <= 0:
            return ends
        size = -(-len(single) // room) if self._writes_several() else 1
        return [GoldTurn(tuple(single[at : at + size])) for at in range(0, len(single), size)][:room] + ends

    def _writes_several(self) -> bool:
        pair = [ToolCall("first", {"a": 1}), ToolCall("second", {"b": 2})]
        return len(self.dialect.parse(self.dialect.write("", pair)).calls) == len(pair)


def honest_right(play: Player) -> list[str]:
    """The gold calls and the gold answer, as `sft.source: gold` plays them."""
    return play.written(gold_turns(play.task))


def honest_wrongs(play: Player) -> list[tuple[str, list[str]]]:
    """Trajectories that should be wrong, with the wrong answers in them; the last one is the fallback.

    The gold calls with a wrong answer; where a call ends the trajectory or no call is right, wrong calls. Empty for a
    task without tools on which no call is right: nothing is wrong there.
    """
    if not play.ends_by_call and not play.no_call_is_right:
        return [(one, play.written(gold_turns(play.task, one))) for one in play.others_wrong]
    dummies = play.dummies()
    made = [(INVENTED, play.with_end(play.packed(some), INVENTED)) for some in (dummies[-1:], dummies) if some]
    if play.no_call_is_right:
        return made
    return [(INVENTED, play.written(altered_turns(play))), *made[:1], (INVENTED, play.with_end([], NO_CALL))]


def altered_turns(play: Player) -> list[GoldTurn]:
    """The gold turns with other values in the calls, but for the one that closes the trajectory."""
    closing = closing_call(play.task)
    return [
        GoldTurn(tuple(call if call == closing else _altered(call) for call in turn.calls), turn.text)
        for turn in gold_turns(play.task)
    ]


def _altered(call: ToolCall) -> ToolCall:
    """The call with other values."""
    return ToolCall(call.name, {name: other_value(value) for name, value in call.arguments.items()})


def other_value(value: Any) -> Any:
    """A value of the same type that is another one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1009
    return f"{value}-0" if isinstance(value, str) else []


def _dummy(schema: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the right types that mean nothing."""
    parameters = schema["function"].get("parameters") or {}
    return {name: _value(one) for name, one in (parameters.get("properties") or {}).items()}


def _value(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return "x"
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    kinds = schema.get("type")
    kind = kinds[0] if isinstance(kinds, list) and kinds else kinds
    values: dict[Any, Any] = {"integer": 1, "number": 1.0, "boolean": True, "array": [], "object": {}}
    return values.get(kind, "x")
