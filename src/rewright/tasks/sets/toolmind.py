"""Format `toolmind`: ToolMind, conversations with `tool_calls` whose last turn may be a call without a result.

Columns: conversations (role: system, user, assistant, tool; content; tool_calls with function.name and
function.arguments, an object or its JSON text), tools. The model's thoughts in the history are kept as they are.
"""

from __future__ import annotations

import json
from typing import Any

from rewright.core.records import Task
from rewright.dialects.literals import decode_value
from rewright.tasks.formats import RowFormat
from rewright.tasks.function_rows import FunctionSet, Said, call_of, conversation_task, offered_tools
from rewright.tasks.rows import LeftOutError, Row

__all__ = ["FORMAT", "to_task"]

SET = FunctionSet("toolmind", "Nanbeige/ToolMind", "apache-2.0")
_RESULTS = ("tool", "function", "observation")


def to_task(row: Row) -> Task:
    """Convert one row to a task. Ids are `toolmind-<row>`, with rows counted from 0."""
    said: list[Said] = []
    for number, message in enumerate(row.decoded("conversations", list)):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "user", "assistant", *_RESULTS):
            raise row.fail(
                f"'conversations'[{number}] has the role {role!r}, expected system, user, assistant or tool, as role"
            )
        content = message.get("content")
        text = content if isinstance(content, str) else "" if content is None else json.dumps(content)
        if role == "assistant":
            calls = _tool_calls(row, message.get("tool_calls"), number)
            said.append(Said("assistant", text, tuple(call_of(row, call, f"call {number}") for call in calls)))
        elif role in _RESULTS:
            said.append(Said("result", text))
        else:
            said.append(Said("user" if role == "user" else "system", text))
    return conversation_task(row, SET, offered_tools(row, "tools"), said)


def _tool_calls(row: Row, value: Any, number: int) -> list[Any]:
    if isinstance(value, str) and value.strip():
        try:
            value = decode_value(value)
        except ValueError as problem:
            raise LeftOutError(
                row.place, "a call cannot be read", f"tool_calls of message {number}: {problem}"
            ) from None
    if not value:
        return []
    return list(value) if isinstance(value, list) else [value]


FORMAT = RowFormat(to_task, columns=("conversations", "tools"))
