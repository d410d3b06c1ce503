"""Evaluation protocol of MuSiQue: `rewright eval --benchmark musique`."""

from __future__ import annotations

from rewright.benchmarks import Benchmark
from rewright.judging.qa import answer_metrics
from rewright.tasks.question_limits import SHORT_ANSWERS

__all__ = ["BENCHMARK"]

BENCHMARK = Benchmark(
    settings=("eval.tasks.format=musique", "eval.tasks.path=hf:", "eval.temperature=0", *SHORT_ANSWERS),
    summary="MuSiQue, development set: multi-hop questions",
    metrics=answer_metrics,
    data="hf:RUC-NLPIR/FlashRAG_datasets, configuration musique, split dev",
    unchecked=True,
)
