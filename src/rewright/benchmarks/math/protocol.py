"""Evaluation protocol of MATH: `rewright eval --benchmark math`."""

from __future__ import annotations

from rewright.benchmarks import Benchmark
from rewright.tasks.question_limits import LONG_ANSWERS

__all__ = ["BENCHMARK"]

BENCHMARK = Benchmark(
    settings=("eval.tasks.format=math", "eval.tasks.path=hf:", "eval.temperature=0", *LONG_ANSWERS),
    summary="MATH-500, or a file with rows of MATH",
    data="hf:HuggingFaceH4/MATH-500, 500 of the 5,000 test problems",
    unchecked=True,
)
