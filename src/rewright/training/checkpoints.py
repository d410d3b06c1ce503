"""Location of the checkpoints of a training stage."""

from __future__ import annotations

from pathlib import Path

__all__ = ["checkpoint_folder"]


def checkpoint_folder(model: Path) -> Path:
    """The checkpoint folder of a model in training: a sibling, so that the folder `model` is complete if it exists."""
    return model.with_name(model.name + ".checkpoints")
