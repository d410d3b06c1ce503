"""How many rollouts one driver process makes, beside a bare aiohttp loop with the same requests.

    python experiments/driver.py                      # 512 rollouts in flight, 3 requests and 2 tool calls each

A server in a process of its own answers every request 100 ms later: two tool calls, then an answer. Tools are functions
of this process, so that nothing but the driver is measured. The bare loop posts the same JSON fields with aiohttp, as
its documentation does it, over as many connections, decodes the replies and the arguments of calls with json, and
appends messages; it checks and stores nothing. "aiohttp, gc" is the same loop with Rewright's setting of the garbage
collector. Rounds alternate; printed are the medians of rollouts per second and per second of this process's CPU (which
other load disturbs least), and the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self

import aiohttp

from rewright.core.concurrency import rare_collections
from rewright.core.records import Gold, Task, ToolCall, ToolResult, ToolSpec
from rewright.dialects import get_dialect
from rewright.engines.openai import OpenAIEngine
from rewright.rollout.loop import Plan, Rollout

SCHEMA = {
    "type": "function",
    "function": {
        "name": "distance",
        "description": "Look up the distance between two places.",
        "parameters": {"type": "object", "properties": {"from": {"type": "string"}, "to": {"type": "string"}}},
    },
}
QUESTION = "How far is it from the mill to the harbour? Use the tool, and answer in km."
RESULT = "The distance is 12 km along the river, and 9 km as the crow flies."


def reply(calls: bool) -> bytes:
    """A server's reply: a tool call with a thought, or an answer."""
    message: dict[str, Any] = {"role": "assistant", "content": "I look it up first. " * 5}
    if calls:
        function = {"name": "distance", "arguments": '{"from": "mill", "to": "harbour"}'}
        message["tool_calls"] = [{"id": "call00000", "type": "function", "function": function}]
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "served",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}],
        "usage": {"prompt_tokens": 400, "completion_tokens": 0, "total_tokens": 400},
    }
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


class Server(asyncio.Protocol):
    """Answers every request after `delay` seconds. Small, so that it does not limit what is measured."""

    def __init__(self, delay: float) -> None:
        self._delay, self._data = delay, b""
        self._call, self._answer = reply(calls=True), reply(calls=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Answer complete requests."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            if len(self._data) < end + 4 + length:
                return
            body, self._data = self._data[end + 4 : end + 4 + length], self._data[end + 4 + length :]
            results = body.count(b'"role":"tool"') + body.count(b'"role": "tool"')
            written = self._answer if results >= 2 else self._call
            asyncio.get_running_loop().call_later(self._delay, self._transport.write, written)


def serve(delay: float, ready: Any) -> None:
    """Run the server; sends its port."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Server(delay), "127.0.0.1", 0, backlog=4096)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


class Tools:
    """A toolset, and its factory, that answers at once."""

    def open(self, tools: object) -> Self:
        """Open the tools of a trajectory."""
        return self

    async def close(self) -> None:
        """Nothing to close."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def call(self, call: ToolCall, *, wall_seconds: float | None = None) -> ToolResult:
        """Answer a call."""
        return ToolResult(content=RESULT)


async def rewright_rollouts(url: str, count: int, concurrency: int) -> None:
    """Run rollouts with Rewright's loop."""
    engine = OpenAIEngine(url, "served", concurrency=concurrency, api_key="key")
    rollout = Rollout(engine, get_dialect("chat"), Tools())
    task = Task(
        id="t",
        messages=({"role": "user", "content": QUESTION},),
        tools=(ToolSpec(schema=SCHEMA, source="def distance(**_): return 12"),),
        gold=Gold(answers=("12",)),
    )
    plans = (Plan(id=f"synth/t/{index}", task=task, stage="synth", index=index, seed=index) for index in range(count))
    try:
        async for trajectory in rollout.run_many(plans, concurrency=concurrency):
            assert trajectory.stop_reason == "answered" and len(trajectory.turns) == 3, trajectory
    finally:
        await engine.close()


async def bare_rollouts(url: str, count: int, concurrency: int) -> None:
    """Run the same requests with aiohttp alone."""
    left = iter(range(count))
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector, headers={"Authorization": "Bearer key"}) as session:

        async def worker() -> None:
            for index in left:
                messages: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
                while True:
                    body = {
                        "model": "served", "messages": messages, "temperature": 1.0, "top_p": 1.0, "max_tokens": 1024,
                        "seed": index, "tools": [SCHEMA], "return_token_ids": True, "top_k": -1, "min_p": 0.0,
                        "repetition_penalty": 1.0, "logprobs": True,
                    }  # fmt: skip
                    async with session.post(f"{url}/chat/completions", json=body) as response:
                        message = (await response.json())["choices"][0]["message"]
                    messages.append(message)
                    if not message.get("tool_calls"):
                        break
                    for call in message["tool_calls"]:
                        json.loads(call["function"]["arguments"])
                        messages.append({"role": "tool", "tool_call_id": call["id"], "content": RESULT})

        await asyncio.gather(*(worker() for _ in range(concurrency)))


async def bare_with_rare_collections(url: str, count: int, concurrency: int) -> None:
    """The bare loop with the garbage collector as Rewright sets it while rollouts run."""
    with rare_collections():
        await bare_rollouts(url, count, concurrency)


def measure(run: Callable[[str, int, int], Awaitable[None]], *arguments: Any) -> tuple[float, float]:
    """Seconds, and seconds of this process's CPU."""
    started, before = time.perf_counter(), time.process_time()
    asyncio.run(run(*arguments))  # type: ignore[arg-type]
    return time.perf_counter() - started, time.process_time() - before


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=4000)
    parser.add_argument("--concurrency", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delay", type=float, default=0.1)
    given = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(given.delay, theirs), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}/v1"
    found: dict[str, list[tuple[float, float]]] = {
        "aiohttp alone": [],
        "aiohttp, gc": [],
        "Rewright": [],
    }
    for number in range(given.rounds + 1):
        count = given.rollouts if number else given.concurrency  # the first round is warm-up
        for name, run in (
            ("aiohttp alone", bare_rollouts),
            ("aiohttp, gc", bare_with_rare_collections),
            ("Rewright", rewright_rollouts),
        ):
            seconds, used = measure(run, url, count, given.concurrency)
            if number:
                found[name].append((count / seconds, count / used))
    print("driver           rollouts/s  rollouts/CPU s")
    for name, rows in found.items():
        wall, used = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:<15}{wall:>12,.0f}{used:>16,.0f}")
    for other in ("aiohttp alone", "aiohttp, gc"):
        for place, what in ((0, "per second"), (1, "per second of CPU")):
            pairs = zip(found["Rewright"], found[other], strict=True)
            ratio = statistics.median(ours[place] / theirs[place] for ours, theirs in pairs)
            print(f"Rewright / {other}, {what}: {ratio:.2f}")
    server.terminate()


if __name__ == "__main__":
    main()
