"""Limits of the benchmarks of questions. None of them has published ones; a suite sets those of its paper."""

from __future__ import annotations

from typing import Final

__all__ = ["LONG_ANSWERS", "SHORT_ANSWERS"]

LONG_ANSWERS: Final = ("limits.turns=10", "limits.turn_tokens=16384", "limits.trajectory_tokens=null")
"""For mathematics and hard questions, which models answer after long thoughts."""
SHORT_ANSWERS: Final = ("limits.turns=10", "limits.turn_tokens=4096", "limits.trajectory_tokens=null")
"""For questions whose answer is a name, a number or a date."""
