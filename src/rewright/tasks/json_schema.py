"""The JSON Schema of a task in Rewright's own format: what the reader and `rewright validate` check without tools."""

from __future__ import annotations

from typing import Any, Final

from rewright.core.json_schema import Schema, document, struct_schemas
from rewright.core.records import FollowUp, SimulatedUser, Task, ToolSpec
from rewright.core.registry import known
from rewright.tasks.own_format import ROLES

__all__ = ["named", "task_schema"]

_MESSAGE: Final[Schema] = {
    "type": "object",
    "description": "A chat message. Keys of the model's chat template are kept.",
    "properties": {
        "role": {"enum": list(ROLES), "description": "Who says it."},
        "content": {"description": "The text. It may be missing beside tool_calls."},
        "tool_calls": {"description": "Calls of the assistant, in OpenAI's form; arguments as an object."},
    },
    "required": ["role"],
    "anyOf": [
        {"properties": {"content": {"type": "string"}}, "required": ["content"]},
        {"properties": {"tool_calls": {"type": "array", "minItems": 1}}, "required": ["tool_calls"]},
    ],
}
_FUNCTION: Final[Schema] = {
    "type": "object",
    "description": "A function schema in OpenAI's form, as the model reads it.",
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 1, "description": "The name that the model calls."},
                "description": {"type": "string", "description": "What the tool does."},
                "parameters": {
                    "type": ["object", "null"],
                    "description": "The JSON Schema of the arguments, an object with properties.",
                },
            },
            "required": ["name"],
        },
    },
    "required": ["type", "function"],
}


def _only(one: str, other: str) -> Schema:
    return {"properties": {one: {"type": "string"}, other: {"type": "null"}}, "required": [one]}


_IMPLEMENTATION: Final[Schema] = {
    "if": {"properties": {"kind": {"const": "function"}}},
    "then": {"oneOf": [_only("source", "target"), _only("target", "source")]},
}
"""A tool of the kind `function`, the default, has exactly one of source and target."""


def named(kind: Any) -> Schema:
    """The schema of a name that is registered as `kind`, or an import path."""
    return {"anyOf": [{"enum": known(kind)}, {"type": "string", "pattern": ".:."}]}


def task_schema() -> Schema:
    """The schema of one line of a task file."""
    names, definitions = struct_schemas([Task])
    task, follow_up, user, tool = (definitions[names[kind]] for kind in (Task, FollowUp, SimulatedUser, ToolSpec))
    user["properties"]["kind"] = {**_documented(user, "kind"), "enum": known("user")}
    task["properties"]["id"]["minLength"] = 1
    task["properties"]["judge"] = {**_documented(task, "judge"), **named("judge"), "default": "exact"}
    for owner in (task, follow_up):
        owner["properties"]["messages"] |= {"minItems": 1, "items": {"$ref": "#/$defs/Message"}}
    tool["properties"]["schema"] = {**_documented(tool, "schema"), "$ref": "#/$defs/FunctionSchema"}
    tool["properties"]["target"]["anyOf"][0]["pattern"] = ".:."
    definitions |= {"Message": _MESSAGE, "FunctionSchema": _FUNCTION}
    definitions[names[ToolSpec]] = {**tool, **_IMPLEMENTATION}
    return document("Task", names[Task], definitions)


def _documented(definition: Schema, key: str) -> Schema:
    return {"description": definition["properties"][key].get("description", "")}
