"""Client of a search server with FlashRAG's retriever protocol (used by Tool-Star and others).

    POST /search        {"query": text, "top_n": k, "return_score": bool}
    POST /batch_search  {"query": [text, ...], "top_n": k, "return_score": bool}

The reply is a list of documents {"id", "contents"} (for a batch: one such list per query), or with `return_score` the
pair [documents, scores in the same shape]. `rewright serve-search` implements the protocol.

If the server does not answer after the retries, a `ServerError` stops the stage. A query that the server rejects (too
long, say) is a model error: `RefusedQuery`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from rewright.core.errors import InputError, ServerError
from rewright.net.endpoint import Endpoint, EndpointError, Fault
from rewright.net.urls import server_address
from rewright.tools.search_index import Document, SearchHit, SearchIndex, search_in_thread

__all__ = ["LocalSearcher", "RefusedQuery", "Retriever", "Searcher"]

REFUSED_STATUSES: Final = frozenset({400, 413, 414, 422})
MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
"""Maximum size of a reply per requested document (the longest articles of an encyclopedia have 1 MiB)."""


class RefusedQuery(Exception):  # noqa: N818 - becomes an error result
    """The server or the index rejects this query. The message is one line."""


class Searcher(Protocol):
    """The interface of search back ends: an index in this process, or a server."""

    async def start(self) -> None:
        """Check that the back end answers. Raises `ServerError`."""
        ...

    async def search(self, query: str, top_k: int) -> list[SearchHit]:
        """Return up to `top_k` documents, best first. Raises `ServerError`, and `RefusedQuery` for an invalid query."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class LocalSearcher:
    """A `SearchIndex`, searched in threads of this process."""

    def __init__(self, index: SearchIndex) -> None:
        self.index = index

    async def start(self) -> None:
        """Does nothing: the index is open."""

    async def search(self, query: str, top_k: int) -> list[SearchHit]:
        """Return up to `top_k` documents, best first. Raises `RefusedQuery` for a query that is too long."""
        try:
            return (await search_in_thread(self.index, [query], top_k))[0]
        except InputError as problem:
            raise RefusedQuery(str(problem)) from None

    async def close(self) -> None:
        """Does nothing: no connections are open."""


class Retriever:
    """The client of a search server. Belongs to one event loop.

    Args:
        url: address of the server.
        concurrency: maximum number of concurrent requests.
        timeout_seconds: timeout of one attempt.
        attempts: maximum number of attempts per request.
        first_wait_seconds: wait before the first retry; later waits double.
        headers: added to every request.

    Raises InputError for an invalid address.
    """

    def __init__(
        self,
        url: str,
        *,
        concurrency: int = 64,
        timeout_seconds: float = 30.0,
        attempts: int = 5,
        first_wait_seconds: float = 0.5,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.url = server_address(url, "search server", "/search", "/batch_search")
        self._endpoint = Endpoint(
            self.url,
            headers=headers,
            concurrency=concurrency,
            timeout_seconds=timeout_seconds,
            attempts=attempts,
            first_wait_seconds=first_wait_seconds,
            max_wait_seconds=20.0,
        )
        self._starting = asyncio.Lock()
        self._answered = False

    async def start(self) -> None:
        """Send a test query, once. Raises `ServerError` if the server does not answer it, after the retries."""
        async with self._starting:
            if not self._answered:
                try:
                    await self.search("search", 1)
                except RefusedQuery as problem:
                    raise ServerError(f"the search server refuses every query: {problem}") from None
                self._answered = True

    async def search(self, query: str, top_k: int = 1, *, scores: bool = False) -> list[SearchHit]:
        """Return up to `top_k` documents for a query, best first; `scores`: request scores too.

        Raises `ServerError` and `RefusedQuery`.
        """
        body = {"query": query, "top_n": top_k, "return_score": scores}
        return (await self._post("/search", body, lambda reply: [parse_hits(reply, scores)], top_k))[0][:top_k]

    async def batch_search(
        self, queries: Sequence[str], top_k: int = 1, *, scores: bool = False
    ) -> list[list[SearchHit]]:
        """As `search`, for many queries in one request. Returns one list per query."""

        def read(reply: Any) -> list[list[SearchHit]]:
            lists = _pair_with_scores(reply) if scores else _as_list(reply)
            if len(lists) != len(queries):
                raise Fault("reply", f"{len(lists)} lists of documents for {len(queries)} queries", retry=False)
            return [parse_hits(documents, scores) for documents in lists]

        body = {"query": list(queries), "top_n": top_k, "return_score": scores}
        return [hits[:top_k] for hits in await self._post("/batch_search", body, read, top_k * len(queries))]

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    async def _post(
        self, path: str, body: Mapping[str, Any], read: Callable[[Any], list[list[SearchHit]]], documents: int
    ) -> list[list[SearchHit]]:
        max_bytes = MAX_DOCUMENT_BYTES * (documents + 1)
        try:
            return await self._endpoint.post(path, body, read, max_bytes=max_bytes)
        except EndpointError as error:
            if error.cause == "status" and error.status in REFUSED_STATUSES:
                raise RefusedQuery(error.detail or str(error)) from None
            raise ServerError(f"the search server does not answer: {error}") from error


class _Reply(msgspec.Struct):
    """A document in a reply; other keys are ignored."""

    id: str | int
    contents: str


def parse_hits(reply: Any, scores: bool) -> list[SearchHit]:
    """Parse the reply to one query. Raises `Fault` for an invalid reply."""
    rows = _pair_with_scores(reply) if scores else _as_list(reply)
    hits = []
    for row in rows:
        value, score = row if scores else (row, None)
        try:
            document = msgspec.convert(value, _Reply)
            number = None if score is None else msgspec.convert(score, float)
        except msgspec.ValidationError as problem:
            raise Fault("reply", f"not a document with id and contents: {problem}", retry=False) from None
        if number is not None and not math.isfinite(number):
            raise Fault("impossible", f"the score {number} of a document: expected a finite number", retry=False)
        hits.append(SearchHit(Document(str(document.id), document.contents), number))
    return hits


def _as_list(reply: Any) -> list[Any]:
    if not isinstance(reply, list):
        raise Fault("reply", f"expected a list of documents, got {str(reply)[:200]!r}", retry=False)
    return reply


def _pair_with_scores(reply: Any) -> list[Any]:
    """Convert [documents, scores] of equal length to [(document, score), …]. Raises `Fault`."""
    if not isinstance(reply, list | tuple) or len(reply) != 2:
        raise Fault("reply", f"expected [documents, scores], got {str(reply)[:200]!r}", retry=False)
    documents, scores = _as_list(reply[0]), _as_list(reply[1])
    if len(documents) != len(scores):
        raise Fault("reply", f"{len(documents)} documents and {len(scores)} scores", retry=False)
    return list(zip(documents, scores, strict=True))
