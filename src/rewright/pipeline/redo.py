"""A finished stage done again: the new results are written beside the old ones and replace them at the end.

    RUN/redo/<stage>/   what the stage has written so far, under the names that it has in RUN
      recipe.yaml       the recipe it began with: with another one, what is here is begun anew
      done.json         the stage is finished: from here on its files replace those in RUN

Until done.json is there, nothing in RUN has changed. Once it is, the files are moved, and whoever opens the run for
writing finishes a move that a kill has interrupted.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self, TypedDict

import msgspec

from rewright.core.errors import InputError, StorageError
from rewright.core.storage import write_atomically
from rewright.pipeline.registry import Stage, run_order
from rewright.pipeline.run_directory import TASK_FILES, Run
from rewright.training.checkpoints import checkpoint_folder

__all__ = ["Redo", "complete", "discard_later"]

OWN: Final = ("recipe.yaml", "done.json", "metrics.jsonl")


class _Done(TypedDict):
    """What done.json says: the stage's entry in state.json, its files, its rows of metrics.jsonl (None: as before)."""

    state: dict[str, Any]
    files: list[str]
    metrics: list[dict[str, Any]] | None


class Redo(Run):
    """A run whose `stage` is done again: that stage writes into a folder of its own, all others are as they are."""

    def __init__(self, run: Run, stage: Stage) -> None:
        self.stage, self.folder = stage, _folder(run, stage.name)
        self._metrics: list[dict[str, Any]] | None = None
        super().__init__(run.path)
        self.trusted = run.trusted

    @classmethod
    def begin(cls, run: Run, stage: Stage) -> Self:
        """A new one; what an earlier one that was stopped has left is removed."""
        shutil.rmtree(_folder(run, stage.name), ignore_errors=True)
        redo = cls(run, stage)
        try:
            redo.folder.mkdir(parents=True)
            shutil.copyfile(run.path / "recipe.yaml", redo.folder / "recipe.yaml")
        except OSError as problem:
            raise StorageError(f"cannot write {redo.folder}: {problem.strerror or problem}") from problem
        return redo

    @classmethod
    def pending(cls, run: Run, stage: Stage) -> Self | None:
        """The one that was stopped, None where there is none or the recipe is another one now."""
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
        """Has the stage written anything that took work?"""
        return any(one.is_file() and one.name not in (*OWN, *TASK_FILES) for one in self.folder.rglob("*"))

    def discard(self) -> None:
        """Remove what the stage has written: the earlier results stay."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        _drop_empty(self.folder.parent)

    # What differs from a run.

    def file(self, name: str) -> Path:
        """Where a file stands: those of the stage in its own folder, all others in the run."""
        return (self.folder if name in (*self.stage.files, *TASK_FILES) else self.path) / name

    def is_done(self, stage: str) -> bool:
        """Has the stage finished? The one that is done again has not."""
        return stage != self.stage.name and super().is_done(stage)

    def set_metrics(self, stage: str, rows: Sequence[dict[str, Any]]) -> None:
        """Replace the metrics of the stage when it is finished."""
        self._metrics = list(rows)

    def finish(self, stage: str, seconds: float, **details: Any) -> None:
        """Mark the stage as done: its files replace the earlier ones."""
        self.close()
        names = [name for name in (*self.stage.files, *TASK_FILES) if (self.folder / name).exists()]
        state = {"done": True, "seconds": round(seconds, 2), **details}
        done = _Done(state=state, files=names, metrics=self._metrics)
        write_atomically(self.folder / "done.json", [msgspec.json.encode(done)])
        _replace(Run(self.path), self.stage, self.folder)


def complete(run: Run) -> None:
    """Finish the moves that a kill has interrupted. The run is held for writing."""
    for stage in run_order(run.recipe()):
        folder = _folder(run, stage.name)
        if (folder / "done.json").exists():
            _replace(run, stage, folder)


def discard_later(run: Run, stage: Stage) -> None:
    """Remove what was begun of stages behind `stage`, which has changed what they begin with."""
    order = run_order(run.recipe())
    for later in order[order.index(stage) + 1 :]:
        if _folder(run, later.name).exists():
            Redo(run, later).discard()


def _folder(run: Run, stage: str) -> Path:
    return run.path / "redo" / stage


def _replace(run: Run, stage: Stage, folder: Path) -> None:
    """Move the files of `folder` over those of the run. It may be called again and again until it comes to its end."""
    try:
        done = msgspec.json.decode((folder / "done.json").read_bytes(), type=_Done)
    except (OSError, msgspec.DecodeError) as problem:
        raise InputError(f"cannot read {folder / 'done.json'}: {problem}: remove {folder}") from None
    try:
        for name in dict.fromkeys((*stage.files, *done["files"])):
            _move(folder / name, run.path / name, written=name in done["files"], aside=folder / "earlier")
            if name.startswith("models/"):
                shutil.rmtree(checkpoint_folder(run.path / name), ignore_errors=True)
    except OSError as problem:
        raise StorageError(f"cannot write {run.path}: {problem.strerror or problem}") from problem
    if done["metrics"] is not None:
        run.set_metrics(stage.name, done["metrics"])
    run.write_json("state.json", {**run.state(), stage.name: done["state"]})
    shutil.rmtree(folder, ignore_errors=True)
    _drop_empty(folder.parent)


def _move(new: Path, old: Path, *, written: bool, aside: Path) -> None:
    """Put `new` in the place of `old`; a file or folder that the stage has not written this time is removed.

    Where `new` was written and is not there, it has been moved before.
    """
    if written and not new.exists():
        return
    if old.is_dir():  # no folder can be renamed over another
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
