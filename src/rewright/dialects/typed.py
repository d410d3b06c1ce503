"""Types of arguments that a format carries as text (`<parameter=n>5</parameter>`), from the tool's schema.

A text that is not of a declared type stays text, and the tool reports it. The rules are those of transformers'
`parse_response`: the declared types in their order; a text, a type that is not known, or none stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from rewright.core.records import ToolCall
from rewright.core.strict_json import STRICT
from rewright.dialects.literals import decode_value

__all__ = ["schemas_of_values", "typed_calls"]

_NUMBER: Final = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")
_DEEPEST: Final = 8
"""Limit of nested `$ref` and unions."""
_TYPE_OF: Final[dict[type, str]] = {
    str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object", type(None): "null",
}  # fmt: skip


def typed_calls(calls: Iterable[ToolCall], schemas: Sequence[Mapping[str, Any]]) -> tuple[ToolCall, ...]:
    """Return the calls with arguments of the types that the schemas of their tools declare."""
    known = {str(one.get("name")): one.get("parameters") or {} for one in (s.get("function", s) for s in schemas)}
    return tuple(
        msgspec.structs.replace(call, arguments=_typed(call.arguments, known[call.name]))
        if call.error is None and call.name in known
        else call
        for call in calls
    )


def schemas_of_values(calls: Iterable[ToolCall]) -> list[dict[str, Any]]:
    """Return schemas that declare exactly the types of the arguments of these calls."""
    return [
        {
            "name": call.name,
            "parameters": {
                "properties": {key: {"type": _TYPE_OF.get(type(value))} for key, value in call.arguments.items()}
            },
        }
        for call in calls
    ]


def _typed(arguments: dict[str, Any], parameters: Any) -> dict[str, Any]:
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    if not isinstance(properties, Mapping):
        return arguments
    return {
        key: _value(value, list(_types(properties.get(key), parameters))) if isinstance(value, str) else value
        for key, value in arguments.items()
    }


def _types(schema: Any, root: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """The types that a property declares, in order."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return
    reference = schema.get("$ref")
    if isinstance(reference, str):
        name = reference.rpartition("/")[2]
        definitions = root.get("$defs") or root.get("definitions") or {}
        yield from _types(definitions.get(name) if isinstance(definitions, Mapping) else None, root, depth + 1)
    declared = schema.get("type")
    yield from (one for one in (declared if isinstance(declared, list) else [declared]) if isinstance(one, str))
    for union in ("anyOf", "oneOf", "allOf"):
        choices = schema.get(union)
        for choice in choices if isinstance(choices, list) else ():
            yield from _types(choice, root, depth + 1)
    if declared is None and isinstance(schema.get("enum"), list):
        yield from (_TYPE_OF.get(type(one), "string") for one in schema["enum"])
    if schema.get("nullable"):
        yield "null"


def _value(text: str, types: list[str]) -> Any:
    for name in types:
        try:
            return _READERS[name](text.strip())
        except (KeyError, ValueError):
            continue
    return text


def _number(text: str) -> int | float:
    if not _NUMBER.fullmatch(text) or len(text) > 400:
        raise ValueError
    number: int | float = STRICT.decode(text.removeprefix("+"))
    return number


def _integer(text: str) -> int:
    number = _number(text)
    if number != int(number):
        raise ValueError
    return int(number)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError
    return text.lower() in ("true", "1")


def _null(text: str) -> None:
    if text not in ("null", "None"):
        raise ValueError


def _of(kind: type) -> Any:
    def read(text: str) -> Any:
        value = decode_value(text)
        if not isinstance(value, kind):
            raise ValueError
        return value

    return read


_READERS: Final[dict[str, Any]] = {
    "integer": _integer, "number": _number, "boolean": _boolean, "null": _null,
    "array": _of(list), "object": _of(dict),
}  # fmt: skip
