"""The similarity of two calls as a function of their argument names and the number of equal values, and its weights."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MAX_MAGNITUDE",
    "PARITY_WEIGHTS",
    "Weights",
    "as_floats",
    "check_weights",
    "formula",
    "is_finite",
    "jaccard",
]

Weights = tuple[float, float, float]
"""Weights of the three terms: name, argument names, argument values."""

PARITY_WEIGHTS: Weights = (1.0, 1.0, 1.0)

MAX_MAGNITUDE = 1e100
"""Maximum magnitude of settings and rewards; larger ones would overflow when summed or squared."""


def formula(names: frozenset[Hashable], gold_names: frozenset[Hashable], equal: float, weights: Weights) -> float:
    """The similarity of two calls of one tool, given their argument names and the number of equal values."""
    name_weight, key_weight, value_weight = weights
    keys = 1.0 if names == gold_names else jaccard(names, gold_names)
    denominator = name_weight + key_weight + value_weight * len(gold_names)
    return (name_weight + key_weight * keys + value_weight * equal) / denominator if denominator else 1.0


def jaccard(left: frozenset[Hashable], right: frozenset[Hashable]) -> float:
    """Jaccard index of two sets; 1 if both are empty."""
    return len(left & right) / len(left | right) if left or right else 1.0


def check_weights(weights: Weights) -> None:
    """Raise ValueError unless `weights` are three numbers in [0, 1e100], not all zero."""
    if weights is PARITY_WEIGHTS:
        return
    three = isinstance(weights, Sequence) and len(weights) == 3
    if (
        not three
        or not all(is_finite(weight) and 0 <= float(weight) <= MAX_MAGNITUDE for weight in weights)
        or not any(weights)
    ):
        raise ValueError(
            f"weights are {weights!r}: expected three numbers >= 0 (at most {MAX_MAGNITUDE:g}), not all zero "
            "(name, argument names, values)"
        )


def is_finite(number: Any) -> bool:
    """Return True if `number` is a finite Python or numpy number."""
    try:
        return math.isfinite(number)
    except (TypeError, OverflowError):
        return False


def as_floats(values: Any) -> NDArray[np.float64]:
    """Convert numbers to a float64 array, tensors of any type and device included.

    Raises TypeError, ValueError or OverflowError for anything else.
    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, RuntimeError):  # a tensor in bfloat16, on a GPU, or with a gradient
        if not callable(getattr(values, "tolist", None)):
            raise
    return np.asarray(values.tolist(), dtype=np.float64)
