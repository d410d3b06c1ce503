"""What the servers share: JSON in and out, errors in one shape, listening until they are told to stop.

An error is `{"detail": one line}` with a status: 4xx for what the caller can mend, 500 for a fault of the server. They
listen on loopback unless they are told otherwise: there is no authentication.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from rewright.errors import InputError
from rewright.progress import say

__all__ = ["Handler", "application", "listening", "read_body", "serve"]

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[Any]]
"""Answers a request with a value that becomes JSON. `InputError` is answered with status 400."""

MAX_BODY_BYTES: Final = 256 * 1024 * 1024


def application(routes: dict[str, Handler]) -> web.Application:
    """An application with handlers by route: `{"POST /search": handler}`."""
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors_as_json])
    for route, handler in routes.items():
        method, _, path = route.partition(" ")
        app.router.add_route(method, path, _answering(handler))
    return app


async def read_body(request: web.Request, kind: type[T]) -> T:
    """The request's body, checked. Raises InputError that says what is wrong with it."""
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise InputError(f"the body is not a valid request: {problem}") from None
    except web.RequestPayloadError:
        raise InputError("the body cannot be unpacked: expected it as its headers say") from None


@asynccontextmanager
async def listening(app: web.Application, host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[str]:
    """Serve `app` inside the block; gives its address. Port 0: any free one. Raises InputError if it can't listen."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5.0, handler_cancellation=True)
    await runner.setup()
    try:
        try:
            site = web.TCPSite(runner, host, port, backlog=1024)
            await site.start()
        except (OSError, OverflowError) as problem:
            reason = getattr(problem, "strerror", None) or problem
            raise InputError(f"cannot listen on {host}:{port}: {reason}: expected a free port of this host") from None
        place = runner.addresses[0]
        name = f"[{place[0]}]" if ":" in place[0] else place[0]
        yield f"http://{name}:{place[1]}"
    finally:
        await runner.cleanup()


async def serve(app: web.Application, host: str, port: int, what: str) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are answered. The address is printed to standard output."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with listening(app, host, port) as url:
        print(url, flush=True)
        say(f"{what} at {url}: stop with Ctrl-C")
        await stop.wait()


def _answering(handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        value = await handler(request)
        return web.Response(body=msgspec.json.encode(value), content_type="application/json")

    return answer


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except InputError as problem:
        status, detail = 400, str(problem)
    except web.HTTPException as problem:
        status, detail = problem.status, problem.reason
    except Exception as problem:  # a server outlives whatever a request does to it
        say(f"{request.method} {request.path}: {type(problem).__name__}: {problem}")
        status, detail = 500, f"{type(problem).__name__}: {problem}"
    return web.Response(status=status, body=msgspec.json.encode({"detail": detail}), content_type="application/json")
