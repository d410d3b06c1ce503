"""The tool interface of the rollout loop: a toolset is opened for one trajectory, called, and closed.

A call does not raise: every failure of a tool is a `ToolResult` with `error`. Opening a toolset may raise `ToolError`
or `SandboxError`, which ends the trajectory with stop reason `error`; so may a call if the process of a tool's server
cannot be started again. Both may raise `ServerError` if the server behind a tool does not answer after its retries;
that stops the stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rewright.core.records import ToolCall, ToolResult, ToolSpec

__all__ = ["Toolset", "ToolsetFactory"]


class Toolset(Protocol):
    """The tools of one trajectory, with the state that they keep between its calls."""

    async def call(self, call: ToolCall, *, wall_seconds: float | None = None) -> ToolResult:
        """Run one call with a limit of `wall_seconds` (default: the factory's). A failure of the tool is a result."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ToolsetFactory(Protocol):
    """Opens toolsets: `async with factory.open(task.tools) as toolset`. One factory serves a whole run."""

    def open(self, tools: Sequence[ToolSpec]) -> Toolset:
        """Create a toolset for one trajectory. Entering it starts the processes and connections of the tools."""
        ...

    async def close(self) -> None:
        """Stop every worker process."""
        ...
