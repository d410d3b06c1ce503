"""Runs in TensorBoard, wandb and trackio: one for each stage, with the names of `rewright.training.trackers`."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from rewright.training.trackers import TrackedStage

__all__ = ["evaluation_scalars", "event_writer", "log_evaluation", "open_trackio", "open_wandb", "to_standard_error"]


@contextmanager
def to_standard_error() -> Iterator[None]:
    """Redirect what a tracker prints, since standard output is reserved for results."""
    with redirect_stdout(sys.stderr):
        yield


def event_writer(folder: Path, first_step: int = 0) -> Any:
    """Open a TensorBoard writer of event files in `folder`.

    TensorBoard no longer shows earlier events from `first_step` on, which an interrupted or repeated stage has left.
    """
    try:
        writers = importlib.import_module("torch.utils.tensorboard")
    except ImportError:  # no torch or no tensorboard; as in transformers
        writers = importlib.import_module("tensorboardX")

    return writers.SummaryWriter(log_dir=str(folder), purge_step=first_step)


def open_wandb(stage: TrackedStage, *, project: str, name: str, run_id: str | None = None) -> Any:
    """Open a run of wandb, grouped with the other stages of the same run. `run_id`: continue the run with this id.

    wandb has one current run per process. Where the user has opened one, it is used, and None is returned.
    """
    import wandb

    if wandb.run is not None:
        return None
    resume = {} if run_id is None else {"id": run_id, "resume": "allow"}
    return wandb.init(project=project, name=name, group=stage.run, job_type=stage.stage, **resume)


def open_trackio(stage: TrackedStage, *, project: str, name: str, resume: bool = False, **settings: Any) -> Any:
    """Open a run of trackio. `resume`: continue the latest run of that name, if any."""
    import trackio

    return trackio.init(
        project=project, name=name, group=stage.run, resume="allow" if resume else "never", embed=False, **settings
    )


def evaluation_scalars(row: Mapping[str, Any], prefix: str = "eval") -> dict[str, float]:
    """Return the finite numbers of an evaluation's row by name, nested ones as `eval/categories/NAME/success`."""
    scalars: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            scalars |= evaluation_scalars(value, f"{prefix}/{key}")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            scalars[f"{prefix}/{key}"] = value
    return scalars


def log_evaluation(logger: str, stage: TrackedStage, row: Mapping[str, Any]) -> None:
    """Log an evaluation's row as a run of its own in `tensorboard`, `trackio` or `wandb`."""
    scalars = evaluation_scalars(row)
    with to_standard_error():
        if logger == "tensorboard":
            writer = event_writer(stage.tensorboard_folder())
            for name, value in scalars.items():
                writer.add_scalar(name, value, 0)
            writer.close()
        elif logger == "wandb":
            import wandb

            opened = open_wandb(stage, project=stage.project_in("WANDB_PROJECT"), name=stage.name)
            wandb.log(scalars)
            if opened is not None:
                opened.finish()
        else:
            import trackio

            open_trackio(stage, project=stage.project_in("TRACKIO_PROJECT"), name=stage.name)
            try:
                trackio.log(scalars)
            finally:
                trackio.finish()
