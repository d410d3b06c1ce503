"""Train the shipped pico models from nothing: tokenizer, base policy, repairer.

    python scripts/train_pico.py tokenizer --out build/pico
    python scripts/train_pico.py base --out build/pico          # 1-2 hop demonstrations, stopped early
    python scripts/train_pico.py repairer --out build/pico      # all tasks, given the base policy's attempts

Everything is generated from seeds; the world's `train` split only. A plain training loop, because it is one: SFT inside
the pipeline goes through TRL (rewright.training.sft).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from rewright.dialects.hermes import INSTRUCTION, Hermes
from rewright.records import Task, Trajectory
from rewright.rendering import Renderer
from rewright.worlds.demonstrations import STYLES, demonstrate
from rewright.worlds.pico import TAGS, build_model, build_tokenizer
from rewright.worlds.town import generate

Example = tuple[list[int], list[int]]


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
    from rewright.repair import INSTRUCTIONS

    for text in (INSTRUCTION, *INSTRUCTIONS.values(), "system", "user", "assistant", "thought", "call", "result"):
        yield from [text] * 500


def train_tokenizer(out: Path) -> None:
    tasks = list(generate("train", 4000, seed=7, profile="all"))
    tokenizer = build_tokenizer(tokenizer_texts(tasks))
    tokenizer.save_pretrained(out / "tokenizer")


def load_tokenizer(out: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(out / "tokenizer")


def demonstrations(renderer: Renderer, count: int, profile: str, styles: dict[str, float], seed: int) -> list[Example]:
    rng = random.Random(seed)
    examples = []
    for task in generate("train", count, seed=seed, profile=profile):
        style = rng.choices(list(styles), list(styles.values()))[0]
        examples.append(renderer.encode_trajectory(task, demonstrate(task, style=style, rng=rng)))
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
          checkpoints: tuple[int, ...] = ()) -> None:  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    start, seen, recent = time.monotonic(), 0, []
    for step, batch in enumerate(batches(examples, tokens, seed)):
        if step in checkpoints or step == steps:
            save(model, tokenizer, out if step == steps else out.with_name(f"{out.name}-{step}"))
        if step == steps:
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
            print(json.dumps({"step": step + 1, "loss": round(sum(recent) / len(recent), 4), "tokens": seen,
                              "seconds": round(seconds), "tokens_per_second": round(seen / seconds)}), flush=True)  # fmt: skip
            recent = []


def save(model, tokenizer, out: Path) -> None:
    """Weights in half precision: the size of what ships."""
    import copy

    half = copy.deepcopy(model).to(torch.float16)
    half.save_pretrained(out)
    tokenizer.save_pretrained(out)


def repair_examples(renderer: Renderer, tasks: list[Task], attempts: list[Trajectory], seed: int) -> list[Example]:
    """The repair prompt with a real attempt of the base policy, answered by a concise demonstration."""
    from rewright.judging import judge_trajectory
    from rewright.repair import repair_task

    examples = []
    by_id = {task.id: task for task in tasks}
    for attempt in attempts:
        task = by_id[attempt.task_id]
        correct = judge_trajectory(task, attempt).correct
        asked = repair_task(task, attempt, "low_quality" if correct else "wrong_answer")
        examples.append(renderer.encode_trajectory(asked, demonstrate(task)))
    random.Random(seed).shuffle(examples)
    return examples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("tokenizer", "base", "repairer"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--examples", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", type=int, nargs="*", default=())
    parser.add_argument("--profile", default="basic")
    options = parser.parse_args()
    if options.stage == "tokenizer":
        train_tokenizer(options.out)
        return
    tokenizer = load_tokenizer(options.out)
    renderer = Renderer(tokenizer, Hermes())
    if options.stage == "base":
        styles = {"concise": 0.5, "wordy": 0.25, "hedging": 0.25}
        examples = demonstrations(renderer, options.examples or 20000, options.profile, styles, options.seed)
        print(len(examples), "examples", flush=True)
        model = build_model(tokenizer, seed=options.seed)
        train(model, tokenizer, examples, steps=options.steps or 1500, rate=2e-3, tokens=4096, seed=options.seed,
              out=options.out / "pico", checkpoints=tuple(options.checkpoints))  # fmt: skip


if __name__ == "__main__":
    main()
