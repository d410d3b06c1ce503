"""Training tasks made out of BFCL's training rows, by the package's own checker: gold calls and old values."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rewright.benchmarks.bfcl.derived import DERIVED, MOST_CHARACTERS
from rewright.benchmarks.bfcl.split import split
from rewright.core.errors import InputError
from rewright.core.records import Task, ToolCall, Trajectory, Turn
from rewright.judging import judge_trajectory
from rewright.recipe.loader import load_recipe
from rewright.tasks.from_recipe import load_recipe_tasks
from rewright.tasks.loading import load_tasks
from rewright.tasks.validation import validate_file
from support import in_process


@pytest.fixture(scope="module")
def derived() -> dict[str, list[Task]]:
    return {name: load_tasks(name, "bfcl", seed=3) for name in DERIVED}


@pytest.fixture(scope="module")
def training() -> dict[str, Task]:
    return {task.metadata["entry"]: task for task in load_tasks("python:train", "bfcl")}


def right(task: Task, *calls: ToolCall) -> bool:
    turns = (Turn("", calls=calls),)
    one = Trajectory(id="t", task_id=task.id, stage="eval", index=0, turns=turns, stop_reason="called")
    return judge_trajectory(task, one).correct


def rows_of(task: Task) -> list[str]:
    return list(task.metadata["entry"].split("+"))


def test_the_checker_accepts_the_gold_calls_and_no_shorter_list(derived: dict[str, list[Task]]) -> None:
    for name, tasks in derived.items():
        assert len(tasks) > 500, name
        for task in tasks[::12]:  # the checker runs in a worker: 700 calls of it take seconds, 4,000 do not
            calls = task.gold.calls or ()
            assert right(task, *calls), task.id
            assert right(task, *calls[::-1]) or "parallel" not in task.metadata["category"], task.id
            assert not right(task, *calls[:-1]), task.id


def test_a_varied_row_refuses_the_old_values(derived: dict[str, list[Task]], training: dict[str, Task]) -> None:
    accepted = []
    for task in derived["python:varied"][::6]:
        row = training[task.metadata["entry"]]
        assert task.tools == row.tools
        assert task.messages != row.messages
        if right(task, *(row.gold.calls or ())):
            accepted.append(task.id)
    assert not accepted


def test_new_values_are_in_the_question(derived: dict[str, list[Task]], training: dict[str, Task]) -> None:
    def values(task: Task) -> list[str]:
        return [str(value) for call in task.gold.calls or () for value in call.arguments.values()]

    for task in derived["python:varied"]:
        new = [value for value in values(task) if value not in values(training[task.metadata["entry"]])]
        question = task.messages[0]["content"]
        for value in new:
            assert value in question or value.removesuffix(".0") in question, (task.id, value)


def test_only_training_rows_are_used_and_a_joined_task_is_short(derived: dict[str, list[Task]]) -> None:
    train = {identity for identities in split("python:train").values() for identity in identities}
    for task in derived["python:varied"] + derived["python:joined"]:
        assert set(rows_of(task)) <= train
        assert task.split == "train"
        names = [tool.name for tool in task.tools]
        assert len(set(names)) == len(names)
    for task in derived["python:joined"]:
        assert len(rows_of(task)) in (2, 3)
        written = sum(len(json.dumps(tool.schema)) for tool in task.tools) + len(task.messages[0]["content"])
        assert written < MOST_CHARACTERS * 2


def test_the_seed_decides(derived: dict[str, list[Task]]) -> None:
    for name, tasks in derived.items():
        assert load_tasks(name, "bfcl", seed=3) == tasks
        other = load_tasks(name, "bfcl", seed=4)
        assert [task.messages for task in other] != [task.messages for task in tasks]
        assert not {task.id for task in other} & {task.id for task in tasks}  # both can be in one run


def test_the_seed_of_a_recipe_is_that_of_the_tasks(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("tasks: {format: bfcl, path: 'python:varied', limit: 9, seed: 3}")
    settings = load_recipe(path).tasks
    assert list(load_recipe_tasks(settings)) == load_tasks("python:varied", "bfcl", 9, seed=3)
    assert load_recipe(path, ["tasks.seed=4"]).tasks.seed == 4


def test_a_task_is_stored_and_judged_as_it_was(derived: dict[str, list[Task]]) -> None:
    task = derived["python:joined"][0]
    again = msgspec.json.decode(msgspec.json.encode(task), type=Task)
    assert again == task
    assert right(again, *(again.gold.calls or ()))


METADATA: dict[str, tuple[dict[str, Any], str]] = {
    "a text": ({"possible": "abc"}, "metadata.possible is 'abc': expected a list of right calls"),
    "no answer": ({"possible": []}, "metadata.possible is []"),
    "no lists": ({"possible": [{"sum": {"a": 1}}]}, "metadata.possible is [{'sum'"),
    "another function": ({"possible": [{"none": {"a": [1]}}]}, "metadata.possible is [{'none'"),
    "an unknown entry": ({"entry": "parallel_90817"}, "BFCL has no entry 'parallel_90817' with possible answers"),
    "an entry without answers": ({"entry": "irrelevance_1"}, "BFCL has no entry 'irrelevance_1' with possible answers"),
    "renamed tools": ({"renamed_tools": ["a"]}, "metadata.renamed_tools is ['a']"),
}


@pytest.mark.parametrize(("changes", "words"), METADATA.values(), ids=METADATA)
def test_malformed_metadata_are_refused_instead_of_judged_as_wrong(
    tmp_path: Path, derived: dict[str, list[Task]], changes: dict[str, Any], words: str
) -> None:
    task = derived["python:joined"][0]
    bad = msgspec.structs.replace(task, metadata=task.metadata | changes)
    (tmp_path / "t.jsonl").write_bytes(msgspec.json.encode(bad) + b"\n")
    (tmp_path / "r.yaml").write_text("model: pico\ntasks: {path: t.jsonl}\nstages: [synth, judge]\n")
    in_process.rewright(tmp_path, "run", "r.yaml", "--dry-run").refused(words)
    assert [
        finding.kind for finding in validate_file(tmp_path / "t.jsonl").findings if finding.severity == "error"
    ] == ["judge-data"]
    with pytest.raises(InputError, match=re.escape(words)):
        right(bad, *(task.gold.calls or ()))


def test_a_multi_turn_entry_that_the_package_does_not_have_is_refused() -> None:
    task = load_tasks("base", "bfcl-multi-turn", 1)[0]
    bad = msgspec.structs.replace(task, metadata=task.metadata | {"entry": "multi_turn_base_90817"})
    with pytest.raises(InputError, match="BFCL has no multi-turn entry 'multi_turn_base_90817'"):
        right(bad, ToolCall("ls", {}))
