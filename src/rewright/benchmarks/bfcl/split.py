"""A split of BFCL's Python rows (and of irrelevance) by function names, to train on one part and measure on the other.

Two rows are connected if a function is offered in both, and a connected component is in one part as a whole: no
function of the test part occurs in the training part. A quarter of the components, by a hash of their name, are the
test part. Only rows of at most 1,024 tokens (schemas, question and gold calls with SmolLM2's tokenizer) take part, so
that a small model can read all of them; the longer ones are in `long_rows.txt`.

The leaderboard has no training part. Scores on `python:test` are not leaderboard scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from rewright.benchmarks.bfcl.entries import PYTHON, entries
from rewright.core.errors import InputError

__all__ = ["IRRELEVANT", "SPLITS", "components", "long_rows", "split"]

IRRELEVANT: Final = ("irrelevance", "live_irrelevance")
SPLITS: Final = ("python:train", "python:test", "irrelevance:train", "irrelevance:test")
_TEST_OF: Final = {"python": 4, "irrelevance": 2}
"""One of how many components is in the test part."""


@lru_cache(maxsize=1)
def long_rows() -> frozenset[str]:
    """The ids of the rows that take no part in the split because they are longer than 1,024 tokens."""
    return frozenset((Path(__file__).parent / "long_rows.txt").read_text(encoding="utf-8").split())


def components(rows: dict[str, set[str]]) -> dict[str, str]:
    """Return the connected component of every row, by the name of one of its functions.

    `rows` has the names of the functions of every row; rows without any are left out.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for names in rows.values():
        first, *others = sorted(names) or [""]
        for other in others:
            parent[root(other)] = root(first)
    return {identity: root(min(names)) for identity, names in rows.items() if names}


def split(name: str) -> dict[str, list[str]]:
    """Return the entry ids of one part (a name of `SPLITS`), by category and in order.

    `irrelevance` has two halves of rows without a right call. No function of them, and none of the Python rows, occurs
    on both sides: their rows that offer a function of the other side of `python` are left out.
    """
    kind, _, part = name.partition(":")
    if name not in SPLITS:
        raise InputError(f"bfcl has no split {name!r}: expected one of {', '.join(SPLITS)}")
    chosen = _python() if kind == "python" else _irrelevance()
    return {
        category: [identity for identity in entries(category) if chosen.get(identity) == part]
        for category in (PYTHON if kind == "python" else IRRELEVANT)
    }


def _names(entry: dict[str, Any]) -> set[str]:
    return {function["name"] for function in entry["function"]}


def _rows(categories: tuple[str, ...]) -> Iterator[tuple[str, set[str]]]:
    for category in categories:
        for identity, entry in entries(category).items():
            if identity not in long_rows():
                yield identity, _names(entry)


def _parts(rows: dict[str, set[str]], kind: str) -> dict[str, str]:
    def part(component: str) -> str:
        digest = int(hashlib.md5(component.encode(), usedforsecurity=False).hexdigest(), 16)
        return "train" if digest % _TEST_OF[kind] else "test"

    return {identity: part(component) for identity, component in components(rows).items()}


@lru_cache(maxsize=1)
def _python() -> dict[str, str]:
    return _parts(dict(_rows(PYTHON)), "python")


@lru_cache(maxsize=1)
def _irrelevance() -> dict[str, str]:
    names = dict(_rows(PYTHON))
    used: dict[str, set[str]] = {"train": set(), "test": set()}
    for identity, part in _python().items():
        used[part] |= names[identity]
    rows = dict(_rows(IRRELEVANT))
    halves = _parts(rows, "irrelevance")
    other = {"train": used["test"], "test": used["train"]}
    return {identity: part for identity, part in halves.items() if not rows[identity] & other[part]}
