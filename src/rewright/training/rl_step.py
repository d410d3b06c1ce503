"""One step of RL, whichever trainer makes it: plan, roll out, judge, score, credit, and what of it is logged.

A trainer adds the model, the batches and the gradient. TRL's calls these functions (`rewright.training.trl.rl`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewright.core.records import Task, Trajectory, Verdict
from rewright.core.scorer import Scorer
from rewright.judging.own import OWN_SECONDS
from rewright.rendering.renderer import Renderer
from rewright.rollout.loop import Plan, Rollout, derive_seed
from rewright.training.group_credit import Rewards, verdict_for
from rewright.training.settings import RLSettings

__all__ = ["judge_rollouts", "plan_step", "roll_out", "score_with", "step_metrics"]


def plan_step(tasks: Sequence[Task], *, step: int, seed: int, first: int = 0) -> list[Plan]:
    """One rollout of each of `tasks` (a task stands there once per rollout of its group).

    `step` counts from 0, `first` is the place of the first rollout among all of the step, and `seed` that of the run:
    the ids, `rl/TASK/STEP/PLACE`, and the seeds of the rollouts follow from them.
    """
    return [
        Plan(
            id=f"rl/{task.id}/{step}/{place}",
            task=task,
            stage="rl",
            index=place,
            seed=derive_seed(seed, "rl", step, place),
        )
        for place, task in enumerate(tasks, first)
    ]


async def roll_out(rollout: Rollout, plans: Sequence[Plan], *, concurrency: int) -> list[Trajectory]:
    """The trajectories of `plans`, in their order. At most `concurrency` of them are made at once."""
    found = {}
    async for one in rollout.run_many(plans, concurrency=concurrency):
        found[one.id] = one
    return [found[plan.id] for plan in plans]


def judge_rollouts(
    tasks: Sequence[Task],
    trajectories: Sequence[Trajectory],
    settings: RLSettings,
    *,
    seconds: float = OWN_SECONDS,
) -> list[Verdict]:
    """One verdict per rollout, of the judge that `rl.outcome` asks for. Raises as the judge does."""
    return [verdict_for(task, one, settings, seconds=seconds) for task, one in zip(tasks, trajectories, strict=True)]


def score_with(
    reward_model: Scorer, renderer: Renderer, tasks: Sequence[Task], trajectories: Sequence[Trajectory]
) -> list[float | None]:
    """The reward model's numbers, one per rollout. One that broke has none: it may not even have a prompt.

    Scored are the tokens that the reward model was trained on: a stopped answer has its end token there.
    """
    completed = [index for index, one in enumerate(trajectories) if one.failure is None]
    scores: list[float | None] = [None] * len(trajectories)
    found = reward_model.score([renderer.training_ids(tasks[index], trajectories[index])[0] for index in completed])
    for index, score in zip(completed, found, strict=True):
        scores[index] = score
    return scores


def step_metrics(rewards: Rewards, trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """What is logged of a step, by name: `rewards` are those of all processes, `trajectories` one process's own."""
    scored = [outcome for outcome in rewards.outcomes if outcome is not None]
    given = [score for score in rewards.reward_model if score is not None]
    sums = [sum(row) for row in rewards.turn_rewards]
    metrics = {
        "rewright/success": float(np.mean(scored)) if scored else 0.0,
        "rewright/turn_reward": float(np.mean(sums)) if sums else 0.0,
    }
    if given:
        metrics["rewright/reward_model"] = float(np.mean(given))
    return metrics | {
        "rewright/turns": float(np.mean([len(one.turns) for one in trajectories])),
        "rewright/calls": float(np.mean([len(one.calls) for one in trajectories])),
        "rewright/failures": float(sum(one.failure is not None for one in trajectories)),
    }
