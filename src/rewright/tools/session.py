"""One trajectory's connection to one child process: calls and programs go out, checked results come back.

The child is forked at the first call. A call that runs out of time, or a child that dies, costs the state of the
session and nothing more: the next call gets a fresh child with the same tools. A session never raises for what a tool
does.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, cast

from rewright.errors import SandboxError
from rewright.records import ToolResult
from rewright.tools.errors import ERROR_KINDS, ErrorKind, failed
from rewright.tools.forkserver import Child, ForkServer
from rewright.tools.worker import frames

__all__ = ["Opening", "Session", "SessionLimits"]

HEADER = frames.HEADER
START_SECONDS = 30.0


class SessionLimits(NamedTuple):
    """What the trainer enforces on a session: seconds of a call, characters of a result, bytes of a request."""

    wall_seconds: float
    output_chars: int
    request_bytes: int


class Opening(NamedTuple):
    """What a child is given first: sources and targets by tool name, and the data bound to targets."""

    sources: Mapping[str, str]
    targets: Mapping[str, str]
    data: Mapping[str, Any]
    modules: Sequence[str] = ()
    """Modules that the fork server may import once for all (trusted targets only)."""


class ChildDied(Exception):  # noqa: N818
    """The child ended, or has to be ended, before it answered."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind
        self.message = message


class Forker(Protocol):
    """Where a session gets its child from: bounded in number, restarted when it has died."""

    async def fork(self, descriptors: Sequence[int], modules: Sequence[str]) -> tuple[ForkServer, Child]:
        """Wait for a free place and fork a child. Raises `SandboxError`."""
        ...


class Session:
    """Calls within one child process, one at a time. Use as an async context manager."""

    def __init__(self, forker: Forker, opening: Opening, limits: SessionLimits) -> None:
        self._forker = forker
        self._opening = opening
        self._limits = limits
        self._lock = asyncio.Lock()
        self._child: Child | None = None
        self._connection: socket.socket | None = None
        self._count = 0
        self._owner: ForkServer | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def call(self, name: str, arguments: Mapping[str, Any], *, wall_seconds: float | None = None) -> ToolResult:
        """Call the function `name` with keyword arguments; its value as text."""
        return await self._request({"name": name, "arguments": arguments}, wall_seconds)

    async def close(self) -> None:
        """End the child. The session may be used again: it then starts with a fresh one."""
        child, connection, owner = self._child, self._connection, self._owner
        self._child = self._connection = self._owner = None
        if connection is not None:
            connection.close()
        if child is not None and owner is not None:
            await owner.kill(child)

    async def _request(self, message: dict[str, Any], wall_seconds: float | None) -> ToolResult:
        limit = self._limits.wall_seconds if wall_seconds is None else min(wall_seconds, self._limits.wall_seconds)
        started = time.perf_counter()
        async with self._lock:
            try:
                self._count += 1
                try:
                    packet = frames.encode({"id": self._count, **message})
                except (TypeError, ValueError, RecursionError) as error:
                    return failed("arguments", f"the arguments are not JSON: {error}")
                if len(packet) > self._limits.request_bytes:
                    return failed(
                        "arguments", f"the call has {len(packet)} bytes; the limit is {self._limits.request_bytes}"
                    )
                await self._ensure_child()
                started = time.perf_counter()  # a wait for a free worker is not the tool's time
                async with asyncio.timeout(limit):
                    reply = await self._exchange(packet)
                return self._result(reply, time.perf_counter() - started)
            except TimeoutError:
                await self.close()
                return failed("timeout", f"no result after {limit:g} s", seconds=time.perf_counter() - started)
            except ChildDied as death:
                await self.close()
                return failed(death.kind, death.message, seconds=time.perf_counter() - started)
            except SandboxError as error:
                await self.close()
                return failed("sandbox", str(error), seconds=time.perf_counter() - started)
            except BaseException:  # cancelled in the middle of an exchange: the connection is of no more use
                await self.close()
                raise

    async def _ensure_child(self) -> None:
        if self._connection is not None:
            return
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            try:
                self._owner, self._child = await self._forker.fork([theirs.fileno()], self._opening.modules)
            except BaseException:
                ours.close()
                raise
        self._connection = ours
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._receive_frame()  # the child's greeting: from here on, time is the tool's time
        except (TimeoutError, ChildDied) as error:
            raise SandboxError(f"a worker did not start: {error or 'no answer'}") from error
        opening = {"sources": dict(self._opening.sources), "targets": dict(self._opening.targets)}
        await self._send(frames.encode({**opening, "data": dict(self._opening.data)}))

    async def _send(self, packet: bytes) -> None:
        assert self._connection is not None
        try:
            await asyncio.get_running_loop().sock_sendall(self._connection, packet)
        except OSError:
            raise await self._death() from None

    async def _exchange(self, packet: bytes) -> dict[str, Any]:
        await self._send(packet)
        reply = await self._receive_frame()
        if reply.get("id") != self._count:
            raise ChildDied("protocol", "the worker's answer does not belong to the call")
        return reply

    async def _receive_frame(self) -> dict[str, Any]:
        (length,) = HEADER.unpack(await self._receive(HEADER.size))
        # Two halves of the text, at worst twelve bytes a character (an escaped surrogate pair).
        if length > 12 * self._limits.output_chars + 4096:
            raise ChildDied("protocol", "the worker sent a frame longer than a result can be")
        body = await self._receive(length)
        try:
            reply = json.loads(body)
        except (ValueError, RecursionError):
            raise ChildDied("protocol", "the worker's answer is not JSON") from None
        if not isinstance(reply, dict):
            raise ChildDied("protocol", "the worker's answer is not a JSON object")
        return reply

    async def _receive(self, count: int) -> bytes:
        assert self._connection is not None
        loop = asyncio.get_running_loop()
        parts = bytearray()
        while len(parts) < count:
            try:
                part = await loop.sock_recv(self._connection, count - len(parts))
            except OSError:
                part = b""
            if not part:
                raise await self._death()
            parts += part
        return bytes(parts)

    async def _death(self) -> ChildDied:
        """Why the connection has ended. Code that only closed its descriptors is still alive: it is killed."""
        assert self._child is not None and self._owner is not None
        ended = asyncio.shield(self._child.ended)
        done, _ = await asyncio.wait([ended], timeout=0.2)
        if not done:
            await self._owner.kill(self._child)
            return ChildDied("exited", "the code closed the connection to its result")
        code = ended.result()
        if code == -signal.SIGXCPU:
            return ChildDied("cpu", "the limit on CPU seconds is reached")
        if code == -signal.SIGKILL:
            return ChildDied("crashed", "the process was killed (out of memory, or a limit of the machine)")
        if code < 0:
            return ChildDied("crashed", f"the process died of {signal.Signals(-code).name}")
        return ChildDied("exited", f"the code ended its process with status {code}")

    def _result(self, reply: dict[str, Any], seconds: float) -> ToolResult:
        kind = reply.get("kind")
        if kind is not None:
            message = clean(reply.get("message"))
            known = cast("ErrorKind", kind) if kind in ERROR_KINDS else "protocol"
            return failed(known, message, seconds=seconds)
        text, length = clean(reply.get("value")), reply.get("length")
        limit = self._limits.output_chars
        if isinstance(length, int) and length > limit:
            half = limit - limit // 2
            message = f"the result has {length} characters; the limit is {limit}"
            content = f"{text[:half]}\n[... {length - limit} characters cut ...]\n{text[half:limit]}"
            return failed("output", message, content=content, seconds=seconds)
        return ToolResult(content=text[:limit], seconds=seconds)


def clean(value: Any) -> str:
    """A text that can be stored as UTF-8: lone surrogates become question marks; None is the empty text."""
    if not isinstance(value, str):
        return ""
    return value.encode("utf-8", "replace").decode("utf-8")
