"""Credit of groups of rollouts: the one place where calls, outcomes, formats and scores become rewards and advantages.

RL, `rewright credit` and the page of a run call `credit_groups` with the recipe's `rl` section. (The plug-ins for other
trainers, whose rewards come from there, use the steps of `TurnCredit` by themselves.)
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rewright.core.records import Credit, Task, Trajectory, Verdict
from rewright.credit.trajectories import CreditTrajectory
from rewright.credit.trajectory_reward import trajectory_reward
from rewright.dialects.format_check import format_problem
from rewright.judging.judges import judge_trajectory
from rewright.judging.own import OWN_SECONDS
from rewright.training.settings import RLSettings

__all__ = [
    "Attempted",
    "Earned",
    "Rewards",
    "call_factor",
    "credit_groups",
    "score_rollouts",
    "uses_reward_model",
    "verdict_for",
    "with_credit",
]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Attempted:
    """What credit is computed from, of one rollout.

    `trajectory`: its turns, gold calls and outcome (None where they are not known). `group`: the label that the
    rollouts compared with each other share; None: it is compared with none. `broken`: an engine or a tool server broke
    it. `reward_model`: the score; None where there is no reward model.
    """

    trajectory: CreditTrajectory
    group: Hashable | None
    broken: bool = False
    format_ok: bool = True
    reward_model: float | None = None


@dataclass(frozen=True, slots=True)
class Earned:
    """The credit of one rollout: turn rewards (T,), trajectory reward R, turn advantages (T,).

    R is None for a rollout that broke, and where the outcome is needed and not known. `advantages` is None for a
    rollout that is in no group, or that has no R. `details`: what the signal was computed from, where that was asked
    for (of `matched`, a `Match`).
    """

    turn_rewards: Array
    trajectory_reward: float | None
    advantages: Array | None
    details: Any = None


def credit_groups(rollouts: Sequence[Attempted], settings: RLSettings, *, details: bool = False) -> list[Earned]:
    """Turn rewards, trajectory rewards and turn advantages of rollouts, in the order given.

    A turn earns what `credit.signal` says (with "matched", what its matched calls are paid) times `call_weight`, and
    nothing with `trajectory_reward` "autotraj"; the outcome is added to the last turn where `credit.join` says so. R is
    `rewright.credit.trajectory_reward.trajectory_reward`, and the advantages are those of `credit.estimator` within
    each group; what a signal gives as an advantage is added to them. A turn whose number is missing earns 0. Raises
    ValueError for settings and for an outcome or a score that is not a number of its range; never on what a model
    wrote.
    """
    credit, factor = settings.credit, call_factor(settings)
    trajectories = [one.trajectory for one in rollouts]
    outcomes = [one.outcome for one in trajectories]
    signal = credit.signal_of(trajectories, details=details)
    calls = [factor * row if factor else np.zeros(len(row)) for row in signal.rewards]
    turn_rewards = credit.with_outcomes(calls, outcomes)
    totals = [_total(one, row, settings) for one, row in zip(rollouts, calls, strict=True)]
    grouped: list[int] = []
    rewards: list[float] = []
    for index, (one, total) in enumerate(zip(rollouts, totals, strict=True)):
        if one.group is not None and total is not None:
            grouped.append(index)
            rewards.append(total)
    found = credit.advantages(
        [turn_rewards[index] for index in grouped],
        [rollouts[index].group for index in grouped],
        trajectory_rewards=rewards,
        trajectories=[trajectories[index] for index in grouped],
    )
    advantages = dict(zip(grouped, found, strict=True))
    if signal.kind == "advantage":
        advantages = {index: row + factor * signal.values[index] for index, row in advantages.items()}
    seen = signal.details or [None] * len(rollouts)
    return [
        Earned(row, total, advantages.get(index), seen[index])
        for index, (row, total) in enumerate(zip(turn_rewards, totals, strict=True))
    ]


def call_factor(settings: RLSettings) -> float:
    """What the numbers of the signal, the reward of a matched call say, are multiplied with."""
    return 0.0 if settings.trajectory_reward == "autotraj" else settings.call_weight


def uses_reward_model(settings: RLSettings) -> bool:
    """Has a reward model's score any part in the trajectory reward?"""
    return settings.trajectory_reward != "matchtir" and settings.reward_model_weight > 0


def verdict_for(task: Task, trajectory: Trajectory, settings: RLSettings, *, seconds: float = OWN_SECONDS) -> Verdict:
    """The verdict that RL uses, of the task's judge or of the one that `rl.outcome` names. Raises as the judge does."""
    if settings.outcome != "judge":
        task = msgspec.structs.replace(task, judge=settings.outcome)
    return judge_trajectory(task, trajectory, seconds=seconds)


class Rewards(msgspec.Struct, frozen=True):
    """What a batch of rollouts earned; lists by trajectory. None: the rollout broke and was not scored."""

    turn_rewards: list[list[float]]
    trajectory_rewards: list[float | None]
    advantages: list[list[float]]
    outcomes: list[float | None]
    reward_model: list[float | None]


def score_rollouts(
    tasks: Sequence[Task],
    trajectories: Sequence[Trajectory],
    verdicts: Sequence[Verdict],
    settings: RLSettings,
    *,
    dialect: str,
    scores: Sequence[float | None] | None = None,
) -> Rewards:
    """Turn rewards, trajectory rewards and turn advantages of rollouts; groups are rollouts of the same task id.

    `scores`: the reward model's numbers, one per trajectory, or None where there is no reward model. A rollout that
    broke has none.
    """
    attempted = []
    for index, (task, one, verdict) in enumerate(zip(tasks, trajectories, verdicts, strict=True)):
        broken = one.failure is not None
        score = None if scores is None else scores[index]
        if scores is not None and score is None and not broken:
            raise ValueError(f"trajectory {one.id} has no score: only a rollout that broke has none")
        attempted.append(
            Attempted(
                trajectory=CreditTrajectory.of(one, task, outcome=verdict.outcome),
                group=None if broken else task.id,
                broken=broken,
                format_ok=format_problem(one, dialect) is None,
                reward_model=score,
            )
        )
    earned = credit_groups(attempted, settings)
    return Rewards(
        turn_rewards=[one.turn_rewards.tolist() for one in earned],
        trajectory_rewards=[one.trajectory_reward for one in earned],
        advantages=[
            [0.0] * len(one.turn_rewards) if one.advantages is None else one.advantages.tolist() for one in earned
        ],
        outcomes=[None if one.broken else one.trajectory.outcome for one in attempted],
        reward_model=[None] * len(trajectories) if scores is None else list(scores),
    )


def with_credit(
    trajectories: Sequence[Trajectory],
    verdicts: Sequence[Verdict],
    rewards: Rewards,
    dialect: str,
    *,
    first: int = 0,
) -> list[Trajectory]:
    """The trajectories with what they earned, as it is stored. `first`: the place of the first one in `rewards`."""
    found = []
    for index, (one, verdict) in enumerate(zip(trajectories, verdicts, strict=True), first):
        credit = Credit(
            turn_rewards=tuple(rewards.turn_rewards[index]),
            trajectory_reward=rewards.trajectory_rewards[index],
            advantages=tuple(rewards.advantages[index]),
            verdict=verdict,
            format_problem=format_problem(one, dialect),
            reward_model=rewards.reward_model[index],
        )
        found.append(msgspec.structs.replace(one, credit=credit))
    return found


def _total(one: Attempted, calls: Array, settings: RLSettings) -> float | None:
    if one.broken:
        return None
    outcome = one.trajectory.outcome
    if outcome is None or math.isnan(outcome):
        if settings.trajectory_reward != "matchtir":
            return None
        outcome = 0.0  # the calls are known all the same
    return trajectory_reward(
        settings.trajectory_reward,
        float(calls.sum()),
        outcome,
        format_ok=one.format_ok,
        rm=one.reward_model or 0.0,
        weight=settings.reward_model_weight,
        clip=settings.reward_model_clip,
    )
