"""Name the settings in which two recipes differ."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from rewright.recipe.schema import Recipe

__all__ = ["first_difference"]

_LONGEST: Final = 60


def first_difference(stored: Recipe, given: Recipe) -> str:
    """Return the first setting in which two unequal recipes differ, with both values, and the number of the others."""
    left, right = (_settings("", msgspec.to_builtins(recipe)) for recipe in (stored, given))
    name, *others = [name for name in {**left, **right} if left.get(name) != right.get(name)]
    more = f" ({len(others)} more differ)" if others else ""
    return f"{name} is {_shown(left.get(name))} there, and {_shown(right.get(name))} was given{more}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _settings(name: str, value: Any) -> dict[str, Any]:
    """Return the settings below a section by their dotted names."""
    if not isinstance(value, dict) or not value:
        return {name: value}
    found: dict[str, Any] = {}
    for key, below in value.items():
        found |= _settings(f"{name}.{key}".lstrip("."), below)
    return found
