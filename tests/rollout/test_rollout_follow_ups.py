"""Tasks in which the user speaks again: when, what the model is shown, which tools it is told of, what is stored."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from rewright.core.records import FollowUp, Task, ToolSpec
from rewright.core.storage import encode_line
from rewright.dialects import conversation, get_dialect
from rewright.rendering.renderer import Renderer
from rewright.rendering.transcript import transcript
from rewright.rollout.loop import Plan, Rollout
from rewright.rollout.settings import Limits
from rewright.tools import FunctionTools
from support.scripted_engine import ScriptedEngine
from support.small_tokenizers import pico_tokenizer

hermes = get_dialect("hermes")


def tool(name: str, source: str) -> ToolSpec:
    return ToolSpec(schema={"type": "function", "function": {"name": name, "parameters": {}}}, source=source)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


COUNT = tool("count", "n = 0\ndef count():\n    global n\n    n += 1\n    return n")
SECRET = tool("secret", "def secret():\n    return 'open'")
TASK = Task(
    id="talk",
    messages=({"role": "system", "content": "Use the tools. Answer in <answer></answer>."}, user("First.")),
    tools=(COUNT,),
    follow_ups=(FollowUp((user("Second."),)), FollowUp((user("Third."),), tools=(SECRET,))),
)


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@pytest.fixture
async def tools() -> AsyncIterator[FunctionTools]:
    factory = FunctionTools(level="process", wall_seconds=60.0)
    yield factory
    await factory.close()


def rollout_of(engine: ScriptedEngine, tools: FunctionTools, dialect: str = "hermes", **limits: Any) -> Rollout:
    settings = Limits(**{"turns": 5, "tool_seconds": 60.0, "trajectory_seconds": None, **limits})
    renderer = Renderer(pico_tokenizer(), get_dialect(dialect)) if engine.tokens else None
    return Rollout(engine, get_dialect(dialect), tools, renderer=renderer, limits=settings)


def token_engine(script: Sequence[str]) -> ScriptedEngine:
    return ScriptedEngine(script, tokenizer=pico_tokenizer())


def plan(task: Task = TASK) -> Plan:
    return Plan(id="eval/talk/0", task=task, stage="eval", index=0, seed=0)


def shown(engine: ScriptedEngine, request: int) -> str:
    return str(pico_tokenizer().decode(list(engine.requests[request].token_ids or ())))


LINES = [call("count"), "<answer>1</answer>", call("count"), "That was the second.", "<answer>done</answer>"]


async def test_the_user_speaks_again_after_an_answer_and_after_a_turn_without_a_call(tools: FunctionTools) -> None:
    engine = token_engine(LINES)
    trajectory = await rollout_of(engine, tools).run(plan())
    assert (trajectory.stop_reason, trajectory.answer) == ("answered", "done")
    assert [len(turns) for turns in trajectory.exchanges] == [2, 2, 1]
    assert [result.content for result in trajectory.results] == ["1", "2"], "the tools' state goes on"
    assert "Second." not in shown(engine, 1)
    assert shown(engine, 2).endswith("<|im_start|>user\nSecond.<|im_end|>\n<|im_start|>assistant\n")
    assert shown(engine, 2).count("<|im_end|>\n<|im_start|>user\nSecond.") == 1
    for request, span in zip(engine.requests, trajectory.spans, strict=True):
        assert list(request.token_ids or ()) == trajectory.token_ids[: span.start]
    assert Renderer(pico_tokenizer(), hermes).encode_trajectory(TASK, trajectory) == (
        trajectory.token_ids,
        trajectory.mask,
    )
    encode_line(trajectory)


async def test_a_tool_that_comes_later_is_named_when_it_comes(tools: FunctionTools) -> None:
    engine = token_engine([call("nothing"), "Can't.", "Can't.", call("secret"), "<answer>open</answer>"])
    trajectory = await rollout_of(engine, tools).run(plan())
    assert "secret" not in shown(engine, 2), "neither in the prompt nor among the tools that an error lists"
    assert "unknown tool 'nothing'; available: count" in shown(engine, 1)
    words, _, question = shown(engine, 3).rpartition("<|im_start|>user\n")[2].partition("</tools>")
    assert '"name": "secret"' in words
    assert question.startswith("\n\nThird.")
    assert trajectory.results[-1].content == "open"


async def test_a_message_engine_gets_messages_and_a_longer_list_of_tools(tools: FunctionTools) -> None:
    engine = ScriptedEngine(LINES)
    trajectory = await rollout_of(engine, tools).run(plan())
    names = [[schema["function"]["name"] for schema in request.tools] for request in engine.requests]
    assert names == [["count"]] * 4 + [["count", "secret"]]
    assert engine.requests[-1].messages[-2:] == ({"role": "assistant", "content": LINES[3]}, user("Third."))
    assert trajectory.stop_reason == "answered"
    stored = conversation(hermes, trajectory.turns, str)
    assert [message["role"] for message in stored] == [
        "assistant", "tool", "assistant", "user", "assistant", "tool", "assistant", "user", "assistant",
    ]  # fmt: skip
    assert '"name": "secret"' in stored[-2]["content"], "a stored conversation has one list of tools, from its start"
    assert "said: That was the second.\nuser: Third." in transcript(trajectory)


async def test_turns_are_counted_from_the_users_last_message(tools: FunctionTools) -> None:
    trajectory = await rollout_of(token_engine(LINES), tools, turns=2).run(plan())
    assert (trajectory.stop_reason, len(trajectory.turns)) == ("answered", 5)
    stuck = token_engine(["No.", call("count")])
    trajectory = await rollout_of(stuck, tools, turns=3).run(plan())
    assert (trajectory.stop_reason, [len(turns) for turns in trajectory.exchanges]) == ("turn_limit", [1, 3])
    assert trajectory.answer is None


async def test_an_early_answer_is_not_the_answer(tools: FunctionTools) -> None:
    trajectory = await rollout_of(token_engine(["<answer>1</answer>", "No.", "No."]), tools).run(plan())
    assert (trajectory.stop_reason, trajectory.answer, len(trajectory.exchanges)) == ("no_answer", None, 3)


async def test_no_room_for_the_follow_up(tools: FunctionTools) -> None:
    trajectory = await rollout_of(token_engine(["<answer>1</answer>"]), tools, trajectory_tokens=12).run(plan())
    assert (trajectory.stop_reason, len(trajectory.exchanges)) == ("token_limit", 1)


async def test_results_inside_the_assistants_text(tools: FunctionTools) -> None:
    search = tool("search", "def search(query):\n    return query.upper()")
    task = Task(id="talk", messages=(user("First."),), tools=(search,), follow_ups=(FollowUp((user("Second."),)),))
    lines = ["<search>kalo</search>", "<answer>1</answer>", "<search>boru</search>", "<answer>2</answer>"]
    engine = token_engine(lines)
    trajectory = await rollout_of(engine, tools, "tags").run(plan(task))
    assert trajectory.answer == "2"
    assert shown(engine, 2).endswith("<|im_end|>\n<|im_start|>user\nSecond.<|im_end|>\n<|im_start|>assistant\n")
    assert "KALO" in shown(engine, 1)
    assert [message["role"] for message in conversation(get_dialect("tags"), trajectory.turns, str)] == [
        "assistant", "user", "assistant",
    ]  # fmt: skip
