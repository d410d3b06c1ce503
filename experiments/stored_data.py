"""Rate and memory of `rewright judge`, `score` and `credit` over stored trajectories.

    python experiments/stored_data.py                        # 10,000 and 100,000 trajectories, some minutes
    python experiments/stored_data.py --counts 20000 --cores 1 2

Writes runs of three-turn trajectories with calls, eight candidates of a task in a row, and starts each command in a
process of its own. Printed: trajectories per second, of the whole command and without its start (measured by the same
command on 8 trajectories); trajectories per second of CPU, without the start, which other load disturbs least; and
the peak memory of all its processes together: PSS, in which a page that
processes share counts once, and RSS, in which it counts in each. `--cores` limits the commands to so many cores.
Times are of a shared machine: compare ratios within one run.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rewright.core.records import Gold, Task, ToolCall, ToolResult, ToolSpec, Trajectory, Turn
from rewright.core.storage import encode_line
from rewright.tasks.loading import save_tasks

CANDIDATES = 8
PROGRAM = "from rewright.cli.main import main; main()"
UNITS = ("km", "mile", "metre")


def gold_calls(draw: random.Random) -> tuple[ToolCall, ...]:
    """Three gold calls of two tools."""
    return tuple(
        ToolCall(f"tool_{index % 2}", {"entity": f"entity {draw.randrange(40)}", "unit": draw.choice(UNITS)}, raw="")
        for index in range(3)
    )


def trajectory(task: Task, index: int, draw: random.Random) -> Trajectory:
    """Two turns of calls, some as the gold calls are, and an answer."""
    turns = []
    for number in range(2):
        calls = []
        for gold in (task.gold.calls or ())[2 * number : 2 * number + 2]:
            arguments = dict(gold.arguments)
            if draw.random() < 0.4:
                arguments["unit"] = draw.choice(UNITS)
            calls.append(ToolCall(gold.name, arguments, raw="{}"))
        words = " ".join(f"w{draw.randrange(900)}" for _ in range(60))
        text = f"<think>{words}</think>" + "".join(f"<tool_call>{call.name}</tool_call>" for call in calls)
        results = tuple(ToolResult(content=f"the distance is {draw.randrange(900)} " * 4) for _ in calls)
        turns.append(Turn(text=text, calls=tuple(calls), results=results))
    answer = "7" if draw.random() < 0.5 else str(draw.randrange(50))
    turns.append(Turn(text=f"<think>so it is</think><answer>{answer}</answer>"))
    identity = f"synth/{task.id}/{index}/0123456789abcdef"
    return Trajectory(
        id=identity, task_id=task.id, stage="synth", index=index, turns=tuple(turns), stop_reason="answered",
        answer=answer,
    )  # fmt: skip


def write_run(folder: Path, count: int) -> None:
    """A run directory with `count` trajectories."""
    draw = random.Random(0)
    tool = {
        "type": "function",
        "function": {
            "name": "tool",
            "description": "Look up a distance.",
            "parameters": {"type": "object", "properties": {"entity": {"type": "string"}, "unit": {"type": "string"}}},
        },
    }
    specs = []
    for number in range(2):
        schema = {**tool, "function": {**tool["function"], "name": f"tool_{number}"}}  # type: ignore[dict-item]
        specs.append(ToolSpec(schema=schema, source=f"def tool_{number}(entity, unit):\n    return 1\n"))
    tasks = [
        Task(
            id=f"task-{index:06d}",
            messages=({"role": "user", "content": f"How far is place {index}?"},),
            tools=tuple(specs),
            gold=Gold(answers=("7",), calls=gold_calls(draw)),
        )
        for index in range(max(1, count // CANDIDATES))
    ]
    folder.mkdir(parents=True)
    save_tasks(folder / "given.jsonl", tasks)
    (folder / "recipe.yaml").write_text(
        f"tasks: {{format: rewright, path: {folder / 'given.jsonl'}}}\nstages: [judge, score]\n"
    )
    with (folder / "trajectories.jsonl").open("wb") as file:
        for task in tasks:
            file.writelines(encode_line(trajectory(task, index, draw)) for index in range(CANDIDATES))


def tree(root: int) -> list[int]:
    """The process and its descendants."""
    found, position = [root], 0
    while position < len(found):
        try:
            children = Path(f"/proc/{found[position]}/task/{found[position]}/children").read_text().split()
        except OSError:
            children = []
        found += map(int, children)
        position += 1
    return found


def memory(processes: list[int]) -> tuple[int, int]:
    """Their PSS and RSS in kB."""
    totals = {"Pss": 0, "Rss": 0}
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition(":")
            if key in totals:
                totals[key] += int(value.split()[0])
    return totals["Pss"], totals["Rss"]


def measure(arguments: list[str], cores: int) -> tuple[float, float, float, float]:
    """Run `rewright ARGUMENTS`: seconds, CPU seconds of all processes, peak PSS and RSS in MiB."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    before, started = os.times(), time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.DEVNULL, stderr=errors
        )
        os.sched_setaffinity(process.pid, allowed)
        pss = rss = 0
        while process.poll() is None:
            one, other = memory(tree(process.pid))
            pss, rss = max(pss, one), max(rss, other)
            time.sleep(0.05)
        seconds, after = time.perf_counter() - started, os.times()
        if process.returncode:
            errors.seek(0)
            sys.exit(errors.read().decode())
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, used, pss / 1024, rss / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--cores", type=int, nargs="+", default=[2])
    parser.add_argument("--keep", type=Path, help="Write the runs here, or use those that are here.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = given.keep or Path(temporary)
        for count in (CANDIDATES, *given.counts):
            if not (root / str(count)).exists():
                write_run(root / str(count), count)
        print(
            "command       cores  trajectories   per s  per s after start   CPU s  per CPU s  PSS in MiB    RSS in MiB"
        )
        for cores in given.cores:
            for verb in ("judge", "score", "credit", "credit --json"):
                name, *rest = verb.split()
                start, start_cpu, *_ = measure([name, str(root / str(CANDIDATES)), *rest], cores)
                for count in given.counts:
                    seconds, used, pss, rss = measure([name, str(root / str(count)), *rest], cores)
                    net, per_cpu = count / max(seconds - start, 1e-3), count / max(used - start_cpu, 1e-3)
                    print(
                        f"{verb:<13}{cores:>5}{count:>14,}{count / seconds:>8,.0f}{net:>19,.0f}"
                        f"{used:>8.1f}{per_cpu:>11,.0f}{pss:>14.0f}{rss:>14.0f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
