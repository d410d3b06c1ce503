"""The Python tool: a model's program runs in the sandbox, and what it prints is what the model sees.

Parity with AutoTraj (spec section 2): numpy as np, sympy and math are there, five seconds, the output cut to its first
and last 200 characters, an exception shown by its last line. The value of a last expression is shown too, as at a
prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self

from rewright.core.errors import InputError
from rewright.core.records import ToolCall, ToolResult, ToolSpec
from rewright.sandbox.errors import error_kind, error_result
from rewright.sandbox.executor import Executor, ExecutorSession
from rewright.sandbox.sandbox import Level, Sandbox
from rewright.sandbox.session import truncate_middle

__all__ = ["PRELOAD", "PythonTool", "PythonToolset"]

PRELOAD = ("numpy as np", "sympy", "math")
"""What a program finds imported."""

FENCE = re.compile(r"\A\s*```(?:python|py)?[^\S\n]*\n(.*?)\n?\s*```\s*\Z", re.DOTALL | re.IGNORECASE)


class PythonToolset:
    """The Python tool of one trajectory."""

    def __init__(self, factory: PythonTool, tools: Sequence[ToolSpec]) -> None:
        self._factory = factory
        self._names = [tool.name for tool in tools]
        self._session: ExecutorSession | None = None

    async def __aenter__(self) -> Self:
        await self._factory.sandbox.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def call(self, call: ToolCall, *, wall_seconds: float | None = None) -> ToolResult:
        """Run the program in the call's `code` argument (or in its only string argument)."""
        if call.error is not None:
            return error_result("malformed", call.error)
        if call.name not in self._names:
            return error_result("unknown_tool", f"unknown tool '{call.name}'; available: {', '.join(self._names)}")
        code = program_of(call.arguments)
        if code is None:
            return error_result("arguments", f"{call.name}(): expected the program as the text argument 'code'")
        if self._session is None:
            self._session = self._factory.sandbox.session()
        result = await self._session.run(code, wall_seconds=wall_seconds)
        if self._factory.state == "call":
            await self._end()
        return self._shown(result)

    async def _end(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _shown(self, result: ToolResult) -> ToolResult:
        """What the model is shown: an error by its last line, and everything within the limit."""
        content, error, seconds = result.content.strip("\n"), result.error, result.seconds
        if error is not None:
            message = error.partition(": ")[2]
            content = f"TimeoutError: {message}" if error_kind(result) == "timeout" else message
        return ToolResult(truncate_middle(content, self._factory.output_chars, "..."), error, seconds)


class PythonTool:
    """Opens Python tools: a `ToolsetFactory` for tools of kind `python`.

    `state` is `"call"` (every call starts with nothing) or `"trajectory"` (names stay for the trajectory's next call).
    `sandbox` replaces the local sandbox, for instance by a `RemoteSandbox`.
    """

    def __init__(
        self,
        *,
        level: Level = "strict",
        state: Literal["call", "trajectory"] = "call",
        wall_seconds: float = 5.0,
        memory_mb: int = 1024,
        output_chars: int = 400,
        sessions: int = 256,
        preload: Sequence[str] = PRELOAD,
        network: bool = False,
        sandbox: Executor | None = None,
    ) -> None:
        if state not in ("call", "trajectory"):
            raise InputError(f"python tool: unknown state {state!r}; expected call or trajectory")
        self.state = state
        self.output_chars = output_chars
        self.sandbox: Executor = sandbox or Sandbox(
            level,
            wall_seconds=wall_seconds,
            memory_mb=memory_mb,
            output_chars=max(10_000, output_chars),
            sessions=sessions,
            preload=preload,
            network=network,
        )

    @staticmethod
    def spec(name: str = "python") -> ToolSpec:
        """A tool of this kind, for a task's list of tools."""
        code = {"type": "string", "description": "The program. Print what you want to see."}
        parameters = {"type": "object", "properties": {"code": code}, "required": ["code"]}
        description = "Run a Python program and see its output. numpy (as np), sympy and math are imported."
        function = {"name": name, "description": description, "parameters": parameters}
        return ToolSpec(schema={"type": "function", "function": function}, kind="python")

    def open(self, tools: Sequence[ToolSpec]) -> PythonToolset:
        """The tool for one trajectory."""
        return PythonToolset(self, tools)

    async def close(self) -> None:
        """Stop every worker process."""
        await self.sandbox.close()


def program_of(arguments: dict[str, Any]) -> str | None:
    """The program among a call's arguments, without a Markdown fence around it; None where there is none."""
    code = arguments.get("code")
    if code is None and len(arguments) == 1:
        code = next(iter(arguments.values()))
    if not isinstance(code, str):
        return None
    fenced = FENCE.match(code)
    return fenced[1] if fenced else code
