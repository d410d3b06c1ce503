"""Settings of a source of tasks."""

from __future__ import annotations

from typing import Final

from rewright.core.registry import expected, known
from rewright.core.settings import Settings

__all__ = ["WORLD_FORMATS", "TaskSettings"]


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
        if self.judge is not None and ":" not in self.judge and self.judge not in known("judge"):
            raise ValueError(f"judge must be a registered one, got {self.judge!r}: {expected('judge', self.judge)}")


WORLD_FORMATS: Final = ("town", "almanac")
"""`tasks.format` of the embedded worlds, which make their tasks themselves; all others are read from `tasks.path`."""
