"""A trainer back end: what trains the models of a run (registry kind `trainer`).

A back end takes the data of a run directory and saves a model. Each training section of a recipe names one (`backend`,
default `trl`). What belongs to no trainer is here for all of them: an RL step's rollouts, verdicts, scores and credit
(`rewright.training.rl_step`), and the checks of the sections (`rewright.training.settings`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from rewright.core.errors import InputError
from rewright.core.records import Task, Trajectory
from rewright.core.registry import find
from rewright.core.scorer import Scorer
from rewright.dialects.base import Dialect
from rewright.engines.settings import ModelSettings
from rewright.judging.own import OWN_SECONDS
from rewright.rollout.settings import Limits
from rewright.tools.base import ToolsetFactory
from rewright.training.settings import RewardSettings, RLSettings, SFTSettings

__all__ = ["Backend", "RLJob", "Section", "get_backend"]

Section = Literal["sft", "reward", "rl"]
"""The recipe sections that name a back end."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RLJob:
    """One RL training: from a policy and its tasks to a saved model.

    `on_rollouts` is given the rollouts of each step with their credit. `judge_seconds`: how long a judge of the user's
    own may take for one answer. `tools` is the back end's to close.
    """

    tasks: Sequence[Task]
    model: ModelSettings
    settings: RLSettings
    out: Path
    seed: int
    dialect: Dialect
    tools: ToolsetFactory
    limits: Limits
    template_options: dict[str, Any] | None = None
    reward_model: Scorer | None = None
    on_rollouts: Callable[[list[Trajectory]], None] | None = None
    judge_seconds: float = OWN_SECONDS


class Backend(Protocol):
    """Trains models. Every training saves the model whole to `out`, or leaves nothing there, and returns logged rows.

    All trainings raise InputError where there is nothing to train on, and TrainingError where no weight changes. A
    training that a back end does not have is an InputError of `check`.
    """

    def check(self, section: Section, settings: SFTSettings | RewardSettings | RLSettings) -> None:
        """Raise InputError for a missing package and for settings it cannot take. Runs and loads no model."""

    def train_sft(
        self, rows: Sequence[Row], model: ModelSettings, settings: SFTSettings, out: Path, *, seed: int
    ) -> list[Row]:
        """Train on rows with `input_ids` and `mask` (1: the model's own token, which has a loss)."""

    def train_reward_model(
        self,
        pairs: Sequence[Row],
        model: ModelSettings,
        settings: RewardSettings,
        out: Path,
        *,
        seed: int,
        dialect: str,
    ) -> tuple[list[Row], dict[str, float | None]]:
        """Train on pairs with `chosen_ids`, `rejected_ids` and `split`; (logged rows, accuracies on the held-out ones).

        The accuracies are those of `rewright.training.pair_accuracy.pair_accuracies`.
        """

    def load_reward_model(self, path: Path) -> Scorer:
        """The reward model that `train_reward_model` has saved."""

    def train_rl(self, job: RLJob) -> list[Row]:
        """Train the policy by RL, with the advantages of `rewright.training.group_credit`."""


def get_backend(name: str, setting: str) -> Backend:
    """The back end that is registered as `name`, or that stands at that import path. `setting`: the key that names it.

    Raises InputError for an unknown one.
    """
    found = find("trainer", name, setting=setting)
    if not callable(found):
        raise InputError(f"{setting}: {name} is no trainer: expected a class of rewright.training.backend.Backend")
    backend: Backend = found()
    return backend
