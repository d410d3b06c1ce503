"""Streamable HTTP for many sessions at once, over mcp 1.x and 2.x.

Each session has a client of its own in the package, with its own TLS settings (some 30 ms of work), and holds a second
connection open on which the server may send requests of its own. Rollouts open hundreds of sessions and answer no
requests of servers. So the sessions share the TLS settings, and the second connection, which is optional in the
protocol, is not made.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator
from functools import cache
from typing import Any, Final

from rewright.net.backoff import backoff_seconds, retry_after_seconds

__all__ = ["http_transport"]

NOT_FOUND: Final = 404
BUSY: Final = (429, 503)
"""Statuses with which a server refuses a request that it has not begun."""
MAX_ATTEMPTS: Final = 5
FIRST_WAIT_SECONDS: Final = 0.5
MAX_WAIT_SECONDS: Final = 10.0
SECONDS: Final = 30.0
READ_SECONDS: Final = 300.0
"""Time limits of a request, as the package has them. Calls have shorter ones of their own."""


@contextlib.asynccontextmanager
async def http_transport(url: str, headers: dict[str, str]) -> AsyncIterator[Any]:
    """Yield the streams of a connection to `url`, for a client of the package."""
    from mcp.client import streamable_http

    connect: Any = getattr(streamable_http, "streamable_http_client", None)
    if connect is not None:  # 2.x, and 1.x from 1.24
        async with _client(headers) as client, connect(url, http_client=client) as streams:
            yield streams
        return
    old: Any = streamable_http.streamablehttp_client  # type: ignore[attr-defined]
    async with old(url, headers=headers, httpx_client_factory=lambda **_: _client(headers)) as streams:
        yield streams


def _client(headers: dict[str, str]) -> Any:
    from mcp.client import streamable_http

    http: Any = getattr(streamable_http, "httpx2", None) or streamable_http.httpx  # type: ignore[attr-defined]
    timeout = http.Timeout(SECONDS, read=READ_SECONDS)
    transport = _transport_class(http)(verify=_tls())
    return http.AsyncClient(headers=headers, timeout=timeout, transport=transport, follow_redirects=True)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


@cache
def _transport_class(http: Any) -> type[Any]:
    class Transport(http.AsyncHTTPTransport):  # type: ignore[misc]
        """Says for a server that it has no stream of its own requests. (A stream that is resumed names its event.)

        By the protocol, 404 in a session is its end. The package says so only if the answer has no error of its own.
        A request that the server refuses because it is busy is sent again, within the time limit of the call.
        """

        async def handle_async_request(self, request: Any) -> Any:
            if request.method == "GET" and "last-event-id" not in request.headers:
                return http.Response(405, request=request)
            answer = await super().handle_async_request(request)
            for attempt in range(1, MAX_ATTEMPTS):
                if answer.status_code not in BUSY:
                    break
                await answer.aclose()
                await asyncio.sleep(_wait(attempt, retry_after_seconds(answer.headers)))
                answer = await super().handle_async_request(request)
            if answer.status_code == NOT_FOUND and "mcp-session-id" in request.headers:
                await answer.aclose()
                return http.Response(NOT_FOUND, request=request)
            return answer

    return Transport


def _wait(attempt: int, retry_after: float | None) -> float:
    return backoff_seconds(
        attempt, retry_after, first=FIRST_WAIT_SECONDS, max_wait=MAX_WAIT_SECONDS, draw=random.random()
    )
