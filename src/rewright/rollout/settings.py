"""Settings of rollouts: limits, candidate synthesis and evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rewright.core.settings import NonNegativeFloat, PositiveFloat, PositiveFraction, PositiveInt, Settings, UnusedKey
from rewright.engines.settings import ModelSettings
from rewright.tasks.settings import TaskSettings

__all__ = ["EvalSettings", "Limits", "SynthSettings", "UserSettings", "unused_user_keys"]


def unused_user_keys(section: Mapping[str, Any]) -> Iterator[UnusedKey]:
    """Yield the keys that a `user:` section ignores."""
    if section.get("model") is None:
        yield from (UnusedKey(key, "model", "null") for key in ("temperature", "turn_tokens"))


class Limits(Settings, frozen=True):
    """Limits of a trajectory. None: no limit.

    `turns` counts from the last user message. `trajectory_tokens` counts all tokens after the prompt, tool results
    included (as TRL's `max_completion_length`). For a message engine the counts are those that the server reports, so
    results are counted with the turn that reads them, and there is no limit if the server reports no usage.
    """

    turns: PositiveInt | None = 10
    """Maximum number of turns."""
    turn_tokens: PositiveInt = 1024
    """Maximum number of tokens in one turn."""
    trajectory_tokens: PositiveInt | None = 8192
    """Maximum number of tokens after the prompt."""
    tool_calls: PositiveInt | None = None
    """Maximum number of tool calls."""
    tool_seconds: PositiveFloat = 5.0
    """Time limit of one tool call, in seconds."""
    tool_characters: PositiveInt | None = 4000
    """Maximum length of one tool result, in characters; the middle of a longer one is removed."""
    trajectory_seconds: PositiveFloat | None = 600.0
    """Time limit of a trajectory, in seconds."""


class UserSettings(Settings, frozen=True):
    """The simulated users of tasks that have one (`Task.user`)."""

    model: ModelSettings | None = None
    """The model that plays the users, of engine `openai`; it is asked in mode `chat`. null: no task needs one."""
    temperature: NonNegativeFloat = 0.0
    """Sampling temperature of this model."""
    turn_tokens: PositiveInt = 1024
    """Maximum number of tokens in one message of a user."""


class SynthSettings(Settings, frozen=True):
    """Candidate synthesis (AutoTraj section 3.1: 2 candidates per task at temperature 0.3, top-p 0.9)."""

    n: PositiveInt = 2
    """Number of candidates per task."""
    temperature: NonNegativeFloat = 0.3
    """Sampling temperature."""
    top_p: PositiveFraction = 0.9
    """Nucleus sampling probability."""
    limit: PositiveInt | None = None
    """Maximum number of tasks; default: all."""
    concurrency: PositiveInt = 96
    """Maximum number of concurrent trajectories."""


class EvalSettings(Settings, frozen=True):
    """Held-out evaluation."""

    tasks: TaskSettings = TaskSettings(split="heldout", count=400, seed=1)
    """The held-out tasks."""
    benchmark: str | None = None
    """Benchmark whose own metrics are computed: a name or an import path. `rewright eval --benchmark` sets it."""
    n: PositiveInt = 1
    """Number of trajectories per task."""
    temperature: NonNegativeFloat = 1.0
    """Sampling temperature."""
    top_p: PositiveFraction = 1.0
    """Nucleus sampling probability."""
    concurrency: PositiveInt = 128
    """Maximum number of concurrent trajectories."""
    report_to: tuple[str, ...] | None = None
    """`tensorboard`, `trackio`, `wandb`, and trackers of your own. Default: those of the training stages."""
