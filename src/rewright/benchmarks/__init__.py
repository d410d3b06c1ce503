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

    The category of a task is its `metadata.category`. `floor` and `ceiling` are measured with
    `rewright.benchmarks.bounds` and stand beside every score of the benchmark.
    """

    settings: tuple[str, ...]
    summary: str = ""
    """One-line description of what is evaluated."""
    metrics: Metrics | None = None
    """The benchmark's own metrics besides success: numbers of one trajectory, which the evaluation averages.

    It is called for each trajectory, also without an answer. A name that it leaves out is not averaged for this one.
    """
    floor: Mapping[str, float] = {}
    """Share of right tasks of a policy that does nothing, per category and for `all` tasks, in [0, 1]."""
    ceiling: Mapping[str, float] = {}
    """Share of right tasks when the gold calls and answers are played as a trajectory, as `floor`."""
    aggregates: Mapping[str, Mapping[str, float]] = {}
    """Published totals: name -> category -> weight. A total is the weighted sum of the success of its categories."""
    note: str = ""
    """What a reader of the score must know: what is missing, or differs from the official run. One line."""
    data: str = ""
    """Where the files come from if they are in no installed package. One line, as `hf:owner/name, 30 rows`."""
    unchecked: bool = False
    """Whether the loader follows the published columns, and has not read the published file itself."""


def find_benchmark(name: str, setting: str) -> Benchmark:
    """Return the benchmark with that registered name or import path.

    Raises InputError, which mentions `setting`, for an unknown name and for an object that is no benchmark.
    """
    found = find("benchmark", name, setting=setting)
    if not isinstance(found, Benchmark):
        raise InputError(f"{setting}: benchmark {name!r} is a {type(found).__name__}: expected a Benchmark")
    return found
