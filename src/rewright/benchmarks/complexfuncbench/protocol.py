"""Evaluation protocol of ComplexFuncBench: `rewright eval --benchmark complexfuncbench`."""

from __future__ import annotations

from typing import Final

from rewright.benchmarks import Benchmark
from rewright.benchmarks.complexfuncbench.tasks import CATEGORIES
from rewright.core.records import Task, Trajectory, Verdict

__all__ = ["BENCHMARK"]

_SIZES: Final = ((2, 3), (4, 5), (6, 7), (8, 11))
"""Numbers of gold calls that are reported together."""


def _metrics(task: Task, trajectory: Trajectory, verdict: Verdict) -> dict[str, float]:
    golds = len(task.gold.calls or ())
    least, most = next(size for size in _SIZES if golds <= size[1])
    return {
        **verdict.metrics,
        "calls made": len(trajectory.calls),
        "calls with an error": sum(result.error is not None for result in trajectory.results),
        f"success with {least} to {most} gold calls": float(verdict.correct),
    }


BENCHMARK = Benchmark(
    settings=(
        "eval.tasks.format=complexfuncbench",
        "eval.tasks.path=test",
        "eval.temperature=0",
        "limits.turns=16",  # the longest task has 11 calls, one after the other
        "limits.turn_tokens=1024",
        "limits.trajectory_tokens=null",
        "limits.tool_characters=null",  # the responses are shortened already, to JSON
        "limits.trajectory_seconds=null",
    ),
    summary="ComplexFuncBench: dependent travel calls, replayed (231 tasks with held-out call sequences)",
    metrics=_metrics,
    floor=dict.fromkeys(("all", *CATEGORIES), 0.0),
    ceiling=dict.fromkeys(("all", *CATEGORIES), 1.0),
    note="rule-matched: a lower bound of the official score; responses are shortened as eval.tasks.path says",
)
