"""GDPO: the parts of the trajectory reward are normalised one by one, and then added (arXiv 2601.05242).

Released in TRL (`multi_objective_aggregation="normalize_then_sum"`) and verl (`adv_estimator=gdpo`). TRL's numbers:
`eps: 1e-4`; verl's: `whitening: tokens` (its metrics are float32).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from rewright.core.settings import Settings, SignedFloat, convert
from rewright.credit.estimators import Group, all_equal, reads
from rewright.credit.lookup import with_settings

__all__ = ["GDPO", "gdpo"]

Array = NDArray[np.float64]
_WHITENING_EPS = 1e-8
"""Added to the variance over tokens, as in verl's `masked_whiten`."""


class GDPO(Settings, frozen=True, kw_only=True):
    """Settings of `gdpo`."""

    weights: dict[str, SignedFloat] = msgspec.field(default_factory=dict)
    """Weights of the parts by name. Parts that are not named have weight 1 (in TRL: that of the reward function)."""
    whitening: Literal["sequences", "tokens", "none"] = "sequences"
    """Normalise the sums again over the batch: over its trajectories (TRL), over its tokens (verl), or not."""


@reads("components")
@with_settings(GDPO)
def gdpo(group: Group, **given: Any) -> Array:
    """Weighted sum over the parts of (x - mean) / (std + eps), on every turn, (n, T), before `whitened`.

    A part that is unknown for a trajectory adds 0 to it; mean and standard deviation are over those with a number. One
    number alone, and equal numbers, give 0. `given`: the fields of `GDPO`. Raises ValueError without parts, and for a
    weight of an unknown part.
    """
    settings = convert(given, GDPO)
    if not group.components:
        raise ValueError("the parts of the trajectory reward are added, and there are none here")
    unknown = sorted(settings.weights.keys() - group.components.keys())
    if unknown:
        raise ValueError(f"weights.{unknown[0]}: expected one of the parts {', '.join(group.components)}")
    total_n = np.zeros(len(group.trajectory_n))
    for name, values_n in group.components.items():
        known_n = ~np.isnan(values_n)
        weight = settings.weights.get(name, group.component_weights.get(name, 1.0))
        if known_n.sum() > 1 and not all_equal(values_n[known_n]):
            total_n[known_n] += weight * group.normalised(values_n[known_n])
    return np.broadcast_to(total_n[:, None], group.rewards_nT.shape)


def whitened(
    advantages: Sequence[Array],
    *,
    components: Mapping[str, Array],
    token_counts: Sequence[Sequence[int]] | None,
    eps: float,
    **given: Any,
) -> list[Array]:
    """Normalise the sums of all groups of a batch, B arrays (T_i,). Equal sums give exactly 0.

    A trajectory of which every part is unknown, NaN in all `components` (B,), is left out and has 0. `given`: the
    fields of `GDPO`. Raises ValueError for `whitening: tokens` without token counts.
    """
    settings = convert(given, GDPO)
    if settings.whitening == "none" or not advantages:
        return list(advantages)
    sums = np.array([row[0] if len(row) else np.nan for row in advantages])
    unknown = np.isnan(np.array(list(components.values()))).all(axis=0)
    sums[unknown] = np.nan
    if settings.whitening == "sequences":
        counts = np.ones(len(sums), dtype=np.int64)
    elif token_counts is None:
        raise ValueError("estimator 'gdpo': whitening is 'tokens', and the numbers of tokens are unknown here")
    else:
        counts = np.array([sum(row) for row in token_counts], dtype=np.int64)
    pool = np.repeat(sums, counts)
    pool = pool[~np.isnan(pool)]
    if len(pool) < 2 or all_equal(pool):
        return [np.zeros(len(row)) for row in advantages]
    variance = pool.var(ddof=1)
    scale = np.sqrt(variance) + eps if settings.whitening == "sequences" else np.sqrt(variance + _WHITENING_EPS)
    return [
        np.zeros(len(row)) if left_out else (row - pool.mean()) / scale
        for row, left_out in zip(advantages, unknown, strict=True)
    ]


def _named_components(*, weights: Mapping[str, float], **_: Any) -> dict[str, str]:
    return {name: f"weights.{name}" for name in sorted(weights)}


gdpo.finish = whitened  # type: ignore[attr-defined]
gdpo.named_components = _named_components  # type: ignore[attr-defined]
