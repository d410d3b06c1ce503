"""Evaluation protocol of FTRL's test split: `rewright eval --benchmark ftrl`."""

from __future__ import annotations

from rewright.benchmarks import Benchmark

__all__ = ["BENCHMARK"]

BENCHMARK = Benchmark(
    settings=(
        "eval.tasks.format=ftrl",
        "eval.temperature=0",
        "limits.turns=10",
        "limits.turn_tokens=23000",  # MatchTIR limits the whole response only
        "limits.trajectory_tokens=23000",
    ),
    summary="FTRL, test split: 200 tasks with the source of their tools; Solve-P, Solve-R and Solve-F1",
    data="the repository bytedance/FTRL on GitHub, 200 rows",
)
