"""HTTP client for a JSON endpoint: POST with retries, backoff, a deadline, and typed errors.

Lost connections, timeouts, HTTP 408, 409, 429 and 5xx, truncated or non-JSON bodies, and replies that the caller's
`read` rejects with a retryable `Fault` are retried. Every other fault is final. Waits double from `first_wait_seconds`
to `max_wait_seconds`, with jitter; `Retry-After` is honoured up to that maximum. A request ends with a value, or with
an `EndpointError` after at most `attempts` attempts or at the deadline.

aiohttp and tenacity are imported on first use, so that `import rewright` stays fast.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from rewright.core.concurrency import TimeLimits
from rewright.core.errors import EngineError, InputError
from rewright.net.backoff import backoff_seconds, retry_after_seconds
from rewright.net.bodies import PLAIN, decode_json, encode_json, error_detail, read_body
from rewright.net.faults import Cause, Fault, connection_problem
from rewright.net.servers import Server, Servers
from rewright.net.urls import without_password

if TYPE_CHECKING:
    import aiohttp
    import tenacity

__all__ = [
    "Cause",
    "Endpoint",
    "EndpointError",
    "Fault",
]

T = TypeVar("T")

MAX_BODY_BYTES: Final = 256 * 1024 * 1024
MAX_DETAIL: Final = 300
CHECK_SECONDS: Final = 5.0
"""Time limit for the check of a dropped server."""
RETRIED_STATUSES: Final = frozenset({408, 409, 429})


class EndpointError(EngineError):
    """A request that failed after its retries. The message is one line: URL, cause, number of attempts."""

    def __init__(self, url: str, fault: Fault, *, attempts: int, ending: str = "") -> None:
        tries = f"{attempts} attempt" + ("" if attempts == 1 else "s")
        self.url = without_password(url)
        super().__init__(f"POST {self.url}: {fault} ({tries}{ending})")
        self.cause = fault.cause
        self.status = fault.status
        self.detail = fault.detail
        """The server's error message, if it could be read."""
        self.attempts = attempts


class _Work:
    """A post under way."""

    __slots__ = (
        "attempts", "data", "deadline", "decoder", "last", "max_bytes", "only", "path", "session", "tried", "url",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 - made for every request: keywords cost time
        self,
        url: str,
        path: str,
        max_bytes: int,
        deadline: float | None,
        session: str,
        only: str | None,
        decoder: msgspec.json.Decoder[Any],
    ) -> None:
        self.url, self.path, self.max_bytes, self.deadline = url, path, max_bytes, deadline
        self.session, self.only, self.decoder = session, only, decoder
        self.data = b""
        self.attempts = 0
        self.last: Fault | None = None
        self.tried: dict[Server, int] = {}


class Endpoint:
    """Posts JSON to `base_url` + path. Belongs to one event loop; the first post creates the connection pool.

    Args:
        base_url: address of the server, without a trailing slash, or of several equal servers
            (`rewright.net.servers`). A request that one of them cannot answer goes to another one at once; that is not
            counted in `attempts`.
        headers: added to every request.
        secret: text that is removed from error messages, such as the API key.
        concurrency: maximum number of concurrent attempts at one server.
        timeout_seconds: time limit of one attempt.
        attempts: maximum number of attempts per request.
        first_wait_seconds, max_wait_seconds: first and longest wait between two attempts; waits double.

    Raises InputError for settings out of range.
    """

    def __init__(
        self,
        base_url: str | Sequence[str],
        *,
        headers: Mapping[str, str] | None = None,
        secret: str | None = None,
        concurrency: int,
        timeout_seconds: float,
        attempts: int,
        first_wait_seconds: float,
        max_wait_seconds: float,
    ) -> None:
        for name, value in {"concurrency": concurrency, "attempts": attempts}.items():
            if value < 1:
                raise InputError(f"{name} is {value}: expected at least 1")
        waits = {"first_wait_seconds": first_wait_seconds, "max_wait_seconds": max_wait_seconds}
        for name, seconds in {"timeout_seconds": timeout_seconds, **waits}.items():
            if not seconds > 0:
                raise InputError(f"{name} is {seconds}: expected a number above 0")
        self.base_urls = (base_url,) if isinstance(base_url, str) else tuple(base_url)
        self.servers = Servers(self.base_urls, concurrency, self.answers)
        self.base_url = self.base_urls[0]
        self.attempts = attempts
        self.timeout_seconds = timeout_seconds
        self.faults: Counter[str] = Counter()
        """Number of failed attempts by cause, including those after which a retry succeeded."""
        self.empty_replies = False
        """Whether a reply without a body is valid (None)."""
        self.headers = dict(headers or {})
        self._secret = secret
        self._concurrency = concurrency
        self._waits = (first_wait_seconds, max_wait_seconds)
        self._limits = TimeLimits()
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def post(
        self,
        path: str,
        body: Mapping[str, Any] | bytes,
        read: Callable[[Any], T],
        *,
        deadline: float | None = None,
        max_bytes: int = MAX_BODY_BYTES,
        session: str = "",
        only: str | None = None,
        decoder: msgspec.json.Decoder[Any] = PLAIN,
    ) -> T:
        """Post `body` and return `read(reply)` of the decoded reply.

        Args:
            path: appended to `base_url`.
            body: encoded as JSON, unless it is.
            read: converts the decoded reply; raises Fault for an invalid one.
            deadline: deadline of all attempts and waits, in the event loop's time; None: no deadline.
            max_bytes: maximum size of the reply.
            session: requests of the same session (trajectory) go to the same server, until `release`.
            only: address of the only server that may answer.
            decoder: decodes the usual replies to a type that `read` knows. `read` gets plain JSON values for a reply
                that it does not decode.

        Raises only EndpointError.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        work = _Work(self.base_url + path, path, min(max_bytes, MAX_BODY_BYTES), deadline, session, only, decoder)
        try:
            work.data = body if isinstance(body, bytes) else encode_json(body)
            self._check(loop)
            try:
                return await self._attempt(work, read)
            except Fault as fault:
                if not fault.retry or self.attempts == 1:
                    raise
                failed = fault
            return await self._retry(work, read, failed)
        except Fault as fault:
            ending = f" in {loop.time() - started:.1f} s"
            if fault.retry and work.attempts < self.attempts:
                ending += ", no time for another attempt before the deadline"
            raise EndpointError(work.url, fault, attempts=work.attempts, ending=ending) from None
        except TimeoutError:
            self.faults["deadline"] += 1
            last = work.last
            allowed = max(0.0, (deadline or started) - started)
            message = f"no answer within the deadline of {allowed:.1f} s" + (f"; before that: {last}" if last else "")
            timeout_fault = Fault("deadline", message, retry=False, status=last.status if last else None)
            raise EndpointError(work.url, timeout_fault, attempts=work.attempts) from None

    async def _attempt(self, work: _Work, read: Callable[[Any], T]) -> T:
        """Make one attempt, at most once per server. Raises Fault, and TimeoutError at the deadline."""
        work.attempts += 1
        session, only = work.session, work.only
        while True:
            try:
                server = self.servers.choose(session, work.tried, only)
            except Fault as fault:
                self.faults[fault.label] += 1
                work.last = fault
                raise
            work.url = server.base_url + work.path
            server.requests += not session
            try:
                if server.slots.locked():
                    with self._limits.until(work.deadline):
                        await server.slots.acquire()
                else:
                    await server.slots.acquire()
                try:
                    if only is None and self.servers.is_left(server):
                        continue
                    content = await self._exchange(work)
                    value = read(decode_json(content, work.decoder) if content or not self.empty_replies else None)
                finally:
                    server.slots.release()
                self.servers.answered(server)
                return value
            except Fault as fault:
                self.faults[fault.label] += 1
                work.last = fault
                if only is not None:
                    fault.retry = not self.servers.probe_failed(server, fault) and fault.retry
                    raise
                if self._closed or not self.servers.failed(server, fault, work.tried):
                    raise
            finally:
                server.requests -= not session

    async def _retry(self, work: _Work, read: Callable[[Any], T], failed: Fault) -> T:
        """Wait and repeat a failed first attempt. Raises Fault, and TimeoutError at the deadline."""
        import tenacity

        first: Fault | None = failed
        deadline = work.deadline

        async def again() -> T:
            nonlocal first
            if first is not None:  # the first attempt has been made
                fault, first = first, None
                raise fault
            return await self._attempt(work, read)

        stop: Any = tenacity.stop_after_attempt(self.attempts)
        if deadline is not None:  # do not start a wait that would end after the deadline
            stop = stop | tenacity.stop_before_delay(max(0.0, deadline - asyncio.get_running_loop().time()))
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, Fault) and error.retry),
            wait=self._wait,
            stop=stop,
            reraise=True,
        )
        with self._limits.until(deadline):
            return await retrying(again)

    def release(self, session: str) -> None:
        """Forget a session: its requests need no longer go to the same server."""
        self.servers.release(session)

    async def answers(self, server: Server, path: str = "/models") -> bool:
        """Return True if the server answers a GET request within CHECK_SECONDS, with any status below 500."""
        import aiohttp

        try:
            async with (
                asyncio.timeout(CHECK_SECONDS),
                self._connections().get(server.base_url + path, allow_redirects=False) as reply,
            ):
                return reply.status < 500
        except (TimeoutError, aiohttp.ClientError, OSError, RuntimeError, ValueError):
            return False

    async def close(self) -> None:
        """Close the connections. Running and later posts fail with EndpointError."""
        self._closed = True
        self.servers.close()
        if self._session is not None:
            await self._session.close()

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._closed:
            raise Fault("request", "the engine is closed", retry=False)
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise Fault("request", "the engine belongs to another event loop: make one engine per loop", retry=False)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        after = error.retry_after if isinstance(error, Fault) else None
        first, longest = self._waits
        return backoff_seconds(state.attempt_number, after, first=first, max_wait=longest, draw=random.random())

    def _connections(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._concurrency * len(self.base_urls)),
                headers={"Content-Type": "application/json", **self.headers},
                # The timeout is set per attempt: aiohttp's would include the time spent in its queue.
                timeout=aiohttp.ClientTimeout(total=None),
                # A cookie of a load balancer would bind all requests to one of its servers.
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def _exchange(self, work: _Work) -> bytes:
        """Make one attempt. Returns the body of a 2xx reply. Raises Fault, and TimeoutError at the deadline."""
        import aiohttp

        http = self._connections()
        # One time limit for both: whichever comes first.
        until = asyncio.get_running_loop().time() + self.timeout_seconds
        is_deadline = work.deadline is not None and work.deadline <= until
        limit = self._limits.until(work.deadline if is_deadline else until)
        try:
            with limit:
                response = await http.post(work.url, data=work.data, allow_redirects=False)
                try:
                    content = await read_body(response, work.max_bytes)
                except BaseException:
                    response.close()
                    raise
                status = response.status
                if status >= 500:  # servers may drop the connection after an error: do not reuse it
                    response.close()
        except TimeoutError:
            if is_deadline and limit.expired:
                raise
            raise Fault("timeout", f"no answer within {self.timeout_seconds:g} s", retry=True) from None
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            raise Fault("certificate", self._connection(error), retry=False) from None
        except aiohttp.ClientPayloadError as error:
            raise Fault("body", f"the reply was truncated: {self._line(error)}", retry=True) from None
        except (aiohttp.ClientError, OSError, RuntimeError, ValueError) as error:
            # aiohttp raises RuntimeError for a closed session, and ValueError for bytes that are not HTTP.
            unreachable = isinstance(error, aiohttp.ClientConnectorError)
            raise Fault(
                "connection", self._connection(error), retry=not self._closed, unreachable=unreachable
            ) from None
        if 200 <= status < 300:
            return content
        raise self._status_fault(status, response.headers, content)

    def _status_fault(self, status: int, headers: Mapping[str, str], content: bytes) -> Fault:
        detail = self._clean(error_detail(content))
        message = detail[:MAX_DETAIL] or "(empty body)"
        if 300 <= status < 400:
            message = f"redirected to {headers.get('Location', '?')}: give that as base_url"
        retry = status in RETRIED_STATUSES or status >= 500
        after = retry_after_seconds(headers)
        return Fault(
            "status", f"HTTP {status}: {message}", retry=retry, status=status, retry_after=after, detail=detail
        )

    def _line(self, error: Exception) -> str:
        return f"{type(error).__name__}: {self._clean(str(error))[:MAX_DETAIL]}"

    def _connection(self, error: Exception) -> str:
        return self._clean(connection_problem(error))[:MAX_DETAIL]

    def _clean(self, text: str) -> str:
        """Return `text` on one line with the API key removed."""
        if self._secret:
            text = text.replace(self._secret, "[api key]")
        return " ".join(text.split())
