"""`rewright serve-search`: serve a search index with the retriever protocol (see rewright.tools.retriever).

POST /search        {"query": text, "top_n": 10, "return_score": false}
POST /batch_search  {"query": [text, …], "top_n": 10, "return_score": false}
GET  /health        {"status": "healthy", "documents": number}

The size of a request is limited by the constants below. A search is cancelled when its caller disconnects, when it
times out, and at shutdown after a grace period (status 503).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
from aiohttp import web

from rewright.core.errors import InputError
from rewright.net.server import application, read_body
from rewright.tools.search_index import Document, SearchHit, SearchIndex, check_query, search_in_thread

__all__ = ["search_application"]

MAX_DOCUMENTS: Final = 1000
"""Per query."""
MAX_QUERIES: Final = 1000
MAX_RESULTS: Final = 20_000
"""Documents per batch: queries x top_n."""
MAX_BODY_BYTES: Final = 16 << 20
DEFAULT_REQUEST_SECONDS: Final = 60.0
"""Timeout of a request; clients of the protocol usually wait 30 s."""
SHUTDOWN_GRACE_SECONDS: Final = 1.0
"""Grace period for running searches at shutdown."""

Q = TypeVar("Q")


class _Query(msgspec.Struct, Generic[Q]):
    """A request to /search or /batch_search."""

    query: Q
    top_n: int = 10
    return_score: bool = False


def search_application(index: SearchIndex, *, seconds: float = DEFAULT_REQUEST_SECONDS) -> web.Application:
    """Create the application that searches `index` in threads. `seconds`: timeout of a request (status 503)."""

    running: set[asyncio.Task[list[list[SearchHit]]]] = set()
    stopping = False

    async def search_batch(queries: Sequence[str], top_n: int) -> list[list[SearchHit]]:
        _check(top_n, queries)
        task = asyncio.create_task(search_in_thread(index, queries, top_n))
        running.add(task)
        task.add_done_callback(running.discard)
        try:
            async with asyncio.timeout(seconds):
                return await task
        except TimeoutError:
            raise _service_unavailable(
                f"the search was not done after {seconds:g} s: send fewer or shorter queries"
            ) from None
        except asyncio.CancelledError:
            if not stopping:  # the caller disconnected
                raise
            raise _service_unavailable("the server is stopping") from None

    async def stop(app: web.Application) -> None:
        nonlocal stopping
        stopping = True
        if running:
            await asyncio.wait(running, timeout=SHUTDOWN_GRACE_SECONDS)
        for task in running:
            task.cancel()

    async def search(request: web.Request) -> Any:
        body = await read_body(request, _Query[str])
        hits = (await search_batch([body.query], body.top_n))[0]
        return [_documents(hits), _scores(hits)] if body.return_score else _documents(hits)

    async def batch_search(request: web.Request) -> Any:
        body = await read_body(request, _Query[list[str]])
        lists = await search_batch(body.query, body.top_n)
        documents = [_documents(hits) for hits in lists]
        return [documents, [_scores(hits) for hits in lists]] if body.return_score else documents

    async def health(request: web.Request) -> Any:
        return {"status": "healthy", "documents": len(index)}

    routes = {"POST /search": search, "POST /batch_search": batch_search, "GET /health": health}
    app = application(routes, max_body_bytes=MAX_BODY_BYTES)
    app.on_shutdown.append(stop)
    return app


def _service_unavailable(reason: str) -> web.HTTPException:
    return web.HTTPServiceUnavailable(reason=reason, headers={"Retry-After": "1"})


def _check(top_n: int, queries: Sequence[str]) -> None:
    if not 1 <= top_n <= MAX_DOCUMENTS:
        raise InputError(f"top_n is {top_n}: expected 1 to {MAX_DOCUMENTS}")
    if not queries or not all(query.strip() for query in queries):
        raise InputError("query is empty: expected words to search for")
    if len(queries) > MAX_QUERIES:
        raise InputError(f"query has {len(queries)} queries: expected at most {MAX_QUERIES}")
    if len(queries) * top_n > MAX_RESULTS:
        asked = f"{len(queries)} queries with top_n {top_n} ask for {len(queries) * top_n} documents"
        raise InputError(f"{asked}: expected at most {MAX_RESULTS}")
    for query in queries:
        check_query(query)


def _documents(hits: Sequence[SearchHit]) -> list[Document]:
    return [hit.document for hit in hits]


def _scores(hits: Sequence[SearchHit]) -> list[float | None]:
    return [hit.score for hit in hits]
