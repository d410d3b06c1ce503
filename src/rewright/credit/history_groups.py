"""HGPO: turns compared with the turns of the group whose last states are equal. Any reward, no gold needed.

Source: HGPO, released in verl-agent (recipe/hgpo). With `normalisation: mean_std`, `episode_baseline: steps` and
`visits: all` the numbers are those of the released function, except that equal returns give exactly 0.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rewright.core.settings import NonNegativeInt, SignedFloat, convert
from rewright.credit.estimators import Group, reads
from rewright.credit.lookup import with_settings
from rewright.credit.state_groups import StateGroups, episode_level, keys_of, report, step_level

__all__ = ["HGPO", "hgpo"]

Array = NDArray[np.float64]


class HGPO(StateGroups, frozen=True, kw_only=True):
    """Settings of `hgpo`."""

    state_key: Literal["history", "last_observation", "own"] = "last_observation"
    """What makes single states equal. `hgpo` compares the last states of a turn itself."""
    K: NonNegativeInt = 2
    """Largest number of earlier states that are compared."""
    alpha: SignedFloat = 1.0
    """The weight of a comparison of k states is (k + 1) to the power of alpha."""
    base_group: bool = False
    """Add the trajectory level, with weight 1."""
    zeros: Literal["drop", "keep"] = "drop"
    """A comparison that gives exactly 0: left out of the weighted mean (the release), or part of it."""


@reads("state_keys")
@with_settings(HGPO)
def hgpo(group: Group, **given: Any) -> Array:
    """Weighted mean of comparisons among turns whose last 1, 2, … K + 1 states are equal; 0 without a comparison.

    `given`: the fields of `HGPO`. Raises ValueError without state keys.
    """
    settings = convert(given, HGPO)
    keys_nT = keys_of(group, settings.state_key)
    total_nT, weight_nT = np.zeros(keys_nT.shape), np.zeros(keys_nT.shape)

    def add(advantage_nT: Array, counted_nT: NDArray[np.bool_], states: int) -> None:
        counted_nT = counted_nT & (advantage_nT != 0) if settings.zeros == "drop" else counted_nT
        weight_nT[counted_nT] += (states + 1) ** settings.alpha
        total_nT[counted_nT] += (states + 1) ** settings.alpha * advantage_nT[counted_nT]

    if settings.base_group:
        add(np.broadcast_to(episode_level(group, settings)[:, None], keys_nT.shape), group.present_nT, 0)
    for states in range(1, min(settings.K + 1, keys_nT.shape[1]) + 1):
        step_nT, compared_nT = step_level(group, _last_states(keys_nT, states), settings, ddof=0)
        add(step_nT, compared_nT, states)
        if states == 1:
            report(group, settings, compared_nT)
    return np.where(weight_nT > 0, total_nT / (weight_nT + group.eps), 0.0)


def _check_join(join: str, *, base_group: bool = False, **_: Any) -> None:
    """Without the trajectory level an outcome that is no part of a turn reward counts nowhere."""
    if join == "trajectory" and not base_group:
        raise ValueError(
            "join must be last_turn with the estimator hgpo, which has a trajectory level only with base_group: true, "
            "got trajectory"
        )


hgpo.check_join = _check_join  # type: ignore[attr-defined]


def _last_states(keys_nT: NDArray[np.object_], count: int) -> NDArray[np.object_]:
    """Keys of the last `count` states of each turn; None if there are fewer, or one is unknown."""
    result = np.full(keys_nT.shape, None, dtype=object)
    for row, turn in np.ndindex(keys_nT.shape):
        last = tuple(keys_nT[row, max(0, turn + 1 - count) : turn + 1])
        if len(last) == count and None not in last:
            result[row, turn] = last
    return result
