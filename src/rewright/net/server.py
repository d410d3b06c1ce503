"""Shared HTTP server code: JSON requests and replies, uniform errors, graceful shutdown.

An error is `{"detail": one line}` with status 4xx for an invalid request and 500 for a server error. The size of a
body is limited while it is received and while it is decompressed (gzip, deflate). There is no authentication, so
servers listen on loopback by default.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from rewright.core.errors import InputError
from rewright.core.progress import say

__all__ = ["STOP_SECONDS", "Handler", "application", "listening", "read_body", "serve"]

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[Any]]
"""A request handler. Its return value is sent as JSON; an `InputError` becomes status 400."""

STOP_SECONDS: Final = 5.0
"""Grace period for running requests at shutdown."""

_CONTENT_CODINGS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Supported content codings, and zlib's window bits for them."""


def application(routes: Mapping[str, Handler], *, max_body_bytes: int = 32 << 20) -> web.Application:
    """Create an application from handlers by route: `{"POST /search": handler}`.

    A body of more than `max_body_bytes`, compressed or decompressed, is answered with status 413.
    """
    app = web.Application(client_max_size=max_body_bytes, middlewares=[_errors_as_json])
    for route, handler in routes.items():
        method, _, path = route.partition(" ")
        app.router.add_route(method, path, _answering(handler))
    return app


async def read_body(request: web.Request, kind: type[T]) -> T:
    """Decode and validate the body of a request as `kind`.

    Raises InputError for an invalid body, and aiohttp's exceptions for the statuses 413 and 415.
    """
    try:
        return msgspec.json.decode(await _read_decompressed(request), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise InputError(f"the body is not a valid request: {problem}") from None
    except (zlib.error, web.RequestPayloadError):
        raise InputError(
            "the body cannot be decompressed: expected the coding of its Content-Encoding header"
        ) from None


async def _read_decompressed(request: web.Request) -> bytes:
    """Read and decompress the body; never holds more than the size limit."""
    max_bytes = request.client_max_size
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding != "identity" and coding not in _CONTENT_CODINGS:
        reason = f"the body's content coding is {coding!r:.40}: expected gzip, deflate or none"
        raise web.HTTPUnsupportedMediaType(reason=reason, headers={"Accept-Encoding": "gzip, deflate"})
    decompressor = zlib.decompressobj(_CONTENT_CODINGS[coding]) if coding in _CONTENT_CODINGS else None
    body = bytearray()
    if (request.content_length or 0) <= max_bytes:
        async for part in request.content.iter_any():
            body += part if decompressor is None else decompressor.decompress(part, max_bytes + 1 - len(body))
            if len(body) > max_bytes:
                break
    if len(body) > max_bytes or (request.content_length or 0) > max_bytes:
        refusal = web.HTTPRequestEntityTooLarge(max_size=max_bytes, actual_size=len(body))
        refusal.set_status(refusal.status, f"the body is too large: expected at most {max_bytes} bytes")
        raise refusal
    if decompressor is not None and not decompressor.eof:
        raise zlib.error("the compressed data is truncated")
    return bytes(body)


@asynccontextmanager
async def listening(app: web.Application, host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[str]:
    """Serve `app` inside the block and yield its address.

    `port` 0 takes any free port. Raises InputError if the address is not available.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=STOP_SECONDS / 2,  # aiohttp waits twice: before and after it cancels the handlers
        handler_cancellation=True,
        auto_decompress=False,  # `read_body` decompresses, with a size limit
        logger=_log,
    )
    await runner.setup()
    try:
        try:
            site = web.TCPSite(runner, host, port, backlog=1024)
            await site.start()
        except (OSError, OverflowError) as problem:
            reason = getattr(problem, "strerror", None) or problem
            raise InputError(f"cannot listen on {host}:{port}: {reason}: expected a free port of this host") from None
        address = runner.addresses[0]
        host_name = f"[{address[0]}]" if ":" in address[0] else address[0]
        yield f"http://{host_name}:{address[1]}"
    finally:
        await runner.cleanup()


async def serve(app: web.Application, host: str, port: int, what: str, *, path: str = "") -> None:
    """Serve until SIGINT or SIGTERM; running requests get `STOP_SECONDS` to finish.

    Prints the address, with `path` at its end, to standard output. `what` names the server in a message on standard
    error. Raises InputError if the address is not available.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with listening(app, host, port) as address:
        url = f"{address}{path}"
        print(url, flush=True)
        say(f"{what} at {url}: stop with Ctrl-C")
        await stop.wait()


class _OneLine(logging.Handler):
    """Prints aiohttp's messages about connections on one line, without the traceback: the client is the cause."""

    def emit(self, record: logging.LogRecord) -> None:
        problem = record.exc_info[1] if record.exc_info else None
        say(" ".join(f"{record.getMessage()}{f': {problem}' if problem else ''}".split())[:500])


_log = logging.Logger("rewright.serving", logging.WARNING)
_log.addHandler(_OneLine())


def _answering(handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        value = await handler(request)
        return web.Response(body=msgspec.json.encode(value), content_type="application/json")

    return answer


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    headers: dict[str, str] = {}
    try:
        return await handler(request)
    except InputError as problem:
        status, detail = 400, str(problem)
    except web.HTTPException as problem:
        status, detail = problem.status, problem.reason
        headers = {name: value for name, value in problem.headers.items() if not name.lower().startswith("content-")}
    except Exception as problem:  # an error in one request must not stop the server
        say(f"{request.method} {request.path}: {type(problem).__name__}: {problem}")
        status, detail = 500, f"{type(problem).__name__}: {problem}"
    body = msgspec.json.encode({"detail": detail})
    return web.Response(status=status, body=body, headers=headers, content_type="application/json")
