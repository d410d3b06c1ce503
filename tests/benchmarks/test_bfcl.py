"""BFCL's multi-turn categories: the real data, the real APIs in their processes, the package's checker beside ours."""

from __future__ import annotations

import asyncio
import functools
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker
from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_utils import execute_multi_turn_func_call

from rewright.benchmarks.bfcl import world as bfcl_world
from rewright.benchmarks.bfcl.world import CATEGORIES, check, gold
from rewright.cli.benchmark_recipes import benchmark_recipe
from rewright.core.errors import InputError
from rewright.core.records import Task, ToolCall, ToolResult, Trajectory, Turn
from rewright.core.statistics import proportion_interval
from rewright.credit import match, turn_rewards
from rewright.dialects import get_dialect
from rewright.judging import judge_trajectory
from rewright.judging.judges import reason_without_gold
from rewright.pipeline.run_directory import Run
from rewright.pipeline.runner import Pipeline
from rewright.reports.summary import report
from rewright.reports.table import table
from rewright.rollout.loop import Plan, Rollout
from rewright.rollout.settings import Limits
from rewright.tasks.loading import load_tasks
from rewright.tasks.schemas import record_problems, schema_problems
from rewright.tasks.validation import validate_tasks
from rewright.tools import FunctionTools
from support.chat_server import chat_server, says
from support.in_process import rewright
from support.scripted_engine import ScriptedEngine
from support.served import served

Call = tuple[str, dict[str, Any]]
Exchanges = list[list[list[Call]]]
AT_ONCE = 4


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return load_tasks("all", "bfcl-multi-turn")


def entry_of(task: Task) -> str:
    return str(task.metadata["entry"])


def official_entry(identity: str) -> dict[str, Any]:
    return bfcl_world.official_entry(identity)


def gold_exchanges(task: Task) -> Exchanges:
    return [[calls] if calls else [] for calls in gold(entry_of(task))]


def in_python(call: Call) -> str:
    name, arguments = call
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def official_verdict(identity: str, exchanges: Exchanges, key: str) -> dict[str, Any]:
    """What the package says of the same calls as Python text. `key` keeps its instances apart."""
    category = identity.removeprefix("multi_turn_").rpartition("_")[0]
    (right,) = [
        line["ground_truth"]
        for line in bfcl_world.read_lines(f"possible_answer/BFCL_v4_multi_turn_{category}.json")
        if line["id"] == identity
    ]
    texts = [[[in_python(call) for call in step] for step in exchange] for exchange in exchanges]
    found: dict[str, Any] = multi_turn_checker(texts, right, official_entry(identity), "", key)
    return found


def trajectory_of(task: Task, exchanges: Exchanges) -> Trajectory:
    """A trajectory with these calls, every exchange closed by a turn without any."""
    turns: list[Turn] = []
    for number, exchange in enumerate(exchanges):
        for step in exchange:
            calls = tuple(ToolCall(name, arguments) for name, arguments in step)
            turns.append(Turn("", calls=calls, results=tuple(ToolResult("") for _ in step)))
        follow_up = task.follow_ups[number] if number < len(task.follow_ups) else None
        turns.append(Turn("Done.", follow_up=follow_up))
    return Trajectory(id=task.id, task_id=task.id, stage="eval", index=0, turns=tuple(turns), stop_reason="no_answer")


def test_the_categories_in_turn(tasks: list[Task]) -> None:
    assert len(tasks) == len({task.id for task in tasks}) == 800
    assert [task.metadata["category"] for task in tasks[:5]] == [*CATEGORIES, "base"]
    assert {task.metadata["category"] for task in load_tasks("miss_func, base", "bfcl-multi-turn", 6)} == {
        "miss_func",
        "base",
    }
    assert not {problem for task in tasks for tool in task.all_tools for problem in schema_problems(tool.schema)}
    assert all(part.messages for task in tasks for part in task.follow_ups)
    # As published: the gold of four entries gives a text where the schema asks for an integer.
    assert sum(bool(list(record_problems(task))) for task in tasks) == 4


def test_a_function_that_comes_later_is_not_among_the_tools(tasks: list[Task]) -> None:
    task = tasks[1]
    assert entry_of(task) == "multi_turn_miss_func_0"
    assert "sort" not in [tool.name for tool in task.tools]
    assert [[tool.name for tool in part.tools] for part in task.follow_ups] == [[], [], ["sort"], []]
    assert task.follow_ups[2].messages[0]["content"].startswith("I have updated some more functions")


def test_mistakes_of_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="has no category 'basis': expected all, or some of base, miss_func"):
        load_tasks("basis", "bfcl-multi-turn")
    monkeypatch.delitem(sys.modules, "rewright.benchmarks.bfcl.world")
    monkeypatch.delattr("rewright.benchmarks.bfcl.world")
    monkeypatch.setitem(sys.modules, "bfcl_eval", None)
    with pytest.raises(InputError, match=r"pip install --no-deps bfcl-eval==2026\.3\.23 mpmath"):
        load_tasks("base", "bfcl-multi-turn")


async def test_gold_replays_in_our_tools_as_in_the_package_and_is_judged_right(tasks: list[Task]) -> None:
    factory = FunctionTools(wall_seconds=60.0)
    places = asyncio.Semaphore(AT_ONCE)

    async def replay(task: Task) -> list[list[str]]:
        async with places, factory.open(task.all_tools) as toolset:
            return [
                [(await toolset.call(ToolCall(name, arguments))).content for name, arguments in calls]
                for calls in gold(entry_of(task))
            ]

    try:
        replayed = await asyncio.gather(*(replay(task) for task in tasks))
    finally:
        await factory.close()
    for task, results in zip(tasks, replayed, strict=True):
        entry = official_entry(entry_of(task))
        texts = [[in_python(call) for call in calls] for calls in gold(entry_of(task))]
        settings = (entry["initial_config"], entry["involved_classes"], "replay", entry["id"])
        long = "long_context" in entry["id"]
        assert results == [execute_multi_turn_func_call(calls, *settings, long)[0] for calls in texts], task.id
    for task in tasks:
        verdict = judge_trajectory(task, trajectory_of(task, gold_exchanges(task)))
        assert verdict.correct, (task.id, verdict.reason)


def test_gold_is_paid_in_full(tasks: list[Task]) -> None:
    for task in tasks:
        rewards = match(task.gold.calls or (), task.gold.calls or ()).rewards_P
        assert rewards.tolist() == [1.0] * len(task.gold.calls or ()), task.id
        turns = [turn.calls for turn in trajectory_of(task, gold_exchanges(task)).turns]
        assert set(turn_rewards(turns, task.gold.calls).tolist()) <= {0.0, 1.0}


def changed(exchanges: Exchanges, change: str) -> Exchanges | None:
    """Gold with its last call dropped, its first two swapped, or the first value of its last call replaced."""
    copied = [[list(step) for step in exchange] for exchange in exchanges]
    for exchange in reversed(copied):
        for step in exchange:
            if change == "drop":
                step.pop()
                return copied
            if change == "swap" and len(step) > 1:
                step[0], step[1] = step[1], step[0]
                return copied
            if change == "value" and step[-1][1]:
                name, arguments = step[-1]
                step[-1] = (name, {**arguments, next(iter(arguments)): "nowhere at all"})
                return copied
    return None


@pytest.mark.parametrize("change", ["drop", "swap", "value"])
def test_changed_gold_gets_the_verdict_of_the_package_and_the_credit_of_the_formula(
    tasks: list[Task], change: str
) -> None:
    kinds = set()
    for task in tasks[::3]:
        exchanges = changed(gold_exchanges(task), change)
        if exchanges is None:
            continue
        ours, theirs = check(entry_of(task), exchanges), official_verdict(entry_of(task), exchanges, change)
        assert (ours["valid"], ours.get("error_type")) == (theirs["valid"], theirs.get("error_type")), task.id
        kinds.add(ours.get("error_type"))

        calls = [ToolCall(*call) for exchange in exchanges for step in exchange for call in step]
        rewards = match(calls, task.gold.calls or ()).rewards_P
        expected = np.ones(len(calls))
        if change == "value":
            (index,) = [
                n for n, (ours, right) in enumerate(zip(calls, task.gold.calls or (), strict=True)) if ours != right
            ]
            count = len(calls[index].arguments)
            expected[index] = (1 + 1 + (count - 1)) / (2 + count)  # name, all argument names, all values but one
        assert np.allclose(rewards, expected, rtol=0, atol=1e-12), task.id
        assert len(calls) == len(task.gold.calls or ()) - (change == "drop")
    assert "multi_turn:instance_state_mismatch" in kinds
    assert change != "drop" or "multi_turn:empty_turn_model_response" in kinds
    assert change != "swap" or None in kinds, "calls that do not depend on one another may change places"


def line(calls: Sequence[Call]) -> str:
    bodies = (json.dumps({"name": name, "arguments": arguments}) for name, arguments in calls)
    return "".join(f"<tool_call>{body}</tool_call>" for body in bodies)


async def test_a_model_that_writes_the_gold_calls_has_the_full_score(tasks: list[Task]) -> None:
    factory = FunctionTools(wall_seconds=60.0)
    limits = Limits(turns=21, tool_seconds=60.0, trajectory_tokens=None, trajectory_seconds=None)
    try:
        for task in tasks[:4]:
            script = []
            for calls in gold(entry_of(task)):
                script += [*(line([call]) for call in calls), "Is there anything else?"]
            engine = ScriptedEngine(script)
            rollout = Rollout(engine, get_dialect("hermes"), factory, limits=limits)
            trajectory = await rollout.run(Plan(id=task.id, task=task, stage="eval", index=0, seed=0))
            assert (trajectory.stop_reason, trajectory.failure) == ("no_answer", None)
            assert not any(result.error for result in trajectory.results)
            assert judge_trajectory(task, trajectory).correct, task.id
            offered = [len(request.tools) for request in engine.requests]
            assert offered[-1] - offered[0] == sum(len(part.tools) for part in task.follow_ups)
    finally:
        await factory.close()


async def test_calls_are_data(tasks: list[Task]) -> None:
    """Names reach documented methods only, values stay values, and each trajectory has a world of its own."""
    factory = FunctionTools(wall_seconds=60.0)
    code = "__import__('os').getpid()"
    bad = [
        ToolCall("_load_scenario", {"scenario": {}}),
        ToolCall("__init__", {}),
        ToolCall("eval", {"source": code}),
        ToolCall("cd", {"path": "document"}),
        ToolCall("cd", {"folder": {"a": [1]}}),
    ]
    try:
        async with factory.open(tasks[0].all_tools) as one, factory.open(tasks[0].all_tools) as other:
            results = [await one.call(call) for call in bad]
            assert [result.error.partition(":")[0] for result in results if result.error] == [
                "unknown_tool", "unknown_tool", "unknown_tool", "exception", "exception",
            ]  # fmt: skip
            await one.call(ToolCall("touch", {"file_name": "note"}))
            written = await one.call(ToolCall("echo", {"content": code, "file_name": "note"}))
            assert written.error is None
            assert json.loads((await one.call(ToolCall("cat", {"file_name": "note"}))).content) == {
                "file_content": code
            }
            assert "note" not in (await other.call(ToolCall("ls", {}))).content
    finally:
        await factory.close()
    with pytest.raises(NameError):
        bfcl_world.call({"entry": entry_of(tasks[0]), "method": "_load_scenario"}, scenario={})


async def test_arguments_that_would_take_forever_cost_the_call_and_the_verdict(tasks: list[Task]) -> None:
    task = next(task for task in tasks if any(tool.name == "logarithm" for tool in task.tools))
    endless = ("logarithm", {"value": 2.0, "base": 3.0, "precision": 10**9})
    factory = FunctionTools(wall_seconds=1.0)
    try:
        async with factory.open(task.all_tools) as toolset:
            assert (await toolset.call(ToolCall(*endless))).error == "timeout: no result after 1 s"
    finally:
        await factory.close()
    exchanges = gold_exchanges(task)
    exchanges[0] = [[endless], *exchanges[0]]
    verdict = judge_trajectory(task, trajectory_of(task, exchanges))
    assert (verdict.outcome, verdict.reason) == (0.0, "comparing takes more than 3 s")


async def test_a_call_that_ends_the_worker_takes_the_state_with_it(tasks: list[Task]) -> None:
    """The model reads an error and goes on in a fresh world, so its earlier calls are not replayed as if they held."""
    task = next(task for task in tasks if any(tool.name == "logarithm" for tool in task.tools))
    endless = ToolCall("logarithm", {"value": 2.0, "base": 3.0, "precision": 10**9})
    factory = FunctionTools(wall_seconds=1.0)
    try:
        async with factory.open(task.all_tools) as toolset:
            lost = await toolset.call(endless)
    finally:
        await factory.close()
    whole = trajectory_of(task, gold_exchanges(task))
    turn = Turn("", calls=(endless,), results=(lost,))
    first = msgspec.structs.replace(whole, turns=(turn, *whole.turns))
    assert judge_trajectory(task, first).correct  # nothing was lost
    small = ToolCall("logarithm", {"value": 2.0, "base": 3.0, "precision": 3})
    read = Turn("", calls=(small,), results=(ToolResult("0.631"),))
    reading = msgspec.structs.replace(whole, turns=(read, turn, *whole.turns))
    assert judge_trajectory(task, reading).correct  # what came before has changed nothing
    later = msgspec.structs.replace(whole, turns=(*whole.turns[:1], turn, *whole.turns[1:]))
    reason = "the tools lost their state: logarithm: timeout: no result after 1 s"
    verdict = judge_trajectory(task, later)
    assert (verdict.outcome, verdict.reason) == (0.0, reason)
    assert reason_without_gold(task, reason) == reason


def test_what_changes_the_state_of_the_apis(tasks: list[Task]) -> None:
    """`cd` moves the working directory, which the official comparison of states leaves out."""
    entry = next(entry_of(task) for task in tasks if any(tool.name == "cd" for tool in task.tools))
    folders = bfcl_world.Worlds(bfcl_world.official_entry(entry)).run("ls", {})
    folder = next(name for name in json.loads(folders)["current_directory_content"] if "." not in name)
    changes = functools.partial(bfcl_world.changes_state, entry)
    assert not changes([])
    assert not changes([("ls", {}), ("pwd", {}), ("find", {"path": ".", "name": "x"}), ("rm", {"file_name": "none"})])
    assert changes([("ls", {}), ("cd", {"folder": folder})])
    assert not changes([("cd", {"folder": folder}), ("cd", {"folder": ".."})])
    assert changes([("touch", {"file_name": "new.txt"})])
    assert changes([("cd", {"folder": folder}), ("touch", {"file_name": "new.txt"}), ("cd", {"folder": ".."})])


def test_reading_changes_no_state_but_that_of_random_numbers(tasks: list[Task]) -> None:
    """Calls that only read, by their names, in one task of every combination of APIs."""
    combinations = {tuple(sorted(tool.name for tool in task.all_tools)): task for task in tasks}
    found = {
        tool.name: bfcl_world.changes_state(entry_of(task), [(tool.name, {})])
        for task in combinations.values()
        for tool in task.all_tools
        if tool.name.startswith(("get_", "list_", "view_", "show_", "pwd", "ls", "display"))
    }
    drawn = {"get_current_speed", "get_outside_temperature_from_google"}  # from a generator of random numbers
    assert {name for name, changes in found.items() if changes} == drawn
    assert len(found) > 20


def test_a_call_beyond_the_limit_of_calls_was_not_made(tasks: list[Task]) -> None:
    task = tasks[0]
    whole = trajectory_of(task, gold_exchanges(task))
    number = max(number for number, turn in enumerate(whole.turns) if turn.calls)
    last = msgspec.structs.replace(whole.turns[number], results=())
    limited = msgspec.structs.replace(whole, turns=(*whole.turns[:number], last), stop_reason="tool_limit")
    made = msgspec.structs.replace(whole, turns=whole.turns[: number + 1])
    assert [judge_trajectory(task, one).correct for one in (made, limited)] == [True, False]


def test_a_trajectory_that_ends_early_is_not_right(tasks: list[Task]) -> None:
    task = tasks[0]
    verdict = judge_trajectory(task, trajectory_of(task, gold_exchanges(task)[:-1]))
    assert (verdict.outcome, verdict.reason[:27]) == (0.0, "multi_turn:empty_turn_model")
    whole = trajectory_of(task, gold_exchanges(task))
    cut = Trajectory(id="x", task_id=task.id, stage="eval", index=0, turns=whole.turns[:1], stop_reason="token_limit")
    assert judge_trajectory(task, cut).reason.endswith("the model reached 1 of 4 user messages")


def test_validation_names_what_is_wrong_with_the_published_gold(tasks: list[Task]) -> None:
    odd = [task for task in tasks if list(record_problems(task))][:1]
    found = validate_tasks([*tasks[:2], *odd], level="process", wall_seconds=60.0)
    assert found.executed
    assert [(finding.kind, finding.tool) for finding in found.findings] == [("gold-against-tools", "close_ticket")]


def test_intervals_take_the_four_variants_of_a_conversation_as_one(tmp_path: Path) -> None:
    """Twelve tasks are three conversations, so that no number of the table has the interval of twelve tasks."""
    with served(lambda: chat_server(lambda body: says("No idea."))) as url:
        engine = ["model.engine=openai", f"model.base_url={url}/v1", "dialect=chat", "--model", "m"]
        done = rewright(tmp_path, "eval", "--benchmark", "bfcl-multi-turn", "--limit", "12", *engine, "--run", "one")
    assert done.code == 0, done.errors
    row = json.loads((tmp_path / "one" / "metrics.jsonl").read_text())
    high = proportion_interval(0, 3).high
    assert {name: part["high"] for name, part in row["categories"].items()} == dict.fromkeys(CATEGORIES, high)
    assert (row["high"], row["totals"]["multi-turn"]["high"]) == (high, pytest.approx(high))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    compared = rewright(tmp_path, "compare", "one", "two", "--json")
    (found,) = json.loads(compared.output)["stages"]
    assert found["difference"]["tasks"] == 12


def test_the_variants_of_a_conversation_are_one_cluster(tasks: list[Task]) -> None:
    clusters: dict[str, list[Task]] = {}
    for task in tasks:
        clusters.setdefault(task.metadata["cluster"], []).append(task)
    assert len(clusters) == 200
    for variants in clusters.values():
        assert {task.metadata["category"] for task in variants} == set(CATEGORIES)
        apis = [{tool.schema["function"]["name"] for tool in task.all_tools} for task in variants]
        assert all(one == apis[0] for one in apis)


@pytest.mark.needs_torch
def test_evaluating_a_model_reports_every_category(tmp_path: Path) -> None:
    recipe = benchmark_recipe("bfcl-multi-turn", "pico", 3, ["limits.turn_tokens=2", "eval.tasks.path=base,miss_func"])
    run = Run.create(tmp_path / "run", recipe, resume=False)
    Pipeline(run).run_all()
    found = report(run)
    (row,) = found["stages"]
    assert {name: part["trajectories"] for name, part in row["categories"].items()} == {"base": 2, "miss_func": 1}
    assert (row["success"], row["category_mean"], row["failures"], row["stops"]) == (0.0, 0.0, 0, {"token_limit": 3})
    assert "  miss_func: 0.0% [0.0, 79.3] of 1; floor 0.0%, ceiling 100.0%\n  mean of the categories: 0.0%" in table(
        found
    )
    with pytest.raises(
        InputError,
        match="--benchmark: unknown benchmark 'bfcl-v3': did you mean 'bfcl'",
    ):
        benchmark_recipe("bfcl-v3", "pico", None)
