"""Settings of rollouts: their limits, and the stages that only roll out."""

from __future__ import annotations

from rewright.core.settings import Settings
from rewright.tasks.settings import TaskSettings

__all__ = ["EvalSettings", "Limits", "SynthSettings"]


class Limits(Settings, frozen=True):
    """When a trajectory ends. None: no limit.

    `turns` counts from the last message of the user. `trajectory_tokens` counts everything after the prompt, tool
    results included (as TRL's `max_completion_length`). Where an engine is given messages it is what the server
    reports, so results are counted with the turn that reads them; a server that reports nothing is not limited.
    """

    turns: int | None = 10
    turn_tokens: int = 1024
    trajectory_tokens: int | None = 8192
    tool_calls: int | None = None
    tool_seconds: float = 5.0
    tool_characters: int | None = 4000
    trajectory_seconds: float | None = 600.0


class SynthSettings(Settings, frozen=True):
    """Candidates (AutoTraj section 3.1: 2 per task at temperature 0.3, top-p 0.9)."""

    n: int = 2
    temperature: float = 0.3
    top_p: float = 0.9
    limit: int | None = None
    concurrency: int = 96


class EvalSettings(Settings, frozen=True):
    """Held-out evaluation."""

    tasks: TaskSettings = TaskSettings(split="heldout", count=400, seed=1)
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    concurrency: int = 128
