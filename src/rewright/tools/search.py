"""The search tool: a query goes to an index or a search server, and the best passages are what the model sees.

Parity with AutoTraj (spec section 2): the best passage alone. Where there are several they are numbered. A query that
finds nothing is an answer too, no error. An unreachable server is no result but a `ServerError`: it stops the stage.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from rewright.core.errors import InputError
from rewright.core.records import ToolCall, ToolResult, ToolSpec
from rewright.sandbox.errors import error_result
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
        """Nothing is held for one trajectory."""

    async def call(self, call: ToolCall, *, wall_seconds: float | None = None) -> ToolResult:
        """Search for the call's `query` argument (or for its only text argument).

        `wall_seconds` is not used: a server has its own deadline and its retries, so that a short outage is nothing
        that a model sees. Raises `ServerError` after them.
        """
        if call.error is not None:
            return error_result("malformed", call.error)
        if call.name not in self._names:
            return error_result("unknown_tool", f"unknown tool '{call.name}'; available: {', '.join(self._names)}")
        query = query_of(call.arguments)
        if query is None:
            return error_result("arguments", f"{call.name}(): expected what to search for as the text argument 'query'")
        started = time.monotonic()
        try:
            found = await self._factory.searcher.search(query, self._factory.top_k)
        except RefusedQuery as problem:
            return error_result("arguments", f"{call.name}(): {problem}", seconds=time.monotonic() - started)
        return ToolResult(format_passages(found, self._factory.top_k), seconds=time.monotonic() - started)


class SearchTool:
    """Opens search tools: a `ToolsetFactory` for tools of kind `search`. One searcher serves all trajectories."""

    def __init__(self, searcher: Searcher | SearchIndex, *, top_k: int = 1) -> None:
        if top_k < 1:
            raise InputError(f"search tool: top_k is {top_k}: expected at least 1")
        self.searcher: Searcher = LocalSearcher(searcher) if isinstance(searcher, SearchIndex) else searcher
        self.top_k = top_k

    @staticmethod
    def spec(name: str = "search") -> ToolSpec:
        """A tool of this kind, for a task's list of tools."""
        query = {"type": "string", "description": "What to search for, in a few words."}
        parameters = {"type": "object", "properties": {"query": query}, "required": ["query"]}
        function = {"name": name, "description": "Find passages about something.", "parameters": parameters}
        return ToolSpec(schema={"type": "function", "function": function}, kind="search")

    def open(self, tools: Sequence[ToolSpec]) -> SearchToolset:
        """The tool for one trajectory."""
        return SearchToolset(self, tools)

    async def close(self) -> None:
        """Close the searcher."""
        await self.searcher.close()


def query_of(arguments: dict[str, Any]) -> str | None:
    """The query among a call's arguments, without white space around it; None where there is none."""
    query = arguments.get("query")
    if query is None and len(arguments) == 1:
        query = next(iter(arguments.values()))
    if not isinstance(query, str) or not query.strip():
        return None
    # Half of an escaped pair can't be sent; models do write them.
    return query.strip().encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def format_passages(found: Sequence[SearchHit], top_k: int) -> str:
    """What the model reads: the passage, or numbered passages where up to `top_k` > 1 were asked for."""
    passages = [one.document.contents.strip() for one in found]
    if not passages:
        return NO_RESULTS
    if top_k == 1:
        return passages[0]
    return "\n\n".join(f"[{number}] {passage}" for number, passage in enumerate(passages, 1))
