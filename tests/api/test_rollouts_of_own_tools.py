"""`rw.rollout` and `rw.repair` with a user's own functions, on a served model and on an engine; async and sync."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

import rewright as rw
from rewright.core.registry import known
from rewright.engines.base import Generation, Request
from rewright.judging.base import Judgement, TrajectoryJudge
from support.fault_server import FaultServer
from support.scripted_engine import ScriptedEngine

TAGS_FORMAT = {"name": "tags_format", "function": "tags_format", "weight": 1.0}
PRICES = {"tea": 3, "cake": 5}
QUESTIONS: list[dict[str, Any]] = [
    {
        "id": item,
        "messages": [{"role": "user", "content": f"What does {item} cost?"}],
        "gold": {"answers": [str(price)], "calls": [{"name": "get_price", "arguments": {"item": item}}]},
    }
    for item, price in PRICES.items()
]


def get_price(item: str) -> int:
    """The price of an item.

    Args:
        item: name of the item
    """
    return PRICES[item]


async def get_price_later(item: str) -> int:
    """The price of an item."""
    await asyncio.sleep(0)
    return PRICES[item]


def call_of(item: str) -> str:
    call = json.dumps({"name": "get_price", "arguments": {"item": item}})
    return f"<think>I look.</think><tool_call>{call}</tool_call>"


def honest(request: Request, turn: int) -> str:
    """Looks the price up, and says what it has read."""
    last = str(request.messages[-1]["content"])
    if turn == 0:
        return call_of("cake" if "cake" in last else "tea")
    return f"<think>Read.</think><answer>{last}</answer>"


def hasty(request: Request, turn: int) -> str:
    """Guesses that everything costs 5."""
    return "<think>Easy.</think><answer>5</answer>"


def served(body: dict[str, Any]) -> dict[str, Any]:
    """The same through a chat endpoint, with native calls."""
    last = body["messages"][-1]
    if last["role"] == "tool":
        message: dict[str, Any] = {"role": "assistant", "content": f"<answer>{last['content']}</answer>"}
        return {"index": 0, "finish_reason": "stop", "message": message}
    (offered,) = body["tools"]
    assert offered["function"]["parameters"]["required"] == ["item"]
    arguments = json.dumps({"item": "cake" if "cake" in last["content"] else "tea"})
    call = {"id": "1", "type": "function", "function": {"name": "get_price", "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"index": 0, "finish_reason": "tool_calls", "message": message}


async def test_a_served_model_uses_a_function_of_the_program() -> None:
    async with FaultServer(reply=served, status={"/completions": (404, {"error": "not here"})}) as server:
        found = await rw.rollout(
            QUESTIONS, model="tiny", base_url=server.url, tools=[get_price], samples=2, progress=False
        )
    assert [(one.task_id, one.answer) for one in found] == [("tea", "3"), ("tea", "3"), ("cake", "5"), ("cake", "5")]
    assert [result.content for one in found for result in one.results] == ["3", "3", "5", "5"]
    verdicts = rw.judge(found, QUESTIONS)
    assert [verdict.trajectory_id for verdict in verdicts] == [one.id for one in found]
    assert all(verdict.correct for verdict in verdicts)


@pytest.mark.parametrize("function", [get_price, rw.tool(name="get_price")(get_price_later)], ids=["sync", "async"])
async def test_an_engine_of_the_caller_is_used_and_stays_open(function: Any) -> None:
    engine, seen = ScriptedEngine(honest), []
    found = await rw.rollout(QUESTIONS, model=engine, tools=[function], on_done=seen.append, progress=False)
    assert [one.answer for one in found] == ["3", "5"]
    assert {one.id for one in seen} == {one.id for one in found}
    again = await rw.rollout(QUESTIONS, model=engine, tools=[function], progress=False)
    assert [one.id for one in again] == [one.id for one in found]


async def test_wrong_trajectories_are_repaired_with_the_real_tools_and_built_into_sets() -> None:
    tasks = rw.load_tasks(QUESTIONS)
    found = await rw.rollout(tasks, model=ScriptedEngine(hasty), tools=[get_price], samples=2, progress=False)
    qualities = rw.score(found, rw.judge(found, tasks))
    assert [one.selected for one in qualities] == ["wrong", "wrong", "kept", "kept"]
    cases = await rw.repair(found, tasks, model=ScriptedEngine(honest), tools=[get_price], progress=False)
    assert [(case.accepted, case.original.id) for case in cases] == [(True, one.id) for one in found[:2]]
    assert [result.content for case in cases for result in case.attempts[0].results] == ["3", "3"]
    assert all(case.trajectory is case.attempts[-1] and case.verdicts[0].correct for case in cases)
    rows = rw.build_sft(found, tasks, qualities=qualities, repairs=cases)
    assert sorted(row["kind"] for row in rows) == ["kept", "repaired"]  # equal ones once
    (repaired,) = [row for row in rows if row["kind"] == "repaired"]
    assert [message["role"] for message in repaired["messages"]][-4:] == ["user", "assistant", "tool", "assistant"]
    (pair,) = rw.build_pairs(found, tasks, qualities=qualities, repairs=cases)
    assert pair["chosen"] == repaired["messages"][-3:]
    assert "<answer>5</answer>" in pair["rejected"][-1]["content"]
    assert [row["kind"] for row in rw.build_sft(found[2:3], tasks)] == ["kept"]
    assert rw.build_sft([], tasks) == rw.build_pairs([], tasks) == rw.judge([], tasks) == []


async def test_a_hard_case_says_why_and_has_no_repair() -> None:
    tasks = rw.load_tasks(QUESTIONS[:1])
    found = await rw.rollout(tasks, model=ScriptedEngine(hasty), tools=[get_price], progress=False)
    (case,) = await rw.repair(
        found, tasks, model=ScriptedEngine(hasty), tools=[get_price], attempts=2, temperature=1.0, progress=False
    )
    assert (case.accepted, case.trajectory, len(case.attempts)) == (False, None, 2)
    assert case.reason.startswith("wrong: ")
    assert rw.build_sft(found, tasks, repairs=[case]) == []


async def test_a_judge_of_the_program() -> None:
    engine = ScriptedEngine(["<answer>about 3 coins</answer>"])
    found = await rw.rollout(QUESTIONS, model=engine, progress=False)
    assert [one.correct for one in rw.judge(found, QUESTIONS, dialect="hermes")] == [False, False]
    verdicts = rw.judge(found, QUESTIONS, judge=lambda answer, golds: golds[0] in answer)
    assert [(one.outcome, one.reason) for one in verdicts] == [
        (1.0, "<lambda> returned True"),
        (0.0, "<lambda> returned False"),
    ]
    long = TrajectoryJudge(lambda task, trajectory, answer: Judgement(0.5, f"{task.id} {len(trajectory.turns)}"))
    assert [one.reason for one in rw.judge(found, QUESTIONS, judge=long)] == ["tea 1", "cake 1"]
    assert [one.correct for one in rw.judge(found, QUESTIONS, judge="qa")] == [True, False]
    cases = await rw.repair(found, QUESTIONS, model=engine, judge=lambda answer, golds: len(answer) > 3, progress=False)
    assert cases == []  # both are right by this judge
    for wrong, error, said in (
        ("exat", rw.InputError, "did you mean 'exact'?"),
        (3, rw.InputError, "judge is a int: expected a name, or a function"),
        (lambda answer, golds: "yes", rw.JudgeError, "returned 'yes', expected a number between 0 and 1"),
        (lambda answer, golds: 3, rw.JudgeError, "returned the outcome 3.0"),
        (lambda answer: 1, rw.JudgeError, "2 answers could not be judged"),
    ):
        with pytest.raises(error) as raised:
            rw.judge(found, QUESTIONS, judge=wrong)  # type: ignore[arg-type]
        assert said in str(raised.value)
    assert not [name for name in known("judge") if name.startswith("own")]


async def test_the_dialect_of_trajectories_is_found_in_their_texts() -> None:
    tasks = rw.load_tasks([{**QUESTIONS[0], "gold": {"answers": ["42"]}}])
    code = Generation(text="<think>Compute.</think><code>print(6 * 7)</code>", stop="stop")
    script = [code, "<think>Done.</think><answer>\\boxed{42}</answer>"]
    recipe = {"dialect": "tags", "tools": {"python": True}, "limits": {"tool_seconds": 60}}
    engine = ScriptedEngine(script)
    found = await rw.rollout(tasks, model=engine, recipe=recipe, sandbox="process", samples=2, progress=False)
    assert [result.content.strip() for result in found[0].results] == ["42"]
    qualities = rw.score(found, rw.judge(found, tasks), quality={"dimensions": [TAGS_FORMAT]})
    assert [one.extra["tags_format"] for one in qualities] == [1.0, 1.0]
    (row,) = rw.build_sft(found, tasks)
    assert [message["role"] for message in row["messages"][-2:]] == ["user", "assistant"]  # results are inside
    (other,) = rw.build_sft(found, tasks, dialect="hermes")
    assert row["messages"] != other["messages"]
    strange = msgspec.structs.replace(found[0], turns=(rw.Turn(text="42, I think"),))
    with pytest.raises(rw.InputError, match="expected dialect="):
        rw.judge([strange], tasks)


async def test_the_twin_works_inside_of_a_running_loop_and_outside() -> None:
    def inside() -> list[rw.Trajectory]:
        return rw.rollout_sync(QUESTIONS, model=ScriptedEngine(honest), tools=[get_price], progress=False)

    here = inside()
    other = await asyncio.to_thread(inside)  # where no loop runs
    assert [one.answer for one in here] == [one.answer for one in other] == ["3", "5"]
    with pytest.raises(rw.InputError, match="samples: must be at least 1"):
        rw.rollout_sync(QUESTIONS, model=ScriptedEngine(honest), samples=0)


def test_an_interrupt_of_the_twin_in_a_running_loop_ends_the_work() -> None:
    ended = []

    class Waiting(ScriptedEngine):
        async def generate(self, request: Request) -> Generation:
            os.kill(os.getpid(), signal.SIGINT)  # the notebook's stop button
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(request.session)
            raise AssertionError

    async def cell() -> None:
        with pytest.raises(KeyboardInterrupt):
            rw.rollout_sync(QUESTIONS[:1], model=Waiting(honest), progress=False)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(cell())
    loop.close()
    assert len(ended) == 1


async def test_a_failing_function_is_a_result_and_a_failing_engine_an_error() -> None:
    def get_price(item: str) -> int:
        raise KeyError(item)

    (one,) = await rw.rollout(QUESTIONS[:1], model=ScriptedEngine(honest), tools=[get_price], progress=False)
    assert [result.error for result in one.results] == ["exception: KeyError: 'tea'"]
    broken = ScriptedEngine([rw.EngineError("out of order")])
    with pytest.raises(rw.EngineError, match="rollouts: all of the first 2 trajectories failed: out of order"):
        await rw.rollout(QUESTIONS, model=broken, tools=[get_price], progress=False)


async def test_a_function_replaces_the_task_s_tool_of_its_name_at_its_place() -> None:
    other = {"type": "function", "function": {"name": "get_price", "parameters": {"type": "object", "properties": {}}}}
    last = {"type": "function", "function": {"name": "last", "parameters": {"type": "object", "properties": {}}}}
    task = QUESTIONS[0] | {
        "tools": [{"schema": other}, {"schema": last, "source": "def last(): return 1"}],
        "gold": {"answers": ["3"]},
    }
    engine = ScriptedEngine(honest)
    (one,) = await rw.rollout([task], model=engine, tools=[get_price], sandbox="process", progress=False)
    assert one.answer == "3"
    assert [tool["function"]["name"] for tool in engine.requests[0].tools] == ["get_price", "last"]
    assert engine.requests[0].tools[0] == rw.tool(get_price).schema


async def test_mistakes_are_named_by_argument() -> None:
    engine = ScriptedEngine(honest)
    (one,) = await rw.rollout(QUESTIONS[:1], model=engine, tools=[get_price], progress=False)
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"tools": get_price}, "tools is a function: expected a list"),
        ({"tools": [get_price, get_price]}, "tools: 'get_price' is given twice"),
        ({"limits": {"turn": 3}}, "unknown key limits.turn: did you mean "),
        ({"sandbox": "hard"}, "sandbox.level: invalid enum value 'hard'"),
        ({"recipe": {"limit": {}}}, "unknown key limit: did you mean limits"),
        ({"model": 3}, "model is 3: expected a path or name"),
        ({"base_url": "http://localhost"}, "the model is an engine already"),
        ({"model": ScriptedEngine(honest, tokenizer=object()), "tokenizer": None, "dialect": "herms"}, "herms"),
    ]
    for wrong, said in mistakes:
        with pytest.raises(rw.InputError) as raised:
            await rw.rollout(QUESTIONS, **{"model": engine, **wrong})
        assert said in str(raised.value)
    with pytest.raises(rw.InputError, match="its task 'tea' is not among the 1 tasks"):
        rw.judge([one], QUESTIONS[1:])
    with pytest.raises(rw.InputError, match="is given twice"):
        rw.judge([one, one], QUESTIONS)
    with pytest.raises(rw.InputError, match="has no verdict"):
        rw.score([one], [])
    with pytest.raises(rw.InputError, match="tasks is empty"):
        await rw.rollout([], model=engine)


def test_tasks_are_loaded_from_rows_files_and_worlds(tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    assert rw.load_tasks(file) == rw.load_tasks(QUESTIONS) == rw.load_tasks(rw.load_tasks(str(file)))
    assert [task.judge for task in rw.load_tasks(QUESTIONS, judge="math", limit=1)] == ["math"]
    assert len(rw.load_tasks("town", count=3, profile="short")) == 3
    (task,) = rw.load_tasks([{"question": "2 + 2?", "answer": "#### 4"}], "gsm8k")
    assert task.gold.answers == ("4",)
    for wrong, said in (
        ([QUESTIONS[0], QUESTIONS[0]], "tasks[1]: the id 'tea' is "),
        ([QUESTIONS[0] | {"golds": {}}], "tasks[0]: unknown key 'golds'; did you mean 'gold'?"),
        ([3], "tasks[0]: is a int"),
        ([QUESTIONS[0] | {"judge": "os:system"}], "tasks[0]: judge 'os:system' is code"),
        ("twon", "no such file, and no world: did you mean 'town'?"),
        (QUESTIONS[0], "tasks is a dict"),
    ):
        with pytest.raises(rw.InputError) as raised:
            rw.load_tasks(wrong)  # type: ignore[arg-type]
        assert said in str(raised.value)
