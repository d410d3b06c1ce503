"""Conversations rewritten for chat templates that lack tools, a system role or a tool role."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewright.core.records import Message, ToolCall
from rewright.dialects.base import Dialect, schemas_as_text
from rewright.dialects.native import NativeDialect

__all__ = ["results_as_text", "with_tools_as_text", "without_system"]


def with_tools_as_text(messages: Sequence[Message], tools: Sequence[dict[str, Any]], dialect: Dialect) -> list[Message]:
    """For templates without `tools=`: the schemas, and how this dialect writes a call, in the system message."""
    how = (
        'Write a call as <tool_call>{"name": "...", "arguments": {...}}</tool_call>. '
        "Results come back in <tool_response></tool_response>."
    )
    if isinstance(dialect, NativeDialect):
        how = f"Write a call as {dialect.written([ToolCall('name', {'argument': 'value'})])}"
    words = f"{schemas_as_text(tools)}\n{how}"
    copied = [dict(message) for message in messages]
    if copied and copied[0].get("role") == "system":
        copied[0]["content"] = f"{copied[0]['content']}\n\n{words}"
        return copied
    return [{"role": "system", "content": words}, *copied]


def without_system(messages: Sequence[Message]) -> list[Message]:
    """For templates without a system role: its text stands before the user's first message."""
    if not messages or messages[0].get("role") != "system":
        return list(messages)
    system, *others = messages
    first = next((place for place, message in enumerate(others) if message.get("role") == "user"), None)
    if first is None:
        return [{**system, "role": "user"}, *others]
    others[first] = {**others[first], "content": f"{system['content']}\n\n{others[first]['content']}"}
    return others


def results_as_text(messages: Sequence[Message]) -> list[Message]:
    """For templates without a tool role: all results of a turn in one user message."""
    text = "\n".join(
        f"<tool_response>\n{message['content']}\n</tool_response>" if message["role"] == "tool" else message["content"]
        for message in messages
    )
    return [{"role": "user", "content": text}]
