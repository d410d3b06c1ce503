"""Trackers: where the numbers of a training stage go besides metrics.jsonl. Named in `report_to` of the stage.

`report_to` takes TRL's integrations (`wandb`, `tensorboard`, …), which log while they train, and trackers of one's own:
a registered name (kind `tracker`) or an import path of a function that gives a `Tracker` for a run directory. A tracker
is given the rows of the stage when the stage is finished.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.core.registry import find, known

__all__ = ["Tracker", "find_tracker", "own_trackers", "report", "trl_integrations"]


class Tracker(Protocol):
    """What takes the numbers of a stage."""

    def log(self, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """The rows of `stage` as metrics.jsonl has them: a row for each logged step.

        A stage that is done again is logged again, and so is one whose end a kill has interrupted.
        """


def own_trackers(report_to: Iterable[str]) -> list[str]:
    """The names that are trackers of one's own, not TRL's."""
    names = list(report_to)
    registered = known("tracker") if names else []
    return [name for name in names if ":" in name or name in registered]


def trl_integrations(report_to: Sequence[str]) -> list[str]:
    """The names that TRL is to look after."""
    own = own_trackers(report_to)
    return [name for name in report_to if name not in own]


def find_tracker(name: str, setting: str) -> Any:
    """The function that gives a tracker. Raises InputError, which names `setting`, where there is none."""
    found = find("tracker", name, setting=setting)
    if not callable(found):
        raise InputError(f"{setting}: tracker {name!r} is a {type(found).__name__}: expected a function or a class")
    return found


def report(report_to: Iterable[str], folder: Path, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Give the rows of a finished stage to the trackers of `report_to`; `folder` is the run directory.

    What a tracker raises is a warning: the stage is done, and its numbers are in metrics.jsonl.
    """
    for name in own_trackers(report_to) if rows else ():
        try:
            find_tracker(name, f"{stage}.report_to")(folder).log(stage, rows)
        except Exception as problem:  # a user's code, perhaps a server that is gone
            say(f"warning: {stage}.report_to: tracker {name!r} failed: {type(problem).__name__}: {problem}")
