"""Rows of function-calling sets: tools without an implementation, and conversations with gold calls.

What the readers of several published sets share. A conversation becomes a `Task` with the judge `calls`:

- With the results of its calls, the user's later messages are follow-ups, and the tools return the recorded results.
- If it ends with calls that have no result, what comes before them is the prompt, and they are the gold calls. The
  tools are declared only: a call ends the trajectory.
- Without a call, no call is right.

`Task.metadata["provenance"]` has the set, the row and the licence. A row that is in the set's shape but of which no
task can be made raises `LeftOutError`, so that loading counts it instead of stopping.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from rewright.core.records import FollowUp, Gold, Message, Task, ToolCall, ToolResult, ToolSpec
from rewright.core.strict_json import MAX_DEPTH
from rewright.core.tool_names import valid_name
from rewright.dialects.literals import decode_value
from rewright.tasks.function_schemas import json_schema
from rewright.tasks.rows import LeftOutError, Row
from rewright.tasks.schemas import argument_problems, schema_problems
from rewright.tools.declared import KIND as DECLARED
from rewright.tools.recorded import recorded_tool

__all__ = ["NO_RESULT", "FunctionSet", "Said", "call_of", "conversation_task", "decoded_calls", "offered_tools"]

NOT_OFFERED: Final = "a gold call names a tool that is not offered"
CONTRADICTION: Final = "a gold call contradicts the schema of its tool"
UNREADABLE: Final = "a call cannot be read"
NO_RESULT: Final = "a call has no result"
NO_CALL: Final = "a result follows no call"
BAD_TOOL: Final = "a tool has no valid schema"


class FunctionSet(NamedTuple):
    """A published set: its short name, its id on the Hugging Face Hub, and the licence of its card."""

    name: str
    identity: str
    licence: str


class Said(NamedTuple):
    """One part of a conversation: a message, or the result of one call. `calls` have the names that the set has."""

    role: Literal["system", "user", "assistant", "result"]
    text: str
    calls: tuple[ToolCall, ...] = ()


class _Group(NamedTuple):
    """The calls of one assistant message, its position, and their results."""

    position: int
    calls: tuple[ToolCall, ...]
    results: list[str]


def offered_tools(row: Row, key: str) -> list[Any]:
    """Return the tools of a row: a list of objects, JSON texts of objects, or the JSON text of the list.

    Raises InputError for any other value.
    """
    value = row.values.get(key)
    try:
        value = decode_value(value) if isinstance(value, str) else value
        if isinstance(value, dict):
            value = [value]
        if isinstance(value, list):
            value = [decode_value(item) if isinstance(item, str) else item for item in value]
    except ValueError as problem:
        raise row.fail(f"{key!r} is not JSON: {problem}") from None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise row.fail(f"{key!r} is not a list of tools, expected objects with name and parameters")
    return [_without_nulls(tool) for tool in value]


def _without_nulls(value: Any, depth: int = 0) -> Any:
    """Remove the nulls with which tables (parquet, `datasets`) fill absent keys; a default may be null."""
    if depth > MAX_DEPTH:
        return value
    if isinstance(value, dict):
        kept = {key: part for key, part in value.items() if part is not None or key == "default"}
        return {key: _without_nulls(part, depth + 1) for key, part in kept.items()}
    return [_without_nulls(part, depth + 1) for part in value] if isinstance(value, list) else value


def call_of(row: Row, value: Any, where: str) -> ToolCall:
    """Return a call from an object with name and arguments (also as text, and under `function`).

    Raises LeftOutError for anything else.
    """
    inner = value.get("function") if isinstance(value, dict) else None
    value = inner if isinstance(inner, dict) else value
    name = value.get("name") if isinstance(value, dict) else None
    arguments = value.get("arguments", value.get("parameters")) if isinstance(value, dict) else None
    if isinstance(arguments, str):
        try:
            arguments = decode_value(arguments) if arguments.strip() else {}
        except ValueError as problem:
            raise LeftOutError(row.place, UNREADABLE, f"the arguments of {where} are not JSON: {problem}") from None
    arguments = {} if arguments is None else arguments
    if not isinstance(name, str) or not name.strip() or not isinstance(arguments, dict):
        raise LeftOutError(row.place, UNREADABLE, f"{where} has no name or no object of arguments")
    return ToolCall(name.strip(), arguments)


def decoded_calls(row: Row, text: str, where: str) -> tuple[ToolCall, ...]:
    """Return the calls in JSON (or Python) text: one object, or a list of them. Raises LeftOutError."""
    try:
        value = decode_value(text)
    except ValueError as problem:
        raise LeftOutError(row.place, UNREADABLE, f"{where} is not JSON: {problem}") from None
    return tuple(call_of(row, item, where) for item in (value if isinstance(value, list) else [value]))


def conversation_task(
    row: Row,
    source: FunctionSet,
    tools: Sequence[Any],
    said: Sequence[Said],
    *,
    identity: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> Task:
    """Return the task of a conversation (see the module's docstring).

    `tools` are the offered tools as the set has them. `identity` is the row's id, None for its number. Raises
    InputError for a conversation without a user message, and LeftOutError if no task can be made.
    """
    if not any(part.role == "user" for part in said):
        raise row.fail("no message of the user, expected at least one")
    schemas, names = _schemas(row, tools)
    groups = _groups(row, said)
    said = [
        part._replace(calls=tuple(_gold(row, call, names, schemas) for call in part.calls)) if part.calls else part
        for part in said
    ]
    groups = [group._replace(calls=said[group.position].calls) for group in groups]
    unanswered = next((group for group in groups if len(group.results) != len(group.calls)), None)
    if unanswered is not None and (unanswered.results or unanswered.position != len(said) - 1):
        raise LeftOutError(
            row.place, NO_RESULT, f"{len(unanswered.calls)} calls in one message have {len(unanswered.results)} results"
        )
    follow_ups: tuple[FollowUp, ...] = ()
    if unanswered is not None:
        messages = [message for part in _spoken(said[:-1]) for message in part]
        golds = unanswered.calls
    else:
        messages, follow_ups = _prompt(said)
        golds = tuple(call for group in groups for call in group.calls)
    recorded = unanswered is None and bool(golds)
    renamed = {valid: name for name, valid in names.items() if valid != name}
    provenance = {"set": source.identity, "row": row.index, "licence": source.licence}
    return Task(
        id=f"{source.name}-{identity if identity is not None else row.index}",
        messages=tuple(messages),
        tools=tuple(_recorded(schema, groups) if recorded else ToolSpec(schema, kind=DECLARED) for schema in schemas),
        follow_ups=follow_ups,
        gold=Gold(calls=golds),
        source=source.name,
        split=str(row.get("split") or ""),
        judge="calls",
        metadata={
            **{key: value for key, value in (metadata or {}).items() if value is not None},
            **({"renamed_tools": renamed} if renamed else {}),
            "provenance": provenance,
        },
    )


def _schemas(row: Row, tools: Sequence[Any]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the function schemas, and the valid name of each tool by the name that the set has."""
    schemas: dict[str, dict[str, Any]] = {}
    names: dict[str, str] = {}
    for number, tool in enumerate(tools):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not name.strip():
            raise LeftOutError(row.place, BAD_TOOL, f"tool {number} has no name")
        name = name.strip()
        valid = names.get(name) or valid_name(name, schemas)
        schema = json_schema(function, valid)
        if name in names and schemas[valid] != schema:
            raise LeftOutError(row.place, BAD_TOOL, f"two tools are named {name!r}")
        problems = schema_problems(schema)
        if problems:
            raise LeftOutError(row.place, BAD_TOOL, f"tool {name!r}: {problems[0]}")
        names[name], schemas[valid] = valid, schema
    return list(schemas.values()), names


def _gold(row: Row, call: ToolCall, names: dict[str, str], schemas: Sequence[dict[str, Any]]) -> ToolCall:
    """Return the call with the valid name of its tool. Raises LeftOutError unless the tool is offered and agrees."""
    name = names.get(call.name)
    if name is None:
        offered = ", ".join(list(names)[:10]) or "none"
        raise LeftOutError(row.place, NOT_OFFERED, f"the call is to {call.name!r}, the tools are {offered}")
    schema = next(schema for schema in schemas if schema["function"]["name"] == name)
    properties = schema["function"]["parameters"]["properties"]
    arguments = {
        argument: value
        for argument, value in call.arguments.items()
        if value is not None or not _refuses_null(properties.get(argument, False))
    }
    problems = argument_problems(schema, arguments)
    if problems:
        raise LeftOutError(row.place, CONTRADICTION, f"the call to {call.name!r}: {problems[0]}")
    return ToolCall(name, arguments)


def _refuses_null(kind: Any) -> bool:
    """Whether an argument cannot be null, so that its null is an absent cell of a table."""
    if not isinstance(kind, dict):
        return True
    types = kind.get("type", [])
    return bool(types) and "null" not in ([types] if isinstance(types, str) else types)


def _groups(row: Row, said: Sequence[Said]) -> list[_Group]:
    groups: list[_Group] = []
    for position, part in enumerate(said):
        if part.calls:
            groups.append(_Group(position, part.calls, []))
        elif part.role == "result":
            spoken = [other.role for other in said[groups[-1].position + 1 : position]] if groups else ["user"]
            if any(role != "result" for role in spoken):
                raise LeftOutError(row.place, NO_CALL, "a result has no call before it")
            groups[-1].results.append(part.text)
    return groups


def _recorded(schema: dict[str, Any], groups: Sequence[_Group]) -> ToolSpec:
    """Return the tool with its recorded results; equal calls return theirs in order."""
    name, results = schema["function"]["name"], list[tuple[ToolCall, list[ToolResult]]]()
    for group in groups:
        for call, text in zip(group.calls, group.results, strict=True):
            if call.name != name:
                continue
            earlier = next((kept for known, kept in results if known.arguments == call.arguments), None)
            if earlier is None:
                results.append((call, [ToolResult(text)]))
            else:
                earlier.append(ToolResult(text))
    return recorded_tool(schema, results)


def _prompt(said: Sequence[Said]) -> tuple[list[Message], tuple[FollowUp, ...]]:
    """Return the messages up to the first one of the user, and the user's later messages as follow-ups."""
    first = next(position for position, part in enumerate(said) if part.role == "user")
    end = first
    while end + 1 < len(said) and said[end + 1].role == "user":
        end += 1
    messages = [message for part in _spoken(said[: end + 1]) for message in part]
    later: list[list[str]] = []
    previous = ""
    for part in said[end + 1 :]:
        if part.role == "user":
            if previous == "user":
                later[-1].append(part.text)
            else:
                later.append([part.text])
        previous = part.role
    if previous == "user":  # nothing replies to the last message
        later.pop()
    return messages, tuple(FollowUp(({"role": "user", "content": "\n\n".join(texts)},)) for texts in later)


def _spoken(said: Sequence[Said]) -> list[list[Message]]:
    """Return the parts of a conversation as messages, in the shape of Hugging Face's chat templates."""
    messages: list[list[Message]] = []
    pending: list[ToolCall] = []
    for part in said:
        if part.role == "result":
            name = pending.pop(0).name if pending else "unknown"
            messages.append([{"role": "tool", "name": name, "content": part.text}])
        elif part.calls:
            functions = [{"name": call.name, "arguments": call.arguments} for call in part.calls]
            calls = [{"type": "function", "function": function} for function in functions]
            messages.append([{"role": "assistant", "content": part.text, "tool_calls": calls}])
            pending = list(part.calls)
        else:
            messages.append([{"role": part.role, "content": part.text}])
    return messages
