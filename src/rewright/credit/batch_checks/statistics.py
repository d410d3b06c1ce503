"""Checks of the group's mean and standard deviation, read off the advantages.

Estimators that compare a trajectory's reward with those of its group (GRPO, Dr. GRPO, leave-one-out) give
A = (R - m) / s. A straight line through the (R, A) of a group shows its m and s, whatever the estimator divides by.
Groups whose advantages are no such line (turn-level advantages, GAE) or have one reward only show nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rewright.credit.batch_checks.rows import Batch, Finding, NotChecked, Result, Trajectory

__all__ = ["ROUNDING", "Line", "fit", "implied_rewards", "padding_in_statistics", "turns_in_mean"]

ROUNDING = 4e-3
"""Rounding of a dump in bfloat16, relative to the largest advantage."""
_NEEDS_LINE = "the advantages of no group are a straight line over two or more different rewards"


class Line(NamedTuple):
    """The line A = (R - mean) / deviation through rewards and advantages; `tolerance` is that of the mean."""

    mean: float
    deviation: float
    tolerance: float

    def is_of(self, rewards: ArrayLike, *, strict: bool = False) -> bool:
        """Whether the mean is that of `rewards`, and with `strict` the deviation theirs too."""
        values = np.asarray(rewards, dtype=np.float64)
        if abs(float(values.mean()) - self.mean) > self.tolerance:
            return False
        return not strict or any(
            abs(float(values.std(ddof=ddof)) - self.deviation) <= 1e-2 * self.deviation
            for ddof in (0, 1)
            if len(values) > ddof
        )


def fit(rewards: Sequence[float], advantages: Sequence[float]) -> Line | None:
    """Return the rising line through the points, or None if there is none or all rewards are equal."""
    x, y = np.asarray(rewards, dtype=np.float64), np.asarray(advantages, dtype=np.float64)
    if len(x) < 2 or np.ptp(x) <= 1e-6 * np.abs(x).max():
        return None
    slope, offset = np.polyfit(x, y, 1)
    tolerance = ROUNDING * float(np.abs(y).max()) + 1e-9
    if slope * np.ptp(x) <= tolerance or float(np.abs(y - (slope * x + offset)).max()) > tolerance:
        return None
    return Line(-offset / slope, 1 / slope, tolerance / slope)


def turns_in_mean(batch: Batch) -> Result:
    """The mean of a group counts turns instead of trajectories, so that long ones weigh more (agent-lightning 462)."""
    several, readable, findings = False, False, []
    groups = {name: batch.trajectories(rows) for name, rows in batch.groups().items()}
    known = [one.rewards for part in groups.values() for one in part if one.rewards]
    everything = [[rewards[which] for rewards in known] for which in (0, 1)] if known else []
    of_batch: list[bool] = []
    for name, trajectories in groups.items():
        counts = [len(one.rows) for one in trajectories]
        if max(counts) == 1 or len(set(counts)) == 1:  # with equal counts both means are the same
            continue
        several = True
        for which in (0, 1):
            line, rewards = _line(trajectories, which)
            if line is None or len(rewards) != len(trajectories):
                continue
            readable = True
            per_row = np.repeat(rewards, counts)
            of_batch.append(any(line.is_of(values) for values in everything))
            by_deviation = line.is_of(per_row, strict=True) and not line.is_of(rewards, strict=True)
            by_deviation = by_deviation and abs(line.deviation - 1) > 1e-2  # 1: not divided by any
            if line.is_of(per_row) and (not line.is_of(rewards) or (by_deviation and _alike(rewards, per_row))):
                longest = max(trajectories, key=lambda one: len(one.rows))
                findings.append(
                    longest.rows[0].finding(
                        "turns_in_mean",
                        f"the mean of group {name} is {line.mean:.4g}, that over its {len(per_row)} rows",
                        None,
                        f"{float(np.mean(rewards)):.4g}, the mean over its {len(trajectories)} trajectories",
                    )
                )
            break
    if not several:
        return NotChecked("needs a group whose trajectories have different numbers of rows (group, trajectory)")
    if len(of_batch) > 1 and all(of_batch):  # compared with the whole batch, not with groups (REINFORCE++)
        return []
    return findings if readable else NotChecked(f"needs reward and advantages: {_NEEDS_LINE}")


def padding_in_statistics(batch: Batch) -> Result:
    """Rows that only fill up the batch are counted in the mean of a group or of the batch."""
    padded = [row for row in batch.rows if row.index in batch.padded]
    if not padded:
        return NotChecked("needs rows that are padding (key padding, or untrained copies of rows)")
    readable = False
    findings: list[Finding] = []
    groups = batch.groups(padding=True)
    everything = [row for row in batch.rows if row.group is None or row.group in groups]
    candidates = {f"group {name}": rows for name, rows in groups.items()} or {}
    for name, rows in (candidates | {"the batch": everything}).items():
        if name == "the batch" and (findings or readable):
            break
        fillers = [row for row in rows if row.index in batch.padded]
        trajectories = batch.trajectories(row for row in rows if row.index not in batch.padded)
        line, rewards = _line(trajectories, 0)
        if not fillers or line is None or len(rewards) != len(trajectories):
            continue
        extra = [row.reward or 0.0 for row in fillers]
        per_row = np.repeat(rewards, [len(one.rows) for one in trajectories])
        right = [np.asarray(rewards), per_row]
        wrong = [np.concatenate([values, extra]) for values in right]
        if any(abs(a.mean() - b.mean()) <= line.tolerance for a in right for b in wrong):
            if not (_alike(right[0], wrong[0]) and line.is_of(wrong[0], strict=True)):
                continue
            readable = True
            if any(line.is_of(values, strict=True) for values in right):
                continue
        elif not any(line.is_of(values) for values in [*right, *wrong]):
            continue
        readable = True
        if any(line.is_of(values) for values in wrong):
            findings.append(
                fillers[0].finding(
                    "padding_in_statistics",
                    f"the mean and deviation of {name} count {len(fillers)} rows of padding: mean {line.mean:.4g}",
                    None,
                    f"mean {float(np.mean(rewards)):.4g}, over its {len(trajectories)} trajectories",
                )
            )
    return findings if readable else NotChecked(f"needs reward and advantages: {_NEEDS_LINE} that tells padding apart")


def _alike(left: ArrayLike, right: ArrayLike) -> bool:
    """Whether two samples have the same mean, but other deviations."""
    a, b = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    return abs(a.mean() - b.mean()) <= 1e-6 and all(
        abs(a.std(ddof=i) - b.std(ddof=j)) > 2e-2 * b.std(ddof=j) for i in (0, 1) for j in (0, 1)
    )


def _line(trajectories: Sequence[Trajectory], which: int) -> tuple[Line | None, list[float]]:
    """The line through the trajectories that are trained, and the rewards of all that have one."""
    rewarded = [one for one in trajectories if one.rewards]
    trained = [one for one in rewarded if any(row.mask.any() for row in one.rows)]
    scalars = [one.scalar for one in trained]
    rewards = [one.rewards[which] for one in rewarded]
    known = [scalar for scalar in scalars if scalar is not None]
    if len(known) < len(scalars):  # an advantage per turn or per token
        return None, rewards
    return fit([one.rewards[which] for one in trained], known), rewards


def implied_rewards(trajectories: Sequence[Trajectory]) -> list[tuple[Trajectory, float, bool]] | None:
    """The rewards that the advantages of truncated trajectories stand for, and whether each is the stated one.

    By the line through the other trajectories. None if there is no such line, or its mean is not that of the group.
    """
    if any(len(row.turn_rewards or ()) > 1 for one in trajectories for row in one.rows):
        return None  # advantages per turn
    trained = [one for one in trajectories if one.rewards and any(row.mask.any() for row in one.rows)]
    points = [(one, one.rewards[0], one.scalar) for one in trained]
    whole = [(reward, scalar) for one, reward, scalar in points if not one.last.truncated]
    known = [(reward, scalar) for reward, scalar in whole if scalar is not None]
    odd = [(one, reward, scalar) for one, reward, scalar in points if one.last.truncated and scalar is not None]
    if not odd or len(known) < max(3, len(whole)):
        return None
    line = fit([reward for reward, _ in known], [scalar for _, scalar in known])
    if line is None:
        return None
    implied = [scalar * line.deviation + line.mean for _, _, scalar in odd]
    if not line.is_of([*(reward for reward, _ in known), *implied]):  # the advantages mean something else
        return None
    return [
        (one, seen, abs(seen - reward) <= 4 * line.tolerance)
        for (one, reward, _), seen in zip(odd, implied, strict=True)
    ]
