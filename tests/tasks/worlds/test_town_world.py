"""The embedded world: gold that is right, splits that share nobody, tasks that only the tools can solve."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator

import msgspec
import pytest
from jsonschema import Draft202012Validator

from rewright.core.errors import InputError
from rewright.core.records import Task, ToolCall, Trajectory
from rewright.judging import judge_trajectory
from rewright.tasks.worlds.town import (
    CACHED,
    NUMBERS,
    PEOPLE_RELATIONS,
    PROFILES,
    SPLITS,
    Profile,
    calculate,
    generate,
    look_up,
    plan_of,
    split_of,
)
from rewright.tools import FunctionTools

CASES = [
    ("train", "short"), ("train", "standard"), ("heldout", "standard"), ("heldout", "cached"), ("long", "long"),
    ("long", "all"),
]  # fmt: skip


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return [task for split, profile in CASES for task in generate(split, 60, seed=3, profile=profile)]


@pytest.fixture
async def tools() -> AsyncIterator[FunctionTools]:
    factory = FunctionTools(level="process", wall_seconds=20.0)
    yield factory
    await factory.close()


def people(task: Task) -> set[str]:
    """Everybody who occurs in a table of the task's tools."""
    names: set[str] = set()
    for spec in task.tools:
        table = (spec.data or {}).get("table", {})
        names |= set(table) | {value for value in table.values() if isinstance(value, str)}
    return names


async def test_gold_calls_run_and_give_the_gold_outputs_and_answer(tasks: list[Task], tools: FunctionTools) -> None:
    chosen = [task for split, profile in CASES for task in generate(split, 8, seed=5, profile=profile)]
    assert {task.metadata["family"] for task in chosen} == {"chain", "arithmetic", "parallel", "recover"}
    for task in chosen:
        assert task.gold.answers
        outputs: dict[str, list[str]] = {}
        async with tools.open(task.tools) as toolset:
            for call in task.gold.calls or ():
                result = await toolset.call(call)
                assert result.error is None, (task.id, call, result)
                outputs.setdefault(call.name, []).append(result.content)
        assert outputs == task.gold.outputs
        last = [contents[-1] for contents in outputs.values()]
        if task.metadata["family"] == "parallel":
            assert task.gold.answers == (", ".join(next(iter(outputs.values()))),)
        else:
            assert task.gold.answers[0] in last


def test_every_gold_answer_is_judged_right_and_another_one_wrong(tasks: list[Task]) -> None:
    for task, other in zip(tasks, [*tasks[1:], tasks[0]], strict=True):
        golds = task.gold.answers or ()
        for answer, right in ((golds[0], True), ((other.gold.answers or ("",))[0] + "0", False)):
            attempt = Trajectory(
                id="x", task_id=task.id, stage="x", index=0, turns=(), answer=answer, stop_reason="answered"
            )
            assert judge_trajectory(task, attempt).correct == right


def test_the_splits_share_nobody(tasks: list[Task]) -> None:
    seen: dict[str, set[str]] = {split: set() for split in SPLITS}
    for task in tasks:
        named = people(task)
        assert {split_of(name) for name in named} == {task.split}
        seen[task.split] |= named
    assert all(len(names) > 100 for names in seen.values())
    assert not seen["train"] & seen["heldout"]
    assert not seen["train"] & seen["long"]
    assert not seen["heldout"] & seen["long"]


def test_a_task_does_not_depend_on_how_many_are_drawn() -> None:
    assert list(generate("train", 12, seed=1))[:5] == list(generate("train", 5, seed=1))
    assert next(iter(generate("train", 1, seed=1))) != next(iter(generate("train", 1, seed=2)))
    ids = [task.id for split in SPLITS for seed in (0, 1) for task in generate(split, 20, seed=seed)]
    assert len(set(ids)) == len(ids)


def test_tasks_are_the_same_in_every_process() -> None:
    program = (
        "import hashlib, msgspec; from rewright.tasks.worlds.town import generate;"
        "print(hashlib.sha256(msgspec.json.encode(list(generate('heldout', 30)))).hexdigest())"
    )
    environment = {"PYTHONHASHSEED": "12345", "PATH": ""}
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    own = hashlib.sha256(msgspec.json.encode(list(generate("heldout", 30)))).hexdigest()
    assert other.stdout.strip() == own


def test_schemas_are_valid_and_names_unique(tasks: list[Task]) -> None:
    for task in tasks[::10]:
        names = [tool.name for tool in task.tools]
        assert len(set(names)) == len(names)
        for tool in task.tools:
            Draft202012Validator.check_schema(tool.schema["function"]["parameters"])
        schemas = {tool.name: tool.schema["function"]["parameters"] for tool in task.tools}
        for call in task.gold.calls or ():
            Draft202012Validator(schemas[call.name]).validate(call.arguments)


def test_there_are_tools_that_are_not_needed(tasks: list[Task]) -> None:
    for task in tasks:
        needed = {call.name for call in task.gold.calls or ()}
        moved = sum(bool((tool.data or {}).get("moved")) for tool in task.tools)
        assert len(task.tools) - len(needed) - moved >= 2, task.id


def test_the_order_of_the_tools_tells_nothing(tasks: list[Task]) -> None:
    first = Counter(
        next(index for index, tool in enumerate(task.tools) if tool.name == (task.gold.calls or ())[0].name) == 0
        for task in tasks
    )
    assert first[False] > 2 * first[True]


def test_every_step_uses_what_the_one_before_returned(tasks: list[Task]) -> None:
    """Nobody can call ahead: in a chain, each name but the first is a result."""
    for task in tasks:
        if task.metadata["family"] not in ("chain", "recover"):
            continue
        results = [contents.copy() for contents in (task.gold.outputs or {}).values()]
        names = [next(iter(call.arguments.values())) for call in task.gold.calls or ()]
        assert names[0] in task.messages[-1]["content"]
        returned = {content for contents in results for content in contents}
        assert set(names[1:]) <= returned


def test_plans_are_the_gold_calls_in_steps(tasks: list[Task]) -> None:
    for task in tasks:
        steps = plan_of(task)
        assert tuple(call for step in steps for call in step) == task.gold.calls
        assert [len(step) for step in steps] == task.metadata["steps"]
        parallel = task.metadata["family"] == "parallel"
        assert all(len(step) > 1 for step in steps) if parallel else all(len(step) == 1 for step in steps)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_draws_what_it_says(name: str) -> None:
    profile = PROFILES[name]
    drawn = list(generate("train", 150, profile=name))
    assert {task.metadata["family"] for task in drawn} == set(profile.families)
    relations = {*PEOPLE_RELATIONS[: profile.relations], *NUMBERS}
    for task in drawn:
        chain = task.metadata["family"] in ("chain", "recover")
        if chain:
            assert task.metadata["hops"] in profile.hops
            assert len(task.gold.calls or ()) == task.metadata["hops"]
        fields = {tool.name.removesuffix(CACHED).partition("_")[2] for tool in task.tools if "_" in tool.name}
        assert fields <= relations
    kinds = {task.metadata["family"]: 0 for task in drawn}
    for task in drawn:
        kinds[task.metadata["family"]] += 1
    for family, weight in profile.families.items():
        assert abs(kinds[family] / len(drawn) - weight / sum(profile.families.values())) < 0.15


def test_a_profile_of_ones_own() -> None:
    only = Profile(families={"parallel": 1.0}, hops={3: 1.0}, styles=(2,), relations=1, distractors=(0, 0))
    for task in generate("train", 20, profile=only):
        assert {tool.name.partition("_")[0] for tool in task.tools} == {"find"}
        assert len(task.tools) == 1
        assert len(task.gold.calls or ()) == 3


async def test_a_tool_that_moved_says_where(tools: FunctionTools) -> None:
    task = next(iter(generate("train", 1, profile=Profile(families={"recover": 1.0}, hops={3: 1.0}))))
    old = next(tool for tool in task.tools if (tool.data or {}).get("moved"))
    new = old.data["moved"]
    assert new in {call.name for call in task.gold.calls or ()}
    assert old.name not in {call.name for call in task.gold.calls or ()}
    call = next(call for call in task.gold.calls or () if call.name == new)
    async with tools.open(task.tools) as toolset:
        refused = await toolset.call(ToolCall(old.name, call.arguments))
        assert refused.error is not None
        assert f"moved, use {new}" in refused.content
        assert (await toolset.call(ToolCall(new, call.arguments))).error is None


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"person": "Zed"}, LookupError),
        ({"person": 3}, LookupError),
        ({"person": ["Kalo"]}, LookupError),
        ({"name": "Kalo"}, TypeError),
        ({}, TypeError),
        ({"person": "Kalo", "more": 1}, TypeError),
    ],
)
def test_look_up_refuses_what_it_cannot_answer(arguments: dict[str, object], error: type[Exception]) -> None:
    data = {"parameter": "person", "table": {"Kalo": 36}, "moved": None}
    assert look_up(data, person="Kalo") == "36"
    with pytest.raises(error):
        look_up(data, **arguments)


def test_the_calculator() -> None:
    results = [calculate({"operation": operation}, a=7, b=5) for operation in ("add", "subtract", "multiply")]
    assert results == ["12", "2", "35"]
    assert calculate({"operation": "subtract"}, a=5, b=7.5) == "-2.5"
    for wrong in ({"a": "7", "b": 5}, {"a": True, "b": 5}, {"a": 7}, {"a": 7, "b": 5, "c": 1}):
        with pytest.raises(TypeError):
            calculate({"operation": "add"}, **wrong)


def test_unknown_names_are_one_clear_line() -> None:
    with pytest.raises(InputError, match="unknown world split 'test': expected one of train, heldout, long"):
        next(generate("test", 1))
    with pytest.raises(InputError, match="unknown world profile 'easy': expected one of short"):
        next(generate("train", 1, profile="easy"))


def test_a_cache_answers_like_its_tool_or_is_out_of_date() -> None:
    right = wrong = served = lookups = 0
    for task in generate("heldout", 100, seed=4, profile="cached"):
        specs = {spec.name: spec for spec in task.tools}
        for call in task.gold.calls or ():
            assert not call.name.endswith(CACHED)
            data = specs[call.name].data or {}
            if "table" not in data or call.name.split("_")[0] not in ("get", "fetch"):
                continue
            lookups += 1
            cache = specs.get(call.name + CACHED)
            if cache is not None:
                served += 1
                same = look_up(cache.data or {}, **call.arguments) == look_up(data, **call.arguments)
                right, wrong = right + same, wrong + (not same)
    assert served / lookups == pytest.approx(PROFILES["cached"].cached, abs=0.1)
    assert wrong / (right + wrong) == pytest.approx(PROFILES["cached"].outdated, abs=0.12)


def test_without_caches_nothing_is_drawn_for_them() -> None:
    never = msgspec.structs.replace(PROFILES["standard"], cached=0.0, outdated=1.0)
    named = list(generate("train", 30, seed=9, profile=PROFILES["standard"]))
    assert list(generate("train", 30, seed=9, profile=never)) == named
    assert not any(spec.name.endswith(CACHED) for task in named for spec in task.tools)
