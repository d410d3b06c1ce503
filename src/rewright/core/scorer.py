"""The interface of reward models: score whole trajectories, in this process or on a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["Scorer"]


class Scorer(Protocol):
    """A reward model, local or served."""

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """Return one score per token sequence, in the given order. Raises `ServerError` if a server does not answer."""
        ...
