"""What executes code: the local `Sandbox` and the `RemoteSandbox` are the same to the tools that use them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from rewright.core.records import ToolResult

__all__ = ["Executor", "ExecutorSession", "SessionSetup"]


class SessionSetup(NamedTuple):
    """What a session starts with: sources and targets by tool name, and the data bound to targets."""

    sources: Mapping[str, str]
    targets: Mapping[str, str]
    data: Mapping[str, Any]
    modules: Sequence[str] = ()
    """Modules that the fork server may import once for all (trusted targets only)."""
    within: Mapping[str, Sequence[str]] = {}
    """By tool name: the packages in one of which its target has to be defined, wherever its import path leads."""


class ExecutorSession(ABC):
    """The calls and programs of one trajectory, one at a time. Nothing raises for what the code does."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def call(self, name: str, arguments: Mapping[str, Any], *, wall_seconds: float | None = None) -> ToolResult:
        """Call the function `name` with keyword arguments; its value as text."""

    @abstractmethod
    async def run(self, source: str, *, keep: bool = True, wall_seconds: float | None = None) -> ToolResult:
        """Run a program: what it prints, then the value of its last expression, or the last line of its exception.

        With `keep` its names are there for the next program of this session, where the executor keeps any.
        """

    @abstractmethod
    async def close(self) -> None:
        """End what the session has started."""


class Executor(ABC):
    """Opens sessions. Use as an async context manager."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def start(self) -> None:
        """Make sure that code can be executed. Raises `SandboxError`."""

    @abstractmethod
    async def close(self) -> None:
        """Stop every worker."""

    @abstractmethod
    def open(self, setup: SessionSetup) -> ExecutorSession:
        """A session that starts with `setup`."""

    def session(
        self,
        sources: Mapping[str, str] | None = None,
        *,
        targets: Mapping[str, str] | None = None,
        data: Mapping[str, Any] | None = None,
        modules: Sequence[str] = (),
        within: Mapping[str, Sequence[str]] | None = None,
    ) -> ExecutorSession:
        """A session of one trajectory: `sources` by function name, each in a module scope of its own.

        `targets` maps a name to `"package.module:function"`, called as `function(data[name], **arguments)`, without
        data as `function(**arguments)`; `modules` are imported by the fork server itself, once, and so must be trusted.
        With `within`, a target must be defined in one of these packages: an import path can lead out of its module,
        into what that imports.
        """
        return self.open(SessionSetup(sources or {}, targets or {}, data or {}, modules, within or {}))

    async def call(self, source: str, function: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Define `function` by `source` in a session of its own and call it by keywords; its value as text."""
        async with self.session({function: source}) as session:
            return await session.call(function, arguments)

    async def run(self, source: str, *, wall_seconds: float | None = None) -> ToolResult:
        """Run a program in a session of its own: what it prints, then the value of its last expression."""
        async with self.session() as session:
            return await session.run(source, wall_seconds=wall_seconds)
