"""Experiment trackers for the metrics of training stages, in addition to metrics.jsonl.

`report_to` of a stage accepts TRL's integrations (`wandb`, `tensorboard`, …), which log during training, and custom
trackers: a registered name (kind `tracker`) or an import path of a function that returns a `Tracker` for a run
directory. Custom trackers receive the rows of a stage when it is finished.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.core.registry import find, known

__all__ = ["Tracker", "custom_trackers", "find_tracker", "report", "trl_integrations"]


class Tracker(Protocol):
    """Receives the metrics of a stage."""

    def log(self, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log the rows of `stage` as in metrics.jsonl, one per logged step.

        Called again if the stage is redone, or was killed while it finished.
        """


def custom_trackers(report_to: Iterable[str]) -> list[str]:
    """Return the names in `report_to` of custom trackers, as opposed to TRL's integrations."""
    names = list(report_to)
    registered = known("tracker") if names else []
    return [name for name in names if ":" in name or name in registered]


def trl_integrations(report_to: Sequence[str]) -> list[str]:
    """Return the names in `report_to` that TRL handles."""
    custom = custom_trackers(report_to)
    return [name for name in report_to if name not in custom]


def find_tracker(name: str, setting: str) -> Any:
    """Return the tracker's factory function. Raises InputError, which mentions `setting`, for an unknown name."""
    factory = find("tracker", name, setting=setting)
    if not callable(factory):
        raise InputError(f"{setting}: tracker {name!r} is a {type(factory).__name__}: expected a function or a class")
    return factory


def report(report_to: Iterable[str], folder: Path, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Pass the rows of a finished stage to the custom trackers of `report_to`; `folder` is the run directory.

    An exception of a tracker is reported as a warning, since the metrics are already in metrics.jsonl.
    """
    for name in custom_trackers(report_to) if rows else ():
        try:
            find_tracker(name, f"{stage}.report_to")(folder).log(stage, rows)
        except Exception as problem:  # user code can raise anything
            say(f"warning: {stage}.report_to: tracker {name!r} failed: {type(problem).__name__}: {problem}")
