"""BFCL's data files (optional package bfcl-eval): entries and possible answers by category, read without its code.

The names of the categories are the package's. No module of the package other than the folder of its data is used here,
so that single-turn tasks load without the stateful APIs of `rewright.benchmarks.bfcl.world`.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from rewright.core.errors import MissingDataError

__all__ = [
    "AST",
    "INSTALL",
    "IRRELEVANCE",
    "JAVA",
    "JAVASCRIPT",
    "LIVE",
    "MEMORY",
    "NON_LIVE",
    "PYTHON",
    "SINGLE_TURN",
    "category_of",
    "documents",
    "entries",
    "memory_answers",
    "memory_conversations",
    "possible_answers",
    "single_turn_functions",
]

INSTALL: Final = "pip install --no-deps bfcl-eval==2026.3.23 mpmath"
"""Installs without dependencies, because the categories need only mpmath."""

JAVA: Final = "simple_java"
JAVASCRIPT: Final = "simple_javascript"
NON_LIVE: Final = ("simple_python", "multiple", "parallel", "parallel_multiple")
LIVE: Final = ("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple")
PYTHON: Final = (*NON_LIVE, *LIVE)
AST: Final = (*NON_LIVE, JAVA, JAVASCRIPT, *LIVE)
"""The categories with possible answers, which the package's `ast_checker` compares with the calls."""
IRRELEVANCE: Final = ("irrelevance", "live_irrelevance", "live_relevance")
"""The categories in which only counts whether a function is called."""
SINGLE_TURN: Final = (*AST, *IRRELEVANCE)
MEMORY: Final = "memory_kv"
"""The category of memory questions with a key-value store (`kv`). The package's other stores are not offered."""


def _data() -> Path:
    found = find_spec("bfcl_eval")
    if found is None or found.origin is None:
        raise MissingDataError(f"BFCL tasks need the package bfcl-eval: {INSTALL}")
    return Path(found.origin).parent / "data"


def _lines(name: str) -> list[dict[str, Any]]:
    path = _data() / name
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as problem:
        raise MissingDataError(f"{path}: {problem.strerror}: expected the data of bfcl-eval: {INSTALL}") from None


@lru_cache(maxsize=len(SINGLE_TURN) + 1)
def entries(category: str) -> dict[str, dict[str, Any]]:
    """Return the entries of a category by id, in order. They are shared: do not change them.

    Raises InputError if the package is not installed.
    """
    if category == MEMORY:  # the package has one file for all stores, and puts the store into the ids
        return {one["id"]: one for one in map(_of_store, _lines("BFCL_v4_memory.json"))}
    return {entry["id"]: entry for entry in _lines(f"BFCL_v4_{category}.json")}


@lru_cache(maxsize=len(AST))
def possible_answers(category: str) -> dict[str, list[dict[str, dict[str, list[Any]]]]]:
    """Return the possible answers of a category of `AST` by entry id.

    An answer is a list of calls `{name: {argument: [allowed value, …]}}`; an allowed "" means that it may be omitted.
    """
    return {line["id"]: line["ground_truth"] for line in _lines(f"possible_answer/BFCL_v4_{category}.json")}


@lru_cache(maxsize=1)
def memory_answers() -> dict[str, list[str]]:
    """Return the possible answers of the memory questions by entry id."""
    lines = map(_of_store, _lines("possible_answer/BFCL_v4_memory.json"))
    return {line["id"]: line["ground_truth"] for line in lines}


@lru_cache(maxsize=16)
def memory_conversations(scenario: str) -> dict[str, dict[str, Any]]:
    """Return the conversations of a scenario by id, in order: its questions are about all of them."""
    lines = map(_of_store, _lines(f"memory_prereq_conversation/memory_{scenario}.json"))
    return {line["id"]: line for line in lines}


@lru_cache(maxsize=4)
def documents(name: str) -> dict[str, dict[str, Any]]:
    """Return the documentation of an API's methods by name. `name`: that of its file, such as `memory_kv`."""
    return {document["name"]: document for document in _lines(f"multi_turn_func_doc/{name}.json")}


def _of_store(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "id": line["id"].replace("memory", MEMORY, 1)}


def category_of(identity: str) -> str:
    """Return the category of an entry's id, such as `live_simple` of `live_simple_0-0-0`. Raises ValueError."""
    category = identity.rpartition("_")[0]
    if category not in SINGLE_TURN:
        raise ValueError(f"BFCL has no single-turn entry {identity!r}")
    return category


def single_turn_functions(identity: str) -> dict[str, dict[str, Any]]:
    """Return the functions of a single-turn entry by name, or of several with "+" between their ids.

    Raises ValueError for an unknown entry, and for one without possible answers; InputError without the package.
    """
    rows = [(category_of(one), one) for one in identity.split("+")]
    for category, one in rows:
        if category not in AST or one not in possible_answers(category):
            raise ValueError(f"BFCL has no entry {one!r} with possible answers")
    return {function["name"]: function for category, one in rows for function in entries(category)[one]["function"]}
