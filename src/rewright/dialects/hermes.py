"""The `hermes` dialect (Qwen3 and most open models): calls as JSON in `<tool_call>`, results as tool messages.

Reasoning stands in `<think>`, the final answer in `<answer>`. One tolerant parser: `parse`. What it does with bad text:
a call that is not closed, not JSON, or has no name is kept as a call with an `error` that the model is shown.
Linear in the length of the text: every search moves forward and a call's body is decoded at most four times.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Final

from rewright.dialects.base import Parsed
from rewright.records import Message, Task, ToolCall, ToolResult

__all__ = ["Hermes", "split_thought"]

OPEN: Final = "<tool_call>"
CLOSE: Final = "</tool_call>"
INSTRUCTION: Final = (
    "Reason inside <think></think>, then either call tools or give the final answer inside <answer></answer>. "
    "Call a tool whenever a fact has to be looked up or computed."
)
# A closing tag inside a JSON string ends the body too early: look this many closing tags further.
MAX_CLOSING_TAGS: Final = 4


def split_thought(text: str) -> tuple[str, str]:
    """Separate what stands inside think tags from the rest: (thought, rest).

    An unclosed `<think>` runs to the end. A `</think>` without an opening belongs to a prompt that opened it
    (Qwen3's thinking templates), so everything before it is thought.
    """
    thoughts: list[str] = []
    rest: list[str] = []
    position = 0
    first_open, first_close = text.find("<think>"), text.find("</think>")
    if first_close >= 0 and (first_open < 0 or first_close < first_open):
        thoughts.append(text[:first_close])
        position = first_close + len("</think>")
    while True:
        start = text.find("<think>", position)
        if start < 0:
            rest.append(text[position:])
            break
        rest.append(text[position:start])
        end = text.find("</think>", start)
        if end < 0:
            thoughts.append(text[start + len("<think>") :])
            break
        thoughts.append(text[start + len("<think>") : end])
        position = end + len("</think>")
    return "\n".join(thoughts), "".join(rest)


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:20]} is out of range")
    return number


_decoder = json.JSONDecoder(parse_constant=_reject_constant, parse_float=_finite)


def _decode_call(body: str) -> ToolCall:
    """One call body. Raises ValueError (with a reason for the model) or RecursionError."""
    stripped = body.strip()
    if stripped.startswith("```"):
        stripped = stripped.strip("`").removeprefix("json").strip()
    value, end = _decoder.raw_decode(stripped)
    if stripped[end:].strip():
        raise ValueError(f"unexpected text after the JSON object: {stripped[end : end + 20]!r}")
    if not isinstance(value, dict):
        raise ValueError("a call must be a JSON object with name and arguments")
    name = value.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("the call has no name")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _decoder.decode(arguments)
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise ValueError("arguments must be a JSON object")
    return ToolCall(name=name, arguments=arguments, raw=body)


def _name_in(body: str) -> str:
    """The tool that a malformed call seems to mean, or an empty string."""
    _, found, after = body[:400].partition('"name"')
    pieces = after.split('"') if found else []
    return pieces[1] if len(pieces) > 2 and pieces[0].strip() == ":" else ""


class Hermes:
    """See the module's docstring."""

    name = "hermes"
    stop: tuple[str, ...] = ()
    tool_names: tuple[str, ...] | None = None
    inline = False
    control_words: tuple[str, ...] = (
        OPEN, CLOSE, "<tool_response>", "</tool_response>", "<think>", "</think>", "<answer>", "</answer>",
    )  # fmt: skip

    def parse(self, text: str) -> Parsed:
        """Read one turn (see `Dialect.parse`)."""
        thought, rest = split_thought(text)
        calls: list[ToolCall] = []
        outside: list[str] = []
        position = 0
        while (start := rest.find(OPEN, position)) >= 0:
            outside.append(rest[position:start])
            call, position = self._read_call(rest, start + len(OPEN))
            calls.append(call)
        outside.append(rest[position:])
        return Parsed(tuple(calls), self._answer("".join(outside)), thought, rest)

    def _read_call(self, text: str, start: int) -> tuple[ToolCall, int]:
        """The call whose body starts at `start`, and where reading goes on."""
        error = ""
        following = text.find(OPEN, start)
        limit = len(text) if following < 0 else following
        end, first_end = start, -1
        for attempt in range(MAX_CLOSING_TAGS):
            # The search window ends at the next call, so that many unclosed calls cost linear time.
            close = text.find(CLOSE, end, limit)
            stop = limit if close < 0 else close
            after = stop + (len(CLOSE) if close >= 0 else 0)
            if attempt == 0:
                first_end = after
            try:
                return _decode_call(text[start:stop]), after
            except (ValueError, RecursionError) as problem:
                if attempt == 0:
                    error = str(problem) if isinstance(problem, ValueError) else "nested too deeply"
                if close < 0 or "Unterminated string" not in str(problem):
                    break
            end = after
        body = text[start : first_end - len(CLOSE)] if text.endswith(CLOSE, start, first_end) else text[start:first_end]
        reason = f"malformed call: {error}" if error else "malformed call"
        return ToolCall(name=_name_in(body), arguments={}, raw=body, error=reason), first_end

    @staticmethod
    def _answer(text: str) -> str | None:
        """The last answer outside of thoughts and calls; an unclosed one runs to the end."""
        start = text.rfind("<answer>")
        if start < 0:
            return None
        start += len("<answer>")
        end = text.find("</answer>", start)
        return text[start : end if end >= 0 else len(text)].strip()

    def _without_calls(self, text: str, *, malformed: bool) -> str:
        """`text` without its calls; malformed ones stay unless `malformed`. Thoughts are left alone."""
        pieces: list[str] = []
        think, thought_end = text.find("<think>"), text.find("</think>")
        # As in `split_thought`: a closing tag without an opening ends a thought that the prompt had opened.
        position = thought_end + len("</think>") if thought_end >= 0 and (think < 0 or thought_end < think) else 0
        pieces.append(text[:position])
        while (start := text.find(OPEN, position)) >= 0:
            if 0 <= think < position:
                think = text.find("<think>", position)
            if 0 <= think < start:
                end = text.find("</think>", think)
                if end < 0:
                    break
                after = end + len("</think>")
                pieces.append(text[position:after])
            else:
                call, after = self._read_call(text, start + len(OPEN))
                pieces.append(text[position:start])
                if call.error is not None and not malformed:
                    pieces.append(text[start:after])
            position = after
        return "".join([*pieces, text[position:]])

    def as_stopped(self, text: str) -> str:
        """`text`: nothing stops a turn but the model's end token."""
        return text

    def messages(self, task: Task) -> list[Message]:
        """The task's messages; the instruction comes first where the task has no system message."""
        messages = [dict(message) for message in task.messages]
        if not messages or messages[0].get("role") != "system":
            messages.insert(0, {"role": "system", "content": INSTRUCTION})
        return messages

    def schemas(self, task: Task) -> list[dict[str, Any]]:
        """The task's function schemas."""
        return task.schemas

    def write(self, text: str, calls: Sequence[ToolCall]) -> str:
        """`text`, then every call in its tags."""
        lines = [text] if text else []
        for call in calls:
            body = call.raw if call.error else json.dumps({"name": call.name, "arguments": call.arguments})
            lines.append(f"{OPEN}\n{body}\n{CLOSE}")
        return "\n".join(lines)

    def assistant_message(self, text: str, calls: Sequence[ToolCall], *, malformed: bool = False) -> Message:
        """The turn's text without its calls, and the calls as `tool_calls`."""
        kept = [call for call in calls if call.error is None or malformed]
        if not kept:
            return {"role": "assistant", "content": text}
        content = self._without_calls(text, malformed=malformed)
        functions = [
            {"name": call.name or "unknown", "arguments": call.raw if call.error else call.arguments} for call in kept
        ]
        return {
            "role": "assistant",
            "content": content.rstrip(),
            "tool_calls": [{"type": "function", "function": function} for function in functions],
        }

    def results_as_messages(self, calls: Sequence[ToolCall], results: Sequence[ToolResult]) -> list[Message]:
        """One tool message per result, named after its call."""
        return [
            {"role": "tool", "name": call.name or "unknown", "content": result.content}
            for call, result in zip(calls, results, strict=True)
        ]
