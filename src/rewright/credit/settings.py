"""Turn credit settings, shared by all trainer integrations, and the computations they configure."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from rewright.core.settings import Fraction, NonNegativeFloat, PositiveFloat, Settings, SignedFloat, convert
from rewright.core.strict_json import STRICT
from rewright.credit.advantages import advantages
from rewright.credit.choices import (
    Choice,
    Part,
    SignalChoice,
    check_scale,
    checked,
    chosen_name,
    own_settings,
    parts_of,
    settings_in,
    tidied,
)
from rewright.credit.comparison import Comparison
from rewright.credit.estimators import EQUAL_TOLERANCE, READS, check_join, find_estimator, reads_of
from rewright.credit.missing import bridged
from rewright.credit.resources import NEEDS, Resources, is_alone, needed, resources_for
from rewright.credit.signal_sum import add_signals
from rewright.credit.signals import TurnSignal, find_signal, turn_signal
from rewright.credit.trajectories import KEY_KINDS, CreditTrajectory
from rewright.credit.unused import CALL_KEYS, unused_keys

__all__ = ["CALL_KEYS", "RENAMED", "Array", "TurnCredit", "unused_keys"]

RENAMED: Final = {"lonely_turn": "singleton_turn"}
"""Renamed settings: old name -> new name."""
GROUP_KEYS: Final = ("gamma", "eps", "fusion", "singleton_turn")
"""Settings that every estimator is given, as attributes of its group."""

Array = NDArray[np.float64]


class TurnCredit(Settings, frozen=True, kw_only=True):
    """Turn credit settings. The defaults are MatchTIR's (see docs/credit.md for every setting).

    `join` sets where the trainer's reward (the outcome) is added: "last_turn" to the last turn (parity), "trajectory"
    to the trajectory reward only. `signal` sets the turn rewards before that: "matched" calls, zeros ("outcome"), or
    another registered or imported signal. Raises ValueError for a value out of range and for an unknown estimator or
    signal name (import paths are resolved on first use).
    """

    signal: SignalChoice = "matched"
    """Credit signal, the value of a turn: a name, or the import path of your own, "package.module:function". For a
    signal with settings of its own: a mapping of `name` and settings. A list of them, with a `scale` each, is their
    weighted sum (docs/signals.md)."""
    missing: Literal["leave_out", "bridge"] = "leave_out"
    """A trajectory for whose turns the signal has not all numbers: `leave_out`, it is in no group and is not trained
    on; `bridge`, a missing reward counts 0, and a value's difference is taken to the last known one."""
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
    compare: Comparison = Comparison()
    """How arguments are compared: defaults, order of lists, numbers as text, aliases, rules of single arguments."""
    aggregate: Literal["mean", "sum"] = "mean"
    """Reward of a turn: the mean or the sum over its calls."""
    estimator: Choice = "matchtir"
    """Advantage estimator: a name, an import path or a mapping, as for `signal`."""
    gamma: Fraction = 0.9
    """Discount factor per turn."""
    eps: NonNegativeFloat = 1e-6
    """Added to standard deviations in normalization."""
    fusion: Literal["mean", "sum"] = "mean"
    """`matchtir`, `delta`: the mean or the sum of the two levels of advantage."""
    singleton_turn: Literal["raw", "zero"] = "raw"
    """Turn-level advantage of a turn index that only one rollout of the group reaches: `raw` (its return) or `zero`."""
    join: Literal["last_turn", "trajectory"] = "last_turn"
    """Where the outcome is added: `last_turn` (and thereby the trajectory reward), or only `trajectory`."""

    def __post_init__(self) -> None:
        """Validate the settings by calling the functions on empty batches."""
        if not isinstance(chosen_name(self.estimator), str):
            raise ValueError(f"estimator must have the key name, got {self.estimator!r:.200}")
        if isinstance(self.estimator, dict) and len(self.estimator) == 1:
            msgspec.structs.force_setattr(self, "estimator", self.estimator["name"])
        msgspec.structs.force_setattr(self, "signal", tidied(self.signal))
        if isinstance(self.signal, dict) and self.signal["name"] == "matched":  # one form for all that read them
            check_scale("signal", self.signal, CALL_KEYS)
            inside = settings_in(self.signal)
            values = checked("signal", "matched", inside, TurnCredit, CALL_KEYS)
            for key in inside:
                msgspec.structs.force_setattr(self, key, values[key])
            msgspec.structs.force_setattr(self, "signal", "matched")
        super().__post_init__()
        turn_signal([], "matched", **self._matching_settings)
        for part in self.signal_parts:
            if ":" not in part.name:
                self._part_settings(part)
        if ":" not in self.estimator_name:
            own = own_settings("estimator", self.estimator, shared=GROUP_KEYS)
            check_join(find_estimator(self.estimator_name), self.join, own)
        advantages([], [], estimator="grpo", **self._estimator_settings)

    @classmethod
    def of(cls, given: TurnCredit | Mapping[str, Any] | None) -> TurnCredit:
        """Build settings from a mapping; None gives the defaults, a `TurnCredit` is returned unchanged.

        Raises ValueError for an unknown key or an invalid value.
        """
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

    @property
    def signal_parts(self) -> tuple[Part, ...]:
        """The signals that are added up; one, unless `signal` is a list."""
        return parts_of(self.signal)

    @property
    def signal_name(self) -> str:
        """Name or import path of the signal, for messages; of a sum, those of its parts with their scales."""
        return " + ".join(map(_scaled_name, self.signal_parts))

    @property
    def rewards_matches(self) -> bool:
        """Whether matched calls are the whole signal, which then needs gold calls."""
        return all(part.name == "matched" for part in self.signal_parts)

    @property
    def match_scale(self) -> float:
        """The factor of the rewards of matched calls in the signal; 0 if they are no part of it."""
        return sum(part.scale for part in self.signal_parts if part.name == "matched")

    @property
    def estimator_name(self) -> str:
        """Name or import path of the estimator."""
        return str(chosen_name(self.estimator))

    def check_functions(self) -> None:
        """Import the signal, the estimator and functions that compare if they are import paths; validate settings.

        Raises ValueError, which begins with the key, such as `signal: …` or `signal.reward must be …`.
        """
        self.compare.load()
        checks: list[tuple[str, Callable[[], Any]]] = [
            ("estimator", partial(own_settings, "estimator", self.estimator, shared=GROUP_KEYS)),
            *((part.key, partial(self._part_settings, part)) for part in self.signal_parts),
        ]
        for key, check in checks:
            try:
                check()
            except ValueError as problem:
                said = str(problem)
                raise ValueError(said if said.startswith(f"{key}.") else f"{key}: {said}") from None

    def as_mapping(self) -> dict[str, Any]:
        """Return all settings by name."""
        return msgspec.structs.asdict(self)

    @classmethod
    def from_environment(cls) -> TurnCredit:
        """Build settings from the JSON object in `REWRIGHT_TURN_CREDIT`; the defaults if it is not set.

        For trainers that have no configuration section for plug-ins. Raises ValueError for invalid JSON or settings.
        """
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
        """Compute turn rewards (T_i,) of a batch from the calls of each turn and the gold calls, without outcomes.

        For trainers that provide nothing else. A missing reward is NaN. Raises ValueError for a signal with advantages.
        """
        return self.rewards_of(
            [CreditTrajectory.of_calls(turns, gold) for turns, gold in zip(trajectories, golds, strict=True)]
        )

    def rewards_of(self, trajectories: Sequence[CreditTrajectory]) -> list[Array]:
        """Compute turn rewards as `call_rewards` does, from all that a trainer knows of its trajectories."""
        signal = self.signal_of(trajectories)
        if signal.advantages is not None:
            raise ValueError(
                f"signal {self.signal_name!r} gives advantages: expected rewards or values in this trainer"
            )
        return signal.marked_rewards

    def signal_of(
        self, trajectories: Sequence[CreditTrajectory], *, details: bool = False, resources: Resources | None = None
    ) -> TurnSignal:
        """Compute the signal of a batch, without outcomes.

        `details`: keep the `Match` objects ("matched" only). `resources`: the models that signals may use.
        """
        parts = self.signal_parts
        signals = []
        for part in parts:
            given = self._part_settings(part) | ({"details": details} if part.name == "matched" else {})
            signals.append(turn_signal(trajectories, part.name, resources=resources, **given))
        if len(parts) == 1 and parts[0].scale == 1:
            return signals[0]
        return add_signals(signals, [part.scale for part in parts], list(map(_scaled_name, parts)))

    def needs(self) -> tuple[str, ...]:
        """The names of the resources that the signals need (`rewright.credit.resources.NEEDS`)."""
        return tuple(dict.fromkeys(need for part in self.signal_parts for need in needed(find_signal(part.name))))

    def check_resources(self, resources: Resources | None) -> None:
        """Raise ValueError for a signal whose resources are not there."""
        for part in self.signal_parts:
            resources_for(find_signal(part.name), part.name, resources)

    def check_alone(self) -> None:
        """Raise ValueError for a signal that a trainer which gives one trajectory at a time cannot compute."""
        for part in self.signal_parts:
            function = find_signal(part.name)
            if not is_alone(function):
                why = "compares the trajectories of a task"
                if needed(function):
                    why = "needs " + " and ".join(NEEDS[need] for need in needed(function))
                raise ValueError(
                    f"{part.key} {part.name!r} {why}: this trainer gives one trajectory at a time, and no model"
                )

    def is_left_out(self, turn_rewards: Array) -> bool:
        """Whether a trajectory belongs to no group because of its missing rewards (NaN); see `missing`."""
        gaps = np.isnan(turn_rewards)
        return bool(gaps.any() if self.missing == "leave_out" else len(gaps) and gaps.all())

    def with_outcomes(self, call_rewards: Sequence[Array], outcomes: Sequence[float | None]) -> list[Array]:
        """Copy turn rewards (T_i,) and, if `join` is "last_turn", add each outcome to the last turn.

        Outcomes of None or NaN (not computed) are not added. A missing reward stays NaN, so that it is still counted:
        `advantages` adds the outcome there, to 0.
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
        components: Mapping[str, Sequence[float]] | None = None,
        component_weights: Mapping[str, float] | None = None,
        token_counts: Sequence[Sequence[int]] | None = None,
        metrics: dict[str, float] | None = None,
        tolerance: float = EQUAL_TOLERANCE,
    ) -> list[Array]:
        """Compute turn advantages (T_i,) of a batch. A trajectory with outcome NaN belongs to no group and gets zeros.

        So does one that is left out because of missing rewards (`is_left_out`). In any other a missing reward counts 0,
        on the last turn 0 plus the outcome if `join` is "last_turn".

        Args:
            turn_rewards: B arrays (T_i,), with the outcomes (`with_outcomes`), NaN for missing ones.
            group_ids: group labels (B,).
            outcomes: (B,), or None: those of `trajectories`, if they are given.
            trajectory_rewards: (B,). None: MatchTIR's, the sum of the turn rewards, plus the outcome if `join` is
                "trajectory".
            trajectories: the B trajectories, for estimators that read state keys or token counts, and outcomes if
                `outcomes` is None.
            components: the parts of the trajectory rewards, (B,) each, NaN where a part is unknown, for estimators that
                read them.
            component_weights: their weights; 1 for those that are not named.
            token_counts: generated tokens per turn, B lists of T_i; None: those of `trajectories`, if they are known.
            metrics: a mapping to which the shares are added that the estimator reports.
            tolerance: relative difference up to which values of a group count as equal.

        Raises ValueError if the estimator reads what is not given (see `reads`).
        """
        known_outcomes = trajectories if outcomes is None else outcomes
        given = {"state_keys": trajectories, "components": components, "outcomes": known_outcomes}
        self.check_reads([name for name, value in given.items() if value is not None])
        all_outcomes = outcomes or [None] * len(turn_rewards)
        kept = [
            index
            for index, (outcome, row) in enumerate(zip(all_outcomes, turn_rewards, strict=True))
            if (outcome is None or not math.isnan(outcome)) and not self.is_left_out(row)
        ]
        if trajectory_rewards is not None:
            trajectory_rewards = [trajectory_rewards[index] for index in kept]
        elif self.join == "trajectory" and outcomes is not None:
            trajectory_rewards = [float(np.nansum(turn_rewards[index]) + (outcomes[index] or 0.0)) for index in kept]
        scored = None if trajectories is None else [trajectories[index] for index in kept]
        counts = None if token_counts is None else [token_counts[index] for index in kept]
        if outcomes is None and trajectories is not None:
            all_outcomes = [trajectory.outcome for trajectory in trajectories]
        joined = self.join == "last_turn"
        rewards = [bridged(turn_rewards[index], all_outcomes[index] if joined else None) for index in kept]
        group_advantages = advantages(
            TurnSignal(rewards, [np.isnan(turn_rewards[index]) for index in kept]),
            [group_ids[index] for index in kept],
            estimator=self.estimator_name,
            estimator_settings=own_settings("estimator", self.estimator, shared=GROUP_KEYS),
            trajectory_rewards=trajectory_rewards,
            state_keys=None if scored is None else {kind: partial(_keys, scored, kind) for kind in KEY_KINDS},
            token_counts=_token_counts(scored) if counts is None and scored is not None else counts,
            outcomes=[all_outcomes[index] for index in kept],
            joined=joined,
            masked=None if scored is None else [[turn.masked for turn in one.turns] for one in scored],
            components={name: [values[index] for index in kept] for name, values in (components or {}).items()},
            component_weights=component_weights,
            metrics=metrics,
            tolerance=tolerance,
            missing="bridge",
            **self._estimator_settings,
        )
        results: list[Array] = [np.zeros(len(row)) for row in turn_rewards]
        for index, row in zip(kept, group_advantages, strict=True):
            results[index] = row
        return results

    def check_reads(self, given: Collection[str]) -> None:
        """Raise ValueError if the estimator reads something about the rollouts that is not `given` (see `reads`)."""
        missing = [READS[name] for name in reads_of(find_estimator(self.estimator_name)) if name not in given]
        if missing:
            raise ValueError(
                f"estimator {self.estimator_name!r} reads {' and '.join(missing)}, which this trainer does not "
                "provide: expected another estimator, such as 'matchtir'"
            )

    def check_components(self, names: Collection[str]) -> None:
        """Raise ValueError, which names the key, if the estimator's settings name a component that is none of these."""
        named = getattr(find_estimator(self.estimator_name), "named_components", None)
        if named is None:
            return
        settings = own_settings("estimator", self.estimator, shared=GROUP_KEYS)
        for name, key in named(**settings).items():
            if name not in names:
                raise ValueError(f"estimator.{key}: expected one of the parts {', '.join(names)}")

    def _part_settings(self, part: Part) -> dict[str, Any]:
        """The keyword arguments of a signal. Raises ValueError, which begins with the key, for a wrong setting."""
        if part.name != "matched":
            return own_settings("signal", {"name": part.name, **part.settings}, key=part.key)
        inside = checked(part.key, "matched", part.settings, TurnCredit, CALL_KEYS) if part.settings else {}
        return self._matching_settings | {key: inside[key] for key in part.settings}

    @property
    def _matching_settings(self) -> dict[str, Any]:
        """The settings of the signal "matched"."""
        return {name: getattr(self, name) for name in CALL_KEYS}

    @property
    def _estimator_settings(self) -> dict[str, Any]:
        """The settings passed to every estimator."""
        return {name: getattr(self, name) for name in GROUP_KEYS}


def _keys(trajectories: Sequence[CreditTrajectory], kind: str, index: int) -> list[Hashable]:
    return trajectories[index].keys(kind)


def _scaled_name(part: Part) -> str:
    return part.name if part.scale == 1 else f"{part.scale:g} {part.name}"


def _token_counts(trajectories: Sequence[CreditTrajectory]) -> list[list[int]] | None:
    """Number of generated tokens of each turn, B lists (T_i,); None if unknown for any turn."""
    if any(turn.token_ids is None for trajectory in trajectories for turn in trajectory.turns):
        return None
    return [[len(turn.token_ids or ()) for turn in trajectory.turns] for trajectory in trajectories]
