"""An executor of tools of its own kind: every call returns its arguments, in upper case."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rewright.core.records import ToolCall, ToolResult, ToolSpec
from rewright.core.registry import register


class Toolset:
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def call(self, call: ToolCall, *, wall_seconds: float | None = None) -> ToolResult:
        return ToolResult(json.dumps(call.arguments).upper())


class Executor:
    def open(self, tools: Sequence[ToolSpec]) -> Toolset:
        return Toolset()

    async def close(self) -> None:
        """Nothing is open."""


register("executor", "toy-echo", Executor)
