"""Gold calls that list the allowed values of each argument, as the Berkeley Function-Calling Leaderboard (BFCL) does.

Only two shapes are read this way; lists in ordinary arguments stay lists::

    {"name": "area", "allowed": {"base": [10], "unit": ["units", ""]}}
    {"area": {"base": [10], "unit": ["units", ""]}}                      # BFCL's possible answers (`ground_truth`)

A value is correct if it is in the argument's list. `""` in a list marks the argument as optional. Inside a list, an
object whose values are all lists gives the allowed values of each of its fields (BFCL's rule; the same holds for the
objects in a list of objects). Values are compared as JSON; BFCL's checker also ignores case and punctuation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from rewright.credit.calls import Values, freeze

__all__ = ["Allowed", "allowed_parts", "any_of", "read_allowed"]

_FIELDS = ("arguments", "parameters", "allowed")
"""A mapping with only one of these keys is a call without a name, not BFCL's second shape."""

_MAX_COMBINATIONS = 10_000
"""Maximum number of allowed values per argument, nested fields expanded."""


class Allowed(NamedTuple):
    """The allowed values of each argument (argument name -> hashable values), and the optional argument names."""

    values: dict[Hashable, frozenset[Hashable]]
    optional: frozenset[Hashable]


def allowed_parts(call: Any) -> tuple[str, Mapping[Any, Any]] | None:
    """Return the name and the lists of allowed values of a gold call in one of the two shapes, else None."""
    if not isinstance(call, Mapping):
        return None
    name, lists = call.get("name"), call.get("allowed")
    if lists is None and len(call) == 1:
        ((name, lists),) = call.items()
        if (
            name in _FIELDS
            or not isinstance(lists, Mapping)
            or not all(isinstance(values, (list, tuple)) for values in lists.values())
        ):
            return None
    elif any(call.get(key) is not None for key in ("arguments", "parameters", "function", "error")):
        return None
    return (name, lists) if isinstance(name, str) and isinstance(lists, Mapping) else None


def read_allowed(call: Any, convert: Callable[[str, Any, Any], Hashable] | None = None) -> tuple[str, Allowed] | None:
    """Convert a gold call with allowed values to comparable form (lower-case name); None for any other call.

    `convert` maps tool, argument and value to a comparable value; None: `freeze`, which compares as JSON. Raises
    ValueError for an argument without allowed values or with more than 10,000 combinations.
    """
    parts = allowed_parts(call)
    if parts is None:
        return None
    name, lists = parts
    values: dict[Hashable, frozenset[Hashable]] = {}
    for argument, items in lists.items():
        if not isinstance(items, (list, tuple)) or not items:
            raise ValueError(
                f"the gold call {name!r} allows {items!r:.200} for {argument!r}: expected a list of values"
            )
        expanded = [value for item in items for value in _expand(item, f"{name}.{argument}")]
        values[argument] = frozenset(
            freeze(value) if convert is None else convert(name, argument, value) for value in expanded
        )
    return name.lower(), Allowed(values, frozenset(key for key, items in lists.items() if "" in items))


def any_of(arguments: Values) -> Allowed:
    """Convert an ordinary call's arguments: each has one allowed value, and none is optional."""
    return Allowed({name: frozenset((value,)) for name, value in arguments.items()}, frozenset())


def _expand(item: Any, where: str) -> Sequence[Any]:
    """Expand one entry of a list of allowed values to the values it allows."""
    if _has_lists(item):
        return _expand_object(item, where)
    if isinstance(item, (list, tuple)) and item and all(map(_has_lists, item)):
        parts = [_expand_object(part, where) for part in item]
        _check_combinations(math.prod(map(len, parts)), where)
        return [list(combination) for combination in itertools.product(*parts)]
    return (item,)


def _expand_object(item: Mapping[Any, Any], where: str) -> list[dict[Any, Any]]:
    """Expand an object of lists to all allowed objects; a field that allows "" is optional."""
    choices: list[list[tuple[Any, ...]]] = [
        [*((key, value) for value in values), *([()] if "" in values else [])] for key, values in item.items()
    ]
    _check_combinations(math.prod(map(len, choices)), where)
    return [dict(pair for pair in combination if pair) for combination in itertools.product(*choices)]


def _has_lists(item: Any) -> bool:
    return isinstance(item, Mapping) and bool(item) and all(isinstance(field, (list, tuple)) for field in item.values())


def _check_combinations(count: int, where: str) -> None:
    if count > _MAX_COMBINATIONS:
        raise ValueError(f"the gold call allows {count} combinations for {where}: expected at most {_MAX_COMBINATIONS}")
