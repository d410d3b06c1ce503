"""Evaluation protocol of GSM8K: `rewright eval --benchmark gsm8k`."""

from __future__ import annotations

from rewright.benchmarks import Benchmark
from rewright.tasks.question_limits import LONG_ANSWERS

__all__ = ["BENCHMARK"]

BENCHMARK = Benchmark(
    settings=("eval.tasks.format=gsm8k", "eval.tasks.path=hf:", "eval.temperature=0", *LONG_ANSWERS),
    summary="GSM8K, test split: 1319 problems of grade-school mathematics",
    data="hf:openai/gsm8k, configuration main, 1319 test rows",
    unchecked=True,
)
