"""TRL's GRPOTrainer with Rewright's rollouts, rewards and per-token advantages (`rewright.training.trl.rl`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch
from trl import GRPOTrainer

from rewright.core.errors import EngineError
from rewright.core.records import Task, Trajectory, Verdict
from rewright.core.scorer import Scorer
from rewright.credit import Resources, per_token
from rewright.dialects.base import Dialect
from rewright.engines.base import Sampling, TrainableEngine
from rewright.engines.hf import HFEngine
from rewright.judging.own import DEFAULT_JUDGE_SECONDS
from rewright.rendering.renderer import Renderer
from rewright.rollout.branches import Branches
from rewright.rollout.loop import Plan, Rollout
from rewright.rollout.outage import StepOutages
from rewright.rollout.replay import Replayer
from rewright.rollout.rewards import verdict_for
from rewright.rollout.settings import Limits, UserSettings
from rewright.rollout.users import Users
from rewright.rollout.watch import StepWatch
from rewright.tools.base import ToolsetFactory
from rewright.training.group_credit import Rewards, score_rollouts, with_credit
from rewright.training.rl_engines import OtherProcess
from rewright.training.rl_step import (
    check_engine,
    check_log_probs,
    judge_rollouts,
    plan_step,
    roll_out,
    score_with_reward_model,
    step_metrics,
)
from rewright.training.settings import RLSettings
from rewright.training.trl.group import Group
from rewright.training.trl.parts import compute_in_buckets, length_buckets
from rewright.training.trl.rows import to_trl_output
from rewright.training.trl.sampler_gap import SamplerGap, use_trl_correction
from rewright.training.trl.shared_prompt import groups_together, shared_log_probs
from rewright.training.trl.truncation import correct_trl_batch, is_truncated
from rewright.training.trl.weights import checkpoint_weights

__all__ = ["RewrightTrainer"]


def trajectory_reward(
    prompts: Sequence[Any], completions: Sequence[Any], trajectory_reward: Sequence[float | None], **_: Any
) -> list[float | None]:
    """TRL reward function. Returns the trajectory rewards (B,) that were computed with the rollouts."""
    return list(trajectory_reward)


TEXT_ONLY_KWARGS: Final = ("batch_size", "compute_entropy", "compute_aux_loss")
"""Non-vision keyword arguments of TRL's `_get_per_token_logps_and_entropies`."""


class RewrightTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer with Rewright's rollouts and one advantage per turn.

    Args:
        tasks: training tasks.
        settings: the recipe's `rl` section.
        dialect: prompt and call format.
        renderer: renders conversations to token ids.
        tools: executes tool calls; closed by `close`.
        limits: limits of a rollout.
        reward_model: scores rollouts; None: no reward model.
        resources: models that the credit signal may use; they are called in the main process only.
        run_seed: base seed of the rollouts.
        on_rollouts: called with the rollouts of each step and their credit.
        slots: concurrent sequences of the generation engine.
        judge_seconds: time limit of a custom judge per answer, in seconds.
        rollout_model: copy of the model in the compute dtype, which generates the rollouts and receives the trained
            weights before each step; None: the trained model generates them.
        engine: another engine that generates the rollouts and receives the trained weights before each step; closed by
            `close`. None: the engine `hf`.

    Other arguments are those of GRPOTrainer.
    """

    _gap = SamplerGap()
    _shares_prompts = False
    _buffered_inputs: list[dict[str, Any]]

    def __init__(
        self,
        *args: Any,
        tasks: Sequence[Task],
        settings: RLSettings,
        dialect: Dialect,
        renderer: Renderer,
        tools: ToolsetFactory,
        limits: Limits,
        users: UserSettings | None = None,
        reward_model: Scorer | None = None,
        resources: Resources | None = None,
        run_seed: int = 0,
        on_rollouts: Callable[[list[Trajectory]], None] | None = None,
        slots: int = 64,
        judge_seconds: float = DEFAULT_JUDGE_SECONDS,
        rollout_model: Any = None,
        engine: TrainableEngine | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, reward_funcs=trajectory_reward, rollout_func=self._roll_out, **kwargs)
        # TRL detects truncation by the last token, which is wrong here: see rewright.training.trl.truncation.
        self._mask_truncated = bool(self.args.mask_truncated_completions)
        self.mask_truncated_completions = False
        self._tasks = {task.id: task for task in tasks}
        self._settings, self._dialect, self._run_seed = settings, dialect, run_seed
        self._reward_model, self._on_rollouts, self._group = reward_model, on_rollouts, Group(self.accelerator)
        self._judge_seconds, self._resources = judge_seconds, resources
        self._shares_prompts = settings.share_prompts
        self._outages, self._watch = StepOutages(), StepWatch("rl", dialect, limits)
        self._loop = asyncio.new_event_loop()
        policy = self.accelerator.unwrap_model(self.model) if rollout_model is None else rollout_model
        self._engine: TrainableEngine = engine or HFEngine(policy, renderer.tokenizer, name="policy", slots=slots)
        self._sleeps = settings.vllm is not None and settings.vllm.sleep
        self._gap = SamplerGap()
        if settings.corrects_sampling:
            use_trl_correction(self)
        sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p)
        self._rollout_renderer = renderer
        self._rollout = Rollout(
            self._engine,
            dialect,
            tools,
            renderer=renderer,
            limits=limits,
            sampling=sampling,
            users=Users(users),
        )
        self._batch: list[dict[str, Any]] = []
        self._advantages_B: list[list[float]] = []
        self._truncated_B: list[bool] = []
        self._spans_B: list[list[tuple[int, int]]] = []

    failed_together = property(lambda self: self._group.failed, doc="Whether a step failed, as all processes know.")

    def close(self) -> None:
        """Stop the engine, the tools and the event loop."""
        self._watch.finish()
        self._loop.run_until_complete(self._rollout.tools.close())
        self._loop.run_until_complete(self._rollout.users.close())
        self._loop.run_until_complete(self._engine.close())
        self._loop.close()

    def _roll_out(self, prompts: list[Any], trainer: Any) -> dict[str, Any]:
        """TRL's `rollout_func`: generate, judge and score the rollouts of the batch, in the order of its rows."""
        first = self.accelerator.process_index * len(self._batch)
        step = self.state.global_step // self._settings.updates_per_step
        tasks = [self._tasks[row["task_id"]] for row in self._batch]
        plans = self._plans(tasks, step, first)
        self._sync_weights(tasks[0], step)

        def generate() -> list[Trajectory]:
            rollouts = roll_out(self._rollout, plans, concurrency=self._settings.concurrency)
            trajectories = self._loop.run_until_complete(rollouts)
            lost = [one.failure for one in trajectories if one.failure is not None and one.failure.kind == "engine"]
            if lost and not self._loop.run_until_complete(self._engine.alive()):
                # The step would be made with some of its rollouts: --resume makes all of them again.
                raise EngineError(f"rl: step {step + 1}: {lost[-1].message}")
            if self._sleeps:
                self._loop.run_until_complete(self._engine.sleep())
            return trajectories

        everything = self._group.rows(generate)
        local = slice(first, first + len(tasks))
        trajectories = everything[local]
        self._group.failed = True  # in every process, if this raises
        self._outages.record(step + 1, everything)
        check_log_probs(everything)
        self._group.failed = False
        if self.accelerator.is_main_process:
            self._watch.record_step(step + 1, everything, self._tasks)
        try:
            judged = self._group.rows(lambda: self._judge(tasks, trajectories))
            verdicts = [verdict for verdict, _ in judged]
            scores = None if self._reward_model is None else [score for _, score in judged]
            batch_rewards = self._rewards(everything, verdicts, scores)
        except BaseException:
            self._store(everything)  # store the finished rollouts even if the judge, a model or the signal fails
            raise
        self._advantages_B = batch_rewards.advantages[local]
        if self.accelerator.is_main_process:
            self._store(with_credit(everything, verdicts, batch_rewards, self._dialect.name))
        self._truncated_B = [is_truncated(trajectory) for trajectory in trajectories]
        self._log_rollouts(batch_rewards, everything)
        end = self.eos_token_ids[0] if self.eos_token_ids else 0
        output, self._spans_B = to_trl_output(trajectories, batch_rewards.trajectory_rewards[local], end)
        for mask, left_out in zip(output["env_mask"], batch_rewards.left_out[local], strict=True):
            if left_out:  # not trained on, also not by the terms of the loss that have no advantage
                mask[:] = [0] * len(mask)
        return output

    def _plans(self, tasks: list[Task], step: int, first: int) -> list[Plan]:
        """The rollouts that this process generates: those of its rows, or in the main process those of all."""
        if not self._settings.generates_in_main_process:
            return plan_step(tasks, step=step, seed=self._run_seed, first=first)
        everyone = self._group.rows(lambda: tasks)
        return plan_step(everyone, step=step, seed=self._run_seed) if self.accelerator.is_main_process else []

    def _sync_weights(self, task: Task, step: int) -> None:
        """Give the trained weights to the engine. Raises InputError for an engine that RL cannot use."""
        trained = self.accelerator.unwrap_model(self.model)
        embedded = isinstance(self._engine, HFEngine)

        def sync() -> list[None]:
            if self._sleeps and self._engine.weights_version is not None:
                self._loop.run_until_complete(self._engine.wake())
            named = trained.named_parameters() if embedded else checkpoint_weights(trained)
            self._loop.run_until_complete(self._engine.update_weights(named, step))
            if not embedded and not isinstance(self._engine, OtherProcess):
                prompt = self._rollout_renderer.prompt_ids(self._dialect.messages(task), self._dialect.schemas(task))
                self._loop.run_until_complete(check_engine(self._engine, prompt, self._rollout.sampling))
            return []

        if embedded:
            sync()
        else:
            self._group.rows(sync)

    def _store(self, trajectories: list[Trajectory]) -> None:
        if self._on_rollouts is not None and self.accelerator.is_main_process:
            self._on_rollouts(trajectories)

    def _judge(self, tasks: list[Task], trajectories: list[Trajectory]) -> list[tuple[Verdict, float | None]]:
        """The verdicts and the reward model's scores of rollouts; no score without a reward model."""
        scores: list[float | None] = [None] * len(trajectories)
        verdicts = judge_rollouts(tasks, trajectories, self._settings, seconds=self._judge_seconds)
        if self._reward_model is not None:
            scores = score_with_reward_model(self._reward_model, self._rollout_renderer, tasks, trajectories)
        return list(zip(verdicts, scores, strict=True))

    def _rewards(
        self, trajectories: list[Trajectory], verdicts: list[Verdict], scores: list[float | None] | None
    ) -> Rewards:
        """The rewards of the rollouts of all processes. Signals are computed once, in the main process."""
        tasks = [self._tasks[trajectory.task_id] for trajectory in trajectories]

        def scored(resources: Resources | None) -> Rewards:
            return score_rollouts(
                tasks,
                trajectories,
                verdicts,
                self._settings,
                dialect=self._dialect.name,
                scores=scores,
                resources=resources,
            )

        def score() -> list[Rewards]:
            if not self.accelerator.is_main_process:
                return []
            if "branch" in self._settings.credit.needs():
                return [self._loop.run_until_complete(self._scored_with_continuations(trajectories, scored))]
            return [scored(self._resources)]

        (rewards,) = self._group.rows(score)
        return rewards

    async def _scored_with_continuations(
        self, trajectories: list[Trajectory], scored: Callable[[Resources | None], Rewards]
    ) -> Rewards:
        """Compute rewards from signals that let the policy, as it rolled out, continue the rollouts of the step."""

        async def outcome(task: Task, trajectory: Trajectory) -> float:
            verdict = await asyncio.to_thread(
                verdict_for, task, trajectory, self._settings, seconds=self._judge_seconds
            )
            return verdict.outcome

        if self._sleeps:
            await self._engine.wake()
        rollouts = {one.id: one for one in trajectories}
        branches = Branches(Replayer(self._rollout), rollouts, self._tasks, outcome)
        try:
            return await asyncio.to_thread(scored, replace(self._resources or Resources(), branch=branches))
        finally:
            if self._sleeps:
                await self._engine.sleep()

    def _log_rollouts(self, rewards: Rewards, trajectories: list[Trajectory]) -> None:
        metrics = self._metrics["train" if self.model.training else "eval"]
        joined = self._settings.credit.join == "last_turn"
        for name, value in step_metrics(rewards, trajectories, joined=joined).items():
            metrics[name].append(value)

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, logits_to_keep: int, **settings: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Override of TRL's method that computes the rows in length buckets, or the prompt of a group once."""
        compute = super()._get_per_token_logps_and_entropies
        special = [name for name, value in settings.items() if value is not None and name not in TEXT_ONLY_KWARGS]
        parts = length_buckets(attention_mask)
        # Distributed models do not support several forward passes before one backward pass.
        result: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
        if self._shares_prompts and not special and not settings.get("compute_aux_loss"):
            entropies = bool(settings.get("compute_entropy"))
            with self.accelerator.autocast():
                result = shared_log_probs(model, input_ids, attention_mask, logits_to_keep, entropies=entropies)
        elif len(parts) < 2 or special or settings.get("compute_aux_loss") or self.accelerator.num_processes > 1:
            result = compute(model, input_ids, attention_mask, logits_to_keep, **settings)
        else:
            compute_part = partial(compute, model, **settings)
            result = compute_in_buckets(compute_part, parts, input_ids, attention_mask, logits_to_keep)
        self._gap.record(result[0])
        return result

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """Override of TRL's method, which shuffles the rollouts, that puts the rows of a group together again."""
        before = self._buffered_inputs
        inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
        if self._shares_prompts and self.model.training and self._buffered_inputs is not before:
            self._buffered_inputs = groups_together(self._buffered_inputs, self.args.gradient_accumulation_steps)
            inputs = self._buffered_inputs[self._step % self.args.steps_per_generation]
        return inputs

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Override of TRL's method that replaces `advantages` (B,) by per-token advantages (B, T)."""
        self._batch = inputs
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        metrics = self._metrics["train" if self.model.training else "eval"]
        correct_trl_batch(output, self._truncated_B, metrics, self.accelerator, mask=self._mask_truncated)
        length = output["completion_ids"].shape[1]
        tokens = per_token(self._advantages_B, self._spans_B, length)
        output["advantages"] = torch.from_numpy(tokens).to(output["completion_ids"].device)
        self._gap.expect(self.state.global_step)
        return output

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Override of TRL's method that also compares the log-probabilities of engine and trainer."""
        with self._gap.batch(inputs, self.state.global_step):
            loss: torch.Tensor = super()._compute_loss(model, inputs)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Override of TRL's method that adds the gap between engine and trainer."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, value in self._gap.metrics(lambda rows: self._group.rows(lambda: rows)).items():
            metrics[name].append(value)
        super().log(logs, start_time)
