"""Settings of rollouts: their limits, and the stages that only roll out."""

from __future__ import annotations

from rewright.core.settings import NonNegativeFloat, PositiveFloat, PositiveFraction, PositiveInt, Settings
from rewright.tasks.settings import TaskSettings

__all__ = ["EvalSettings", "Limits", "SynthSettings"]


class Limits(Settings, frozen=True):
    """When a trajectory ends. None: no limit.

    `turns` counts from the last message of the user. `trajectory_tokens` counts everything after the prompt, tool
    results included (as TRL's `max_completion_length`). Where an engine is given messages it is what the server
    reports, so results are counted with the turn that reads them; a server that reports nothing is not limited.
    """

    turns: PositiveInt | None = 10
    turn_tokens: PositiveInt = 1024
    trajectory_tokens: PositiveInt | None = 8192
    tool_calls: PositiveInt | None = None
    tool_seconds: PositiveFloat = 5.0
    tool_characters: PositiveInt | None = 4000
    trajectory_seconds: PositiveFloat | None = 600.0


class SynthSettings(Settings, frozen=True):
    """Candidates (AutoTraj section 3.1: 2 per task at temperature 0.3, top-p 0.9)."""

    n: PositiveInt = 2
    temperature: NonNegativeFloat = 0.3
    top_p: PositiveFraction = 0.9
    limit: PositiveInt | None = None
    concurrency: PositiveInt = 96


class EvalSettings(Settings, frozen=True):
    """Held-out evaluation."""

    tasks: TaskSettings = TaskSettings(split="heldout", count=400, seed=1)
    n: PositiveInt = 1
    temperature: NonNegativeFloat = 1.0
    top_p: PositiveFraction = 1.0
    concurrency: PositiveInt = 128
