"""The interface of code execution, implemented by the local `Sandbox` and by `RemoteSandbox`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from rewright.core.records import ToolResult

__all__ = ["Executor", "ExecutorSession", "SessionSetup"]


class SessionSetup(NamedTuple):
    """The initial state of a session: sources and targets by tool name, and the data bound to targets."""

    sources: Mapping[str, str]
    targets: Mapping[str, str]
    data: Mapping[str, Any]
    modules: Sequence[str] = ()
    """Modules that the fork server imports once for all children (trusted targets only)."""
    within: Mapping[str, Sequence[str]] = {}
    """By tool name: the packages that must define the target, whatever its import path is."""


class ExecutorSession(ABC):
    """The calls and programs of one trajectory, one at a time. Errors of the code are results and are not raised."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def call(self, name: str, arguments: Mapping[str, Any], *, wall_seconds: float | None = None) -> ToolResult:
        """Call the function `name` with keyword arguments. The result's content is its return value as text."""

    async def load(self, name: str) -> ToolResult:
        """Load the function `name` without calling it; an error says why it cannot be called.

        Executors that cannot tell return a result without an error.
        """
        return ToolResult(content="")

    @abstractmethod
    async def run(self, source: str, *, keep: bool = True, wall_seconds: float | None = None) -> ToolResult:
        """Run a program.

        Args:
            source: the program.
            keep: keep its variables for the next program of the session, if the executor supports state.
            wall_seconds: time limit; default: the executor's.

        The result's content is the printed output, then the value of the last expression or the last line of the
        traceback.
        """

    @abstractmethod
    async def close(self) -> None:
        """Stop the processes of the session."""


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
        """Check that code can be executed. Raises `SandboxError`."""

    @abstractmethod
    async def close(self) -> None:
        """Stop every worker."""

    @abstractmethod
    def open(self, setup: SessionSetup) -> ExecutorSession:
        """Create a session with the initial state `setup`."""

    def session(
        self,
        sources: Mapping[str, str] | None = None,
        *,
        targets: Mapping[str, str] | None = None,
        data: Mapping[str, Any] | None = None,
        modules: Sequence[str] = (),
        within: Mapping[str, Sequence[str]] | None = None,
    ) -> ExecutorSession:
        """Create a session for one trajectory.

        Args:
            sources: source text by function name; each source has a module scope of its own.
            targets: `"package.module:function"` by name, called as `function(data[name], **arguments)`, or as
                `function(**arguments)` without data.
            data: the first argument of targets, by name.
            modules: imported once by the fork server itself, so they must be trusted.
            within: by name, the packages that must define the target. An import path can name an object that its
                module only imports.
        """
        return self.open(SessionSetup(sources or {}, targets or {}, data or {}, modules, within or {}))

    async def call(self, source: str, function: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Define `function` by `source` and call it in a new session. The content is its return value as text."""
        async with self.session({function: source}) as session:
            return await session.call(function, arguments)

    async def run(self, source: str, *, wall_seconds: float | None = None) -> ToolResult:
        """Run a program in a new session. The content is its output, then the value of its last expression."""
        async with self.session() as session:
            return await session.run(source, wall_seconds=wall_seconds)
