"""Descriptions of a function and of its arguments from its docstring, in Google's, numpy's or Sphinx's style."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Final

__all__ = ["documentation", "parse_docstring"]

_HEADER: Final = re.compile(
    r"(Args|Arguments|Parameters|Params|Other Parameters|Returns|Return|Yields|Yield|Raises|Examples?|Notes?|"
    r"Attributes|References|Warnings?|Warns|See Also|Todo)(:?)\s*"
)
_ARGUMENT_SECTIONS: Final = ("Args", "Arguments", "Parameters", "Params", "Other Parameters")
_ENTRY: Final = re.compile(r"\**(\w+)\s*(?:\([^()]*\))?\s*:\s*(.*)")
_NUMPY_ENTRY: Final = re.compile(r"(\**\w+(?:\s*,\s*\**\w+)*)\s*(?::.*)?")
_ARGUMENT_FIELDS: Final = ("param", "parameter", "arg", "argument", "key", "keyword")
_FIELD: Final = re.compile(
    rf":({'|'.join(_ARGUMENT_FIELDS)}|type|returns?|rtype|raises?|except|exception|yields?|meta|i?var|vartype)"
    r"(?:\s+([^:]*?))?:\s*(.*)"
)


def documentation(function: object) -> str:
    """Return the docstring of a function; for `functools.partial` and callable objects that of what is called."""
    while hasattr(function, "func"):  # functools.partial, whose own docstring describes partial
        function = function.func
    own = inspect.getdoc(function) or ""
    if inspect.isroutine(function) or inspect.isclass(function):
        return own
    return inspect.getdoc(type(function).__call__) or own


def parse_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Split a docstring into the description of the function and those of its arguments.

    Google: `Args:` and indented entries. Numpy: `Parameters`, underlined, with `name : type` and an indented text.
    Sphinx: `:param name: text`.
    """
    lines = inspect.cleandoc(text).splitlines()
    headers = [index for index in range(len(lines)) if _section(lines, index)]
    fields = next((index for index, line in enumerate(lines) if _FIELD.match(line)), len(lines))
    description = "\n".join(lines[: min([fields, *headers[:1]])]).strip()
    entries: dict[str, list[str]] = {}
    for start, end in zip(headers, [*headers, len(lines)][1:], strict=True):
        if _section(lines, start) in _ARGUMENT_SECTIONS:
            underlined = _is_underlined(lines, start)
            body = lines[start + 1 + underlined : end]
            (_read_numpy if underlined else _read_google)(body, entries)
    _read_fields(lines[fields:], entries)
    return description, {name: " ".join(part for part in parts if part) for name, parts in entries.items()}


def _section(lines: Sequence[str], index: int) -> str | None:
    """Return the name of the section that starts in a line, or None."""
    found = _HEADER.fullmatch(lines[index])
    return found[1] if found is not None and (found[2] or _is_underlined(lines, index)) else None


def _is_underlined(lines: Sequence[str], index: int) -> bool:
    return index + 1 < len(lines) and re.fullmatch(r"-{3,}\s*", lines[index + 1]) is not None


def _read_google(lines: Sequence[str], entries: dict[str, list[str]]) -> None:
    indent, current = None, None
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if not line.strip() or depth == 0:
            continue
        indent = depth if indent is None else indent
        entry = _ENTRY.fullmatch(line.strip()) if depth <= indent else None
        if entry is not None:
            current = entries.setdefault(entry[1], [])
            current.append(entry[2])
        elif current is not None:
            current.append(line.strip())


def _read_numpy(lines: Sequence[str], entries: dict[str, list[str]]) -> None:
    current: list[str] | None = None
    for line in lines:
        if not line[:1].isspace():
            entry = _NUMPY_ENTRY.fullmatch(line.strip())
            current = None
            for name in entry[1].split(",") if entry is not None else ():
                current = entries.setdefault(name.strip().lstrip("*"), [] if current is None else current)
        elif current is not None:
            current.append(line.strip())


def _read_fields(lines: Sequence[str], entries: dict[str, list[str]]) -> None:
    current: list[str] | None = None
    for line in lines:
        field = _FIELD.match(line)
        if field is not None:
            words = (field[2] or "").split()
            is_argument = field[1] in _ARGUMENT_FIELDS and bool(words)
            current = entries.setdefault(words[-1].lstrip("*\\"), []) if is_argument else None  # `:param int x:`
            if current is not None:
                current.append(field[3].strip())
        elif line[:1].isspace() and current is not None:
            current.append(line.strip())
        elif line.strip():
            current = None
