"""Confidence intervals for reported success rates.

Trajectories of the same task are correlated, as are tasks that are variants of one, so values are given in groups, one
per task or cluster of tasks, and the variance is cluster-robust.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = [
    "Interval",
    "grouped_mean",
    "grouped_proportion",
    "grouped_share",
    "mean_interval",
    "paired_difference",
    "proportion_interval",
]

Z_95 = 1.959963984540054


class Interval(NamedTuple):
    """A value with its 95% confidence interval."""

    value: float
    low: float
    high: float


def proportion_interval(successes: float, total: float) -> Interval:
    """Return Wilson's 95% score interval of `successes` out of `total` trials; (0, 0, 1) for no trials."""
    if total == 0:
        return Interval(0.0, 0.0, 1.0)
    share = successes / total
    denominator = 1 + Z_95**2 / total
    centre = (share + Z_95**2 / (2 * total)) / denominator
    half = Z_95 * math.sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2)) / denominator
    # Rounding must not put the proportion outside its own interval.
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the normal 95% interval of a mean; (0, 0, 0) for no values."""
    return grouped_mean([value] for value in values)


def grouped_mean(groups: Iterable[Sequence[float]]) -> Interval:
    """Return the normal 95% interval of the mean of all values, given by group; (0, 0, 0) for no values."""
    mean, variance, _, _ = _mean_and_variance(groups)
    half = Z_95 * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half)


def grouped_proportion(groups: Iterable[Sequence[float]]) -> Interval:
    """Return Wilson's 95% interval of a success rate from groups of 0/1 values; (0, 0, 1) for no values.

    Uses the effective number of trials that gives the cluster-robust variance. It lies between the number of groups
    (which it is if each group has one value) and the number of values.
    """
    share, variance, count, total = _mean_and_variance(groups)
    # Zero variance: all values are equal (no information about the variation), or all groups have the same rate. A
    # single group says nothing about others.
    agreeing = float(total if 0 < share < 1 and count > 1 else count)
    effective = share * (1 - share) / variance if variance > 0 else agreeing
    trials = min(max(effective, float(count)), float(total))
    interval = proportion_interval(share * trials, trials)
    return Interval(share, min(share, interval.low), max(share, interval.high))


def grouped_share(groups: Iterable[Sequence[float]]) -> Interval:
    """Return a 95% interval of the mean of shares in [0, 1], given by group; (0, 0, 1) for no values.

    For 0/1 values it is that of `grouped_proportion`. Else it is Wilson's interval with the number of trials that gives
    the cluster-robust variance, and at least the number of groups: it lies in [0, 1]. For equal shares in several
    groups it has the number of values as trials.
    """
    kept = [tuple(group) for group in groups]
    if all(value in (0, 1) for group in kept for value in group):
        return grouped_proportion(kept)
    share, variance, count, total = _mean_and_variance(kept)
    agreeing = float(total if count > 1 else count)
    trials = max(share * (1 - share) / variance if variance > 0 else agreeing, float(count))
    interval = proportion_interval(share * trials, trials)
    return Interval(share, min(share, interval.low), max(share, interval.high))


def paired_difference(differences: Sequence[float], clusters: Sequence[str] | None = None) -> Interval:
    """The mean of paired differences of success rates, each in [-1, 1], with Agresti and Min's adjusted interval.

    Half a pair is added to each of the four outcomes (both, neither, one, the other), so that few pairs, or pairs that
    all agree, give no interval of width 0 (Agresti and Min 2005, Simple improved confidence intervals for comparing
    matched proportions). (0, -1, 1) for no values.

    `clusters` has the cluster of every pair: pairs of one cluster are not independent. The variance is then the larger
    of the adjusted one and the cluster-robust one; a single cluster counts as one pair.
    """
    groups: dict[str, list[float]] = {}
    for cluster, value in zip(clusters or (), differences, strict=clusters is not None):
        groups.setdefault(cluster, []).append(value)
    if len(groups) == 1:
        return paired_difference([sum(differences) / len(differences)])
    count, total = len(differences), sum(differences)
    if not count:
        return Interval(0.0, -1.0, 1.0)
    mean, centre = total / count, total / (count + 2)
    spread = sum(value * value for value in differences) + 1 - total * total / (count + 2)
    variance = max(0.0, spread) / (count + 2) ** 2
    if len(groups) < count:
        variance = max(variance, _mean_and_variance(groups.values())[1])
    half = Z_95 * math.sqrt(variance)
    return Interval(mean, max(-1.0, min(mean, centre - half)), min(1.0, max(mean, centre + half)))


def _mean_and_variance(groups: Iterable[Sequence[float]]) -> tuple[float, float, int, int]:
    """The mean of all values, its variance (0 for a single group), the numbers of groups and of values."""
    sums = [(sum(group), len(group)) for group in groups if len(group)]
    count, total = len(sums), sum(size for _, size in sums)
    if not total:
        return 0.0, 0.0, 0, 0
    mean = sum(part for part, _ in sums) / total
    squares = sum((part - mean * size) ** 2 for part, size in sums)
    return mean, squares / total**2 * count / (count - 1) if count > 1 else 0.0, count, total
