"""Test questions of the benchmarks whose data are on this machine, for the check of training tasks against them.

The data are those of installed packages, which are read and not imported (bfcl-eval, tau2, and nestful-wrapper or the
file made of it for ComplexFuncBench), and of files in the folder `REWRIGHT_BENCHMARKS` (default
`~/.cache/rewright/benchmarks`) that are named as their format: `math.jsonl`, `hotpotqa.json`, `gsm8k.parquet`.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from rewright.benchmarks.complexfuncbench.data import question_file
from rewright.benchmarks.complexfuncbench.tasks import test_questions
from rewright.core.errors import InputError
from rewright.core.records import Task
from rewright.core.registry import known
from rewright.tasks.loading import load_tasks

__all__ = ["FILES", "TestSplits", "read_test_splits"]

FILES: Final = (
    "2wikimultihopqa", "aime24", "aime25", "amc23", "bamboogle", "ftrl", "gsm8k", "hle", "hotpotqa", "math", "musique",
    "toolhop",
)  # fmt: skip
"""The formats of benchmarks whose test questions are files."""
SUFFIXES: Final = (".jsonl", ".json", ".parquet", ".jsonl.gz")
TAU2_DOMAINS: Final = ("airline", "retail", "telecom")


class TestSplits(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        questions: the test tasks by benchmark.
        toolsets: the names of the tools of an environment by benchmark and domain, as `tau2 retail`.
        trained: the tasks of tau2's official train split, as `retail/5`.
        missing: benchmarks without data on this machine.
        unread: why files could not be read, one line each.
    """

    __test__ = False  # not a test of pytest

    questions: dict[str, list[Task]]
    toolsets: dict[str, frozenset[str]]
    trained: frozenset[str]
    missing: list[str]
    unread: list[str]


def read_test_splits() -> TestSplits:
    """Read the test questions of all benchmarks that are on this machine, once. Raises nothing."""
    folder = os.environ.get("REWRIGHT_BENCHMARKS") or Path.home() / ".cache/rewright/benchmarks"
    return _read(Path(folder), _package("bfcl_eval"), _package("tau2"), question_file())


@lru_cache(maxsize=4)
def _read(folder: Path, bfcl: Path | None, tau2: Path | None, travel: Path | None) -> TestSplits:
    questions: dict[str, list[Task]] = {}
    toolsets: dict[str, frozenset[str]] = {}
    missing: list[str] = []
    unread: list[str] = []
    for name, read, package in (
        ("bfcl", _bfcl, bfcl),
        ("tau2", _tau2, tau2),
        ("complexfuncbench", test_questions, travel),
    ):
        try:
            found = [] if package is None else list(read(package))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as problem:
            unread.append(f"{name}: {type(problem).__name__}: {problem}")
            found = []
        if found:
            questions[name] = found
        else:
            missing.append(name)
    for domain in TAU2_DOMAINS if "tau2" in questions else ():
        names = frozenset() if tau2 is None else frozenset(_tau2_tools(tau2, domain))
        if names:
            toolsets[f"tau2 {domain}"] = names
    for name in (name for name in FILES if name in known("task_format")):
        path = next((path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").exists()), None)
        if path is None:
            missing.append(name)
            continue
        try:
            questions[name] = load_tasks(path, name, check=False)
        except InputError as problem:
            unread.append(f"{name}: {problem}")
    trained = frozenset(_tau2_trained(tau2)) if tau2 is not None and "tau2" in questions else frozenset[str]()
    return TestSplits(questions, toolsets, trained, missing, unread)


def _package(name: str) -> Path | None:
    """The folder of an installed package, without importing it."""
    found = importlib.util.find_spec(name)
    return None if found is None or found.origin is None else Path(found.origin).parent


def _task(identity: str, texts: Iterable[Any]) -> Task:
    messages = tuple({"role": "user", "content": text} for text in texts if isinstance(text, str))
    return Task(id=identity, messages=messages)


def _bfcl(package: Path) -> Iterator[Task]:
    for path in sorted((package / "data").glob("BFCL_v4_*.json")):
        if path.name.endswith("_format_sensitivity.json"):
            continue  # lists ids of the others
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            turns = [turn for turn in row.get("question") or () if isinstance(turn, list)]
            yield _task(str(row["id"]), [one.get("content") for turn in turns for one in turn if one["role"] == "user"])


def _tau2(package: Path) -> Iterator[Task]:
    for domain in TAU2_DOMAINS:
        folder = package / "data/tau2/domains" / domain
        if not (folder / "tasks.json").exists():
            continue  # another project has the same import name
        chosen = _tau2_split(folder, "test")
        for row in json.loads((folder / "tasks.json").read_text("utf-8")):
            if not chosen or row["id"] in chosen:
                said = row["user_scenario"]["instructions"]
                parts = said.values() if isinstance(said, dict) else [said]
                yield _task(f"{domain}/{row['id']}", ["\n".join(part for part in parts if isinstance(part, str))])


def _tau2_split(folder: Path, split: str) -> set[str]:
    """The ids of a split of a domain; empty if the domain has no such split."""
    splits = folder / "split_tasks.json"
    return set(json.loads(splits.read_text("utf-8")).get(split, ())) if splits.exists() else set()


def _tau2_trained(package: Path) -> Iterator[str]:
    for domain in TAU2_DOMAINS:
        folder = package / "data/tau2/domains" / domain
        yield from (f"{domain}/{name}" for name in _tau2_split(folder, "train") - _tau2_split(folder, "test"))


def _tau2_tools(package: Path, domain: str) -> Iterator[str]:
    """The names of the functions that a domain marks as tools, read out of its source text."""
    path = package / "domains" / domain / "tools.py"
    if not path.exists():
        return
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef) and any("is_tool" in ast.dump(one) for one in node.decorator_list):
            yield node.name
