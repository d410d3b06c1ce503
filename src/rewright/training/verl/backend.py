"""verl as a trainer back end of the stage rl: what it supports, and whether it can start."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.core.scorer import Scorer
from rewright.credit.resources import is_alone
from rewright.credit.signals import find_signal
from rewright.engines.settings import ModelSettings
from rewright.engines.sizes import is_for_another_machine
from rewright.rollout.settings import Limits
from rewright.training.backend import RLJob, Section
from rewright.training.settings import DPOSettings, RewardSettings, RLSettings, SectionSettings, SFTSettings
from rewright.training.trackers import custom_trackers, find_tracker, trl_integrations
from rewright.training.verl.config import LOSSES, Launch, as_arguments, overrides
from rewright.training.verl.interpreter import check_address, check_interpreter, interpreter
from rewright.training.verl.settings import RaySettings

__all__ = ["Verl"]

LOGGERS: Final = ("clearml", "mlflow", "swanlab", "tensorboard", "trackio", "vemlp_wandb", "wandb")
"""verl's loggers of other projects."""
SCHEDULERS: Final = ("constant", "cosine")
ONLY_RL: Final = "the back end verl trains in the stage rl only: expected trl"


class Verl:
    """`rewright.training.backend.Backend` on verl and Ray; for the stage rl only.

    Its training consists of processes of verl, which it starts itself.
    """

    launches = True

    def check(self, section: Section, settings: SectionSettings) -> None:
        """Raise InputError for settings that verl does not support, and if it does not start in its interpreter."""
        if not isinstance(settings, RLSettings):
            raise InputError(f"{section}.backend is verl: {ONLY_RL}")
        check_settings(settings)
        interpreter(settings.verl)
        launch = Launch(
            folder=Path("rl"), model="model", rows=settings.tasks_per_step, prompt_tokens=1, response_tokens=1, seed=0,
            loggers=tuple(trl_integrations(settings.report_to)),
        )  # fmt: skip
        values = as_arguments(overrides(settings, launch))
        if not is_for_another_machine():
            check_interpreter(settings.verl, values)

    def check_rl(self, settings: RLSettings, limits: Limits, ray: RaySettings) -> None:
        """Raise InputError for settings and limits without an equal in verl, too few GPUs, and a missing cluster."""
        check_settings(settings)
        try:
            settings.credit.check_alone()  # import paths, too, which the recipe's consent has allowed by now
        except ValueError as problem:
            raise InputError(f"rl.credit.{problem}") from None
        if limits.trajectory_tokens is None:
            raise InputError(
                "limits.trajectory_tokens is null: expected a number with rl.backend: verl, which has a fixed length"
            )
        if is_for_another_machine():
            return
        if ray.address is not None:
            check_address(ray.address)
        elif settings.verl.nodes > 1:
            raise InputError(
                f"rl.verl.nodes is {settings.verl.nodes}, and ray.address is missing: expected the cluster's address"
            )
        elif settings.verl.device == "cuda":
            _check_devices(settings)

    def check_model(self, section: Section, model: ModelSettings) -> None:
        """Raise InputError unless the weights and the tokenizer that the training starts from can be loaded."""
        from rewright.engines.checks import check_tokenizer, check_weights

        check_weights(model, "model", needed_by=f"stage {section} trains the weights that are loaded from it")
        check_tokenizer(model, "model")

    def train_sft(
        self, rows: Sequence[dict[str, Any]], model: ModelSettings, settings: SFTSettings, out: Path, *, seed: int
    ) -> list[dict[str, Any]]:
        """Not supported."""
        raise InputError(f"sft.backend is verl: {ONLY_RL}")

    def train_dpo(
        self, pairs: Sequence[dict[str, Any]], model: ModelSettings, settings: DPOSettings, out: Path, *, seed: int
    ) -> tuple[list[dict[str, Any]], dict[str, float | None]]:
        """Not supported."""
        raise InputError(f"dpo.backend is verl: {ONLY_RL}")

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
        """Not supported."""
        raise InputError(f"reward.backend is verl: {ONLY_RL}")

    def load_reward_model(self, path: Path) -> Scorer:
        """Not supported."""
        raise InputError(f"reward.backend is verl: {ONLY_RL}")

    def train_rl(self, job: RLJob) -> list[dict[str, Any]]:
        """See `rewright.training.verl.rl.train_rl`."""
        from rewright.training.verl.rl import train_rl

        return train_rl(job)


def check_settings(settings: RLSettings) -> None:
    """Raise InputError for a setting of `rl` that has no equal in verl, and for numbers that do not divide."""
    what = "with rl.backend: verl"
    verl, workers = settings.verl, settings.verl.workers * settings.verl.nodes
    refused: list[tuple[bool, str]] = [
        (settings.temperature == 0, "rl.temperature is 0: expected a positive number: greedy rollouts are identical"),
        (settings.engine != "hf", f"rl.engine is {settings.engine}: {what}, verl generates: expected rl.verl.rollout"),
        (settings.lora_rank is not None, f"rl.lora_rank: not supported {what}: expected no lora_rank"),
        (bool(settings.arguments), f"rl.arguments: those are TRL's: expected rl.verl.overrides {what}"),
        (
            settings.trajectory_reward != "matchtir",
            f"rl.trajectory_reward is {settings.trajectory_reward}: expected matchtir {what}, which has no format "
            "reward and no reward model",
        ),
        (
            any(":" not in one.name and not is_alone(find_signal(one.name)) for one in settings.credit.signal_parts),
            f"rl.credit.signal is {settings.credit.signal_name}: expected signals of single trajectories that need no "
            f"model {what}",
        ),
        (
            settings.credit.join != "last_turn",
            f"rl.credit.join is {settings.credit.join}: expected last_turn {what}, where the outcome is on a token",
        ),
        (
            settings.loss_type not in LOSSES,
            f"rl.loss_type is {settings.loss_type}: expected one of {', '.join(LOSSES)} {what}",
        ),
        (
            settings.scheduler not in SCHEDULERS,
            f"rl.scheduler is {settings.scheduler}: expected {' or '.join(SCHEDULERS)} {what}",
        ),
        (
            settings.top_p < 1 and settings.corrects_sampling,
            f"rl.top_p is {settings.top_p}: expected 1 {what}, or rl.importance_correction: false, since the rollout "
            "engine returns log-probabilities after top-p",
        ),
        (
            settings.tasks_per_step % settings.updates_per_step != 0,
            f"rl.updates_per_step is {settings.updates_per_step}: expected a divisor of rl.tasks_per_step, "
            f"{settings.tasks_per_step}, {what}, whose updates have whole groups",
        ),
    ]
    problem = next((text for wrong, text in refused if wrong), None)
    if problem is not None:
        raise InputError(problem)
    try:
        settings.credit.check_reads(())
    except ValueError as unread:
        raise InputError(f"rl.credit.estimator: {unread} ({what})") from None
    update = settings.tasks_per_step * settings.generations // settings.updates_per_step
    if update % workers:
        raise InputError(
            f"rl.verl.workers is {verl.workers} and rl.verl.nodes {verl.nodes}: expected a divisor of the {update} "
            "rollouts of an update (rl.tasks_per_step times rl.generations, divided by rl.updates_per_step)"
        )
    micro = settings.micro_batch_size
    if micro is not None and update // workers % micro:
        raise InputError(
            f"rl.micro_batch_size is {micro}: expected a divisor of the {update // workers} rollouts of each worker"
        )
    for tracker in custom_trackers(settings.report_to):
        find_tracker(tracker, "rl.report_to")
    for logger in trl_integrations(settings.report_to):
        if logger not in LOGGERS:
            raise InputError(f"rl.report_to is {logger!r}: expected one of {', '.join(LOGGERS)}, or a tracker of yours")


def _check_devices(settings: RLSettings) -> None:
    """Raise InputError for more workers than GPUs, if torch is here to count them."""
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    count = torch.cuda.device_count()
    if count < settings.verl.workers:
        raise InputError(
            f"rl.verl.workers is {settings.verl.workers}: this machine has {count} GPUs: expected one for each worker, "
            "ray.address of a cluster, or rl.verl.device: cpu to try it out"
        )
