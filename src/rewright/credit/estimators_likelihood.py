"""The advantages of released codes with likelihood signals: IGPO's and LOTAPO's.

The estimators expect turn rewards whose last one is the outcome: the signal `likelihood` gives the last turn nothing.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rewright.core.settings import Settings
from rewright.credit.estimators import Group, all_equal
from rewright.credit.lookup import with_settings

__all__ = ["IGPO", "gated", "igpo", "lotapo"]

Array = NDArray[np.float64]

VARIANCE_EPS = 1e-8
ZERO_GAIN = 1e-10
"""What the release stores for a gain of 0, because it takes zeros for tokens that end no turn."""


class IGPO(Settings, frozen=True):
    """Settings of the estimator `igpo`."""

    normalize: Literal["joint", "separate", "index"] = "joint"
    """z-scores of all rewards of a group (`joint`), or of gains and outcomes by themselves (`separate`). `index` is
    the first release: returns minus their mean at the same token index, undivided."""
    parity: bool = False
    """Keep the faults of the release: gains of 0 count as 1e-10, and the discount skips turns whose z-score is 0."""


@with_settings(IGPO)
def igpo(group: Group, *, normalize: str = "joint", parity: bool = False) -> Array:
    """IGPO's advantages (GuoqingWang1/IGPO): discounted sums of normalised turn rewards.

    `index` needs `token_counts`. It is the token-level advantage of the release, averaged over the tokens of a turn
    (tool tokens are not counted), and its discount is 1, as in the release.
    """
    present = group.present_nT
    is_last = present & ~np.pad(present[:, 1:], ((0, 0), (0, 1)))
    rewards = group.rewards_nT + np.where(is_last, group.surplus_n[:, None], 0.0)
    if normalize == "index":
        return _by_token_index(rewards, present, group.tokens_nT)
    if parity:
        rewards = np.where(present & ~is_last & (rewards == 0), ZERO_GAIN, rewards)
    scores = np.zeros_like(rewards)
    for part in [present] if normalize == "joint" else [present & ~is_last, is_last]:
        scores[part] = _scores(rewards[part], group.eps, None if parity else group.tolerance)
    advantages: Array = scores.copy()
    for turn in range(scores.shape[1] - 2, -1, -1):
        discount: Any = group.gamma
        if parity:
            discount = np.where(scores[:, turn] == 0, 1.0, group.gamma)
        advantages[:, turn] += discount * advantages[:, turn + 1]
    return np.where(present, advantages, 0.0)


def lotapo(group: Group) -> Array:
    """LOTAPO's trajectory level: (R - mean) / (population std + eps) on every turn.

    For the signal `likelihood` of form `delete`, whose advantages are added to it.
    """
    rewards = group.trajectory_n
    if all_equal(rewards, group.tolerance):
        return np.zeros_like(group.rewards_nT)
    scores = (rewards - rewards.mean()) / (rewards.std() + group.eps)
    return np.broadcast_to(scores[:, None], group.rewards_nT.shape)


def gated(gains: Sequence[Sequence[float]], tasks: Sequence[Hashable], eps: float) -> list[list[float]]:
    """LOTAPO's turn advantages: gains, squashed and normalised within a task, where both have the same sign, else 0.

    Args:
        gains: of each trajectory the gains of its eligible turns; NaN, which stays NaN, if unknown.
        tasks: the task of each trajectory.
        eps: smallest gain that counts for the scale, and added to scale and standard deviation.
    """
    places: dict[Hashable, list[tuple[int, int]]] = {}
    for index, task in enumerate(tasks):
        places.setdefault(task, []).extend(
            (index, turn) for turn, gain in enumerate(gains[index]) if not math.isnan(gain)
        )
    results = [[math.nan] * len(row) for row in gains]
    for turns in places.values():
        if not turns:
            continue
        gain = np.array([gains[index][turn] for index, turn in turns])
        sizes = np.abs(gain)[np.abs(gain) > eps]
        squashed = np.tanh(gain / ((float(np.median(sizes)) if len(sizes) else 0.0) + eps))
        scores = (squashed - squashed.mean()) / (squashed.std() + eps) * (not all_equal(squashed))
        for (index, turn), value in zip(turns, np.where(gain * scores > 0, scores, 0.0).tolist(), strict=True):
            results[index][turn] = value
    return results


def _scores(values: Array, eps: float, tolerance: float | None) -> Array:
    """z-scores with the population variance; a single value gives 0, as do equal values unless `tolerance` is None."""
    if len(values) < 2 or (tolerance is not None and all_equal(values, tolerance)):
        return np.zeros_like(values)
    return np.asarray((values - values.mean()) / (np.sqrt(values.var() + VARIANCE_EPS) + eps))


def _by_token_index(rewards_nT: Array, present_nT: NDArray[np.bool_], tokens_nT: Any) -> Array:
    """Returns minus the mean return of the group at the same token index, averaged over the tokens of each turn."""
    if tokens_nT is None:
        raise ValueError("normalize: index needs the number of tokens of each turn (token_counts)")
    returns = np.cumsum(rewards_nT[:, ::-1], axis=1)[:, ::-1]
    rows = [np.repeat(row, counts) for row, counts in zip(returns, tokens_nT, strict=True)]
    padded = np.zeros((len(rows), max(map(len, rows), default=0)))
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    sums = np.concatenate([[0.0], np.cumsum(padded.mean(axis=0))])
    ends = np.cumsum(tokens_nT, axis=1)
    means = (sums[ends] - sums[ends - tokens_nT]) / np.maximum(tokens_nT, 1)
    return np.where(present_nT, returns - means, 0.0)
