"""Published benchmarks, one package each: loader, tools, judge, metrics and evaluation protocol.

The parts of a benchmark are registered under its name: a task format (kind `task_format`), a judge (kind `judge`), and
a `Benchmark` (kind `benchmark`), which holds the evaluation settings of `rewright eval --benchmark NAME`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from rewright.core.errors import InputError
from rewright.core.records import Task, Trajectory, Verdict
from rewright.core.registry import find

__all__ = ["Benchmark", "Metrics", "find_benchmark"]

Metrics = Callable[[Task, Trajectory, Verdict], Mapping[str, float]]
"""The numbers of one trajectory, by name."""


class Benchmark(msgspec.Struct, frozen=True):
    """Evaluation protocol: recipe overrides (`section.key=value`) that include `eval.tasks.format`.

    The recipe has the single stage `eval_base`. Overrides on the command line take precedence over these settings.
    """

    settings: tuple[str, ...]
    summary: str = ""
    """One-line description of what is evaluated."""
    metrics: Metrics | None = None
    """The benchmark's own metrics besides success: numbers of one trajectory, which the evaluation averages.

    It is called for each trajectory, also without an answer. A name that it leaves out is not averaged for this one.
    """


def find_benchmark(name: str, setting: str) -> Benchmark:
    """Return the benchmark with that registered name or import path.

    Raises InputError, which mentions `setting`, for an unknown name and for an object that is no benchmark.
    """
    found = find("benchmark", name, setting=setting)
    if not isinstance(found, Benchmark):
        raise InputError(f"{setting}: benchmark {name!r} is a {type(found).__name__}: expected a Benchmark")
    return found
