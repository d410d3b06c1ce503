"""Strict JSON decoding of untrusted text: rejects NaN, numbers out of range and deep nesting.

Decoded values can be stored, encoded again and traversed recursively. Standard library only.
"""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["MAX_DEPTH", "STRICT", "TOLERANT", "NestingError", "StrictDecoder", "json_problem", "nested_deeper"]

MAX_DEPTH = 100
"""Maximum nesting depth of lists and objects."""


class NestingError(ValueError):
    """The JSON is nested more deeply than `MAX_DEPTH`."""

    def __init__(self) -> None:
        super().__init__(f"nested too deeply (more than {MAX_DEPTH} levels)")


def nested_deeper(value: Any, levels: int = MAX_DEPTH) -> bool:
    """Return True if lists and objects are nested more than `levels` deep. Not recursive, linear time."""
    layer = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        if not layer:
            return False
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return bool(layer)


class StrictDecoder(json.JSONDecoder):
    """A decoder whose `decode` and `raw_decode` raise only ValueError (`NestingError` for deep nesting)."""

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        """Decode the value that starts at `idx`; returns it and its end."""
        try:
            value, end = super().raw_decode(s, idx)
        except RecursionError:
            raise NestingError from None
        if s.count("[") + s.count("{") > MAX_DEPTH and nested_deeper(value):
            raise NestingError
        return value, end


def json_problem(problem: ValueError, *, lines: bool = False) -> str:
    """Return why a text is not JSON, with one position: the column, and with `lines` the line too.

    A text that ends inside a value was probably cut off, and then the message says so in place of the position.
    """
    if not isinstance(problem, json.JSONDecodeError):
        return str(problem).partition("\n")[0]
    if problem.pos >= len(problem.doc.rstrip()) or problem.msg.startswith("Unterminated string"):
        return "it ends inside a value: it may have been cut off"
    place = f"line {problem.lineno}, column {problem.colno}" if lines else f"column {problem.colno}"
    return f"{problem.msg[:1].lower()}{problem.msg[1:]} at {place}"


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:20]} is out of range")
    return number


STRICT = StrictDecoder(parse_constant=_refuse, parse_float=_finite)
"""Rejects NaN, Infinity and numbers outside the range of a float."""
TOLERANT = StrictDecoder(parse_constant=lambda name: None)
"""Reads NaN and Infinity (invalid JSON, which Python writes) as null."""
