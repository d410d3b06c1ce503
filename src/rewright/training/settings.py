"""Settings of the data sets and of the training stages."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from rewright.core.errors import InputError
from rewright.core.settings import Settings
from rewright.credit.settings import TurnCredit
from rewright.credit.trajectory_reward import TrajectoryReward
from rewright.judging.judges import answer_judges
from rewright.tasks.settings import TaskSettings

__all__ = ["BuildSettings", "RLSettings", "RewardSettings", "SFTSettings", "Scheduler", "check_task_count"]


Scheduler = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
    "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay",
]  # fmt: skip
"""Learning-rate schedules of transformers that need no arguments, or take theirs from `arguments`."""


class BuildSettings(Settings, frozen=True):
    """SFT and preference sets."""

    held_out_fraction: float = 0.15
    """Of the tasks: their pairs measure the reward model, and SFT does not see them. (AutoTraj: 0.05 of many more.)"""
    pairs: Literal["repaired", "repaired+kept"] = "repaired"
    """`repaired`: (repaired, original). `+kept`: also (kept, wrong) of the same task."""


class _TrainSettings(Settings, frozen=True):
    learning_rate: float = 7e-6
    micro_batch_size: int | None = None
    """Trajectories per forward pass; default: the whole batch."""
    lora_rank: int | None = None
    report_to: tuple[str, ...] = ()
    save_steps: int | None = None
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    """Further arguments of the TRL config, by name."""


class SFTSettings(_TrainSettings, frozen=True):
    """Supervised fine-tuning. Defaults are AutoTraj's (section 4.1)."""

    batch_size: int = 16
    """Trajectories per optimizer step."""
    max_length: int | None = None
    epochs: float = 3.0
    warmup: float = 0.1
    scheduler: Scheduler = "cosine"
    source: Literal["run", "demonstrations"] = "run"
    """`demonstrations`: the world's worked examples instead of this run's kept and repaired trajectories."""
    demonstrations: int = 1000
    profile: str = "short"


class RewardSettings(_TrainSettings, frozen=True):
    """The trajectory reward model, Bradley-Terry. Defaults are AutoTraj's (section 4.1)."""

    learning_rate: float = 1e-5
    batch_size: int = 32
    """Pairs per optimizer step."""
    max_length: int | None = None
    epochs: float = 2.0
    warmup: float = 0.1
    scheduler: Scheduler = "cosine"
    minimum_accuracy: float = 0.5
    """RL does not start below this held-out pair accuracy."""
    minimum_pairs: int = 20
    """With fewer held-out pairs nobody knows the accuracy: RL then runs without the reward model."""
    url: str | None = None
    """A reward model that `rewright serve-reward` serves: RL uses it, and none is trained."""
    timeout_seconds: float = 120.0
    """url: one attempt at one request."""
    attempts: int = 5
    """url: tries per request."""


class RLSettings(_TrainSettings, frozen=True):
    """GRPO on TRL with turn-level advantages."""

    learning_rate: float = 1e-6
    steps: int = 40
    tasks_per_step: int = 8
    generations: int = 8
    updates_per_step: int = 1
    """Into how many optimizer steps the rollouts of one step are divided (AutoTraj: 2)."""
    temperature: float = 1.0
    top_p: float = 1.0
    epsilon: float = 0.2
    beta: float = 0.0
    entropy: float = 0.0
    """Bonus on the entropy of the model's tokens; below 0 a price on it."""
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"] = "grpo"
    scheduler: Scheduler = "constant"
    warmup: float = 0.0
    trajectory_reward: TrajectoryReward = "matchtir+autotraj"
    """How the reward of a whole trajectory is made (`rewright.credit.trajectory_reward.trajectory_reward`)."""
    outcome: str = "judge"
    """How right an answer is: `judge`, as the task's judge says, or the name of a judge of answers for all tasks."""
    reward_model_weight: float = 0.2
    reward_model_clip: float = 3.0
    credit: TurnCredit = TurnCredit(singleton_turn="zero")
    call_weight: float = 1.0
    """What the calls' part of the turn rewards is multiplied with before the outcome is added."""
    tasks: TaskSettings | None = None
    keep_rollouts: bool = True
    concurrency: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outcome != "judge" and self.outcome not in answer_judges():
            known = ", ".join(("judge", *answer_judges()))
            raise ValueError(f"outcome must be one of {known}, got {self.outcome!r}")


def check_task_count(count: int, settings: RLSettings) -> None:
    """Raise InputError where RL has fewer tasks than a step takes: the trainer would make no step."""
    if count < settings.tasks_per_step:
        raise InputError(
            f"rl.tasks_per_step is {settings.tasks_per_step}, but RL has {count} {'task' if count == 1 else 'tasks'}: "
            f"expected at least as many tasks as a step takes, or rl.tasks_per_step={max(count, 1)}"
        )
