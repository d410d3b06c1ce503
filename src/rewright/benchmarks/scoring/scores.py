"""Numbers of an evaluation beside success: pass^k, a benchmark's totals, and its floor and ceiling for the run's tasks.

pass^k (tau-bench) is the probability that k independent trajectories of a task are all right, averaged over tasks. With
c of n trajectories right it is estimated without bias as C(c, k) / C(n, k).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from rewright.core.statistics import grouped_share, proportion_interval

__all__ = ["ALL", "bounds", "cluster_of", "correlations", "pass_powers", "totals"]

ALL = "all"
"""The key of `Benchmark.floor` and `ceiling` for all tasks together."""


def cluster_of(task_id: str, clusters: Mapping[str, str]) -> Hashable:
    """Return the name of the group of tasks that are not independent of this one: its cluster, or the task alone."""
    return (clusters[task_id],) if task_id in clusters else task_id


def pass_powers(
    outcomes: Iterable[tuple[str, bool]], clusters: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """Return pass^k for k = 2 … n from (task id, right) of every trajectory; n is the smallest number for a task.

    By k (as text): `value`, and Wilson's 95% interval over the `tasks`, `low` to `high`; over `clusters` (task id ->
    cluster) where tasks share one. Empty for one trajectory per task, because pass^1 is the success rate.
    """
    groups: dict[str, list[bool]] = {}
    for task_id, right in outcomes:
        groups.setdefault(task_id, []).append(right)
    least = min((len(group) for group in groups.values()), default=0)
    rows: dict[str, dict[str, Any]] = {}
    for k in range(2, least + 1):
        # A share of a task lies in [0, 1], so its variance is at most that of a 0/1 value: the interval is no narrower
        # than it has to be.
        shares: dict[Hashable, list[float]] = {}
        for task_id, group in groups.items():
            share = math.comb(sum(group), k) / math.comb(len(group), k)
            shares.setdefault(cluster_of(task_id, clusters or {}), []).append(share)
        total = math.fsum(share for part in shares.values() for share in part)
        interval = proportion_interval(total, len(groups))
        if len(shares) < len(groups):
            interval = grouped_share(shares.values())
        rows[str(k)] = {**interval._asdict(), "tasks": len(groups)}
    return rows


def correlations(outcomes: Iterable[tuple[str, Hashable, float]]) -> dict[tuple[str, str], float]:
    """Return the correlations of the success of categories whose tasks share clusters, from (category, cluster, value).

    By pair of categories, in both orders. It is estimated from the sums of the residuals per cluster, is at least 0,
    and is 1 if a category has no variance to estimate it from. Pairs without a common cluster are left out.
    """
    values: dict[str, dict[Hashable, list[float]]] = {}
    for category, cluster, value in outcomes:
        values.setdefault(category, {}).setdefault(cluster, []).append(value)
    residuals = {}
    for category, groups in values.items():
        every = [value for group in groups.values() for value in group]
        mean = math.fsum(every) / len(every)
        residuals[category] = {cluster: math.fsum(group) - mean * len(group) for cluster, group in groups.items()}
    found = {}
    for left, ours in residuals.items():
        for right, theirs in residuals.items():
            if left == right or not (shared := ours.keys() & theirs.keys()):
                continue
            scale = math.sqrt(
                math.fsum(one * one for one in ours.values()) * math.fsum(one * one for one in theirs.values())
            )
            together = math.fsum(ours[cluster] * theirs[cluster] for cluster in shared)
            found[left, right] = min(1.0, max(0.0, together / scale)) if scale > 0 else 1.0
    return found


def totals(
    weights: Mapping[str, Mapping[str, float]],
    categories: Mapping[str, Mapping[str, Any]],
    correlated: Mapping[tuple[str, str], float] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the totals of a benchmark whose categories have all been evaluated.

    Args:
        weights: Name of the total -> category -> weight (`Benchmark.aggregates`).
        categories: Category -> row with `success`, `low` and `high`.
        correlated: Correlations of categories that are not independent (`correlations`).

    By name: `value` and its 95% interval, `low` to `high`. The variance of a total is that of the weighted sum of its
    categories, which are independent but for `correlated`; that of a category is read from the width of its own
    interval.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, parts in weights.items():
        if not all(category in categories for category in parts):
            continue
        value = math.fsum(weight * float(categories[category]["success"]) for category, weight in parts.items())
        widths = (
            {
                category: weight * float(abs(categories[category]["success"] - categories[category][side]))
                for category, weight in parts.items()
            }
            for side in ("low", "high")
        )
        below, above = (_width_of_sum(one, correlated or {}) for one in widths)
        rows[name] = {"value": value, "low": max(0.0, value - below), "high": min(1.0, value + above)}
    return rows


def _width_of_sum(widths: Mapping[str, float], correlated: Mapping[tuple[str, str], float]) -> float:
    """The half width of the interval of a sum from those of its summands."""
    squares = math.fsum(
        widths[left] * widths[right] * (1.0 if left == right else correlated.get((left, right), 0.0))
        for left in widths
        for right in widths
    )
    return math.sqrt(squares)


def bounds(
    stated: Mapping[str, float], weights: Mapping[str, Mapping[str, float]], categories: Sequence[str]
) -> dict[str, float]:
    """Return the floor or ceiling of a run: of its categories, of `all` its tasks, and of the totals they make up.

    `categories` has the category of every task of the run, "" for none. What is not stated is left out. If all
    categories are stated, `all` is their mean over the tasks of the run, so that it also fits a part of the benchmark.
    A category that is named `all` is none.
    """
    counts = Counter(category for category in categories if category not in {"", ALL})
    found = {name: float(stated[name]) for name in counts if name in stated}
    if counts and len(found) == len(counts) and counts.total() == len(categories):
        found[ALL] = math.fsum(found[name] * count for name, count in counts.items()) / counts.total()
    elif not counts and ALL in stated:
        found[ALL] = float(stated[ALL])
    for name, parts in weights.items():
        if all(category in found for category in parts):
            found[name] = math.fsum(weight * found[category] for category, weight in parts.items())
    return found
