"""The sections of a recipe: what can be set, and what it is where nobody sets it.

The defaults are sized for two cores; bigger is for whoever has it.
"""

from __future__ import annotations

import os
from typing import Any, Final, Literal, get_args

import msgspec

from rewright.judging.judges import ANSWER_JUDGES, JUDGE_NAMES
from rewright.plugins.settings import TurnCredit
from rewright.quality import QualitySettings
from rewright.repair_references import DEFAULT, compiled
from rewright.rewards import TrajectoryReward
from rewright.rollout import Limits
from rewright.settings import Settings
from rewright.trust import is_own

__all__ = [
    "ALL_STAGES",
    "BuildSettings",
    "EvalSettings",
    "ModelSettings",
    "PriceSettings",
    "RLSettings",
    "Recipe",
    "RepairSettings",
    "RewardSettings",
    "SFTSettings",
    "SandboxSettings",
    "Stage",
    "SynthSettings",
    "TaskSettings",
    "ToolSettings",
]

LONGEST_NAME: Final = 200
"""Bytes of a run's name: it is a folder's, with a number behind it."""

Scheduler = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
    "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay",
]  # fmt: skip
"""Learning-rate schedules of transformers that need no arguments, or take theirs from `arguments`."""

Stage = Literal["eval_base", "synth", "judge", "score", "repair", "build", "sft", "eval_sft", "reward", "rl", "eval_rl"]
ALL_STAGES: tuple[Stage, ...] = get_args(Stage)


class ModelSettings(Settings, frozen=True):
    """A model: `pico` (and its kin), `smollm2`, a local folder, a Hugging Face id, or a served model's name."""

    path: str = "pico"
    engine: Literal["hf", "openai"] = "hf"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    slots: int = 48
    """hf: how many trajectories decode together."""
    max_length: int | None = None
    """hf: context length; default: the model's own."""
    base_url: str | None = None
    mode: Literal["auto", "chat", "completions"] = "auto"
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 32
    timeout_seconds: float = 300.0
    attempts: int = 5
    """openai: tries per request."""
    max_wait_seconds: float = 60.0
    """openai: the longest wait between two tries."""
    check_model: bool = True
    """openai: an answer from a model of another name is a fault."""
    log_probs: Literal["raw", "processed", "off"] = "raw"
    """openai: which log-probabilities the server gives (vLLM: `--logprobs-mode`)."""
    tokenizer: str | None = None
    """openai, completions: the tokenizer's folder or id, where it is not the served model's name."""
    extra_body: dict[str, Any] | None = None
    template_options: dict[str, Any] = msgspec.field(default_factory=dict)
    trust_remote_code: bool = False


class PriceSettings(Settings, frozen=True):
    """What a million tokens of a model cost, in any one currency."""

    input: float
    output: float


class TaskSettings(Settings, frozen=True):
    """Where tasks come from: an embedded world (`town`, `almanac`) or a file in a known format."""

    format: str = "town"
    path: str | None = None
    split: str = "train"
    profile: str | None = None
    count: int = 300
    """town, almanac: how many tasks to draw."""
    seed: int = 0
    """town, almanac, reasoning_gym: seed of the draw."""
    limit: int | None = None
    judge: str | None = None
    """The judge of every task of this section, instead of the one that the format or the file names."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.judge is not None and self.judge not in JUDGE_NAMES and ":" not in self.judge:
            known = ", ".join(JUDGE_NAMES)
            raise ValueError(f"judge must be one of {known} or package.module:function, got {self.judge!r}")


def _check_own(name: str, packages: tuple[str, ...]) -> None:
    for package in packages:
        if is_own(package):
            raise ValueError(f"{name} must name packages of your own, got {package!r}: files reach no more of Rewright")


class SandboxSettings(Settings, frozen=True):
    """How tools that are source text are executed."""

    level: Literal["strict", "process", "unsafe"] = "strict"
    wall_seconds: float | None = None
    """Bound of every execution; default: `limits.tool_seconds`."""
    memory_mb: int = 512
    network: bool = False
    """The host's network, every host of it, for what runs in the sandbox."""
    url: str | None = None
    """A sandbox elsewhere that speaks SandboxFusion's protocol: sources and programs run there, with its isolation."""
    trusted: tuple[str, ...] = ()
    """Packages of your own: their importable tools (`target`) run as your code, outside of the sandbox."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_own("trusted", self.trusted)


class ToolSettings(Settings, frozen=True):
    """Tools that every task gets, beside its own."""

    python: bool = False
    """The Python tool (AutoTraj section 2)."""
    python_state: Literal["call", "trajectory"] = "call"
    """How long a program's names live."""
    output_characters: int = 400
    """Of the Python tool's output, the rest is cut out of the middle."""
    search: str | None = None
    """The search tool: the folder of an index, the address of a search server, or `almanac` (the embedded corpus)."""
    passages: int = 1
    """How many passages a search shows."""


class SynthSettings(Settings, frozen=True):
    """Candidates (AutoTraj section 3.1: 2 per task at temperature 0.3, top-p 0.9)."""

    n: int = 2
    temperature: float = 0.3
    top_p: float = 0.9
    limit: int | None = None
    concurrency: int = 96


class RepairSettings(Settings, frozen=True):
    """LLM-as-Repairer (AutoTraj section 3.3). Thresholds are the authors'."""

    model: ModelSettings | None = None
    attempts: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    calls: int = 3
    """How many calls the repairer is told it may make."""
    show_gold: bool = False
    rules: str | None = None
    """The end of the repairer's prompt, with `{calls}`; default: `rewright.repair.RULES`."""
    refused_phrases: tuple[str, ...] = (DEFAULT,)
    """A repair in which one of these regular expressions is found refers to what the student never sees. `default`
    stands for the standard ones (`rewright.repair_references`)."""
    refused_first_phrases: tuple[str, ...] = (DEFAULT,)
    """As `refused_phrases`, in the first turn of a repair only."""
    modes: tuple[Literal["wrong_answer", "low_quality"], ...] = ("wrong_answer", "low_quality")
    low_quality_threshold: float = 0.86
    wrong_answer_threshold: float = 0.8
    concurrency: int = 96

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("refused_phrases", "refused_first_phrases"):
            try:
                compiled(getattr(self, name), ())
            except ValueError as problem:
                raise ValueError(f"{name}: {problem}") from problem


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
    """How the reward of a whole trajectory is made (`rewright.rewards.trajectory_reward`)."""
    outcome: str = "judge"
    """How right an answer is: `judge`, as the task's judge says, or the name of a judge of answers for all tasks."""
    reward_model_weight: float = 0.2
    reward_model_clip: float = 3.0
    credit: TurnCredit = TurnCredit(lonely_turn="zero")
    call_weight: float = 1.0
    """What the calls' part of the turn rewards is multiplied with before the outcome is added."""
    tasks: TaskSettings | None = None
    keep_rollouts: bool = True
    concurrency: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outcome != "judge" and self.outcome not in ANSWER_JUDGES:
            known = ", ".join(("judge", *ANSWER_JUDGES))
            raise ValueError(f"outcome must be one of {known}, got {self.outcome!r}")


class EvalSettings(Settings, frozen=True):
    """Held-out evaluation."""

    tasks: TaskSettings = TaskSettings(split="heldout", count=400, seed=1)
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    concurrency: int = 128


class Recipe(Settings, frozen=True):
    """A whole run. `tasks=FILE` on the command line is short for `tasks.path=FILE`."""

    name: str = "run"
    seed: int = 0
    stages: tuple[Stage, ...] = ALL_STAGES
    stage_seconds: float | None = None
    """No stage takes longer: it is stopped as by Ctrl-C, and --resume goes on with it, with as much time again."""
    judge_seconds: float = 60.0
    """How long a judge of your own may take for one answer."""
    judges: tuple[str, ...] = ()
    """Packages of your own whose functions a task file may name as judges. (A file can name any function there is.)"""
    prices: dict[str, PriceSettings] = msgspec.field(default_factory=dict)
    """By the model's name (`model.path`)."""
    dialect: str = "hermes"
    model: ModelSettings = ModelSettings()
    tasks: TaskSettings = TaskSettings()
    limits: Limits = Limits()
    sandbox: SandboxSettings = SandboxSettings()
    tools: ToolSettings = ToolSettings()
    quality: QualitySettings = QualitySettings()
    synth: SynthSettings = SynthSettings()
    repair: RepairSettings = RepairSettings()
    build: BuildSettings = BuildSettings()
    sft: SFTSettings = SFTSettings()
    reward: RewardSettings = RewardSettings()
    rl: RLSettings = RLSettings()
    eval: EvalSettings = EvalSettings()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_own("judges", self.judges)
        if not _names_a_folder(self.name):
            raise ValueError(
                f"name must be usable as a folder's name, got {self.name[:80]!r}: expected one plain name, without / "
                "(for another folder: --run)"
            )
        places = [ALL_STAGES.index(stage) for stage in self.stages]
        if not places:
            raise ValueError("stages must name at least one stage, got none")
        if places != sorted(set(places)):
            right = ", ".join(stage for stage in ALL_STAGES if stage in self.stages)
            raise ValueError(f"stages must be in the order in which they run, each once: [{right}]")


def _names_a_folder(name: str) -> bool:
    """Is it one plain name of a folder: not a path, not hidden, nothing that cannot be shown?"""
    plain = bool(name.strip()) and name == name.strip() and name.isprintable() and not name.startswith(".")
    return plain and not {"/", "\\"} & {*name} and len(os.fsencode(name)) <= LONGEST_NAME
