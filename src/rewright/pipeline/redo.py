"""Redo a finished stage: the new results are written to a separate folder and replace the old ones at the end.

    RUN/redo/<stage>/   files that the stage has written so far, named as in RUN
      recipe.yaml       the recipe at the start; if the run's recipe has changed, the redo is discarded
      done.json         exists when the stage is finished and its files are to replace those in RUN

RUN is not modified until done.json exists. Then the files are moved. If a kill interrupts this, the next process that
opens the run for writing completes it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self, TypedDict

import msgspec

from rewright.core.errors import InputError, StorageError
from rewright.core.files import remove_folder
from rewright.core.storage import write_atomically
from rewright.pipeline.registry import Stage, run_order
from rewright.pipeline.run_directory import TASK_FILES, Run
from rewright.training.checkpoints import discard_checkpoints

__all__ = ["Redo", "complete", "discard_later"]

BOOKKEEPING_FILES: Final = ("recipe.yaml", "done.json", "metrics.jsonl")


class _Done(TypedDict):
    """The content of done.json: the stage's entry in state.json, its files, its metrics rows (None: unchanged)."""

    state: dict[str, Any]
    files: list[str]
    metrics: list[dict[str, Any]] | None


class Redo(Run):
    """A view of a run in which `stage` is not done and writes to a separate folder."""

    def __init__(self, run: Run, stage: Stage) -> None:
        self.stage, self.folder = stage, _folder(run, stage.name)
        self._metrics: list[dict[str, Any]] | None = None
        super().__init__(run.path)
        self.trusted = run.trusted

    @classmethod
    def begin(cls, run: Run, stage: Stage) -> Self:
        """Start a redo; files of an earlier, interrupted one are removed. Raises StorageError if writing fails."""
        remove_folder(_folder(run, stage.name))
        redo = cls(run, stage)
        try:
            redo.folder.mkdir(parents=True)
            shutil.copyfile(run.path / "recipe.yaml", redo.folder / "recipe.yaml")
        except OSError as problem:
            raise StorageError(f"cannot write {redo.folder}: {problem.strerror or problem}") from problem
        return redo

    @classmethod
    def pending(cls, run: Run, stage: Stage) -> Self | None:
        """The interrupted redo of a stage; None if there is none, or if the recipe has changed (it is discarded)."""
        redo = cls(run, stage)
        if not redo.folder.exists():
            return None
        try:
            same = (redo.folder / "recipe.yaml").read_bytes() == (run.path / "recipe.yaml").read_bytes()
        except OSError:
            same = False
        if not same:
            redo.discard()
        return redo if same else None

    def has_work(self) -> bool:
        """Whether the stage has written any results."""
        return any(
            path.is_file() and path.name not in (*BOOKKEEPING_FILES, *TASK_FILES) for path in self.folder.rglob("*")
        )

    def discard(self) -> None:
        """Remove the new files; the earlier results stay."""
        self.close()
        remove_folder(self.folder)
        _drop_empty(self.folder.parent)

    # Overrides of `Run`.

    def file(self, name: str) -> Path:
        """Path of a file: in the redo folder for files of the stage, else in the run."""
        return (self.folder if name in (*self.stage.files, *TASK_FILES) else self.path) / name

    def is_done(self, stage: str) -> bool:
        """Whether the stage is done; False for the redone stage."""
        return stage != self.stage.name and super().is_done(stage)

    def set_metrics(self, stage: str, rows: Sequence[dict[str, Any]]) -> None:
        """Store the metrics of the stage until it is finished."""
        self._metrics = list(rows)

    def finish(self, stage: str, seconds: float, **details: Any) -> None:
        """Mark the stage as done and replace the earlier files."""
        self.close()
        names = [name for name in (*self.stage.files, *TASK_FILES) if (self.folder / name).exists()]
        state = {"done": True, "seconds": round(seconds, 2), **details}
        done = _Done(state=state, files=names, metrics=self._metrics)
        write_atomically(self.folder / "done.json", [msgspec.json.encode(done)])
        _replace(Run(self.path), self.stage, self.folder)


def complete(run: Run) -> None:
    """Complete interrupted replacements of files, and removals. The caller has locked the run."""
    for stage in run_order(run.recipe()):
        folder = _folder(run, stage.name)
        if (folder / "done.json").exists():
            _replace(run, stage, folder)
    for left in (run.path / "redo").glob("*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    _drop_empty(run.path / "redo")


def discard_later(run: Run, stage: Stage) -> None:
    """Discard pending redos of the stages after `stage`, because their inputs have changed."""
    order = run_order(run.recipe())
    place = next(index for index, other in enumerate(order) if other.name == stage.name)
    for later in order[place + 1 :]:
        if _folder(run, later.name).exists():
            Redo(run, later).discard()


def _folder(run: Run, stage: str) -> Path:
    return run.path / "redo" / stage


def _replace(run: Run, stage: Stage, folder: Path) -> None:
    """Move the files of `folder` over those of the run. Idempotent, so that an interrupted call can be repeated."""
    try:
        done = msgspec.json.decode((folder / "done.json").read_bytes(), type=_Done)
    except (OSError, msgspec.DecodeError) as problem:
        raise InputError(f"cannot read {folder / 'done.json'}: {problem}: remove {folder}") from None
    try:
        for name in dict.fromkeys((*stage.files, *done["files"])):
            _move(folder / name, run.path / name, written=name in done["files"], aside=folder / "earlier")
            if name.startswith("models/"):
                discard_checkpoints(run.path / name)
    except OSError as problem:
        raise StorageError(f"cannot write {run.path}: {problem.strerror or problem}") from problem
    if done["metrics"] is not None:
        run.set_metrics(stage.name, done["metrics"])
    run.write_json("state.json", {**run.state(), stage.name: done["state"]})
    remove_folder(folder)
    _drop_empty(folder.parent)


def _move(new: Path, old: Path, *, written: bool, aside: Path) -> None:
    """Replace `old` by `new`, or remove `old` if the stage has not written the file this time.

    If `new` was written but does not exist, it has already been moved.
    """
    if written and not new.exists():
        return
    if old.is_dir():  # a folder cannot be renamed over another one
        shutil.rmtree(aside, ignore_errors=True)
        old.rename(aside)
    elif not written:
        old.unlink(missing_ok=True)
    if written:
        old.parent.mkdir(parents=True, exist_ok=True)
        new.rename(old)


def _drop_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
