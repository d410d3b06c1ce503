"""Estimator `outcome_or_calls`: the outcome where a group has both results, the turn rewards where it has none.

Outcome-only GRPO has no gradient in a group whose rollouts are all wrong, and turn rewards have one there. Where a
group has right and wrong rollouts, the outcome says more than the turn rewards, and normalising the sum of both pays a
right ending less than the outcome alone would (docs/learning.md). So the two are normalised separately, and the weight
of the turn rewards depends on the outcomes of the group.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rewright.core.settings import Fraction, NonNegativeFloat, Settings
from rewright.credit.estimators import FLOAT32_TOLERANCE, Group, all_equal, matchtir, reads, turn_level
from rewright.credit.lookup import with_settings

__all__ = ["OutcomeOrCalls", "outcome_or_calls"]

Array = NDArray[np.float64]
Decay = Literal["contrast", "success", "batch"]


class OutcomeOrCalls(Settings, frozen=True, kw_only=True):
    """Settings of `outcome_or_calls`."""

    calls: NonNegativeFloat = 1.0
    """Weight of the turn rewards in a group whose rollouts are all wrong."""
    decay: Decay = "contrast"
    """Their weight elsewhere: `contrast`: 0 in any other group; `success`: times 1 minus the group's mean outcome;
    `batch`: max(0, 2 f - 1) times `calls` in every group, where f is the share of the batch's groups without a right
    rollout. So calls are credited while most groups fail, and when half of them have a right rollout, no more."""
    level: Literal["both", "turn"] = "both"
    """What the turn rewards give: `both` levels of `matchtir`, or the `turn` level alone. The trajectory level is on
    every turn of a rollout, so that a wrong ending after right calls is raised with them."""
    right_above: Fraction = 0.0
    """`contrast`, `batch`: a rollout with an outcome above this is right. With a reward that wrong rollouts get too,
    such as 0.1 for the format, that reward."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.right_above and self.decay == "success":
            raise ValueError("right_above must not be given with decay: success, where it has no effect")


@reads("outcomes")
@with_settings(OutcomeOrCalls)
def outcome_or_calls(
    group: Group,
    *,
    calls: float = 1.0,
    decay: Decay = "contrast",
    level: Literal["both", "turn"] = "both",
    right_above: float = 0.0,
) -> Array:
    """A = z(outcome) + w A_calls. A_calls: `matchtir` or its turn level, on the turn rewards without the outcome.

    w is `calls` in a group without a right rollout, and decreases with the group's mean outcome, or with the share of
    the batch's groups that have a right rollout. z(outcome) is 0 in a
    group of equal outcomes, so in a group with both results and `decay: contrast` this is GRPO on the outcome.

    Raises ValueError for a group with an unknown outcome, or with one that is not in [0, 1].
    """
    if group.outcome_n is None or np.isnan(group.outcome_n).any():
        raise ValueError("the outcome of a rollout is unknown: expected one for every rollout of a group")
    outcomes = group.outcome_n
    outside = outcomes[(outcomes < -FLOAT32_TOLERANCE) | (outcomes > 1.0 + FLOAT32_TOLERANCE)]
    if len(outside):
        raise ValueError(
            f"the outcome of a rollout is {outside[0]:g}: expected 0 (wrong) to 1 (right); of reward functions that a "
            "trainer adds up, the weighted sum"
        )
    if decay == "success":
        weight = calls * (1.0 - min(1.0, float(outcomes.mean())))
    else:
        above = right_above * (1.0 + FLOAT32_TOLERANCE)
        failed = [not (one > above).any() for one in (group.batch_outcomes if decay == "batch" else [outcomes])]
        share = sum(failed) / len(failed)
        weight = calls * (max(0.0, 2.0 * share - 1.0) if decay == "batch" else share)
    advantage_nT: Array = np.zeros_like(group.rewards_nT)
    if not all_equal(outcomes):
        advantage_nT += group.normalised(outcomes)[:, None]
    if weight:
        rewards_nT = group.calls_nT
        of_calls = replace(group, rewards_nT=rewards_nT, trajectory_n=rewards_nT.sum(axis=1))
        advantage_nT += weight * (turn_level(of_calls) if level == "turn" else matchtir(of_calls))
    return advantage_nT


def _compares_groups(*, decay: Decay = "contrast", **_others: Any) -> bool:
    return decay == "batch"


outcome_or_calls.compares_groups = _compares_groups  # type: ignore[attr-defined]
