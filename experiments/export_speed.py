"""How fast `rewright export` writes traces, and how much memory it needs: one row per format.

    python experiments/export_speed.py                     # 10,000 trajectories, about two minutes
    python experiments/export_speed.py --trajectories 1000

A trajectory has a prompt of 400 tokens with three tools, four turns of 80 tokens with log-probabilities, three calls,
and results of 60 tokens, all drawn with a seed. Every format is written by a process of its own, `rewright export`
included (start, imports, fsync). Peak memory is that of the process, of which about half are the imports; the second
figure is for a tenth of the trajectories.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rewright.core.records import Gold, Task, ToolCall, ToolResult, ToolSpec, Trajectory, Turn, Verdict
from rewright.engines.served import OpenAISettings
from rewright.exports.exports import export
from rewright.pipeline.run_directory import Run
from rewright.recipe.schema import Recipe

FORMATS = ("atif", "verifiers", "inspect", "hub-traces", "pi-sessions", "trackio-traces")
ATTEMPTS = 8
"""Attempts at one task."""


def make_run(folder: Path, count: int) -> Path:
    """Write a run with `count` judged trajectories, and return its path."""
    generator = random.Random(0)
    recipe = Recipe(name="speed", model=OpenAISettings(path="some-model", base_url="http://localhost:1/v1"))
    run = Run.create(folder, recipe, resume=False)
    run.tasks.rewrite(_task(generator, number) for number in range(-(-count // ATTEMPTS)))
    run.trajectories.rewrite(_trajectory(generator, number) for number in range(count))
    run.verdicts.rewrite(
        Verdict(trajectory_id=f"synth/{number}", outcome=float(number % 2), reason="equal") for number in range(count)
    )
    run.close()
    return run.path


def _words(generator: random.Random, count: int) -> str:
    return " ".join(generator.choice(("the", "height", "of", "Ann", "in", "Oslo", "über", "is")) for _ in range(count))


def _task(generator: random.Random, number: int) -> Task:
    properties = {key: {"type": "string", "description": _words(generator, 6)} for key in ("person", "unit")}
    tools = tuple(
        ToolSpec(
            schema={
                "type": "function",
                "function": {
                    "name": name,
                    "description": _words(generator, 12),
                    "parameters": {"type": "object", "properties": properties, "required": ["person"]},
                },
            },
            source=f"def {name}(**_): ...",
        )
        for name in ("height", "age", "home")
    )
    messages = (
        {"role": "system", "content": "Put the answer in <answer></answer>. " + _words(generator, 60)},
        {"role": "user", "content": _words(generator, 30)},
    )
    return Task(id=f"task-{number}", messages=messages, tools=tools, gold=Gold(answers=("180",)))


def _trajectory(generator: random.Random, number: int) -> Trajectory:
    def ids(count: int) -> tuple[int, ...]:
        return tuple(generator.randrange(150_000) for _ in range(count))

    turns = []
    for place in range(4):
        call = ToolCall("height", {"person": _words(generator, 2), "unit": "cm"})
        thought = f"<think>{_words(generator, 40)}</think>\n"
        written = json.dumps({"name": call.name, "arguments": call.arguments})
        last = place == 3
        turns.append(
            Turn(
                text=thought + ("<answer>180</answer>" if last else f"<tool_call>\n{written}\n</tool_call>"),
                token_ids=ids(80),
                log_probs=tuple(-generator.random() for _ in range(80)),
                calls=() if last else (call,),
                results=() if last else (ToolResult(_words(generator, 45)),),
                suffix_ids=() if last else ids(60),
            )
        )
    return Trajectory(
        id=f"synth/{number}",
        task_id=f"task-{number // ATTEMPTS}",
        stage="synth",
        index=number % ATTEMPTS,
        turns=tuple(turns),
        stop_reason="answered",
        answer="180",
        prompt_ids=ids(400),
    )


def measure(run: Path, name: str) -> dict[str, Any]:
    """Seconds, CPU seconds, peak memory in MiB and size in MiB of one format, written by a process of its own."""
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        command = [sys.executable, __file__, "--export", str(run), out, name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(out).rglob("*") if path.is_file())
    cpu, memory = map(float, done.stdout.split())
    return {"seconds": seconds, "cpu": cpu, "memory": memory, "size": size / 2**20}


def rows(runs: tuple[Path, Path]) -> Iterator[str]:
    """The table, a row per format."""
    yield "| format | seconds | CPU seconds | size (MiB) | peak memory (MiB) | with a tenth of the trajectories (MiB) |"
    yield "|---|---|---|---|---|---|"
    for name in FORMATS:
        found, tenth = measure(runs[0], name), measure(runs[1], name)
        yield (
            f"| `{name}` | {found['seconds']:.1f} | {found['cpu']:.1f} | {found['size']:.0f} | {found['memory']:.0f} "
            f"| {tenth['memory']:.0f} |"
        )


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=10_000)
    parser.add_argument("--export", nargs=3, metavar=("RUN", "OUT", "FORMAT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.export is not None:
        run, out, name = arguments.export
        export(Run.open(Path(run)), Path(out), name)
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
        return
    with tempfile.TemporaryDirectory() as folder:
        count = arguments.trajectories
        runs = make_run(Path(folder, "all"), count), make_run(Path(folder, "tenth"), max(1, count // 10))
        for row in rows(runs):
            print(row, flush=True)


if __name__ == "__main__":
    main()
