"""Rewards and advantages of groups of rollouts from calls, outcomes, formats and reward-model scores.

RL, `rewright credit` and a run's report call `credit_groups` with the recipe's `rl` section. The plug-ins for other
trainers, which provide rewards themselves, use the steps of `TurnCredit` directly.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rewright.core.errors import InputError
from rewright.core.records import Credit, Task, Trajectory, Verdict
from rewright.credit.missing import check_missing
from rewright.credit.resources import Resources
from rewright.credit.signals import TurnSignal
from rewright.credit.trajectories import CreditTrajectory
from rewright.credit.unused import reads_trajectory_reward
from rewright.dialects.format_check import format_problem
from rewright.judging.scores import own_states, turn_scores
from rewright.rollout.rewards import call_factor, call_rewards, total_reward
from rewright.training.settings import RLSettings

__all__ = [
    "CreditInput",
    "CreditResult",
    "Rewards",
    "check_components",
    "credit_groups",
    "score_rollouts",
    "uses_reward_model",
    "with_credit",
]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CreditInput:
    """Input of credit assignment for one rollout.

    Attributes:
        trajectory: turns, gold calls and outcome (None if unknown).
        group: label shared by the rollouts of a group; None: in no group.
        failed: the rollout has an infrastructure failure.
        format_ok: the trajectory has the format of its dialect.
        reward_model: the reward model's score; None without a reward model.
    """

    trajectory: CreditTrajectory
    group: Hashable | None
    failed: bool = False
    format_ok: bool = True
    reward_model: float | None = None


@dataclass(frozen=True, slots=True)
class CreditResult:
    """The credit of one rollout.

    Attributes:
        turn_rewards: float64 (T,); NaN where the signal has no number, and after an infrastructure failure.
        trajectory_reward: R; None after an infrastructure failure, if a required outcome is unknown, or if the rollout
            is left out because of a missing number.
        advantages: float64 (T,); None for a rollout without a group or without R.
        details: intermediate results of the signal (a `Match` for `matched`), if requested.
        missing: why the signal has no number for a turn; None if it has all.
        left_out: the rollout is in no group because of that.
        stats: the metrics of the signal, of all rollouts that were computed together.
    """

    turn_rewards: Array
    trajectory_reward: float | None
    advantages: Array | None
    details: Any = None
    missing: str | None = None
    left_out: bool = False
    stats: Mapping[str, float] = field(default_factory=dict)


def credit_groups(
    rollouts: Sequence[CreditInput],
    settings: RLSettings,
    *,
    details: bool = False,
    metrics: dict[str, float] | None = None,
    resources: Resources | None = None,
) -> list[CreditResult]:
    """Compute turn rewards, trajectory rewards and turn advantages of rollouts, in the given order.

    A turn reward is the value of `credit.signal` ("matched": the reward of its matched calls) times `call_weight`, or
    0 if `trajectory_reward` is "autotraj". With `credit.join` "last_turn" the outcome is added to the last turn. R is
    `rewright.credit.trajectory_reward.trajectory_reward`. `credit.estimator` computes the advantages within each group,
    and the values of an advantage signal are added to them. A rollout for whose turns the signal has not all numbers
    has no R and no advantages, and is in no group (`credit.missing`). The signal is computed of the rollouts without an
    infrastructure failure, whose `task_id` is the label of their group, so that a signal compares within groups; the
    `task_id` of one without a group is a label of its own. `metrics`: a mapping to which the shares are
    added that the estimator reports. `resources`: models that the signal may use.

    Estimators that read the parts of R are given `outcome`, `signal` (the sum of its weighted turn rewards), `format`
    (1 or 0) and, with a reward model, `reward_model`.

    Raises ValueError for invalid settings and for an outcome or a score out of range, never for model output.
    """
    credit = settings.credit
    trajectories = [_labelled(index, rollout) for index, rollout in enumerate(rollouts)]
    outcomes = [trajectory.outcome for trajectory in trajectories]
    scored = [index for index, rollout in enumerate(rollouts) if not rollout.failed]
    calls = [np.full(len(trajectory.turns), math.nan) for trajectory in trajectories]
    signal = TurnSignal.of([])
    rows: list[Array] = []
    if scored:
        signal, rows = call_rewards(
            [trajectories[index] for index in scored], credit, settings, details=details, resources=resources
        )
    for index, row in zip(scored, rows, strict=True):
        calls[index] = row
    causes = {scored[place]: cause for place, cause in signal.causes.items()}
    turn_rewards = credit.with_outcomes(calls, outcomes)
    left_out = [not rollout.failed and credit.is_left_out(row) for rollout, row in zip(rollouts, calls, strict=True)]
    totals = [
        None if out else _total(rollout, row, settings)
        for rollout, row, out in zip(rollouts, calls, left_out, strict=True)
    ]
    grouped: list[int] = []
    rewards: list[float] = []
    for index, (rollout, total) in enumerate(zip(rollouts, totals, strict=True)):
        if rollout.group is not None and total is not None:
            grouped.append(index)
            rewards.append(total)
    group_advantages = credit.advantages(
        [turn_rewards[index] for index in grouped],
        [rollouts[index].group for index in grouped],
        trajectory_rewards=rewards,
        trajectories=[trajectories[index] for index in grouped],
        components=_components([rollouts[index] for index in grouped], [calls[index] for index in grouped]),
        metrics=metrics,
    )
    advantages = dict(zip(grouped, group_advantages, strict=True))
    if (added := signal.advantages) is not None:
        added_to = dict(zip(scored, added, strict=True))
        advantages = {index: row + call_factor(settings) * added_to[index] for index, row in advantages.items()}
    signal_details = dict(zip(scored, signal.details or (), strict=False))
    return [
        CreditResult(
            turn_rewards=row,
            trajectory_reward=total,
            advantages=advantages.get(index),
            details=signal_details.get(index),
            missing=None if rollouts[index].failed else _cause(calls[index], causes.get(index)),
            left_out=left_out[index],
            stats=signal.stats,
        )
        for index, (row, total) in enumerate(zip(turn_rewards, totals, strict=True))
    ]


def _labelled(index: int, rollout: CreditInput) -> CreditTrajectory:
    """The trajectory, with the label of what it is compared with as its task id."""
    task = rollout.trajectory.task_id
    label = rollout.group
    if label is None and task is not None:
        label = f"ungrouped {index}, {task}"  # what finds the task by its id still does at the end of the label
    return rollout.trajectory if label == task else replace(rollout.trajectory, task_id=label)


def _cause(calls: Array, cause: str | None) -> str | None:
    """Why a number is missing: what the signal says, or the first turn without one."""
    gaps = np.isnan(calls)
    if not gaps.any():
        return None
    turn = f"turn {int(gaps.argmax()) + 1} has no number"
    return turn if cause is None else cause


def check_components(settings: RLSettings, *, reward_model: bool) -> None:
    """Raise InputError for an estimator whose settings name a part of the trajectory reward that RL does not have.

    `reward_model`: whether RL has a reward model, whose score is a part.
    """
    names = ("outcome", "signal", "format", *(("reward_model",) if reward_model else ()))
    try:
        settings.credit.check_components(names)
    except ValueError as problem:
        raise InputError(f"rl.credit.{problem}{'' if reward_model else ', since RL has no reward model'}") from None


def uses_reward_model(settings: RLSettings) -> bool:
    """Return True if the advantages depend on the trajectory reward, and that on a reward model's score."""
    scored = settings.trajectory_reward != "matchtir" and settings.reward_model_weight > 0
    return scored and reads_trajectory_reward(settings.credit.estimator)


class Rewards(msgspec.Struct, frozen=True):
    """Rewards and advantages of a batch of B rollouts.

    An entry of None (of `turn_rewards`: NaN) marks a rollout with an infrastructure failure, which is not scored.

    Attributes:
        turn_rewards: B lists (T_i,), NaN for a number that the signal could not compute.
        trajectory_rewards: (B,).
        advantages: B lists (T_i,).
        outcomes: outcome rewards (B,), each in [0, 1].
        reward_model: the reward model's scores (B,); also None without a reward model.
        missing: whether the signal has not all numbers of a rollout (B,); False after an infrastructure failure.
        left_out: whether a rollout is in no group because of that (B,).
        stats: the metrics of the signal.
        metrics: what the estimator reports.
    """

    turn_rewards: list[list[float]]
    trajectory_rewards: list[float | None]
    advantages: list[list[float]]
    outcomes: list[float | None]
    reward_model: list[float | None]
    missing: list[bool] = msgspec.field(default_factory=list)
    left_out: list[bool] = msgspec.field(default_factory=list)
    stats: dict[str, float] = msgspec.field(default_factory=dict)
    metrics: dict[str, float] = msgspec.field(default_factory=dict)


def score_rollouts(
    tasks: Sequence[Task],
    trajectories: Sequence[Trajectory],
    verdicts: Sequence[Verdict],
    settings: RLSettings,
    *,
    dialect: str,
    scores: Sequence[float | None] | None = None,
    resources: Resources | None = None,
) -> Rewards:
    """Compute turn rewards, trajectory rewards and turn advantages of B rollouts.

    Args:
        tasks: the task of each rollout; rollouts of the same task id form a group.
        trajectories: B rollouts.
        verdicts: their verdicts.
        settings: the recipe's `rl` section.
        dialect: name of the dialect, for the format check.
        scores: the reward model's scores (B,), None for rollouts with an infrastructure failure. None: no reward model.
        resources: models that the signal may use.

    Raises ValueError if the score of any other rollout is missing. Raises InputError, which names the signal, if more
    than a tenth of the rollouts are left out because of missing numbers, and where `credit_groups` raises ValueError.
    """
    inputs = []
    for index, (task, trajectory, verdict) in enumerate(zip(tasks, trajectories, verdicts, strict=True)):
        failed = trajectory.failure is not None
        score = None if scores is None else scores[index]
        if scores is not None and score is None and not failed:
            raise ValueError(
                f"trajectory {trajectory.id} has no score: expected one unless it has an infrastructure failure"
            )
        inputs.append(
            CreditInput(
                trajectory=CreditTrajectory.of(
                    trajectory,
                    task,
                    outcome=verdict.outcome,
                    scores=partial(turn_scores, task, trajectory),
                    own_states=partial(own_states, task, trajectory),
                ),
                group=None if failed else task.id,
                failed=failed,
                format_ok=format_problem(trajectory, dialect) is None,
                reward_model=score,
            )
        )
    metrics: dict[str, float] = {}
    try:
        results = credit_groups(inputs, settings, metrics=metrics, resources=resources)
    except InputError:
        raise
    except ValueError as problem:  # a signal or an estimator failed, which may be the user's
        raise InputError(f"rl.credit: {problem}") from problem
    scored = [(one.trajectory.id, result) for one, result in zip(inputs, results, strict=True) if not one.failed]
    left_out = [(name, result.missing) for name, result in scored if result.left_out]
    bridged = settings.credit.missing == "bridge"
    check_missing(settings.credit.signal_name, left_out, len(scored), bridged=bridged)
    return Rewards(
        turn_rewards=[result.turn_rewards.tolist() for result in results],
        trajectory_rewards=[result.trajectory_reward for result in results],
        advantages=[
            [0.0] * len(result.turn_rewards) if result.advantages is None else result.advantages.tolist()
            for result in results
        ],
        outcomes=[None if rollout.failed else rollout.trajectory.outcome for rollout in inputs],
        reward_model=[None] * len(trajectories) if scores is None else list(scores),
        missing=[result.missing is not None for result in results],
        left_out=[result.left_out for result in results],
        stats=dict(results[0].stats) if results else {},
        metrics=metrics,
    )


def with_credit(
    trajectories: Sequence[Trajectory],
    verdicts: Sequence[Verdict],
    rewards: Rewards,
    dialect: str,
    *,
    first: int = 0,
) -> list[Trajectory]:
    """Copy trajectories, with their credit added.

    Args:
        trajectories: the rollouts.
        verdicts: their verdicts.
        rewards: rewards of a batch that contains the rollouts.
        dialect: name of the dialect, for the format check.
        first: index of the first rollout in `rewards`.
    """
    credited = []
    for index, (trajectory, verdict) in enumerate(zip(trajectories, verdicts, strict=True), first):
        credit = Credit(
            turn_rewards=tuple(None if math.isnan(reward) else reward for reward in rewards.turn_rewards[index]),
            trajectory_reward=rewards.trajectory_rewards[index],
            advantages=tuple(rewards.advantages[index]),
            verdict=verdict,
            format_problem=format_problem(trajectory, dialect),
            reward_model=rewards.reward_model[index],
        )
        credited.append(msgspec.structs.replace(trajectory, credit=credit))
    return credited


def _total(rollout: CreditInput, calls: Array, settings: RLSettings) -> float | None:
    if rollout.failed:
        return None
    return total_reward(
        float(np.nansum(calls)),
        rollout.trajectory.outcome,
        settings,
        format_ok=rollout.format_ok,
        score=rollout.reward_model,
    )


def _components(rollouts: Sequence[CreditInput], calls: Sequence[Array]) -> dict[str, list[float]]:
    """The parts of the trajectory rewards by name; NaN where a part is unknown."""
    outcomes = [rollout.trajectory.outcome for rollout in rollouts]
    scores = [rollout.reward_model for rollout in rollouts]
    parts = {
        "outcome": [math.nan if outcome is None else outcome for outcome in outcomes],
        "signal": [float(np.nansum(row)) for row in calls],
        "format": [float(rollout.format_ok) for rollout in rollouts],
    }
    if any(score is not None for score in scores):
        parts["reward_model"] = [math.nan if score is None else score for score in scores]
    return parts
