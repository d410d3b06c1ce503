"""The Python tool: runs a model's program in the sandbox and returns its output.

As in AutoTraj (section 2): numpy as np, sympy and math are imported, the time limit is five seconds, the output is
truncated to its first and last 200 characters, and an exception is shown by its last line. In addition, the value of
the last expression is shown, as in an interactive interpreter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self

from rewright.core.errors import InputError
from rewright.core.records import ToolCall, ToolResult, ToolSpec
from rewright.sandbox.errors import error_kind, error_result, refused_call
from rewright.sandbox.executor import Executor, ExecutorSession
from rewright.sandbox.sandbox import Level, Sandbox
from rewright.sandbox.session import truncate_middle

__all__ = ["PRELOAD", "PythonTool", "PythonToolset"]

PRELOAD = ("numpy as np", "sympy", "math")
"""Modules that are imported for every program."""

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
        refused = refused_call(call, self._names)
        if refused is not None:
            return refused
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
        """Format a result for the model: an error by its last line, everything truncated to the limit."""
        content, error, seconds = result.content.strip("\n"), result.error, result.seconds
        if error is not None:
            message = error.partition(": ")[2]
            content = f"TimeoutError: {message}" if error_kind(result) == "timeout" else message
        return ToolResult(truncate_middle(content, self._factory.output_chars, "..."), error, seconds)


class PythonTool:
    """A `ToolsetFactory` for tools of kind `python`.

    Args:
        level, wall_seconds, memory_mb, sessions, preload, network: as for `Sandbox`.
        state: `"call"` (every call starts with fresh state) or `"trajectory"` (variables persist between calls).
        output_chars: maximum length of a result, in characters.
        sandbox: replaces the local sandbox, for instance by a `RemoteSandbox`.

    Raises `InputError` for an unknown state.
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
        """Return the specification of a Python tool, for a task's list of tools."""
        code = {"type": "string", "description": "The program. Print what you want to see."}
        parameters = {"type": "object", "properties": {"code": code}, "required": ["code"]}
        description = "Run a Python program and see its output. numpy (as np), sympy and math are imported."
        function = {"name": name, "description": description, "parameters": parameters}
        return ToolSpec(schema={"type": "function", "function": function}, kind="python")

    def open(self, tools: Sequence[ToolSpec]) -> PythonToolset:
        """Create the toolset of one trajectory."""
        return PythonToolset(self, tools)

    async def close(self) -> None:
        """Stop every worker process."""
        await self.sandbox.close()


def program_of(arguments: dict[str, Any]) -> str | None:
    """Return the program in a call's arguments, without a surrounding Markdown fence; None if there is none."""
    code = arguments.get("code")
    if code is None and len(arguments) == 1:
        code = next(iter(arguments.values()))
    if not isinstance(code, str):
        return None
    fenced = FENCE.match(code)
    return fenced[1] if fenced else code
