"""Messages of LangChain: `model_dump`, `messages_to_dict` (`{"type", "data"}`) and `dumpd` (`{"lc", "id", "kwargs"}`).

Messages of which only the calls are LangChain's have `role` in the place of `type`.

Calls are `{"name", "args", "id"}` in `tool_calls`; those that LangChain could not parse are in `invalid_tool_calls`,
with their arguments as text, and are malformed calls here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rewright.core.records import Message
from rewright.importers.conversation import MessageFormat, kind_of, parts_of, said
from rewright.tasks.rows import Row

__all__ = ["FORMAT"]

_ROLES: Final = {
    "human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "tool", "developer": "system",
    "humanmessagechunk": "user", "aimessagechunk": "assistant", "systemmessagechunk": "system",
    "toolmessagechunk": "tool", "functionmessagechunk": "tool", "chatmessagechunk": "chat",
    "user": "user", "assistant": "assistant", "chat": "chat", "remove": "remove",
}  # fmt: skip
_CHAT_ROLES: Final = {"user": "user", "human": "user", "assistant": "assistant", "ai": "assistant", "system": "system"}
_CALL_PARTS: Final = (
    "tool_use",
    "tool_call",
    "function_call",
    "tool_call_chunk",
    "invalid_tool_call",
    "input_json_delta",
)
"""Parts that repeat what is in `tool_calls`."""


def convert(row: Row, messages: Sequence[Any]) -> list[Message]:
    """Convert LangChain's messages. Raises InputError for a message of another form."""
    converted = []
    for number, message in enumerate(messages):
        kind, values = _unwrapped(message)
        if kind == "chat":
            kind = _CHAT_ROLES.get(str(values.get("role")).lower(), "")
        if not kind:
            raise row.fail(
                f"message {number} is {kind_of(message)}: expected LangChain's type human, ai, system or tool"
            )
        if kind != "remove":
            converted.append(_message(row, number, kind, values))
    return converted


def _unwrapped(message: Any) -> tuple[str, Mapping[str, Any]]:
    """Return the role and the fields of a message in any of the three forms; the role is "" if there is none."""
    if not isinstance(message, Mapping):
        return "", {}
    values = message
    kind = message.get("type") or message.get("role")
    if "lc" in message and isinstance(message.get("kwargs"), Mapping):
        values = message["kwargs"]
        path = message.get("id")
        name = str(path[-1]) if isinstance(path, list) and path else ""
        kind = values.get("type") or name.removesuffix("Chunk").removesuffix("Message").lower()
    elif isinstance(message.get("data"), Mapping):
        values = message["data"]
    return _ROLES.get(str(kind).lower(), ""), values


def _message(row: Row, number: int, role: str, values: Mapping[str, Any]) -> Message:
    strict = role == "assistant"
    text, thought = parts_of(row, f"message {number}", values.get("content"), strict=strict, ignored=_CALL_PARTS)
    if role == "tool":
        error = (text or "error") if values.get("status") == "error" else None
        return said(role, text, tool_call_id=values.get("tool_call_id"), name=values.get("name"), error=error)
    if role != "assistant":
        return said(role, text)
    extra = values.get("additional_kwargs")
    extra = extra if isinstance(extra, Mapping) else {}
    calls = [_call(call) for call in _list(values.get("tool_calls"))]
    for call in _list(values.get("invalid_tool_calls")):
        if isinstance(call, Mapping):
            problem = str(call.get("error") or "the arguments are not JSON")
            calls.append({**_call(call), "error": f"malformed call: {problem}"})
    if not calls:
        calls = _list(extra.get("tool_calls"))
    thought = thought or str(extra.get("reasoning_content") or "")
    return said(role, text, reasoning=thought, tool_calls=calls, function_call=extra.get("function_call"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _call(call: Any) -> Any:
    if isinstance(call, Mapping) and "args" in call:
        return {"id": call.get("id"), "name": call.get("name"), "arguments": call["args"]}
    return call


def _marks(message: Mapping[str, Any]) -> bool:
    if "lc" in message and "kwargs" in message:
        return True
    if "role" in message:
        calls = message.get("tool_calls")
        return str(message["role"]).lower() in ("human", "ai") or (
            isinstance(calls, list)
            and any(isinstance(call, Mapping) and {"name", "args"} <= call.keys() for call in calls)
        )
    return bool(_unwrapped(message)[0]) and ("content" in message or isinstance(message.get("data"), Mapping))


FORMAT: Final = MessageFormat(
    name="langchain",
    about='messages with type "human", "ai", "tool", calls as {"name", "args"} (LangChain)',
    marks=_marks,
    convert=convert,
)
