"""Published benchmarks, a folder each: loader, tools, judge, metrics, protocol.

The parts of a benchmark are registered under its name: a task format (kind `task_format`), a judge (kind `judge`), and
a `Benchmark` (kind `benchmark`), the protocol under which `rewright eval --benchmark NAME` evaluates a model.
"""

from __future__ import annotations

import msgspec

__all__ = ["Benchmark"]


class Benchmark(msgspec.Struct, frozen=True):
    """The settings of a recipe with which a model is evaluated, as `section.key=value`; they set `eval.tasks.format`.

    The recipe has one stage, `eval_base`. What the user gives on the command line comes after these settings.
    """

    settings: tuple[str, ...]
    summary: str = ""
    """One line: what is evaluated."""
