"""GiGPO: turns compared with the turns of the group that began in an equal state. Any reward, no gold needed.

Source: Feng et al. 2025 (arXiv 2505.10978), released in verl-agent. `rewright.credit.history_groups` has HGPO. With
`episode_baseline: steps`, `visits: all` and `state_key: last_observation` the numbers are those of the released
function, except that equal returns give exactly 0. The reasons for our defaults are in docs/credit.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rewright.core.settings import NonNegativeFloat, Settings, convert
from rewright.credit.estimators import Group, all_equal, reads
from rewright.credit.lookup import with_settings

__all__ = ["GiGPO", "StateGroups", "episode_level", "gigpo", "keys_of", "report", "step_level"]

Array = NDArray[np.float64]


class StateGroups(Settings, frozen=True, kw_only=True):
    """What both estimators compare."""

    normalisation: Literal["mean", "mean_std"] = "mean"
    """`mean`: the mean is subtracted. `mean_std`: the difference is also divided by the standard deviation."""
    episode_baseline: Literal["trajectories", "steps"] = "trajectories"
    """The mean of the trajectory rewards: over trajectories, or over turns (the release: long ones count more)."""
    visits: Literal["first", "all"] = "first"
    """Members of a state's mean: the first visit of every trajectory, or every visit (the release)."""
    leave_trajectory_out: bool = False
    """Compare a turn with those of the other trajectories only. The trajectory level is not concerned."""
    state_key: Literal["history", "last_observation", "own"] = "history"
    """What makes states equal: all calls and results so far, the last observation, or the environment's own state."""


class GiGPO(StateGroups, frozen=True, kw_only=True):
    """Settings of `gigpo`."""

    omega: NonNegativeFloat = 1.0
    """Weight of the step level."""


@reads("state_keys")
@with_settings(GiGPO)
def gigpo(group: Group, **given: Any) -> Array:
    """Trajectory level plus `omega` times the step level: D_t minus the mean D of equal states of the group.

    A state that only one trajectory reaches, an unknown state and a masked turn have no step level. `given`: the fields
    of `GiGPO`. Raises ValueError without state keys.
    """
    settings = convert(given, GiGPO)
    step_nT, compared_nT = step_level(group, keys_of(group, settings.state_key), settings, ddof=1)
    report(group, settings, compared_nT)
    return episode_level(group, settings)[:, None] + settings.omega * step_nT


def keys_of(group: Group, kind: str) -> NDArray[np.object_]:
    """The keys of one kind, (n, T). Raises ValueError without them."""
    keys_nT = group.keys(kind)
    if keys_nT is None:
        raise ValueError(f"equal states are compared, and there are no state keys of the kind {kind!r}")
    return keys_nT


def _members(group: Group, keys_nT: NDArray[np.object_]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows and turns of each state, in order. Masked turns and unknown states are in none."""
    places: dict[Hashable, list[tuple[int, int]]] = defaultdict(list)
    allowed = group.present_nT if group.masked_nT is None else group.present_nT & ~group.masked_nT
    for row, turn in np.argwhere(allowed):
        if keys_nT[row, turn] is not None:
            places[keys_nT[row, turn]].append((row, turn))
    return [(rows, turns) for rows, turns in (np.array(found).T for found in places.values())]


def step_level(
    group: Group, keys_nT: NDArray[np.object_], settings: StateGroups, *, ddof: int
) -> tuple[Array, NDArray[np.bool_]]:
    """D_t compared within each state, (n, T), and which turns were compared."""
    step_nT, compared_nT = np.zeros(keys_nT.shape), np.zeros(keys_nT.shape, dtype=bool)
    for rows, turns in _members(group, keys_nT):
        returns = group.returns_nT[rows, turns]
        firsts = np.append(True, rows[1:] != rows[:-1]) if settings.visits == "first" else np.full(len(rows), True)
        pool, pool_rows = returns[firsts], rows[firsts]
        alone = len(np.unique(rows)) < 2 if settings.leave_trajectory_out else len(pool) < 2
        if alone:
            continue
        baselines = [
            pool[pool_rows != row].mean() if settings.leave_trajectory_out else pool.mean() for row in rows.tolist()
        ]
        compared_nT[rows, turns] = True
        step_nT[rows, turns] = _scaled(returns, np.array(baselines), pool, settings, group, ddof=ddof)
    return step_nT, compared_nT


def _scaled(values: Array, baselines: Array, pool: Array, settings: StateGroups, group: Group, *, ddof: int) -> Array:
    """Values minus baselines, divided by the standard deviation of the pool if it is set; differences that are rounding
    are exactly 0."""
    difference = values - baselines
    difference[np.abs(difference) <= group.tolerance * np.abs(values).max()] = 0.0
    if settings.normalisation == "mean":
        return difference
    return np.zeros_like(values) if all_equal(pool, group.tolerance) else difference / (pool.std(ddof=ddof) + group.eps)


def episode_level(group: Group, settings: StateGroups) -> Array:
    """The trajectory level, (n,). A group of one value is compared with 0, as in GRPO."""
    counts = group.present_nT.sum(axis=1) if settings.episode_baseline == "steps" else 1
    rewards, pool = group.trajectory_n, np.repeat(group.trajectory_n, counts)
    if len(pool) < 2:
        return rewards / (1.0 if settings.normalisation == "mean" else 1.0 + group.eps)
    return _scaled(rewards, np.full(len(rewards), pool.mean()), pool, settings, group, ddof=1)


def report(group: Group, settings: StateGroups, compared_nT: NDArray[np.bool_]) -> None:
    """Report the shares of turns that are compared, that are compared with another action, and of unknown states."""
    keys_nT, actions_nT = keys_of(group, settings.state_key), group.keys("action")
    turns = int(group.present_nT.sum())
    group.report("state_groups/compared", int(compared_nT.sum()), turns)
    group.report("state_groups/unknown", sum(key is None for key in keys_nT[group.present_nT]), turns)
    if actions_nT is not None:
        states = [actions_nT[place] for place in _members(group, keys_nT) if compared_nT[place].any()]
        choices = sum(len(actions) for actions in states if len(set(actions.tolist()) - {None}) > 1)
        group.report("state_groups/with_choice", choices, turns)
