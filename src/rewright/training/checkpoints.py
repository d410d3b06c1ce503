"""Checkpoints of a training stage: where they are, and how they are removed."""

from __future__ import annotations

from pathlib import Path

from rewright.core.files import remove_folder

__all__ = ["checkpoint_folder", "discard_checkpoints"]


def checkpoint_folder(model: Path) -> Path:
    """Return the checkpoint folder of a model in training.

    It is a sibling of `model`, so that the folder `model` is complete if it exists.
    """
    return model.with_name(model.name + ".checkpoints")


def discard_checkpoints(model: Path) -> None:
    """Remove the checkpoints of a model, all or none of them: from some, the training could not be resumed.

    Raises StorageError if the folder cannot be renamed.
    """
    remove_folder(checkpoint_folder(model))
