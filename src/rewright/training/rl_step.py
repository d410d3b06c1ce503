"""Trainer-independent parts of an RL step: plan, roll out, judge, score, and log.

The trainer adds the model, the batches and the gradient; see `rewright.training.trl.rl` for TRL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from rewright.core.errors import InputError
from rewright.core.records import Task, Trajectory, Verdict
from rewright.core.scorer import Scorer
from rewright.credit.missing import bridged
from rewright.engines.base import Engine, Request, Sampling
from rewright.judging.own import DEFAULT_JUDGE_SECONDS
from rewright.rendering.renderer import Renderer
from rewright.rollout.loop import Plan, Rollout, derive_seed
from rewright.rollout.rewards import verdict_for
from rewright.training.group_credit import Rewards
from rewright.training.settings import RLSettings

__all__ = [
    "check_engine",
    "check_log_probs",
    "judge_rollouts",
    "plan_step",
    "roll_out",
    "score_with_reward_model",
    "step_metrics",
]


NO_LOG_PROBS: Final = (
    "returns no log-probabilities: RL needs one per generated token, at the sampling temperature (vLLM: "
    "--logprobs-mode processed_logprobs)"
)


def plan_step(tasks: Sequence[Task], *, step: int, seed: int, first: int = 0) -> list[Plan]:
    """Plan one rollout per entry of `tasks`; a task is repeated once per rollout of its group.

    Args:
        tasks: the tasks of the rollouts.
        step: RL step, counted from 0.
        seed: seed of the run.
        first: index of the first rollout within the step.

    The ids (`rl/TASK/STEP/INDEX`) and seeds of the rollouts are derived from these.
    """
    return [
        Plan(
            id=f"rl/{task.id}/{step}/{index}",
            task=task,
            stage="rl",
            index=index,
            seed=derive_seed(seed, "rl", step, index),
        )
        for index, task in enumerate(tasks, first)
    ]


async def roll_out(rollout: Rollout, plans: Sequence[Plan], *, concurrency: int) -> list[Trajectory]:
    """Generate the trajectories of `plans`, in their order, at most `concurrency` at a time."""
    trajectories = {}
    async for trajectory in rollout.run_many(plans, concurrency=concurrency):
        trajectories[trajectory.id] = trajectory
    return [trajectories[plan.id] for plan in plans]


async def check_engine(engine: Engine, prompt_ids: Sequence[int], sampling: Sampling) -> None:
    """Generate one token, and raise InputError if the engine returns no token ids or log-probabilities."""
    sampling = msgspec.structs.replace(sampling, max_tokens=1, seed=0)
    made = await engine.generate(Request((), (), sampling, token_ids=tuple(prompt_ids)))
    if not made.token_ids or made.log_probs is None or len(made.log_probs) != len(made.token_ids):
        raise InputError(f"rl: engine {engine.name} {NO_LOG_PROBS}")


def check_log_probs(trajectories: Sequence[Trajectory]) -> None:
    """Raise InputError for a turn without one log-probability per generated token."""
    for trajectory in trajectories:
        for turn in trajectory.turns:
            if len(turn.log_probs or ()) != len(turn.token_ids or ()):
                raise InputError(f"rl: engine {trajectory.provenance.model} {NO_LOG_PROBS}")


def judge_rollouts(
    tasks: Sequence[Task],
    trajectories: Sequence[Trajectory],
    settings: RLSettings,
    *,
    seconds: float = DEFAULT_JUDGE_SECONDS,
) -> list[Verdict]:
    """Return one verdict per rollout, by the judge of `rl.outcome` (see `verdict_for`). Raises as the judge does."""
    return [
        verdict_for(task, trajectory, settings, seconds=seconds)
        for task, trajectory in zip(tasks, trajectories, strict=True)
    ]


def score_with_reward_model(
    reward_model: Scorer, renderer: Renderer, tasks: Sequence[Task], trajectories: Sequence[Trajectory]
) -> list[float | None]:
    """Return the reward model's score per rollout; None after an infrastructure failure, since there may be no prompt.

    The scored tokens are rendered as for the reward model's training, where a finished answer has its end token.
    """
    completed = [index for index, trajectory in enumerate(trajectories) if trajectory.failure is None]
    scores: list[float | None] = [None] * len(trajectories)
    model_scores = reward_model.score(
        [renderer.training_ids(tasks[index], trajectories[index])[0] for index in completed]
    )
    for index, score in zip(completed, model_scores, strict=True):
        scores[index] = score
    return scores


def step_metrics(rewards: Rewards, trajectories: Sequence[Trajectory], *, joined: bool = True) -> dict[str, float]:
    """Return the metrics of a step, from the rewards and trajectories of all processes.

    `joined`: the outcomes are part of the turn rewards, and count where the last turn has no number, too.
    """
    scored = [outcome for outcome in rewards.outcomes if outcome is not None]
    scores = [score for score in rewards.reward_model if score is not None]
    left_out = rewards.left_out or [False] * len(rewards.turn_rewards)
    sums = [
        sum(bridged(np.array(row), outcome if joined else None).tolist())
        for row, outcome, out, trajectory in zip(
            rewards.turn_rewards, rewards.outcomes, left_out, trajectories, strict=True
        )
        if not out and trajectory.failure is None
    ]
    metrics = {
        "rewright/success": float(np.mean(scored)) if scored else 0.0,
        "rewright/turn_reward": float(np.mean(sums)) if sums else 0.0,
    }
    if scores:
        metrics["rewright/reward_model"] = float(np.mean(scores))
    return metrics | {
        "rewright/turns": float(np.mean([len(trajectory.turns) for trajectory in trajectories])),
        "rewright/calls": float(np.mean([len(trajectory.calls) for trajectory in trajectories])),
        "rewright/failures": float(sum(trajectory.failure is not None for trajectory in trajectories)),
        **{f"rewright/{name}": value for name, value in rewards.metrics.items()},
        "rewright/credit_missing": float(sum(rewards.missing)),
        **{f"rewright/signal/{name}": value for name, value in rewards.stats.items()},
    }
