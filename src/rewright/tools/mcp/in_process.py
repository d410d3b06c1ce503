"""Server objects in this process, each in a thread and an event loop of its own.

A tool may do anything: block its loop, or exit. `InProcessClient` is used in the loop of the connections, and keeps the
time limits there; its server and its client of the package run in the thread of the object. All sessions of one object
share that thread, since what an object holds (locks, connections) belongs to one loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.core.import_paths import load_object
from rewright.tools.mcp.background import LoopThread

__all__ = ["InProcessClient", "NotBegunError", "ServerLost", "cause", "find_server", "is_closed"]

CLOSED: Final = -32000
"""JSON-RPC error of a closed connection, and of whatever a server uses it for."""
CLOSED_TEXT: Final = re.compile(r"Connection closed|SSE stream (?:ended|failed)\b.*", re.DOTALL)
"""The package's texts of a closed connection."""

ANSWER_SECONDS: Final = 1.0
"""Time in which a loop that is not blocked answers."""
LATE_SECONDS: Final = 0.5
"""Time that a session with a call that has not returned is given to close."""
START_SECONDS: Final = 30.0
"""Time that a loop without calls is blocked at most, while sessions are opened."""
STEPS: Final = 50
"""Steps of a loop after which a call that was sent has reached its tool."""


class ServerLost(Exception):  # noqa: N818 - an event, that the caller answers by a new session
    """The server ended, or does not know the session any more."""


class NotBegunError(Exception):
    """The server ended before the call was sent to it."""


class _ServerThread(LoopThread):
    """The thread of a server object."""

    def __init__(self) -> None:
        super().__init__("rewright-mcp-server")
        self.sending = asyncio.Lock()
        self.clients: set[InProcessClient] = set()
        self.longest = 0.0
        """The longest time limit of its calls, in seconds."""
        self.kept: Any = None
        self.given_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def give_up(self) -> None:
        """End all sessions. The loop ends if it gets control again; the object's next session has another thread."""
        _settle(self.given_up)
        _forget(self)
        for client in self.clients:
            client.end()
        self.stop()


_threads: dict[tuple[int, int], _ServerThread] = {}
"""By process and id of the object. Used in the loop of the connections."""


def find_server(key: str, path: str | None, given: Any) -> tuple[Any, bool]:
    """Return a server object, and True if a function has made it. `path`: where to import one that is not `given`.

    Raises InputError for an object that is no server, and what the function raises.
    """
    server = load_object(str(path), f"{key}.server") if given is None else given
    is_server = hasattr(server, "list_tools") or hasattr(server, "create_initialization_options")
    if is_server and not isinstance(server, type):
        return server, False
    if not callable(server):
        raise InputError(f"{key}: a {type(server).__name__}: expected an MCP server, or a function that makes one")
    return server(), True


class InProcessClient:
    """A session with a server object. Its methods run in the loop of the connections.

    Args:
        find: returns the server, and True if it was made for this session.
        connect: connects to a server; yields a client of the package.
        ended: called when the session has ended by itself.
    """

    def __init__(
        self,
        find: Callable[[], tuple[Any, bool]],
        connect: Callable[[Any], AbstractAsyncContextManager[Any]],
        ended: Callable[[], object],
    ) -> None:
        self._find, self._connect, self._tell = find, connect, ended
        self._connections = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._connections.create_future()
        self._thread: _ServerThread | None = None
        self._client: Any = None
        self._holding: Future[None] | None = None
        self._holder: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._problem: BaseException | None = None
        self._late = False
        self.waits = False
        """True while calls of other sessions block the server, before this session is opened."""
        self.made = False
        """True if the server was made for this session, and its state ends with it."""

    @property
    def reason(self) -> str:
        """Why the session has ended, such as `SystemExit: 2`."""
        return str(_exception(self._problem))

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[InProcessClient]:
        """Find the server, and hold the session open. Raises what the server or the package raises."""
        try:
            await self._open()
            yield self
        finally:
            await self._close()

    async def list_tools(self, *, cursor: str | None = None) -> Any:
        """As of the client of the package."""
        assert self._thread is not None
        return await asyncio.wrap_future(self._thread.submit(self._client.list_tools(cursor=cursor)))

    async def begin(self, name: str, arguments: dict[str, Any], seconds: float) -> Awaitable[Any]:
        """Send a call as soon as no other one blocks the server's loop; what is returned waits for the result.

        Calls are sent one after the other, each when the tool of the one before has given back control, so that a tool
        that blocks does not spend the time limits of other trajectories. A loop that is blocked for longer than any
        limit is given up. Raises NotBegunError if the server ended before.
        """
        thread = self._thread
        assert thread is not None
        claim: Future[None] = Future()
        begun = asyncio.Event()
        work = asyncio.wrap_future(thread.submit(self._send(name, arguments, claim, begun)))
        began = asyncio.ensure_future(begun.wait())
        try:
            while not (began.done() or work.done() or self._ended.done()):
                answer = asyncio.wrap_future(thread.submit(asyncio.sleep(0)))
                waited: set[asyncio.Future[Any]] = {began, work, self._ended}
                await asyncio.wait(
                    {*waited, answer}, timeout=thread.longest or seconds, return_when=asyncio.FIRST_COMPLETED
                )
                if not answer.done() and not any(one.done() for one in waited):
                    self.abandon()
                await asyncio.wait(waited, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
            if not began.done() and claim.cancel():
                raise NotBegunError
        except BaseException:
            if not work.cancel() and not work.cancelled():
                work.exception()  # else asyncio logs that nobody has read it
            raise
        finally:
            began.cancel()
        thread.longest = max(thread.longest, seconds)
        return work

    async def blocks(self) -> bool:
        """Return True if the loop of the server does not answer. Call it after a call's time limit."""
        assert self._thread is not None
        self._late = True
        answer = asyncio.wrap_future(self._thread.submit(asyncio.sleep(0)))
        await asyncio.wait({answer}, timeout=ANSWER_SECONDS)
        return not answer.done()

    def abandon(self) -> None:
        """Give up the thread of the server, with all its sessions."""
        assert self._thread is not None
        self._thread.give_up()

    def end(self) -> None:
        """Say that the session has ended."""
        if not self._ended.done():
            _settle(self._ended)
            self._tell()

    async def _open(self) -> None:
        own = self._thread = _ServerThread()
        try:
            server, self.made, problem = await asyncio.wrap_future(own.submit(self._found()))
            if problem is not None:
                raise problem
            while (thread := _thread_of(server, own)) is not own and not await self._is_free(thread):
                thread.give_up()
        except BaseException:
            own.stop()
            raise
        if thread is not own:
            own.stop()
        self._thread = thread
        thread.clients.add(self)
        ready: asyncio.Future[None] = self._connections.create_future()
        self._holding = thread.submit(self._hold(server, ready))
        self._late = True
        await asyncio.wait({ready, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            raise _exception(self._problem)
        self._late = False

    async def _is_free(self, thread: _ServerThread) -> bool:
        """Wait until no call blocks the thread. Returns False if one does for longer than any time limit."""
        answer = asyncio.wrap_future(thread.submit(asyncio.sleep(0)))
        self.waits = True
        try:
            waited = {answer, thread.given_up}
            await asyncio.wait(waited, timeout=thread.longest or START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.waits = False
        return answer.done() and not answer.cancelled() and not thread.given_up.done()

    async def _close(self) -> None:
        thread = self._thread
        assert thread is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended
            thread.loop.call_soon_threadsafe(self._stop.set)
        try:
            if self in thread.clients:
                await asyncio.wait({self._ended}, timeout=LATE_SECONDS if self._late else None)
        finally:
            thread.clients.discard(self)
            if self._holding is not None:
                self._holding.cancel()
            if self.made and not thread.clients:
                _forget(thread)
                thread.stop()

    # What follows runs in the thread of the server.

    async def _found(self) -> tuple[Any, bool, Exception | None]:
        try:
            server, made = self._find()
        except BaseException as problem:
            return None, False, _exception(problem)
        return server, made, None

    async def _hold(self, server: Any, ready: asyncio.Future[None]) -> None:
        self._holder = asyncio.current_task()
        try:
            async with self._connect(server) as self._client:
                self._connections.call_soon_threadsafe(_settle, ready)
                await self._stop.wait()
        except BaseException as problem:
            self._problem = problem
        finally:
            self._connections.call_soon_threadsafe(self.end)

    async def _send(self, name: str, arguments: dict[str, Any], claim: Future[None], begun: asyncio.Event) -> Any:
        assert self._thread is not None
        assert self._holder is not None
        async with self._thread.sending:
            if self._holder.done() or not claim.set_running_or_notify_cancel():
                raise NotBegunError
            self._connections.call_soon_threadsafe(begun.set)
            work: asyncio.Task[Any] = asyncio.ensure_future(self._client.call_tool(name, arguments))
            try:
                for _ in range(STEPS):
                    if work.done():
                        break
                    await asyncio.sleep(0)
            except BaseException:
                work.cancel()
                raise
        try:
            await asyncio.wait({work, self._holder}, return_when=asyncio.FIRST_COMPLETED)
            if work.done() and not work.cancelled():  # the package cancels it if the server's task group fails
                problem = work.exception()
                if problem is None or not is_closed(problem):
                    return work.result()
            await asyncio.wait({self._holder}, timeout=LATE_SECONDS)
            raise ServerLost(self.reason)
        finally:
            work.cancel()


def _thread_of(server: Any, own: _ServerThread) -> _ServerThread:
    """The thread of an object: the one that it has, else `own`. The thread ends with the object."""
    key = (os.getpid(), id(server))
    if key not in _threads:
        _threads[key] = own
        try:
            weakref.finalize(server, _release, own).atexit = False
        except TypeError:
            own.kept = server  # so that no other object gets its id
    return _threads[key]


def _release(thread: _ServerThread) -> None:
    _forget(thread)
    thread.stop()


def _forget(thread: _ServerThread) -> None:
    for key in [key for key, one in list(_threads.items()) if one is thread]:
        _threads.pop(key, None)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def cause(problem: BaseException) -> BaseException:
    """The first error in nested groups of errors."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return problem


def _exception(problem: BaseException | None) -> Exception:
    """An error that can be raised in a loop: not `SystemExit`, and no group that has it."""
    if problem is None:
        return ServerLost("the connection ended")
    first = cause(problem)
    return first if isinstance(first, Exception) else ServerLost(f"{type(first).__name__}: {first}".rstrip(": "))


def is_closed(problem: BaseException) -> bool:
    """Return True for an error of the package that says that the connection has ended."""
    first = cause(problem)
    error = getattr(first, "error", None)
    if getattr(error, "code", None) == CLOSED and CLOSED_TEXT.fullmatch(str(getattr(error, "message", ""))):
        return True
    return type(first).__name__ in ("ClosedResourceError", "BrokenResourceError", "EndOfStream")
