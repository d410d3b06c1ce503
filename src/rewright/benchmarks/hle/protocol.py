"""Evaluation protocol of Humanity's Last Exam: `rewright eval --benchmark hle`."""

from __future__ import annotations

from rewright.benchmarks import Benchmark
from rewright.judging.qa import answer_metrics
from rewright.tasks.question_limits import LONG_ANSWERS

__all__ = ["BENCHMARK"]

BENCHMARK = Benchmark(
    settings=("eval.tasks.format=hle", "eval.tasks.path=hf:", "eval.temperature=0", *LONG_ANSWERS),
    summary="Humanity's Last Exam, questions without an image",
    metrics=answer_metrics,
    data="hf:cais/hle (gated: accept its terms on the hub first)",
    unchecked=True,
    note="the official grading asks a language model; here multiple choice is exact, numbers are math, words are qa",
)
