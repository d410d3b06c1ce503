"""Messages of ms-swift: the roles tool_call (JSON of one call) and tool_response.

Several calls of a turn are several messages, also behind the assistant's text of the same turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rewright.core.records import Message
from rewright.importers.conversation import MessageFormat, decoded, said
from rewright.importers.openai_chat import FORMAT as CHAT
from rewright.tasks.rows import Row

__all__ = ["FORMAT"]


def convert(row: Row, messages: Sequence[Any]) -> list[Message]:
    """Convert messages; a call whose content is not JSON is a malformed call of the model."""
    converted: list[Message] = []
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role != "tool_call":
            converted += CHAT.convert(row, [message])
            continue
        content = message.get("content")
        if content is not None and not isinstance(content, (str, Mapping, list)):
            raise row.fail(f"message {number}, a tool_call, has the content {content!r:.100}: expected JSON of a call")
        found = decoded(content)
        if not converted or converted[-1]["role"] != "assistant":
            converted.append(said("assistant", ""))
        calls = found if isinstance(found, list) else [found]
        converted[-1].setdefault("tool_calls", []).extend(map(_call, calls))
    return converted


def _call(call: Any) -> Any:
    if isinstance(call, Mapping):
        return call
    return {"name": "", "arguments": str(call), "error": "malformed call: not the JSON of a call"}


FORMAT: Final = MessageFormat(
    name="ms-swift",
    about="messages with the roles tool_call and tool_response (ms-swift)",
    marks=lambda message: message.get("role") == "tool_call",
    convert=convert,
)
