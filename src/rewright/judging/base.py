"""What every judge returns, and how answers are quoted in reasons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

__all__ = ["AnswerJudge", "Judgement", "shown"]

_SHOWN_CHARACTERS = 80


class Judgement(msgspec.Struct, frozen=True):
    """How right one answer is: `outcome` in [0, 1], one line of reason, and the judge's other numbers."""

    outcome: float
    reason: str
    metrics: dict[str, float] = {}


AnswerJudge = Callable[[str, Sequence[str]], Judgement]
"""Compares a non-empty answer with one or more gold answers. Never raises on any answer text."""


def shown(text: str) -> str:
    """`text` quoted for a reason: one line, cut in the middle where it is long."""
    if len(text) > _SHOWN_CHARACTERS:
        half = _SHOWN_CHARACTERS // 2
        text = f"{text[:half]}…{text[-half:]}"
    return repr(" ".join(text.split()))
