"""Rewright's own task format: one `Task` record per row (docs/tasks.md)."""

from __future__ import annotations

from typing import Any

import msgspec

from rewright.core.closest import closest_key
from rewright.core.records import FollowUp, Gold, Prerequisites, SimulatedUser, Task, ToolCall, ToolSpec
from rewright.core.registry import known
from rewright.tasks.formats import RowFormat
from rewright.tasks.rows import Row, function_schema

__all__ = ["FORMAT"]


_KEYS: dict[type, tuple[str, ...]] = {
    kind: kind.__struct_fields__ for kind in (Task, FollowUp, SimulatedUser, Prerequisites, Gold, ToolSpec, ToolCall)
}


ROLES = ("system", "developer", "user", "assistant", "tool")
"""Valid message roles, as in chat templates and OpenAI-compatible servers."""


def _unknown_keys(row: Row, value: Any, kind: type, path: str) -> None:
    """Raise for a key that the record does not have. msgspec would silently drop it and hide a typo."""
    for key in value if isinstance(value, dict) else ():
        if key not in _KEYS[kind]:
            near = closest_key(str(key), _KEYS[kind])
            hint = f"did you mean {near!r}?" if near is not None else f"expected one of {', '.join(_KEYS[kind])}"
            raise row.fail(f"unknown key {path + str(key)!r}; {hint}")


def _to_task(row: Row) -> Task:
    values = row.values
    _unknown_keys(row, values, Task, "")
    gold = values.get("gold")
    _unknown_keys(row, gold, Gold, "gold.")
    calls = gold.get("calls") if isinstance(gold, dict) else None
    for number, call in enumerate(calls if isinstance(calls, list) else []):
        _unknown_keys(row, call, ToolCall, f"gold.calls[{number}].")
    tools = values.get("tools")
    for number, tool in enumerate(tools if isinstance(tools, list) else []):
        _unknown_keys(row, tool, ToolSpec, f"tools[{number}].")
    follow_ups = values.get("follow_ups")
    for number, follow_up in enumerate(follow_ups if isinstance(follow_ups, list) else []):
        _unknown_keys(row, follow_up, FollowUp, f"follow_ups[{number}].")
    user = values.get("user")
    _unknown_keys(row, user, SimulatedUser, "user.")
    _unknown_keys(row, values.get("prerequisites"), Prerequisites, "prerequisites.")
    tools = user.get("tools") if isinstance(user, dict) else None
    for number, tool in enumerate(tools if isinstance(tools, list) else []):
        _unknown_keys(row, tool, ToolSpec, f"user.tools[{number}].")
    try:
        task = msgspec.convert(values, Task)
    except msgspec.ValidationError as problem:
        raise row.fail(str(problem).replace(" - at `$.", " at `").replace(" - at `$", " at `")) from None
    if not task.id:
        raise row.fail("'id' is empty, expected a text")
    message_lists = [("'messages'", task.messages)]
    message_lists += [
        (f"'follow_ups'[{number}].messages", part.messages) for number, part in enumerate(task.follow_ups)
    ]
    for key, messages in message_lists:
        if not messages:
            raise row.fail(f"{key} is empty, expected at least one message")
        for number, message in enumerate(messages):
            if not isinstance(message.get("role"), str):
                raise row.fail(f"{key}[{number}] has no role, expected for instance 'user'")
            if message["role"] not in ROLES:
                raise row.fail(f"{key}[{number}] has the role {message['role']!r}, expected one of {', '.join(ROLES)}")
            content = message.get("content")
            if content is None and not message.get("tool_calls"):
                raise row.fail(f"{key}[{number}] has no content, expected a text")
            if not isinstance(content, str | None):
                raise row.fail(f"{key}[{number}] has content of the type {type(content).__name__}, expected a text")
    for number, tool in enumerate(task.all_tools):
        # Unlike other formats, this one does not accept a schema without the outer `function` object.
        function_schema(row, f"'tools'[{number}].schema", {"function": None, **tool.schema})
    if task.prerequisites is not None and task.prerequisites.kind not in known("prerequisite"):
        kinds = ", ".join(known("prerequisite"))
        raise row.fail(f"prerequisites.kind is {task.prerequisites.kind!r}: expected one of {kinds}")
    if task.user is not None:
        if task.user.kind not in known("user"):
            raise row.fail(f"user.kind is {task.user.kind!r}: expected one of {', '.join(known('user'))}")
        for number, tool in enumerate(task.user.tools):
            function_schema(row, f"user.tools[{number}].schema", {"function": None, **tool.schema})
    return task


FORMAT = RowFormat(_to_task, columns=("id", "messages"))
