"""The world of a task: its own recorded responses, and those of the functions that find a place from every task.

A call gets, in this order:

1. the recorded response of an equal call of its task. Equal are calls with the same arguments by value, and with the
   same items in `categories_filter`, in any order;
2. for the functions that find a place, the response of an equal call of any task;
3. an error that says what is wrong, if the function is not offered or arguments are missing, unknown or of a wrong type
   (the check of the official evaluation);
4. the error "no recorded result". It names no recorded call, because that would hand over identifiers.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from rewright.benchmarks.complexfuncbench.data import LOOKUPS, recordings
from rewright.benchmarks.complexfuncbench.shortening import MIN_CHARACTERS
from rewright.core.errors import InputError
from rewright.core.records import ToolCall, ToolResult, ToolSpec
from rewright.credit.calls import freeze
from rewright.credit.comparer import comparer_of
from rewright.sandbox.errors import error_result
from rewright.tasks.schemas import argument_problems
from rewright.tools.recorded import RecordedToolset

__all__ = ["COMPARE", "KIND", "ReplayTools", "ReplayToolset"]

KIND: Final = "complexfuncbench"
COMPARE: Final[dict[str, Any]] = {"arguments": {"*": {"categories_filter": "comma_set"}}}
"""Settings of the comparison of calls (`rewright.credit.comparison.Comparison`), those of the official rule."""
_COMPARER: Final = comparer_of(COMPARE, None)


class ReplayToolset(RecordedToolset):
    """The tools of one trajectory. `ToolSpec.data` has the recorded results, and `characters`, their length."""

    def __init__(self, tools: Sequence[ToolSpec]) -> None:
        super().__init__(tools)
        self._schemas = {tool.name: tool.schema for tool in tools}
        self._characters = {tool.name: _characters(tool) for tool in tools}
        for name in LOOKUPS:
            if name in self._characters:
                _places(self._characters[name])

    def key(self, call: ToolCall) -> Hashable:
        """Return the form in which the arguments of equal calls are equal."""
        return _key(call)

    def missing(self, call: ToolCall) -> ToolResult:
        """Return the result of a call that its task does not have."""
        if call.name in LOOKUPS:
            found = _places(self._characters[call.name]).get((call.name, self.key(call)))
            if found is not None:
                return ToolResult(found)
        problems = argument_problems(self._schemas[call.name], call.arguments)
        if problems:
            return error_result("arguments", f"the call of {call.name} is wrong: {'; '.join(problems)}")
        return error_result("not_recorded", f"no recorded result for this call of {call.name}")


class ReplayTools:
    """A `ToolsetFactory` for the tools of this benchmark."""

    def open(self, tools: Sequence[ToolSpec]) -> ReplayToolset:
        """Create a toolset for one trajectory. Raises InputError for other tools, and if the data are not there."""
        return ReplayToolset(tools)

    async def close(self) -> None:
        """Nothing is open."""


def _characters(tool: ToolSpec) -> int | None:
    """Return the length of a tool's responses. It may come from a task file, and it becomes part of a file's name."""
    value = tool.data.get("characters")
    if value is None or (type(value) is int and value >= MIN_CHARACTERS):
        return value
    raise InputError(
        f"tool {tool.name} of kind {KIND}: data.characters is {value!r:.40}: expected null or at least {MIN_CHARACTERS}"
    )


def _key(call: ToolCall) -> Hashable:
    read = None if _COMPARER is None else _COMPARER.read(call)
    return freeze(call.arguments) if read is None else frozenset(read[1].items())


@lru_cache(maxsize=4)
def _places(characters: int | None) -> Mapping[tuple[str, Hashable], str]:
    """Return the responses of the functions that find a place, by name and arguments; of equal calls the first one."""
    found: dict[tuple[str, Hashable], str] = {}
    for entry in recordings(characters).entries:
        for call in entry.calls:
            if call.name in LOOKUPS:
                found.setdefault((call.name, _key(ToolCall(call.name, call.arguments))), call.result)
    return found
