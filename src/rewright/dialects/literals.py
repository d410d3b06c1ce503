"""Decode values that models write: JSON, and Python's literals where JSON fails (`{'a': True, 'b': None}`)."""

from __future__ import annotations

import ast
import math
import warnings
from typing import Any, Final

from rewright.core.strict_json import STRICT, nested_deeper

__all__ = ["MAX_LITERAL", "decode_value", "python_literal", "python_literal_instead"]

MAX_LITERAL: Final = 20_000
"""Longest Python literal that is read, in characters: Python's parser needs much more memory than a JSON decoder."""


def decode_value(text: str) -> Any:
    """Decode JSON, or else a Python dict or list. Raises ValueError, with JSON's reason."""
    try:
        return STRICT.decode(text)
    except ValueError as problem:
        return python_literal_instead(text, problem)


def python_literal_instead(text: str, problem: ValueError) -> Any:
    """Read a Python dict or list that is not JSON because of `problem`. Raises `problem` for everything else.

    JSON with a control character in a text is broken JSON, although Python would read it.
    """
    if str(problem).startswith("Invalid control character"):
        raise problem
    try:
        return python_literal(text)
    except ValueError:
        raise problem from None


def python_literal(text: str) -> Any:
    """Read a Python dict or list of values that JSON has (tuples become lists). No code runs.

    Raises ValueError for everything else, text of more than `MAX_LITERAL` characters included.
    """
    text = text.strip()
    if len(text) > MAX_LITERAL or text[:1] not in ("{", "["):
        raise ValueError(f"no Python dict or list of at most {MAX_LITERAL} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an escape that Python does not know, in the model's text
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError("no Python literal") from None
    value = _as_json(value)
    if nested_deeper(value):
        raise ValueError("nested too deeply")
    return value


def _as_json(value: Any) -> Any:
    """Return the value as JSON has it (tuples as lists). Raises ValueError for values that JSON lacks."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("a key is not a text")
        return {key: _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"{type(value).__name__} is not JSON")
