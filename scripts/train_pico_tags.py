"""Train the shipped pico models of the tags dialect: from `pico`, which knows the words, to search, code and boxes.

    python scripts/train_pico_tags.py base --out build/pico          # demonstrations of short tasks
    python scripts/train_pico_tags.py repairer --out build/pico      # all tasks, given the base policy's attempts

The policy stops before its schedule ends, so that it still has something to learn; the repairer starts from it.

Everything is generated from seeds: the almanac's `train` split, in editions that are not the one which can be searched,
so that there is nothing to know by heart. The loop is that of train_pico.py.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from train_pico import Example, cut_short, train

from rewright.core.progress import Bar
from rewright.core.records import Task, Trajectory
from rewright.dialects.tags import Tags
from rewright.engines.embedded import HFSettings
from rewright.engines.loading import load_model, load_tokenizer, tune_allocator
from rewright.engines.pico import TRAINED_RULES
from rewright.judging import judge_trajectory
from rewright.rendering.renderer import Renderer
from rewright.repair.decision import repair_task
from rewright.rollout.loop import Plan, Rollout
from rewright.rollout.settings import Limits
from rewright.rollout.toolsets import open_toolsets
from rewright.sandbox.settings import SandboxSettings
from rewright.tasks.worlds.almanac import generate
from rewright.tasks.worlds.almanac_demonstrations import demonstrate
from rewright.tasks.worlds.demonstrations import STYLES
from rewright.tools.settings import ToolSettings

EDITIONS = 40
SCHEDULE_STEPS, BASE_STEP, REPAIRER_STEPS = 1000, 600, 700


def drawn(count: int, profile: str, seed: int) -> Iterator[tuple[int, Task]]:
    """(edition, task): `count` tasks, as many from each edition."""
    for edition in range(1, EDITIONS + 1):
        for task in generate("train", count // EDITIONS, seed=seed, profile=profile, edition=edition):
            yield edition, task


def demonstrations(renderer: Renderer, count: int, profile: str, styles: dict[str, float], seed: int) -> list[Example]:
    rng = random.Random(seed)
    examples = []
    for edition, task in drawn(count, profile, seed):
        style = rng.choices(list(styles), list(styles.values()))[0]
        examples.append(renderer.encode_trajectory(task, demonstrate(task, style=style, rng=rng, edition=edition)))
    return examples


async def sampled_attempts(count: int, folder: Path, seed: int) -> list[tuple[Task, Trajectory]]:
    """Attempts of the trained base policy at tasks of the searchable edition, through the real loop and tools."""
    tasks = list(generate("train", count, seed=seed))
    engine, tokenizer = await HFSettings(path=str(folder), slots=64).open()
    tools = open_toolsets(ToolSettings(search="almanac"), SandboxSettings(level="process"))
    limits = Limits(turns=10, turn_tokens=96, trajectory_tokens=400, tool_calls=3)
    rollout = Rollout(engine, Tags(), tools, renderer=Renderer(tokenizer, Tags()), limits=limits)
    plans = [Plan(id=task.id, task=task, stage="synth", index=0, seed=seed + row) for row, task in enumerate(tasks)]
    by_id = {task.id: task for task in tasks}
    attempts = []
    with Bar("attempts", len(plans)) as bar:
        async for attempt in rollout.run_many(plans, concurrency=128):
            attempts.append((by_id[attempt.task_id], attempt))
            bar.step()
    await engine.close()
    await tools.close()
    return sorted(attempts, key=lambda pair: pair[1].id)


def repair_example(renderer: Renderer, task: Task, attempt: Trajectory, edition: int) -> Example:
    """The repair prompt of an attempt, answered by a concise demonstration of the task."""
    mode = "low_quality" if judge_trajectory(task, attempt).correct else "wrong_answer"
    asked = repair_task(task, attempt, mode, escape=renderer.escape, rules=TRAINED_RULES)
    return renderer.encode_trajectory(asked, demonstrate(task, edition=edition))


def derived_repairs(renderer: Renderer, count: int, seed: int) -> list[Example]:
    """Repairs of attempts made from demonstrations: wordy or hedging ones (right), or cut short (mostly wrong)."""
    rng = random.Random(seed)
    examples = []
    for edition, task in drawn(count, "standard", seed):
        attempt = demonstrate(task, style=rng.choice(STYLES[1:]), rng=rng, edition=edition)
        if rng.random() < 0.5:
            attempt = cut_short(task, attempt, rng)
        examples.append(repair_example(renderer, task, attempt, edition))
    return examples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("base", "repairer"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", type=int, nargs="*", default=())
    options = parser.parse_args()
    tune_allocator()
    torch.manual_seed(options.seed)
    policy, seed = options.out / "pico-tags", options.seed
    start = HFSettings(path="pico" if options.stage == "base" else str(policy), dtype="float32")
    tokenizer = load_tokenizer(start)
    renderer = Renderer(tokenizer, Tags())
    if options.stage == "base":
        styles = {"concise": 0.5, "wordy": 0.25, "hedging": 0.25}
        examples = demonstrations(renderer, 12000, "short", styles, seed)
        steps, stop, out = SCHEDULE_STEPS, BASE_STEP, policy
    else:
        examples = demonstrations(renderer, 4000, "standard", {"concise": 1.0}, seed + 1001)
        examples += derived_repairs(renderer, 2000, seed + 1003)
        attempts = asyncio.run(sampled_attempts(800, policy, seed + 1004))
        examples += [repair_example(renderer, task, attempt, 0) for task, attempt in attempts]
        random.Random(seed).shuffle(examples)
        steps, stop, out = REPAIRER_STEPS, REPAIRER_STEPS, options.out / "pico-tags-repairer"
    print(len(examples), "examples", sum(len(ids) for ids, _ in examples), "tokens", flush=True)
    train(load_model(start), tokenizer, examples, steps=steps, rate=1.5e-3, tokens=4096, seed=seed, out=out,
          checkpoints=tuple(options.checkpoints), stop=stop)  # fmt: skip


if __name__ == "__main__":
    main()
