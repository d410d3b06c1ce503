"""Advantage estimator `turn_credit`: prime-rl's, for rewards that are what a turn added to a score.

    rl: {credit: {signal: {name: score, smear: 0.9}, estimator: {name: turn_credit, beta: 1.0}, join: trajectory}}

A_t = (R - mean of R in the group) + beta (r_t - mean of r in the trajectory), without a division. R is the trajectory
reward, with the outcome; r_t is the turn's reward, without it (`join: trajectory`). prime-rl weights the mean of r by
the turns' tokens, so that the second term adds up to 0 over tokens (`centre: token`); the default weights turns alike.
(Pull request 3282 of prime-rl, `orchestrator/algo/turn_credit.py`.)
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rewright.core.settings import NonNegativeFloat, Settings
from rewright.credit.estimators import Group, all_equal
from rewright.credit.lookup import with_settings

__all__ = ["TurnCreditSettings", "turn_credit"]


class TurnCreditSettings(Settings, frozen=True):
    """Settings of the estimator `turn_credit`."""

    beta: NonNegativeFloat = 1.0
    """Weight of the difference between turns."""
    centre: Literal["turn", "token"] = "turn"
    """Mean of a trajectory's turn rewards: over its turns, or over its tokens (prime-rl)."""


@with_settings(TurnCreditSettings)
def turn_credit(group: Group, *, beta: float = 1.0, centre: Literal["turn", "token"] = "turn") -> NDArray[np.float64]:
    """Return the trajectory's advantage on every turn, plus the turn's reward centred in its trajectory, (n, T).

    Raises ValueError for `centre: token` if the numbers of tokens are unknown.
    """
    weights = group.present_nT.astype(np.float64)
    if centre == "token":
        if group.tokens_nT is None:
            raise ValueError("centre is token, and the numbers of tokens of the turns are unknown: expected turn")
        weights = np.where(group.present_nT, group.tokens_nT, 0).astype(np.float64)
    totals = weights.sum(axis=1, keepdims=True)
    means = (group.rewards_nT * weights).sum(axis=1, keepdims=True) / np.where(totals > 0, totals, 1.0)
    level_n = group.trajectory_n - group.trajectory_n.mean()
    if all_equal(group.trajectory_n, group.tolerance):
        level_n = np.zeros_like(level_n)
    return np.asarray(level_n[:, None] + beta * np.where(group.present_nT, group.rewards_nT - means, 0.0))
