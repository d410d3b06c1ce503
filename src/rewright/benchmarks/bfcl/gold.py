"""Gold calls of BFCL's single-turn entries: the first allowed value of every argument that must be given.

Arguments of Java and JavaScript functions are source text for the model (`schemas.function_schema`), while the possible
answers hold values. They are written here in the notation that the package's converters read back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rewright.benchmarks.bfcl.entries import JAVA, JAVASCRIPT
from rewright.core.records import ToolCall

__all__ = ["gold_calls"]


def gold_calls(
    functions: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Mapping[str, list[Any]]]],
    category: str,
    names: Mapping[str, str],
) -> tuple[ToolCall, ...]:
    """Return the gold calls of one entry. `names` maps the package's names of functions to those of the tools."""
    documents = {function["name"]: function["parameters"]["properties"] for function in functions}
    calls = []
    for answer in answers:
        for name, arguments in answer.items():
            values = {key: _first(allowed) for key, allowed in arguments.items() if not _omitted(allowed)}
            if category in (JAVA, JAVASCRIPT):
                write = _java if category == JAVA else _javascript
                values = {key: write(value, documents[name].get(key, {})) for key, value in values.items()}
            calls.append(ToolCall(names[name], values))
    return tuple(calls)


def _omitted(allowed: Any) -> bool:
    """Whether an argument may be omitted and the possible answers do so first."""
    return isinstance(allowed, list) and (not allowed or allowed[0] == "")


def _first(allowed: Any) -> Any:
    """The first allowed value. Values of dictionaries, also in a list of them, are lists of allowed values again."""
    choices = allowed if isinstance(allowed, list) else [allowed]
    value = next((choice for choice in choices if choice != ""), "")
    if isinstance(value, dict):
        return _of_dictionary(value)
    if isinstance(value, list):
        return [_of_dictionary(item) if isinstance(item, dict) else item for item in value]
    return value


def _of_dictionary(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _first(allowed) for key, allowed in value.items() if not _omitted(allowed)}


def _java(value: Any, schema: Mapping[str, Any]) -> str:
    """A value of a Java argument as source text."""
    kind, inner = schema.get("type"), schema.get("items", {}).get("type")
    if isinstance(value, list) and kind == "ArrayList":
        return f"new ArrayList<>(Arrays.asList({', '.join(_java_element(item, inner, quoted=True) for item in value)}))"
    if isinstance(value, list):
        # The converter does not remove the quotes of texts in an array.
        return f"new {inner}[]{{{', '.join(_java_element(item, inner, quoted=False) for item in value)}}}"
    if isinstance(value, dict):
        puts = " ".join(
            f"put({json.dumps(key)}, {_java_element(item, None, quoted=True)});" for key, item in value.items()
        )
        return f"new HashMap<String, Object>() {{{{ {puts} }}}}"
    return _java_element(value, kind, quoted=False)


def _java_element(value: Any, kind: Any, *, quoted: bool) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if quoted else value
    suffix = {"long": "L", "float": "f"}.get(str(kind), "")
    return json.dumps(value, ensure_ascii=False) + suffix


def _javascript(value: Any, schema: Mapping[str, Any]) -> str:
    """A value of a JavaScript argument as source text: JSON, and texts as they are."""
    if isinstance(value, str):
        return value
    suffix = "n" if schema.get("type") == "Bigint" else ""
    return json.dumps(value, ensure_ascii=False) + suffix
