"""Messages of Anthropic's API: calls are `tool_use` parts of the assistant, results `tool_result` parts of the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rewright.core.records import Message
from rewright.importers.conversation import MessageFormat, kind_of, parts_of, said
from rewright.tasks.rows import Row

__all__ = ["FORMAT"]


def convert(row: Row, messages: Sequence[Any]) -> list[Message]:
    """Convert messages. Raises InputError for another role, and for calls of tools that Anthropic's servers run."""
    converted: list[Message] = []
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in ("user", "assistant", "system"):
            raise row.fail(f"message {number} is {kind_of(message)}: expected the role user, assistant or system")
        content = message.get("content")
        place = f"message {number}"
        if role == "assistant":
            text, thought = parts_of(row, place, content, strict=True, ignored=("tool_use",))
            calls = [
                {"id": part.get("id"), "name": part.get("name"), "arguments": part.get("input")}
                for part in _parts(content, "tool_use")
            ]
            converted.append(said("assistant", text, reasoning=thought, tool_calls=calls))
            continue
        results = _parts(content, "tool_result")
        for part in results:
            text, _ = parts_of(row, place, part.get("content"), strict=False)
            error = (text or "error") if part.get("is_error") else None
            converted.append(said("tool", text, tool_call_id=part.get("tool_use_id"), error=error))
        text, _ = parts_of(row, place, content, strict=False, ignored=("tool_result",))
        if text or not results:
            converted.append(said(str(role), text))
    return converted


def _parts(content: Any, kind: str) -> list[Mapping[str, Any]]:
    parts = content if isinstance(content, list) else []
    return [part for part in parts if isinstance(part, Mapping) and part.get("type") == kind]


FORMAT: Final = MessageFormat(
    name="anthropic",
    about="messages whose content has parts of type tool_use and tool_result (Anthropic)",
    marks=lambda message: bool(
        "role" in message
        and not message.get("tool_calls")
        and (_parts(message.get("content"), "tool_use") or _parts(message.get("content"), "tool_result"))
    ),
    convert=convert,
)
