"""BFCL's multi-turn categories as tasks (optional package bfcl-eval): stateful APIs with gold call traces.

There are 800 entries, 200 each of `base`, `miss_func` (functions are added later), `miss_param` (a value is given
later) and `long_context`. Every user message after the first is a follow-up. The tools of each trajectory run in a
separate worker process (`rewright.benchmarks.bfcl.world`). The judge `bfcl` uses the package's official checker.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, zip_longest
from types import ModuleType
from typing import Any, Final

from rewright.benchmarks.bfcl.entries import INSTALL
from rewright.benchmarks.bfcl.schemas import method_schema
from rewright.core.errors import InputError, MissingDataError
from rewright.core.records import CLUSTER, FollowUp, Gold, Message, Task, ToolCall, ToolSpec
from rewright.tasks.formats import PackageFormat

__all__ = ["FORMAT", "tasks"]

NAME: Final = "bfcl-multi-turn"
TARGET: Final = "rewright.benchmarks.bfcl.world:call"
_LATER: Final = "I have updated some more functions you can choose from. What about now?"
"""User message when functions are added (the package's text for models with native function calling)."""


def _world() -> ModuleType:
    try:
        from rewright.benchmarks.bfcl import world as bfcl_world
    except ImportError as problem:
        raise MissingDataError(f"BFCL tasks need the package bfcl-eval ({problem}): {INSTALL}") from None
    return bfcl_world


def tasks(selection: str = "all") -> Iterator[Task]:
    """Yield the tasks of `all` or of comma-separated categories. Several categories are interleaved.

    Raises InputError for an unknown category, and if the package is not installed.
    """
    world = _world()
    names = world.CATEGORIES if selection == "all" else tuple(name.strip() for name in selection.split(","))
    for name in names:
        if name not in world.CATEGORIES:
            known = ", ".join(world.CATEGORIES)
            raise InputError(f"{NAME} has no category {name!r}: expected all, or some of {known}")
    rows = zip_longest(*(world.read_lines(f"BFCL_v4_multi_turn_{name}.json") for name in names))
    for entry in chain.from_iterable(rows):
        if entry is not None:
            yield _task(world, entry)


def _task(world: ModuleType, entry: dict[str, Any]) -> Task:
    identity: str = entry["id"]
    later: dict[int, list[str]] = {int(turn): names for turn, names in entry.get("missed_function", {}).items()}
    withheld = {name for names in later.values() for name in names}
    specs = {
        name: ToolSpec(method_schema(document), target=TARGET, data={"entry": identity, "method": name})
        for api in entry["involved_classes"]
        for name, document in world.documented(api).items()
    }
    messages = [_messages(user_messages) for user_messages in entry["question"]]
    follow_ups = [
        FollowUp(user_messages, tuple(specs[name] for name in later.get(turn, ()) if name in specs))
        for turn, user_messages in enumerate(messages[1:], start=1)
    ]
    category, _, number = identity.removeprefix("multi_turn_").rpartition("_")
    gold = world.gold(identity)
    return Task(
        id=f"bfcl-{identity}",
        messages=messages[0],
        tools=tuple(spec for name, spec in specs.items() if name not in withheld),
        follow_ups=tuple(follow_ups),
        gold=Gold(calls=tuple(ToolCall(*call) for step in gold for call in step)),
        source="bfcl",
        split="test",
        judge="bfcl",
        metadata={
            "category": category,
            "entry": identity,
            "calls_per_message": [len(step) for step in gold],
            CLUSTER: f"multi_turn_{number}",  # the four categories have variants of the same 200 conversations
        },
    )


def _messages(messages: list[Message]) -> tuple[Message, ...]:
    """Return the messages of one user turn, or none if the turn only adds functions."""
    return tuple(messages) or ({"role": "user", "content": _LATER},)


FORMAT = PackageFormat(lambda selection, seed: tasks(selection))
