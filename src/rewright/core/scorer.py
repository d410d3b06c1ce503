"""What scores whole trajectories: a trained reward model, in this process or served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["Scorer"]


class Scorer(Protocol):
    """A reward model, wherever it is."""

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """One number per token sequence, in the order given. Raises `ServerError` where a server does not answer."""
        ...
