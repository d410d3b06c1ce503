"""Format `hermes-fc`: hermes-function-calling-v1, conversations with `<tool_call>` tags.

Columns: conversations (from: system, human, gpt, tool), tools (JSON text), id, category, subcategory, task. The bodies
of calls and results are JSON or Python's dicts. The system message, which only describes the notation and the tools, is
left out.
"""

from __future__ import annotations

import json
import re

from rewright.core.records import Task, ToolCall
from rewright.dialects.literals import decode_value
from rewright.tasks.formats import RowFormat
from rewright.tasks.function_rows import FunctionSet, Said, conversation_task, decoded_calls, offered_tools
from rewright.tasks.rows import Row
from rewright.tasks.sets.sharegpt import parts_of

__all__ = ["FORMAT", "to_task"]

SET = FunctionSet("hermes-fc", "NousResearch/hermes-function-calling-v1", "apache-2.0")
_ROLES = {"system": "system", "human": "user", "gpt": "assistant", "tool": "result"}
_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_RESULT = re.compile(r"<tool_response>(.*?)(?:</tool_response>|\Z)", re.DOTALL)


def to_task(row: Row) -> Task:
    """Convert one row to a task. Ids are `hermes-fc-<id>`."""
    said: list[Said] = []
    for role, text in parts_of(row, _ROLES):
        if role == "assistant":
            calls: tuple[ToolCall, ...] = ()
            for number, call in enumerate(_CALL.finditer(text)):
                calls += decoded_calls(row, call[1], f"call {number} of a message")
            said.append(Said("assistant", _CALL.sub("", text).strip() if calls else text, calls))
        elif role == "result":
            said.extend(Said("result", result) for result in _results(text))
        elif role == "user" or "<tools>" not in text:
            said.append(Said("user" if role == "user" else "system", text))
    about = {key: row.optional_text(key) for key in ("category", "subcategory", "task")}
    return conversation_task(
        row, SET, offered_tools(row, "tools"), said, identity=row.optional_text("id"), metadata=about
    )


def _results(text: str) -> list[str]:
    bodies = [body[1].strip() for body in _RESULT.finditer(text)] or [text]
    results = []
    for body in bodies:
        try:
            value = decode_value(body)
        except ValueError:
            results.append(body)
            continue
        if isinstance(value, dict) and "content" in value and value.keys() <= {"name", "content", "tool_call_id"}:
            value = value["content"]
        results.append(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return results


FORMAT = RowFormat(to_task, columns=("conversations", "tools"), hub=(SET.identity, "func_calling", "train"))
