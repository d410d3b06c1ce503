"""Credit signal `score`: what a turn adds to the score of its trajectory (prime-rl's turn credit, TCPO's best so far).

    rl: {credit: {signal: {name: score, delta: best_so_far}}}

phi_t is the score of the state after turn t, phi_-1 that before the first turn (`CreditTrajectory.scores`), from an
environment, a verifier or a reward function. delta_t = phi_t - phi_(t-1), or with `delta: best_so_far` what exceeds the
best score so far. With `smear` g it is spread over the turns s <= t with weights g^(t - s) that sum to 1.

prime-rl's rewards (pull request 3282) are `start: first, smear: 0.9, unscored: unchanged`: there a turn without a score
changes nothing, and the first scored turn earns nothing. Here a turn without a score is missing, and the first turn
earns what it adds to the state before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from rewright.core.settings import MAX_NUMBER, Fraction, Settings
from rewright.credit.estimators import reads
from rewright.credit.formula import is_finite
from rewright.credit.lookup import with_settings
from rewright.credit.signals import TurnSignal
from rewright.credit.trajectories import CreditTrajectory

__all__ = ["ScoreSettings", "score"]

Array = NDArray[np.float64]


class ScoreSettings(Settings, frozen=True):
    """Settings of the signal `score`."""

    delta: Literal["plain", "best_so_far"] = "plain"
    """`plain`: the difference to the score before. `best_so_far`: what exceeds the best score so far, else 0."""
    start: Literal["given", "first"] | Annotated[float, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)] = "given"
    """The score before the first turn: `given` by the trajectory; `first`: the first known score, which then earns
    nothing (prime-rl); or a number, where the trajectory has none."""
    smear: Fraction = 0.0
    """A difference is spread over the turns up to it, by this to the power of their distance. 0: its own turn."""
    unscored: Literal["missing", "unchanged"] = "missing"
    """A turn without a score: `missing`, or the state is `unchanged` (prime-rl)."""


@reads("scores")
@with_settings(ScoreSettings)
def score(
    trajectories: Sequence[CreditTrajectory],
    *,
    delta: Literal["plain", "best_so_far"] = "plain",
    start: float | str = "given",
    smear: float = 0.0,
    unscored: Literal["missing", "unchanged"] = "missing",
) -> TurnSignal:
    """Return what each turn adds to the score, for trajectories with `scores`; see `ScoreSettings`.

    The kind is "value", with the score before the first turn, if nothing is spread or carried over and every
    trajectory has that score, else "reward": what the first turn earns is then missing, and not the state after it.
    Raises ValueError for scores that are not finite numbers, and for a wrong number of them.
    """
    rows = [_scores(one) for one in trajectories]
    starts = [_start(row, start) for row in rows]
    causes = {
        index: cause
        for index, (row, first) in enumerate(zip(rows, starts, strict=True))
        if (cause := _cause(row, first, start, unscored)) is not None
    }
    known = [not (start != "first" and math.isnan(first)) for first in starts]
    if delta == "plain" and smear == 0.0 and unscored == "missing" and all(known):
        values = [row[1:] for row in rows]
        return TurnSignal.of(values, kind="value", initial=np.array(starts, dtype=np.float64), causes=causes)
    rewards = []
    for row, first, ok in zip(rows, starts, known, strict=True):
        gains = _gains(row[1:], first, known=ok, best=delta == "best_so_far", carry=unscored == "unchanged")
        rewards.append(_smeared(gains if ok else _without_first(gains), smear))
    return TurnSignal.of(rewards, causes=causes)


def _scores(trajectory: CreditTrajectory) -> Array:
    """The scores, (T + 1,), NaN where there is none."""
    given = trajectory.state_scores()
    if given is None:
        return np.full(len(trajectory.turns) + 1, np.nan)
    for number, value in enumerate(given):
        if value is not None and not is_finite(value):
            raise ValueError(f"trajectory {trajectory.id}: score {number} is {value!r:.80}: expected a finite number")
    return np.array([math.nan if value is None else float(value) for value in given])


def _start(row: Array, start: float | str) -> float:
    """The score before the first turn; NaN if it is unknown."""
    if start == "first":
        return math.nan
    if math.isnan(row[0]) and not isinstance(start, str):
        return float(start)
    return float(row[0])


def _cause(row: Array, first: float, start: float | str, unscored: str) -> str | None:
    """Why a number is missing."""
    if len(row) == 1:
        return None
    if np.isnan(row).all():
        return "it has no scores"
    if start != "first" and math.isnan(first):
        return "it has no score before its first turn (start: first takes the first score for it)"
    gaps = np.flatnonzero(np.isnan(row[1:]))
    return f"turn {gaps[0] + 1} has no score" if len(gaps) and unscored == "missing" else None


def _without_first(values: Array) -> Array:
    """The same numbers, the first one missing."""
    return np.where(np.arange(len(values)) == 0, np.nan, values)


def _gains(values: Array, previous: float, *, known: bool, best: bool, carry: bool) -> Array:
    """What each score adds to the one before, or to the best one before; NaN, or with `carry` 0, without a score.

    The first score, with none before it, adds 0; NaN unless it is `known` that this is where it starts.
    """
    gains = np.zeros(len(values))
    for turn, value in enumerate(values.tolist()):
        if math.isnan(value):
            gains[turn] = 0.0 if carry else math.nan
            continue
        if not math.isnan(previous):
            gains[turn] = max(0.0, value - previous) if best else value - previous
        elif not known:
            gains[turn] = math.nan
        previous = max(value, previous) if best and not math.isnan(previous) else value
    return gains


def _smeared(gains: Array, smear: float) -> Array:
    """Spread each gain over the turns up to its own. A missing one makes those that share it missing."""
    if smear == 0.0:
        return gains
    spread = np.zeros(len(gains))
    for turn, gain in enumerate(gains.tolist()):
        weights = smear ** np.arange(turn, -1, -1, dtype=np.float64)
        spread[: turn + 1] += gain * weights / weights.sum()
    return spread
