"""Items of OpenAI's Responses API: message, reasoning, function_call and function_call_output.

The items from one output of a tool or message of a user to the next are one turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rewright.core.records import Message
from rewright.importers.conversation import MessageFormat, kind_of, parts_of, said
from rewright.tasks.rows import Row

__all__ = ["FORMAT", "TYPES"]

TYPES: Final = frozenset(
    {"function_call", "function_call_output", "reasoning", "custom_tool_call", "custom_tool_call_output"}
)
"""Types that only items of this API have at their top level."""
_IGNORED: Final = frozenset({"item_reference"})


def convert(row: Row, items: Sequence[Any]) -> list[Message]:
    """Convert items. Raises InputError for an item of another type, such as the call of a hosted tool."""
    messages: list[Message] = []
    turn: Message | None = None
    for number, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise row.fail(f"item {number} is {kind_of(item)}: expected an object with type")
        kind = str(item.get("type") or ("message" if "role" in item else None))
        role = item.get("role")
        if kind in _IGNORED:
            continue
        if kind in ("function_call_output", "custom_tool_call_output"):
            turn = None
            text, _ = parts_of(row, f"item {number}", item.get("output"), strict=False)
            messages.append(said("tool", text, tool_call_id=item.get("call_id")))
        elif kind == "message" and role in ("user", "system", "developer"):
            turn = None
            text, _ = parts_of(row, f"item {number}", item.get("content"), strict=False)
            messages.append(said("user" if role == "user" else "system", text))
        elif kind in ("message", "reasoning", "function_call", "custom_tool_call"):
            if kind == "message" and role != "assistant":
                raise row.fail(f"item {number} has the role {role!r:.60}: expected user, system, developer, assistant")
            if turn is None:
                turn = said("assistant", "")
                messages.append(turn)
            _add(row, number, turn, kind, item)
        else:
            raise row.fail(
                f"item {number} has the type {kind!r:.60}: expected message, reasoning, function_call or "
                "function_call_output"
            )
    return messages


def _add(row: Row, number: int, turn: Message, kind: str, item: Mapping[str, Any]) -> None:
    """Add an item of the model to its turn."""
    if kind == "message":
        text, _ = parts_of(row, f"item {number}", item.get("content"), strict=True)
        turn["content"] += text
    elif kind == "reasoning":
        lists = [item.get(key) for key in ("content", "summary")]
        parts = [part for given in lists if isinstance(given, list) for part in given]
        texts = [str(part.get("text") or "") for part in parts if isinstance(part, Mapping)]
        turn["reasoning"] = "\n".join([*([turn["reasoning"]] if turn.get("reasoning") else []), *texts]).strip()
    else:
        arguments = item.get("arguments") if kind == "function_call" else {"input": item.get("input")}
        call = {"id": item.get("call_id") or item.get("id"), "name": item.get("name"), "arguments": arguments}
        turn.setdefault("tool_calls", []).append(call)


def _is_message(item: Mapping[str, Any]) -> bool:
    """Whether an item is a message of this API (Anthropic's have the type "message" too, with parts of type text)."""
    content = item.get("content")
    if isinstance(content, str):
        return item.get("type") == "message"
    parts = content if isinstance(content, list) else []
    kinds = {str(part.get("type")) for part in parts if isinstance(part, Mapping)}
    return bool(kinds & {"output_text", "input_text"}) and "role" in item


FORMAT: Final = MessageFormat(
    name="responses",
    about="input and output with items of type message, function_call, function_call_output (OpenAI Responses API)",
    marks=lambda message: str(message.get("type")) in TYPES or _is_message(message),
    convert=convert,
)
