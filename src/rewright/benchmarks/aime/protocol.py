"""Evaluation protocols of AIME 2024 and 2025: `rewright eval --benchmark aime24` and `aime25`."""

from __future__ import annotations

from rewright.benchmarks import Benchmark
from rewright.tasks.question_limits import LONG_ANSWERS

__all__ = ["AIME24", "AIME25"]

AIME24 = Benchmark(
    settings=("eval.tasks.format=aime24", "eval.tasks.path=hf:", "eval.temperature=0", *LONG_ANSWERS),
    summary="AIME 2024: 30 problems of competition mathematics",
    data="hf:HuggingFaceH4/aime_2024, 30 rows",
    unchecked=True,
)
AIME25 = Benchmark(
    settings=("eval.tasks.format=aime25", "eval.tasks.path=hf:", "eval.temperature=0", *LONG_ANSWERS),
    summary="AIME 2025: 30 problems of competition mathematics",
    data="hf:math-ai/aime25, 30 rows",
    unchecked=True,
)
