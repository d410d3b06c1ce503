"""Tokens per CPU second of the engines that generate in this process or a child of it, on the same tasks.

    python scripts/engine_speed.py hf colocate vllm --tasks 64

Sampled rollouts of pico on the town, with tools, as RL makes them. All processes are counted: tools, and vLLM's child.
The start of an engine and a first rollout are not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from pathlib import Path
from typing import Any

from rewright.dialects import get_dialect
from rewright.engines.base import Sampling
from rewright.engines.embedded import HFSettings
from rewright.engines.loading import load_model, load_tokenizer
from rewright.recipe.schema import Recipe
from rewright.rendering.renderer import Renderer
from rewright.rollout.loop import Rollout
from rewright.rollout.settings import Limits
from rewright.rollout.toolsets import open_toolsets
from rewright.tasks.worlds import town
from rewright.training.rl_engines import open_rl_engine
from rewright.training.rl_step import plan_step, roll_out
from rewright.training.settings import PolicyOptions, RLSettings

SECONDS_PER_TICK = 1 / os.sysconf("SC_CLK_TCK")


def cpu_seconds() -> float:
    """CPU time of this process and of all that it has started, directly or not."""
    used: dict[int, float] = {}
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split() if entry.name.isdigit() else []
        except OSError:
            continue
        if fields:
            parents[int(entry.name)] = int(fields[1])
            used[int(entry.name)] = sum(map(int, fields[11:15])) * SECONDS_PER_TICK  # with children that have ended
    total = 0.0
    for pid, seconds in used.items():
        one = pid
        while one not in (os.getpid(), 0, 1):
            one = parents.get(one, 0)
        total += seconds if one == os.getpid() else 0.0
    return total


def open_engine(kind: str, tokenizer: Any) -> Any:
    """The engine, with the weights of pico."""
    if kind == "hf":
        from rewright.engines.hf import HFEngine

        return HFEngine(load_model(HFSettings(path="pico")), tokenizer, slots=64)
    settings = RLSettings(engine=kind, vllm=PolicyOptions(max_model_len=1024))  # type: ignore[arg-type]
    return open_rl_engine(settings, HFSettings(path="pico"), tokenizer)


async def measured(kind: str, count: int) -> None:
    """Print the figures of one engine."""
    tokenizer, dialect, recipe = load_tokenizer(HFSettings(path="pico")), get_dialect("hermes"), Recipe()
    tasks = list(town.generate("train", count, seed=5, profile="short"))
    engine = open_engine(kind, tokenizer)
    rollout = Rollout(
        engine,
        dialect,
        open_toolsets(recipe.tools, recipe.sandbox, tool_seconds=60),
        renderer=Renderer(tokenizer, dialect),
        limits=Limits(turns=8, turn_tokens=96, trajectory_tokens=640, tool_seconds=60),
        sampling=Sampling(),
    )
    await roll_out(rollout, plan_step(tasks[:1], step=0, seed=1), concurrency=1)
    before, started = cpu_seconds(), time.perf_counter()
    made = await roll_out(rollout, plan_step(tasks, step=1, seed=1), concurrency=64)
    used, wall = cpu_seconds() - before, time.perf_counter() - started
    tokens = sum(len(turn.token_ids or ()) for one in made for turn in one.turns)
    assert not [one for one in made if one.failure is not None]
    print(f"{kind:9} {tokens:7,} tokens {used:7.1f} CPU s {wall:7.1f} s {tokens / used:7.0f} tokens/CPU s", flush=True)
    await rollout.tools.close()
    await engine.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+", choices=["hf", "vllm", "colocate"])
    parser.add_argument("--tasks", type=int, default=64)
    given = parser.parse_args()
    for engine in given.engines:
        asyncio.run(measured(engine, given.tasks))
