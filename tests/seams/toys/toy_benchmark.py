"""A benchmark in one file: its tasks, which are drawn, its judge, its metrics, and the protocol of its evaluation."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from rewright.benchmarks import Benchmark
from rewright.core.records import Gold, Task, Trajectory, Verdict
from rewright.core.registry import register
from rewright.judging import Judgement
from rewright.tasks.formats import WorldFormat


def generate(split: str, count: int, *, seed: int = 0, profile: str | None = None) -> Iterator[Task]:
    """`count` differences of two numbers."""
    for number in range(count):
        draw = random.Random(f"{split} {seed} {number}")
        left, right = draw.randrange(100), draw.randrange(100)
        yield Task(
            id=f"difference-{split}-{seed}-{number}",
            messages=({"role": "user", "content": f"{left} - {right} = ?"},),
            gold=Gold(answers=(str(left - right),)),
        )


def same_number(answer: str, golds: Sequence[str]) -> Judgement:
    """1 where the answer is the gold number as a text, else 0."""
    return Judgement(float(answer in golds), f"{answer} beside {golds[0]}")


def metrics(task: Task, trajectory: Trajectory, verdict: Verdict) -> dict[str, float]:
    """How far away the answer is; nothing for an answer that is not a number."""
    try:
        return {"distance": abs(float(trajectory.answer or "") - float((task.gold.answers or ("",))[0]))}
    except ValueError:
        return {}


register("judge", "toy_same_number", same_number)
register("task_format", "toy-differences", WorldFormat(generate, judge="toy_same_number"))
register(
    "benchmark",
    "toy-differences",
    Benchmark(
        settings=("eval.tasks.format=toy-differences", "eval.tasks.count=3", "model.engine=toy", "dialect=toy"),
        summary="differences of two numbers",
        metrics=metrics,
    ),
)
