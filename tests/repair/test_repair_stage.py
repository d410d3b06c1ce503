"""The repair stage with a scripted repairer: what it is shown, and whose results are recorded."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rewright.core.errors import EngineError
from rewright.core.records import Gold, Task, ToolCall, ToolSpec
from rewright.dialects import get_dialect
from rewright.engines.pico import TRAINED_RULES
from rewright.pipeline.stages.repair import repair
from rewright.tools import PythonTool
from support.scripted_engine import Script, ScriptedEngine
from support.scripted_run import QUESTION, RESULT, THOUGHTS, TOKENIZER, attempt, context_with


@pytest.mark.parametrize("tokens", [True, False], ids=["token engine", "chat engine"])
@pytest.mark.parametrize("selected", ["wrong", "low"])
@pytest.mark.parametrize("dialect", ["hermes", "tags"])
async def test_the_repair_prompt_contains_the_trajectory(
    tmp_path: Path, dialect: str, selected: str, tokens: bool
) -> None:
    task = Task(id="t", messages=({"role": "user", "content": QUESTION},), gold=Gold(answers=("252",)), judge="math")
    call = ToolCall("python", {"code": "print(36 * 7 - 1)"})
    answer = "<think>Again.</think><answer>\\boxed{252}</answer>"
    engine = ScriptedEngine([answer], tokenizer=TOKENIZER if tokens else None)
    context = context_with(tmp_path, dialect, task, attempt(dialect, call), selected, engine)
    await repair(context)
    (request,) = engine.requests
    prompt = TOKENIZER.decode(list(request.token_ids or ())) if tokens else str(request.messages)
    # Everything of the attempt: its thoughts, its call, what the tool had returned, what stood beside it, its answer.
    for piece in (QUESTION, *THOUGHTS, "print(36 * 7 - 1)", RESULT, "Beside the point.", "251"):
        assert piece in prompt
    assert ("wrong answer" in prompt) == (selected == "wrong")
    assert "252" not in prompt, "the gold answer is shown only if the recipe says so"
    (decision,) = context.run.repairs
    assert (decision.mode, decision.accepted) == ("wrong_answer" if selected == "wrong" else "low_quality", True)


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        (["model.path=big"], "Your reader sees the task only: never mention the attempt"),
        ([], TRAINED_RULES.replace("{calls}", "3")),
        (["model.path=big", "repair.calls=2", "repair.rules='{calls} calls, {{no}} more.'"], "2 calls, {{no}} more."),
    ],
    ids=["standard", "pico", "own"],
)
async def test_the_end_of_the_prompt_is_a_setting(tmp_path: Path, settings: list[str], end: str) -> None:
    task = Task(id="t", messages=({"role": "user", "content": QUESTION},), gold=Gold(answers=("252",)), judge="math")
    engine = ScriptedEngine(["<think>Again.</think><answer>\\boxed{252}</answer>"])
    candidate = attempt("tags", ToolCall("python", {"code": "print(251)"}))
    await repair(context_with(tmp_path, "tags", task, candidate, "wrong", engine, *settings))
    assert end in str(engine.requests[0].messages[-1]["content"])


INVENTED = "\n{open}251{close}<think>Good.</think><answer>\\boxed{{251}}</answer>"
FINAL = "<think>The tool is right.</think><answer>\\boxed{252}</answer>"


@pytest.mark.parametrize("tokens", [True, False], ids=["token engine", "chat engine"])
@pytest.mark.parametrize("dialect", ["hermes", "tags"])
async def test_the_results_of_a_repair_are_those_that_the_tools_returned(
    tmp_path: Path, dialect: str, tokens: bool
) -> None:
    """The repairer writes a call and at once a result of its own, which is wrong."""
    if dialect == "tags":
        tool, call = PythonTool.spec(), ToolCall("python", {"code": "print(36 * 7)"})
        invented = INVENTED.format(open="<result>", close="</result>")
    else:
        schema = {"type": "function", "function": {"name": "times", "parameters": {}}}
        tool, call = ToolSpec(schema, source="def times(a, b):\n    return a * b"), ToolCall("times", {"a": 36, "b": 7})
        invented = "\n<tool_response>251</tool_response><think>Good.</think>"
    task = Task(
        id="t", messages=({"role": "user", "content": QUESTION},), tools=(tool,), gold=Gold(answers=("252",)),
        judge="math",
    )  # fmt: skip
    script: Script = [get_dialect(dialect).write("<think>I call.</think>", [call]) + invented, FINAL]
    engine = ScriptedEngine(script, tokenizer=TOKENIZER if tokens else None)
    context = context_with(tmp_path, dialect, task, attempt(dialect, call), "wrong", engine)
    await repair(context)
    (decision,) = context.run.repairs
    (repaired,) = (one for one in context.run.trajectories if one.id == decision.repaired_id)
    assert [(one.content, one.error) for one in repaired.results] == [("252", None)]
    assert [[result.content for result in turn.results] for turn in repaired.turns] == [["252"], []]
    assert repaired.provenance.parent == "c"
    assert decision.accepted, decision.reason
    if tokens:
        sent = TOKENIZER.decode(list(engine.requests[1].token_ids or ()))
        assert "252" in sent
        if dialect == "tags":
            assert "251" not in sent.partition(FINAL)[0].rpartition("assistant\n")[2]
    else:
        assert "252" in str(engine.requests[1].messages[-1]["content"])


async def test_a_try_that_the_server_broke_is_made_again_when_the_stage_is_redone(tmp_path: Path) -> None:
    task = Task(id="t", messages=({"role": "user", "content": QUESTION},), gold=Gold(answers=("252",)), judge="math")
    candidate = attempt("tags", ToolCall("python", {"code": "print(251)"}))
    good = "<think>Again.</think><answer>\\boxed{252}</answer>"
    said = iter([good, EngineError("the provider is down")])
    engine = ScriptedEngine(lambda request, turn: next(said, good))
    context = context_with(tmp_path, "tags", task, candidate, "wrong", engine)
    context.run.trajectories.append(msgspec.structs.replace(candidate, id="d"))
    (quality,) = context.run.qualities
    context.run.qualities.append(msgspec.structs.replace(quality, trajectory_id="d"))
    await repair(context)
    whole, broken = sorted(context.run.repairs, key=lambda one: not one.accepted)
    assert (whole.accepted, broken.accepted, broken.attempts) == (True, False, 1)
    assert broken.reason == "engine error: the provider is down"
    context.run.repairs.clear()
    await repair(context)
    again = {one.original_id: (one.accepted, one.attempts, len(one.reasons)) for one in context.run.repairs}
    assert again == {whole.original_id: (True, 1, 1), broken.original_id: (True, 2, 2)}
    ids = [one.id for one in context.run.trajectories]
    assert len(ids) == len(set(ids)) == 5
    # What was decided from whole tries is not tried again.
    context.run.repairs.clear()
    await repair(context)
    assert len(engine.requests) == 3


async def test_originals_of_one_task_and_index_have_repairs_of_their_own(tmp_path: Path) -> None:
    """Imported ones, say, or those of two settings of `synth` in one run."""
    task = Task(id="t", messages=({"role": "user", "content": QUESTION},), gold=Gold(answers=("252",)), judge="math")
    candidate = attempt("tags", ToolCall("python", {"code": "print(251)"}))
    engine = ScriptedEngine(["<think>Again.</think><answer>\\boxed{252}</answer>"])
    context = context_with(tmp_path, "tags", task, candidate, "wrong", engine)
    other = msgspec.structs.replace(candidate, id="d")
    context.run.trajectories.append(other)
    (quality,) = context.run.qualities
    context.run.qualities.append(msgspec.structs.replace(quality, trajectory_id="d"))
    for _ in range(2):
        context.run.repairs.clear()
        await repair(context)
        decisions = {one.original_id: one for one in context.run.repairs}
        assert decisions.keys() == {"c", "d"}
        tries = {one.id: one.provenance.parent for one in context.run.trajectories if one.provenance.parent is not None}
        assert {tries[str(one.repaired_id)]: one.original_id for one in decisions.values()} == {"c": "c", "d": "d"}
    assert len(engine.requests) == 2
