"""Settings of the repairer."""

from __future__ import annotations

from typing import Literal

from rewright.core.settings import NonNegativeFloat, NonNegativeInt, PositiveFraction, PositiveInt, Settings
from rewright.engines.settings import ModelSettings
from rewright.repair.references import DEFAULT, compiled

__all__ = ["RepairSettings"]


class RepairSettings(Settings, frozen=True):
    """LLM-as-Repairer (AutoTraj section 3.3). Thresholds are the authors'."""

    model: ModelSettings | None = None
    attempts: PositiveInt = 1
    temperature: NonNegativeFloat = 0.0
    top_p: PositiveFraction = 1.0
    calls: NonNegativeInt = 3
    """How many calls the repairer is told it may make."""
    show_gold: bool = False
    rules: str | None = None
    """The end of the repairer's prompt, with `{calls}`; default: `rewright.repair.decision.RULES`."""
    refused_phrases: tuple[str, ...] = (DEFAULT,)
    """A repair in which one of these regular expressions is found refers to what the student never sees. `default`
    stands for the standard ones (`rewright.repair.references`)."""
    refused_first_phrases: tuple[str, ...] = (DEFAULT,)
    """As `refused_phrases`, in the first turn of a repair only."""
    modes: tuple[Literal["wrong_answer", "low_quality"], ...] = ("wrong_answer", "low_quality")
    low_quality_threshold: NonNegativeFloat = 0.86
    wrong_answer_threshold: NonNegativeFloat = 0.8
    concurrency: PositiveInt = 96

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("refused_phrases", "refused_first_phrases"):
            try:
                compiled(getattr(self, name), ())
            except ValueError as problem:
                raise ValueError(f"{name}: {problem}") from problem
