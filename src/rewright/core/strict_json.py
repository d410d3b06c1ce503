"""JSON as it is written down, for text that nobody vouches for: no NaN, no number out of range, no endless nesting.

What is read here can be stored, written out again and walked through, however deep the caller stands in the stack.
Standard library only.
"""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["MAX_DEPTH", "STRICT", "TOLERANT", "NestingError", "StrictDecoder", "nested_deeper"]

MAX_DEPTH = 100
"""How many lists and objects may stand in one another."""


class NestingError(ValueError):
    """The JSON is nested deeper than anything that is meant."""

    def __init__(self) -> None:
        super().__init__(f"nested too deeply (more than {MAX_DEPTH} levels)")


def nested_deeper(value: Any, levels: int = MAX_DEPTH) -> bool:
    """True where more than `levels` lists and objects stand in one another. Without recursion, in linear time."""
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
    """A decoder whose `decode` and `raw_decode` raise ValueError (`NestingError` for the nesting) and nothing else."""

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        """The value that begins at `idx`, and where it ends."""
        try:
            value, end = super().raw_decode(s, idx)
        except RecursionError:
            raise NestingError from None
        if s.count("[") + s.count("{") > MAX_DEPTH and nested_deeper(value):
            raise NestingError
        return value, end


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:20]} is out of range")
    return number


STRICT = StrictDecoder(parse_constant=_refuse, parse_float=_finite)
"""Refuses NaN, Infinity and numbers beyond a float's range."""
TOLERANT = StrictDecoder(parse_constant=lambda name: None)
"""Reads NaN and Infinity, which JSON does not have and Python writes, as null."""
