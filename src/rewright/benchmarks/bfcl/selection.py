"""Task format `bfcl`: all categories that run without a network, chosen by name, group or split.

`tasks.path` is `all` (all but `memory_kv`, which only an evaluation can run), or names separated by commas. A name is a
category of the package (`live_simple`, `multi_turn_base`, `memory_kv`), a group of `GROUPS`, or one part of a split
(`python:train`, see `rewright.benchmarks.bfcl.split`). Several categories are interleaved, so that a `limit` takes them
in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from functools import partial
from itertools import chain, zip_longest
from typing import Final

import msgspec

from rewright.benchmarks.bfcl import tasks as multi_turn
from rewright.benchmarks.bfcl.derived import DERIVED, derived_tasks
from rewright.benchmarks.bfcl.entries import AST, IRRELEVANCE, LIVE, MEMORY, NON_LIVE, PYTHON, SINGLE_TURN
from rewright.benchmarks.bfcl.memory import memory_tasks
from rewright.benchmarks.bfcl.single_turn import single_turn_task, single_turn_tasks
from rewright.benchmarks.bfcl.split import SPLITS, split
from rewright.core.errors import InputError
from rewright.core.records import Task
from rewright.tasks.formats import PackageFormat

__all__ = ["FORMAT", "GROUPS", "MULTI_TURN", "selected_tasks"]

MULTI_TURN: Final = ("multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context")
GROUPS: Final = {
    "all": (*SINGLE_TURN, *MULTI_TURN),
    "single_turn": SINGLE_TURN,
    "ast": AST,
    "python": PYTHON,
    "non_live": (*NON_LIVE, "simple_java", "simple_javascript"),
    "live": LIVE,
    "relevance": IRRELEVANCE,
    "multi_turn": MULTI_TURN,
}
"""Groups of categories. All but `relevance` and `multi_turn` in `single_turn` have gold calls."""


def selected_tasks(selection: str = "all", seed: int = 0) -> Iterator[Task]:
    """Yield the tasks of a selection, each once. The seed is that of the parts in `DERIVED`.

    Raises InputError for an unknown name, and if the package is not installed.
    """
    sources: dict[str, Callable[[], Iterable[Task]]] = {}
    for name in (part.strip() for part in selection.split(",")):
        if name in SPLITS:
            sources |= {f"{name}/{category}": _part(ids) for category, ids in split(name).items()}
            continue
        if name in DERIVED:
            sources[name] = partial(derived_tasks, name, seed)
            continue
        for category in GROUPS.get(name, (name,)):
            sources[category] = _category(category, name)
    seen: set[str] = set()
    for task in chain.from_iterable(zip_longest(*(source() for source in sources.values()))):
        if task is not None and task.id not in seen:
            seen.add(task.id)
            yield task


def _part(identities: Iterable[str]) -> Callable[[], Iterator[Task]]:
    return lambda: (single_turn_task(identity) for identity in identities)


def _category(category: str, name: str) -> Callable[[], Iterable[Task]]:
    if category in SINGLE_TURN:
        return lambda: single_turn_tasks(category)
    if category in MULTI_TURN:
        return lambda: (
            msgspec.structs.replace(task, metadata={**task.metadata, "category": category})
            for task in multi_turn.tasks(category.removeprefix("multi_turn_"))
        )
    if category == MEMORY:
        return memory_tasks
    known = [*GROUPS, *SPLITS, *DERIVED, *SINGLE_TURN, *MULTI_TURN, MEMORY]
    near = get_close_matches(name, known, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"bfcl has no category {name!r}: {meant}expected some of {', '.join(known)}")


FORMAT = PackageFormat(selected_tasks, seeded=True)
