"""What executes code: the local `Sandbox` and the `RemoteSandbox` are the same to the tools that use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rewright.records import ToolResult

__all__ = ["Executor", "ExecutorSession"]


class ExecutorSession(Protocol):
    """The calls and programs of one trajectory. Nothing raises for what the code does."""

    async def call(self, name: str, arguments: Mapping[str, Any], *, wall_seconds: float | None = None) -> ToolResult:
        """Call the function `name` with keyword arguments; its value as text."""
        ...

    async def run(self, source: str, *, keep: bool = True, wall_seconds: float | None = None) -> ToolResult:
        """Run a program: what it prints, then the value of its last expression."""
        ...

    async def close(self) -> None:
        """End what the session has started."""
        ...


class Executor(Protocol):
    """Opens sessions."""

    async def start(self) -> None:
        """Make sure that code can be executed. Raises `SandboxError`."""
        ...

    def session(
        self,
        sources: Mapping[str, str] | None = None,
        *,
        targets: Mapping[str, str] | None = None,
        data: Mapping[str, Any] | None = None,
        modules: Sequence[str] = (),
    ) -> ExecutorSession:
        """A session in which the functions of `sources` and `targets` can be called, and programs run."""
        ...

    async def close(self) -> None:
        """Stop every worker."""
        ...
