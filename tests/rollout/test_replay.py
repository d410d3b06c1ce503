"""A stored trajectory is restored up to a turn and continued: exactly, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from rewright.core.records import Task, ToolCall, ToolResult, Trajectory
from rewright.credit.resources import Resources
from rewright.credit.signals import turn_signal
from rewright.credit.trajectories import CreditTrajectory
from rewright.dialects.hermes import Hermes
from rewright.engines.base import Generation
from rewright.rendering.renderer import Renderer
from rewright.rollout.branches import Branches
from rewright.rollout.loop import Plan, Rollout
from rewright.rollout.replay import Replayer, turn_key, turn_of_text
from rewright.rollout.settings import Limits
from rewright.tools import FunctionTools
from rollout.test_rollout_loop import TASK, call, tool
from support.scripted_engine import Script, ScriptedEngine
from support.small_tokenizers import pico_tokenizer

DIALECT = Hermes()
SCRIPT = [call("count"), call("count"), "<answer>2</answer>"]


@pytest.fixture
async def tools() -> AsyncIterator[FunctionTools]:
    factory = FunctionTools(level="process", wall_seconds=20.0)
    yield factory
    await factory.close()


def rollout(script: Script, tools: FunctionTools, *, tokens: bool = True) -> tuple[Rollout, ScriptedEngine]:
    engine = ScriptedEngine(script, tokenizer=pico_tokenizer() if tokens else None)
    renderer = Renderer(pico_tokenizer(), DIALECT) if tokens else None
    return Rollout(engine, DIALECT, tools, renderer=renderer, limits=Limits(turns=6, tool_seconds=20.0)), engine


async def stored(
    tools: FunctionTools, *, tokens: bool = True, task: Task = TASK, script: Script = SCRIPT
) -> Trajectory:
    loop, _ = rollout(script, tools, tokens=tokens)
    found = await loop.run(Plan(id="stored", task=task, stage="synth", index=0, seed=0))
    assert found.failure is None
    return found


async def test_calls_that_a_server_has_read_are_replayed(tools: FunctionTools) -> None:
    def structured(raw: str, **fields: Any) -> Generation:
        return Generation("", calls=(ToolCall("count", {}, raw, **fields),))

    script = [structured("{ }"), structured('{"a": ', error="the arguments are no JSON object"), "2"]
    before = await stored(tools, tokens=False, script=script)
    assert [len(turn.calls) for turn in before.turns] == [1, 1, 0]
    loop, _ = rollout(["<answer>3</answer>"], tools, tokens=False)
    done = await Replayer(loop).run("again", TASK, before, before.turns[:2], 7)
    assert (done.problem, done.trajectory.answer) == (None, "3")
    assert [(turn.text, turn.calls) for turn in done.trajectory.turns[:2]] == [
        (turn.text, turn.calls) for turn in before.turns[:2]
    ]
    other = msgspec.structs.replace(before.turns[0], text=call("other"))
    done = await Replayer(loop).run("other", TASK, before, [other, *before.turns[1:2]], 7)
    assert done.problem == "the calls of turn 1 are read differently"


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "messages"])
async def test_a_continuation_begins_in_the_stored_state(tools: FunctionTools, tokens: bool) -> None:
    before = await stored(tools, tokens=tokens)
    loop, engine = rollout([call("count"), "<answer>3</answer>"], tools, tokens=tokens)
    done = await Replayer(loop).run("again", TASK, before, before.turns[:2], 7)
    after = done.trajectory
    assert (done.problem, done.stopped, after.answer) == (None, False, "3")
    # The tool counts in a session of its own, so that its third call says 3 only if the first two were made again.
    assert [result.content for turn in after.turns for result in turn.results] == ["1", "2", "3"]
    if tokens:
        assert list(engine.requests[0].token_ids or ()) == [
            *(before.prompt_ids or ()),
            *(token for turn in before.turns[:2] for token in (*(turn.token_ids or ()), *turn.suffix_ids)),
        ]
    else:
        assert len(engine.requests[0].messages) == 2 + 2 * 2
    assert len(engine.requests) == 2


async def test_a_whole_trajectory_is_replayed_without_the_engine(tools: FunctionTools) -> None:
    before = await stored(tools)
    loop, engine = rollout(["never"], tools)
    done = await Replayer(loop).run("again", TASK, before, before.turns, 0, generate=0)
    assert (done.problem, done.stopped, engine.requests) == (None, False, [])
    assert (done.trajectory.answer, done.trajectory.stop_reason) == (before.answer, before.stop_reason)


async def test_generation_stops_after_the_turns_that_were_asked_for(tools: FunctionTools) -> None:
    before = await stored(tools)
    loop, _ = rollout(SCRIPT, tools)
    done = await Replayer(loop).run("again", TASK, before, before.turns[:1], 0, generate=1)
    assert (done.stopped, len(done.trajectory.turns), done.trajectory.failure) == (True, 2, None)
    assert done.trajectory.turns[1].results[0].content == "2"
    assert done.trajectory.turns[1].suffix_ids  # so that it can be replayed itself
    loop, engine = rollout(["<answer>2</answer>"], tools)
    done = await Replayer(loop).run("on", TASK, before, done.trajectory.turns, 0)
    assert (done.problem, done.trajectory.answer, len(engine.requests)) == (None, "2", 1)


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "messages"])
async def test_a_tool_that_answers_differently_gives_no_outcome(tools: FunctionTools, tokens: bool) -> None:
    task = msgspec.structs.replace(TASK, tools=(tool("count", "import time\ndef count():\n    return time.time_ns()"),))
    before = await stored(tools, tokens=tokens, task=task)
    loop, engine = rollout(SCRIPT, tools, tokens=tokens)
    done = await Replayer(loop).run("again", task, before, before.turns[:2], 0)
    assert done.problem is not None
    assert ("tokens before turn 2" if tokens else "a result of turn 1 was") in done.problem
    assert done.trajectory.failure is not None
    if tokens:
        assert engine.requests == []  # found before anything was generated


async def test_a_changed_prompt_and_a_changed_end_are_found(tools: FunctionTools) -> None:
    before = await stored(tools)
    loop, _ = rollout(SCRIPT, tools)
    other = msgspec.structs.replace(TASK, messages=({"role": "user", "content": "Something else?"},))
    done = await Replayer(loop).run("prompt", other, before, before.turns[:1], 0)
    assert "tokens before turn 1" in str(done.problem)
    cut = msgspec.structs.replace(before, turns=before.turns[:2])
    done = await Replayer(loop).run("end", TASK, cut, cut.turns, 0, generate=0)
    assert done.stopped  # the stored trajectory had ended here, and this one could go on


def outcome_of(loop: Rollout, before: Trajectory, outcomes: dict[str, float]) -> tuple[Branches, list[str]]:
    judged: list[str] = []

    async def outcome(task: Task, trajectory: Trajectory) -> float:
        judged.append(str(trajectory.answer))
        return outcomes[str(trajectory.answer)]

    return Branches(Replayer(loop), {before.id: before}, {TASK.id: TASK}, outcome), judged


async def test_the_signal_branch_is_the_difference_of_values(tools: FunctionTools) -> None:
    """Continuations of the first state answer 2 or 3 in turn, those after the first call always 2."""
    before = await stored(tools)
    answers = iter(["<answer>3</answer>", "<answer>2</answer>"] * 10)

    def script(request: Any, turn: int) -> str:
        after_calls = '"count"' in pico_tokenizer().decode(list(request.token_ids))
        return "<answer>2</answer>" if after_calls else next(answers)

    loop, _ = rollout(script, tools)
    branches, judged = outcome_of(loop, before, {"2": 1.0, "3": 0.0})
    scored = CreditTrajectory.of(before, TASK, outcome=1.0)
    signal = await asyncio.to_thread(turn_signal, [scored], "branch", resources=Resources(branch=branches), k=4)
    assert signal.kind == "advantage"
    assert signal.values[0].tolist() == [0.5, 0.0, 0.0]
    assert signal.stats == {"branch/continuations": 12.0, "branch/failed": 0.0}
    assert (len(judged), branches.generations) == (12, 12)
    signal = await asyncio.to_thread(
        turn_signal, [scored], "branch", resources=Resources(branch=branches), k=4, form="outcome"
    )
    assert signal.values[0].tolist() == [0.5, 0.0, 0.0]


async def test_failed_continuations_are_missing_values(tools: FunctionTools) -> None:
    before = await stored(tools)
    changed = msgspec.structs.replace(before.turns[0], results=(ToolResult(content="7"),))
    broken = msgspec.structs.replace(before, turns=(changed, *before.turns[1:]))
    loop, _ = rollout(["<answer>2</answer>"], tools, tokens=False)
    branches, _ = outcome_of(loop, broken, {"2": 1.0})
    scored = CreditTrajectory.of(broken, TASK, outcome=0.0)
    signal = await asyncio.to_thread(turn_signal, [scored], "branch", resources=Resources(branch=branches), k=2)
    # The first state has a value; those after the changed result cannot be restored.
    assert signal.missing[0].tolist() == [True, True, True]
    assert signal.stats["branch/failed"] == pytest.approx(2 / 3)


async def test_an_alternative_is_taken_in_place_of_a_sampled_turn(tools: FunctionTools) -> None:
    before = await stored(tools)
    loop, engine = rollout(["<answer>2</answer>"], tools)
    branches, _ = outcome_of(loop, before, {"2": 1.0})
    scored = CreditTrajectory.of(before, TASK)
    found = await asyncio.to_thread(branches, scored, 1, 2, 0, alternative=call("age", of="Boru"))
    assert found == [1.0, 1.0]
    assert "41" in pico_tokenizer().decode(list(engine.requests[0].token_ids or ()))
    with pytest.raises(ValueError, match="expected 0 to 3"):
        await asyncio.to_thread(branches, scored, 4, 2, 0)
    with pytest.raises(RuntimeError, match="another thread"):
        branches(scored, 0, 2, 0)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (call("age", of="Kalo"), f"<think>Hm.</think>{call('age', of='Kalo')}", True),
        (call("age", of="Kalo", n=5), call("age", n=5.0, of="Kalo"), True),
        (call("age", of="Kalo") + call("count"), call("count") + call("age", of="Kalo"), True),
        (call("age", of="Kalo"), call("age", of="Boru"), False),
        (call("age", of="5"), call("age", of=5), False),
        ("<think>a</think><answer>36</answer>", "<think>b</think><answer> 36 </answer>", True),
        ("<answer>36</answer>", "<answer>37</answer>", False),
        ("<tool_call>{broken</tool_call>", "<tool_call>{other</tool_call>", False),
    ],
)
async def test_turns_that_do_the_same_have_one_key(tools: FunctionTools, one: str, other: str, equal: bool) -> None:
    replayer = Replayer(rollout(["x"], tools)[0])
    keys = [turn_key(turn_of_text(text, TASK, replayer), DIALECT) for text in (one, other)]
    assert (keys[0] == keys[1]) is equal


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"k": 1}, "signal.k must be at least 2, got 1"),
        ({"form": "x"}, "signal.form .* 'x': expected one of difference, outcome"),
    ],
)
def test_wrong_settings_of_the_signal_branch(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        turn_signal([], "branch", resources=Resources(branch=lambda *_, **__: []), **given)
