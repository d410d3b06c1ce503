"""One RL run of a learning benchmark: a base policy, a method, a seed; in, a row of numbers, out.

The curve is the success of the training rollouts. Every step draws tasks that no step before has seen, and rolls them
out before it learns from them, so each point measures the policy at that step on fresh tasks, for nothing; with 64
rollouts of 8 tasks a point is noisy, which is why curves are shown over seeds and smoothed. The policy at the end is
also asked tasks of people whose names occur in no training (split `heldout`).

All methods see the same tasks in the same order for the same seed, take the same number of rollouts, and share every
setting but the credit. Outcome-only GRPO is TRL's own: reward 1 or 0, one advantage per rollout, computed by
GRPOTrainer and not by us.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from trl import GRPOTrainer

from rewright.core.errors import InputError
from rewright.core.records import Task, Trajectory
from rewright.core.scorer import Scorer
from rewright.credit.settings import TurnCredit
from rewright.dialects.hermes import Hermes
from rewright.engines.base import Sampling
from rewright.engines.embedded import HFSettings
from rewright.engines.loading import load_model, load_tokenizer, tune_process
from rewright.engines.settings import ModelSettings
from rewright.judging import judge_trajectory
from rewright.pipeline.signal_resources import ResourceSources, open_resources
from rewright.recipe.schema import Recipe
from rewright.rendering.renderer import Renderer
from rewright.rollout.loop import Plan, Rollout, derive_seed
from rewright.rollout.settings import Limits
from rewright.sandbox.errors import error_kind
from rewright.tasks.worlds.town import PROFILES, Profile, generate
from rewright.tools import FunctionTools
from rewright.training.group_credit import Rewards
from rewright.training.settings import RLSettings, SignalSettings
from rewright.training.trl.rl import RewrightTrainer, train_rl

__all__ = ["METHODS", "Base", "Method", "OutcomeTrainer", "profile_of", "roll_out", "settings_of", "train_once"]

TOOL_SECONDS = 120.0
"""The town's tools answer at once; on a busy machine a shorter limit would turn waiting into tool errors."""
LIMITS = Limits(turns=8, turn_tokens=80, trajectory_tokens=384, tool_seconds=TOOL_SECONDS, trajectory_seconds=None)


class Base(msgspec.Struct, frozen=True):
    """Where a policy starts: a model, and how many lookups in a row its tasks need."""

    name: str
    hops: dict[int, float]
    outdated: float
    """The share of the caches' entries that are wrong."""
    model: str = "pico"


class Method(msgspec.Struct, frozen=True):
    """How rollouts are credited."""

    estimator: str | dict[str, Any] = "matchtir"
    signal: str | dict[str, Any] = "matched"
    assignment: str = "optimal"
    gamma: float = 0.9
    call_weight: float = 1.0
    reward_model: bool = False
    """Whether it needs one: for the trajectory reward, or for the signal `model`, which needs one of turn prefixes."""
    own_advantages: bool = True
    """False: TRL's."""


METHODS = {
    "outcome": Method(own_advantages=False, call_weight=0.0),
    "matchtir-hard": Method(),
    "matchtir-soft": Method(assignment="ot"),
    "fixed_horizon": Method(estimator="fixed_horizon", gamma=1.0),
    "rewright": Method(reward_model=True),
    "outcome-or-calls": Method(estimator="outcome_or_calls"),
    "outcome-or-turns": Method(estimator={"name": "outcome_or_calls", "level": "turn"}),
    "calls-then-outcome": Method(estimator={"name": "outcome_or_calls", "decay": "batch"}),
    "outcome-and-calls": Method(estimator={"name": "outcome_or_calls", "decay": "success"}),
    # No gold calls: states that several rollouts of a group are in, the likelihood of the gold answer under the base,
    # and the reward model on turn prefixes.
    "gigpo": Method(estimator="gigpo", call_weight=0.0),
    "likelihood": Method(signal="likelihood"),
    "model": Method(signal="model", reward_model=True),
    # The trajectory reward that the methods above share (-1 for an invalid format), without the calls: a control.
    "outcome+format": Method(estimator="grpo", call_weight=0.0),
}


class OutcomeTrainer(RewrightTrainer):
    """Outcome-only GRPO: the same rollouts, and everything after them TRL's own."""

    def _rewards(self, *batch: Any) -> Rewards:
        rewards = super()._rewards(*batch)
        return msgspec.structs.replace(rewards, trajectory_rewards=rewards.outcomes)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._batch = inputs
        output: dict[str, Any] = GRPOTrainer._generate_and_score_completions(self, inputs)
        output.pop("sampling_per_token_logps", None)
        return output


def profile_of(base: Base) -> Profile:
    """The tasks of a base policy: chains, some of whose tools have moved, with a cache beside every tool."""
    return msgspec.structs.replace(
        PROFILES["long"], hops=base.hops, distractors=(1, 2), cached=1.0, outdated=base.outdated
    )


def settings_of(method: Method, steps: int) -> RLSettings:
    """RL settings: equal for all methods but for the credit."""
    credit = TurnCredit(
        estimator=method.estimator,
        signal=method.signal,
        assignment=method.assignment,  # type: ignore[arg-type]  # METHODS has valid ones
        gamma=method.gamma,
        singleton_turn="zero",
    )
    return RLSettings(
        learning_rate=1e-3,  # with LoRA: 3e-3 collapses, full fine-tuning from 4e-4 on too
        lora_rank=8,
        steps=steps,
        tasks_per_step=8,
        generations=8,
        credit=credit,
        call_weight=method.call_weight,
        reward_model_weight=0.2 if method.reward_model and method.signal == "matched" else 0.0,
        keep_rollouts=False,
        arguments={"gradient_checkpointing": False},  # a second forward pass would buy memory that is not short
    )


def train_once(
    base: Base,
    method: str,
    seed: int,
    steps: int,
    *,
    held_out: int,
    reward_model: Path | None = None,
) -> dict[str, Any]:
    """Train a base policy with a method; the row for the results file. Raises InputError where its model is missing."""
    import torch

    torch.set_num_threads(1)  # a small model gains nothing from a second thread: run a second job instead
    tune_process()
    started = time.monotonic()
    chosen, policy = METHODS[method], HFSettings(path=base.model, slots=64)
    settings = settings_of(chosen, steps)
    tasks = list(generate("long", steps * settings.tasks_per_step, seed=1000 + seed, profile=profile_of(base)))
    scorer: Scorer | None = None
    if chosen.reward_model and reward_model is None:
        raise InputError(f"method {method} needs a reward model")
    if settings.reward_model_weight and reward_model is not None:
        from rewright.training.trl.reward_model import RewardModel

        scorer = RewardModel(reward_model)
    # What signals read: the base as a frozen scorer, or the reward model.
    signals = SignalSettings(reward_model=None if reward_model is None else str(reward_model))
    recipe = Recipe(dialect="hermes", model=policy, signals=signals)
    model = load_model(policy)
    parameters = sum(one.numel() for one in model.parameters())
    workplace = Path(tempfile.mkdtemp(prefix="learning-"))
    try:
        out = workplace / "policy"
        with open_resources(settings.credit, ResourceSources(recipe=recipe, policy=policy)) as resources:
            history = train_rl(
                tasks,
                model,
                load_tokenizer(policy),
                settings,
                out,
                seed=seed,
                dialect=Hermes(),
                tools=FunctionTools(level="process", wall_seconds=TOOL_SECONDS),
                limits=LIMITS,
                reward_model=scorer,
                resources=resources,
                trainer_class=RewrightTrainer if chosen.own_advantages else OutcomeTrainer,
            )
        trained = HFSettings(path=str(out), slots=64)
        seconds = time.monotonic() - started
        final = success(trained, list(generate("heldout", held_out, seed=1, profile=profile_of(base))), seed=seed)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)

    def curve(key: str) -> list[float]:
        return [round(float(row[key]), 4) for row in history if key in row]

    return {
        "base": base.name,
        "method": method,
        "seed": seed,
        "steps": steps,
        "rollouts_per_step": settings.tasks_per_step * settings.generations,
        "parameters": parameters,
        "success": curve("rewright/success"),
        "turn_reward": curve("rewright/turn_reward"),
        "calls": curve("rewright/calls"),
        "entropy": curve("entropy"),
        "equal_groups": curve("frac_reward_zero_std"),
        "held_out": round(final, 4),
        "held_out_tasks": held_out,
        "seconds": round(seconds),
    }


def roll_out(policy: ModelSettings, tasks: Sequence[Task], *, rollouts: int = 1, seed: int = 0) -> list[Trajectory]:
    """`rollouts` trajectories per task at temperature 1 under the benchmark's limits, in the order of the tasks."""
    plans = [
        Plan(id=f"{task.id}/{index}", task=task, stage="eval", index=index, seed=derive_seed(seed, task.id, index))
        for task in tasks
        for index in range(rollouts)
    ]
    return asyncio.run(_roll_out(policy, plans))


async def _roll_out(policy: ModelSettings, plans: list[Plan]) -> list[Trajectory]:
    engine, tokenizer = await policy.open()
    tools, dialect = FunctionTools(level="process", wall_seconds=TOOL_SECONDS), Hermes()
    rollout = Rollout(
        engine,
        dialect,
        tools,
        renderer=Renderer(tokenizer, dialect),
        limits=LIMITS,
        sampling=Sampling(temperature=1.0),
    )
    try:
        found = {one.id: one async for one in rollout.run_many(plans, concurrency=128)}
    finally:
        await engine.close()
        await tools.close()
    return [found[plan.id] for plan in plans]


def success(policy: ModelSettings, tasks: Sequence[Task], *, seed: int) -> float:
    """The share of tasks that a policy solves, one rollout each.

    Raises InputError if tools were lost or too slow: on a machine without memory that would count as wrong.
    """
    trajectories = roll_out(policy, tasks, seed=seed)
    lost = sum(
        one.failure is not None
        or any(error_kind(result) in ("timeout", "crashed") for turn in one.turns for result in turn.results)
        for one in trajectories
    )
    if lost:
        raise InputError(
            f"{lost} of {len(tasks)} held-out rollouts lost a tool: expected a machine with time and memory"
        )
    outcomes = [judge_trajectory(task, one).outcome for task, one in zip(tasks, trajectories, strict=True)]
    return sum(outcomes) / max(1, len(outcomes))
