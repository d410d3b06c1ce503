"""Intervals for the tables: how sure a measured success rate is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Interval", "mean_interval", "proportion_interval"]

Z_95 = 1.959963984540054


class Interval(NamedTuple):
    """A value with its 95% confidence interval."""

    value: float
    low: float
    high: float


def proportion_interval(successes: float, total: int) -> Interval:
    """Wilson's 95% score interval of a proportion; for no trials (0, 0, 1)."""
    if total == 0:
        return Interval(0.0, 0.0, 1.0)
    share = successes / total
    denominator = 1 + Z_95**2 / total
    centre = (share + Z_95**2 / (2 * total)) / denominator
    half = Z_95 * math.sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2)) / denominator
    # Rounding must not put the share outside of its own interval.
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def mean_interval(values: Sequence[float]) -> Interval:
    """The normal 95% interval of a mean; (0, 0, 0) for no values."""
    if not values:
        return Interval(0.0, 0.0, 0.0)
    count = len(values)
    mean = sum(values) / count
    if count == 1:
        return Interval(mean, mean, mean)
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    half = Z_95 * math.sqrt(variance / count)
    return Interval(mean, mean - half, mean + half)
