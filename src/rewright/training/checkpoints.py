"""Checkpoints of a training stage: where they are, and how they are removed."""

from __future__ import annotations

import shutil
from pathlib import Path

from rewright.core.errors import StorageError

__all__ = ["checkpoint_folder", "discard_checkpoints"]


def checkpoint_folder(model: Path) -> Path:
    """Return the checkpoint folder of a model in training.

    It is a sibling of `model`, so that the folder `model` is complete if it exists.
    """
    return model.with_name(model.name + ".checkpoints")


def discard_checkpoints(model: Path) -> None:
    """Remove the checkpoints of a model, all or none of them.

    The folder is renamed first: a process that is killed while it deletes the files one by one would leave a checkpoint
    that looks complete, from which the training could not be resumed, or only without the state of its optimizer. What
    such a process has left is removed by the next call. Raises StorageError if the folder cannot be renamed.
    """
    folder = checkpoint_folder(model)
    removed = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(removed, ignore_errors=True)
    if folder.exists():
        try:
            folder.rename(removed)
        except OSError as problem:
            raise StorageError(f"cannot remove {folder}: {problem.strerror or problem}") from problem
        shutil.rmtree(removed, ignore_errors=True)
