"""Trajectory-level rewards as pure functions, chosen by name in a recipe. (Turn-level rewards: `rewright.credit`.)"""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["TrajectoryReward", "autotraj", "trajectory_reward"]

TrajectoryReward = Literal["matchtir", "autotraj", "matchtir+autotraj"]
"""`matchtir`: the sum of the turn rewards. `autotraj`: format, outcome and reward model, no calls. Or both."""


def autotraj(format_ok: bool, outcome: float, rm: float = 0.0, weight: float = 0.2, clip: float = 3.0) -> float:
    """AutoTraj's reward of one trajectory (arXiv 2601.23032, RL stage).

    -1 for an invalid format; else max(f, clip(f + weight * rm)) with f = `outcome` in [0, 1], where the reward model's
    score `rm` only joins an f above 0 and `clip` bounds the sum to [-clip, clip]. So a reward model can add to a right
    answer, never take from it, and never lift a wrong one.

    Raises ValueError for an outcome outside [0, 1] and for a score that is not a number: a reward model that gave
    none is an error of its own, never a silent 0.
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
    """The reward R of one trajectory. `calls`: the sum of what its turns earned with calls.

    "matchtir" (arXiv 2601.10712): `calls` + `outcome`, which is the sum of the turn rewards; nothing for the format.
    "autotraj": `autotraj` of the others; `calls` has no part. "matchtir+autotraj": `calls` + `autotraj`. Raises
    ValueError for another name, and as `autotraj` does.
    """
    if kind == "matchtir":
        return calls + outcome
    if kind not in ("autotraj", "matchtir+autotraj"):
        raise ValueError(f"trajectory_reward is {kind!r}: expected matchtir, autotraj or matchtir+autotraj")
    own = autotraj(format_ok, outcome, rm, weight, clip)
    return own if kind == "autotraj" else calls + own
