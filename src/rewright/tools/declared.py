"""Tools without an implementation: data sets declare their schemas only, and what counts are the calls.

A turn that calls one ends the trajectory with the stop reason `called` (`rewright.rollout.loop`), so no call of one is
executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from rewright.core.records import Task, ToolCall, ToolResult, ToolSpec
from rewright.sandbox.errors import error_result

__all__ = ["KIND", "DeclaredTools", "DeclaredToolset", "declared_names"]

KIND: Final = "declared"


def declared_names(task: Task) -> set[str]:
    """The names of the task's declared tools: a call of one ends the trajectory."""
    return {tool.name for tool in task.all_tools if tool.kind == KIND}


class DeclaredToolset:
    """The declared tools of one trajectory."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def call(self, call: ToolCall, *, wall_seconds: float | None = None) -> ToolResult:
        """Return an error: there is nothing to execute."""
        return error_result("not_recorded", f"{call.name} has no implementation and no recorded result")


class DeclaredTools:
    """A `ToolsetFactory` for tools of kind `declared`."""

    def open(self, tools: Sequence[ToolSpec]) -> DeclaredToolset:
        """Create a toolset for one trajectory."""
        return DeclaredToolset()

    async def close(self) -> None:
        """Nothing is open."""
