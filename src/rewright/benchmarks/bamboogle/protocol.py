"""Evaluation protocol of Bamboogle: `rewright eval --benchmark bamboogle`."""

from __future__ import annotations

from rewright.benchmarks import Benchmark
from rewright.judging.qa import answer_metrics
from rewright.tasks.question_limits import SHORT_ANSWERS

__all__ = ["BENCHMARK"]

BENCHMARK = Benchmark(
    settings=("eval.tasks.format=bamboogle", "eval.tasks.path=hf:", "eval.temperature=0", *SHORT_ANSWERS),
    summary="Bamboogle: 125 two-hop questions",
    metrics=answer_metrics,
    data="hf:RUC-NLPIR/FlashRAG_datasets, configuration bamboogle, split test",
    unchecked=True,
)
