"""Evaluation protocol of 2WikiMultihopQA: `rewright eval --benchmark 2wikimultihopqa`."""

from __future__ import annotations

from rewright.benchmarks import Benchmark
from rewright.judging.qa import answer_metrics
from rewright.tasks.question_limits import SHORT_ANSWERS

__all__ = ["BENCHMARK"]

BENCHMARK = Benchmark(
    settings=("eval.tasks.format=2wikimultihopqa", "eval.tasks.path=hf:", "eval.temperature=0", *SHORT_ANSWERS),
    summary="2WikiMultihopQA, development set: multi-hop questions",
    metrics=answer_metrics,
    data="hf:RUC-NLPIR/FlashRAG_datasets, configuration 2wikimultihopqa, split dev",
    unchecked=True,
)
