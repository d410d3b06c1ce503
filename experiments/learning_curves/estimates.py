"""Means over seeds with their intervals, as the tables of the benchmarks show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

__all__ = ["Estimate", "estimate", "shown"]


class Estimate(NamedTuple):
    """A mean over seeds and half the width of its 95% interval (None: one seed has none)."""

    mean: float
    half: float | None


def estimate(values: Sequence[float]) -> Estimate:
    """The mean with Student's interval."""
    count = len(values)
    if count < 2:
        return Estimate(float(np.mean(values)), None)
    half = float(stats.t.ppf(0.975, count - 1)) * float(np.std(values, ddof=1)) / count**0.5
    return Estimate(float(np.mean(values)), half)


def shown(found: Estimate, sign: str = "") -> str:
    """In percentage points."""
    half = "" if found.half is None else f" ± {100 * found.half:.1f}"
    return f"{100 * found.mean:{sign}.1f}{half}"
