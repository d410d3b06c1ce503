"""Evaluation protocol of BFCL's multi-turn categories: `rewright eval --benchmark bfcl-multi-turn`."""

from __future__ import annotations

from rewright.benchmarks import Benchmark

__all__ = ["BENCHMARK"]

BENCHMARK = Benchmark(
    # As in bfcl-eval: nearly greedy decoding and at most 20 steps with calls per user message. Its only other limit is
    # the model's context length.
    settings=(
        "eval.tasks.format=bfcl-multi-turn",
        "eval.tasks.path=all",
        "eval.temperature=0.001",
        "limits.turns=21",
        "limits.turn_tokens=4096",
        "limits.trajectory_tokens=null",
        "limits.tool_characters=null",
        "limits.trajectory_seconds=null",
    ),
    summary="Berkeley Function-Calling Leaderboard v4, multi-turn: 800 tasks with stateful tools",
)
