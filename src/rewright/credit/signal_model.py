"""The signal `model`: changes of a trajectory reward model's score from one prefix to the next.

f_t is the score of the tokens up to the end of turn t, and f_0 that of the prompt. The value of a state is sigmoid(f),
so a turn's reward is sigmoid(f_t) - sigmoid(f_(t-1)). Scores are comparable within a task only, and differences are
taken within a trajectory. The form `min` is PURE's (arXiv 2504.15275): s_t = 2 sigmoid(f_t) - 1 is weighted with the
softmax of -s / temperature over the turns, so that the sum of the rewards is about the smallest s_t.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from rewright.core.settings import PositiveFloat, Settings
from rewright.credit.estimators import reads
from rewright.credit.lookup import with_settings
from rewright.credit.resources import PrefixScore, needs
from rewright.credit.signals import TurnSignal
from rewright.credit.trajectories import CreditTrajectory

__all__ = ["Model", "minimum_form", "model"]

Array = NDArray[np.float64]
Form = Literal["difference", "min"]

BLOCK: Final = 32
"""Trajectories whose prefixes are in memory at the same time."""


class Model(Settings, frozen=True):
    """Settings of the signal `model`."""

    form: Form = "difference"
    """`difference`: change of the score's sigmoid. `min`: PURE's, whose sum is about the worst turn."""
    temperature: PositiveFloat = 0.1
    """`min`: of the softmax over turns."""


@reads("token_ids")
@with_settings(Model)
@needs("prefix_score")
def model(
    trajectories: Sequence[CreditTrajectory],
    *,
    prefix_score: PrefixScore,
    form: Form = "difference",
    temperature: float = 0.1,
) -> TurnSignal:
    """Compute the signal of B trajectories: kind "value" for the form `difference`, "reward" for `min`.

    Missing are the turns of trajectories without token ids and those whose tokens are too long for the reward model
    (`stats` counts both). `min` weighs all turns of a trajectory together, so one that is missing makes all missing.
    """
    scored: list[Array] = []  # of each trajectory, sigmoid(f) before the first turn and after each turn (T + 1,)
    causes: dict[int, str] = {}
    counts = {"scorings": 0, "tokens": 0, "too_long": 0, "without_tokens": 0}
    for start in range(0, len(trajectories), BLOCK):
        block = trajectories[start : start + BLOCK]
        prefixes = [_prefixes(trajectory) for trajectory in block]
        asked = [ids for own in prefixes for ids in own]
        given = list(prefix_score(asked))
        if len(given) != len(asked):
            raise ValueError(f"prefix_score gave {len(given)} scores for {len(asked)} prefixes: expected one for each")
        scores = iter(given)
        for index, (trajectory, own) in enumerate(zip(block, prefixes, strict=True), start):
            found = np.array([next(scores) for _ in own] or [None] * (len(trajectory.turns) + 1), dtype=np.float64)
            scored.append(_sigmoid(found))
            counts["scorings"] += len(own)
            counts["tokens"] += sum(map(len, own))
            counts["too_long"] += int(np.isnan(found).sum()) if own else 0
            counts["without_tokens"] += bool(trajectory.turns) and not own
            if trajectory.turns and np.isnan(found).any():
                causes[index] = "a prefix is too long for the reward model" if own else "it has no token ids"
    stats = {f"model/{name}": float(count) for name, count in counts.items()}
    if form == "min":
        return TurnSignal.of([minimum_form(2 * row[1:] - 1, temperature) for row in scored], stats=stats, causes=causes)
    initial = np.array([row[0] for row in scored])
    return TurnSignal.of([row[1:] for row in scored], kind="value", initial=initial, stats=stats, causes=causes)


def minimum_form(scores: Array, temperature: float) -> Array:
    """Return softmax(-s / temperature)_t s_t of the turn scores s (T,); all NaN if one of them is (PURE)."""
    if not len(scores) or np.isnan(scores).any():
        return np.full(len(scores), np.nan)
    weights = np.exp((scores.min() - scores) / temperature)
    return np.asarray(weights / weights.sum() * scores)


def _prefixes(trajectory: CreditTrajectory) -> list[list[int]]:
    """The tokens before the first turn, and up to the end of each turn; empty without turns or token ids."""
    if not trajectory.turns or not trajectory.token_ids:
        return []
    return [trajectory.prefix_ids(turn) or [] for turn in range(len(trajectory.turns) + 1)]


def _sigmoid(scores: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * scores)))
