"""A dialect in one file: calls are lines such as `! name {"argument": 1}`, the answer is what stands behind `= `."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rewright.core.records import Message, Task, ToolCall, ToolResult, Trajectory
from rewright.core.registry import register
from rewright.dialects.base import Parsed, malformed_calls, with_instruction

INSTRUCTION = 'Call a tool in a line of its own, as in: ! name {"argument": 1}\nPut your answer behind "= ".'


class Toy:
    """See `rewright.dialects.base.Dialect`."""

    name = "toy"
    stop: tuple[str, ...] = ()
    control_words: tuple[str, ...] = ("! ", "= ")
    tool_names: tuple[str, ...] | None = None
    inline = False

    def parse(self, text: str) -> Parsed:
        """Read one turn."""
        calls = tuple(self._call(line) for line in text.splitlines() if line.startswith("! "))
        _, mark, answer = text.rpartition("= ")
        return Parsed(calls, answer.strip() if mark and not calls else None, thought="", rest=text)

    @staticmethod
    def _call(line: str) -> ToolCall:
        name, _, arguments = line.removeprefix("! ").partition(" ")
        try:
            found = json.loads(arguments or "{}")
        except ValueError:
            return ToolCall(name, {}, raw=line, error="its arguments are no JSON")
        return ToolCall(name, found) if isinstance(found, dict) else ToolCall(name, {}, raw=line, error="no object")

    def truncate_at_stop(self, text: str) -> str:
        """No string stops a turn."""
        return text

    def messages(self, task: Task) -> list[Message]:
        """The prompt of a task."""
        return with_instruction(task, INSTRUCTION)

    def schemas(self, task: Task) -> list[dict[str, Any]]:
        """The task's function schemas."""
        return task.schemas

    def write(self, text: str, calls: Sequence[ToolCall]) -> str:
        """A turn's text with its calls behind it."""
        return "\n".join([text, *(f"! {call.name} {json.dumps(call.arguments)}" for call in calls)])

    def assistant_message(self, text: str, calls: Sequence[ToolCall], *, malformed: bool = False) -> Message:
        """A turn as a chat message: its text holds its calls."""
        return {"role": "assistant", "content": text}

    def results_as_messages(self, calls: Sequence[ToolCall], results: Sequence[ToolResult]) -> list[Message]:
        """One message of the user per result."""
        return [{"role": "user", "content": f"result: {result.content}"} for result in results]

    def format_problem(self, trajectory: Trajectory) -> str | None:
        """Malformed calls."""
        return malformed_calls(trajectory)


register("dialect", "toy", Toy)
