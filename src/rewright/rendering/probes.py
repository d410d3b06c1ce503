"""Find out what a chat template supports, by rendering conversations with a word that must be in the output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.core.records import Message

__all__ = ["PROBE", "PROBE_NAME", "renders_probe", "supports_tool_messages"]

PROBE_NAME: Final = "rewright_probe_tool"
PROBE: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": PROBE_NAME,
        "description": "A tool.",
        "parameters": {
            "type": "object",
            "properties": {"text": {"type": "string", "description": "A text."}},
            "required": ["text"],
        },
    },
}
"""A schema with every field that a template might read."""


def renders_probe(
    render: Callable[[list[Message], list[dict[str, Any]]], str], messages: list[Message], tools: list[dict[str, Any]]
) -> bool:
    """Return True if the template accepts the input and its output contains PROBE_NAME."""
    try:
        return PROBE_NAME in render(messages, tools)
    except InputError:
        return False


def supports_tool_messages(after_marker: Callable[[list[Message]], str], template: str) -> bool:
    """Return True if the template has a tool role.

    Args:
        after_marker: renders messages that follow a turn, and returns the text behind the turn.
        template: source of the chat template.
    """
    try:
        text = after_marker([{"role": "tool", "name": "probe", "content": PROBE_NAME}])
    except InputError:
        return False
    # A template without a tool role either drops the text or writes a role that its model was not trained on.
    return PROBE_NAME in text and "tool" in template
