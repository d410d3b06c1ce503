"""Train the shipped pico models from nothing: tokenizer, base policy, repairer.

    python scripts/train_pico.py tokenizer --out build/pico
    python scripts/train_pico.py base --out build/pico          # demonstrations of short tasks: pico-late
    python scripts/train_pico.py caches --out build/pico        # goes on from its step 2500, with caches: pico
    python scripts/train_pico.py repairer --out build/pico      # all tasks, given the base policy's attempts

Everything is generated from seeds; the world's `train` split only. A plain training loop, because it is one: SFT inside
the pipeline goes through TRL (rewright.training.trl.sft).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import torch

from rewright.core.progress import Bar
from rewright.core.records import Task, Trajectory, Turn
from rewright.dialects.hermes import INSTRUCTION, Hermes
from rewright.engines.embedded import HFSettings
from rewright.engines.loading import tune_allocator
from rewright.engines.pico import TAGS, TRAINED_RULES, build_model, build_tokenizer
from rewright.judging import judge_trajectory
from rewright.rendering.renderer import Renderer
from rewright.repair.decision import INSTRUCTIONS, repair_task
from rewright.rollout.loop import Plan, Rollout
from rewright.rollout.settings import Limits
from rewright.tasks.worlds.demonstrations import STYLES, demonstrate
from rewright.tasks.worlds.town import PROFILES, Profile, generate
from rewright.tools import FunctionTools

Example = tuple[list[int], list[int]]

STYLES_SHOWN = {"concise": 0.5, "wordy": 0.25, "hedging": 0.25}
CACHE_ASKED = 0.7
"""How often a demonstration asks a cache that is there."""
SCHEDULE_STEPS = 3000
BASE_STEP = 2500
"""The base policy goes on from an early checkpoint, when the learning rate is still a sixth of the highest."""


def tokenizer_texts(tasks: list[Task]) -> Iterator[str]:
    """What the tokenizer is trained on: questions, tool lines, demonstrations, and the instructions."""
    tags = re.compile("|".join(re.escape(tag) for tag in TAGS))
    for task in tasks:
        yield from (str(message["content"]) for message in task.messages)
        for schema in task.schemas:
            yield schema["function"]["name"] + "(" + ", ".join(schema["function"]["parameters"]["properties"]) + ")"
        for style in STYLES:
            for turn in demonstrate(task, style=style).turns:
                yield tags.sub("\n", turn.text)
                yield from (result.content for result in turn.results)
    for text in (
        INSTRUCTION,
        *INSTRUCTIONS.values(),
        TRAINED_RULES,
        "system",
        "user",
        "assistant",
        "thought",
        "call",
        "result",
    ):
        yield from [text] * 500


def train_tokenizer(out: Path) -> None:
    tasks = list(generate("train", 4000, seed=7, profile="all"))
    tokenizer = build_tokenizer(tokenizer_texts(tasks))
    tokenizer.save_pretrained(out / "tokenizer")


def load_tokenizer(out: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(out / "tokenizer")


def load(folder: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def demonstrations(
    renderer: Renderer, count: int, profile: str | Profile, styles: dict[str, float], seed: int, *, cached: float = 0.0
) -> list[Example]:
    rng = random.Random(seed)
    examples = []
    for task in generate("train", count, seed=seed, profile=profile):
        style = rng.choices(list(styles), list(styles.values()))[0]
        examples.append(renderer.encode_trajectory(task, demonstrate(task, style=style, rng=rng, cached=cached)))
    return examples


def batches(examples: list[Example], tokens: int, seed: int) -> Iterator[list[Example]]:
    """Batches of about `tokens` padded tokens, of similar length, in random order, for ever."""
    rng = random.Random(seed)
    while True:
        order = sorted(examples, key=lambda example: len(example[0]) + rng.random() * 40)
        chunks: list[list[Example]] = [[]]
        for example in order:
            if chunks[-1] and (len(chunks[-1]) + 1) * len(example[0]) > tokens:
                chunks.append([])
            chunks[-1].append(example)
        rng.shuffle(chunks)
        yield from chunks


def collate(batch: list[Example], pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    length = max(len(ids) for ids, _ in batch)
    ids = torch.full((len(batch), length), pad)
    labels = torch.full((len(batch), length), -100)
    attention = torch.zeros((len(batch), length), dtype=torch.long)
    for row, (tokens, mask) in enumerate(batch):
        line = torch.tensor(tokens)
        ids[row, : len(tokens)] = line
        labels[row, : len(tokens)] = torch.where(torch.tensor(mask) == 1, line, -100)
        attention[row, : len(tokens)] = 1
    return ids, labels, attention


def train(model, tokenizer, examples: list[Example], *, steps: int, rate: float, tokens: int, seed: int, out: Path,
          checkpoints: tuple[int, ...] = (), stop: int | None = None) -> None:  # fmt: skip
    """`steps` is the length of the learning rate's schedule; `stop` ends training before it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    start, seen, recent = time.monotonic(), 0, []
    for step, batch in enumerate(batches(examples, tokens, seed)):
        last = step == (stop or steps)
        if step in checkpoints or last:
            save(model, tokenizer, out if last else out.with_name(f"{out.name}-{step}"))
        if last:
            return
        warm, decay = min(1.0, (step + 1) / 100), 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate * warm * (0.1 + 0.9 * decay)
        ids, labels, attention = collate(batch, tokenizer.pad_token_id)
        loss = model(input_ids=ids, attention_mask=attention, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seen += int(attention.sum())
        recent.append(loss.item())
        if step % 100 == 99:
            seconds = time.monotonic() - start
            row = {"step": step + 1, "loss": round(sum(recent) / len(recent), 4), "tokens": seen}
            print(
                json.dumps({**row, "seconds": round(seconds), "tokens_per_second": round(seen / seconds)}), flush=True
            )
            recent = []


def save(model, tokenizer, out: Path) -> None:
    """Weights in half precision: the size of what ships."""
    import copy

    half = copy.deepcopy(model).to(torch.float16)
    half.save_pretrained(out)
    tokenizer.save_pretrained(out)


def cut_short(task: Task, trajectory: Trajectory, rng: random.Random) -> Trajectory:
    """The demonstration with its last calls left out and an intermediate result as its answer: wrong, if it has any."""
    working = [turn for turn in trajectory.turns if turn.results]
    kept = working[: rng.randint(1, len(working))]
    answer = kept[-1].results[0].content
    final = Turn(text=f"<think>Done.</think><answer>{answer}</answer>")
    return msgspec.structs.replace(trajectory, turns=(*kept, final), answer=answer)


def derived_attempts(tasks: list[Task], seed: int) -> list[tuple[Task, Trajectory]]:
    """Attempts made from demonstrations: wordy or hedging ones (right), or cut short (mostly wrong)."""
    rng = random.Random(seed)
    attempts = []
    for task in tasks:
        attempt = demonstrate(task, style=rng.choice(STYLES[1:]), rng=rng)
        if rng.random() < 0.5:
            attempt = cut_short(task, attempt, rng)
        attempts.append((task, attempt))
    return attempts


async def sampled_attempts(tasks: list[Task], folder: Path, seed: int) -> list[tuple[Task, Trajectory]]:
    """Attempts of the trained base policy, at temperature 1, through the real loop and tools."""
    model = HFSettings(path=str(folder), slots=64)
    engine, tokenizer = await model.open()
    tools = FunctionTools(level="process")
    limits = Limits(turns=8, turn_tokens=96, trajectory_tokens=640)
    rollout = Rollout(engine, Hermes(), tools, renderer=Renderer(tokenizer, Hermes()), limits=limits)
    plans = [Plan(id=task.id, task=task, stage="synth", index=0, seed=seed + row) for row, task in enumerate(tasks)]
    by_id = {task.id: task for task in tasks}
    with Bar("attempts", len(plans)) as bar:
        attempts = []
        async for attempt in rollout.run_many(plans, concurrency=128):
            attempts.append((by_id[attempt.task_id], attempt))
            bar.step()
    await engine.close()
    await tools.close()
    return sorted(attempts, key=lambda pair: pair[1].id)


def repair_examples(renderer: Renderer, attempts: list[tuple[Task, Trajectory]], seed: int) -> list[Example]:
    """The repair prompt of an attempt, answered by a concise demonstration of the task."""
    examples, rng = [], random.Random(seed)
    for task, attempt in attempts:
        correct = judge_trajectory(task, attempt).correct
        asked = repair_task(task, attempt, "low_quality" if correct else "wrong_answer", calls=8, rules=TRAINED_RULES)
        # The demonstration is of the task itself; the repairer's prompt is that task with the attempt in it.
        examples.append(renderer.encode_trajectory(asked, demonstrate(task, rng=rng, cached=CACHE_ASKED)))
    return examples


def with_caches(profile: str) -> Profile:
    """A profile with caches in which every entry is right: nobody is shown that they can be out of date."""
    return msgspec.structs.replace(PROFILES[profile], cached=0.5, outdated=0.0)


def show_caches(renderer: Renderer, options: argparse.Namespace) -> None:
    """The base policy, from an early checkpoint: short tasks again, with caches that it likes to ask."""
    examples = demonstrations(
        renderer, options.examples or 8000, with_caches("short"), STYLES_SHOWN, options.seed + 7, cached=CACHE_ASKED
    )
    model = load(options.out / f"pico-late-{BASE_STEP}")
    train(model, renderer.tokenizer, examples, steps=options.steps or 400, rate=6e-4, tokens=4096, seed=options.seed,
          out=options.out / "pico", checkpoints=tuple(options.checkpoints))  # fmt: skip


def train_repairer(renderer: Renderer, options: argparse.Namespace) -> None:
    """From the base weights: concise demonstrations of short and long tasks, and repairs of all kinds of attempts."""
    concise, seed = {"concise": 1.0}, options.seed
    examples = demonstrations(renderer, 2000, "standard", concise, seed + 1)
    examples += demonstrations(renderer, 2500, with_caches("standard"), concise, seed + 5, cached=CACHE_ASKED)
    examples += demonstrations(renderer, 500, "long", concise, seed + 2)
    for profile, offset in (("standard", 3), (with_caches("standard"), 6)):
        tasks = list(generate("train", 1750, seed=seed + offset, profile=profile))
        examples += repair_examples(renderer, derived_attempts(tasks, seed), seed)
        tasks = list(generate("train", 750, seed=seed + offset + 1, profile=profile))
        attempts = asyncio.run(sampled_attempts(tasks, options.out / "pico", seed))
        examples += repair_examples(renderer, attempts, seed)
    random.Random(options.seed).shuffle(examples)
    print(len(examples), "examples", sum(len(ids) for ids, _ in examples), "tokens", flush=True)
    model = load(options.out / "pico-late")
    train(model, renderer.tokenizer, examples, steps=options.steps or 1200, rate=1.5e-3, tokens=4096, seed=options.seed,
          out=options.out / "pico-repairer", checkpoints=tuple(options.checkpoints))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("tokenizer", "base", "caches", "repairer"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--examples", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", type=int, nargs="*", default=())
    parser.add_argument("--hidden", type=int, default=128, help="base: width of the model; 184 is twice the parameters")
    options = parser.parse_args()
    tune_allocator()
    if options.stage == "tokenizer":
        train_tokenizer(options.out)
        return
    tokenizer = load_tokenizer(options.out)
    renderer = Renderer(tokenizer, Hermes())
    if options.stage == "base":
        examples = demonstrations(renderer, options.examples or 24000, "short", STYLES_SHOWN, options.seed)
        print(len(examples), "examples", flush=True)
        model = build_model(tokenizer, seed=options.seed, hidden=options.hidden)
        train(model=model, tokenizer=tokenizer, examples=examples,
              steps=options.steps or SCHEDULE_STEPS, rate=2e-3, tokens=4096, seed=options.seed,
              out=options.out / "pico-late", checkpoints=(BASE_STEP, *options.checkpoints))  # fmt: skip
    elif options.stage == "caches":
        show_caches(renderer, options)
    else:
        train_repairer(renderer, options)


if __name__ == "__main__":
    main()
