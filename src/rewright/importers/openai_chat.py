"""Chat messages in the conventions of OpenAI, Hugging Face and the servers that follow them.

Calls are in `tool_calls`: arguments as JSON text (OpenAI) or an object (Hugging Face), also with `name` and `arguments`
without `function`, with the function's name under `function` (inspect_ai), as custom tools, in the deprecated
`function_call`, or all of them as one JSON text. Content is a text or a list of parts; a `refusal` is the text of a
message without other content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rewright.core.records import Message
from rewright.importers.conversation import (
    TEXT_PARTS,
    THOUGHT_PARTS,
    MessageFormat,
    name_some,
    parts_of,
    said,
)
from rewright.tasks.rows import Row

__all__ = ["FORMAT", "RESULT_ROLES"]

RESULT_ROLES: Final = frozenset({"tool", "function", "ipython", "observation", "environment", "tool_response"})
_ROLES: Final = frozenset({"system", "developer", "user", "assistant", *RESULT_ROLES})
_OTHER_PARTS: Final = frozenset(
    f"{before}{kind}{after}"
    for before in ("", "input_")
    for kind in ("image", "audio", "video", "file", "document", "resource", "data")
    for after in ("", "_url", "_link")
)
"""Types of the parts of a result that are no text."""
_CALL_KEYS: Final = frozenset({"tool_calls", "function_call", "tool_call_id"})


def convert(row: Row, messages: Sequence[Any]) -> list[Message]:
    """Convert chat messages. Raises InputError for an unknown role, content or place of calls."""
    return [_message(row, number, message) for number, message in enumerate(messages)]


def _message(row: Row, number: int, message: Any) -> Message:
    place = f"message {number}"
    if not isinstance(message, Mapping):
        raise row.fail(f"{place} is {message!r:.100}: expected an object with role and content")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        named = f"the role {role!r:.100}" if role is not None else f"no role, but {name_some(list(message))}"
        raise row.fail(
            f"{place} has {named}: expected system, developer, user, assistant (with its calls in tool_calls) or tool"
        )
    if role == "assistant":
        return _assistant(row, place, message)
    content = message.get("content")
    if role in RESULT_ROLES and not _is_content(content):
        content = json.dumps(content, ensure_ascii=False)  # a result as a value
    content, _ = parts_of(row, place, content, strict=False)
    if role in RESULT_ROLES:
        error = message.get("error")
        error = error.get("message") if isinstance(error, Mapping) else error
        if not content and error:
            content = str(error)
        name = message.get("name") or message.get("function")  # `function`: inspect_ai
        identity = message.get("tool_call_id")
        return said(
            "tool",
            content,
            tool_call_id=None if identity is None else str(identity),
            name=name if isinstance(name, str) else None,
            error=str(error) if error else None,
        )
    return said("system" if role == "developer" else role, content)


def _is_content(content: Any) -> bool:
    """Whether the content of a result is text or parts, and not a value that the tool returned."""
    if not isinstance(content, list):
        return content is None or isinstance(content, str)
    return all(
        isinstance(part, Mapping)
        and (isinstance(part.get("text"), str) or str(part.get("type")) in TEXT_PARTS | THOUGHT_PARTS | _OTHER_PARTS)
        for part in content
    )


def _assistant(row: Row, place: str, message: Mapping[str, Any]) -> Message:
    other = [key for key in message if "call" in str(key).lower() and key not in _CALL_KEYS and message[key]]
    if other:
        raise row.fail(f"{place} of the assistant has calls in {other[0]!r}: expected them in tool_calls")
    content, thought = parts_of(row, f"{place} of the assistant", message.get("content"), strict=True)
    refusal = message.get("refusal")
    if not content and isinstance(refusal, str):
        content = refusal
    keys = ("reasoning_content", "reasoning", "thinking")
    thought = thought or next((text for key in keys if isinstance(text := message.get(key), str) and text), "")
    given = message.get("tool_calls")
    calls = [_call(call) for call in given] if isinstance(given, (list, tuple)) else given
    return said("assistant", content, reasoning=thought, tool_calls=calls, function_call=message.get("function_call"))


def _call(call: Any) -> Any:
    """Bring the calls of inspect_ai and OpenAI's custom tools into the usual form; others are returned unchanged."""
    if not isinstance(call, Mapping):
        return call
    custom = call.get("custom")
    if isinstance(custom, Mapping) and "name" in custom:
        return {"id": call.get("id"), "name": custom["name"], "arguments": {"input": custom.get("input")}}
    if isinstance(call.get("function"), str) and isinstance(call.get("arguments"), Mapping) and "name" not in call:
        error = call.get("parse_error")
        return {"id": call.get("id"), "name": call["function"], "arguments": call["arguments"]} | (
            {"error": error} if error else {}
        )
    return call


FORMAT: Final = MessageFormat(
    name="openai",
    about="messages with role and content, calls in tool_calls (OpenAI, Hugging Face)",
    marks=lambda message: False,
    convert=convert,
)
