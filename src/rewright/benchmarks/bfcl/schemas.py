"""OpenAI function schemas of BFCL's functions, as the package gives them to models with function calling."""

from __future__ import annotations

import json
from typing import Any, Final

from rewright.benchmarks.bfcl.entries import JAVA, JAVASCRIPT

__all__ = ["function_schema", "method_schema", "typed"]

_TYPES: Final = {
    "dict": "object",
    "float": "number",
    "tuple": "array",
    "any": "string",
    "list": "array",
    "bool": "boolean",
}
"""The package's names of types and those of JSON Schema. As in the package, `any` is a text."""
_KNOWN: Final = ("object", "number", "array", "string", "boolean", "integer")
_LANGUAGES: Final = {JAVA: ("Java", "Java 8 SDK"), JAVASCRIPT: ("JavaScript", "JavaScript")}
_LISTS: Final = ("ArrayList", "Array", "array")
_HINT: Final = " Note that the provided function is in Python 3 syntax."


def function_schema(document: dict[str, Any], name: str, category: str) -> dict[str, Any]:
    """Return the schema of a function under `name`, a name that servers accept.

    Arguments of Java and JavaScript functions are source text, as in the package: their type is `string`, and their
    description says which type of the language they are.
    """
    _, syntax = _LANGUAGES.get(category, ("Python", "Python 3"))
    parameters = dict(document["parameters"])
    if category in _LANGUAGES:
        parameters["properties"] = {
            argument: _source_text(value, _LANGUAGES[category][0])
            for argument, value in parameters["properties"].items()
        }
    function = {
        "name": name,
        "description": f"{document['description']} Note that the provided function is in {syntax} syntax.",
        "parameters": typed(parameters),
    }
    return {"type": "function", "function": function}


def method_schema(document: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a method of a stateful API, with the description that the package adds."""
    response = json.dumps(document["response"])
    function = {
        "name": document["name"],
        "description": f"{document['description']}{_HINT} The response field has the following schema: {response}",
        "parameters": typed(document["parameters"]),
    }
    return {"type": "function", "function": function}


def _source_text(schema: dict[str, Any], language: str) -> dict[str, Any]:
    """The schema of an argument that is source text, with the words of the package."""
    kind, description = schema["type"], str(schema.get("description", ""))
    if kind == "any":
        description += f" This parameter can be of any type of {language} object in string representation."
    else:
        description += f" This is {language} {kind} type parameter in string representation."
    if kind in _LISTS and "items" in schema:
        description += (
            f" The list elements are of type {schema['items']['type']}; they are not in string representation."
        )
    if kind == "dict" and "properties" in schema:
        description += (
            " The dictionary entries have the following schema; they are not in string representation. "
            + json.dumps(schema["properties"])
        )
    rest = {key: value for key, value in schema.items() if key not in ("items", "properties")}
    return {**rest, "type": "string", "description": description}


def typed(schema: dict[str, Any], *, named: bool = False) -> dict[str, Any]:
    """Convert the package's type names to those of JSON Schema, also inside `properties` and `items`.

    As in the package (`_cast_to_openai_type`), a float is described as such only if it is `named`, in `properties`.
    """
    found = dict(schema)
    kind = _TYPES.get(str(schema.get("type", "string")), schema.get("type", "string"))
    found["type"] = kind if kind in _KNOWN else "string"
    if named and schema.get("type") == "float":
        found |= {"format": "float", "description": f"{schema.get('description', '')} This is a float type value."}
    if isinstance(schema.get("properties"), dict):
        found["properties"] = {name: typed(value, named=True) for name, value in schema["properties"].items()}
    if isinstance(schema.get("items"), dict):
        found["items"] = typed(schema["items"])
    return found
