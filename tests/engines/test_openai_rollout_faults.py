"""Whole rollouts through a failing server: every trajectory ends with an answer or a typed error, and is counted."""

import collections
import json

from rewright.core.records import Gold, Task, ToolResult, ToolSpec
from rewright.dialects.hermes import Hermes
from rewright.engines.openai import OpenAIEngine
from rewright.rollout.loop import Plan, Rollout
from rewright.rollout.settings import Limits
from support.fault_server import FAULTS, FaultServer

LOOKUP = {
    "type": "function",
    "function": {"name": "lookup", "parameters": {"type": "object", "properties": {"name": {"type": "string"}}}},
}
TASK = Task(
    id="age",
    messages=({"role": "user", "content": "How old is Ada?"},),
    tools=(ToolSpec(schema=LOOKUP, target="not.called:here"),),
    gold=Gold(answers=("36",)),
)


class Lookup:
    """A toolset in this process: the tools are not what is tested here."""

    def open(self, tools):
        return self

    async def call(self, call, *, wall_seconds=None):
        return ToolResult(content="36" if call.arguments == {"name": "Ada"} else "unknown")

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return None


def model(body: dict) -> dict:
    """Calls the tool, calls it wrongly, then answers: three turns, each a request that may fail."""
    results = [message for message in body["messages"] if message["role"] == "tool"]
    if len(results) == 2:
        return {"finish_reason": "stop", "message": {"content": f"<answer>{results[0]['content']}</answer>"}}
    arguments = '{"name": "Ada"}' if not results else '{"name": '
    call = {"id": "server-7", "type": "function", "function": {"name": "lookup", "arguments": arguments}}
    return {"finish_reason": "tool_calls", "message": {"content": None, "tool_calls": [call]}}


async def test_at_30_percent_faults_every_rollout_ends_with_an_answer_or_a_typed_error(capsys):
    probabilities = dict.fromkeys(FAULTS, 0.3 / len(FAULTS))
    async with FaultServer(probabilities=probabilities, seed=3, reply=model) as server:
        engine = OpenAIEngine(
            server.url, server.model, concurrency=16, attempts=2, timeout_seconds=2.0, first_wait_seconds=0.001,
            max_wait_seconds=0.01, api_key_env=None,
        )  # fmt: skip
        rollout = Rollout(engine, Hermes(), Lookup(), limits=Limits(turns=5, trajectory_seconds=60))
        plans = [Plan(id=f"t{index}", task=TASK, stage="synth", index=index, seed=index) for index in range(100)]
        ends = [trajectory async for trajectory in rollout.run_many(plans, concurrency=32)]
        await engine.close()
    reasons = collections.Counter(trajectory.stop_reason for trajectory in ends)
    failures = collections.Counter(trajectory.failure.kind for trajectory in ends if trajectory.failure is not None)
    with capsys.disabled():
        print(f"\nrollouts: {dict(reasons)}, failures {dict(failures)}; {server.summary()}")
    assert sorted(trajectory.id for trajectory in ends) == sorted(plan.id for plan in plans)
    assert set(reasons) == {"answered", "error"}
    assert reasons["error"] == failures["engine"]
    for trajectory in ends:
        if trajectory.stop_reason == "answered":
            assert (trajectory.answer, len(trajectory.turns)) == ("36", 3)
            assert trajectory.calls[1].error.startswith("malformed call")
        else:
            assert "2 attempts" in trajectory.failure.message
    # What a model wrote wrongly goes back to it as JSON that every server can read.
    last = max(server.requests, key=lambda body: len(body["messages"]))
    sent = [call for message in last["messages"] for call in message.get("tool_calls", ())]
    assert json.loads(sent[1]["function"]["arguments"]) == {"malformed_arguments": '{"name": '}
    assert [message["tool_call_id"] for message in last["messages"] if message["role"] == "tool"] == [
        call["id"] for call in sent
    ]
