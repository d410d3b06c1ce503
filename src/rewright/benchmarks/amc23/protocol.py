"""Evaluation protocol of AMC 2023: `rewright eval --benchmark amc23`."""

from __future__ import annotations

from rewright.benchmarks import Benchmark
from rewright.tasks.question_limits import LONG_ANSWERS

__all__ = ["BENCHMARK"]

BENCHMARK = Benchmark(
    settings=("eval.tasks.format=amc23", "eval.tasks.path=hf:", "eval.temperature=0", *LONG_ANSWERS),
    summary="AMC 2023: 40 problems of competition mathematics",
    data="hf:math-ai/amc23, 40 rows",
    unchecked=True,
)
