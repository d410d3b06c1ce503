"""Reading a call as it comes: record, mapping, OpenAI or Hugging Face shape; whole or malformed.

Not here: parsing a model's text (that is `rewright.dialects`) and the similarity itself.

What counts as malformed (and then is similar to nothing): `error` is set, the name is not a string, or the arguments
are neither an object nor the JSON text of one. Values are compared as JSON: booleans are not numbers, `5` equals
`5.0`, `"5"` equals neither, lists and objects are equal all-or-nothing. NaN, which JSON has not, equals itself, so
that every well-formed call has similarity 1 with itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

__all__ = ["ReadCall", "Values", "calls_of", "fields_of", "freeze", "read_call"]

Values = dict[Hashable, Hashable]
"""The arguments of a well-formed call: name -> hashable typed value."""

ReadCall = tuple[str, Values]
"""A well-formed call, ready to compare: lower-case name, arguments."""


class _Mark:
    """A value that is equal to itself only."""

    __slots__ = ("label",)

    def __init__(self, label: str) -> None:
        self.label = label

    def __repr__(self) -> str:
        return self.label


_TRUE, _FALSE, _NAN = _Mark("true"), _Mark("false"), _Mark("NaN")
_LIST, _OBJECT, _END, _OTHER = _Mark("["), _Mark("{"), _Mark("end"), _Mark("other")
_PLAIN = frozenset({str, int, type(None)})
"""Types whose values are their own stand-in."""


def read_call(call: Any) -> ReadCall | None:
    """A call in comparable form, or None where it is malformed. Never raises: calls are model output.

    Accepts objects with `.name` and `.arguments`, mappings with those keys (`parameters` in place of `arguments`
    too), and either of them under `function` (OpenAI). Arguments may be an object or its JSON text.
    """
    try:
        try:  # the two common shapes, without the checks that the rare ones need
            if type(call) is dict:
                name, arguments, error = call["name"], call["arguments"], call.get("error")
            else:
                name, arguments, error = call.name, call.arguments, call.error
        except (KeyError, AttributeError):
            name, arguments, error = fields_of(call)
        if arguments is None or type(arguments) is float or type(error) is float:
            # a table in which arguments have two names holds null under one; a data frame NaN, for errors too
            name, arguments, error = fields_of(call)
        if not isinstance(name, str) or (error is not None and error is not False and error != ""):
            return None
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        if type(arguments) is not dict:
            if not isinstance(arguments, Mapping):
                return None
            arguments = dict(arguments)
        for value in arguments.values():
            if type(value) not in _PLAIN:
                return name.lower(), {key: freeze(value) for key, value in arguments.items()}
        return name.lower(), arguments
    except Exception:  # whatever a model or a foreign class produced, it is a malformed call and not our crash
        return None


def calls_of(found: Any) -> Sequence[Any]:
    """The calls of a turn or a trajectory, whatever stands in the list's place: none for None, or one call alone."""
    if type(found) is list or type(found) is tuple:
        return found
    if found is None:
        return ()
    # A call may be iterable itself: a named tuple, a pydantic model. A pandas column is not one, though it has a name.
    is_call = isinstance(found, (str, bytes, Mapping)) or any(
        hasattr(found, part) for part in ("arguments", "parameters", "function")
    )
    return [found] if is_call or not isinstance(found, Iterable) else list(found)


def fields_of(call: Any) -> tuple[Any, Any, Any]:
    """Name, arguments and error of a call of any accepted shape, as they were written, whole or malformed.

    None for what is not there (NaN in a data frame).
    """

    def part(key: str) -> Any:
        found = call.get(key) if isinstance(call, Mapping) else getattr(call, key, None)
        return None if isinstance(found, float) and math.isnan(found) else found

    name, arguments, error, inner = part("name"), part("arguments"), part("error"), part("function")
    if name is None and inner is not None and not callable(inner):
        name, arguments, inner_error = fields_of(inner)
        return name, arguments, inner_error if error is None else error
    return name, part("parameters") if arguments is None else arguments, error


def freeze(value: Any) -> Hashable:
    """A hashable stand-in that is equal for two values exactly where they are equal as JSON.

    Works with a stack of its own: nested lists as deep as a model cares to write neither recurse nor overflow.
    """
    if not isinstance(value, (dict, list, tuple, Mapping)):
        return _scalar(value)
    tokens: list[Hashable] = []
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, _Mark):
            tokens.append(item)
        elif isinstance(item, Mapping):
            tokens.append(_OBJECT)
            stack.append(_END)
            for key in sorted(item, key=lambda key: (str(type(key)), str(key)), reverse=True):
                stack.append(item[key])
                stack.append(key)
        elif isinstance(item, (list, tuple)):
            tokens.append(_LIST)
            stack.append(_END)
            stack.extend(reversed(item))
        else:
            scalar = _scalar(item)
            if isinstance(scalar, tuple) and scalar and scalar[0] is _LIST:
                tokens.extend(scalar)
            else:
                tokens.append(scalar)
        if len(stack) > _DEEPEST:
            raise ValueError("arguments are nested without end")
    return tuple(tokens)


_DEEPEST = 2_000_000
"""More open items than any JSON text of sensible size has: an object that contains itself."""


def _scalar(value: Any) -> Hashable:
    """The stand-in of a value that is neither a list nor an object."""
    if value is True:
        return _TRUE
    if value is False:
        return _FALSE
    if isinstance(value, float):
        return _NAN if math.isnan(value) else value
    if value is None or isinstance(value, (str, int)):
        return value
    plain = getattr(value, "tolist", None)  # numpy scalars and arrays, as a parquet reader hands them out
    if callable(plain):
        return freeze(plain())
    return (_OTHER, type(value).__name__, repr(value))
