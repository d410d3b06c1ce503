"""ComplexFuncBench: the real data where they are installed (`make benchmark-data`), through our own rollout loop."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import mmap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from rewright.benchmarks.complexfuncbench.data import LOOKUPS, recordings, resolved
from rewright.benchmarks.complexfuncbench.progress import state_keys, turn_progress
from rewright.benchmarks.complexfuncbench.protocol import BENCHMARK
from rewright.benchmarks.complexfuncbench.scripted import GoldWithErrors, gold_with_errors
from rewright.benchmarks.complexfuncbench.shortening import json_text, shortened
from rewright.core.errors import InputError
from rewright.core.records import Task, ToolCall, ToolResult, Trajectory, Turn
from rewright.credit import CreditTrajectory, TurnSignal, turn_signal
from rewright.dialects import get_dialect
from rewright.judging import judge_trajectory
from rewright.rollout.loop import Plan, Rollout
from rewright.rollout.settings import Limits
from rewright.rollout.toolsets import open_toolsets
from rewright.sandbox.settings import SandboxSettings
from rewright.tasks.loading import load_tasks
from rewright.tasks.schemas import record_problems, schema_problems
from rewright.tools.settings import ToolSettings
from support.chat_server import Body, calls, chat_server, said_by_user, says
from support.in_process import rewright
from support.served import served

NAME = "complexfuncbench"


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    try:
        return load_tasks("all", NAME)
    except InputError as problem:
        pytest.skip(str(problem))


def replayed(tasks: Sequence[Task], **policy: Any) -> list[Trajectory]:
    """One trajectory of "gold with errors" for each task, in the order of the tasks."""

    async def run() -> dict[str, Trajectory]:
        tools = open_toolsets(ToolSettings(), SandboxSettings())
        limits = Limits(turns=40, tool_characters=None, trajectory_tokens=None)
        rollout = Rollout(GoldWithErrors(tasks, **policy), get_dialect("hermes"), tools, limits=limits)
        plans = [Plan(f"{task.id}/0", task, "eval", 0, 0) for task in tasks]
        return {done.task_id: done async for done in rollout.run_many(plans)}

    done = asyncio.run(run())
    return [done[task.id] for task in tasks]


def outcomes(tasks: Sequence[Task], trajectories: Sequence[Trajectory]) -> list[float]:
    return [judge_trajectory(task, one).outcome for task, one in zip(tasks, trajectories, strict=True)]


def gained(trajectories: Sequence[CreditTrajectory]) -> TurnSignal:
    """The value of the state after every turn, as a signal."""
    scores = [np.array(one.scores, float) for one in trajectories]
    return TurnSignal.of([row[1:] for row in scores], kind="value", initial=np.array([row[0] for row in scores]))


def answered(task: Task, *made: ToolCall) -> list[ToolResult]:
    """The results of calls in the world of a task."""

    async def run() -> list[ToolResult]:
        async with open_toolsets(ToolSettings(), SandboxSettings()).open(task.tools) as toolset:
            return [await toolset.call(call) for call in made]

    return asyncio.run(run())


def sequence(task: Task) -> tuple[str, ...]:
    return tuple(call.name for call in task.gold.calls or ())


def test_the_counts_and_the_split_by_call_sequence(tasks: list[Task]) -> None:
    assert len(tasks) == len({task.messages[0]["content"] for task in tasks}) == 1000
    assert sum(len(task.gold.calls or ()) for task in tasks) == 5070
    assert Counter(task.metadata["category"] for task in tasks) == {
        "hotels": 150, "flights": 150, "cars": 150, "attractions": 150, "cross": 400,
    }  # fmt: skip
    train, test = load_tasks("train", NAME), load_tasks("test", NAME)
    assert (len(train), len(test)) == (769, 231)
    assert {task.id for task in train} | {task.id for task in test} == {task.id for task in tasks}
    of_train, of_test = ({sequence(task) for task in part} for part in (train, test))
    assert (len(of_train), len(of_test), of_train & of_test) == (84, 23, set())
    assert [task.metadata["category"] for task in test[:5]] == ["hotels", "flights", "cars", "attractions", "cross"]
    assert not {problem for task in tasks for tool in task.tools for problem in schema_problems(tool.schema)}
    # As published: the arguments of four gold calls of train contradict the schema.
    assert {task.id for task in tasks if list(record_problems(task))} == {f"{NAME}-{n}" for n in (188, 399, 497, 632)}
    assert not [task for task in test if list(record_problems(task))]


def test_what_a_path_selects(tasks: list[Task]) -> None:
    cars = load_tasks("test, cars,distractors=6", NAME)
    assert {task.metadata["category"] for task in cars} == {"cars"}
    assert [task.tools for task in cars] == [task.tools for task in load_tasks("test,distractors=6,cars", NAME)]
    order = list(recordings(800).functions)
    for task in cars:
        names = [tool.name for tool in task.tools]
        assert len(names) == len({*sequence(task)}) + 6
        assert names == sorted(names, key=order.index)  # the order says nothing of the gold calls
        assert all(len(row["results"][0]["content"]) <= 800 for tool in task.tools for row in tool.data["results"])
    assert outcomes(cars, replayed(cars)) == [1.0] * len(cars)


def test_a_path_selects_by_the_length_of_an_episode(tasks: list[Task]) -> None:
    short = load_tasks("all,episode=6000,characters=400", NAME)
    train = [task for task in short if task.split == "train"]
    assert (len(train), len(short) - len(train)) == (427, 149)
    characters = [
        sum(len(turn.text) + sum(len(result.content) for result in turn.results) for turn in trajectory.turns)
        + len(task.messages[0]["content"])
        + sum(len(json.dumps(tool.schema, ensure_ascii=False, separators=(",", ":"))) for tool in task.tools)
        for task, trajectory in zip(short, replayed(short), strict=True)
    ]
    assert 5800 < max(characters) < 6400  # tags of calls and the last sentence come on top
    assert {task.id for task in short} < {task.id for task in tasks}


def test_references_become_values() -> None:
    labels = ["var1", "var2", "var3"]
    responses = [[{"a": {"b": 7}}, {"a": {"b": 8}}], {"data": [{"id": "x"}], "id": "y"}, {}]
    given = [{}, {"n": "$var1.a.b$"}, {"deep": [{"id": "$var2.id$"}], "text": "$5", "whole": "$var1$"}]
    assert resolved(given, labels, responses)[1:] == [
        {"n": 7}, {"deep": [{"id": "x"}], "text": "$5", "whole": {"a": {"b": 7}}},
    ]  # fmt: skip
    for wrong in ("$var1.a.c$", "$var3.a$", "$var9.a$", "$var1.a.b.c$"):
        with pytest.raises(ValueError, match="refers to nothing"):
            resolved([{}, {"n": wrong}, {}], labels, responses)


def test_every_reference_of_the_package_resolves_and_most_survive_the_shortening(tasks: list[Task]) -> None:
    try:
        package = importlib.metadata.distribution("nestful-wrapper")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("nestful-wrapper is not installed")
    path = Path(str(package.locate_file(f"data_v1/{NAME}/{NAME}-data.json")))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        rows = msgspec.json.decode(content)
    gold = {int(task.id.rpartition("-")[2]): task for task in tasks}
    references = with_references = unneeded = 0
    shown: Counter[int] = Counter()
    for number, row in enumerate(rows):
        task = gold[number]
        responses = {call["label"]: call["response"] for call in row["output"]}
        texts = {
            (label, characters): shortened(response, characters)
            for label, response in responses.items()
            for characters in (600, 800)
            if f"${label}." in json_text([call["arguments"] for call in row["output"]])
        }
        for place, call in enumerate(row["output"]):
            assert len(task.gold.calls or ()) == len(row["output"])
            values = (task.gold.calls or ())[place].arguments
            found = [(key, value) for key, value in _leaves(call["arguments"]) if str(value).startswith("$var")]
            with_references += bool(found)
            references += len(found)
            literal = dict(_leaves(values))
            for key, reference in found:
                value = literal[key]
                text = value if isinstance(value, str) else json_text(value)
                label = reference[1:].partition(".")[0].rstrip("$")
                assert text in json_text(responses[label])
                for characters in (600, 800):
                    shown[characters] += text in texts[label, characters]
                unneeded += len(text) > 2 and text not in row["input"] and not task.metadata["needs"][place]
            assert "$var" not in json_text(values)
            assert all(earlier < place for earlier in task.metadata["needs"][place])
    assert (references, with_references, unneeded) == (3068, 1704, 0)
    assert shown[600] / references > 0.92
    assert shown[800] / references > 0.99


def _leaves(value: Any, key: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        return [leaf for name, part in parts for leaf in _leaves(part, f"{key}/{name}")]
    return [(key, value)]


def test_gold_is_right_in_every_task_and_doing_nothing_in_none(tasks: list[Task]) -> None:
    gold = replayed(tasks)
    assert sum(len(one.calls) for one in gold) == 5070
    assert not [result for one in gold for result in one.results if result.error]
    assert sum(outcomes(tasks, gold)) == 1000
    nothing = [msgspec.structs.replace(one, turns=one.turns[-1:]) for one in gold]
    assert not any(turn.calls for one in nothing for turn in one.turns)
    assert sum(outcomes(tasks, nothing)) == 0
    stated = {"all", "hotels", "flights", "cars", "attractions", "cross"}
    assert BENCHMARK.floor == dict.fromkeys(stated, 0.0)
    assert BENCHMARK.ceiling == dict.fromkeys(stated, 1.0)
    # Matched credit pays every gold call, in its turn.
    credited = [CreditTrajectory.of(one, task) for task, one in zip(tasks[:50], gold, strict=False)]
    for one, rewards in zip(credited, turn_signal(credited).values, strict=True):
        assert rewards.tolist() == [1.0] * (len(one.turns) - 1) + [0.0]


def test_progress_and_states_of_a_policy_that_errs(tasks: list[Task]) -> None:
    some = tasks[::20]
    again, lost = replayed(some, errors=0.5), replayed(some, errors=0.5, again=False)
    assert again == [msgspec.structs.replace(one, seconds=other.seconds) for one, other in zip(
        replayed(some, errors=0.5), again, strict=True)]  # fmt: skip
    assert sum(outcomes(some, again)) == len(some)
    wrong = 0
    for task, one in zip(some, again, strict=True):
        golds, progress, states = len(task.gold.calls or ()), turn_progress(task, one), state_keys(task, one)
        assert (progress[0], progress[-1], len(progress), len(states)) == (0.0, 1.0, len(one.turns) + 1, len(progress))
        for turn, before, after, state, later in zip(
            one.turns, progress, progress[1:], states, states[1:], strict=False
        ):
            failed = not turn.results or turn.results[0].error is not None
            assert after - before == pytest.approx(0.0 if failed else 1 / golds)
            assert (state == later) is failed
            wrong += bool(turn.results) and failed
    assert 80 < wrong < 200  # half of about 250 calls
    # A signal reads the values of the states, and a turn is paid what it gains.
    scored = [
        CreditTrajectory.of(one, task, scores=turn_progress(task, one)) for task, one in zip(some, again, strict=True)
    ]
    gains = turn_signal(scored, gained)
    for one, rewards in zip(scored, gains.rewards, strict=True):
        assert rewards.tolist() == pytest.approx(np.diff(np.array(one.scores, float)).tolist())
    success = outcomes(some, lost)
    assert 0 < sum(success) < len(some) / 2
    for task, one, outcome in zip(some, lost, success, strict=True):
        verdict = judge_trajectory(task, one)
        assert turn_progress(task, one)[-1] == pytest.approx(verdict.metrics["rule_matched_calls"])
        assert (verdict.metrics["rule_matched_calls"] == 1.0) is (outcome == 1.0)
        assert verdict.metrics["rule_matched_success_without_lookups"] >= outcome
    with pytest.raises(ValueError, match=r"errors is 1\.5: expected a probability"):
        gold_with_errors(some[0], 1.5)


def test_the_world_answers_equal_calls_and_explains_the_others(tasks: list[Task]) -> None:
    task = next(
        task
        for task in tasks
        if any("," in str(call.arguments.get("categories_filter", "")) for call in task.gold.calls or ())
    )
    hotels = next(call for call in task.gold.calls or () if "," in str(call.arguments.get("categories_filter", "")))
    items = hotels.arguments["categories_filter"].split(",")
    turned = {
        **hotels.arguments,
        "categories_filter": ", ".join(reversed(items)),
        "dest_id": float(hotels.arguments["dest_id"]),
    }
    fewer = {**hotels.arguments, "categories_filter": items[0]}
    without = {key: value for key, value in hotels.arguments.items() if key != "arrival_date"}
    results = answered(
        task,
        hotels,
        ToolCall(hotels.name, turned),
        ToolCall(hotels.name, fewer),
        ToolCall(hotels.name, without),
        ToolCall(hotels.name, {**hotels.arguments, "stars": 5}),
        ToolCall(hotels.name, {**hotels.arguments, "dest_id": str(hotels.arguments["dest_id"])}),
        ToolCall("Book_Hotel", {}),
    )
    assert results[0] == results[1]
    assert results[0].error is None
    assert results[2].error == "not_recorded: no recorded result for this call of Search_Hotels"
    assert results[3].error == ("arguments: the call of Search_Hotels is wrong: 'arrival_date' is a required property")
    assert "unknown argument 'stars'" in str(results[4].error)
    assert "is not of type 'number'" in str(results[5].error)
    assert str(results[6].error).startswith("unknown_tool: unknown tool 'Book_Hotel'; available: ")
    leaves = [str(value) for _, value in _leaves([call.arguments for call in task.gold.calls or ()])]
    values = [value for value in leaves if len(value) > 4]
    for result in results[2:]:  # no error hands over a value of a gold call, but for one that the call had
        assert not [value for value in values if value in result.content and value not in json_text(turned)]


def test_a_place_is_found_in_the_recordings_of_every_task(tasks: list[Task]) -> None:
    finders = [
        (task, call) for task in tasks for call in task.gold.calls or () if call.name == "Search_Flight_Location"
    ]
    task, own = finders[0]
    recorded = [known.arguments for known in task.gold.calls or ()]
    other = next(call for _, call in finders if call.arguments not in recorded)
    nowhere = ToolCall(own.name, {"query": f"{own.arguments['query']} "})
    found = answered(task, own, other, nowhere)
    assert [result.error for result in found[:2]] == [None, None]
    assert found[0].content != found[1].content
    assert str(found[2].error).startswith("not_recorded: ")  # the nearest one is not good enough
    # It is a result, but none of this task's.
    turns = (Turn("", calls=(other,), results=(found[1],)), Turn("", calls=(own,), results=(found[0],)))
    one = Trajectory(id="a", task_id=task.id, stage="eval", index=0, turns=turns, stop_reason="no_answer")
    total = len(task.gold.calls or ())
    assert turn_progress(task, one) == pytest.approx([0.0, 0.0, 1 / total])
    assert own.name in LOOKUPS


def test_a_call_that_failed_or_was_cut_off_obtains_nothing(tasks: list[Task]) -> None:
    task = tasks[0]
    call = (task.gold.calls or ())[0]
    failed = Turn("", calls=(call,), results=(ToolResult("Error", "timeout: 5 s"),))
    cut_off = Turn("", calls=(call, call), results=())
    malformed = Turn("", calls=(msgspec.structs.replace(call, error="no JSON"),), results=(ToolResult("Error"),))
    one = Trajectory(
        id="a", task_id=task.id, stage="eval", index=0, turns=(failed, cut_off, malformed), stop_reason="tool_limit"
    )
    assert turn_progress(task, one) == [0.0] * 4
    assert judge_trajectory(task, one).reason == f"0 of {len(task.gold.calls or ())} gold calls made"


def test_at_the_command_line(tasks: list[Task], tmp_path: Path) -> None:
    chosen = {task.messages[0]["content"]: task for task in load_tasks("test", NAME, 5)}
    wrong = next(iter(chosen.values())).id

    def reply(body: Body) -> dict[str, Any]:
        text = said_by_user(body)
        task = next(task for question, task in chosen.items() if question in text)
        is_repair = text not in chosen
        golds = task.gold.calls or ()
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        if turn >= len(golds):
            return says("Done.")
        more = {"more": 1} if task.id == wrong and not is_repair else {}
        return calls(golds[turn].name, None, **golds[turn].arguments, **more)

    with served(lambda: chat_server(reply)) as url:
        model = ("model.engine=openai", f"model.base_url={url}/v1", "model.path=gold", "dialect=chat")
        done = rewright(tmp_path, "eval", "--benchmark", NAME, "--limit", "5", "--run", "eval", *model)
        (tmp_path / "r.yaml").write_text(
            "dialect: chat\nstages: [synth, judge, score, repair, build]\n"
            f"tasks: {{format: {NAME}, path: test, limit: 5}}\n"
            f"model: {{engine: openai, base_url: '{url}/v1', path: gold}}\nsynth: {{n: 1}}\n"
        )
        run = rewright(tmp_path, "run", "r.yaml", "--run", "run")
    assert done.code == 0, done.errors
    lines = [line.strip() for line in done.output.splitlines()]
    assert any(line.startswith("base        80.0%") for line in lines), done.output
    assert any(line.startswith("rule_matched_calls: 0.800") for line in lines)
    assert any(line.startswith("success with 2 to 3 gold calls: ") for line in lines)
    assert any(line.startswith("flights: 100.0%") for line in lines)
    assert run.code == 0, run.errors
    assert "kept 4, low 0, wrong 1, repaired 1" in run.output
    assert "SFT rows 5: 4 kept + 1 repaired" in run.output
    credit = rewright(tmp_path, "credit", "run", "--json")
    rewards = {row["id"]: row["turn_rewards"] for row in map(json.loads, credit.output.splitlines())}
    for task in chosen.values():
        (found,) = [row for name, row in rewards.items() if name.startswith(f"synth/{task.id}/")]
        if task.id != wrong:
            assert found[:-1] == [1.0] * len(task.gold.calls or ())
    progress = rewright(tmp_path, "credit", "run", "--json", "--signal", "score")
    for row in map(json.loads, progress.output.splitlines()):
        if row["outcome"] == 1:
            assert sum(row["turn_rewards"][:-1]) == pytest.approx(1.0)  # the shares of the gold results
    states = rewright(
        tmp_path, "credit", "run", "--signal", "outcome", "--estimator", "gigpo", "estimator.state_key=own"
    )
    assert "state_groups/unknown: 0% of the turns" in states.output + states.errors


def test_validate_and_mistakes(tasks: list[Task], tmp_path: Path) -> None:
    said = rewright(tmp_path, "validate", "test", "--format", NAME)
    assert (said.code, "231 rows" in said.output, ": 0 errors" in said.output) == (0, True, True), said.errors
    for path, words in (
        ("tset", "complexfuncbench has no part 'tset': expected one of train, test, all, then categories"),
        ("test,train", "complexfuncbench has no part 'train'"),
        ("test,characters=49", "characters=49: expected a whole number of at least 50 or characters=whole"),
        ("test,characters=", "characters=: expected a whole number"),
        ("test,episode=0", "episode=0: expected a whole number of at least 1"),
        ("test,episode=1", "contains no task in the format 'complexfuncbench'"),
        ("test,distractors=-1", "distractors=-1: expected a whole number of at least 0"),
        ("test,temperature=1", "complexfuncbench has no part 'temperature=1'"),
        ("test,", "complexfuncbench has no part ''"),
    ):
        rewright(tmp_path, "validate", path, "--format", NAME).refused(words)
