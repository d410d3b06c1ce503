"""Keep one copy of a tool that many tasks have: schemas take most of the memory of a large set of tasks."""

from __future__ import annotations

import hashlib

import msgspec

from rewright.core.records import Task, ToolSpec

__all__ = ["SharedTools"]


class SharedTools:
    """Replaces the tools of tasks by equal tools of earlier ones."""

    def __init__(self) -> None:
        self._known: dict[bytes, ToolSpec] = {}

    def of(self, task: Task) -> Task:
        """The task with shared tools."""
        tools = tuple(map(self._shared, task.tools))
        if task.user is not None and task.user.tools:
            own = tuple(map(self._shared, task.user.tools))
            task = msgspec.structs.replace(task, user=msgspec.structs.replace(task.user, tools=own))
        return msgspec.structs.replace(task, tools=tools) if tools else task

    def _shared(self, tool: ToolSpec) -> ToolSpec:
        try:
            key = hashlib.blake2b(msgspec.json.encode(tool), digest_size=16).digest()
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
            return tool  # data of a tool that has no JSON form
        return self._known.setdefault(key, tool)
