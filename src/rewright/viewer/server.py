"""`rewright view`: serve runs to a browser on this machine.

The server listens on loopback. The address that it prints has a random path, so that other users of the machine cannot
read the runs, and requests with another `Host` are refused, so that no web page can. The page loads nothing from
elsewhere, and its content security policy lets nothing run but its own script.

    GET  …/                      the page
    GET  …/api/runs              name, filters and steps of every run
    GET  …/api/versions          version of every run, raised when its files have changed
    GET  …/api/rows              ?run&stage&…&q&sort&start&count: a range of trajectories
    GET  …/api/trajectory        ?run&id        …/api/raw, …/api/tokens likewise
    POST …/api/trajectories      {"run", "ids"}
    GET  …/api/step              ?run&step      groups of a step of RL
    GET  …/api/summary           ?run           results, costs, curves
    GET  …/api/compare           ?left&right
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from rewright.core.errors import InputError
from rewright.net.server import application, read_body, serve
from rewright.viewer.overview import comparison
from rewright.viewer.shown_run import ShownRun

__all__ = ["bundle", "serve_runs", "viewer_application"]

T = TypeVar("T")

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LOOPBACK: Final = "127.0.0.1"
PAGE: Final = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Rewright</title>\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<link rel="stylesheet" href="app.css"><link rel="icon" href="data:,"></head>\n'
    '<body><div id="app"></div><script src="app.js"></script></body></html>\n'
)


def bundle(name: str) -> str:
    """Return a file of the built front end: `app.js` or `app.css`."""
    return (Path(str(files("rewright.viewer"))) / "bundle" / name).read_text("utf-8")


class _Many(msgspec.Struct):
    run: int
    ids: list[str]


def viewer_application(runs: Sequence[ShownRun], token: str) -> web.Application:
    """Create the application; its addresses begin with `/TOKEN/`."""
    base = f"/{token}"

    def run_of(text: str | None) -> ShownRun:
        if text is None or not text.isdecimal() or not int(text[:9]) < len(runs):
            raise InputError(f"run {text!r:.40}: expected 0 to {len(runs) - 1}")
        return runs[int(text)]

    def asked(name: str, answer: Callable[[ShownRun, Any], T]) -> tuple[str, Callable[[web.Request], Awaitable[T]]]:
        async def handle(request: web.Request) -> T:
            query = dict(request.query)
            return await asyncio.to_thread(answer, run_of(query.get("run")), query)

        return f"GET {base}/api/{name}", handle

    async def all_runs(request: web.Request) -> Any:
        return [await asyncio.to_thread(run.head) for run in runs]

    async def versions(request: web.Request) -> Any:
        return [await asyncio.to_thread(run.refresh) for run in runs]

    async def many(request: web.Request) -> Any:
        body = await read_body(request, _Many)
        return await asyncio.to_thread(run_of(str(body.run)).many, body.ids)

    async def compared(request: web.Request) -> Any:
        left, right = (run_of(request.query.get(key)) for key in ("left", "right"))
        return await asyncio.to_thread(comparison, left.index, right.index)

    async def raw(request: web.Request) -> web.Response:
        run = run_of(request.query.get("run"))
        line = await asyncio.to_thread(run.raw, request.query.get("id", ""))
        return web.Response(body=line, content_type="application/json")

    def of_file(text: str, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            return web.Response(text=text, content_type=kind)

        return handle

    app = application(
        {
            f"GET {base}/api/runs": all_runs,
            f"GET {base}/api/versions": versions,
            f"GET {base}/api/compare": compared,
            f"POST {base}/api/trajectories": many,
            **dict(
                (
                    asked("rows", lambda run, query: run.rows(query)),
                    asked("position", lambda run, query: run.position(query, query.get("id", ""))),
                    asked("trajectory", lambda run, query: run.trajectory(query.get("id", ""))),
                    asked("tokens", lambda run, query: run.tokens(query.get("id", ""))),
                    asked("step", lambda run, query: run.step(_step(query.get("step", "")))),
                    asked("summary", lambda run, query: run.summary()),
                )
            ),
        },
        max_body_bytes=1 << 20,
    )
    app.router.add_get(f"{base}/api/raw", raw)
    app.router.add_get(f"{base}/", of_file(PAGE, "text/html"))
    app.router.add_get(f"{base}/app.js", of_file(bundle("app.js"), "text/javascript"))
    app.router.add_get(f"{base}/app.css", of_file(bundle("app.css"), "text/css"))
    app.middlewares.insert(0, _own_host_only)
    app.on_response_prepare.append(_add_headers)
    return app


async def serve_runs(runs: Sequence[ShownRun], port: int) -> None:
    """Serve until Ctrl-C, and print the address. Raises InputError if the port is taken."""
    token = secrets.token_urlsafe(16)
    names = ", ".join(run.name for run in runs)
    await serve(viewer_application(runs, token), LOOPBACK, port, names, path=f"/{token}/")


def _step(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise InputError(f"step {text!r:.40}: expected a number")
    return int(text)


@web.middleware
async def _own_host_only(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse a request for another host: a web page may have pointed its own name at this address."""
    host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
    if host not in (LOOPBACK, "localhost"):
        return web.json_response({"detail": "expected this machine's own address as the host"}, status=421)
    return await handler(request)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
