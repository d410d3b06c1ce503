"""Turn rewards: call rewards aggregated by turn, plus the outcome on the last turn (MatchTIR, section on rewards)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from rewright.credit.calls import calls_of
from rewright.credit.formula import is_finite
from rewright.credit.matching import Match, Matching, Problem, call_rewards

__all__ = ["add_outcomes", "turn_rewards", "turn_rewards_many", "turn_rewards_of_matches"]

Turns = Iterable[Any]
"""The turns of a trajectory, each a list of calls."""


def turn_rewards(
    turns: Turns | None,
    golds: Sequence[Any] | None,
    *,
    outcome: float | None = None,
    tools: Sequence[Any] | None = None,
    aggregate: Literal["mean", "sum"] = "mean",
    **matching: Unpack[Matching],
) -> NDArray[np.float64]:
    """Compute the turn rewards of one trajectory.

    All calls of the trajectory are matched together.

    Args:
        turns: the calls of each turn. None counts as a turn without calls; a single call as a turn with one call.
        golds: gold calls. Without gold calls (empty or None) the rewards are 0, plus the outcome.
        outcome: added to the last turn; None: not added.
        tools: schemas of the tools, for `compare` with `defaults`.
        aggregate: a turn's reward is the "mean" or "sum" over its calls, 0 for a turn without calls. Malformed calls
            count as calls with reward 0, so they lower a mean.
        matching: the settings of `match`.

    Returns float64 (T,). Model output never raises. Raises ValueError for invalid settings, gold calls that are not a
    list, and an outcome that is not a finite number.
    """
    return turn_rewards_many(
        [turns],
        [golds],
        outcomes=[outcome],
        tools=[tools],
        aggregate=aggregate,
        **matching,
    )[0]


def turn_rewards_many(
    trajectories: Iterable[Turns | None],
    golds: Iterable[Sequence[Any] | None],
    *,
    outcomes: Iterable[float | None] | None = None,
    tools: Iterable[Sequence[Any] | None] | None = None,
    aggregate: Literal["mean", "sum"] = "mean",
    **matching: Unpack[Matching],
) -> list[NDArray[np.float64]]:
    """Same as `turn_rewards`, for a batch of B trajectories.

    Args:
        trajectories: for each trajectory the calls of each turn.
        golds: for each trajectory its gold calls.
        outcomes: (B,), each added to the last turn; None: none is added.
        tools: for each trajectory the schemas of its tools, for `compare` with `defaults`; None: unknown.

    Returns B arrays float64 (T_i,). Raises ValueError if the lengths differ, and as `turn_rewards` does.
    """
    _check_aggregate(aggregate)
    trajectories, golds = list(trajectories), list(golds)
    outcomes = None if outcomes is None else list(outcomes)
    _check_counts(len(trajectories), ("gold lists", golds), ("outcomes", outcomes))
    plain = [
        [] if turns is None else [turn if type(turn) is list else calls_of(turn) for turn in turns]
        for turns in trajectories
    ]
    schemas = [None] * len(plain) if tools is None else list(tools)
    _check_counts(len(plain), ("lists of tools", schemas))
    problems: list[Problem] = [
        ([call for turn in turns for call in turn], gold, known)
        for turns, gold, known in zip(plain, golds, schemas, strict=True)
    ]
    rewards_by_trajectory = call_rewards(
        problems,
        **matching,
    )
    results = [
        _aggregate_by_turn(turns, rewards, aggregate)
        for turns, rewards in zip(plain, rewards_by_trajectory, strict=True)
    ]
    return results if outcomes is None else add_outcomes(results, outcomes)


def turn_rewards_of_matches(
    trajectories: Sequence[Sequence[Sequence[Any]]],
    matches: Sequence[Match],
    *,
    aggregate: Literal["mean", "sum"] = "mean",
) -> list[NDArray[np.float64]]:
    """Compute turn rewards (T_i,) from the results of `match_many`, without outcomes.

    `trajectories` holds the calls of each turn. Raises ValueError for an unknown aggregate, and if a match does not
    have one reward per call.
    """
    _check_aggregate(aggregate)
    _check_counts(len(trajectories), ("matches", matches))
    for index, (turns, match) in enumerate(zip(trajectories, matches, strict=True)):
        if (count := sum(map(len, turns))) != len(match.rewards_P):
            raise ValueError(f"matches[{index}] is of {len(match.rewards_P)} calls: the trajectory has {count}")
    return [
        _aggregate_by_turn(turns, match.rewards_P.tolist(), aggregate)
        for turns, match in zip(trajectories, matches, strict=True)
    ]


def add_outcomes(
    turn_rewards: Sequence[NDArray[np.float64]], outcomes: Sequence[float | None]
) -> list[NDArray[np.float64]]:
    """Copy turn rewards (T_i,) and add each outcome to the last turn; an outcome of None is not added.

    Raises ValueError if the number of outcomes differs, and for an outcome that is not a finite number.
    """
    _check_counts(len(turn_rewards), ("outcomes", outcomes))
    rewards = [row.copy() for row in turn_rewards]
    for row, outcome in zip(rewards, outcomes, strict=True):
        if outcome is None:
            continue
        if not is_finite(outcome):
            raise ValueError(f"outcome is {outcome!r}: expected a finite number, or None where it was not computed")
        if len(row):
            row[-1] += float(outcome)
    return rewards


def _check_aggregate(aggregate: str) -> None:
    if aggregate not in ("mean", "sum"):
        raise ValueError(f"aggregate is {aggregate!r}: expected 'mean' or 'sum'")


def _check_counts(count: int, *given: tuple[str, Sequence[Any] | None]) -> None:
    for name, values in given:
        if values is not None and len(values) != count:
            raise ValueError(f"{len(values)} {name}, but {count} trajectories: give exactly one each")


def _aggregate_by_turn(turns: Sequence[Sequence[Any]], rewards_P: list[float], aggregate: str) -> NDArray[np.float64]:
    """Aggregate the rewards of all calls (P,) to turn rewards (T,)."""
    rewards: list[float] = []
    position = 0
    for turn in turns:
        count = len(turn)
        if count == 1:
            rewards.append(rewards_P[position])
        elif count:
            total = math.fsum(rewards_P[position : position + count])
            rewards.append(total / count if aggregate == "mean" else total)
        else:
            rewards.append(0.0)
        position += count
    return np.array(rewards, dtype=np.float64)
