"""Tools that cannot be run: a call gets the result that a log has for the same name and arguments.

`ToolSpec.data` is `{"results": [{"arguments": …, "results": [{"content": …, "error": …}, …]}, …]}`. Arguments are
compared as JSON. A call that was recorded several times gets its results in order, and the last one from then on. A
call that was not recorded is an error of the kind `not_recorded`; a repair that needs one is refused
(`rewright.repair.decision`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from rewright.core.errors import InputError
from rewright.core.records import ToolCall, ToolResult, ToolSpec
from rewright.credit.calls import freeze
from rewright.sandbox.errors import error_result, refused_call

__all__ = ["KIND", "RecordedTools", "RecordedToolset", "recorded_tool"]

KIND: Final = "recorded"
_SHOWN: Final = 5
"""Number of recorded calls that the error of another call names."""


def recorded_tool(schema: dict[str, Any], calls: Iterable[tuple[ToolCall, Sequence[ToolResult]]]) -> ToolSpec:
    """Return a tool with the results of `calls`; of equal calls, the first one's results count."""
    found: dict[Hashable, dict[str, Any]] = {}
    for call, results in calls:
        kept = [{"content": one.content} | ({"error": one.error} if one.error else {}) for one in results]
        found.setdefault(freeze(call.arguments), {"arguments": call.arguments, "results": kept})
    return ToolSpec(schema=schema, kind=KIND, data={"results": list(found.values())})


class RecordedToolset:
    """The recorded tools of one trajectory, which counts its calls.

    A toolset with other rules overrides `key` (which arguments are equal) and `missing` (the result of a call that was
    not recorded).
    """

    def __init__(self, tools: Sequence[ToolSpec]) -> None:
        self._results = {tool.name: self._read(tool) for tool in tools}
        self._made: Counter[tuple[str, Hashable]] = Counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def call(self, call: ToolCall, *, wall_seconds: float | None = None) -> ToolResult:
        """Return the recorded result of a call, or an error."""
        refused = refused_call(call, self._results)
        if refused is not None:
            return refused
        key = self.key(call)
        found = self._results[call.name].get(key)
        if found is None:
            return self.missing(call)
        results = found[1]
        number = self._made[call.name, key]
        self._made[call.name, key] += 1
        return results[min(number, len(results) - 1)]

    def key(self, call: ToolCall) -> Hashable:
        """Return the form in which the arguments of equal calls are equal: as JSON."""
        return freeze(call.arguments)

    def missing(self, call: ToolCall) -> ToolResult:
        """Return the result of a call to a known tool that was not recorded: an error that names recorded ones."""
        recorded = [_shown(call.name, arguments) for arguments, _ in list(self._results[call.name].values())[:_SHOWN]]
        return error_result(
            "not_recorded",
            f"{_shown(call.name, call.arguments)} cannot be run: the log has no result of it; recorded: "
            f"{', '.join(recorded) or 'no call'}",
        )

    def _read(self, tool: ToolSpec) -> dict[Hashable, tuple[Any, list[ToolResult]]]:
        rows = tool.data.get("results") if isinstance(tool.data, Mapping) else None
        found: dict[Hashable, tuple[Any, list[ToolResult]]] = {}
        try:
            for row in rows or ():
                results = [ToolResult(str(one["content"]), one.get("error")) for one in row["results"]]
                if results:
                    key = self.key(ToolCall(tool.name, row["arguments"]))
                    found.setdefault(key, (row["arguments"], results))
        except (KeyError, TypeError, AttributeError, ValueError):
            rows = None
        if not isinstance(rows, list):
            raise InputError(
                f"tool {tool.name} of kind {tool.kind!r}: expected data.results, a list of arguments with their results"
            )
        return found


class RecordedTools:
    """A `ToolsetFactory` for tools of kind `recorded`."""

    def open(self, tools: Sequence[ToolSpec]) -> RecordedToolset:
        """Create a toolset for one trajectory. Raises InputError for a tool whose `data` are no recorded results."""
        return RecordedToolset(tools)

    async def close(self) -> None:
        """Nothing is open."""


def _shown(name: str, arguments: Any) -> str:
    return f"{name} {json.dumps(arguments, ensure_ascii=False)}"[:200]
