"""The JSON schema of a Python function, from its signature, type hints and docstring.

Types are those that msgspec can describe and check: numbers, text, lists, dictionaries, `Literal`, enumerations,
unions, dates, dataclasses, typed dictionaries. The same types convert the arguments of a call, so that a function gets
an `Enum` or a dataclass where it asks for one.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec

from rewright.core.errors import InputError
from rewright.tools.docstrings import documentation, parse_docstring

__all__ = ["Signature", "read_signature"]

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Names that OpenAI-compatible servers accept."""
_CHOICES: Final = re.compile(r"\(choices:\s*(\[.*\])\s*\)\s*\Z", re.DOTALL)
_TYPES: Final = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


class Signature(NamedTuple):
    """A function as a tool.

    Attributes:
        schema: the OpenAI function schema.
        arguments: a struct type with one field per parameter, to convert the arguments of a call.
        positional: names of positional-only parameters, in order.
    """

    schema: dict[str, Any]
    arguments: type[msgspec.Struct]
    positional: tuple[str, ...]


def read_signature(function: Callable[..., Any], name: str | None = None, description: str | None = None) -> Signature:
    """Return the schema of a function, and the types of its arguments.

    Descriptions of parameters come from the docstring (Google, numpy or Sphinx style), or from
    `Annotated[int, "description"]`. A description that ends with `(choices: ["a", "b"])` lists the allowed values.
    Defaults that JSON can hold are in the schema.

    Args:
        function: the function, a bound method, or another callable.
        name: name of the tool; None: the function's.
        description: description of the tool; None: the docstring up to its first section.

    Raises InputError for a name that servers do not accept, for a parameter without type hint or of a type that JSON
    cannot hold, and for `*args` and `**kwargs`.
    """
    name = name or _name_of(function)
    where = f"tool {name}"
    if not _NAME.fullmatch(name):
        raise InputError(f"{where}: expected a name of letters, digits, _ and -, as name='my_tool'")
    documented, texts = parse_docstring(documentation(function))
    parameters = _parameters(function, where)
    hints = _hints(function, where)
    fields: list[tuple[Any, ...]] = []
    defaults: dict[str, Any] = {}
    for parameter in parameters.values():
        if parameter.name == "self" and parameter.name not in hints:
            raise InputError(f"{where}: is a method without its object: expected rw.tool(OBJECT.{name})")
        if parameter.name not in hints:
            raise InputError(
                f"{where}: the parameter {parameter.name!r} has no type hint: expected one, such as "
                f"{parameter.name}: str"
            )
        described = _described(hints[parameter.name], texts.get(parameter.name, ""), f"{where}, {parameter.name}")
        if parameter.default is inspect.Parameter.empty:
            fields.append((parameter.name, described))
        else:
            fields.append((parameter.name, described, msgspec.UNSET))
            defaults[parameter.name] = parameter.default
    try:
        arguments = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
        (root,), components = msgspec.json.schema_components([arguments], ref_template="#/$defs/{name}")
        msgspec.convert({}, dict[str, arguments])  # type: ignore[valid-type]  # raises for types that cannot be read
    except (TypeError, ValueError) as problem:
        raise InputError(
            f"{where}: {_blamed(fields)}{str(problem).splitlines()[-1]}: expected types that JSON can hold, or a "
            "schema of your own (schema=)"
        ) from None
    schema = _inlined(components.pop(root["$ref"].rpartition("/")[2]), components, ())
    properties = schema.get("properties", {})
    for parameter_name, default in defaults.items():
        if default is not None and _is_json(default):
            properties[parameter_name]["default"] = default
    kept: dict[str, Any] = {"type": "object", "properties": properties}
    if schema.get("required"):
        kept["required"] = schema["required"]
    recursive = {key: _inlined(value, components, (key,)) for key, value in components.items() if _refers(kept, key)}
    if recursive:
        kept["$defs"] = recursive
    text = documented if description is None else description
    positional = tuple(one.name for one in parameters.values() if one.kind is inspect.Parameter.POSITIONAL_ONLY)
    function_schema = {"name": name, "description": text, "parameters": kept}
    return Signature({"type": "function", "function": function_schema}, arguments, positional)


def _name_of(function: Any) -> str:
    """Return the name of a function, of that in `functools.partial`, or of the class of a callable object."""
    while hasattr(function, "func"):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def _parameters(function: Callable[..., Any], where: str) -> dict[str, inspect.Parameter]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as problem:
        raise InputError(f"{where}: {problem}: expected a function of your own, or one wrapped in it") from None
    for parameter in signature.parameters.values():
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise InputError(
                f"{where}: {str(parameter).partition(':')[0]} has no names that a model could use: expected parameters "
                "by name, or a schema of your own (schema=)"
            )
    return dict(signature.parameters)


def _hints(function: Callable[..., Any], where: str) -> dict[str, Any]:
    """Return the evaluated type hints, of the underlying function for partial, bound and callable objects."""
    holder: Any = inspect.unwrap(function)
    while hasattr(holder, "func"):  # functools.partial
        holder = inspect.unwrap(holder.func)
    if isinstance(holder, type):
        holder = getattr(holder, "__init__")  # noqa: B009
    elif not inspect.isroutine(holder):
        holder = type(holder).__call__
    try:
        return typing.get_type_hints(holder, include_extras=True)
    except (NameError, TypeError, AttributeError) as problem:
        raise InputError(f"{where}: its type hints cannot be evaluated: {problem}") from None


def _described(hint: Any, text: str, where: str) -> Any:
    """Return a type hint with the description of its parameter; choices in the description become a `Literal`."""
    if not text and typing.get_origin(hint) is Annotated:
        for extra in typing.get_args(hint)[1:]:
            found = extra if isinstance(extra, str) else getattr(extra, "description", None)
            text = found if isinstance(found, str) else text
    choices = _CHOICES.search(text)
    if choices is not None:
        try:
            values = json.loads(choices[1])
        except ValueError:
            raise InputError(f"{where}: the choices {choices[1]} are not JSON: expected a list") from None
        hint, text = Literal[tuple(values)], text[: choices.start()].strip()
    return Annotated[hint, msgspec.Meta(description=text)] if text else hint


def _blamed(fields: list[tuple[Any, ...]]) -> str:
    """Return the name of the first parameter whose type alone is refused, for an error message."""
    for name, hint, *_ in fields:
        try:
            msgspec.json.schema_components([msgspec.defstruct("Arguments", [(name, hint)])])
        except (TypeError, ValueError):
            return f"the parameter {name!r}: "
    return ""


def _inlined(value: Any, components: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Replace references by what they refer to, since chat templates do not follow them. Recursive ones are kept."""
    if isinstance(value, list):
        return [_inlined(item, components, path) for item in value]
    if not isinstance(value, dict):
        return value
    name = str(value.get("$ref", "")).rpartition("/")[2]
    if name in components and name not in path and not _refers(components[name], name, components):
        beside = {key: item for key, item in value.items() if key != "$ref"}
        return {**_inlined(components[name], components, (*path, name)), **beside}
    found = {key: _inlined(item, components, path) for key, item in value.items() if key != "title"}
    if "properties" in value:
        found["properties"] = {key: _inlined(item, components, path) for key, item in value["properties"].items()}
    if "enum" in found and "type" not in found:
        types = list(dict.fromkeys(_TYPES[type(item)] for item in found["enum"]))
        found["type"] = types[0] if len(types) == 1 else types
    return found


def _refers(value: Any, name: str, components: Mapping[str, Any] | None = None) -> bool:
    """Return True if a schema refers to `name`, with `components` also through other components."""
    found: set[str] = set()
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
            reference = str(part.get("$ref", "")).rpartition("/")[2]
            if reference and reference not in found:
                found.add(reference)
                waiting.append((components or {}).get(reference))
    return name in found


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
