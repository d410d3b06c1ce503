"""The calls of one trajectory in one child process, with validated results.

The child is acquired at the first call. After a timeout or the death of the child, only the state of the session is
lost: the next call gets a new child with the same tools. Errors of a tool are results and are not raised.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

from rewright.core.errors import SandboxError
from rewright.core.records import ToolResult
from rewright.sandbox.connection import ChildDied, Connection
from rewright.sandbox.errors import ERROR_KINDS, ErrorKind, error_result
from rewright.sandbox.executor import ExecutorSession, SessionSetup
from rewright.sandbox.worker import frames
from rewright.sandbox.worker.harness import truncate_middle

__all__ = ["Session", "SessionLimits", "clean", "truncate_middle"]


class SessionLimits(NamedTuple):
    """Limits that the trainer enforces: seconds per call, characters per result, bytes per request."""

    wall_seconds: float
    output_chars: int
    request_bytes: int


class Pool(Protocol):
    """The source of children for sessions: limited in number, restarted after a failure."""

    @property
    def executing(self) -> asyncio.Semaphore:
        """Held while a call is executed. Available once a child was acquired."""
        ...

    async def acquire(self, modules: Sequence[str]) -> Connection:
        """Wait for a free slot and a confined child. Raises `SandboxError`."""
        ...


class Session(ExecutorSession):
    """Calls within one child process, one at a time. Use as an async context manager."""

    def __init__(self, pool: Pool, setup: SessionSetup, limits: SessionLimits) -> None:
        self._pool = pool
        self._setup = setup
        self._limits = limits
        self._lock = asyncio.Lock()
        self._connection: Connection | None = None
        self._output: int | None = None
        self._count = 0

    async def call(self, name: str, arguments: Mapping[str, Any], *, wall_seconds: float | None = None) -> ToolResult:
        """Call the function `name` with keyword arguments. The content is its return value as text."""
        request = {"name": name, "arguments": arguments}
        return await self._request(request, wall_seconds, printed=False)

    async def load(self, name: str) -> ToolResult:
        """Load the function `name` without calling it; an error says why it cannot be called."""
        return await self._request({"load": name}, None, printed=False)

    async def run(self, source: str, *, keep: bool = True, wall_seconds: float | None = None) -> ToolResult:
        """Run a program.

        The content is the printed output, then the value of the last expression or the last line of the traceback.
        With `keep`, its variables are available to the next program of the session.
        """
        return await self._request({"source": source, "keep": keep}, wall_seconds, printed=True)

    async def close(self) -> None:
        """Kill the child. If the session is used again, it starts with a new one."""
        connection, self._connection = self._connection, None
        output, self._output = self._output, None
        if output is not None:
            os.close(output)
        if connection is not None:
            await connection.close()

    async def _request(self, message: dict[str, Any], wall_seconds: float | None, *, printed: bool) -> ToolResult:
        limit = self._limits.wall_seconds if wall_seconds is None else min(wall_seconds, self._limits.wall_seconds)
        async with self._lock:
            self._count += 1
            try:
                packet = frames.encode({"id": self._count, **message})
            except (TypeError, ValueError, RecursionError) as error:
                return error_result("arguments", f"the arguments are not JSON: {error}")
            if len(packet) > self._limits.request_bytes:
                return error_result("arguments", f"the call has more than {self._limits.request_bytes} bytes")
            started = time.perf_counter()
            try:
                connection = await self._connected()
                async with self._pool.executing:
                    started = time.perf_counter()  # waiting for a worker or a processor does not count
                    async with asyncio.timeout(limit):
                        reply = await self._exchange(connection, packet)
                return self._result(reply, time.perf_counter() - started, printed=printed)
            except TimeoutError:
                problem: tuple[ErrorKind, str] = ("timeout", f"no result after {limit:g} s")
            except ChildDied as death:
                problem = (death.kind, death.message)
            except SandboxError as error:
                problem = ("sandbox", str(error))
            except BaseException:  # cancelled during an exchange: the connection cannot be reused
                await self.close()
                raise
            seconds = time.perf_counter() - started
            before = self._printed() if printed else ""
            await self.close()
            return error_result(*problem, content=f"{before}Error: {problem[1]}", seconds=seconds)

    async def _connected(self) -> Connection:
        if self._connection is not None:
            return self._connection
        self._connection = await self._pool.acquire(self._setup.modules)
        # The trainer owns the output file, so that printed output survives the child.
        self._output = os.memfd_create("output")
        fcntl.fcntl(self._output, fcntl.F_SETFL, os.O_APPEND)
        setup = self._setup
        packet = frames.encode(
            {
                "sources": dict(setup.sources),
                "targets": dict(setup.targets),
                "data": dict(setup.data),
                "within": {name: list(packages) for name, packages in setup.within.items()},
            }
        )
        await self._connection.send_with_output(packet, self._output)
        return self._connection

    async def _exchange(self, connection: Connection, packet: bytes) -> dict[str, Any]:
        if self._output is not None:
            os.ftruncate(self._output, 0)
        await connection.send(packet)
        reply = await connection.receive()
        if reply.get("id") != self._count:
            raise ChildDied("protocol", "the worker's answer does not belong to the call")
        return reply

    def _result(self, reply: dict[str, Any], seconds: float, *, printed: bool) -> ToolResult:
        limit = self._limits.output_chars
        kind, text, length = reply.get("kind"), clean(reply.get("value")), reply.get("length")
        before = self._printed() if printed else ""
        if kind is not None:
            known = cast("ErrorKind", kind) if kind in ERROR_KINDS else "protocol"
            message = clean(reply.get("message"))[: 2 * limit]
            content = truncate_middle(before + message, limit) if printed else None
            return error_result(known, message, content=content, seconds=seconds)
        if printed:
            return ToolResult(content=truncate_middle(before + text, limit), seconds=seconds)
        if isinstance(length, int) and length > limit:
            message = f"the result has {length} characters; the limit is {limit}"
            return error_result("output", message, content=truncate_middle(text, limit), seconds=seconds)
        return ToolResult(content=text[:limit], seconds=seconds)

    def _printed(self) -> str:
        """Return the printed output; only its beginning and end if it is too long."""
        if self._output is None:
            return ""
        part = 4 * self._limits.output_chars  # UTF-8 has at most 4 bytes per character
        size = os.fstat(self._output).st_size
        if size <= 2 * part:
            return os.pread(self._output, 2 * part, 0).decode(errors="replace")
        first, last = os.pread(self._output, part, 0), os.pread(self._output, part, size - part)
        return first.decode(errors="replace") + last.decode(errors="replace")


def clean(value: Any) -> str:
    """Return a string that UTF-8 can encode: lone surrogates become question marks. "" for any other type."""
    if not isinstance(value, str):
        return ""
    return value.encode("utf-8", "replace").decode("utf-8")
