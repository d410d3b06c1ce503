"""Python function tools: sources from the data set (FTRL, ToolHop) and importable functions.

Sources are data-set code and run in a sandbox of the requested level. A target runs at level `process` if `trusted`
contains it or its package, and if it is defined in a trusted package (which `mine:os.system` is not). The tools of
Rewright's own tasks (`rewright.core.trust.builtin_targets`) also run at level `process`. Any other target is as
untrusted as a source, since a task file can name `os:system`. No other function of Rewright can be a target.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rewright.core.errors import InputError
from rewright.core.records import ToolCall, ToolResult, ToolSpec
from rewright.core.trust import builtin_targets, check_packages, is_builtin_path, is_in_packages, target_problem
from rewright.sandbox.errors import error_result, refused_call
from rewright.sandbox.executor import Executor, ExecutorSession
from rewright.sandbox.sandbox import Level, Sandbox

__all__ = ["FunctionTools", "FunctionToolset", "implementation_problem"]


def implementation_problem(tool: ToolSpec) -> str | None:
    """Say that a tool of kind `function` does not have exactly one of source and target; None if it has."""
    if tool.kind != "function" or (tool.source is None) != (tool.target is None):
        return None
    what = "neither source nor target" if tool.source is None else "both source and target"
    return f"tool {tool.name} has {what}: expected exactly one of them, which is called"


class FunctionToolset:
    """The function tools of one trajectory. Calls run one at a time, in order."""

    def __init__(self, factory: FunctionTools, tools: Sequence[ToolSpec]) -> None:
        self._factory = factory
        self._tools = {tool.name: tool for tool in tools}
        self._sessions: dict[bool, ExecutorSession] = {}

    async def __aenter__(self) -> Self:
        for trusted in {self._factory.is_trusted(tool) for tool in self._tools.values()}:
            await self._factory.executor(trusted=trusted).start()
            tools = [tool for tool in self._tools.values() if self._factory.is_trusted(tool) == trusted]
            self._sessions[trusted] = self._factory.session(tools, trusted=trusted)
        await self._factory.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()
        self._factory.leave()

    async def call(self, call: ToolCall, *, wall_seconds: float | None = None) -> ToolResult:
        """Run one call. Malformed calls, unknown tools and wrong arguments give a result with an error."""
        refused = refused_call(call, self._tools)
        if refused is not None:
            return refused
        tool = self._tools[call.name]
        if not isinstance(call.arguments, dict):
            return error_result("arguments", f"{call.name}(): the arguments must be a JSON object")
        session = self._sessions[self._factory.is_trusted(tool)]
        return await session.call(call.name, call.arguments, wall_seconds=wall_seconds)

    async def load(self, name: str) -> ToolResult:
        """Import the target of the tool `name` if it is the user's own, a trusted one. An error says why it failed."""
        tool = self._tools[name]
        if tool.target is None or is_builtin_path(tool.target) or not self._factory.is_trusted(tool):
            return ToolResult(content="")
        return await self._sessions[True].load(name)


class FunctionTools:
    """A `ToolsetFactory` for tools of kind `function`, with one session per trajectory.

    Args:
        level: isolation level of untrusted code.
        wall_seconds, memory_mb, output_chars, preload, network: as for `Sandbox`.
        sessions: maximum number of open toolsets; further ones wait when they are entered.
        trusted: the user's own packages, or import paths of their functions.
        sandbox: replaces the sandbox of untrusted code, for instance by a `RemoteSandbox`.

    Raises `InputError` if `trusted` names Rewright itself.
    """

    def __init__(
        self,
        *,
        level: Level = "strict",
        wall_seconds: float = 5.0,
        memory_mb: int = 512,
        output_chars: int = 100_000,
        sessions: int = 256,
        trusted: Sequence[str] = (),
        preload: Sequence[str] = ("math", "json", "re", "datetime"),
        network: bool = False,
        sandbox: Executor | None = None,
    ) -> None:
        limits: dict[str, Any] = {
            "wall_seconds": wall_seconds,
            "memory_mb": memory_mb,
            "output_chars": output_chars,
            "sessions": sessions,
            "preload": preload,
            "network": network,
        }
        paths = [path or str(Path.cwd()) for path in sys.path]
        self._sandbox: Executor = sandbox or Sandbox(level, **limits)
        self._own = Sandbox("process" if level == "strict" else level, paths=paths, trusted=True, **limits)
        check_packages(trusted, "trusted")
        self._trusted = tuple(trusted)
        self._sessions = sessions
        self._slots = asyncio.Semaphore(sessions)
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, tools: Sequence[ToolSpec]) -> FunctionToolset:
        """Create a toolset for one trajectory.

        Raises `InputError` for a tool without exactly one of source and target, and for an invalid target.
        """
        for tool in tools:
            if (problem := implementation_problem(tool)) is not None:
                raise InputError(problem)
            if tool.target is not None and (problem := target_problem(tool.name, tool.target)) is not None:
                raise InputError(problem)
        return FunctionToolset(self, tools)

    def is_trusted(self, tool: ToolSpec) -> bool:
        """Return True for tools of Rewright's own tasks, and for targets that `trusted` or their package allows."""
        if tool.target is None or is_builtin_path(tool.target):
            return tool.target in builtin_targets()
        return is_in_packages(tool.target, self._trusted)

    async def enter(self) -> None:
        """Wait for a toolset slot. This prevents a deadlock of toolsets that need a session in both sandboxes."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._slots = loop, asyncio.Semaphore(self._sessions)
        await self._slots.acquire()

    def leave(self) -> None:
        """Release the toolset slot."""
        self._slots.release()

    def executor(self, *, trusted: bool) -> Executor:
        """Return the sandbox of trusted targets, or that of untrusted code."""
        return self._own if trusted else self._sandbox

    def session(self, tools: Sequence[ToolSpec], *, trusted: bool) -> ExecutorSession:
        """Create a session for `tools`."""
        targets = {tool.name: tool.target for tool in tools if tool.target is not None}
        return self.executor(trusted=trusted).session(
            {tool.name: tool.source for tool in tools if tool.source is not None},
            targets=targets,
            data={tool.name: tool.data for tool in tools if tool.target is not None and tool.data is not None},
            modules=sorted({target.partition(":")[0] for target in targets.values()}) if trusted else (),
            within={name: self._allowed_packages(target) for name, target in targets.items()} if trusted else {},
        )

    def _allowed_packages(self, target: str) -> list[str]:
        """The packages in which a trusted target may be defined: its own if it is Rewright's, else the trusted ones."""
        paths = [target] if target in builtin_targets() else self._trusted
        return sorted({path.partition(":")[0] for path in paths})

    async def close(self) -> None:
        """Stop every worker process."""
        await self._sandbox.close()
        await self._own.close()
