"""Location of the checkpoints of a training stage."""

from __future__ import annotations

from pathlib import Path

__all__ = ["checkpoint_folder"]


def checkpoint_folder(model: Path) -> Path:
    """Return the checkpoint folder of a model in training.

    It is a sibling of `model`, so that the folder `model` is complete if it exists.
    """
    return model.with_name(model.name + ".checkpoints")
