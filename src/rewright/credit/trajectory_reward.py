"""Trajectory-level rewards as pure functions, selected by name in a recipe. Turn-level rewards: `rewright.credit`."""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["TrajectoryReward", "autotraj", "trajectory_reward"]

TrajectoryReward = Literal["matchtir", "autotraj", "matchtir+autotraj"]
"""`matchtir`: sum of the turn rewards. `autotraj`: format, outcome and reward model, without call rewards.
`matchtir+autotraj`: sum of the call rewards and `autotraj`."""


def autotraj(format_ok: bool, outcome: float, rm: float = 0.0, weight: float = 0.2, clip: float = 3.0) -> float:
    """Compute AutoTraj's reward of one trajectory (arXiv 2601.23032, RL stage).

    Args:
        format_ok: the trajectory has a valid format.
        outcome: outcome reward f in [0, 1].
        rm: score of the reward model.
        weight: weight of the score.
        clip: the weighted sum is clipped to [-clip, clip].

    Returns -1 for an invalid format, else max(f, clip(f + weight * rm)). The score is added only if f > 0. It can
    therefore raise the reward of a correct answer but never lower it, and never changes that of a wrong answer.

    Raises ValueError for an outcome outside [0, 1] and for a NaN score.
    """
    if not 0.0 <= outcome <= 1.0:
        raise ValueError(f"outcome is {outcome}: expected a number in [0, 1]")
    if math.isnan(rm):
        raise ValueError("rm is NaN: expected the reward model's score")
    if not format_ok:
        return -1.0
    total = outcome + weight * rm if outcome > 0 else outcome
    return float(max(outcome, min(max(total, -clip), clip)))


def trajectory_reward(
    kind: TrajectoryReward,
    calls: float,
    outcome: float,
    *,
    format_ok: bool = True,
    rm: float = 0.0,
    weight: float = 0.2,
    clip: float = 3.0,
) -> float:
    """Compute the trajectory reward R.

    Args:
        kind: "matchtir" (arXiv 2601.10712): `calls` + `outcome`, the sum of the turn rewards; the format is ignored.
            "autotraj": `autotraj` of the other arguments; `calls` is ignored. "matchtir+autotraj": `calls` +
            `autotraj`.
        calls: sum of the call rewards over the turns.
        outcome: outcome reward, in [0, 1] for `autotraj`.

    The keyword arguments are those of `autotraj`. Raises ValueError for an unknown kind, and as `autotraj` does.
    """
    if kind == "matchtir":
        return calls + outcome
    if kind not in ("autotraj", "matchtir+autotraj"):
        raise ValueError(f"trajectory_reward is {kind!r}: expected matchtir, autotraj or matchtir+autotraj")
    reward = autotraj(format_ok, outcome, rm, weight, clip)
    return reward if kind == "autotraj" else calls + reward
