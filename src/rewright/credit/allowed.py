"""Gold calls that name the values allowed for each argument, as the Berkeley Function-Calling Leaderboard (BFCL) does.

Two shapes, and nothing else, are read this way; lists in ordinary arguments stay lists::

    {"name": "area", "allowed": {"base": [10], "unit": ["units", ""]}}
    {"area": {"base": [10], "unit": ["units", ""]}}                      # BFCL's possible answers (`ground_truth`)

A value is right if it is in its list. `""` in a list says that the argument may be left out too. Inside a list, an
object whose values are all lists names the values allowed for each of its fields (BFCL's rule; so do the objects in a
list of objects). Values are compared as everywhere here, as JSON; BFCL's checker also ignores case and punctuation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from rewright.credit.calls import Values, freeze

__all__ = ["Allowed", "allowed_parts", "any_of", "read_allowed"]

_FIELDS = ("arguments", "parameters", "allowed")
"""A call of these alone has lost its name."""

_MOST = 10_000
"""Combinations that one argument may allow."""


class Allowed(NamedTuple):
    """Argument name -> the hashable values that are right, and the names that may be left out."""

    values: dict[Hashable, frozenset[Hashable]]
    optional: frozenset[Hashable]


def allowed_parts(call: Any) -> tuple[str, Mapping[Any, Any]] | None:
    """Name and lists of allowed values of a gold call in one of the two shapes; None for any other call."""
    if not isinstance(call, Mapping):
        return None
    name, lists = call.get("name"), call.get("allowed")
    if lists is None and len(call) == 1:
        ((name, lists),) = call.items()
        if (
            name in _FIELDS
            or not isinstance(lists, Mapping)
            or not all(isinstance(found, (list, tuple)) for found in lists.values())
        ):
            return None
    elif any(call.get(key) is not None for key in ("arguments", "parameters", "function", "error")):
        return None
    return (name, lists) if isinstance(name, str) and isinstance(lists, Mapping) else None


def read_allowed(call: Any) -> tuple[str, Allowed] | None:
    """A gold call with allowed values in comparable form (lower-case name); None for any other call.

    Raises ValueError for an argument that allows no value, and for one that allows too many combinations.
    """
    parts = allowed_parts(call)
    if parts is None:
        return None
    name, lists = parts
    values: dict[Hashable, frozenset[Hashable]] = {}
    for argument, found in lists.items():
        if not isinstance(found, (list, tuple)) or not found:
            raise ValueError(
                f"the gold call {name!r} allows {found!r:.200} for {argument!r}: expected a list of values"
            )
        values[argument] = frozenset(freeze(meant) for item in found for meant in _meanings(item, f"{name}.{argument}"))
    return name.lower(), Allowed(values, frozenset(key for key, found in lists.items() if "" in found))


def any_of(values: Values) -> Allowed:
    """An ordinary call's arguments in this form: each has one value, and none may be left out."""
    return Allowed({name: frozenset((value,)) for name, value in values.items()}, frozenset())


def _meanings(item: Any, where: str) -> Sequence[Any]:
    """The values that one entry of a list of allowed values stands for."""
    if _has_lists(item):
        return _objects(item, where)
    if isinstance(item, (list, tuple)) and item and all(map(_has_lists, item)):
        parts = [_objects(part, where) for part in item]
        _check(math.prod(map(len, parts)), where)
        return [list(found) for found in itertools.product(*parts)]
    return (item,)


def _objects(item: Mapping[Any, Any], where: str) -> list[dict[Any, Any]]:
    """All objects that an object of lists allows; a field that allows "" may be missing."""
    choices: list[list[tuple[Any, ...]]] = [
        [*((key, value) for value in found), *([()] if "" in found else [])] for key, found in item.items()
    ]
    _check(math.prod(map(len, choices)), where)
    return [dict(pair for pair in found if pair) for found in itertools.product(*choices)]


def _has_lists(item: Any) -> bool:
    return isinstance(item, Mapping) and bool(item) and all(isinstance(found, (list, tuple)) for found in item.values())


def _check(count: int, where: str) -> None:
    if count > _MOST:
        raise ValueError(f"the gold call allows {count} combinations for {where}: expected at most {_MOST}")
