"""Experiment trackers for the metrics of training stages and evaluations, in addition to metrics.jsonl.

`report_to` of a stage accepts TRL's integrations (`wandb`, `tensorboard`, `trackio`, …), which log during training, and
custom trackers: a registered name (kind `tracker`) or an import path of a function that returns a `Tracker` for a run
directory. Custom trackers receive the rows of a stage when it is finished.

Every stage has a run of its own in a tracker, `<run>/<stage>` in the project `rewright`. Evaluations are logged by
`rewright.training.tracker_runs`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.core.registry import find, known

__all__ = [
    "LOGGERS",
    "TrackedStage",
    "Tracker",
    "check_evaluation_trackers",
    "current_stage",
    "custom_trackers",
    "find_tracker",
    "report",
    "tracked_stage",
    "trl_integrations",
]

LOGGERS: Final = ("tensorboard", "trackio", "wandb")
"""TRL's integrations that also receive evaluations."""
PROJECT: Final = "rewright"


class Tracker(Protocol):
    """Receives the metrics of a stage."""

    def log(self, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log the rows of `stage` as in metrics.jsonl: one per logged step, or the one row of an evaluation.

        Called again if the stage is redone, or was killed while it finished.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedStage:
    """The stage whose metrics are logged.

    Attributes:
        folder: the run directory.
        run: name of the run.
        stage: name of the stage.
        project: project in the trackers, as set by the user; None: unset.
    """

    folder: Path
    run: str
    stage: str
    project: str | None = None

    @classmethod
    def of(cls, folder: Path, stage: str, project: str | None) -> Self:
        """The stage of a run directory. The run is named after the folder."""
        return cls(folder=folder, run=folder.resolve().name, stage=stage, project=project)

    @property
    def name(self) -> str:
        """Name of the stage's run in a tracker."""
        return f"{self.run}/{self.stage}"

    def project_in(self, variable: str) -> str:
        """The project in a tracker: the user's setting, else the environment variable, else `rewright`."""
        return self.project or os.environ.get(variable) or PROJECT

    def tensorboard_folder(self) -> Path:
        """The folder of the event files: in the run directory, or in `TENSORBOARD_LOGGING_DIR` if that is set."""
        chosen = os.environ.get("TENSORBOARD_LOGGING_DIR")
        root = Path(chosen).expanduser() / self.run if chosen else self.folder / "tensorboard"
        return root / self.stage


_current: ContextVar[TrackedStage | None] = ContextVar("tracked_stage", default=None)


@contextmanager
def tracked_stage(folder: Path, stage: str, project: str | None) -> Iterator[None]:
    """Name the tracker runs of the training inside the context after a stage of the run directory `folder`."""
    token = _current.set(TrackedStage.of(folder, stage, project))
    try:
        yield
    finally:
        _current.reset(token)


def current_stage(out: Path) -> TrackedStage:
    """Return the running stage. Outside a run it is named after `out`, the folder of the trained model."""
    return _current.get() or TrackedStage.of(out.parent, out.name, None)


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


def check_evaluation_trackers(report_to: Sequence[str], setting: str) -> None:
    """Raise InputError for a tracker that does not exist, takes no evaluations, or is not installed."""
    for name in custom_trackers(report_to):
        find_tracker(name, setting)
    for name in trl_integrations(report_to):
        if name not in (*LOGGERS, "all", "none"):
            choices = ", ".join([*LOGGERS, *known("tracker"), "all", "none"])
            raise InputError(f"{setting} is {name!r}: expected one of {choices}, or an import path")
        if name in LOGGERS and importlib.util.find_spec(name) is None:
            raise InputError(f"{setting}: {name} is not installed: pip install {name}")


def report(
    report_to: Mapping[str, str], stage: TrackedStage, rows: Sequence[Mapping[str, Any]], *, evaluation: bool
) -> None:
    """Pass the rows of a finished stage to the custom trackers, and an evaluation also to `LOGGERS`.

    Args:
        report_to: the recipe key that names it, by tracker.
        stage: the stage.
        rows: its rows of metrics.jsonl.
        evaluation: whether the stage is an evaluation. TRL has logged the others.

    An exception of a tracker is reported as a warning, since the metrics are already in metrics.jsonl.
    """
    custom = custom_trackers(report_to)
    for name, setting in _evaluation_loggers(report_to, custom) if evaluation else ():
        from rewright.training.tracker_runs import log_evaluation

        for row in rows:
            _try(setting, name, log_evaluation, name, stage, row)
    for name in custom if rows else ():
        _try(report_to[name], name, _log_rows, name, report_to[name], stage, rows)


def _evaluation_loggers(report_to: Mapping[str, str], custom: Sequence[str]) -> list[tuple[str, str]]:
    if "all" in report_to:
        return [(name, report_to["all"]) for name in LOGGERS if importlib.util.find_spec(name) is not None]
    return [(name, setting) for name, setting in report_to.items() if name in LOGGERS and name not in custom]


def _log_rows(name: str, setting: str, stage: TrackedStage, rows: Sequence[Mapping[str, Any]]) -> None:
    find_tracker(name, setting)(stage.folder).log(stage.stage, rows)


def _try(setting: str, name: str, log: Any, *arguments: Any) -> None:
    try:
        log(*arguments)
    except Exception as problem:  # user code can raise anything
        say(f"warning: {setting}: tracker {name!r} failed: {type(problem).__name__}: {problem}")
