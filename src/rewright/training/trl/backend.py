"""TRL as a trainer back end: SFTTrainer, DPOTrainer, RewardTrainer, and GRPOTrainer with turn-level advantages."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from rewright.core.closest import closest_key
from rewright.core.errors import InputError
from rewright.core.registry import known
from rewright.core.scorer import Scorer
from rewright.engines.settings import ModelSettings
from rewright.rollout.settings import Limits
from rewright.training.backend import RLJob, Section
from rewright.training.launch import rank
from rewright.training.rl_engines import check_rl_engine, open_rl_engine
from rewright.training.settings import (
    DPOSettings,
    RewardSettings,
    RLSettings,
    SectionSettings,
    SFTSettings,
    check_batches,
)
from rewright.training.tracker_runs import to_standard_error
from rewright.training.trackers import custom_trackers, find_tracker, trl_integrations

__all__ = ["TRL"]

CONFIGS: Final[dict[Section, str]] = {
    "sft": "SFTConfig",
    "dpo": "DPOConfig",
    "reward": "RewardConfig",
    "rl": "GRPOConfig",
}
"""The TRL config class of each training section."""
LOSSES: Final = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo")
"""The values of `loss_type` in TRL 1.16, which validates it only in the first step."""
LEVELS: Final = ("token", "sequence")
"""The values of `importance_sampling_level` in TRL 1.16."""

SET_BY: Final[dict[str, str]] = {
    "temperature": "rl.temperature",
    "top_p": "rl.top_p",
    "num_generations": "rl.generations",
    "use_vllm": "rl.engine: colocate, vllm or server",
}
"""Arguments of TRL's rollouts that a key of the recipe stands for."""
OF_ROLLOUTS: Final = (
    *SET_BY, "top_k", "min_p", "repetition_penalty", "generation_kwargs", "cache_implementation",
    "chat_template_kwargs", "max_tool_calling_iterations", "use_transformers_continuous_batching",
    "transformers_continuous_batching_config", "use_transformers_paged",
)  # fmt: skip
OF_ADVANTAGES: Final = ("scale_rewards", "reward_weights", "multi_objective_aggregation")
DEFAULT_SLOTS: Final = 64
"""Concurrent rollouts in RL for a model whose engine has no slots."""
PACKAGES: Final = {"use_liger_kernel": "liger_kernel", "deepspeed": "deepspeed"}
"""Arguments that need another package, which TRL looks for when the training starts."""


class TRL:
    """`rewright.training.backend.Backend` on TRL. Torch and TRL are imported lazily, when training starts."""

    processes = True

    def check(self, section: Section, settings: SectionSettings) -> None:
        """Raise InputError for a missing package, batch sizes that do not divide, and what TRL rejects.

        TRL's configuration is built here as it is for the training, so its own checks are made before the run, too.
        """
        needed = ("torch", "transformers", "trl", *(("peft",) if settings.lora_rank is not None else ()))
        missing = next((name for name in needed if importlib.util.find_spec(name) is None), None)
        if missing is not None:
            raise InputError(f"stage {section} needs the package {missing}: pip install 'rewright[train]'")
        check_batches(section, settings)
        _check_arguments(section, settings)
        _check_config(section, settings)
        if isinstance(settings, RLSettings):
            check_rl_engine(settings)

    def check_model(self, section: Section, model: ModelSettings) -> None:
        """Raise InputError unless the weights and the tokenizer that the training starts from can be loaded."""
        from rewright.engines.checks import check_dtype, check_tokenizer, check_weights

        check_weights(model, "model", needed_by=f"stage {section} trains the weights that are loaded from it")
        check_tokenizer(model, "model")
        check_dtype(model, "model")

    def check_rollouts(self, settings: RLSettings, model: ModelSettings) -> None:
        """Raise InputError for a model whose rollouts `rl.engine` cannot generate, or whose prompts are not shared."""
        from rewright.engines.checks import check_layers

        if settings.engine == "hf" or settings.share_prompts:
            check_layers(model, "model")

    def train_sft(
        self, rows: Sequence[dict[str, Any]], model: ModelSettings, settings: SFTSettings, out: Path, *, seed: int
    ) -> list[dict[str, Any]]:
        """See `rewright.training.trl.sft.train_sft`."""
        from rewright.training.trl.sft import train_sft

        return train_sft(rows, model, settings, out, seed=seed)

    def train_dpo(
        self, pairs: Sequence[dict[str, Any]], model: ModelSettings, settings: DPOSettings, out: Path, *, seed: int
    ) -> tuple[list[dict[str, Any]], dict[str, float | None]]:
        """See `rewright.training.trl.dpo.train_dpo`."""
        from rewright.training.trl.dpo import train_dpo

        return train_dpo(pairs, model, settings, out, seed=seed)

    def train_reward_model(
        self,
        pairs: Sequence[dict[str, Any]],
        model: ModelSettings,
        settings: RewardSettings,
        out: Path,
        *,
        seed: int,
        dialect: str,
    ) -> tuple[list[dict[str, Any]], dict[str, float | None]]:
        """See `rewright.training.trl.reward_model.train_reward_model`."""
        from rewright.training.trl.reward_model import train_reward_model

        return train_reward_model(pairs, model, settings, out, seed=seed, dialect=dialect)

    def load_reward_model(self, path: Path) -> Scorer:
        """See `rewright.training.trl.reward_model.RewardModel`."""
        from rewright.training.trl.reward_model import RewardModel

        return RewardModel(path)

    def train_rl(self, job: RLJob) -> list[dict[str, Any]]:
        """See `rewright.training.trl.rl.train_rl`."""
        from rewright.engines.loading import load_tokenizer, load_trainable
        from rewright.training.trl.rl import train_rl

        tokenizer = load_tokenizer(job.model)
        model, precision = load_trainable(job.model, adapters=job.settings.lora_rank is not None)
        engine = open_rl_engine(job.settings, job.model, tokenizer, is_main=rank() == 0)
        return train_rl(
            job.tasks,
            model,
            tokenizer,
            job.settings,
            job.out,
            seed=job.seed,
            dialect=job.dialect,
            tools=job.tools,
            limits=job.limits,
            users=job.users,
            template_options=job.template_options,
            reward_model=job.reward_model,
            resources=job.resources,
            on_rollouts=job.on_rollouts,
            judge_seconds=job.judge_seconds,
            precision=precision,
            slots=getattr(job.model, "slots", DEFAULT_SLOTS),
            max_length=getattr(job.model, "max_length", None),
            engine=engine,
        )


def _check_arguments(section: Section, settings: SectionSettings) -> None:
    with to_standard_error():  # transformers prints WANDB_MODE when it is imported
        import trl
        from transformers import SchedulerType
        from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

    accepted = [field.name for field in fields(getattr(trl, CONFIGS[section])) if field.init]
    for name in settings.arguments:
        if name not in accepted:
            near = closest_key(name, accepted)
            hint = f"did you mean {near}?" if near is not None else "expected the name of one of its arguments"
            raise InputError(f"{section}.arguments: TRL's {CONFIGS[section]} has no argument {name}: {hint}")
    _check_choice(f"{section}.scheduler", settings.scheduler, [scheduler.value for scheduler in SchedulerType])
    if isinstance(settings, RLSettings):
        _check_choice("rl.loss_type", settings.loss_type, LOSSES)
    for tracker in custom_trackers(settings.report_to):
        find_tracker(tracker, f"{section}.report_to")
    for logger in trl_integrations(settings.report_to):
        _check_choice(f"{section}.report_to", logger, [*INTEGRATION_TO_CALLBACK, *known("tracker"), "all", "none"])
        if logger not in (*get_available_reporting_integrations(), "all", "none"):
            raise InputError(f"{section}.report_to: {logger} is not installed: pip install {logger}")


def _check_config(section: Section, settings: SectionSettings) -> None:
    import torch
    from transformers import Trainer

    from rewright.training.trl.common import quiet

    out = Path("models") / section
    precision = "bfloat16" if torch.cuda.is_available() else "float32"
    with quiet():
        if isinstance(settings, RLSettings):
            from rewright.training.trl.rl import rl_config

            config = rl_config(settings, out, 0, precision=precision, limits=Limits())
        elif isinstance(settings, DPOSettings):
            from rewright.training.trl.dpo import dpo_config

            config = dpo_config(settings, out, 0, precision=precision)
        elif isinstance(settings, RewardSettings):
            from rewright.training.trl.reward_model import reward_config

            config = reward_config(settings, out, 0, precision=precision)
        else:
            from rewright.training.trl.sft import sft_config

            config = sft_config(settings, out, 0, precision=precision)
        try:
            Trainer.get_optimizer_cls_and_kwargs(config)
        except (ImportError, ValueError) as problem:
            reason = " ".join(str(problem).split())[:300]
            raise InputError(f"{section}.arguments: optim is {settings.arguments.get('optim')}: {reason}") from None
    # Checked by TRL only in the first step.
    if section == "rl":
        _check_choice("rl.arguments.loss_type", config.loss_type, LOSSES)
        _check_choice("rl.arguments.importance_sampling_level", config.importance_sampling_level, LEVELS)
        _check_effects(settings.arguments)
    for argument, package in PACKAGES.items():
        if getattr(config, argument, False) and importlib.util.find_spec(package) is None:
            raise InputError(f"{section}.arguments: {argument} needs the package {package}, which is not installed")


def _check_effects(arguments: Mapping[str, Any]) -> None:
    """Raise InputError for arguments of GRPOConfig about what Rewright does itself."""
    for name, value in arguments.items():
        is_of_vllm = name.startswith("vllm_") and not name.startswith("vllm_importance_sampling_")
        if (name in OF_ROLLOUTS or is_of_vllm) and value not in (None, False):
            hint = f": expected {SET_BY[name]}" if name in SET_BY else ""
            raise InputError(f"rl.arguments: {name} has no effect, since Rewright generates the rollouts{hint}")
        if name in OF_ADVANTAGES:
            raise InputError(
                f"rl.arguments: {name} has no effect, since Rewright computes the advantages: expected rl.credit"
            )


def _check_choice(key: str, value: str | None, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        raise InputError(f"{key} is {value!r}: expected one of {', '.join(choices)}")
