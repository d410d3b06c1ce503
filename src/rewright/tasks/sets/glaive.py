"""Format `glaive`: glaive-function-calling-v2, conversations as one text.

Columns: system (`SYSTEM: …` and the tools, one JSON object after the other), chat (`USER:`, `ASSISTANT:` with
`<functioncall> {…}`, `FUNCTION RESPONSE:`). The arguments of a call are JSON text in single quotes, inside JSON.
"""

from __future__ import annotations

import re
from typing import Any

from rewright.core.records import Task, ToolCall
from rewright.core.strict_json import STRICT
from rewright.tasks.formats import RowFormat
from rewright.tasks.function_rows import FunctionSet, Said, call_of, conversation_task, decoded_calls
from rewright.tasks.rows import LeftOutError, Row

__all__ = ["FORMAT", "to_task"]

SET = FunctionSet("glaive", "glaiveai/glaive-function-calling-v2", "apache-2.0")
_SPEAKER = re.compile(r"(?:^|\n)\s*(USER|ASSISTANT|FUNCTION RESPONSE)\s*:", re.MULTILINE)
_QUOTED = re.compile(
    r"\{\s*\"name\"\s*:\s*\"(?P<name>[^\"]+)\"\s*,\s*\"arguments\"\s*:\s*'(?P<json>.*)'\s*\}", re.DOTALL
)
_MARK = "<functioncall>"


def to_task(row: Row) -> Task:
    """Convert one row to a task. Ids are `glaive-<row>`, with rows counted from 0."""
    tools = _tools(row, row.text("system"))
    chat = row.text("chat").replace("<|endoftext|>", "")
    pieces = _SPEAKER.split(chat)
    if len(pieces) < 3 or pieces[0].strip():
        raise row.fail("'chat' does not begin with a speaker, expected 'USER: …' and 'ASSISTANT: …'")
    said: list[Said] = []
    for speaker, text in zip(pieces[1::2], (piece.strip() for piece in pieces[2::2]), strict=True):
        if speaker == "USER":
            said.append(Said("user", text))
        elif speaker == "FUNCTION RESPONSE":
            said.append(Said("result", text))
        else:
            before, *bodies = text.split(_MARK)
            calls = tuple(call for body in bodies for call in _calls(row, body.strip()))
            said.append(Said("assistant", before.strip(), calls))
    return conversation_task(row, SET, tools, said)


def _tools(row: Row, system: str) -> list[Any]:
    """Return the objects in the system text. A row without tools is left out, since nothing can be called."""
    tools: list[Any] = []
    position = system.find("{")
    while position >= 0:
        try:
            tool, end = STRICT.raw_decode(system, position)
        except ValueError as problem:
            raise LeftOutError(row.place, "a tool has no valid schema", f"'system' is not JSON: {problem}") from None
        tools.append(tool)
        position = system.find("{", end)
    if not tools:
        raise LeftOutError(row.place, "no tools", "'system' has none")
    return tools


def _calls(row: Row, body: str) -> tuple[ToolCall, ...]:
    quoted = _QUOTED.fullmatch(body)
    if quoted is not None:
        return (call_of(row, {"name": quoted["name"], "arguments": quoted["json"].replace("\\'", "'")}, "a call"),)
    return decoded_calls(row, body, "a call")


FORMAT = RowFormat(to_task, columns=("system", "chat"), hub=(SET.identity, None, "train"))
