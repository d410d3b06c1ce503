"""Task files: our own JSON Lines, and the published formats of `rewright.benchmarks`, by name.

`load_tasks("tasks.jsonl")` · `load_tasks("test.parquet", "ftrl")` · `load_tasks("hf:openai/gsm8k", "gsm8k")` ·
`load_tasks("leg_counting:100", "reasoning_gym")` · `load_tasks("all", "bfcl-multi-turn")`. Every mistake in a file is
one `InputError` line with file, line or row, key, and what was expected. What needs the tools to run is checked by
`rewright.tasks.validation`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from rewright.benchmarks.bfcl import tasks as bfcl
from rewright.benchmarks.ftrl import tasks as ftrl
from rewright.benchmarks.questions import tasks as questions
from rewright.benchmarks.reasoning_gym import tasks as gym
from rewright.benchmarks.toolhop import tasks as toolhop
from rewright.core.errors import InputError
from rewright.core.records import FollowUp, Gold, Task, ToolCall, ToolSpec
from rewright.tasks.rows import Row, read_rows

__all__ = ["FORMATS", "Format", "Loaded", "check_tasks", "iterate_tasks", "load_tasks", "save_tasks"]


class Format(msgspec.Struct, frozen=True):
    """A published format: how a row becomes a task (None: the row is left out), and where the set is published."""

    to_task: Callable[[Row], Task | None]
    columns: tuple[str, ...] = ()
    hub: tuple[str, str | None, str] | None = None
    """Hugging Face id, configuration and split, for `hf:` without an id."""


_KEYS: dict[type, tuple[str, ...]] = {
    kind: kind.__struct_fields__ for kind in (Task, FollowUp, Gold, ToolSpec, ToolCall)
}


ROLES = ("system", "developer", "user", "assistant", "tool")
"""Who may have written a message, in the words of chat templates and servers."""


def _unknown_keys(row: Row, value: Any, kind: type, path: str) -> None:
    """Refuse a key that the record does not have: msgspec would drop it, and a typo would stay unseen."""
    for key in value if isinstance(value, dict) else ():
        if key not in _KEYS[kind]:
            near = difflib.get_close_matches(str(key), _KEYS[kind], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(_KEYS[kind])}"
            raise row.fail(f"unknown key {path + str(key)!r}; {hint}")


def _own(row: Row) -> Task:
    values = row.values
    _unknown_keys(row, values, Task, "")
    gold = values.get("gold")
    _unknown_keys(row, gold, Gold, "gold.")
    calls = gold.get("calls") if isinstance(gold, dict) else None
    for number, call in enumerate(calls if isinstance(calls, list) else []):
        _unknown_keys(row, call, ToolCall, f"gold.calls[{number}].")
    tools = values.get("tools")
    for number, tool in enumerate(tools if isinstance(tools, list) else []):
        _unknown_keys(row, tool, ToolSpec, f"tools[{number}].")
    follow_ups = values.get("follow_ups")
    for number, follow_up in enumerate(follow_ups if isinstance(follow_ups, list) else []):
        _unknown_keys(row, follow_up, FollowUp, f"follow_ups[{number}].")
    try:
        task = msgspec.convert(values, Task)
    except msgspec.ValidationError as problem:
        raise row.fail(str(problem).replace(" - at `$.", " at `").replace(" - at `$", " at `")) from None
    if not task.id:
        raise row.fail("'id' is empty, expected a text")
    said = [("'messages'", task.messages)]
    said += [(f"'follow_ups'[{number}].messages", part.messages) for number, part in enumerate(task.follow_ups)]
    for key, messages in said:
        if not messages:
            raise row.fail(f"{key} is empty, expected at least one message")
        for number, message in enumerate(messages):
            if not isinstance(message.get("role"), str):
                raise row.fail(f"{key}[{number}] has no role, expected for instance 'user'")
            if message["role"] not in ROLES:
                raise row.fail(f"{key}[{number}] has the role {message['role']!r}, expected one of {', '.join(ROLES)}")
            if not isinstance(message.get("content"), str) and not message.get("tool_calls"):
                raise row.fail(f"{key}[{number}] has no content, expected a text")
    for number, tool in enumerate(task.toolbox):
        # A bare {name, parameters}, which other formats have, is no schema here.
        ftrl.function_schema(row, f"'tools'[{number}].schema", {"function": None, **tool.schema})
    return task


_FLASHRAG = "RUC-NLPIR/FlashRAG_datasets"

FORMATS: dict[str, Format] = {
    "rewright": Format(_own, ("id", "messages")),
    "ftrl": Format(ftrl.to_task, ftrl.COLUMNS),
    "toolhop": Format(toolhop.to_task, toolhop.COLUMNS, ("bytedance-research/ToolHop", None, "train")),
    "gsm8k": Format(questions.gsm8k, ("question", "answer"), ("openai/gsm8k", "main", "test")),
    "math": Format(questions.math_problem, ("problem",), ("HuggingFaceH4/MATH-500", None, "test")),
    "aime24": Format(questions.aime, (), ("HuggingFaceH4/aime_2024", None, "train")),
    "aime25": Format(questions.aime, (), ("math-ai/aime25", None, "test")),
    "amc23": Format(questions.amc23, (), ("math-ai/amc23", None, "test")),
    "hotpotqa": Format(questions.hotpotqa, ("question",), ("hotpotqa/hotpot_qa", "distractor", "validation")),
    "2wikimultihopqa": Format(questions.multihop, ("question",), (_FLASHRAG, "2wikimultihopqa", "dev")),
    "musique": Format(questions.musique, ("question",), (_FLASHRAG, "musique", "dev")),
    "bamboogle": Format(questions.bamboogle, (), (_FLASHRAG, "bamboogle", "test")),
    "autotraj": Format(questions.autotraj, ("question",)),
    "hle": Format(questions.hle, ("question", "answer"), ("cais/hle", None, "test")),
}


GENERATED = ("reasoning_gym", bfcl.FORMAT)
"""Formats whose tasks come from a package instead of a file: they are as the package has them, whatever it says."""


def load_tasks(
    path: Path | str,
    format: str | None = None,  # noqa: A002
    limit: int | None = None,
    *,
    check: bool = True,
    seed: int = 0,
    judges: Sequence[str] | None = None,
) -> list[Task]:
    """The tasks of a file, at most the first `limit`.

    `format` is a key of `FORMATS` or one of `GENERATED`; None means our own. `path` may be `hf:<id>[:<split>]`. With
    `check`, the gold of a file must fit the tools, and with `judges` its judges must be among them (see `check_tasks`).
    `seed` is that of reasoning-gym's sets, where the path names none. Raises InputError for the first mistake.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}, expected at least 1")
    tasks: list[Task] = []
    places: list[str] = []
    for loaded in iterate_tasks(path, format, seed):
        if isinstance(loaded.task, InputError):
            raise loaded.task
        tasks.append(loaded.task)
        places.append(loaded.place)
        if len(tasks) == limit:
            break
    if not tasks:
        raise InputError(f"{path}: holds no task in the format {format or 'rewright'!r}")
    if check and format not in GENERATED:
        check_tasks(tasks, places, judges=judges)
    return tasks


class Loaded(msgspec.Struct, frozen=True):
    """What one row of a file is: a task, or what is wrong with it. `row` counts from 0, `place` names it."""

    row: int
    place: str
    task: Task | InputError


def iterate_tasks(
    path: Path | str,
    format: str | None = None,  # noqa: A002
    seed: int = 0,
) -> Iterator[Loaded]:
    """Every row of a file. A mistake in a row is its `task`; a file that can't be read raises InputError."""
    name = format or "rewright"
    if name == "reasoning_gym":
        yield from (Loaded(row, f"{path}: task {row}", task) for row, task in enumerate(_gym(str(path), seed)))
        return
    if name == bfcl.FORMAT:
        yield from (Loaded(row, f"{name}: task {row}", task) for row, task in enumerate(bfcl.tasks(str(path))))
        return
    if name not in FORMATS:
        known = (*FORMATS, *GENERATED)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
        raise InputError(f"unknown task format {name!r}; {hint}")
    chosen = FORMATS[name]
    for row in _hub_rows(str(path), chosen) if str(path).startswith("hf:") else read_rows(path, chosen.columns):
        try:
            task = chosen.to_task(row) if row.problem is None else InputError(row.problem)
        except InputError as problem:
            task = problem
        if task is not None:
            yield Loaded(row.index, row.place, task)


def check_tasks(
    tasks: Sequence[Task], places: Sequence[str] | None = None, *, judges: Sequence[str] | None = None
) -> None:
    """Raise InputError for the first mistake that needs nothing but the records to be seen.

    That is: an id used twice, a tool name used twice in one task, a gold call to an unknown tool, a gold argument
    against the tool's schema, expected outputs of an unknown tool, a target that no file may name. With `judges`, the
    user's own packages: a judge that is neither ours nor a function of one of these.
    """
    from rewright.judging.judges import check_judge
    from rewright.tasks.schemas import record_problems, target_problems

    first: dict[str, int] = {}
    for number, task in enumerate(tasks):
        place = places[number] if places else f"task {task.id}"
        if task.id in first:
            earlier = places[first[task.id]] if places else f"task number {first[task.id]}"
            raise InputError(f"{place}: the id {task.id!r} is used already by {earlier}; expected one of its own")
        first[task.id] = number
        for _, message in (*target_problems(task), *record_problems(task)):
            raise InputError(f"{place}: {message}")
        if judges is not None:
            try:
                check_judge(task.judge, judges)
            except InputError as problem:
                raise InputError(f"{place}: {problem}") from None


def save_tasks(path: Path | str, tasks: Sequence[Task]) -> None:
    """Write tasks in our own format, one JSON object a line."""
    encoder = msgspec.json.Encoder()
    Path(path).write_bytes(b"".join(encoder.encode(task) + b"\n" for task in tasks))


def _gym(path: str, seed: int) -> list[Task]:
    dataset, *numbers = path.split(":")
    if len(numbers) > 2 or not all(number.isdecimal() and int(number) < 2**31 for number in numbers):
        raise InputError(
            f"{path}: expected <set>, <set>:<number of tasks> or <set>:<number of tasks>:<seed>, for instance "
            "leg_counting:100"
        )
    size, seed = int(numbers[0]) if numbers else 100, int(numbers[1]) if len(numbers) == 2 else seed
    if size < 1:
        raise InputError(f"{path}: the number of tasks is {size}, expected at least 1")
    return gym.generate(dataset, size, seed)


def _hub_rows(path: str, chosen: Format) -> Iterator[Row]:
    """Rows of a data set of the Hugging Face hub (package `datasets`, from its cache or online)."""
    identity, _, split = path.removeprefix("hf:").partition(":")
    configuration = None
    if chosen.hub is not None and identity in ("", chosen.hub[0]):
        identity, configuration = chosen.hub[0], chosen.hub[1]
        split = split or chosen.hub[2]
    if not identity:
        raise InputError(f"{path}: expected hf:<owner>/<name>, this format has no default")
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(f"{path}: reading from the hub needs the package datasets: pip install datasets") from None
    try:
        rows = load_dataset(identity, configuration, split=split or "test")
    except Exception as problem:
        lines = str(problem).splitlines() or [type(problem).__name__]
        raise InputError(f"{path}: could not be loaded from the hub: {lines[0]}") from problem
    for index, values in enumerate(rows):
        yield Row(index, f"{path}: row {index}", json.loads(json.dumps(values, default=str)))
