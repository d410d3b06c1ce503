"""Run with the peers' libraries: each of them writes the same conversation as its users store it.

    python write_logs.py FOLDER

The question "How warm are Paris and Rome?", a turn with a thought, a text and two calls, their results (the second one
an error), and an answer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

QUESTION = "How warm are Paris and Rome?"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "The city."}},
    "required": ["city"],
}
CITIES = ("Paris", "Rome")
RESULTS = ("21 degrees", "no such city")


def write(path: Path, *rows: Any) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def openai_logs(folder: Path) -> None:
    from openai.types.chat import ChatCompletion
    from openai.types.responses import Response

    calls = [
        {
            "id": f"c{i}",
            "type": "function",
            "function": {"name": "get_weather", "arguments": json.dumps({"city": city})},
        }
        for i, city in enumerate(CITIES)
    ]
    first = {"role": "assistant", "content": "I look.", "tool_calls": calls}
    results = [{"role": "tool", "tool_call_id": f"c{i}", "content": result} for i, result in enumerate(RESULTS)]

    def completion(message: dict[str, Any], reason: str) -> ChatCompletion:
        choice = {"index": 0, "finish_reason": reason, "message": message, "logprobs": None}
        return ChatCompletion.model_validate(
            {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        )

    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    spoken = completion(first, "tool_calls").choices[0].message.model_dump()
    request = {"model": "m", "messages": [*asked, spoken, *results], "tools": [_tool()]}
    last = completion({"role": "assistant", "content": "21 and unknown"}, "stop")
    write(
        folder / "openai_request.jsonl", {"request": request, "response": last.model_dump(), "answer": "21 and unknown"}
    )
    write(folder / "openai_messages.jsonl", {"messages": [*request["messages"], last.choices[0].message.model_dump()]})

    reasoning = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "Two cities."}]}
    text = {"type": "output_text", "text": "I look.", "annotations": []}
    items = [
        {"type": "function_call", "call_id": f"c{i}", "name": "get_weather", "arguments": json.dumps({"city": city})}
        for i, city in enumerate(CITIES)
    ]
    common = {
        "id": "resp", "object": "response", "created_at": 1, "model": "m", "parallel_tool_calls": True,
        "tool_choice": "auto", "tools": [],
    }  # fmt: skip
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}
    one = Response.model_validate({**common, "output": [reasoning, {**message, "content": [text]}, *items]})
    outputs = [{"type": "function_call_output", "call_id": f"c{i}", "output": out} for i, out in enumerate(RESULTS)]
    end = {"type": "output_text", "text": "21 and unknown", "annotations": []}
    two = Response.model_validate({**common, "output": [{**message, "content": [end]}]})
    history = [{"role": "user", "content": QUESTION}, *[item.model_dump() for item in one.output], *outputs]
    row = {
        **two.model_dump(),
        "input": history,
        "instructions": "Be brief.",
        "tools": [{"type": "function", **_flat()}],
    }
    write(folder / "responses.jsonl", row)
    (folder / "responses_items.json").write_text(json.dumps([*history, *[one.model_dump() for one in two.output]]))


def anthropic_logs(folder: Path) -> None:
    from anthropic.types import Message

    def message(parts: list[dict[str, Any]]) -> dict[str, Any]:
        usage = {"input_tokens": 1, "output_tokens": 1}
        return Message.model_validate(
            {"id": "msg", "type": "message", "role": "assistant", "model": "m", "content": parts, "usage": usage,
             "stop_reason": "tool_use", "stop_sequence": None}
        ).model_dump()  # fmt: skip

    uses = [
        {"type": "tool_use", "id": f"t{i}", "name": "get_weather", "input": {"city": city}}
        for i, city in enumerate(CITIES)
    ]
    thought = {"type": "thinking", "thinking": "Two cities.", "signature": "s"}
    first = message([thought, {"type": "text", "text": "I look."}, *uses])
    results = [
        {"type": "tool_result", "tool_use_id": "t0", "content": RESULTS[0]},
        {
            "type": "tool_result",
            "tool_use_id": "t1",
            "is_error": True,
            "content": [{"type": "text", "text": RESULTS[1]}],
        },
    ]
    asked = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": results},
    ]
    tools = [{"name": "get_weather", "description": "The weather.", "input_schema": SCHEMA}]
    last = message([{"type": "text", "text": "21 and unknown"}])
    write(folder / "anthropic.jsonl", {"system": "Be brief.", "messages": [*asked, last], "tools": tools})
    request = {"system": [{"type": "text", "text": "Be brief."}], "messages": asked, "tools": tools}
    write(folder / "anthropic_request.jsonl", {"request": request, "response": last})


def langchain_logs(folder: Path) -> None:
    from langchain_core.load import dumpd
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage, messages_to_dict

    calls = [{"name": "get_weather", "args": {"city": city}, "id": f"c{i}"} for i, city in enumerate(CITIES)]
    messages = [
        SystemMessage("Be brief."),
        HumanMessage(QUESTION),
        AIMessage("I look.", tool_calls=calls),
        ToolMessage(RESULTS[0], tool_call_id="c0", name="get_weather"),
        ToolMessage(RESULTS[1], tool_call_id="c1", name="get_weather", status="error"),
        AIMessage("21 and unknown"),
    ]
    write(folder / "langchain_dump.jsonl", {"messages": [message.model_dump() for message in messages]})
    write(folder / "langchain_dict.jsonl", {"messages": messages_to_dict(messages)})
    write(folder / "langchain_dumpd.jsonl", {"messages": dumpd(messages)})
    blocks = AIMessage([{"type": "text", "text": "I look."}, *[{"type": "tool_call", **call} for call in calls]])
    write(folder / "langchain_blocks.jsonl", {"messages": [*map(dumpd, messages[:2]), dumpd(blocks.model_copy(
        update={"tool_calls": messages[2].tool_calls})), *map(dumpd, messages[3:])]})  # fmt: skip


def atif_logs(folder: Path) -> None:
    from atif import Agent, Metrics, Observation, ObservationResult, Step, ToolCall, Trajectory

    for version in ("1.7", "1.8"):
        calls = [
            ToolCall(tool_call_id=f"c{i}", function_name="get_weather", arguments={"city": city})
            for i, city in enumerate(CITIES)
        ]
        results = [ObservationResult(source_call_id=f"c{i}", content=out) for i, out in enumerate(RESULTS)]
        steps = [
            Step(step_id=1, source="system", message="Be brief."),
            Step(step_id=2, source="user", message=QUESTION),
            Step(
                step_id=3, source="agent", message="I look.", reasoning_content="Two cities.", tool_calls=calls,
                observation=Observation(results=results),
                metrics=Metrics(prompt_token_ids=[1, 2, 3], completion_token_ids=[4, 5], logprobs=[-0.5, -0.25]),
            ),
            Step(
                step_id=4, source="agent", message="21 and unknown",
                metrics=Metrics(prompt_token_ids=[1, 2, 3, 4, 5, 6, 7], completion_token_ids=[8], logprobs=[-1.0]),
            ),
        ]  # fmt: skip
        agent = Agent(name="a", version="1", model_name="m", tool_definitions=[_tool()])
        one = Trajectory(
            schema_version=f"ATIF-v{version}", trajectory_id="one", session_id="s", agent=agent, steps=steps,
            extra={"reward": 1.0, "task_id": "weather"},
        )  # fmt: skip
        (folder / f"atif_{version}.json").write_text(json.dumps(one.to_json_dict(), indent=1))
        write(folder / f"atif_{version}.jsonl", one.to_json_dict(exclude_none=False))


def verifiers_logs(folder: Path) -> None:
    from verifiers.v1.configs.agent import AgentConfig
    from verifiers.v1.episode import EnvInfo, Episode
    from verifiers.v1.graph import MessageNode
    from verifiers.v1.task import TaskData
    from verifiers.v1.trace import AgentInfo, Reward, Trace, TraceTask
    from verifiers.v1.types import AssistantMessage, SystemMessage, Tool, ToolCall, ToolMessage, UserMessage
    from verifiers.v1.utils.trace_store import write_episode

    class Data(TaskData):
        answer: str

    calls = [
        ToolCall(id=f"c{i}", name="get_weather", arguments=json.dumps({"city": city})) for i, city in enumerate(CITIES)
    ]
    tools = [Tool(name="get_weather", description="The weather.", parameters=SCHEMA)]
    first = AssistantMessage(content="I look.", reasoning_content="Two cities.", tool_calls=calls)
    nodes = [
        MessageNode(message=SystemMessage(content="Be brief."), tools=tools, token_ids=[1], mask=[False]),
        MessageNode(parent=0, message=UserMessage(content=QUESTION), token_ids=[2], mask=[False]),
        MessageNode(
            parent=1, message=first, sampled=True, token_ids=[3, 4, 5], mask=[False, True, True], logprobs=[-0.5, -0.25]
        ),
        MessageNode(parent=2, message=ToolMessage(tool_call_id="c0", content=RESULTS[0]), token_ids=[6], mask=[False]),
        MessageNode(parent=3, message=ToolMessage(tool_call_id="c1", content=RESULTS[1]), token_ids=[], mask=[]),
        MessageNode(
            parent=4, message=AssistantMessage(content="21 and unknown"), sampled=True, token_ids=[7, 8],
            mask=[False, True], logprobs=[-1.0],
        ),
    ]  # fmt: skip
    data = Data(id="weather", prompt=QUESTION, system_prompt="Be brief.", answer="21 and unknown")
    config = AgentConfig.model_construct(model="m")
    task = TraceTask(type="Weather", data=data, key="k")
    trace = Trace(
        id="one", task=task, agent=AgentInfo.model_construct(config=config), nodes=nodes,
        rewards={"right": Reward(score=1.0, weight=0.5), "short": None}, metrics={"turns": 2.0},
    )  # fmt: skip
    run = folder / "verifiers_run"
    run.mkdir()
    write_episode(run, Episode(env=EnvInfo(id="weather"), task=task, traces=[trace], ok=True))


def _flat() -> dict[str, Any]:
    return {"name": "get_weather", "description": "The weather.", "parameters": SCHEMA}


def _tool() -> dict[str, Any]:
    return {"type": "function", "function": _flat()}


if __name__ == "__main__":
    for writer in (openai_logs, anthropic_logs, langchain_logs, atif_logs, verifiers_logs):
        writer(Path(sys.argv[1]))
