"""Tools of made tasks: their schemas from the file, else from the arguments of the calls; their recorded results."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from rewright.core.records import ToolCall, ToolResult, ToolSpec, Trajectory
from rewright.credit.calls import freeze
from rewright.importers.conversation import Conversation, decoded
from rewright.tools.recorded import recorded_tool

__all__ = ["Observed", "recorded", "schemas_of"]


def schemas_of(found: Conversation) -> list[dict[str, Any]]:
    """Return the tools of a row as function schemas (OpenAI, Anthropic, Gemini and plain functions).

    Raises InputError for tools of another form.
    """
    given = decoded(found.tools)
    if given is None:
        return []
    items: list[Any] = []
    for item in given if isinstance(given, list) else [given]:
        declared = item.get("functionDeclarations", item.get("function_declarations")) if _is_object(item) else None
        items += declared if isinstance(declared, list) else [item]
    return [_schema(found, number, decoded(item)) for number, item in enumerate(items)]


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _schema(found: Conversation, number: int, tool: Any) -> dict[str, Any]:
    function = tool.get("function") if _is_object(tool) and _is_object(tool.get("function")) else tool
    if not _is_object(function) or not isinstance(function.get("name"), str) or not function["name"]:
        raise found.row.fail(f"tools[{number}] is {tool!r:.100}: expected an object with the name of a function")
    keys = (
        "parameters",
        "input_schema",
        "inputSchema",
        "parameters_json_schema",
        "parametersJsonSchema",
        "args_schema",
    )
    given: Any = next((decoded(function[key]) for key in keys if function.get(key) is not None), {})
    parameters: dict[str, Any] = dict(given) if _is_object(given) else {}
    parameters.setdefault("type", "object")
    parameters.setdefault("properties", {})
    described = {"description": function["description"]} if function.get("description") else {}
    return {"type": "function", "function": {"name": function["name"], **described, "parameters": parameters}}


class Observed:
    """The arguments with which the tools of a file were called, or should have been (gold calls)."""

    def __init__(self) -> None:
        self._seen: dict[str, list[Mapping[str, Any]]] = {}
        self._schemas: dict[str, dict[str, Any]] = {}

    def add(self, calls: Iterable[ToolCall]) -> None:
        """Add well-formed calls."""
        self._schemas.clear()
        for call in calls:
            if call.error is None:
                self._seen.setdefault(call.name, []).append(call.arguments)

    def schema(self, name: str) -> dict[str, Any]:
        """Return a schema that the observed arguments fit: required are those that every call has."""
        if name not in self._schemas:
            self._schemas[name] = self._built(name)
        return self._schemas[name]

    def _built(self, name: str) -> dict[str, Any]:
        seen = self._seen.get(name, [])
        names = dict.fromkeys(key for arguments in seen for key in arguments)
        properties = {key: _kinds(arguments[key] for arguments in seen if key in arguments) for key in names}
        required = [key for key in names if all(key in arguments for arguments in seen)]
        parameters: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
        return {"type": "function", "function": {"name": name, "parameters": parameters}}


def _kinds(values: Iterable[Any]) -> dict[str, Any]:
    names: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    kinds = dict.fromkeys(
        "null" if value is None else "object" if isinstance(value, Mapping) else names.get(type(value), "string")
        for value in values
    )
    if {"integer", "number"} <= kinds.keys():
        del kinds["integer"]
    return {"type": next(iter(kinds)) if len(kinds) == 1 else list(kinds)}


def recorded(schema: dict[str, Any], trajectories: Iterable[Trajectory]) -> ToolSpec:
    """Return a tool that replays the results which these trajectories have."""
    name = schema["function"]["name"]
    calls: list[tuple[ToolCall, list[ToolResult]]] = []
    for trajectory in trajectories:
        mine: dict[Hashable, tuple[ToolCall, list[ToolResult]]] = {}
        for turn in trajectory.turns:
            for call, result in zip(turn.calls, turn.results, strict=False):
                if call.name == name and call.error is None:
                    mine.setdefault(freeze(call.arguments), (call, []))[1].append(result)
        calls += mine.values()
    return recorded_tool(schema, calls)
