"""The sections of a recipe: what can be set, and what it is where nobody sets it.

The defaults are sized for two cores; bigger is for whoever has it.
"""

from __future__ import annotations

import os
from typing import Final

import msgspec

from rewright.core.settings import Settings
from rewright.core.trust import _check_own
from rewright.core.usage import PriceSettings
from rewright.engines.embedded import HFSettings
from rewright.engines.settings import ModelSettings
from rewright.recipe.stages import ALL_STAGES, check_stage_names
from rewright.repair.quality import QualitySettings
from rewright.repair.settings import RepairSettings
from rewright.rollout.settings import EvalSettings, Limits, SynthSettings
from rewright.sandbox.settings import SandboxSettings
from rewright.tasks.settings import TaskSettings
from rewright.tools.settings import ToolSettings
from rewright.training.settings import BuildSettings, RewardSettings, RLSettings, SFTSettings

__all__ = ["Recipe"]

MAX_NAME_BYTES: Final = 200
"""Bytes of a run's name: it is a folder's, with a number behind it."""


class Recipe(Settings, frozen=True):
    """A whole run. `tasks=FILE` on the command line is short for `tasks.path=FILE`."""

    name: str = "run"
    seed: int = 0
    stages: tuple[str, ...] = ALL_STAGES
    stage_seconds: float | None = None
    """No stage takes longer: it is stopped as by Ctrl-C, and --resume goes on with it, with as much time again."""
    judge_seconds: float = 60.0
    """How long a judge of your own may take for one answer."""
    judges: tuple[str, ...] = ()
    """Packages of your own whose functions a task file may name as judges. (A file can name any function there is.)"""
    prices: dict[str, PriceSettings] = msgspec.field(default_factory=dict)
    """By the model's name (`model.path`)."""
    dialect: str = "hermes"
    model: ModelSettings = HFSettings()
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
        check_stage_names(self.stages)


def _names_a_folder(name: str) -> bool:
    """Is it one plain name of a folder: not a path, not hidden, nothing that cannot be shown?"""
    plain = bool(name.strip()) and name == name.strip() and name.isprintable() and not name.startswith(".")
    return plain and not {"/", "\\"} & {*name} and len(os.fsencode(name)) <= MAX_NAME_BYTES
