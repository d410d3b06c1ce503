"""Published benchmarks, one package each: loader, tools, judge, metrics and evaluation protocol.

The parts of a benchmark are registered under its name: a task format (kind `task_format`), a judge (kind `judge`), and
a `Benchmark` (kind `benchmark`), which holds the evaluation settings of `rewright eval --benchmark NAME`.
"""

from __future__ import annotations

import msgspec

__all__ = ["Benchmark"]


class Benchmark(msgspec.Struct, frozen=True):
    """Evaluation protocol: recipe overrides (`section.key=value`) that include `eval.tasks.format`.

    The recipe has the single stage `eval_base`. Overrides on the command line take precedence over these settings.
    """

    settings: tuple[str, ...]
    summary: str = ""
    """One-line description of what is evaluated."""
