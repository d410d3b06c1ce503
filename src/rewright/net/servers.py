"""Several servers of one model: which of them a request goes to, and which of them answer.

The requests of a session (a trajectory) stay with one server, whose prefix cache holds their beginning. A new session
goes to the server with the fewest open sessions. A server that cannot be reached, that fails MAX_FAULTS times
in a row, or that is not set up for the requests (another model, a wrong key) is dropped: its sessions move to the
others, and it is tried again later. If no server is left, all of them are used, as a single server is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.net.faults import Fault
from rewright.net.urls import without_password

__all__ = ["Server", "Servers"]

MAX_FAULTS: Final = 3
"""Drop a server after so many failed attempts in a row (timeouts, lost connections, HTTP 5xx)."""
FIRST_RETRY_SECONDS: Final = 5.0
MAX_RETRY_SECONDS: Final = 600.0
"""First and longest time until a dropped server is tried again; the time doubles."""
LOGGER: Final = logging.getLogger(__name__)


class Server:
    """One server. `slots` limits its concurrent attempts, `load` says how busy it is."""

    def __init__(self, base_url: str, concurrency: int) -> None:
        self.base_url = base_url
        self.slots = asyncio.Semaphore(concurrency)
        self.sessions: set[str] = set()
        self.requests = 0
        """Requests without a session under way, those that wait for a slot included."""
        self.faults = 0
        """Failed attempts since the last answer."""
        self.dropped = False
        self.drops = 0
        """How often it was dropped or tried in vain since the last answer."""
        self.retry_at = 0.0
        """When it is tried again, in the event loop's time."""

    @property
    def load(self) -> int:
        """Number of open sessions, and of running requests without one."""
        return len(self.sessions) + self.requests


class Servers:
    """The servers of an endpoint.

    Args:
        base_urls: their addresses.
        concurrency: maximum number of concurrent attempts at each of them.
        check: returns whether a dropped server can be used again.

    Raises InputError for no address, or one that is given twice.
    """

    def __init__(
        self,
        base_urls: Sequence[str],
        concurrency: int,
        check: Callable[[Server], Awaitable[bool]],
    ) -> None:
        if not base_urls:
            raise InputError("base_url is empty: expected at least one address")
        repeated = [url for url, count in Counter(base_urls).items() if count > 1]
        if repeated:
            raise InputError(f"base_url: {without_password(repeated[0])} is given twice: expected different servers")
        self.all = [Server(url, concurrency) for url in base_urls]
        self.check = check
        self.strict = False
        """A server whose connection was lost may have been started again and have lost its state (weights): it is
        dropped at once, and not used before `check` returns True, even if no other is left."""
        self._home: dict[str, Server] = {}
        self._checks: dict[Server, asyncio.Task[None]] = {}

    def choose(self, session: str, tried: dict[Server, int], only: str | None = None) -> Server:
        """Return the server for the next attempt of a request.

        Args:
            session: the trajectory; "": none.
            tried: failed attempts of this request by server.
            only: the address of the only server that is wanted.

        Raises Fault if no server may be used.
        """
        if len(self.all) == 1 and not self.all[0].dropped:
            return self.all[0]
        if only is not None:
            return next(server for server in self.all if server.base_url == only)
        self._try_dropped()
        live = [server for server in self.all if not server.dropped]
        if not live and self.strict:
            raise Fault("connection", "no server is left that has the current weights", retry=True)
        live = live or self.all
        least = min(tried.get(server, 0) for server in live)
        live = [server for server in live if tried.get(server, 0) == least]
        home = self._home.get(session)
        if home in live:
            return home
        chosen = min(live, key=lambda server: server.load)
        if session:
            self.release(session)
            self._home[session] = chosen
            chosen.sessions.add(session)
        return chosen

    def release(self, session: str) -> None:
        """Forget a session, which has ended."""
        home = self._home.pop(session, None)
        if home is not None:
            home.sessions.discard(session)

    def is_left(self, server: Server) -> bool:
        """Return True if the server was dropped (while a request waited for it) and another one can be used."""
        return server.dropped and any(not other.dropped for other in self.all)

    def failed(self, server: Server, fault: Fault, tried: dict[Server, int]) -> bool:
        """Record a failed attempt. Returns True if the request should go to another server at once."""
        if len(self.all) == 1 and not self.strict:
            return False
        if not _another_may_answer(fault):
            return False
        tried[server] = tried.get(server, 0) + 1
        server.faults += 1
        if _is_unusable(fault) or server.faults >= MAX_FAULTS or self.strict:
            self.drop(server, str(fault))
        return any(not other.dropped and other not in tried for other in self.all)

    def probe_failed(self, server: Server, fault: Fault) -> bool:
        """Record a failed attempt of a request to this server only. Returns True if others are left."""
        lost = fault.cause in {"connection", "certificate", "timeout", "model"}
        if lost or fault.status in {401, 403, 502, 503, 504}:
            others = any(not other.dropped for other in self.all if other is not server)
            if others:
                self.drop(server, str(fault))
            return others
        return False

    def answered(self, server: Server) -> None:
        """Record a valid answer. Where all servers are dropped, this one is used again."""
        server.faults = 0
        if not server.dropped:
            server.drops = 0
        elif not self.strict and all(other.dropped for other in self.all):
            self.restore(server)

    def drop(self, server: Server, reason: str) -> None:
        """Stop using a server, and say so once."""
        if not server.dropped:
            server.dropped = True
            self._postpone(server)
            again = f"tried again in {server.retry_at - _now():.0f} s"
            self._say(f"{without_password(server.base_url)} is dropped: {reason}: {self._left()}, {again}")

    def restore(self, server: Server) -> None:
        """Use a dropped server again, and say so."""
        if server.dropped:
            server.dropped, server.faults = False, 0
            self._say(f"{without_password(server.base_url)} answers again: {self._left()}")

    def close(self) -> None:
        """Stop trying dropped servers."""
        for task in self._checks.values():
            task.cancel()

    def _postpone(self, server: Server) -> None:
        server.retry_at = _now() + min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(server.drops, 20))
        server.drops += 1

    def _try_dropped(self) -> None:
        """Start to check the dropped servers whose time has come, beside the requests."""
        none_left = self.strict and all(server.dropped for server in self.all)
        for server in self.all:
            if server.dropped and server not in self._checks and (none_left or _now() >= server.retry_at):
                self._checks[server] = asyncio.create_task(self._try(server))

    async def _try(self, server: Server) -> None:
        try:
            if await self.check(server):
                self.restore(server)
            else:
                self._postpone(server)
        finally:
            del self._checks[server]

    def _left(self) -> str:
        left = sum(not server.dropped for server in self.all)
        return f"{left or 'none'} of {len(self.all)} servers left"

    @staticmethod
    def _say(text: str) -> None:
        say(text)
        LOGGER.warning("%s", text)


def _another_may_answer(fault: Fault) -> bool:
    """Return True if the fault is the server's, and not one of the request or a rate limit."""
    if fault.status is not None:
        return fault.status not in {400, 408, 409, 413, 422, 429}
    return fault.cause in {"connection", "timeout", "certificate", "model", "tokens"}


def _is_unusable(fault: Fault) -> bool:
    """Return True for a server that cannot be reached or is not set up for the requests: no other attempt helps."""
    if fault.status is not None:
        return fault.status < 500
    return fault.unreachable or fault.cause in {"certificate", "model", "tokens"}


def _now() -> float:
    return asyncio.get_running_loop().time()
