"""TRL as a trainer back end: SFTTrainer, RewardTrainer, and GRPOTrainer with turn-level advantages."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.core.registry import known
from rewright.core.scorer import Scorer
from rewright.engines.settings import ModelSettings
from rewright.training.backend import RLJob, Section
from rewright.training.settings import RewardSettings, RLSettings, SFTSettings, check_batches
from rewright.training.tracker_runs import to_standard_error
from rewright.training.trackers import custom_trackers, find_tracker, trl_integrations

__all__ = ["TRL"]

CONFIGS: Final[dict[Section, str]] = {"sft": "SFTConfig", "reward": "RewardConfig", "rl": "GRPOConfig"}
"""The TRL config class of each training section."""
LOSSES: Final = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo")
"""The values of `loss_type` in TRL 1.16, which validates it only in the first step."""


class TRL:
    """`rewright.training.backend.Backend` on TRL. Torch and TRL are imported lazily, when training starts."""

    def check(self, section: Section, settings: SFTSettings | RewardSettings | RLSettings) -> None:
        """Raise InputError for a missing package, batch sizes that do not divide, and arguments unknown to TRL."""
        needed = ("torch", "transformers", "trl")
        missing = next((name for name in needed if importlib.util.find_spec(name) is None), None)
        if missing is not None:
            raise InputError(f"stage {section} needs the package {missing}: pip install 'rewright[train]'")
        check_batches(section, settings)
        _check_arguments(section, settings)

    def train_sft(
        self, rows: Sequence[dict[str, Any]], model: ModelSettings, settings: SFTSettings, out: Path, *, seed: int
    ) -> list[dict[str, Any]]:
        """See `rewright.training.trl.sft.train_sft`."""
        from rewright.training.trl.sft import train_sft

        return train_sft(rows, model, settings, out, seed=seed)

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
            template_options=job.template_options,
            reward_model=job.reward_model,
            on_rollouts=job.on_rollouts,
            judge_seconds=job.judge_seconds,
            precision=precision,
        )


def _check_arguments(section: Section, settings: SFTSettings | RewardSettings | RLSettings) -> None:
    with to_standard_error():  # transformers prints WANDB_MODE when it is imported
        import trl
        from transformers import SchedulerType
        from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

    accepted = [field.name for field in fields(getattr(trl, CONFIGS[section])) if field.init]
    for name in settings.arguments:
        if name not in accepted:
            near = get_close_matches(name, accepted, n=1)
            hint = f"did you mean {near[0]}?" if near else "expected the name of one of its arguments"
            raise InputError(f"{section}.arguments: TRL's {CONFIGS[section]} has no argument {name}: {hint}")
    _check_choice(f"{section}.scheduler", settings.scheduler, [scheduler.value for scheduler in SchedulerType])
    _check_choice("rl.loss_type", getattr(settings, "loss_type", None), LOSSES)
    for tracker in custom_trackers(settings.report_to):
        find_tracker(tracker, f"{section}.report_to")
    for logger in trl_integrations(settings.report_to):
        _check_choice(f"{section}.report_to", logger, [*INTEGRATION_TO_CALLBACK, *known("tracker"), "all", "none"])
        if logger not in (*get_available_reporting_integrations(), "all", "none"):
            raise InputError(f"{section}.report_to: {logger} is not installed: pip install {logger}")


def _check_choice(key: str, value: str | None, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        raise InputError(f"{key} is {value!r}: expected one of {', '.join(choices)}")
