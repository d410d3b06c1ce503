"""What the rollout loop needs of tools: a toolset is opened for one trajectory, called, and closed.

A call never raises: every failure of a tool is a `ToolResult` with `error`. Only opening a toolset may raise
(`ToolError`, `SandboxError`); that ends the trajectory with stop reason `error`. One exception: a tool whose server
is gone after its retries raises `ServerError`, from either, which stops the stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rewright.core.records import ToolCall, ToolResult, ToolSpec

__all__ = ["Toolset", "ToolsetFactory"]


class Toolset(Protocol):
    """The tools of one trajectory, with whatever state they keep between its calls."""

    async def call(self, call: ToolCall, *, wall_seconds: float | None = None) -> ToolResult:
        """Run one call within `wall_seconds` (default: the factory's limit). Never raises for a tool's failure."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ToolsetFactory(Protocol):
    """Opens toolsets: `async with factory.open(task.tools) as toolset`. One factory serves a whole run."""

    def open(self, tools: Sequence[ToolSpec]) -> Toolset:
        """A toolset for one trajectory; entering it starts what the tools need."""
        ...

    async def close(self) -> None:
        """Stop every worker process."""
        ...
