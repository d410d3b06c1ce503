"""Settings of a source of tasks."""

from __future__ import annotations

from rewright.core.registry import expected, known
from rewright.core.settings import Settings

__all__ = ["TaskSettings"]


class TaskSettings(Settings, frozen=True):
    """Where tasks come from: `format` names a registered task format (an embedded world, a file's format …)."""

    format: str = "town"
    path: str | None = None
    split: str = "train"
    profile: str | None = None
    count: int = 300
    """Of worlds such as town: how many tasks to draw."""
    seed: int = 0
    """Of tasks that are drawn or made by a package: the seed."""
    limit: int | None = None
    judge: str | None = None
    """The judge of every task of this section, instead of the one that the format or the file names."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.judge is not None and ":" not in self.judge and self.judge not in known("judge"):
            raise ValueError(f"judge must be a registered one, got {self.judge!r}: {expected('judge', self.judge)}")
