"""Evaluation protocol of ToolHop: `rewright eval --benchmark toolhop`."""

from __future__ import annotations

from rewright.benchmarks import Benchmark

__all__ = ["BENCHMARK"]

BENCHMARK = Benchmark(
    settings=(
        "eval.tasks.format=toolhop",
        "eval.tasks.path=hf:",
        "eval.tasks.judge=answer_correctness",
        "eval.temperature=0",
        "limits.turns=10",
        "limits.turn_tokens=23000",  # MatchTIR limits the whole response only
        "limits.trajectory_tokens=23000",
    ),
    summary="ToolHop: 995 multi-hop questions with local tools; answer correctness",
    data="hf:bytedance-research/ToolHop, 995 rows",
    unchecked=True,
    note="answer correctness is stricter than ToolHop's substring: whole words and numbers (docs/judges.md)",
)
