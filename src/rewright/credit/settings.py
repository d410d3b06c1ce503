"""The settings that every plug-in shares, and the two steps they feed: turn rewards, then advantages."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from rewright.core.settings import Fraction, NonNegativeFloat, PositiveFloat, Settings, SignedFloat, UnusedKey, convert
from rewright.core.strict_json import STRICT
from rewright.credit.advantages import advantages
from rewright.credit.signals import TurnSignal, find_signal, turn_signal
from rewright.credit.trajectories import CreditTrajectory

__all__ = ["CALL_KEYS", "RENAMED", "Array", "TurnCredit", "unused_keys"]

RENAMED: Final = {"lonely_turn": "singleton_turn"}
"""Settings of earlier versions -> their names today."""
CALL_KEYS: Final = ("assignment", "unmatched", "reg", "ot_scale", "weights", "aggregate")
"""Settings of the signal `matched`: the rewards of calls."""
UNUSED_BY_ESTIMATOR: Final = {
    "grpo": ("gamma", "fusion", "singleton_turn", "join"),
    "leave_one_out": ("gamma", "fusion", "singleton_turn", "join", "eps"),
    "fixed_horizon": ("fusion", "singleton_turn", "eps"),
    "delta": ("gamma",),
}
"""Settings that an estimator of ours does not read. (Which ones an estimator of another package reads is not known.)"""


def unused_keys(section: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[UnusedKey]:
    """The settings that the signal, the assignment or the estimator of a `credit:` section does not read."""
    signal = section.get("signal", defaults["signal"])
    if signal != "matched":
        yield from (UnusedKey(key, "signal", signal) for key in CALL_KEYS)
    assignment = section.get("assignment", defaults["assignment"])
    for key in ("unmatched",) if assignment == "ot" else ("reg", "ot_scale"):
        yield UnusedKey(key, "assignment", assignment)
    estimator = section.get("estimator", defaults["estimator"])
    for key in UNUSED_BY_ESTIMATOR.get(estimator, ()) if isinstance(estimator, str) else ():
        yield UnusedKey(key, "estimator", estimator)


Array = NDArray[np.float64]


class TurnCredit(Settings, frozen=True, kw_only=True):
    """How turn credit is computed. The defaults are MatchTIR's (see docs/credit.md for every setting).

    `join` says where the trainer's own reward (the outcome) comes in: "last_turn" adds it to the last turn (parity),
    "trajectory" adds it to the trajectory reward only. `signal` says what turns earn before that: "matched" calls,
    nothing ("outcome"), or what a signal of another name or import path makes of whole trajectories. Raises ValueError
    for a value that is out of range, and for an estimator or a signal of an unknown name (an import path is followed
    when it is used).
    """

    signal: str = "matched"
    """Credit signal, the value of a turn: a name, or the import path of your own, "package.module:function"."""
    assignment: Literal["optimal", "greedy", "ot"] = "optimal"
    """Assignment of predicted to gold calls: `optimal`, `greedy`, or `ot` (optimal transport)."""
    unmatched: SignedFloat = 0.0
    """Reward of a predicted call that is matched with no gold call."""
    reg: PositiveFloat = 0.1
    """`ot`: entropic regularization."""
    ot_scale: Literal["raw", "calls"] = "raw"
    """`ot`: scale of the rewards. `calls` multiplies them by the number of predicted calls."""
    weights: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] = (1.0, 1.0, 1.0)
    """Weights of tool name, argument names and argument values in the similarity."""
    aggregate: Literal["mean", "sum"] = "mean"
    """Reward of a turn: the mean or the sum over its calls."""
    estimator: str = "matchtir"
    """Advantage estimator: a name, or the import path of your own, "package.module:function"."""
    gamma: Fraction = 0.9
    """Discount factor per turn."""
    eps: NonNegativeFloat = 1e-6
    """Added to standard deviations in normalization."""
    fusion: Literal["mean", "sum"] = "mean"
    """`matchtir`, `delta`: the mean or the sum of the two levels of advantage."""
    singleton_turn: Literal["raw", "zero"] = "raw"
    """Advantage of a turn that no other trajectory of the group has: `zero`, or `raw`, its return."""
    join: Literal["last_turn", "trajectory"] = "last_turn"
    """Where the outcome is added: `last_turn` (and so the trajectory reward), or `trajectory` only."""

    def __post_init__(self) -> None:
        """Let the functions look at the settings before there is anything to compute."""
        super().__post_init__()
        turn_signal([], "matched", **self._matching)
        if ":" not in self.signal:
            find_signal(self.signal)
        estimator = self.estimator if ":" not in self.estimator else "grpo"
        advantages([], [], estimator=estimator, **self._normalising)

    @classmethod
    def of(cls, given: TurnCredit | Mapping[str, Any] | None) -> TurnCredit:
        """Settings as they are, from a mapping, or the defaults. ValueError names an unknown key or a wrong value."""
        if isinstance(given, TurnCredit):
            return given
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"turn credit settings are {given!r:.200}: expected a mapping, such as {{'gamma': 1.0}}")
        for old in RENAMED.keys() & (given or {}).keys():
            raise ValueError(f"turn credit settings: {old} was renamed: expected {RENAMED[old]}")
        try:
            return convert({} if given is None else dict(given), cls)
        except msgspec.ValidationError as problem:
            raise ValueError(f"turn credit settings: {problem}") from None

    def as_mapping(self) -> dict[str, Any]:
        """All settings by name."""
        return msgspec.structs.asdict(self)

    @classmethod
    def from_environment(cls) -> TurnCredit:
        """Settings from the JSON object in `REWRIGHT_TURN_CREDIT`, else the defaults: for trainers without a place."""
        text = os.environ.get("REWRIGHT_TURN_CREDIT", "")
        if not text.strip():
            return cls()
        try:
            given = STRICT.decode(text)
        except ValueError as problem:
            raise ValueError(f"REWRIGHT_TURN_CREDIT is not JSON: {problem}") from None
        if not isinstance(given, dict):
            raise ValueError(f"REWRIGHT_TURN_CREDIT is {text!r}: expected a JSON object of settings")
        return cls.of(given)

    def call_rewards(
        self, trajectories: Sequence[Sequence[Sequence[Any]]], golds: Sequence[Sequence[Any] | None]
    ) -> list[Array]:
        """Turn rewards (T_i,) of a batch of which the calls of each turn and the gold calls are known, no outcomes.

        For trainers that have no more. Raises ValueError for a signal that gives no rewards.
        """
        known = [CreditTrajectory.of_calls(turns, gold) for turns, gold in zip(trajectories, golds, strict=True)]
        found = self.signal_of(known)
        if found.kind == "advantage":
            raise ValueError(f"signal {self.signal!r} gives advantages: expected rewards or values in this trainer")
        return found.rewards

    def signal_of(self, trajectories: Sequence[CreditTrajectory], *, details: bool = False) -> TurnSignal:
        """The signal of a batch, without outcomes. `details`: with the `Match` of each trajectory, for "matched"."""
        matching = {**self._matching, "details": details} if self.signal == "matched" else {}
        return turn_signal(trajectories, self.signal, **matching)

    def with_outcomes(self, call_rewards: Sequence[Array], outcomes: Sequence[float | None]) -> list[Array]:
        """Turn rewards (T_i,) of a batch: the outcomes on the last turns, where `join` is "last_turn".

        None and NaN (not computed) add nothing.
        """
        rewards = [row.copy() for row in call_rewards]
        if self.join == "last_turn":
            for row, outcome in zip(rewards, outcomes, strict=True):
                if len(row) and outcome is not None and not math.isnan(outcome):
                    row[-1] += outcome
        return rewards

    def advantages(
        self,
        turn_rewards: Sequence[Array],
        group_ids: Sequence[Hashable],
        outcomes: Sequence[float | None] | None = None,
        *,
        trajectory_rewards: Sequence[float] | None = None,
        trajectories: Sequence[CreditTrajectory] | None = None,
    ) -> list[Array]:
        """Turn advantages (T_i,) of a batch. A trajectory whose outcome is NaN is in no group and gets zeros.

        The trajectory reward is `trajectory_rewards` where they are given, else MatchTIR's: the sum of the turn
        rewards, and of the outcome where `join` is "trajectory". `trajectories`: what the rewards were computed from,
        for estimators that compare states or weigh tokens.
        """
        given = outcomes or [None] * len(turn_rewards)
        kept = [index for index, outcome in enumerate(given) if outcome is None or not math.isnan(outcome)]
        if trajectory_rewards is not None:
            trajectory_rewards = [trajectory_rewards[index] for index in kept]
        elif self.join == "trajectory" and outcomes is not None:
            trajectory_rewards = [float(turn_rewards[index].sum() + (outcomes[index] or 0.0)) for index in kept]
        known = None if trajectories is None else [trajectories[index] for index in kept]
        found = advantages(
            [turn_rewards[index] for index in kept],
            [group_ids[index] for index in kept],
            estimator=self.estimator,
            trajectory_rewards=trajectory_rewards,
            state_keys=None if known is None else lambda index: known[index].state_keys,
            token_counts=None if known is None else _token_counts(known),
            **self._normalising,
        )
        results: list[Array] = [np.zeros(len(row)) for row in turn_rewards]
        for index, row in zip(kept, found, strict=True):
            results[index] = row
        return results

    @property
    def _matching(self) -> dict[str, Any]:
        """The settings of the signal "matched"."""
        names = ("aggregate", "assignment", "unmatched", "reg", "ot_scale", "weights")
        return {name: getattr(self, name) for name in names}

    @property
    def _normalising(self) -> dict[str, Any]:
        """The settings that every estimator is given."""
        return {name: getattr(self, name) for name in ("gamma", "eps", "fusion", "singleton_turn")}


def _token_counts(trajectories: Sequence[CreditTrajectory]) -> list[list[int]] | None:
    """The model's tokens in each turn; None where they are not known of all."""
    if any(turn.token_ids is None for one in trajectories for turn in one.turns):
        return None
    return [[len(turn.token_ids or ()) for turn in one.turns] for one in trajectories]
