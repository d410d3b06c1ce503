"""Combine several toolset factories: each tool of a task is executed by the factory for its kind.

A kind that the run has no factory for may be registered (kind `executor` of `rewright.core.registry`): a function
without arguments that returns the factory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from rewright.core.errors import InputError
from rewright.core.records import ToolCall, ToolResult, ToolSpec
from rewright.core.registry import find, known
from rewright.sandbox.errors import refused_call
from rewright.tools.base import Toolset, ToolsetFactory
from rewright.tools.functions import FunctionToolset

__all__ = ["CombinedTools", "CombinedToolset"]


class CombinedToolset:
    """The tools of one trajectory, of several kinds."""

    def __init__(self, parts: Sequence[tuple[Toolset, Sequence[ToolSpec]]], names: Sequence[str]) -> None:
        self._parts = parts
        self._owners = {tool.name: toolset for toolset, tools in parts for tool in tools}
        self._names = names
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for toolset, _ in self._parts:
                await stack.enter_async_context(toolset)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def call(self, call: ToolCall, *, wall_seconds: float | None = None) -> ToolResult:
        """Run one call with the toolset of its tool."""
        refused = refused_call(call, self._names)
        if refused is not None:
            return refused
        return await self._owners[call.name].call(call, wall_seconds=wall_seconds)

    async def load(self, name: str) -> ToolResult:
        """Load the function of the tool `name` (`FunctionToolset.load`). Other kinds of tools have none to load."""
        owner = self._owners[name]
        return await owner.load(name) if isinstance(owner, FunctionToolset) else ToolResult(content="")


class CombinedTools:
    """A `ToolsetFactory` that combines one factory per kind of tool. `executors`: the factories by kind."""

    def __init__(self, executors: Mapping[str, ToolsetFactory]) -> None:
        self._executors = dict(executors)

    def open(self, tools: Sequence[ToolSpec]) -> CombinedToolset:
        """Create a toolset for one trajectory. Raises `InputError` for a kind without a factory."""
        kinds: dict[str, list[ToolSpec]] = {}
        for tool in tools:
            if tool.kind not in self._executors:
                if tool.kind not in known("executor"):  # a kind comes from a file: no import paths
                    kinds_known = ", ".join([*self._executors, *known("executor")]) or "none"
                    raise InputError(f"tool {tool.name}: no executor for kind {tool.kind!r}; configured: {kinds_known}")
                self._executors[tool.kind] = find("executor", tool.kind)()
            kinds.setdefault(tool.kind, []).append(tool)
        # Sorted, so that two trajectories that wait for free sessions of two kinds cannot wait for each other.
        parts = [(self._executors[kind].open(of_kind), of_kind) for kind, of_kind in sorted(kinds.items())]
        return CombinedToolset(parts, [tool.name for tool in tools])

    async def close(self) -> None:
        """Close every factory."""
        for factory in self._executors.values():
            await factory.close()
