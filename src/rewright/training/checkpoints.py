"""Where the checkpoints of a training stage lie."""

from __future__ import annotations

from pathlib import Path

__all__ = ["checkpoint_folder"]


def checkpoint_folder(model: Path) -> Path:
    """Where the checkpoints of a model under training are: beside it, so that `model` is whole or not there."""
    return model.with_name(model.name + ".checkpoints")
