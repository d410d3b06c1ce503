"""BFCL's single-turn categories as tasks (optional package bfcl-eval): one question, declared tools, gold calls.

A call ends the trajectory, because the tools are declared only. The possible answers of 2,501 entries become gold
calls, which the official `ast_checker` accepts but for the 12 in `GOLD_REFUSED`. In `irrelevance` and
`live_irrelevance` no call is right; in `live_relevance` some call is right, whatever its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rewright.benchmarks.bfcl.entries import AST, IRRELEVANCE, category_of, entries, possible_answers
from rewright.benchmarks.bfcl.gold import gold_calls
from rewright.benchmarks.bfcl.schemas import function_schema
from rewright.core.records import Gold, Task, ToolSpec
from rewright.core.tool_names import valid_name
from rewright.tools.declared import KIND as DECLARED

__all__ = ["GOLD_REFUSED", "declared_tools", "renamed_tools", "single_turn_task", "single_turn_tasks"]

GOLD_REFUSED: Final = frozenset(
    {
        "simple_python_200",
        "parallel_multiple_26",
        "live_simple_106-63-0",
        "live_simple_112-68-0",
        "live_multiple_144-56-0",
        "live_multiple_507-149-4",
        "live_multiple_834-178-9",
        "live_multiple_862-181-3",
        "live_multiple_964-207-0",
        "simple_java_36",
        "simple_java_64",
        "simple_java_65",
    }
)
"""Entries whose own gold calls the checker refuses, mostly for a required argument that the possible answers lack.

Their tasks have `metadata.gold_refused`: leave them out of sets to train on.
"""


def single_turn_tasks(category: str) -> list[Task]:
    """Return the tasks of a category of `AST` or `IRRELEVANCE`. Raises InputError if the package is not installed."""
    return [single_turn_task(identity) for identity in entries(category)]


def single_turn_task(identity: str) -> Task:
    """Return the task of one entry. Raises ValueError for an unknown id."""
    category = category_of(identity)
    entry = entries(category).get(identity)
    if entry is None:
        raise ValueError(f"BFCL has no single-turn entry {identity!r}")
    tools, names = declared_tools(entry["function"], category)
    metadata: dict[str, Any] = {"category": category, "entry": identity, **renamed_tools(names)}
    metadata |= {"gold_refused": True} if identity in GOLD_REFUSED else {}
    return Task(
        id=f"bfcl-{identity}",
        messages=tuple(message for messages in entry["question"] for message in messages),
        tools=tools,
        gold=_gold(entry, category, names),
        source="bfcl",
        split="test",
        judge="bfcl-ast" if category in AST else "bfcl-irrelevance",
        metadata=metadata,
    )


def declared_tools(functions: Sequence[dict[str, Any]], category: str) -> tuple[tuple[ToolSpec, ...], dict[str, str]]:
    """Return the tools of the package's functions, and the names of the tools by those of the functions."""
    names: dict[str, str] = {}
    tools = []
    for function in functions:
        name = valid_name(function["name"], names.values())
        names.setdefault(function["name"], name)
        tools.append(ToolSpec(function_schema(function, name, category), kind=DECLARED))
    return tuple(tools), names


def renamed_tools(names: Mapping[str, str]) -> dict[str, Any]:
    """The metadata by which the judge gives calls the package's names again; empty if none has another name."""
    renamed = {valid: name for name, valid in names.items() if valid != name}
    return {"renamed_tools": renamed} if renamed else {}


def _gold(entry: dict[str, Any], category: str, names: dict[str, str]) -> Gold:
    if category in AST:
        answers = possible_answers(category)[entry["id"]]
        return Gold(calls=gold_calls(entry["function"], answers, category, names))
    return Gold(calls=()) if category in IRRELEVANCE and "irrelevance" in category else Gold()
