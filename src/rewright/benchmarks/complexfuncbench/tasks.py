"""ComplexFuncBench as tasks: travel questions whose calls depend on each other, in a world of recorded responses.

`tasks.path` is `train`, `test` or `all`, with categories and settings behind commas:
`test,flights,characters=400,episode=6000,distractors=4`. The split is by sequence of tool names, because 1,000
questions have only 107 sequences: no sequence is in both parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from rewright.benchmarks.complexfuncbench.data import PACKAGE, VERSION, Entry, Recordings, questions, recordings
from rewright.benchmarks.complexfuncbench.shortening import MIN_CHARACTERS
from rewright.benchmarks.complexfuncbench.world import COMPARE, KIND
from rewright.core.errors import InputError
from rewright.core.records import Gold, Task, ToolCall, ToolResult, ToolSpec
from rewright.tasks.formats import PackageFormat
from rewright.tools.recorded import recorded_tool

__all__ = ["CATEGORIES", "FORMAT", "NAME", "Selection", "tasks", "test_questions"]

NAME: Final = "complexfuncbench"
CATEGORIES: Final = ("hotels", "flights", "cars", "attractions", "cross")
SPLITS: Final = ("train", "test", "all")
_LEAST: Final = {"characters": MIN_CHARACTERS, "episode": 1, "distractors": 0}
"""Settings that are numbers, and the least one."""


class Selection(msgspec.Struct, frozen=True):
    """What `tasks.path` selects."""

    split: str = "all"
    categories: tuple[str, ...] = CATEGORIES
    characters: int | None = 800
    """Maximum length of a response (`rewright.benchmarks.complexfuncbench.shortening`); None: whole."""
    episode: int | None = None
    """Maximum length in characters of question, schemas, gold calls and their responses together; None: any. Tasks
    above it are left out: for a model with a short context."""
    distractors: int = 0
    """Number of functions that are offered beside those of the gold calls."""

    @classmethod
    def of(cls, text: str) -> Selection:
        """Read a selection. Raises InputError for an unknown word, or a setting that is no number in range."""
        found: dict[str, Any] = {}
        categories = []
        for word in (part.strip() for part in text.split(",")):
            key, equals, value = word.partition("=")
            if word in SPLITS and "split" not in found:
                found["split"] = word
            elif word in CATEGORIES:
                categories.append(word)
            elif equals and key == "characters" and value == "whole":
                found[key] = None
            elif equals and key in _LEAST:
                least = _LEAST[key]
                if not value.isdecimal() or not least <= int(value) <= 10**9:
                    more = " or characters=whole" if key == "characters" else ""
                    raise InputError(f"{NAME}: {word}: expected a whole number of at least {least}{more}")
                found[key] = int(value)
            else:
                raise InputError(
                    f"{NAME} has no part {word!r}: expected one of {', '.join(SPLITS)}, then categories "
                    f"({', '.join(CATEGORIES)}), characters=N, episode=N and distractors=N, separated by commas"
                )
        if categories:
            found["categories"] = tuple(categories)
        return cls(**found)


def tasks(selection: str = "all") -> Iterator[Task]:
    """Yield the tasks of a selection (see the module's docstring). The categories are interleaved.

    Raises InputError for an unknown selection, and if the data are not there.
    """
    chosen = Selection.of(selection)
    found = recordings(chosen.characters)
    groups: dict[str, list[tuple[int, Entry]]] = {category: [] for category in chosen.categories}
    for row, entry in enumerate(found.entries):
        if entry.category in groups and chosen.split in ("all", _split(entry, found)):
            groups[entry.category].append((row, entry))
    for place in range(max(map(len, groups.values()))):
        for group in groups.values():
            if place < len(group):
                row, entry = group[place]
                task = _task(row, entry, found, chosen)
                if chosen.episode is None or _episode(task, entry) <= chosen.episode:
                    yield task


def test_questions(file: Path) -> Iterator[Task]:
    """Yield the questions of the test split without tools and gold calls, from `question_file()`.

    Raises InputError for a file that cannot be read.
    """
    for row, (question, sequence) in enumerate(questions(file)):
        if _split_of(sequence) == "test":
            yield Task(id=f"{NAME}-{row}", messages=({"role": "user", "content": question},), source=NAME, split="test")


def _split(entry: Entry, found: Recordings) -> str:
    return _split_of(tuple(found.renamed.get(call.name, call.name) for call in entry.calls))


def _split_of(sequence: tuple[str, ...]) -> str:
    """Return `test` for a fifth of the sequences of the package's names (23 of 107, with 231 tasks), else `train`."""
    return "test" if int(hashlib.md5(str(sequence).encode()).hexdigest(), 16) % 5 == 0 else "train"


def _task(row: int, entry: Entry, found: Recordings, chosen: Selection) -> Task:
    calls = tuple(ToolCall(call.name, call.arguments) for call in entry.calls)
    offered = _offered(row, {call.name for call in calls}, list(found.functions), chosen.distractors)
    renamed = {name: found.renamed[name] for name in offered if name in found.renamed}
    return Task(
        id=f"{NAME}-{row}",
        messages=({"role": "user", "content": entry.question},),
        tools=tuple(_tool(found.functions[name], entry, chosen.characters) for name in offered),
        gold=Gold(calls=calls),
        source=NAME,
        split=_split(entry, found),
        judge=NAME,
        metadata={
            "category": entry.category,
            "needs": [list(call.needs) for call in entry.calls],
            "compare": COMPARE,
            **({"renamed_tools": renamed} if renamed else {}),
            "provenance": {"set": f"{PACKAGE} {VERSION}", "row": row, "licence": "apache-2.0"},
        },
    )


def _episode(task: Task, entry: Entry) -> int:
    """Characters of the gold episode: question, schemas, calls and responses."""
    schemas = sum(len(_json(tool.schema)) for tool in task.tools)
    calls = sum(len(_json({"name": call.name, "arguments": call.arguments})) + len(call.result) for call in entry.calls)
    return len(entry.question) + schemas + calls


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _offered(row: int, gold: set[str], functions: Sequence[str], distractors: int) -> list[str]:
    """Return the names of the offered functions in the package's order, which says nothing of the order of calls."""
    others = sorted(
        (name for name in functions if name not in gold),
        key=lambda name: hashlib.md5(f"{row} {name}".encode()).hexdigest(),
    )
    chosen = gold | set(others[:distractors])
    return [name for name in functions if name in chosen]


def _tool(schema: dict[str, Any], entry: Entry, characters: int | None) -> ToolSpec:
    name = schema["function"]["name"]
    tool = recorded_tool(
        schema,
        ((ToolCall(name, call.arguments), (ToolResult(call.result),)) for call in entry.calls if call.name == name),
    )
    return msgspec.structs.replace(tool, kind=KIND, data={**tool.data, "characters": characters})


FORMAT = PackageFormat(lambda selection, seed: tasks(selection))
