"""Sessions with an MCP server, over mcp 1.x and 2.x.

A session is owned by a task of its own, because its context managers must be left in the task that entered them. The
session begins with the handshake (`initialize`), since state of a server belongs to it; a server that only speaks the
stateless protocol of 2026 is spoken to in that. The client of a server object of this process lives in the object's
thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from rewright.core.errors import InputError, ToolError
from rewright.core.library_logs import current_log
from rewright.tools.mcp.http import http_transport
from rewright.tools.mcp.in_process import InProcessClient, NotBegunError, ServerLost, cause, find_server, is_closed
from rewright.tools.mcp.settings import MCPServerSettings

__all__ = ["NotBegunError", "ServerLost", "Session", "Source", "check_package"]

CLOSE_SECONDS: Final = 10.0
MAX_PAGES: Final = 100
"""Maximum number of pages of a listing. A server whose pages never end is refused."""
MAX_ERROR_BYTES: Final = 1_000_000
INVALID: Final = (-32600, 32600, -32000, -32001)
"""JSON-RPC errors, among others, of a request in a session that the server does not know."""
STATELESS: Final = -32022
"""JSON-RPC error of a server that refuses the handshake."""


class Source(msgspec.Struct, frozen=True):
    """Where a server is: its settings, its name in messages, and for a server that a program gave, the object."""

    name: str
    settings: MCPServerSettings
    given: Any = None

    @property
    def key(self) -> str:
        """The recipe key of the server."""
        return f"tools.mcp.{self.name}"


def check_package(key: str) -> None:
    """Raise InputError if the package mcp is not installed."""
    try:
        import mcp  # noqa: F401
    except ImportError as problem:
        raise InputError(f"{key} needs the package mcp, which cannot be imported ({problem}): "
                         "pip install 'rewright[mcp]'") from None  # fmt: skip


class Session:
    """A session with a server. Use it in one event loop, and close it also if it could not be opened."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._client: Any = None
        self._stop = asyncio.Event()
        self._calls: set[asyncio.Future[None]] = set()
        """Of each call without an answer: done if its answer came and cannot be read."""
        self._object = _client_of(source, self._stop.set)
        self._owner: asyncio.Task[None] | None = None
        self._log: IO[bytes] | None = _log_file() if source.settings.command is not None else None
        self._log_start = 0 if self._log is None else self._log.seek(0, os.SEEK_END)

    async def open(self) -> None:
        """Start or reach the server. Raises ToolError, in one line, if it cannot be reached in time."""
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._owner = asyncio.create_task(self._own(ready))
        seconds = self.source.settings.start_seconds
        await asyncio.wait({ready}, timeout=seconds)
        while self._object is not None and self._object.waits and not ready.done():
            await asyncio.wait({ready}, timeout=seconds)
        if ready.done() and ready.exception() is None:
            return
        self._owner.cancel()
        await asyncio.wait({self._owner}, timeout=CLOSE_SECONDS)
        problem = ready.exception() if ready.done() else None
        late = f"no answer within {seconds:g} s (start_seconds)"
        raise ToolError(self._described(late if problem is None else _reason(problem)))

    async def list_tools(self) -> list[dict[str, Any]]:
        """Return the server's tools with the keys of the protocol: name, description, inputSchema.

        Raises ToolError if it does not answer in time.
        """
        tools: list[dict[str, Any]] = []
        cursor: str | None = None
        seconds = self.source.settings.start_seconds
        try:
            for _ in range(MAX_PAGES):
                page = await self._answer(self._client.list_tools(cursor=cursor), seconds)
                tools += [tool.model_dump(by_alias=True, mode="json") for tool in page.tools]
                cursor = getattr(page, "next_cursor", None) or getattr(page, "nextCursor", None)
                if not cursor:
                    return tools
        except TimeoutError:
            raise ToolError(self._described(f"does not list its tools within {seconds:g} s")) from None
        except Exception as problem:
            raise ToolError(self._described(f"does not list its tools: {_reason(problem)}")) from None
        raise ToolError(self._described(f"its list of tools has more than {MAX_PAGES} pages"))

    async def call(self, name: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Call a tool. Returns the result with the keys of the protocol: content, structuredContent, isError.

        Raises TimeoutError after `seconds`, ServerLost if the connection ended, NotBegunError if it ended before the
        call was sent, ValueError if the answer is not valid JSON-RPC, and otherwise what the package raises.
        """
        if self._object is not None:
            request = await self._object.begin(name, arguments, seconds)
        else:
            request = self._client.call_tool(name, arguments)
        unread: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls.add(unread)
        try:
            result = await self._answer(request, seconds, unread)
        except (TimeoutError, asyncio.CancelledError):
            raise  # its answer may still come, and is not that of another call
        except Exception:
            self._calls.discard(unread)
            raise
        self._calls.discard(unread)
        dumped: dict[str, Any] = result.model_dump(by_alias=True, mode="json")
        return dumped

    @property
    def has_state(self) -> bool:
        """Return True if a state ends with the session: not if the server is an object that lives on."""
        return self._object is None or self._object.made

    async def is_blocked(self) -> bool:
        """Return True after the time limit of a call if its tool blocks the thread of a server object.

        The thread is given up then, with all its sessions.
        """
        if self._object is None or not await self._object.blocks():
            return False
        self._object.abandon()
        return True

    async def close(self) -> None:
        """End the session. The process of a command is ended."""
        self._stop.set()
        owner = self._owner
        try:
            if owner is not None:
                await asyncio.wait({owner}, timeout=CLOSE_SECONDS)
        finally:
            if owner is not None and not owner.done():
                owner.cancel()
            if self._log is not None:
                self._log.close()

    async def _answer(self, request: Awaitable[Any], seconds: float, unread: asyncio.Future[None] | None = None) -> Any:
        assert self._owner is not None
        work = asyncio.ensure_future(request)
        waited = {work, self._owner} if unread is None else {work, self._owner, unread}
        try:
            await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if unread is not None and unread.done():
                raise ValueError("the server's answer is not valid JSON-RPC")
            if not work.done() and not self._owner.done():
                raise TimeoutError
            await asyncio.wait({work}, timeout=0)
        finally:
            if not work.done():
                work.cancel()
        if not work.done() or work.cancelled():
            raise ServerLost("the connection ended" if self._object is None else self._object.reason)
        problem = work.exception()
        if problem is not None and (self._owner.done() or self._is_lost(problem)):
            raise ServerLost(_reason(problem))
        return work.result()

    async def _own(self, ready: asyncio.Future[None]) -> None:
        """Hold the session open. Errors after the handshake end the task, which is how they are noticed."""
        try:
            place = partial(_transport, self.source, self._log)
            async with _client(place, self._hear) if self._object is None else self._object.connected() as self._client:
                await (
                    self._client.list_tools()
                )  # else the package lists them during the first call, to check its result
                if not ready.done():
                    ready.set_result(None)
                await self._stop.wait()
        except Exception as problem:
            if not ready.done():
                ready.set_exception(problem)

    async def _hear(self, message: Any) -> None:
        """Notice an answer that the package could not read. It does not say to which of several calls."""
        if isinstance(message, Exception) and len(self._calls) == 1 and _is_answer(message):
            for unread in self._calls:
                if not unread.done():
                    unread.set_result(None)

    def _is_lost(self, problem: BaseException) -> bool:
        if isinstance(problem, ServerLost) or is_closed(problem):
            return True
        first = cause(problem)
        code = getattr(getattr(first, "error", None), "code", None)
        is_remote = self.source.settings.url is not None  # only there does the transport answer for the server
        return is_remote and code in INVALID and "session" in str(first).lower()

    def _described(self, reason: str) -> str:
        return f"{self.source.key}: {self.source.settings.shown}: {reason}{self._last_line()}"

    def _last_line(self) -> str:
        """The last line that a command has written to its standard error, which says more than the protocol."""
        if self._log is None:
            return ""
        with contextlib.suppress(OSError), Path(f"/proc/self/fd/{self._log.fileno()}").open("rb") as file:
            file.seek(self._log_start)
            lines = file.read(MAX_ERROR_BYTES).decode("utf-8", "replace").splitlines()
            last = next((line.strip() for line in reversed(lines) if line.strip()), "")
            return f" (its standard error: {last[:300]})" if last else ""
        return ""


def _client_of(source: Source, ended: Callable[[], None]) -> InProcessClient | None:
    """The client of a server object; None for other servers. `ended` is called if the object ends the session."""
    if source.given is None and source.settings.server is None:
        return None
    find = partial(find_server, source.key, source.settings.server, source.given)
    return InProcessClient(find, _connected_object, ended)


def _connected_object(server: Any) -> contextlib.AbstractAsyncContextManager[Any]:
    import mcp

    if hasattr(mcp, "Client"):
        return _client(lambda: server)
    from mcp.shared import memory

    connect: Any = memory.create_connected_server_and_client_session  # type: ignore[attr-defined]
    return connect(server)  # type: ignore[no-any-return]


@contextlib.asynccontextmanager
async def _client(place: Callable[[], Any], hear: Any = None) -> AsyncIterator[Any]:
    """Yield a client of the package: of mcp 2.x its `Client`, of 1.x a `ClientSession`.

    `place`: makes a transport. `hear`: gets what the server says besides answers, and errors of the transport.
    """
    import mcp

    async with contextlib.AsyncExitStack() as stack:
        client_class: Any = getattr(mcp, "Client", None)
        if client_class is None:
            streams = await stack.enter_async_context(place())
            session = mcp.ClientSession(streams[0], streams[1], message_handler=hear)
            client: Any = await stack.enter_async_context(session)
            await client.initialize()
        else:
            options = {"cache": None, "message_handler": hear}
            try:
                client = await stack.enter_async_context(client_class(place(), mode="legacy", **options))
            except Exception as problem:
                if getattr(cause(problem), "code", None) != STATELESS:
                    raise
                client = await stack.enter_async_context(client_class(place(), mode="auto", **options))
        yield client


def _transport(source: Source, log: IO[bytes] | None) -> Any:
    settings = source.settings
    if settings.command is not None:
        from mcp.client.stdio import StdioServerParameters, stdio_client

        program, *arguments = settings.argv
        missing = [name for name in settings.env if name not in os.environ]
        if missing:
            raise InputError(f"env names {missing[0]}, which is not set: expected an environment variable")
        env = {name: os.environ[name] for name in settings.env}
        parameters = StdioServerParameters(
            command=program,
            args=arguments,
            env=env,
            encoding_error_handler="replace",  # else what is no UTF-8 ends the reading without a word
        )
        return stdio_client(parameters, errlog=log)  # type: ignore[arg-type]
    headers = _headers(settings)
    if settings.transport == "sse":
        from mcp.client.sse import sse_client

        return sse_client(str(settings.url), headers=headers)
    return http_transport(str(settings.url), headers)


def _headers(settings: MCPServerSettings) -> dict[str, str]:
    if settings.api_key_env is None:
        return {}
    key = os.environ.get(settings.api_key_env)
    if not key:
        raise InputError(
            f"api_key_env names {settings.api_key_env}, which is not set: expected a variable with the key"
        )
    return {"Authorization": f"Bearer {key}"}


def _log_file() -> IO[bytes]:
    """The file for a command's standard error: the log of the run, or a temporary file outside of a stage."""
    log: Path | None = current_log()
    return tempfile.TemporaryFile() if log is None else log.open("ab")


def _is_answer(problem: Exception) -> bool:
    """Return True for the error of a message that is an answer, and not what a server printed by mistake."""
    try:
        message = problem.errors()[0]["input"]  # type: ignore[attr-defined]
        message = json.loads(message) if isinstance(message, str) else message
    except (AttributeError, LookupError, ValueError, RecursionError):
        return False
    return isinstance(message, dict) and message.get("id") is not None and "method" not in message


def _reason(problem: BaseException) -> str:
    first = cause(problem)
    text = " ".join(str(first).split())
    if isinstance(first, InputError | ToolError | ServerLost):
        return text
    name = type(first).__name__
    return f"{name}: {text}" if text and name not in ("McpError", "MCPError") else text or name
