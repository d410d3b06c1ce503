"""Messages of Gemini and Gemma: the role `model`, with `content`, or with `parts` (functionCall, functionResponse)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rewright.core.records import Message
from rewright.importers.conversation import MessageFormat, kind_of, said
from rewright.importers.openai_chat import FORMAT as CHAT
from rewright.tasks.rows import Row

__all__ = ["FORMAT"]


def convert(row: Row, messages: Sequence[Any]) -> list[Message]:
    """Convert messages; those without `parts` are chat messages with the role `model` for `assistant`."""
    converted: list[Message] = []
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise row.fail(
                f"message {number} is {kind_of(message)}: expected an object with role, and parts or content"
            )
        role = "assistant" if message.get("role") == "model" else message.get("role") or "user"
        if isinstance(message.get("parts"), list):
            converted += _from_parts(row, number, str(role), message["parts"])
        else:
            converted += CHAT.convert(row, [{**message, "role": role}])
    return converted


def _from_parts(row: Row, number: int, role: str, parts: Sequence[Any]) -> list[Message]:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    results: list[Message] = []
    for part in parts:
        if not isinstance(part, Mapping):
            raise row.fail(f"message {number} has the part {part!r:.100}: expected an object")
        call = part.get("functionCall") or part.get("function_call")
        response = part.get("functionResponse") or part.get("function_response")
        if isinstance(call, Mapping):
            calls.append({"id": call.get("id"), "name": call.get("name"), "arguments": call.get("args") or {}})
        elif isinstance(response, Mapping):
            value = response.get("response")
            only = value.get("result", value.get("output")) if isinstance(value, Mapping) and len(value) == 1 else None
            error = value.get("error") if isinstance(value, Mapping) else None
            text = only if isinstance(only, str) else json.dumps(value, ensure_ascii=False)
            found = said("tool", text, tool_call_id=response.get("id"), name=response.get("name"))
            results.append(found | ({"error": str(error)} if error else {}))
        elif isinstance(part.get("text"), str):
            (thoughts if part.get("thought") else texts).append(part["text"])
        elif role == "assistant":
            raise row.fail(f"message {number} has a part with {kind_of(part)}: expected text or functionCall")
        else:
            texts.append(f"[{next(iter(part), 'part')}]")
    if role == "assistant":
        return [said(role, "".join(texts), reasoning="".join(thoughts), tool_calls=calls)]
    said_too = [said("system" if role == "system" else "user", "".join(texts))] if texts or not results else []
    return [*results, *said_too]


FORMAT: Final = MessageFormat(
    name="gemini",
    about='messages with the role "model", and content or parts (Gemini, Gemma)',
    marks=lambda message: message.get("role") == "model" or ("parts" in message and "content" not in message),
    convert=convert,
)
