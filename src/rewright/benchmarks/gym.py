"""reasoning-gym's procedural sets as tasks, judged by the set's own scorer (package reasoning-gym, optional)."""

from __future__ import annotations

import importlib
from typing import Any

import msgspec

from rewright.errors import InputError
from rewright.records import Gold, Task

__all__ = ["generate"]


def _package() -> Any:
    try:
        return importlib.import_module("reasoning_gym")
    except ImportError:
        raise InputError("reasoning-gym tasks need the package reasoning-gym: pip install reasoning-gym") from None


def generate(dataset: str, size: int, seed: int = 0, **settings: Any) -> list[Task]:
    """`size` tasks of the set `dataset` (for instance `leg_counting`), with the set's own `settings`.

    `metadata.entry` is the entry that the scorer is given again; what JSON does not have (tuples, sets) comes back as
    lists. Raises InputError for an unknown set or setting, and for entries that can't be stored.
    """
    package = _package()
    factory = importlib.import_module("reasoning_gym.factory")
    if dataset not in factory.DATASETS:
        import difflib

        near = difflib.get_close_matches(dataset, factory.DATASETS, n=1)
        raise InputError(f"reasoning-gym has no set {dataset!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    try:
        entries = package.create_dataset(dataset, size=size, seed=seed, **settings)
        return [_task(dataset, number, seed, entries[number]) for number in range(size)]
    except (TypeError, AssertionError, ValueError) as problem:
        raise InputError(f"reasoning-gym set {dataset!r}: {problem}") from problem


def _task(dataset: str, number: int, seed: int, entry: dict[str, Any]) -> Task:
    answer = entry.get("answer")
    stored = msgspec.json.decode(msgspec.json.encode(entry, enc_hook=str))
    return Task(
        id=f"reasoning_gym-{dataset}-{seed}-{number}",
        messages=({"role": "user", "content": entry["question"]},),
        gold=Gold(answers=(str(answer),) if answer is not None else None),
        source=f"reasoning_gym/{dataset}",
        judge="reasoning_gym",
        metadata={"dataset": dataset, "entry": stored},
    )
