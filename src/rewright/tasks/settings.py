"""Settings of a source of tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rewright.core.settings import PositiveInt, Seed, Settings, UnusedKey
from rewright.judging.judges import JUDGE_NAMES

__all__ = ["WORLD_FORMATS", "TaskSettings", "path_problem", "unused_keys"]


class TaskSettings(Settings, frozen=True):
    """Where tasks come from: an embedded world (`town`, `almanac`) or a file in a known format."""

    format: str = "town"
    """Task format: an embedded world, `rewright` (JSON Lines of this package), or that of a published data set."""
    path: str | None = None
    """The file, `hf:` or `hf:owner/name`. Embedded worlds have none."""
    split: str = "train"
    """town: `train`, `heldout` or `long`; almanac: `train` or `heldout`."""
    profile: str | None = None
    """Difficulty. town: `short`, `standard`, `cached`, `long` or `all`; almanac: `short` or `standard`."""
    count: PositiveInt = 300
    """town, almanac: number of tasks to draw."""
    seed: Seed = 0
    """town, almanac, reasoning_gym: seed of the draw."""
    limit: PositiveInt | None = None
    """Maximum number of tasks; default: all."""
    judge: str | None = None
    """Judge of every task of this section, instead of the judge that the format or the file names."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.judge is not None and self.judge not in JUDGE_NAMES and ":" not in self.judge:
            known = ", ".join(JUDGE_NAMES)
            raise ValueError(f"judge must be one of {known} or package.module:function, got {self.judge!r}")


WORLD_FORMATS: Final = ("town", "almanac")
"""`tasks.format` of the embedded worlds, which make their tasks themselves; all others are read from `tasks.path`."""
WORLD_KEYS: Final = ("split", "profile", "count", "seed")
"""Settings that only the embedded worlds read."""


def unused_keys(section: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[UnusedKey]:
    """The keys of a section of tasks that its format does not read. `defaults`: of that section."""
    kind = section.get("format", defaults.get("format"))
    if kind not in WORLD_FORMATS:
        for key in WORLD_KEYS:
            hint = f", and {key} is for the embedded worlds (to bound the number of tasks: limit)"
            yield UnusedKey(key, "format", kind, hint)


def path_problem(section: Mapping[str, Any], defaults: Mapping[str, Any], name: str) -> str | None:
    """What is wrong with the `path` of the section `name`: an embedded world has none."""
    kind, path = section.get("format", defaults.get("format")), section.get("path")
    if path is None or kind not in WORLD_FORMATS:
        return None
    return (
        f"{name}.path is {path}, but {name}.format is {kind}, which makes its tasks itself: expected the file's "
        f"format, as {name}.format=rewright"
    )
