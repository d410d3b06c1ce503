"""What every judge returns, and how answers are quoted in reasons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

__all__ = ["AnswerJudge", "Judgement"]


class Judgement(msgspec.Struct, frozen=True):
    """How right one answer is: `outcome` in [0, 1], one line of reason, and the judge's other numbers."""

    outcome: float
    reason: str
    metrics: dict[str, float] = {}


AnswerJudge = Callable[[str, Sequence[str]], Judgement]
"""Compares a non-empty answer with one or more gold answers. Never raises on any answer text."""
