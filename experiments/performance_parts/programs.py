"""The driver, the sandbox, commands over stored trajectories, and the start of the command line."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import driver
import msgspec
import stored_data

import sandbox
from performance_parts.rows import Figure, Row, rounded
from rewright.core.concurrency import rare_collections
from rewright.core.records import Trajectory
from rewright.sandbox import Sandbox
from rewright.sandbox.capabilities import capabilities

ROOT = Path(__file__).parents[2]
PEERS = Path(os.environ.get("REWRIGHT_PEERS", ROOT / ".venv/peers")) / "bin"

# ---- driver ----


async def openai_rollouts(url: str, count: int, concurrency: int) -> None:
    """The requests of the driver's benchmark with the client of the package openai."""
    from openai import AsyncOpenAI

    left = iter(range(count))
    client: Any = AsyncOpenAI(base_url=url, api_key="key", max_retries=0, timeout=None)

    async def worker() -> None:
        for index in left:
            messages: list[Any] = [{"role": "user", "content": driver.QUESTION}]
            while True:
                reply = await client.chat.completions.create(
                    model="served", messages=messages, temperature=1.0, top_p=1.0, max_tokens=1024, seed=index,
                    tools=[driver.SCHEMA], logprobs=True, extra_body={"return_token_ids": True, "top_k": -1},
                )  # fmt: skip
                message = reply.choices[0].message
                messages.append(message)
                if not message.tool_calls:
                    break
                for call in message.tool_calls:
                    json.loads(call.function.arguments)
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": driver.RESULT})

    async with client:
        await asyncio.gather(*(worker() for _ in range(concurrency)))


def driver_rows(*, tiny: bool) -> list[Row]:
    """Rollouts per second of the driver's CPU; medians of rounds that alternate."""
    count, concurrency, rounds = (16, 4, 1) if tiny else (1024, 512, 3)
    ours, theirs = multiprocessing.Pipe()
    arguments = (0.01 if tiny else 0.1, theirs)
    server = multiprocessing.get_context("spawn").Process(target=driver.serve, args=arguments, daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}/v1"
    runs: dict[str, Callable[[str, int, int], Awaitable[None]]] = {
        "ours": driver.rewright_rollouts, "bare": driver.bare_rollouts
    }  # fmt: skip
    if find_spec("openai"):
        runs["openai"] = openai_rollouts
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            wanted = concurrency if name == "openai" else count  # the client takes some 4 ms a request
            with rare_collections():
                _, used = driver.measure(run, url, wanted, concurrency)
            if number:  # the first round is warm-up
                found[name].append(wanted / used)
    server.terminate()
    rates = {name: rounded(statistics.median(rows)) for name, rows in found.items()}
    return [
        Row(
            what=f"driver: rollouts of 3 requests, {concurrency} in flight, per second of its CPU",
            command="python experiments/driver.py",
            unit="/s",
            better="more",
            today=rates["ours"],
            peer=Figure(rates["openai"], "loop with the openai client") if "openai" in rates else None,
            limit=Figure(rates["bare"], "bare aiohttp loop"),
        )
    ]


# ---- sandbox ----

ECHO = """
import json, sys
def add(a, b): return {"sum": a + b}
for line in sys.stdin:
    print(json.dumps(add(**json.loads(line))), flush=True)
"""
INSPECT = """
import asyncio, sys, tempfile, time
from inspect_ai.util._sandbox.local import LocalSandboxEnvironment
async def main(count):
    box, taken = LocalSandboxEnvironment(), []
    for _ in range(count):
        started = time.perf_counter()
        done = await box.exec([sys.executable, "-I", "-c", "print({'sum': 1 + 2})"])
        taken.append(1000 * (time.perf_counter() - started))
        assert done.stdout.strip() == "{'sum': 3}", done
    print(sorted(taken)[len(taken) // 2])
asyncio.run(main(int(sys.argv[1])))
"""


async def pipe_round_trips(count: int) -> float:
    """Median milliseconds of a call of a function in a waiting process, as JSON lines over pipes."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-I", "-c", ECHO, stdin=pipe, stdout=pipe)
    assert child.stdin is not None and child.stdout is not None
    sent, received = child.stdin, child.stdout

    async def call() -> None:
        sent.write(b'{"a": 1, "b": 2}\n')
        assert await received.readline() == b'{"sum": 3}\n'

    await call()
    taken = await milliseconds(count, call)
    child.stdin.close()
    await child.wait()
    return taken


def forked_calls(count: int) -> float:
    """Median milliseconds of a bare fork of this process that writes a result into a pipe and ends."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(theirs, json.dumps({"sum": 1 + 2}).encode())
            os._exit(0)
        assert os.read(ours, 100) == b'{"sum": 3}'
        os.waitpid(child, 0)
        os.close(ours)
        os.close(theirs)
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


async def milliseconds(count: int, call: Callable[[], Awaitable[Any]], pause: float = 0.0) -> float:
    """Median milliseconds of some calls."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        await call()
        taken.append(1000 * (time.perf_counter() - started))
        await asyncio.sleep(pause)
    return statistics.median(taken)


def inspect_calls(count: int) -> Figure | None:
    """The local sandbox of inspect_ai, if it is installed in .venv/peers."""
    python = PEERS / "python"
    if not python.exists():
        return None
    done = subprocess.run([str(python), "-c", INSPECT, str(count)], capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    return Figure(rounded(float(done.stdout)), "inspect_ai's local sandbox")


def sandbox_rows(*, tiny: bool) -> list[Row]:
    """Milliseconds of a call at the strictest level of this machine."""
    count = 5 if tiny else 300
    level = capabilities().levels[0]

    async def ours() -> tuple[float, float]:
        async with Sandbox(level, wall_seconds=60.0) as box:

            async def one_shot() -> None:
                result = await box.call(sandbox.SOURCE, "add", {"a": 1, "b": 2})
                assert result.error is None, result

            await milliseconds(max(3, count // 10), one_shot, 0.01)
            single = await milliseconds(count, one_shot, 0.01)
            async with box.session({"add": sandbox.SOURCE}) as session:

                async def again() -> None:
                    result = await session.call("add", {"a": 1, "b": 2})
                    assert result.error is None, result

                await again()
                return single, await milliseconds(5 * count, again)

    single, session = asyncio.run(ours())
    command = f"python experiments/sandbox.py --levels {level}"
    return [
        Row(
            what=f"sandbox ({level}): a call in a session",
            command=command,
            unit="ms",
            today=rounded(session),
            limit=Figure(rounded(asyncio.run(pipe_round_trips(5 * count))), "JSON over a pipe, no sandbox"),
        ),
        Row(
            what=f"sandbox ({level}): a call in a process of its own, 10 ms apart",
            command=command,
            unit="ms",
            today=rounded(single),
            peer=inspect_calls(max(3, count // 10)),
            limit=Figure(rounded(forked_calls(count)), "bare fork, no sandbox"),
        ),
    ]


# ---- stored data ----


def decode_all(file: str) -> None:
    """Decode every line, as `rewright judge` has to; run in a process of its own."""
    decoder = msgspec.json.Decoder(Trajectory)
    started, count = time.process_time(), 0
    with Path(file).open("rb") as lines:
        for line in lines:
            decoder.decode(line)
            count += 1
    print(count / (time.process_time() - started))


def stored_rows(*, tiny: bool) -> list[Row]:
    """Trajectories per second of CPU and of the clock, without the start of the command, and peak memory."""
    count = 80 if tiny else 20_000
    decode = "import sys; from performance_parts.programs import decode_all; decode_all(sys.argv[1])"
    command = f"python experiments/stored_data.py --counts {count}"
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        small, large = root / str(stored_data.CANDIDATES), root / str(count)
        for folder in (small, large):
            stored_data.write_run(folder, int(folder.name))
        file = large / "trajectories.jsonl"
        done = subprocess.run(
            [sys.executable, "-c", decode, str(file)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT / "experiments")},
        )
        limit = Figure(rounded(float(done.stdout)), "msgspec decodes the file")
        size = Figure(rounded(file.stat().st_size / 2**20), "size of the file")
        for verb in ("judge", "score", "credit"):
            start, start_cpu, *_ = stored_data.measure([verb, str(small)], 2)
            seconds, cpu, memory, _ = stored_data.measure([verb, str(large)], 2)
            what = f"stored data: {verb}, {count:,} trajectories"
            per_cpu, per_second = count / max(cpu - start_cpu, 1e-3), count / max(seconds - start, 1e-3)
            rows += [
                Row(f"{what}, per second of CPU", command, "/s", "more", rounded(per_cpu), limit=limit),
                Row(f"{what}, per second on two cores", command, "/s", "more", rounded(per_second)),
                Row(f"{what}, peak memory", command, "MiB", today=rounded(memory), limit=size),
            ]
    return rows


# ---- command line ----


def cpu_of(command: Sequence[str], repeats: int) -> float:
    """Median seconds of CPU of a command and its children."""
    taken = []
    for _ in range(repeats + 1):
        before = os.times()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        after = os.times()
        taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return rounded(statistics.median(taken[1:]))  # the first one may read files from the disk


def inspect_start(arguments: Sequence[str], repeats: int) -> Figure | None:
    """The command line of inspect_ai, if it is installed in .venv/peers."""
    if not (PEERS / "inspect").exists():
        return None
    return Figure(cpu_of([str(PEERS / "inspect"), *arguments], repeats), " ".join(["inspect", *arguments]))


def trl_start(repeats: int) -> Figure | None:
    """The command line of TRL, if it is installed."""
    if not find_spec("trl"):
        return None
    return Figure(cpu_of([sys.executable, "-c", "from trl.cli import main; main()", "--help"], repeats), "trl --help")


def command_line_rows(*, tiny: bool) -> list[Row]:
    """Seconds of CPU until a command has printed something."""
    repeats = 1 if tiny else 5
    limit = Figure(cpu_of([sys.executable, "-c", "pass"], repeats), "python -c pass")
    peers = {"--version": inspect_start(["info", "version"], repeats), "--help": trl_start(repeats)}
    return [
        Row(
            what=f"command line: `rewright {arguments}`, CPU",
            command="make performance",
            unit="s",
            today=cpu_of([sys.executable, "-m", "rewright", *arguments.split()], repeats),
            peer=peer,
            limit=limit,
        )
        for arguments, peer in peers.items()
    ]
