"""Rank statistics of N turns under B weightings at once, as a bootstrap needs them. Numpy and scipy only.

A weighting is a row of W (B, N): how often each turn is drawn. Tied values have the mean of their ranks, and what is
not defined (a constant, an empty class) is NaN.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DECIMALS",
    "area",
    "correlation",
    "group_ranks",
    "partial_spearman",
    "ranks",
    "rounded",
    "spearman",
    "within_groups",
]

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

DECIMALS: Final = 12
"""Values are compared to so many decimals: 0.3 - 0.2 and 0.4 - 0.3 differ by a rounding error."""
_RELATIVE = 1e-12
"""A sum of squares below this part of the one about 0 is rounding error."""


def rounded(values: Array) -> Array:
    """Return values rounded to 12 decimals, so that equal differences of floats are ties."""
    return np.round(values, DECIMALS) + 0.0  # no negative zeros


def ranks(values: Array, weights: Array) -> Array:
    """Return mean ranks (B, N) of values (N,), as if every turn stood there as often as its weight says."""
    _, codes = np.unique(values, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(codes[order]) > 0])
    totals = np.add.reduceat(weights[:, order], starts, axis=1)
    middles = np.cumsum(totals, axis=1) - (totals - 1) / 2
    return np.asarray(middles[:, codes], dtype=np.float64)


def correlation(left: Array, right: Array, weights: Array) -> Array:
    """Return Pearson's correlation (B,) of rows (B, N) under weights (B, N)."""
    total = weights.sum(axis=1)
    smallest = [_RELATIVE * (weights * one**2).sum(axis=1) for one in (left, right)]
    with np.errstate(divide="ignore", invalid="ignore"):
        left = left - ((weights * left).sum(axis=1) / total)[:, None]
        right = right - ((weights * right).sum(axis=1) / total)[:, None]
        squares = [(weights * one**2).sum(axis=1) for one in (left, right)]
        found = (weights * left * right).sum(axis=1) / np.sqrt(squares[0] * squares[1])
    constant = (squares[0] <= smallest[0]) | (squares[1] <= smallest[1]) | ~np.isfinite(found)
    return np.where(constant, np.nan, np.clip(found, -1, 1))


def spearman(left: Array, right: Array, weights: Array | None = None) -> Array:
    """Return Spearman's rank correlation (B,) of values (N,) and (N,); without weights (1,)."""
    weights = np.ones((1, len(left))) if weights is None else weights
    return correlation(ranks(left, weights), ranks(right, weights), weights)


def partial_spearman(left: Array, right: Array, others: list[Array], weights: Array | None = None) -> Array:
    """Return the rank correlation (B,) of two values (N,) given the `others` (N,): of the residuals of their ranks.

    Others that are constant say nothing and are left out.
    """
    weights = np.ones((1, len(left))) if weights is None else weights
    kept = [other for other in others if len(np.unique(other)) > 1]
    columns = np.stack([ranks(one, weights) for one in (left, right, *kept)], axis=2)
    columns = columns - ((weights[:, :, None] * columns).sum(axis=1) / weights.sum(axis=1)[:, None])[:, None, :]
    covariance = np.einsum("bn,bni,bnj->bij", weights, columns, columns)
    scale = np.sqrt(np.einsum("bii->bi", covariance))
    with np.errstate(divide="ignore", invalid="ignore"):
        matrix = np.nan_to_num(covariance / (scale[:, :, None] * scale[:, None, :]))
    head, tail = matrix[:, :2, :2], matrix[:, 2:, 2:]
    if kept:
        cross = matrix[:, :2, 2:]
        head = head - cross @ np.linalg.pinv(tail, rcond=1e-9, hermitian=True) @ np.swapaxes(cross, 1, 2)
    spread = np.clip(head[:, 0, 0], 0, None) * np.clip(head[:, 1, 1], 0, None)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = head[:, 0, 1] / np.sqrt(spread)
    # What the others explain wholly has no residual.
    return np.where((head[:, 0, 0] < 1e-9) | (head[:, 1, 1] < 1e-9), np.nan, np.clip(found, -1, 1))


def area(scores: Array, positive: NDArray[np.bool_], weights: Array | None = None) -> Array:
    """Return the area under the ROC curve (B,): the chance that a positive turn scores higher than another one."""
    weights = np.ones((1, len(scores))) if weights is None else weights
    places = ranks(scores, weights)
    ones = (weights * positive).sum(axis=1)
    zeros = weights.sum(axis=1) - ones
    with np.errstate(divide="ignore", invalid="ignore"):
        found = ((weights * places * positive).sum(axis=1) - ones * (ones + 1) / 2) / (ones * zeros)
    return np.where((ones == 0) | (zeros == 0), np.nan, found)


def group_ranks(values: Array, groups: Codes) -> Array:
    """Return the mean rank (N,) of every value inside its group (codes from 0)."""
    order = np.lexsort((values, groups))
    ordered, grouped = values[order], groups[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(grouped) != 0) | (np.diff(ordered) != 0)])
    lengths = np.diff(np.r_[starts, len(values)])
    first_of_group = np.searchsorted(grouped, grouped)  # the place of the group's first value
    found = np.empty(len(values))
    found[order] = np.repeat(starts + (lengths + 1) / 2, lengths) - first_of_group
    return found


def within_groups(left: Array, right: Array, groups: Codes) -> Array:
    """Return Spearman's correlation inside every group (J,); NaN where one of the two is constant."""
    count = int(groups.max()) + 1 if len(groups) else 0
    first, second = group_ranks(left, groups), group_ranks(right, groups)
    sizes = np.maximum(np.bincount(groups, minlength=count), 1)
    first = first - (np.bincount(groups, first, count) / sizes)[groups]
    second = second - (np.bincount(groups, second, count) / sizes)[groups]
    squares = np.bincount(groups, first**2, count) * np.bincount(groups, second**2, count)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.bincount(groups, first * second, count) / np.sqrt(squares)
    return np.where(squares > _RELATIVE, found, np.nan)
