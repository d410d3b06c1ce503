"""The search tool: sends a query to an index or a search server and returns the best passages.

As in AutoTraj (section 2), the default is the best passage only; several passages are numbered. A query without hits
is not an error. An unreachable server raises `ServerError`, which stops the stage.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from rewright.core.errors import InputError
from rewright.core.records import ToolCall, ToolResult, ToolSpec
from rewright.sandbox.errors import error_result, refused_call
from rewright.tools.retriever import LocalSearcher, RefusedQuery, Searcher
from rewright.tools.search_index import SearchHit, SearchIndex

__all__ = ["SearchTool", "SearchToolset"]

NO_RESULTS: Final = "No passage found."


class SearchToolset:
    """The search tool of one trajectory."""

    def __init__(self, factory: SearchTool, tools: Sequence[ToolSpec]) -> None:
        self._factory = factory
        self._names = [tool.name for tool in tools]

    async def __aenter__(self) -> Self:
        await self._factory.searcher.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Does nothing: a trajectory holds no resources."""

    async def call(self, call: ToolCall, *, wall_seconds: float | None = None) -> ToolResult:
        """Search for the call's `query` argument (or for its only text argument).

        `wall_seconds` is not used: the client has its own timeouts and retries, so that a short outage does not affect
        the model. Raises `ServerError` after the retries.
        """
        refused = refused_call(call, self._names)
        if refused is not None:
            return refused
        query = query_of(call.arguments)
        if query is None:
            return error_result("arguments", f"{call.name}(): expected what to search for as the text argument 'query'")
        started = time.monotonic()
        try:
            hits = await self._factory.searcher.search(query, self._factory.top_k)
        except RefusedQuery as problem:
            return error_result("arguments", f"{call.name}(): {problem}", seconds=time.monotonic() - started)
        return ToolResult(format_passages(hits, self._factory.top_k), seconds=time.monotonic() - started)


class SearchTool:
    """A `ToolsetFactory` for tools of kind `search`. All trajectories share one searcher.

    `top_k`: number of passages in a result. Raises `InputError` if it is below 1.
    """

    def __init__(self, searcher: Searcher | SearchIndex, *, top_k: int = 1) -> None:
        if top_k < 1:
            raise InputError(f"search tool: top_k is {top_k}: expected at least 1")
        self.searcher: Searcher = LocalSearcher(searcher) if isinstance(searcher, SearchIndex) else searcher
        self.top_k = top_k

    @staticmethod
    def spec(name: str = "search") -> ToolSpec:
        """Return the specification of a search tool, for a task's list of tools."""
        query = {"type": "string", "description": "What to search for, in a few words."}
        parameters = {"type": "object", "properties": {"query": query}, "required": ["query"]}
        function = {"name": name, "description": "Find passages about something.", "parameters": parameters}
        return ToolSpec(schema={"type": "function", "function": function}, kind="search")

    def open(self, tools: Sequence[ToolSpec]) -> SearchToolset:
        """Create the toolset of one trajectory."""
        return SearchToolset(self, tools)

    async def close(self) -> None:
        """Close the searcher."""
        await self.searcher.close()


def query_of(arguments: dict[str, Any]) -> str | None:
    """Return the query in a call's arguments, stripped; None if there is none."""
    query = arguments.get("query")
    if query is None and len(arguments) == 1:
        query = next(iter(arguments.values()))
    if not isinstance(query, str) or not query.strip():
        return None
    # Models write lone surrogates, which cannot be encoded.
    return query.strip().encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def format_passages(hits: Sequence[SearchHit], top_k: int) -> str:
    """Format the hits for the model: the passage, or numbered passages if `top_k` > 1."""
    passages = [hit.document.contents.strip() for hit in hits]
    if not passages:
        return NO_RESULTS
    if top_k == 1:
        return passages[0]
    return "\n\n".join(f"[{number}] {passage}" for number, passage in enumerate(passages, 1))
