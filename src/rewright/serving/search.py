"""`rewright serve-search`: a search index behind the retriever protocol (see rewright.tools.retriever).

POST /search        {"query": text, "top_n": 10, "return_score": false}
POST /batch_search  {"query": [text, …], "top_n": 10, "return_score": false}
GET  /health        {"status": "healthy", "documents": number}
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
from aiohttp import web

from rewright.errors import InputError
from rewright.serving.http import application, read_body
from rewright.tools.search_index import Document, Found, SearchIndex

__all__ = ["search_application"]

MOST_DOCUMENTS: Final = 1000

Q = TypeVar("Q")


class _Query(msgspec.Struct, Generic[Q]):
    """A request of either path."""

    query: Q
    top_n: int = 10
    return_score: bool = False


def search_application(index: SearchIndex) -> web.Application:
    """The application that searches `index`, in threads."""

    async def search(request: web.Request) -> Any:
        asked = await read_body(request, _Query[str])
        _check(asked.top_n, [asked.query])
        found = await asyncio.to_thread(index.search, asked.query, asked.top_n)
        return [_documents(found), _scores(found)] if asked.return_score else _documents(found)

    async def batch_search(request: web.Request) -> Any:
        asked = await read_body(request, _Query[list[str]])
        _check(asked.top_n, asked.query)
        lists = await asyncio.to_thread(lambda: [index.search(query, asked.top_n) for query in asked.query])
        documents = [_documents(found) for found in lists]
        return [documents, [_scores(found) for found in lists]] if asked.return_score else documents

    async def health(request: web.Request) -> Any:
        return {"status": "healthy", "documents": len(index)}

    return application({"POST /search": search, "POST /batch_search": batch_search, "GET /health": health})


def _check(top_n: int, queries: Sequence[str]) -> None:
    if not 1 <= top_n <= MOST_DOCUMENTS:
        raise InputError(f"top_n is {top_n}: expected 1 to {MOST_DOCUMENTS}")
    if not queries or not all(query.strip() for query in queries):
        raise InputError("query is empty: expected words to search for")


def _documents(found: Sequence[Found]) -> list[Document]:
    return [one.document for one in found]


def _scores(found: Sequence[Found]) -> list[float | None]:
    return [one.score for one in found]
