"""RL on TRL's GRPOTrainer with Rewright's rollouts, rewards and per-token advantages (MatchTIR sections 5 and 6).

Each step generates `generations` rollouts for each of `tasks_per_step` tasks, judges them, and scores them with the
reward model. Turn rewards are computed from matched calls and the outcome. Each turn gets one advantage, which is
broadcast to its tokens. The recipe selects the trajectory reward (`rewright.credit.trajectory_reward`). Rewards and
advantages are stored with every rollout.

Tool tokens are attended to and masked in the loss. A rollout with an infrastructure failure is excluded from its
group's statistics and has advantage 0.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from transformers import set_seed
from trl import GRPOConfig

from rewright.core.errors import InputError
from rewright.core.records import Task, Trajectory
from rewright.core.scorer import Scorer
from rewright.credit import Resources
from rewright.dialects.base import Dialect
from rewright.engines.base import TrainableEngine
from rewright.judging.own import DEFAULT_JUDGE_SECONDS
from rewright.rendering.renderer import Renderer
from rewright.rollout.settings import Limits, UserSettings
from rewright.tools.base import ToolsetFactory
from rewright.training.launch import world_size
from rewright.training.settings import RLSettings, check_task_count
from rewright.training.trl.common import build_config, config_arguments, lora_config, quiet, save, train
from rewright.training.trl.rl_trainer import RewrightTrainer
from rewright.training.trl.shared_prompt import sharing_problem

__all__ = ["RewrightTrainer", "rl_config", "train_rl"]

NO_UPDATE_HINT: Final = "all rollouts of each task have equal rewards, or the learning rate is 0"


def rl_config(settings: RLSettings, out: Path, seed: int, *, precision: str, limits: Limits) -> Any:
    """TRL's GRPOConfig of a recipe section. Raises InputError for values that TRL rejects. Writes nothing."""
    batch, updates, processes = settings.tasks_per_step * settings.generations, settings.updates_per_step, world_size()
    if batch % updates:
        raise InputError(f"rl.updates_per_step is {updates}: expected a divisor of the {batch} rollouts of a step")
    update_batch = batch // updates
    return build_config(
        GRPOConfig,
        "rl",
        config_arguments(
            settings,
            out,
            seed,
            batch_size=update_batch,
            precision=precision,
            save_steps=(settings.save_steps or 500) * updates,
            max_steps=settings.steps * updates,
            logging_steps=updates,
            num_generations=settings.generations,
            steps_per_generation=batch // (processes * (settings.micro_batch_size or update_batch // processes)),
            max_completion_length=limits.trajectory_tokens or 1 << 20,
            temperature=settings.temperature,
            epsilon=settings.epsilon,
            beta=settings.beta,
            entropy_coef=settings.entropy,
            loss_type=settings.loss_type,
            vllm_importance_sampling_mode="token_truncate",
            lr_scheduler_type=settings.scheduler,
            warmup_steps=settings.warmup,
            remove_unused_columns=False,
            log_completions=False,
        ),
    )


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
    users: UserSettings | None = None,
    template_options: dict[str, Any] | None = None,
    reward_model: Scorer | None = None,
    resources: Resources | None = None,
    on_rollouts: Callable[[list[Trajectory]], None] | None = None,
    judge_seconds: float = DEFAULT_JUDGE_SECONDS,
    trainer_class: type[RewrightTrainer] = RewrightTrainer,
    precision: str | None = None,
    slots: int = 64,
    max_length: int | None = None,
    engine: TrainableEngine | None = None,
) -> list[dict[str, Any]]:
    """Train `model` on `tasks` for `settings.steps` steps and save it to `out`. Returns the logged rows.

    Args:
        tokenizer: the tokenizer of `model`.
        seed: seed of training and of the rollouts.
        template_options: keyword arguments of the chat template.
        trainer_class: a subclass that overrides parts of the trainer.
        precision: compute dtype as returned by `load_trainable`; default: the model's. Trained weights are float32.
        slots: concurrent sequences of the engine that generates the rollouts.
        max_length: longest sequence in tokens, for `share_prompts` with a model that has a sliding window.

    See `RewrightTrainer` for the other arguments.

    Raises InputError for fewer tasks than `tasks_per_step` and for a model whose prompts cannot be shared,
    TrainingError if no weight changes, and the error of the last rollout if all rollouts of a step fail; finished steps
    are then saved in a checkpoint.
    """
    from datasets import Dataset

    check_task_count(len(tasks), settings)
    problem = sharing_problem(model.config, max_length) if settings.share_prompts else None
    if problem is not None:
        raise InputError(f"rl.share_prompts: {problem}")
    rows = [{"prompt": dialect.messages(task), "task_id": task.id} for task in tasks]
    renderer = Renderer(tokenizer, dialect, template_options=template_options)
    precision = precision or str(model.dtype).removeprefix("torch.")
    rollout_model = None
    if precision != "float32" and settings.lora_rank is None and engine is None:
        # Copied before the trainer wraps `forward`. Decoding with float32 weights would cast them for every token.
        rollout_model = copy.deepcopy(model).to(getattr(torch, precision)).requires_grad_(False)
    if precision != "float32" and settings.lora_rank is None:
        model = model.float()
    set_seed(seed)  # adapters are initialized before the trainer sets its seed
    with quiet():
        config = rl_config(settings, out, seed, precision=precision, limits=limits)
        trainer = trainer_class(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=lora_config(settings, "CAUSAL_LM"),
            tasks=tasks,
            settings=settings,
            dialect=dialect,
            renderer=renderer,
            tools=tools,
            limits=limits,
            users=users,
            reward_model=reward_model,
            resources=resources,
            run_seed=seed,
            on_rollouts=on_rollouts,
            judge_seconds=judge_seconds,
            rollout_model=rollout_model,
            slots=slots,
            engine=engine,
        )
        try:
            history = train(trainer, settings, out, seed, label="rl", hint=NO_UPDATE_HINT)
            save(trainer, tokenizer, out, settings)
        finally:
            trainer.close()
    return history
