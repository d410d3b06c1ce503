"""How long tool calls in the sandbox take, how many go through, and what a child weighs.

    python experiments/sandbox.py                 # every level that this machine offers, bare and with numpy and sympy
    python experiments/sandbox.py --json          # one object a line
    python experiments/sandbox.py --calls 2000 --levels strict

One-shot calls fork a child each: `paced` ones come 10 ms apart (as a model's turns do, so that a spare child is ready),
`in a row` ones follow each other at once. Session calls go to a child that is there. A step is 64 trajectories at a
time, each with a session of its own and 4 calls. Memory is what a child has for itself while it waits for a call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rewright.sandbox import Level, Sandbox
from rewright.sandbox.capabilities import capabilities

SOURCE = "def add(a, b):\n    return {'sum': a + b}"
PRELOADS = {"bare": ("math", "json", "re", "datetime"), "sympy": ("numpy as np", "sympy", "math")}
TRAJECTORIES, CALLS_EACH, IDLE_CHILDREN = 64, 4, 32


async def timed(count: int, call: Callable[[], Awaitable[Any]], pause: float = 0.0) -> dict[str, float]:
    """Milliseconds of `count` calls: the median and two percentiles."""
    milliseconds = []
    for _ in range(count):
        started = time.perf_counter()
        result = await call()
        milliseconds.append(1000 * (time.perf_counter() - started))
        assert result.error is None, result
        if pause:
            await asyncio.sleep(pause)
    milliseconds.sort()
    return {f"p{share}": round(milliseconds[min(count - 1, count * share // 100)], 2) for share in (50, 95, 99)}


async def step(box: Sandbox) -> float:
    """Seconds of one step: 64 trajectories of 4 calls."""

    async def trajectory(number: int) -> None:
        async with box.session({"add": SOURCE}) as session:
            for index in range(CALLS_EACH):
                result = await session.call("add", {"a": number, "b": index})
                assert result.content == f'{{"sum": {number + index}}}', result

    started = time.perf_counter()
    await asyncio.gather(*(trajectory(number) for number in range(TRAJECTORIES)))
    return time.perf_counter() - started


def children(process: int) -> list[int]:
    """The children of a process of this machine."""
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def kilobytes(process: int, field: str) -> int:
    """The lines of /proc/PID/smaps_rollup that begin with `field`, added up; 0 where the process has just ended."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except ProcessLookupError:
        return 0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(field))


async def memory(box: Sandbox) -> dict[str, float]:
    """Megabytes of the fork server, and of a waiting child beyond what it shares."""
    assert box.process_id is not None
    sessions = [box.session({"add": SOURCE}) for _ in range(IDLE_CHILDREN)]
    for session in sessions:
        await session.call("add", {"a": 1, "b": 2})
    private = [size for child in children(box.process_id) if (size := kilobytes(child, "Private"))]
    for session in sessions:
        await session.close()
    return {
        "server_mb": round(kilobytes(box.process_id, "Rss") / 1024, 1),
        "child_mb": round(sum(private) / len(private) / 1024, 2),
    }


async def measure(level: Level, preload: str, calls: int) -> dict[str, Any]:
    started = time.perf_counter()
    async with Sandbox(level, wall_seconds=60.0, preload=PRELOADS[preload]) as box:
        row: dict[str, Any] = {"level": level, "preload": preload}
        row["start_ms"] = round(1000 * (time.perf_counter() - started))

        async def one_shot() -> Any:
            return await box.call(SOURCE, "add", {"a": 1, "b": 2})

        await timed(20, one_shot)
        row["paced_ms"] = await timed(calls, one_shot, pause=0.01)
        row["in_a_row_ms"] = await timed(calls, one_shot)
        async with box.session({"add": SOURCE}) as session:

            async def again() -> Any:
                return await session.call("add", {"a": 1, "b": 2})

            await again()
            row["session_ms"] = await timed(10 * calls, again)
        started = time.perf_counter()
        await asyncio.gather(*(one_shot() for _ in range(calls)))
        row["calls_per_second"] = round(calls / (time.perf_counter() - started))
        row["step_seconds"] = round(min([await step(box) for _ in range(3)]), 3)
        row |= await memory(box)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description="Time tool calls in the sandbox.")
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--levels", nargs="+", default=["strict", "process", "unsafe"])
    parser.add_argument("--preloads", nargs="+", choices=list(PRELOADS), default=list(PRELOADS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    offered = capabilities()
    if not options.json:
        cores = len(os.sched_getaffinity(0))
        print(f"{offered.system}, Python {platform.python_version()}, {cores} cores, load {os.getloadavg()[0]:.1f}")
        print(f"{'level':8}{'preload':8}{'start':>8}{'paced p50/p95/p99':>22}{'in a row':>22}{'session':>20}", end="")
        print(f"{'calls/s':>9}{'step':>8}{'server':>9}{'child':>9}")
    for level in options.levels:
        if level not in offered.levels:
            print(f"{level}: not offered here: {offered.refusal}")
            continue
        for preload in options.preloads:
            row = asyncio.run(measure(level, preload, options.calls))
            if options.json:
                print(json.dumps(row))
                continue
            times = [
                "/".join(f"{value:g}" for value in row[name].values())
                for name in row
                if name.endswith("_ms") and name != "start_ms"
            ]
            print(f"{level:8}{preload:8}{row['start_ms']:>6}ms{times[0]:>20}ms{times[1]:>20}ms{times[2]:>18}ms", end="")
            print(f"{row['calls_per_second']:>9}{row['step_seconds']:>7}s{row['server_mb']:>7}MB{row['child_mb']:>7}MB")


if __name__ == "__main__":
    main()
