"""Name the settings in which two recipes differ."""

from __future__ import annotations

import msgspec

from rewright.core.dotted import dotted, shown
from rewright.recipe.schema import Recipe

__all__ = ["first_difference"]


def first_difference(stored: Recipe, given: Recipe) -> str:
    """Return the first setting in which two unequal recipes differ, with both values, and the number of the others."""
    left, right = (dotted(msgspec.to_builtins(recipe)) for recipe in (stored, given))
    name, *others = [name for name in {**left, **right} if left.get(name) != right.get(name)]
    more = f" ({len(others)} more differ)" if others else ""
    return f"{name} is {shown(left.get(name))} there, and {shown(right.get(name))} was given{more}"
