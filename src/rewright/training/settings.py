"""Settings of the `build`, `sft`, `reward` and `rl` sections of a recipe, and their checks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from rewright.core.errors import InputError
from rewright.core.settings import (
    MAX_NUMBER,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveFraction,
    PositiveInt,
    Settings,
    SignedFloat,
)
from rewright.credit.settings import TurnCredit
from rewright.credit.trajectory_reward import TrajectoryReward
from rewright.engines.policy_server import PolicyServer
from rewright.engines.settings import ModelSettings
from rewright.engines.vllm_options import PolicyOptions
from rewright.judging.judges import answer_judges
from rewright.tasks.settings import TaskSettings
from rewright.training.verl.settings import VerlSettings

__all__ = [
    "BuildSettings",
    "DPOSettings",
    "RLSettings",
    "RewardSettings",
    "SFTSettings",
    "Scheduler",
    "SectionSettings",
    "SignalSettings",
    "TrainingSettings",
    "check_batches",
    "check_task_count",
]


Scheduler = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
    "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay",
]  # fmt: skip
"""Learning-rate schedules of transformers that need no arguments, or take theirs from `arguments`."""


class TrainingSettings(Settings, frozen=True):
    """The processes of the training stages (sft, reward, rl)."""

    processes: PositiveInt | None = None
    """Processes of a training stage; each has a GPU, if there are any. Default: one, or those of `accelerate`."""
    accelerate: str | None = None
    """Configuration file of accelerate (`accelerate config`), for FSDP or DeepSpeed for example."""


class BuildSettings(Settings, frozen=True):
    """The SFT and preference data sets."""

    held_out_fraction: Fraction = 0.15
    """Fraction of the tasks that are held out: their pairs evaluate the reward model, and SFT does not use them.
    (AutoTraj: 0.05 of a larger set.)"""
    pairs: Literal["repaired", "repaired+kept"] = "repaired"
    """`repaired`: (repaired, original) pairs. `repaired+kept`: also (kept, wrong) pairs of the same task."""


class _TrainSettings(Settings, frozen=True):
    learning_rate: PositiveFloat = 7e-6
    """Learning rate of AdamW."""
    micro_batch_size: PositiveInt | None = None
    """Sequences per forward pass; default: the whole batch."""
    lora_rank: PositiveInt | None = None
    """Rank of the LoRA adapter; default: all weights are trained."""
    report_to: tuple[str, ...] = ()
    """Loggers of TRL, such as `wandb` or `tensorboard`, and trackers of your own, by name or import path."""
    save_steps: PositiveInt | None = None
    """Steps between checkpoints, from which --resume continues; default: none."""
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    """Additional arguments of the back end's configuration (TRL's config), by name."""
    backend: str = "trl"
    """Trainer back end: a registered name, or the import path of your own, "package.module:name"."""

    @property
    def step_sequences(self) -> int:
        """Sequences of an optimizer step: trajectories, pairs or rollouts."""
        raise NotImplementedError


class SFTSettings(_TrainSettings, frozen=True):
    """Supervised fine-tuning. Defaults are AutoTraj's (section 4.1)."""

    batch_size: PositiveInt = 16
    """Trajectories per optimizer step."""
    max_length: PositiveInt | None = None
    """Maximum length in tokens; longer trajectories are left out. Default: no limit."""
    epochs: PositiveFloat = 3.0
    """Passes over the data set."""
    warmup: NonNegativeFloat = 0.1
    """Warm-up of the learning rate: a fraction of the steps below 1, else a number of steps."""
    scheduler: Scheduler = "cosine"
    """Learning-rate schedule."""
    source: Literal["run", "demonstrations", "gold"] = "run"
    """`run`: the kept and repaired trajectories of this run. `demonstrations`: worked examples of the embedded
    world. `gold`: the gold calls of the run's tasks, played through the rollout loop."""
    demonstrations: NonNegativeInt = 1000
    """Number of worked examples."""
    profile: str = "short"
    """Task profile of the worked examples."""

    @property
    def step_sequences(self) -> int:
        """Trajectories of an optimizer step."""
        return self.batch_size


class RewardSettings(_TrainSettings, frozen=True):
    """The trajectory reward model, Bradley-Terry. Defaults are AutoTraj's (section 4.1)."""

    learning_rate: PositiveFloat = 1e-5
    """Learning rate of AdamW."""
    batch_size: PositiveInt = 32
    """Pairs per optimizer step."""
    max_length: PositiveInt | None = None
    """Maximum length in tokens (TRL's `max_length`). Default: no limit."""
    epochs: PositiveFloat = 2.0
    """Passes over the data set."""
    warmup: NonNegativeFloat = 0.1
    """Warm-up of the learning rate: a fraction of the steps below 1, else a number of steps."""
    scheduler: Scheduler = "cosine"
    """Learning-rate schedule."""
    minimum_accuracy: Fraction = 0.5
    """RL does not start if the accuracy on held-out pairs is lower."""
    minimum_pairs: NonNegativeInt = 20
    """With fewer held-out pairs the accuracy is unknown, and RL runs without a reward model."""
    prefixes: bool = False
    """Train on pairs of turn prefixes, too, for the signal `model`."""
    url: str | None = None
    """Address of a reward model served by `rewright serve-reward`. RL uses it, and none is trained."""
    timeout_seconds: PositiveFloat = 120.0
    """`url`: time limit of one attempt, in seconds."""
    attempts: PositiveInt = 5
    """`url`: maximum number of attempts per request."""

    @property
    def step_sequences(self) -> int:
        """Pairs of an optimizer step."""
        return self.batch_size

    def addresses(self) -> dict[str, str]:
        """The address of the served reward model."""
        return {} if self.url is None else {"url": self.url}


class SignalSettings(Settings, frozen=True):
    """Models that credit signals use (docs/signals.md). They are not trained."""

    scorer: ModelSettings | None = None
    """The model that scores tokens, with local weights. Default: the policy before RL."""
    judge: ModelSettings | None = None
    """The language model that judges turns."""
    reward_model: str | None = None
    """Folder of the reward model that scores the beginnings of trajectories. Default: the run's own."""


class DPOSettings(_TrainSettings, frozen=True):
    """Direct preference optimization on the (repaired, original) pairs (arXiv 2305.18290), on TRL's DPOTrainer."""

    learning_rate: PositiveFloat = 5e-7
    """Learning rate of AdamW. (The paper's is 1e-6, and TRL's default too.)"""
    beta: PositiveFloat = 0.1
    """Strength of the penalty on leaving the policy before DPO (the reference): beta of the loss
    -log sigmoid(beta * (log-ratio of the chosen - log-ratio of the rejected trajectory))."""
    loss_type: Literal["sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "apo_zero", "apo_down", "discopop"] = (
        "sigmoid"
    )
    """TRL's `loss_type`; `sigmoid` is DPO."""
    batch_size: PositiveInt = 32
    """Pairs per optimizer step."""
    max_length: PositiveInt | None = None
    """Maximum length in tokens; pairs with a longer trajectory are left out. Default: no limit."""
    epochs: PositiveFloat = 1.0
    """Passes over the pairs."""
    steps: PositiveInt | None = None
    """Number of optimizer steps, instead of `epochs`. Default: what `epochs` amounts to."""
    warmup: NonNegativeFloat = 0.1
    """Warm-up of the learning rate: a fraction of the steps below 1, else a number of steps."""
    scheduler: Scheduler = "cosine"
    """Learning-rate schedule."""

    @property
    def step_sequences(self) -> int:
        """Pairs of an optimizer step."""
        return self.batch_size


class RLSettings(_TrainSettings, frozen=True):
    """GRPO with turn-level advantages, on TRL or verl."""

    learning_rate: PositiveFloat = 1e-6
    """Learning rate of AdamW."""
    steps: PositiveInt = 40
    """Number of RL steps: each samples rollouts and updates the weights."""
    tasks_per_step: PositiveInt = 8
    """Number of tasks (groups) per step."""
    generations: Annotated[int, Meta(ge=2, le=MAX_NUMBER)] = 8
    """Rollouts per task (group size); a group of one has no advantage."""
    updates_per_step: PositiveInt = 1
    """Number of optimizer steps into which the rollouts of one step are divided (AutoTraj: 2)."""
    temperature: NonNegativeFloat = 1.0
    """Sampling temperature of the rollouts."""
    top_p: PositiveFraction = 1.0
    """Nucleus sampling probability of the rollouts."""
    epsilon: NonNegativeFloat = 0.2
    """Clipping range of the probability ratio."""
    beta: NonNegativeFloat = 0.0
    """Coefficient of the KL term to the model before RL. 0: no reference model is loaded."""
    entropy: SignedFloat = 0.0
    """Coefficient of the entropy bonus; a negative one penalizes entropy."""
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"] = "grpo"
    """TRL's `loss_type`: how token losses are averaged."""
    scheduler: Scheduler = "constant"
    """Learning-rate schedule."""
    warmup: NonNegativeFloat = 0.0
    """Warm-up of the learning rate: a fraction of the steps below 1, else a number of steps."""
    trajectory_reward: TrajectoryReward = "matchtir+autotraj"
    """How the trajectory reward is computed (`rewright.credit.trajectory_reward.trajectory_reward`)."""
    outcome: str = "judge"
    """Outcome of an answer: `judge`, the verdict of the task's judge, or the name of an answer judge for all tasks."""
    reward_model_weight: NonNegativeFloat = 0.2
    """Weight of the reward model's score."""
    reward_model_clip: PositiveFloat = 3.0
    """The sum of outcome and weighted score is clipped to [-clip, clip]."""
    credit: TurnCredit = TurnCredit(singleton_turn="zero")
    """Turn-level credit assignment."""
    call_weight: NonNegativeFloat = 1.0
    """Weight of the turn rewards from calls, before the outcome is added. 0: outcome only."""
    tasks: TaskSettings | None = None
    """Tasks for RL; default: the tasks of the run."""
    keep_rollouts: bool = True
    """Store every rollout in rollouts.jsonl."""
    concurrency: PositiveInt = 128
    """Maximum number of concurrent rollouts."""
    engine: Literal["hf", "vllm", "colocate", "server"] = "hf"
    """What generates the rollouts: `hf`, the trained model in this process; vLLM in a child process (`vllm`), in this
    one (`colocate`) or as servers (`server`), which get the trained weights before each step."""
    vllm: PolicyOptions | None = None
    """Settings of `engine: vllm` and `engine: colocate`."""
    server: PolicyServer | None = None
    """The vLLM servers of `engine: server`."""
    verl: VerlSettings = VerlSettings()
    """verl's processes, for `backend: verl`."""
    importance_correction: bool | None = None
    """Weight each token with the ratio of its probability in the trainer to that in the engine, truncated as TRL does
    (`vllm_importance_sampling_*` in `rl.arguments`). Default: with every engine but `hf`, and with verl."""

    share_prompts: bool = False
    """Compute the prompt of a group once in the loss, not once for each rollout: the same numbers in less time where
    prompts are long. Needs `micro_batch_size` of whole groups, one process, and a model with full attention (sdpa)."""

    @property
    def step_sequences(self) -> int:
        """Rollouts of an optimizer step."""
        return self.tasks_per_step * self.generations // self.updates_per_step

    @property
    def corrects_sampling(self) -> bool:
        """Whether the importance correction is used."""
        if self.importance_correction is None:
            return self.engine != "hf" or self.backend == "verl"
        return self.importance_correction

    @property
    def generates_in_main_process(self) -> bool:
        """Whether the main process of a group generates all rollouts, and not each process its own."""
        return self.engine in ("vllm", "server")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outcome != "judge" and self.outcome not in answer_judges():
            known = ", ".join(("judge", *answer_judges()))
            raise ValueError(f"outcome must be one of {known}, got {self.outcome!r}")


SectionSettings = SFTSettings | DPOSettings | RewardSettings | RLSettings
"""The settings of a training stage."""


def check_task_count(count: int, settings: RLSettings) -> None:
    """Raise InputError if there are fewer tasks than `tasks_per_step`, since the trainer would make no step."""
    if count < settings.tasks_per_step:
        raise InputError(
            f"rl.tasks_per_step is {settings.tasks_per_step}, but RL has {count} {'task' if count == 1 else 'tasks'}: "
            f"expected at least that many tasks, or rl.tasks_per_step={max(count, 1)}"
        )


def check_batches(section: str, settings: SectionSettings, processes: int = 1) -> None:
    """Raise InputError for batch sizes that do not divide, and for temperature 0 in RL (identical rollouts).

    `processes`: over which each batch is divided.
    """
    if isinstance(settings, RLSettings):
        if not settings.temperature:
            raise InputError(
                "rl.temperature is 0: expected a positive number, since greedy rollouts of a task are identical"
            )
        if settings.engine != "hf" and settings.top_p < 1:
            raise InputError(
                f"rl.top_p is {settings.top_p}: expected 1 with rl.engine: {settings.engine}, which returns "
                "log-probabilities after top-p"
            )
        if settings.engine == "server":
            (settings.server or PolicyServer()).open()  # makes no connection
        rollouts = settings.tasks_per_step * settings.generations
        if rollouts % settings.updates_per_step:
            raise InputError(
                f"rl.updates_per_step is {settings.updates_per_step}: expected a divisor of the {rollouts} rollouts of "
                "a step (rl.tasks_per_step times rl.generations)"
            )
        if settings.share_prompts and processes > 1:
            raise InputError(f"rl.share_prompts needs one process, and training.processes is {processes}")
        micro = settings.micro_batch_size
        if settings.share_prompts and micro is not None and micro % settings.generations:
            raise InputError(
                f"rl.micro_batch_size is {micro}: expected a multiple of rl.generations, {settings.generations}, with "
                "rl.share_prompts"
            )
    batch = settings.step_sequences
    if batch % processes:
        where = (
            f"{section}.batch_size is {batch}" if section != "rl" else f"an optimizer step of rl has {batch} rollouts"
        )
        raise InputError(f"{where}: expected a multiple of training.processes, {processes}")
    batch //= processes
    if settings.micro_batch_size is not None and batch % settings.micro_batch_size:
        each = "" if processes == 1 else f" in each of {processes} processes"
        raise InputError(
            f"{section}.micro_batch_size is {settings.micro_batch_size}: expected a divisor of the {batch} sequences "
            f"of an optimizer step{each}"
        )
