"""Token-level advantages from token-level rewards; shared by the verl and SkyRL estimators.

Both trainers pass an estimator two (B, L) arrays: rewards, non-zero on the last token of a turn, and a mask of the
generated tokens. Each run of ones in the mask is a turn. A turn's reward is the sum of the token rewards from its
start up to the start of the next turn, so per-token penalties and scores after the last turn are included. Both
trainers store rewards as float32, so the rewards of a group that differ by its rounding count as equal.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewright.credit import per_token, spans_from_mask
from rewright.credit.estimators import FLOAT32_TOLERANCE
from rewright.credit.settings import TurnCredit

__all__ = ["check_settings", "rewards_by_turn", "token_advantages", "turn_to_token_rewards"]

Spans = list[list[tuple[int, int]]]


def token_advantages(
    rewards: ArrayLike,
    mask: ArrayLike,
    group_ids: Sequence[Hashable],
    settings: TurnCredit,
    *,
    ends_from_rewards: bool = False,
) -> NDArray[np.float32]:
    """Compute turn advantages and broadcast them to tokens.

    Args:
        rewards: token-level rewards (B, L).
        mask: 1 for generated tokens, else 0 (B, L).
        group_ids: one group label per row (B,).
        settings: estimator settings; `join` must be "last_turn", since the outcome is already added to a token.
        ends_from_rewards: split a run of the mask after each non-zero reward, for trainers whose mask does not
            separate the turns.

    Returns advantages float32 (B, L), 0 outside the mask. A row without generated tokens (rejected, filtered, padding)
    belongs to no group, because its turn boundaries are unknown. Raises ValueError if the shapes differ, and as
    `check_settings` does.
    """
    check_settings(settings)
    rewards_BL, mask_BL = np.asarray(rewards, dtype=np.float64), np.asarray(mask) != 0
    if rewards_BL.shape != mask_BL.shape or rewards_BL.ndim != 2:
        raise ValueError(f"rewards have shape {rewards_BL.shape}, the mask {mask_BL.shape}: expected the same (B, L)")
    spans = spans_from_mask(mask_BL)
    if ends_from_rewards:
        spans = [_split_after_rewards(row, ranges) for row, ranges in zip(rewards_BL, spans, strict=True)]
    rewards = rewards_by_turn(rewards_BL, spans)
    kept = [row for row, ranges in enumerate(spans) if ranges]
    advantages = [np.zeros(0)] * len(spans)
    computed = settings.advantages(
        [rewards[row] for row in kept],
        [group_ids[row] for row in kept],
        token_counts=[[end - start for start, end in spans[row]] for row in kept],
        tolerance=FLOAT32_TOLERANCE,
    )
    for row, values in zip(kept, computed, strict=True):
        advantages[row] = values
    return per_token(advantages, spans, rewards_BL.shape[1])


def check_settings(settings: TurnCredit) -> None:
    """Raise ValueError unless `join` is "last_turn" and the estimator reads nothing but rewards."""
    settings.check_reads(())
    if settings.join != "last_turn":
        raise ValueError(
            f"join is {settings.join!r}, but this trainer adds the outcome to the last token before the estimator sees "
            "it: expected 'last_turn'"
        )


def rewards_by_turn(rewards: NDArray[np.float64], spans: Spans) -> list[NDArray[np.float64]]:
    """Compute turn rewards (T_i,): sums of token rewards from each turn's start to the next turn's (or the row's end).

    Args:
        rewards: token-level rewards (B, L).
        spans: for each row the spans of its turns.
    """
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


def _split_after_rewards(rewards: NDArray[np.float64], ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Split each range after every non-zero reward; tokens after the last reward stay in the last piece."""
    pieces: list[tuple[int, int]] = []
    for start, end in ranges:
        cuts = [start, *(start + 1 + int(index) for index in np.flatnonzero(rewards[start:end])[:-1]), end]
        pieces.extend(itertools.pairwise(cuts))
    return pieces
