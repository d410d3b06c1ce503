"""Rewrite conversations for chat templates that do not support tools, a system role or a tool role."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewright.core.records import Message, ToolCall
from rewright.dialects.base import Dialect, schemas_as_text
from rewright.dialects.native import NativeDialect

__all__ = ["results_as_text", "with_tools_as_text", "without_system"]


def with_tools_as_text(messages: Sequence[Message], tools: Sequence[dict[str, Any]], dialect: Dialect) -> list[Message]:
    """Return the messages for templates without `tools=`: with the schemas, and how a call is written, as text."""
    form = (
        'Write a call as <tool_call>{"name": "...", "arguments": {...}}</tool_call>. '
        "Results come back in <tool_response></tool_response>."
    )
    if isinstance(dialect, NativeDialect):
        form = f"Write a call as {dialect.written([ToolCall('name', {'argument': 'value'})])}"
    instruction = f"{schemas_as_text(tools)}\n{form}"
    copied = [dict(message) for message in messages]
    if copied and copied[0].get("role") == "system":
        copied[0]["content"] = f"{copied[0]['content']}\n\n{instruction}"
        return copied
    return [{"role": "system", "content": instruction}, *copied]


def without_system(messages: Sequence[Message]) -> list[Message]:
    """Return the messages for templates without a system role: its text precedes the first user message."""
    if not messages or messages[0].get("role") != "system":
        return list(messages)
    system, *others = messages
    first = next((index for index, message in enumerate(others) if message.get("role") == "user"), None)
    if first is None:
        return [{**system, "role": "user"}, *others]
    others[first] = {**others[first], "content": f"{system['content']}\n\n{others[first]['content']}"}
    return others


def results_as_text(messages: Sequence[Message]) -> list[Message]:
    """Return the messages for templates without a tool role: one user message with all results of a turn."""
    text = "\n".join(
        f"<tool_response>\n{message['content']}\n</tool_response>" if message["role"] == "tool" else message["content"]
        for message in messages
    )
    return [{"role": "user", "content": text}]
