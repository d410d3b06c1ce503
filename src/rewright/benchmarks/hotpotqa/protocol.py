"""Evaluation protocol of HotpotQA: `rewright eval --benchmark hotpotqa`."""

from __future__ import annotations

from rewright.benchmarks import Benchmark
from rewright.judging.qa import answer_metrics
from rewright.tasks.question_limits import SHORT_ANSWERS

__all__ = ["BENCHMARK"]

BENCHMARK = Benchmark(
    settings=("eval.tasks.format=hotpotqa", "eval.tasks.path=hf:", "eval.temperature=0", *SHORT_ANSWERS),
    summary="HotpotQA, distractor validation set: 7405 multi-hop questions",
    metrics=answer_metrics,
    data="hf:hotpotqa/hotpot_qa, configuration distractor, 7405 validation rows",
    unchecked=True,
)
