"""JSON Schemas of tools from the notations of published sets.

Sets write parameters as a JSON Schema (also with the types of Python, `"type": "dict"`), or as a flat object of
arguments (`{"city": {"type": "str, optional", "default": "Rome"}}`). A type that JSON Schema does not have and that is
not understood is left out of the schema and kept in the description.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["json_schema", "json_type"]

_TYPES: Final = {
    "string": ("string", "str", "text", "char", "date", "datetime", "time", "uuid", "url", "email"),
    "integer": ("integer", "int", "long", "bigint", "int32", "int64"),
    "number": ("number", "float", "double", "decimal", "numeric"),
    "boolean": ("boolean", "bool"),
    "array": ("array", "list", "tuple", "set", "sequence", "iterable", "arraylist", "np.ndarray", "numpy.ndarray"),
    "object": ("object", "dict", "dictionary", "hashmap", "mapping", "map", "json"),
    "null": ("null", "none", "nonetype"),
}
_JSON_TYPES: Final = {name: kind for kind, names in _TYPES.items() for name in names}
_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COUNTS: Final = ("minItems", "maxItems", "minLength", "maxLength")
_KEPT: Final = ("default", "const", "title", "examples")
_MAX_DEPTH: Final = 30


def json_schema(function: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the OpenAI function schema of a tool, under `name`."""
    parameters = function.get("parameters", function.get("arguments"))
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    if isinstance(parameters, Mapping) and _is_schema(parameters):
        schema = {**schema, **_schema(parameters), "type": "object"}
    elif isinstance(parameters, Mapping):
        schema = _flat(parameters)
    required = function.get("required")
    if "required" not in schema and isinstance(required, list):
        kept = [key for key in required if key in schema["properties"]]
        schema |= {"required": kept} if kept else {}
    description = function.get("description")
    about = {"description": description if isinstance(description, str) else str(description or "")}
    return {"type": "function", "function": {"name": name, **about, "parameters": schema}}


def _is_schema(parameters: Mapping[str, Any]) -> bool:
    """Whether parameters are a JSON Schema and not a flat object, which may have an argument named `type`."""
    properties = parameters.get("properties")
    if not isinstance(parameters.get("type", "object"), str) or (properties is None and "type" not in parameters):
        return not parameters
    return properties is None or (
        isinstance(properties, Mapping) and all(isinstance(value, Mapping) for value in properties.values())
    )


def _flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of `{argument: {type, description, default}}`: what is not optional and has no default is required."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, given in parameters.items():
        value: Mapping[str, Any] = given if isinstance(given, Mapping) else {"type": given}
        properties[str(name)] = _schema(value)
        optional = re.search(r"\boptional\b", str(value.get("type", "")), re.IGNORECASE) or "default" in value
        if value.get("required") is True or (not optional and value.get("required") is not False):
            required.append(str(name))
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def json_type(text: str) -> dict[str, Any] | None:
    """Return the schema of a type in Python's notation, such as `List[int]`, or None if it is not understood."""
    plain = re.sub(r",?\s*\(?\boptional\b(?!\s*\[)\)?", "", text, flags=re.IGNORECASE).strip(" ,")
    if plain.lower() in _JSON_TYPES:
        return {"type": _JSON_TYPES[plain.lower()]}
    if plain.lower() in ("any", "typing.any", ""):
        return {}
    generic = re.fullmatch(r"(?:typing\.)?(\w+)\s*[\[<](.*)[\]>]", plain, re.DOTALL)
    if generic is None:
        parts = re.split(r"\s*\|\s*|\s+or\s+|/", plain)
        return _union(parts) if len(parts) > 1 else None
    outer, inner = generic[1].lower(), _split(generic[2])
    if outer == "optional" and len(inner) == 1:
        return json_type(inner[0])
    if outer == "union":
        return _union(inner)
    kind = _JSON_TYPES.get(outer)
    if kind == "array":
        items = json_type(inner[0]) if len(set(inner) - {"..."}) == 1 else None
        return {"type": "array", "items": items} if items else {"type": "array"}
    return {"type": kind} if kind == "object" else None


def _union(parts: list[str]) -> dict[str, Any] | None:
    types = [json_type(part) for part in parts]
    if any(kind is None for kind in types):
        return None
    if not all(types):
        return {}
    return {"anyOf": types}


def _split(text: str) -> list[str]:
    """Split at the commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character in "[<(") - (character in "]>)")
        if character == "," and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
    return [*parts, text[start:].strip()]


def _schema(value: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """Convert one schema: types of Python, and keys that JSON Schema does not have or has in another form."""
    if depth > _MAX_DEPTH:
        return {}
    schema: dict[str, Any] = {}
    description = value.get("description")
    if description is not None:
        schema["description"] = description if isinstance(description, str) else str(description)
    _add_type(schema, value.get("type"))
    schema |= {key: value[key] for key in _KEPT if key in value}
    if not isinstance(schema.get("title", ""), str):
        del schema["title"]
    if not isinstance(schema.get("examples", []), list):
        del schema["examples"]
    enum = value.get("enum")
    if isinstance(enum, list) and enum:
        schema["enum"] = enum
    for key in _NUMBERS:
        if isinstance(value.get(key), (int, float)) and not isinstance(value[key], bool):
            schema[key] = value[key]
    for key in _COUNTS:
        if isinstance(value.get(key), int) and not isinstance(value[key], bool) and value[key] >= 0:
            schema[key] = value[key]
    properties = value.get("properties")
    if isinstance(properties, Mapping):
        kinds = {str(name): kind if isinstance(kind, Mapping) else {} for name, kind in properties.items()}
        schema["properties"] = {name: _schema(kind, depth + 1) for name, kind in kinds.items()}
        named = value.get("required")
        required = [name for name in named if name in kinds] if isinstance(named, list) else []
        required += [name for name, kind in kinds.items() if kind.get("required") is True and name not in required]
        if required:
            schema["required"] = list(dict.fromkeys(required))
    items = value.get("items")
    if isinstance(items, Mapping):
        schema["items"] = _schema(items, depth + 1)
    elif isinstance(items, str):
        schema["items"] = json_type(items) or {}
    for key in ("anyOf", "oneOf"):
        if isinstance(value.get(key), list) and value[key] and all(isinstance(one, Mapping) for one in value[key]):
            schema[key] = [_schema(one, depth + 1) for one in value[key]]
    if isinstance(value.get("additionalProperties"), bool):
        schema["additionalProperties"] = value["additionalProperties"]
    elif isinstance(value.get("additionalProperties"), Mapping):
        schema["additionalProperties"] = _schema(value["additionalProperties"], depth + 1)
    return schema


def _add_type(schema: dict[str, Any], kind: Any) -> None:
    if isinstance(kind, list) and kind and all(isinstance(one, str) for one in kind):
        types = [json_type(one) for one in kind]
        found = [one["type"] for one in types if one and "type" in one]
        if len(found) == len(kind):
            schema["type"] = list(dict.fromkeys(found))
            return
    if not isinstance(kind, str):
        return
    read = json_type(kind)
    if read is None:
        schema["description"] = f"{schema.get('description', '')} (type: {kind})".strip()
    else:
        schema |= read
