"""How a model is evaluated on BFCL's multi-turn categories: `rewright eval --benchmark bfcl-multi-turn`."""

from __future__ import annotations

from rewright.benchmarks import Benchmark

__all__ = ["BENCHMARK"]

BENCHMARK = Benchmark(
    # As bfcl-eval: nearly greedy, at most 20 steps with calls for a message of the user. Its only other limit is the
    # model's context.
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
