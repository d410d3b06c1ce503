"""Turn rewards: the matched calls of each turn, and the outcome on the last (MatchTIR, turn and trajectory rewards)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rewright.credit.calls import calls_of
from rewright.credit.matching import Assignment, Problem, call_rewards
from rewright.credit.similarity import PARITY_WEIGHTS, Weights, is_finite

__all__ = ["turn_rewards", "turn_rewards_many"]

Turns = Iterable[Any]
"""The turns of a trajectory, each the list of its calls."""


def turn_rewards(
    turns: Turns | None,
    golds: Sequence[Any] | None,
    *,
    outcome: float | None = None,
    aggregate: Literal["mean", "sum"] = "mean",
    assignment: Assignment = "optimal",
    unmatched: float = 0.0,
    reg: float = 0.1,
    ot_scale: Literal["raw", "calls"] = "raw",
    weights: Weights = PARITY_WEIGHTS,
) -> NDArray[np.float64]:
    """Rewards of the T turns of one trajectory, float64 (T,).

    `turns` holds the calls of each turn, as the rollout delimited them. All calls of the trajectory are matched
    together (`match` explains the settings); a turn's reward is the mean (or sum) over its own calls, 0 for a turn
    without calls; `outcome` is added to the last turn (None: not computed, nothing is added). Malformed calls
    count as calls with reward 0, so they lower a mean. No gold (empty or None) or no calls: zeros, plus the outcome.
    A turn that is None has no calls; one that is no list is a turn of that one call.

    Never raises on what a model wrote; ValueError for settings, for gold calls that are no list and for an outcome
    that is not a finite number.
    """
    return turn_rewards_many(
        [turns],
        [golds],
        outcomes=[outcome],
        aggregate=aggregate,
        assignment=assignment,
        unmatched=unmatched,
        reg=reg,
        ot_scale=ot_scale,
        weights=weights,
    )[0]


def turn_rewards_many(
    trajectories: Iterable[Turns | None],
    golds: Iterable[Sequence[Any] | None],
    *,
    outcomes: Iterable[float | None] | None = None,
    aggregate: Literal["mean", "sum"] = "mean",
    assignment: Assignment = "optimal",
    unmatched: float = 0.0,
    reg: float = 0.1,
    ot_scale: Literal["raw", "calls"] = "raw",
    weights: Weights = PARITY_WEIGHTS,
) -> list[NDArray[np.float64]]:
    """`turn_rewards` for a batch: one (T_i,) array for each trajectory, matched together by `match_many`."""
    if aggregate not in ("mean", "sum"):
        raise ValueError(f"aggregate is {aggregate!r}: expected 'mean' or 'sum'")
    trajectories, golds = list(trajectories), list(golds)
    outcomes = [None] * len(trajectories) if outcomes is None else list(outcomes)
    for name, given in (("gold lists", golds), ("outcomes", outcomes)):
        if len(given) != len(trajectories):
            raise ValueError(f"{len(given)} {name}, but {len(trajectories)} trajectories: give exactly one each")
    plain = [
        [] if turns is None else [turn if type(turn) is list else calls_of(turn) for turn in turns]
        for turns in trajectories
    ]
    problems: list[Problem] = [
        ([call for turn in turns for call in turn], gold) for turns, gold in zip(plain, golds, strict=True)
    ]
    paid = call_rewards(
        problems,
        assignment=assignment,
        unmatched=unmatched,
        reg=reg,
        ot_scale=ot_scale,
        weights=weights,
    )
    return [
        _per_turn(turns, rewards, outcome, aggregate)
        for turns, rewards, outcome in zip(plain, paid, outcomes, strict=True)
    ]


def _per_turn(
    turns: list[Sequence[Any]], paid: list[float], outcome: float | None, aggregate: str
) -> NDArray[np.float64]:
    """Distribute what the calls were paid over their turns."""
    rewards: list[float] = []
    position = 0
    for turn in turns:
        count = len(turn)
        if count == 1:
            rewards.append(paid[position])
        elif count:
            total = math.fsum(paid[position : position + count])
            rewards.append(total / count if aggregate == "mean" else total)
        else:
            rewards.append(0.0)
        position += count
    if outcome is not None:
        if not is_finite(outcome):
            raise ValueError(f"outcome is {outcome!r}: expected a finite number, or None where it was not computed")
        if rewards:
            rewards[-1] += float(outcome)
    return np.array(rewards, dtype=np.float64)
