"""RL: TRL's GRPOTrainer fed by our rollout loop, with our rewards and (B, T) advantages (MatchTIR sections 5 and 6).

One step: roll out `generations` trajectories for each of `tasks_per_step` tasks, judge them, score them with the reward
model, turn matched calls and outcome into turn rewards, and these into one advantage per turn, which every token of the
turn gets. The trajectory-level reward adds AutoTraj's format and reward-model terms:

    R = sum of the turns' call rewards + autotraj(format_ok, outcome, reward model)

Tool tokens are attended to in every forward pass and masked in the loss. A rollout that an engine or a tool server
broke is not a wrong one: it takes no part in its group's statistics and its advantage is 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import torch
from transformers import set_seed
from trl import GRPOConfig, GRPOTrainer

from rewright.credit import advantages, per_token
from rewright.dialects.base import Dialect
from rewright.engines.base import Sampling
from rewright.engines.hf import HFEngine
from rewright.errors import InputError
from rewright.judging import judge_trajectory
from rewright.judging.process import OWN_SECONDS
from rewright.recipe import RLSettings
from rewright.records import Task, Trajectory, Verdict
from rewright.rendering import Renderer
from rewright.repair import format_problem
from rewright.rewards import autotraj
from rewright.rollout import Limits, Plan, Rollout, derive_seed
from rewright.serving.reward_client import Scorer
from rewright.tools.base import ToolsetFactory
from rewright.training.common import arguments, configured, lora, quiet, save, train
from rewright.training.truncation import cut_off, tell_trl

__all__ = ["Rewards", "RewrightTrainer", "score_rollouts", "train_rl"]


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
    credit = settings.credit
    sound = [index for index, one in enumerate(trajectories) if one.failure is None]
    calls = credit.call_rewards(
        [[turn.calls for turn in one.turns] for one in trajectories], [task.gold.calls for task in tasks]
    )
    rewards: list[np.ndarray[Any, np.dtype[np.float64]]] = []
    totals: list[float | None] = []
    for index, trajectory in enumerate(trajectories):
        own = calls[index] * settings.call_weight
        outcome = verdicts[index].outcome
        format_ok = format_problem(trajectory, dialect) is None
        total = None
        if trajectory.failure is None:
            score = 0.0 if scores is None else scores[index]
            if score is None:
                raise ValueError(f"trajectory {trajectory.id} has no score: only a rollout that broke has none")
            weight, clip = settings.reward_model_weight, settings.reward_model_clip
            total = float(own.sum() + autotraj(format_ok, outcome, score, weight, clip))
        totals.append(total)
        if len(own) and credit.join == "last_turn":
            own = own.copy()
            own[-1] += outcome
        rewards.append(own)
    found = advantages(
        [rewards[index] for index in sound],
        [tasks[index].id for index in sound],
        estimator=credit.estimator,
        gamma=credit.gamma,
        eps=credit.eps,
        fusion=credit.fusion,
        lonely_turn=credit.lonely_turn,
        trajectory_rewards=np.array([totals[index] for index in sound], dtype=np.float64),
    )
    by_index = dict(zip(sound, found, strict=True))
    return Rewards(
        turn_rewards=[row.tolist() for row in rewards],
        trajectory_rewards=totals,
        advantages=[
            by_index[index].tolist() if index in by_index else [0.0] * len(one.turns)
            for index, one in enumerate(trajectories)
        ],
        outcomes=[verdicts[index].outcome if index in by_index else None for index in range(len(trajectories))],
        reward_model=[None] * len(trajectories) if scores is None else list(scores),
    )


def trajectory_reward(
    prompts: Sequence[Any], completions: Sequence[Any], trajectory_reward: Sequence[float | None], **_: Any
) -> list[float | None]:
    """The reward function that TRL sees: what the rollout has computed already."""
    return list(trajectory_reward)


PLAIN_SETTINGS: Final = ("batch_size", "compute_entropy", "compute_aux_loss")
"""Arguments of TRL's log-probabilities that are not about pictures."""
PARTS: Final = 4
"""Into how many parts a forward pass is divided."""


def parts_by_length(mask_B_L: torch.Tensor) -> list[torch.Tensor]:
    """Row numbers in up to PARTS parts of similar length; one part where that would save less than a tenth."""
    lengths_B = mask_B_L.sum(dim=1)
    order = lengths_B.argsort(stable=True)
    parts = [rows for rows in order.chunk(PARTS) if len(rows)]
    tokens = sum(len(rows) * int(lengths_B[rows].max()) for rows in parts)
    return parts if tokens < 0.9 * mask_B_L.numel() else [order]


class RewrightTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer with our rollouts and one advantage per turn."""

    def __init__(
        self,
        *args: Any,
        tasks: Sequence[Task],
        settings: RLSettings,
        dialect: Dialect,
        renderer: Renderer,
        tools: ToolsetFactory,
        limits: Limits,
        reward_model: Scorer | None = None,
        run_seed: int = 0,
        on_rollouts: Callable[[list[Trajectory]], None] | None = None,
        slots: int = 64,
        judge_seconds: float = OWN_SECONDS,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, reward_funcs=trajectory_reward, rollout_func=self._roll_out, **kwargs)
        # TRL's own test of what is cut off reads the last token: see rewright.training.truncation.
        self._mask_cut_off = bool(self.args.mask_truncated_completions)
        self.mask_truncated_completions = False
        self._tasks = {task.id: task for task in tasks}
        self._settings, self._dialect, self._run_seed = settings, dialect, run_seed
        self._reward_model, self._on_rollouts = reward_model, on_rollouts
        self._judge_seconds = judge_seconds
        self._loop = asyncio.new_event_loop()
        self._engine = HFEngine(
            self.accelerator.unwrap_model(self.model), renderer.tokenizer, name="policy", slots=slots
        )
        sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p)
        self._rollout_renderer = renderer
        self._rollout = Rollout(self._engine, dialect, tools, renderer=renderer, limits=limits, sampling=sampling)
        self._batch: list[dict[str, Any]] = []
        self._advantages_B: list[list[float]] = []
        self._cut_off_B: list[bool] = []
        self._spans_B: list[list[tuple[int, int]]] = []

    def close(self) -> None:
        """Stop the engine, the tools and the event loop."""
        self._loop.run_until_complete(self._rollout.tools.close())
        self._engine.shutdown()
        self._loop.close()

    def _roll_out(self, prompts: list[Any], trainer: Any) -> dict[str, Any]:
        """TRL's `rollout_func`: trajectories for the batch, in the order of its rows."""
        rank = self.accelerator.process_index * len(self._batch)
        step = self.state.global_step // self._settings.updates_per_step
        plans = []
        for index, row in enumerate(self._batch):
            place = rank + index
            seed = derive_seed(self._run_seed, "rl", step, place)
            identity = f"rl/{row['task_id']}/{step}/{place}"
            task = self._tasks[row["task_id"]]
            plans.append(Plan(id=identity, task=task, stage="rl", index=place, seed=seed))
        self._engine.refresh()
        trajectories = self._loop.run_until_complete(self._collect(plans))
        if self._on_rollouts is not None:  # before they are scored: what is finished outlives a lost reward model
            self._on_rollouts(trajectories)
        tasks = [plan.task for plan in plans]
        verdicts = [
            judge_trajectory(task, one, seconds=self._judge_seconds)
            for task, one in zip(tasks, trajectories, strict=True)
        ]
        scores = self._scored(tasks, trajectories)
        everything = self._gathered(tasks, trajectories, verdicts, scores)
        local = slice(rank, rank + len(plans))
        self._advantages_B = everything.advantages[local]
        self._cut_off_B = [cut_off(one) for one in trajectories]
        self._log_rollouts(everything, trajectories)
        return self._as_trl(trajectories, everything.trajectory_rewards[local])

    def _scored(self, tasks: list[Task], trajectories: list[Trajectory]) -> list[float | None] | None:
        """The reward model's numbers. A rollout that broke has none: it may not even have a prompt."""
        if self._reward_model is None:
            return None
        sound = [index for index, one in enumerate(trajectories) if one.failure is None]
        scores: list[float | None] = [None] * len(trajectories)
        # The very tokens that it was trained on: a stopped answer has its end token there.
        ids = self._rollout_renderer.training_ids
        found = self._reward_model.score([ids(tasks[index], trajectories[index])[0] for index in sound])
        for index, score in zip(sound, found, strict=True):
            scores[index] = score
        return scores

    async def _collect(self, plans: list[Plan]) -> list[Trajectory]:
        found = {}
        async for one in self._rollout.run_many(plans, concurrency=self._settings.concurrency):
            found[one.id] = one
        return [found[plan.id] for plan in plans]

    def _gathered(
        self,
        tasks: list[Task],
        trajectories: list[Trajectory],
        verdicts: list[Verdict],
        scores: list[float | None] | None,
    ) -> Rewards:
        """Rewards over all processes: a group may be spread over several of them."""
        if self.accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            trajectories = gather_object(trajectories)
            verdicts, tasks = gather_object(verdicts), gather_object(tasks)
            scores = None if scores is None else gather_object(scores)
        return score_rollouts(tasks, trajectories, verdicts, self._settings, dialect=self._dialect.name, scores=scores)

    def _log_rollouts(self, rewards: Rewards, trajectories: list[Trajectory]) -> None:
        metrics = self._metrics["train" if self.model.training else "eval"]
        scored = [outcome for outcome in rewards.outcomes if outcome is not None]
        metrics["rewright/success"].append(float(np.mean(scored)) if scored else 0.0)
        metrics["rewright/turn_reward"].append(
            float(np.mean([sum(row) for row in rewards.turn_rewards])) if rewards.turn_rewards else 0.0
        )
        given = [score for score in rewards.reward_model if score is not None]
        if given:
            metrics["rewright/reward_model"].append(float(np.mean(given)))
        metrics["rewright/turns"].append(float(np.mean([len(one.turns) for one in trajectories])))
        metrics["rewright/calls"].append(float(np.mean([len(one.calls) for one in trajectories])))
        metrics["rewright/failures"].append(float(sum(one.failure is not None for one in trajectories)))

    def _as_trl(self, trajectories: list[Trajectory], rewards: list[float | None]) -> dict[str, Any]:
        end = self.eos_token_ids[0] if self.eos_token_ids else 0
        output: dict[str, Any] = {"prompt_ids": [], "completion_ids": [], "logprobs": [], "env_mask": []}
        self._spans_B = []
        for one in trajectories:
            start = len(one.prompt_ids or ())
            ids = one.token_ids[start:] if one.prompt_ids is not None else []
            log_probs: list[float] = []
            for turn in one.turns:
                log_probs += [*(turn.log_probs or ()), *([0.0] * len(turn.suffix_ids))]
            # TRL wants at least one token in every completion; one that broke at once has none of its own.
            output["prompt_ids"].append(list(one.prompt_ids or (end,)))
            output["completion_ids"].append(ids or [end])
            output["env_mask"].append(one.mask[start:] or [0])
            output["logprobs"].append(log_probs or [0.0])
            self._spans_B.append([(span.start - start, span.end - start) for span in one.spans])
        output["trajectory_reward"] = rewards
        return output

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, logits_to_keep: int, **settings: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """As TRL's, in parts of rows of similar length: trajectories differ in length, and padding costs as much."""
        compute = super()._get_per_token_logps_and_entropies
        special = [name for name, value in settings.items() if value is not None and name not in PLAIN_SETTINGS]
        parts = parts_by_length(attention_mask)
        # Several forward passes before one backward pass are nothing for a model spread over processes.
        if len(parts) < 2 or special or settings.get("compute_aux_loss") or self.accelerator.num_processes > 1:
            whole: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None] = compute(
                model, input_ids, attention_mask, logits_to_keep, **settings
            )
            return whole
        prompt = input_ids.shape[1] - logits_to_keep
        log_probs_B_T, entropies_B_T = [], []
        for rows in parts:
            mask_R_L = attention_mask[rows]
            start = int(mask_R_L[:, :prompt].argmax(dim=1).min())
            kept = max(1, int(mask_R_L[:, prompt:].sum(dim=1).max()))
            line = slice(start, prompt + kept)
            found, entropy, _ = compute(model, input_ids[rows][:, line], mask_R_L[:, line], kept, **settings)
            missing = (0, logits_to_keep - kept)
            log_probs_B_T.append(torch.nn.functional.pad(found, missing))
            if entropy is not None:
                entropies_B_T.append(torch.nn.functional.pad(entropy, missing))
        back = torch.cat(parts).argsort()
        return torch.cat(log_probs_B_T)[back], torch.cat(entropies_B_T)[back] if entropies_B_T else None, None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """As TRL's, with `advantages` (B,) replaced by one per token (B, T)."""
        self._batch = inputs
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        metrics = self._metrics["train" if self.model.training else "eval"]
        tell_trl(output, self._cut_off_B, metrics, self.accelerator, mask=self._mask_cut_off)
        length = output["completion_ids"].shape[1]
        tokens = per_token(self._advantages_B, self._spans_B, length)
        output["advantages"] = torch.from_numpy(tokens).to(output["completion_ids"].device)
        # Rollouts come from the very weights that are trained: TRL needs no sampler's log-probabilities.
        output.pop("sampling_per_token_logps", None)
        return output


def train_rl(
    tasks: Sequence[Task],
    model: Any,
    tokenizer: Any,
    settings: RLSettings,
    out: Path,
    *,
    seed: int,
    dialect: Dialect,
    tools: ToolsetFactory,
    limits: Limits,
    template_options: dict[str, Any] | None = None,
    reward_model: Scorer | None = None,
    on_rollouts: Callable[[list[Trajectory]], None] | None = None,
    judge_seconds: float = OWN_SECONDS,
    trainer_class: type[RewrightTrainer] = RewrightTrainer,
) -> list[dict[str, Any]]:
    """Train `model` on `tasks` for `settings.steps` steps, save it to `out`; returns the logged rows."""
    from datasets import Dataset

    rows = [{"prompt": dialect.messages(task), "task_id": task.id} for task in tasks]
    batch, updates = settings.tasks_per_step * settings.generations, settings.updates_per_step
    if batch % updates:
        raise InputError(f"rl.updates_per_step is {updates}: expected a divisor of the {batch} rollouts of a step")
    part = batch // updates
    renderer = Renderer(tokenizer, dialect, template_options=template_options)
    set_seed(seed)  # new weights, a head or an adapter, are drawn before the trainer sets its seed
    with quiet():
        config = configured(
            GRPOConfig,
            "rl",
            arguments(
                settings,
                out,
                seed,
                batch_size=part,
                save_steps=(settings.save_steps or 500) * updates,
                max_steps=settings.steps * updates,
                logging_steps=updates,
                num_generations=settings.generations,
                steps_per_generation=batch // (settings.micro_batch_size or part),
                max_completion_length=limits.trajectory_tokens or 1 << 20,
                temperature=settings.temperature,
                epsilon=settings.epsilon,
                beta=settings.beta,
                entropy_coef=settings.entropy,
                loss_type=settings.loss_type,
                lr_scheduler_type=settings.scheduler,
                warmup_steps=settings.warmup,
                remove_unused_columns=False,
                log_completions=False,
            ),
        )
        trainer = trainer_class(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=lora(settings, "CAUSAL_LM"),
            tasks=tasks,
            settings=settings,
            dialect=dialect,
            renderer=renderer,
            tools=tools,
            limits=limits,
            reward_model=reward_model,
            run_seed=seed,
            on_rollouts=on_rollouts,
            judge_seconds=judge_seconds,
        )
        try:
            history = train(trainer, out, seed, "rl steps")
            save(trainer, tokenizer, out, settings)
        finally:
            trainer.close()
    return history
