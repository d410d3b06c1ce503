"""Token-level rewards in, token-level advantages out: what verl's and SkyRL's estimators have in common.

Both trainers hand an estimator two (B, L) arrays: rewards, non-zero on the last token of a turn, and a mask of the
model's tokens. Turns are the mask's runs of ones; what was paid from the start of a turn up to the start of the next
is the turn's reward (so a penalty per token, or a score behind the last turn, counts too).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewright.credit import per_token, spans_from_mask
from rewright.credit.settings import TurnCredit

__all__ = ["rewards_by_turn", "token_advantages", "turn_to_token_rewards"]

Spans = list[list[tuple[int, int]]]


def token_advantages(
    rewards: ArrayLike,
    mask: ArrayLike,
    group_ids: Sequence[Hashable],
    settings: TurnCredit,
    *,
    ends_from_rewards: bool = False,
) -> NDArray[np.float32]:
    """Advantages float32 (B, L): each turn's on all its tokens, 0 outside the mask.

    `rewards` and `mask` (B, L), `group_ids` (B,). With `ends_from_rewards`, a run of the mask that holds several
    rewards is cut behind each of them: for trainers whose mask does not show the gaps between turns. A row without a
    token of the model (rejected, filtered, padding) is in no group: where its turns ended cannot be seen. Raises
    ValueError for shapes that differ, and for `join` "trajectory": the outcome has been added to a token already.
    """
    if settings.join != "last_turn":
        raise ValueError(
            f"join is {settings.join!r}, but this trainer adds the outcome to the last token before the estimator sees "
            "it: expected 'last_turn'"
        )
    paid, own = np.asarray(rewards, dtype=np.float64), np.asarray(mask) != 0
    if paid.shape != own.shape or paid.ndim != 2:
        raise ValueError(f"rewards have shape {paid.shape}, the mask {own.shape}: expected the same (B, L)")
    spans = spans_from_mask(own)
    if ends_from_rewards:
        spans = [_cut(row, ranges) for row, ranges in zip(paid, spans, strict=True)]
    in_no_group = [0.0 if ranges else math.nan for ranges in spans]
    advantages = settings.advantages(rewards_by_turn(paid, spans), group_ids, in_no_group)
    return per_token(advantages, spans, paid.shape[1])


def rewards_by_turn(rewards: NDArray[np.float64], spans: Spans) -> list[NDArray[np.float64]]:
    """Turn rewards (T_i,): the sum from the start of each turn up to the start of the next (the last: to the end)."""
    results = []
    for row, ranges in zip(rewards, spans, strict=True):
        starts = [start for start, _ in ranges]
        results.append(np.add.reduceat(row, starts) if starts else np.zeros(0))
    return results


def turn_to_token_rewards(
    turn_rewards: Sequence[float], mask: Sequence[int], outcome: float | None = None
) -> list[float]:
    """Convert turn rewards to token-level rewards: the reward of a turn goes to its last generated token.

    Args:
        turn_rewards: one per turn.
        mask: 1 for generated tokens, else 0; each run of ones is a turn.
        outcome: added on the last generated token; None: not added.

    Returns one reward per entry of `mask`, zeros without generated tokens. Rewards of turns that truncation removed
    are dropped.
    """
    tokens = [0.0] * len(mask)
    (ranges,) = spans_from_mask([list(mask)])
    for reward, (_, end) in zip(turn_rewards, ranges, strict=False):
        tokens[end - 1] = float(reward)
    if ranges and outcome is not None:
        tokens[ranges[-1][1] - 1] += float(outcome)
    return tokens


def _cut(rewards: NDArray[np.float64], ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges, each cut behind every reward inside it (the last piece keeps what follows the last reward)."""
    pieces: list[tuple[int, int]] = []
    for start, end in ranges:
        cuts = [start, *(start + 1 + int(place) for place in np.flatnonzero(rewards[start:end])[:-1]), end]
        pieces.extend(itertools.pairwise(cuts))
    return pieces
