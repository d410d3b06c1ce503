"""Shorten a JSON value to a number of characters, so that the text stays JSON.

Values are kept whole or left out, because half an identifier is of no use. Those nearest to the top come first; each
position in a list counts like one level of depth. What is left out is counted: `"…": 3` in an object, `"… 3 more"` at
the end of a list. Nothing but the value itself decides, in particular not the gold calls.
"""

from __future__ import annotations

import heapq
import json
from itertools import count, islice
from typing import Any, Final

__all__ = ["MIN_CHARACTERS", "json_text", "shortened"]

MIN_CHARACTERS: Final = 50
"""Smallest number of characters that `shortened` accepts."""
_MARK: Final = 16
"""Characters reserved in every container for the count of what is left out."""
_MAX_REFUSED: Final = 300
"""Number of values in a row that do not fit, after which none is tried any more."""

Path = tuple[str | int, ...]


def json_text(value: Any) -> str:
    """Return the JSON text of a value, as results are shown to a model."""
    return json.dumps(value, ensure_ascii=False)


def shortened(value: Any, characters: int) -> str:
    """Return the JSON text of `value`, of at most `characters` characters if it is an object or a list.

    A single text or number is never shortened. Raises ValueError for fewer than `MIN_CHARACTERS` characters.
    """
    if characters < MIN_CHARACTERS:
        raise ValueError(f"characters is {characters}: expected at least {MIN_CHARACTERS}")
    whole = json_text(value)
    if len(whole) <= characters or not isinstance(value, dict | list):
        return whole
    return json_text(_built(value, (), *_chosen(value, characters)))


def _chosen(value: Any, characters: int) -> tuple[set[Path], set[Path]]:
    """Return the paths of the values that are kept, and of the containers around them."""
    kept: set[Path] = set()
    opened: set[Path] = {()}
    left = characters - 2 - _MARK
    order = count()
    heap: list[tuple[int, int, Path, Any]] = []

    def push(container: Any, path: Path, cost: int) -> None:
        if isinstance(container, dict):
            for key, child in container.items():
                heapq.heappush(heap, (cost + 1, next(order), (*path, key), child))
        else:
            for place, child in enumerate(islice(container, characters // 2)):
                heapq.heappush(heap, (cost + 1 + place, next(order), (*path, place), child))

    push(value, (), 0)
    refused = 0
    while heap and left > 0 and refused < _MAX_REFUSED:
        cost, _, path, child = heapq.heappop(heap)
        if isinstance(child, dict | list) and child:
            push(child, path, cost)
            continue
        size = _size(path[-1]) + len(json_text(child))
        around = path[:-1]
        missing: list[Path] = []
        while around not in opened:
            missing.append(around)
            size += _size(around[-1]) + 2 + _MARK
            around = around[:-1]
        if size > left:
            refused += 1
            continue
        refused = 0
        left -= size
        kept.add(path)
        opened.update(missing)
    return kept, opened


def _size(key: str | int) -> int:
    """Characters of a key with its separators, or of the separator behind a list item."""
    return len(json_text(key)) + 4 if isinstance(key, str) else 2


def _built(value: Any, path: Path, kept: set[Path], opened: set[Path]) -> Any:
    if path in kept:
        return value
    items = list(value.items() if isinstance(value, dict) else enumerate(value))
    parts = [
        (key, _built(child, (*path, key), kept, opened))
        for key, child in items
        if (*path, key) in kept or (*path, key) in opened
    ]
    left_out = len(items) - len(parts)
    if isinstance(value, dict):
        return dict(parts) | ({"…": left_out} if left_out else {})
    return [part for _, part in parts] + ([f"… {left_out} more"] if left_out else [])
