"""Numbers of an evaluation beside success: pass^k, a benchmark's totals, and its floor and ceiling for the run's tasks.

pass^k (tau-bench) is the probability that k independent trajectories of a task are all right, averaged over tasks. With
c of n trajectories right it is estimated without bias as C(c, k) / C(n, k).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rewright.core.statistics import Z_95, proportion_interval

__all__ = ["ALL", "bounds", "pass_powers", "totals"]

ALL = "all"
"""The key of `Benchmark.floor` and `ceiling` for all tasks together."""


def pass_powers(outcomes: Iterable[tuple[str, bool]]) -> dict[str, dict[str, Any]]:
    """Return pass^k for k = 2 … n from (task id, right) of every trajectory; n is the smallest number for a task.

    By k (as text): `value`, and Wilson's 95% interval over the `tasks`, `low` to `high`. Empty for one trajectory per
    task, because pass^1 is the success rate.
    """
    groups: dict[str, list[bool]] = {}
    for task_id, right in outcomes:
        groups.setdefault(task_id, []).append(right)
    least = min((len(group) for group in groups.values()), default=0)
    rows: dict[str, dict[str, Any]] = {}
    for k in range(2, least + 1):
        # A share of a task lies in [0, 1], so its variance is at most that of a 0/1 value: the interval is no narrower
        # than it has to be.
        total = math.fsum(math.comb(sum(group), k) / math.comb(len(group), k) for group in groups.values())
        rows[str(k)] = {**proportion_interval(total, len(groups))._asdict(), "tasks": len(groups)}
    return rows


def totals(
    weights: Mapping[str, Mapping[str, float]], categories: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the totals of a benchmark whose categories have all been evaluated.

    Args:
        weights: Name of the total -> category -> weight (`Benchmark.aggregates`).
        categories: Category -> row with `success`, `low` and `high`.

    By name: `value` and its 95% interval, `low` to `high`. The categories are independent, so the variance of a total
    is the sum of theirs, times the squared weights; that of a category is read from the width of its own interval.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, parts in weights.items():
        if not all(category in categories for category in parts):
            continue
        value = math.fsum(weight * float(categories[category]["success"]) for category, weight in parts.items())
        below, above = (
            Z_95
            * math.sqrt(
                math.fsum(
                    (weight * float(abs(categories[category]["success"] - categories[category][side])) / Z_95) ** 2
                    for category, weight in parts.items()
                )
            )
            for side in ("low", "high")
        )
        rows[name] = {"value": value, "low": max(0.0, value - below), "high": min(1.0, value + above)}
    return rows


def bounds(
    stated: Mapping[str, float], weights: Mapping[str, Mapping[str, float]], categories: Sequence[str]
) -> dict[str, float]:
    """Return the floor or ceiling of a run: of its categories, of `all` its tasks, and of the totals they make up.

    `categories` has the category of every task of the run, "" for none. What is not stated is left out. If all
    categories are stated, `all` is their mean over the tasks of the run, so that it also fits a part of the benchmark.
    """
    counts = Counter(category for category in categories if category)
    found = {name: float(stated[name]) for name in counts if name in stated}
    if counts and len(found) == len(counts) and counts.total() == len(categories):
        found[ALL] = math.fsum(found[name] * count for name, count in counts.items()) / counts.total()
    elif not counts and ALL in stated:
        found[ALL] = float(stated[ALL])
    for name, parts in weights.items():
        if all(category in found for category in parts):
            found[name] = math.fsum(weight * found[category] for category, weight in parts.items())
    return found
