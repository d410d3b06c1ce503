"""A run of its own for each training stage in TensorBoard, wandb and trackio, over the callbacks of transformers.

Those alone would write TensorBoard's files beside the checkpoints, which are deleted, and log all stages of a process
to one run of wandb.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

from rewright.core.progress import say
from rewright.training.checkpoints import checkpoint_folder
from rewright.training.tracker_runs import event_writer, open_trackio, open_wandb, to_standard_error
from rewright.training.trackers import PROJECT, TrackedStage, current_stage

__all__ = ["tracking"]

RUN_ID: Final = "wandb_run_id"
"""File beside the checkpoints with the id of the run in wandb, which a resumed stage continues."""


class _KeepRunId(TrainerCallback):  # type: ignore[misc]
    """Stores the id of the run in wandb with every checkpoint."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self.folder, self.run_id = folder, run_id

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the file."""
        (self.folder / RUN_ID).write_text(self.run_id, encoding="utf-8")


class _Trackio(TrackioCallback):  # type: ignore[misc]
    """Opens a new run of trackio, unless a stage is resumed. TrackioCallback continues any run of the same name."""

    def __init__(self, stage: TrackedStage, *, resumed: bool) -> None:
        super().__init__()
        self.stage, self.resumed = stage, resumed

    def setup(self, args: Any, state: Any, model: Any, **_: Any) -> None:
        """Open the run."""
        if state.is_world_process_zero:
            config = {**model.config.to_dict(), **args.to_dict()}
            remote = {
                "space_id": getattr(args, "trackio_space_id", None),
                "private": getattr(args, "hub_private_repo", None),
                "bucket_id": getattr(args, "trackio_bucket_id", None),
            }
            open_trackio(
                self.stage,
                project=_project(self.stage, args, "TRACKIO_PROJECT"),
                name=args.run_name,
                resume=self.resumed,
                config={key: value for key, value in config.items() if not key.startswith("_")},  # reserved
                **{key: value for key, value in remote.items() if value is not None},
            )
            self._space_id = self._trackio.context_vars.current_space_id.get()
        self._initialized = True


@contextmanager
def tracking(trainer: Any, out: Path, resumed_step: int | None) -> Iterator[None]:
    """Open the stage's runs in the trackers of `trainer.args.report_to`, and close them at the end, also on an error.

    Args:
        trainer: a trainer of TRL, before `train`.
        out: folder of the model.
        resumed_step: step of the checkpoint from which the training goes on, in the same runs; None: it starts anew.

    A tracker that cannot be opened is reported as a warning and removed, since the metrics are in metrics.jsonl too.
    """
    stage = current_stage(out)
    closing: list[Callable[[bool], None]] = []
    opened = [
        (TensorBoardCallback, "tensorboard", _open_tensorboard),
        (WandbCallback, "wandb", _open_wandb),
        (TrackioCallback, "trackio", _open_trackio),
    ]
    used = {type(callback) for callback in trainer.callback_handler.callbacks}
    if not trainer.is_world_process_zero() or not any(kind in used for kind, *_ in opened):
        yield
        return
    failed = True
    with to_standard_error():
        for kind, name, open_run in opened:
            if kind not in used:
                continue
            try:
                closing.append(open_run(trainer, stage, out, resumed_step))
            except Exception as problem:  # no login, no network, a full disk: each library raises its own errors
                trainer.remove_callback(kind)
                say(f"warning: {stage.stage}.report_to: tracker {name!r} failed: {type(problem).__name__}: {problem}")
        try:
            yield
            failed = False
        finally:
            for close in closing:
                close(failed)


def _project(stage: TrackedStage, args: Any, variable: str) -> str:
    """The project: `project` of the recipe or of `arguments`, else an environment variable, else `rewright`."""
    return stage.project_in(variable) if args.project == PROJECT else str(args.project)


def _open_tensorboard(trainer: Any, stage: TrackedStage, out: Path, resumed_step: int | None) -> Callable[[bool], None]:
    writer = event_writer(stage.tensorboard_folder(), 0 if resumed_step is None else resumed_step + 1)
    trainer.remove_callback(TensorBoardCallback)
    trainer.add_callback(TensorBoardCallback(tb_writer=writer))
    return lambda failed: writer.close()


def _open_wandb(trainer: Any, stage: TrackedStage, out: Path, resumed_step: int | None) -> Callable[[bool], None]:
    file = checkpoint_folder(out) / RUN_ID
    known = file.read_text(encoding="utf-8") if resumed_step is not None and file.exists() else None
    project = _project(stage, trainer.args, "WANDB_PROJECT")
    run = open_wandb(stage, project=project, name=trainer.args.run_name, run_id=known)
    if run is None:
        return lambda failed: None
    trainer.add_callback(_KeepRunId(checkpoint_folder(out), run.id))
    return lambda failed: run.finish(exit_code=int(failed))


def _open_trackio(trainer: Any, stage: TrackedStage, out: Path, resumed_step: int | None) -> Callable[[bool], None]:
    trainer.remove_callback(TrackioCallback)
    callback = _Trackio(stage, resumed=resumed_step is not None)
    callback.setup(trainer.args, trainer.state, trainer.model)
    trainer.add_callback(callback)

    def close(failed: bool) -> None:
        if failed:  # else `on_train_end` has closed it
            with suppress(RuntimeError):  # there is no open run
                callback._trackio.finish()

    return close
