"""The executor of tools of kind `mcp`.

A server that ends is started again by the next call, or connected to again. The call during which it ended is an error
of the kind `crashed`, as of a sandboxed function that ends its process. If it cannot be reached after several attempts,
a call raises: `ServerError` for a server that all trajectories share, which stops the stage, and `ToolError` for a
process of this trajectory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from rewright.core.errors import ServerError, ToolError
from rewright.core.progress import say
from rewright.core.records import ToolCall, ToolResult, ToolSpec
from rewright.sandbox.errors import error_result, refused_call
from rewright.tools.mcp.background import finish_in_background, in_background, start_in_background
from rewright.tools.mcp.listing import KIND, place_of, task_of
from rewright.tools.mcp.results import as_result
from rewright.tools.mcp.session import NotBegunError, ServerLost, Session, Source, check_package
from rewright.tools.mcp.settings import MCPServerSettings

__all__ = ["KIND", "MCPTools", "MCPToolset"]

DEFAULT_SECONDS: Final = 5.0
DELAYS: Final = (0.2, 1.0, 3.0)
"""Seconds between the attempts to reach a server that has ended."""
BAD_ARGUMENTS: Final = -32602
"""JSON-RPC error of arguments that the server does not take."""


class _Server:
    """One server of a run. All methods run in the background loop."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.slots = asyncio.Semaphore(source.settings.sessions)
        self.calls = asyncio.Semaphore(source.settings.concurrency)
        self.shared = _Connection(self, source)
        self._losses = 0
        self._closing: set[asyncio.Task[None]] = set()

    def discard(self, session: Session) -> None:
        """Close a session without waiting for it: a process that hangs ends only after a while."""
        self._start_closing(session.close())

    def leave(self, connection: _Connection) -> asyncio.Task[None]:
        """Start to close the session of a trajectory, and to make room for another one. `close` waits for it."""
        return self._start_closing(self._left(connection))

    async def _left(self, connection: _Connection) -> None:
        try:
            async with self.calls:  # to end a session is a request, too
                await connection.close()
        finally:
            self.slots.release()

    def _start_closing(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    async def close(self) -> None:
        """End the shared session, and wait for the end of others."""
        await self.shared.close()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def lost(self) -> None:
        """Say that the server ended: at the first time, and each time that the number has doubled."""
        self._losses += 1
        if self._losses & (self._losses - 1) == 0:
            how = "connected to" if self.source.settings.command is None else "started"
            times = "" if self._losses == 1 else f" {self._losses} times so far"
            say(f"{self.source.key}: {self.source.settings.shown} ended{times}; it is {how} again by the next call")


class _Connection:
    """A session that is opened by its first call and, after the server has ended, by the next one."""

    def __init__(self, server: _Server, source: Source) -> None:
        self._server, self._source = server, source
        self._session: Session | None = None
        self._opening = asyncio.Lock()

    async def call(self, name: str, arguments: dict[str, Any], seconds: float) -> ToolResult:
        """Run one call. Raises ServerError or ToolError if the server cannot be reached."""
        async with self._server.calls:
            while True:
                session = await self._open()
                with contextlib.suppress(NotBegunError):
                    return await self._call(session, name, arguments, seconds)
                if self._session is session:
                    self._session = None
                    self._server.discard(session)

    async def _call(self, session: Session, name: str, arguments: dict[str, Any], seconds: float) -> ToolResult:
        started = time.monotonic()
        try:
            found = await session.call(name, arguments, seconds)
        except TimeoutError:
            spent, consequence = time.monotonic() - started, await self._after_timeout(session)
            return error_result("timeout", f"no result after {seconds:g} s{consequence}", seconds=spent)
        except NotBegunError:
            raise
        except ServerLost as problem:
            self._drop(session)
            lost = ", its state is lost" if session.has_state else ""
            message = f"the MCP server {self._server.source.name} ended during the call{lost} ({problem})"
            return error_result("crashed", message, seconds=time.monotonic() - started)
        except Exception as problem:  # errors of the protocol, and of a result that breaks its own schema
            code = getattr(getattr(problem, "error", None), "code", None)
            text = " ".join(str(problem).split())[:2000] or type(problem).__name__
            kind = "arguments" if code == BAD_ARGUMENTS else "exception"
            return error_result(kind, text, seconds=time.monotonic() - started)  # type: ignore[arg-type]
        result = as_result(found)
        return ToolResult(result.content, result.error, time.monotonic() - started)

    def leave(self) -> asyncio.Task[None]:
        """Start to end the connection of a trajectory."""
        return self._server.leave(self)

    async def close(self) -> None:
        """End the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _open(self) -> Session:
        async with self._opening:
            if self._session is not None:
                return self._session
            for delay in (*DELAYS, None):
                session = Session(self._source)
                try:
                    await session.open()
                except BaseException as problem:
                    await session.close()
                    if not isinstance(problem, ToolError):
                        raise
                    if delay is None:
                        stops = self._server.source.settings.url is not None or self is self._server.shared
                        error = ServerError if stops else ToolError
                        raise error(f"{problem}, after {len(DELAYS) + 1} attempts") from None
                    await asyncio.sleep(delay)
                else:
                    self._session = session
                    return session
            raise AssertionError("the last attempt returns or raises")

    def _drop(self, session: Session) -> None:
        """Forget a session whose server has ended. Of several calls that notice it, the first one counts."""
        if self._session is session:
            self._session = None
            self._server.lost()
            self._server.discard(session)

    async def _after_timeout(self, session: Session) -> str:
        """End a server that hangs, and say so. A shared command hangs if it does not list its tools any more.

        A server object hangs if a tool blocks its thread.
        """
        if self._server.source.settings.command is None:
            if not await session.is_blocked():
                return ""
            self._drop(session)
            lost = ", and its state is lost" if session.has_state else ""
            return f"; the tool blocked the MCP server, which was given up{lost}"
        if self._session is not session:
            return ""
        if self is self._server.shared:
            with contextlib.suppress(ToolError):
                await session.list_tools()
                return ""
            self._drop(session)
        else:
            self._session = None
            self._server.discard(session)
        return "; the MCP server was ended, and its state is lost"


class MCPToolset:
    """The MCP tools of one trajectory. Calls to one server run one at a time, in order."""

    def __init__(self, factory: MCPTools, places: Mapping[str, tuple[str, str]], task: str = "") -> None:
        self._factory, self._places, self._task = factory, dict(places), task
        self._names = sorted({server for server, _ in places.values()})
        self._own: dict[str, _Connection] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def __aenter__(self) -> Self:
        try:
            await in_background(self._enter())
        except BaseException:
            start_in_background(self._leave())  # a cancelled caller does not know how far it came
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An interrupted run cancels its rollouts twice. Without its end, a process that does not heed the end of its
        # standard input would stay.
        await finish_in_background(self._leave())

    async def call(self, call: ToolCall, *, wall_seconds: float | None = None) -> ToolResult:
        """Run one call. Raises ServerError or ToolError if the server cannot be reached after several attempts."""
        refused = refused_call(call, self._places)
        if refused is not None:
            return refused
        if not isinstance(call.arguments, dict):
            return error_result("arguments", f"{call.name}(): the arguments must be a JSON object")
        try:
            arguments = _sendable(call.arguments)
        except (ValueError, RecursionError) as problem:
            return error_result("arguments", f"{call.name}(): the arguments are not JSON: {problem}")
        server, name = self._places[call.name]
        seconds = self._factory.settings(server).call_seconds or wall_seconds or self._factory.wall_seconds
        return await in_background(self._call(server, name, arguments, seconds))

    async def _call(self, server: str, name: str, arguments: dict[str, Any], seconds: float) -> ToolResult:
        connection = self._own.get(server) or self._factory.server(server).shared
        async with self._turns.setdefault(server, asyncio.Lock()):
            return await connection.call(name, arguments, seconds)

    async def _enter(self) -> None:
        for name in self._names:  # sorted, so that two trajectories cannot wait for each other
            server = self._factory.server(name)
            if server.source.settings.session == "trajectory":
                await server.slots.acquire()
                settings = server.source.settings.for_task(self._task)
                self._own[name] = _Connection(server, msgspec.structs.replace(server.source, settings=settings))

    async def _leave(self) -> None:
        own, self._own = self._own, {}
        await asyncio.gather(*(connection.leave() for connection in own.values()))


class MCPTools:
    """A `ToolsetFactory` for tools of kind `mcp`. A server is started or connected to by the first call.

    Args:
        servers: the servers by name.
        wall_seconds: time limit of a call, if neither the rollout nor the server has one.
        given: server objects of a program by name, in place of what their settings name.
    """

    def __init__(
        self,
        servers: Mapping[str, MCPServerSettings],
        *,
        wall_seconds: float = DEFAULT_SECONDS,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        self.wall_seconds = wall_seconds
        self._sources = {name: Source(name, one, (given or {}).get(name)) for name, one in servers.items()}
        self._servers: dict[str, _Server] = {}

    def settings(self, name: str) -> MCPServerSettings:
        """The settings of a server."""
        return self._sources[name].settings

    def server(self, name: str) -> _Server:
        """The server `name`."""
        if name not in self._servers:
            self._servers[name] = _Server(self._sources[name])
        return self._servers[name]

    def open(self, tools: Sequence[ToolSpec]) -> MCPToolset:
        """Create a toolset for one trajectory. Raises InputError for a tool of a server that is not configured."""
        places = {tool.name: place_of(tool, self._sources) for tool in tools}
        for server, _ in places.values():
            check_package(f"tools.mcp.{server}")
        return MCPToolset(self, places, next(filter(None, map(task_of, tools)), ""))

    async def close(self) -> None:
        """End the shared sessions and the processes of commands."""
        servers, self._servers = self._servers, {}
        for server in servers.values():
            await in_background(server.close())


def _sendable(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments that can be encoded: lone surrogates, which models write, are replaced."""
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    sent: dict[str, Any] = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return sent
